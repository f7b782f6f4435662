//! What a hit, a miss and a put cost, against plain files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use objcache::cache::{CompiledObject, ObjectCache, Store, StoreOptions};
use objcache::signature::{Provenance, Signature};

use crate::measure::{Contender, compare};

pub(crate) fn bench() {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let store = Store::open(StoreOptions::at(folder.path().join("store"))).expect("the store opens");
    // Few enough at once to stay in the processor's caches, as one hit after the other would.
    for (kilobytes, batch, goal) in [(12, 50, 8), (256, 4, 100)] {
        hit(&store, folder.path(), (kilobytes, batch), Duration::from_micros(goal));
    }
    miss(&store, folder.path());
    put(&store, folder.path());
}

fn hit(store: &Store, folder: &Path, (kilobytes, batch): (usize, usize), goal: Duration) {
    let object = bytes(kilobytes, 0);
    let signature = Signature::from_bytes([kilobytes as u8; 32]);
    offer(store, signature, &object);
    let plain = folder.join(format!("plain{kilobytes}"));
    fs::write(&plain, &object).expect("a plain file");
    let checked = || {
        let bytes = fs::read(&plain).expect("a plain file");
        (blake3::hash(&bytes), bytes)
    };
    compare(
        &format!("hit of {kilobytes} KB"),
        Some(goal),
        batch,
        vec![
            Contender::new("objcache: store hit, verified", |_| hit_of(store, &signature)),
            Contender::new("read of a plain file", |_| fs::read(&plain)),
            Contender::new("read of a plain file, and BLAKE3", |_| checked()),
        ],
    );
}

fn hit_of(store: &Store, signature: &Signature) -> impl Sized + use<> {
    store.get_object(signature).expect("the store answers").expect("a hit")
}

fn miss(store: &Store, folder: &Path) {
    let absent = folder.join("absent");
    compare(
        "miss",
        Some(Duration::from_micros(2)),
        200,
        vec![
            Contender::new("objcache: store miss", |index| {
                let mut signature = [0xee; 32];
                signature[0] = index as u8;
                store.get_object(&Signature::from_bytes(signature)).expect("the store answers")
            }),
            Contender::new("open of a file that is not there", |_| fs::File::open(&absent).err()),
        ],
    );
}

fn put(store: &Store, folder: &Path) {
    let object = bytes(12, 1);
    let name = |index: usize, round: usize| -> PathBuf { folder.join(format!("put{index}-{round}")) };
    let (mut round, mut plain_round) = (0, 0);
    compare(
        "put of 12 KB, no fsync",
        Some(Duration::from_micros(100)),
        50,
        vec![
            Contender::new("objcache: offer", |index| {
                round += usize::from(index == 0);
                offer(store, distinct(index, round), &object);
            }),
            Contender::new("write of a plain file, and rename", |index| {
                plain_round += usize::from(index == 0);
                let to = name(index, plain_round);
                let from = to.with_extension("tmp");
                fs::write(&from, &object).and_then(|()| fs::rename(from, to))
            }),
        ],
    );
}

/// A signature that spreads over the store's folders as real ones do.
fn distinct(index: usize, round: usize) -> Signature {
    Signature::from_bytes(blake3::hash(format!("{index} {round}").as_bytes()).into())
}

fn offer(store: &Store, signature: Signature, object: &[u8]) {
    let offered = CompiledObject {
        signature,
        object,
        key_document: &[7; 900],
        provenance: &Provenance::default(),
        namespace: "",
        compile_time: Duration::from_millis(20),
        cpu_features: &[],
    };
    store.notify_object_compiled(&offered).expect("the store takes it");
}

/// Bytes that do not compress and differ by `seed`.
fn bytes(kilobytes: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; kilobytes * 1024];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}
