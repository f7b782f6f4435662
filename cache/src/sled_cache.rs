//! Whole objects in one sled database, for embedders who want no tree of files and have one process.
//!
//! Values are entries in the format of [`crate::entry`], and checked like them: sled finds some damage by
//! itself and lets other damage pass. What sled takes on disk is a multiple of what is put in, up to three
//! times after much churn; [`Store`](crate::Store) is the default for good reasons.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use objcache_signature::Signature;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

use crate::admin::{
    CacheAdmin, CacheStats, ClearReport, DamagedEntry, EntryInfo, EntryRecord, GcLimits, GcReport, Progress,
    VerifyOptions, VerifyReport,
};
use crate::clock::now_unix_us;
use crate::codec;
use crate::compression::{Codec, Compression};
use crate::cpu::HostFeatures;
use crate::entry::{Encoded, Trailer};
use crate::error::{CacheError, Reason};
use crate::failures::Failures;
use crate::index::{Index, LOCK_WAIT};
use crate::keyed_lock::KeyedLocks;
use crate::known::Known;
use crate::object::{CompileFailure, CompiledObject, ObjectBuffer};
use crate::object_cache::{CompilePermit, ObjectCache};
use crate::sled_guard::{Database, DatabaseError, Keyspace, Segment, Write};
use crate::trust::{Gate, Trust};
use crate::warning::warn_once;

const OBJECTS: Keyspace = Keyspace(0);
const ENTRIES: Keyspace = Keyspace(1);

/// Objects in one sled database that one process has open.
///
/// Use counts are written when it is dropped or [flushed](Self::flush); statistics are those since it was
/// opened. Trouble with the database makes every look-up a miss, with one warning.
pub struct SledCache {
    // Closed before the lock goes.
    database: Database,
    locks: KeyedLocks,
    failures: Failures,
    index: Mutex<Index>,
    gate: Gate,
    _lock: File,
}

/// What is to be written down of an entry.
fn write_of(info: &EntryInfo) -> Option<Write> {
    Some((info.signature.as_bytes().to_vec(), Some(codec::encode(&Known::of(info))?)))
}

impl SledCache {
    /// Opens or makes the cache in `directory`. `max_size` bounds the entries, in bytes; the database on disk
    /// may take up to three times that.
    ///
    /// # Errors
    /// When another process (or another instance in this one) has it open: [`Reason::InUse`]; or when the
    /// directory cannot be used.
    pub fn open(directory: impl AsRef<Path>, max_size: u64) -> Result<Self, CacheError> {
        let directory = directory.as_ref();
        let named = || directory.display().to_string();
        let lock = lock(directory).map_err(|error| CacheError::io(named(), error))?;
        let lock = lock.ok_or_else(|| CacheError::new(Reason::InUse, named()))?;
        let opened = Database::open(&directory.join("sled"), &["objects", "entries"], Segment::LARGE);
        let (database, rebuilt) = opened.map_err(|error| failure(&error, named()))?;
        if rebuilt {
            warn_once(&CacheError::new(Reason::CatalogueRebuilt, named()));
        }
        let index = known_entries(&database, max_size).map_err(|error| failure(&error, named()))?;
        Ok(Self {
            database,
            locks: KeyedLocks::default(),
            failures: Failures::default(),
            index: Mutex::new(index),
            gate: Gate::default(),
            _lock: lock,
        })
    }

    /// Remembers failed compilations for so long, in memory; the default is not at all.
    pub fn remember_failures(mut self, ttl: Duration) -> Self {
        self.failures.ttl = Some(ttl);
        self
    }

    /// Writes everything down, so that it survives a power cut.
    ///
    /// # Errors
    /// When the database fails.
    pub fn flush(&self) -> Result<(), CacheError> {
        let infos = self.index.lock().list();
        let writes = infos.iter().filter_map(write_of);
        let written = self.database.write(ENTRIES, writes).and_then(|()| self.database.flush());
        written.map_err(|error| failure(&error, "flush"))
    }

