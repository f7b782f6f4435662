//! Functions behind stubs: redefined while they are called, made when they are first called, and what happens if they
//! cannot be.

use std::arch::x86_64::{__m256d, _mm256_set1_pd};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use objcache_loader::{FixedMemory, FunctionErrorKind, Implementation, Library, LibraryError, Loader, pin};

use crate::code::{Alive, Functions, call, calling, returning};
use crate::support::elf::{EXEC, FUNC, GLOBAL, Object, WRITE};
use crate::support::permissions;

/// `ret`
const RET: u8 = 0xc3;

extern "C" fn minus_one() -> i32 {
    -1
}

fn at(function: extern "C" fn() -> i32) -> Implementation {
    Implementation::address(function as usize as u64)
}

/// A library that notes what its functions lack, and has them return -1.
fn noting(name: &str) -> (Library, Arc<Mutex<Vec<String>>>) {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&notes);
    let library = Library::builder(name).on_failure(move |error| {
        log.lock().unwrap().push(error.to_string());
        minus_one as extern "C" fn() -> i32 as usize as u64
    });
    (library.build(), notes)
}

#[test]
fn a_redefined_function_is_another_at_the_same_address() {
    let alive = Arc::new(Alive::default());
    let library = alive.library("app");
    library.define_function("f", &library.link("one", &returning("f", 1)).unwrap()).unwrap();
    library.load("caller", &calling("caller", "f")).unwrap();
    let address = library.address("f").unwrap();
    assert_eq!((call(&library, "f"), call(&library, "caller")), (1, 1));
    assert_eq!(permissions(address), "r-xs", "a stub is code like any");
    for number in 2..200 {
        let image = library.link("next", &returning("f", number)).unwrap();
        // SAFETY: they are of the same type; calls are made under guards.
        drop(unsafe { library.redefine("f", &image) }.unwrap());
        assert_eq!((call(&library, "f"), call(&library, "caller")), (number, number));
        assert_eq!(library.address("f"), Some(address));
        drop(image);
        alive.falls_to(2);
    }
    // SAFETY: as above.
    drop(unsafe { library.redefine("f", at(minus_one)) }.unwrap());
    assert_eq!(call(&library, "caller"), -1);
    alive.falls_to(1);
}

#[test]
fn what_was_redefined_stays_while_a_guard_from_before_is_held() {
    let alive = Arc::new(Alive::default());
    let library = alive.library("app");
    library.define_function("f", &library.link("one", &returning("f", 1)).unwrap()).unwrap();
    let guard = pin();
    // SAFETY: the type is the same.
    drop(unsafe { library.redefine("f", at(minus_one)) }.unwrap());
    objcache_loader::collect();
    assert_eq!(alive.count(), 1);
    drop(guard);
    alive.falls_to(0);
    drop(library.undefine("f"));
    library.define_function("f", &library.link("two", &returning("f", 2)).unwrap()).unwrap();
    // SAFETY: the type is the same.
    let retired = unsafe { library.redefine("f", at(minus_one)) }.unwrap();
    objcache_loader::collect();
    assert_eq!(alive.count(), 1, "the client decides");
    // SAFETY: nobody is in it.
    unsafe { retired.free() };
    assert_eq!(alive.count(), 0);
}

#[test]
fn only_functions_with_stubs_are_redefined() {
    let library = Library::new("app");
    library.load("a.o", &returning("f", 1)).unwrap();
    library.define("g", 5).unwrap();
    for name in ["f", "g", "h"] {
        // SAFETY: nothing is redefined.
        let refused = unsafe { library.redefine(name, at(minus_one)) }.unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("library `app` has no function `{name}` that can be redefined")
        );
    }
    let image = library.link("b.o", &returning("f", 1)).unwrap();
    let missing = library.define_function("i", &image).unwrap_err();
    assert_eq!(missing.to_string(), "image `b.o` defines no `i`");
    library.define_function("i", Implementation::symbol(&image, "f")).unwrap();
    assert_eq!(call(&library, "i"), 1);
    // SAFETY: nothing is redefined.
    let missing = unsafe { library.redefine("i", &image) }.unwrap_err();
    assert!(matches!(missing, LibraryError::NotDefined { .. }));
    assert_eq!(call(&library, "i"), 1);
}

