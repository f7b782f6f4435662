//! Damage to entry files, of every kind we could think of: always a miss, never an error and never wrong
//! bytes; the damaged file is in quarantine, and the next offer heals.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use objcache_cache::{
    CacheAdmin, Codec, CompiledObject, Compression, MacKey, ObjectCache, Reason, SigningKey, Store,
    StoreOptions, Trust, VerifyOptions,
};
use objcache_signature::Provenance;
use proptest::prelude::*;
use support::{entry_path, has, offer, place, signature, skip, store_at};

const LENGTH: usize = 40;
const TRAILER: usize = 224;

/// A store with one entry, number 1.
struct Patient {
    _directory: tempfile::TempDir,
    root: PathBuf,
    store: Store,
    path: PathBuf,
    sound: Vec<u8>,
}

impl Patient {
    fn new() -> Self {
        Self::with_length(LENGTH)
    }

    fn with_length(length: usize) -> Self {
        let (directory, root) = place();
        let store = store_at(&root);
        offer(&store, 1, length).expect("taken");
        let path = entry_path(&root, 1);
        let sound = fs::read(&path).expect("published");
        Self { _directory: directory, root, store, path, sound }
    }

    fn quarantined(&self) -> usize {
        fs::read_dir(self.root.join("quarantine")).expect("made with the store").count()
    }

    /// The damage was done: it must be a miss, gone from its place, and healed by the next offer.
    fn check(&self, what: &str) {
        assert!(!has(&self.store, 1, LENGTH), "{what}: a hit");
        assert!(self.path.symlink_metadata().is_err(), "{what}: still in its place");
        offer(&self.store, 1, LENGTH).expect("taken");
        assert!(has(&self.store, 1, LENGTH), "{what}: not healed");
        assert_eq!(fs::read(&self.path).expect("published").len(), self.sound.len());
    }

    fn check_bytes(&self, what: &str, bytes: &[u8]) {
        fs::write(&self.path, bytes).expect("written");
        self.check(what);
    }

    /// The same, and how often the reason was counted.
    fn check_reason(&self, reason: Reason) {
        let count = || {
            let reasons = self.store.stats().expect("stats").reasons;
            reasons.iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, count)| *count)
        };
        let (before, kept) = (count(), self.quarantined());
        self.check(reason.as_str());
        assert_eq!(count(), before + 1, "{}", reason.as_str());
        assert_eq!(self.quarantined(), (kept + 1).min(32));
    }
}

#[test]
fn every_flipped_bit_is_a_miss() {
    let patient = Patient::new();
    for bit in 0..patient.sound.len() * 8 {
        let mut bytes = patient.sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        patient.check_bytes(&format!("bit {bit}"), &bytes);
    }
    let stats = patient.store.stats().expect("stats");
    assert_eq!(stats.quarantined, patient.sound.len() as u64 * 8);
    assert!(patient.quarantined() <= 32, "the quarantine is bounded");
}

#[test]
fn every_truncation_and_extension_is_a_miss() {
    let patient = Patient::new();
    for length in 0..patient.sound.len() {
        patient.check_bytes(&format!("cut to {length}"), &patient.sound[..length]);
    }
    for extra in [1, 2, 31, 32, 127, 128, 129, 224, 4096] {
        let longer = [patient.sound.as_slice(), &vec![0; extra]].concat();
        patient.check_bytes(&format!("{extra} bytes longer"), &longer);
    }
    let twice = [patient.sound.as_slice(), &patient.sound].concat();
    patient.check_bytes("twice", &twice);
}

#[test]
fn a_valid_entry_under_another_name_is_refused() {
    let patient = Patient::new();
    offer(&patient.store, 2, LENGTH).expect("taken");
    let other = entry_path(&patient.root, 2);
    fs::copy(&other, &patient.path).expect("copied");
    patient.check_reason(Reason::EntrySignature);

    let (one, two) = (fs::read(&patient.path).expect("read"), fs::read(&other).expect("read"));
    fs::write(&patient.path, two).expect("swapped");
    fs::write(&other, one).expect("swapped");
    patient.check_reason(Reason::EntrySignature);
    assert!(!has(&patient.store, 2, LENGTH));
}

/// What the digest of an entry this short is over.
fn filled_up(content: &[u8]) -> Vec<u8> {
    let chunks = (content.len() + 8).div_ceil(1024);
    assert!(chunks <= 16, "too long for this");
    let mut filled = content.to_vec();
    filled.resize(chunks.next_power_of_two() * 1024 - 8, 0);
    filled.extend_from_slice(&(content.len() as u64).to_le_bytes());
    filled
}

