//! Entries whose code kills the process that runs it: the crash-loop guard.
//!
//! Whoever is about to run the code of an entry may leave a mark: a file that is locked while its process lives.
//! A mark that nobody holds is a death. After some of them the entry is suspect, goes to quarantine and is
//! compiled afresh. Whoever survives takes its mark away, and those of the dead: what killed them was not the
//! code alone.
//!
//! Locks, not process numbers, tell who is alive: those of another container mean nothing here.
//!
//! Who ends a process by a signal of the keyboard or of the system is no crash of the code: before such a process goes
//! it takes its marks away, if its program calls [`unmark_running`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use objcache_signature::Signature;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};

use crate::store::directory::{Directory, RUNNING, Temporary, is_unique, unique};

/// So many deaths make an entry suspect.
const MOST_DEATHS: usize = 3;
/// So many marks may lie about; beyond, those of the dead go, whatever they ran.
const MOST_MARKS: usize = 256;

/// The marks of this process by their names, which are of it alone.
static OURS: Mutex<BTreeMap<String, Mark>> = Mutex::new(BTreeMap::new());

struct Mark {
    directory: Arc<Directory>,
    // A child of `fork` has those of its parent here too.
    process: u32,
}

/// Takes back what was said of code that runs in this process, in all stores
/// ([`mark_running`](crate::ObjectCache::mark_running)): the process is about to end, and the code is not to blame.
///
/// For programs that are told to end while code runs, such as by Ctrl-C. A library installs no handlers for signals;
/// a program that wants this calls it from the thread on which it takes signals, not from a handler: it takes a lock.
pub fn unmark_running() {
    let ours = std::mem::take(&mut *OURS.lock());
    for (name, mark) in ours {
        if mark.process == std::process::id() {
            let _ = mark.directory.remove_file(name.as_bytes());
        }
    }
}

/// The mark of a living process.
pub(crate) struct Running {
    directory: Arc<Directory>,
    name: String,
    // Of processes that died over the same entry.
    dead: Vec<String>,
    // Locked as long as it is open.
    _file: File,
}

impl Running {
    /// Leaves a mark.
    pub(crate) fn mark(directory: &Arc<Directory>, signature: &Signature) -> io::Result<Self> {
        let names = directory.names_in(RUNNING)?;
        let crowded = names.len() > MOST_MARKS;
        let ours = format!("{signature}-");
        let mut dead = Vec::new();
        for name in names {
            let name = name.to_string_lossy();
            let path = format!("{RUNNING}/{name}");
            if name.starts_with(&ours) && is_dead(directory, &path) {
                dead.push(path);
            } else if crowded && is_mark(&name) && is_dead(directory, &path) {
                directory.remove_file(path.as_bytes())?;
            }
        }
        // Locked before others see it.
        let mut temporary = Temporary::create(directory)?;
        let name = format!("{RUNNING}/{ours}{}", unique());
        if temporary.rename_to(name.as_bytes()).is_err() {
            directory.make_directory(RUNNING)?;
            temporary.rename_to(name.as_bytes())?;
        }
        let _file = temporary.file.try_clone()?;
        let mark = Mark { directory: Arc::clone(directory), process: std::process::id() };
        OURS.lock().insert(name.clone(), mark);
        Ok(Self { directory: Arc::clone(directory), name, dead, _file })
    }

    /// Whether so many died that it is to blame.
    pub(crate) fn is_suspect(&self) -> bool {
        self.dead.len() >= MOST_DEATHS
    }

    /// The entry they died over is gone: they say nothing about the next one.
    pub(crate) fn forget_the_dead(&mut self) {
        for name in std::mem::take(&mut self.dead) {
            let _ = self.directory.remove_file(name.as_bytes());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        OURS.lock().remove(&self.name);
        let _ = self.directory.remove_file(self.name.as_bytes());
        self.forget_the_dead();
    }
}

/// Whether a file of this name is a mark: others are not ours to remove.
pub(crate) fn is_mark(name: &str) -> bool {
    let parts = name.split_once('-');
    parts.is_some_and(|(signature, rest)| signature.parse::<Signature>().is_ok() && is_unique(rest))
}

/// Whether nobody holds the mark.
pub(crate) fn is_dead(directory: &Directory, path: &str) -> bool {
    match directory.open_file(path) {
        Ok(Some(file)) => flock(&file, FlockOperation::NonBlockingLockShared).is_ok(),
        Ok(None) | Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Signature = Signature::from_bytes([1; 32]);
    const TWO: Signature = Signature::from_bytes([2; 32]);

    fn directory() -> (tempfile::TempDir, Arc<Directory>) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        (place, Arc::new(directory))
    }

    fn mark(directory: &Arc<Directory>, signature: &Signature) -> Running {
        Running::mark(directory, signature).expect("marked")
    }

    fn die(mark: Running) {
        let directory = Arc::clone(&mark.directory);
        let (name, file) = (mark.name.clone(), mark._file.try_clone().expect("cloned"));
        OURS.lock().remove(&name);
        std::mem::forget(mark);
        // What is forgotten keeps the file open, and so the lock.
        flock(&file, FlockOperation::Unlock).expect("unlocked");
        assert!(directory.open_file(&name).expect("looks").is_some());
    }

    fn marks(directory: &Directory) -> usize {
        directory.names_in(RUNNING).expect("lists").len()
    }

    #[test]
    fn three_deaths_over_one_entry_make_it_suspect() {
        let (_place, directory) = directory();
        for deaths in 0..MOST_DEATHS {
            let one = mark(&directory, &ONE);
            assert!(!one.is_suspect(), "after {deaths}");
            die(one);
        }
        assert!(!mark(&directory, &TWO).is_suspect());
        let mut suspect = mark(&directory, &ONE);
        assert!(suspect.is_suspect());
        suspect.forget_the_dead();
        assert_eq!(marks(&directory), 1, "its own");
        die(suspect);
        assert!(!mark(&directory, &ONE).is_suspect(), "it begins again");
    }

    #[test]
    fn the_living_are_no_deaths_and_a_survivor_clears_the_entry() {
        let (_place, directory) = directory();
        let living: Vec<_> = (0..5).map(|_| mark(&directory, &ONE)).collect();
        assert!(!mark(&directory, &ONE).is_suspect());
        drop(living);
        assert_eq!(marks(&directory), 0);
        (1..MOST_DEATHS).for_each(|_| die(mark(&directory, &ONE)));
        drop(mark(&directory, &ONE));
        assert_eq!(marks(&directory), 0);
        die(mark(&directory, &ONE));
        assert!(!mark(&directory, &ONE).is_suspect());
    }

    #[test]
    fn who_is_told_to_end_leaves_no_mark() {
        let (_place, directory) = directory();
        for _ in 0..MOST_DEATHS {
            let told = mark(&directory, &ONE);
            unmark_running();
            assert_eq!(marks(&directory), 0);
            std::mem::forget(told);
        }
        assert!(!mark(&directory, &ONE).is_suspect());
    }

    #[test]
    fn marks_do_not_pile_up() {
        let (_place, directory) = directory();
        for number in 0..2 * MOST_MARKS {
            let mut signature = [7; 32];
            signature[..8].copy_from_slice(&number.to_le_bytes());
            die(mark(&directory, &Signature::from_bytes(signature)));
        }
        assert!(marks(&directory) <= MOST_MARKS + 2);
    }
}
