//! A memory tier before another cache: what was used is at hand, the rest is asked for.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use objcache_signature::Signature;

use crate::admin::{
    CacheAdmin, CacheStats, ClearReport, EntryInfo, EntryRecord, GcLimits, GcReport, Progress, VerifyOptions,
    VerifyReport,
};
use crate::clock::{microseconds, now_unix_us};
use crate::compression::Codec;
use crate::error::CacheError;
use crate::object::{CompileFailure, CompiledObject, ObjectBuffer};
use crate::object_cache::{CompilePermit, FailedCompile, ObjectCache, RunMark};
use crate::shelf::{ENTRY_OVERHEAD, Held, Shelf, Uses};

/// Another cache with the objects used last in memory before it.
///
/// A hit in memory takes no lock that others wait for, and hands out a share of the bytes, not a copy. What is
/// in memory was verified when it was read and is not verified again. The cache below hears of the uses now and
/// then, so that it does not take what is used most for unused; it keeps what there is to administer.
///
/// What others remove from the cache below stays in this memory until it has to make room; what is removed
/// through this tier is gone from both.
///
/// ```
/// use objcache_cache::{ObjectCache, Store, StoreOptions, Tiered};
/// # use objcache_signature::Signature;
///
/// let cache = Tiered::new(Store::open_or_degrade(StoreOptions::from_environment()), 64 << 20);
/// # let cache = Tiered::new(objcache_cache::MemoryCache::new(1000), 64 << 20);
/// assert!(cache.get_object(&Signature::from_bytes([7; 32]))?.is_none());
/// # Ok::<(), objcache_cache::CacheError>(())
/// ```
pub struct Tiered<C: ObjectCache> {
    below: C,
    shelf: Shelf,
    // Goes up whenever something is removed, so that what was read before is not taken in after.
    removals: AtomicU64,
}

impl<C: ObjectCache> Tiered<C> {
    /// Keeps at most `max_bytes` of what `below` has in memory, overhead counted in.
    pub fn new(below: C, max_bytes: u64) -> Self {
        Self { below, shelf: Shelf::new(max_bytes), removals: AtomicU64::new(0) }
    }

    /// The cache below.
    pub fn below(&self) -> &C {
        &self.below
    }

    /// Bytes that are kept in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.shelf.index().bytes()
    }

    /// Tells the cache below of all uses that it has not heard of. Dropping does so, too.
    pub fn tell_uses(&self) {
        let mut told = Vec::new();
        drop(self.shelf.told(&mut |uses| told.push(uses)));
        told.into_iter().for_each(|uses| self.pass_on(uses));
    }

    /// Drops everything from memory; the cache below keeps it.
    pub fn forget_all(&self) {
        self.tell_uses();
        let mut index = self.shelf.index();
        self.removals.fetch_add(1, Ordering::Relaxed);
        self.shelf.clear(&mut index);
    }

    fn pass_on(&self, Uses { signature, times, compile_time_us }: Uses) {
        self.below.notify_used(&signature, times, compile_time_us);
    }

    /// Takes an object into memory, unless something was removed since `removals`.
    fn keep(&self, signature: &Signature, object: ObjectBuffer, compile_time_us: u64, removals: u64) {
        let now = now_unix_us();
        let info = EntryInfo {
            signature: *signature,
            object_bytes: object.len() as u64,
            stored_bytes: object.len() as u64,
            codec: Codec::Plain,
            disk_bytes: (object.memory_bytes() + ENTRY_OVERHEAD) as u64,
            created_unix_us: now,
            last_used_unix_us: now,
            hits: 0,
            // What is missed here costs a look below, whatever it cost to compile.
            compile_time_us: 0,
            namespace: String::new(),
            pinned: false,
        };
        let held = Held::new(object, None, compile_time_us);
        let mut told = Vec::new();
        let mut index = self.shelf.index();
        if self.removals.load(Ordering::Relaxed) == removals {
            self.shelf.put(&mut index, info, held, &mut |uses| told.push(uses));
        }
        drop(index);
        told.into_iter().for_each(|uses| self.pass_on(uses));
    }

    fn removals(&self) -> u64 {
        self.removals.load(Ordering::Relaxed)
    }

    /// Drops from memory what is being removed below.
    fn forget<'a>(&self, signatures: impl Iterator<Item = &'a Signature>) {
        let mut index = self.shelf.index();
        self.removals.fetch_add(1, Ordering::Relaxed);
        for signature in signatures {
            self.shelf.remove(&mut index, signature, &mut |_| ());
        }
    }
}