#[test]
fn all_functions_of_an_image_can_have_stubs() {
    let mut object = Object::default();
    object.symbol("f", GLOBAL | FUNC, 1, 0);
    object.symbol("variable", GLOBAL | 1, 2, 0);
    object.symbol("g", GLOBAL | FUNC, 1, 6);
    object.section(".text", EXEC, &[0xb8, 1, 0, 0, 0, RET, 0xb8, 2, 0, 0, 0, RET]);
    object.section(".data", WRITE, &[0; 8]);
    let alive = Arc::new(Alive::default());
    let library = alive.library("app");
    let image = library.load_redirectable("a.o", &object.build()).unwrap();
    assert_eq!((call(&library, "f"), call(&library, "g")), (1, 2));
    assert_eq!(library.address("variable"), image.address("variable"));
    assert_ne!(library.address("f"), image.address("f"));
    // SAFETY: it is a function.
    assert!(unsafe { library.get::<extern "C" fn()>("f") }.unwrap().is_redirectable());
    // SAFETY: it is a variable.
    assert!(!unsafe { library.get::<*const u64>("variable") }.unwrap().is_redirectable());
    let other = library.link("b.o", &returning("f", 3)).unwrap();
    // SAFETY: the type is the same.
    drop(unsafe { library.redefine("f", &other) }.unwrap());
    drop(other);
    assert_eq!((call(&library, "f"), call(&library, "g")), (3, 2));
    drop(library.remove(&image));
    drop(image);
    assert_eq!(call(&library, "f"), 3, "this one is another's now");
    assert!(!library.defines("g") && !library.defines("variable"));
    alive.falls_to(1);
}

/// The stubs are for others, as is documented.
#[test]
fn an_image_calls_its_own_functions_without_their_stubs() {
    let library = Library::new("app");
    let object = Functions::default().returning("f", 1).calling("inside", "f").build();
    library.load_redirectable("a.o", &object).unwrap();
    library.load("b.o", &calling("outside", "f")).unwrap();
    // SAFETY: the type is the same.
    drop(unsafe { library.redefine("f", at(minus_one)) }.unwrap());
    assert_eq!(["f", "outside", "inside"].map(|name| call(&library, name)), [-1, -1, 1]);
}

/// As C++'s inline functions and templates are.
#[test]
fn a_stub_may_lead_to_a_weak_definition() {
    let library = Library::new("app");
    let weak = |number| Functions::default().weakly_returning("f", number).build();
    let first = weak(1);
    library.define_lazy("f", move |library| Ok(Implementation::from(&library.link("one", &first)?))).unwrap();
    assert_eq!(call(&library, "f"), 1);
    let image = library.link("two", &weak(2)).unwrap();
    // SAFETY: the type is the same.
    drop(unsafe { library.redefine("f", &image) }.unwrap());
    assert_eq!(call(&library, "f"), 2);
}

#[test]
fn an_image_in_two_libraries_is_removed_from_one() {
    let (one, two) = (Library::new("one"), Library::new("two"));
    let image = one.load_redirectable("a.o", &returning("f", 1)).unwrap();
    two.add_redirectable(&image).unwrap();
    drop(one.remove(&image));
    assert_eq!(call(&two, "f"), 1);
    drop(two.remove(&image));
    assert!(!one.defines("f") && !two.defines("f"));
}

#[test]
fn a_lazy_function_is_made_once_for_all_threads() {
    const THREADS: usize = 8;
    for _ in 0..50 {
        let library = Library::new("app");
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        library
            .define_lazy("f", move |library| {
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::yield_now();
                Ok(Implementation::from(&library.link("f.o", &returning("f", 77))?))
            })
            .unwrap();
        library.load("caller", &calling("caller", "f")).unwrap();
        assert_eq!(made.load(Ordering::SeqCst), 0);
        let start = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for number in 0..THREADS {
                let (library, start) = (&library, &start);
                scope.spawn(move || {
                    start.wait();
                    assert_eq!(call(library, if number % 2 == 0 { "f" } else { "caller" }), 77);
                });
            }
        });
        assert_eq!(call(&library, "caller"), 77);
        assert_eq!(made.load(Ordering::SeqCst), 1);
    }
}

type Many = extern "C" fn(
    u8,
    i16,
    u32,
    i64,
    *const u8,
    u64,
    f64,
    f32,
    f64,
    f64,
    f64,
    f64,
    f64,
    f64,
    f64,
    u64,
    u64,
) -> f64;

