//! PowerPC objects that are linked together: which calls from one to another need a stub.

mod support;

use std::sync::Arc;

use objcache_loader::{FixedMemory, InputObject, LinkMap, Loader, Segment, from_fn};
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
