//! Packs: the same entries make the same file, every entry is found and checked, and no change of a byte makes
//! anything but a miss or an error.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;

use objcache_cache::{
    CacheAdmin, Codec, CompiledObject, Compression, MacKey, ObjectCache, Pack, PackMode, PackReport,
    PackSelection, PackSummary, Reason, SigningKey, Store, StoreOptions, Trust,
};
use objcache_signature::{Provenance, Signature};
use proptest::prelude::*;
use support::{entry_path, has, object, offer, place, signature, store_at};

const NEW: PackMode = stored(Some(ZSTD));
const ADD: PackMode = PackMode { add: true, ..NEW };
const ZSTD: Compression = Compression::Always(Codec::Zstd);

const fn stored(compression: Option<Compression>) -> PackMode {
    PackMode { add: false, dry_run: false, compression }
}

fn length(number: u32) -> usize {
    number as usize * 37 % 900
}

fn filled(root: &Path, numbers: impl IntoIterator<Item = u32>) -> Store {
    let store = store_at(root);
    numbers.into_iter().for_each(|number| offer(&store, number, length(number)).expect("taken"));
    store
}

fn pack_with(store: &Store, out: &Path, selection: &PackSelection<'_>, mode: PackMode) -> PackReport {
    store.create_pack(out, selection, mode, &mut |_| ()).expect("packs")
}

fn pack(store: &Store, out: &Path) -> PackSummary {
    pack_with(store, out, &PackSelection::default(), NEW).pack.expect("not a dry run")
}

/// A pack of so many entries, and its path. The directory is of use as long as it lives.
fn pack_of(count: u32) -> (tempfile::TempDir, PathBuf) {
    let (place, root) = place();
    let out = place.path().join("out.pack");
    assert_eq!(pack(&filled(&root, 0..count), &out).entries, u64::from(count));
    (place, out)
}

fn chosen(numbers: impl IntoIterator<Item = u32>) -> Vec<Signature> {
    numbers.into_iter().map(signature).collect()
}

#[test]
fn every_entry_is_found_and_nothing_else_in_trees_of_every_height() {
    for count in [0, 1, 2, 51, 52, 51 * 51, 51 * 51 + 1] {
        let (_place, path) = pack_of(count);
        let pack = Pack::open(&path).expect("opens");
        assert_eq!(
            (pack.summary().entries, pack.summary().bytes),
            (u64::from(count), fs::metadata(&path).unwrap().len())
        );
        for number in 0..count {
            let found = pack.get(&signature(number)).expect("sound").expect("there");
            assert!(*found == *object(number, length(number)), "{number} of {count}");
        }
        for absent in [[0xff; 32], [0; 32], *signature(count).as_bytes()].map(Signature::from_bytes) {
            assert!(count != 0 && absent == signature(0) || pack.get(&absent).expect("sound").is_none());
        }
        let mut sorted = chosen(0..count);
        sorted.sort();
        assert_eq!(pack.signatures().expect("lists"), sorted);
        let report = pack.verify(&mut |_| ()).expect("verifies");
        assert_eq!((report.checked, report.damaged.len()), (u64::from(count), 0));
    }
}

#[test]
fn the_same_entries_make_the_same_bytes() {
    let (place, root) = place();
    let store = filled(&root, 0..100);
    let path = |name: &str| place.path().join(name);
    let all = pack(&store, &path("all"));

    // In pieces, in another order, one of them twice, and at last once more as a whole.
    let pieces = [70..100, 0..40, 30..80];
    for (index, numbers) in pieces.into_iter().enumerate() {
        let signatures = chosen(numbers);
        let selection = PackSelection { signatures: Some(&signatures), filter: None };
        pack_with(&store, &path("pieces"), &selection, if index == 0 { NEW } else { ADD });
    }
    assert!(fs::read(path("all")).unwrap() == fs::read(path("pieces")).unwrap());
    let again = pack_with(&store, &path("pieces"), &PackSelection::default(), ADD);
    assert_eq!((again.packed, again.kept, again.pack), (100, 0, Some(all)));

    // In a store that got them out of a pack.
    let other = store_at(&path("other"));
    other.import_pack(&Pack::open(&path("all")).expect("opens"), false, &mut |_| ()).expect("imports");
    assert_eq!(pack(&other, &path("from other")), all);
    assert!(fs::read(path("all")).unwrap() == fs::read(path("from other")).unwrap());
    let leftovers = fs::read_dir(place.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(".objcache-pack-"));
    assert_eq!(leftovers.count(), 0);
}

