//! The default cache: one directory, many processes, one file per entry.
//!
//! This file holds the store's answers to an engine; it reads as what happens on a hit, a miss and a put.
//! What the parts do is in the modules below: [`directory`] (where everything lies), [`entries`] (the hit
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
mod tidy;
mod totals;
mod trace;
mod usage;
mod victims;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use objcache_signature::Signature;

use crate::buffer::Buffer;
use crate::clock::{self, now_unix_us};
use crate::entry::{ENTRY_LIMIT, Encoded, Trailer};
use crate::error::{CacheError, Reason};
use crate::keyed_lock::{KeyedGuard, KeyedLocks};
use crate::object::{CompileFailure, CompiledObject, ObjectBuffer};
use crate::object_cache::{CompilePermit, FailedCompile, ObjectCache, RunMark};
use crate::trust::Gate;
pub use config::{Configuration, Origin, PROJECT_FILE, SETTINGS, Setting, closest};
use counters::Counter;
use directory::{Access, Directory, EntryName, LOCKS};
pub use doctor::{Check, CheckState, examine};
use entries::{Damage, Found};
pub use fsck::{Fault, Finding, FsckReport};
use health::{Health, Service};
use layers::Layers;
pub use layers::{LayerInfo, LayerKind};
use lock_file::LockFile;
use misses::Noted;
pub use misses::{Miss, MissEnd};
pub use options::{DEFAULT_MAX_SIZE, SMALLEST_MAX_SIZE, StoreOptions, parse_size, parse_span};
pub use packs::{ImportReport, PackMode, PackReport, PackSelection};
pub use recompress::{RecompressPolicy, RecompressReport, Recompressed};
use recorder::{Extent, Recorder, Written};
use running::Running;
use tidy::Tidier;
use trace::Tracer;
pub use trace::{Trace, TraceState};
pub use usage::DiskUsage;

/// The quarantine may take this part of the store's size.
const QUARANTINE_SHARE: u64 = 16;
/// A trace in its directory may take this part of it.
const TRACE_SHARE: u64 = 16;

/// How often, and with what pause, a store that is closed tries to write down what it counted.
const LAST_TRIES: u32 = 50;
const LAST_PAUSE: Duration = Duration::from_millis(2);

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

/// What the background work needs as well.
struct Shared {
    options: StoreOptions,
    // `None`: the store was off from the beginning.
    directory: Option<Arc<Directory>>,
    health: Health,
    recorder: Recorder,
    locks: KeyedLocks,
    layers: Layers,
    tracer: Tracer,
    // What dead processes left has been removed.
    swept: AtomicBool,
    // The last wait for the journal was in vain: whoever has it locked is stopped.
    journal_is_stuck: AtomicBool,
    // The network file system that the directory is on.
    network: Option<&'static str>,
    gate: Gate,
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

