//! What a hit, a miss and a put cost, against plain files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use objcache::cache::{CompiledObject, ObjectCache, Store, StoreOptions};
use objcache::signature::{Provenance, Signature};

use crate::measure::{Contender, KEY_DOCUMENT, compare, median, show};

pub(crate) fn bench() {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let store = Store::open(StoreOptions::at(folder.path().join("store"))).expect("the store opens");
    // Few enough at once to stay in the processor's caches, as one hit after the other would.
    for (kilobytes, batch, goal) in [(12, 50, 8), (256, 4, 100)] {
        hit(&store, folder.path(), (kilobytes, batch), Duration::from_micros(goal));
    }
    miss(&store, folder.path());
    put(&store, folder.path());
    durable_puts(folder.path());
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

/// By the clock: what an fsync costs is waiting.
fn durable_puts(folder: &Path) {
    const GROUP: usize = 128;
    let mut options = StoreOptions::at(folder.join("durable"));
    options.durable = true;
    let store = Store::open(options).expect("the store opens");
    let (object, provenance) = (bytes(12, 2), Provenance::default());
    let group = |round: usize| -> Vec<CompiledObject<'_>> {
        (0..GROUP).map(|index| offered(distinct(index, 1_000_000 + round), &object, &provenance)).collect()
    };
    let (mut one_by_one, mut together) = (Vec::new(), Vec::new());
    for round in 0..5 {
        for (times, is_group) in [(&mut one_by_one, false), (&mut together, true)] {
            let offered = group(2 * round + usize::from(is_group));
            let started = Instant::now();
            match is_group {
                true => store.notify_objects_compiled(&offered).expect("the store takes them"),
                false => {
                    let mut offer = offered.iter().map(|it| store.notify_object_compiled(it));
                    offer.try_for_each(|it| it).expect("the store takes them");
                }
            }
            times.push(started.elapsed() / GROUP as u32);
        }
    }
    let (one_by_one, together) = (median(&mut one_by_one), median(&mut together));
    println!("\ndurable put of 12 KB, by the clock");
    println!("  {:<52} {:>10}", format!("objcache: {GROUP} together"), show(together));
    let times = one_by_one.as_secs_f64() / together.as_secs_f64();
    println!("  {:<52} {:>10}  {times:>8.2}x", "one after the other", show(one_by_one));
}

/// A signature that spreads over the store's folders as real ones do.
fn distinct(index: usize, round: usize) -> Signature {
    Signature::from_bytes(blake3::hash(format!("{index} {round}").as_bytes()).into())
}

fn offer(store: &Store, signature: Signature, object: &[u8]) {
    let provenance = Provenance::default();
    store.notify_object_compiled(&offered(signature, object, &provenance)).expect("the store takes it");
}

fn offered<'a>(signature: Signature, object: &'a [u8], provenance: &'a Provenance) -> CompiledObject<'a> {
    CompiledObject {
        signature,
        object,
        key_document: KEY_DOCUMENT,
        provenance,
        namespace: "",
        compile_time: Duration::from_millis(20),
        cpu_features: &[],
    }
}

/// Bytes that do not compress and differ by `seed`.
fn bytes(kilobytes: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; kilobytes * 1024];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}
