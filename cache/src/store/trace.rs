//! Traces: what was used while somebody had it written down.
//!
//! A trace is a text file with a signature a line. One lies in the directory of the store while tracing is on
//! there, for every process that uses it; another may be named by the environment, for one tree of processes.
//! An entry is written when a process first uses it, with one `write` to a file opened for appending, so that
//! nothing is lost when the process is killed. While nobody traces, a use costs one look at a flag: whether
//! tracing is on in the directory is looked at when a store is opened and when it writes to its journal.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use objcache_signature::Signature;
use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, renameat, statat};
use rustix::io::Errno;

use crate::error::{CacheError, Reason};
use crate::signature_hash::SignatureSet;
use crate::store::directory::{Directory, TRACE, TRACE_ENDED, file_type, is_in_the_way};

/// The longest trace that is written or read, in bytes: a million signatures.
pub(crate) const LONGEST: u64 = LINE * 1_000_000;
/// A signature and the end of its line.
const LINE: u64 = 65;

/// Signatures that were used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Each once, ascending.
    pub signatures: Vec<Signature>,
    /// It is as long as it may get, and more may have been used.
    pub full: bool,
}

impl Trace {
    /// Reads a trace. Lines that are no signature are passed over: a process may have been killed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, CacheError> {
        let read = File::open(path).and_then(Self::of);
        read.map_err(|error| CacheError::io(format!("trace {}", path.display()), error))
    }

    fn of(file: File) -> io::Result<Self> {
        let full = file.metadata()?.len().saturating_add(LINE) > LONGEST;
        let mut signatures = Vec::new();
        for line in BufReader::new(file.take(LONGEST)).split(b'\n') {
            let line = line?;
            signatures
                .extend(std::str::from_utf8(&line).ok().and_then(|text| text.parse::<Signature>().ok()));
        }
        signatures.sort_unstable();
        signatures.dedup();
        Ok(Self { signatures, full })
    }

    /// The text of a trace file.
    pub fn to_text(&self) -> String {
        self.signatures.iter().map(|signature| format!("{signature}\n")).collect()
    }
}

/// Writes down what this process uses.
#[derive(Default)]
pub(super) struct Tracer {
    on: AtomicBool,
    sinks: Mutex<Sinks>,
}

#[derive(Default)]
struct Sinks {
    // Named by the options.
    given: Option<Sink>,
    // In the store's directory.
    shared: Option<Sink>,
}

struct Sink {
    file: File,
    length: u64,
    limit: u64,
    // It is full, or cannot be written.
    ended: bool,
    // Its last writer did not get to the end of its line.
    torn: bool,
    seen: SignatureSet,
}

impl Sink {
    fn new(file: File, limit: u64) -> io::Result<Self> {
        // What others have written is not written again.
        let seen: SignatureSet = Trace::of(file.try_clone()?)?.signatures.into_iter().collect();
        let length = file.metadata()?.len();
        Ok(Self { file, length, limit, ended: false, torn: length % LINE != 0, seen })
    }

    /// An error ends it.
    fn used(&mut self, signature: &Signature) -> io::Result<()> {
        if self.ended || !self.seen.insert(*signature) {
            return Ok(());
        }
        let end = if std::mem::take(&mut self.torn) { "\n" } else { "" };
        self.length += LINE;
        let written = match self.length > self.limit {
            true => Err(io::ErrorKind::FileTooLarge.into()),
            false => self.file.write_all(format!("{end}{signature}\n").as_bytes()),
        };
        self.ended = written.is_err();
        written
    }
}

impl Sinks {
    fn any(&self) -> bool {
        [&self.given, &self.shared].into_iter().flatten().any(|sink| !sink.ended)
    }
}

