//! Helpers shared by the tests: made-up objects, and offering them.

#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use objcache_cache::{
    CacheAdmin, CacheError, CompiledObject, ObjectCache, Reason, Store, StoreOptions, VerifyOptions,
};
use objcache_signature::{Provenance, Signature};

/// A signature that tells `number` apart, spread over the fan-out directories.
pub fn signature(number: u32) -> Signature {
    let mut bytes = [0; 32];
    let spread = number.wrapping_mul(0x9e37_79b9);
    bytes[..4].copy_from_slice(&spread.to_be_bytes());
    bytes[28..].copy_from_slice(&number.to_be_bytes());
    Signature::from_bytes(bytes)
}

/// An object whose bytes follow from `number`, so that a wrong one is noticed.
pub fn object(number: u32, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

pub fn offer(cache: &(impl ObjectCache + ?Sized), number: u32, length: usize) -> Result<(), CacheError> {
    offer_costing(cache, number, length, Duration::from_millis(10))
}

pub fn offer_costing(
    cache: &(impl ObjectCache + ?Sized),
    number: u32,
    length: usize,
    compile_time: Duration,
) -> Result<(), CacheError> {
    let provenance = Provenance { source_path: Some(format!("{number}.c")), ..Provenance::default() };
    cache.notify_object_compiled(&CompiledObject {
        signature: signature(number),
        object: &object(number, length),
        key_document: format!("key of {number}").as_bytes(),
        provenance: &provenance,
        namespace: "tests",
        compile_time,
        cpu_features: &[],
    })
}

/// Whether the cache has `number`; if so its bytes are checked.
pub fn has(cache: &(impl ObjectCache + ?Sized), number: u32, length: usize) -> bool {
    let found = cache.get_object(&signature(number)).expect("a cache in trouble answers with a miss");
    if let Some(found) = &found {
        assert!(**found == *object(number, length), "wrong bytes for {number}: {} of them", found.len());
    }
    found.is_some()
}

pub fn entry_path(root: &Path, number: u32) -> PathBuf {
    let hex = signature(number).to_string();
    root.join(&hex[..2]).join(&hex[2..])
}

pub fn store_at(root: &Path) -> Store {
    Store::open(StoreOptions::at(root)).expect("a fresh directory")
}

/// A directory with a store not yet made in it.
pub fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("store");
    (directory, root)
}

/// A test that cannot run here says why; with `OBJCACHE_REQUIRE_ALL=1` that is a failure.
pub fn skip(why: &str) {
    assert_ne!(std::env::var("OBJCACHE_REQUIRE_ALL").as_deref(), Ok("1"), "cannot run: {why}");
    eprintln!("skipped: {why}");
}

/// After whatever happened: the store opens, takes an entry, and nothing damaged or half made is left in it.
pub fn check_sound(what: &str, root: &Path) {
    let mut options = StoreOptions::at(root);
    options.own_errors = true;
    let store = Store::open(options).unwrap_or_else(|error| panic!("{what}: {error}"));
    offer(&store, 50, 5_000).unwrap_or_else(|error| panic!("{what}: {error}"));
    // Tidying, if it was due, writes files too.
    store.settle();
    for subdirectory in ["tmp", "locks"] {
        let left: Vec<_> = std::fs::read_dir(root.join(subdirectory)).expect("there").flatten().collect();
        assert!(left.is_empty(), "{what}: {left:?}");
    }
    let report = store.verify(VerifyOptions::default(), &mut |_| ()).expect("verifies");
    assert_eq!(report.damaged, [], "{what}");
    let listed = store.list().unwrap_or_else(|error| panic!("{what}: {error}")).len() as u64;
    assert_eq!(listed, report.checked, "{what}");
    assert!(has(&store, 50, 5_000), "{what}");
    drop(store);
    let report = store_at(root).fsck(false, &mut |_| ()).expect("looks");
    assert_eq!(report.findings, [], "{what}");
}

/// How long a long test lasts: so many seconds by default, and with `OBJCACHE_SOAK=1`. A larger number there is
/// taken as seconds.
pub fn soak(seconds: u64, long_seconds: u64) -> Duration {
    let set = std::env::var("OBJCACHE_SOAK").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(match set {
        None | Some(0) => seconds,
        Some(1) => long_seconds,
        Some(seconds) => seconds,
    })
}

/// Tells how long something of unknown speed goes on: for so long, and then until it has done enough to be worth
/// something, however busy the machine is. Ten times as long, and it never will have.
pub struct Span {
    begun: Instant,
    least: Duration,
}

impl Span {
    pub fn of(least: Duration) -> Self {
        Self { begun: Instant::now(), least }
    }

    pub fn goes_on(&self, is_enough: impl FnOnce() -> bool) -> bool {
        let lasted = self.begun.elapsed();
        lasted < self.least || lasted < self.least.saturating_mul(10) && !is_enough()
    }
}

/// What may come up when processes are killed or stopped at bad moments, and costs no more than time.
pub const HARMLESS: [Reason; 3] = [Reason::CatalogueRebuilt, Reason::CatalogueBusy, Reason::LockTimeout];

/// xorshift: the same numbers for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        random.below(1);
        random
    }

    pub fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) as u32) % end
    }
}
