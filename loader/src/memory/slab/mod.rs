//! The default manager on Linux (x86-64, AArch64): images share large slabs, so that loading one takes no system call.
//!
//! A slab is memory with two views ([`area`]) and a list of what is free in it ([`ranges`]). When it is full there is
//! another; an image too big for sharing gets a slab of its own. Threads take from different slabs ([`shard`](crate::shard)). Code that
//! only runs in the lowest 2 GiB has slabs there, made when first asked for. After a fork old slabs are frozen ([`fork`](crate::fork)).
//!
//! **Reusing code ranges.** A core may hold instructions that it fetched or decoded from a range before the range was
//! freed, and x86 only promises that it sees new ones at an address written through another mapping after a
//! serializing instruction (Intel SDM 3A, "Handling Self- and Cross-Modifying Code"). So a freed range is overwritten
//! with traps and kept in quarantine until some have come together; then `membarrier(SYNC_CORE)` serializes every core
//! that runs this process, and the ranges become available. From the barrier on no core holds the old code, and none
//! has a reason to go there before it reads the new image's address, which is published after the new code was
//! written. One system call for hundreds of frees, none for a load. When a large image goes and no other memory of its size is free
//! there is one more (a microsecond, some among other work), so that the next such image is not written where memory is cold, or not there yet.

mod area;
mod ranges;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use self::area::Area;
use self::ranges::{GRANULE, Ranges, Taken};
use super::sys::{self, Reach};
use super::{
    FinalizedMemory, HostCache, InFlightMemory, InstructionCache, MemoryError, MemoryManager, MemoryRequest,
    Segment, WorkingMemory, check_reach,
};
use crate::fork;
use crate::limits::Limits;
use crate::shard::{self, Padded, SHARDS};

/// A memory manager that puts many images into few large mappings. Clones share them.
///
/// Memory of dropped images is kept for the next ones, until a slab that was mostly used is empty or
/// [`release_unused`](Self::release_unused) is called; that of images too big to share a slab goes with them.
///
/// An image's code is 64 MiB from its constants and 128 MiB from its variables, or less: out of reach for AArch64's tiny
/// code model, which is for [`PageMemory`](crate::PageMemory).
///
/// After a `fork` both processes can call what was loaded before, and go on loading; memory from before the fork is
/// not reused by either.
#[derive(Clone)]
pub struct SlabMemory {
    pools: Arc<Pools>,
}

impl SlabMemory {
    /// The manager. It maps nothing before it is asked for memory.
    pub fn new() -> Self {
        Self::with_cache(Arc::new(HostCache))
    }

    /// A manager that leaves it to someone else to make code visible to the cores.
    pub fn with_cache(cache: Arc<dyn InstructionCache>) -> Self {
        SlabMemory { pools: Arc::new(Pools { anywhere: Default::default(), low: Mutex::default(), cache }) }
    }

    /// Gives memory of dropped images back to the system, by whole pages. What is loaded next in its place takes page faults
    /// again. Memory from before a fork stays as it is: the other process may use it.
    pub fn release_unused(&self) {
        let _gate = fork::enter();
        let pools = self.pools.anywhere.iter().map(|Padded(pool)| pool).chain([&self.pools.low]);
        for pool in pools {
            let slabs = pool.lock().slabs.clone();
            slabs.iter().filter(|slab| !slab.is_frozen()).for_each(|slab| slab.release_unused());
        }
    }
}

impl Default for SlabMemory {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SlabMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlabMemory").finish_non_exhaustive()
    }
}

/// The slabs that images share: threads that load at once take from different ones. Low memory is too scarce for that.
struct Pools {
    anywhere: [Padded<Mutex<Pool>>; SHARDS],
    low: Mutex<Pool>,
    cache: Arc<dyn InstructionCache>,
}

/// Slabs of one reach, the one last used at the end.
#[derive(Default)]
struct Pool {
    slabs: Vec<Arc<Slab>>,
}

/// Bytes of a stripe: how much code a slab holds. Address space only; memory is taken when it is first written. Less
/// in the lowest 2 GiB, of which half is left to others.
const STRIPE: usize = 64 << 20;
const LOW_STRIPE: usize = 16 << 20;
/// Where address space is short, smaller slabs are tried, down to this.
const SMALLEST_STRIPE: usize = 1 << 20;

struct Slab {
    area: Area,
    ranges: Mutex<Ranges>,
    /// The fork before which it was made.
    generation: u64,
    cache: Arc<dyn InstructionCache>,
}

impl Slab {
    fn new(
        stripes: [usize; 3],
        align: usize,
        reach: Reach,
        cache: &Arc<dyn InstructionCache>,
    ) -> Result<Self, MemoryError> {
        fork::watch();
        let place = if reach == Reach::Low2GiB { " in the lowest 2 GiB" } else { "" };
        let area = Area::new(stripes, align, reach).map_err(|error| {
            MemoryError::new(format!("mapping a slab of {stripes:?} bytes{place}"), error)
        })?;
        let ranges = Mutex::new(Ranges::new(area.code_stripe()));
        Ok(Slab { area, ranges, generation: fork::generation(), cache: Arc::clone(cache) })
    }