#[test]
fn what_goes_in_can_be_chosen_and_only_counted() {
    let (place, root) = place();
    let store = filled(&root, 0..10);
    let out = place.path().join("out");
    let wanted = chosen([3, 5, 77]);
    let small = |entry: &objcache_cache::EntryInfo| entry.object_bytes < 150;
    let dry = PackMode { dry_run: true, ..NEW };
    let report =
        pack_with(&store, &out, &PackSelection { signatures: Some(&wanted), filter: Some(&small) }, dry);
    assert_eq!((report.packed, report.missing, report.pack), (1, chosen([77]), None));
    assert!(!out.exists());

    let report = pack_with(&store, &out, &PackSelection { signatures: Some(&wanted), filter: None }, NEW);
    assert_eq!((report.packed, report.missing.len()), (2, 1));
    let entries = Pack::open(&out).expect("opens").entries().expect("lists");
    let mut told: Vec<_> = entries.iter().map(|it| (it.object_bytes, it.namespace.as_str())).collect();
    told.sort();
    assert_eq!(told, [(length(3) as u64, "tests"), (length(5) as u64, "tests")]);
    let record = Pack::open(&out).expect("opens").record(&signature(3)).expect("sound").expect("there");
    assert_eq!(record.key_document, b"key of 3");
}

#[test]
fn importing_copies_entries_that_are_stored_alike_byte_for_byte_and_only_those_that_are_missing() {
    let (place, root) = place();
    let (from, to) = (filled(&root, 0..20), filled(&place.path().join("to"), 15..20));
    let out = place.path().join("out");
    pack(&from, &out);
    let pack = Pack::open(&out).expect("opens");
    let dry = to.import_pack(&pack, true, &mut |_| ()).expect("counts");
    assert_eq!(to.list().expect("lists").len(), 5);
    let mut seen = Vec::new();
    let done = to.import_pack(&pack, false, &mut |progress| seen.push(progress)).expect("imports");
    assert_eq!((done.imported, done.present, &done), (15, 5, &dry));
    assert_eq!((seen.len(), seen[19].done, seen[19].total), (20, 20, 20));
    for number in 0..20 {
        assert!(has(&to, number, length(number)));
    }
    for number in 0..15 {
        let file = |root: &Path| fs::read(entry_path(root, number)).expect("an entry file");
        assert!(file(&root) == file(&place.path().join("to")));
    }
    assert_eq!(to.stats().expect("stats").puts, 20);
}

#[test]
fn damaged_entries_are_left_out_of_packs_and_stores() {
    let (place, root) = place();
    let store = filled(&root, 0..8);
    let out = place.path().join("out");
    fs::write(entry_path(&root, 3), b"no entry").unwrap();
    let report = pack_with(&store, &out, &PackSelection::default(), NEW);
    assert_eq!((report.packed, report.damaged.len()), (7, 1));
    assert_eq!(report.damaged[0].signature, signature(3));

    let sound = fs::read(&out).unwrap();
    let at = position(&sound, &object(5, length(5))).expect("stored as it is");
    let mut damaged = sound.clone();
    damaged[at] ^= 1;
    fs::write(&out, &damaged).unwrap();
    let other = store_at(&place.path().join("other"));
    let report = other.import_pack(&Pack::open(&out).expect("opens"), false, &mut |_| ()).expect("goes on");
    assert_eq!((report.imported, report.damaged.len()), (6, 1));
    assert_eq!((report.damaged[0].signature, report.damaged[0].reason), (signature(5), Reason::EntryDigest));

    // Adding to it heals it.
    let healed = pack_with(&store, &out, &PackSelection::default(), ADD);
    assert_eq!((healed.packed, healed.damaged.len()), (7, 1), "3 is still damaged in the store");
    assert!(fs::read(&out).unwrap() == sound);
}

