//! Codecs: what is put comes back whichever way it is stored, cold entries shrink and hot ones do not stay small,
//! while others read; and an object that this host cannot run is left alone.

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use objcache_cache::{
    CacheAdmin, Codec, CompiledObject, Compression, HostFeatures, MacKey, ObjectCache, Reason,
    RecompressPolicy, RecompressReport, SigningKey, Store, StoreOptions, Trust, VerifyOptions,
};
use objcache_signature::Provenance;
use support::{entry_path, place, signature, store_at};

/// Half of it repeats itself, which every codec finds; the other half only Zstandard can shrink.
fn object(number: u32, length: usize) -> Vec<u8> {
    let byte = |at: usize| match at / 512 % 2 {
        0 => (number as usize + at % 97) as u8,
        _ => (mixed(at as u64) >> 60) as u8,
    };
    (0..length).map(byte).collect()
}

/// As good as random: nothing in it repeats.
fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn options(root: &Path, compression: Compression) -> StoreOptions {
    let mut options = StoreOptions::at(root);
    options.compression = compression;
    options
}

fn store(root: &Path, compression: Compression) -> Store {
    Store::open(options(root, compression)).expect("opens")
}

fn offer_needing(store: &Store, number: u32, length: usize, cpu_features: &[String]) {
    let compiled = CompiledObject {
        signature: signature(number),
        object: &object(number, length),
        key_document: b"key",
        provenance: &Provenance { host: Some("here".to_owned()), ..Provenance::default() },
        namespace: "tests",
        compile_time: Duration::from_millis(10),
        cpu_features,
    };
    store.notify_object_compiled(&compiled).expect("taken");
}

fn offer(store: &Store, number: u32, length: usize) {
    offer_needing(store, number, length, &[]);
}

fn has(store: &Store, number: u32, length: usize) -> bool {
    let found = store.get_object(&signature(number)).expect("answers");
    assert!(found.as_ref().is_none_or(|found| **found == *object(number, length)), "wrong bytes");
    found.is_some()
}

fn codecs(store: &Store) -> Vec<Codec> {
    store.list().expect("lists").iter().map(|entry| entry.codec).collect()
}

fn recompress(store: &Store, policy: &RecompressPolicy, dry_run: bool) -> RecompressReport {
    store.recompress(policy, dry_run, &mut |_| ()).expect("recompresses")
}

/// Everything counts as cold, or nothing does.
fn cold() -> RecompressPolicy {
    let mut policy = RecompressPolicy::default();
    policy.cold_after = Duration::ZERO;
    policy
}

#[test]
fn every_codec_gives_back_what_was_put_and_tells_what_it_took() {
    for codec in Codec::ALL {
        let (_directory, root) = place();
        let store = store(&root, Compression::Always(codec));
        for length in [0, 1, 100, 5000, 100_000] {
            offer(&store, 1, length);
            assert!(has(&store, 1, length), "{codec} {length}");
            assert_eq!(store.peek(&signature(1)).expect("looks").as_deref(), Some(&*object(1, length)));
            let info = store.stat(&signature(1)).expect("stats").expect("there");
            assert_eq!(info.object_bytes, length as u64);
            let shrank = info.stored_bytes < info.object_bytes;
            assert_eq!((info.codec, shrank), if shrank { (codec, true) } else { (Codec::Plain, false) });
            assert!(shrank || length < 1000 || codec == Codec::Plain);
            let file = fs::metadata(entry_path(&root, 1)).expect("there").len();
            assert!(file > info.stored_bytes && file < info.stored_bytes + 600);
        }
        let report = store.verify(VerifyOptions::default(), &mut |_| ()).expect("verifies");
        assert_eq!(report.damaged, []);
        assert!(has(&store_at(&root), 1, 100_000), "whatever a process itself would put");
    }
}

