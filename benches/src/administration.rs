//! What a look at 10,000 entries takes: `stats`, `ls`, choosing all of them as victims; and what the directory
//! takes beside what was put into it. Each look is by a store of its own, as by the program.

use std::path::Path;
use std::time::{Duration, Instant};

use objcache::cache::{CacheAdmin, CompiledObject, GcLimits, ObjectCache, Store, StoreOptions};
use objcache::signature::{Provenance, Signature};

use crate::measure::{KEY_DOCUMENT, median, show};

const ENTRIES: u32 = 10_000;

type Look<'a> = &'a dyn Fn(&Store);

pub(crate) fn bench() {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let root = folder.path().join("store");
    let payload = fill(&root);
    open(&root).list().expect("lists");
    println!("\n10,000 entries, {payload} bytes of objects");
    let looks: [(&str, u64, Look<'_>); 3] = [
        ("stats", 15, &|store| assert_eq!(store.stats().expect("looks").entries, u64::from(ENTRIES))),
        ("ls", 60, &|store| assert_eq!(store.list().expect("lists").len(), ENTRIES as usize)),
        ("choosing all as victims", 100, &|store| {
            let none = GcLimits { max_size: Some(0), ..GcLimits::default() };
            let report = store.collect_garbage(&none, true).expect("chooses");
            assert_eq!(report.removed.len(), ENTRIES as usize);
        }),
    ];
    for (name, goal, look) in looks {
        let mut times: Vec<Duration> = (0..15)
            .map(|_| {
                let begun = Instant::now();
                look(&open(&root));
                begun.elapsed()
            })
            .collect();
        println!("  {name:<52} {:>10}  goal {goal} ms", show(median(&mut times)));
    }
    let usage = open(&root).disk_usage().expect("looks");
    let ratio = |bytes: u64| bytes as f64 / payload as f64;
    println!(
        "  entries on disk are {:.3} of the objects, the catalogue {:.3}",
        ratio(usage.entries),
        ratio(usage.catalogue)
    );
}

fn open(root: &Path) -> Store {
    Store::open(StoreOptions::at(root)).expect("the store opens")
}

/// Returns the bytes of the objects: from 1 KB, by every size to 90 KB.
fn fill(root: &Path) -> u64 {
    let store = open(root);
    let mut bytes = vec![0; 90 * 1024];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let mut payload = 0;
    for number in 0..ENTRIES {
        let object = &bytes[..1024 + (number as usize * 7919) % (89 * 1024)];
        payload += object.len() as u64;
        let offered = CompiledObject {
            signature: Signature::from_bytes(blake3::hash(&number.to_le_bytes()).into()),
            object,
            key_document: KEY_DOCUMENT,
            provenance: &Provenance::default(),
            namespace: "bench",
            compile_time: Duration::from_micros(u64::from(number) * 37 % 100_000),
            cpu_features: &[],
        };
        store.notify_object_compiled(&offered).expect("the store takes it");
    }
    payload
}
