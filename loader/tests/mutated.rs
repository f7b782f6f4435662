//! Real compilers' objects for every machine and format, damaged in every byte: each ends in an image or in an error.
//! No panic, no hang, no memory beyond what the limits and the object's own size allow.
//!
//! Eleven ways to damage a byte: each bit flipped, all zeros, all ones, one more. Small objects are also cut off at every
//! length.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use objcache_loader::{FixedMemory, Limits, Loader, from_fn};
use support::counting::{Counting, LIVE, PEAK, processor_time};
use support::*;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const C: &str =
    "extern int f(int); extern int g_ext; static int t[] = {1, 2}; int *p = t; int zero[9]; int common_one;
    __attribute__((weak)) int w(void) { return 3; }
    int g(int n) { switch (n) { case 0: return f(1); case 1: return *p; case 2: return f(3) + g_ext;
    case 3: return 9 + w(); case 4: return zero[n]; case 5: return common_one; default: return 0; } }
    double d(double x) { return x * 3.25 + 1e100; }
    __attribute__((constructor)) static void c(void) { zero[1] = 1; }";

const CPP: &str = "struct A { ~A(); }; void g(); template <class T> T h(T t) { A a; g(); return t; }
    struct V { virtual ~V(); virtual int v() { return 1; } }; V::~V() {} inline int shared() { static int s = 4; return ++s; }
    int k() { V v; return h(1) + int(h(2.0)) + v.v() + shared(); }";

const THREADS: &str = "__thread int counter = 5; static __thread short hidden; __thread long numbers[9] = {1};
    int next(int n) { hidden += n; return counter++ + hidden + (int)numbers[n]; } int *where(void) { return &counter; }";

/// What clang makes objects for, with flags. All of these machines and formats are linked.
const TARGETS: &[&[&str]] = &[
    &["--target=x86_64-linux-gnu", "-fPIC"],
    &["--target=x86_64-linux-gnu", "-fno-pic"],
    &["--target=i386-linux-gnu", "-fPIC"],
    &["--target=i386-linux-gnu", "-fno-pic"],
    &["--target=aarch64-linux-gnu", "-fPIC"],
    &["--target=aarch64-linux-gnu", "-mcmodel=large", "-fno-pic"],
    &["--target=armv7-linux-gnueabihf", "-marm", "-fPIC"],
    &["--target=armv7-linux-gnueabihf", "-mthumb"],
    &["--target=riscv64-linux-gnu", "-mrelax", "-fPIC"],
    &["--target=riscv64-linux-gnu", "-mno-relax", "-mcmodel=medlow"],
    &["--target=riscv32-linux-gnu", "-mrelax"],
    &["--target=loongarch64-linux-gnu", "-mrelax", "-fPIC"],
    &["--target=powerpc64le-linux-gnu", "-fPIC"],
    &["--target=s390x-linux-gnu", "-fPIC"],
    &["--target=x86_64-pc-windows-msvc"],
    &["--target=x86_64-pc-windows-gnu", "-ffunction-sections"],
    &["--target=i686-pc-windows-msvc"],
    &["--target=aarch64-pc-windows-msvc"],
    &["--target=x86_64-apple-macos13"],
    &["--target=arm64-apple-macos13"],
    &["--target=arm64-apple-macos13", "-femit-dwarf-unwind=always", "-funwind-tables"],
];

/// Other compilers write other tables: relocations by section, COMDAT groups, notes.
const GCCS: &[(&str, &str)] = &[
    ("gcc", "g++"),
    ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++"),
    ("arm-linux-gnueabihf-gcc", "arm-linux-gnueabihf-g++"),
    ("i686-linux-gnu-gcc", "i686-linux-gnu-g++"),
    ("powerpc64le-linux-gnu-gcc", "powerpc64le-linux-gnu-g++"),
    ("riscv64-linux-gnu-gcc", "riscv64-linux-gnu-g++"),
    ("s390x-linux-gnu-gcc", "s390x-linux-gnu-g++"),
    ("x86_64-w64-mingw32-gcc", "x86_64-w64-mingw32-g++"),
    ("i686-w64-mingw32-gcc", "i686-w64-mingw32-g++"),
];

