//! PowerPC objects that are linked together: which calls from one to another need a stub.

mod support;

use std::sync::Arc;

use objcache_loader::{FixedMemory, InputObject, LinkMap, Loader, NoSymbols, Segment, from_fn};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use support::*;

const CALLER: &str = "
    .text
    .globl caller
    caller:
        bl without_toc
        bl with_toc
        nop
        bl elsewhere
        nop
";

const CALLED: &str = "
    .text
    .globl without_toc
    .type without_toc, @function
    without_toc: blr
    .globl with_toc
    .type with_toc, @function
    with_toc:
        addis 2, 12, .TOC.-with_toc@ha
        addi 2, 2, .TOC.-with_toc@l
        .localentry with_toc, .-with_toc
        blr
";

fn address(map: &LinkMap, name: &str) -> u64 {
    let mut symbols = map.files.iter().flat_map(|file| &file.symbols);
    symbols.find(|symbol| symbol.name == name).unwrap().address
}

/// An object has a TOC of its own: only functions that use none are called directly, as those are that save registers
/// for gcc.
#[test]
fn calls_between_objects_keep_the_toc() {
    if !has(CLANG) {
        return;
    }
    let assemble = |text| compile_text(CLANG, &["--target=powerpc64le-linux-gnu"], "s", text);
    let [caller, called] = [assemble(CALLER), assemble(CALLED)];
    let inputs = [("caller", &caller), ("called", &called)].map(|(name, bytes)| InputObject { name, bytes });
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x1_0000))).build();
    let (image, map) = loader.load_all(&inputs, &from_fn(|_| Some(0x20_0000))).unwrap();

    let code = image.linked_bytes(Segment::Code).unwrap();
    let place = address(&map, "caller");
    let word = |number: usize| u32::from_le_bytes(code[4 * number..][..4].try_into().unwrap());
    let target = |number: usize| {
        let distance = i64::from((word(number) << 6) as i32 >> 6) & !3;
        place.wrapping_add(4 * number as u64).wrapping_add_signed(distance)
    };
    assert_eq!(target(0), address(&map, "without_toc"));
    let stubs: Vec<(u64, &str)> = map.files[0].stubs.iter().map(|stub| (stub.address, stub.kind)).collect();
    for call in [1, 3] {
        assert!(stubs.contains(&(target(call), "toc")), "{:#x} of {stubs:x?}", target(call));
        assert_eq!(word(call + 1), 0xe841_0018, "ld 2,24(1)");
    }
}

/// Functions that save and restore registers, some of every family, each called by a function of an object.
fn users(prefixes: &[&str], first: usize) -> Vec<u8> {
    let names =
        prefixes.iter().flat_map(|prefix| [first, first + 3].map(|number| format!("{prefix}{number}")));
    let calls: String = names.map(|name| format!("bl {name}\n")).collect();
    let text = format!(".text\n.globl user\nuser: {calls} blr\n");
    compile_text(CLANG, &["--target=powerpc64le-linux-gnu"], "s", &text)
}

/// What a linker we did not write makes: from the first function of a prefix as many bytes as ours has.
fn made_by(linker: &str, object: &[u8], name: &str, size: usize) -> Vec<u8> {
    let [input, output] = ["saves.o", "saves.elf"].map(|file| scratch(&format!("{linker}-{file}")));
    std::fs::write(&input, object).unwrap();
    run(linker, &["-e", "0", "-o", output.to_str().unwrap(), input.to_str().unwrap()]);
    let linked = std::fs::read(output).unwrap();
    let file = object::File::parse(&linked[..]).unwrap();
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
    let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
    section.data().unwrap()[(symbol.address() - section.address()) as usize..][..size].to_vec()
}

