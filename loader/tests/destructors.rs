//! What runs when an image goes, and in which order.

mod support;

use std::sync::Arc;
use std::sync::Mutex;

use objcache_loader::{AbsoluteSymbols, Loader, ProcessSymbols, SharedLibrary, chain};
use support::*;

static NOTES: Mutex<Vec<i32>> = Mutex::new(Vec::new());
static TURN: Mutex<()> = Mutex::new(());

extern "C" fn host_note(what: i32) {
    NOTES.lock().unwrap().push(what);
}

/// Loads the C++ source, runs `body` on the image and drops it. Returns what was noted meanwhile.
fn notes_of(source: &str, body: impl Fn(&objcache_loader::LoadedImage)) -> Option<Vec<i32>> {
    let _turn = TURN.lock().unwrap();
    if !has(GXX) {
        return None;
    }
    // SAFETY: the C++ library's initialisers only set up its own streams and locales.
    let Ok(libstdcxx) = (unsafe { SharedLibrary::open(c"libstdc++.so.6") }) else {
        skip("there is no libstdc++.so.6");
        return None;
    };
    let host = AbsoluteSymbols::new().with("host_note", host_note as *const () as u64);
    let resolver = chain(host, chain(libstdcxx, ProcessSymbols));
    let loader = Loader::builder().memory(Arc::new(objcache_loader::PageMemory::new())).build();
    let object = compile_text(GXX, &["-O1", "-fPIC"], "cpp", source);
    let image = loader.load(&object, &resolver).unwrap_or_else(|error| panic!("{error}"));
    NOTES.lock().unwrap().clear();
    body(&image);
    drop(image);
    Some(std::mem::take(&mut *NOTES.lock().unwrap()))
}

/// The destructor of a function's static variable is registered when the function first runs, whether the object has
/// initialisers or not. Left registered it would run at the end of the process, in memory that is gone.
#[test]
fn a_static_variable_of_a_function_is_destroyed_without_initialisers() {
    let source = r#"
        extern "C" void host_note(int);
        struct Noted { ~Noted() { host_note(7); } };
        extern "C" int touch(int n) { static Noted noted; return n + 1; }
    "#;
    let notes = notes_of(source, |image| {
        assert!(!image.needs_initializers());
        assert_eq!(call_int(image, "touch", &[1]), 2);
        assert_eq!(call_int(image, "touch", &[2]), 3);
    });
    assert!(notes.is_none_or(|notes| notes == [7]));
    let notes = notes_of(source, |_| {});
    assert!(notes.is_none_or(|notes| notes.is_empty()), "it was never constructed");
}

/// As a shared library made of the same source does at `dlclose`.
#[test]
fn finalisers_and_destructors_run_in_the_order_of_dlclose() {
    let source = r#"
        extern "C" void host_note(int);
        struct Noted { int n; ~Noted() { host_note(n); } };
        static Noted first{1}, second{2};
        __attribute__((destructor)) static void plain_a() { host_note(10); }
        __attribute__((destructor)) static void plain_b() { host_note(11); }
        __attribute__((destructor(200))) static void early() { host_note(200); }
        __attribute__((destructor(300))) static void later() { host_note(300); }
        extern "C" int touch(int n) { static Noted inner{3}; return n; }
    "#;
    let notes = notes_of(source, |image| {
        initialize(image);
        call_int(image, "touch", &[0]);
    });
    assert!(notes.is_none_or(|notes| notes == [11, 10, 3, 2, 1, 300, 200]));
    let never_initialized = notes_of(source, |_| {});
    assert!(never_initialized.is_none_or(|notes| notes.is_empty()));
}

/// glibc has it for linkers only. An object may define it as the documentation of `ProcessSymbols` does.
#[test]
fn what_atexit_registers_runs_when_the_image_goes() {
    let _turn = TURN.lock().unwrap();
    if !has(GCC) {
        return;
    }
    let missing = "int atexit(void (*)(void));";
    let own = "extern char __dso_handle;
               int __cxa_atexit(void (*)(void *), void *, void *);
               static int atexit(void (*f)(void)) { return __cxa_atexit((void (*)(void *))f, 0, &__dso_handle); }";
    let compile = |declaration: &str| {
        let rest = "void host_note(int);
                    static void end(void) { host_note(5); }
                    int touch(int n) { return atexit(end) + n; }";
        compile_text(GCC, &["-O1", "-fPIC"], "c", &format!("{declaration}\n{rest}"))
    };
    let host = AbsoluteSymbols::new().with("host_note", host_note as *const () as u64);
    let resolver = chain(host, ProcessSymbols);
    if let Err(error) = Loader::new().load(&compile(missing), &resolver) {
        let error = error.to_string();
        assert!(
            error.contains("`atexit` is in no shared library") && error.contains("define it in the object"),
            "{error}"
        );
    }
    let image = Loader::new().load(&compile(own), &resolver).unwrap();
    NOTES.lock().unwrap().clear();
    assert_eq!(call_int(&image, "touch", &[3]), 3);
    assert!(NOTES.lock().unwrap().is_empty());
    drop(image);
    assert_eq!(*NOTES.lock().unwrap(), [5]);
}
