//! Objects that lie. Whatever the bytes say, loading them ends in an image or in an error: no panic, no memory beyond
//! the limits.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use objcache_loader::{FixedMemory, Limits, LoadError, Loader, NoSymbols, PageMemory, SlabMemory, from_fn};
use proptest::prelude::*;
use support::counting::{Counting, LIVE, PEAK};
use support::elf::{self, Object};
use support::*;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const IMAGE_LIMIT: u64 = 1 << 20;

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.image_bytes = IMAGE_LIMIT;
    limits
}

/// Loads bytes and forgets the image. Returns whether there was one.
fn survives(loader: &Loader, object: &[u8]) -> bool {
    loader.load(object, &from_fn(|name| Some(0x1000_0000 + name.len() as u64))).is_ok()
}

/// Objects of real compilers, small ones.
fn corpus() -> Vec<Vec<u8>> {
    const C: &str = "extern int f(int); static int t[] = {1, 2}; int *p = t; int zero[9];
        int g(int n) { switch (n) { case 0: return f(1); case 1: return *p; case 2: return f(3);
        case 3: return 9; case 4: return zero[n]; default: return 0; } }
        __attribute__((constructor)) static void c(void) { zero[1] = 1; }";
    const CPP: &str = "struct A { ~A(); }; void g(); template <class T> T h(T t) { A a; g(); return t; }
        int k() { try { return h(1) + int(h(2.0)); } catch (int n) { return n; } }";
    let mut objects = vec![handmade().build()];
    for compiler in [GCC, CLANG] {
        if has(compiler) {
            objects.push(compile_text(compiler, &["-Os", "-fPIC"], "c", C));
            objects.push(compile_text(compiler, &["-O1", "-fno-pic"], "c", C));
        }
    }
    if has(GXX) {
        objects.push(compile_text(GXX, &["-Os", "-fPIC"], "cpp", CPP));
    }
    objects
}

/// One of everything that compilers use.
fn handmade() -> Object {
    let mut object = Object::default();
    object.symbol("local", elf::LOCAL, 1, 0);
    object.symbol("f", elf::GLOBAL | elf::FUNC, 1, 0);
    object.symbol("external", elf::GLOBAL, 0, 0);
    object.symbol("weak", elf::WEAK, 0, 0);
    object.symbol("common", elf::GLOBAL, elf::COMMON, 16);
    object.symbol("absolute", elf::GLOBAL, elf::ABS, 0x1234);
    object
        .section(".text", elf::EXEC, &[0xe8, 0, 0, 0, 0, 0x90, 0, 0, 0, 0, 0xc3])
        .relocate(1, 4, 3, -4)
        .relocate(6, 9, 4, -4);
    object
        .section(".data", elf::WRITE, &[0; 24])
        .relocate(0, 1, 1, 0)
        .relocate(8, 24, 5, 1)
        .relocate(16, 1, 6, 0);
    let bss = object.section(".bss", elf::WRITE, &[]);
    (bss.kind, bss.size, bss.align) = (elf::NOBITS, Some(100), 32);
    let group = object.section(".group", 0, &[1, 0, 0, 0, 2, 0, 0, 0]);
    (group.kind, group.info, group.flags, group.align) = (elf::GROUP, 2, 0, 4);
    object
}

#[test]
fn every_byte_changed_and_every_length() {
    let loaders = [
        Loader::builder().memory(Arc::new(FixedMemory::at(0x2000_0000))).limits(limits()).build(),
        Loader::builder().memory(Arc::new(SlabMemory::new())).limits(limits()).build(),
    ];
    let (mut loaded, mut refused, mut largest) = (0u64, 0u64, 0);
    for object in corpus() {
        assert!(survives(&loaders[0], &object), "the object itself is fine");
        let before = LIVE.get();
        let mut note = |object: &[u8]| {
            PEAK.set(LIVE.get());
            for loader in &loaders {
                if survives(loader, object) { loaded += 1 } else { refused += 1 }
            }
            largest = largest.max(PEAK.get() - before);
        };
        for length in 0..object.len() {
            note(&object[..length]);
        }
        let mut changed = object.clone();
        for at in 0..object.len() {
            for byte in [object[at] ^ (1 << (at % 8)), object[at] ^ 0x80, 0x00, 0xff] {
                changed[at] = byte;
                if byte != object[at] {
                    note(&changed);
                }
            }
            changed[at] = object[at];
        }
    }
    eprintln!("{loaded} loaded, {refused} refused, {largest} bytes of heap at most");
    assert!(loaded > 1000 && refused > 1000);
    assert!(largest < 2 * IMAGE_LIMIT as isize, "{largest} bytes of heap");
}

