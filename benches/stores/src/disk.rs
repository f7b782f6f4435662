//! What the values take on disk.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::children::checked;
use crate::entries::{Entry, Key};
use crate::peers::{KINDS, Kind, Peer};

/// Commits that leave their work in memory are followed by a durable one this often.
const GROUP: usize = 100;

/// Disk ÷ payload of a store that was closed.
pub(crate) struct Usage {
    pub(crate) fresh: f64,
    pub(crate) after_churn: f64,
    pub(crate) after_half: f64,
}

pub(crate) fn fill(kind: &Kind, folder: &Path, entries: &[Entry]) -> f64 {
    let peer = kind.at(folder);
    in_groups(&*peer, entries, |entry| peer.put(&entry.key, &entry.value));
    entries.iter().for_each(|entry| checked(&*peer, &entry.key));
    drop(peer);
    ratio(kind, folder, entries)
}

/// Four times a quarter goes and others come; then half goes. `fresh` is what `fill` said.
pub(crate) fn churn(folder: &Path, mut entries: Vec<Entry>, fresh: &[f64]) -> Vec<Usage> {
    let quarter = entries.len() / 4;
    let mut after_churn = vec![0.0; KINDS.len()];
    for round in 1..=4_u64 {
        // Each quarter from all over the order of time.
        let comes: Vec<Entry> = (0..quarter as u64).map(|it| Entry::of(round << 32 | it)).collect();
        let leaves = |at: usize| at * 4 + (round as usize - 1);
        let gone: Vec<Key> = (0..quarter).map(|at| entries[leaves(at)].key).collect();
        for kind in &KINDS {
            let peer = kind.at(folder);
            in_groups(&*peer, &gone, |key| peer.remove(key));
            in_groups(&*peer, &comes, |entry| peer.put(&entry.key, &entry.value));
            gone.iter().for_each(|key| assert!(!peer.get(key, &mut |_| ()), "{} keeps it", kind.name));
        }
        for (at, entry) in comes.into_iter().enumerate() {
            entries[leaves(at)] = entry;
        }
    }
    for (kind, after) in KINDS.iter().zip(&mut after_churn) {
        *after = ratio(kind, folder, &entries);
    }
    let stay = entries.split_off(entries.len() / 2);
    let mut usage = Vec::new();
    for ((kind, fresh), after_churn) in KINDS.iter().zip(fresh).zip(after_churn) {
        let peer = kind.at(folder);
        in_groups(&*peer, &entries, |entry| peer.remove(&entry.key));
        entries.iter().for_each(|it| assert!(!peer.get(&it.key, &mut |_| ()), "{} keeps it", kind.name));
        stay.iter().for_each(|it| checked(&*peer, &it.key));
        drop(peer);
        usage.push(Usage { fresh: *fresh, after_churn, after_half: ratio(kind, folder, &stay) });
    }
    usage
}

fn in_groups<T>(peer: &dyn Peer, all: &[T], work: impl Fn(&T)) {
    for group in all.chunks(GROUP) {
        group.iter().for_each(&work);
        peer.settle();
    }
}

fn ratio(kind: &Kind, folder: &Path, entries: &[Entry]) -> f64 {
    let payload: usize = entries.iter().map(|entry| entry.value.len()).sum();
    allocated(&folder.join(kind.name)) as f64 / payload as f64
}

/// Bytes in allocated blocks of all files and folders. sled's threads may still be removing some.
fn allocated(path: &Path) -> u64 {
    let about = match fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if error.kind() == ErrorKind::NotFound => return 0,
        Err(error) => panic!("{} cannot be looked at: {error}", path.display()),
    };
    let inside = about.is_dir().then(|| fs::read_dir(path).expect("a folder"));
    let inside = inside.into_iter().flatten().map(|entry| allocated(&entry.expect("an entry").path()));
    about.blocks() * 512 + inside.sum::<u64>()
}
