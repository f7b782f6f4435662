//! Other users, and what they plant: refused, each by its own reason, and nothing is written elsewhere. Then
//! seals: who vouches for an entry, and what becomes of one for which nobody does.
//!
//! Tests that need another user run as root only; where the suite runs as somebody else they say so.

#[path = "support/child.rs"]
mod child;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use objcache_cache::{CacheAdmin, MacKey, Reason, SigningKey, Store, StoreOptions, Trust};
use support::{entry_path, has, offer, place, signature, skip, store_at};

const NOBODY: u32 = 65534;
const LENGTH: usize = 3000;

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    match role[..] {
        ["use-without-mask", root] => {
            rustix::process::umask(rustix::fs::Mode::empty());
            let store = store_at(Path::new(root));
            offer(&store, 1, LENGTH).expect("taken");
            store.set_pinned(&signature(1), true).expect("pins");
            assert_eq!(store.list().expect("lists").len(), 1);
        }
        ["open", root] => {
            let store = Store::open_or_degrade(StoreOptions::at(root));
            let _ = offer(&store, 7, LENGTH);
            println!("{} {}", store.degraded().map_or("fine", Reason::as_str), has(&store, 1, LENGTH));
        }
        _ => panic!("unknown role {role:?}"),
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip(&format!("{what} takes another user, and only root can be one"));
    }
    root
}

fn opened(root: &Path) -> Result<(), Reason> {
    Store::open(StoreOptions::at(root)).map(drop).map_err(|error| error.reason())
}

#[test]
fn everything_it_makes_is_closed_to_others_whatever_the_umask() {
    let (_directory, root) = place();
    child::succeed(child::start(&[&"use-without-mask", &root]));
    let mut left = vec![root.clone()];
    let mut seen = 0;
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("there");
        let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
        // What sled makes is its own, behind a directory that is closed.
        if path.parent().is_none_or(|parent| !parent.starts_with(root.join("catalogue"))) {
            assert_eq!(metadata.mode() & 0o777, wanted, "{}", path.display());
            seen += 1;
        }
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).expect("ours").map(|entry| entry.expect("listed").path()));
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn a_directory_that_others_can_write_or_own_is_refused() {
    let (_directory, root) = place();
    drop(store_at(&root));
    for insecure in [0o777, 0o770, 0o720, 0o702, 0o1777] {
        mode(&root, insecure);
        assert_eq!(opened(&root), Err(Reason::InsecureMode), "{insecure:o}");
    }
    mode(&root, 0o700);
    assert_eq!(opened(&root), Ok(()));
    if is_root("a foreign directory") {
        chown(&root, Some(NOBODY), None).expect("root may");
        assert_eq!(opened(&root), Err(Reason::ForeignOwner));
    }
}

/// `a/b/store`, of which `a` and `b` can be made unsafe.
fn nested() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let above = directory.path().join("a");
    let root = above.join("b/store");
    drop(store_at(&root));
    (directory, above, root)
}

#[test]
fn a_directory_in_which_others_can_put_another_in_its_place_is_refused() {
    let (_directory, above, root) = nested();
    for (parent, what) in [(above.join("b"), "right above"), (above.clone(), "further up")] {
        mode(&parent, 0o777);
        assert_eq!(opened(&root), Err(Reason::InsecureParent), "{what}: open to all");
        mode(&parent, 0o1777);
        assert_eq!(opened(&root), Ok(()), "{what}: sticky, as /tmp is");
        mode(&parent, 0o755);
        assert_eq!(opened(&root), Ok(()), "{what}: closed");
        if is_root("a foreign parent") {
            chown(&parent, Some(NOBODY), None).expect("root may");
            assert_eq!(opened(&root), Err(Reason::InsecureParent), "{what}: foreign");
            chown(&parent, Some(0), Some(1234)).expect("root may");
            mode(&parent, 0o775);
            assert_eq!(opened(&root), Err(Reason::InsecureParent), "{what}: open to a group");
            mode(&parent, 0o755);
        }
    }
    // A link elsewhere changes nothing about where the store is.
    let link = above.join("link");
    symlink(&root, &link).expect("made");
    assert_eq!(opened(&link), Ok(()));
    mode(&above.join("b"), 0o777);
    assert_eq!(opened(&link), Err(Reason::InsecureParent));
}