#[test]
fn pages_survive_changed_headers() {
    let loader = Loader::builder().memory(Arc::new(PageMemory::new())).limits(limits()).build();
    let object = handmade().build();
    let mut changed = object.clone();
    for at in 0..object.len() {
        for byte in [object[at] ^ 0x10, 0xff] {
            changed[at] = byte;
            survives(&loader, &changed);
        }
        changed[at] = object[at];
    }
}

/// The error that an object is refused with.
#[track_caller]
fn refusal(object: &[u8]) -> String {
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x2000_0000))).limits(limits()).build();
    loader.load(object, &NoSymbols).expect_err("must be refused").to_string()
}

/// Changes a sound object, and expects an error with these words.
#[track_caller]
fn liar(change: impl FnOnce(&mut Object), expected: &str) {
    let mut object = Object::default();
    object.symbol("f", elf::GLOBAL | elf::FUNC, 1, 0);
    object.section(".text", elf::EXEC, &[0xc3; 16]);
    object.section(".data", elf::WRITE, &[0; 16]);
    let sound = object.build();
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x2000_0000))).build();
    loader.load(&sound, &NoSymbols).expect("sound before the lie");
    change(&mut object);
    let message = refusal(&object.build());
    assert!(message.contains(expected), "{message}");
}

#[test]
fn liars_are_named() {
    liar(|o| o.sections[0].size = Some(1 << 63), ".text: its bytes reach past the end of the file");
    liar(
        |o| (o.sections[1].kind, o.sections[1].size) = (elf::NOBITS, Some(1 << 40)),
        "the size of the image is 1099511627776, more than the limit",
    );
    liar(
        |o| (o.sections[1].kind, o.sections[1].size) = (elf::NOBITS, Some(u64::MAX)),
        "the size of the image is",
    );
    liar(|o| o.sections[0].align = 3, ".text: its alignment 0x3 is no power of two");
    liar(
        |o| o.sections[0].align = 1 << 40,
        "the alignment of a section is 1099511627776, more than the limit of 2097152",
    );
    liar(
        |o| _ = o.sections[0].relocate(15, 2, 1, 0),
        ".text+0xf: cannot relocate R_X86_64_PC32 against `f`: the place is outside of its section",
    );
    liar(
        |o| _ = o.sections[0].relocate(u64::MAX, 1, 1, 0),
        ".text+0xffffffffffffffff: cannot relocate R_X86_64_64",
    );
    liar(
        |o| _ = o.sections[0].relocate(0, 1, 7, 0),
        ".text+0x0: the relocation is against symbol 7, which is not there",
    );
    liar(
        |o| _ = o.sections[0].relocate(0, 200, 1, 0),
        "relocation type 200 against `f`: this kind of relocation is not supported",
    );
    liar(
        |o| o.symbols[0].value = 17,
        "symbol 1 `f`: its offset 0x11 is outside of its section of 0x10 bytes",
    );
    liar(|o| o.symbols[0].section = 99, "symbol 1: it is in section 99, which is not there");
    liar(|o| o.symbols[0].section = 0xff77, "symbol 1: its section number 0xff77 is reserved");
    liar(|o| o.symbols[0].section = 0xffff, "symbol 1: its extended section number is missing");
    liar(|o| o.symbols[0].info = 0x52, "symbol 1: its binding 5 is unknown");
    liar(|o| o.sections[0].flags |= elf::WRITE, ".text: a section that is both writable and executable");
    liar(|o| o.sections[0].kind = elf::NOBITS, ".text: executable, but without content");
    liar(
        |o| {
            o.sections[1].kind = elf::NOBITS;
            o.sections[1].relocate(0, 1, 1, 0);
        },
        ".data+0x0: cannot relocate R_X86_64_64 against `f`: the place is outside of its section",
    );
    liar(
        |o| {
            o.sections[1].flags = 0;
            o.symbols[0].section = 2;
            o.symbols[0].info = elf::LOCAL;
            o.sections[0].relocate(0, 1, 1, 0);
        },
        "against `f`: the symbol's section is not loaded",
    );
    liar(
        |o| {
            o.symbol("c", elf::GLOBAL, elf::COMMON, 48);
        },
        "the alignment 0x30 of a common symbol is no power of two",
    );
    liar(
        |o| {
            o.symbol("c", elf::GLOBAL, elf::COMMON, 8);
            o.symbols[1].size = u64::MAX;
        },
        "the size of the common symbols is",
    );
    liar(
        |o| {
            let group = o.section(".group", 0, &[1, 0, 0, 0, 9, 0, 0, 0]);
            (group.kind, group.info, group.flags) = (elf::GROUP, 1, 0);
        },
        "section group 3: it names section 9, which is not there",
    );
    liar(
        |o| {
            let group = o.section(".group", 0, &[1, 0, 0, 0]);
            (group.kind, group.info, group.flags) = (elf::GROUP, 42, 0);
        },
        "section group 3: it is named by symbol 42, which is not there",
    );
    liar(
        |o| {
            o.symbol("nowhere", elf::GLOBAL, 0, 0);
            o.sections[0].relocate(8, 1, 2, 0);
        },
        "unresolved symbols: `nowhere` (needed at .text+0x8)",
    );
}

