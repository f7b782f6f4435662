//! The default cache: one directory, many processes, one file per entry.
//!
//! This file holds the store's answers to an engine; it reads as what happens on a hit, a miss and a put.
//! What the parts do is in the modules below: [`shared`] (what every part needs), [`directory`] (where everything lies), [`entries`] (the hit
//! path), [`lock_file`] (compile once), [`recorder`] and [`journal`] (what is written down of uses),
//! [`keeper`] and [`catalogue`] (what is known of entries), [`room`] and [`victims`] (how the bound is held),
//! [`tidy`] (eviction in the background), [`fsck`] (what is not as it should be), [`health`] (doing less instead
//! of failing), [`layers`] (what is asked beside the store's own entries), [`packs`] (entries in and out by the
//! file), [`trace`] (what was used).

mod administration;
mod catalogue;
mod config;
mod counters;
mod directory;
mod doctor;
mod entries;
mod failures;
mod file_system;
mod founding;
mod fsck;
mod group;
mod health;
mod journal;
mod keeper;
mod layers;
mod lock_file;
mod misses;
mod options;
mod packing;
mod packs;
mod parents;
mod patience;
mod recompress;
mod recorder;
mod records;
mod room;
mod running;
mod shared;
mod tidy;
mod totals;
mod trace;
mod untold;
mod usage;
mod victims;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use objcache_signature::Signature;

use crate::clock::{self, now_unix_us};
use crate::entry::{ENTRY_LIMIT, Encoded, Trailer};
use crate::error::{CacheError, Reason};
use crate::object::{CompileFailure, CompiledObject, ObjectBuffer};
use crate::object_cache::{CompilePermit, FailedCompile, ObjectCache, RunMark};
pub use config::{Configuration, LeftAside, Origin, PROJECT_FILE, SETTINGS, Setting, closest};
use counters::Counter;
use directory::{Access, Directory};
pub use doctor::{Check, CheckState, examine};
use entries::Found;
pub use fsck::{CatalogueCheck, Fault, Finding, FsckReport};
use health::Service;
pub use layers::{LayerInfo, LayerKind};
use misses::Noted;
pub use misses::{Miss, MissEnd};
pub use options::{DEFAULT_MAX_SIZE, SMALLEST_MAX_SIZE, StoreOptions, parse_size, parse_span};
pub use packs::{ImportReport, PackMode, PackReport, PackSelection};
pub use recompress::{RecompressPolicy, RecompressReport, Recompressed};
use recorder::Extent;
pub use running::unmark_running;
use shared::Shared;
use tidy::Tidier;
pub use trace::{Trace, TraceState};
pub use untold::Untold;
pub use usage::DiskUsage;

/// A directory of compiled objects that any number of processes use at once.
///
/// A hit is `openat`, `fstat`, `read` and a BLAKE3 check; no lock, no daemon, no mapping. What is damaged is a
/// miss, and healed by the next offer. Compilations of one signature are done once among all processes. A
/// store never fails its user: where it cannot work it does less, says so once, and counts.
///
/// Another user can neither read nor plant entries: the directory must belong to the caller, and nobody else
/// may write into it. A hostile process of the *same* user is out of scope; its accidents are not.
///
/// Dropping a store writes down what it has counted, and waits for its background work, if any.
pub struct Store {
    shared: Arc<Shared>,
    tidier: Tidier,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.shared.directory.as_ref().map(|directory| directory.path());
        f.debug_struct("Store")
            .field("directory", &path)
            .field("service", &self.shared.health.service())
            .field("because", &self.shared.health.because())
            .finish()
    }
}

impl Store {
    /// Opens a store, and makes its directory where it is missing.
    ///
    /// # Errors
    /// When there is no directory to use, or it is not safe to use, or the store is switched off. A directory
    /// that cannot be written is opened for reading; see [`degraded`](Self::degraded).
    pub fn open(options: StoreOptions) -> Result<Self, CacheError> {
        let directory = open_directory(&options)?;
        Ok(Self::new(options, Ok(directory)))
    }

