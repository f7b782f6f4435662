//! Memory that entries are read into, given back when the object is dropped.
//!
//! Fresh memory costs a page fault for every 4 KB, which is more than reading that much from a file that is in
//! memory. An engine drops an object once it is loaded, so the next one is read into the same pages, which often
//! are in the processor's cache still. What is kept is bounded, and a thread that finds the pool in use does
//! without it.

use std::ops::{Deref, DerefMut};

use parking_lot::Mutex;

/// What the pool keeps at most, in bytes.
const MOST_BYTES: usize = 4 << 20;
/// Buffers it keeps at most.
const MOST_BUFFERS: usize = 64;
/// Longer ones are not kept, in bytes.
const LONGEST: usize = 2560 * 1024;
/// Shorter ones come as quickly from the allocator, in bytes.
const SHORTEST: usize = 4096;

static POOL: Mutex<Pool> = Mutex::new(Pool { buffers: Vec::new(), bytes: 0 });

/// Latest last.
struct Pool {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    /// A buffer that is long enough, and not much longer: it may be held for long.
    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let fits =
            |buffer: &Vec<u8>| (length..=length.saturating_add(length / 4)).contains(&buffer.capacity());
        let buffer = self.buffers.remove(self.buffers.iter().rposition(fits)?);
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    /// The oldest go for it.
    fn give(&mut self, buffer: Vec<u8>) {
        self.bytes += buffer.capacity();
        self.buffers.push(buffer);
        while self.bytes > MOST_BYTES || self.buffers.len() > MOST_BUFFERS {
            self.bytes -= self.buffers.remove(0).capacity();
        }
    }
}

/// Bytes in memory of our own.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    /// An empty one with room for `length` bytes; `None` when there is no memory for that.
    pub(crate) fn with_room(length: usize) -> Option<Self> {
        let mut buffer = Self::stale(length)?;
        buffer.0.clear();
        Some(buffer)
    }

    /// One of `length` bytes of which nothing is known; `None` when there is no memory for that.
    pub(crate) fn of_length(length: usize) -> Option<Self> {
        let mut buffer = Self::stale(length)?;
        // What was in it before need not be zeroed.
        buffer.0.resize(length, 0);
        Some(buffer)
    }

    fn stale(length: usize) -> Option<Self> {
        if (SHORTEST..=LONGEST).contains(&length)
            && let Some(kept) = POOL.try_lock().and_then(|mut pool| pool.take(length))
        {
            return Some(Self(kept));
        }
        let mut fresh = Vec::new();
        fresh.try_reserve_exact(rounded(length)).ok()?;
        Some(Self(fresh))
    }
}

/// A little more, so that entries of about the same length share buffers.
fn rounded(length: usize) -> usize {
    let step = length.checked_ilog2().map_or(1, |log| (1usize << log) / 8);
    length.checked_next_multiple_of(step.max(64)).unwrap_or(length)
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if (SHORTEST..=LONGEST).contains(&self.0.capacity())
            && let Some(mut pool) = POOL.try_lock()
        {
            pool.give(std::mem::take(&mut self.0));
        }
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_taken_again_and_kept_within_bounds() {
        let mut pool = Pool { buffers: Vec::new(), bytes: 0 };
        pool.give(Vec::with_capacity(10_000));
        pool.give(Vec::with_capacity(50_000));
        assert!(pool.take(20_000).is_none(), "one is too short and one too long");
        let taken = pool.take(45_000).expect("long enough").capacity();
        assert!(taken >= 50_000 && pool.take(45_000).is_none());
        for _ in 0..200 {
            pool.give(Vec::with_capacity(LONGEST));
            pool.give(Vec::with_capacity(SHORTEST));
            assert!(pool.bytes <= MOST_BYTES && pool.buffers.len() <= MOST_BUFFERS);
            assert_eq!(pool.bytes, pool.buffers.iter().map(Vec::capacity).sum::<usize>());
        }
    }

    #[test]
    fn every_length_has_room() {
        for length in [0, 1, 63, 4095, 4096, 13_000, 1 << 20, LONGEST, LONGEST + 1] {
            let buffer = Buffer::with_room(length).expect("memory");
            assert!(buffer.is_empty() && buffer.capacity() >= length, "{length}");
            assert!(buffer.capacity() <= length + length / 8 + 64 || length >= SHORTEST, "{length}");
            drop(buffer);
            assert_eq!(Buffer::of_length(length).expect("memory").len(), length);
        }
        assert!(Buffer::with_room(usize::MAX).is_none());
    }
}
