//! Debug information that is damaged, or made to waste time and memory: symbolising gives frames, nothing, or an error.
//! Never a panic, a hang, or memory out of proportion; and never an effect on the load.

#![cfg(feature = "symbolize")]

mod support;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use objcache_loader::{
    EventListener, FixedMemory, ImageId, LoadedObject, Loader, NoSymbols, PhonySymbols, Segment,
};
use support::counting::{Counting, LIVE, PEAK, processor_time};
use support::*;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Asks for the symbol file, as debuggers' listeners do.
struct Asking;

impl EventListener for Asking {
    fn notify_loaded(&self, loaded: &LoadedObject<'_>) {
        let _ = loaded.symbol_file();
        let _ = loaded.functions();
    }

    fn notify_freeing(&self, _image: ImageId) {}
}

fn loader() -> Loader {
    let memory = Arc::new(FixedMemory::at(0x4000_0000));
    Loader::builder().memory(memory).listener(Arc::new(Asking)).keep_debug_info(true).build()
}

/// What became of the questions.
#[derive(Default)]
struct Tally {
    cases: usize,
    loaded: usize,
    answered: usize,
    refused: usize,
    slowest: Duration,
    largest: isize,
}

/// Loads the object and asks for addresses all over its code.
fn ask(loader: &Loader, object: &[u8], tally: &mut Tally) {
    let Ok(image) = loader.load(object, &PhonySymbols::below(0x4000_0000)) else { return };
    tally.loaded += 1;
    let size = image.segment_size(Segment::Code) as u64;
    for step in 0..12 {
        match image.symbolize(0x4000_0000 + size * step / 12) {
            Ok(frames) => tally.answered += usize::from(frames.iter().any(|frame| frame.line.is_some())),
            Err(_) => {
                tally.refused += 1;
                break;
            }
        }
    }
}

fn try_case(loader: &Loader, what: &dyn Fn() -> String, object: &[u8], tally: &mut Tally) {
    let (before, start) = (LIVE.get(), processor_time());
    PEAK.set(before);
    let outcome = catch_unwind(AssertUnwindSafe(|| ask(loader, object, tally)));
    let (taken, memory) = (processor_time() - start, PEAK.get() - before);
    assert!(outcome.is_ok(), "{}: a panic", what());
    assert!(taken < Duration::from_secs(5), "{}: {taken:?}", what());
    // Tables are larger in memory than in the object, in proportion.
    let most = (64 << 20) + 256 * object.len() as isize;
    assert!(memory <= most, "{}: {memory} bytes for an object of {}", what(), object.len());
    tally.cases += 1;
    tally.slowest = tally.slowest.max(taken);
    tally.largest = tally.largest.max(memory);
}

const SOURCE: &str = "static inline int twice(int a) { return a + a; }
    template <class T> static inline T most(T a, T b) { return a > b ? twice(a) : b; }
    struct Point { int x, y; int sum() const { return most(x, twice(y)); } };
    extern int away(int); int grid[9];
    int one(int a) { Point p = {a, grid[a]}; int n = away(p.sum()); return n + most(a, n); }
    int two(int a) { int total = 0; for (int i = 0; i < a; i++) total += one(i) + twice(i); return total; }";

/// Places of the debug sections and of their relocations in the object.
fn debug_ranges(object: &[u8]) -> Vec<std::ops::Range<usize>> {
    use object::{Object as _, ObjectSection as _};
    let file = object::File::parse(object).unwrap();
    let sections =
        file.sections().filter(|section| section.name().is_ok_and(|name| name.contains(".debug_")));
    sections
        .filter_map(|section| section.file_range())
        .map(|(start, size)| start as usize..(start + size) as usize)
        .collect()
}

/// One of several ways to spoil bytes in the debug sections.
fn spoil(random: &mut Random, object: &mut [u8], ranges: &[std::ops::Range<usize>]) -> String {
    let range = &ranges[random.below(ranges.len() as u64) as usize];
    let at = range.start + random.below(range.len() as u64) as usize;
    let byte = match random.below(6) {
        0 => object[at] ^ 1 << random.below(8),
        1 => 0,
        2 => 0xff,
        3 => 0x80,
        4 => object[at].wrapping_add(1),
        _ => random.next() as u8,
    };
    let length = if random.below(8) == 0 { 1 + random.below(8) as usize } else { 1 };
    let end = (at + length).min(range.end);
    object[at..end].fill(byte);
    format!("{at:#x}..{end:#x} = {byte:#x}")
}

