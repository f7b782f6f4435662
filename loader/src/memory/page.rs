//! One mapping per image, its segments on pages of their own: `r-x`, `r--`, `rw-`, and behind them a page that nobody
//! may touch. Portable over Unix systems, at a price of four system calls per image, and one or two more where
//! instruction caches are to be told; it is written first and protected then, so no page is ever writable and
//! executable.

#![allow(unsafe_code)] // Mappings are protected by address.

use std::ops::Range;
use std::sync::Arc;

use memmap2::MmapMut;

use super::sys::{self, Mapping, Protection, Reach};
use super::{
    FinalizedMemory, HostCache, InFlightMemory, InstructionCache, MemoryError, MemoryManager, MemoryRequest,
    Segment, WorkingMemory, check_reach,
};

/// A memory manager that maps pages for each image.
///
/// Where the system forbids that memory which was writable becomes executable (`PR_SET_MDWE`), loading is an error;
/// `SlabMemory` works there.
#[derive(Debug, Clone)]
pub struct PageMemory {
    cache: Arc<dyn InstructionCache>,
}

impl PageMemory {
    /// The manager; it holds no memory itself.
    pub fn new() -> Self {
        Self::with_cache(Arc::new(HostCache))
    }

    /// A manager that leaves it to someone else to make code visible to the cores.
    pub fn with_cache(cache: Arc<dyn InstructionCache>) -> Self {
        PageMemory { cache }
    }
}

impl Default for PageMemory {
    fn default() -> Self {
        Self::new()
    }
}

/// An image's pages.
struct Pages {
    mapping: Backing,
    /// By segment, relative to the mapping.
    segments: [Range<usize>; 3],
    /// Where the guard page begins.
    guard: usize,
    cache: Arc<dyn InstructionCache>,
}

/// `memmap2` cannot ask for low addresses.
enum Backing {
    Anywhere(MmapMut),
    Low(Mapping),
}

impl Backing {
    fn new(len: usize, low_2gib: bool) -> Result<Self, MemoryError> {
        let mapping = match low_2gib {
            true => Mapping::private(len, Reach::Low2GiB).map(Backing::Low),
            false => MmapMut::map_anon(len).map(Backing::Anywhere),
        };
        let place = if low_2gib { " in the lowest 2 GiB" } else { "" };
        mapping.map_err(|error| MemoryError::new(format!("mapping {len} bytes{place}"), error))
    }

    fn address(&self) -> *mut u8 {
        match self {
            Backing::Anywhere(mapping) => mapping.as_ptr().cast_mut(),
            Backing::Low(mapping) => mapping.address(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Backing::Anywhere(mapping) => mapping.len(),
            Backing::Low(mapping) => mapping.len(),
        }
    }
}

// SAFETY: the segments are disjoint ranges of a private mapping that lives as long as the `FinalizedMemory`; they stay
// readable, and code and constants cannot change because they are no longer writable.
unsafe impl MemoryManager for PageMemory {
    fn allocate(&self, request: &MemoryRequest) -> Result<Box<dyn InFlightMemory>, MemoryError> {
        let too_big = || MemoryError::new("mapping an image", "its size overflows");
        let page = sys::page_size();
        let align = request.segments.iter().map(|segment| segment.align).max().unwrap_or(1);
        // The mapping begins on a page: what a larger alignment may skip, and the guard page, come on top.
        let mut end = 0usize;
        let mut segments = [0; 3].map(|_| 0..0);
        for (range, segment) in segments.iter_mut().zip(request.segments) {
            let start = end.checked_next_multiple_of(page.max(segment.align)).ok_or_else(too_big)?;
            *range = start..start.checked_add(segment.size).ok_or_else(too_big)?;
            end = range.end.checked_next_multiple_of(page).ok_or_else(too_big)?;
        }
        check_reach(end)?;
        let spare = align.saturating_sub(page);
        let len = end.checked_add(spare + page).ok_or_else(too_big)?;
        let mapping = Backing::new(len, request.low_2gib)?;
        let base = mapping.address() as usize;
        let skip = base.next_multiple_of(align.max(page)) - base;
        let segments = segments.map(|range| range.start + skip..range.end + skip);
        Ok(Box::new(Pages { mapping, segments, guard: end + skip, cache: Arc::clone(&self.cache) }))
    }
}

impl InFlightMemory for Pages {
    fn target(&self, segment: Segment) -> u64 {
        self.mapping.address() as u64 + self.segments[segment.index()].start as u64
    }

    fn working(&mut self) -> Result<[WorkingMemory<'_>; 3], MemoryError> {
        let bytes: &mut [u8] = match &mut self.mapping {
            Backing::Anywhere(mapping) => mapping,
            // SAFETY: nothing of the mapping is protected before `finalize`, which takes `self`.
            Backing::Low(mapping) => unsafe { mapping.bytes_mut() },
        };
        let [code, read_only, data] = &self.segments;
        let (head, rest) = bytes.split_at_mut(read_only.start);
        let (middle, tail) = rest.split_at_mut(data.start - read_only.start);
        let working = |bytes| WorkingMemory { bytes, zeroed: true };
        Ok([
            working(&mut head[code.clone()]),
            working(&mut middle[..read_only.len()]),
            working(&mut tail[..data.len()]),
        ])
    }

    fn finalize(mut self: Box<Self>) -> Result<Box<dyn FinalizedMemory>, MemoryError> {
        let cache = Arc::clone(&self.cache);
        let [written, ..] = self.working()?;
        cache.synchronize(written.bytes)?;
        let [code, read_only, data] = &self.segments;
        self.protect(code.start..read_only.start, Protection::ReadExecute)?;
        self.protect(read_only.start..data.start, Protection::Read)?;
        self.protect(self.guard..self.mapping.len(), Protection::None)?;
        Ok(self)
    }
}

impl Pages {
    fn protect(&self, range: Range<usize>, protection: Protection) -> Result<(), MemoryError> {
        let start = self.mapping.address().wrapping_add(range.start);
        // SAFETY: the range lies in this image's own mapping, and the working memory is not borrowed any more:
        // `finalize` took `self`, and a `FinalizedMemory` gives no access.
        let protected = unsafe { sys::protect(start, range.len(), protection) };
        protected.map_err(|error| MemoryError::new(format!("protecting {} bytes", range.len()), error))
    }
}

impl FinalizedMemory for Pages {}
