//! What administration needs of a cache, and the reports it gets. Engines do not need any of this.

use std::collections::BTreeMap;
use std::time::Duration;

use objcache_signature::{Provenance, Signature};

use crate::clock::microseconds;
use crate::compression::Codec;
use crate::error::{CacheError, Reason};
use crate::evict;
use crate::latency::Latencies;
use crate::object::{CompiledObject, ObjectBuffer};
use crate::object_cache::ObjectCache;
use crate::trust::PublicKey;

/// A cache that can be looked into and tended.
///
/// Unlike [`ObjectCache`], its methods report trouble as errors: a person asked.
pub trait CacheAdmin: ObjectCache {
    /// All entries, by ascending signature.
    ///
    /// # Errors
    /// When the entries cannot be listed.
    fn list(&self) -> Result<Vec<EntryInfo>, CacheError>;

    /// One entry; `None` when there is none. It does not count as a use.
    ///
    /// # Errors
    /// When the entry cannot be looked at.
    fn stat(&self, signature: &Signature) -> Result<Option<EntryInfo>, CacheError>;

    /// The object of an entry, for somebody who only looks: it does not count as a use or as a miss. `None`
    /// when there is no such entry, or it is damaged.
    ///
    /// # Errors
    /// When the entry cannot be read.
    fn peek(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError>;

    /// What is kept beside the object; `None` when there is no such entry, or it is damaged.
    ///
    /// # Errors
    /// When the entry cannot be read.
    fn record(&self, signature: &Signature) -> Result<Option<EntryRecord>, CacheError>;

    /// All signatures whose hexadecimal form begins with `prefix`, ascending. None for what is not
    /// hexadecimal.
    ///
    /// # Errors
    /// When the entries cannot be listed.
    fn resolve_prefix(&self, prefix: &str) -> Result<Vec<Signature>, CacheError> {
        let prefix = prefix.to_ascii_lowercase();
        let signatures = self.list()?.into_iter().map(|entry| entry.signature);
        Ok(signatures.filter(|signature| signature.to_string().starts_with(&prefix)).collect())
    }

    /// Removes one entry, pinned or not. Returns whether there was one.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove(&self, signature: &Signature) -> Result<bool, CacheError>;

    /// Pins an entry, so that eviction passes it over, or lets it go again. Returns whether there is one.
    ///
    /// # Errors
    /// When that cannot be written down.
    fn set_pinned(&self, signature: &Signature, pinned: bool) -> Result<bool, CacheError>;

    /// Reads and checks every entry. `progress` is called after each.
    ///
    /// # Errors
    /// When the entries cannot be listed. Damage is not an error but a finding.
    fn verify(
        &self,
        options: VerifyOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<VerifyReport, CacheError>;

    /// Removes everything, pinned entries and statistics included.
    ///
    /// # Errors
    /// When something cannot be removed.
    fn clear(&self) -> Result<ClearReport, CacheError>;

    /// Removes entries until the limits hold; with `dry_run` only says which.
    ///
    /// # Errors
    /// When entries cannot be listed or removed.
    fn collect_garbage(&self, limits: &GcLimits, dry_run: bool) -> Result<GcReport, CacheError>;

    /// Statistics over the life of the cache, as far as they have been kept.
    ///
    /// # Errors
    /// When the entries cannot be listed.
    fn stats(&self) -> Result<CacheStats, CacheError>;
}

/// One entry, as listed. Times are µs since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryInfo {
    /// Names the entry.
    pub signature: Signature,
    /// Bytes of the object file.
    pub object_bytes: u64,
    /// Bytes of the object file as it is stored.
    pub stored_bytes: u64,
    /// How it is stored.
    pub codec: Codec,
    /// Bytes the entry takes where it is kept, in allocated blocks and with its overhead.
    pub disk_bytes: u64,
    /// When the entry was made.
    pub created_unix_us: u64,
    /// When it was last used, to the hour.
    pub last_used_unix_us: u64,
    /// How often it was used, as far as that has been written down.
    pub hits: u64,
    /// What its compilation took, in µs.
    pub compile_time_us: u64,
    /// The namespace it was offered under.
    pub namespace: String,
    /// Eviction passes it over.
    pub pinned: bool,
}

impl EntryInfo {
    /// A fresh entry.
    pub(crate) fn new(compiled: &CompiledObject<'_>, disk_bytes: u64, now_unix_us: u64) -> Self {
        Self {
            signature: compiled.signature,
            object_bytes: compiled.object.len() as u64,
            stored_bytes: compiled.object.len() as u64,
            codec: Codec::Plain,
            disk_bytes,
            created_unix_us: now_unix_us,
            last_used_unix_us: now_unix_us,
            hits: 0,
            compile_time_us: microseconds(compiled.compile_time),
            namespace: compiled.namespace.to_owned(),
            pinned: false,
        }
    }
}

/// What is kept beside an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRecord {
    /// The key document its signature was made of; may be empty.
    pub key_document: Vec<u8>,
    /// Where the object came from.
    pub provenance: Provenance,
    /// The CPU features that its code may use, ascending.
    pub cpu_features: Vec<String>,
    /// Who signed it. That the signatures are true is checked when they have to be.
    pub signed_by: Vec<PublicKey>,
    /// It has a MAC, by whatever key.
    pub has_mac: bool,
}

/// What `verify` does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Take damaged entries out, so that the next offer heals them.
    pub repair: bool,
}

/// How far a long operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Entries done.
    pub done: u64,
    /// Entries in all.
    pub total: u64,
    /// Bytes read so far.
    pub bytes: u64,
}

