//! The two views of a slab.
//!
//! One shared anonymous area, `[code | read-only]`, mapped twice: a view that is writable and one that is what the
//! segments are to be. Behind the second view lies the data stripe, private memory that both are:
//!
//! ```text
//! writable  [ code rw | constants rw ]                       at any address
//! target    [ code rx | constants r  | data rw | no access ]  data private: a fork does not share variables
//! ```
//!
//! Both views begin executable and not writable, and what is not to be executable loses that right. So no right to
//! execute is ever gained, which systems can forbid (`PR_SET_MDWE`, systemd's `MemoryDenyWriteExecute`).
//!
//! In a slab that images share each stripe is as long as the others, so that the distance between an image's segments is
//! the same wherever in the slab it is. An image with a slab to itself has stripes as long as it needs: it may have far
//! more variables than code, and all of it must be in reach of all of it. Shared anonymous memory, not a memfd: `perf` takes the latter for a file and finds no symbols.

#![allow(unsafe_code)] // Maps memory and hands out parts of it.

use std::io;
use std::ops::Range;
use std::slice;

use super::super::sys::{self, Mapping, Protection, Reach};
use crate::limits::Limits;

/// The views of one slab.
pub(super) struct Area {
    writable: Mapping,
    target: Mapping,
    /// Where the target view begins in its mapping, which is larger for the sake of alignment.
    skip: usize,
    /// Where each stripe begins in the target view, and the end of the last.
    bounds: [usize; 4],
}

/// One image's writable bytes.
pub(super) struct Slices<'a> {
    pub(super) code: &'a mut [u8],
    pub(super) read_only: &'a mut [u8],
    pub(super) data: &'a mut [u8],
}

impl Area {
    /// Maps an area with stripes of these lengths, not zero, each a multiple of the page size. Stripes begin aligned to
    /// `align`, if the lengths are multiples of that.
    pub(super) fn new(stripes: [usize; 3], align: usize, reach: Reach) -> io::Result<Self> {
        let page = sys::page_size();
        let spare = align.clamp(page, Limits::MAX_ALIGNMENT as usize);
        let (bounds, reserved) =
            lay_out(stripes, spare).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let target = Mapping::reserve(reserved, reach)?;
        let base = target.address() as usize;
        let skip = base.next_multiple_of(spare) - base;
        // SAFETY: `skip` plus two stripes is inside of the reservation, which nobody uses yet.
        let writable = unsafe { target.map_twice(skip, bounds[2])? };
        let area = Area { writable, target, skip, bounds };
        // SAFETY: the whole of a mapping of our own, out of which nothing was handed yet.
        unsafe { sys::protect(area.writable.address(), area.writable.len(), Protection::ReadWrite)? };
        area.protect_target(1, Protection::Read)?;
        area.protect_target(2, Protection::ReadWrite)?;
        Ok(area)
    }

    fn protect_target(&self, stripe: usize, protection: Protection) -> io::Result<()> {
        let start = self.target.address().wrapping_add(self.skip + self.bounds[stripe]);
        // SAFETY: the stripe is inside of the target mapping, and nothing was handed out of it yet.
        unsafe { sys::protect(start, self.bounds[stripe + 1] - self.bounds[stripe], protection) }
    }

    /// Length of the code stripe.
    pub(super) fn code_stripe(&self) -> usize {
        self.bounds[1]
    }

    /// Target address of a place in one of the three stripes.
    pub(super) fn target(&self, stripe: usize, start: usize) -> u64 {
        self.target.address() as u64 + (self.skip + self.bounds[stripe] + start) as u64
    }

    /// The writable bytes of one image.
    ///
    /// # Safety
    /// From `start` up, each stripe must be the caller's alone for as many bytes as `sizes` says, for as long as the slices
    /// live, and that must be inside of the stripe.
    pub(super) unsafe fn slices(&self, start: usize, sizes: [usize; 3]) -> Slices<'_> {
        let [code, read_only, data] = sizes;
        let writable = self.writable.address().wrapping_add(start);
        let variables = self.target.address().wrapping_add(self.skip + self.bounds[2] + start);
        // SAFETY: inside of the writable view's first stripe, and the caller's alone.
        let code = unsafe { slice::from_raw_parts_mut(writable, code) };
        // SAFETY: likewise in its second stripe.
        let read_only =
            unsafe { slice::from_raw_parts_mut(writable.wrapping_add(self.bounds[1]), read_only) };
        // SAFETY: likewise in the target view's third stripe, which is writable from the start.
        let data = unsafe { slice::from_raw_parts_mut(variables, data) };
        Slices { code, read_only, data }
    }

    /// One image's code where it will run.
    ///
    /// # Safety
    /// It must be inside of the stripe, and not be written while the slice lives.
    pub(super) unsafe fn code(&self, start: usize, len: usize) -> &[u8] {
        let code = self.target.address().wrapping_add(self.skip + start);
        // SAFETY: inside of the target view's first stripe, which is readable, and as the caller vouches.
        unsafe { slice::from_raw_parts(code, len) }
    }

    /// Gives memory of a free range, alike in each stripe, back to the system: as many whole pages as it has. `false`: the
    /// system keeps some of it, as it was.
    ///
    /// # Safety
    /// The range must be inside of the stripe and the caller's alone.
    pub(super) unsafe fn discard(&self, range: Range<usize>) -> bool {
        let page = sys::page_size();
        let (start, end) = (range.start.next_multiple_of(page), range.end / page * page);
        let Some(len) = end.checked_sub(start).filter(|len| *len > 0) else { return true };
        let mut all = true;
        for stripe in [0, self.bounds[1]] {
            let shared = self.writable.address().wrapping_add(stripe + start);
            // SAFETY: the pages are inside of the writable view and the caller's alone.
            all &= unsafe { sys::discard(shared, len, true) }.is_ok();
        }
        let variables = self.target.address().wrapping_add(self.skip + self.bounds[2] + start);
        // SAFETY: the pages are inside of the target view's third stripe and the caller's alone.
        let variables = unsafe { sys::discard(variables, len, false) };
        all && variables.is_ok()
    }

    /// Overwrites an image's code with traps.
    ///
    /// # Safety
    /// The range must be inside of the stripe and the caller's alone, and nobody may execute it any more.
    pub(super) unsafe fn poison(&self, start: usize, len: usize) {
        /// `int3`; of AArch64 zeros are `udf #0`.
        const TRAP: u8 = if cfg!(target_arch = "x86_64") { 0xcc } else { 0 };
        let code = self.writable.address().wrapping_add(start);
        // SAFETY: the range is inside of the writable view's code stripe; the caller vouches that it is free to write.
        unsafe { code.write_bytes(TRAP, len) };
    }
}

/// Where the stripes begin and end, and how much address space they take with `spare` for alignment.
fn lay_out(stripes: [usize; 3], spare: usize) -> Option<([usize; 4], usize)> {
    let mut bounds = [0usize; 4];
    for (number, stripe) in stripes.into_iter().enumerate() {
        bounds[number + 1] = bounds[number].checked_add(stripe)?;
    }
    Some((bounds, bounds[3].checked_add(spare)?))
}
