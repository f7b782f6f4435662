//! Memory in an executor: a file in memory for each image, written through a mapping here, sealed, and mapped there.

#![allow(unsafe_code)] // Maps a file, and implements the memory manager trait.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use memmap2::MmapMut;
use rustix::fs::{MemfdFlags, SealFlags};

use super::client::Executor;
use super::protocol::Request;
use crate::memory::{
    FinalizedMemory, InFlightMemory, MemoryError, MemoryManager, MemoryRequest, Segment, WorkingMemory,
    check_reach,
};

/// A memory manager for another process: see [`Executor`]. Images are called there, with [`Executor::call`] and their
/// symbols' addresses; here they are only linked. So nobody runs their initialisers or finalisers, and their unwind tables are
/// registered with nobody: objects that need these are not for it. Those with thread-local variables are refused.
///
/// When memory is finalized nobody can write to the code any more: the file that holds it is sealed, and it is mapped
/// executable there without ever having been writable. Dropping an image unmaps it there.
#[derive(Clone)]
pub struct RemoteMemory {
    executor: Executor,
}

impl RemoteMemory {
    /// Memory in that process.
    pub fn new(executor: Executor) -> Self {
        RemoteMemory { executor }
    }
}

/// Address space in the executor.
struct Reserved {
    executor: Executor,
    base: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // An executor that is gone has no memory to give back.
        let _ = self.executor.ask(&Request::Free { base: self.base });
    }
}

/// An image being written.
struct Writing {
    reserved: Reserved,
    /// Bytes of the reserved address space before the image, for the sake of alignment.
    skip: u64,
    file: File,
    /// Of the whole file; none when the image is empty.
    mapping: Option<MmapMut>,
    sizes: [usize; 3],
    /// In the file and in the address space alike.
    offsets: [usize; 3],
    /// Whole pages.
    lengths: [usize; 3],
}

// SAFETY: `executes_here` says no, so nothing is promised about this process.
unsafe impl MemoryManager for RemoteMemory {
    fn allocate(&self, request: &MemoryRequest) -> Result<Box<dyn InFlightMemory>, MemoryError> {
        let too_big = || MemoryError::new("placing an image in another process", "its size overflows");
        let page = rustix::param::page_size();
        let align = request.segments.iter().map(|segment| segment.align).fold(page, usize::max);
        let (mut offsets, mut lengths, mut total) = ([0; 3], [0; 3], 0usize);
        for (number, segment) in request.segments.iter().enumerate() {
            offsets[number] = total;
            let end = total.checked_add(segment.size).ok_or_else(too_big)?;
            total = end.checked_next_multiple_of(align).ok_or_else(too_big)?;
            lengths[number] = total - offsets[number];
        }
        check_reach(total)?;
        let reserved = self.reserve((total + align) as u64, request.low_2gib)?;
        let skip = reserved.base.next_multiple_of(align as u64) - reserved.base;
        let (file, mapping) = file_in_memory(total)
            .map_err(|why| MemoryError::new(format!("a file of {total} bytes in memory"), why))?;
        let sizes = request.segments.map(|segment| segment.size);
        Ok(Box::new(Writing { reserved, skip, file, mapping, sizes, offsets, lengths }))
    }

    fn executes_here(&self) -> bool {
        false
    }

    fn has_thread_blocks(&self) -> bool {
        false
    }
}

impl RemoteMemory {
    /// What the executor says is believed as far as it makes sense: everything else it could only do to itself.
    fn reserve(&self, len: u64, low: bool) -> Result<Reserved, MemoryError> {
        let what = || format!("reserving {len} bytes in another process");
        let base = self.executor.ask(&Request::Reserve { len, low });
        let base = base.map_err(|error| MemoryError::new(what(), error))?;
        let reserved = Reserved { executor: self.executor.clone(), base };
        let limit = if low { 1 << 31 } else { u64::MAX };
        match base.checked_add(len) {
            Some(end) if end <= limit && base % rustix::param::page_size() as u64 == 0 => Ok(reserved),
            _ => Err(MemoryError::new(what(), format!("the executor has them at {base:#x}"))),
        }
    }
}

fn file_in_memory(len: usize) -> io::Result<(File, Option<MmapMut>)> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create(c"objcache-image", flags)?);
    file.set_len(len as u64)?;
    if len == 0 {
        return Ok((file, None));
    }
    // SAFETY: nobody else has the file before it is finalized, when the mapping is gone, so that it does not change or
    // shrink under it.
    let mapping = unsafe { MmapMut::map_mut(&file)? };
    Ok((file, Some(mapping)))
}

impl InFlightMemory for Writing {
    fn target(&self, segment: Segment) -> u64 {
        self.reserved.base + self.skip + self.offsets[segment.index()] as u64
    }

    fn working(&mut self) -> Result<[WorkingMemory<'_>; 3], MemoryError> {
        let bytes = self.mapping.as_deref_mut().unwrap_or_default();
        let (code, rest) = bytes.split_at_mut(self.offsets[1]);
        let (read_only, data) = rest.split_at_mut(self.offsets[2] - self.offsets[1]);
        let [code_size, read_only_size, data_size] = self.sizes;
        let slices = [&mut code[..code_size], &mut read_only[..read_only_size], &mut data[..data_size]];
        Ok(slices.map(|bytes| WorkingMemory { bytes, zeroed: true }))
    }

    fn finalize(mut self: Box<Self>) -> Result<Box<dyn FinalizedMemory>, MemoryError> {
        let failed = |what: &str, why: &dyn ToString| MemoryError::new(what, why.to_string());
        // A file with a writable mapping cannot be sealed.
        if self.mapping.take().is_some() {
            let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
            rustix::fs::fcntl_add_seals(&self.file, seals)
                .map_err(|error| failed("sealing an image", &error))?;
            let segments = self.lengths.map(|length| length as u64);
            let request = Request::Map { base: self.reserved.base, skip: self.skip, segments };
            let mapped = self.reserved.executor.ask_with(&request, Some(self.file.as_fd()));
            mapped.map_err(|error| failed("mapping an image in another process", &error))?;
        }
        Ok(Box::new(Finalized { _reserved: self.reserved }))
    }
}

/// The file is not needed any more: the executor has it mapped.
struct Finalized {
    _reserved: Reserved,
}

impl FinalizedMemory for Finalized {}
