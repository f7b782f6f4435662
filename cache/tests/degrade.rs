//! Broken surroundings: whatever state the directory, the disk or the process is in, the program gets its
//! object, without an error and without a long wait; and the reason is told.

#[path = "support/child.rs"]
mod child;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use child::succeed;
use objcache_cache::{
    CacheAdmin, CacheError, CompileOnce, ObjectCache, Offer, Outcome, Reason, Store, StoreOptions,
};
use support::{has, object, offer, place, signature, skip, store_at};

const LENGTH: usize = 30_000;

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    match role[..] {
        ["work", root] => {
            let store = Store::open_or_degrade(StoreOptions::at(root));
            println!("{}", work(&store));
        }
        ["work-by-environment"] => {
            let store = Store::open_or_degrade(StoreOptions::from_environment());
            println!("{} {:?}", work(&store), store.directory());
        }
        ["work-without-descriptors", root] => work_without_descriptors(Path::new(root)),
        ["die-in-strict-mode", root] => die_in_strict_mode(Path::new(root)),
        _ => panic!("unknown role {role:?}"),
    }
}

/// What an engine does: every object is asked for and right, whatever the store is like. Tells what the
/// store thinks of itself, and how many of the second look-ups were hits.
fn work(store: &Store) -> String {
    let get = |number| {
        let compile = || Ok::<_, CacheError>(Offer { object: object(number, LENGTH), ..Offer::default() });
        let fetched = store.get_or_compile(&signature(number), compile).expect("never fails its user");
        assert_eq!(*fetched.object, *object(number, LENGTH));
        u32::from(fetched.outcome == Outcome::Hit)
    };
    (0..5).for_each(|number| {
        get(number);
    });
    let hits: u32 = (0..5).map(get).sum();
    let state = store.degraded().map_or("fine", Reason::as_str);
    format!("{state} {hits}")
}

fn work_without_descriptors(root: &Path) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let store = store_at(root);
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..before }).expect("lowered");
    assert_eq!(work(&store), "fine 0");
    setrlimit(Resource::Nofile, before).expect("raised");
    assert_eq!(work(&store), "fine 5", "it passes, and the store goes on");
    let reasons = store.stats().expect("stats").reasons;
    assert!(reasons.iter().any(|(reason, count)| *reason == Reason::OutOfResources && *count > 0));
}

fn die_in_strict_mode(root: &Path) {
    let mut options = StoreOptions::at(root);
    options.strict = true;
    let store = Store::open(options).expect("opens");
    let error = offer(&store, 1, LENGTH).expect_err("strict");
    println!("{}", error.reason().as_str());
}

/// A directory in a state: what the store says of itself then, and whether it works all the same.
fn check(what: &str, prepare: impl FnOnce(&Path), expected: &str) {
    let (_directory, root) = place();
    prepare(&root);
    let store = Store::open_or_degrade(StoreOptions::at(&root));
    assert_eq!(work(&store), expected, "{what}");
}

/// The same for a store that was used before.
fn check_used(what: &str, prepare: impl FnOnce(&Path), expected: &str) {
    let used = |root: &Path| {
        let store = store_at(root);
        offer(&store, 99, LENGTH).expect("taken");
        store.list().expect("makes the catalogue");
        drop(store);
        prepare(root);
    };
    check(what, used, expected);
}