impl Tracer {
    /// Also writes to this file from now on.
    pub(super) fn also_to(&self, path: &Path) -> Result<(), CacheError> {
        let mut options = fs::OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        // A FIFO would make us wait for a reader.
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
        let opened = options.open(path).and_then(|file| regular(file).and_then(|it| Sink::new(it, LONGEST)));
        let sink = opened.map_err(|error| {
            CacheError::new(Reason::TraceStopped, format!("trace {}", path.display())).with_source(error)
        })?;
        self.sinks.lock().given = Some(sink);
        self.on.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Looks whether tracing is on in the directory. `true`: it has just come on.
    pub(super) fn look(&self, directory: &Directory, limit: u64) -> bool {
        let opened = open_shared(directory);
        if opened.is_none() && !self.on.load(Ordering::Relaxed) {
            return false;
        }
        // The lock orders what the flag does not: whoever sees it late misses a use or two.
        let mut sinks = self.sinks.lock();
        let id = |file: &File| file.metadata().map(|it| (it.dev(), it.ino())).ok();
        let same = match (&sinks.shared, &opened) {
            (Some(sink), Some(file)) => id(&sink.file) == id(file),
            (now, opened) => now.is_none() && opened.is_none(),
        };
        if !same {
            sinks.shared = opened.and_then(|file| Sink::new(file, limit.min(LONGEST)).ok());
        }
        self.on.store(sinks.any(), Ordering::Relaxed);
        !same && sinks.shared.is_some()
    }

    /// Notes a use. An error: a trace ended, because it is full or cannot be written.
    pub(super) fn used(&self, signature: &Signature) -> Result<(), CacheError> {
        if !self.on.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut sinks = self.sinks.lock();
        let Sinks { given, shared } = &mut *sinks;
        let mut ended = None;
        for sink in [given, shared].into_iter().flatten() {
            ended = sink.used(signature).err().or(ended);
        }
        let Some(error) = ended else { return Ok(()) };
        self.on.store(sinks.any(), Ordering::Relaxed);
        Err(CacheError::new(Reason::TraceStopped, "trace").with_source(error))
    }
}

fn regular(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn open_shared(directory: &Directory) -> Option<File> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::APPEND | OFlags::RDWR;
    let file = File::from(openat(directory.root(), TRACE, flags, Mode::empty()).ok()?);
    regular(file).ok().filter(|file| file.metadata().is_ok_and(|it| it.uid() == directory.owner()))
}

/// Switches tracing on. `false`: it was on.
pub(super) fn start(directory: &Directory) -> io::Result<bool> {
    if !make_way(directory, TRACE)? {
        return Ok(false);
    }
    // Before tracing is on: it is not to be on when this fails.
    if !make_way(directory, TRACE_ENDED)? {
        directory.remove_file(TRACE_ENDED.as_bytes())?;
    }
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    match openat(directory.root(), TRACE, flags, Mode::RUSR | Mode::WUSR) {
        Ok(_) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Moves what is no file away. Whether the name is free now.
fn make_way(directory: &Directory, name: &str) -> io::Result<bool> {
    match statat(directory.root(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if file_type(&stat) == FileType::RegularFile => Ok(false),
        Ok(_) => directory.move_away(name).map(|()| true),
        Err(Errno::NOENT) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Switches tracing off; the trace stays until the next begins. `false`: it was not on.
pub(super) fn stop(directory: &Directory) -> io::Result<bool> {
    if make_way(directory, TRACE)? {
        return Ok(false);
    }
    make_way(directory, TRACE_ENDED)?;
    match renameat(directory.root(), TRACE, directory.root(), TRACE_ENDED) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether tracing is on.
pub(super) fn is_on(directory: &Directory) -> bool {
    let stat = statat(directory.root(), TRACE, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| file_type(&stat) == FileType::RegularFile)
}

/// The trace that is being written, else the last one; `None` when there is neither.
pub(super) fn read(directory: &Directory) -> io::Result<Option<Trace>> {
    for name in [TRACE, TRACE_ENDED] {
        match directory.open_file(name) {
            Ok(Some(file)) => return Trace::of(file).map(Some),
            Ok(None) => {}
            Err(error) if is_in_the_way(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// What [`Store::trace`](crate::Store::trace) tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceState {
    /// Whether it is still being written.
    pub running: bool,
    /// What was used so far.
    pub trace: Trace,
}

/// Where a trace in a store's directory lies, for messages.
pub(super) fn path(directory: &Directory) -> PathBuf {
    directory.path().join(TRACE)
}
