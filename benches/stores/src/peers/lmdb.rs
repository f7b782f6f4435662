//! LMDB without `fsync` (`MDB_NOSYNC`): a commit writes, and leaves the rest to the kernel.

use std::fs;
use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

use super::{Opened, Peer};
use crate::entries::Key;

struct Lmdb {
    env: Env,
    values: Database<'static, Bytes, Bytes>,
}

/// Address space, not memory or disk.
const MAP_SIZE: usize = 8 << 30;

pub(super) fn open(path: &Path) -> Opened {
    fs::create_dir_all(path)?;
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_SIZE);
    // SAFETY: without syncs a power loss may spoil the file, and nobody keeps it that long.
    unsafe { options.flags(EnvFlags::NO_SYNC) };
    // SAFETY: the folder is this run's own, and nobody changes its files but LMDB.
    let env = unsafe { options.open(path) }?;
    let opened = env.open_databases_and_commit(env.read_txn()?, |opener, transaction| {
        opener.open_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
    })?;
    // The one without a name is always there.
    let values = opened.unwrap_commit().expect("a database");
    Ok(Box::new(Lmdb { env, values }))
}

impl Peer for Lmdb {
    fn get(&self, key: &Key, look: &mut dyn FnMut(&[u8])) -> bool {
        let transaction = self.env.read_txn().expect("LMDB reads");
        self.values.get(&transaction, key).expect("LMDB answers").inspect(|value| look(value)).is_some()
    }

    fn put(&self, key: &Key, value: &[u8]) {
        let mut transaction = self.env.write_txn().expect("LMDB writes");
        self.values.put(&mut transaction, key, value).expect("LMDB takes it");
        transaction.commit().expect("LMDB commits");
    }

    fn remove(&self, key: &Key) {
        let mut transaction = self.env.write_txn().expect("LMDB writes");
        self.values.delete(&mut transaction, key).expect("removed");
        transaction.commit().expect("LMDB commits");
    }
}
