//! Things in a store's directory that did not come there by the store: links to somebody's files, directories in place of
//! files, names that only look like ours, heads that are lost. What is somebody's stays, and the store goes on.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use objcache_cache::{
    CacheAdmin, CatalogueCheck, Fault, GcLimits, ObjectCache, Pack, PackMode, PackSelection, Store,
    StoreOptions,
};
use support::{check_sound, entry_path, has, offer, place, signature, store_at};

const FILES: usize = 300;

/// A folder of somebody's.
fn somebodys(folder: &Path) {
    fs::create_dir(folder).expect("made");
    (0..FILES).for_each(|number| fs::write(folder.join(format!("{number}")), "mine").expect("written"));
}

#[test]
fn where_links_lead_nothing_is_removed_or_written() {
    for linked in ["running", "quarantine", "tmp", "locks", "pins", "failures"] {
        let (directory, root) = place();
        let theirs = directory.path().join("theirs");
        somebodys(&theirs);
        let mut options = StoreOptions::at(&root);
        options.failure_ttl = Some(std::time::Duration::from_secs(60));
        let store = Store::open(options.clone()).expect("opens");
        (0..3).for_each(|number| offer(&store, number, 3000).expect("taken"));
        drop(store);
        let _ = fs::remove_dir_all(root.join(linked));
        symlink(&theirs, root.join(linked)).expect("made");
        if linked != "quarantine" {
            // Where links are moved, too.
            let _ = fs::remove_dir_all(root.join("quarantine"));
            symlink(&theirs, root.join("quarantine")).expect("made");
        }
        // One that no name of ours is like: it comes first or last, and stays.
        symlink("/nowhere", root.join("elsewhere")).expect("made");

        let store = Store::open(options).expect("opens");
        fs::write(entry_path(&root, 0), "damaged").expect("written");
        assert!(!has(&store, 0, 3000));
        drop(store.mark_running(&signature(1)));
        store.set_pinned(&signature(1), true).expect("pins");
        offer(&store, 4, 3000).expect("taken");
        store.fsck(true, &mut |_| ()).expect("looks");
        assert!(has(&store, 1, 3000) && has(&store, 4, 3000));
        assert_eq!(fs::read_dir(&theirs).expect("there").count(), FILES, "{linked}");
        assert!(root.join("elsewhere").is_symlink());
    }
}

#[test]
fn what_is_in_place_of_a_lock_is_moved_away() {
    for name in ["keeper", "journal", "misses"] {
        let (_directory, root) = place();
        offer(&store_at(&root), 0, 3000).expect("taken");
        fs::remove_file(root.join(name)).unwrap_or_default();
        fs::create_dir(root.join(name)).expect("made");
        fs::write(root.join(name).join("theirs"), "mine").expect("written");
        let store = store_at(&root);
        offer(&store, 1, 3000).expect("taken");
        store.clear().expect("clears");
        drop(store);
        let report = store_at(&root).fsck(true, &mut |_| ()).expect("looks");
        assert_eq!(report.catalogue, CatalogueCheck::Checked, "{name}");
    }
}

#[test]
fn a_store_that_lost_its_head_keeps_to_its_size() {
    let (_directory, root) = place();
    let mut options = StoreOptions::at(&root);
    options.max_size = 4 << 20;
    let fill = |from: u32| {
        let store = Store::open(options.clone()).expect("opens");
        (from..from + 60).for_each(|number| offer(&store, number, 60_000).expect("taken"));
        store.settle();
    };
    fill(0);
    for name in ["VERSION", "journal"] {
        fs::remove_file(root.join(name)).expect("there");
    }
    fill(100);
    let store = Store::open(options.clone()).expect("opens");
    let taken = store.disk_usage().expect("measured").total();
    assert!(taken <= options.max_size, "{taken}");
    drop(store);
    check_sound("a store without a head", &root);
}

#[test]
fn what_the_dead_left_is_gone_when_a_store_is_opened() {
    let (_directory, root) = place();
    offer(&store_at(&root), 0, 3000).expect("taken");
    for left in ["tmp/17-65a5b3c1d2e3f-0", "locks/abcd"] {
        fs::write(root.join(left), "half").expect("written");
    }
    let store = store_at(&root);
    for folder in ["tmp", "locks"] {
        assert_eq!(fs::read_dir(root.join(folder)).expect("there").count(), 0, "{folder}");
    }
    let found = store.fsck(false, &mut |_| ()).expect("looks").findings;
    let faults: Vec<Fault> = found.iter().map(|finding| finding.fault).collect();
    assert_eq!(faults, [Fault::StaleLock, Fault::OrphanedTemporary], "whoever asks is told");
    assert!(found.iter().all(|finding| finding.mended));
}

#[test]
fn a_pack_heals_what_is_damaged() {
    let (directory, root) = place();
    let store = store_at(&root);
    offer(&store, 0, 3000).expect("taken");
    let pack = directory.path().join("all.pack");
    let (all, mode) = (PackSelection::default(), PackMode::default());
    store.create_pack(&pack, &all, mode, &mut |_| ()).expect("made");
    let entry = entry_path(&root, 0);
    let mut bytes = fs::read(&entry).expect("there");
    bytes[100] ^= 1;
    fs::write(&entry, bytes).expect("written");
    let pack = Pack::open(&pack).expect("opens");
    let report = store.import_pack(&pack, false, &mut |_| ()).expect("imports");
    assert_eq!((report.imported, report.present, report.no_room), (1, 0, 0));
    assert!(has(&store, 0, 3000));
}

#[test]
fn pins_that_were_acknowledged_hold() {
    let (_directory, root) = place();
    let store = store_at(&root);
    let limits = GcLimits { max_entries: Some(0), ..GcLimits::default() };
    for round in 0..20 {
        let numbers = round * 50..(round + 1) * 50;
        numbers.clone().for_each(|number| offer(&store, number, 300).expect("taken"));
        let pinned: Vec<u32> = std::thread::scope(|scope| {
            let pinning = scope.spawn(|| {
                let pin = |number: &u32| store.set_pinned(&signature(*number), true).expect("pins");
                numbers.clone().filter(pin).collect()
            });
            store.collect_garbage(&limits, false).expect("collects");
            pinning.join().expect("ends")
        });
        for number in pinned {
            assert!(has(&store, number, 300), "{number}");
            store.set_pinned(&signature(number), false).expect("unpins");
        }
    }
}
