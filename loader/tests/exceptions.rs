//! C++ exceptions and backtraces through loaded code: thrown and caught inside of it, out of it into the host, from the
//! host through it, from one image into another; with ten thousand images, with threads, after a fork.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use std::ffi::{CString, c_void};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use objcache_loader::{
    AbsoluteSymbols, EventListener, ImageId, InputObject, LibgccFrames, LoadError, LoadedImage, LoadedObject,
    Loader, NoSymbols, NoUnwind, PageMemory, ProcessSymbols, Segment, SharedLibrary, SlabMemory,
    SymbolResolver, UnwindInfo, UnwindRegistrar, UnwindRegistration, chain, from_fn,
};
use support::*;

fn loaders() -> [Loader; 2] {
    let pages = Loader::builder().memory(Arc::new(PageMemory::new())).build();
    [Loader::builder().memory(Arc::new(SlabMemory::new())).build(), pages]
}

/// For tests that note something.
static TURN: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
static NOTES: AtomicI32 = AtomicI32::new(0);

extern "C" fn host_note(what: i32) {
    NOTES.fetch_add(what, Ordering::SeqCst);
}

fn notes() -> i32 {
    NOTES.swap(0, Ordering::SeqCst)
}

/// The part of the host that is C++, in a library that the test makes.
struct Host {
    library: SharedLibrary,
}

impl Host {
    fn new() -> Option<Self> {
        if !has(GXX) {
            return None;
        }
        static MADE: std::sync::OnceLock<CString> = std::sync::OnceLock::new();
        let path = MADE.get_or_init(|| {
            let path = scratch("libhost.so");
            let (source, made) = (fixture("unwind/host.cpp"), path.to_str().unwrap());
            run(GXX, &["-shared", "-fPIC", "-O1", source.to_str().unwrap(), "-o", made]);
            CString::new(made).unwrap()
        });
        // SAFETY: the library is our own and has no initialisers; those of libstdc++ only set up its own streams.
        Some(Host { library: unsafe { SharedLibrary::open(path) }.unwrap() })
    }

    fn resolver(&self) -> impl SymbolResolver + '_ {
        // SAFETY: the library's initialisers only set up its own streams and locales.
        let libstdcxx = unsafe { SharedLibrary::open(c"libstdc++.so.6") }.unwrap();
        let own = AbsoluteSymbols::new().with("host_note", host_note as *const () as u64);
        let host = from_fn(|name| self.library.resolve(name).filter(|_| name.starts_with("host_")));
        chain(own, chain(host, chain(libstdcxx, ProcessSymbols)))
    }

    /// `host_catches`: calls a function of an image and says what came out of it.
    fn catches(&self, image: &LoadedImage, name: &str, n: i32) -> i32 {
        type HostCatches = extern "C" fn(u64, i32) -> i32;
        let address = self.library.resolve("host_catches").unwrap() as usize;
        // SAFETY: `int host_catches(int (*)(int), int)` of the fixture, with an address for the pointer.
        let host_catches = unsafe { std::mem::transmute::<usize, HostCatches>(address) };
        host_catches(image.address(name).unwrap_or_else(|| panic!("{name}")), n)
    }

    /// `host_alone`: throws and catches within the host.
    fn alone(&self, n: i32) -> i32 {
        let address = self.library.resolve("host_alone").unwrap() as usize;
        // SAFETY: `int host_alone(int)` of the fixture.
        let host_alone = unsafe { std::mem::transmute::<usize, extern "C" fn(i32) -> i32>(address) };
        host_alone(n)
    }
}

/// Loads what each C++ compiler makes of a fixture, in memory of each kind.
fn each_image(source: &str, host: &Host, mut check: impl FnMut(LoadedImage)) {
    for compiler in [GXX, CLANGXX].into_iter().filter(|compiler| has(compiler)) {
        for flags in [&["-O0"][..], &["-O2"], &["-O2", "-ffunction-sections", "-fPIE"]] {
            let flags: Vec<_> = [&["-fPIC", "-w"], flags].concat();
            let object = compile(compiler, &flags, &fixture(source));
            for loader in loaders() {
                eprintln!("{compiler} {flags:?}");
                check(loader.load(&object, &host.resolver()).unwrap_or_else(|error| panic!("{error}")));
            }
        }
    }
}

