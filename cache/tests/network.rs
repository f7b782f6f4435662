//! A store on a network file system: no catalogue and no mapping on the share; everything else is as elsewhere.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use objcache_cache::{CacheAdmin, CatalogueCheck, GcLimits, ObjectCache, Store, StoreOptions, VerifyOptions};
use support::{has, offer, place, signature};

const LENGTH: usize = 2000;

fn on_a_share(root: &Path) -> Store {
    let mut options = StoreOptions::at(root);
    options.network = Some(true);
    options.strict = true;
    Store::open(options).expect("opens")
}

fn names(root: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(root).expect("there").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn it_does_without_a_catalogue() {
    let (_directory, root) = place();
    let store = on_a_share(&root);
    assert_eq!(store.network_file_system(), Some("network"));
    (0..10).for_each(|number| offer(&store, number, LENGTH).expect("taken"));
    (0..3).for_each(|_| assert!(has(&store, 4, LENGTH)));
    assert!(!has(&store, 77, LENGTH));
    drop(store);

    let store = on_a_share(&root);
    let listed = store.list().expect("lists");
    assert_eq!(listed.len(), 10);
    assert!(listed.iter().all(|entry| entry.namespace == "tests" && entry.object_bytes == LENGTH as u64));
    assert_eq!(store.stat(&signature(4)).expect("looks").expect("there").hits, 3);
    let stats = store.stats().expect("stats");
    assert_eq!((stats.entries, stats.puts, stats.hits, stats.misses), (10, 10, 3, 1));
    assert_eq!(stats.reasons, [], "it is no trouble");
    let limits = GcLimits { max_entries: Some(6), ..GcLimits::default() };
    assert_eq!(store.collect_garbage(&limits, false).expect("collects").removed.len(), 4);
    assert!(has(&store, 4, LENGTH), "it was used");
    assert_eq!(store.verify(VerifyOptions::default(), &mut |_| ()).expect("verifies").checked, 6);
    for rebuild in [false, true] {
        let report = store.fsck(rebuild, &mut |_| ()).expect("looks");
        assert_eq!(
            (report.findings, report.rebuilt, report.catalogue),
            (vec![], None, CatalogueCheck::NotKept)
        );
    }
    assert!(store.exclude_others(&signature(3)).is_some());
    assert!(!names(&root).iter().any(|name| name.starts_with("catalogue")), "{:?}", names(&root));
    store.clear().expect("clears");
    assert_eq!(store.list().expect("lists"), []);
}

/// Without a catalogue to fold it into, the journal would fill up and nothing be known of later uses.
#[test]
fn the_journal_is_folded_into_itself() {
    let (_directory, root) = place();
    offer(&on_a_share(&root), 1, LENGTH).expect("taken");
    let rounds = 2000;
    for _ in 0..rounds {
        let store = on_a_share(&root);
        assert!(has(&store, 1, LENGTH));
        assert!(!has(&store, 2, LENGTH));
    }
    let store = on_a_share(&root);
    store.settle();
    let journal = fs::metadata(root.join("journal")).expect("there").len();
    assert!(journal < 300 * 1024, "{journal}");
    assert_eq!(store.stat(&signature(1)).expect("looks").expect("there").hits, rounds);
    let stats = store.stats().expect("stats");
    assert_eq!((stats.hits, stats.misses, stats.puts), (rounds, rounds, 1));
}

#[test]
fn a_local_directory_is_no_share() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
    let store = Store::open(StoreOptions::at(directory.path().join("store"))).expect("opens");
    assert_eq!(store.network_file_system(), None);
    offer(&store, 1, LENGTH).expect("taken");
    store.list().expect("lists");
    assert!(names(&directory.path().join("store")).contains("catalogue"));
}

/// Both kinds of use of one directory get along.
#[test]
fn a_store_that_had_a_catalogue_may_move_to_a_share_and_back() {
    let (_directory, root) = place();
    let local = || Store::open(StoreOptions::at(&root)).expect("opens");
    offer(&local(), 1, LENGTH).expect("taken");
    assert!(has(&local(), 1, LENGTH));
    local().list().expect("makes the catalogue");
    let share = on_a_share(&root);
    assert!(has(&share, 1, LENGTH));
    assert_eq!(share.list().expect("lists").len(), 1);
    drop(share);
    assert_eq!(local().stat(&signature(1)).expect("looks").expect("there").hits, 2);
}