/// What `verify` found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Entries read.
    pub checked: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Damaged entries, by ascending signature.
    pub damaged: Vec<DamagedEntry>,
    /// How many of them were taken out.
    pub repaired: u64,
    /// Sound entries that nobody who is believed vouches for, by ascending signature. They stay, whatever is asked
    /// for: others may believe them.
    pub not_vouched_for: Vec<DamagedEntry>,
}

impl VerifyReport {
    /// Puts an entry that would not be used into the list that its reason is of.
    pub(crate) fn find(&mut self, entry: DamagedEntry) {
        match entry.reason.is_of_trust() {
            true => self.not_vouched_for.push(entry),
            false => self.damaged.push(entry),
        }
    }
}

/// One damaged entry, or one that is not used for another reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedEntry {
    /// The signature it is filed under.
    pub signature: Signature,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What `clear` removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClearReport {
    /// Entries removed.
    pub entries: u64,
    /// Bytes they took.
    pub disk_bytes: u64,
}

impl ClearReport {
    pub(crate) fn of(entries: &[EntryInfo]) -> Self {
        let disk_bytes = total(entries.iter().map(|entry| entry.disk_bytes));
        Self { entries: entries.len() as u64, disk_bytes }
    }
}

/// What is to hold after a collection. `None` means: no such limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcLimits {
    /// Bytes that all entries together may take, counted as [`EntryInfo::disk_bytes`].
    pub max_size: Option<u64>,
    /// How long ago an entry may have been used last.
    pub max_age: Option<Duration>,
    /// How many entries there may be.
    pub max_entries: Option<u64>,
    /// Bytes that the entries of a namespace may take, by its name.
    pub namespace_max_size: BTreeMap<String, u64>,
}

/// What a collection did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// What was (or would be) removed, in that order.
    pub removed: Vec<EntryInfo>,
    /// The bytes that frees.
    pub removed_bytes: u64,
    /// Entries that stay.
    pub kept: u64,
    /// The bytes they take.
    pub kept_bytes: u64,
}

impl GcReport {
    /// What the policy would remove out of `entries`.
    pub(crate) fn of(entries: Vec<EntryInfo>, limits: &GcLimits, now_unix_us: u64) -> Self {
        Self::and_rest(entries, limits, now_unix_us).0
    }

    /// The same, and the entries that stay.
    pub(crate) fn and_rest(
        entries: Vec<EntryInfo>,
        limits: &GcLimits,
        now_unix_us: u64,
    ) -> (Self, Vec<EntryInfo>) {
        let victims = evict::choose_victims(&entries, limits, now_unix_us);
        let bytes = total(entries.iter().map(|entry| entry.disk_bytes));
        let mut entries: Vec<Option<EntryInfo>> = entries.into_iter().map(Some).collect();
        let removed: Vec<EntryInfo> = victims.into_iter().filter_map(|at| entries[at].take()).collect();
        let rest: Vec<EntryInfo> = entries.into_iter().flatten().collect();
        let removed_bytes = total(removed.iter().map(|entry| entry.disk_bytes));
        let kept_bytes = bytes.saturating_sub(removed_bytes);
        (Self { removed, removed_bytes, kept: rest.len() as u64, kept_bytes }, rest)
    }
}

/// Statistics of a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Entries there are now.
    pub entries: u64,
    /// Bytes of their object files.
    pub object_bytes: u64,
    /// Bytes they take, as [`EntryInfo::disk_bytes`].
    pub disk_bytes: u64,
    /// The size it is kept under, in bytes.
    pub max_size: u64,
    /// Look-ups that were answered.
    pub hits: u64,
    /// Look-ups that were not.
    pub misses: u64,
    /// Objects taken in.
    pub puts: u64,
    /// Bytes of the object files taken in.
    pub put_bytes: u64,
    /// Damaged entries taken out.
    pub quarantined: u64,
    /// Entries removed to keep under the limits.
    pub evicted: u64,
    /// What hits saved, in µs of compile time.
    pub saved_compile_time_us: u64,
    /// Offers not taken in because their compilation was too short or their object too large for the limits
    /// that were set.
    pub declined: u64,
    /// Offers not taken in because there was no room, and none could be made at once.
    pub full: u64,
    /// Failed compilations taken in.
    pub failures: u64,
    /// Look-ups answered with a failed compilation.
    pub failure_hits: u64,
    /// Time spent on taking objects in.
    pub put_time: Duration,
    /// How long look-ups took that were answered.
    pub hit_latency: Latencies,
    /// How long look-ups took that were not.
    pub miss_latency: Latencies,
    /// How often each reason to do less came up; only those that did.
    pub reasons: Vec<(Reason, u64)>,
}

impl CacheStats {
    /// Time that the cache itself took: look-ups, and taking objects in.
    pub fn spent(&self) -> Duration {
        [self.hit_latency.total(), self.miss_latency.total()]
            .into_iter()
            .fold(self.put_time, Duration::saturating_add)
    }

    /// Fills in what the entries tell.
    pub(crate) fn count_entries(&mut self, entries: &[EntryInfo]) {
        self.entries = entries.len() as u64;
        self.object_bytes = total(entries.iter().map(|entry| entry.object_bytes));
        self.disk_bytes = total(entries.iter().map(|entry| entry.disk_bytes));
    }
}

/// A sum of figures that may be nonsense, because they were read from a damaged file: it does not overflow.
pub(crate) fn total(figures: impl Iterator<Item = u64>) -> u64 {
    figures.fold(0, u64::saturating_add)
}
