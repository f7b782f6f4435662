//! Looking over a store: everything that is not as it should be is found, once, by its name; what can be mended
//! is; and a catalogue is made anew from the entry files.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use objcache_cache::{
    CacheAdmin, CatalogueCheck, CheckState, CompileFailure, FailedCompile, Fault, FsckReport, ObjectCache,
    Pack, PackMode, PackSelection, Reason, RecompressPolicy, Store, StoreOptions, examine,
};
use objcache_signature::Provenance;
use rustix::fs::{FlockOperation, flock};
use support::{entry_path, has, offer, place, signature, skip, store_at};

const LENGTH: usize = 3000;
const ENTRIES: u32 = 6;

/// A store that was used: entries, a pin, hits, a catalogue, and events not yet in it.
struct Used {
    _directory: tempfile::TempDir,
    root: PathBuf,
}

impl Used {
    fn new() -> Self {
        let (_directory, root) = place();
        let store = store_at(&root);
        (0..ENTRIES).for_each(|number| offer(&store, number, LENGTH).expect("taken"));
        store.set_pinned(&signature(0), true).expect("pinned");
        store.list().expect("makes the catalogue");
        assert!(has(&store, 1, LENGTH) && has(&store, 1, LENGTH));
        drop(store);
        Self { _directory, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

fn fsck(root: &Path, rebuild: bool) -> FsckReport {
    store_at(root).fsck(rebuild, &mut |_| ()).expect("looks")
}

/// Does `harm` to a used store: that, and nothing else, is found; and after a rebuild nothing is, unless it is
/// for the user to mend.
fn check(
    harm: impl FnOnce(&Used),
    path: &str,
    fault: Fault,
    mended_by_looking: bool,
    mended_by_rebuild: bool,
) {
    let used = Used::new();
    harm(&used);
    let report = fsck(&used.root, false);
    let found: Vec<_> = report.findings.iter().map(|it| (it.path.as_path(), it.fault, it.mended)).collect();
    assert_eq!(found, [(Path::new(path), fault, mended_by_looking)]);
    assert_eq!(report.is_sound(), mended_by_looking || fault.is_note());
    assert_eq!(report.rebuilt, None);

    let again = fsck(&used.root, true);
    let expected: &[_] = if mended_by_looking { &[] } else { &[(Path::new(path), fault, mended_by_rebuild)] };
    let found: Vec<_> = again.findings.iter().map(|it| (it.path.as_path(), it.fault, it.mended)).collect();
    assert_eq!(found, expected);
    assert_eq!(fsck(&used.root, false).is_sound(), mended_by_looking || mended_by_rebuild);
}

fn name_of(number: u32) -> String {
    let hex = signature(number).to_string();
    format!("{}/{}", &hex[..2], &hex[2..])
}

#[test]
fn a_sound_store_has_no_findings() {
    let used = Used::new();
    for rebuild in [false, true, false] {
        let mut steps = Vec::new();
        let store = store_at(&used.root);
        let report = store.fsck(rebuild, &mut |progress| steps.push(progress.done)).expect("looks");
        assert_eq!(report.findings, []);
        assert!(report.is_sound() && report.catalogue == CatalogueCheck::Checked);
        assert_eq!((report.checked, report.rebuilt), (6, rebuild.then_some(6)));
        assert!(report.bytes > 6 * LENGTH as u64);
        assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    }
}

/// A store of which everything was asked that leaves something in its directory; `other` is one of its layers.
fn used_in_every_way(used: &Used, other: &Used) -> Store {
    let pack = used._directory.path().join("some.pack");
    let all = PackSelection::default();
    store_at(&other.root).create_pack(&pack, &all, PackMode::default(), &mut |_| ()).expect("packs");

    let mut options = StoreOptions::at(&used.root);
    (options.failure_ttl, options.max_entries) = (Some(Duration::from_secs(3600)), Some(20));
    let store = Store::open(options).expect("opens");
    store.mount(&pack).expect("mounts");
    store.mount(&other.root).expect("mounts");
    store.start_trace().expect("starts");
    store.stop_trace().expect("stops");
    store.start_trace().expect("starts again");
    // A miss and a failure that are remembered, and an entry that is taken out.
    assert!(!has(&store, 70, LENGTH));
    store.notify_no_object(&FailedCompile {
        signature: signature(70),
        key_document: b"key",
        provenance: &Provenance::default(),
    });
    store.notify_compile_failed(&signature(71), &CompileFailure::new("71.c:1: error")).expect("taken");
    fs::write(entry_path(&used.root, 3), "damaged").expect("written");
    assert!(has(&store, 3, LENGTH), "out of a layer");
    offer(&store, 3, LENGTH).expect("taken");
    store.set_pinned(&signature(1), true).expect("pins");
    store.set_pinned(&signature(0), false).expect("unpins");
    let report = store.recompress(&RecompressPolicy::default(), false, &mut |_| ()).expect("recompresses");
    assert_eq!(report.left, 0);
    let pack = Pack::open(&pack).expect("opens");
    store.import_pack(&pack, false, &mut |_| ()).expect("imports");
    // More than it may have: some go, and a list stays of what goes next.
    (100..120).for_each(|number| offer(&store, number, LENGTH).expect("taken"));
    store.settle();
    store
}

#[test]
fn a_store_used_in_every_way_has_no_findings() {
    let (used, other) = (Used::new(), Used::new());
    let look = |store: &Store, when: &str| {
        assert_eq!(store.fsck(false, &mut |_| ()).expect("looks").findings, [], "{when}");
    };
    let store = used_in_every_way(&used, &other);
    let mark = store.mark_running(&signature(1)).expect("marked");
    look(&store, "while code runs and a trace is written");
    look(&store_at(&used.root), "to another");
    let mut there: BTreeSet<String> = names(&used.root);
    drop(mark);
    store.stop_trace().expect("stops");
    drop(store);
    look(&store_at(&used.root), "when it is over");
    there.extend(names(&used.root));
    // Whatever a store makes is in this test, but for what only those who die leave.
    let made = [
        "CACHEDIR.TAG",
        "VERSION",
        "catalogue",
        "failures",
        "journal",
        "keeper",
        "layers",
        "locks",
        "misses",
        "pins",
        "quarantine",
        "running",
        "tmp",
        "trace",
        "trace.ended",
        "victims",
    ];
    assert_eq!(there, made.map(str::to_owned).into());

    let checks = examine(&StoreOptions::at(&used.root));
    // How full the disk is says nothing of the store.
    let of_the_disk = ["disk_full", "disk_nearly_full", "max_size_beyond_disk"];
    let found = checks.iter().filter(|it| it.state != CheckState::Fine && !of_the_disk.contains(&it.code));
    assert_eq!(found.map(|it| it.code).collect::<Vec<_>>(), ["quarantined"]);
}

/// What lies in a store beside the directories of its entries.
fn names(root: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(root).expect("lists").map(|it| it.expect("an entry").file_name());
    names.map(|name| name.into_string().expect("of ours")).filter(|name| name.len() != 2).collect()
}

#[test]
fn what_dead_processes_left() {
    let write = |name: &'static str| move |used: &Used| fs::write(used.path(name), "half").expect("written");
    check(write("tmp/1234-5-6"), "tmp/1234-5-6", Fault::OrphanedTemporary, true, true);
    check(write("locks/abcd"), "locks/abcd", Fault::StaleLock, true, true);
    let mark = format!("running/{}-1-65a5b3c1d2e3f-3", signature(1));
    let ran = |used: &Used| {
        fs::create_dir(used.path("running")).expect("made");
        fs::write(used.path(&mark), "").expect("written");
    };
    check(ran, &mark, Fault::UnfinishedRun, false, true);
    let half_folded = |used: &Used| drop(fs::copy(used.path("journal"), used.path("journal.folding")));
    check(half_folded, "journal.folding", Fault::UnfinishedFold, true, true);
}

#[test]
fn what_living_processes_hold_is_no_finding() {
    let used = Used::new();
    let held = ["tmp/1-2-3", "locks/abcd"].map(|name| {
        let file = File::create(used.path(name)).expect("made");
        flock(&file, FlockOperation::NonBlockingLockExclusive).expect("free");
        file
    });
    assert_eq!(fsck(&used.root, false).findings, []);
    drop(held);
    assert_eq!(fsck(&used.root, false).findings.len(), 2);
}

#[test]
fn what_does_not_belong_here() {
    let put = |name: &'static str| move |used: &Used| fs::write(used.path(name), "x").expect("written");
    check(put("notes.txt"), "notes.txt", Fault::ForeignFile, false, false);
    check(|used| fs::create_dir(used.path("more")).expect("made"), "more", Fault::ForeignFile, false, false);
    let no_mark = |used: &Used| {
        fs::create_dir(used.path("running")).expect("made");
        fs::write(used.path("running/notes.txt"), "mine").expect("written");
    };
    check(no_mark, "running/notes.txt", Fault::ForeignFile, false, false);
    let beside = format!("{}.orig", name_of(2));
    let copy = |used: &Used| assert!(fs::copy(entry_path(&used.root, 2), used.path(&beside)).is_ok());
    check(copy, &beside, Fault::ForeignFile, false, false);
    let link = |used: &Used| symlink("nowhere", used.path("tmp/link")).expect("made");
    check(link, "tmp/link", Fault::OrphanedTemporary, true, true);
    check(
        |used| fs::create_dir(used.path("tmp/x")).expect("made"),
        "tmp/x",
        Fault::ForeignFile,
        false,
        false,
    );
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
}

#[test]
fn modes_and_owners() {
    let entry = name_of(3);
    let open = |used: &Used| mode(&entry_path(&used.root, 3), 0o666);
    // It is not closed and believed, but taken out.
    check(open, &entry, Fault::DamagedEntry(Reason::EntryInsecureMode), false, true);
    check(|used| mode(&used.path("journal"), 0o620), "journal", Fault::WrongMode, false, true);
    check(|used| mode(&used.path("pins"), 0o777), "pins", Fault::WrongMode, false, true);
    let used = Used::new();
    if let Err(error) = std::os::unix::fs::chown(used.path("pins"), Some(65534), None) {
        return skip(&format!("chown: {error}"));
    }
    let give_away = |used: &Used| {
        std::os::unix::fs::chown(used.path("pins"), Some(65534), None).expect("allowed before");
    };
    check(give_away, "pins", Fault::WrongOwner, false, false);
}

#[test]
fn damaged_entries() {
    let entry = name_of(4);
    let cut = |used: &Used| fs::write(entry_path(&used.root, 4), "short").expect("written");
    check(cut, &entry, Fault::DamagedEntry(Reason::EntryLength), false, true);
    let flip = |used: &Used| {
        let path = entry_path(&used.root, 4);
        let mut bytes = fs::read(&path).expect("there");
        bytes[100] ^= 1;
        fs::write(path, bytes).expect("written");
    };
    check(flip, &entry, Fault::DamagedEntry(Reason::EntryDigest), false, true);
}

#[test]
fn the_journal_and_the_catalogue() {
    let flip = |at: u64| {
        move |used: &Used| {
            let journal = File::options().write(true).open(used.path("journal")).expect("there");
            journal.write_all_at(&[0xa5], at).expect("written");
        }
    };
    check(flip(9), "journal", Fault::DamagedJournal, true, true);
    check(flip(40), "journal", Fault::DamagedJournal, true, true);
}

#[test]
fn entries_and_records_that_do_not_match() {
    // Published by a process that died before it noted it.
    let used = Used::new();
    let other = Used::new();
    offer(&store_at(&other.root), 20, LENGTH).expect("taken");
    let unnoted = |used: &Used| {
        let to = entry_path(&used.root, 20);
        fs::create_dir_all(to.parent().expect("has one")).expect("made");
        fs::copy(entry_path(&other.root, 20), to).expect("copied");
    };
    check(unnoted, &name_of(20), Fault::Uncatalogued, false, true);
    let removed = |used: &Used| fs::remove_file(entry_path(&used.root, 5)).expect("there");
    check(removed, &format!("catalogue/{}", signature(5)), Fault::StaleRecord, false, true);
    drop(used);
}

#[test]
fn a_rebuilt_catalogue_keeps_what_the_old_one_told() {
    let used = Used::new();
    let before = store_at(&used.root).list().expect("lists");
    let stats = store_at(&used.root).stats().expect("stats");
    assert_eq!(fsck(&used.root, true).rebuilt, Some(u64::from(ENTRIES)));
    assert_eq!(store_at(&used.root).list().expect("lists"), before);
    assert_eq!(store_at(&used.root).stats().expect("stats"), stats);
    assert!(stats.hits == 2 && stats.puts == 6, "{stats:?}");
}

#[test]
fn a_catalogue_that_is_gone_or_garbage_is_made_of_the_entries() {
    let harms: [&dyn Fn(&Path); 4] = [
        &|catalogue| fs::remove_dir_all(catalogue).expect("there"),
        &|catalogue| fs::write(catalogue.join("db"), [0xa5; 9000]).expect("written"),
        &|catalogue| {
            fs::remove_dir_all(catalogue).expect("there");
            fs::write(catalogue, "in the way").expect("written");
        },
        &|catalogue| {
            for file in fs::read_dir(catalogue).expect("there").flatten().filter(|it| it.path().is_file()) {
                fs::write(file.path(), [0x5a; 300]).expect("written");
            }
        },
    ];
    for (nth, harm) in harms.iter().enumerate() {
        for rebuild in [false, true] {
            let used = Used::new();
            harm(&used.path("catalogue"));
            let report = fsck(&used.root, rebuild);
            assert!(report.is_sound() || !rebuild, "{nth}: {report:?}");
            let listed = store_at(&used.root).list().expect("lists");
            assert_eq!(listed.len(), 6, "{nth}");
            assert!(listed.iter().all(|it| it.object_bytes == LENGTH as u64 && it.namespace == "tests"));
            assert!(fsck(&used.root, false).is_sound(), "{nth}");
            (0..ENTRIES).for_each(|number| assert!(has(&store_at(&used.root), number, LENGTH)));
        }
    }
}

#[test]
fn a_store_that_is_read_only_is_only_looked_at() {
    let used = Used::new();
    fs::write(used.path("tmp/1-2-3"), "half").expect("written");
    let mut options = StoreOptions::at(&used.root);
    options.read_only = true;
    let store = Store::open(options).expect("opens");
    let report = store.fsck(false, &mut |_| ()).expect("looks");
    assert!(report.catalogue == CatalogueCheck::ReadOnly && !report.is_sound());
    assert_eq!(report.findings.len(), 1);
    assert!(used.path("tmp/1-2-3").exists());
    let error = store.fsck(true, &mut |_| ()).expect_err("refused");
    assert_eq!(error.reason(), Reason::OpenedReadOnly);
}

/// What a process has done and not yet written down looks as if it had died: nobody can tell.
#[test]
fn beside_a_living_process_nothing_is_wrong() {
    let used = Used::new();
    let living = store_at(&used.root);
    offer(&living, 20, LENGTH).expect("taken");
    let report = fsck(&used.root, false);
    assert!(report.findings.iter().all(|it| it.fault == Fault::Uncatalogued), "{report:?}");
    assert_eq!(report.findings.len(), 1, "otherwise this shows nothing: {report:?}");
    assert!(report.is_sound() && report.problems().next().is_none());
    drop(living);
    assert_eq!(fsck(&used.root, false).findings, []);
}

#[test]
fn a_catalogue_in_use_is_told_from_none() {
    let used = Used::new();
    let keeper =
        File::options().write(true).create(true).truncate(false).open(used.path("keeper")).expect("opens");
    keeper.lock().expect("free");
    assert_eq!(fsck(&used.root, false).catalogue, CatalogueCheck::InUse);
    drop(keeper);
    assert_eq!(fsck(&used.root, false).catalogue, CatalogueCheck::Checked);
}
