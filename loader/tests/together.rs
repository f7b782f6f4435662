//! Several objects linked as one image, by the rules of static linkers.

mod support;

use std::sync::Arc;

use objcache_loader::{
    FixedMemory, InputObject, LinkMap, LoadError, LoadedImage, Loader, NoSymbols, PageMemory, ProcessSymbols,
};
use support::*;

/// Compiles each source and links the objects, in this order, as `0.c`, `1.c`, ….
fn link(flags: &[&str], sources: &[&str]) -> Result<(LoadedImage, LinkMap), LoadError> {
    link_in(&Loader::new(), "c", flags, sources)
}

fn link_in(
    loader: &Loader,
    language: &str,
    flags: &[&str],
    sources: &[&str],
) -> Result<(LoadedImage, LinkMap), LoadError> {
    let compiler = if language == "c" { CLANG } else { CLANGXX };
    let objects: Vec<_> =
        sources.iter().map(|source| compile_text(compiler, flags, language, source)).collect();
    let names: Vec<_> = (0..objects.len()).map(|number| format!("{number}.{language}")).collect();
    let inputs: Vec<_> =
        names.iter().zip(&objects).map(|(name, bytes)| InputObject { name, bytes }).collect();
    loader.load_all(&inputs, &ProcessSymbols)
}

fn error(sources: &[&str]) -> String {
    link(&["-O1", "-fcommon"], sources).expect_err("an error").to_string()
}

#[test]
fn objects_know_each_others_names() {
    if !has(CLANG) {
        return;
    }
    let even = "int odd(int); int zero = 1; int even(int n) { return n ? odd(n - 1) : zero; }";
    let odd = "int even(int); extern int zero; int odd(int n) { return n ? even(n - 1) : !zero; }";
    for model in [&["-fPIC"][..], &["-fno-pic"], &["-mcmodel=large"], &["-fPIE"]] {
        for loader in [Loader::new(), Loader::builder().memory(Arc::new(PageMemory::new())).build()] {
            let (image, map) = link_in(&loader, "c", model, &[even, odd]).expect("links");
            assert_eq!(call_int(&image, "even", &[10]), 1, "{model:?}");
            assert_eq!(call_int(&image, "odd", &[10]), 0, "{model:?}");
            let names: Vec<_> = map.files.iter().map(|file| file.name.as_str()).collect();
            assert_eq!(names, ["0.c", "1.c"]);
            let even = map.files[0].symbols.iter().find(|symbol| symbol.name == "even").expect("there");
            assert_eq!(Some(even.address), image.address("even"));
        }
    }
}

#[test]
fn a_strong_definition_wins_wherever_it_stands() {
    if !has(CLANG) {
        return;
    }
    let weak = "__attribute__((weak)) int what(void) { return 1; } int ask(void) { return what(); }";
    let strong = "int what(void) { return 2; }";
    for sources in [[weak, strong], [strong, weak]] {
        let (image, _) = link(&["-O0", "-fPIC"], &sources).expect("links");
        assert_eq!(call_int(&image, "ask", &[]), 2);
        assert_eq!(call_int(&image, "what", &[]), 2);
        assert_eq!(image.symbols().filter(|symbol| symbol.name == "what").count(), 1);
    }
    let (image, _) = link(&["-O0", "-fPIC"], &[weak]).expect("links");
    assert_eq!(call_int(&image, "ask", &[]), 1);
}