/// As `XDG_CACHE_HOME=/tmp` makes it.
#[test]
fn where_everybody_may_make_directories_only_ours_is_used() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let common = directory.path().join("tmp");
    fs::create_dir(&common).expect("made");
    mode(&common, 0o1777);
    let root = common.join("objcache");
    drop(store_at(&root));
    assert_eq!(fs::metadata(&root).expect("there").permissions().mode() & 0o777, 0o700);
    assert_eq!(opened(&root), Ok(()));
    mode(&root, 0o777);
    assert_eq!(opened(&root), Err(Reason::InsecureMode));
    if is_root("a directory that another made first") {
        mode(&root, 0o700);
        chown(&root, Some(NOBODY), None).expect("root may");
        assert_eq!(opened(&root), Err(Reason::ForeignOwner));
    }
}

#[test]
fn another_directory_put_in_its_place_is_not_used() {
    let (_directory, above, root) = nested();
    let store = store_at(&root);
    fs::rename(above.join("b"), above.join("moved")).expect("renamed");
    let planted = store_at(&root);
    offer(&planted, 1, LENGTH).expect("taken");
    offer(&store, 2, LENGTH).expect("taken");
    assert!(!has(&store, 1, LENGTH), "what was planted is not seen");
    assert!(has(&store, 2, LENGTH) && !has(&planted, 2, LENGTH), "and what is put does not get there");
    assert!(entry_path(&above.join("moved/store"), 2).is_file());
}

#[test]
fn entries_that_others_could_change_are_refused_and_healed() {
    let (directory, root) = place();
    let store = store_at(&root);
    let path = entry_path(&root, 1);
    let count = |reason: Reason| {
        let reasons = store.stats().expect("stats").reasons;
        reasons.iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, count)| *count)
    };
    let second_name = directory.path().join("second name");
    type Spoil<'a> = &'a dyn Fn();
    let cases: [(Reason, Spoil<'_>); 4] = [
        (Reason::EntryLinked, &|| fs::hard_link(&path, &second_name).expect("linked")),
        (Reason::EntryInsecureMode, &|| mode(&path, 0o666)),
        (Reason::EntryInsecureMode, &|| mode(&path, 0o620)),
        (Reason::EntryForeignOwner, &|| {
            if is_root("a foreign entry") {
                chown(&path, Some(NOBODY), None).expect("root may");
            } else {
                fs::remove_file(&path).expect("there");
            }
        }),
    ];
    for (reason, spoil) in cases {
        offer(&store, 1, LENGTH).expect("taken");
        assert!(has(&store, 1, LENGTH));
        let before = count(reason);
        spoil();
        let was_there = path.exists();
        assert!(!has(&store, 1, LENGTH), "{}", reason.as_str());
        assert_eq!(count(reason), before + u64::from(was_there), "{}", reason.as_str());
        assert!(!path.exists(), "{}: in quarantine", reason.as_str());
    }
    assert!(second_name.is_file(), "the other name is somebody's");
    offer(&store, 1, LENGTH).expect("taken");
    assert!(has(&store, 1, LENGTH));
}

#[test]
fn nothing_is_written_through_planted_links() {
    let (directory, root) = place();
    let elsewhere = directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("made");
    let fan = entry_path(&root, 1).parent().expect("has one").to_owned();
    for name in [Path::new("tmp"), Path::new("locks"), Path::new("pins"), &fan] {
        drop(store_at(&root));
        let path = root.join(name);
        let _ = fs::remove_dir_all(&path);
        symlink(&elsewhere, &path).expect("planted");
        let store = store_at(&root);
        offer(&store, 1, LENGTH).expect("taken");
        assert!(has(&store, 1, LENGTH), "{}", name.display());
        store.set_pinned(&signature(1), true).expect("pins");
        drop(store);
        assert_eq!(fs::read_dir(&elsewhere).expect("there").count(), 0, "{}", name.display());
    }
    let victim = directory.path().join("victim");
    fs::write(&victim, "precious").expect("written");
    for name in ["journal", "keeper", "VERSION", "misses"] {
        for hard in [false, true] {
            let path = root.join(name);
            let _ = fs::remove_file(&path);
            match hard {
                true => fs::hard_link(&victim, &path).expect("planted"),
                false => symlink(&victim, &path).expect("planted"),
            }
            let store = Store::open_or_degrade(StoreOptions::at(&root));
            let _ = offer(&store, 2, LENGTH);
            has(&store, 2, LENGTH);
            let _ = store.list();
            drop(store);
            assert_eq!(fs::read(&victim).expect("there"), b"precious", "{name}, hard: {hard}");
            let _ = fs::remove_file(&path);
        }
    }
}

