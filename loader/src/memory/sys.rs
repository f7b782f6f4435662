//! The system calls about mappings: the one place of the memory managers to edit for a port.
//!
//! A [`Mapping`] owns address space. Everything else is a thin, named wrapper; whether a range may be protected or
//! written is for the callers to know.

#![allow(unsafe_code)] // System calls on addresses.

use std::io;

use rustix::mm::{self, MapFlags, MprotectFlags, ProtFlags};

/// Address space that belongs to its owner and is unmapped on drop.
pub(super) struct Mapping {
    base: *mut u8,
    len: usize,
}

// SAFETY: the pointer is an owned range of the process's address space; no thread is special to it.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference only the address and the length can be had.
unsafe impl Sync for Mapping {}

/// What may be done with pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    None,
    Read,
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))] // Of slabs.
    ReadWrite,
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))] // Of slabs.
    Execute,
    ReadExecute,
}

/// Where a mapping must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))] // Of slabs.
    Anywhere,
    /// In the lowest 2 GiB.
    Low2GiB,
}

impl Mapping {
    /// Zeroed private memory, readable and writable.
    pub(super) fn private(len: usize, reach: Reach) -> io::Result<Self> {
        map(len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE, reach)
    }

    /// Zeroed memory that can be mapped a second time, readable and executable.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(super) fn shared(len: usize) -> io::Result<Self> {
        map(len, ProtFlags::READ | ProtFlags::EXEC, MapFlags::SHARED, Reach::Anywhere)
    }

    /// Address space without access.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(super) fn reserve(len: usize, reach: Reach) -> io::Result<Self> {
        map(len, ProtFlags::empty(), MapFlags::PRIVATE, reach)
    }

    /// Maps all pages of `shared` a second time, over the range of this mapping that begins at `offset`. `mremap(2)`:
    /// an old size of zero leaves the old mapping in place; the second one begins with the same protection.
    ///
    /// # Safety
    /// The range must be inside of this mapping, and nobody may use it.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(super) unsafe fn alias(&self, offset: usize, shared: &Mapping) -> io::Result<()> {
        let (start, len) = (self.base.wrapping_add(offset), shared.len);
        let flags = mm::MremapFlags::MAYMOVE;
        // SAFETY: the source is a live shared mapping of that length; the destination is ours to replace, as the caller
        // vouches.
        unsafe { mm::mremap_fixed(shared.base.cast(), 0, len, flags, start.cast())? };
        Ok(())
    }

    pub(super) fn address(&self) -> *mut u8 {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The mapping's bytes.
    ///
    /// # Safety
    /// The whole mapping must be readable and writable, and nobody else may use it meanwhile.
    pub(super) unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the range is mapped for as long as `self` lives; the caller vouches for the rest.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `map` and belongs to this value alone; its users are gone, or they would
        // borrow it. An error would mean that it is not mapped, and then there is nothing to do.
        let _ = unsafe { mm::munmap(self.base.cast(), self.len) };
    }
}

fn map(len: usize, protection: ProtFlags, flags: MapFlags, reach: Reach) -> io::Result<Mapping> {
    let flags = flags | MapFlags::NORESERVE;
    match reach {
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        Reach::Anywhere => map_at(std::ptr::null_mut(), len, protection, flags),
        Reach::Low2GiB => map_low(len, protection, flags),
    }
}

/// `hint` is null, or where to map if nothing is there.
fn map_at(hint: *mut u8, len: usize, protection: ProtFlags, flags: MapFlags) -> io::Result<Mapping> {
    // SAFETY: the kernel chooses the address, so nothing that exists is touched.
    let base = unsafe { mm::mmap_anonymous(hint.cast(), len, protection, flags)? };
    Ok(Mapping { base: base.cast(), len })
}

/// x86-64 Linux has a flag for the lowest 2 GiB (`mmap(2)`, MAP_32BIT).
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn map_low(len: usize, protection: ProtFlags, flags: MapFlags) -> io::Result<Mapping> {
    let flag = MapFlags::from_bits_retain(libc::MAP_32BIT as u32);
    map_at(std::ptr::null_mut(), len, protection, flags | flag)
}

/// All addresses of a small machine are low.
#[cfg(target_pointer_width = "32")]
fn map_low(len: usize, protection: ProtFlags, flags: MapFlags) -> io::Result<Mapping> {
    map_at(std::ptr::null_mut(), len, protection, flags)
}

/// Elsewhere one place after the other is asked for; what the kernel chooses instead is not taken.
#[cfg(not(any(target_pointer_width = "32", all(target_os = "linux", target_arch = "x86_64"))))]
fn map_low(len: usize, protection: ProtFlags, flags: MapFlags) -> io::Result<Mapping> {
    const STEP: usize = 1 << 24;
    const END: usize = 1 << 31;
    let starts = (STEP..END).step_by(STEP).filter(|start| *start <= END.saturating_sub(len));
    for start in starts {
        let mapping = map_at(start as *mut u8, len, protection, flags)?;
        if mapping.base as usize + len <= END {
            return Ok(mapping);
        }
    }
    Err(io::Error::new(io::ErrorKind::OutOfMemory, "the lowest 2 GiB are taken"))
}

/// Changes what may be done with whole pages.
///
/// # Safety
/// The range must belong to the caller, and no reference into it may be used against the new protection.
pub(super) unsafe fn protect(start: *mut u8, len: usize, protection: Protection) -> io::Result<()> {
    let flags = match protection {
        Protection::None => MprotectFlags::empty(),
        Protection::Read => MprotectFlags::READ,
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        Protection::ReadWrite => MprotectFlags::READ | MprotectFlags::WRITE,
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        Protection::Execute => MprotectFlags::EXEC,
        Protection::ReadExecute => MprotectFlags::READ | MprotectFlags::EXEC,
    };
    if len == 0 {
        return Ok(());
    }
    // SAFETY: as the caller vouches.
    unsafe { mm::mprotect(start.cast(), len, flags)? };
    Ok(())
}

/// Makes every core of this process forget instructions it fetched or decoded before now. Returns whether the kernel
/// did so.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn serialize_all_cores() -> bool {
    // `linux/membarrier.h`
    const SYNC_CORE: libc::c_int = 1 << 5;
    const REGISTER_SYNC_CORE: libc::c_int = 1 << 6;
    membarrier(SYNC_CORE) || (membarrier(REGISTER_SYNC_CORE) && membarrier(SYNC_CORE))
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: membarrier takes three integers and touches no memory of the caller.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    result == 0
}

pub(super) fn page_size() -> usize {
    rustix::param::page_size()
}