#[test]
fn damaged_debug_information_is_answered_or_refused() {
    let mut tally = Tally::default();
    let loader = loader();
    let rounds = if std::env::var_os("OBJCACHE_SOAK").is_some() { 200_000 } else { 3_000 };
    for compiler in [CLANGXX, GXX].into_iter().filter(|compiler| has(compiler)) {
        for flags in [["-O2", "-gdwarf-4"], ["-O2", "-gdwarf-5"], ["-O0", "-gdwarf-5"]] {
            let object =
                compile_text(compiler, &[flags[0], flags[1], "-fPIC", "-ffunction-sections"], "cpp", SOURCE);
            let ranges: Vec<_> =
                debug_ranges(&object).into_iter().filter(|range| !range.is_empty()).collect();
            let answered = tally.answered;
            try_case(&loader, &|| "unchanged".to_owned(), &object, &mut tally);
            assert!(tally.answered > answered, "the object itself is fine");
            let mut random = Random(0x9e37_79b9 + u64::from(flags[1].as_bytes()[8]));
            for _ in 0..rounds {
                let mut changed = object.clone();
                let changes: Vec<_> =
                    (0..1 + random.below(3)).map(|_| spoil(&mut random, &mut changed, &ranges)).collect();
                let what = || format!("{compiler} {flags:?} {changes:?}");
                try_case(&loader, &what, &changed, &mut tally);
            }
        }
    }
    let Tally { cases, loaded, answered, refused, slowest, largest } = tally;
    eprintln!(
        "{cases} cases, {loaded} loaded, {answered} answers, {refused} refused; slowest {slowest:?}, most memory {largest}"
    );
    assert_eq!(
        loaded, cases,
        "what is wrong with debug information does not keep an object from being loaded"
    );
}

/// One compilation unit with a function over all of the code, as assembly; `children` are entries inside the function,
/// `abbreviations` follow those of unit (1) and function (2).
fn unit(children: &str, abbreviations: &str) -> String {
    format!(
        ".text\n.globl code\n.type code,@function\ncode: .fill 64, 1, 0x90\n.size code, 64\n\
         .section .debug_abbrev,\"\",@progbits\n\
         .byte 1, 0x11, 1, 0x11, 1, 0x12, 6, 0, 0\n\
         .byte 2, 0x2e, 1, 0x11, 1, 0x12, 6, 3, 8, 0, 0\n{abbreviations}\n.byte 0\n\
         .section .debug_info,\"\",@progbits\n\
         .long end - start\nstart: .short 4\n.long 0\n.byte 8\n\
         .byte 1\n.quad code\n.long 64\n\
         .byte 2\n.quad code\n.long 64\n.asciz \"fun\"\n{children}\n.byte 0, 0\nend:\n"
    )
}

/// Says whether the object's debug information is refused; it always ends.
fn is_refused(name: &str, assembly: &str) -> bool {
    let object = compile_text(GCC, &[], "s", assembly);
    let mut tally = Tally::default();
    try_case(&loader(), &|| name.to_owned(), &object, &mut tally);
    assert_eq!(tally.loaded, 1);
    eprintln!("{name}: {} bytes, {:?}, {} bytes of memory", object.len(), tally.slowest, tally.largest);
    tally.refused > 0
}

/// An inlined function without attributes but its place.
const INLINED: &str = ".byte 3, 0x1d, 1, 0, 0";

#[test]
fn functions_nest_so_deep_and_no_deeper() {
    if !has(GCC) {
        return;
    }
    for (depth, refused) in [(150, false), (250, true), (300_000, true)] {
        let nest = format!(".fill {depth}, 1, 3\n.fill {depth}, 1, 0");
        assert_eq!(is_refused("nested", &unit(&nest, INLINED)), refused, "{depth}");
    }
}

#[test]
fn ranges_that_all_functions_share_are_counted() {
    if !has(GCC) {
        return;
    }
    for (functions, ranges, refused) in [(10, 100, false), (20_000, 20_000, true)] {
        let ranged = ".byte 3, 0x1d, 0, 0x55, 0x17, 0, 0";
        let children = format!(".rept {functions}\n.byte 3\n.long 0\n.endr");
        let lists =
            format!(".section .debug_ranges,\"\",@progbits\n.rept {ranges}\n.quad 1, 2\n.endr\n.quad 0, 0\n");
        assert_eq!(is_refused("ranges", &(unit(&children, ranged) + &lists)), refused);
    }
}

#[test]
fn attributes_that_take_no_bytes_are_counted() {
    if !has(GCC) {
        return;
    }
    for (attributes, refused) in [(90, false), (101, true), (100_000, true)] {
        let abbreviation =
            format!(".byte 3, 0x34, 0\n.rept {attributes}\n.byte 0x3f, 0x19\n.endr\n.byte 0, 0");
        assert_eq!(
            is_refused("attributes", &unit(".fill 1000, 1, 3", &abbreviation)),
            refused,
            "{attributes}"
        );
    }
    let most = ".byte 3, 0x34, 0\n.rept 90\n.byte 0x3f, 0x19\n.endr\n.byte 0, 0";
    assert!(is_refused("entries", &unit(".fill 2000000, 1, 3", most)));
}

#[test]
fn units_that_share_a_large_table_of_abbreviations_are_counted() {
    if !has(GCC) {
        return;
    }
    // Each unit's table begins one entry later.
    let mut assembly = unit("", "");
    assembly.push_str(".section .debug_abbrev\n.set number, 0\ntables:\n.rept 20000\n.uleb128 number + 3\n.byte 0x34, 0, 0, 0\n.set number, number + 1\n.endr\n.byte 0\n");
    assembly.push_str(".section .debug_info\n.set number, 0\n.rept 20000\n.long 8\n.short 4\n.long tables - .debug_abbrev + 4 * number\n.byte 8, 0\n.set number, number + 1\n.endr\n");
    let assembly = assembly.replace("tables - .debug_abbrev + 4 * number", "24 + 5 * number");
    assert!(is_refused("abbreviations", &assembly));
}

