//! Everything at once from several threads: loads, lookups, calls, redefinitions and removals. Some seconds; a minute where
//! nothing may be skipped (`OBJCACHE_REQUIRE_ALL=1`, CI); an hour with `OBJCACHE_SOAK=1`.
//!
//! By hand under ThreadSanitizer (`RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
//! cargo test -p objcache-loader --target x86_64-unknown-linux-gnu --test library -- --test-threads=1 stress`): what it says
//! is about fences, which it does not know (`seize`, `papaya`, `Arc`), and about the standard library's locks, which are
//! not compiled with it (`LazyLock`, the test harness). With `race:` suppressions for `seize::`, `papaya::`,
//! `alloc::sync::Arc`, `std::sync::`, `std::thread::`, `std::sys::` and `test::` it says nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use objcache_loader::{Implementation, Library, LibraryError, SlabMemory, pin};

use crate::code::{Alive, Functions, call, calling, returning};
use crate::support::{Random, alone};

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

fn is_soak() -> bool {
    is_set("OBJCACHE_SOAK")
}

/// For how long.
fn time() -> Duration {
    Duration::from_secs(match (is_soak(), is_set("OBJCACHE_REQUIRE_ALL")) {
        (true, _) => 3600,
        (false, true) => 60,
        (false, false) => 4,
    })
}

/// Bytes of this process in memory.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// What the allocator keeps of freed memory is no leak.
fn give_back_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it asks nothing of its caller.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn no_mapping_is_writable_and_executable() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    for line in maps.lines() {
        let permissions = line.split(' ').nth(1).unwrap();
        assert!(!(permissions.contains('w') && permissions.contains('x')), "{line}");
    }
}

/// Two threads call a function without pause while a third redefines it and unloads the old code. In a process of its own,
/// since other tests take memory as well.
#[test]
fn a_function_is_redefined_while_it_is_called() {
    alone("stress::a_function_is_redefined_while_it_is_called", redefine_while_called);
}

fn redefine_while_called() {
    let least = if time() > Duration::from_secs(4) { 100_000 } else { 5_000 };
    let alive = Arc::new(Alive::default());
    let memory = SlabMemory::new();
    let library = alive.library_in(Arc::new(memory.clone()), "app");
    library.define_function("f", &library.link("0", &returning("f", 0)).unwrap()).unwrap();
    library.load("caller", &calling("caller", "f")).unwrap();
    // What a call must at least return: that was defined before it began.
    let defined = AtomicI32::new(0);
    let done = AtomicBool::new(false);
    let calls = AtomicU64::new(0);
    // SAFETY: that is their type.
    let f = unsafe { library.get::<extern "C" fn() -> i32>("f") }.unwrap();
    // SAFETY: as above.
    let caller = unsafe { library.get::<extern "C" fn() -> i32>("caller") }.unwrap();
    let function_calls = |function: extern "C" fn() -> i32| {
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            for _ in 0..1000 {
                let guard = pin();
                let least = defined.load(Ordering::SeqCst);
                let result = function();
                drop(guard);
                assert!(result >= least, "a call that began when {least} was defined returned {result}");
                count += 1;
            }
        }
        calls.fetch_add(count, Ordering::Relaxed);
    };
    let started = Instant::now();
    let mut number = 0;
    let (mut after_a_tenth, mut most_waiting) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| function_calls(*f));
        scope.spawn(|| function_calls(*caller));
        while number < least || started.elapsed() < time() {
            number += 1;
            let image = library.link("next", &returning("f", number)).unwrap();
            // SAFETY: the type is the same, and calls are made under guards.
            drop(unsafe { library.redefine("f", &image) }.unwrap());
            defined.store(number, Ordering::SeqCst);
            assert_eq!(f(), number, "this thread's own call");
            if number % 1000 == 0 {
                no_mapping_is_writable_and_executable();
            }
            // A caller that loses its processor while it holds a guard holds up all that is replaced meanwhile.
            most_waiting = most_waiting.max(alive.count());
            if number == least / 10 {
                after_a_tenth = resident_bytes();
            }
        }
        done.store(true, Ordering::Relaxed);
        let now = resident_bytes();
        let may_have = after_a_tenth + (8 << 20) + most_waiting as u64 * 1024;
        assert!(
            now < may_have,
            "memory grew from {after_a_tenth} to {now} bytes; {most_waiting} images waited at most"
        );
    });
    alive.falls_to(2);
    // What the images that waited had is kept for the next ones, unless one asks.
    let kept = resident_bytes();
    memory.release_unused();
    give_back_free_memory();
    let now = resident_bytes();
    assert!(
        now < after_a_tenth + (8 << 20),
        "{after_a_tenth} bytes became {kept}, and {now} with no image waiting of {most_waiting}"
    );
    let calls = calls.into_inner();
    eprintln!(
        "{number} redefinitions and {calls} calls in {:?}, {most_waiting} images waited at most; {after_a_tenth} bytes \
         became {kept} and then {now}",
        started.elapsed()
    );
}