#[test]
fn a_whole_cpp_object_runs_and_its_exceptions_cross_into_the_host_and_back() {
    let _turn = TURN.lock();
    let Some(host) = Host::new() else { return };
    each_image("unwind/whole.cpp", &host, |image| {
        initialize(&image);
        notes();
        let call = |name: &str, n: i32| call_int(&image, name, &[n]);
        assert_eq!(call("is_started", 0), 1);
        assert_eq!(call("streams", 255), 255);
        assert_eq!([call("catches", 0), call("catches", 1), call("catches", 2)], [1, 2, -9]);
        assert_eq!(notes(), 3, "each guard once");
        assert_eq!([call("catches_of_the_library", 2), call("catches_of_the_library", 3)], [3, -1]);
        assert_eq!(call("rethrows", 30), 31);

        assert_eq!([0, 1, 2].map(|n| host.catches(&image, "lets_out", n)), [1, 4, 3]);
        assert_eq!(notes(), 3 * 2 + 1);
        assert_eq!([call("catches_of_the_host", 5), call("catches_of_the_host", -5)], [1005, -5]);
        assert_eq!(notes(), 2 * 3);
        assert_eq!(host.catches(&image, "lets_through", 6), 2);
        assert_eq!(host.catches(&image, "lets_through", -6), 194);
        assert_eq!(notes(), 2 * 4);

        assert_eq!(call("uses", 0), 4);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| [call("uses", 0), call("catches", 2), call("uses", 0)]);
            assert_eq!(other.join().unwrap(), [0, -9, 1]);
        });
        assert_eq!(notes(), 1 + 101, "the guard, and the other thread's object");
        drop(image);
        assert_eq!(notes(), 104, "this thread's object goes with the image");
    });
    assert_eq!(host.alone(3), 3);
}

#[test]
fn an_exception_of_one_image_is_caught_in_another() {
    let Some(host) = Host::new() else { return };
    const SHARED: &str = "struct Trouble { virtual ~Trouble() {} int code; }; struct Worse : Trouble {};";
    let throwing = format!(
        "{SHARED} extern \"C\" int throws(int n) {{ Worse worse; worse.code = n; if (n) throw worse; return 0; }}"
    );
    let catching = format!(
        "{SHARED} extern \"C\" int throws(int); extern \"C\" int catches(int n) {{
            try {{ return throws(n); }} catch (const Trouble &caught) {{ return caught.code + 1; }} }}"
    );
    let through = "extern \"C\" void host_note(int); struct Guard { ~Guard() { host_note(0); } };
        extern \"C\" int throws_inside(int); extern \"C\" int throws(int n) { Guard guard; return throws_inside(n); }";
    for thrower in [GXX, CLANGXX].into_iter().filter(|compiler| has(compiler)) {
        for catcher in [GXX, CLANGXX].into_iter().filter(|compiler| has(compiler)) {
            let flags = ["-O1", "-fPIC"];
            let throwing = compile_text(thrower, &flags, "cpp", &throwing);
            let through = compile_text(catcher, &flags, "cpp", through);
            let catching = compile_text(catcher, &flags, "cpp", &catching);
            // Also from memory of one kind into memory of another.
            for (first, other) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let (first, other) = (&loaders()[first], &loaders()[other]);
                let first = first.load(&throwing, &host.resolver()).unwrap();
                let throws = AbsoluteSymbols::new().with("throws_inside", first.address("throws").unwrap());
                let middle = other.load(&through, &chain(throws, host.resolver())).unwrap();
                let throws = AbsoluteSymbols::new().with("throws", middle.address("throws").unwrap());
                let last = other.load(&catching, &chain(throws, host.resolver())).unwrap();
                assert_eq!([0, 41].map(|n| call_int(&last, "catches", &[n])), [0, 42]);
                drop(middle);
            }
        }
    }
}