    /// Opens a store, or one that is off: its look-ups are misses and it takes nothing. Says why, once.
    pub fn open_or_degrade(options: StoreOptions) -> Self {
        let directory = open_directory(&options);
        Self::new(options, directory)
    }

    fn new(options: StoreOptions, directory: Result<(Directory, Access), CacheError>) -> Self {
        Self { shared: Arc::new(Shared::new(options, directory)), tidier: Tidier::default() }
    }

    /// Why this store is read-only or off, if it is.
    pub fn degraded(&self) -> Option<Reason> {
        self.shared.health.because()
    }

    /// Why this store did less than it could, and how often, since it was opened; also when it is off, and can
    /// write none of it down.
    pub fn reasons(&self) -> Vec<(Reason, u64)> {
        self.shared.health.counts()
    }

    /// Whether this store answers look-ups at all.
    pub fn is_off(&self) -> bool {
        self.shared.health.service() == Service::Off
    }

    /// Where this store lies; `None` when it was off from the beginning.
    pub fn directory(&self) -> Option<&std::path::Path> {
        self.shared.directory.as_ref().map(|directory| directory.path())
    }

    /// The network file system it lies on, such as `nfs`; `None` for a local one.
    ///
    /// On one there is no catalogue: how often entries were used is known as far as the journal goes back, and
    /// nothing else differs. Compilations are done once among machines only where the share has locks.
    pub fn network_file_system(&self) -> Option<&'static str> {
        self.shared.network
    }

    /// The options it was opened with, limits applied.
    pub fn options(&self) -> &StoreOptions {
        &self.shared.options
    }

    /// What went wrong with this store, when it is [strict](StoreOptions::strict), and no call has returned.
    pub fn untold(&self) -> Untold {
        self.shared.health.untold().clone()
    }

    /// Waits until the background work that is going on is done.
    pub fn settle(&self) {
        self.tidier.wait();
    }
}

fn open_directory(options: &StoreOptions) -> Result<(Directory, Access), CacheError> {
    if options.disabled {
        return Err(CacheError::new(Reason::Disabled, "store"));
    }
    options.check()?;
    match &options.directory {
        Some(path) => Directory::open(path, options.read_only),
        None => Err(CacheError::new(Reason::NoHome, "store")),
    }
}

impl Store {
    /// What the store itself has.
    fn own_object(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        let shared = &self.shared;
        let Some(directory) = shared.readable() else {
            shared.health.declined("look-up")?;
            return Ok(None);
        };
        match entries::look_up(directory, signature, &shared.gate, &shared.options.host_features) {
            Ok(Found::Whole((object, compile_time_us))) => {
                shared.health.io_worked();
                if shared.recorder.hit(signature, 1, compile_time_us) {
                    self.write_down(Extent::Due);
                }
                return Ok(Some(object));
            }
            Ok(Found::Refused(reason)) => {
                shared.health.io_worked();
                shared.refused(signature, reason)?;
            }
            Ok(Found::Absent) => shared.health.io_worked(),
            Ok(Found::Damaged(damage)) => shared.damaged(signature, &damage)?,
            Err(error) => shared.io_failed(format!("entry {signature}"), error)?,
        }
        Ok(None)
    }

    /// What a layer has.
    fn layers_object(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        let shared = &self.shared;
        if shared.options.disabled {
            return Ok(None);
        }
        let mut trouble = Ok(());
        let found = shared.find_in_layers(signature, &mut |error| {
            if error.reason() != Reason::LayerDamaged {
                // The layer was not there to be asked, or its entry is not for us.
                return shared.degrade_quietly(error);
            }
            let degraded = shared.health.degrade(&shared.recorder.counters, error);
            if trouble.is_ok() {
                trouble = degraded;
            }
        });
        trouble?;
        let Some((bytes, trailer)) = found else { return Ok(None) };
        if !trailer.runs_on(&bytes, &shared.options.host_features) {
            shared.refused(signature, Reason::CpuFeatures)?;
            return Ok(None);
        }
        if shared.options.promote {
            self.promote(signature, &bytes, &trailer);
        }
        match trailer.into_object(bytes) {
            Ok(object) => {
                shared.recorder.hit_elsewhere(trailer.compile_time_us);
                shared.trace(signature);
                Ok(Some(object))
            }
            Err(reason) => {
                let why = CacheError::new(reason, "entry");
                let error = CacheError::new(Reason::LayerDamaged, format!("entry {signature} in a layer"));
                shared.health.degrade(&shared.recorder.counters, error.with_source(why)).map(|()| None)
            }
        }
    }

