//! Mach-O objects that lie: loading them ends in an image or in an error that says what is wrong.

use std::sync::Arc;
use std::time::Duration;

use objcache_loader::{FixedMemory, Limits, LoadError, Loader, from_fn};

use crate::support::counting::processor_time;
use crate::support::macho::{self, ARM64, Object, Relocation, X86_64};
use crate::support::*;

fn loader() -> Loader {
    let mut limits = Limits::default();
    limits.image_bytes = 1 << 20;
    Loader::builder().memory(Arc::new(FixedMemory::at(0x2000_0000))).limits(limits).build()
}

fn load(object: &[u8]) -> Result<(), LoadError> {
    let image = loader().load(object, &from_fn(|name| Some(0x2000_0000 + 16 * name.len() as u64)))?;
    // What others may look at is there.
    image.symbols().for_each(|symbol| assert!(symbol.name.len() < 1 << 20));
    Ok(())
}

/// One of everything that compilers use.
fn handmade(cpu: u32) -> Object {
    let mut object = Object::of(cpu);
    let text = object.section("__TEXT", "__text", macho::CODE, &[0; 32]);
    let external = |offset, number, kind, length, relative| Relocation {
        offset,
        number,
        external: true,
        kind,
        length,
        relative,
    };
    text.relocations = match cpu {
        ARM64 => vec![
            external(0, 2, 2, 2, true),
            Relocation { external: false, ..external(4, 16, 10, 2, false) },
            external(4, 0, 3, 2, true),
            external(8, 0, 4, 2, false),
            external(12, 3, 5, 2, true),
            external(16, 3, 6, 2, false),
            external(20, 3, 7, 2, true),
        ],
        _ => vec![
            external(1, 2, 2, 2, true),
            external(6, 0, 1, 2, true),
            external(12, 3, 4, 2, true),
            Relocation { external: false, ..external(20, 2, 1, 2, true) },
        ],
    };
    let data = object.section("__DATA", "__data", 0, &[0; 24]);
    data.address = 32;
    let subtractor = if cpu == ARM64 { 1 } else { 5 };
    data.relocations = vec![
        external(0, 4, 0, 3, false),
        external(8, 1, subtractor, 3, false),
        external(8, 0, 0, 3, false),
        Relocation { external: false, ..external(16, 1, 0, 3, false) },
    ];
    let zeros = object.section("__DATA", "__bss", macho::ZEROFILL, &[]);
    (zeros.address, zeros.size, zeros.align) = (56, Some(100), 5);
    let pointers = object.section("__DATA", "__mod_init_func", macho::INITIALIZERS, &[0; 8]);
    pointers.address = 160;
    pointers.relocations = vec![external(0, 0, 0, 3, false)];
    object.symbol("_here", macho::EXTERNAL | macho::IN_SECTION, 1, 0);
    object.symbol("local", macho::IN_SECTION, 2, 40);
    object.symbol("_external", macho::EXTERNAL, 0, 0);
    object.symbol("_weak", macho::EXTERNAL, 0, 0);
    object.symbols.last_mut().unwrap().description = macho::WEAK_REFERENCE;
    object.symbol("_common", macho::EXTERNAL, 0, 16);
    object.symbols.last_mut().unwrap().description = 0x300;
    object.symbol("_absolute", macho::EXTERNAL | macho::ABSOLUTE, 0, 0x1234);
    object.symbol("source.c", 0x64, 0, 0);
    object
}