#[test]
fn what_comes_later_is_refused_by_name() {
    liar(|o| o.sections[1].flags |= elf::COMPRESSED, ".data: a compressed section (SHF_COMPRESSED)");
    liar(
        |o| _ = o.sections[0].relocate(0, 19, 1, 0),
        "R_X86_64_TLSGD against `f`: a thread-local access to what is not thread-local is not supported",
    );
    liar(
        |o| _ = o.sections[0].relocate(0, 23, 1, 0),
        "R_X86_64_TPOFF32 against `f`: a thread-local access to what is not thread-local is not supported",
    );
    liar(
        |o| {
            o.symbols[0].info = elf::GLOBAL | 10;
            o.sections[0].relocate(0, 4, 1, 0);
        },
        "against `f`: an indirect function (STT_GNU_IFUNC) is not supported",
    );
}

#[test]
fn other_files_are_refused_by_name() {
    let object = handmade().build();
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = object.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        refusal(&changed)
    };
    assert_eq!(refusal(b""), "not a relocatable object this loader reads: it is empty");
    assert!(refusal(b"#!/bin/sh").contains("it begins with the bytes [23, 21, 2f, 62]"));
    assert!(refusal(&[0xcf, 0xfa, 0xed, 0xfe, 7, 0]).contains("Mach-O"));
    assert!(refusal(&[0x64, 0x86, 1, 0]).contains("COFF"));
    assert!(refusal(b"BC\xc0\xde").contains("LLVM bitcode"));
    assert!(refusal(b"!<arch>\n").contains("an archive"));
    assert!(refusal(b"\0asm").contains("WebAssembly"));
    assert!(refusal(b"\x7fELF").contains("malformed object: ELF header"));
    assert!(with(4, &[1]).contains("ELF machine 62, 32-bit, little-endian"));
    assert!(with(5, &[2]).contains("64-bit, big-endian"));
    assert!(with(16, &[2]).contains("an executable (ET_EXEC)"));
    assert!(with(16, &[3]).contains("a shared object or executable (ET_DYN)"));
    assert!(with(18, &[0xff, 0xff]).contains("ELF machine 65535, 64-bit, little-endian"));
    assert!(with(40, &[0; 8]).contains("section header table: the file has none"));
    assert!(
        with(40, &[0xff; 8]).contains("section header table: the table reaches past the end of the file")
    );
    assert!(with(58, &[1]).contains("its entries are not 64 bytes each"));
    assert!(with(60, &[0xff, 0xfe]).contains("section header table: the table reaches past the end"));
    assert!(with(62, &[0, 0]).contains("section name table: section 0 is no string table"));
}

