//! A process killed, or failed by the system, at each of its system calls in turn (with strace): what was
//! acknowledged is there, nothing half made is left, and nobody gets wrong bytes or an error.

#[path = "support/child.rs"]
mod child;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use child::finish;
use objcache_cache::{
    CacheAdmin, CacheError, CompileOnce, GcLimits, Offer, Reason, Store, StoreOptions, VerifyOptions,
};
use support::{has, object, offer, place, signature, skip, store_at};

const LENGTH: usize = 5_000;

/// Opening these names marks where a role begins and ends in a trace.
const BEGIN: &str = "/objcache-test-begins";
const END: &str = "/objcache-test-ends";

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    get_ahead();
    let _ = fs::File::open(BEGIN);
    match role[..] {
        ["put", root] => put(Path::new(root), false),
        ["put-durably", root] => put(Path::new(root), true),
        ["administer", root] => administer(Path::new(root)),
        ["use", root] => use_it(Path::new(root)),
        _ => panic!("unknown role {role:?}"),
    }
    let _ = fs::File::open(END);
}

/// strace counts calls per thread, and injects into the n-th of *each*. So the thread of the role first makes
/// more of the usual calls than the main thread ever does; later ones are then the role's alone.
fn get_ahead() {
    for _ in 0..60 {
        let mut file = fs::File::options().read(true).write(true).open("/dev/null").expect("there");
        let _ = (file.metadata(), rustix::fs::fstat(&file), file.read_at(&mut [0], 0), file.write(&[0]));
        let _ = rustix::fs::statat(rustix::fs::CWD, "/", rustix::fs::AtFlags::empty());
    }
}

/// Puts, replaces, removes; says what was acknowledged.
fn put(root: &Path, durable: bool) {
    let mut options = StoreOptions::at(root);
    options.durable = durable;
    let store = Store::open(options).expect("opens");
    for number in 0..3 {
        offer(&store, number, LENGTH).expect("taken");
        println!("\nput {number}");
    }
    offer(&store, 1, LENGTH).expect("taken again");
    println!("\nremoving 2");
    store.remove(&signature(2)).expect("removed");
    let compile = || Ok::<_, CacheError>(Offer { object: object(3, LENGTH), ..Offer::default() });
    store.get_or_compile(&signature(3), compile).expect("compiled");
    println!("\nput 3");
    assert!(has(&store, 0, LENGTH));
}

/// Opens the catalogue, folds the journal, evicts.
fn administer(root: &Path) {
    let store = store_at(root);
    offer(&store, 5, LENGTH).expect("taken");
    println!("\nput 5");
    store.stats().expect("stats");
    println!("\nremoving 10");
    store.remove(&signature(10)).expect("removed");
    let limits = GcLimits { max_size: Some(u64::MAX), ..GcLimits::default() };
    store.collect_garbage(&limits, false).expect("collected");
}

/// What an engine and then a person do. Nothing may fail but what the person asked for, and that with an
/// error only.
fn use_it(root: &Path) {
    let store = Store::open_or_degrade(StoreOptions::at(root));
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

/// Per system call: how often the role's thread made it before the role began, and until it ended.
type Calls = BTreeMap<String, (usize, usize)>;

fn trace(role: &str, prepare: &dyn Fn(&Path)) -> Option<Calls> {
    let (directory, root) = place();
    prepare(&root);
    let log = directory.path().join("trace");
    let strace = ["strace", "-f", "-o", log.to_str()?];
    let output = child::command(&strace, &[&role, &root]).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(count(&fs::read_to_string(log).ok()?))
}

fn count(log: &str) -> Calls {
    let thread_of = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let ours = log.lines().find(|line| line.contains(BEGIN)).map(thread_of).expect("the role begins");
    let (mut calls, mut begun, mut ended) = (Calls::new(), false, false);
    for line in log.lines().filter(|line| thread_of(line) == ours) {
        let call = line[ours.len()..].trim_start();
        let name = call.split('(').next().unwrap_or_default();
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            // The second half of a call that was interrupted by others.
            continue;
        }
        let counts = calls.entry(name.to_owned()).or_default();
        counts.0 += usize::from(!begun);
        counts.1 += usize::from(!ended);
        begun |= line.contains(BEGIN);
        ended |= line.contains(END);
    }
    assert!(ended, "the role ends");
    calls
}

/// Runs the role once for each of its system calls named in `kinds` (at most `limit` of a kind, evenly
/// chosen), with `fault` injected there.
fn for_each_call(
    role: &str,
    prepare: &dyn Fn(&Path),
    (kinds, limit): (&[&str], usize),
    fault: &str,
    check: impl Fn(&str, &Path, Output),
) {
    let Some(calls) = trace(role, prepare) else { return skip("strace cannot be run") };
    let mut points = 0;
    for (kind, (before, until)) in calls.iter().filter(|(kind, _)| kinds.contains(&kind.as_str())) {
        let step = (until - before).div_ceil(limit).max(1);
        for at in (before + 1..=*until).step_by(step) {
            let (_directory, root) = place();
            prepare(&root);
            let trace = format!("trace={kind}");
            let inject = format!("inject={kind}:{}", fault.replace('@', &at.to_string()));
            let strace = ["strace", "-f", "-o", "/dev/null", "-e", &trace, "-e", &inject];
            let child = child::command(&strace, &[&role, &root]).spawn().expect("started before");
            check(&format!("{role}: {kind} {at} of {until}, {fault}"), &root, finish(child));
            points += 1;
        }
    }
    assert!(points > 10, "{role}: only {points} points");
    eprintln!("{role}: {points} points");
}

