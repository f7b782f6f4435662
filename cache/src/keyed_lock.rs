//! One lock per signature among the threads of a process. Only the keys that are held take memory.

use std::sync::Arc;
use std::time::Instant;

use objcache_signature::Signature;
use parking_lot::{Condvar, Mutex};

use crate::signature_hash::SignatureSet;

#[derive(Clone, Default)]
pub(crate) struct KeyedLocks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    held: Mutex<SignatureSet>,
    released: Condvar,
}

/// Holds the lock of one signature until dropped.
pub(crate) struct KeyedGuard {
    shared: Arc<Shared>,
    signature: Signature,
}

impl KeyedLocks {
    /// Waits for the lock of `signature` until `deadline`.
    pub(crate) fn lock_until(&self, signature: &Signature, deadline: Instant) -> Option<KeyedGuard> {
        let mut held = self.0.held.lock();
        while held.contains(signature) {
            if self.0.released.wait_until(&mut held, deadline).timed_out() && held.contains(signature) {
                return None;
            }
        }
        held.insert(*signature);
        Some(KeyedGuard { shared: Arc::clone(&self.0), signature: *signature })
    }

    /// Whether some thread of this process holds the lock of `signature`.
    pub(crate) fn is_held(&self, signature: &Signature) -> bool {
        self.0.held.lock().contains(signature)
    }
}

impl Drop for KeyedGuard {
    fn drop(&mut self) {
        self.shared.held.lock().remove(&self.signature);
        self.shared.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_holder_at_a_time_and_no_trace_left() {
        let locks = KeyedLocks::default();
        let (one, two) = (Signature::from_bytes([1; 32]), Signature::from_bytes([2; 32]));
        let soon = || Instant::now() + Duration::from_millis(5);
        let held = locks.lock_until(&one, soon()).expect("free");
        assert!(locks.lock_until(&one, soon()).is_none());
        assert!(locks.lock_until(&two, soon()).is_some(), "another signature is another lock");
        assert!(locks.is_held(&one) && !locks.is_held(&two));
        drop(held);
        assert!(locks.lock_until(&one, soon()).is_some());
        assert!(locks.0.held.lock().is_empty());
    }
}
