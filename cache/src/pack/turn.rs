//! Whose turn it is to replace a pack: `flock` on the pack itself, so that nothing is left beside it. Whoever adds
//! reads the old pack and renames the new one over it; two at once would lose what one of them added.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

/// So many times in a row another may replace the pack before the lock on it is had. More are made on a file system
/// only on which a file is not the same when it is looked at twice.
const MOST_REPLACEMENTS: u32 = 1000;

/// How long is waited for others: a pack of tens of gigabytes is made in less, one who is stopped never goes on.
const PATIENCE: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(10);

/// The right to replace a pack; given up when dropped.
pub(crate) struct Turn(File);

impl Turn {
    /// Waits until nobody else replaces the pack. `None`: there is none, or it cannot be locked; then whoever is
    /// last wins, as with any file.
    ///
    /// # Errors
    /// `WouldBlock` when another has not ended in ten minutes.
    pub(crate) fn wait(pack: &Path) -> io::Result<Option<Self>> {
        Self::wait_until(pack, Instant::now() + PATIENCE)
    }

    fn wait_until(pack: &Path, deadline: Instant) -> io::Result<Option<Self>> {
        for _ in 0..MOST_REPLACEMENTS {
            let Some(file) = open(pack) else { return Ok(None) };
            match lock_until(&file, deadline) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(Errno::WOULDBLOCK.into()),
                Err(_) => return Ok(None),
            }
            let turn = Self(file);
            // Who had the lock before mostly has put another pack in its place.
            if turn.is_for(pack) {
                return Ok(Some(turn));
            }
        }
        Ok(None)
    }

    fn is_for(&self, pack: &Path) -> bool {
        let identity = |found: fs::Metadata| (found.dev(), found.ino());
        let locked = self.0.metadata().map(identity);
        locked.is_ok_and(|locked| fs::metadata(pack).is_ok_and(|named| identity(named) == locked))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // By hand, because a child forked meanwhile would hold the lock on with its copy of the descriptor.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Polled, because a wait in the kernel has no bound.
fn lock_until(file: &File, deadline: Instant) -> rustix::io::Result<()> {
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            locked => return locked,
        }
    }
}

fn open(pack: &Path) -> Option<File> {
    // Not blocking, for a FIFO that came to be there just now.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    // For writing if that is allowed: network file systems give such locks only to those who may write.
    let to_write = File::options().read(true).write(true).custom_flags(flags).open(pack);
    to_write.or_else(|_| File::options().read(true).custom_flags(flags).open(pack)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_never_ends_is_not_waited_for_for_ever() {
        let pack = tempfile::NamedTempFile::new().expect("a file");
        let first = Turn::wait(pack.path()).expect("free").expect("lockable");
        let second = Turn::wait_until(pack.path(), Instant::now() + PAUSE);
        assert_eq!(second.err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(first);
        assert!(Turn::wait(pack.path()).expect("free").is_some());
    }
}
