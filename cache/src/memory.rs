//! A cache in the memory of this process, bounded by bytes.

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use objcache_signature::Signature;
use parking_lot::Mutex;

use crate::admin::{
    CacheAdmin, CacheStats, ClearReport, EntryInfo, EntryRecord, GcLimits, GcReport, Progress, VerifyOptions,
    VerifyReport,
};
use crate::clock::now_unix_us;
use crate::error::CacheError;
use crate::index::{Index, LOCK_WAIT};
use crate::keyed_lock::KeyedLocks;
use crate::object::{CompiledObject, ObjectBuffer};
use crate::object_cache::{CompilePermit, ObjectCache};

/// Book-keeping of one entry on top of what it holds, in bytes.
const ENTRY_OVERHEAD: usize = 256;

/// Objects in memory, evicted by worth when they are above the limit. Dropped with the process.
pub struct MemoryCache {
    locks: KeyedLocks,
    state: Mutex<State>,
}

struct State {
    index: Index,
    objects: HashMap<Signature, Held>,
}

struct Held {
    object: ObjectBuffer,
    record: EntryRecord,
}

impl MemoryCache {
    /// Holds at most `max_size` bytes, with key documents and a flat overhead per entry counted in.
    pub fn new(max_size: u64) -> Self {
        let state = State { index: Index::new(max_size), objects: HashMap::new() };
        Self { locks: KeyedLocks::default(), state: Mutex::new(state) }
    }
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryCache({} entries)", self.state.lock().objects.len())
    }
}

impl ObjectCache for MemoryCache {
    fn get_object(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        let mut state = self.state.lock();
        let object = state.objects.get(signature).map(|held| held.object.clone());
        match object {
            Some(_) => state.index.hit(signature),
            // The second look of a compilation that is about to be done here is not another miss.
            None if self.locks.is_held(signature) => {}
            None => state.index.miss(),
        }
        Ok(object)
    }

    fn notify_object_compiled(&self, compiled: &CompiledObject<'_>) -> Result<(), CacheError> {
        let beside = compiled.key_document.len() + compiled.namespace.len() + ENTRY_OVERHEAD;
        let bytes = (compiled.object.len() + beside) as u64;
        let info = EntryInfo::new(compiled, bytes, now_unix_us());
        let held = Held {
            object: ObjectBuffer::from(compiled.object.to_vec()),
            record: EntryRecord {
                key_document: compiled.key_document.to_vec(),
                provenance: compiled.provenance.clone(),
                cpu_features: compiled.cpu_features.to_vec(),
                signed_by: Vec::new(),
                has_mac: false,
            },
        };
        let mut state = self.state.lock();
        if state.index.fits(&info) {
            let victims = state.index.put(info);
            state.objects.insert(compiled.signature, held);
            state.drop_objects(victims.iter());
        }
        Ok(())
    }

    fn exclude_others(&self, signature: &Signature) -> Option<CompilePermit> {
        self.locks.lock_until(signature, Instant::now() + LOCK_WAIT).map(CompilePermit::holding)
    }
}

impl State {
    fn drop_objects<'a>(&mut self, signatures: impl Iterator<Item = &'a Signature>) {
        for signature in signatures {
            self.objects.remove(signature);
        }
    }
}

impl CacheAdmin for MemoryCache {
    fn list(&self) -> Result<Vec<EntryInfo>, CacheError> {
        Ok(self.state.lock().index.list())
    }

    fn stat(&self, signature: &Signature) -> Result<Option<EntryInfo>, CacheError> {
        Ok(self.state.lock().index.get(signature).cloned())
    }

    fn peek(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        Ok(self.state.lock().objects.get(signature).map(|held| held.object.clone()))
    }

    fn record(&self, signature: &Signature) -> Result<Option<EntryRecord>, CacheError> {
        Ok(self.state.lock().objects.get(signature).map(|held| held.record.clone()))
    }

    fn remove(&self, signature: &Signature) -> Result<bool, CacheError> {
        let mut state = self.state.lock();
        state.index.remove(signature);
        Ok(state.objects.remove(signature).is_some())
    }

    fn set_pinned(&self, signature: &Signature, pinned: bool) -> Result<bool, CacheError> {
        Ok(self.state.lock().index.set_pinned(signature, pinned))
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
        let mut state = self.state.lock();
        let report = ClearReport::of(&state.index.list());
        state.index.clear();
        state.objects.clear();
        Ok(report)
    }

    fn collect_garbage(&self, limits: &GcLimits, dry_run: bool) -> Result<GcReport, CacheError> {
        let mut state = self.state.lock();
        let report = state.index.collect_garbage(limits, dry_run);
        if !dry_run {
            state.drop_objects(report.removed.iter().map(|info| &info.signature));
        }
        Ok(report)
    }

    fn stats(&self) -> Result<CacheStats, CacheError> {
        Ok(self.state.lock().index.stats())
    }
}