#[test]
fn common_symbols_become_one_of_the_largest_size() {
    if !has(CLANG) {
        return;
    }
    let small = "int shared; int *small(void) { return &shared; }";
    let large =
        "int shared[100]; int *large(void) { return shared; } int last(int v) { return shared[99] = v; }";
    for sources in [[small, large], [large, small]] {
        let (image, _) = link(&["-O1", "-fcommon", "-fPIC"], &sources).expect("links");
        assert_eq!(call_int(&image, "small", &[]), call_int(&image, "large", &[]), "the same place");
        assert_eq!(call_int(&image, "last", &[42]), 42);
        let shared: Vec<_> = image.symbols().filter(|symbol| symbol.name == "shared").collect();
        assert_eq!((shared.len(), shared[0].size), (1, 400));
    }
    let strict = "char shared[64] __attribute__((aligned(1024))); char *strict(void) { return shared; }";
    for sources in [[large, strict], [strict, large]] {
        let (image, _) = link(&["-O1", "-fcommon", "-fPIC"], &sources).expect("links");
        assert_eq!(image.address("shared").expect("there") % 1024, 0, "as the strictest has it");
        assert_eq!(call_int(&image, "last", &[42]), 42, "as large as the largest");
    }
    let defined = "int shared = 7; int value(void) { return shared; }";
    let (image, _) = link(&["-O1", "-fcommon", "-fPIC"], &[small, defined]).expect("links");
    assert_eq!(call_int(&image, "small", &[]) as u32, image.address("shared").expect("there") as u32);
    assert_eq!(call_int(&image, "value", &[]), 7);
}

#[test]
fn templates_and_inline_functions_are_kept_once() {
    if !has(CLANGXX) {
        return;
    }
    let shared = "template <class T> struct Counter { static T count; static T next() { return ++count; } };
        template <class T> T Counter<T>::count = 0;
        inline int unique() { static int local = 100; return ++local; }\n";
    let one = format!("{shared} extern \"C\" int one() {{ return Counter<int>::next() + unique(); }}");
    let two = format!("{shared} extern \"C\" int two() {{ return Counter<int>::next() + unique(); }}");
    for flags in [&["-O0", "-fPIC", "-fno-threadsafe-statics"][..], &["-O2", "-fno-threadsafe-statics"]] {
        let (image, _) = link_in(&Loader::new(), "cpp", flags, &[&one, &two]).expect("links");
        assert_eq!(call_int(&image, "one", &[]), 1 + 101);
        assert_eq!(call_int(&image, "two", &[]), 2 + 102, "the same counters");
        assert_eq!(call_int(&image, "one", &[]), 3 + 103);
    }
}

#[test]
fn constructors_of_all_objects_run_in_order() {
    if !has(CLANG) {
        return;
    }
    let log = "int history; ";
    let constructor = |number: u32, priority: &str| {
        format!(
            "extern int history; __attribute__((constructor{priority})) static void c{number}(void) {{ history = history * 10 + {number}; }}"
        )
    };
    let sources = [log.to_owned(), constructor(1, ""), constructor(2, "(200)"), constructor(3, "")];
    let sources: Vec<_> = sources.iter().map(String::as_str).collect();
    let (image, _) = link(&["-O1", "-fPIC"], &sources).expect("links");
    assert!(image.needs_initializers());
    initialize(&image);
    let reader = image.address("history").expect("there") as *const i32;
    // SAFETY: an `int` of the live image, which nobody writes now.
    assert_eq!(unsafe { reader.read() }, 213);
}

#[test]
fn symbols_mark_the_bounds_of_sections_of_all_objects() {
    if !has(CLANG) {
        return;
    }
    let member = |value: u32| {
        format!(
            "__attribute__((section(\"table\"), used)) static const int member{value} = {value}; int pad{value} = 1;"
        )
    };
    let sum = "extern const int __start_table[], __stop_table[];
        int sum(void) { int s = 0; for (const int *p = __start_table; p < __stop_table; p++) s += *p; return s; }
        int count(void) { return __stop_table - __start_table; }";
    let sources = [member(1), sum.to_owned(), member(10), member(100)];
    let sources: Vec<_> = sources.iter().map(String::as_str).collect();
    let (image, map) = link(&["-O1", "-fPIC"], &sources).expect("links");
    assert_eq!((call_int(&image, "sum", &[]), call_int(&image, "count", &[])), (111, 3));
    let marks = map.files[1].symbols.iter().filter(|symbol| symbol.name.ends_with("_table"));
    assert_eq!(marks.count(), 2);
    let nothing = link(&["-O1", "-fPIC"], &[sum]).expect_err("no such section").to_string();
    assert!(nothing.contains("__start_table"), "{nothing}");
}