#[allow(clippy::too_many_arguments)] // That is the point.
extern "C" fn many(
    a: u8,
    b: i16,
    c: u32,
    d: i64,
    e: *const u8,
    f: u64,
    g: f64,
    h: f32,
    i: f64,
    j: f64,
    k: f64,
    l: f64,
    m: f64,
    n: f64,
    o: f64,
    p: u64,
    q: u64,
) -> f64 {
    let whole = [u64::from(a), b as u64, u64::from(c), d as u64, e as u64, f, p, q];
    let whole = whole.iter().fold(0u64, |sum, value| sum.wrapping_mul(31).wrapping_add(*value));
    [g, f64::from(h), i, j, k, l, m, n, o].iter().fold(whole as f64, |sum, value| sum * 0.5 + value)
}

type Windows = extern "win64" fn(u64, f64, u64, f64, u64, f64) -> f64;

extern "win64" fn windows(a: u64, b: f64, c: u64, d: f64, e: u64, f: f64) -> f64 {
    a as f64 + 10.0 * b + 100.0 * c as f64 + 1e3 * d + 1e4 * e as f64 + 1e5 * f
}

/// Uses every register that a call may change.
fn scribble(library: &Library) -> i32 {
    let values: Vec<f64> = (0..64).map(f64::from).collect();
    let text = format!("{:?}{library:?}", values.iter().map(|value| value.sqrt().sin()).sum::<f64>());
    text.len() as i32
}

#[test]
fn the_first_call_passes_every_argument_on() {
    let library = Library::new("app");
    let define = |name: &str, address: u64| {
        let make = move |library: &Library| {
            assert!(scribble(library) > 0);
            Ok(Implementation::address(address))
        };
        library.define_lazy(name, make).unwrap();
    };
    define("many", many as *const () as u64);
    define("windows", windows as *const () as u64);
    // SAFETY: that is its type.
    let far = unsafe { library.get::<Many>("many") }.unwrap();
    // SAFETY: that is its type.
    let away = unsafe { library.get::<Windows>("windows") }.unwrap();
    let call = |many: Many| {
        many(1, -2, 3, -4, 5 as *const u8, 6, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, u64::MAX, 9)
    };
    assert_eq!(call(*far).to_bits(), call(many).to_bits());
    assert_eq!(call(*far).to_bits(), call(many).to_bits(), "the second call");
    assert_eq!(away(1, 2.0, 3, 4.0, 5, 6.0), 654_321.0);
}

#[target_feature(enable = "avx")]
#[allow(improper_ctypes_definitions)] // The caller is compiled with the same feature.
unsafe extern "C" fn wide(a: __m256d, b: __m256d, c: __m256d, d: __m256d) -> f64 {
    let mut sum = 0.0;
    for (weight, vector) in [(1.0, a), (10.0, b), (100.0, c), (1000.0, d)] {
        // SAFETY: a vector is four numbers.
        let numbers: [f64; 4] = unsafe { std::mem::transmute(vector) };
        assert!(numbers.iter().all(|number| *number == numbers[0]), "{numbers:?}");
        sum += weight * numbers[3];
    }
    sum
}

#[target_feature(enable = "avx")]
fn call_wide(library: &Library) -> f64 {
    #[allow(improper_ctypes_definitions)] // As above.
    type Wide = unsafe extern "C" fn(__m256d, __m256d, __m256d, __m256d) -> f64;
    // SAFETY: that is its type.
    let function = unsafe { library.get::<Wide>("wide") }.unwrap();
    let [a, b, c, d] = [1.0, 2.0, 3.0, 4.0].map(|number| _mm256_set1_pd(number));
    // SAFETY: the processor has the feature.
    unsafe { function(a, b, c, d) }
}

#[test]
fn the_first_call_passes_wide_vectors_on() {
    if !std::is_x86_feature_detected!("avx") {
        crate::support::skip("this processor has no AVX");
        return;
    }
    let library = Library::new("app");
    library
        .define_lazy("wide", |library| {
            assert!(scribble(library) > 0);
            Ok(Implementation::address(wide as *const () as u64))
        })
        .unwrap();
    // SAFETY: the feature is there.
    assert_eq!(unsafe { call_wide(&library) }, 4321.0);
}

#[test]
fn a_lazy_function_may_load_and_call_others() {
    let library = Library::new("app");
    for depth in 0..20 {
        let make = move |library: &Library| {
            let result = if depth == 0 { 1 } else { call(library, &format!("f{}", depth - 1)) + 1 };
            library.load(&format!("own{depth}"), &returning(&format!("own{depth}"), result))?;
            Ok(Implementation::from(
                &library.link("f", &calling(&format!("f{depth}"), &format!("own{depth}")))?,
            ))
        };
        library.define_lazy(&format!("f{depth}"), make).unwrap();
    }
    assert_eq!(call(&library, "f19"), 20);
    assert_eq!(call(&library, "own7"), 8);
}

