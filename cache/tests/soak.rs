//! Many processes on one small store for a while: what the directory takes is never above its limit by more than
//! one entry, memory stays flat, nothing wrong is served, and nobody gets an error.
//!
//! The processes are stopped for each look at the directory: a file that is moved or replaced while the others
//! are added up would be counted twice. A soak lasts a quarter of a minute, a minute with `OBJCACHE_REQUIRE_ALL=1`;
//! `OBJCACHE_SOAK=1` makes it an hour, a larger number so many seconds. A minute finds memory that is lost when it
//! is 5 kB each time something is done, an hour when it is 200 bytes.

#[path = "support/child.rs"]
mod child;
mod support;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use child::{finish, signal};
use objcache_cache::{
    CacheAdmin, CacheStats, CompileOnce, GcLimits, Offer, Reason, Store, StoreOptions, VerifyOptions,
};
use rustix::process::Signal;
use support::{Random, Span, has, object, offer_costing, place, signature};

const PROCESSES: u64 = 24;
const MAX_SIZE: u64 = 8 << 20;
const MAX_ENTRIES: u64 = 180;
/// Objects the soak is about; together three times what the store may keep.
const OBJECTS: u32 = 600;
/// The longest object, in bytes, and what its entry takes at most.
const LONGEST: usize = 80_000;
const LARGEST_ENTRY: u64 = LONGEST as u64 + 8192;
/// What a process may take more towards the end than before, in bytes. Without a leak it was 0.5 to 1.7 MB in the first
/// minute, and 0.3 MB in the second.
const MEMORY_GROWTH: u64 = 4 << 20;

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    match role[..] {
        ["use", root, seed] => use_it(Path::new(root), seed.parse().expect("a number")),
        _ => panic!("unknown role {role:?}"),
    }
}

fn length(number: u32) -> usize {
    (number as usize * 7919) % LONGEST
}

fn options(root: &Path) -> StoreOptions {
    let mut options = StoreOptions::at(root);
    (options.max_size, options.max_entries, options.own_errors) = (MAX_SIZE, Some(MAX_ENTRIES), true);
    options
}

/// Goes on until it is killed.
fn use_it(root: &Path, seed: u64) {
    let mut random = Random::new(seed);
    warm_up(&root.with_file_name(format!("of {seed} alone")), &mut random);
    child::begin();
    let mut store = Store::open(options(root)).expect("opens");
    loop {
        if random.below(500) == 0 {
            store = Store::open(options(root)).expect("opens");
        }
        act(&store, &mut random);
        assert_eq!(store.degraded(), None);
        std::thread::sleep(Duration::from_micros(u64::from(random.below(8000))));
    }
}

/// Does once what takes memory for good, so that what is taken after it is lost: to open sled takes 30 MB. Not where
/// all the others are, since whoever finds sled taken does without.
fn warm_up(root: &Path, random: &mut Random) {
    let store = Store::open(options(root)).expect("opens");
    (0..100).for_each(|_| act(&store, random));
    store.list().expect("lists");
    store.collect_garbage(&GcLimits::default(), false).expect("collects");
    store.verify(VerifyOptions { repair: true }, &mut |_| ()).expect("verifies");
    drop(store);
    fs::remove_dir_all(root).expect("nobody else's");
}

/// Starts one that is warm when it says so. With one heap for all its threads: how many there are otherwise, and
/// how full each gets, is chance.
fn start_user(root: &Path, seed: u64) -> Child {
    let mut command = child::command(&[], &[&"use", &root, &seed.to_string()]);
    command.env("MALLOC_ARENA_MAX", "1").spawn().expect("starts")
}

fn act(store: &Store, random: &mut Random) {
    let number = random.below(OBJECTS);
    let length = length(number);
    match random.below(1000) {
        0..350 => {
            has(store, number, length);
        }
        350..650 => {
            let cost = Duration::from_micros(u64::from(random.below(100_000)));
            offer_costing(store, number, length, cost).expect("no error");
        }
        650..960 => {
            let compile = || Ok::<_, ()>(Offer { object: object(number, length), ..Offer::default() });
            let fetched = store.get_or_compile(&signature(number), compile).expect("compiles");
            assert_eq!(*fetched.object, *object(number, length));
        }
        960..980 => drop(store.remove(&signature(number)).expect("removes")),
        980..990 => {
            let (pinned, number) = (random.below(4) == 0, random.below(8));
            store.set_pinned(&signature(number), pinned).expect("pins");
        }
        990..993 => drop(store.list().expect("lists")),
        993..996 => drop(store.stats().expect("looks")),
        996..998 => {
            let limits = GcLimits { max_size: Some(MAX_SIZE / 2), ..GcLimits::default() };
            store.collect_garbage(&limits, random.below(2) == 0).expect("collects");
        }
        _ => {
            let report = store.verify(VerifyOptions { repair: true }, &mut |_| ()).expect("verifies");
            assert_eq!(report.damaged, []);
        }
    }
}

/// What `du` would say, in bytes, and how many entries there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Usage {
    bytes: u64,
    entries: u64,
}

