//! Telling an unwinder about loaded code, so that exceptions and backtraces pass through it.

pub(crate) mod eh_frame;
mod libgcc;
mod pool;

use std::ops::{Deref, Range};

use smallvec::SmallVec;

pub use libgcc::LibgccFrames;

/// What an unwinder wants to know of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnwindInfo {
    /// Call frame information (`.eh_frame`), each followed by a terminating record of length zero.
    pub eh_frames: FrameTables,
    /// Functions of Windows and where their unwind codes are (`.pdata`, in COFF objects): one table for each section, which
    /// unwinders want sorted by address. Not what the host's unwinder can use; for those that are given an image.
    pub pdata: FrameTables,
    /// Unwind codes of Windows (`.xdata`), to which the former refer by their distance from the image's first byte.
    pub xdata: FrameTables,
    /// Target addresses of the image's code: all that its tables may speak of.
    pub code: Range<u64>,
    /// Addresses around the code in which there never is code of anybody else; see
    /// [`FinalizedMemory::arena`](crate::FinalizedMemory::arena).
    pub arena: Option<Range<u64>>,
    /// The image has language-specific unwind data (`.gcc_except_table`): it catches exceptions or cleans up.
    pub catches: bool,
    /// The image refers to functions elsewhere that throw exceptions, or that may: those of C++ and Rust, by their names.
    pub throws: bool,
    /// Functions of the image may call others that are not of it: it refers to some, or may call by a pointer.
    pub calls: bool,
}

impl UnwindInfo {
    /// There are no tables at all.
    pub fn is_empty(&self) -> bool {
        self.eh_frames.is_empty() && self.pdata.is_empty() && self.xdata.is_empty()
    }
}

/// One table of unwind information.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameTable {
    /// Target address.
    pub address: u64,
    /// Bytes, without the terminator.
    pub size: u64,
}

/// Tables of one kind, as a slice. Most images have one, which needs no memory of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrameTables(SmallVec<[FrameTable; 1]>);

impl FrameTables {
    #[inline]
    pub(crate) fn push(&mut self, table: FrameTable) {
        self.0.push(table);
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut FrameTable> {
        self.0.last_mut()
    }
}

impl Deref for FrameTables {
    type Target = [FrameTable];

    fn deref(&self) -> &[FrameTable] {
        &self.0
    }
}

/// Registers images that have unwind tables with an unwinder. Called from many threads at once.
pub trait UnwindRegistrar: Send + Sync {
    /// Registers an image, or decides that there is nothing to register (`None`). The registration is dropped before
    /// the image's memory is freed.
    ///
    /// # Safety
    /// The tables must be readable at their target addresses in this process, terminators included, and stay so until
    /// the registration is dropped.
    #[allow(unsafe_code)] // The tables are given as addresses.
    unsafe fn register(&self, info: &UnwindInfo) -> Result<Option<Box<dyn UnwindRegistration>>, String>;
}

/// An image's registration. Dropping it deregisters.
pub trait UnwindRegistration: Send + Sync {}

/// Registers nothing: for code that nothing unwinds through.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoUnwind;

#[allow(unsafe_code)] // The trait's method is unsafe to call; this one looks at nothing.
impl UnwindRegistrar for NoUnwind {
    unsafe fn register(&self, _info: &UnwindInfo) -> Result<Option<Box<dyn UnwindRegistration>>, String> {
        Ok(None)
    }
}
