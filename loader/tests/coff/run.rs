//! Code for Windows, run in this process by its own calling convention, calls back into the program. The same source,
//! compiled for this system, must give the same results.

use std::collections::BTreeSet;
use std::sync::Arc;

use objcache_loader::{
    EventListener, ImageId, LoadedImage, LoadedObject, Loader, MemoryManager, PageMemory, SlabMemory, from_fn,
};
use parking_lot::Mutex;

use crate::kinds;
use crate::support::*;
use crate::whole;

/// The compilers, with flags that make no difference to the results.
const VARIANTS: [(&str, &str, &[&str]); 8] = [
    (CLANG, CLANGXX, &["--target=x86_64-pc-windows-msvc", "-O0"]),
    (CLANG, CLANGXX, &["--target=x86_64-pc-windows-msvc", "-O2"]),
    (CLANG, CLANGXX, &["--target=x86_64-pc-windows-msvc", "-Os", "-ffunction-sections", "-fdata-sections"]),
    (CLANG, CLANGXX, &["--target=x86_64-pc-windows-gnu", "-O0"]),
    (CLANG, CLANGXX, &["--target=x86_64-pc-windows-gnu", "-O2", "-fcommon"]),
    ("x86_64-w64-mingw32-gcc", MINGW64, &["-O0"]),
    ("x86_64-w64-mingw32-gcc", MINGW64, &["-O2", "-fcommon"]),
    ("x86_64-w64-mingw32-gcc", MINGW64, &["-Os", "-ffunction-sections"]),
];

std::arch::global_asm!(
    // What code for Windows calls before it takes much stack. Here the system grows the stack by itself.
    ".globl coff_test_chkstk",
    "coff_test_chkstk:",
    "ret",
);

unsafe extern "C" {
    fn coff_test_chkstk();
}

thread_local! {
    static NOTES: std::cell::RefCell<Vec<i32>> = const { std::cell::RefCell::new(Vec::new()) };
}

static mut HOST_VARIABLE: i32 = 1234;
static IMPORTED_VARIABLE: i32 = 55;
/// Stands for what is only referred to.
static NEVER_USED: [u64; 8] = [0; 8];

fn note(value: i32) {
    NOTES.with_borrow_mut(|notes| notes.push(value));
}

/// The host's functions in one convention.
macro_rules! host {
    ($module:ident, $convention:literal) => {
        mod $module {
            extern $convention fn host_add(a: i32, b: i32) -> i32 {
                a.wrapping_add(b.wrapping_mul(2))
            }
            extern $convention fn host_note(value: i32) {
                super::note(value);
            }
            extern $convention fn imported(x: i32) -> i32 {
                x.wrapping_mul(100)
            }
            extern $convention fn imported_too(x: i32) -> i32 {
                x.wrapping_sub(7)
            }

            extern $convention fn memcpy(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
                // SAFETY: compilers call it for structures that they copy.
                unsafe { to.copy_from_nonoverlapping(from, size) };
                to
            }
            extern $convention fn memset(to: *mut u8, byte: i32, size: usize) -> *mut u8 {
                // SAFETY: compilers call it for structures that they clear.
                unsafe { to.write_bytes(byte as u8, size) };
                to
            }

            pub(super) fn resolve(name: &str) -> Option<u64> {
                Some(match name {
                    "host_add" | "?host_add@@YAHHH@Z" => host_add as *const () as u64,
                    "host_note" => host_note as *const () as u64,
                    "imported" => imported as *const () as u64,
                    "imported_too" => imported_too as *const () as u64,
                    "memcpy" => memcpy as *const () as u64,
                    "memset" => memset as *const () as u64,
                    "host_variable" => &raw const super::HOST_VARIABLE as u64,
                    "imported_variable" => &raw const super::IMPORTED_VARIABLE as u64,
                    "__chkstk" | "___chkstk_ms" => super::coff_test_chkstk as *const () as u64,
                    "weak_elsewhere" => return None,
                    // gcc forgets that this is weak.
                    "weak_variable" => 0,
                    _ if name.starts_with("__imp_") => return None,
                    _ => &raw const super::NEVER_USED as u64,
                })
            }
        }
    };
}
host!(windows, "win64");
host!(here, "C");

#[repr(C)]
#[derive(Clone, Copy)]
struct Wide([u64; 8]);