#[test]
fn a_failure_comes_to_the_handler_and_a_redefinition_mends_it() {
    let (library, notes) = noting("app");
    library.define_lazy("f", |_| Err("no compiler today".into())).unwrap();
    library.define_lazy("g", |_| panic!("out of luck")).unwrap();
    library
        .define_lazy("h", |library| Ok(Implementation::from(&library.link("h.o", &returning("i", 1))?)))
        .unwrap();
    library.define_lazy("i", |library| Ok(Implementation::from(&library.link("i.o", b"nonsense")?))).unwrap();
    for name in ["f", "g", "h", "i"] {
        assert_eq!((call(&library, name), call(&library, name)), (-1, -1));
    }
    let notes = std::mem::take(&mut *notes.lock().unwrap());
    assert_eq!(notes.len(), 4, "{notes:?}");
    assert_eq!(notes[0], "function `f` of library `app`: it could not be made: no compiler today");
    assert_eq!(notes[1], "function `g` of library `app`: making it panicked: out of luck");
    assert_eq!(notes[2], "function `h` of library `app`: it could not be made: image `h.o` defines no `h`");
    assert!(
        notes[3].starts_with("function `i` of library `app`: it could not be made: image `i.o`: "),
        "{notes:?}"
    );
    let image = library.link("f.o", &returning("f", 5)).unwrap();
    // SAFETY: the type is the same.
    drop(unsafe { library.redefine("f", &image) }.unwrap());
    assert_eq!(call(&library, "f"), 5);
}

#[test]
fn a_function_that_needs_itself_is_an_error_and_no_deadlock() {
    let (library, notes) = noting("app");
    library
        .define_lazy("f", |library| {
            Ok(Implementation::from(&library.link("f", &returning("f", call(library, "g") + 10))?))
        })
        .unwrap();
    library
        .define_lazy("g", |library| {
            Ok(Implementation::from(&library.link("g", &returning("g", call(library, "f") + 100))?))
        })
        .unwrap();
    assert_eq!(call(&library, "f"), -1 + 100 + 10);
    assert_eq!(call(&library, "g"), 99);
    assert_eq!(*notes.lock().unwrap(), ["function `f` of library `app`: making it needs its own result"]);
}

/// Each of several threads makes a function that needs the next one's.
#[test]
fn threads_that_would_wait_in_a_circle_are_told() {
    for threads in [2, 3, 5] {
        let (library, notes) = noting("app");
        let all_claimed = Arc::new(Barrier::new(threads));
        for number in 0..threads {
            let all_claimed = Arc::clone(&all_claimed);
            let next = format!("f{}", (number + 1) % threads);
            let name = format!("f{number}");
            let make = move |library: &Library| {
                all_claimed.wait();
                let needed = call(library, &next);
                Ok(Implementation::from(&library.link("f", &returning(&format!("f{number}"), needed + 1))?))
            };
            library.define_lazy(&name, make).unwrap();
        }
        let mut results: Vec<i32> = std::thread::scope(|scope| {
            let call = |number: usize| {
                scope.spawn({
                    let library = &library;
                    move || call(library, &format!("f{number}"))
                })
            };
            let threads: Vec<_> = (0..threads).map(call).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        results.sort_unstable();
        assert_eq!(
            results,
            (0..threads as i32).collect::<Vec<_>>(),
            "one is told, the others get its result"
        );
        assert_eq!(notes.lock().unwrap().len(), 1);
    }
}

#[test]
fn a_redefinition_overtakes_one_that_is_being_made() {
    let alive = Arc::new(Alive::default());
    let library = alive.library("app");
    let [started, redefined] = [1, 2].map(|_| Arc::new(Barrier::new(2)));
    let make = {
        let (started, redefined) = (Arc::clone(&started), Arc::clone(&redefined));
        move |library: &Library| {
            started.wait();
            redefined.wait();
            Ok(Implementation::from(&library.link("late", &returning("f", 1))?))
        }
    };
    library.define_lazy("f", make).unwrap();
    let image = library.link("new", &returning("f", 2)).unwrap();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| call(&library, "f"));
        started.wait();
        let waiting = scope.spawn(|| call(&library, "f"));
        std::thread::sleep(Duration::from_millis(5));
        // SAFETY: the type is the same.
        drop(unsafe { library.redefine("f", &image) }.unwrap());
        assert_eq!(waiting.join().unwrap(), 2, "who waited does not wait for the other");
        redefined.wait();
        assert_eq!(first.join().unwrap(), 2);
    });
    alive.falls_to(1);
}