/// Changes the entry and makes its digest right again, as a later release might.
fn resealed(entry: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut entry = entry.to_vec();
    let covered = entry.len() - 64;
    change(&mut entry[..covered]);
    let content = blake3::hash(&filled_up(&entry[..covered]));
    let digest = blake3::hash(&[content.as_bytes(), &entry[covered..covered + 32]].concat());
    entry[covered + 32..].copy_from_slice(digest.as_bytes());
    entry
}

#[test]
fn another_version_is_a_miss() {
    let patient = Patient::new();
    let version = patient.sound.len() - TRAILER + 8;
    assert_eq!(patient.sound[version..version + 4], [2, 0, 0, 0], "the format moved");
    for (at, byte) in [(0, 1), (0, 3), (3, 1), (4, 4), (80, 1)] {
        let entry = resealed(&patient.sound, |entry| entry[version + at] = byte);
        fs::write(&patient.path, entry).expect("written");
        patient.check_reason(Reason::EntryVersion);
    }
}

#[test]
fn hostile_lengths_are_misses() {
    let patient = Patient::new();
    let lengths = patient.sound.len() - TRAILER + 16;
    for field in 0..6 {
        let there = u64::from_le_bytes(patient.sound[lengths + field * 8..][..8].try_into().expect("eight"));
        for length in [u64::MAX, 1 << 63, u64::MAX - 223, 1 << 40, there ^ 1] {
            let at = lengths + field * 8;
            let entry = resealed(&patient.sound, |entry| {
                entry[at..at + 8].copy_from_slice(&length.to_le_bytes());
            });
            fs::write(&patient.path, entry).expect("written");
            patient.check_reason(Reason::EntryLength);
        }
    }
    // Sums that come out right by wrapping round.
    let entry = resealed(&patient.sound, |entry| {
        let first = u64::from_le_bytes(entry[lengths..lengths + 8].try_into().expect("eight"));
        let second = u64::from_le_bytes(entry[lengths + 8..lengths + 16].try_into().expect("eight"));
        entry[lengths..lengths + 8].copy_from_slice(&(first.wrapping_sub(1 << 63)).to_le_bytes());
        entry[lengths + 8..lengths + 16].copy_from_slice(&(second.wrapping_add(1 << 63)).to_le_bytes());
    });
    fs::write(&patient.path, entry).expect("written");
    patient.check_reason(Reason::EntryLength);
}

#[test]
fn a_hostile_length_in_the_record_hurts_nobody() {
    let patient = Patient::new();
    // The record lies between the key document and the trailer, and begins with the namespace's length.
    let record = LENGTH + "key of 1".len();
    assert_eq!(patient.sound[record], 5, "the format moved");
    let entry = resealed(&patient.sound, |entry| {
        entry[record..record + 9].copy_from_slice(&[253, 0, 0, 0, 0, 0, 0, 0, 64]);
    });
    fs::write(&patient.path, entry).expect("written");
    assert!(has(&patient.store, 1, LENGTH), "the object itself is sound");
    assert_eq!(patient.store.record(&signature(1)).expect("reads"), None);
    let listed = patient.store.list().expect("lists");
    assert_eq!((listed.len(), listed[0].namespace.as_str()), (1, ""));
}

fn make_fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo runs");
    assert!(made.success());
}