/// A function of the host that panics, called by loaded code.
extern "C-unwind" fn host_panics(n: i32) -> i32 {
    if n > 0 {
        panic::resume_unwind(Box::new(n));
    }
    n
}

#[test]
fn a_panic_passes_through_loaded_frames_and_cleans_up() {
    if !has(GXX) {
        return;
    }
    let source =
        "extern \"C\" int host_panics(int); struct Guard { int *to; ~Guard() { ++*to; } }; int cleaned;
        extern \"C\" int lets_through(int n) { Guard guard{&cleaned}; return host_panics(n) + 1; }";
    let object = compile_text(GXX, &["-O2", "-fPIC"], "cpp", source);
    let own = || AbsoluteSymbols::new().with("host_panics", host_panics as *const () as u64);
    for loader in loaders() {
        // SAFETY: the library's initialisers only set up its own streams and locales.
        let libstdcxx = unsafe { SharedLibrary::open(c"libstdc++.so.6") }.unwrap();
        let image = loader.load(&object, &chain(own(), chain(libstdcxx, ProcessSymbols))).unwrap();
        // SAFETY: `int lets_through(int)` of the source above, which lets exceptions through.
        let lets_through = unsafe { image.get::<extern "C-unwind" fn(i32) -> i32>("lets_through") }.unwrap();
        // SAFETY: `int cleaned` of the source above.
        let cleaned = unsafe { image.get::<*const AtomicI32>("cleaned") }.unwrap();
        // SAFETY: it lives as long as the image.
        let cleaned = unsafe { &**cleaned };
        assert_eq!(lets_through(-1), 0);
        let caught = panic::catch_unwind(AssertUnwindSafe(|| lets_through(7))).unwrap_err();
        assert_eq!(caught.downcast_ref::<i32>(), Some(&7));
        assert_eq!(cleaned.load(Ordering::SeqCst), 2);
    }
}

/// Nothing in these says that they have to do with exceptions: what throws is given to them.
#[test]
fn a_panic_passes_through_code_that_calls_by_pointers() {
    let by_pointer = "int lets_through(int n, int (*f)(int)) { return f(n) + 1; }";
    let by_table = "struct Table { int (*first)(int); int (*f)(int); };
        static __attribute__((noinline)) int inner(struct Table *table, int n) { return table->f(n) + 1; }
        int lets_through(int n, int (*f)(int)) { struct Table table = {0, f}; return inner(&table, n); }";
    for compiler in [GCC, CLANG].into_iter().filter(|compiler| has(compiler)) {
        for (source, model) in [
            (by_pointer, "-fPIC"),
            (by_table, "-fPIC"),
            (by_pointer, "-mcmodel=large"),
            (by_pointer, "-mindirect-branch=thunk-inline"),
            (by_pointer, "-mretpoline"),
        ] {
            let knows = if compiler == GCC { !model.contains("retpoline") } else { !model.contains("thunk") };
            let here = cfg!(target_arch = "x86_64") || model == "-fPIC";
            for level in ["-O0", "-O2"].into_iter().filter(|_| knows && here) {
                let options = [level, model, "-fexceptions", "-fno-optimize-sibling-calls"];
                let object = compile_text(compiler, &options, "c", source);
                for loader in loaders() {
                    let image = loader.load(&object, &ProcessSymbols).unwrap();
                    type Passes = extern "C-unwind" fn(i32, extern "C-unwind" fn(i32) -> i32) -> i32;
                    // SAFETY: of that type in both sources, and compiled to let exceptions through.
                    let lets_through = unsafe { image.get::<Passes>("lets_through") }.unwrap();
                    assert!(lets_through(-1, host_panics) >= 0);
                    let call = AssertUnwindSafe(|| lets_through(7, host_panics));
                    let caught = panic::catch_unwind(call).unwrap_err();
                    assert_eq!(caught.downcast_ref::<i32>(), Some(&7));
                }
            }
        }
    }
}