#[test]
fn states_it_copes_with() {
    check("missing", |_| (), "fine 5");
    check("empty", |root| fs::create_dir(root).expect("made"), "fine 5");
    check(
        "link to a directory",
        |root| {
            fs::create_dir(root.with_file_name("elsewhere")).expect("made");
            symlink("elsewhere", root).expect("made");
        },
        "fine 5",
    );
    check_used("others may read", |root| mode(root, 0o755), "fine 5");
    check_used(
        "version cut short",
        |root| fs::write(root.join("VERSION"), "objc").expect("written"),
        "fine 5",
    );
    check_used("version missing", |root| fs::remove_file(root.join("VERSION")).expect("there"), "fine 5");
    for subdirectory in ["tmp", "locks", "pins", "quarantine"] {
        let path = |root: &Path| root.join(subdirectory);
        check_used("subdirectory missing", |root| fs::remove_dir(path(root)).expect("there"), "fine 5");
        check_used(
            "file in its place",
            |root| {
                fs::remove_dir(path(root)).expect("there");
                fs::write(path(root), "in the way").expect("written");
            },
            "fine 5",
        );
    }
    for file in ["journal", "journal.folding", "keeper", "catalogue/db", "catalogue/conf"] {
        let path = |root: &Path| root.join(file);
        check_used("garbage", |root| fs::write(path(root), [0xa5; 5000]).expect("written"), "fine 5");
        check_used("empty", |root| fs::write(path(root), "").expect("written"), "fine 5");
        check_used(
            "directory in its place",
            |root| {
                let _ = fs::remove_file(path(root));
                fs::create_dir(path(root)).expect("made");
            },
            "fine 5",
        );
    }
    check_used(
        "file in place of the catalogue",
        |root| {
            fs::remove_dir_all(root.join("catalogue")).expect("there");
            fs::write(root.join("catalogue"), "in the way").expect("written");
        },
        "fine 5",
    );
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("changed");
}

#[test]
fn states_it_is_off_in() {
    check("file", |root| fs::write(root, "").expect("written"), "not_a_directory 0");
    check(
        "below a file",
        |root| {
            fs::write(root, "").expect("written");
        },
        "not_a_directory 0",
    );
    let error = Store::open(StoreOptions::at("/proc/objcache/store")).expect_err("nothing can be made there");
    assert_eq!(error.reason(), Reason::NoDirectory);
    assert!(error.to_string().starts_with("/proc/objcache/store: there is no such directory"), "{error}");
    check("dangling link", |root| symlink("nowhere", root).expect("made"), "not_a_directory 0");
    check_used("others may write", |root| mode(root, 0o777), "insecure_mode 0");
    check_used("the group may write", |root| mode(root, 0o770), "insecure_mode 0");
    let future = |root: &Path| fs::write(root.join("VERSION"), "objcache store 2\n").expect("written");
    check_used("future format", future, "future_format 0");
}

/// In place of a file: what is none.
fn put_in_place(path: &Path, kind: &str) {
    let _ = fs::remove_file(path);
    match kind {
        "directory" => fs::create_dir(path).expect("made"),
        "link" => symlink("/nowhere", path).expect("made"),
        _ => assert!(Command::new("mkfifo").arg(path).status().expect("it runs").success()),
    }
}

#[test]
fn what_is_no_file_is_moved_away() {
    for kind in ["directory", "link", "FIFO"] {
        for file in ["VERSION", "journal", "keeper", "misses", "victims", "layers", "trace", "trace.ended"] {
            let what = format!("a {kind} in place of {file}");
            check_used(&what, |root| put_in_place(&root.join(file), kind), "fine 5");
        }
    }
}

/// A flipped bit may make a number of it that a later release could have, but nothing else is taken for that.
#[test]
fn a_damaged_version_is_made_again() {
    let (_directory, root) = place();
    let version = root.join("VERSION");
    assert_eq!(work(&store_at(&root)), "fine 5");
    let sound = fs::read(&version).expect("there");
    for at in 0..sound.len() {
        for bit in 0..8 {
            let mut flipped = sound.clone();
            flipped[at] ^= 1 << bit;
            let is_later = flipped[at].is_ascii_digit() && at == sound.len() - 2 && flipped[at] > b'1';
            fs::write(&version, &flipped).expect("written");
            let expected = if is_later { "future_format 0" } else { "fine 5" };
            assert_eq!(
                work(&Store::open_or_degrade(StoreOptions::at(&root))),
                expected,
                "byte {at}, bit {bit}"
            );
            assert_eq!(fs::read(&version).expect("there") == sound, !is_later);
        }
    }
}

