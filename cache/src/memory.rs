//! A cache in the memory of this process, bounded by bytes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use objcache_signature::Signature;

use crate::admin::{
    CacheAdmin, CacheStats, ClearReport, EntryInfo, EntryRecord, GcLimits, GcReport, Progress, VerifyOptions,
    VerifyReport,
};
use crate::clock::{microseconds, now_unix_us};
use crate::error::CacheError;
use crate::failures::Failures;
use crate::index::LOCK_WAIT;
use crate::keyed_lock::KeyedLocks;
use crate::object::{CompileFailure, CompiledObject, ObjectBuffer};
use crate::object_cache::{CompilePermit, ObjectCache};
use crate::shelf::{ENTRY_OVERHEAD, Held, Shelf};

/// Objects in memory, evicted by worth when they are above the limit. Dropped with the process.
///
/// Readers take no lock.
pub struct MemoryCache {
    locks: KeyedLocks,
    failures: Failures,
    shelf: Shelf,
    misses: AtomicU64,
}

impl MemoryCache {
    /// Holds at most `max_size` bytes, with key documents and a flat overhead per entry counted in.
    pub fn new(max_size: u64) -> Self {
        Self {
            locks: KeyedLocks::default(),
            failures: Failures::default(),
            shelf: Shelf::new(max_size),
            misses: AtomicU64::new(0),
        }
    }

    /// Remembers failed compilations for so long; the default is not at all.
    pub fn remember_failures(mut self, ttl: Duration) -> Self {
        self.failures.ttl = Some(ttl);
        self
    }
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryCache({} entries)", self.shelf.len())
    }
}

impl ObjectCache for MemoryCache {
    fn get_object(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        let Some(hit) = self.shelf.get(signature) else {
            // The second look of a compilation that is about to be done here is not another miss.
            self.misses.fetch_add(u64::from(!self.locks.is_held(signature)), Ordering::Relaxed);
            return Ok(None);
        };
        if hit.has_news {
            let _ = self.shelf.tell(signature);
        }
        Ok(Some(hit.object))
    }

    fn notify_object_compiled(&self, compiled: &CompiledObject<'_>) -> Result<(), CacheError> {
        let beside = compiled.key_document.len() + compiled.namespace.len() + ENTRY_OVERHEAD;
        let bytes = (compiled.object.len() + beside) as u64;
        let info = EntryInfo::new(compiled, bytes, now_unix_us());
        let record = EntryRecord {
            key_document: compiled.key_document.to_vec(),
            provenance: compiled.provenance.clone(),
            cpu_features: compiled.cpu_features.to_vec(),
            signed_by: Vec::new(),
            has_mac: false,
        };
        let object = ObjectBuffer::from(compiled.object.to_vec());
        let held = Held::new(object, Some(record), microseconds(compiled.compile_time));
        self.shelf.put(&mut self.shelf.index(), info, held, &mut |_| ());
        self.failures.forget(&compiled.signature);
        Ok(())
    }

    fn notify_used(&self, signature: &Signature, times: u64, _compile_time_us: u64) {
        self.shelf.index().used(signature, times, now_unix_us());
    }

    fn get_failure(&self, signature: &Signature) -> Result<Option<CompileFailure>, CacheError> {
        Ok(self.failures.get(signature).inspect(|_| self.shelf.index().failure_hit()))
    }

    fn notify_compile_failed(
        &self,
        signature: &Signature,
        failure: &CompileFailure,
    ) -> Result<(), CacheError> {
        if self.failures.remember(signature, failure) {
            self.shelf.index().failure();
        }
        Ok(())
    }

    fn exclude_others(&self, signature: &Signature) -> Option<CompilePermit> {
        self.locks.lock_until(signature, Instant::now() + LOCK_WAIT).map(CompilePermit::holding)
    }
}

impl CacheAdmin for MemoryCache {
    fn list(&self) -> Result<Vec<EntryInfo>, CacheError> {
        Ok(self.shelf.told(&mut |_| ()).list())
    }

    fn stat(&self, signature: &Signature) -> Result<Option<EntryInfo>, CacheError> {
        Ok(self.shelf.told(&mut |_| ()).get(signature).cloned())
    }

    fn peek(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        Ok(self.shelf.look(signature, |held| held.object.clone()))
    }

    fn record(&self, signature: &Signature) -> Result<Option<EntryRecord>, CacheError> {
        Ok(self.shelf.look(signature, |held| held.record.clone()).flatten())
    }

    fn remove(&self, signature: &Signature) -> Result<bool, CacheError> {
        Ok(self.shelf.remove(&mut self.shelf.index(), signature, &mut |_| ()))
    }

    fn set_pinned(&self, signature: &Signature, pinned: bool) -> Result<bool, CacheError> {
        Ok(self.shelf.index().set_pinned(signature, pinned))
    }

    /// Memory is not checked: every entry is reported as sound.
    fn verify(
        &self,
        _options: VerifyOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<VerifyReport, CacheError> {
        let infos = self.list()?;
        let mut report = VerifyReport::default();
        for info in &infos {
            report.checked += 1;
            report.bytes += info.object_bytes;
            progress(Progress { done: report.checked, total: infos.len() as u64, bytes: report.bytes });
        }
        Ok(report)
    }

    fn clear(&self) -> Result<ClearReport, CacheError> {
        let mut index = self.shelf.index();
        let report = ClearReport::of(&index.list());
        self.shelf.clear(&mut index);
        self.misses.store(0, Ordering::Relaxed);
        self.failures.clear();
        Ok(report)
    }

    fn collect_garbage(&self, limits: &GcLimits, dry_run: bool) -> Result<GcReport, CacheError> {
        let mut index = self.shelf.told(&mut |_| ());
        let report = index.collect_garbage(limits, dry_run);
        if !dry_run {
            for gone in &report.removed {
                self.shelf.remove(&mut index, &gone.signature, &mut |_| ());
            }
        }
        Ok(report)
    }

    fn stats(&self) -> Result<CacheStats, CacheError> {
        let stats = self.shelf.told(&mut |_| ()).stats();
        Ok(CacheStats { misses: self.misses.load(Ordering::Relaxed), ..stats })
    }
}
