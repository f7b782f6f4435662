//! redb with `Durability::None`: a commit stays in memory, and its old pages taken, until a durable one.

use std::path::Path;

use redb::{ConcurrencyMode, Database, Durability, ReadableDatabase, Table, TableDefinition};

use super::{Opened, Peer};
use crate::entries::Key;

const VALUES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("values");

pub(super) fn open(path: &Path) -> Opened {
    in_mode(path, ConcurrencyMode::ExclusiveWriter)
}

/// So that other processes may have it open as well; each commit is durable then.
pub(super) fn open_shared(path: &Path) -> Opened {
    in_mode(path, ConcurrencyMode::MultiWriter)
}

fn in_mode(path: &Path, mode: ConcurrencyMode) -> Opened {
    let is_new = !path.exists();
    let database = Database::builder().set_concurrency_mode(mode).create(path)?;
    if is_new {
        write(&database, Durability::Immediate, |_| ());
    }
    Ok(Box::new(database))
}

fn write(
    database: &Database,
    durability: Durability,
    change: impl FnOnce(&mut Table<'_, &'static [u8], &'static [u8]>),
) {
    let mut transaction = database.begin_write().expect("redb writes");
    transaction.set_durability(durability).expect("nothing is in the way");
    change(&mut transaction.open_table(VALUES).expect("redb has its table"));
    transaction.commit().expect("redb commits");
}

impl Peer for Database {
    fn get(&self, key: &Key, look: &mut dyn FnMut(&[u8])) -> bool {
        let transaction = self.begin_read().expect("redb reads");
        let values = transaction.open_table(VALUES).expect("redb has its table");
        let found = values.get(&key[..]).expect("redb answers");
        found.inspect(|value| look(value.value())).is_some()
    }

    fn put(&self, key: &Key, value: &[u8]) {
        write(self, Durability::None, |values| {
            values.insert(&key[..], value).expect("redb takes it");
        });
    }

    fn remove(&self, key: &Key) {
        write(self, Durability::None, |values| {
            values.remove(&key[..]).expect("removed");
        });
    }

    fn settle(&self) {
        write(self, Durability::Immediate, |_| ());
    }
}
