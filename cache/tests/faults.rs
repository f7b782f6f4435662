//! A process failed by the system at each of its system calls in turn (with strace), once and from then on: it
//! gets its objects, ends well, and leaves a sound store.
//!
//! Some 350 errors; at every call with `OBJCACHE_SOAK=1`.

#[path = "support/child.rs"]
mod child;
#[path = "support/strace.rs"]
mod strace;
mod support;

use std::path::Path;
use std::process::{Command, Output};

use child::finish;
use objcache_cache::{
    CacheAdmin, CacheError, CompileOnce, GcLimits, Offer, Reason, Store, StoreOptions, VerifyOptions,
};
use strace::{Plan, trace};
use support::{check_sound, has, object, offer, place, signature, skip, store_at};

const LENGTH: usize = 5_000;

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    match role[..] {
        ["use", root] => strace::traced(|| use_it(Path::new(root), false)),
        ["tend", root] => strace::traced(|| tend(Path::new(root))),
        ["use-durably", root] => strace::traced(|| use_it(Path::new(root), true)),
        _ => panic!("unknown role {role:?}"),
    }
}

/// What an engine does, which never fails, and then a person who looks.
fn use_it(root: &Path, durable: bool) {
    let mut options = StoreOptions::at(root);
    options.durable = durable;
    let store = Store::open_or_degrade(options);
    for number in (0..4).chain(0..4) {
        let compile = || Ok::<_, CacheError>(Offer { object: object(number, LENGTH), ..Offer::default() });
        let fetched = store.get_or_compile(&signature(number), compile).expect("never fails its user");
        assert_eq!(*fetched.object, *object(number, LENGTH));
    }
    let _ = store.list();
    let _ = store.verify(VerifyOptions { repair: true }, &mut |_| ());
    assert_ne!(store.degraded(), Some(Reason::DirectoryGone), "it is there");
    drop(store);
}

/// What a person asks for may fail, with an error only.
fn tend(root: &Path) {
    let store = Store::open_or_degrade(StoreOptions::at(root));
    let _ = store.set_pinned(&signature(11), true);
    let _ = store.collect_garbage(&GcLimits { max_size: Some(8_000), ..GcLimits::default() }, false);
    let _ = store.fsck(true, &mut |_| ());
    let _ = store.remove(&signature(10));
    let _ = store.clear();
}

fn nothing(_: &Path) {}

fn used(root: &Path) {
    let store = store_at(root);
    (10..12).for_each(|number| offer(&store, number, LENGTH).expect("taken"));
    store.list().expect("makes the catalogue");
    has(&store, 10, LENGTH);
}

fn check(what: &str, root: &Path, output: Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{text}", output.status);
    check_sound(what, root);
}

/// Calls that the standard output and the test's own frame do not make while the role runs.
const OURS: &[&str] = &[
    "openat",
    "writev",
    "pwrite64",
    "pread64",
    "rename",
    "renameat",
    "renameat2",
    "mkdirat",
    "unlinkat",
    "ftruncate",
    "fsync",
    "fdatasync",
    "flock",
    "newfstatat",
    "getdents64",
    "mkdir",
    "unlink",
    "rmdir",
    "faccessat",
    "fchmodat",
];

fn fail_at_each_call(role: &str, prepare: &dyn Fn(&Path), limit: usize, fault: &str) {
    Plan { role, prepare, kinds: OURS, limit, fault }.for_each_call(check);
}

#[test]
fn an_error_once() {
    fail_at_each_call("use", &nothing, 3, "error=EIO:when=@");
    fail_at_each_call("use", &used, 3, "error=ENOSPC:when=@");
    fail_at_each_call("use", &used, 1, "error=ENOENT:when=@");
}

#[test]
fn other_errors_once() {
    fail_at_each_call("use", &used, 1, "error=EMFILE:when=@");
    fail_at_each_call("use", &nothing, 1, "error=EROFS:when=@");
    fail_at_each_call("use", &nothing, 1, "error=EDQUOT:when=@");
    fail_at_each_call("use", &used, 1, "error=ESTALE:when=@");
    fail_at_each_call("use-durably", &used, 1, "error=EIO:when=@");
    fail_at_each_call("tend", &used, 1, "error=EIO:when=@");
}

#[test]
fn an_error_for_ever() {
    fail_at_each_call("use", &used, 1, "error=EIO:when=@+");
    fail_at_each_call("use", &nothing, 2, "error=ENOSPC:when=@+");
    fail_at_each_call("use", &nothing, 1, "error=EROFS:when=@+");
}

#[test]
fn other_errors_for_ever() {
    fail_at_each_call("use", &used, 2, "error=EMFILE:when=@+");
    fail_at_each_call("use", &used, 1, "error=EDQUOT:when=@+");
    fail_at_each_call("use", &used, 1, "error=EACCES:when=@+");
    fail_at_each_call("use-durably", &nothing, 1, "error=EIO:when=@+");
    fail_at_each_call("tend", &used, 1, "error=ENOSPC:when=@+");
}

#[test]
fn a_catalogue_that_cannot_be_written_costs_nothing() {
    if Command::new("strace").arg("-V").output().is_err() {
        return skip("there is no strace");
    }
    // On every thread, sled's included.
    // It syncs when it is dropped, and panics when that fails.
    let faults = [
        "fsync:error=EIO:when=1+",
        "fsync,fdatasync,sync_file_range:error=EIO:when=1+",
        "pwrite64:error=EIO:when=2+",
        "pwrite64:error=ENOSPC:when=2+",
        "pwrite64:error=EDQUOT:when=5+",
        "write:error=ENOSPC:when=1+",
    ];
    for fault in faults {
        let (_directory, root) = place();
        used(&root);
        let inject = format!("inject={fault}");
        // Not what the role prints.
        let strace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=%desc", "-e", &inject, "-P"];
        let (database, snapshots) = (root.join("catalogue/db"), root.join("catalogue"));
        let mut words: Vec<&str> = strace.to_vec();
        let (database, snapshots) = (database.to_string_lossy(), snapshots.to_string_lossy());
        words.extend([&*database, "-P", &*snapshots]);
        let child = child::command(&words, &[&"use", &root]).spawn().expect("starts");
        check(fault, &root, finish(child));
    }
}

#[test]
fn strace_is_asked_about_the_right_calls() {
    let Some(calls) = trace("use-durably", &used) else { return skip("there is no strace") };
    for kind in ["openat", "writev", "pwrite64", "pread64", "unlinkat", "flock", "fsync", "getdents64"] {
        let made = calls.get(kind).is_some_and(|count| count.until > count.before);
        assert!(made, "{kind} is not made any more: {calls:?}");
    }
}
