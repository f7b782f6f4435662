//! What all entries come to, without a look at each: kept in the catalogue for each fan-out directory, with what
//! tells whether anything in it was put, replaced or removed since.
//!
//! So it needs no account that a killed process could leave wrong: what is out of date shows, and is added up anew.

use std::io;

use objcache_signature::Signature;
use rustix::fs::{AtFlags, FileType, Stat, fstat, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::admin::{EntryInfo, total};
use crate::codec;
use crate::sled_guard::{Database, DatabaseError, Keyspace};
use crate::store::directory::{Directory, Temporary, file_type};

const TOTALS: Keyspace = Keyspace(2);

/// A directory that was changed less than so long ago may be changed again without showing it: clocks of file
/// systems go in steps of some milliseconds, old ones in seconds.
const STEP_NS: i64 = 100_000_000;
const LONG_STEP_NS: i64 = 4_000_000_000;

/// What some entries come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) entries: u64,
    pub(crate) object_bytes: u64,
    pub(crate) disk_bytes: u64,
}

impl Totals {
    pub(crate) fn of(entries: &[EntryInfo]) -> Self {
        Self {
            entries: entries.len() as u64,
            object_bytes: total(entries.iter().map(|entry| entry.object_bytes)),
            disk_bytes: total(entries.iter().map(|entry| entry.disk_bytes)),
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            object_bytes: self.object_bytes.saturating_add(other.object_bytes),
            disk_bytes: self.disk_bytes.saturating_add(other.disk_bytes),
        }
    }
}

/// What changes whenever a name in a directory does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    inode: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl Stamp {
    fn of(stat: &Stat) -> Self {
        let ns = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            inode: stat.st_ino,
            modified_ns: ns(stat.st_mtime, stat.st_mtime_nsec as i64),
            changed_ns: ns(stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    /// Whether a change after `now` would show. `now` is by the clock that stamps are by.
    fn is_settled(&self, now: &Self) -> bool {
        let steps_are_long = self.modified_ns % 1_000_000_000 == 0 || now.modified_ns % 1_000_000_000 == 0;
        let step = if steps_are_long { LONG_STEP_NS } else { STEP_NS };
        self.modified_ns.max(self.changed_ns) < now.modified_ns.saturating_sub(step)
    }
}

/// The fan-out directories that there are, with their stamps as of now.
pub(crate) fn fans(directory: &Directory) -> io::Result<Vec<(u8, Stamp)>> {
    let mut fans = Vec::with_capacity(256);
    for fan in 0..=u8::MAX {
        match statat(directory.root(), name(fan), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if file_type(&stat) == FileType::Directory => fans.push((fan, Stamp::of(&stat))),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(fans)
}

/// The name of a fan-out directory.
pub(crate) fn name(fan: u8) -> String {
    format!("{fan:02x}")
}

/// What was kept of each fan-out directory.
pub(crate) fn kept(database: &Database) -> Result<[Option<(Stamp, Totals)>; 256], DatabaseError> {
    let mut kept = [None; 256];
    database.scan(TOTALS, |key, value| {
        if let [fan] = key {
            kept[usize::from(*fan)] = codec::decode(value);
        }
    })?;
    Ok(kept)
}

/// Keeps totals of directories that had these stamps before they were listed; only where a change since then shows.
pub(crate) fn keep(
    database: &Database,
    directory: &Directory,
    totals: &[(u8, Stamp, Totals)],
) -> Result<(), DatabaseError> {
    // By the clock of the file system, which need not be ours. If that takes no file now, all is summed up again.
    let Ok(now) = Temporary::create(directory).and_then(|file| Ok(Stamp::of(&fstat(&file.file)?))) else {
        return Ok(());
    };
    let settled = totals.iter().filter(|(_, stamp, _)| stamp.is_settled(&now));
    let writes =
        settled.filter_map(|(fan, stamp, totals)| Some((vec![*fan], Some(codec::encode(&(stamp, totals))?))));
    database.write(TOTALS, writes)
}

/// To be done before what is known of these entries is changed: their files may have been, without a name of theirs.
pub(crate) fn forget<'a>(
    database: &Database,
    entries: impl Iterator<Item = &'a Signature>,
) -> Result<(), DatabaseError> {
    let mut fans: Vec<u8> = entries.map(|signature| signature.as_bytes()[0]).collect();
    fans.sort_unstable();
    fans.dedup();
    database.write(TOTALS, fans.into_iter().map(|fan| (vec![fan], None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_just_now_is_not_settled() {
        let at = |ns: i64| Stamp { inode: 1, modified_ns: ns, changed_ns: ns };
        let hour = 3_600_000_000_000;
        assert!(!at(hour + 1).is_settled(&at(hour + 1)));
        assert!(!at(hour + 1).is_settled(&at(hour + STEP_NS)));
        assert!(at(hour + 1).is_settled(&at(hour + STEP_NS + 2)));
        assert!(!at(hour).is_settled(&at(hour + STEP_NS + 2)), "whole seconds only");
        assert!(at(hour).is_settled(&at(hour + LONG_STEP_NS + 1)));
        assert!(!at(2 * hour).is_settled(&at(hour + 1)), "in the future");
        let renamed = Stamp { changed_ns: 2 * hour, ..at(hour + 1) };
        assert!(!renamed.is_settled(&at(hour + STEP_NS + 2)));
    }
}