#[test]
fn another_user_can_neither_read_nor_plant() {
    if !is_root("another user") {
        return;
    }
    if std::process::Command::new("setpriv").arg("--version").output().is_err() {
        return skip("no setpriv");
    }
    let (directory, root) = place();
    mode(directory.path(), 0o755);
    offer(&store_at(&root), 1, LENGTH).expect("taken");
    // The test binary must be within reach of the other user.
    let reachable = tempfile::tempdir().expect("a temporary directory");
    mode(reachable.path(), 0o755);
    let binary = reachable.path().join("test");
    fs::copy(std::env::current_exe().expect("known"), &binary).expect("copied");
    mode(&binary, 0o755);
    let as_nobody = |root: &Path| {
        let command = child::command(&[], &[&"open", &root]);
        let role = command.get_envs().find(|(name, _)| *name == "OBJCACHE_TEST_ROLE").expect("set");
        let output = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&binary)
            .args(["child", "--exact", "--nocapture", "--quiet", "--test-threads=1"])
            .env(role.0, role.1.expect("set"))
            .output();
        String::from_utf8(output.expect("runs").stdout).expect("text")
    };
    let said = as_nobody(&root);
    assert!(said.contains("read_only false") || said.contains("io false"), "{said}");
    mode(&root, 0o755);
    let said = as_nobody(&root);
    assert!(said.contains("foreign_owner false"), "{said}");
    assert!(!entry_path(&root, 7).exists());
    mode(&root, 0o700);
    assert!(has(&store_at(&root), 1, LENGTH));
}

fn with_trust(root: &Path, trust: Trust) -> Store {
    let mut options = StoreOptions::at(root);
    options.trust = trust;
    Store::open(options).expect("opens")
}

fn counted(store: &Store, reason: Reason) -> u64 {
    let reasons = store.stats().expect("stats").reasons;
    reasons.iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, count)| *count)
}

#[test]
fn entries_that_nobody_vouches_for_are_misses_that_stay() {
    let (mac, key) = (MacKey::from_bytes([1; 32]), SigningKey::from_bytes([1; 32]));
    let other = SigningKey::from_bytes([2; 32]);
    let cases = [
        (Trust::everybody(), Trust::mac(mac.clone()), Reason::Unsigned),
        (Trust::mac(MacKey::from_bytes([2; 32])), Trust::mac(mac.clone()), Reason::EntryMac),
        (Trust::everybody(), Trust::ed25519([key.public()]), Reason::Unsigned),
        (
            Trust::everybody().signing_with(other),
            Trust::ed25519([key.public()]).and_mac(mac.clone()),
            Reason::Untrusted,
        ),
    ];
    for (writer, reader, reason) in cases {
        let (_directory, root) = place();
        offer(&with_trust(&root, writer.clone()), 1, LENGTH).expect("taken");
        let before = fs::read(entry_path(&root, 1)).expect("published");
        let store = with_trust(&root, reader.clone());
        assert!(!has(&store, 1, LENGTH), "{}", reason.as_str());
        assert_eq!(counted(&store, reason), 1, "{}", reason.as_str());
        assert_eq!(store.peek(&signature(1)).expect("looks"), None, "not a byte");
        assert_eq!(store.record(&signature(1)).expect("looks"), None);
        assert_eq!(fs::read(entry_path(&root, 1)).expect("stays"), before);
        assert!(has(&with_trust(&root, writer), 1, LENGTH), "others believe it");
        offer(&store, 1, LENGTH).expect("taken or declined");
        let vouches = reader.mac.is_some();
        assert_eq!(has(&store, 1, LENGTH), vouches, "replaced by one's own, where one can vouch");
        assert_eq!(fs::read(entry_path(&root, 1)).expect("there") == before, !vouches);
    }
}

#[test]
fn what_one_signs_all_believe_who_trust_the_key() {
    let (_directory, root) = place();
    let key = SigningKey::from_bytes([1; 32]);
    let signer = with_trust(&root, Trust::everybody().signing_with(key.clone()));
    offer(&signer, 1, LENGTH).expect("taken");
    assert!(has(&signer, 1, LENGTH));
    let reader = with_trust(&root, Trust::ed25519([key.public()]));
    assert!((0..3).all(|_| has(&reader, 1, LENGTH)));
    assert_eq!(reader.record(&signature(1)).expect("reads").expect("there").signed_by, [key.public()]);
    assert!(has(&store_at(&root), 1, LENGTH), "and those who trust whoever writes here");
}