/// The object in the middle calls a function of the third by its table of virtual functions.
#[test]
fn an_exception_passes_through_an_image_between_two_others() {
    let _turn = TURN.lock();
    let Some(host) = Host::new() else { return };
    let shape = "struct Shape { virtual int area(int) = 0; };";
    let middle = format!("{shape} int apply(Shape *shape, int n) {{ return shape->area(n) + 1; }}");
    let outer = format!(
        "{shape} int apply(Shape *, int);
        struct Bad : Shape {{ int area(int n) override {{ if (n > 3) throw n; return n; }} }};
        extern \"C\" int catches(int n) {{ Bad bad; try {{ return apply(&bad, n); }} catch (int it) {{ return -it; }} }}"
    );
    for compiler in [GXX, CLANGXX].into_iter().filter(|compiler| has(compiler)) {
        for level in ["-O0", "-O2"] {
            let [middle, outer] =
                [&middle, &outer].map(|text| compile_text(compiler, &[level, "-fPIC"], "cpp", text));
            for loader in loaders() {
                let middle = loader.load(&middle, &host.resolver()).unwrap();
                let apply = middle.address("_Z5applyP5Shapei").unwrap();
                let own = AbsoluteSymbols::new().with("_Z5applyP5Shapei", apply);
                let outer = loader.load(&outer, &chain(own, host.resolver())).unwrap();
                assert_eq!([2, 40].map(|n| call_int(&outer, "catches", &[n])), [3, -40]);
            }
        }
    }
}

/// Sections of a name that something asks the bounds of stand together, so that the code of one table is around that of the other.
#[test]
fn objects_whose_code_interleaves_throw_and_catch() {
    let _turn = TURN.lock();
    let Some(host) = Host::new() else { return };
    let text = |name: &str| {
        format!(
            "extern \"C\" char __start_hot[], __stop_hot[];
             extern \"C\" __attribute__((section(\"hot\"), noinline)) int hot_{name}(int n) {{
                if (n > 3) throw n; return n + (__start_hot == __stop_hot); }}
             extern \"C\" int {name}(int n) {{ try {{ return hot_{name}(n); }} catch (int it) {{ return 100 + it; }} }}"
        )
    };
    let objects = ["one", "two"].map(|name| compile_text(GXX, &["-O2", "-fPIC"], "cpp", &text(name)));
    let objects = objects.each_ref().map(|bytes| InputObject { name: "an object", bytes });
    for loader in loaders() {
        for _ in 0..3 {
            let (image, _) = loader.load_all(&objects, &host.resolver()).unwrap();
            for n in [2, 40] {
                let expected = if n > 3 { 100 + n } else { n };
                let called = ["one", "two"].map(|name| call_int(&image, name, &[n]));
                assert_eq!(called, [expected, expected]);
            }
        }
        assert_eq!(host.alone(4), 4);
    }
}

/// An object with two tables, each about every other function. A libgcc that looks at each address in one table is told of both
/// as one; one that keeps a tree cannot be.
#[test]
fn two_tables_of_one_object_about_every_other_function_are_one_or_refused() {
    let _turn = TURN.lock();
    let Some(host) = Host::new() else { return };
    let functions = ["one", "two", "three", "four"].map(|name| {
        format!(
            ".globl {name}\n{name}: .Lbegin_{name}: push %rbx\n call host_looks@PLT\n pop %rbx\n ret\n.Lend_{name}:\n"
        )
    });
    let frame = |number: usize, name: &str| {
        format!(
            ".long .Lf{number}e_{name}-.Lf{number}_{name}\n.Lf{number}_{name}: .long .-.Lcie{number}\n\
             .long .Lbegin_{name}-.\n.long .Lend_{name}-.Lbegin_{name}\n.byte 0\n\
             .byte 0x41, 0x0e, 16, 0x83, 2\n.balign 8\n.Lf{number}e_{name}:\n"
        )
    };
    let table = |number: usize, names: [&str; 2]| {
        format!(
            ".section .eh_frame,\"aG\",@progbits,group{number},comdat\n.Lcie{number}: .long .Lce{number}-.-4\n\
             .long 0\n.byte 1\n.string \"zR\"\n.byte 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1\n.balign 8\n\
             .Lce{number}:\n{}{}",
            frame(number, names[0]),
            frame(number, names[1])
        )
    };
    let text =
        [".text\n", &functions.concat(), &table(1, ["one", "three"]), &table(2, ["two", "four"])].concat();
    let object = compile_text(GCC, &[], "s", &text);
    let tables = Arc::new(parking_lot::Mutex::new(0));
    let registrar = Counted { tables: Arc::clone(&tables), registrar: LibgccFrames::of_every_image() };
    let loader = Loader::builder().unwind(Arc::new(registrar)).build();
    let resolver = AbsoluteSymbols::new().with("host_looks", host_looks as *const () as u64);
    match loader.load(&object, &resolver) {
        Ok(image) => {
            for name in ["one", "two", "three", "four"] {
                TRACE.lock().clear();
                assert_eq!(call_int(&image, name, &[4]), 5);
                let code = image.segment_range(Segment::Code);
                let at = TRACE.lock().iter().position(|address| code.contains(address));
                assert!(
                    at.is_some_and(|at| TRACE.lock().len() > at + 1),
                    "{name}: {:x?} {code:x?}",
                    TRACE.lock()
                );
            }
        }
        Err(error) => assert!(error.to_string().contains("code that interleaves"), "{error}"),
    }
    assert_eq!(*tables.lock(), 2);
    assert_eq!(host.alone(4), 4);
}

