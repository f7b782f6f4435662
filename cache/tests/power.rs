//! Power cuts: what a process did to the file system is recorded, and every state that a cut may have left is made
//! and looked at. It always opens, nothing wrong is served, and what a durable store acknowledged is there.
//!
//! Some thousand states of each kind; a hundred times as many with `OBJCACHE_SOAK=1`.

#[path = "support/child.rs"]
mod child;
#[path = "support/model.rs"]
mod model;
#[path = "support/recording.rs"]
mod recording;
#[path = "support/replay.rs"]
mod replay;
mod support;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use model::{Known, Model};
use objcache_cache::{CacheAdmin, CompileOnce, CompiledObject, GcLimits, Offer, Store, StoreOptions};
use objcache_signature::Provenance;
use recording::{Recording, record};
use replay::{FileSystem, Kept, after_power_cut, fingerprint, said};
use support::{entry_path, has, object, offer, place, signature, skip};

/// Two pages and a bit.
const LENGTH: usize = 9_000;
const NUMBERS: u32 = 16;

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    match role[..] {
        ["use", root] => use_it(Path::new(root), false),
        ["use-durably", root] => use_it(Path::new(root), true),
        _ => panic!("unknown role {role:?}"),
    }
}

fn open(root: &Path, durable: bool) -> Store {
    let mut options = StoreOptions::at(root);
    options.durable = durable;
    Store::open(options).expect("opens")
}

/// Puts, replaces, compiles, pins, heals, evicts, folds; says what it is about to do, and that it did.
fn use_it(root: &Path, durable: bool) {
    // Made by somebody who syncs nothing, its fan-out directory included.
    let same_fan = (NUMBERS..).find(|number| fan(*number) == fan(0)).expect("some");
    offer(&open(root, false), same_fan, LENGTH).expect("taken");
    let store = open(root, durable);
    let put = |number| {
        println!("\nput {number}");
        offer(&store, number, LENGTH).expect("taken");
        println!("done {number}");
    };
    (0..3).for_each(put);
    put(1);
    println!("put 3");
    let compile = || Ok::<_, ()>(Offer { object: object(3, LENGTH), ..Offer::default() });
    store.get_or_compile(&signature(3), compile).expect("compiled");
    println!("done 3");
    store.set_pinned(&signature(3), true).expect("pinned");
    println!("pinned 3");
    println!("remove 2");
    store.remove(&signature(2)).expect("removed");
    println!("done 2");
    has(&store, 0, LENGTH);
    // Healed: the damaged one goes to quarantine, the new one is acknowledged.
    println!("remove 0");
    std::fs::write(entry_path(root, 0), "damaged").expect("written");
    assert!(!has(&store, 0, LENGTH));
    println!("done 0");
    put(0);
    store.list().expect("folds");
    put(4);
    println!("remove 1");
    let limits = GcLimits { max_size: Some(40_000), ..GcLimits::default() };
    let evicted = store.collect_garbage(&limits, false).expect("collected").removed;
    println!("done 1");
    assert!(evicted.iter().all(|it| it.signature != signature(3)), "it is pinned");
    put(2);
    let group = [5, 6, 7, 2];
    // The last one is there already, and stays so all the time.
    offer_together(&store, &group);
    group.iter().for_each(|number| println!("\nput {number}\ndone {number}"));
    drop(store);
    println!("closed 0");
}

fn offer_together(store: &Store, numbers: &[u32]) {
    let objects: Vec<Vec<u8>> = numbers.iter().map(|number| object(*number, LENGTH)).collect();
    let provenance = Provenance::default();
    let compiled: Vec<_> = numbers
        .iter()
        .zip(&objects)
        .map(|(number, object)| CompiledObject {
            signature: signature(*number),
            object,
            key_document: b"",
            provenance: &provenance,
            namespace: "",
            compile_time: Duration::ZERO,
            cpu_features: &[],
        })
        .collect();
    store.notify_objects_compiled(&compiled).expect("taken");
}

fn fan(number: u32) -> u8 {
    signature(number).as_bytes()[0]
}

