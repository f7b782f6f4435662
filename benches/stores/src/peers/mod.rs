//! The stores that are compared, behind one interface.

mod lmdb;
mod objcache;
mod plain;
mod redb;
mod sled;

use std::error::Error;
use std::path::Path;

use crate::entries::Key;

pub(crate) type Opened = Result<Box<dyn Peer>, Box<dyn Error>>;

/// A store. What fails but `open` ends the run: figures of a store that fails mean nothing.
pub(crate) trait Peer {
    /// Shows the value to `look`, as the store lends it. Whether there is one.
    fn get(&self, key: &Key, look: &mut dyn FnMut(&[u8])) -> bool;
    /// One value, seen by look-ups afterwards, without an `fsync`.
    fn put(&self, key: &Key, value: &[u8]);
    fn remove(&self, key: &Key);
    /// Writes what `put` and `remove` have left in the memory of the process, the way the store does that.
    fn settle(&self) {}
}

pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// A value is checked before `get` shows it.
    pub(crate) verifies: bool,
    /// `put` leaves values in the memory of the process: they die with it.
    pub(crate) holds_back: bool,
    pub(crate) open: fn(&Path) -> Opened,
    /// Likewise, for several processes at once.
    pub(crate) open_shared: fn(&Path) -> Opened,
}

/// Ours first: ratios are to it.
pub(crate) const KINDS: [Kind; 5] = [
    Kind {
        name: "objcache",
        verifies: true,
        holds_back: false,
        open: objcache::open,
        open_shared: objcache::open,
    },
    Kind {
        name: "plain files",
        verifies: false,
        holds_back: false,
        open: plain::open,
        open_shared: plain::open,
    },
    Kind { name: "sled", verifies: false, holds_back: true, open: sled::open, open_shared: sled::open },
    Kind { name: "LMDB", verifies: false, holds_back: false, open: lmdb::open, open_shared: lmdb::open },
    Kind {
        name: "redb",
        verifies: false,
        holds_back: true,
        open: redb::open,
        open_shared: redb::open_shared,
    },
];

impl Kind {
    pub(crate) fn at(&self, folder: &Path) -> Box<dyn Peer> {
        let path = folder.join(self.name);
        (self.open)(&path).unwrap_or_else(|error| panic!("{} does not open: {error}", self.name))
    }
}
