//! Any bytes as two objects that are linked together, every name known and accesses relaxed: fix-ups, stubs, GOT, scope.
//! The first byte says where the input is split, so that one object stays whole when it is zero.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use objcache_loader::{FixedMemory, InputObject, Limits, Loader, from_fn};

fuzz_target!(|bytes: &[u8]| {
    let Some((split, bytes)) = bytes.split_first() else { return };
    let mut limits = Limits::default();
    limits.image_bytes = 1 << 20;
    let memory = Arc::new(FixedMemory::at(0x4000_0000));
    let loader = Loader::builder().memory(memory).limits(limits).relax(true).build();
    let resolver = from_fn(|name| Some(0x4100_0000 + 4 * name.len() as u64));
    let (first, second) = bytes.split_at(bytes.len() * usize::from(*split) / 256);
    let objects =
        [InputObject { name: "first", bytes: first }, InputObject { name: "second", bytes: second }];
    let objects = if first.is_empty() { &objects[1..] } else { &objects[..] };
    if let Err(error) = loader.load_all(objects, &resolver) {
        assert!(!error.to_string().is_empty());
    }
});
