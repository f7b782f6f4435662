//! Each promise of `ObjectCache`, `CompileOnce` and `CacheAdmin` as one function, run over every
//! implementation and through every kind of pointer. A new implementation gets its tests by a line at the end.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use objcache_cache::{
    CacheAdmin, CacheError, CompileFailure, CompileOnce, CompiledObject, GcLimits, GetOrCompileError,
    MemoryCache, ObjectBuffer, ObjectCache, Offer, Outcome, PackMode, PackSelection, SledCache, Tiered,
    VerifyOptions, from_fn,
};
use objcache_signature::{Provenance, Signature};
use support::{has, object, offer, offer_costing, place, signature, store_at};

/// Caches of this size are made: room for a few objects of `BIG`.
const MAX_SIZE: u64 = 4 << 20;
const BIG: usize = 300_000;

fn an_unknown_signature_is_a_miss(cache: &dyn ObjectCache) {
    assert!(!has(cache, 1, 0));
}

fn what_is_offered_comes_back(cache: &dyn ObjectCache) {
    for (number, length) in [(1, 0), (2, 1), (3, 4096), (4, 12_345), (5, BIG)] {
        offer(cache, number, length).expect("taken");
        assert!(has(cache, number, length), "{length} bytes");
    }
    assert!(has(cache, 1, 0) && has(cache, 4, 12_345), "still there");
    assert!(!has(cache, 6, 0), "and nothing else");
}

fn offering_again_is_harmless(cache: &dyn ObjectCache) {
    for _ in 0..3 {
        offer(cache, 1, 1000).expect("taken");
    }
    assert!(has(cache, 1, 1000));
}

fn the_last_offer_counts(cache: &dyn ObjectCache) {
    offer(cache, 1, 1000).expect("taken");
    offer(cache, 1, 2000).expect("taken");
    assert!(has(cache, 1, 2000));
}

fn threads_see_whole_objects_or_none(cache: &dyn ObjectCache) {
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            scope.spawn(move || {
                for round in 0..50u32 {
                    let number = 20 + (thread + round) % 8;
                    has(cache, number, 5000 + number as usize);
                    offer(cache, number, 5000 + number as usize).expect("taken");
                }
            });
        }
    });
    for number in 20..28 {
        assert!(has(cache, number, 5000 + number as usize));
    }
}

fn an_object_that_is_too_large_is_declined(cache: &dyn ObjectCache) {
    offer(cache, 1, MAX_SIZE as usize + 1).expect("declined without an error");
    assert!(!has(cache, 1, MAX_SIZE as usize + 1));
    offer(cache, 2, 100).expect("taken");
    assert!(has(cache, 2, 100), "and it goes on");
}

fn get(cache: &(impl ObjectCache + ?Sized), number: u32, compile: impl FnOnce()) -> (ObjectBuffer, Outcome) {
    let compile = || {
        compile();
        Ok::<_, CacheError>(Offer { object: object(number, 500), ..Offer::default() })
    };
    let fetched = cache.get_or_compile(&signature(number), compile).expect("compiles");
    assert_eq!(fetched.outcome == Outcome::Miss, fetched.compile.is_some());
    assert_eq!(*fetched.object, *object(number, 500));
    (fetched.object, fetched.outcome)
}

fn compile_runs_on_a_miss_only(cache: &dyn ObjectCache) {
    assert_eq!(get(cache, 1, || ()).1, Outcome::Miss);
    assert_eq!(get(cache, 1, || panic!("it is there")).1, Outcome::Hit);
    assert_eq!(get(cache, 2, || ()).1, Outcome::Miss);
}

fn threads_compile_once(cache: &dyn ObjectCache) {
    let (compiled, together) = (AtomicU32::new(0), Barrier::new(8));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                together.wait();
                get(cache, 7, || {
                    compiled.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(30));
                });
            });
        }
    });
    assert_eq!(compiled.load(Ordering::Relaxed), 1);
}

fn another_signature_does_not_wait(cache: &dyn ObjectCache) {
    let permit = cache.exclude_others(&signature(1)).expect("nobody else");
    assert_eq!(get(cache, 2, || ()).1, Outcome::Miss);
    drop(permit);
    assert_eq!(get(cache, 1, || ()).1, Outcome::Miss);
}

