//! When old code may go: a thread that may be in code which is about to be replaced holds a [`Guard`], and what was
//! replaced is freed after all guards that were active then are gone.
//!
//! Epochs are those of `crossbeam-epoch`, in a collector of our own: what others do with theirs delays nothing here. What
//! it hands back is put on a list and freed at calls that remove, redefine or [`collect`], never by a thread that only
//! takes a guard: freeing runs finalisers and listeners, which a caller of hot code must not meet. Looking whether epochs
//! have passed touches what all threads share, so a thread does it for several small images at once.

use std::cell::Cell;
use std::fmt;
use std::mem;
use std::sync::LazyLock;

use crossbeam_epoch::{Collector, LocalHandle};
use parking_lot::Mutex;

use super::names::Keep;
use crate::fork;

static COLLECTOR: LazyLock<Collector> = LazyLock::new(Collector::new);

/// What no thread can be in any more.
static READY: Mutex<Vec<Vec<Keep>>> = Mutex::new(Vec::new());

thread_local! {
    static THREAD: LocalHandle = fork::force(&COLLECTOR).register();
    /// What this thread has retired since it last looked: pieces and bytes.
    static SINCE: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// So many pieces or bytes are retired by a thread before it looks what can be freed.
const PIECES: usize = 16;
const BYTES: usize = 64 << 10;

/// Keeps all code in memory that this thread may enter through a library's functions: nothing that is removed or replaced
/// from now on is freed before it is dropped. Costs some nanoseconds, and takes no lock.
///
/// A guard that is held for long delays the freeing of all old code in the process.
#[must_use = "code may be freed as soon as the guard is dropped"]
pub struct Guard {
    _pinned: crossbeam_epoch::Guard,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

/// A guard for this thread. May be nested.
pub fn pin() -> Guard {
    Guard { _pinned: pin_thread() }
}

fn pin_thread() -> crossbeam_epoch::Guard {
    // A thread that is ending has no handle any more.
    THREAD.try_with(LocalHandle::pin).unwrap_or_else(|_| fork::force(&COLLECTOR).register().pin())
}

/// Frees what was removed or replaced and what no guard holds any more. Removing and redefining do this as well, at the latest
/// when a thread has done so 16 times or retired 64 KiB, so only a program that wants the last few back needs to call it.
pub fn collect() {
    // When a thread ends this may be gone, and nobody counts any more.
    let _ = SINCE.try_with(|since| since.set((0, 0)));
    // An epoch passes with each round in which every guard is of the last one; after two, what was retired is ready.
    for _ in 0..3 {
        pin_thread().flush();
    }
    let ready = mem::take(&mut *fork::lock(&READY));
    drop(ready);
}

/// Code that was removed or replaced, and may still be running. Dropping it is right where callers hold a [`Guard`] while
/// they call: the memory is freed when the guards that are active now have gone. Where they do not, keep it until you know
/// that no thread is in the old code.
#[must_use = "dropping it lets the old code go as soon as no guard is active"]
pub struct Retired {
    items: Vec<Keep>,
}

impl Retired {
    pub(super) fn of(items: Vec<Keep>) -> Self {
        Retired { items: items.into_iter().filter(|keep| keep.identity() != 0).collect() }
    }

    /// Frees the memory now, if nothing else refers to it, whatever guards there are.
    ///
    /// # Safety
    /// No thread is executing the code, or will.
    #[allow(unsafe_code)] // The caller knows who runs what.
    pub unsafe fn free(mut self) {
        drop(mem::take(&mut self.items));
    }

    /// Whether nothing was there to be removed.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl Drop for Retired {
    fn drop(&mut self) {
        let items = mem::take(&mut self.items);
        if items.is_empty() {
            return;
        }
        let (pieces, bytes) = SINCE.try_with(Cell::get).unwrap_or((PIECES, BYTES));
        let (pieces, bytes) = (pieces + 1, bytes + items.iter().map(Keep::bytes).sum::<usize>());
        pin_thread().defer(move || fork::lock(&READY).push(items));
        if pieces >= PIECES || bytes >= BYTES {
            collect();
        } else {
            let _ = SINCE.try_with(|since| since.set((pieces, bytes)));
        }
    }
}

impl fmt::Debug for Retired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retired").field("items", &self.items.len()).finish()
    }
}
