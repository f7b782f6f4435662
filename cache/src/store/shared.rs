//! What a store shares with its background work: the directory, how far it can be used, what is counted, and what
//! becomes of a failure.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use objcache_signature::Signature;
use parking_lot::Mutex;

use super::counters::Counter;
use super::directory::{Access, Directory, EntryName, LOCKS, TEMPORARY, is_fan};
use super::entries::{self, Damage};
use super::fsck::Fault;
use super::health::{Health, Service};
use super::layers::{self, Layers};
use super::lock_file::{self, LockFile};
use super::recorder::{Extent, Recorder, Written};
use super::running::Running;
use super::trace::Tracer;
use super::{SMALLEST_MAX_SIZE, StoreOptions, file_system, journal, tidy};
use crate::buffer::Buffer;
use crate::clock::now_unix_us;
use crate::entry::Trailer;
use crate::error::{CacheError, Reason};
use crate::keyed_lock::{KeyedGuard, KeyedLocks};
use crate::object_cache::{CompilePermit, RunMark};
use crate::trust::Gate;

/// The quarantine may take this part of the store's size.
const QUARANTINE_SHARE: u64 = 16;
/// A trace in its directory may take this part of it.
const TRACE_SHARE: u64 = 16;

/// How often, and with what pause, a store that is closed tries to write down what it counted.
const LAST_TRIES: u32 = 50;
const LAST_PAUSE: Duration = Duration::from_millis(2);
/// How long a strict store waits for a journal whose holder does nothing, when it is closed.
const LAST_PATIENCE: Duration = Duration::from_millis(100);

/// What the background work needs as well.
pub(super) struct Shared {
    pub(super) options: StoreOptions,
    // `None`: the store was off from the beginning.
    pub(super) directory: Option<Arc<Directory>>,
    pub(super) health: Health,
    pub(super) recorder: Recorder,
    pub(super) locks: KeyedLocks,
    pub(super) layers: Layers,
    pub(super) tracer: Tracer,
    // What was removed when the store was opened, for whoever opened it to ask what was not as it should be.
    pub(super) left_by_the_dead: Mutex<Vec<(String, Fault)>>,
    // What dead processes left has been removed.
    pub(super) swept: AtomicBool,
    // The last wait for the journal was in vain: whoever has it locked is stopped.
    pub(super) journal_is_stuck: AtomicBool,
    // The network file system that the directory is on.
    pub(super) network: Option<&'static str>,
    pub(super) gate: Gate,
}