/// Calls every function of the fixtures and lists what they return.
macro_rules! results {
    ($name:ident, $convention:literal) => {
        fn $name(c: &LoadedImage, cpp: &LoadedImage) -> Vec<u64> {
            type Int = extern $convention fn(i32, i32) -> i32;
            let int = |image: &LoadedImage, name: &str, a: i32, b: i32| {
                // SAFETY: functions of `int` parameters, of our own fixtures; spare arguments are ignored.
                let function = unsafe { image.get::<Int>(name) };
                function.unwrap_or_else(|error| panic!("{error}"))(a, b) as u64
            };
            let mut results = Vec::new();
            for x in -1..10 {
                for name in ["calls", "maybe", "dense", "stack_user"] {
                    results.push(int(c, name, x, 0));
                }
                results.push(int(c, "through", x, 30 - x));
                for name in ["templates", "tables", "virtuals", "calls_import"] {
                    results.push(int(cpp, name, x, 0));
                }
                results.push(int(cpp, "by_pointer", x, x + 1));
                // SAFETY: as they are declared in the fixture.
                let floats = unsafe { c.get::<extern $convention fn(f64, i32) -> f64>("floats") }.unwrap();
                results.push(floats(f64::from(x) * 1.25, x + 9).to_bits());
                // SAFETY: as above.
                let integers = unsafe { c.get::<extern $convention fn(u64) -> u64>("integers") }.unwrap();
                results.push(integers((x as u64).wrapping_mul(77)));
                // SAFETY: as above.
                let by_value = unsafe { c.get::<extern $convention fn(Wide, i32) -> Wide>("by_value") }.unwrap();
                results.extend(by_value(Wide([x as u64; 8]), x).0);
                type Vectors = extern $convention fn(*mut f32, *const f32, i32);
                // SAFETY: as above.
                let vectors = unsafe { c.get::<Vectors>("vectors") }.unwrap();
                let (mut a, b) = ([1.5f32; 21], [0.25f32 * x as f32; 21]);
                vectors(a.as_mut_ptr(), b.as_ptr(), 21);
                results.extend(a.map(|number| u64::from(number.to_bits())));
            }
            results.push(int(cpp, "initialized", 0, 0));
            results
        }
    };
}
results!(results_for_windows, "win64");
results!(results_here, "C");

fn load(memory: &Arc<dyn MemoryManager>, object: &[u8], resolve: fn(&str) -> Option<u64>) -> LoadedImage {
    let loader = Loader::builder().memory(memory.clone()).build();
    loader.load(object, &from_fn(resolve)).unwrap_or_else(|error| panic!("{error}"))
}

/// Loads both, runs the initialisers, and lists what they noted.
fn start(
    memory: &Arc<dyn MemoryManager>,
    objects: &[Vec<u8>; 2],
    resolve: fn(&str) -> Option<u64>,
) -> ([LoadedImage; 2], Vec<i32>) {
    let images = [0, 1].map(|number| load(memory, &objects[number], resolve));
    NOTES.take();
    images.iter().for_each(initialize);
    (images, NOTES.take())
}

#[test]
fn code_for_windows_computes_what_code_for_this_system_does() {
    if !has(CLANG) || !has(CLANGXX) {
        return;
    }
    let sources = ["windows.c", "windows.cpp"].map(fixture);
    let native = ["-fdeclspec", "-fPIC", "-O1", "-w", "-DFAR_DATA", "-ffp-contract=off"];
    let native = [compile(CLANG, &native, &sources[0]), compile(CLANGXX, &native, &sources[1])];
    let slab: Arc<dyn MemoryManager> = Arc::new(SlabMemory::new());
    let (images, noted) = start(&slab, &native, here::resolve);
    assert_eq!(noted, [11, 22]);
    let expected = results_here(&images[0], &images[1]);
    let (mut runs, mut executed) = (0, BTreeSet::new());
    for (c, cpp, flags) in VARIANTS {
        if !has(c) || !has(cpp) {
            continue;
        }
        let flags = [flags, &["-w", "-DFAR_DATA", "-ffp-contract=off"]].concat();
        let objects = [compile(c, &flags, &sources[0]), compile(cpp, &flags, &sources[1])];
        for memory in [slab.clone(), Arc::new(PageMemory::new())] {
            let (images, noted) = start(&memory, &objects, windows::resolve);
            assert_eq!(noted, [11, 22], "{c} {flags:?}");
            let ours = results_for_windows(&images[0], &images[1]);
            let different = ours.iter().zip(&expected).position(|(ours, expected)| ours != expected);
            assert!(
                different.is_none() && ours.len() == expected.len(),
                "{c} {flags:?}: result {different:?}"
            );
            runs += 1;
        }
        objects.iter().for_each(|object| executed.extend(whole::used_kinds(object)));
    }
    let executed: Vec<_> = executed.into_iter().map(|kind| (coff::X86_64, kind)).collect();
    let executed = kinds::of_machine(coff::X86_64, executed.iter());
    coverage::keep_at_least("executed", "coff", "x86_64", &executed);
    eprintln!("{runs} runs of {} results each, all the same", expected.len());
    assert!(runs >= 10);
}

