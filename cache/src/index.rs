//! What a cache that lives in one process knows of its entries, and how it keeps under its size.
//!
//! [`MemoryCache`](crate::MemoryCache) and [`SledCache`](crate::SledCache) keep the objects elsewhere and ask
//! here what to drop.

use std::collections::BTreeMap;
use std::time::Duration;

use objcache_signature::Signature;

use crate::admin::{CacheStats, EntryInfo, GcLimits, GcReport};
use crate::clock::now_unix_us;
use crate::evict;

/// How long one thread waits for another that compiles the same.
pub(crate) const LOCK_WAIT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Index {
    entries: BTreeMap<Signature, EntryInfo>,
    bytes: u64,
    max_size: u64,
    stats: CacheStats,
}

impl Index {
    pub(crate) fn new(max_size: u64) -> Self {
        Self { max_size, ..Self::default() }
    }

    pub(crate) fn fits(&self, info: &EntryInfo) -> bool {
        info.disk_bytes <= self.max_size
    }

    /// Counts uses, the last of them at `at_unix_us`.
    pub(crate) fn used(&mut self, signature: &Signature, times: u64, at_unix_us: u64) {
        self.stats.hits = self.stats.hits.saturating_add(times);
        if let Some(info) = self.entries.get_mut(signature) {
            info.hits = info.hits.saturating_add(times);
            info.last_used_unix_us = info.last_used_unix_us.max(at_unix_us);
            let saved = &mut self.stats.saved_compile_time_us;
            *saved = saved.saturating_add(info.compile_time_us.saturating_mul(times));
        }
    }

    /// Bytes that entries take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether something has to go when this comes in.
    pub(crate) fn is_full_with(&self, info: &EntryInfo) -> bool {
        self.bytes.saturating_add(info.disk_bytes) > self.max_size
    }

    pub(crate) fn miss(&mut self) {
        self.stats.misses += 1;
    }

    pub(crate) fn quarantined(&mut self) {
        self.stats.quarantined += 1;
    }

    pub(crate) fn failure(&mut self) {
        self.stats.failures += 1;
    }

    pub(crate) fn failure_hit(&mut self) {
        self.stats.failure_hits += 1;
    }

    /// Takes in a new entry, or a new version of an old one, and returns what has to go for it.
    pub(crate) fn put(&mut self, info: EntryInfo) -> Vec<Signature> {
        self.stats.puts += 1;
        self.stats.put_bytes = self.stats.put_bytes.saturating_add(info.object_bytes);
        let newest = info.signature;
        self.insert(info);
        if self.bytes <= self.max_size {
            return Vec::new();
        }
        self.make_room(&newest)
    }

    /// Takes in what is there already.
    pub(crate) fn insert(&mut self, mut info: EntryInfo) {
        if let Some(old) = self.remove(&info.signature) {
            info.pinned |= old.pinned;
            info.hits = info.hits.max(old.hits);
        }
        self.bytes = self.bytes.saturating_add(info.disk_bytes);
        self.entries.insert(info.signature, info);
    }

    fn make_room(&mut self, newest: &Signature) -> Vec<Signature> {
        // A tenth below the limit, so that not every offer has to look at all entries.
        let limits = GcLimits { max_size: Some(self.max_size - self.max_size / 10), ..GcLimits::default() };
        let mut infos = self.list();
        for info in &mut infos {
            // The newest stays, or its offer would have been for nothing.
            info.pinned |= info.signature == *newest;
        }
        let victims = evict::choose_victims(&infos, &limits, now_unix_us());
        let victims: Vec<Signature> = victims.into_iter().map(|victim| infos[victim].signature).collect();
        self.evicted(&victims);
        victims
    }

    fn evicted(&mut self, victims: &[Signature]) {
        for victim in victims {
            self.stats.evicted += u64::from(self.remove(victim).is_some());
        }
    }

    pub(crate) fn remove(&mut self, signature: &Signature) -> Option<EntryInfo> {
        let info = self.entries.remove(signature)?;
        self.bytes = self.bytes.saturating_sub(info.disk_bytes);
        Some(info)
    }

    pub(crate) fn get(&self, signature: &Signature) -> Option<&EntryInfo> {
        self.entries.get(signature)
    }

    pub(crate) fn list(&self) -> Vec<EntryInfo> {
        self.entries.values().cloned().collect()
    }

    pub(crate) fn set_pinned(&mut self, signature: &Signature, pinned: bool) -> bool {
        self.entries.get_mut(signature).map(|info| info.pinned = pinned).is_some()
    }

    /// What a collection removes; without `dry_run` it is removed from here as well.
    pub(crate) fn collect_garbage(&mut self, limits: &GcLimits, dry_run: bool) -> GcReport {
        let report = GcReport::of(self.list(), limits, now_unix_us());
        if !dry_run {
            let victims: Vec<Signature> = report.removed.iter().map(|info| info.signature).collect();
            self.evicted(&victims);
        }
        report
    }

    pub(crate) fn stats(&self) -> CacheStats {
        let mut stats = CacheStats { max_size: self.max_size, ..self.stats.clone() };
        stats.count_entries(&self.list());
        stats
    }

    /// Forgets everything but the limit.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.max_size);
    }
}
