//! The one place that knows sled, and guards against its faults. All of it was measured on 0.34.7:
//!
//! - A kill while it writes `snap.*.generating`, or `conf` at creation, leaves it unopenable for ever: both
//!   are removed before opening.
//! - Damage and power cuts make `open` return an error *or panic*: both are caught, the directory is moved
//!   aside and a fresh one begun.
//! - Other damage passes without a word, and all that was written is gone: what is kept here must be derived.
//! - After an I/O error it panics in `Drop`: such a database is forgotten instead, and moved aside as well,
//!   because what is forgotten keeps its lock while this process lives.
//! - After a failed write `flush` may wait for ever for that write to become stable: it is given so long and no
//!   longer, on a thread that is left behind then, and the database is not used again.
//! - `flush` is `sync_file_range`, not a sync: it is followed by `fdatasync`.
//! - Many small batches stall for seconds: writes are gathered into large ones.
//! - Before 1970, by the clock, `Config::new` panics, whatever the database is like: then it is left alone.
//! - Its lock is released a moment after `Drop` returns: opening tries again for a while.
//!
//! A program built with `panic = "abort"` has no guard against the panics.
//!
//! The caller holds a lock of its own round all of this; the directory's owner has been checked by then.

use std::fs::{self, File};
use std::io;
use std::mem;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;

/// How long to wait for sled's own lock.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// A flush that takes longer will never end.
const FLUSH_WAIT: Duration = Duration::from_secs(10);
/// Writes go in batches of so many.
const BATCH: usize = 1024;
/// Bytes of pages sled keeps in memory.
const PAGE_CACHE: u64 = 16 << 20;

/// Why the database could not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// Another has it open.
    #[error("it is open elsewhere")]
    Busy,
    /// It may well be sound, but sled does not go by such a clock.
    #[error("the clock is before 1970")]
    ClockBefore1970,
    /// The operating system failed round it; the database itself may be sound.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is damaged or failed, and is not to be used any more.
    #[error("{0}")]
    Failed(String),
}

/// A key and its new value; `None` removes.
pub(crate) type Write = (Vec<u8>, Option<Vec<u8>>);

/// An open database. Its keyspaces are fixed when it is opened.
pub(crate) struct Database {
    path: PathBuf,
    // `None` only while dropping.
    open: Option<Opened>,
    broken: AtomicBool,
    // Something was written since the last flush. Segments that were full are on their way to the disk without one.
    dirty: AtomicBool,
}

struct Opened {
    // Dropped in this order.
    keyspaces: Vec<sled::Tree>,
    _database: sled::Db,
}

/// Names a keyspace by its place in the list given to [`Database::open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keyspace(pub(crate) usize);

/// Bytes that the file grows by, and that are reused at once; fixed when a database is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment(pub(crate) usize);

impl Segment {
    /// For whole objects.
    pub(crate) const LARGE: Self = Self(512 * 1024);
    /// For small records: what is overwritten soon gives its room back.
    pub(crate) const SMALL: Self = Self(64 * 1024);
}