#[test]
fn a_folder_with_something_else_in_it_is_left_alone() {
    const LEFT: &str = "tmp/17-65a5b3c1d2e3f-0";
    let files = [
        "thesis.tex",
        "journal",
        "tmp/thesis.tex",
        "tmp/2024-01-02",
        "tmp/550e8400-e29b-41d4-a716-446655440000",
        LEFT,
        "locks/house",
        "quarantine/x",
        "running/notes.txt",
        ".profile",
    ];
    for file in files {
        let (_directory, root) = place();
        let path = root.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(&path, "work of years").expect("written");
        if file == LEFT {
            // Named like our own: what a process left that died while it made a store.
            assert_eq!(work(&Store::open_or_degrade(StoreOptions::at(&root))), "fine 5");
            continue;
        }
        let before = snapshot(&root);
        assert_eq!(work(&Store::open_or_degrade(StoreOptions::at(&root))), "not_a_store 0", "{file}");
        assert_eq!(snapshot(&root), before);
        let error = Store::open(StoreOptions::at(&root)).expect_err("refused").to_string();
        assert!(error.contains(root.to_str().expect("text")) && error.contains("other things"), "{error}");
    }
}

#[test]
fn an_entry_behind_a_link_in_place_of_its_folder_is_not_served() {
    let (_directory, root) = place();
    let store = store_at(&root);
    offer(&store, 1, LENGTH).expect("taken");
    let folder = root.join(&signature(1).to_string()[..2]);
    let elsewhere = root.with_file_name("elsewhere");
    fs::rename(&folder, &elsewhere).expect("moved");
    symlink(&elsewhere, &folder).expect("made");
    let names = |folder: &Path| fs::read_dir(folder).expect("there").count();
    assert!(store.get_object(&signature(1)).expect("answers").is_none());
    drop(store);
    let store = store_at(&root);
    assert!(store.get_object(&signature(1)).expect("answers").is_none());
    offer(&store, 1, LENGTH).expect("taken");
    assert!(store.get_object(&signature(1)).expect("answers").is_some());
    assert!(!folder.is_symlink() && names(&folder) == 1 && names(&elsewhere) == 1);
}

#[test]
fn a_directory_of_another_user_is_not_used() {
    let (_directory, root) = place();
    drop(store_at(&root));
    if let Err(error) = chown(&root, Some(65534), None) {
        return skip(&format!("chown: {error}"));
    }
    let before = fs::read_dir(&root).expect("there").count();
    assert_eq!(work(&Store::open_or_degrade(StoreOptions::at(&root))), "foreign_owner 0");
    assert_eq!(fs::read_dir(&root).expect("there").count(), before, "nothing was written into it");
    let error = Store::open(StoreOptions::at(&root)).expect_err("refused");
    assert_eq!(error.reason(), Reason::ForeignOwner);
    assert!(error.to_string().contains(&root.display().to_string()), "{error}");
}

#[test]
fn the_directory_and_its_files_are_private() {
    let (_directory, root) = place();
    let store = store_at(&root);
    offer(&store, 1, LENGTH).expect("taken");
    store.list().expect("makes the catalogue");
    drop(store);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&root.join("catalogue")), 0o700);
    assert_eq!(mode(&support::entry_path(&root, 1)), 0o600);
    assert_eq!(mode(&root.join("journal")), 0o600);
    let tag = fs::read_to_string(root.join("CACHEDIR.TAG")).expect("there");
    assert!(tag.starts_with("Signature: 8a477f597d28d172789f06886806bc55"));
}