    fn is_frozen(&self) -> bool {
        self.generation != fork::generation()
    }

    fn take(&self, len: usize) -> Option<Taken> {
        let mut ranges = self.ranges.lock();
        ranges.take(len).or_else(|| {
            release_quarantine(&mut ranges);
            ranges.take(len)
        })
    }

    /// `was_code`: cores may hold instructions of it.
    fn give(&self, range: Range<usize>, was_code: bool) {
        let _gate = fork::enter();
        if self.is_frozen() {
            return;
        }
        let mut ranges = self.ranges.lock();
        let is_wanted = was_code && ranges.is_wanted(range.len());
        match was_code {
            true => ranges.give(range),
            false => ranges.give_unused(range),
        }
        if ranges.is_abandoned() {
            self.discard_unused(&mut ranges);
        } else if is_wanted || ranges.is_quarantine_full() {
            release_quarantine(&mut ranges);
        }
    }

    /// The caller is inside of the gate, and the slab is not frozen.
    fn release_unused(&self) {
        self.discard_unused(&mut self.ranges.lock());
    }

    fn discard_unused(&self, ranges: &mut Ranges) {
        release_quarantine(ranges);
        let touched = ranges.touched();
        let mut is_zero = true;
        for range in ranges.take_stock(sys::page_size()) {
            #[allow(unsafe_code)] // See `Area::discard`.
            // SAFETY: the range is free, and stays so as long as this thread has the lock; no other process has the slab.
            let discarded = unsafe { self.area.discard(range) };
            is_zero &= discarded;
        }
        if !is_zero {
            // Locked into memory, for instance: what was written there still is.
            ranges.keep_touched(touched);
        }
    }
}

/// Where the kernel has no such barrier, what is left is what all x86 processors do: they watch the physical addresses
/// of what they fetched, and refetch what was written to. (AArch64 is told of each image's code, and waits then.)
fn release_quarantine(ranges: &mut Ranges) {
    if ranges.has_quarantine() {
        sys::serialize_all_cores();
        ranges.release_quarantine();
    }
}

impl Pools {
    /// A range of `len` bytes out of a shared slab: of this thread's shard, or where there is no memory for a new one, of
    /// any.
    fn take(&self, len: usize, reach: Reach) -> Result<(Arc<Slab>, Taken), MemoryError> {
        if reach == Reach::Low2GiB {
            return self.low.lock().take_or_grow(len, reach, &self.cache);
        }
        let Padded(own) = &self.anywhere[shard::of_this_thread()];
        // The lock is given back before others are taken, or two threads could wait for each other.
        let refused = match own.lock().take_or_grow(len, reach, &self.cache) {
            Ok(taken) => return Ok(taken),
            Err(error) => error,
        };
        let others = self.anywhere.iter().find_map(|Padded(pool)| pool.lock().take(len));
        others.ok_or(refused)
    }
}

impl Pool {
    fn take(&mut self, len: usize) -> Option<(Arc<Slab>, Taken)> {
        self.slabs.retain(|slab| !slab.is_frozen());
        for at in (0..self.slabs.len()).rev() {
            if let Some(taken) = self.slabs[at].take(len) {
                let last = self.slabs.len() - 1;
                self.slabs.swap(at, last);
                return Some((Arc::clone(&self.slabs[last]), taken));
            }
        }
        None
    }

    fn take_or_grow(
        &mut self,
        len: usize,
        reach: Reach,
        cache: &Arc<dyn InstructionCache>,
    ) -> Result<(Arc<Slab>, Taken), MemoryError> {
        if let Some(taken) = self.take(len) {
            return Ok(taken);
        }
        let slab = Arc::new(Self::grow(len, reach, cache)?);
        let taken = slab.take(len);
        let taken =
            taken.ok_or_else(|| MemoryError::new("taking a range", "a new slab is too small for it"))?;
        self.slabs.push(Arc::clone(&slab));
        Ok((slab, taken))
    }

    fn grow(len: usize, reach: Reach, cache: &Arc<dyn InstructionCache>) -> Result<Slab, MemoryError> {
        let mut stripe = stripe(reach);
        loop {
            match Slab::new([stripe; 3], Limits::MAX_ALIGNMENT as usize, reach, cache) {
                Err(_) if stripe / 2 >= SMALLEST_STRIPE.max(len * 2) => stripe /= 2,
                slab => return slab,
            }
        }
    }
}

fn stripe(reach: Reach) -> usize {
    match reach {
        Reach::Anywhere => STRIPE,
        Reach::Low2GiB => LOW_STRIPE,
    }
}