impl<C: ObjectCache> Drop for Tiered<C> {
    fn drop(&mut self) {
        self.tell_uses();
    }
}

impl<C: ObjectCache + fmt::Debug> fmt::Debug for Tiered<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered").field("in_memory", &self.shelf.len()).field("below", &self.below).finish()
    }
}

impl<C: ObjectCache> ObjectCache for Tiered<C> {
    fn get_object(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        if let Some(hit) = self.shelf.get(signature) {
            if hit.has_news
                && let Some(uses) = self.shelf.tell(signature)
            {
                self.pass_on(uses);
            }
            return Ok(Some(hit.object));
        }
        let removals = self.removals();
        let found = self.below.get_object(signature)?;
        if let Some(object) = &found {
            self.keep(signature, object.clone(), object.compile_time_us(), removals);
        }
        Ok(found)
    }

    fn notify_object_compiled(&self, compiled: &CompiledObject<'_>) -> Result<(), CacheError> {
        let removals = self.removals();
        self.below.notify_object_compiled(compiled)?;
        let object = ObjectBuffer::from(compiled.object.to_vec());
        self.keep(&compiled.signature, object, microseconds(compiled.compile_time), removals);
        Ok(())
    }

    fn notify_used(&self, signature: &Signature, times: u64, compile_time_us: u64) {
        self.below.notify_used(signature, times, compile_time_us);
    }

    fn get_failure(&self, signature: &Signature) -> Result<Option<CompileFailure>, CacheError> {
        self.below.get_failure(signature)
    }

    fn notify_compile_failed(
        &self,
        signature: &Signature,
        failure: &CompileFailure,
    ) -> Result<(), CacheError> {
        self.below.notify_compile_failed(signature, failure)
    }

    fn notify_does_not_load(&self, signature: &Signature, why: &dyn fmt::Display) -> Result<(), CacheError> {
        self.below.notify_does_not_load(signature, why)
    }

    fn notify_no_object(&self, failed: &FailedCompile<'_>) {
        self.below.notify_no_object(failed);
    }

    fn exclude_others(&self, signature: &Signature) -> Option<CompilePermit> {
        self.below.exclude_others(signature)
    }

    fn mark_running(&self, signature: &Signature) -> Option<RunMark> {
        let mark = self.below.mark_running(signature);
        if mark.as_ref().is_some_and(RunMark::is_suspect) {
            self.forget([signature].into_iter());
        }
        mark
    }
}

/// What the cache below answers, once it has heard of all uses. What is removed goes from memory as well.
impl<C: CacheAdmin> CacheAdmin for Tiered<C> {
    fn list(&self) -> Result<Vec<EntryInfo>, CacheError> {
        self.tell_uses();
        self.below.list()
    }

    fn stat(&self, signature: &Signature) -> Result<Option<EntryInfo>, CacheError> {
        self.tell_uses();
        self.below.stat(signature)
    }

    fn peek(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        self.below.peek(signature)
    }

    fn record(&self, signature: &Signature) -> Result<Option<EntryRecord>, CacheError> {
        self.below.record(signature)
    }

    fn resolve_prefix(&self, prefix: &str) -> Result<Vec<Signature>, CacheError> {
        self.below.resolve_prefix(prefix)
    }

    fn remove(&self, signature: &Signature) -> Result<bool, CacheError> {
        let removed = self.below.remove(signature);
        // After it, so that nobody reads it below and takes it in again in between.
        self.forget([signature].into_iter());
        removed
    }

    fn set_pinned(&self, signature: &Signature, pinned: bool) -> Result<bool, CacheError> {
        self.below.set_pinned(signature, pinned)
    }

    fn verify(
        &self,
        options: VerifyOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<VerifyReport, CacheError> {
        let report = self.below.verify(options, progress)?;
        if options.repair {
            self.forget(report.damaged.iter().map(|damaged| &damaged.signature));
        }
        Ok(report)
    }

    fn clear(&self) -> Result<ClearReport, CacheError> {
        // After it, or what somebody reads below in between would be taken in again; and before it, or their uses
        // would be counted in the cleared one.
        self.forget_all();
        let cleared = self.below.clear();
        self.forget_all();
        cleared
    }

    fn collect_garbage(&self, limits: &GcLimits, dry_run: bool) -> Result<GcReport, CacheError> {
        self.tell_uses();
        let report = self.below.collect_garbage(limits, dry_run)?;
        if !dry_run {
            self.forget(report.removed.iter().map(|info| &info.signature));
        }
        Ok(report)
    }

    fn stats(&self) -> Result<CacheStats, CacheError> {
        self.tell_uses();
        self.below.stats()
    }
}