#[test]
fn long_names_and_paths_that_are_shared_are_counted() {
    if !has(GCC) {
        return;
    }
    let strings = ".section .debug_str,\"MS\",@progbits,1\n.fill 1000000, 1, 'a'\n.byte 0\n";
    let named = ".byte 3, 0x1d, 0, 3, 0xe, 0, 0";
    let children = |count| format!(".rept {count}\n.byte 3\n.long 0\n.endr");
    assert!(!is_refused("names", &(unit(&children(100), named) + strings)));
    assert!(is_refused("names", &(unit(&children(200_000), named) + strings)));
    // Files of a line table (version 5), all with that name.
    for (files, refused) in [(3, false), (200_000, true)] {
        let mut assembly = unit("", "").replace(
            ".byte 1, 0x11, 1, 0x11, 1, 0x12, 6, 0, 0",
            ".byte 1, 0x11, 1, 0x11, 1, 0x12, 6, 0x10, 0x17, 0, 0",
        );
        assembly =
            assembly.replace(".byte 1\n.quad code\n.long 64\n", ".byte 1\n.quad code\n.long 64\n.long 0\n");
        write!(
            assembly,
            ".section .debug_line,\"\",@progbits\n.long line_end - line_start\nline_start: .short 5\n.byte 8, 0\n\
             .long program - header\nheader: .byte 1, 1, 1, 0xfb, 14, 1\n\
             .byte 1, 1, 0x1f\n.uleb128 1\n.long 0\n\
             .byte 1, 1, 0x1f\n.uleb128 {files}\n.fill {files}, 4, 0\nprogram:\n\
             .byte 0, 9, 2\n.quad code\n.byte 1, 2, 64, 0, 1, 1\nline_end:\n\
             .section .debug_line_str,\"MS\",@progbits,1\n.fill 100000, 1, 'b'\n.byte 0\n"
        )
        .unwrap();
        assert_eq!(is_refused("files", &assembly), refused, "{files}");
    }
}

#[test]
fn a_line_table_that_many_units_share_is_counted() {
    if !has(GCC) {
        return;
    }
    let mut assembly = unit("", ".byte 4, 0x11, 0, 0x10, 0x17, 0, 0");
    assembly.push_str(
        ".section .debug_info\n.rept 20000\n.long 12\n.short 4\n.long 0\n.byte 8, 4\n.long 0\n.endr\n",
    );
    assembly.push_str(
        ".section .debug_line,\"\",@progbits\n.long line_end - line_start\nline_start: .short 4\n\
         .long program - header\nheader: .byte 1, 1, 1, 0xfb, 14, 1, 0\n.asciz \"file\"\n.byte 0, 0, 0, 0\nprogram:\n\
         .byte 0, 9, 2\n.quad code\n.fill 500000, 1, 1\n.byte 0, 1, 1\nline_end:\n",
    );
    assert!(is_refused("lines", &assembly));
}

#[test]
fn references_between_entries_may_go_round() {
    if !has(GCC) {
        return;
    }
    // Three abstract origins in a circle; the first byte of the unit's entries is at 11.
    let abbreviation = ".byte 3, 0x1d, 1, 0x31, 0x13, 0x11, 1, 0x12, 6, 0, 0";
    let entry = |origin: &str| format!(".byte 3\n.long {origin} - .Lunit\n.quad code\n.long 64\n.byte 0\n");
    let mut assembly = unit(&format!("first: {}second: {}", entry("second"), entry("first")), abbreviation);
    assembly = assembly.replace(".long end - start\n", ".Lunit: .long end - start\n");
    assert!(!is_refused("circle", &assembly));
}

#[test]
fn debug_sections_that_overlap_in_the_file_are_refused() {
    if !has(GCC) {
        return;
    }
    let mut object = compile_text(GCC, &["-g", "-fPIC"], "c", "int f(int a) { return a; }");
    // All sections that hold debug information are half of the file.
    let headers = u64::from_le_bytes(object[0x28..0x30].try_into().unwrap()) as usize;
    let count = u16::from_le_bytes(object[0x3c..0x3e].try_into().unwrap()) as usize;
    for header in (0..count).map(|number| headers + 64 * number) {
        let kind = u32::from_le_bytes(object[header + 4..header + 8].try_into().unwrap());
        let flags = u64::from_le_bytes(object[header + 8..header + 16].try_into().unwrap());
        if kind == 1 && flags & 2 == 0 {
            object[header + 0x18..header + 0x20].copy_from_slice(&0u64.to_le_bytes());
            let all = object.len() as u64 / 2;
            object[header + 0x20..header + 0x28].copy_from_slice(&all.to_le_bytes());
        }
    }
    let image = loader().load(&object, &NoSymbols).unwrap();
    let error = image.symbolize(image.address("f").unwrap()).unwrap_err().to_string();
    assert!(error.contains("overlap"), "{error}");
}