#[test]
fn limits_hold_before_anything_is_allocated() {
    let object = handmade().build();
    let refused = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0))).limits(limits).build();
        match loader.load(&object, &from_fn(|_| Some(0))) {
            Err(LoadError::Limit { what, value, limit }) => (what, value, limit),
            Err(LoadError::Malformed { why, .. }) => panic!("{why}"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(|limits| limits.sections = 9), ("the number of sections", 10, 9));
    assert_eq!(refused(|limits| limits.symbols = 6), ("the number of symbols", 7, 6));
    assert_eq!(refused(|limits| limits.relocations = 4), ("the number of relocations", 5, 4));
    assert_eq!(refused(|limits| limits.alignment = 16), ("the alignment of a section", 32, 16));
    assert_eq!(refused(|limits| limits.image_bytes = 100).0, "the size of the image");
}

#[test]
fn unresolved_symbols_are_counted_beyond_the_first() {
    let mut object = Object::default();
    object.section(".text", elf::EXEC, &[0; 800]);
    for number in 0..100 {
        let symbol = object.symbol(&format!("missing{number}"), elf::GLOBAL, 0, 0);
        object.sections[0].relocate(u64::from(symbol - 1) * 8, 1, symbol, 0);
    }
    let message = refusal(&object.build());
    assert!(message.starts_with(
        "unresolved symbols: `missing0` (needed at .text+0x0), `missing1` (needed at .text+0x8)"
    ));
    assert!(message.ends_with(" and 84 more"), "{message}");
}

#[test]
fn names_that_are_no_text_are_escaped() {
    let mut object = Object::default();
    let symbol = object.symbol("X", elf::GLOBAL, 0, 0);
    object.section(".text", elf::EXEC, &[0; 8]).relocate(0, 1, symbol, 0);
    let mut bytes = object.build();
    let at = bytes.windows(3).position(|window| window == b"\0X\0").unwrap() + 1;
    bytes[at] = 0xff;
    let asked = AtomicUsize::new(0);
    let resolver = from_fn(|_| {
        asked.fetch_add(1, Ordering::SeqCst);
        Some(1)
    });
    let error = Loader::new().load(&bytes, &resolver).unwrap_err().to_string();
    assert_eq!(error, r"unresolved symbols: `\xff` (needed at .text+0x0)");
    assert_eq!(asked.into_inner(), 0);
    bytes[at] = 0x1b;
    assert_eq!(refusal(&bytes), r"unresolved symbols: `\x1b` (needed at .text+0x0)");
}

fn any_section() -> impl Strategy<Value = elf::Section> {
    let kind = prop_oneof![4 => Just(elf::PROGBITS), 1 => Just(elf::NOBITS), 1 => 0u32..20];
    let name = prop_oneof![
        Just(".text"),
        Just(".eh_frame"),
        Just(".init_array"),
        Just(".ctors.5"),
        Just(".gcc_except_table")
    ];
    let size =
        prop_oneof![4 => Just(None), 1 => (0u64..300).prop_map(Some), 1 => any::<u64>().prop_map(Some)];
    let relocation = (0u64..70, 0u32..48, 0u32..9, prop_oneof![-300i64..300, any::<i64>()]);
    let relocations = proptest::collection::vec(relocation, 0..6);
    let bytes = proptest::collection::vec(any::<u8>(), 0..64);
    (
        name,
        kind,
        0u64..8,
        size,
        bytes,
        prop_oneof![Just(1u64), Just(8), Just(4096), any::<u64>()],
        0u32..9,
        relocations,
    )
        .prop_map(|(name, kind, flags, size, bytes, align, info, relocations)| elf::Section {
            name: name.to_owned(),
            kind,
            flags,
            bytes,
            size,
            align,
            link: 0,
            info,
            relocations: relocations
                .into_iter()
                .map(|(offset, kind, symbol, addend)| elf::Relocation { offset, kind, symbol, addend })
                .collect(),
        })
}