impl Database {
    /// Opens or makes the database in the directory `path`. The flag tells that a damaged one was moved aside.
    pub(crate) fn open(
        path: &Path,
        keyspaces: &[&str],
        segment: Segment,
    ) -> Result<(Self, bool), DatabaseError> {
        match open_guarded(path, keyspaces, segment) {
            Ok(opened) => Ok((Self::of(path, opened), false)),
            Err(DatabaseError::ClockBefore1970) => Err(DatabaseError::ClockBefore1970),
            Err(error) if matches!(error, DatabaseError::Failed(_)) || is_in_the_way(path) => {
                move_aside(path)?;
                let opened = open_guarded(path, keyspaces, segment)?;
                Ok((Self::of(path, opened), true))
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the files of a database that nobody has open, and of one that was moved aside.
    pub(crate) fn remove(path: &Path) -> io::Result<()> {
        remove_whatever(path).and_then(|()| remove_whatever(&aside(path)))
    }

    fn of(path: &Path, opened: Opened) -> Self {
        Self {
            path: path.to_owned(),
            open: Some(opened),
            broken: AtomicBool::new(false),
            dirty: AtomicBool::new(false),
        }
    }

    pub(crate) fn get(&self, keyspace: Keyspace, key: &[u8]) -> Result<Option<Vec<u8>>, DatabaseError> {
        self.run(keyspace, |tree| Ok(tree.get(key)?.map(|value| value.to_vec())))
    }

    /// Every pair of a keyspace, by ascending key.
    pub(crate) fn scan(
        &self,
        keyspace: Keyspace,
        mut each: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), DatabaseError> {
        self.run(keyspace, |tree| {
            for pair in tree.iter() {
                let (key, value) = pair?;
                each(&key, &value);
            }
            Ok(())
        })
    }

    /// Writes all of it, in large batches. A crash may leave only the first of them.
    pub(crate) fn write(
        &self,
        keyspace: Keyspace,
        writes: impl IntoIterator<Item = Write>,
    ) -> Result<(), DatabaseError> {
        let mut writes = writes.into_iter().peekable();
        while writes.peek().is_some() {
            self.dirty.store(true, Ordering::Relaxed);
            let mut batch = sled::Batch::default();
            for (key, value) in writes.by_ref().take(BATCH) {
                match value {
                    Some(value) => batch.insert(key, value),
                    None => batch.remove(key),
                }
            }
            self.run(keyspace, |tree| tree.apply_batch(batch))?;
        }
        Ok(())
    }

    /// Empties a keyspace.
    pub(crate) fn clear(&self, keyspace: Keyspace) -> Result<(), DatabaseError> {
        self.dirty.store(true, Ordering::Relaxed);
        self.run(keyspace, |tree| tree.clear())
    }

    /// What was written before survives a power cut after this. Costs next to nothing when nothing was.
    pub(crate) fn flush(&self) -> Result<(), DatabaseError> {
        let dirty = self.dirty.swap(false, Ordering::Relaxed);
        let tree = self.run(Keyspace(0), |tree| Ok(tree.clone()))?;
        // The clone goes first: it would keep the database open.
        let flushed = within(FLUSH_WAIT, move || catch_unwind(AssertUnwindSafe(|| tree.flush())));
        match flushed {
            // Nor did sled write anything by itself, as when it makes a database.
            Some(Ok(Ok(0))) if !dirty => return Ok(()),
            Some(Ok(Ok(_))) => {}
            Some(Ok(Err(error))) => return Err(self.fail(error.to_string())),
            Some(Err(panic)) => return Err(self.fail(panic_text(&*panic))),
            None => return Err(self.fail("a flush does not end".to_owned())),
        }
        let synced = File::open(self.path.join("db")).and_then(|file| file.sync_data());
        synced.map_err(|error| self.fail(error.to_string()))
    }

    fn run<T>(
        &self,
        keyspace: Keyspace,
        work: impl FnOnce(&sled::Tree) -> sled::Result<T>,
    ) -> Result<T, DatabaseError> {
        let broken = || DatabaseError::Failed("it failed before".to_owned());
        if self.broken.load(Ordering::Relaxed) {
            return Err(broken());
        }
        let tree = self.open.as_ref().and_then(|open| open.keyspaces.get(keyspace.0)).ok_or_else(broken)?;
        match catch_unwind(AssertUnwindSafe(|| work(tree))) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.fail(error.to_string())),
            Err(panic) => Err(self.fail(panic_text(&*panic))),
        }
    }

    fn fail(&self, why: String) -> DatabaseError {
        self.broken.store(true, Ordering::Relaxed);
        DatabaseError::Failed(why)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // sled would do it while it is dropped; here it is bounded. What comes of it is seen below.
        let _ = self.flush();
        let open = self.open.take();
        if self.broken.load(Ordering::Relaxed) {
            mem::forget(open);
            let _ = move_aside(&self.path);
            return;
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(open)));
    }
}

