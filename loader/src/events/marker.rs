//! The mapping by which `perf` knows a jitdump: executable, of its first page, used for nothing.

#![allow(unsafe_code)] // Mapping a file is.

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

pub(super) struct Marker {
    _mapping: Mmap,
}

impl Marker {
    pub(super) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: nobody reads or runs what is mapped: that the mapping is made is all that perf looks at.
        let mapping = unsafe { MmapOptions::new().len(1).map_exec(file) }?;
        Ok(Marker { _mapping: mapping })
    }
}
