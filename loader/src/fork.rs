//! What a fork means for memory that is shared with the child.
//!
//! The two views of a slab's code are one piece of shared memory, so parent and child see each other's writes. After
//! a fork neither may write there: each side counts forks, and a slab made before the last one is frozen. Taking and
//! giving back ranges happens inside of a gate that is closed while a fork is under way, so that the child never
//! inherits a lock that some other thread held. So do changes to what the unwinder is told, registering and running static
//! destructors (though the destructors themselves run outside), and all that is done under [`lock`].
//!
//! `vfork` and `posix_spawn` run no handlers, and need none: their child shares or leaves everything.

#![allow(unsafe_code)] // Registers handlers with the C library.
// Where there are no slabs only the gate is used.
#![cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code)
)]

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Once};
use std::thread;

use parking_lot::{Mutex, MutexGuard};

use crate::shard::{self, Padded, SHARDS};

/// Threads inside of the gate, by shard.
static INSIDE: [Padded<AtomicU64>; SHARDS] = [const { Padded(AtomicU64::new(0)) }; SHARDS];
/// Forks under way: the gate is closed while there are any.
static UNDER_WAY: AtomicU64 = AtomicU64::new(0);
/// Forks this process was part of, as parent or child.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// Forks that made this process.
static BIRTHS: AtomicU64 = AtomicU64::new(0);

/// Numbers of threads that are given away; and how many were when this process was born, the number of whose first thread
/// is `SURVIVOR`.
static NUMBERED: AtomicU64 = AtomicU64::new(0);
static NUMBERED_BEFORE: AtomicU64 = AtomicU64::new(0);
static SURVIVOR: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How many gates this thread has gone through.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Of this thread; 0 until it is asked for.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// A thread by a number that no other has or had, also among those of the process that this one is a fork of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ThreadNumber(u64);

impl ThreadNumber {
    /// This thread's.
    pub(crate) fn current() -> Self {
        if NUMBER.get() == 0 {
            NUMBER.set(NUMBERED.fetch_add(1, Ordering::SeqCst) + 1);
        }
        ThreadNumber(NUMBER.get())
    }

    /// It was a thread of the process that this one is a fork of, and is not in this one.
    pub(crate) fn is_lost(self) -> bool {
        self.0 <= NUMBERED_BEFORE.load(Ordering::SeqCst) && self.0 != SURVIVOR.load(Ordering::SeqCst)
    }
}

/// Being inside: forks wait.
pub(crate) struct Gate {
    /// Not of a thread that was inside before: it must not wait for a fork that waits for it.
    inside: Option<&'static AtomicU64>,
}

/// Goes inside, waiting while a fork is under way.
#[inline]
pub(crate) fn enter() -> Gate {
    let depth = DEPTH.get();
    DEPTH.set(depth + 1);
    Gate { inside: (depth == 0).then(enter_first) }
}

fn enter_first() -> &'static AtomicU64 {
    let Padded(inside) = &INSIDE[shard::of_this_thread()];
    loop {
        inside.fetch_add(1, Ordering::SeqCst);
        if UNDER_WAY.load(Ordering::SeqCst) == 0 {
            return inside;
        }
        inside.fetch_sub(1, Ordering::SeqCst);
        while UNDER_WAY.load(Ordering::SeqCst) != 0 {
            thread::yield_now();
        }
    }
}

impl Drop for Gate {
    #[inline]
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        if let Some(inside) = self.inside {
            inside.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Runs code of clients outside of the gate, however often this thread has gone through: it may fork, and wait for others
/// who do. No lock may be held that it could want.
pub(crate) fn outside<R>(run: impl FnOnce() -> R) -> R {
    let depth = DEPTH.replace(0);
    if depth == 0 {
        return run();
    }
    let Padded(inside) = &INSIDE[shard::of_this_thread()];
    inside.fetch_sub(1, Ordering::SeqCst);
    let result = run();
    enter_first();
    DEPTH.set(depth);
    result
}

/// A lock that no child is born with. Code of clients must not run under it: a thread that forks there waits for itself.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> Locked<'_, T> {
    watch();
    let gate = enter();
    Locked { value: mutex.lock(), _gate: gate }
}

/// What is made when it is first asked for, by whom forks wait: a child never finds it half made.
pub(crate) fn force<T>(lazy: &LazyLock<T>) -> &T {
    watch();
    let _gate = enter();
    LazyLock::force(lazy)
}

/// What [`lock`] gives. The lock is given back first.
pub(crate) struct Locked<'m, T: ?Sized> {
    value: MutexGuard<'m, T>,
    _gate: Gate,
}

impl<T: ?Sized> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
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
    NUMBERED_BEFORE.store(NUMBERED.load(Ordering::SeqCst), Ordering::SeqCst);
    SURVIVOR.store(NUMBER.get(), Ordering::SeqCst);
    BIRTHS.fetch_add(1, Ordering::SeqCst);
    UNDER_WAY.store(0, Ordering::SeqCst);
}