    fn drop_objects<'a>(
        &self,
        signatures: impl Iterator<Item = &'a Signature> + Clone,
    ) -> Result<(), DatabaseError> {
        let removal = |signature: &Signature| (signature.as_bytes().to_vec(), None);
        self.database.write(OBJECTS, signatures.clone().map(removal))?;
        self.database.write(ENTRIES, signatures.map(removal))
    }

    /// The sound entry of `signature`. A damaged one is taken out.
    fn entry(&self, signature: &Signature) -> Result<Option<(Vec<u8>, Trailer)>, DatabaseError> {
        let Some(bytes) = self.database.get(OBJECTS, signature.as_bytes())? else { return Ok(None) };
        match Trailer::check(&bytes, signature, &self.gate) {
            Ok(trailer) => Ok(Some((bytes, trailer))),
            Err(reason) => {
                warn_once(&CacheError::new(reason, format!("entry {signature}")));
                let mut index = self.index.lock();
                index.quarantined();
                index.remove(signature);
                drop(index);
                self.drop_objects([signature].into_iter())?;
                Ok(None)
            }
        }
    }
}

fn lock(directory: &Path) -> io::Result<Option<File>> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(directory.join("lock"))?;
    Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok().then_some(file))
}

fn known_entries(database: &Database, max_size: u64) -> Result<Index, DatabaseError> {
    let mut index = Index::new(max_size);
    database.scan(ENTRIES, |key, value| {
        if let (Ok(key), Some(known)) = (<[u8; 32]>::try_from(key), codec::decode::<Known>(value)) {
            index.insert(known.info(Signature::from_bytes(key)));
        }
    })?;
    Ok(index)
}

fn failure(error: &DatabaseError, what: impl Into<String>) -> CacheError {
    let reason = match error {
        DatabaseError::Busy => Reason::InUse,
        DatabaseError::Io(error) => Reason::of(error),
        DatabaseError::Failed(_) | DatabaseError::ClockBefore1970 => Reason::Io,
    };
    CacheError::new(reason, what).with_source(error.to_string())
}

/// Trouble costs a compilation, never a result.
fn or_miss<T: Default>(result: Result<T, DatabaseError>) -> T {
    result.unwrap_or_else(|error| {
        warn_once(&failure(&error, "database"));
        T::default()
    })
}

impl fmt::Debug for SledCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SledCache")
    }
}

impl Drop for SledCache {
    fn drop(&mut self) {
        or_miss(self.flush().map_err(|error| DatabaseError::Failed(error.to_string())));
    }
}

impl ObjectCache for SledCache {
    fn get_object(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        let mut entry = or_miss(self.entry(signature));
        if let Some((bytes, trailer)) = &entry
            && !trailer.runs_on(bytes, &HostFeatures::detected())
        {
            warn_once(&CacheError::new(Reason::CpuFeatures, format!("entry {signature}")));
            entry = None;
        }
        let mut index = self.index.lock();
        match &entry {
            Some(_) => index.used(signature, 1, now_unix_us()),
            // The second look of a compilation that is about to be done here is not another miss.
            None if self.locks.is_held(signature) => {}
            None => index.miss(),
        }
        Ok(entry.and_then(|(bytes, trailer)| trailer.into_object(bytes).ok()))
    }

    fn notify_object_compiled(&self, compiled: &CompiledObject<'_>) -> Result<(), CacheError> {
        let now = now_unix_us();
        // Stored as it is: sled is asked for objects, not for room on the disk.
        let as_it_is = Compression::Always(Codec::Plain);
        let encoded = match Encoded::new(compiled, now, as_it_is, &Trust::everybody()) {
            Ok(encoded) => encoded,
            Err(error) => {
                warn_once(&error);
                return Ok(());
            }
        };
        let value = [&encoded.object, encoded.tail.as_slice()].concat();
        let info = EntryInfo::new(compiled, value.len() as u64, now);
        let victims = {
            let mut index = self.index.lock();
            if !index.fits(&info) {
                return Ok(());
            }
            index.put(info.clone())
        };
        // What is known first: knowledge of nothing is harmless, an object nobody knows of is never evicted.
        let written = self
            .database
            .write(ENTRIES, write_of(&info))
            .and_then(|()| {
                self.database.write(OBJECTS, [(compiled.signature.as_bytes().to_vec(), Some(value))])
            })
            .and_then(|()| self.drop_objects(victims.iter()));
        or_miss(written);
        self.failures.forget(&compiled.signature);
        Ok(())
    }

