//! What runs when an image goes, and in which order.

mod support;

use std::sync::Arc;
use std::sync::Mutex;

use objcache_loader::{
    AbsoluteSymbols, Archive, InputObject, Limits, Loader, ProcessSymbols, SharedLibrary, SymbolResolver,
    chain, needed_members,
};
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

/// glibc has it for linkers only, so that some objects bring their own.
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
    let resolver = chain(host.clone(), ProcessSymbols);
    assert!(
        Loader::new().load(&compile(missing), &host).is_err(),
        "where there is no `__cxa_atexit` to be had"
    );
    for declaration in [own, missing, own, missing] {
        let image = Loader::new().load(&compile(declaration), &resolver).unwrap();
        let other = Loader::new().load(&compile(declaration), &resolver).unwrap();
        NOTES.lock().unwrap().clear();
        assert_eq!(call_int(&image, "touch", &[3]), 3);
        drop(other);
        assert!(NOTES.lock().unwrap().is_empty());
        drop(image);
        assert_eq!(*NOTES.lock().unwrap(), [5]);
    }
}

/// What runs without an end of the image's own, in a process of its own: `when` says how the image goes.
const WITHOUT_END: &str = "OBJCACHE_LOADER_TEST_WITHOUT_END";

/// What a process noted that loads an image, does with it what the variable says, and exits.
fn notes_of_a_process(when: &str) -> Vec<String> {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_is_left_runs_when_the_process_exits", "--test-threads=1", "--nocapture"])
        .env(WITHOUT_END, when)
        .output()
        .unwrap();
    assert!(output.status.success(), "{when}: {output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    text.lines().filter_map(|line| line.strip_prefix("note ")).map(str::to_owned).collect()
}

extern "C" fn host_says(what: i32) {
    eprintln!("note {what}");
}

fn a_process(when: &str) -> ! {
    let source = r#"
        extern "C" void host_says(int);
        struct Noted { int n; Noted(int n) : n(n) {} ~Noted() { host_says(n); } };
        static Noted whole{1};
        static thread_local Noted own{2};
        extern "C" int atexit(void (*)());
        static void after() { host_says(7); }
        __attribute__((constructor)) static void begin() { atexit(after); host_says(5); }
        __attribute__((destructor)) static void end() { host_says(6); }
        extern "C" int touch(int n) { return own.n + n; }
    "#;
    // SAFETY: the C++ library's initialisers only set up its own streams and locales.
    let libstdcxx = unsafe { SharedLibrary::open(c"libstdc++.so.6") }.unwrap();
    let host = AbsoluteSymbols::new().with("host_says", host_says as *const () as u64);
    let resolver = chain(host, chain(libstdcxx, ProcessSymbols));
    let object = compile_text(GXX, &["-O1", "-fPIC"], "cpp", source);
    let image = Loader::new().load(&object, &resolver).unwrap();
    initialize(&image);
    assert_eq!(call_int(&image, "touch", &[1]), 3);
    match when {
        "kept" => std::mem::forget(image),
        "never initialised" => {
            drop(image);
            std::mem::forget(Loader::new().load(&object, &resolver).unwrap());
        }
        "dropped" => drop(image),
        "given up" => drop(image.into_memory()),
        "leaked" => drop(image.into_memory().leak()),
        "kept, exit in another thread" => {
            std::mem::forget(image);
            std::thread::spawn(|| std::process::exit(0)).join().unwrap();
        }
        "dropped by other threads" => {
            let work = move || {
                loop {
                    let image = Loader::new().load(&object, &resolver).unwrap();
                    initialize(&image);
                }
            };
            let work = Arc::new(work);
            for _ in 0..2 {
                let work = Arc::clone(&work);
                std::thread::spawn(move || work());
            }
            // Whatever they are at by then.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        _ => unreachable!("{when}"),
    }
    eprintln!("note exit");
    std::process::exit(0);
}

#[test]
fn what_is_left_runs_when_the_process_exits() {
    if let Ok(when) = std::env::var(WITHOUT_END) {
        a_process(&when);
    }
    let libstdcxx = || {
        // SAFETY: as above.
        unsafe { SharedLibrary::open(c"libstdc++.so.6") }
    };
    if !has(GXX) || libstdcxx().is_err() {
        return;
    }
    // As a shared library's, if it is there at the end.
    assert_eq!(notes_of_a_process("kept"), ["5", "exit", "2", "1", "7", "6"]);
    assert_eq!(notes_of_a_process("kept, exit in another thread"), ["5", "1", "7", "6"]);
    assert_eq!(notes_of_a_process("dropped"), ["5", "2", "6", "1", "7", "exit"]);
    assert_eq!(notes_of_a_process("never initialised"), ["5", "2", "6", "1", "7", "exit"]);
    assert_eq!(notes_of_a_process("given up"), ["5", "exit"], "its memory is gone");
    assert_eq!(notes_of_a_process("leaked"), ["5", "exit", "2", "1", "7"]);
    for _ in 0..10 {
        notes_of_a_process("dropped by other threads");
    }
}

/// Rust's standard library gives a variable of its own for the handle of the image, and others none.
#[test]
fn thread_local_destructors_are_the_images_whose_addresses_they_are_registered_with() {
    let _turn = TURN.lock().unwrap();
    if !has(GCC) {
        return;
    }
    let source = "void host_note(int);
        int __cxa_thread_atexit_impl(void (*)(void *), void *, void *);
        static void *handle = &handle;
        static void one(void *n) { host_note(*(int *)n); }
        static int numbers[] = { 1, 2 };
        int touch(int n) { return __cxa_thread_atexit_impl(one, &numbers[0], &handle)
            + __cxa_thread_atexit_impl(one, &numbers[1], 0) + n; }";
    let object = compile_text(GCC, &["-O1", "-fPIC"], "c", source);
    let host = AbsoluteSymbols::new().with("host_note", host_note as *const () as u64);
    std::thread::spawn(move || {
        let image = Loader::new().load(&object, &chain(host, ProcessSymbols)).unwrap();
        NOTES.lock().unwrap().clear();
        assert_eq!(call_int(&image, "touch", &[3]), 3);
        assert!(NOTES.lock().unwrap().is_empty());
        drop(image);
        let mut notes = std::mem::take(&mut *NOTES.lock().unwrap());
        notes.sort_unstable();
        assert_eq!(notes, [1, 2]);
    })
    .join()
    .unwrap();
    assert!(NOTES.lock().unwrap().is_empty(), "once");
}

/// A static library with Rust's standard library in it, of which the members are loaded that are needed.
#[test]
fn thread_locals_of_a_static_library_of_rust_are_dropped() {
    let _turn = TURN.lock().unwrap();
    let [source, archive] = ["noting.rs", "libnoting.a"].map(scratch);
    let text = r#"
        use std::cell::RefCell;
        extern "C" { fn host_note(what: i32); }
        struct Noted(i32);
        impl Drop for Noted { fn drop(&mut self) { unsafe { host_note(self.0) } } }
        thread_local! { static NOTED: RefCell<Vec<Noted>> = const { RefCell::new(Vec::new()) } }
        #[no_mangle]
        pub extern "C" fn touch(n: i32) -> i32 { NOTED.with_borrow_mut(|noted| noted.push(Noted(n))); n }
    "#;
    std::fs::write(&source, text).unwrap();
    let [source, made] = [&source, &archive].map(|path| path.to_str().unwrap());
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    run(&rustc, &["--crate-type=staticlib", "--edition=2021", "-O", source, "-o", made]);
    let archive = std::fs::read(archive).unwrap();
    let host = AbsoluteSymbols::new().with("host_note", host_note as *const () as u64);
    let resolver = chain(host, ProcessSymbols);
    let library = Archive::parse(&archive).unwrap();
    let first = library.member_defining("touch").unwrap();
    let first = InputObject { name: "the first", bytes: first.bytes() };
    let is_known = |name: &str| resolver.resolve(name).is_some();
    let others = needed_members(&[first], &[library], &is_known, &Limits::default()).unwrap();
    let names: Vec<_> = others.iter().map(|member| member.name().into_owned()).collect();
    let others = names.iter().zip(&others).map(|(name, member)| InputObject { name, bytes: member.bytes() });
    let objects: Vec<_> = [first].into_iter().chain(others).collect();
    NOTES.lock().unwrap().clear();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (image, _) = Loader::new().load_all(&objects, &resolver).unwrap();
            initialize(&image);
            assert_eq!([7, 8].map(|n| call_int(&image, "touch", &[n])), [7, 8]);
            // A scope does not wait for destructors; joining does.
            std::thread::scope(|scope| scope.spawn(|| call_int(&image, "touch", &[9])).join()).unwrap();
            assert_eq!(*NOTES.lock().unwrap(), [9]);
            drop(image);
            assert_eq!(*NOTES.lock().unwrap(), [9, 7, 8]);
        });
        thread.join().unwrap();
    });
    assert_eq!(*NOTES.lock().unwrap(), [9, 7, 8], "once");
}
