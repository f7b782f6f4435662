//! Where images live. A [`MemoryManager`] hands out memory in which an image is written and from which it runs.
//!
//! The one idea: *working memory* (where we write) and *target address* (where the code will be) are different
//! things everywhere. They may be the same pages, two views of the same pages, or not even in the same process.
//!
//! Life of an allocation: [`MemoryManager::allocate`] → [`InFlightMemory`] (written by the loader) →
//! [`InFlightMemory::finalize`] (protected, ready to run) → [`FinalizedMemory`]. Dropping an in-flight allocation
//! abandons it; dropping a finalized one frees it. No mapping is ever writable and executable at once.

mod coherence;
pub mod conformance;
mod fixed;
mod page;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod slab;
mod sys;

pub use coherence::{HostCache, InstructionCache};
pub use fixed::FixedMemory;
pub use page::PageMemory;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use slab::SlabMemory;

use std::ops::Range;
use std::sync::Arc;

/// The three kinds of memory an image is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Instructions: `r-x`.
    Code,
    /// Constants, tables and everything that only relocation writes to: `r--`.
    ReadOnly,
    /// Variables: `rw-`.
    Data,
}

impl Segment {
    /// All segments, in the order in which arrays by segment are indexed.
    pub const ALL: [Segment; 3] = [Segment::Code, Segment::ReadOnly, Segment::Data];

    /// Index in arrays by segment.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What an image needs. Segments must be placed so that any byte of one reaches any byte of another within ±2 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryRequest {
    /// Size and alignment by [`Segment::index`]. A size may be zero.
    pub segments: [SegmentRequest; 3],
    /// The code holds absolute addresses of 31 bits: all of the image must be in the lowest 2 GiB.
    pub low_2gib: bool,
}

/// Size and alignment of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentRequest {
    /// Bytes.
    pub size: usize,
    /// A power of two, at most [`Limits::MAX_ALIGNMENT`](crate::Limits::MAX_ALIGNMENT).
    pub align: usize,
}

/// All of an image is in reach of all of it, so it is no longer than this.
pub(crate) fn check_reach(bytes: usize) -> Result<(), MemoryError> {
    const REACH: usize = 1 << 31;
    if bytes <= REACH {
        return Ok(());
    }
    Err(MemoryError::new(format!("placing {bytes} bytes"), "displacements reach 2 GiB"))
}

/// Memory was not to be had, or could not be protected.
#[derive(Debug, Clone, thiserror::Error)]
#[error("memory: {what}: {why}")]
pub struct MemoryError {
    /// What was tried.
    pub what: String,
    /// What the system or the manager said to it.
    pub why: String,
}

impl MemoryError {
    /// An error from its two parts.
    pub fn new(what: impl Into<String>, why: impl ToString) -> Self {
        MemoryError { what: what.into(), why: why.to_string() }
    }
}

/// Gives memory to images. Called from many threads at once.
///
/// An error leaves the manager as it was: it can be asked again.
///
/// # Safety
/// Unless [`executes_here`](Self::executes_here) says `false`, target addresses are promises that the loader acts on
/// in this process: from a successful [`InFlightMemory::finalize`] until the [`FinalizedMemory`] is dropped, each
/// segment's target range must be readable, hold exactly what was written to its working memory, and be used for
/// nothing else.
#[allow(unsafe_code)] // Implementors promise what the loader acts on.
pub unsafe trait MemoryManager: Send + Sync {
    /// Memory for one image.
    fn allocate(&self, request: &MemoryRequest) -> Result<Box<dyn InFlightMemory>, MemoryError>;

    /// Whether the target addresses are addresses of this process. If not, the image is only linked: it cannot be
    /// called, its unwind information is not registered.
    fn executes_here(&self) -> bool {
        true
    }

    /// Of memory elsewhere: whether its threads have the image's thread-local variables where a static linker has a
    /// program's. If not, objects that have any are refused.
    fn has_thread_blocks(&self) -> bool {
        true
    }

    /// Target addresses for single sections, for managers that do not place images as a whole.
    fn placement(&self) -> Option<&dyn Placement> {
        None
    }
}

/// Says where single sections go in the target, regardless of their segment.
pub trait Placement: Send + Sync {
    /// Target address of the section with that name, or `None` to leave it in its segment. Of sections with the same
    /// name each is asked for by its number among all sections of the object. `file` is the number of the object, in
    /// the order in which several are linked together.
    ///
    /// Made by the loader for each object, with number 0: `.got` (GOT entries), `.got.plt` (the address that
    /// `_GLOBAL_OFFSET_TABLE_` names), `.plt` (stubs), `COMMON` (common symbols).
    fn place(&self, file: usize, section: &[u8], number: usize) -> Option<u64>;
}

/// Memory that is being written. Dropping it abandons it.
pub trait InFlightMemory: Send {
    /// Target address of a segment.
    fn target(&self, segment: Segment) -> u64;

    /// The working memory, each exactly as long as was asked for. Asked for again before the memory is finalized, it is as it
    /// was left. Fails when the memory may no longer be written, for instance in a child process that inherited it.
    fn working(&mut self) -> Result<[WorkingMemory<'_>; 3], MemoryError>;

    /// Makes the memory what it will be: protected, coherent with the instruction caches, ready to run.
    fn finalize(self: Box<Self>) -> Result<Box<dyn FinalizedMemory>, MemoryError>;
}

/// Bytes to write one segment to.
#[derive(Debug)]
pub struct WorkingMemory<'a> {
    /// The bytes.
    pub bytes: &'a mut [u8],
    /// They are known to be all zero. Otherwise their content is arbitrary.
    pub zeroed: bool,
}

/// Memory of a loaded image. Dropping it frees it.
pub trait FinalizedMemory: Send + Sync {
    /// Target addresses around the image's code in which there is nothing but code of this manager's images, now and for as
    /// long as there is an image: an arena. Its last byte is never code. What unwinders are told of the images of an arena can
    /// be put together.
    fn arena(&self) -> Option<Range<u64>> {
        None
    }

    /// The bytes of a segment as they were written, where the manager keeps them readable and unchanging.
    fn linked_bytes(&self, _segment: Segment) -> Option<&[u8]> {
        None
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        #[allow(unsafe_code)] // Forwards the promise, adds none.
        // SAFETY: every call goes to a manager whose implementor made the promise.
        unsafe impl<M: MemoryManager + ?Sized> MemoryManager for $pointer {
            fn allocate(&self, request: &MemoryRequest) -> Result<Box<dyn InFlightMemory>, MemoryError> {
                (**self).allocate(request)
            }
            fn executes_here(&self) -> bool {
                (**self).executes_here()
            }
            fn has_thread_blocks(&self) -> bool {
                (**self).has_thread_blocks()
            }
            fn placement(&self) -> Option<&dyn Placement> {
                (**self).placement()
            }
        }
    )*};
}
forward!(&M, Box<M>, Arc<M>);
