//! Any bytes as one object, with nothing to resolve names against: readers, symbol tables, layout.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use objcache_loader::{FixedMemory, Limits, Loader, NoSymbols};

fuzz_target!(|bytes: &[u8]| {
    let mut limits = Limits::default();
    limits.image_bytes = 1 << 20;
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x4000_0000))).limits(limits).build();
    if let Err(error) = loader.load(bytes, &NoSymbols) {
        assert!(!error.to_string().is_empty());
    }
});