/// Notes how many tables there are.
struct Counted {
    tables: Arc<parking_lot::Mutex<usize>>,
    registrar: LibgccFrames,
}

impl UnwindRegistrar for Counted {
    unsafe fn register(&self, info: &UnwindInfo) -> Result<Option<Box<dyn UnwindRegistration>>, String> {
        *self.tables.lock() = info.eh_frames.len();
        // SAFETY: the caller vouches for the same.
        unsafe { self.registrar.register(info) }
    }
}

/// Where the calls came from when loaded code called back.
static TRACE: parking_lot::Mutex<Vec<u64>> = parking_lot::Mutex::new(Vec::new());

extern "C" fn host_looks(n: i32) -> i32 {
    let mut trace = [std::ptr::null_mut::<c_void>(); 100];
    // SAFETY: `int backtrace(void **, int)` writes no more addresses than it is told.
    let count = unsafe { libc::backtrace(trace.as_mut_ptr(), trace.len() as i32) };
    *TRACE.lock() = trace[..count as usize].iter().map(|address| *address as u64).collect();
    n + 1
}

/// The code of the image that was loaded last.
#[derive(Clone, Default)]
struct CodeOf<R> {
    code: Arc<parking_lot::Mutex<Range<u64>>>,
    registrar: R,
}

impl<R: UnwindRegistrar> UnwindRegistrar for CodeOf<R> {
    unsafe fn register(&self, info: &UnwindInfo) -> Result<Option<Box<dyn UnwindRegistration>>, String> {
        *self.code.lock() = info.code.clone();
        // SAFETY: the caller vouches for the same.
        unsafe { self.registrar.register(info) }
    }
}

/// The addresses of a backtrace taken below C code: in it, and beyond.
fn frames_of_a_trace(registrar: impl UnwindRegistrar + Clone + 'static) -> [usize; 2] {
    let source =
        "int host_looks(int); static __attribute__((noinline)) int inner(int n) { return host_looks(n) + 1; }
        int outer(int n) { return inner(n) + 1; }";
    let object = compile_text(GCC, &["-O1", "-fPIC", "-fno-optimize-sibling-calls"], "c", source);
    let registrar = CodeOf { code: Arc::default(), registrar };
    let loader = Loader::builder().unwind(Arc::new(registrar.clone())).build();
    let resolver = AbsoluteSymbols::new().with("host_looks", host_looks as *const () as u64);
    let image = loader.load(&object, &resolver).unwrap();
    assert_eq!(call_int(&image, "outer", &[4]), 7);
    let code = registrar.code.lock().clone();
    let trace = TRACE.lock();
    let at = trace.iter().position(|address| code.contains(address)).expect("the caller is in the trace");
    let inside = trace[at..].iter().take_while(|address| code.contains(address)).count();
    [inside, trace.len() - at - inside]
}

