//! The catalogue and the journal: derived, so that no damage to them costs an object or an error.

#[path = "support/child.rs"]
mod child;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use objcache_cache::{CacheAdmin, EntryInfo, Reason, Store};
use proptest::prelude::*;
use support::{Random, has, offer, place, signature, store_at};

const ENTRIES: u32 = 5;

struct Scene {
    _directory: tempfile::TempDir,
    root: PathBuf,
}

/// A store with five entries, each used once more than the one before, all of it in the catalogue.
fn scene() -> Scene {
    let (_directory, root) = place();
    let store = store_at(&root);
    for number in 0..ENTRIES {
        offer(&store, number, 500).expect("taken");
        (0..number).for_each(|_| assert!(has(&store, number, 500)));
    }
    store.list().expect("folds the journal in");
    drop(store);
    Scene { _directory, root }
}

fn hits(store: &Store) -> Vec<u64> {
    let hits = |number| store.stat(&signature(number)).expect("stats").expect("there").hits;
    (0..ENTRIES).map(hits).collect()
}

fn rebuilt(store: &Store) -> bool {
    let reasons = store.stats().expect("stats").reasons;
    reasons.iter().any(|(reason, _)| *reason == Reason::CatalogueRebuilt)
}

#[derive(Debug, PartialEq)]
enum UseCounts {
    Kept,
    Lost,
    LostAndReported,
}

/// The damage was done: the entries are all there and told of. Returns what became of the use counts.
fn check(root: &Path, what: &str) -> UseCounts {
    let store = store_at(root);
    let listed = store.list().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(listed.len() as u32, ENTRIES, "{what}");
    assert!(listed.iter().all(|entry| entry.object_bytes == 500 && entry.namespace == "tests"), "{what}");
    (0..ENTRIES).for_each(|number| assert!(has(&store, number, 500), "{what}"));
    // Some damage makes sled forget without a word.
    let (hits_now, rebuilt) = (hits(&store), rebuilt(&store));
    assert!(hits_now.iter().zip(1..).all(|(hits, most)| (1..=most).contains(hits)), "{what}: {hits_now:?}");
    drop(store);
    assert_eq!(hits(&store_at(root)).len() as u32, ENTRIES, "{what}: and opens again");
    match hits_now == [1, 2, 3, 4, 5] {
        true if !rebuilt => UseCounts::Kept,
        false if !rebuilt => UseCounts::Lost,
        _ => UseCounts::LostAndReported,
    }
}

#[test]
fn use_counts_outlive_the_process() {
    let Scene { _directory, root } = scene();
    assert_eq!(hits(&store_at(&root)), [0, 1, 2, 3, 4]);
    assert_eq!(check(&root, "nothing done"), UseCounts::Kept);
}

#[test]
fn what_a_kill_leaves_of_sled_costs_nothing() {
    let Scene { _directory, root } = scene();
    let catalogue = root.join("catalogue");
    for name in ["snap.0000000000000000.generating", "snap.00000000DEADBEEF.generating"] {
        fs::write(catalogue.join(name), "half").expect("written");
    }
    assert_eq!(check(&root, "half written snapshots"), UseCounts::Kept);
    assert!(
        !fs::read_dir(&catalogue)
            .expect("there")
            .flatten()
            .any(|file| { file.file_name().to_string_lossy().ends_with(".generating") })
    );
}

#[test]
fn a_configuration_cut_short_at_creation_costs_nothing() {
    let (_directory, root) = place();
    drop(store_at(&root));
    for length in 0..40 {
        let catalogue = root.join("catalogue");
        let _ = fs::remove_dir_all(&catalogue);
        fs::create_dir(&catalogue).expect("made");
        fs::write(catalogue.join("conf"), vec![b'x'; length]).expect("written");
        fs::write(catalogue.join("db"), "").expect("written");
        let store = store_at(&root);
        assert_eq!(store.list().expect("lists"), []);
        assert!(!rebuilt(&store), "{length}");
    }
}

#[test]
fn a_lost_catalogue_costs_use_counts_only() {
    let Scene { _directory, root } = scene();
    fs::remove_dir_all(root.join("catalogue")).expect("there");
    let store = store_at(&root);
    assert_eq!(store.list().expect("lists").len() as u32, ENTRIES);
    assert_eq!(hits(&store), [0; 5]);
}

