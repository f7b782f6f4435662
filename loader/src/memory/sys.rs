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
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))] // Of slabs.
    ReadWrite,
    ReadExecute,
}

/// Where a mapping must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))] // Of slabs.
    Anywhere,
    /// In the lowest 2 GiB.
    Low2GiB,
}

impl Mapping {
    /// Zeroed private memory, readable and writable.
    pub(super) fn private(len: usize, reach: Reach) -> io::Result<Self> {
        map(len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE, reach)
    }

    /// Address space without access.
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(super) fn reserve(len: usize, reach: Reach) -> io::Result<Self> {
        map(len, ProtFlags::empty(), MapFlags::PRIVATE, reach)
    }

    /// As [`map_twice`], over the range of this mapping that begins at `offset`.
    ///
    /// # Safety
    /// The range must be inside of this mapping, and nobody may use it.
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(super) unsafe fn map_twice(&self, offset: usize, len: usize) -> io::Result<Mapping> {
        // SAFETY: the range is ours to replace, as the caller vouches.
        unsafe { map_twice(self.base.wrapping_add(offset), len) }
    }

    /// Leaves the memory where it is, for ever.
    pub(super) fn leak(self) {
        std::mem::forget(self);
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

/// Zeroed memory that is mapped twice, readable and executable: in place of what is mapped from `place` up, and the mapping
/// returned.
///
/// # Safety
/// The range must be mapped and the caller's, and nobody may use it.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) unsafe fn map_twice(place: *mut u8, len: usize) -> io::Result<Mapping> {
    let place = place.cast();
    let protection = ProtFlags::READ | ProtFlags::EXEC;
    let flags = MapFlags::SHARED | MapFlags::NORESERVE;
    // The first is the one that code is to run in: of a mapping that is made the kernel tells profilers, of one that is
    // duplicated it does not.
    // SAFETY: the destination is ours to replace, as the caller vouches.
    unsafe { mm::mmap_anonymous(place, len, protection, flags | MapFlags::FIXED)? };
    // The pages of a shared mapping are mapped a second time when an old size of zero is given (`mremap(2)`).
    // SAFETY: the source is a live shared mapping of that length, which stays; the kernel chooses the destination.
    if let Ok(base) = unsafe { mm::mremap(place, 0, len, mm::MremapFlags::MAYMOVE) } {
        return Ok(Mapping { base: base.cast(), len });
    }
    // Emulators and sandboxes do not all do that.
    let file = rustix::fs::memfd_create(c"objcache", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&file, len as u64)?;
    // SAFETY: the destination is ours to replace, as the caller vouches.
    unsafe { mm::mmap(place, len, protection, flags | MapFlags::FIXED, &file, 0)? };
    // SAFETY: the kernel chooses the address, so nothing that exists is touched; nobody else has the file, which stays as
    // long.
    let base = unsafe { mm::mmap(std::ptr::null_mut(), len, protection, flags, &file, 0)? };
    Ok(Mapping { base: base.cast(), len })
}

fn map(len: usize, protection: ProtFlags, flags: MapFlags, reach: Reach) -> io::Result<Mapping> {
    let flags = flags | MapFlags::NORESERVE;
    match reach {
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
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

/// Zeroed private memory at that very address, readable and writable. An error if anything is there.
pub(super) fn map_private_at(address: usize, len: usize) -> io::Result<Mapping> {
    #[cfg(target_os = "linux")]
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
    #[cfg(not(target_os = "linux"))]
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // Systems that do not know the flag take the address for a wish.
    let mapping = map_at(address as *mut u8, len, ProtFlags::READ | ProtFlags::WRITE, flags)?;
    if mapping.base as usize == address { Ok(mapping) } else { Err(io::ErrorKind::AlreadyExists.into()) }
}

/// Makes whole pages what they are for ever: neither their protection nor that they are mapped can be changed (`mseal(2)`).
///
/// # Safety
/// The range must belong to the caller, who never unmaps it.
#[cfg(target_os = "linux")]
pub(super) unsafe fn seal(start: *mut u8, len: usize) -> io::Result<()> {
    // Of all architectures (`asm-generic/unistd.h`), since Linux 6.10.
    const MSEAL: libc::c_long = 462;
    // SAFETY: takes two numbers and flags, and changes no memory.
    let result = unsafe { libc::syscall(MSEAL, start, len, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
pub(super) unsafe fn seal(_start: *mut u8, _len: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Gives the memory of whole pages back to the system: they read as zero. `shared` memory does so in all of its views.
///
/// # Safety
/// The range must belong to the caller, be mapped, writable if it is shared, and nobody may use what is in it.
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) unsafe fn discard(start: *mut u8, len: usize, shared: bool) -> io::Result<()> {
    let advice = if shared { mm::Advice::LinuxRemove } else { mm::Advice::LinuxDontNeed };
    // SAFETY: as the caller vouches.
    unsafe { mm::madvise(start.cast(), len, advice)? };
    Ok(())
}

/// Changes what may be done with whole pages.
///
/// # Safety
/// The range must belong to the caller, and no reference into it may be used against the new protection.
pub(super) unsafe fn protect(start: *mut u8, len: usize, protection: Protection) -> io::Result<()> {
    let flags = match protection {
        Protection::None => MprotectFlags::empty(),
        Protection::Read => MprotectFlags::READ,
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
        Protection::ReadWrite => MprotectFlags::READ | MprotectFlags::WRITE,
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
    // The C library knows; rustix would ask the system once.
    // SAFETY: takes a number and touches no memory of the caller.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    // Every system has one (POSIX).
    usize::try_from(size).unwrap_or(4096)
}