#[test]
fn errors_name_the_object() {
    if !has(CLANG) {
        return;
    }
    let twice = error(&["int f(void) { return 1; }", "int f(void) { return 2; }"]);
    assert_eq!(twice, "malformed object: symbol `f`: it is defined in 0.c and in 1.c");
    let missing = error(&[
        "int f(void) { return 1; }",
        "int nowhere_to_be_found(void); int g(void) { return nowhere_to_be_found(); }",
    ]);
    assert!(missing.starts_with("1.c: unresolved symbols: `nowhere_to_be_found`"), "{missing}");
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x10_0000))).build();
    let object = compile_text(CLANG, &["-O1"], "c", "int f;");
    let inputs =
        [InputObject { name: "good.o", bytes: &object }, InputObject { name: "bad.o", bytes: b"\x7fELF" }];
    let refused = loader.load_all(&inputs, &NoSymbols).expect_err("an error").to_string();
    assert_eq!(refused, "bad.o: malformed object: ELF header: unknown class or byte order");
    assert!(loader.load_all(&[], &NoSymbols).is_err());
}

/// A Thumb branch reaches 16 MiB; in an image of twice that, each section has its stubs behind it.
#[test]
fn branches_reach_across_images_larger_than_their_reach() {
    if !has(CLANG) {
        return;
    }
    let source = ".syntax unified\n.thumb\n.section .text.f,\"ax\",%progbits\n.globl f\n.thumb_func\nf: bl g\nbl ext\nbx lr
        .section .text.gap,\"ax\",%progbits\n.space 0x1400000
        .section .text.g,\"ax\",%progbits\n.globl g\n.thumb_func\ng: bl f\nbx lr\n";
    let object = compile_text(CLANG, &["--target=armv7-linux-gnueabihf"], "s", source);
    let resolver = objcache_loader::AbsoluteSymbols::new().with("ext", 0x7000_0001);
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x1000_0000))).build();
    let (image, map) =
        loader.load_all(&[InputObject { name: "a.o", bytes: &object }], &resolver).expect("links");
    let code = image.linked_bytes(objcache_loader::Segment::Code).expect("kept");
    let file = &map.files[0];
    let home = |name: &str| file.sections.iter().find(|section| section.name == name).expect("there");
    let ends: Vec<_> =
        file.sections.iter().map(|section| (section.address, section.address + section.size)).collect();
    assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0 || pair[1].1 <= pair[0].0), "{ends:x?}");
    for (name, calls) in [(".text.f", 2), (".text.g", 1)] {
        let section = home(name);
        for call in 0..calls {
            let at = section.offset + 4 * call;
            let half = |at: usize| u32::from(u16::from_le_bytes([code[at], code[at + 1]]));
            let (high, low) = (half(at), half(at + 2));
            // Encoding T1 of BL: S:I1:I2:imm10:imm11, where I is not (J eor S).
            let (s, j1, j2) = (high >> 10 & 1, low >> 13 & 1, low >> 11 & 1);
            let (i1, i2) = (!(j1 ^ s) & 1, !(j2 ^ s) & 1);
            let offset = s << 24 | i1 << 23 | i2 << 22 | (high & 0x3ff) << 12 | (low & 0x7ff) << 1;
            let offset = (offset << 7) as i32 >> 7;
            let target = (section.address + 4 * call as u64 + 4).wrapping_add_signed(offset.into());
            let stub = file.stubs.iter().find(|stub| stub.address == target);
            assert!(
                stub.is_some_and(|stub| stub.kind == "thumb"),
                "{name}: a call to {target:#x}: {:x?}",
                file.stubs
            );
        }
    }
}