#[test]
fn damaged_files_of_sled_cost_use_counts_at_most() {
    let mut outcomes = Vec::new();
    let mut damage = |file: &str, what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let Scene { _directory, root } = scene();
        let path = root.join("catalogue").join(file);
        let mut bytes = fs::read(&path).expect("there");
        change(&mut bytes);
        fs::write(&path, bytes).expect("written");
        outcomes.push(check(&root, &format!("{file}: {what}")));
    };
    for file in ["db", "conf"] {
        damage(file, "garbage", &|bytes| bytes.fill(0xa5));
        damage(file, "zeros", &|bytes| bytes.fill(0));
        damage(file, "empty", &|bytes| bytes.clear());
        damage(file, "half", &|bytes| bytes.truncate(bytes.len() / 2));
        damage(file, "one byte less", &|bytes| bytes.truncate(bytes.len() - 1));
    }
    // Most of the file is empty: flip where something is written.
    for step in 0..24 {
        damage("db", &format!("flip {step}"), &|bytes| {
            let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
            let at = written[step * (written.len() - 1) / 23];
            bytes[at] ^= 1 << (step % 8);
        });
    }
    assert!(outcomes.contains(&UseCounts::LostAndReported), "sled never noticed: the wrong files?");
}

#[test]
fn the_damaged_catalogue_is_kept_once() {
    let Scene { _directory, root } = scene();
    for _ in 0..3 {
        fs::write(root.join("catalogue/conf"), vec![0xa5; 100]).expect("written");
        assert_eq!(check(&root, "garbage"), UseCounts::LostAndReported);
    }
    let catalogues = fs::read_dir(&root).expect("there").flatten();
    let mut names: Vec<_> = catalogues.map(|entry| entry.file_name().into_string().expect("text")).collect();
    names.retain(|name| name.starts_with("catalogue"));
    names.sort();
    assert_eq!(names, ["catalogue", "catalogue.damaged"]);
}

#[test]
fn threads_and_stores_take_turns_as_keeper() {
    let Scene { _directory, root } = scene();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let store = store_at(&root);
                for _ in 0..8 {
                    assert_eq!(store.list().expect("lists").len() as u32, ENTRIES);
                }
            });
        }
    });
    let store = store_at(&root);
    assert_eq!(store.stats().expect("stats").reasons, []);
    assert_eq!(hits(&store), [0, 1, 2, 3, 4]);
}

#[test]
fn a_long_journal_is_folded_in_without_being_asked() {
    let (_directory, root) = place();
    let store = store_at(&root);
    // 4096 events and more.
    for round in 0..45 {
        for number in 0..100 {
            offer(&store, number, 10).expect("taken");
        }
        assert!(
            round < 44 || root.join("catalogue").exists() || {
                store.settle();
                true
            }
        );
    }
    store.settle();
    assert!(root.join("catalogue/db").exists());
    assert!(fs::metadata(root.join("journal")).expect("there").len() < 300 * 1024);
    assert_eq!(store.stats().expect("stats").puts, 4500);
}

#[test]
fn what_a_killed_keeper_was_folding_is_folded_by_the_next() {
    let Scene { _directory, root } = scene();
    let store = store_at(&root);
    (0..7).for_each(|_| assert!(has(&store, 0, 500)));
    drop(store);
    fs::rename(root.join("journal"), root.join("journal.folding")).expect("there");
    let store = store_at(&root);
    assert!(has(&store, 0, 500));
    assert_eq!(hits(&store)[0], 8);
    assert!(!root.join("journal.folding").exists());
    assert_eq!(hits(&store)[0], 8, "once");
}

#[test]
fn expired_entries_go_by_themselves() {
    let (_directory, root) = place();
    let mut options = objcache_cache::StoreOptions::at(&root);
    offer(&store_at(&root), 1, 100).expect("taken");
    std::thread::sleep(std::time::Duration::from_millis(60));
    options.max_age = Some(std::time::Duration::from_millis(50));
    let store = Store::open(options).expect("opens");
    offer(&store, 2, 100).expect("taken");
    store.settle();
    assert!(!has(&store, 1, 100), "not used for longer than the limit");
}

