//! A lock among processes: `flock` on a file, which the kernel frees when its holder dies, `kill -9` included.
//!
//! The file is removed on release, so that files do not pile up. Hence after locking one must see whether the
//! name still leads to the file that was locked; if not, somebody released it meanwhile and the lock is of
//! no use.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Stat, flock, statat};
use rustix::io::Errno;

use crate::store::directory::{Directory, Identity, LOCKS, is_in_the_way};

/// The first and the longest pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
/// So many times in a row the file may be removed between opening and locking it.
const MOST_REMOVALS: u32 = 1000;

/// A held lock; released, and its file removed, when dropped.
pub(crate) struct LockFile {
    directory: Arc<Directory>,
    file: File,
    name: String,
    keep_file: bool,
}

impl LockFile {
    /// Tries until `deadline`. `None`: another held it all the time.
    pub(crate) fn acquire_until(
        directory: &Arc<Directory>,
        name: &str,
        deadline: Instant,
    ) -> io::Result<Option<Self>> {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(lock) = Self::try_acquire(directory, name)? {
                return Ok(Some(lock));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // Polled, because a wait in the kernel has no bound. A compilation takes longer than the pause.
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// `None`: another holds it.
    pub(crate) fn try_acquire(directory: &Arc<Directory>, name: &str) -> io::Result<Option<Self>> {
        for _ in 0..MOST_REMOVALS {
            let (file, identity) = match directory.open_or_create(name) {
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    directory.make_directory(LOCKS)?;
                    directory.open_or_create(name)?
                }
                Err(error) if is_in_the_way(&error) => {
                    directory.move_away(name)?;
                    continue;
                }
                opened => opened?,
            };
            match Self::lock(directory, name, file, identity)? {
                Tried::Held(lock) => return Ok(Some(lock)),
                Tried::Busy => return Ok(None),
                Tried::Removed => {}
            }
        }
        // A file system on which a file is not the same when it is looked at twice.
        Err(Errno::NOLCK.into())
    }

    fn lock(directory: &Arc<Directory>, name: &str, file: File, identity: Identity) -> io::Result<Tried> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(Tried::Busy),
            Err(error) => return Err(error.into()),
        }
        if still_named(directory, name, identity)?.is_none() {
            return Ok(Tried::Removed);
        }
        let directory = Arc::clone(directory);
        Ok(Tried::Held(Self { directory, file, name: name.to_owned(), keep_file: false }))
    }

    /// Leaves the file in place on release: for a lock that is taken again and again.
    pub(crate) fn keep_file(mut self) -> Self {
        self.keep_file = true;
        self
    }
}

enum Tried {
    Held(LockFile),
    Busy,
    /// Its last holder removed the file between our opening and locking it.
    Removed,
}

/// What there is of a file of this name, if it is still that one.
pub(crate) fn still_named(directory: &Directory, name: &str, identity: Identity) -> io::Result<Option<Stat>> {
    match statat(directory.root(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => Ok((Identity::of(&named) == identity).then_some(named)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if !self.keep_file {
            let _ = self.directory.remove_file(self.name.as_bytes());
        }
        // By hand, because a child forked meanwhile would hold the lock on with its copy of the descriptor.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Removes the lock files that dead processes left. Returns which.
pub(crate) fn sweep(directory: &Arc<Directory>) -> io::Result<Vec<String>> {
    let names = directory.names_in(LOCKS)?.into_iter();
    let paths = names.map(|name| format!("{LOCKS}/{}", name.to_string_lossy()));
    // Whoever gets the lock removes the file with it.
    Ok(paths.filter(|path| matches!(LockFile::try_acquire(directory, path), Ok(Some(_)))).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const NAME: &str = "locks/test";

    fn directory() -> (tempfile::TempDir, Arc<Directory>) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        (place, Arc::new(directory))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_lock_is_held_by_one_and_leaves_no_file() {
        let (_place, directory) = directory();
        let (held, rounds) = (AtomicBool::new(false), 100);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        let lock = LockFile::acquire_until(&directory, NAME, soon()).expect("works");
                        assert!(lock.is_some());
                        assert!(!held.swap(true, Ordering::SeqCst), "two holders");
                        std::thread::yield_now();
                        held.store(false, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(directory.names_in(LOCKS).expect("lists").is_empty());
    }

    #[test]
    fn a_file_that_lost_its_name_is_no_lock() {
        let (_place, directory) = directory();
        let lock = LockFile::try_acquire(&directory, NAME).expect("works").expect("free");
        let open = || directory.open_or_create(NAME).expect("opens");
        let try_lock = |(file, identity)| LockFile::lock(&directory, NAME, file, identity).expect("works");
        let (first, second) = (open(), open());
        assert!(matches!(try_lock(open()), Tried::Busy));
        drop(lock);
        assert!(matches!(try_lock(first), Tried::Removed), "nobody has the name");
        let _next = LockFile::try_acquire(&directory, NAME).expect("works").expect("free");
        assert!(matches!(try_lock(second), Tried::Removed), "another has the name");
    }

    #[test]
    fn waiting_has_an_end() {
        let (_place, directory) = directory();
        let _lock = LockFile::try_acquire(&directory, NAME).expect("works").expect("free");
        let deadline = Instant::now() + Duration::from_millis(20);
        assert!(LockFile::acquire_until(&directory, NAME, deadline).expect("works").is_none());
    }
}