fn usage(root: &Path) -> Usage {
    let (mut usage, mut seen, mut left) = (Usage::default(), HashSet::new(), vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if !seen.insert(found.ino()) {
            continue;
        }
        usage.bytes += found.blocks() * 512;
        if found.is_dir() {
            left.extend(fs::read_dir(&path).expect("there").map(|entry| entry.expect("listed").path()));
        } else {
            let name = path.file_name().expect("a file").to_string_lossy();
            let in_fan = path.parent() != Some(&root.join("pins")) && name.len() == 62;
            usage.entries += u64::from(in_fan);
        }
    }
    usage
}

/// Looks while all of them are stopped.
fn stopped<T>(children: &[Child], look: impl FnOnce() -> T) -> T {
    children.iter().for_each(|child| signal(child, Signal::STOP));
    for child in children {
        child::wait_until("it stops", || !matches!(state(child), Some('R' | 'S' | 'D')));
    }
    let seen = look();
    children.iter().for_each(|child| signal(child, Signal::CONT));
    seen
}

/// As the kernel has it; `None` when it is gone.
fn state(child: &Child) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    text.rsplit_once(") ")?.1.chars().next()
}

/// What of a process's memory is its own, in bytes, on average over them.
fn memory(children: &[Child]) -> u64 {
    children.iter().map(own_memory).sum::<u64>() / PROCESSES
}

/// 0 when it is gone.
fn own_memory(child: &Child) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// The median of the looks in the second quarter, and of those in the last.
fn middle_and_end(memory: &[u64]) -> [u64; 2] {
    let quarter = memory.len() / 4;
    [quarter..2 * quarter, 3 * quarter..memory.len()].map(|looks| {
        let mut looks = memory[looks].to_vec();
        looks.sort_unstable();
        looks[looks.len() / 2]
    })
}

fn is_much(stats: &CacheStats) -> bool {
    stats.evicted > 100 && stats.puts > 1000
}

fn was_used_much(root: &Path) -> bool {
    is_much(&Store::open(options(root)).expect("opens").stats().expect("looks"))
}

#[test]
fn what_many_processes_put_stays_within_the_bounds_at_every_instant() {
    let (_directory, root): (_, PathBuf) = place();
    drop(Store::open(options(&root)).expect("a fresh directory"));
    let mut children: Vec<Child> = (0..PROCESSES).map(|seed| start_user(&root, seed)).collect();
    children.iter_mut().for_each(child::wait_until_begun);

    let in_ci = std::env::var("OBJCACHE_REQUIRE_ALL").as_deref() == Ok("1");
    let duration = support::soak(if in_ci { 60 } else { 15 }, 3600);
    let (mut most, mut memory_by_look) = (Usage::default(), Vec::new());
    let span = Span::of(duration);
    while span.goes_on(|| memory_by_look.len() > 20 && most.bytes > MAX_SIZE / 2 && was_used_much(&root)) {
        std::thread::sleep(Duration::from_millis(60));
        let now = stopped(&children, || usage(&root));
        most = Usage { bytes: most.bytes.max(now.bytes), entries: most.entries.max(now.entries) };
        memory_by_look.push(memory(&children));
    }
    for mut child in children {
        let ended = child.try_wait().expect("runs");
        let _ = child.kill();
        let output = finish(child);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let text = text + &String::from_utf8_lossy(&output.stderr);
        assert!(ended.is_none(), "{ended:?}: {text}");
    }

    let store = Store::open(options(&root)).expect("opens");
    let stats = store.stats().expect("looks");
    let looks = memory_by_look.len();
    assert!(looks > 20, "{looks} looks are too few");
    let memory = middle_and_end(&memory_by_look);
    eprintln!("{looks} looks, at most {most:?} of {MAX_SIZE}; memory {memory:?}; {stats:?}");
    assert!(most.bytes <= MAX_SIZE + LARGEST_ENTRY, "{} above", most.bytes - MAX_SIZE);
    assert!(most.entries <= MAX_ENTRIES + 1, "{}", most.entries);
    assert!(most.bytes > MAX_SIZE / 2, "the bound was never near: {most:?}");
    assert!(is_much(&stats), "{stats:?}");
    // For each look they are stopped one after the other, and so is now and then one that has the journal locked.
    let is_stuck = |reason: &Reason| *reason == Reason::JournalStuck;
    let stuck: u64 =
        stats.reasons.iter().filter(|(reason, _)| is_stuck(reason)).map(|(_, count)| count).sum();
    assert!(stats.full + stuck < stats.puts / 20, "nearly all are taken: {stats:?}");
    let is_harmless = |reason: &Reason| support::HARMLESS.contains(reason) || is_stuck(reason);
    assert!(stats.reasons.iter().all(|(reason, _)| is_harmless(reason)), "{stats:?}");
    assert_eq!(stats.quarantined, 0);
    let [middle, end] = memory;
    assert!(middle > 0, "the kernel does not say what memory they take");
    assert!(end <= middle + MEMORY_GROWTH, "memory grows: {middle} bytes, then {end}");
    let report = store.verify(VerifyOptions::default(), &mut |_| ()).expect("verifies");
    assert_eq!(report.damaged, []);
}