#[test]
fn what_is_no_file_is_a_miss() {
    let patient = Patient::new();
    let elsewhere = patient.root.join("elsewhere");
    fs::write(&elsewhere, &patient.sound).expect("written");
    type Replace<'a> = &'a dyn Fn(&Path);
    let replacements: [(&str, Replace<'_>); 7] = [
        ("directory", &|path| fs::create_dir(path).expect("made")),
        ("full directory", &|path| {
            fs::create_dir_all(path.join("x")).expect("made");
            fs::write(path.join("x/y"), "z").expect("made");
        }),
        ("fifo", &make_fifo),
        ("socket", &|path| drop(UnixListener::bind(path).expect("made"))),
        ("link to a valid entry", &|path| symlink(&elsewhere, path).expect("made")),
        ("dangling link", &|path| symlink("nowhere", path).expect("made")),
        ("link to itself", &|path| symlink(path, path).expect("made")),
    ];
    for (what, replace) in replacements {
        fs::remove_file(&patient.path).expect("there");
        replace(&patient.path);
        patient.check_reason(Reason::EntryNotAFile);

        // An offer without a look-up before it must cope as well.
        fs::remove_file(&patient.path).expect("there");
        replace(&patient.path);
        offer(&patient.store, 1, LENGTH).expect("taken");
        assert!(has(&patient.store, 1, LENGTH), "{what}");
    }
    assert_eq!(fs::read(&elsewhere).expect("untouched"), patient.sound);
}

#[test]
fn a_huge_sparse_file_is_not_read() {
    let patient = Patient::new();
    File::options().write(true).open(&patient.path).expect("there").set_len(1 << 40).expect("sparse");
    patient.check_reason(Reason::EntryLength);
}

#[test]
fn an_entry_of_another_user_is_a_miss() {
    let patient = Patient::new();
    match std::os::unix::fs::chown(&patient.path, Some(65534), None) {
        Ok(()) => patient.check_reason(Reason::EntryForeignOwner),
        Err(error) => skip(&format!("chown: {error}")),
    }
}

#[test]
fn a_file_in_place_of_a_fan_out_directory_is_moved_away() {
    let patient = Patient::new();
    let fan = patient.path.parent().expect("has one");
    fs::remove_dir_all(fan).expect("there");
    fs::write(fan, "in the way").expect("written");
    assert!(!has(&patient.store, 1, LENGTH));
    assert_eq!(patient.store.list().expect("lists"), []);
    offer(&patient.store, 1, LENGTH).expect("taken");
    assert!(has(&patient.store, 1, LENGTH));
    assert_eq!(patient.quarantined(), 1);
}

#[test]
fn damage_does_not_hide_the_others_and_verify_finds_it() {
    let (_directory, root) = place();
    let store = store_at(&root);
    (0..10).for_each(|number| offer(&store, number, 500).expect("taken"));
    fs::write(entry_path(&root, 3), "short").expect("written");
    let mut flipped = fs::read(entry_path(&root, 4)).expect("there");
    flipped[100] ^= 4;
    fs::write(entry_path(&root, 4), &flipped).expect("written");

    let verify = |repair| store.verify(VerifyOptions { repair }, &mut |_| ()).expect("verifies");
    let report = verify(false);
    assert_eq!((report.checked, report.repaired), (10, 0));
    let mut expected = [(signature(3), Reason::EntryLength), (signature(4), Reason::EntryDigest)];
    expected.sort();
    let found: Vec<_> = report.damaged.iter().map(|damaged| (damaged.signature, damaged.reason)).collect();
    assert_eq!(found, expected);
    assert_eq!(verify(true).repaired, 2);
    let report = verify(false);
    assert_eq!((report.checked, report.damaged.len()), (8, 0));
    for number in 0..10 {
        assert_eq!(has(&store, number, 500), number != 3 && number != 4);
    }
    assert_eq!(store.list().expect("lists").len(), 8);
}

#[test]
fn a_strict_store_tells_of_damage_and_heals_all_the_same() {
    let (_directory, root) = place();
    let mut options = StoreOptions::at(&root);
    options.strict = true;
    let store = Store::open(options).expect("opens");
    offer(&store, 1, LENGTH).expect("taken");
    fs::write(entry_path(&root, 1), "short").expect("written");
    let error = objcache_cache::ObjectCache::get_object(&store, &signature(1)).expect_err("strict");
    assert_eq!(error.reason(), Reason::EntryLength);
    assert!(error.to_string().contains(&signature(1).to_string()), "{error}");
    assert!(!has(&store, 1, LENGTH), "taken out");
    offer(&store, 1, LENGTH).expect("taken");
    assert!(has(&store, 1, LENGTH));
}

#[test]
fn a_read_only_store_leaves_damage_alone() {
    let patient = Patient::new();
    fs::write(&patient.path, "short").expect("written");
    let mut options = StoreOptions::at(&patient.root);
    options.read_only = true;
    let store = Store::open(options).expect("opens");
    assert!(!has(&store, 1, LENGTH));
    assert_eq!(fs::read(&patient.path).expect("untouched"), b"short");
    assert_eq!(patient.quarantined(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_overwritten_anywhere_are_a_miss(
        length in 0usize..20_000,
        at: prop::sample::Index,
        bytes in prop::collection::vec(any::<u8>(), 1..600),
    ) {
        let patient = Patient::with_length(length);
        let mut damaged = patient.sound.clone();
        let at = at.index(damaged.len());
        let end = (at + bytes.len()).min(damaged.len());
        damaged[at..end].copy_from_slice(&bytes[..end - at]);
        fs::write(&patient.path, &damaged).expect("written");
        prop_assert_eq!(has(&patient.store, 1, length), damaged == patient.sound);
        offer(&patient.store, 1, length).expect("taken");
        prop_assert!(has(&patient.store, 1, length));
    }

    #[test]
    fn any_bytes_for_an_entry_are_a_miss(bytes: Vec<u8>) {
        let patient = Patient::new();
        fs::write(&patient.path, &bytes).expect("written");
        prop_assert!(!has(&patient.store, 1, LENGTH));
    }
}

/// Every way an entry can be stored and sealed, with the trust that it is read with.
fn kinds() -> Vec<(String, StoreOptions)> {
    let (mac, key) = (MacKey::from_bytes([1; 32]), SigningKey::from_bytes([1; 32]));
    let trusts = [
        ("nobody", Trust::everybody()),
        ("mac", Trust::mac(mac.clone())),
        ("ed25519", Trust::everybody().signing_with(key.clone())),
        ("both", Trust::mac(mac).signing_with(key)),
    ];
    let mut kinds = Vec::new();
    for codec in Codec::ALL {
        for (name, trust) in &trusts {
            let mut options = StoreOptions::at("");
            options.compression = Compression::Always(codec);
            options.trust = trust.clone();
            kinds.push((format!("{codec}, sealed by {name}"), options));
        }
    }
    kinds
}

fn zeros(store: &Store, length: usize) -> bool {
    let found = store.get_object(&signature(1)).expect("answers");
    assert!(found.as_ref().is_none_or(|found| **found == *vec![7; length]), "wrong bytes");
    found.is_some()
}

/// An object that every codec shrinks.
fn offer_zeros(store: &Store, length: usize) {
    let compiled = CompiledObject {
        signature: signature(1),
        object: &vec![7; length],
        key_document: b"key of 1",
        provenance: &Provenance::default(),
        namespace: "tests",
        compile_time: Duration::from_millis(10),
        cpu_features: &["x86/sse2".to_owned()],
    };
    store.notify_object_compiled(&compiled).expect("taken");
}

#[test]
fn whichever_way_it_is_stored_and_sealed_every_damage_is_a_miss_and_heals() {
    for (kind, mut options) in kinds() {
        let (_directory, root) = place();
        options.directory = Some(root.clone());
        let store = Store::open(options).expect("opens");
        offer_zeros(&store, 400);
        let path = entry_path(&root, 1);
        let sound = fs::read(&path).expect("published");
        let check = |what: &str, bytes: &[u8]| {
            fs::write(&path, bytes).expect("written");
            assert!(!zeros(&store, 400), "{kind}, {what}: a hit");
            assert!(!path.exists(), "{kind}, {what}: still in its place");
        };
        for bit in (0..sound.len() * 8).step_by(3) {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            check(&format!("bit {bit}"), &bytes);
        }
        for length in (0..sound.len()).step_by(7) {
            check(&format!("cut to {length}"), &sound[..length]);
        }
        // Bytes of the stored object that somebody changed, and made the digest right again: with a seal, nobody
        // vouches for that.
        let forged = resealed(&sound, |entry| entry[1] ^= 1);
        fs::write(&path, &forged).expect("written");
        match store.options().trust.is_required() {
            true => assert!(!zeros(&store, 400), "{kind}: forged"),
            false => {
                // Whoever can write here is believed; still nothing but an object comes of it, or damage.
                let _ = store.get_object(&signature(1)).expect("answers");
            }
        }
        offer_zeros(&store, 400);
        assert!(zeros(&store, 400), "{kind}: healed");
        assert_eq!(fs::read(&path).expect("published").len(), sound.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sealed_lie_about_compressed_bytes_is_an_object_or_damage_never_more(
        kind in 1usize..3,
        at: prop::sample::Index,
        bytes in prop::collection::vec(any::<u8>(), 1..40),
        length: u64,
        plausible: bool,
    ) {
        let (_directory, root) = place();
        let mut options = StoreOptions::at(&root);
        options.compression = Compression::Always(Codec::ALL[kind]);
        let store = Store::open(options).expect("opens");
        offer_zeros(&store, 5000);
        let path = entry_path(&root, 1);
        let sound = fs::read(&path).expect("published");
        let stored = usize::try_from(store.stat(&signature(1)).expect("stats").expect("there").stored_bytes)
            .expect("small");
        let declared = if plausible { length % 20_000 } else { length };
        let forged = resealed(&sound, |entry| {
            let from = at.index(stored);
            let to = (from + bytes.len()).min(stored);
            entry[from..to].copy_from_slice(&bytes[..to - from]);
            let field = entry.len() + 64 - TRAILER + 56;
            entry[field..field + 8].copy_from_slice(&declared.to_le_bytes());
        });
        fs::write(&path, forged).expect("written");
        if let Some(object) = store.get_object(&signature(1)).expect("answers") {
            prop_assert_eq!(object.len() as u64, declared);
        }
        offer_zeros(&store, 5000);
        prop_assert!(zeros(&store, 5000));
    }
}
