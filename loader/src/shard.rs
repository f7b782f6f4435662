//! Shards: what every load writes to exists several times, so that threads which load at once do not fight over a cache
//! line. A thread always uses the same one; with more threads than shards some share.

use std::sync::atomic::{AtomicUsize, Ordering};

/// More than threads that load at once, on most machines. Each one in use costs a slab's address space.
pub(crate) const SHARDS: usize = 8;

/// A value with two cache lines to itself: processors fetch them in pairs.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// The number of this thread's shard.
pub(crate) fn of_this_thread() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    SHARD.with(|shard| *shard)
}