/// The arrays of the C runtime: C before C++, in the order of the names, and those for the end.
const ARRAYS: &str = r#"
    void host_note(int);
    #define ENTRY(place, number) \
        static void run##number(void) { host_note(number); } \
        __attribute__((section(place), used)) static void (*const entry##number)(void) = run##number;
    ENTRY(".CRT$XTX", 8)
    ENTRY(".CRT$XCU", 4)
    ENTRY(".CRT$XPX", 7)
    ENTRY(".CRT$XIU", 1)
    ENTRY(".CRT$XCB", 2)
    ENTRY(".CRT$XCT00101", 3)
    ENTRY(".CRT$XCV", 5)
    ENTRY(".ctors", 6)
    /* Between marks, as programs find arrays of their own: sorted, whatever the order in the object. */
    __attribute__((section("mine$z"), used)) const int last = 99;
    __attribute__((section("mine$m1"), used)) const int first = 10;
    __attribute__((section("mine$a"), used)) const int start = 1;
    __attribute__((section("mine$m2"), used)) const int second = 20;
    int between(void) { int sum = 0; for (const int *at = &start; at <= &last; at++) sum = sum * 3 + *at; return sum; }
    /* A distance from the start of the image, as tables have them. */
    extern char __ImageBase;
    extern const unsigned distance;
    __asm__(".section .rdata,\"dr\"\n.globl distance\ndistance: .long second@IMGREL");
    int by_distance(void) { return *(const int *)(&__ImageBase + distance); }
"#;

#[test]
fn arrays_of_the_runtime_run_in_the_order_of_their_names() {
    if !has(CLANG) {
        return;
    }
    let object = compile_text(CLANG, &["--target=x86_64-pc-windows-msvc", "-O1", "-w"], "c", ARRAYS);
    let memories: [Arc<dyn MemoryManager>; 2] = [Arc::new(SlabMemory::new()), Arc::new(PageMemory::new())];
    for memory in &memories {
        let image = load(memory, &object, windows::resolve);
        NOTES.take();
        assert!(image.needs_initializers());
        initialize(&image);
        assert_eq!(NOTES.take(), [1, 2, 3, 4, 5, 6]);
        // SAFETY: `int between(void)`, of the text above.
        let between = unsafe { image.get::<extern "win64" fn() -> i32>("between") }.unwrap();
        assert_eq!(between(), ((3 + 10) * 3 + 20) * 3 + 99);
        // SAFETY: `int by_distance(void)`, of the text above.
        let by_distance = unsafe { image.get::<extern "win64" fn() -> i32>("by_distance") }.unwrap();
        assert_eq!(by_distance(), 20);
        drop(image);
        assert_eq!(NOTES.take(), [7, 8]);
    }
}

#[derive(Default)]
struct Directives(Mutex<Vec<String>>);

impl EventListener for Directives {
    fn notify_loaded(&self, loaded: &LoadedObject<'_>) {
        let directives = loaded.directives().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        self.0.lock().extend(directives);
    }

    fn notify_freeing(&self, _image: ImageId) {}
}

#[test]
fn directives_are_handed_to_listeners() {
    if !has(CLANG) {
        return;
    }
    let text = "__declspec(dllexport) int shown(void) { return 1; }";
    let object = compile_text(CLANG, &["--target=x86_64-pc-windows-msvc"], "c", text);
    let listener = Arc::new(Directives::default());
    let loader = Loader::builder().listener(listener.clone()).build();
    loader.load(&object, &from_fn(windows::resolve)).unwrap();
    let directives = listener.0.lock();
    assert!(directives.len() == 1 && directives[0].contains("/EXPORT:shown"), "{directives:?}");
}
