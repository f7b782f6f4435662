//! One mapping per image, its segments on pages of their own: `r-x`, `r--`, `rw-`, and behind them a page that nobody
//! may touch. Portable over Unix systems, at a price of four system calls per image, and one or two more where
//! instruction caches are to be told; it is written first and protected then, so no page is ever writable and
//! executable.

#![allow(unsafe_code)] // Mappings are protected by address.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use memmap2::MmapMut;
use parking_lot::Mutex;

use super::sys::{self, Mapping, Protection, Reach};
use super::{
    FinalizedMemory, HostCache, InFlightMemory, InstructionCache, MemoryError, MemoryManager, MemoryRequest,
    Segment, WorkingMemory, check_reach,
};

/// A memory manager that maps pages for each image.
///
/// Where the system forbids that memory which was writable becomes executable (`PR_SET_MDWE`, systemd's
/// `MemoryDenyWriteExecute`), the code is copied to memory that is mapped twice, as `SlabMemory` does (Linux on x86-64 and
/// AArch64; elsewhere loading is an error). Debuggers cannot set breakpoints in that.
#[derive(Debug, Clone)]
pub struct PageMemory {
    cache: Arc<dyn InstructionCache>,
    seals: bool,
    place: Option<Arc<Place>>,
}

/// Addresses of the caller's choice, from `base` up.
#[derive(Debug)]
struct Place {
    base: usize,
    /// Where the mappings of live images begin and end.
    taken: Mutex<BTreeMap<usize, usize>>,
}

impl PageMemory {
    /// The manager; it holds no memory itself.
    pub fn new() -> Self {
        Self::with_cache(Arc::new(HostCache))
    }

    /// A manager that leaves it to someone else to make code visible to the cores.
    pub fn with_cache(cache: Arc<dyn InstructionCache>) -> Self {
        PageMemory { cache, seals: false, place: None }
    }

    /// Images have to be at `base`, a multiple of the page size, and above, each in the first place that no other image has.
    /// Loading is an error where something else is there already: nothing of the process is ever replaced.
    #[must_use]
    pub fn at(self, base: usize) -> Self {
        PageMemory { place: Some(Arc::new(Place { base, taken: Mutex::default() })), ..self }
    }

    /// When an image is complete, nobody in the process can change its protections or unmap it any more (`mseal(2)`, Linux
    /// since 6.10; elsewhere loading is an error). **So its memory is never freed**: dropping such an image only makes its
    /// symbols unknown. For code that stays as long as the process. What the kernel itself may write, through
    /// `/proc/self/mem`, is not hindered.
    #[must_use]
    pub fn sealed(self) -> Self {
        PageMemory { seals: true, ..self }
    }
}

impl Place {
    /// The first address that is multiple of `align` and has room.
    fn take(self: &Arc<Self>, len: usize, align: usize) -> io::Result<Placed> {
        let beyond = || io::Error::new(io::ErrorKind::OutOfMemory, "past the end of the address space");
        let mut taken = self.taken.lock();
        let next = |address: usize| address.checked_next_multiple_of(align);
        let mut start = next(self.base).ok_or_else(beyond)?;
        for (other, end) in taken.iter() {
            if start.checked_add(len).ok_or_else(beyond)? <= *other {
                break;
            }
            start = next(*end).ok_or_else(beyond)?;
        }
        let mapping = Some(sys::map_private_at(start, len)?);
        taken.insert(start, start + len);
        Ok(Placed { mapping, place: Arc::clone(self) })
    }
}

/// A mapping at a place of the caller's choice.
struct Placed {
    /// Until it is dropped, or for ever.
    mapping: Option<Mapping>,
    place: Arc<Place>,
}

impl Drop for Placed {
    fn drop(&mut self) {
        // The place is free when nothing is mapped there.
        let mut taken = self.place.taken.lock();
        if let Some(mapping) = self.mapping.take() {
            taken.remove(&(mapping.address() as usize));
        }
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
    seals: bool,
}

/// `memmap2` cannot ask for addresses.
enum Backing {
    Anywhere(MmapMut),
    Low(Mapping),
    At(Placed),
}

impl Backing {
    /// Aligned to a page, or better where the place is chosen.
    fn new(
        len: usize,
        align: usize,
        low_2gib: bool,
        place: Option<&Arc<Place>>,
    ) -> Result<Self, MemoryError> {
        let (mapping, wanted) = match (place, low_2gib) {
            (Some(place), _) => {
                (place.take(len, align).map(Backing::At), format!(" from {:#x} up", place.base))
            }
            (None, true) => {
                let mapping = Mapping::private(len, Reach::Low2GiB);
                (mapping.map(Backing::Low), " in the lowest 2 GiB".to_owned())
            }
            (None, false) => (MmapMut::map_anon(len).map(Backing::Anywhere), String::new()),
        };
        let mapping = mapping.and_then(|mapping| {
            let end = mapping.address() as usize as u64 + len as u64;
            let is_low = end <= 1 << 31;
            let too_high = || io::Error::new(io::ErrorKind::OutOfMemory, "the code needs the lowest 2 GiB");
            if is_low || !low_2gib { Ok(mapping) } else { Err(too_high()) }
        });
        mapping.map_err(|error| MemoryError::new(format!("mapping {len} bytes{wanted}"), error))
    }