fn a_failed_compilation_leaves_the_next_to_try(cache: &dyn ObjectCache) {
    let failed = cache.get_or_compile(&signature(1), || Err("syntax error"));
    assert!(matches!(failed, Err(GetOrCompileError::Compile("syntax error"))));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = cache.get_or_compile::<()>(&signature(1), || std::panic::resume_unwind(Box::new("compiler")));
    }));
    assert!(panicked.is_err());
    assert_eq!(get(cache, 1, || ()).1, Outcome::Miss);
}

/// What a failed compilation leaves, for the next that asks. `retry` is what compiling would give then.
fn fail(
    cache: &dyn ObjectCache,
    source_at_fault: bool,
    retry: Result<Offer, &'static str>,
) -> Result<Outcome, GetOrCompileError<&'static str>> {
    let diagnose = |error: &&str| source_at_fault.then(|| CompileFailure::new(*error));
    let failed = cache.get_or_compile_or_remember(&signature(1), || Err("first"), diagnose);
    assert!(matches!(failed, Err(GetOrCompileError::Compile("first"))));
    let again = cache.get_or_compile_or_remember(&signature(1), || retry, diagnose);
    again.map(|fetched| fetched.outcome)
}

/// For caches that were not asked to remember failures.
fn a_failure_is_forgotten(cache: &dyn ObjectCache) {
    assert!(matches!(fail(cache, true, Err("second")), Err(GetOrCompileError::Compile("second"))));
    assert_eq!(cache.get_failure(&signature(1)).expect("asks"), None);
}

/// For caches that were.
fn a_failure_is_remembered(cache: &dyn ObjectCache) {
    let again = fail(cache, true, Ok(Offer::default()));
    assert!(
        matches!(&again, Err(GetOrCompileError::Remembered(it)) if it.diagnostics() == "first"),
        "{again:?}"
    );
    assert_eq!(get(cache, 2, || ()).1, Outcome::Miss, "another signature is another matter");
    assert_eq!(get(cache, 1, || ()).1, Outcome::Miss, "who does not ask for failures is not told of them");
    assert_eq!(cache.get_failure(&signature(1)).expect("asks"), None, "it compiled after all");
}

/// Likewise: the compiler was missing, killed, or had no memory left.
fn a_failure_that_is_not_the_sources_is_forgotten(cache: &dyn ObjectCache) {
    assert_eq!(fail(cache, false, Ok(Offer::default())).expect("compiles"), Outcome::Miss);
}

fn whoever_waited_for_a_failure_gets_it_too(cache: &dyn ObjectCache) {
    let (compiled, together) = (AtomicU32::new(0), Barrier::new(6));
    let compile = || {
        compiled.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(30));
        Err("error: expected `;`")
    };
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                together.wait();
                let diagnose = |error: &&str| Some(CompileFailure::new(*error));
                let failed = cache.get_or_compile_or_remember(&signature(1), compile, diagnose);
                assert_eq!(failed.expect_err("fails").to_string(), "error: expected `;`");
            });
        }
    });
    assert_eq!(compiled.load(Ordering::Relaxed), 1);
}

/// A failure is remembered only for so long: the cache was told, not at all.
fn failures_grow_old(cache: &dyn ObjectCache) {
    cache.notify_compile_failed(&signature(1), &CompileFailure::new("old")).expect("taken");
    std::thread::sleep(Duration::from_millis(3));
    assert_eq!(cache.get_failure(&signature(1)).expect("asks"), None);
}