    /// Copies an entry of a layer into the store, where that works.
    fn promote(&self, signature: &Signature, entry: &[u8], trailer: &Trailer) {
        let Some(directory) = self.shared.writable() else { return };
        // Of an object that does not decompress tells whoever hands it out.
        let Ok(entry) = self.admitted(entry, trailer) else { return };
        if self.fits(entry.length()) {
            self.shared.sweep_once(directory);
            if let Err(error) = self.publish(directory, signature, &entry, trailer.object as u64) {
                self.shared.health.quietly(self.shared.io_failed(format!("entry {signature}"), error));
            }
        }
    }

    /// An entry made elsewhere, stored as if it had been put here, and with our MAC if we have a key.
    fn admitted<'e>(&self, entry: &'e [u8], trailer: &Trailer) -> Result<Encoded<'e>, Reason> {
        let StoreOptions { compression, trust, .. } = self.options();
        let recoded = match compression.is_met_by(trailer.codec, trailer.object as u64) {
            true => None,
            false => Encoded::recoded(entry, trailer, *compression, trust)?,
        };
        Ok(recoded.unwrap_or_else(|| Encoded::admitted(entry, trust)))
    }

    /// What is offered as it is to be stored; `None`: it is not taken.
    fn encoded<'a>(&self, compiled: &CompiledObject<'a>) -> Result<Option<Encoded<'a>>, CacheError> {
        let shared = &self.shared;
        if !shared.options.admits(compiled) {
            shared.recorder.counters.add(Counter::Declined, 1);
            shared.recorder.missed(Noted::declined(compiled));
            return Ok(None);
        }
        let options = &shared.options;
        if !options.trust.vouches() {
            // Nobody here would believe it, and it would take the place of one that is believed.
            return Ok(None);
        }
        let degrade = |error| shared.health.degrade(&shared.recorder.counters, error).map(|()| None);
        let encoded = match Encoded::new(compiled, now_unix_us(), options.compression, &options.trust) {
            Ok(encoded) => encoded,
            Err(error) => return degrade(error),
        };
        let length = encoded.length();
        if !self.fits(length) {
            shared.recorder.missed(Noted::refused(compiled, Reason::TooLarge));
            let what = format!("entry {} of {length} bytes", compiled.signature);
            return degrade(CacheError::new(Reason::TooLarge, what));
        }
        Ok(Some(encoded))
    }

    /// Whether an entry of this length is taken.
    fn fits(&self, length: u64) -> bool {
        length <= ENTRY_LIMIT.min(self.options().max_size / 2)
    }
}

impl Store {
    fn look_up(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        let started = Instant::now();
        let own = self.own_object(signature);
        if let Ok(Some(_)) = &own {
            self.shared.recorder.took(started, Counter::HitTimeNs, Counter::HitLatency);
            self.shared.trace(signature);
            return own;
        }
        let from_layer = match &own {
            Ok(_) => self.layers_object(signature)?,
            Err(_) => None,
        };
        match from_layer {
            Some(_) => self.shared.recorder.took(started, Counter::HitTimeNs, Counter::HitLatency),
            None => self.shared.miss(signature, started),
        }
        own.map(|_| from_layer)
    }

    fn take_in(&self, compiled: &CompiledObject<'_>) -> Result<(), CacheError> {
        let shared = &self.shared;
        let Some(directory) = shared.writable() else { return shared.health.declined("offer") };
        let started = Instant::now();
        let Some(encoded) = self.encoded(compiled)? else { return Ok(()) };
        let signature = &compiled.signature;
        shared.sweep_once(directory);
        match self.publish(directory, signature, &encoded, compiled.object.len() as u64) {
            Ok(_) => {
                shared.health.io_worked();
                shared.recorder.spent_on_put(started);
                shared.trace(signature);
                if shared.options.failure_ttl.is_some() {
                    // That it cannot be removed now is no matter: it is asked for after a miss only.
                    let _ = failures::forget(directory, signature);
                }
                Ok(())
            }
            Err(error) => shared.io_failed(format!("publication of entry {signature}"), error),
        }
    }

