//! What a fork means for memory that is shared with the child.
//!
//! The two views of a slab's code are one piece of shared memory, so parent and child see each other's writes. After
//! a fork neither may write there: each side counts forks, and a slab made before the last one is frozen. Taking and
//! giving back ranges happens inside of a gate that is closed while a fork is under way, so that the child never
//! inherits a lock that some other thread held. So do changes to what the unwinder is told.
//!
//! `vfork` and `posix_spawn` run no handlers, and need none: their child shares or leaves everything.

#![allow(unsafe_code)] // Registers handlers with the C library.
// Where there are no slabs only the gate is used.
#![cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code)
)]

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::shard::{self, Padded, SHARDS};

/// Threads inside of the gate, by shard.
static INSIDE: [Padded<AtomicU64>; SHARDS] = [const { Padded(AtomicU64::new(0)) }; SHARDS];
/// Forks under way: the gate is closed while there are any.
static UNDER_WAY: AtomicU64 = AtomicU64::new(0);
/// Forks this process was part of, as parent or child.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// Forks that made this process.
static BIRTHS: AtomicU64 = AtomicU64::new(0);

/// Being inside: forks wait.
pub(crate) struct Gate {
    inside: &'static AtomicU64,
}

/// Goes inside, waiting while a fork is under way.
pub(crate) fn enter() -> Gate {
    let Padded(inside) = &INSIDE[shard::of_this_thread()];
    loop {
        inside.fetch_add(1, Ordering::SeqCst);
        if UNDER_WAY.load(Ordering::SeqCst) == 0 {
            return Gate { inside };
        }
        inside.fetch_sub(1, Ordering::SeqCst);
        while UNDER_WAY.load(Ordering::SeqCst) != 0 {
            thread::yield_now();
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Number of forks so far. Memory made under another number is frozen.
pub(crate) fn generation() -> u64 {
    FORKS.load(Ordering::SeqCst)
}

/// Number that differs between a process and its children.
pub(crate) fn process() -> u64 {
    BIRTHS.load(Ordering::SeqCst)
}

/// From now on forks are noticed.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are functions of this program that only touch atomics and yield. Memory for the
        // registration may be lacking; then forks go unnoticed, as in any program that gets no memory at its start.
        unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    });
}

extern "C" fn before() {
    UNDER_WAY.fetch_add(1, Ordering::SeqCst);
    for Padded(inside) in &INSIDE {
        while inside.load(Ordering::SeqCst) != 0 {
            thread::yield_now();
        }
    }
    FORKS.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn in_parent() {
    UNDER_WAY.fetch_sub(1, Ordering::SeqCst);
}

/// The child has one thread, which is outside of the gate. Others may have been counted while they were turned away.
extern "C" fn in_child() {
    for Padded(inside) in &INSIDE {
        inside.store(0, Ordering::SeqCst);
    }
    BIRTHS.fetch_add(1, Ordering::SeqCst);
    UNDER_WAY.store(0, Ordering::SeqCst);
}
