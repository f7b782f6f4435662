//! Failed compilations in the memory of a cache that lives in one process.

use std::time::{Duration, Instant};

use objcache_signature::Signature;
use parking_lot::Mutex;

use crate::object::CompileFailure;
use crate::signature_hash::SignatureMap;

/// So many are remembered at most; then all are forgotten.
const KEPT: usize = 1024;

/// Nothing is remembered unless a time to live is set.
#[derive(Default)]
pub(crate) struct Failures {
    pub(crate) ttl: Option<Duration>,
    known: Mutex<SignatureMap<(Instant, CompileFailure)>>,
}

impl Failures {
    pub(crate) fn get(&self, signature: &Signature) -> Option<CompileFailure> {
        let ttl = self.ttl?;
        let known = self.known.lock();
        let (at, failure) = known.get(signature)?;
        (at.elapsed() <= ttl).then(|| failure.clone())
    }

    /// Returns whether it is remembered.
    pub(crate) fn remember(&self, signature: &Signature, failure: &CompileFailure) -> bool {
        if self.ttl.is_none() {
            return false;
        }
        let mut known = self.known.lock();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(*signature, (Instant::now(), failure.clone()));
        true
    }

    pub(crate) fn forget(&self, signature: &Signature) {
        if self.ttl.is_some() {
            self.known.lock().remove(signature);
        }
    }

    pub(crate) fn clear(&self) {
        self.known.lock().clear();
    }
}
