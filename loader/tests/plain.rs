//! Objects that are linked in one go come out as in phases: the same bytes, symbols, questions and errors, whatever the object is,
//! damaged ones included.

#![cfg(target_arch = "x86_64")] // Elsewhere all objects are linked in phases.

mod support;

use std::sync::{Arc, Mutex};

use objcache_loader::{EventListener, ImageId, Limits, LoadedObject, Loader, NoUnwind, SymbolResolver};
use proptest::prelude::*;
use support::apart::ApartMemory;
use support::twice::{link_damaged_twice, link_twice};
use support::*;

/// Calls of others, their data, tables of pointers, zeros, constants.
const PLAIN: &str = "extern int f(int), far_away(int, int); extern int datum[]; static int t[] = {1, 2}; int zero[9];
    static int (*const table[])(int) = {f, f}; const char *const texts[] = {\"one\", \"two\"}; int *p = t; extern int *q;
    static __attribute__((noinline)) int own(int n) { return zero[n] + far_away(n, t[n & 1]); }
    __attribute__((visibility(\"hidden\"))) int hidden(int n) { return own(n) * 3; }
    __attribute__((weak)) double weak(double x) { return x * 3.25 + 1e100; }
    int g(int n) { switch (n) { case 0: return f(1); case 1: return *p + *q; case 2: return f(3) + datum[n];
    case 3: return 9 + hidden(n); case 4: return table[n & 1](n); case 5: return texts[n & 1][0]; default: return own(n); } }
    int tail(int n) { return far_away(n, n); }";

const THROWING: &str = "struct A { ~A(); int n; }; int g(int); int h(int n) { A a{n}; try { return g(n); }
    catch (int i) { return i; } } int t(int n) { if (n) throw n; return g(n); }";

const TINY: &str = "int f(int); float k(float x) { return x * 3.25f + f(2); }";

/// Compilers with flags that make plain objects of [`PLAIN`].
const COMPILERS: &[(&str, &[&str])] = &[
    (CLANG, &["-O2", "-fPIC"]),
    (CLANG, &["-O2", "-fPIC", "-ffunction-sections", "-fdata-sections"]),
    (CLANG, &["-O1", "-fPIC", "-g", "-fno-plt"]),
    (CLANG, &["-O2", "-fPIC", "-mcmodel=medium", "-fno-asynchronous-unwind-tables"]),
    (GCC, &["-O2", "-fPIC"]),
    (GCC, &["-O2", "-fPIC", "-g", "-ffunction-sections", "-fcf-protection"]),
    (GCC, &["-O0", "-fPIC", "-fvisibility=hidden"]),
];

#[test]
fn what_compilers_make_is_linked_in_one_go() {
    for (compiler, flags) in COMPILERS.iter().filter(|(compiler, _)| has(compiler)) {
        let object = compile_text(compiler, flags, "c", PLAIN);
        assert_eq!(link_twice(&object), Some(true), "{compiler} {flags:?}");
    }
    for compiler in [CLANGXX, GXX].into_iter().filter(|compiler| has(compiler)) {
        let object = compile_text(compiler, &["-O2", "-fPIC"], "cpp", THROWING);
        assert_eq!(link_twice(&object), Some(true), "{compiler}");
    }
}

#[test]
fn all_else_comes_out_the_same() {
    let sources = ["corpus.c", "kernel.c", "kernel.cpp", "inlined.cpp"];
    let flags: [&[&str]; 6] = [
        &["-O2", "-fPIC"],
        &["-O0", "-fno-pic", "-fcommon"],
        &["-O1", "-fPIE", "-g"],
        &["-O2", "-mcmodel=large", "-fPIC"],
        &["-O2", "-fPIC", "-ffunction-sections", "-fdata-sections", "-fno-plt"],
        &["-Os", "-fPIC", "-fomit-frame-pointer"],
    ];
    for source in sources {
        let compilers = if source.ends_with(".c") { [CLANG, GCC] } else { [CLANGXX, GXX] };
        for compiler in compilers.into_iter().filter(|compiler| has(compiler)) {
            for flags in flags {
                link_twice(&compile(compiler, flags, &fixture(source)));
            }
        }
    }
}

/// What assemblers can say, and compilers rarely do.
#[test]
fn corners_come_out_the_same() {
    let cases = [
        // Nothing; no symbols but a section's.
        "",
        ".text; nop",
        // Names that nobody knows, in order, also weak ones.
        "call missing_one; call f; jmp missing_two; .quad missing_three",
        ".weak missing_weak; call missing_weak; call f",
        // What names mean by themselves.
        "call f; lea __dso_handle(%rip), %rax",
        "call f; mov __start_things@GOTPCREL(%rip), %rax; .section things,\"aw\"; .long 1",
        "call f; mov _GLOBAL_OFFSET_TABLE_@GOTPCREL(%rip), %rax",
        "call atexit; call f; call __cxa_atexit",
        "call f; call _Unwind_Resume",
        // Absolute symbols, common ones, thread-local ones, indirect functions.
        ".globl number; number = 42; call f; .quad number",
        "number = 42; call f; .quad number",
        ".comm shared, 16, 8; call f; .quad shared",
        ".type chosen, @gnu_indirect_function; chosen: ret; call f; call chosen",
        // Relocations of all sizes, against own and others' symbols.
        "a: call f; .long a - .; .quad a - .; .byte a - .; .word 0",
        "a: call f; .long a",
        "call f; .reloc ., R_X86_64_NONE, 0; .long f - .",
        "call f; .data; .long f - .",
        "call f + 8; jmp f - 4; jne f; lea f(%rip), %rax",
        "a: call f; mov a@GOTPCREL(%rip), %rax; call *a@GOTPCREL(%rip); test %rax, a@GOTPCREL(%rip)",
        "call f; mov f@GOTPCREL(%rip), %rax; call *f@GOTPCREL(%rip); cmp f@GOTPCREL(%rip), %eax",
        "call f; .quad a@GOTOFF, f@PLTOFF; a: .long a@GOTPCREL",
        // Sections: aligned, zero-filled between others, empty, both writable and executable.
        "call f; .section .a,\"aw\",@nobits; .zero 5; .data; .p2align 6; .byte 1; .bss; .p2align 5; .zero 33; .data; .quad f",
        "call f; .section .x,\"ax\",@nobits; .zero 5",
        "call f; .section .x,\"awx\"; .zero 5",
        "call f; .section .data.rel.ro,\"aw\"; .quad f; .section .data.rel.robust,\"aw\"; .quad f",
        "call f; .section .init_array,\"aw\"; .quad f",
        "call f; .section .ctors.1,\"aw\"; .quad f",
        "call f; .section .gcc_except_table.f,\"a\"; .quad 0",
        "call f; .section .note.gnu.property,\"a\",@note; .quad 0; .section .note.other,\"a\",@note; .quad 1",
        "call f; .section .g,\"axG\",@progbits,group,comdat; .globl group; group: ret",
        "call f; .section .g,\"axG\",@progbits,group,comdat; nop; .section .h,\"axG\",@progbits,group; call g",
        "call f; .section .text.unlikely,\"ax\"; call f; .section .text.hot,\"ax\"; call g",
        ".hidden h; .globl h, i; .internal i; h: i: call f; .protected p; .globl p; p: ret; .weak w; w: ret",
        ".type u, @gnu_unique_object; u: call f",
        // Names that only sections name that are not loaded.
        ".globl __start_things; .section first,\"aw\"; .globl fi; fi: .quad 1; .section things,\"aw\"; .globl th; th: .quad 2; \
         .section .debug_x,\"\",@progbits; .quad __start_things, other; .text; call f",
        // Many names that nobody sees.
        ".irp n,1,2,3,4,5,6,7,8,9,10,11; .globl h\\n; .hidden h\\n; h\\n: ret; .endr; .globl one; one: call f",
    ];
    if !has(CLANG) {
        return;
    }
    let mut in_one_go = 0;
    for case in cases {
        let object = compile_text(CLANG, &["-w"], "s", &format!("{case}\n"));
        in_one_go += usize::from(link_twice(&object) == Some(true));
    }
    assert!(in_one_go >= 8, "{in_one_go} of {} in one go", cases.len());
}

/// Loaders that link in one go and in phases.
fn two_loaders(memory: &ApartMemory, limits: Limits) -> [Loader; 2] {
    struct Interested;
    impl EventListener for Interested {
        fn notify_loaded(&self, _loaded: &LoadedObject<'_>) {}
        fn notify_freeing(&self, _image: ImageId) {}
    }
    let builder =
        || Loader::builder().memory(Arc::new(memory.clone())).limits(limits).unwind(Arc::new(NoUnwind));
    [builder().build(), builder().listener(Arc::new(Interested)).build()]
}

/// What others are asked for, in order.
#[derive(Default)]
struct Asked(Mutex<Vec<String>>);

impl SymbolResolver for Asked {
    fn resolve(&self, name: &str) -> Option<u64> {
        self.0.lock().unwrap().push(name.to_owned());
        Some(0x1000)
    }
}

#[test]
fn room_that_nothing_needs_is_not_insisted_on() {
    if has(CLANG) {
        let unused: String = (0..1000).map(|number| format!(".quad u{number}\n")).collect();
        let source = format!(".globl g; g: call f\n.section .x,\"\",@progbits\n{unused}");
        let object = compile_text(CLANG, &["-w"], "s", &source);
        let memory = ApartMemory { most: 4096, ..ApartMemory::default() };
        for loader in two_loaders(&memory, Limits::default()) {
            loader.load(&object, &Asked::default()).unwrap();
        }
    }
}

#[test]
fn names_are_asked_for_once_where_segments_are_out_of_reach() {
    if has(CLANG) {
        let object = compile_text(CLANG, &["-w"], "s", "mov f@GOTPCREL(%rip), %rax\ncall g\n");
        let memory = ApartMemory { distance: 3 << 30, ..ApartMemory::default() };
        for loader in two_loaders(&memory, Limits::default()) {
            let asked = Asked::default();
            let error = loader.load(&object, &asked).unwrap_err();
            assert!(error.to_string().contains("does not fit in 32 bits"), "{error}");
            assert_eq!(*asked.0.lock().unwrap(), ["f", "g"]);
        }
    }
}

#[test]
fn all_names_that_are_looked_at_are_held_against_the_limit() {
    for source in
        ["call number_one\ncall number_two\n", ".weak number_one, number_two\nnumber_one: number_two: ret\n"]
    {
        if has(CLANG) {
            let object = compile_text(CLANG, &["-w"], "s", source);
            for (bytes, fits) in [(40, true), (15, false)] {
                let mut limits = Limits::default();
                limits.all_name_bytes = bytes;
                for loader in two_loaders(&ApartMemory::default(), limits) {
                    let loaded = loader.load(&object, &Asked::default());
                    assert_eq!(loaded.is_ok(), fits, "{bytes}: {:?}", loaded.err());
                }
            }
        }
    }
}

/// Small objects of which every byte is damaged.
fn small_objects() -> Vec<Vec<u8>> {
    let mut objects = Vec::new();
    if has(CLANG) {
        objects.push(compile_text(CLANG, &["-O2", "-fPIC"], "c", TINY));
        objects.push(compile_text(CLANG, &["-O1", "-fPIC", "-ffunction-sections"], "c", PLAIN));
        objects.push(compile_text(CLANGXX, &["-O1", "-fPIC"], "cpp", THROWING));
    }
    if has(GCC) {
        objects.push(compile_text(GCC, &["-O1", "-fPIC"], "c", PLAIN));
    }
    objects
}

#[test]
fn damaged_objects_come_out_the_same() {
    let (mut in_one_go, mut total) = (0, 0);
    for object in small_objects() {
        for at in 0..object.len() {
            for damage in [0x01, 0x04, 0x08, 0x80, 0xff] {
                let mut damaged = object.clone();
                damaged[at] ^= damage;
                in_one_go += usize::from(link_damaged_twice(&damaged) == Some(true));
                total += 1;
            }
        }
        for len in 0..object.len() {
            link_damaged_twice(&object[..len]);
        }
    }
    assert!(total == 0 || in_one_go > total / 4, "{in_one_go} of {total} in one go");
}

proptest! {
    #[test]
    fn objects_damaged_in_several_places_come_out_the_same(
        which in 0usize..4,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 2..6),
    ) {
        thread_local!(static OBJECTS: Vec<Vec<u8>> = small_objects());
        let object = OBJECTS.with(|objects| objects.get(which).cloned());
        if let Some(mut object) = object {
            for (index, value, how) in edits {
                let at = index.index(object.len());
                let byte = &mut object[at];
                *byte = match how {
                    0 => value,
                    1 => byte.wrapping_add(1),
                    2 => byte.wrapping_sub(1),
                    _ => *byte ^ 1 << (value % 8),
                };
            }
            link_damaged_twice(&object);
        }
    }
}