/// One thread makes `f`; another makes `g` and waits for `f`, which is redefined meanwhile. When the first thread calls `g`
/// then, the other has not always noticed.
#[test]
fn a_redefinition_ends_what_would_have_been_a_circle() {
    for _ in 0..300 {
        let (library, notes) = noting("app");
        let [f_begun, g_begun, redefined] = [1, 2, 3].map(|_| Arc::new(Barrier::new(2)));
        let (begins, waits) = (Arc::clone(&f_begun), Arc::clone(&redefined));
        let make_f = move |library: &Library| {
            begins.wait();
            waits.wait();
            Ok(Implementation::from(&library.link("f", &returning("f", call(library, "g")))?))
        };
        library.define_lazy("f", make_f).unwrap();
        let begins = Arc::clone(&g_begun);
        let make_g = move |library: &Library| {
            begins.wait();
            Ok(Implementation::from(&library.link("g", &returning("g", call(library, "f") + 1))?))
        };
        library.define_lazy("g", make_g).unwrap();
        let image = library.link("new", &returning("f", 10)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(call(&library, "f"), 10));
            f_begun.wait();
            scope.spawn(|| assert_eq!(call(&library, "g"), 11));
            g_begun.wait();
            std::thread::sleep(Duration::from_micros(300));
            // SAFETY: the type is the same.
            drop(unsafe { library.redefine("f", &image) }.unwrap());
            redefined.wait();
        });
        assert_eq!(*notes.lock().unwrap(), [""; 0]);
    }
}

#[test]
fn a_function_that_was_removed_comes_to_the_handler() {
    let (library, notes) = noting("app");
    let (keeper, kept_notes) = noting("keeper");
    keeper.search(&library);
    library.load_redirectable("f.o", &returning("f", 1)).unwrap();
    library.define_lazy("g", |_| unreachable!()).unwrap();
    library.define_function("h", at(minus_one)).unwrap();
    keeper
        .load("callers", &Functions::default().calling("x", "f").calling("y", "g").calling("z", "h").build())
        .unwrap();
    assert_eq!((call(&keeper, "x"), call(&keeper, "z")), (1, -1));
    drop(library.undefine("g"));
    drop(library.clear());
    // SAFETY: nothing is redefined.
    assert!(unsafe { library.redefine("f", at(minus_one)) }.is_err());
    assert_eq!(["x", "y", "z"].map(|name| call(&keeper, name)), [-1, -1, -1]);
    let expected = ["f", "g", "h"]
        .map(|name| format!("function `{name}` of library `app`: it was removed, and is called"));
    assert_eq!(*notes.lock().unwrap(), expected);
    keeper.stop_searching();
    drop(library);
    assert_eq!(call(&keeper, "x"), -1, "the library is gone, the stub is not");
    assert!(kept_notes.lock().unwrap().is_empty());
}

#[test]
fn the_kind_of_failure_is_told() {
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&kinds);
    let library = Library::builder("app")
        .on_failure(move |error| {
            log.lock().unwrap().push((
                error.function.clone(),
                match &error.kind {
                    FunctionErrorKind::Failed(why) => why.to_string(),
                    FunctionErrorKind::Panicked(why) => why.clone(),
                    FunctionErrorKind::Cycle => "cycle".to_owned(),
                    FunctionErrorKind::Removed => "removed".to_owned(),
                    _ => unreachable!(),
                },
            ));
            minus_one as extern "C" fn() -> i32 as usize as u64
        })
        .build();
    library.define_lazy("f", |_| Err("why".into())).unwrap();
    call(&library, "f");
    assert_eq!(*kinds.lock().unwrap(), [("f".to_owned(), "why".to_owned())]);
}