#[test]
fn backtraces_pass_through_loaded_code_that_is_registered() {
    if !has(GCC) {
        return;
    }
    for registrar in [LibgccFrames::new(), LibgccFrames::of_every_image()] {
        let [inside, beyond] = frames_of_a_trace(registrar);
        assert_eq!(inside, 2);
        assert!(beyond > 3, "the test's own callers, {beyond}");
    }
    assert_eq!(frames_of_a_trace(NoUnwind), [1, 0]);
}

/// An object that catches what it throws: `catches(n)` is `n + number` if `n > 3`, otherwise `number`.
fn catching(number: i32) -> Vec<u8> {
    let source = format!(
        "struct Guard {{ int *to; ~Guard() {{ *to += {number}; }} }};
         extern \"C\" int catches(int n) {{
            int cleaned = 0;
            try {{ Guard guard{{&cleaned}}; if (n > 3) throw n; }} catch (int caught) {{ return caught + cleaned; }}
            return cleaned; }}"
    );
    compile_text(GXX, &["-O2", "-fPIC"], "cpp", &source)
}

#[test]
fn ten_thousand_images_come_and_go_among_throws_in_several_threads() {
    const LOADS: usize = 10_000;
    const THREADS: usize = 4;
    let _turn = TURN.lock();
    let Some(host) = Host::new() else { return };
    // Of different sizes: the next image in a place is about other addresses.
    let objects = [1, 2, 3].map(|number| (catching(number), number));
    let whole = compile(GXX, &["-O2", "-fPIC", "-w"], &fixture("unwind/whole.cpp"));
    for loader in loaders() {
        let throws = AtomicUsize::new(0);
        let kept: Vec<LoadedImage> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (loader, objects, host, throws, whole) = (&loader, &objects, &host, &throws, &whole);
                    scope.spawn(move || {
                        let mut random = Random(thread as u64 + 1);
                        let mut live: Vec<(LoadedImage, i32)> = Vec::new();
                        let resolver = host.resolver();
                        for round in 0..LOADS / THREADS {
                            let (object, number) = &objects[random.below(3) as usize];
                            live.push((loader.load(object, &resolver).unwrap(), *number));
                            if round % 400 == 0 {
                                let image = loader.load(whole, &resolver).unwrap();
                                assert_eq!(host.catches(&image, "lets_through", 1), 2);
                            }
                            if random.below(4) == 0 {
                                let (image, number) = &live[random.below(live.len() as u64) as usize];
                                assert_eq!(call_int(image, "catches", &[50]), 50 + number);
                                assert_eq!(host.alone(4), 4);
                                throws.fetch_add(2, Ordering::Relaxed);
                            }
                            if random.below(3) == 0 {
                                live.swap_remove(random.below(live.len() as u64) as usize);
                            }
                        }
                        for (image, number) in &live {
                            assert_eq!(call_int(image, "catches", &[60]), 60 + number);
                        }
                        live.into_iter().map(|(image, _)| image)
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        eprintln!("{} images live, {} throws meanwhile", kept.len(), throws.load(Ordering::Relaxed));
        assert!(kept.len() > LOADS / 2);
        drop(kept);
        assert_eq!(host.alone(9), 9);
    }
}

/// libgcc looks at what it was told of a registration after it has given back its lock. The images that throw share theirs with
/// those that come and go.
#[test]
fn others_come_and_go_while_threads_throw_without_pause() {
    const LOADS: usize = 200_000;
    let _turn = TURN.lock();
    let Some(host) = Host::new() else { return };
    let (object, other) = (catching(1), catching(2));
    for loader in loaders() {
        // So many that groups are divided.
        let live: Vec<LoadedImage> =
            (0..200).map(|_| loader.load(&object, &host.resolver()).unwrap()).collect();
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (live, done) = (&live, &done);
                scope.spawn(move || {
                    let mut random = Random(thread + 1);
                    while done.load(Ordering::Relaxed) == 0 {
                        let image = &live[random.below(live.len() as u64) as usize];
                        assert_eq!(call_int(image, "catches", &[50]), 51);
                    }
                });
            }
            for _ in 0..LOADS / loaders().len() / 10 {
                let some: Vec<LoadedImage> =
                    (0..10).map(|_| loader.load(&other, &host.resolver()).unwrap()).collect();
                drop(some);
            }
            done.store(1, Ordering::Relaxed);
        });
    }
}

