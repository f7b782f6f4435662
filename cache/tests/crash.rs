//! A process killed at each of its system calls in turn (with strace): what was acknowledged is there, nothing
//! half made is left, and nobody gets wrong bytes or an error.

#[path = "support/child.rs"]
mod child;
#[path = "support/strace.rs"]
mod strace;
mod support;

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use objcache_cache::{CacheAdmin, CacheError, CompileOnce, GcLimits, Offer, Store, StoreOptions};
use strace::{Plan, trace};
use support::{check_sound, entry_path, has, object, offer, signature, skip, store_at};

const LENGTH: usize = 5_000;

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    let [what, root] = role[..] else { panic!("unknown role {role:?}") };
    let root = Path::new(root);
    let work = || match what {
        "put" => put(root, false),
        "put-durably" => put(root, true),
        "get" => get(root),
        "evict" => evict(root),
        // What it comes down to depends on what was prepared: a fold, a fresh catalogue, a take-over.
        "keep" => drop(store_at(root).stats().expect("stats")),
        "administer" => administer(root),
        _ => panic!("unknown role {what}"),
    };
    strace::traced(work);
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

/// A hit, a miss, a damaged entry.
fn get(root: &Path) {
    let store = store_at(root);
    assert!(has(&store, 10, LENGTH) && !has(&store, 9, LENGTH));
    println!("\nremoving 11");
    assert!(!has(&store, 11, LENGTH), "it is damaged");
}

/// Evicts what is above a limit, and says first what that is.
fn evict(root: &Path) {
    let store = store_at(root);
    let limits = GcLimits { max_size: Some(20_000), ..GcLimits::default() };
    let plan = store.collect_garbage(&limits, true).expect("planned");
    for number in (10..16).filter(|number| plan.removed.iter().any(|it| it.signature == signature(*number))) {
        println!("\nremoving {number}");
    }
    let report = store.collect_garbage(&limits, false).expect("collected");
    assert!(report.removed.len() >= 2 && report.kept >= 1, "{report:?}");
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

/// The slowest opening of a store after a kill, with one look-up, in µs.
static SLOWEST_RESTART: AtomicU64 = AtomicU64::new(0);

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
    let begun = Instant::now();
    let store = store_at(root);
    has(&store, 0, LENGTH);
    SLOWEST_RESTART.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
    for number in 0..16 {
        if there.contains(&number) && !removing.contains(&number) {
            assert!(has(&store, number, LENGTH), "{what}: lost {number}");
        }
    }
    // It was damaged before, and may have been taken out.
    has(&store, 11, LENGTH);
    drop(store);
    check_sound(what, root);
}

fn nothing(_: &Path) {}

/// Entries 10 to 15, a catalogue, and events not yet in it.
fn used(root: &Path) {
    let store = store_at(root);
    (10..16).for_each(|number| offer(&store, number, LENGTH).expect("taken"));
    store.list().expect("makes the catalogue");
    has(&store, 10, LENGTH);
}

/// The same, with a damaged entry.
fn damaged(root: &Path) {
    used(root);
    let path = entry_path(root, 11);
    let mut bytes = fs::read(&path).expect("there");
    bytes[7] ^= 1;
    fs::write(path, bytes).expect("written");
}

/// The same, left by a keeper that died folding the journal, writing a snapshot, and evicting.
fn left_by_a_dead_keeper(root: &Path) {
    used(root);
    fs::copy(root.join("journal"), root.join("journal.folding")).expect("copied");
    fs::write(root.join("catalogue/snap.0000000000000007.generating"), "half").expect("written");
    fs::write(root.join("tmp/4-5-6"), "half").expect("written");
    fs::write(root.join("locks/abc"), "").expect("written");
    fs::remove_file(entry_path(root, 12)).expect("there");
}

const KILL: &str = "signal=KILL:when=@";

fn kill_at_each_call(role: &str, prepare: &dyn Fn(&Path), kinds: &[&str], limit: usize) {
    let plan = Plan { role, prepare, kinds, limit, fault: KILL };
    let killed = Cell::new(0);
    let points = plan.for_each_call(|what, root, output| {
        killed.set(killed.get() + usize::from(!output.status.success()));
        check_what_is_left(what, root, output);
    });
    // The last few may be calls that it rarely makes.
    let killed = killed.get();
    assert!(killed * 20 >= points * 19, "{role}: killed only {killed} of {points} times");
    eprintln!("{role}: killed {killed} of {points} times");
    eprintln!("slowest restart so far: {} µs", SLOWEST_RESTART.load(Ordering::Relaxed));
}

#[test]
fn killed_at_any_call_of_a_put() {
    kill_at_each_call("put", &nothing, CHANGES, usize::MAX);
}

#[test]
fn killed_at_any_call_of_a_durable_put() {
    let syncs = &["fsync", "renameat", "renameat2", "rename", "mkdirat"];
    kill_at_each_call("put-durably", &nothing, syncs, usize::MAX);
}

#[test]
fn killed_at_any_call_of_a_get() {
    kill_at_each_call("get", &damaged, CHANGES, usize::MAX);
}

#[test]
fn killed_at_any_call_of_an_eviction() {
    kill_at_each_call("evict", &used, CHANGES, usize::MAX);
}

#[test]
fn killed_at_any_call_of_a_fold() {
    kill_at_each_call("keep", &used, CHANGES, usize::MAX);
}

#[test]
fn killed_at_any_call_of_a_take_over() {
    kill_at_each_call("keep", &left_by_a_dead_keeper, CHANGES, usize::MAX);
}

#[test]
fn killed_at_any_call_of_administration() {
    kill_at_each_call("administer", &nothing, CHANGES, usize::MAX);
}

/// sled writes on threads of its own.
#[test]
fn killed_at_calls_of_other_threads() {
    let kinds = &["write", "pwrite64", "sync_file_range", "fsync", "fdatasync", "ftruncate", "rename"];
    let plan = Plan { role: "administer", prepare: &nothing, kinds, limit: 12, fault: KILL };
    // Which thread does what differs, so one or the other may not get as far.
    plan.for_each_call_elsewhere(check_what_is_left);
}

#[test]
fn strace_is_asked_about_the_right_calls() {
    let Some(calls) = trace("put", &nothing) else { return skip("there is no strace") };
    let made = |kind: &str| calls.get(kind).is_some_and(|count| count.until > count.before);
    for kind in ["openat", "writev", "pwrite64", "mkdirat", "unlinkat", "flock"] {
        assert!(made(kind), "{kind} is not made any more: {calls:?}");
    }
    assert!(made("renameat") || made("renameat2") || made("rename"), "{calls:?}");
    assert!(!made("fsync"), "not durable: {calls:?}");
}
