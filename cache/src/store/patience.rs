//! How long to wait for the journal, whose lock is held for microseconds by whoever goes on.
//!
//! A holder that is stopped must hold nobody up, and one that gets no processor for a while must cost nobody an
//! entry. So patience is for as long as nothing happens: it begins again when the journal has changed, or when its
//! holder is running, waiting for a processor, or for the disk.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// The first and the longest pause between two looks.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_micros(200);
/// So many times it begins again at most.
const MOST_TIMES: u32 = 20;
/// More of the system's list of locks is not read, in bytes.
const LIST_LIMIT: u64 = 1 << 20;
/// Room to begin with for the list, in bytes.
const LIST_ROOM: usize = 64 << 10;
/// So often is looked for whoever holds a lock that somebody must hold.
const MOST_LOOKS: usize = 3;

/// How long somebody waits for a file that another has locked.
pub(crate) struct Patience {
    length: Duration,
    pause: Duration,
    running_out: Option<RunningOut>,
    times: u32,
}

/// When it ends, unless the file looks otherwise then.
struct RunningOut {
    at: Instant,
    seen: Option<Looks>,
}

impl Patience {
    /// With none, a holder of the lock is not waited for at all.
    pub(crate) fn of(length: Duration) -> Self {
        Self { length, pause: FIRST_PAUSE, running_out: None, times: 0 }
    }

    /// Pauses while another has `file` locked; `false`: it has run out.
    pub(crate) fn pause(&mut self, file: &File) -> bool {
        if self.length.is_zero() {
            return false;
        }
        let begin = || RunningOut { at: Instant::now() + self.length, seen: Looks::of(file) };
        let running_out = self.running_out.get_or_insert_with(begin);
        let mut left = running_out.at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let looks = Looks::of(file);
            let goes_on = looks != running_out.seen || is_at_work(file);
            if !goes_on || self.times >= MOST_TIMES {
                return false;
            }
            self.times += 1;
            *running_out = RunningOut { at: Instant::now() + self.length, seen: looks };
            left = self.length;
        }
        std::thread::sleep(self.pause.min(left));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

/// What changes when a file is written.
#[derive(PartialEq, Eq)]
struct Looks {
    length: u64,
    modified: (i64, i64),
}

impl Looks {
    fn of(file: &File) -> Option<Self> {
        let about = file.metadata().ok()?;
        Some(Self { length: about.len(), modified: (about.mtime(), about.mtime_nsec()) })
    }
}

/// Whether a process that has `file` locked is running, or would be if it got the processor or the disk. `false`
/// when that cannot be told, as of one in another container.
fn is_at_work(file: &File) -> bool {
    let Ok(about) = file.metadata() else { return false };
    let found = (0..MOST_LOOKS).find_map(|_| Some(holders(about.ino())).filter(|found| !found.is_empty()));
    found.is_some_and(|found| found.into_iter().any(has_busy_thread))
}

/// The processes that have this inode locked. Some may be missing.
fn holders(inode: u64) -> Vec<u32> {
    // The system writes a page of its list at a time, if there is room for one; between two pages the list may change,
    // and lines be left out.
    let mut list = Vec::with_capacity(LIST_ROOM);
    let read = File::open("/proc/locks").and_then(|locks| locks.take(LIST_LIMIT).read_to_end(&mut list));
    let list = String::from_utf8_lossy(&list);
    match read {
        Ok(_) => list.lines().filter_map(|line| holder(line, inode)).collect(),
        Err(_) => Vec::new(),
    }
}

/// The process that a line of `/proc/locks` tells to hold the lock of this inode:
/// `2: FLOCK  ADVISORY  WRITE 4711 fe:01:123456 0 EOF`.
fn holder(line: &str, inode: u64) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let is_flock = fields.next()? == "FLOCK";
    let (process, place) = (fields.nth(2)?, fields.next()?);
    let is_it = is_flock && place.rsplit(':').next()?.parse() == Ok(inode);
    if is_it { process.parse().ok() } else { None }
}

fn has_busy_thread(process: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
    let states = threads.flatten().map(|thread| fs::read(thread.path().join("stat")));
    states.flatten().any(|stat| matches!(state(&stat), Some(b'R' | b'D')))
}

/// The state comes after the name, which may have parentheses in it.
fn state(stat: &[u8]) -> Option<u8> {
    let name_ends = stat.iter().rposition(|byte| *byte == b')')?;
    stat.get(name_ends + 2).copied()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::fs::{FlockOperation, flock};

    use super::*;

    /// How often one who begins with `patience` pauses, up to `most`.
    fn pauses(patience: Duration, file: &File, most: usize) -> usize {
        let mut patience = Patience::of(patience);
        (0..most).take_while(|_| patience.pause(file)).count()
    }

    #[test]
    fn it_runs_out_when_nothing_happens_and_begins_again_when_something_does() {
        let file = tempfile::tempfile().expect("a file");
        assert_eq!(pauses(Duration::ZERO, &file, 9), 0);
        let standing = Duration::from_millis(5);
        assert!(pauses(standing, &file, usize::MAX) > 0, "it ends");
        let mut patience = Patience::of(standing);
        let started = Instant::now();
        let mut length = 0;
        while patience.pause(&file) {
            length += 1;
            file.set_len(length).expect("longer");
        }
        assert!(started.elapsed() >= standing * MOST_TIMES, "it began again, and yet it ends");
    }

    #[test]
    fn whoever_holds_a_lock_is_found_and_seen_at_work() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let other = File::open(file.path()).expect("opens");
        assert!(!is_at_work(&other), "nobody holds it");
        flock(file.as_file(), FlockOperation::NonBlockingLockExclusive).expect("free");
        // This thread is running while it asks.
        assert!(is_at_work(&other));
    }

    #[test]
    fn others_that_lock_and_unlock_meanwhile_hide_nobody() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let other = File::open(file.path()).expect("opens");
        flock(file.as_file(), FlockOperation::NonBlockingLockExclusive).expect("free");
        let done = AtomicBool::new(false);
        let lock_and_unlock = || {
            let files: Vec<File> = (0..20).map(|_| tempfile::tempfile().expect("a file")).collect();
            files.iter().for_each(|file| flock(file, FlockOperation::LockExclusive).expect("free"));
        };
        let unseen = std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        lock_and_unlock();
                    }
                });
            }
            let unseen = (0..2000).filter(|_| !is_at_work(&other)).count();
            done.store(true, Ordering::Relaxed);
            unseen
        });
        assert_eq!(unseen, 0);
    }

    #[test]
    fn lines_are_read_as_the_system_writes_them() {
        let line = "2: FLOCK  ADVISORY  WRITE 4711 fe:01:123456 0 EOF";
        assert_eq!((holder(line, 123_456), holder(line, 123_457)), (Some(4711), None));
        assert_eq!(holder("1: POSIX  ADVISORY  WRITE 4711 fe:01:123456 0 EOF", 123_456), None);
        assert_eq!(holder("", 1), None);
        assert_eq!(state(b"4711 (a) b) T 1 2"), Some(b'T'));
        assert_eq!(state(b"4711 (a"), None);
    }
}