impl Shared {
    pub(super) fn new(mut options: StoreOptions, directory: Result<(Directory, Access), CacheError>) -> Self {
        options.max_size = options.max_size.max(SMALLEST_MAX_SIZE);
        let mut shared = Shared {
            health: Health::new(&options),
            recorder: Recorder::default(),
            locks: KeyedLocks::default(),
            layers: Layers::new(options.strict),
            tracer: Tracer::default(),
            left_by_the_dead: Mutex::default(),
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
        shared
    }

    fn adopt(&mut self, directory: Directory, access: Access) {
        let directory = Arc::new(directory);
        self.network = match self.options.network {
            None => file_system::network(directory.root()),
            Some(is_network) => is_network.then_some("network"),
        };
        if access == Access::WriteFresh {
            // Without it the store would only be measured, and soon.
            let overhead = tidy::overhead(&directory, &self.options).unwrap_or_default();
            let is_empty = directory
                .names_in(".")
                .is_ok_and(|names| !names.iter().any(|name| name.to_str().is_some_and(is_fan)));
            // What a store takes that has only lost its head is to be found out.
            if is_empty {
                let _ = journal::begin(&directory, overhead);
            }
        }
        if access != Access::Read && !self.options.read_only {
            self.sweep_what_the_dead_left(&directory);
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
    pub(super) fn degrade_quietly(&self, error: CacheError) {
        self.health.degrade_quietly(&self.recorder.counters, error);
    }

    pub(super) fn readable(&self) -> Option<&Arc<Directory>> {
        self.directory.as_ref().filter(|_| self.health.service() < Service::Off)
    }

    pub(super) fn writable(&self) -> Option<&Arc<Directory>> {
        self.directory.as_ref().filter(|_| self.health.service() == Service::ReadWrite)
    }

    /// Removes what dead processes left. That it cannot be removed now is no trouble of this process.
    pub(super) fn sweep(&self, directory: &Arc<Directory>) {
        self.swept.store(true, Ordering::Relaxed);
        sweep(directory);
    }

    /// The same when a store is opened, if there is anything to be seen of them.
    fn sweep_what_the_dead_left(&self, directory: &Arc<Directory>) {
        let has_names = |folder| directory.names_in(folder).is_ok_and(|names| !names.is_empty());
        if has_names(TEMPORARY) || has_names(LOCKS) {
            *self.left_by_the_dead.lock() = sweep(directory);
        }
    }

    /// The same for the first of many uses: a process that only reads leaves things as they are.
    pub(super) fn sweep_once(&self, directory: &Arc<Directory>) {
        if !self.swept.load(Ordering::Relaxed) {
            self.sweep(directory);
            // That is how it was before this process went to work.
            self.left_by_the_dead.lock().clear();
        }
    }

    pub(super) fn io_failed(&self, what: String, error: io::Error) -> Result<(), CacheError> {
        let is_denied = error.kind() == io::ErrorKind::PermissionDenied;
        let error = self.why(what, error);
        if is_denied && self.writable().is_some_and(|directory| directory.can_be_written()) {
            // One place in it cannot; the others can.
            return self.health.degrade(&self.recorder.counters, error);
        }
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

    pub(super) fn miss(&self, signature: &Signature, started: Instant) {
        // The second look of a compilation that this process is about to do is not another miss.
        if !self.locks.is_held(signature) {
            self.recorder.counters.add(Counter::Misses, 1);
            self.recorder.took(started, Counter::MissTimeNs, Counter::MissLatency);
        }
    }

    pub(super) fn damaged(&self, signature: &Signature, damage: &Damage) -> Result<(), CacheError> {
        if let Some(directory) = self.writable() {
            self.sweep_once(directory);
            self.recorder.gone(signature);
            match entries::quarantine(directory, signature, damage, self.quarantine_bytes()) {
                Ok(moved) => self.recorder.counters.add(Counter::Quarantined, u64::from(moved)),
                Err(error) => self.io_failed(format!("quarantine of entry {signature}"), error)?,
            }
        }
        let error = CacheError::new(damage.reason, format!("entry {signature}"));
        self.health.degrade(&self.recorder.counters, error)
    }

    /// A sound entry that is not for this process.
    pub(super) fn refused(&self, signature: &Signature, reason: Reason) -> Result<(), CacheError> {
        let error = CacheError::new(reason, format!("entry {signature}"));
        self.health.degrade(&self.recorder.counters, error)
    }

    /// What the quarantine may take, in bytes.
    pub(super) fn quarantine_bytes(&self) -> u64 {
        self.options.max_size / QUARANTINE_SHARE
    }

    /// Looks for an entry in the layers.
    pub(super) fn find_in_layers(
        &self,
        signature: &Signature,
        complain: &mut dyn FnMut(CacheError),
    ) -> Option<(Buffer, Trailer)> {
        let paths = || {
            let mut paths = self.options.layers.clone();
            if let Some(directory) = self.readable() {
                match layers::mounted(directory) {
                    Ok(mounted) => paths.extend(mounted),
                    // The others are left.
                    Err(error) => self.health.owe(CacheError::io("list of mounted layers", error)),
                }
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

    pub(super) fn trace(&self, signature: &Signature) {
        if let Err(error) = self.tracer.used(signature) {
            self.degrade_quietly(error);
        }
    }

    /// Whether somebody began to trace, which what is not written down yet is part of.
    pub(super) fn look_for_a_trace(&self, directory: &Directory) {
        if self.tracer.look(directory, self.options.max_size / TRACE_SHARE) {
            self.recorder.pending().iter().for_each(|signature| self.trace(signature));
        }
    }

    /// Writes down what was counted. Returns whether the store should be tidied.
    pub(super) fn write_down(&self, directory: &Directory, extent: Extent) -> bool {
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
    pub(super) fn is_due(&self, directory: &Directory, state: &journal::State) -> bool {
        let now = now_unix_us();
        if tidy::clock_was_set_back(&state.header, now) {
            let path = directory.path().display().to_string();
            self.degrade_quietly(CacheError::new(Reason::ClockSetBack, path));
        }
        tidy::is_due(state, &self.options, now)
    }

    /// Writes down what is left, and waits a little for a journal that another process has locked.
    pub(super) fn write_down_at_last(&self) {
        let tries = if self.journal_is_stuck.load(Ordering::Relaxed) { 1 } else { LAST_TRIES };
        for _ in 0..tries {
            let Some(directory) = self.writable() else { return };
            match self.recorder.write(directory, &self.options, Extent::All) {
                Ok(Written::Busy) => std::thread::sleep(LAST_PAUSE),
                Ok(Written::Nothing | Written::All(_)) => return,
                Err(error) => return self.health.owe(self.why("journal".to_owned(), error)),
            }
        }
        if self.health.is_strict() {
            self.insist_on_writing();
        }
    }

    /// What was counted is about to be lost. One that is at work is waited for: that is no trouble.
    fn insist_on_writing(&self) {
        let Some(directory) = self.writable() else { return };
        match self.recorder.append(directory, &self.options, LAST_PATIENCE, |_| ()) {
            Ok(Some(_)) => {}
            Ok(None) => self.health.owe(CacheError::new(Reason::JournalStuck, "statistics")),
            Err(error) => self.health.owe(self.why("journal".to_owned(), error)),
        }
    }
}

impl Shared {
    pub(super) fn mark_running(&self, signature: &Signature) -> Option<RunMark> {
        let directory = self.writable()?;
        self.sweep_once(directory);
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
            self.health.quietly(self.damaged(signature, &damage));
            running.forget_the_dead();
        }
        Some(RunMark::holding(is_suspect, running))
    }
}

/// What was removed, and what it was.
fn sweep(directory: &Arc<Directory>) -> Vec<(String, Fault)> {
    let _ = directory.move_links_away();
    let temporaries = directory.sweep_temporaries().unwrap_or_default();
    let locks = lock_file::sweep(directory).unwrap_or_default();
    let temporaries = temporaries.into_iter().map(|path| (path, Fault::OrphanedTemporary));
    temporaries.chain(locks.into_iter().map(|path| (path, Fault::StaleLock))).collect()
}

/// Ends in this order: other processes may go on before other threads look.
struct Excluded {
    _processes: Option<LockFile>,
    _threads: KeyedGuard,
}

impl Shared {
    pub(super) fn permit(&self, signature: &Signature, deadline: Instant) -> Option<CompilePermit> {
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
            _ => self.health.quietly(self.io_failed(what, error)),
        }
    }
}