    fn get_failure(&self, signature: &Signature) -> Result<Option<CompileFailure>, CacheError> {
        Ok(self.failures.get(signature).inspect(|_| self.index.lock().failure_hit()))
    }

    fn notify_compile_failed(
        &self,
        signature: &Signature,
        failure: &CompileFailure,
    ) -> Result<(), CacheError> {
        if self.failures.remember(signature, failure) {
            self.index.lock().failure();
        }
        Ok(())
    }

    fn notify_used(&self, signature: &Signature, times: u64, _compile_time_us: u64) {
        self.index.lock().used(signature, times, now_unix_us());
    }

    fn exclude_others(&self, signature: &Signature) -> Option<CompilePermit> {
        self.locks.lock_until(signature, Instant::now() + LOCK_WAIT).map(CompilePermit::holding)
    }
}

impl CacheAdmin for SledCache {
    fn list(&self) -> Result<Vec<EntryInfo>, CacheError> {
        Ok(self.index.lock().list())
    }

    fn stat(&self, signature: &Signature) -> Result<Option<EntryInfo>, CacheError> {
        Ok(self.index.lock().get(signature).cloned())
    }

    fn peek(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        let entry = self.entry(signature).map_err(|error| failure(&error, format!("entry {signature}")))?;
        Ok(entry.and_then(|(bytes, trailer)| trailer.into_object(bytes).ok()))
    }

    fn record(&self, signature: &Signature) -> Result<Option<EntryRecord>, CacheError> {
        let entry = self.entry(signature).map_err(|error| failure(&error, format!("entry {signature}")))?;
        Ok(entry.and_then(|(bytes, trailer)| trailer.entry_record(&bytes)))
    }

    fn remove(&self, signature: &Signature) -> Result<bool, CacheError> {
        let was_there = self.index.lock().remove(signature).is_some();
        let removed = self.drop_objects([signature].into_iter());
        removed.map_err(|error| failure(&error, format!("entry {signature}")))?;
        Ok(was_there)
    }

    fn set_pinned(&self, signature: &Signature, pinned: bool) -> Result<bool, CacheError> {
        let info = {
            let mut index = self.index.lock();
            index.set_pinned(signature, pinned);
            index.get(signature).cloned()
        };
        let Some(info) = info else { return Ok(false) };
        let written = self.database.write(ENTRIES, write_of(&info));
        written.map_err(|error| failure(&error, format!("entry {signature}")))?;
        Ok(true)
    }

    fn verify(
        &self,
        options: VerifyOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<VerifyReport, CacheError> {
        let total = self.index.lock().list().len() as u64;
        let mut report = VerifyReport::default();
        let scanned = self.database.scan(OBJECTS, |key, value| {
            let Ok(key) = <[u8; 32]>::try_from(key) else { return };
            let signature = Signature::from_bytes(key);
            let reason = Trailer::check(value, &signature, &self.gate).err();
            if let Some(reason) = reason {
                report.find(DamagedEntry { signature, reason });
            }
            report.checked += 1;
            report.bytes += value.len() as u64;
            progress(Progress {
                done: report.checked,
                total: total.max(report.checked),
                bytes: report.bytes,
            });
        });
        scanned.map_err(|error| failure(&error, "verification"))?;
        if options.repair {
            for damaged in &report.damaged {
                self.remove(&damaged.signature)?;
                report.repaired += 1;
            }
        }
        Ok(report)
    }

    fn clear(&self) -> Result<ClearReport, CacheError> {
        let mut index = self.index.lock();
        let report = ClearReport::of(&index.list());
        index.clear();
        self.failures.clear();
        let cleared = self.database.clear(OBJECTS).and_then(|()| self.database.clear(ENTRIES));
        cleared.map_err(|error| failure(&error, "clear"))?;
        Ok(report)
    }

    fn collect_garbage(&self, limits: &GcLimits, dry_run: bool) -> Result<GcReport, CacheError> {
        let report = self.index.lock().collect_garbage(limits, dry_run);
        if !dry_run {
            let dropped = self.drop_objects(report.removed.iter().map(|info| &info.signature));
            dropped.map_err(|error| failure(&error, "collection"))?;
        }
        Ok(report)
    }

    fn stats(&self) -> Result<CacheStats, CacheError> {
        Ok(self.index.lock().stats())
    }
}