fn corpus() -> Vec<(String, Vec<u8>)> {
    let mut corpus = Vec::new();
    for target in TARGETS {
        for (language, source) in [("c", C), ("cpp", CPP)] {
            let flags = [target, &["-O1", "-ffreestanding", "-fcommon", "-w", "-g0"][..]].concat();
            let compiler = if language == "c" { CLANG } else { CLANGXX };
            let name = format!("{target:?} {language}");
            corpus.push((name, compile_text(compiler, &flags, language, source)));
        }
    }
    for (c, cpp) in GCCS {
        for (compiler, language, source) in [(c, "c", C), (cpp, "cpp", CPP)] {
            if has(compiler) {
                let flags = ["-O1", "-ffreestanding", "-fcommon", "-w", "-g0"];
                corpus.push((
                    format!("{compiler} {language}"),
                    compile_text(compiler, &flags, language, source),
                ));
            }
        }
    }
    for target in TARGETS.iter().filter(|target| target[0].contains("linux") && target.contains(&"-fPIC")) {
        let flags = [target, &["-O1", "-ffreestanding", "-g0"][..]].concat();
        corpus.push((format!("{target:?} threads"), compile_text(CLANG, &flags, "c", THREADS)));
    }
    corpus
}

const IMAGE_LIMIT: u64 = 1 << 20;

/// All that a link may take from the heap: the image, and tables in proportion to the object.
fn most_memory(object: &[u8]) -> isize {
    2 * IMAGE_LIMIT as isize + 64 * object.len() as isize
}

fn loader() -> Loader {
    let mut limits = Limits::default();
    limits.image_bytes = IMAGE_LIMIT;
    let memory = FixedMemory::at(0x4000_0000);
    Loader::builder().memory(Arc::new(memory)).limits(limits).relax(true).build()
}

fn links(loader: &Loader, object: &[u8]) -> bool {
    loader.load(object, &from_fn(|name| Some(0x4100_0000 + 16 * name.len() as u64))).is_ok()
}

#[derive(Default)]
struct Tally {
    cases: u64,
    linked: u64,
    slowest: Duration,
    largest: isize,
}

impl Tally {
    fn try_case(&mut self, loader: &Loader, what: &dyn Fn() -> String, object: &[u8]) {
        let (before, start) = (LIVE.get(), processor_time());
        PEAK.set(before);
        let outcome = catch_unwind(AssertUnwindSafe(|| links(loader, object)));
        let (taken, memory) = (processor_time() - start, PEAK.get() - before);
        assert!(outcome.is_ok(), "{}: a panic", what());
        // A tenth of a second is the promise, kept by far; what is asserted is that nothing hangs.
        assert!(taken < Duration::from_secs(5), "{}: {taken:?}", what());
        assert!(memory <= most_memory(object), "{}: {memory} bytes", what());
        self.cases += 1;
        self.linked += u64::from(outcome.unwrap_or_default());
        self.slowest = self.slowest.max(taken);
        self.largest = self.largest.max(memory);
    }

    fn add(&mut self, other: Tally) {
        self.cases += other.cases;
        self.linked += other.linked;
        self.slowest = self.slowest.max(other.slowest);
        self.largest = self.largest.max(other.largest);
    }
}

/// The eleven.
fn damages(byte: u8) -> impl Iterator<Item = u8> {
    (0..8).map(move |bit| byte ^ 1 << bit).chain([0x00, 0xff, byte.wrapping_add(1)])
}

fn damage_everywhere(name: &str, object: &[u8]) -> Tally {
    let loader = loader();
    assert!(links(&loader, object), "{name}: the object itself is fine");
    let mut tally = Tally::default();
    let mut changed = object.to_vec();
    for at in 0..object.len() {
        for byte in damages(object[at]).filter(|byte| *byte != object[at]) {
            changed[at] = byte;
            let what = || format!("{name}: byte {at:#x} {:#04x} -> {byte:#04x}", object[at]);
            tally.try_case(&loader, &what, &changed);
        }
        changed[at] = object[at];
    }
    if object.len() < 6000 {
        for length in 0..object.len() {
            tally.try_case(&loader, &|| format!("{name}: cut off at {length:#x}"), &object[..length]);
        }
    }
    tally
}

#[test]
fn damaged_objects_are_linked_or_refused() {
    if !has(CLANG) {
        return;
    }
    let corpus = corpus();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut total = Tally::default();
    std::thread::scope(|scope| {
        let work = || {
            let mut tally = Tally::default();
            while let Some((name, object)) = corpus.get(next.fetch_add(1, Ordering::Relaxed)) {
                tally.add(damage_everywhere(name, object));
            }
            tally
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(tally) => total.add(tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let Tally { cases, linked, slowest, largest } = total;
    let bytes: usize = corpus.iter().map(|(_, object)| object.len()).sum();
    eprintln!(
        "{} objects, {bytes} bytes: {cases} cases, {linked} linked, {} refused; slowest {slowest:?}, most memory {largest} bytes",
        corpus.len(),
        cases - linked
    );
    assert!(linked > 0 && linked < cases);
}