/// Runs itself as another process.
#[test]
fn without_a_handler_the_reason_is_printed_and_the_process_ends() {
    const CASE: &str = "OBJCACHE_TEST_LIBRARY_FAILURE";
    let name = "functions::without_a_handler_the_reason_is_printed_and_the_process_ends";
    let cases: [(&str, &str); 3] = [
        ("fails", "objcache: function `f` of library `app`: it could not be made: why not"),
        ("panics in the handler", "the handler for functions that are not there panicked"),
        ("freed", "a function is called that was freed with its library"),
    ];
    let Ok(case) = std::env::var(CASE) else {
        for (case, message) in cases {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let output = command.args(["--exact", name, "--nocapture"]).env(CASE, case).output().unwrap();
            assert_eq!(output.status.signal(), Some(6), "{case}: {}", output.status);
            let complaints = String::from_utf8_lossy(&output.stderr);
            assert!(complaints.contains(message), "{case}: {complaints}");
        }
        return;
    };
    let library = match &*case {
        "panics in the handler" => Library::builder("app").on_failure(|_| panic!("I cannot")).build(),
        _ => Library::new("app"),
    };
    library.define_lazy("f", |_| Err("why not".into())).unwrap();
    if case == "freed" {
        // Keeps the piece of memory that both stubs are in.
        library.define_lazy("g", |_| Err("why not".into())).unwrap();
        // SAFETY: that is the type; the copy is used after its symbol, to see what becomes of it.
        let f = *unsafe { library.get::<extern "C" fn() -> i32>("f") }.unwrap();
        // SAFETY: nobody is in it.
        unsafe { library.undefine("f").free() };
        f();
    }
    call(&library, "f");
}

#[test]
fn there_are_no_stubs_where_code_is_only_linked() {
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x1000_0000))).build();
    let library = Library::builder("elsewhere").loader(loader).build();
    let image = library.load("a.o", &returning("f", 1)).unwrap();
    assert_eq!(library.address("f"), image.address("f"));
    assert!(matches!(library.define_lazy("g", |_| unreachable!()), Err(LibraryError::Unsupported(_))));
    assert!(matches!(
        library.load_redirectable("b.o", &returning("h", 1)),
        Err(LibraryError::Unsupported(_))
    ));
    assert!(!library.defines("h"));
    let stubs = library.load_redirectable("b.o", &returning("h", 1)).unwrap_err().to_string();
    assert_eq!(
        stubs,
        "unsupported: functions through stubs in memory that another process executes, or none"
    );
    type F = extern "C" fn() -> i32;
    // SAFETY: nothing is called.
    let [known, unknown] = ["f", "nowhere"].map(|name| unsafe { library.get::<F>(name) }.unwrap_err());
    // SAFETY: nothing is called.
    let in_image = unsafe { image.get::<F>("f") }.unwrap_err();
    let texts = [known, in_image, unknown].map(|error| error.to_string());
    assert!(texts[..2].iter().all(|text| text.starts_with("`f` is not in this process")), "{texts:?}");
    assert_eq!(texts[2], "library `elsewhere` has no symbol `nowhere`, and what it searches has none");
}

/// The number of the last error, as C has it.
extern "C" fn error_number() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

#[test]
fn the_first_call_leaves_the_error_number() {
    let library = Library::new("app");
    library
        .define_lazy("f", |_| {
            assert!(std::fs::read("/no/such/file").is_err());
            Ok(at(error_number))
        })
        .unwrap();
    // SAFETY: that is its type.
    let function = unsafe { library.get::<extern "C" fn() -> i32>("f") }.unwrap();
    for _ in 0..2 {
        // SAFETY: takes nothing, and gives the address of this thread's own variable.
        let place = unsafe { libc::__errno_location() };
        // SAFETY: as just said.
        unsafe { *place = 77 };
        assert_eq!(function(), 77);
    }
}

#[test]
fn a_function_is_removed_during_its_first_call() {
    const ROUNDS: u64 = 30_000;
    extern "C" fn one() -> i32 {
        1
    }
    extern "C" fn gone() -> i32 {
        -1
    }
    let library = Library::builder("library").on_failure(|_| gone as *const () as u64).build();
    let (begun, ended, address) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                while begun.load(Ordering::Acquire) < round {
                    std::hint::spin_loop();
                }
                // SAFETY: that is a function of this type, which stays while this thread is pinned.
                let function: extern "C" fn() -> i32 =
                    unsafe { std::mem::transmute(address.load(Ordering::Acquire) as usize) };
                let guard = pin();
                assert!([1, -1].contains(&function()));
                drop(guard);
                ended.store(round, Ordering::Release);
            }
        });
        for round in 1..=ROUNDS {
            let make = |_: &Library| Ok(Implementation::address(one as *const () as u64));
            library.define_lazy("f", make).unwrap();
            address.store(library.address("f").unwrap(), Ordering::Release);
            begun.store(round, Ordering::Release);
            for _ in 0..round % 400 {
                std::hint::spin_loop();
            }
            let retired = library.undefine("f");
            while ended.load(Ordering::Acquire) < round {
                std::hint::spin_loop();
            }
            drop(retired);
        }
    });
}