    fn look_up_failure(&self, signature: &Signature) -> Result<Option<CompileFailure>, CacheError> {
        let shared = &self.shared;
        let (Some(directory), Some(ttl)) = (shared.readable(), shared.options.failure_ttl) else {
            return Ok(None);
        };
        match failures::read(directory, signature, ttl) {
            Ok(failure) => {
                shared.recorder.counters.add(Counter::FailureHits, u64::from(failure.is_some()));
                Ok(failure)
            }
            Err(error) => {
                shared.io_failed(format!("failure of entry {signature}"), error)?;
                Ok(None)
            }
        }
    }

    fn take_in_failure(&self, signature: &Signature, failure: &CompileFailure) -> Result<(), CacheError> {
        let shared = &self.shared;
        let Some(directory) = shared.writable() else { return shared.health.declined("failure") };
        if shared.options.failure_ttl.is_none() || !self.reserve_beside(directory, failures::DISK_BYTES) {
            return Ok(());
        }
        match failures::write(directory, signature, failure) {
            Ok(()) => {
                shared.recorder.counters.add(Counter::Failures, 1);
                self.write_down(Extent::Due);
                Ok(())
            }
            Err(error) => shared.io_failed(format!("failure of entry {signature}"), error),
        }
    }
}

impl ObjectCache for Store {
    fn get_object(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        let found = self.look_up(signature);
        self.shared.health.untold().or(found)
    }

    fn notify_object_compiled(&self, compiled: &CompiledObject<'_>) -> Result<(), CacheError> {
        let taken = self.take_in(compiled);
        self.shared.health.untold().or(taken)
    }

    fn get_failure(&self, signature: &Signature) -> Result<Option<CompileFailure>, CacheError> {
        let found = self.look_up_failure(signature);
        self.shared.health.untold().or(found)
    }

    fn notify_compile_failed(
        &self,
        signature: &Signature,
        failure: &CompileFailure,
    ) -> Result<(), CacheError> {
        let taken = self.take_in_failure(signature, failure);
        self.shared.health.untold().or(taken)
    }

    fn notify_does_not_load(&self, signature: &Signature, why: &dyn fmt::Display) -> Result<(), CacheError> {
        match self.shared.health.is_strict() {
            true => {
                let error = CacheError::new(Reason::DoesNotLoad, format!("entry {signature}"));
                Err(error.with_source(why.to_string()))
            }
            false => Ok(()),
        }
    }

    fn notify_no_object(&self, failed: &FailedCompile<'_>) {
        if self.shared.writable().is_some() {
            self.shared.recorder.missed(Noted::failed(failed));
        }
    }

    fn notify_used(&self, signature: &Signature, times: u64, compile_time_us: u64) {
        if self.shared.readable().is_some() && self.shared.recorder.hit(signature, times, compile_time_us) {
            self.write_down(Extent::Due);
        }
        self.shared.trace(signature);
    }

    fn exclude_others(&self, signature: &Signature) -> Option<CompilePermit> {
        let deadline = clock::deadline(self.shared.options.lock_wait);
        let permit = self.shared.permit(signature, deadline);
        if permit.is_none() {
            let error = CacheError::new(Reason::LockTimeout, format!("entry {signature}"));
            self.shared.degrade_quietly(error);
        }
        permit
    }

    fn mark_running(&self, signature: &Signature) -> Option<RunMark> {
        self.shared.mark_running(signature)
    }
}

impl Store {
    fn write_down(&self, extent: Extent) {
        if let Some(directory) = self.shared.writable()
            && self.shared.write_down(directory, extent)
        {
            self.tidier.start(&self.shared);
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.write_down(Extent::All);
        self.tidier.wait();
        self.shared.write_down_at_last();
    }
}
