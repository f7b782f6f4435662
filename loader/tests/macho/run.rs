//! Mach-O code for x86-64 runs in a process of Linux: its calling convention is the same. What it computes is what the same
//! source computes as a shared library of this system.

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use objcache_loader::{
    AbsoluteSymbols, LoadedImage, Loader, MemoryManager, PageMemory, ProcessSymbols, SharedLibrary,
    SlabMemory, SymbolResolver, chain, strip_prefix,
};

use crate::support::*;
use crate::whole;

const LEVELS: [&str; 4] = ["-O0", "-O1", "-O2", "-Os"];

static HOST_COUNTER: AtomicI32 = AtomicI32::new(77);
static NOTES: AtomicI32 = AtomicI32::new(0);
/// A variable of macOS's C library, which Linux keeps elsewhere.
static STACK_CHK_GUARD: AtomicU64 = AtomicU64::new(0x1234_5678_9abc_de00);

extern "C" fn host_add(a: c_int, b: c_int) -> c_int {
    a.wrapping_add(b)
}

extern "C" fn host_note(what: c_int) {
    NOTES.fetch_add(what, Ordering::SeqCst);
}

/// What C code of the fixtures asks for, by its names in C.
fn host() -> impl SymbolResolver {
    let own = AbsoluteSymbols::new()
        .with("host_add", host_add as *const () as u64)
        .with("host_note", host_note as *const () as u64)
        .with("host_counter", HOST_COUNTER.as_ptr() as u64)
        .with("__stack_chk_guard", STACK_CHK_GUARD.as_ptr() as u64);
    chain(own, ProcessSymbols)
}

fn managers() -> [(&'static str, Arc<dyn MemoryManager>); 2] {
    [("PageMemory", Arc::new(PageMemory::new())), ("SlabMemory", Arc::new(SlabMemory::new()))]
}

const C_FUNCTIONS: [&str; 23] = [
    "call_internal",
    "read_host_counter",
    "through_host_pointer",
    "switch_table",
    "computed_goto",
    "through_tables",
    "word_length",
    "through_inside",
    "doubles",
    "floats",
    "vectors",
    "wide",
    "count",
    "write_zeros",
    "use_common",
    "call_weak",
    "call_hidden",
    "immediates",
    "far_fields",
    "sum_entries",
    "entry_count",
    "aligned",
    "initialized",
];

const CXX_FUNCTIONS: [&str; 8] =
    ["boxes", "count_up", "areas", "is_started", "static_local", "lambdas", "throw_and_catch", "rethrow"];

/// Calls every function with small numbers, in the same order wherever it is.
fn results(functions: &[&str], address: impl Fn(&str) -> u64) -> Vec<(String, c_int)> {
    let mut results = Vec::new();
    for name in functions {
        let address = address(name) as usize;
        // SAFETY: all of them are `int name(int)`, of our own fixtures, and what they are in is alive.
        let function = unsafe { std::mem::transmute::<usize, extern "C-unwind" fn(c_int) -> c_int>(address) };
        results.extend((0..9).map(|n| (format!("{name}({n})"), function(n))));
    }
    results
}

/// The fixture as a shared library of this system.
fn native(compiler: &str, source: &str) -> SharedLibrary {
    const HOST: &str = "int host_counter = 77; int host_add(int a, int b) { return a + b; } void host_note(int n) { (void)n; }";
    let library = scratch(&format!("{source}.so"));
    let host = scratch(&format!("{source}-host.c"));
    std::fs::write(&host, HOST).unwrap();
    let (source, library) = (fixture(source), library.to_str().unwrap());
    let (source, host) = (source.to_str().unwrap(), host.to_str().unwrap());
    let object = scratch("host.o");
    let object = object.to_str().unwrap();
    run(CLANG, &["-O1", "-fPIC", "-w", "-c", host, "-o", object]);
    run(compiler, &["-O1", "-fPIC", "-w", "-shared", source, object, "-o", library]);
    let library = std::ffi::CString::new(library).unwrap();
    // SAFETY: the initialisers are those of our own fixtures.
    unsafe { SharedLibrary::open(&library) }.unwrap()
}

fn mac_object(compiler: &str, flags: &[&str], source: &str) -> Vec<u8> {
    let mut all = vec!["--target=x86_64-apple-macosx13", "-w"];
    all.extend(flags);
    compile(compiler, &all, &fixture(source))
}

/// Loads the object, runs its initialisers, and says what its functions return.
fn run_object(
    loader: &Loader,
    object: &[u8],
    resolver: &dyn SymbolResolver,
    functions: &[&str],
) -> Vec<(String, c_int)> {
    let image = loader.load(object, &strip_prefix("_", resolver)).unwrap_or_else(|error| panic!("{error}"));
    assert!(image.needs_initializers());
    initialize(&image);
    results(functions, |name| address(&image, name))
}

fn address(image: &LoadedImage, name: &str) -> u64 {
    image.address(&format!("_{name}")).unwrap_or_else(|| panic!("no `_{name}`"))
}

#[test]
fn c_code_does_what_it_does_natively() {
    if !has(CLANG) {
        return;
    }
    let native = native(CLANG, "mac.c");
    let expected = results(&C_FUNCTIONS, |name| native.resolve(name).unwrap());
    let (mut runs, mut executed) = (0, BTreeSet::new());
    for level in LEVELS {
        for common in ["-fcommon", "-fno-common"] {
            let object = mac_object(CLANG, &[level, common], "mac.c");
            executed.extend(whole::kinds(macho::X86_64, &object));
            for (memory, manager) in managers() {
                for relax in [true, false] {
                    let loader = Loader::builder().memory(Arc::clone(&manager)).relax(relax).build();
                    let found = run_object(&loader, &object, &host(), &C_FUNCTIONS);
                    assert_eq!(found, expected, "{level} {common} {memory} {relax}");
                    runs += 1;
                }
            }
        }
    }
    coverage::keep_at_least("executed", "macho", "x86_64", &executed);
    eprintln!("{runs} images, {} calls each, all as native", expected.len());
}

#[test]
fn cxx_code_does_what_it_does_natively() {
    if !has(CLANGXX) {
        return;
    }
    let native = native(CLANGXX, "mac.cpp");
    let expected = results(&CXX_FUNCTIONS, |name| native.resolve(name).unwrap());
    // SAFETY: the library is loaded already, for the one above.
    let runtime = unsafe { SharedLibrary::open(c"libstdc++.so.6") }.unwrap();
    let resolver = chain(host(), runtime);
    for level in LEVELS {
        let object = mac_object(CLANGXX, &[level], "mac.cpp");
        for (memory, manager) in managers() {
            let loader = Loader::builder().memory(manager).build();
            NOTES.store(0, Ordering::SeqCst);
            let found = run_object(&loader, &object, &resolver, &CXX_FUNCTIONS);
            assert_eq!(found, expected, "{level} {memory}");
            let notes = NOTES.load(Ordering::SeqCst);
            assert!(notes > 1000, "{level} {memory}: the static destructor did not run: {notes}");
        }
    }
    eprintln!("{} calls each, all as native", expected.len());
}