#[test]
fn options_switch_it_off_or_make_it_read_only() {
    let (_directory, root) = place();
    let open = |change: &dyn Fn(&mut StoreOptions)| {
        let mut options = StoreOptions::at(&root);
        change(&mut options);
        Store::open_or_degrade(options)
    };
    assert_eq!(work(&open(&|options| options.directory = None)), "no_home 0");
    assert_eq!(work(&open(&|options| options.disabled = true)), "disabled 0");
    assert!(!root.exists());
    assert_eq!(work(&open(&|options| options.read_only = true)), "no_directory 0");
    assert!(!root.exists(), "a read-only store makes nothing");
    assert_eq!(work(&open(&|_| ())), "fine 5");
    let before = snapshot(&root);
    let read_only = open(&|options| (options.read_only, options.strict) = (true, true));
    assert_eq!(work(&read_only), "opened_read_only 5", "it still reads");
    offer(&read_only, 77, LENGTH).expect("declined without an error");
    assert!(!has(&read_only, 77, LENGTH));
    assert_eq!(read_only.list().expect("lists").len(), 5);
    assert_eq!(read_only.remove(&signature(1)).expect_err("refused").reason(), Reason::OpenedReadOnly);
    assert_eq!(read_only.stats().expect("looks").reasons, [], "what was asked for is no trouble");
    drop(read_only);
    assert_eq!(snapshot(&root), before, "and writes nothing");
    assert_eq!(open(&|options| options.disabled = true).list().expect_err("off").reason(), Reason::Disabled);
}

fn snapshot(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root).expect("there") {
        let path = entry.expect("there").path();
        match path.is_dir() {
            true => files.extend(snapshot(&path)),
            false => files.push((path.clone(), fs::metadata(&path).expect("there").len())),
        }
    }
    files.sort();
    files
}

#[test]
fn strict_makes_errors_of_it() {
    let (_directory, root) = place();
    fs::write(&root, "a file").expect("written");
    let mut options = StoreOptions::at(&root);
    options.strict = true;
    let store = Store::open_or_degrade(options);
    assert_eq!(store.get_object(&signature(1)).expect_err("strict").reason(), Reason::NotADirectory);
    assert_eq!(offer(&store, 1, 10).expect_err("strict").reason(), Reason::NotADirectory);
}

#[test]
fn a_directory_removed_meanwhile_is_a_store_that_is_off() {
    let (_directory, root) = place();
    let store = store_at(&root);
    assert_eq!(work(&store), "fine 5");
    fs::remove_dir_all(&root).expect("there");
    assert_eq!(work(&store), "directory_gone 0");
}