/// The made sections by prefix, with the bytes of each.
fn made(object: &[u8]) -> Vec<(String, Vec<u8>)> {
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x1_0000))).build();
    let input = InputObject { name: "user", bytes: object };
    let (image, map) = loader.load_all(&[input], &NoSymbols).unwrap();
    assert_eq!(map.files.len(), 2);
    assert!(map.files[0].stubs.is_empty() || map.files[0].stubs.iter().all(|stub| stub.kind == "long"));
    let code = image.linked_bytes(Segment::Code).unwrap();
    let loaded = map.files[1].sections.iter().filter(|section| section.number.is_some());
    let bytes = loaded.map(|section| {
        let prefix = section.name.strip_prefix(".text.").unwrap().to_owned();
        (prefix, code[section.offset..][..section.size as usize].to_vec())
    });
    bytes.collect()
}

/// Those that lld makes too.
#[test]
fn general_registers_are_saved_as_lld_does() {
    if !has(CLANG) || !has(LLD) {
        return;
    }
    for first in [14, 24, 28] {
        let object = users(&["_savegpr0_", "_restgpr0_", "_savegpr1_", "_restgpr1_"], first);
        let made = made(&object);
        assert_eq!(made.len(), 4);
        for (prefix, bytes) in made {
            let theirs = made_by(LLD, &object, &format!("{prefix}{first}"), bytes.len());
            assert_eq!(bytes, theirs, "{prefix}{first}");
        }
    }
}

/// The others, which GNU ld makes. It brings the return address back before the last registers, not after them.
#[test]
fn other_registers_are_saved_as_gnu_ld_does() {
    const GNU_LD: &str = "powerpc64le-linux-gnu-ld";
    if !has(CLANG) || !has(GNU_LD) {
        return;
    }
    for first in [20, 25, 28] {
        let object = users(&["_savefpr_", "_restfpr_", "_savevr_", "_restvr_"], first);
        let made = made(&object);
        assert_eq!(made.len(), 4);
        for (prefix, bytes) in made {
            let theirs = made_by(GNU_LD, &object, &format!("{prefix}{first}"), bytes.len());
            let in_order = |bytes: &[u8]| {
                let mut words: Vec<_> = bytes.chunks_exact(4).map(<[u8]>::to_vec).collect();
                if prefix == "_restfpr_" {
                    words.sort();
                }
                words
            };
            assert_eq!(in_order(&bytes), in_order(&theirs), "{prefix}{first}");
        }
    }
}

/// What gcc compiles for size is linked, and what an object defines is not made again.
#[test]
fn code_for_size_finds_what_it_calls() {
    const GCC: &str = "powerpc64le-linux-gnu-gcc";
    if !has(GCC) || !has(CLANG) {
        return;
    }
    let source = "
        long next(long);
        long many(long a, long b, long c, long d, long e, long f) {
            long u = next(a), v = next(b), w = next(c), x = next(d), y = next(e), z = next(f);
            return u * v + w * x + y * z + next(u + v + w) + next(x + y + z);
        }
        __attribute__((noinline)) long next(long n) { return n + 1; }";
    let object = compile_text(GCC, &["-Os", "-fPIC"], "c", source);
    let names = |file: &object::File<'_>| -> Vec<String> {
        file.symbols()
            .filter(|symbol| symbol.is_undefined() && !symbol.name().unwrap_or_default().is_empty())
            .map(|symbol| symbol.name().unwrap().to_owned())
            .collect()
    };
    let lacks = names(&object::File::parse(&object[..]).unwrap());
    assert!(lacks.iter().any(|name| name.starts_with("_savegpr0_")), "{lacks:?}");
    assert_eq!(made(&object).len(), 2);

    let text: String = lacks.iter().map(|name| format!(".globl {name}\n{name}: blr\n")).collect();
    let text = text.replace(".globl .TOC.\n.TOC.: blr\n", "");
    let defined = compile_text(CLANG, &["--target=powerpc64le-linux-gnu"], "s", &text);
    let inputs = [("user", &object), ("own", &defined)].map(|(name, bytes)| InputObject { name, bytes });
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x1_0000))).build();
    let (_, map) = loader.load_all(&inputs, &NoSymbols).unwrap();
    assert_eq!(map.files.len(), 2);
}