fn corpus() -> Vec<Vec<u8>> {
    const CPP: &str = "struct A { ~A(); }; void g(); extern int *p[]; template <class T> T h(T t) { A a; g(); return t; }
        int k(int n) { switch (n) { case 0: return *p[1]; case 1: return 5; case 2: return *p[3]; case 3: g(); }
        try { return h(1) + int(h(2.0)); } catch (int n) { return n; } } const char *s[] = {\"a\", \"b\"};";
    let mut objects = vec![handmade(X86_64).build(), handmade(ARM64).build()];
    if has(CLANGXX) {
        for target in ["--target=x86_64-apple-macosx13", "--target=arm64-apple-macosx13"] {
            objects.push(compile_text(CLANGXX, &[target, "-Os", "-femit-dwarf-unwind=always"], "cpp", CPP));
        }
    }
    objects
}

#[test]
fn every_byte_changed_and_every_length() {
    let (mut loaded, mut refused) = (0u64, 0u64);
    let mut slowest = Duration::ZERO;
    for object in corpus() {
        load(&object).unwrap_or_else(|error| panic!("the object itself is fine: {error}"));
        let mut note = |object: &[u8]| {
            let start = processor_time();
            match load(object) {
                Ok(()) => loaded += 1,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
            }
            slowest = slowest.max(processor_time() - start);
        };
        (0..object.len()).for_each(|length| note(&object[..length]));
        let mut changed = object.clone();
        for at in 0..object.len() {
            let bits = (0..8).map(|bit| object[at] ^ 1 << bit);
            for byte in bits.chain([0x00, 0xff, object[at].wrapping_add(1)]) {
                changed[at] = byte;
                if byte != object[at] {
                    note(&changed);
                }
            }
            changed[at] = object[at];
        }
    }
    eprintln!("{loaded} loaded, {refused} refused, the slowest took {slowest:?}");
    assert!(loaded > 1000 && refused > 1000);
}

/// What an object is refused for.
#[track_caller]
fn refused_for(cpu: u32, change: impl FnOnce(&mut Object), why: &str) {
    let mut object = handmade(cpu);
    change(&mut object);
    let error = load(&object.build()).expect_err(why).to_string();
    assert!(error.contains(why), "`{error}` does not say `{why}`");
}

#[test]
fn lies_have_names() {
    let both = |change: fn(&mut Object), why: &str| [X86_64, ARM64].map(|cpu| refused_for(cpu, change, why));
    both(|o| o.sections[0].relocations[0].offset = 0x8000_0004, "scattered");
    both(|o| o.sections[0].relocations[0].offset = 30, "__TEXT,__text+0x1e");
    both(|o| o.sections[0].relocations[0].number = 7, "symbol 7, which is not there");
    both(|o| o.sections[1].relocations[3].number = 5, "section 5, which is not there");
    both(|o| o.sections[1].relocations[3].number = 0, "section 0, which is not there");
    both(|o| o.sections[1].relocations.truncate(2), "SUBTRACTOR is not followed by UNSIGNED");
    both(|o| o.sections[1].relocations[2].offset = 4, "SUBTRACTOR is not followed by UNSIGNED");
    both(|o| o.sections[1].relocations[2].length = 2, "SUBTRACTOR is not followed by UNSIGNED");
    both(|o| o.sections[1].relocations[0].number = 6, "`symbol 6`");
    both(|o| o.sections[1].relocations[0].length = 1, "a field of this size");
    both(|o| o.sections[0].relocations[0].kind = 15, "relocation type");
    both(|o| o.sections[1].size = Some(1 << 40), "past the end of the file");
    both(|o| o.sections[2].size = Some(1 << 40), "the size of the image");
    both(|o| o.sections[2].size = Some(u64::MAX), "the size of the image");
    both(|o| o.sections[0].align = 22, "the alignment of a section");
    both(|o| o.sections[0].align = 64, "no number of 64 bits");
    both(|o| o.sections[1].flags = 0x12, "__DATA,__data: thread-local storage");
    both(|o| o.sections[1].flags = 6, "an indirect symbol table");
    both(|o| o.sections[1].flags = 0x16, "initialisers given by offset");
    both(|o| o.sections[1].flags = macho::CODE, "both writable and executable");
    both(|o| o.symbols[0].section = 9, "symbol 0: it is in section 9");
    both(|o| o.symbols[0].value = 33, "outside of its section");
    both(|o| o.symbols[2].kind = macho::EXTERNAL | macho::INDIRECT, "N_INDR");
    both(|o| o.symbols[2].kind = 0x0d, "its type 0xc is unknown");
    both(|o| o.symbols[4].value = 1 << 50, "the size of the common symbols");
    both(
        |o| {
            o.commands.push([0x19u32, 72].iter().flat_map(|word| word.to_le_bytes()).chain([0; 64]).collect())
        },
        "second segment",
    );
    both(
        |o| o.commands.push([2u32, 24].iter().flat_map(|word| word.to_le_bytes()).chain([0; 16]).collect()),
        "second symbol table",
    );
    both(
        |o| o.commands.push([0x30u32, 4].iter().flat_map(|word| word.to_le_bytes()).collect()),
        "shorter than its own header",
    );
    refused_for(X86_64, |o| o.sections[0].relocations[0].kind = 9, "thread-local storage");
    refused_for(X86_64, |o| o.sections[0].relocations[2].external = false, "its type needs a symbol");
    refused_for(ARM64, |o| o.sections[0].relocations[0].external = false, "its type needs a symbol");
    refused_for(ARM64, |o| o.sections[0].relocations[0].kind = 8, "thread-local storage");
    refused_for(ARM64, |o| o.sections[0].relocations[0].kind = 11, "a signed pointer");
    refused_for(ARM64, |o| o.sections[0].relocations.truncate(2), "ADDEND is not followed by");
}

#[test]
fn other_files_are_told_apart() {
    let refused = |change: fn(&mut Vec<u8>), why: &str| {
        let mut object = handmade(ARM64).build();
        change(&mut object);
        let error = load(&object).expect_err(why).to_string();
        assert!(error.contains(why), "`{error}` does not say `{why}`");
    };
    refused(|object| object[12] = 2, "an executable (MH_EXECUTE)");
    refused(|object| object[12] = 6, "a dynamic library (MH_DYLIB)");
    refused(|object| object[8] = 2, "arm64e");
    refused(|object| object[4] = 18, "cpu type");
    refused(|object| object[0] = 0xce, "32-bit Mach-O");
    refused(|object| object[..4].copy_from_slice(&[0xfe, 0xed, 0xfa, 0xcf]), "big-endian Mach-O");
    refused(|object| object.truncate(20), "shorter than its header");
}

/// As many sections as fit, each named from the same bytes, take time in proportion.
#[test]
fn many_sections() {
    let mut object = Object::of(X86_64);
    for _ in 0..20_000 {
        object.section("__TEXT", "__eh_frame", 0, &[0; 4]);
    }
    let bytes = object.build();
    let start = processor_time();
    let _ = load(&bytes);
    let taken = processor_time() - start;
    assert!(taken < Duration::from_secs(5), "{taken:?}");
}