    fn new(mut options: StoreOptions, directory: Result<(Directory, Access), CacheError>) -> Self {
        options.max_size = options.max_size.max(SMALLEST_MAX_SIZE);
        let mut shared = Shared {
            health: Health::new(options.strict),
            recorder: Recorder::default(),
            locks: KeyedLocks::default(),
            layers: Layers::default(),
            tracer: Tracer::default(),
            swept: AtomicBool::new(false),
            journal_is_stuck: AtomicBool::new(false),
            network: None,
            gate: Gate::new(options.trust.clone()),
            directory: None,
            options,
        };
        shared.complain();
        match directory {
            Ok((directory, access)) => shared.adopt(directory, access),
            Err(error) => {
                shared.health.lower_to(Service::Off, error.reason());
                shared.degrade_quietly(error);
            }
        }
        shared.begin_to_trace();
        Self { shared: Arc::new(shared), tidier: Tidier::default() }
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

impl Shared {
    fn adopt(&mut self, directory: Directory, access: Access) {
        let directory = Arc::new(directory);
        self.network = match self.options.network {
            None => file_system::network(directory.root()),
            Some(is_network) => is_network.then_some("network"),
        };
        if access == Access::WriteFresh {
            // Without it the store would only be measured, and soon.
            let overhead = tidy::overhead(&directory, &self.options).unwrap_or_default();
            let _ = journal::begin(&directory, overhead);
        }
        if self.options.read_only {
            // As was asked for: nothing to warn of.
            self.health.lower_to(Service::ReadOnly, Reason::OpenedReadOnly);
        } else if access == Access::Read {
            self.health.lower_to(Service::ReadOnly, Reason::ReadOnly);
            let path = directory.path().display().to_string();
            self.degrade_quietly(CacheError::new(Reason::ReadOnly, path));
        }
        self.directory = Some(directory);
    }

    fn complain(&self) {
        for (reason, what) in &self.options.complaints {
            self.degrade_quietly(CacheError::new(*reason, what.clone()));
        }
    }

    /// For trouble that no caller is there to be told of: counted and warned of.
    fn degrade_quietly(&self, error: CacheError) {
        let _ = self.health.degrade(&self.recorder.counters, error);
    }

    fn readable(&self) -> Option<&Arc<Directory>> {
        self.directory.as_ref().filter(|_| self.health.service() < Service::Off)
    }

    fn writable(&self) -> Option<&Arc<Directory>> {
        self.directory.as_ref().filter(|_| self.health.service() == Service::ReadWrite)
    }

    /// Removes what dead processes left. That it cannot be removed now is no trouble of this process.
    fn sweep(&self, directory: &Arc<Directory>) {
        self.swept.store(true, Ordering::Relaxed);
        let _ = directory.move_links_away();
        let _ = directory.sweep_temporaries();
        let _ = lock_file::sweep(directory);
    }

    /// The same for the first of many uses: a process that only reads leaves things as they are.
    fn sweep_once(&self, directory: &Arc<Directory>) {
        if !self.swept.load(Ordering::Relaxed) {
            self.sweep(directory);
        }
    }

    fn io_failed(&self, what: String, error: io::Error) -> Result<(), CacheError> {
        let error = self.why(what, error);
        self.health.io_failed(&self.recorder.counters, error)
    }

    /// An error with its reason: what is not found may be so because the whole directory is gone.
    fn why(&self, what: String, error: io::Error) -> CacheError {
        let is_gone = || self.directory.as_ref().is_some_and(|directory| directory.is_gone());
        if error.kind() == io::ErrorKind::NotFound && is_gone() {
            CacheError::new(Reason::DirectoryGone, what).with_source(error)
        } else {
            CacheError::io(what, error)
        }
    }

    fn miss(&self, signature: &Signature, started: Instant) {
        // The second look of a compilation that this process is about to do is not another miss.
        if !self.locks.is_held(signature) {
            self.recorder.counters.add(Counter::Misses, 1);
            self.recorder.took(started, Counter::MissTimeNs, Counter::MissLatency);
        }
    }

    fn damaged(
        &self,
        directory: &Directory,
        signature: &Signature,
        damage: &Damage,
    ) -> Result<(), CacheError> {
        if self.health.service() == Service::ReadWrite {
            match entries::quarantine(directory, signature, damage, self.quarantine_bytes()) {
                Ok(moved) => self.recorder.counters.add(Counter::Quarantined, u64::from(moved)),
                Err(error) => self.io_failed(format!("quarantine of entry {signature}"), error)?,
            }
        }
        let error = CacheError::new(damage.reason, format!("entry {signature}"));
        self.health.degrade(&self.recorder.counters, error)
    }

    /// A sound entry that is not for this process.
    fn refused(&self, signature: &Signature, reason: Reason) -> Result<(), CacheError> {
        let error = CacheError::new(reason, format!("entry {signature}"));
        self.health.degrade(&self.recorder.counters, error)
    }

    /// What the quarantine may take, in bytes.
    fn quarantine_bytes(&self) -> u64 {
        self.options.max_size / QUARANTINE_SHARE
    }

    /// Looks for an entry in the layers.
    fn find_in_layers(
        &self,
        signature: &Signature,
        complain: &mut dyn FnMut(CacheError),
    ) -> Option<(Buffer, Trailer)> {
        let paths = || {
            let mut paths = self.options.layers.clone();
            if let Some(directory) = self.readable() {
                // That they cannot be read leaves the others.
                paths.extend(layers::mounted(directory).unwrap_or_default());
            }
            paths
        };
        self.layers.find(paths, signature, &self.gate, complain)
    }

    fn begin_to_trace(&self) {
        if let Some(path) = self.options.trace.as_ref().filter(|_| !self.options.disabled)
            && let Err(error) = self.tracer.also_to(path)
        {
            self.degrade_quietly(error);
        }
        if let Some(directory) = self.writable() {
            self.tracer.look(directory, self.options.max_size / TRACE_SHARE);
        }
    }

    fn trace(&self, signature: &Signature) {
        if let Err(error) = self.tracer.used(signature) {
            self.degrade_quietly(error);
        }
    }

    /// Whether somebody began to trace, which what is not written down yet is part of.
    fn look_for_a_trace(&self, directory: &Directory) {
        if self.tracer.look(directory, self.options.max_size / TRACE_SHARE) {
            self.recorder.pending().iter().for_each(|signature| self.trace(signature));
        }
    }

    /// Writes down what was counted. Returns whether the store should be tidied.
    fn write_down(&self, directory: &Directory, extent: Extent) -> bool {
        self.look_for_a_trace(directory);
        match self.recorder.write(directory, &self.options, extent) {
            Ok(Written::All(state)) => self.is_due(directory, &state),
            Ok(Written::Nothing | Written::Busy) => false,
            Err(error) => {
                // Statistics are worth neither an error nor less service.
                self.degrade_quietly(self.why("journal".to_owned(), error));
                false
            }
        }
    }

    /// Whether the store should be tidied. Says so when the clock was set back since the last time.
    fn is_due(&self, directory: &Directory, state: &journal::State) -> bool {
        let now = now_unix_us();
        if tidy::clock_was_set_back(&state.header, now) {
            let path = directory.path().display().to_string();
            self.degrade_quietly(CacheError::new(Reason::ClockSetBack, path));
        }
        tidy::is_due(state, &self.options, now)
    }

    /// Writes down what is left, and waits a little for a journal that another process has locked.
    fn write_down_at_last(&self) {
        let tries = if self.journal_is_stuck.load(Ordering::Relaxed) { 1 } else { LAST_TRIES };
        for _ in 0..tries {
            let Some(directory) = self.writable() else { return };
            match self.recorder.write(directory, &self.options, Extent::All) {
                Ok(Written::Busy) => std::thread::sleep(LAST_PAUSE),
                Ok(Written::Nothing | Written::All(_)) | Err(_) => return,
            }
        }
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
            Ok(Found::Damaged(damage)) => shared.damaged(directory, signature, &damage)?,
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
            let is_entry = error.reason() == Reason::LayerDamaged;
            let degraded = shared.health.degrade(&shared.recorder.counters, error);
            // A layer that cannot be used is no error, however strict: it was not there to be asked.
            if is_entry && trouble.is_ok() {
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
                drop(self.shared.io_failed(format!("entry {signature}"), error));
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

impl ObjectCache for Store {
    fn get_object(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
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

    fn notify_object_compiled(&self, compiled: &CompiledObject<'_>) -> Result<(), CacheError> {
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

    fn get_failure(&self, signature: &Signature) -> Result<Option<CompileFailure>, CacheError> {
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

    fn notify_compile_failed(
        &self,
        signature: &Signature,
        failure: &CompileFailure,
    ) -> Result<(), CacheError> {
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

impl Shared {
    fn mark_running(&self, signature: &Signature) -> Option<RunMark> {
        let directory = self.writable()?;
        let mut running = match Running::mark(directory, signature) {
            Ok(running) => running,
            Err(error) => {
                // Whoever asked does without.
                self.degrade_quietly(CacheError::io(format!("mark of entry {signature}"), error));
                return None;
            }
        };
        let is_suspect = running.is_suspect();
        if is_suspect {
            let damage = Damage::by_name(directory, &EntryName::of(signature), Reason::CrashLoop);
            let _ = self.damaged(directory, signature, &damage);
            running.forget_the_dead();
        }
        Some(RunMark::holding(is_suspect, running))
    }
}

/// Ends in this order: other processes may go on before other threads look.
struct Excluded {
    _processes: Option<LockFile>,
    _threads: KeyedGuard,
}

impl Shared {
    fn permit(&self, signature: &Signature, deadline: Instant) -> Option<CompilePermit> {
        let threads = self.locks.lock_until(signature, deadline)?;
        let processes = match self.writable() {
            Some(directory) => {
                self.sweep_once(directory);
                let name = format!("{LOCKS}/{signature}");
                match LockFile::acquire_until(directory, &name, deadline) {
                    Ok(Some(lock)) => Some(lock),
                    Ok(None) => return None,
                    Err(error) => {
                        self.no_lock(error);
                        None
                    }
                }
            }
            // Nothing will be published, so there is nothing others could wait for.
            None => None,
        };
        Some(CompilePermit::holding(Excluded { _processes: processes, _threads: threads }))
    }

    fn no_lock(&self, error: io::Error) {
        use rustix::io::Errno;
        let what = "lock of a compilation".to_owned();
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOLCK | Errno::NOTSUP | Errno::NOSYS) => {
                self.degrade_quietly(CacheError::new(Reason::LocksUnsupported, what).with_source(error));
            }
            _ => drop(self.io_failed(what, error)),
        }
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
