//! sled with the values in the tree. What is inserted waits in memory for the next flush.

use std::path::Path;

use super::{Opened, Peer};
use crate::entries::Key;

pub(super) fn open(path: &Path) -> Opened {
    // No thread flushes by time: `settle` does.
    Ok(Box::new(sled::Config::new().path(path).flush_every_ms(None).open()?))
}

impl Peer for sled::Db {
    fn get(&self, key: &Key, look: &mut dyn FnMut(&[u8])) -> bool {
        let found = sled::Tree::get(self, key).expect("sled answers");
        found.inspect(|value| look(value)).is_some()
    }

    fn put(&self, key: &Key, value: &[u8]) {
        self.insert(key, value).expect("sled takes it");
    }

    fn remove(&self, key: &Key) {
        sled::Tree::remove(self, key).expect("removed");
    }

    fn settle(&self) {
        self.flush().expect("sled flushes");
    }
}