/// What `work` gives, done on a thread of its own. `None`: it took too long, and the thread goes on.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, told) = mpsc::channel();
    let work = Arc::new(Mutex::new(Some(work)));
    let taken = Arc::clone(&work);
    let take = |work: &Mutex<Option<_>>| work.lock().unwrap_or_else(PoisonError::into_inner).take();
    let spawned = thread::Builder::new().name("objcache-flush".to_owned()).spawn(move || {
        let work = take(&taken)?;
        tell.send(work()).ok()
    });
    match spawned {
        Ok(_) => told.recv_timeout(limit).ok(),
        // No thread to be had: better without a bound than not at all.
        Err(_) => Some(take(&work)?()),
    }
}

/// Opens, and turns panics into errors. Waits a while for a lock that is about to be released.
fn open_guarded(path: &Path, keyspaces: &[&str], segment: Segment) -> Result<Opened, DatabaseError> {
    if clock::is_before_1970() {
        return Err(DatabaseError::ClockBefore1970);
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    remove_half_written(path)?;
    let deadline = Instant::now() + BUSY_WAIT;
    loop {
        let opened = catch_unwind(|| open_unguarded(path, keyspaces, segment));
        let why = match opened {
            Ok(Ok(opened)) => return Ok(opened),
            // A full disk, no descriptors left: no damage. What sled calls I/O by itself may be damage.
            Ok(Err(sled::Error::Io(error))) if error.raw_os_error().is_some() => return Err(error.into()),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic_text(&*panic),
        };
        // sled 0.34.7 tells it by these words only.
        if !why.contains("could not acquire lock") {
            return Err(DatabaseError::Failed(why));
        }
        if Instant::now() >= deadline {
            return Err(DatabaseError::Busy);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn open_unguarded(path: &Path, keyspaces: &[&str], segment: Segment) -> sled::Result<Opened> {
    // No flusher thread: whoever writes also flushes.
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(PAGE_CACHE)
        .segment_size(segment.0)
        .flush_every_ms(None);
    let database = config.open()?;
    let keyspaces = keyspaces.iter().map(|name| database.open_tree(name)).collect::<Result<_, _>>()?;
    Ok(Opened { keyspaces, _database: database })
}

/// Whether something that is no directory lies there.
fn is_in_the_way(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok() && !fs::metadata(path).is_ok_and(|found| found.is_dir())
}

/// Removes what a kill leaves half written and sled cannot read.
fn remove_half_written(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(path.join(&*name))?;
        }
    }
    let is_empty = fs::metadata(path.join("db")).map_or(true, |db| db.len() == 0);
    let conf = path.join("conf");
    if is_empty && conf.exists() {
        // It may be cut short. While there are no data it says nothing that is needed.
        fs::remove_file(conf)?;
    }
    Ok(())
}

/// Moves a database out of the way. Only the last one is kept, for those who want to look at it.
fn move_aside(path: &Path) -> io::Result<()> {
    let aside = aside(path);
    remove_whatever(&aside)?;
    match fs::rename(path, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn aside(path: &Path) -> PathBuf {
    path.with_extension("damaged")
}

fn remove_whatever(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("of unknown cause"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_does_not_end_is_left() {
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
        let (_never, wait) = mpsc::channel::<()>();
        let begun = Instant::now();
        assert_eq!(within(Duration::from_millis(20), move || wait.recv().is_ok()), None);
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_database_can_be_opened_again_right_after_it_was_flushed_and_closed() {
        let place = tempfile::tempdir().expect("a temporary directory");
        for round in 0..20_u8 {
            let (database, rebuilt) =
                Database::open(&place.path().join("db"), &["one"], Segment::SMALL).expect("opens");
            assert!(!rebuilt);
            let before = database.get(Keyspace(0), b"round").expect("reads");
            assert_eq!(before, round.checked_sub(1).map(|before| vec![before]));
            database.write(Keyspace(0), [(b"round".to_vec(), Some(vec![round]))]).expect("writes");
            if round % 2 == 0 {
                database.flush().expect("flushes");
            }
        }
    }
}
