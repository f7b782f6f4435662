//! The bytes that go in and come out: [`CompiledObject`] is offered, [`ObjectBuffer`] is handed back.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use objcache_signature::{Provenance, Signature};

use crate::buffer::Buffer;

/// An object file in memory of our own. Cloning shares the bytes.
///
/// It never maps a cache file: a mapping shows later writes of others, so a check of it proves nothing, and
/// truncation under it kills the process.
#[derive(Clone)]
pub struct ObjectBuffer {
    bytes: Bytes,
    length: usize,
    compile_time_us: u64,
}

/// The whole entry as it was read; the object is its beginning. Cutting the rest off would copy.
#[derive(Clone)]
enum Bytes {
    Alone(Arc<Buffer>),
    Share(Arc<Share>),
}

impl Bytes {
    fn of(&self) -> &Arc<Buffer> {
        match self {
            Self::Alone(bytes) => bytes,
            Self::Share(share) => &share.bytes,
        }
    }
}

/// Bytes that other shares have as well, each with a count of its holders to itself: threads that hand out the
/// same object need not write to the same memory. Beside it a count of uses.
pub(crate) struct Share {
    bytes: Arc<Buffer>,
    pub(crate) uses: AtomicU64,
    // Keeps what is written to apart from that of the next one.
    _apart: [u64; 12],
}

impl ObjectBuffer {
    /// The first `length` bytes of `bytes`; all of them when there are fewer.
    pub(crate) fn prefix(bytes: Buffer, length: usize) -> Self {
        let length = length.min(bytes.len());
        Self { bytes: Bytes::Alone(Arc::new(bytes)), length, compile_time_us: 0 }
    }

    /// The same, for a cache that knows what its compilation took.
    pub(crate) fn costing(mut self, compile_time_us: u64) -> Self {
        self.compile_time_us = compile_time_us;
        self
    }

    /// What its compilation took, in µs; 0 where nobody knows.
    pub(crate) fn compile_time_us(&self) -> u64 {
        self.compile_time_us
    }

    /// Bytes it keeps in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.of().capacity()
    }

    /// One more share of the bytes.
    pub(crate) fn share(&self) -> Arc<Share> {
        let bytes = Arc::clone(self.bytes.of());
        Arc::new(Share { bytes, uses: AtomicU64::new(0), _apart: [0; 12] })
    }

    /// The same object, as a holder of this share of it.
    pub(crate) fn through(&self, share: &Arc<Share>) -> Self {
        Self { bytes: Bytes::Share(Arc::clone(share)), ..*self }
    }
}

impl Deref for ObjectBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes.of()[..self.length]
    }
}

impl AsRef<[u8]> for ObjectBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for ObjectBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        let length = bytes.len();
        Self::prefix(bytes.into(), length)
    }
}

impl PartialEq for ObjectBuffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ObjectBuffer {}

impl fmt::Debug for ObjectBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectBuffer({} bytes)", self.length)
    }
}

/// What is offered to a cache after a compilation.
#[derive(Debug, Clone, Copy)]
pub struct CompiledObject<'a> {
    /// Names the compilation.
    pub signature: Signature,
    /// The object file. Opaque to every cache.
    pub object: &'a [u8],
    /// The key document the signature was made of, for `why` and `show`. Opaque here; may be empty.
    pub key_document: &'a [u8],
    /// Where the object came from.
    pub provenance: &'a Provenance,
    /// The namespace the entry is listed under. May be empty.
    pub namespace: &'a str,
    /// What the compilation took: what a later hit saves, and what eviction weighs.
    pub compile_time: Duration,
    /// The CPU features that the object's code may use, each as `machine/name` (see
    /// [`HostFeatures`](crate::HostFeatures)). A host that lacks one gets a miss. May be empty.
    pub cpu_features: &'a [String],
}

/// A compilation that failed because of what was compiled, and would fail again: not one that was killed, or
/// whose compiler is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileFailure {
    diagnostics: String,
}

impl CompileFailure {
    /// The most that is kept of the diagnostics, in bytes.
    pub const LONGEST: usize = 16 * 1024;

    /// What the compiler said, cut off after [`LONGEST`](Self::LONGEST) bytes.
    pub fn new(diagnostics: impl Into<String>) -> Self {
        let mut diagnostics = diagnostics.into();
        diagnostics.truncate(diagnostics.floor_char_boundary(Self::LONGEST));
        Self { diagnostics }
    }

    /// What the compiler said.
    pub fn diagnostics(&self) -> &str {
        &self.diagnostics
    }
}