/// Where states are made: in memory, if there is such a place.
fn scratch() -> tempfile::TempDir {
    match tempfile::tempdir_in("/dev/shm") {
        Ok(directory) => directory,
        Err(_) => tempfile::tempdir().expect("a temporary directory"),
    }
}

/// Looks at the states after each operation of a recording.
fn check_states(recording: &Recording, system: FileSystem, durable: bool) -> (usize, u64) {
    let scratch = scratch();
    let (mut seen, mut lost) = (HashSet::new(), 0);
    let at_random = if std::env::var_os("OBJCACHE_SOAK").is_some() { 400 } else { 3 };
    for count in 0..=recording.operations.len() {
        let mut model = Model::default();
        let text = said(recording, count);
        model.take(&text);
        let random = (0..at_random).map(|nth| Kept::Some(count as u64 * 1000 + nth));
        for kept in [Kept::Nothing, Kept::Everything, Kept::LengthsOnly].into_iter().chain(random) {
            let state = after_power_cut(recording, count, system, kept);
            // What was said until then decides what must be there.
            if !seen.insert((fingerprint(&state), text.len())) {
                continue;
            }
            let root = scratch.path().join("state");
            state.write(&root);
            let what = format!("after {count} operations, {system:?}, {kept:?}, durable: {durable}");
            let pinned = text.contains("pinned 3");
            lost += check_state(&what, &root.join("store"), &model, durable, pinned, seen.len());
            std::fs::remove_dir_all(&root).expect("removed");
        }
    }
    (seen.len(), lost)
}

/// Returns how many of the acknowledged are not there.
fn check_state(what: &str, root: &Path, model: &Model, durable: bool, pinned: bool, nth: usize) -> u64 {
    let store = Store::open(StoreOptions::at(root)).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(store.degraded(), None, "{what}");
    let mut lost = 0;
    for number in 0..NUMBERS {
        let found = has(&store, number, LENGTH);
        let there = model.numbers.get(&number) == Some(&Known::There);
        assert!(found || !there || !durable, "{what}: lost {number}");
        lost += u64::from(there && !found);
    }
    let pin: PathBuf = root.join("pins").join(signature(3).to_string());
    assert!(pin.exists() || !pinned || !durable, "{what}: the pin is lost");
    offer(&store, 100, LENGTH).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(has(&store, 100, LENGTH), "{what}");
    // The catalogue is derived, and takes a hundred times as long.
    if nth.is_multiple_of(8) {
        let listed = store.list().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(listed.iter().any(|entry| entry.signature == signature(100)), "{what}");
    }
    lost
}

fn record_use(role: &str) -> Option<(tempfile::TempDir, Recording)> {
    if Command::new("strace").arg("-V").output().is_err() {
        skip("there is no strace");
        return None;
    }
    let (directory, root) = place();
    let recording = record(role, &root);
    assert!(said(&recording, recording.operations.len()).contains("closed 0"));
    assert!(recording.operations.len() > 100, "{}", recording.operations.len());
    Some((directory, recording))
}

fn check(role: &str, system: FileSystem, durable: bool) {
    let Some((_directory, recording)) = record_use(role) else { return };
    let (states, lost) = check_states(&recording, system, durable);
    let operations = recording.operations.len();
    eprintln!("{role}, {system:?}: {operations} operations, {states} states, {lost} acknowledged lost");
    assert!(states > 500, "only {states} states");
    // Otherwise what is recorded or replayed is not what was done.
    assert_eq!(lost > 0, !durable, "without syncs something must be lost");
}

#[test]
fn a_durable_store_loses_nothing_where_only_what_is_synced_is_kept() {
    check("use-durably", FileSystem::Strict, true);
}

#[test]
fn a_durable_store_loses_nothing_on_a_journalling_file_system() {
    check("use-durably", FileSystem::Ext4, true);
}

#[test]
fn any_store_opens_and_serves_nothing_wrong_where_only_what_is_synced_is_kept() {
    check("use", FileSystem::Strict, false);
}

#[test]
fn any_store_opens_and_serves_nothing_wrong_on_a_journalling_file_system() {
    check("use", FileSystem::Ext4, false);
}