fn all_about_failures(make: &dyn Fn(Duration, Test<'_>)) {
    let promises: [fn(&dyn ObjectCache); 3] = [
        a_failure_is_remembered,
        a_failure_that_is_not_the_sources_is_forgotten,
        whoever_waited_for_a_failure_gets_it_too,
    ];
    for promise in promises {
        make(Duration::from_secs(3600), &mut |cache| promise(cache));
    }
    make(Duration::from_millis(1), &mut |cache| failures_grow_old(cache));
}

/// A promise, as it is put to a fresh cache.
type Test<'a> = &'a mut dyn FnMut(&dyn ObjectCache);

fn all_of_object_cache(make: &dyn Fn(Test<'_>)) {
    let promises: [fn(&dyn ObjectCache); 11] = [
        an_unknown_signature_is_a_miss,
        what_is_offered_comes_back,
        offering_again_is_harmless,
        the_last_offer_counts,
        threads_see_whole_objects_or_none,
        an_object_that_is_too_large_is_declined,
        compile_runs_on_a_miss_only,
        threads_compile_once,
        another_signature_does_not_wait,
        a_failed_compilation_leaves_the_next_to_try,
        a_failure_is_forgotten,
    ];
    for promise in promises {
        make(&mut |cache| promise(cache));
    }
}

fn entries_are_listed_with_what_was_offered(cache: &dyn CacheAdmin) {
    for number in 0..5 {
        offer_costing(cache, number, 1000, Duration::from_micros(1234)).expect("taken");
    }
    let (listed, mut signatures) = (cache.list().expect("lists"), (0..5).map(signature).collect::<Vec<_>>());
    signatures.sort();
    assert_eq!(listed.iter().map(|entry| entry.signature).collect::<Vec<_>>(), signatures);
    for entry in &listed {
        assert_eq!((entry.object_bytes, entry.compile_time_us, entry.hits), (1000, 1234, 0));
        assert_eq!((entry.namespace.as_str(), entry.pinned), ("tests", false));
        assert!(entry.disk_bytes >= 1000 && entry.created_unix_us <= entry.last_used_unix_us);
        assert_eq!(cache.stat(&entry.signature).expect("stats").as_ref(), Some(entry));
    }
    assert_eq!(cache.stat(&signature(9)).expect("stats"), None);
}

fn uses_are_counted(cache: &dyn CacheAdmin) {
    offer_costing(cache, 1, 1000, Duration::from_millis(3)).expect("taken");
    for _ in 0..3 {
        assert!(has(cache, 1, 1000));
    }
    assert!(!has(cache, 2, 1000));
    assert_eq!(cache.stat(&signature(1)).expect("stats").expect("there").hits, 3);
    let stats = cache.stats().expect("stats");
    assert_eq!((stats.hits, stats.misses, stats.puts, stats.put_bytes), (3, 1, 1, 1000));
    assert_eq!((stats.saved_compile_time_us, stats.entries, stats.object_bytes), (9000, 1, 1000));
    assert_eq!((stats.quarantined, stats.evicted, stats.reasons.len()), (0, 0, 0));
    assert!(stats.disk_bytes <= stats.max_size);

    offer(cache, 1, 2000).expect("taken again");
    let entry = cache.stat(&signature(1)).expect("stats").expect("there");
    assert_eq!((entry.hits, entry.object_bytes), (3, 2000), "a new offer does not forget them");
}

fn looking_is_not_using(cache: &dyn CacheAdmin) {
    offer(cache, 1, 1000).expect("taken");
    let before = cache.stat(&signature(1)).expect("stats");
    assert_eq!(*cache.peek(&signature(1)).expect("reads").expect("there"), *object(1, 1000));
    assert_eq!(cache.peek(&signature(2)).expect("reads"), None);
    assert_eq!(cache.stat(&signature(1)).expect("stats"), before);
    let stats = cache.stats().expect("stats");
    assert_eq!((stats.hits, stats.misses), (0, 0));
}

fn one_compilation_is_one_miss(cache: &dyn CacheAdmin) {
    get(cache, 1, || ());
    get(cache, 1, || ());
    let stats = cache.stats().expect("stats");
    assert_eq!((stats.hits, stats.misses), (1, 1));
}

fn the_record_is_kept(cache: &dyn CacheAdmin) {
    offer(cache, 1, 1000).expect("taken");
    let record = cache.record(&signature(1)).expect("reads").expect("there");
    assert_eq!(record.key_document, b"key of 1");
    assert_eq!(record.provenance.source_path.as_deref(), Some("1.c"));
    assert_eq!(cache.record(&signature(2)).expect("reads"), None);
}

fn prefixes_are_resolved(cache: &dyn CacheAdmin) {
    let close = [[0xab; 32], [0xac; 32]].map(Signature::from_bytes);
    let provenance = Provenance::default();
    for signature in close {
        let compiled = CompiledObject {
            signature,
            object: b"o",
            key_document: b"",
            provenance: &provenance,
            namespace: "",
            compile_time: Duration::ZERO,
            cpu_features: &[],
        };
        cache.notify_object_compiled(&compiled).expect("taken");
    }
    let resolve = |prefix: &str| cache.resolve_prefix(prefix).expect("resolves");
    assert_eq!(resolve("a"), close);
    assert_eq!(resolve("AC"), close[1..]);
    assert_eq!(resolve(&close[0].to_string()), close[..1]);
    assert_eq!(resolve("").len(), 2);
    for none in ["b", "abac", "..", ".", "ab/", "zz", "é", &"ab".repeat(40)] {
        assert_eq!(resolve(none), [], "{none}");
    }
}

fn removed_is_gone(cache: &dyn CacheAdmin) {
    offer(cache, 1, 1000).expect("taken");
    offer(cache, 2, 1000).expect("taken");
    assert!(cache.remove(&signature(1)).expect("removes"));
    assert!(!cache.remove(&signature(1)).expect("removes"));
    assert!(!has(cache, 1, 1000) && has(&cache, 2, 1000));
}

fn sound_entries_verify(cache: &dyn CacheAdmin) {
    (0..5).for_each(|number| offer(cache, number, 1000).expect("taken"));
    let mut seen = Vec::new();
    let report = cache.verify(VerifyOptions { repair: true }, &mut |progress| seen.push(progress));
    let report = report.expect("verifies");
    assert_eq!((report.checked, report.repaired, report.damaged.len()), (5, 0, 0));
    assert!(report.bytes >= 5000);
    assert_eq!(
        seen.iter().map(|at| (at.done, at.total)).collect::<Vec<_>>(),
        [1, 2, 3, 4, 5].map(|n| (n, 5))
    );
}

fn cleared_is_empty(cache: &dyn CacheAdmin) {
    (0..5).for_each(|number| offer(cache, number, 1000).expect("taken"));
    cache.set_pinned(&signature(1), true).expect("pins");
    assert_eq!(cache.clear().expect("clears").entries, 5);
    assert_eq!(cache.list().expect("lists"), []);
    let stats = cache.stats().expect("stats");
    assert_eq!((stats.entries, stats.puts), (0, 0));
    offer(cache, 1, 1000).expect("taken");
    assert!(!cache.stat(&signature(1)).expect("stats").expect("there").pinned, "the pin is gone too");
}

fn a_collection_removes_down_to_the_limit(cache: &dyn CacheAdmin) {
    (0..8).for_each(|number| offer(cache, number, 8000).expect("taken"));
    assert!(cache.set_pinned(&signature(3), true).expect("pins"));
    assert!(!cache.set_pinned(&signature(99), true).expect("nothing to pin"));
    let each = cache.stat(&signature(0)).expect("stats").expect("there").disk_bytes;
    let limits = GcLimits { max_size: Some(3 * each), ..GcLimits::default() };

    let plan = cache.collect_garbage(&limits, true).expect("plans");
    assert_eq!((plan.removed.len(), plan.kept, plan.removed_bytes), (5, 3, 5 * each));
    assert_eq!(cache.list().expect("lists").len(), 8, "a dry run removes nothing");

    let done = cache.collect_garbage(&limits, false).expect("collects");
    assert_eq!(done, plan);
    for removed in &done.removed {
        assert_eq!(cache.get_object(&removed.signature).expect("asks"), None);
    }
    assert_eq!(cache.list().expect("lists").len(), 3);
    assert!(has(cache, 3, 8000), "pinned");
    assert_eq!(cache.stats().expect("stats").evicted, 5);

    let all = GcLimits { max_size: Some(0), ..GcLimits::default() };
    assert_eq!(cache.collect_garbage(&all, false).expect("collects").kept, 1);
    cache.set_pinned(&signature(3), false).expect("unpins");
    assert_eq!(cache.collect_garbage(&all, false).expect("collects").kept, 0);
}

fn a_collection_counts_entries_and_namespaces(cache: &dyn CacheAdmin) {
    (0..8).for_each(|number| offer(cache, number, 8000).expect("taken"));
    let each = cache.stat(&signature(0)).expect("stats").expect("there").disk_bytes;
    let limits = GcLimits { max_entries: Some(6), ..GcLimits::default() };
    assert_eq!(cache.collect_garbage(&limits, false).expect("collects").kept, 6);
    let of = |name: &str| GcLimits {
        namespace_max_size: [(name.to_owned(), 2 * each)].into(),
        ..GcLimits::default()
    };
    assert_eq!(cache.collect_garbage(&of("others"), false).expect("collects").kept, 6);
    assert_eq!(cache.collect_garbage(&of("tests"), false).expect("collects").kept, 2);
}

fn age_counts_from_the_last_use(cache: &dyn CacheAdmin) {
    offer(cache, 1, 1000).expect("taken");
    let limit = |max_age| GcLimits { max_age: Some(max_age), ..GcLimits::default() };
    let hour = limit(Duration::from_secs(3600));
    assert_eq!(cache.collect_garbage(&hour, false).expect("collects").kept, 1);
    std::thread::sleep(Duration::from_millis(2));
    assert_eq!(cache.collect_garbage(&limit(Duration::ZERO), false).expect("collects").kept, 0);
}

fn it_keeps_under_its_size(cache: &dyn CacheAdmin) {
    for number in 0..40 {
        offer(cache, number, BIG).expect("taken");
    }
    // The store makes room in the background, and a collection waits for that.
    cache.collect_garbage(&GcLimits::default(), true).expect("looks");
    let stats = cache.stats().expect("stats");
    assert!(stats.disk_bytes <= MAX_SIZE, "{stats:?}");
    assert!(stats.entries >= 3 && stats.evicted >= 20, "{stats:?}");
    assert_eq!(stats.entries + stats.evicted, 40);
}

/// The same for `CacheAdmin`.
type AdminTest<'a> = &'a mut dyn FnMut(&dyn CacheAdmin);

fn all_of_cache_admin(make: &dyn Fn(AdminTest<'_>)) {
    let promises: [fn(&dyn CacheAdmin); 13] = [
        entries_are_listed_with_what_was_offered,
        uses_are_counted,
        looking_is_not_using,
        one_compilation_is_one_miss,
        the_record_is_kept,
        prefixes_are_resolved,
        removed_is_gone,
        sound_entries_verify,
        cleared_is_empty,
        a_collection_removes_down_to_the_limit,
        a_collection_counts_entries_and_namespaces,
        age_counts_from_the_last_use,
        it_keeps_under_its_size,
    ];
    for promise in promises {
        make(&mut |cache| promise(cache));
    }
}

fn store() -> (tempfile::TempDir, objcache_cache::Store) {
    let (directory, root) = place();
    let mut options = objcache_cache::StoreOptions::at(root);
    options.max_size = MAX_SIZE;
    let store = objcache_cache::Store::open(options).expect("a fresh directory");
    (directory, store)
}

/// A store over a pack and the directory of another, which have other entries.
fn layered_store() -> (tempfile::TempDir, objcache_cache::Store) {
    let (directory, root) = place();
    let (other, pack) = (directory.path().join("other"), directory.path().join("pack"));
    let layer = store_at(&other);
    (900..905).for_each(|number| offer(&layer, number, 1000).expect("taken"));
    layer.create_pack(&pack, &PackSelection::default(), PackMode::default(), &mut |_| ()).expect("packs");
    drop(layer);
    let mut options = objcache_cache::StoreOptions::at(root);
    options.max_size = MAX_SIZE;
    options.layers = vec![pack, other];
    let store = objcache_cache::Store::open(options).expect("a fresh directory");
    (directory, store)
}

fn sled() -> (tempfile::TempDir, SledCache) {
    let (directory, root) = place();
    (directory, SledCache::open(root, MAX_SIZE).expect("a fresh directory"))
}

#[test]
fn memory_is_an_object_cache() {
    all_of_object_cache(&|test| test(&MemoryCache::new(MAX_SIZE)));
}

#[test]
fn memory_can_be_administered() {
    all_of_cache_admin(&|test| test(&MemoryCache::new(MAX_SIZE)));
}

/// Memory that holds all, or nearly nothing, before a store and before memory.
fn all_tiered(test: &mut dyn FnMut(&dyn CacheAdmin)) {
    test(&Tiered::new(store().1, MAX_SIZE));
    test(&Tiered::new(store().1, 3000));
    test(&Tiered::new(MemoryCache::new(MAX_SIZE), MAX_SIZE));
    test(&Tiered::new(Tiered::new(store().1, MAX_SIZE), 3000));
}

#[test]
fn tiers_are_an_object_cache() {
    all_of_object_cache(&|test| all_tiered(&mut |cache| test(&cache)));
}

#[test]
fn tiers_can_be_administered() {
    all_of_cache_admin(&|test| all_tiered(test));
}

#[test]
fn store_is_an_object_cache() {
    all_of_object_cache(&|test| test(&store().1));
}

#[test]
fn store_can_be_administered() {
    all_of_cache_admin(&|test| test(&store().1));
}

#[test]
fn a_store_over_layers_is_an_object_cache() {
    all_of_object_cache(&|test| test(&layered_store().1));
}

#[test]
fn a_store_over_layers_can_be_administered() {
    all_of_cache_admin(&|test| test(&layered_store().1));
}

#[test]
fn sled_is_an_object_cache() {
    all_of_object_cache(&|test| test(&sled().1));
}

#[test]
fn sled_can_be_administered() {
    all_of_cache_admin(&|test| test(&sled().1));
}

#[test]
fn failures_are_remembered_when_asked_for() {
    all_about_failures(&|ttl, test| test(&MemoryCache::new(MAX_SIZE).remember_failures(ttl)));
    all_about_failures(&|ttl, test| test(&Arc::new(MemoryCache::new(MAX_SIZE).remember_failures(ttl))));
    all_about_failures(&|ttl, test| test(&sled().1.remember_failures(ttl)));
    all_about_failures(&|ttl, test| {
        let (_directory, root) = place();
        let mut options = objcache_cache::StoreOptions::at(root);
        (options.failure_ttl, options.strict) = (Some(ttl), true);
        let store = objcache_cache::Store::open(options).expect("a fresh directory");
        test(&store);
        assert!(store.stats().expect("stats").failures <= 1);
    });
}

#[test]
fn another_process_gets_the_failure_too_and_clearing_forgets_it() {
    let (_directory, root) = place();
    // A store of its own is as good as a process of its own: all that they share is the directory.
    let open = || {
        let mut options = objcache_cache::StoreOptions::at(&root);
        options.failure_ttl = Some(Duration::from_secs(3600));
        objcache_cache::Store::open(options).expect("opens")
    };
    let failure = CompileFailure::new("k.c:1: error");
    open().notify_compile_failed(&signature(1), &failure).expect("taken");
    let store = open();
    assert_eq!(store.get_failure(&signature(1)).expect("asks"), Some(failure));
    assert_eq!(store_at(&root).get_failure(&signature(1)).expect("asks"), None, "it does not want to know");
    let stats = store.stats().expect("stats");
    assert_eq!((stats.failures, stats.failure_hits, stats.entries), (1, 1, 0));
    assert_eq!(store.fsck(false, &mut |_| ()).expect("looks").findings, []);
    store.clear().expect("clears");
    assert_eq!(store.get_failure(&signature(1)).expect("asks"), None);
}

#[test]
fn pointers_forward() {
    all_of_object_cache(&|test| test(&&MemoryCache::new(MAX_SIZE)));
    all_of_object_cache(&|test| test(&Box::new(MemoryCache::new(MAX_SIZE))));
    all_of_object_cache(&|test| test(&Arc::new(MemoryCache::new(MAX_SIZE))));
    all_of_object_cache(&|test| test(&(Box::new(MemoryCache::new(MAX_SIZE)) as Box<dyn ObjectCache>)));
}

#[test]
fn closures_are_a_cache_that_does_not_exclude() {
    let memory = MemoryCache::new(MAX_SIZE);
    let closures = from_fn(|signature| memory.get_object(signature), |it| memory.notify_object_compiled(it));
    an_unknown_signature_is_a_miss(&closures);
    what_is_offered_comes_back(&closures);
    threads_see_whole_objects_or_none(&closures);
    assert!(closures.exclude_others(&signature(1)).is_none());
    assert_eq!(get(&closures, 100, || ()).1, Outcome::Miss);
    assert_eq!(get(&closures, 100, || ()).1, Outcome::Hit);
}

#[test]
fn what_was_put_is_there_when_opened_again() {
    let (_directory, root) = place();
    offer(&store_at(&root), 1, 1000).expect("taken");
    assert!(has(&store_at(&root), 1, 1000));

    let (_directory, root) = place();
    let open = || SledCache::open(&root, MAX_SIZE).expect("opens");
    let cache = open();
    offer(&cache, 1, 1000).expect("taken");
    assert!(has(&cache, 1, 1000));
    drop(cache);
    let cache = open();
    assert_eq!(cache.list().expect("lists")[0].hits, 1);
    assert!(has(&cache, 1, 1000));
}

#[test]
fn what_is_not_worth_keeping_is_declined_and_counted() {
    let (_directory, root) = place();
    let mut options = objcache_cache::StoreOptions::at(root);
    (options.min_compile_time, options.max_object_size) = (Duration::from_millis(20), Some(1000));
    options.strict = true;
    let store = objcache_cache::Store::open(options).expect("opens");
    offer_costing(&store, 1, 500, Duration::from_millis(19)).expect("declined without an error");
    offer_costing(&store, 2, 1001, Duration::from_millis(20)).expect("declined without an error");
    offer_costing(&store, 3, 1000, Duration::from_millis(20)).expect("taken");
    assert!(!has(&store, 1, 500) && !has(&store, 2, 1001) && has(&store, 3, 1000));
    let stats = store.stats().expect("stats");
    assert_eq!((stats.declined, stats.puts, stats.reasons.len()), (2, 1, 0));
}

#[test]
fn a_hit_in_the_memory_tier_asks_nobody_and_is_told_of_later() {
    let asked = AtomicU32::new(0);
    let (_place, store) = store();
    let below = from_fn(
        |signature| {
            asked.fetch_add(1, Ordering::Relaxed);
            store.get_object(signature)
        },
        |compiled| store.notify_object_compiled(compiled),
    );
    offer(&store, 1, 1000).expect("taken");
    let tier = Tiered::new(below, MAX_SIZE);
    for _ in 0..5 {
        assert!(has(&tier, 1, 1000));
    }
    offer(&tier, 2, 1000).expect("taken");
    assert!(has(&tier, 2, 1000) && !has(&tier, 3, 0));
    assert_eq!(asked.load(Ordering::Relaxed), 2, "for 1, the first time, and for 3");
    let [one, again] = [0, 1].map(|_| tier.get_object(&signature(1)).expect("asks").expect("there"));
    assert!(std::ptr::eq(&raw const *one, &raw const *again), "shared, not copied");
    drop(tier);

    let tier = Tiered::new(&store, MAX_SIZE);
    (0..10_000).for_each(|_| assert!(has(&tier, 1, 1000)));
    let told = store.stat(&signature(1)).expect("stats").expect("there").hits;
    assert!((8000..10_000).contains(&told), "{told}: those used much are told of meanwhile");
    drop(tier);
    assert_eq!(store.stat(&signature(1)).expect("stats").expect("there").hits, 10_001);
}

#[test]
fn the_memory_tier_keeps_to_its_bytes() {
    let tier = Tiered::new(MemoryCache::new(u64::MAX), 100_000);
    for number in 0..200 {
        offer(&tier, number, 5000).expect("taken");
        assert!(has(&tier, 0, 5000), "in memory or below");
        assert!(tier.memory_bytes() <= 100_000);
    }
    assert!(tier.memory_bytes() > 50_000);
    assert!(has(&tier, 199, 5000));
    offer(&tier, 199, 200_000).expect("taken");
    assert!(has(&tier, 199, 200_000), "from below, and not what it was before");
}

#[test]
fn what_is_removed_while_it_is_read_does_not_come_back() {
    let (memory, step, first) = (MemoryCache::new(MAX_SIZE), Barrier::new(2), AtomicU32::new(0));
    offer(&memory, 1, 1000).expect("taken");
    let below = from_fn(
        |signature| {
            let found = memory.get_object(signature);
            if first.fetch_add(1, Ordering::Relaxed) == 0 {
                // It has been read; now it is removed; then it goes up.
                step.wait();
                step.wait();
            }
            found
        },
        |compiled| memory.notify_object_compiled(compiled),
    );
    let tier = Tiered::new(&below, MAX_SIZE);
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(has(&tier, 1, 1000)));
        step.wait();
        memory.remove(&signature(1)).expect("removes");
        tier.forget_all();
        step.wait();
    });
    assert!(!has(&tier, 1, 1000));
}