/// What `stats` keeps by directories must be what the entries come to, whoever did whatever to them.
#[test]
fn totals_are_those_of_the_entries() {
    let (_directory, root) = place();
    let mut random = Random::new(5);
    let store = store_at(&root);
    for round in 0..120 {
        for _ in 0..random.below(4) {
            let number = random.below(60);
            match random.below(6) {
                0..3 => offer(&store, number, random.below(30_000) as usize).expect("taken"),
                3 => drop(store.remove(&signature(number)).expect("removed")),
                // By somebody else, who tells nobody.
                4 => drop(fs::remove_file(support::entry_path(&root, number))),
                _ => drop(fs::write(support::entry_path(&root, number), "damaged")),
            }
        }
        if random.below(8) == 0 {
            // Long enough for what was seen to be kept. Shorter costs nothing but that.
            std::thread::sleep(std::time::Duration::from_millis(120));
        }
        if random.below(8) == 0 {
            store.fsck(true, &mut |_| ()).expect("mends");
        }
        let stats = store_at(&root).stats().expect("stats");
        let listed = store_at(&root).list().expect("lists");
        let sum = |of: fn(&EntryInfo) -> u64| listed.iter().map(of).sum::<u64>();
        let expected = (listed.len() as u64, sum(|it| it.object_bytes), sum(|it| it.disk_bytes));
        assert_eq!((stats.entries, stats.object_bytes, stats.disk_bytes), expected, "round {round}");
    }
}

#[test]
fn a_look_at_a_store_at_rest_writes_nothing() {
    let Scene { _directory, root } = scene();
    let look = || {
        let (stats, listed) = (store_at(&root).stats(), store_at(&root).list());
        (stats.expect("stats"), listed.expect("lists"))
    };
    let files = || {
        let files = fs::read_dir(root.join("catalogue")).expect("there").map(|it| it.expect("listed").path());
        let files = files.filter(|path| path.is_file());
        files.map(|path| (fs::read(&path).expect("there"), path)).collect::<BTreeSet<_>>()
    };
    look();
    // What was changed within a tenth of a second is not kept yet, on some file systems within four.
    let is_at_rest = || {
        let before = files();
        look();
        files() == before
    };
    child::wait_until("it is at rest", is_at_rest);
    std::thread::sleep(std::time::Duration::from_millis(120));
    look();
    child::wait_until("it is at rest", is_at_rest);
    let (before, seen) = (files(), look());
    assert_eq!(look(), seen);
    assert_eq!(files(), before);
}

#[test]
fn pins_outlive_the_catalogue() {
    let Scene { _directory, root } = scene();
    assert!(store_at(&root).set_pinned(&signature(3), true).expect("pins"));
    fs::remove_dir_all(root.join("catalogue")).expect("there");
    let store = store_at(&root);
    let pinned: Vec<_> = store.list().expect("lists").into_iter().filter(|entry| entry.pinned).collect();
    assert_eq!(pinned.iter().map(|entry| entry.signature).collect::<Vec<_>>(), [signature(3)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_for_a_journal_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let (_directory, root) = place();
        offer(&store_at(&root), 1, 100).expect("taken");
        fs::write(root.join("journal"), &bytes).expect("written");
        let store = store_at(&root);
        offer(&store, 2, 100).expect("taken");
        prop_assert_eq!(store.list().expect("lists").len(), 2);
    }

    #[test]
    fn a_damaged_journal_loses_what_was_damaged_only(at in 0usize..2000, bit in 0u8..8) {
        let (_directory, root) = place();
        let store = store_at(&root);
        for number in 0..10 {
            offer(&store, number, 100).expect("taken");
        }
        drop(store);
        let mut bytes = fs::read(root.join("journal")).expect("there");
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        fs::write(root.join("journal"), &bytes).expect("written");
        let stats = store_at(&root).stats().expect("stats");
        prop_assert_eq!(stats.entries, 10);
        prop_assert!((9..=10).contains(&stats.puts), "{stats:?}");
    }
}