#[allow(unsafe_code)] // The promise of the trait.
// SAFETY: a range is handed out to one image at a time, and a slab lives as long as any image in it. Its target view
// is readable and shows what was written through the other view, which is not written to again before the image is
// dropped.
unsafe impl MemoryManager for SlabMemory {
    fn allocate(&self, request: &MemoryRequest) -> Result<Box<dyn InFlightMemory>, MemoryError> {
        let too_big = || MemoryError::new("taking a range", "its size overflows");
        let sizes = request.segments.map(|segment| segment.size);
        let align = request.segments.iter().fold(GRANULE, |align, segment| align.max(segment.align));
        let longest = sizes.into_iter().fold(1, usize::max);
        // Ranges are aligned to a granule: what a larger alignment may skip comes on top.
        let len = longest.checked_add(align - GRANULE).ok_or_else(too_big)?;
        let reach = if request.low_2gib { Reach::Low2GiB } else { Reach::Anywhere };

        let _gate = fork::enter();
        let (slab, taken) = if len > stripe(reach) / 2 {
            let slab = Slab::new(own_stripes(sizes, align)?, align, reach, &self.pools.cache)?;
            (Arc::new(slab), Taken { range: 0..0, fresh: true })
        } else {
            self.pools.take(len, reach)?
        };
        let start = taken.range.start.next_multiple_of(align);
        let [Some(from), Some(to), Some(start)] = [taken.range.start, taken.range.end, start].map(small)
        else {
            return Err(too_big());
        };
        let [Some(code), Some(read_only), Some(data)] = sizes.map(small) else { return Err(too_big()) };
        Ok(Box::new(Allocation {
            slab,
            range: from..to,
            start,
            sizes: [code, read_only, data],
            fresh: taken.fresh,
            finalized: false,
            process: fork::process(),
        }))
    }
}

/// Stripes for an image with a slab to itself.
fn own_stripes(sizes: [usize; 3], align: usize) -> Result<[usize; 3], MemoryError> {
    let unit = align.max(sys::page_size());
    let stripes = sizes.map(|size| size.max(1).checked_next_multiple_of(unit).unwrap_or(usize::MAX));
    check_reach(stripes.iter().fold(0, |sum, stripe| sum.saturating_add(*stripe)))?;
    Ok(stripes)
}

/// Slabs are no larger than branches and displacements reach.
fn small(number: usize) -> Option<u32> {
    u32::try_from(number).ok()
}

/// One image's part of a slab. Small, since there may be a million.
struct Allocation {
    slab: Arc<Slab>,
    /// What goes back to the slab; empty when the slab is this image's own.
    range: Range<u32>,
    /// Where in the range, alike in each stripe, the segments begin.
    start: u32,
    sizes: [u32; 3],
    fresh: bool,
    /// Its code may have been executed.
    finalized: bool,
    /// The process that made it.
    process: u64,
}

impl InFlightMemory for Allocation {
    fn target(&self, segment: Segment) -> u64 {
        self.slab.area.target(segment.index(), self.start as usize)
    }

    fn working(&mut self) -> Result<[WorkingMemory<'_>; 3], MemoryError> {
        if self.process != fork::process() {
            let why = "the process was forked in the middle of a load, and this is the child";
            return Err(MemoryError::new("writing an image", why));
        }
        #[allow(unsafe_code)] // See `Area::slices`.
        // SAFETY: the range was taken from the slab (or is all of it), holds each of `sizes` from `start` on, and
        // is not given back before this allocation is dropped; the slices borrow it.
        let slices =
            unsafe { self.slab.area.slices(self.start as usize, self.sizes.map(|size| size as usize)) };
        let zeroed = self.fresh;
        Ok([slices.code, slices.read_only, slices.data].map(|bytes| WorkingMemory { bytes, zeroed }))
    }

    fn finalize(mut self: Box<Self>) -> Result<Box<dyn FinalizedMemory>, MemoryError> {
        let [code, ..] = self.sizes;
        #[allow(unsafe_code)] // See `Area::code`.
        // SAFETY: the code is inside of the range, and the working memory is not borrowed any more.
        let code = unsafe { self.slab.area.code(self.start as usize, code as usize) };
        self.finalized = true;
        self.slab.cache.synchronize(code)?;
        Ok(self)
    }
}

impl FinalizedMemory for Allocation {
    fn arena(&self) -> Option<Range<u64>> {
        let start = self.slab.area.target(Segment::Code.index(), 0);
        // And the first byte of the next stripe, which is not code.
        Some(start..start + self.slab.area.code_stripe() as u64 + 1)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.range.is_empty() || self.slab.is_frozen() {
            return;
        }
        let [code, ..] = self.sizes;
        #[allow(unsafe_code)] // See `Area::poison`.
        // SAFETY: the code is this allocation's until it is given back below, and whoever drops an image sees to it
        // that nobody executes it. The slab is not frozen: this thread is here, so no fork is between the check and
        // here that made a child which has this image.
        unsafe {
            self.slab.area.poison(self.start as usize, code as usize)
        };
        self.slab.give(self.range.start as usize..self.range.end as usize, self.finalized);
    }
}