/// Functions of the shared library: what each returns begins with its own number.
const SHARED: i32 = 16;
const STEP: i32 = 1 << 20;

#[test]
fn threads_load_look_up_call_redefine_and_remove_at_once() {
    const THREADS: u64 = 4;
    let alive = Arc::new(Alive::default());
    let shared = alive.library("shared");
    for number in 0..SHARED {
        let name = format!("f{number}");
        let object = returning(&name, number * STEP);
        let make = move |library: &Library| Ok(Implementation::from(&library.link(&name, &object)?));
        shared.define_lazy(&format!("f{number}"), make).unwrap();
    }
    let until = Instant::now() + time();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let shared = &shared;
            scope.spawn(move || {
                let mut random = Random(0x5eed + thread);
                let mut rounds = 0;
                while Instant::now() < until {
                    (0..50).for_each(|_| do_something(shared, thread, &mut random));
                    rounds += 1;
                    if rounds % 16 == 0 {
                        no_mapping_is_writable_and_executable();
                    }
                }
                drop(shared.clone());
            });
        }
    });
    drop(shared);
    alive.falls_to(0);
}

fn do_something(shared: &Library, thread: u64, random: &mut Random) {
    let number = random.below(SHARED as u64) as i32;
    let name = format!("f{number}");
    match random.below(8) {
        0 => {
            let version = number * STEP + random.below(1000) as i32;
            let image = shared.link("version", &returning(&name, version)).unwrap();
            // SAFETY: the type is the same, and calls are made under guards.
            drop(unsafe { shared.redefine(&name, &image) }.unwrap());
        }
        // A name of this thread's own, that refers to what others redefine.
        1 => {
            let own = format!("own{thread}");
            let image = shared.load(&own, &calling(&own, &name)).unwrap();
            assert_eq!(call(shared, &own) / STEP, number);
            drop(shared.remove(&image));
            assert!(!shared.defines(&own));
            let _guard = pin();
            // SAFETY: that is its type.
            assert_eq!(unsafe { image.get::<extern "C" fn() -> i32>(&own) }.unwrap()() / STEP, number);
        }
        // A name that threads fight for: one has it, others are told.
        2 => match shared
            .load("fought", &Functions::default().returning("fought", 5).calling("fought_too", &name).build())
        {
            Ok(image) => drop(shared.remove(&image)),
            Err(error) => assert!(matches!(error, LibraryError::Duplicate { .. }), "{error}"),
        },
        3 => {
            let _guard = pin();
            // SAFETY: that is its type.
            if let Ok(fought) = unsafe { shared.get::<extern "C" fn() -> i32>("fought_too") } {
                assert!((0..SHARED * STEP).contains(&fought()));
            }
        }
        // A lazy function that is made by whoever calls it first, and goes again.
        4 => {
            let name = format!("lazy{}", random.below(4));
            let made = name.clone();
            let make = move |library: &Library| {
                Ok(Implementation::from(&library.link("lazy", &returning(&made, 3))?))
            };
            let defined = shared.define_lazy(&name, make).is_ok();
            let _guard = pin();
            // SAFETY: that is its type.
            if let Ok(lazy) = unsafe { shared.get::<extern "C" fn() -> i32>(&name) } {
                if defined {
                    assert_eq!(lazy(), 3);
                    drop(shared.undefine(&name));
                }
            }
        }
        _ => assert_eq!(call(shared, &name) / STEP, number),
    }
}

/// Names, images, stubs and lazy functions come and go, and nothing is left of them.
#[test]
fn memory_stays_as_it_is_over_many_images() {
    let cycles = if is_soak() { 1_000_000 } else { 20_000 };
    let alive = Arc::new(Alive::default());
    let library = alive.library("app");
    let base = library.load("base", &returning("base", 1)).unwrap();
    let objects: Vec<Vec<u8>> = (0..64).map(|number| calling(&format!("f{number}"), "base")).collect();
    let mut after_a_tenth = 0;
    for cycle in 0..cycles {
        let (number, name) = (cycle % 64, format!("f{}", cycle % 64));
        match cycle % 3 {
            0 => drop(library.remove(&library.load("direct", &objects[number]).unwrap())),
            1 => drop(library.remove(&library.load_redirectable("stubs", &objects[number]).unwrap())),
            _ => {
                // A name of its own each: the table forgets them too.
                let own = format!("{name}_{cycle}");
                library.define_lazy(&own, |_| unreachable!()).unwrap();
                drop(library.undefine(&own));
            }
        }
        if cycle == cycles / 10 {
            after_a_tenth = resident_bytes();
        }
    }
    let now = resident_bytes();
    assert!(now < after_a_tenth + (8 << 20), "memory grew from {after_a_tenth} to {now} bytes");
    assert!(format!("{library:?}").contains("names: 1"), "{library:?}");
    drop(base);
    alive.falls_to(1);
}