#[test]
fn cold_entries_shrink_and_come_back_hot() {
    let (_directory, root) = place();
    let hot = store(&root, Compression::Auto);
    offer(&hot, 1, 20_000);
    offer(&hot, 2, 600_000);
    offer(&hot, 3, 100);
    assert!(hot.set_pinned(&signature(2), true).expect("pins"));
    assert!(has(&hot, 2, 600_000));
    let before = hot.list().expect("lists");

    let dry = recompress(&hot, &cold(), true);
    assert_eq!((dry.changed.len(), dry.kept, dry.left), (2, 1, 0));
    assert_eq!(hot.list().expect("lists"), before, "only said");
    let report = recompress(&hot, &cold(), false);
    assert_eq!(report, dry);
    assert!(report.changed.iter().all(|it| it.to == Codec::Zstd && it.bytes_after < it.bytes_before));
    assert_eq!(codecs(&hot).iter().filter(|codec| **codec == Codec::Zstd).count(), 2);
    for (after, before) in hot.list().expect("lists").iter().zip(&before) {
        assert!(after.disk_bytes <= before.disk_bytes);
        let history = |it: &objcache_cache::EntryInfo| {
            (it.signature, it.object_bytes, it.hits, it.created_unix_us, it.pinned, it.namespace.clone())
        };
        assert_eq!(history(after), history(before));
    }
    assert!(has(&hot, 1, 20_000) && has(&hot, 2, 600_000) && has(&hot, 3, 100));
    assert_eq!(recompress(&hot, &cold(), false).changed, [], "once");

    let report = recompress(&hot, &RecompressPolicy::default(), false);
    assert_eq!(report.changed.len(), 2, "they were used just now");
    assert_eq!(codecs(&hot).iter().filter(|codec| **codec == Codec::Lz4).count(), 1);
    assert!(!codecs(&hot).contains(&Codec::Zstd));
    assert!(has(&hot, 1, 20_000) && has(&hot, 2, 600_000));
    let record = hot.record(&signature(1)).expect("reads").expect("there");
    assert_eq!(
        (record.key_document.as_slice(), record.provenance.host.as_deref()),
        (&b"key"[..], Some("here"))
    );
}

#[test]
fn readers_never_notice() {
    let (_directory, root) = place();
    let writer = store(&root, Compression::Always(Codec::Plain));
    (0..8).for_each(|number| offer(&writer, number, 30_000));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let reader = store_at(&root);
                while !done.load(Ordering::Relaxed) {
                    assert!((0..8).all(|number| has(&reader, number, 30_000)), "there all the time");
                }
            });
        }
        for _ in 0..10 {
            assert_eq!(recompress(&writer, &cold(), false).changed.len(), 8);
            assert_eq!(recompress(&writer, &RecompressPolicy::default(), false).changed.len(), 8);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(fs::read_dir(root.join("tmp")).expect("there").next().is_none());
}

#[test]
fn seals_outlive_recompression_or_the_entry_stays() {
    let (key, mac) = (SigningKey::from_bytes([1; 32]), MacKey::from_bytes([1; 32]));
    let with = |root: &Path, trust: Trust| {
        let mut options = options(root, Compression::Always(Codec::Plain));
        options.trust = trust;
        Store::open(options).expect("opens")
    };
    let (_directory, root) = place();
    let signer = with(&root, Trust::everybody().signing_with(key.clone()));
    offer(&signer, 1, 20_000);
    assert_eq!(recompress(&store_at(&root), &cold(), false).changed.len(), 1, "by somebody without the key");
    assert!(has(&with(&root, Trust::ed25519([key.public()])), 1, 20_000), "what was signed is still true");

    let (_directory, root) = place();
    let owner = with(&root, Trust::mac(mac.clone()));
    offer(&owner, 1, 20_000);
    assert_eq!(recompress(&store_at(&root), &cold(), false).left, 1, "without the key it would lose its MAC");
    assert!(has(&owner, 1, 20_000));
    assert_eq!(recompress(&owner, &cold(), false).changed.len(), 1);
    assert!(has(&with(&root, Trust::mac(mac)), 1, 20_000));
}

#[test]
fn an_object_for_a_newer_cpu_is_a_miss_that_stays() {
    let (_directory, root) = place();
    let on = |host: HostFeatures| {
        let mut options = StoreOptions::at(&root);
        options.host_features = host;
        Store::open(options).expect("opens")
    };
    let needed = ["x86/avx2".to_owned(), "x86/sse2".to_owned()];
    let newer = on(HostFeatures::of(["x86/sse2", "x86/avx", "x86/avx2"]));
    offer_needing(&newer, 1, 5000, &needed);
    assert!(has(&newer, 1, 5000));
    let before = fs::read(entry_path(&root, 1)).expect("published");

    let older = on(HostFeatures::of(["x86/sse2", "x86/avx"]));
    assert!(!has(&older, 1, 5000), "it would be an illegal instruction");
    let stats = older.stats().expect("stats");
    assert_eq!((stats.reasons.as_slice(), stats.quarantined), (&[(Reason::CpuFeatures, 1)][..], 0));
    assert_eq!(fs::read(entry_path(&root, 1)).expect("stays"), before);
    assert_eq!(older.verify(VerifyOptions::default(), &mut |_| ()).expect("verifies").damaged, []);
    assert!(older.peek(&signature(1)).expect("looks").is_some(), "to look at it is no risk");
    let record = older.record(&signature(1)).expect("reads").expect("there");
    assert_eq!(record.cpu_features, needed);

    assert!(has(&on(HostFeatures::unknown()), 1, 5000), "nobody knows, so it is handed over");
    assert!(has(&on(HostFeatures::of(["aarch64/neon"])), 1, 5000), "cannot run there at all, but be copied");
    assert!(has(&newer, 1, 5000));
}