#[test]
fn a_pack_takes_the_place_of_regular_files_only_and_those_behind_links() {
    let (place, root) = place();
    let store = filled(&root, 0..3);
    let path = |name: &str| place.path().join(name);
    fs::write(path("one.pack"), b"old").unwrap();
    symlink("one.pack", path("link.pack")).unwrap();
    symlink("missing.pack", path("dangling.pack")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    assert!(Command::new("mkfifo").arg(path("fifo")).status().expect("mkfifo runs").success());
    symlink("fifo", path("link to a fifo")).unwrap();

    let summary = pack(&store, &path("link.pack"));
    let added = pack_with(&store, &path("link.pack"), &PackSelection::default(), ADD);
    assert_eq!(added.pack, Some(summary));
    assert!(fs::symlink_metadata(path("link.pack")).unwrap().is_symlink());
    assert_eq!(Pack::open(&path("one.pack")).expect("opens").summary(), summary);

    for name in ["dangling.pack", "folder", "fifo", "link to a fifo"] {
        let before = fs::symlink_metadata(path(name)).unwrap();
        let mut seen = 0;
        let made = store.create_pack(&path(name), &PackSelection::default(), NEW, &mut |_| seen += 1);
        let why = made.expect_err(name).to_string();
        let expected =
            if name == "dangling.pack" { "a link to a file that is not there" } else { "no regular file" };
        assert!(why.contains(name) && why.contains(expected), "{why}");
        assert_eq!(seen, 0, "{name}: refused before the work");
        let after = fs::symlink_metadata(path(name)).unwrap();
        assert_eq!((after.ino(), after.file_type()), (before.ino(), before.file_type()), "{name}");
    }
}

#[test]
fn all_that_is_added_at_the_same_time_gets_into_the_pack() {
    const COUNT: u32 = 20;
    let (place, root) = place();
    let store = filled(&root, 0..COUNT);
    let out = place.path().join("out");
    let add = |number: u32, mode: PackMode| {
        let signatures = [signature(number)];
        pack_with(&store, &out, &PackSelection { signatures: Some(&signatures), filter: None }, mode);
    };
    add(0, NEW);
    let start = Barrier::new(COUNT as usize - 1);
    std::thread::scope(|scope| {
        for number in 1..COUNT {
            let (start, add) = (&start, &add);
            scope.spawn(move || {
                start.wait();
                add(number, ADD);
            });
        }
    });
    let mut all = chosen(0..COUNT);
    all.sort();
    assert_eq!(Pack::open(&out).expect("opens").signatures().expect("lists"), all);
}

#[test]
fn what_a_kill_leaves_of_a_pack_goes_with_the_next_one() {
    let (place, root) = place();
    let store = filled(&root, 0..3);
    let folder = place.path().join("packs");
    let path = |name: &str| folder.join(name);
    fs::create_dir(&folder).unwrap();
    let stay = [
        ".objcache-pack-locked",
        ".objcache-pack-alinks",
        ".objcache-pack-",
        ".objcache-pack-ab.cde",
        "target",
    ];
    for name in [&stay[..], &[".objcache-pack-aB3dE6"]].concat() {
        match name {
            ".objcache-pack-alinks" => symlink("target", path(name)).unwrap(),
            _ => fs::write(path(name), b"half a pack").unwrap(),
        }
    }
    let another = fs::File::open(path(".objcache-pack-locked")).unwrap();
    rustix::fs::flock(&another, rustix::fs::FlockOperation::LockExclusive).unwrap();

    // The one that is being made is none of the dead's to another.
    let mut made = 0;
    let outer = store.create_pack(&path("outer"), &PackSelection::default(), NEW, &mut |_| {
        made += pack(&store, &path("inner")).entries;
    });
    assert_eq!((outer.expect("packs").packed, made), (3, 9));
    let mut left: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    let mut expected = [&stay[..], &["inner", "outer"]].concat();
    left.sort();
    expected.sort_unstable();
    assert_eq!(left, expected);
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Asks a pack that may be anything for everything: right bytes, nothing or an error. Returns whether `verify`
/// found it sound.
fn ask(path: &Path, numbers: u32) -> bool {
    let Ok(pack) = Pack::open(path) else { return false };
    for number in 0..numbers {
        if let Ok(Some(found)) = pack.get(&signature(number)) {
            assert!(*found == *object(number, length(number)), "wrong bytes for {number}");
        }
    }
    let _ = pack.entries();
    pack.verify(&mut |_| ()).is_ok_and(|report| report.damaged.is_empty())
}

#[test]
fn a_change_of_any_byte_is_noticed() {
    let (place, path) = pack_of(4);
    let sound = fs::read(&path).unwrap();
    assert!(ask(&path, 4));
    let changed = place.path().join("changed");
    for at in 0..sound.len() {
        for bits in [0x01, 0x80, 0xff] {
            let mut bytes = sound.clone();
            bytes[at] ^= bits;
            fs::write(&changed, bytes).unwrap();
            assert!(!ask(&changed, 4), "byte {at} of {}, bits {bits:#x}", sound.len());
        }
    }
    for length in 0..sound.len() {
        fs::write(&changed, &sound[..length]).unwrap();
        assert!(!ask(&changed, 4), "cut to {length}");
    }
    fs::write(&changed, [&sound[..], b"x"].concat()).unwrap();
    assert!(!ask(&changed, 4), "one byte more");
}

/// Makes the trailer's own digest right again, so that what it says is looked at.
fn reseal(pack: &mut [u8]) {
    let trailer = pack.len() - 128;
    let seal = blake3::hash(&pack[trailer..trailer + 96]);
    pack[trailer + 96..].copy_from_slice(seal.as_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packs_that_lie_are_refused(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        thread_local!(static SOUND: Vec<u8> = { let (_place, path) = pack_of(120); fs::read(path).unwrap() });
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("lying");
        let mut bytes = SOUND.with(Clone::clone);
        if let Some(cut) = cut {
            // Something from the middle, so that offsets lead elsewhere.
            let from = cut.index(bytes.len() - 128);
            bytes.drain(from..(from + 80).min(bytes.len() - 128));
        }
        for (at, byte, in_trailer) in changes {
            let part = if in_trailer { bytes.len() - 128 } else { 0 };
            let at = part + at.index(bytes.len() - part);
            bytes[at] = byte;
        }
        reseal(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        let sound = ask(&path, 120);
        prop_assert!(!sound || SOUND.with(|sound| *sound == bytes));
    }

    #[test]
    fn arbitrary_bytes_are_no_pack(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("arbitrary");
        fs::write(&path, bytes).unwrap();
        prop_assert!(!ask(&path, 2));
    }
}

#[test]
fn what_is_no_file_is_no_pack() {
    let place = tempfile::tempdir().unwrap();
    assert_eq!(Pack::open(&place.path().join("none")).expect_err("missing").reason(), Reason::Io);
    assert_eq!(Pack::open(place.path()).expect_err("a directory").reason(), Reason::PackDamaged);
    assert_eq!(Pack::open(Path::new("/dev/zero")).expect_err("endless").reason(), Reason::PackDamaged);
}

#[test]
fn a_pack_cut_short_while_it_is_open_is_damaged() {
    let (_place, path) = pack_of(60);
    let pack = Pack::open(&path).expect("opens");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
    for number in 0..60 {
        match pack.get(&signature(number)) {
            Ok(found) => assert!(found.is_none_or(|it| *it == *object(number, length(number)))),
            Err(error) => assert_eq!(error.reason(), Reason::PackDamaged),
        }
    }
    assert!(pack.verify(&mut |_| ()).is_err());
}

#[test]
fn a_store_that_is_only_read_takes_nothing_in_but_can_be_packed() {
    let (place, root) = place();
    let out = place.path().join("out");
    drop(filled(&root, 0..5));
    let mut options = StoreOptions::at(&root);
    options.read_only = true;
    let store = Store::open(options).expect("opens");
    assert_eq!(pack(&store, &out).entries, 5);
    let pack = Pack::open(&out).expect("opens");
    let refused = store.import_pack(&pack, false, &mut |_| ()).expect_err("read-only");
    assert_eq!(refused.reason(), Reason::OpenedReadOnly);
}

/// Every third one is noise; the others get smaller by every codec, most of them by Zstandard.
fn mixed(number: u32) -> Vec<u8> {
    let noise = object(number, 6000);
    match number % 3 {
        0 => noise,
        _ => noise.iter().zip(0..).map(|(byte, at)| if at % 256 < 128 { byte & 0x0f } else { 7 }).collect(),
    }
}

const MIXED: u32 = 9;

fn open_with(root: &Path, compression: Compression, trust: Trust) -> Store {
    let mut options = StoreOptions::at(root);
    (options.compression, options.trust) = (compression, trust);
    Store::open(options).expect("opens")
}

fn plain(root: &Path) -> Store {
    open_with(root, Compression::Always(Codec::Plain), Trust::everybody())
}

fn offer_mixed(store: &Store) {
    for number in 0..MIXED {
        let compiled = CompiledObject {
            signature: signature(number),
            object: &mixed(number),
            key_document: b"key",
            provenance: &Provenance::default(),
            namespace: "tests",
            compile_time: std::time::Duration::from_millis(10),
            cpu_features: &[],
        };
        store.notify_object_compiled(&compiled).expect("taken");
    }
}

/// How many of them the store has; none may be wrong.
fn hits(store: &Store) -> u32 {
    let hit = |number: &u32| {
        let found = store.get_object(&signature(*number)).expect("answers");
        assert!(found.as_ref().is_none_or(|found| **found == *mixed(*number)), "wrong bytes");
        found.is_some()
    };
    (0..MIXED).filter(hit).count() as u32
}

fn over(root: &Path, pack: &Path, trust: Trust) -> Store {
    let mut options = StoreOptions::at(root);
    (options.layers, options.trust) = (vec![pack.to_owned()], trust);
    Store::open(options).expect("opens")
}

fn import(store: &Store, pack: &Path) -> u64 {
    let pack = Pack::open(pack).expect("opens");
    let report = store.import_pack(&pack, false, &mut |_| ()).expect("imports");
    assert_eq!(report.damaged, []);
    report.imported
}

#[test]
fn a_pack_stores_objects_as_asked_for_whatever_the_store_does() {
    let (place, root) = place();
    let path = |name: String| place.path().join(name);
    offer_mixed(&plain(&root));
    let as_stored = path("as stored".to_owned());
    pack_with(&plain(&root), &as_stored, &PackSelection::default(), stored(None));

    let mut sizes = Vec::new();
    for wanted in Codec::ALL {
        let policy = Compression::Always(wanted);
        let mut made = Vec::new();
        for codec in Codec::ALL {
            let store =
                open_with(&path(format!("{wanted} {codec}")), Compression::Always(codec), Trust::everybody());
            assert_eq!(import(&store, &as_stored), u64::from(MIXED));
            let codecs: Vec<_> = store.list().expect("lists").iter().map(|entry| entry.codec).collect();
            assert!(codecs.iter().all(|it| *it == codec || *it == Codec::Plain), "as if it were put there");
            assert!(codecs.contains(&codec) && hits(&store) == MIXED);
            let out = path(format!("{wanted} {codec}.pack"));
            let dry = PackMode { dry_run: true, ..stored(Some(policy)) };
            let counted = pack_with(&store, &out, &PackSelection::default(), dry);
            let report = pack_with(&store, &out, &PackSelection::default(), stored(Some(policy)));
            assert_eq!((counted.packed_bytes, counted.packed), (report.packed_bytes, report.packed));
            made.push(fs::read(&out).expect("a pack"));
            let layered = over(&path(format!("{wanted} {codec} above")), &out, Trust::everybody());
            assert_eq!(hits(&layered), MIXED);
        }
        assert!(made.iter().all(|pack| *pack == made[0]), "{wanted}: from stores of every codec");
        sizes.push(made[0].len());
    }
    assert!(sizes[2] < sizes[1] && sizes[1] < sizes[0], "{sizes:?}");
    assert_eq!(sizes[0] as u64, fs::metadata(&as_stored).expect("a pack").len());
}

#[test]
fn what_is_kept_in_a_pack_is_stored_like_what_is_added() {
    let (place, root) = place();
    let (pieces, whole) = (place.path().join("pieces"), place.path().join("whole"));
    let store = plain(&root);
    offer_mixed(&store);
    let first = chosen(0..5);
    let some = PackSelection { signatures: Some(&first), filter: None };
    pack_with(&store, &pieces, &some, stored(None));
    let last = chosen(5..MIXED);
    let rest = PackSelection { signatures: Some(&last), filter: None };
    let added = pack_with(&store, &pieces, &rest, ADD);
    assert_eq!((added.packed, added.kept), (u64::from(MIXED) - 5, 5));
    pack(&store, &whole);
    assert!(fs::read(&pieces).unwrap() == fs::read(&whole).unwrap());
}

#[test]
fn those_who_vouched_for_entries_do_so_in_a_pack_that_stores_them_otherwise() {
    let (place, root) = place();
    let path = |name: &str| place.path().join(name);
    let mac = || Trust::mac(MacKey::from_bytes([1; 32]));
    let signing = || SigningKey::from_bytes([2; 32]);
    let both = mac().signing_with(signing());
    let public = Trust::ed25519([signing().public()]);
    offer_mixed(&open_with(&root, Compression::Always(Codec::Plain), both.clone()));

    pack(&open_with(&root, Compression::Auto, both), &path("by its maker"));
    // Who does not have the key of the MACs keeps them as they are, with what they are over.
    pack(&open_with(&root, Compression::Auto, public.clone()), &path("by a reader"));
    let length = |name: &str| fs::metadata(path(name)).unwrap().len();
    assert!(length("by its maker") < length("by a reader"));
    for name in ["by its maker", "by a reader"] {
        for (who, trust) in [("mac", mac()), ("public", public.clone()), ("all", Trust::everybody())] {
            let fresh = |what: &str| path(&format!("{name} {who} {what}"));
            assert_eq!(hits(&over(&fresh("over"), &path(name), trust.clone())), MIXED);
            let store = open_with(&fresh("into"), Compression::Auto, trust);
            assert_eq!(
                (import(&store, &path(name)), hits(&store)),
                (u64::from(MIXED), MIXED),
                "{name} {who}"
            );
        }
        let stranger = Trust::mac(MacKey::from_bytes([3; 32]));
        assert_eq!(hits(&over(&path(&format!("{name} stranger")), &path(name), stranger)), 0);
    }
}

#[test]
fn what_is_promoted_from_a_pack_is_stored_as_if_it_were_put() {
    let (place, root) = place();
    let out = place.path().join("out");
    offer_mixed(&plain(&root));
    pack(&plain(&root), &out);
    let mut options = StoreOptions::at(place.path().join("above"));
    (options.layers, options.promote) = (vec![out], true);
    let store = Store::open(options).expect("opens");
    assert_eq!(hits(&store), MIXED);
    let listed = store.list().expect("lists");
    assert_eq!(listed.len(), MIXED as usize);
    assert!(listed.iter().all(|entry| entry.codec == Codec::Plain), "small objects are, by default");
    assert_eq!(hits(&store), MIXED);
}

#[test]
fn whoever_signs_entries_signs_packs() {
    let (place, root) = place();
    let path = |name: &str| place.path().join(name);
    let [ours, theirs] = [5, 6].map(|byte| SigningKey::from_bytes([byte; 32]));
    let signing = Trust::everybody().signing_with(ours.clone());
    let store = open_with(&root, Compression::Auto, signing.clone());
    offer_mixed(&store);
    let summary = pack(&store, &path("signed"));
    assert_eq!(pack(&store, &path("again")), summary);
    let sound = fs::read(path("signed")).unwrap();
    assert!(fs::read(path("again")).unwrap() == sound);
    let signers = Pack::open(&path("signed")).expect("opens").signed_by().expect("true");
    assert_eq!(signers, [ours.public()]);
    assert_eq!(Trust::ed25519([ours.public()]).trusts_one_of(&signers), Some(true));
    assert_eq!(signing.trusts_one_of(&signers), Some(true));
    assert_eq!(Trust::ed25519([theirs.public()]).trusts_one_of(&signers), Some(false));
    assert_eq!(Trust::mac(MacKey::from_bytes([1; 32])).trusts_one_of(&signers), None);

    // The digest names what is in it, whoever signed.
    let reader = open_with(&root, Compression::Auto, Trust::ed25519([ours.public()]));
    let unsigned = pack(&reader, &path("unsigned"));
    assert_eq!((unsigned.digest, unsigned.bytes), (summary.digest, summary.bytes - 96));
    assert_eq!(Pack::open(&path("unsigned")).expect("opens").signed_by().expect("none"), []);

    let seal = sound.len() - 128 - 96;
    let changed = path("changed");
    for at in seal..sound.len() - 128 {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        fs::write(&changed, bytes).unwrap();
        let pack = Pack::open(&changed).expect("opens: the end is sound");
        assert_eq!(pack.signed_by().expect_err("false").reason(), Reason::PackDamaged, "byte {at}");
        assert_eq!(pack.verify(&mut |_| ()).expect_err("false").reason(), Reason::PackDamaged);
    }
    assert_eq!(store.mount(&changed).expect_err("false").reason(), Reason::PackDamaged);
    assert!(store.mount(&path("signed")).expect("true") && store.mount(&path("unsigned")).expect("nobody's"));

    // The signature of one pack is none of another.
    let first = chosen([0]);
    let one = PackSelection { signatures: Some(&first), filter: None };
    pack_with(&store, &path("one"), &one, NEW);
    let mut other = fs::read(path("one")).unwrap();
    let at = other.len() - 128 - 96;
    other[at..at + 96].copy_from_slice(&sound[seal..seal + 96]);
    fs::write(&changed, other).unwrap();
    let pack = Pack::open(&changed).expect("opens");
    assert_eq!(pack.signed_by().expect_err("of another").reason(), Reason::PackDamaged);
}