fn any_symbol() -> impl Strategy<Value = elf::Symbol> {
    let section = prop_oneof![4 => 0u16..8, 1 => Just(elf::ABS), 1 => Just(elf::COMMON), 1 => any::<u16>()];
    let value = prop_oneof![0u64..70, Just(8), any::<u64>()];
    (0u8..48, 0u8..4, section, value, prop_oneof![0u64..70, any::<u64>()]).prop_map(
        |(info, other, section, value, size)| elf::Symbol {
            name: "s".to_owned(),
            info,
            other,
            section,
            value,
            size,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_object_ends_in_an_image_or_an_error(
        sections in proptest::collection::vec(any_section(), 1..6),
        symbols in proptest::collection::vec(any_symbol(), 0..8),
    ) {
        let object = Object { sections, symbols, ..Object::default() }.build();
        let fixed = Loader::builder().memory(Arc::new(FixedMemory::at(0x2000_0000))).limits(limits()).build();
        survives(&fixed, &object);
        survives(&Loader::builder().limits(limits()).build(), &object);
    }

    #[test]
    fn any_bytes_end_in_an_error(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = handmade().build();
        bytes.truncate(20);
        bytes.extend(tail);
        survives(&Loader::builder().limits(limits()).build(), &bytes);
    }
}

/// Or each of a thousand sections could have the same content and the same relocations: work out of all proportion.
#[test]
fn sections_and_tables_do_not_overlap() {
    const BODY: usize = 4096;
    let mut object = Object::default();
    object.symbol("f", elf::GLOBAL | elf::FUNC, 1, 0);
    for _ in 0..3 {
        let section = object.section(".data", elf::WRITE, &[0; BODY]);
        for number in 0..BODY as u64 / 8 {
            section.relocate(8 * number, 1, 1, 0);
        }
    }
    let sound = object.build();
    // Section headers in order: null, the sections, then their relocations.
    let headers = u64::from_le_bytes(sound[40..48].try_into().unwrap()) as usize;
    let offset = |number: usize| headers + 64 * number + 24;
    let count = usize::from(u16::from_le_bytes(sound[60..62].try_into().unwrap()));
    let kind = |number: usize| u32::from_le_bytes(sound[offset(number) - 20..][..4].try_into().unwrap());
    for (wanted, expected) in [(1, "sections: they overlap"), (4, "relocation tables: they overlap")] {
        let mut lying = sound.clone();
        let same: Vec<_> = (1..count).filter(|number| kind(*number) == wanted).collect();
        let sizes = |number: usize| u64::from_le_bytes(sound[offset(number) + 8..][..8].try_into().unwrap());
        assert!(same.len() >= 3);
        // All of them where the first is, and as large as would be there if nothing else were.
        let (first, most) = (sound[offset(same[0])..][..8].to_vec(), sound.len() as u64);
        let start = u64::from_le_bytes(first[..].try_into().unwrap());
        let size = ((most - start) / 24 * 24).max(sizes(same[0]));
        for number in same {
            lying[offset(number)..][..8].copy_from_slice(&first);
            lying[offset(number) + 8..][..8].copy_from_slice(&size.to_le_bytes());
        }
        let message = refusal(&lying);
        assert!(message.contains(expected), "{message}");
    }
}

/// Tables may overlap in a file: a small object could have many groups that each name every section.
#[test]
fn groups_have_no_more_members_than_there_are_sections() {
    let mut object = Object::default();
    let symbol = object.symbol("f", elf::GLOBAL | elf::FUNC, 1, 0);
    object.section(".text", elf::EXEC, &[0xc3]);
    for _ in 0..3 {
        let group =
            object.section(".group", 0, &[1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
        (group.kind, group.info, group.flags, group.align) = (elf::GROUP, symbol, 0, 4);
    }
    let message = refusal(&object.build());
    assert!(message.contains("the groups have more members than the object has sections"), "{message}");
}
