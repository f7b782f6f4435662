use std::path::Path;
use std::time::Duration;

use objcache_cache::{CacheAdmin, CompiledObject, ObjectCache, Store, StoreOptions};
use objcache_signature::{Provenance, Signature};

use super::{Opened, Peer};
use crate::entries::Key;

/// As entries have it: one of clang's.
const KEY_DOCUMENT: &[u8] = include_bytes!("../../../key-document");

pub(super) fn open(path: &Path) -> Opened {
    Ok(Box::new(Store::open(StoreOptions::at(path))?))
}

impl Peer for Store {
    fn get(&self, key: &Key, look: &mut dyn FnMut(&[u8])) -> bool {
        let found = self.get_object(&Signature::from_bytes(*key)).expect("the store answers");
        found.inspect(|object| look(object)).is_some()
    }

    fn put(&self, key: &Key, value: &[u8]) {
        let offered = CompiledObject {
            signature: Signature::from_bytes(*key),
            object: value,
            // The others need not keep it.
            key_document: KEY_DOCUMENT,
            provenance: &Provenance::default(),
            namespace: "",
            compile_time: Duration::from_millis(20),
            cpu_features: &[],
        };
        self.notify_object_compiled(&offered).expect("the store takes it");
    }

    fn remove(&self, key: &Key) {
        CacheAdmin::remove(self, &Signature::from_bytes(*key)).expect("removed");
    }
}