/// Everything that changes files, or takes or gives back what could be left over.
const CHANGES: &[&str] = &[
    "openat",
    "write",
    "writev",
    "pwrite64",
    "rename",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
    "unlink",
    "unlinkat",
    "ftruncate",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "flock",
    "close",
];

fn check_after_kill(what: &str, root: &Path, output: Output) {
    assert!(!output.status.success(), "{what}: it was not killed");
    check_what_is_left(what, root, output);
}

/// Acknowledged puts are there, removals may have happened, nothing is left half made.
fn check_what_is_left(what: &str, root: &Path, output: Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    let (mut there, mut removing) = (Vec::new(), Vec::new());
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("put", number)) => there.push(number.parse::<u32>().expect("a number")),
            Some(("removing", number)) => removing.push(number.parse::<u32>().expect("a number")),
            _ => {}
        }
    }
    let mut options = StoreOptions::at(root);
    options.strict = true;
    let store = Store::open(options).unwrap_or_else(|error| panic!("{what}: {error}"));
    offer(&store, 50, LENGTH).unwrap_or_else(|error| panic!("{what}: {error}"));
    // Tidying, if it was due, writes files too.
    store.settle();
    for subdirectory in ["tmp", "locks"] {
        assert_eq!(names_in(&root.join(subdirectory)), Vec::<PathBuf>::new(), "{what}");
    }
    for number in 0..12 {
        let found = has(&store, number, LENGTH);
        assert!(found || !there.contains(&number) || removing.contains(&number), "{what}: lost {number}");
    }
    let report = store.verify(VerifyOptions::default(), &mut |_| ()).expect("verifies");
    assert_eq!(report.damaged, [], "{what}");
    let listed = store.list().unwrap_or_else(|error| panic!("{what}: {error}")).len() as u64;
    assert_eq!(listed, report.checked, "{what}");
    assert!(has(&store, 50, LENGTH), "{what}");
}

fn names_in(directory: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(directory).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    entries.unwrap_or_default()
}

fn nothing(_: &Path) {}

fn used(root: &Path) {
    let store = store_at(root);
    (10..12).for_each(|number| offer(&store, number, LENGTH).expect("taken"));
    store.list().expect("makes the catalogue");
    has(&store, 10, LENGTH);
}

#[test]
fn killed_at_any_call_of_a_put() {
    for_each_call("put", &nothing, (CHANGES, 100), "signal=KILL:when=@", check_after_kill);
}

#[test]
fn killed_at_any_call_of_a_durable_put() {
    let syncs = &["fsync", "renameat", "renameat2", "rename", "mkdirat"];
    for_each_call("put-durably", &nothing, (syncs, 100), "signal=KILL:when=@", check_after_kill);
}

#[test]
fn killed_at_any_call_of_administration() {
    for_each_call("administer", &nothing, (CHANGES, 4), "signal=KILL:when=@", check_after_kill);
    for_each_call("administer", &used, (CHANGES, 4), "signal=KILL:when=@", check_after_kill);
}

fn check_after_errors(what: &str, root: &Path, output: Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {}\n{text}", output.status);
    check_what_is_left(what, root, output);
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
    "flock",
    "newfstatat",
    "getdents64",
    "mkdir",
    "faccessat",
];

#[test]
fn failed_by_the_system_at_any_call() {
    for_each_call("use", &nothing, (OURS, 6), "error=EIO:when=@", check_after_errors);
    for_each_call("use", &used, (OURS, 6), "error=ENOSPC:when=@", check_after_errors);
    for_each_call("use", &used, (OURS, 4), "error=ENOENT:when=@", check_after_errors);
}

#[test]
fn failed_by_the_system_from_any_call_on() {
    for_each_call("use", &used, (OURS, 4), "error=EIO:when=@+", check_after_errors);
    for_each_call("use", &nothing, (OURS, 4), "error=ENOSPC:when=@+", check_after_errors);
    for_each_call("use", &nothing, (&["openat"], 12), "error=EMFILE:when=@+", check_after_errors);
    for_each_call("use", &nothing, (OURS, 4), "error=EROFS:when=@+", check_after_errors);
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
    ];
    for fault in faults {
        let (_directory, root) = place();
        used(&root);
        let inject = format!("inject={fault}");
        let strace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=%desc", "-e", &inject];
        let child = child::command(&strace, &[&"use", &root]).spawn().expect("starts");
        check_after_errors(fault, &root, finish(child));
    }
}

#[test]
fn strace_is_asked_about_the_right_calls() {
    if Command::new("strace").arg("-V").output().is_err() {
        return skip("there is no strace");
    }
    let calls = trace("put", &nothing).expect("traced");
    let made = |kind: &str| calls.get(kind).is_some_and(|(before, until)| until > before);
    for kind in ["openat", "writev", "pwrite64", "mkdirat", "unlinkat", "flock"] {
        assert!(made(kind), "{kind} is not made any more: {calls:?}");
    }
    assert!(made("renameat") || made("renameat2") || made("rename"), "{calls:?}");
    assert!(!made("fsync"), "not durable: {calls:?}");
}

#[test]
fn a_durable_put_syncs_file_and_directory() {
    let Some(calls) = trace("put-durably", &nothing) else { return skip("strace cannot be run") };
    let (before, until) = calls.get("fsync").copied().unwrap_or_default();
    // Five puts of file and directory, and the root for each of the fan-out directories made.
    assert_eq!(until - before, 5 * 2 + 4, "{calls:?}");
}
