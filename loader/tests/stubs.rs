//! Stubs lead where the branch was to go: what they read is the target's whole address.

mod support;

use std::sync::Arc;

use objcache_loader::{FixedMemory, Loader, Segment, from_fn};
use support::*;

/// Links a branch to `far` by a stub, and gives the word that the stub reads.
fn read_by_stub(branch: &str, far: u64) -> Option<u64> {
    if !has(CLANG) {
        return None;
    }
    let object = compile_text(CLANG, &["--target=aarch64-linux-gnu"], "s", &format!(".text\n{branch}\n"));
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x1000_0000))).build();
    let image = loader.load(&object, &from_fn(|name| (name == "far").then_some(far))).unwrap();
    let read_only = image.linked_bytes(Segment::ReadOnly).unwrap();
    Some(u64::from_le_bytes(read_only[..8].try_into().unwrap()))
}

#[test]
fn a_stub_leads_to_a_symbol_anywhere() {
    let Some(word) = read_by_stub("bl far", 0x1234_5678_9abc_def0) else { return };
    assert_eq!(word, 0x1234_5678_9abc_def0);
}

#[test]
fn a_stub_leads_into_the_middle_of_a_function() {
    let Some(word) = read_by_stub("bl far + 8", 0x1234_5678_9abc_def0) else { return };
    assert_eq!(word, 0x1234_5678_9abc_def8);
}