/// Every table of a C++ object with a byte or two changed ends in an error or in an image; never in libgcc on its knees.
#[test]
fn tables_that_libgcc_could_not_bear_are_refused() {
    let Some(host) = Host::new() else { return };
    let object = catching(5);
    let file = object::File::parse(&*object).unwrap();
    let section = object::Object::section_by_name(&file, ".eh_frame").unwrap();
    let (start, len) = object::ObjectSection::file_range(&section).unwrap();
    let version = start as usize + 8;
    assert_eq!(object[version], 1);
    for loader in loaders() {
        let mut newer = object.clone();
        newer[version] = 4;
        let error = loader.load(&newer, &host.resolver()).unwrap_err();
        assert!(
            matches!(&error, LoadError::Unwind(why) if why.contains("common information entry")),
            "{error}"
        );
        let mut refused = 0;
        for at in start as usize..(start + len) as usize {
            for byte in [0, 0x50, 0x7f, 0xff] {
                let mut changed = object.clone();
                changed[at] = byte;
                refused += usize::from(loader.load(&changed, &host.resolver()).is_err());
                // Whatever was registered, the host can throw, and so can others.
                if at % 8 == 0 {
                    let image = loader.load(&changed, &host.resolver());
                    assert_eq!(host.alone(5), 5);
                    drop(image);
                }
            }
        }
        eprintln!("{refused} of {} changes were refused", 4 * len);
        assert!(refused as u64 > len / 2);
        let sound = loader.load(&object, &host.resolver()).unwrap();
        assert_eq!(call_int(&sound, "catches", &[10]), 15);
    }
}

#[test]
fn a_child_process_throws_loads_and_drops_on_its_own() {
    alone("a_child_process_throws_loads_and_drops_on_its_own", || {
        let Some(host) = Host::new() else { return };
        let (object, other) = (catching(1), catching(2));
        for loader in loaders() {
            let load = |object: &[u8]| loader.load(object, &host.resolver()).unwrap();
            let mut inherited: Vec<LoadedImage> = (0..200).map(|_| load(&object)).collect();
            assert!(inherited.iter().all(|image| call_int(image, "catches", &[10]) == 11));
            let stop = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                // Another thread changes registrations all the time, so that forks come in the middle.
                scope.spawn(|| {
                    while stop.load(Ordering::Relaxed) == 0 {
                        drop((load(&object), load(&other)));
                    }
                });
                for _ in 0..20 {
                    let child = fork(|| {
                        let own: Vec<LoadedImage> = (0..50).map(|_| load(&other)).collect();
                        let all = inherited.iter().all(|image| call_int(image, "catches", &[20]) == 21)
                            && own.iter().all(|image| call_int(image, "catches", &[20]) == 22);
                        inherited.truncate(100);
                        drop(own);
                        all && inherited.iter().all(|image| call_int(image, "catches", &[30]) == 31)
                            && host.alone(7) == 7
                    });
                    inherited.swap_remove(0);
                    inherited.push(load(&object));
                    assert!(child.succeeded());
                    assert!(inherited.iter().all(|image| call_int(image, "catches", &[40]) == 41));
                }
                stop.store(1, Ordering::Relaxed);
            });
        }
    });
}

#[test]
fn an_object_without_exceptions_needs_no_symbols_of_the_runtime() {
    let object = compile_text(GCC, &["-O1", "-fPIC"], "c", "int f(int n) { return n + 1; }");
    let loader = Loader::builder().unwind(Arc::new(LibgccFrames::of_every_image())).build();
    let image = loader.load(&object, &NoSymbols).unwrap();
    assert_eq!(call_int(&image, "f", &[1]), 2);
}

