//! Whose turn it is to replace a pack: `flock` on the pack itself, so that nothing is left beside it. Whoever adds
//! reads the old pack and renames the new one over it; two at once would lose what one of them added.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::retry_on_intr;

/// So many times in a row another may replace the pack before the lock on it is had. More are made on a file system
/// only on which a file is not the same when it is looked at twice.
const MOST_REPLACEMENTS: u32 = 1000;

/// The right to replace a pack; given up when dropped.
pub(crate) struct Turn(File);

impl Turn {
    /// Waits until nobody else replaces the pack. `None`: there is none, or it cannot be locked; then whoever is
    /// last wins, as with any file.
    pub(crate) fn wait(pack: &Path) -> Option<Self> {
        for _ in 0..MOST_REPLACEMENTS {
            let file = open(pack)?;
            retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)).ok()?;
            let turn = Self(file);
            // Who had the lock before mostly has put another pack in its place.
            if turn.is_for(pack) {
                return Some(turn);
            }
        }
        None
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

fn open(pack: &Path) -> Option<File> {
    // Not blocking, for a FIFO that came to be there just now.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32;
    // For writing if that is allowed: network file systems give such locks only to those who may write.
    let to_write = File::options().read(true).write(true).custom_flags(flags).open(pack);
    to_write.or_else(|_| File::options().read(true).custom_flags(flags).open(pack)).ok()
}