    fn address(&self) -> *mut u8 {
        match self {
            Backing::Anywhere(mapping) => mapping.as_ptr().cast_mut(),
            Backing::Low(mapping) => mapping.address(),
            Backing::At(Placed { mapping, .. }) => {
                mapping.as_ref().map_or(std::ptr::null_mut(), Mapping::address)
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Backing::Anywhere(mapping) => mapping.len(),
            Backing::Low(mapping) => mapping.len(),
            Backing::At(Placed { mapping, .. }) => mapping.as_ref().map_or(0, Mapping::len),
        }
    }

    /// Leaves the memory where it is, for ever.
    fn leak(self) {
        match self {
            Backing::Anywhere(mapping) => std::mem::forget(mapping),
            Backing::Low(mapping) => mapping.leak(),
            Backing::At(mut placed) => {
                if let Some(mapping) = placed.mapping.take() {
                    mapping.leak();
                }
            }
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
        let mapping = Backing::new(len, align.max(page), request.low_2gib, self.place.as_ref())?;
        let base = mapping.address() as usize;
        let skip = base.next_multiple_of(align.max(page)) - base;
        let segments = segments.map(|range| range.start + skip..range.end + skip);
        let (guard, cache, seals) = (end + skip, Arc::clone(&self.cache), self.seals);
        Ok(Box::new(Pages { mapping, segments, guard, cache, seals }))
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
            Backing::At(Placed { mapping, .. }) => match mapping {
                // SAFETY: likewise.
                Some(mapping) => unsafe { mapping.bytes_mut() },
                None => &mut [],
            },
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
        let [code, read_only, data] = self.segments.clone();
        self.make_executable(code.start..read_only.start)?;
        self.protect(read_only.start..data.start, Protection::Read)?;
        self.protect(self.guard..self.mapping.len(), Protection::None)?;
        if !self.seals {
            return Ok(self);
        }
        let (start, len) = (self.mapping.address(), self.mapping.len());
        // SAFETY: all of this image's own mapping, which is never unmapped from here on.
        let sealed = unsafe { sys::seal(start, len) };
        sealed.map_err(|error| MemoryError::new(format!("sealing {len} bytes"), error))?;
        self.mapping.leak();
        Ok(Box::new(Sealed))
    }
}

impl Pages {
    fn make_executable(&mut self, range: Range<usize>) -> Result<(), MemoryError> {
        let refused = match self.protect(range.clone(), Protection::ReadExecute) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        // It may not become executable because it was writable: then memory that was executable from the beginning may.
        let [written, ..] = self.working()?;
        let code = written.bytes.to_vec();
        let offset = self.segments[Segment::Code.index()].start - range.start;
        let place = self.mapping.address().wrapping_add(range.start);
        // SAFETY: whole pages of this image's own mapping, of which the content was copied, and nothing is borrowed.
        unsafe { executable_copy(place, range.len(), offset, &code) }.map_err(|_| refused)?;
        // SAFETY: the code that was just copied there, readable, and of this image until it is dropped.
        let copied = unsafe { std::slice::from_raw_parts(place.wrapping_add(offset), code.len()) };
        self.cache.synchronize(copied)
    }

    fn protect(&self, range: Range<usize>, protection: Protection) -> Result<(), MemoryError> {
        let start = self.mapping.address().wrapping_add(range.start);
        // SAFETY: the range lies in this image's own mapping, and the working memory is not borrowed any more:
        // `finalize` took `self`, and a `FinalizedMemory` gives no access.
        let protected = unsafe { sys::protect(start, range.len(), protection) };
        protected.map_err(|error| MemoryError::new(format!("protecting {} bytes", range.len()), error))
    }
}

impl FinalizedMemory for Pages {}

/// Memory that nobody can free.
struct Sealed;

impl FinalizedMemory for Sealed {}

/// Replaces what is mapped from `place` up by executable memory that has `code` at an offset, and is zero otherwise. It is
/// written through another mapping, which is not executable and goes before anybody can run what was written.
///
/// # Safety
/// The range must be whole pages that are mapped and the caller's, and nobody may use it.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn executable_copy(place: *mut u8, len: usize, offset: usize, code: &[u8]) -> io::Result<()> {
    // SAFETY: as the caller vouches.
    let mut writable = unsafe { sys::map_twice(place, len)? };
    // SAFETY: all of a mapping that nobody else knows.
    unsafe { sys::protect(writable.address(), writable.len(), Protection::ReadWrite)? };
    // SAFETY: it is readable and writable now, and nobody else's.
    let bytes = unsafe { writable.bytes_mut() };
    bytes[offset..offset + code.len()].copy_from_slice(code);
    Ok(())
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
unsafe fn executable_copy(_place: *mut u8, _len: usize, _offset: usize, _code: &[u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