/// Keeps what it is told, and registers nothing.
#[derive(Default)]
struct Told {
    info: parking_lot::Mutex<Option<UnwindInfo>>,
    sections: SectionLog,
    compact: parking_lot::Mutex<Vec<Vec<u8>>>,
}

impl UnwindRegistrar for Told {
    unsafe fn register(&self, info: &UnwindInfo) -> Result<Option<Box<dyn UnwindRegistration>>, String> {
        *self.info.lock() = Some(info.clone());
        Ok(None)
    }
}

impl EventListener for Told {
    fn notify_loaded(&self, loaded: &LoadedObject<'_>) {
        self.sections.notify_loaded(loaded);
        self.compact.lock().extend(loaded.compact_unwind().map(<[u8]>::to_vec));
    }
    fn notify_freeing(&self, _image: ImageId) {}
}

const CALLS: &str =
    "int other(int); int f(int n) { return other(n + 1) + 1; } int g(int n) { return other(f(n)) + 2; }";

fn told_of(target: &str) -> Option<Arc<Told>> {
    if !has(CLANG) {
        return None;
    }
    let object = compile_text(CLANG, &[target, "-O1", "-w"], "c", CALLS);
    let told = Arc::new(Told::default());
    let loader = Loader::builder().unwind(told.clone()).listener(told.clone()).build();
    loader.load(&object, &from_fn(|_| Some(16))).unwrap();
    Some(told)
}

#[test]
fn tables_of_windows_are_reported_by_address() {
    let Some(told) = told_of("--target=x86_64-pc-windows-msvc") else { return };
    let info = told.info.lock().clone().expect("the registrar is told");
    assert!(info.eh_frames.is_empty() && !info.is_empty());
    let sections = told.sections.0.lock();
    for (name, tables) in [(".pdata", &info.pdata), (".xdata", &info.xdata)] {
        let section = sections.iter().find(|section| section.name == name).unwrap();
        assert!(
            matches!(&tables[..], [table] if (table.address, table.size) == (section.address, section.size as u64))
        );
    }
    // Twelve bytes for each function: its beginning, its end, its unwind codes.
    assert_eq!(info.pdata[0].size, 2 * 12);
}

#[test]
fn compact_unwind_entries_are_handed_to_listeners() {
    let Some(told) = told_of("--target=x86_64-apple-macos13") else { return };
    let compact = told.compact.lock();
    // Two entries: address, length, encoding, personality, language-specific data.
    let [entries] = &compact[..] else { panic!("{compact:?}") };
    assert_eq!(entries.len(), 2 * 32);
    let lengths = entries.chunks(32).map(|entry| u32::from_le_bytes(entry[8..12].try_into().unwrap()));
    assert!(lengths.into_iter().all(|length| (5..100).contains(&length)));
}

/// The folder of the libgcc that a child of [`the_same_with_a_libgcc_that_keeps_a_tree`] is to have in it.
const NEWER: &str = "OBJCACHE_LOADER_TEST_LIBGCC";

/// Since version 13 libgcc keeps what it is told of in a tree by addresses, and aborts over what overlaps. These tests again, in
/// a process with one of that kind.
#[test]
fn the_same_with_a_libgcc_that_keeps_a_tree() {
    if let Some(folder) = std::env::var_os(NEWER) {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let library = Path::new(&folder).join("libgcc_s.so.1");
        assert!(maps.contains(library.to_str().unwrap()), "{maps}");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let fetched = Command::new(root.join("tests/cross/newer-libgcc"))
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("newer-libgcc"))
        .output();
    let Some(fetched) = fetched.ok().filter(|fetched| fetched.status.success()) else {
        return skip("cannot fetch the libgcc of Debian 13");
    };
    let folder = String::from_utf8(fetched.stdout).unwrap().trim().to_owned();
    let child = Command::new(std::env::current_exe().unwrap())
        // What the older libgcc has trouble with, and checks of tables, which are the same.
        .args(["--skip", "ten_thousand", "--skip", "without_pause", "--skip", "could_not_bear"])
        .env("LD_LIBRARY_PATH", &folder)
        .env(NEWER, &folder)
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
}
