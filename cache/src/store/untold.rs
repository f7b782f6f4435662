//! Trouble that a strict store met when no call was there to return it: at opening, in the background, while it waited
//! for others, when it was closed. It is kept for the next call, and for whoever asks at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::CacheError;

/// What went wrong with a [strict](crate::StoreOptions::strict) store, and no call has returned yet.
///
/// The next look-up or offer returns it. What comes up after the last of them, or when the store is closed, is
/// for [`take`](Self::take), which works after the store is gone:
///
/// ```
/// use objcache_cache::{Store, StoreOptions};
///
/// # let place = tempfile::tempdir()?;
/// # let directory = place.path().join("store");
/// let mut options = StoreOptions::at(directory);
/// options.strict = true;
/// let store = Store::open(options)?;
/// let untold = store.untold();
/// drop(store);
/// assert!(untold.take().is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Untold(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot {
    // Looked at by every call, which must cost a hit nothing.
    is_full: AtomicBool,
    first: Mutex<Option<CacheError>>,
}

impl Untold {
    /// The first trouble since the last time.
    pub fn take(&self) -> Option<CacheError> {
        if !self.0.is_full.load(Ordering::Relaxed) {
            return None;
        }
        let mut first = self.0.first.lock();
        self.0.is_full.store(false, Ordering::Relaxed);
        first.take()
    }

    /// Keeps an error, unless there is one.
    pub(super) fn keep(&self, error: CacheError) {
        self.0.first.lock().get_or_insert(error);
        self.0.is_full.store(true, Ordering::Relaxed);
    }

    /// What a call returns: its own error, else the one that is kept. One of the same reason has been told of then.
    pub(super) fn or<T>(&self, result: Result<T, CacheError>) -> Result<T, CacheError> {
        if !self.0.is_full.load(Ordering::Relaxed) {
            return result;
        }
        match result {
            Ok(value) => self.take().map_or(Ok(value), Err),
            Err(error) => {
                if let Some(kept) = self.take().filter(|kept| kept.reason() != error.reason()) {
                    self.keep(kept);
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;

    fn trouble(reason: Reason) -> CacheError {
        CacheError::new(reason, "test")
    }

    fn reason<T: std::fmt::Debug>(result: Result<T, CacheError>) -> Reason {
        result.expect_err("an error").reason()
    }

    #[test]
    fn the_first_is_told_once() {
        let untold = Untold::default();
        assert_eq!(untold.or(Ok(5)).expect("nothing is wrong"), 5);
        untold.keep(trouble(Reason::Io));
        untold.keep(trouble(Reason::DiskFull));
        assert_eq!(reason(untold.or(Ok(5))), Reason::Io);
        assert_eq!(untold.or(Ok(5)).expect("it was told"), 5);
        assert!(untold.take().is_none());
    }

    #[test]
    fn a_call_returns_its_own_and_leaves_another_for_the_next() {
        let untold = Untold::default();
        untold.keep(trouble(Reason::Io));
        assert_eq!(reason(untold.or::<()>(Err(trouble(Reason::DiskFull)))), Reason::DiskFull);
        assert_eq!(reason(untold.or::<()>(Err(trouble(Reason::Io)))), Reason::Io);
        assert!(untold.take().is_none(), "the same is not told twice");
    }
}