#[test]
fn contents_removed_meanwhile_are_made_again() {
    let (_directory, root) = place();
    let store = store_at(&root);
    assert_eq!(work(&store), "fine 5");
    for entry in fs::read_dir(&root).expect("there") {
        let path = entry.expect("there").path();
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    assert_eq!(work(&store), "fine 5");
}

#[test]
fn without_file_descriptors_it_misses_and_recovers() {
    let (_directory, root) = place();
    succeed(child::start(&[&"work-without-descriptors", &root]));
}

#[test]
fn the_environment_is_heeded() {
    let (directory, root) = place();
    let run = |variables: &[(&str, &Path)]| {
        let mut command = child::command(&[], &[&"work-by-environment"]);
        for name in ["OBJCACHE_DIR", "XDG_CACHE_HOME", "HOME", "OBJCACHE_DISABLE", "OBJCACHE_READONLY"] {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        succeed(command.spawn().expect("starts"))
    };
    let home = directory.path();
    let says = |text: &str, state: &str, path: &Path| {
        assert!(text.contains(&format!("{state} Some({path:?})")), "{text}");
    };
    says(&run(&[("HOME", home)]), "fine 5", &home.join(".cache/objcache"));
    says(&run(&[("HOME", home), ("XDG_CACHE_HOME", &home.join("x"))]), "fine 5", &home.join("x/objcache"));
    says(&run(&[("HOME", home), ("OBJCACHE_DIR", &root)]), "fine 5", &root);
    let one = Path::new("1");
    says(&run(&[("OBJCACHE_DIR", &root), ("OBJCACHE_READONLY", one)]), "read_only 5", &root);
    assert!(run(&[("OBJCACHE_DIR", &root), ("OBJCACHE_DISABLE", one)]).contains("disabled 0 None"));
    assert!(run(&[]).contains("no_home 0 None"));
}

/// Runs the role as another user, on a directory of theirs with this mode.
fn as_nobody(mode: u32) -> Option<String> {
    let directory = tempfile::tempdir_in("/tmp").expect("a temporary directory");
    let root = directory.path().join("store");
    self::mode(directory.path(), 0o755);
    fs::create_dir(&root).expect("made");
    self::mode(&root, mode);
    chown(&root, Some(65534), Some(65534)).ok()?;
    // Where the tests were built may be closed to others.
    let binary = directory.path().join("test");
    // Another process writes it: a file that this one had open for writing is `busy` while any child that
    // another test forked meanwhile still holds it.
    let copied = Command::new("cp").arg(std::env::current_exe().expect("known")).arg(&binary).status();
    assert!(copied.expect("runs").success());
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&binary);
    let role = child::command(&[], &[&"work", &root]);
    command.args(role.get_args()).envs(role.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir("/").stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    Some(succeed(command.spawn().ok()?))
}

#[test]
fn a_directory_that_permissions_forbid_to_write_is_read_only() {
    let (Some(open), Some(closed)) = (as_nobody(0o700), as_nobody(0o500)) else {
        return skip("needs root and setpriv");
    };
    assert!(open.contains("fine 5"), "{open}");
    assert!(closed.contains("read_only 0"), "{closed}");
}

/// A file system mounted for a test.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).expect("made");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        done.is_ok_and(|done| done.status.success()).then(|| Self(at.to_owned()))
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status();
        assert!(done.expect("mount runs").success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_read_only_file_system_is_read_from() {
    let (_directory, root) = place();
    let Some(mount) = Mount::tmpfs(&root, "size=8m,mode=700") else { return skip("cannot mount") };
    let store = store_at(&root);
    offer(&store, 0, LENGTH).expect("taken");
    mount.remount("ro");
    assert_eq!(work(&store), "read_only 1", "found out at the first offer");
    assert_eq!(work(&Store::open_or_degrade(StoreOptions::at(&root))), "read_only 1", "and at opening");
    drop(store);
}

#[test]
fn a_full_disk_costs_only_what_does_not_fit() {
    let (_directory, root) = place();
    // Room for the layout and two or three objects.
    let Some(_mount) = Mount::tmpfs(&root, "size=112k,mode=700") else { return skip("cannot mount") };
    let store = store_at(&root);
    let state = work(&store);
    assert!(["fine 1", "fine 2", "fine 3"].contains(&state.as_str()), "{state}");
    assert_eq!(fs::read_dir(root.join("tmp")).expect("there").count(), 0, "nothing half written is left");
    let reasons = store.stats().expect("stats").reasons;
    assert!(reasons.iter().any(|(reason, _)| *reason == Reason::DiskFull), "{reasons:?}");
    // There is room again: it goes on without being opened again.
    store.clear().expect("clears");
    assert!(!has(&store, 0, LENGTH));
    offer(&store, 0, LENGTH).expect("taken");
    assert!(has(&store, 0, LENGTH));
}

#[test]
fn a_limit_on_file_sizes_is_like_a_full_disk() {
    let (_directory, root) = place();
    drop(store_at(&root));
    let run = |role: &str| {
        // 8 blocks of 512 or 1024 bytes: enough for the journal, too little for the object.
        let limited = "trap '' XFSZ; ulimit -f 8; exec \"$@\"";
        let command = child::command(&["sh", "-c", limited, "sh"], &[&role, &root]).spawn();
        succeed(command.expect("starts"))
    };
    assert!(run("work").contains("fine 0"));
    assert!(run("die-in-strict-mode").contains("disk_full"));
    assert_eq!(fs::read_dir(root.join("tmp")).expect("there").count(), 0);
}
