//! Finalisers of images that are still there when the process ends. The C library runs them, as those of shared libraries.
#![allow(unsafe_code)] // A call of the C library.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once, Weak};

use parking_lot::Mutex;

use crate::fork::{self, ThreadNumber};
use crate::lifecycle::Lifecycle;

/// Images with finalisers whose initialisers ran, in the order in which these began.
static FINALIZED_AT_EXIT: Mutex<BTreeMap<u64, Weak<Lifecycle>>> = Mutex::new(BTreeMap::new());

/// The thread that runs their finalisers because the process ends.
static ENDER: Mutex<Option<ThreadNumber>> = Mutex::new(None);

/// If the process ends before the image does, its finalisers are run as those of shared libraries. Returns what the image is
/// known by.
pub(crate) fn finalize_at_exit(lifecycle: &Arc<Lifecycle>) -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    static REGISTERED: Once = Once::new();
    fork::watch();
    {
        let _gate = fork::enter();
        REGISTERED.call_once(|| {
            // SAFETY: the function is of this library, and is taken out when that is unloaded.
            unsafe { libc::atexit(finalize_all) };
        });
    }
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    fork::lock(&FINALIZED_AT_EXIT).insert(number, Arc::downgrade(lifecycle));
    number
}

/// The image with that number ends by itself.
pub(crate) fn finalize_no_more(number: u64) {
    fork::lock(&FINALIZED_AT_EXIT).remove(&number);
}

/// Called by the C library at the end of the process: the latest first.
extern "C" fn finalize_all() {
    *fork::lock(&ENDER) = Some(ThreadNumber::current());
    let latest = || fork::lock(&FINALIZED_AT_EXIT).pop_last();
    while let Some((_, lifecycle)) = latest() {
        if let Some(lifecycle) = lifecycle.upgrade() {
            lifecycle.end_with_the_process();
        }
    }
}

/// The process ends in another thread than that, which still is there.
pub(crate) fn is_ended_by_another(this: ThreadNumber) -> bool {
    fork::lock(&ENDER).is_some_and(|ender| ender != this && !ender.is_lost())
}
