//! Real compilers' objects, loaded, called, and compared with what the language says they return.
//!
//! Each fixture goes through every compiler, optimisation level and code model, and through both memory managers.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use objcache_loader::{
    AbsoluteSymbols, LoadedImage, Loader, MemoryManager, PageMemory, ProcessSymbols, SharedLibrary,
    SlabMemory, SymbolResolver, chain,
};
use support::*;

const LEVELS: [&str; 3] = ["-O0", "-O2", "-Os"];

/// Code models. PIE code reaches data of others only if it is near: that of shared libraries is. Non-PIC code reaches it
/// only in the lowest 2 GiB, where shared libraries are not.
const MODELS: [&[&str]; 7] = [
    &["-fPIC"],
    &["-fPIE"],
    &["-fPIC", "-fno-plt"],
    &["-fPIC", "-ffunction-sections", "-fdata-sections"],
    &["-fno-pic", "-DNO_FAR_DATA"],
    &["-fno-pic", "-mcmodel=large"],
    &["-fPIC", "-mcmodel=large"],
];

fn managers() -> [(&'static str, Arc<dyn MemoryManager>); 2] {
    [("PageMemory", Arc::new(PageMemory::new())), ("SlabMemory", Arc::new(SlabMemory::new()))]
}

/// Runs `check` on every object that `compiler` makes of the fixture, in memory of each kind.
fn each_image(
    compiler: &str,
    source: &str,
    resolver: &dyn SymbolResolver,
    mut check: impl FnMut(LoadedImage),
) {
    if !has(compiler) {
        return;
    }
    let mut kinds = BTreeSet::new();
    for model in MODELS {
        for level in LEVELS {
            let mut flags = vec![level, "-w"];
            flags.extend(model);
            if source.ends_with(".c") {
                flags.extend(["-fcommon", "-DCOMMON"]);
            }
            let object = compile(compiler, &flags, &fixture(source));
            kinds.extend(relocation_kinds(&object));
            for (name, memory) in managers() {
                eprintln!("{compiler} {flags:?} {name}");
                let loader = Loader::builder().memory(memory).build();
                check(loader.load(&object, resolver).unwrap_or_else(|error| panic!("{error}")));
            }
        }
    }
    let (_, language) = source.split_once('.').unwrap();
    let kinds = coverage::names("elf", "x86_64", kinds);
    coverage::keep_at_least(&format!("executed-{compiler}-{language}"), "elf", "x86_64", &kinds);
}

extern "C" fn host_add(a: i32, b: i32) -> i32 {
    a + b
}

fn check_c(image: &LoadedImage, finalized: &AtomicI32) {
    assert!(image.needs_initializers());
    initialize(image);
    assert!(!image.needs_initializers());
    let call = |name: &str, arguments: &[i32]| call_int(image, name, arguments);
    assert_eq!(call("initialized", &[]), 123);
    assert_eq!(call("call_internal", &[4]), 10);
    assert_eq!(call("call_host", &[20, 21]), 42);
    let switched: Vec<i32> = (-1..8).map(|n| call("switch_table", &[n])).collect();
    assert_eq!(switched, [-1, 11, 8, 37, -4, 9, 66, 462, -1]);
    assert_eq!(call("through_tables", &[0]), 12);
    assert_eq!(call("through_tables", &[1]), 21);
    assert_eq!([0, 1, 2, 3].map(|n| call("word_length", &[n])), [4, 3, 3, 5]);
    assert_eq!(call("sorted_digits", &[]), 54311);
    assert_eq!([call("count", &[]), call("count", &[])], [4101, 4202]);
    assert_eq!(call("sum_zeros", &[]), 0);
    assert_eq!(call("write_through_pointers", &[]), 5);
    assert_eq!(call("use_common", &[]), 42);
    assert_eq!(call("call_weak", &[]), 17);
    assert_eq!(call("call_hidden", &[]), 24);
    assert_eq!(call("aligned", &[]), 8);
    assert_eq!(call("call_elsewhere", &[5]), 16);
    if image.address("read_host_counter").is_some() {
        assert_eq!(call("read_host_counter", &[]), 77);
        assert_eq!(finalized.load(Ordering::SeqCst), 0);
    }
    assert_eq!(image.address("hidden_value"), None);
    assert_eq!(image.address("one"), None, "local");
    // SAFETY: `double half(double)` of the fixture.
    let half = unsafe { image.get::<extern "C" fn(f64) -> f64>("half") }.unwrap();
    assert_eq!(half(3.0), 1.75);
    // SAFETY: `const char *text(void)` of the fixture.
    let text = unsafe { image.get::<extern "C" fn() -> *const std::ffi::c_char>("text") }.unwrap();
    // SAFETY: it returns a string literal of the image, which is alive.
    assert_eq!(unsafe { std::ffi::CStr::from_ptr(text()) }, c"a string of the object");
    // SAFETY: `int counter` of the fixture.
    let counter = unsafe { image.get::<*const i32>("counter") }.unwrap();
    // SAFETY: the image is alive, and no other thread uses it.
    assert_eq!(unsafe { counter.read() }, 42);
}

fn c_objects_run(compiler: &'static str) {
    // The variables of the host are on this thread's stack, which the system puts where it puts the data of shared
    // libraries.
    std::thread::spawn(move || c_objects_run_beside_the_host(compiler)).join().unwrap();
}

fn c_objects_run_beside_the_host(compiler: &str) {
    let counter = AtomicI32::new(77);
    let finalized = AtomicI32::new(0);
    let host = AbsoluteSymbols::new()
        .with("host_add", host_add as *const () as u64)
        .with("host_counter", counter.as_ptr() as u64)
        .with("finalized_flag", finalized.as_ptr() as u64);
    each_image(compiler, "kernel.c", &chain(host, ProcessSymbols), |image| {
        finalized.store(0, Ordering::SeqCst);
        check_c(&image, &finalized);
        let has_finalizer = image.address("read_host_counter").is_some();
        drop(image);
        assert_eq!(finalized.load(Ordering::SeqCst), i32::from(has_finalizer));
    });
}

#[test]
fn c_through_gcc() {
    c_objects_run(GCC);
}

#[test]
fn c_through_clang() {
    c_objects_run(CLANG);
}

fn cpp_objects_run(compiler: &str) {
    static NOTES: AtomicI32 = AtomicI32::new(0);
    static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
    extern "C" fn host_note(what: i32) {
        NOTES.fetch_add(what, Ordering::SeqCst);
    }
    let _turn = TURN.lock();
    // SAFETY: the C++ library's initialisers only set up its own streams and locales.
    let Ok(libstdcxx) = (unsafe { SharedLibrary::open(c"libstdc++.so.6") }) else {
        return skip("there is no libstdc++.so.6");
    };
    let host = AbsoluteSymbols::new()
        .with("host_add", host_add as *const () as u64)
        .with("host_note", host_note as *const () as u64);
    let resolver = chain(host, chain(libstdcxx, ProcessSymbols));
    let notes = || NOTES.swap(0, Ordering::SeqCst);
    each_image(compiler, "kernel.cpp", &resolver, |image| {
        notes();
        let call = |name: &str, n: i32| call_int(&image, name, &[n]);
        assert_eq!(call("is_started", 0), 0);
        initialize(&image);
        assert_eq!(call("is_started", 0), 5);
        assert_eq!(call("boxes", 10), 44);
        assert_eq!(call("boxes", 10), 46);
        assert_eq!([call("count_up", 0), call("count_up", 0)], [101, 102]);
        assert_eq!(call("areas", 6), 42);
        assert_eq!([call("static_local", 4), call("static_local", 5)], [8, 8]);
        assert_eq!((call("throw_and_catch", 0), notes()), (0, 11));
        assert_eq!((call("throw_and_catch", 1), notes()), (41, 10));
        assert_eq!((call("throw_and_catch", 2), notes()), (57, 10));
        let caught = call("throw_and_catch", 3);
        assert!(matches!((caught, notes()), (3, 10) | (0, 11)));
        drop(image);
        assert_eq!(notes(), 1000, "the static destructor ran once");
    });
}

#[test]
fn cpp_through_gcc() {
    cpp_objects_run(GXX);
}

#[test]
fn cpp_through_clang() {
    cpp_objects_run(CLANGXX);
}

/// `ld.gold` names the groups of constructors by the section symbol of the group itself.
#[test]
fn what_gold_puts_together_has_all_its_groups() {
    if !has(GXX) || !has("ld.gold") {
        return;
    }
    let source = "extern \"C\" int same(int n) { return n; }
        struct One { int x; One(int n); }; inline One::One(int n) : x(same(n)) {}
        struct Other { int y; Other(int n); }; inline Other::Other(int n) : y(same(n) + 1) {}
        extern \"C\" int sum() { One one(3); Other other(4); return one.x + other.y; }";
    let (apart, together) = (scratch("apart.o"), scratch("together.o"));
    std::fs::write(&apart, compile_text(GXX, &["-O0", "-fPIC"], "cpp", source)).unwrap();
    run("ld.gold", &["-r", apart.to_str().unwrap(), "-o", together.to_str().unwrap()]);
    let object = std::fs::read(together).unwrap();
    let image = Loader::new().load(&object, &ProcessSymbols).unwrap();
    assert_eq!(call_int(&image, "sum", &[]), 8);
}
