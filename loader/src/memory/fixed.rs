//! Linking without running: target addresses of the caller's choice, working memory that is plain bytes.
//!
//! For looking at a linked image: a test that compares it with what another linker makes, an image meant for another
//! process or another machine.

use memmap2::MmapMut;

use super::{
    FinalizedMemory, InFlightMemory, MemoryError, MemoryManager, MemoryRequest, Placement, Segment,
    WorkingMemory,
};

/// A memory manager that runs nothing. Segments follow each other from a base address, sections can be placed one by
/// one. The linked bytes are read back by [`LoadedImage::linked_bytes`](crate::LoadedImage::linked_bytes).
pub struct FixedMemory {
    base: u64,
    /// Where images go that must be low.
    low_base: u64,
    page: u64,
    placement: Option<Box<dyn Placement>>,
}

impl FixedMemory {
    /// Code, then read-only data, then data, each on a page of 4 KiB of its own, from `base` up.
    pub fn at(base: u64) -> Self {
        FixedMemory { base, low_base: base, page: 4096, placement: None }
    }

    /// As [`at`](Self::at), except for the sections that `placement` gives an address of their own.
    pub fn placed(base: u64, placement: impl Placement + 'static) -> Self {
        FixedMemory { placement: Some(Box::new(placement)), ..Self::at(base) }
    }

    /// Another base for images that must lie in the lowest 2 GiB: those of 32-bit machines, and code that holds absolute
    /// addresses of 32 bits.
    #[must_use]
    pub fn or_low(self, low_base: u64) -> Self {
        FixedMemory { low_base, ..self }
    }

    /// For a machine with pages of that many bytes, a power of two, instead of 4 KiB: segments do not share one.
    #[must_use]
    pub fn with_pages_of(self, page: u64) -> Self {
        FixedMemory { page: page.max(1), ..self }
    }
}

/// Of a single object.
impl<F: Fn(&[u8], usize) -> Option<u64> + Send + Sync> Placement for F {
    fn place(&self, _file: usize, section: &[u8], number: usize) -> Option<u64> {
        self(section, number)
    }
}

struct Bytes {
    targets: [u64; 3],
    bytes: [Zeroed; 3],
}

/// Much memory is asked for in a way that can be refused, and is not touched before it is used.
enum Zeroed {
    Little(Vec<u8>),
    Much(MmapMut),
}

impl Zeroed {
    fn new(len: usize) -> Result<Self, MemoryError> {
        const LITTLE: usize = 1 << 20;
        if len <= LITTLE {
            return Ok(Zeroed::Little(vec![0; len]));
        }
        let mapped = MmapMut::map_anon(len);
        mapped.map(Zeroed::Much).map_err(|error| MemoryError::new(format!("mapping {len} bytes"), error))
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Zeroed::Little(bytes) => bytes,
            Zeroed::Much(mapping) => mapping,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Zeroed::Little(bytes) => bytes,
            Zeroed::Much(mapping) => mapping,
        }
    }
}

#[allow(unsafe_code)] // Promises nothing.
// SAFETY: `executes_here` says no, so nothing is promised about this process.
unsafe impl MemoryManager for FixedMemory {
    fn allocate(&self, request: &MemoryRequest) -> Result<Box<dyn InFlightMemory>, MemoryError> {
        let beyond = || MemoryError::new("placing an image", "it reaches past the end of the address space");
        let mut next = if request.low_2gib { self.low_base } else { self.base };
        let mut targets = [0; 3];
        for (target, segment) in targets.iter_mut().zip(request.segments) {
            let align = (segment.align as u64).max(self.page);
            *target = next.checked_next_multiple_of(align).ok_or_else(beyond)?;
            next = target.checked_add(segment.size as u64).ok_or_else(beyond)?;
        }
        let [code, read_only, data] = request.segments.map(|segment| Zeroed::new(segment.size));
        Ok(Box::new(Bytes { targets, bytes: [code?, read_only?, data?] }))
    }

    fn executes_here(&self) -> bool {
        false
    }

    fn placement(&self) -> Option<&dyn Placement> {
        self.placement.as_deref()
    }
}

impl InFlightMemory for Bytes {
    fn target(&self, segment: Segment) -> u64 {
        self.targets[segment.index()]
    }

    fn working(&mut self) -> Result<[WorkingMemory<'_>; 3], MemoryError> {
        Ok(self.bytes.each_mut().map(|bytes| WorkingMemory { bytes: bytes.bytes_mut(), zeroed: true }))
    }

    fn finalize(self: Box<Self>) -> Result<Box<dyn FinalizedMemory>, MemoryError> {
        Ok(self)
    }
}

impl FinalizedMemory for Bytes {
    fn linked_bytes(&self, segment: Segment) -> Option<&[u8]> {
        Some(self.bytes[segment.index()].bytes())
    }
}
