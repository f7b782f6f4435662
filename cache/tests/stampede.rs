//! A hundred processes on twenty cold keys: each is compiled once, also when those who compile are killed; and
//! nobody waits for one that hangs longer than the bound.

#[path = "support/child.rs"]
mod child;
mod support;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use child::{finish, signal, start, wait_until};
use objcache_cache::{CacheAdmin, CompileOnce, Offer, Reason, Store, StoreOptions};
use rustix::process::{Signal, getpid, kill_process};
use support::{Random, has, object, place, signature, store_at};

const PROCESSES: u32 = 100;
const KEYS: u32 = 20;
const LENGTH: usize = 20_000;
const COMPILATION: Duration = Duration::from_millis(10);

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    let ["all", root, seed, wait] = role[..] else { panic!("unknown role {role:?}") };
    let number = |word: &str| word.parse::<u64>().expect("a number");
    ask_for_all(Path::new(root), number(seed), Duration::from_millis(number(wait)));
}

/// Asks for every key, in an order of its own.
fn ask_for_all(root: &Path, seed: u64, lock_wait: Duration) {
    let mut options = StoreOptions::at(root);
    options.lock_wait = lock_wait;
    let store = Store::open(options).expect("opens");
    let mut random = Random::new(seed);
    let mut keys: Vec<u32> = (0..KEYS).collect();
    while !keys.is_empty() {
        let key = keys.swap_remove(random.below(keys.len() as u32) as usize);
        let fetched = store.get_or_compile(&signature(key), || compile(root, key)).expect("compiles");
        assert_eq!(*fetched.object, *object(key, LENGTH));
    }
}

/// Leaves a line for every compilation, and dies in it when it finds a mark that nobody else took.
fn compile(root: &Path, key: u32) -> std::io::Result<Offer> {
    let log = OpenOptions::new().append(true).create(true).open(root.with_file_name("log"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    log?.write_all(format!("{key} {now}\n").as_bytes())?;
    std::thread::sleep(COMPILATION);
    if fs::remove_file(deadly(root, key)).is_ok() {
        kill_process(getpid(), Signal::KILL)?;
    }
    if fs::remove_file(hanging(root, key)).is_ok() {
        kill_process(getpid(), Signal::STOP)?;
        // Another thread may take the signal, and this one be stopped only a moment later.
        loop {
            std::thread::park();
        }
    }
    Ok(Offer { object: object(key, LENGTH), ..Offer::default() })
}

fn deadly(root: &Path, key: u32) -> PathBuf {
    root.with_file_name(format!("deadly-{key}"))
}

fn hanging(root: &Path, key: u32) -> PathBuf {
    root.with_file_name(format!("hanging-{key}"))
}

/// Keys, and when their compilations began, in µs.
fn log(root: &Path) -> Vec<(u32, u64)> {
    let log = fs::read_to_string(root.with_file_name("log")).unwrap_or_default();
    let parse = |line: &str| {
        let (key, time) = line.split_once(' ')?;
        Some((key.parse().ok()?, time.parse().ok()?))
    };
    let mut log: Vec<_> = log.lines().map(|line| parse(line).expect("a key and a time")).collect();
    log.sort_unstable();
    log
}

fn compilations(root: &Path) -> Vec<u32> {
    log(root).into_iter().map(|(key, _)| key).collect()
}

/// The longest from a death in a compilation to the next that began.
fn slowest_take_over(root: &Path) -> Duration {
    let log = log(root);
    let gaps = log.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].1 - pair[0].1);
    Duration::from_micros(gaps.max().unwrap_or(0)).saturating_sub(COMPILATION)
}

fn start_all(root: &Path, wait_ms: u64) -> Vec<Child> {
    let begin = |seed: u32| start(&[&"all", &root, &(seed + 1).to_string(), &wait_ms.to_string()]);
    (0..PROCESSES).map(begin).collect()
}

/// How many of the processes ended well, and how many did not.
fn end(children: Vec<Child>) -> (usize, usize) {
    let outputs: Vec<_> = children.into_iter().map(finish).collect();
    let failed = outputs.iter().filter(|output| !output.status.success());
    for output in failed.clone() {
        // Killed, not failed.
        assert_eq!(output.status.code(), None, "{}", String::from_utf8_lossy(&output.stderr));
    }
    let failed = failed.count();
    (outputs.len() - failed, failed)
}

fn check_store(root: &Path) -> Store {
    let store = store_at(root);
    (0..KEYS).for_each(|key| assert!(has(&store, key, LENGTH)));
    for subdirectory in ["tmp", "locks"] {
        assert_eq!(fs::read_dir(root.join(subdirectory)).expect("there").count(), 0, "{subdirectory}");
    }
    store
}

#[test]
fn a_hundred_processes_compile_twenty_keys_once() {
    let (_directory, root) = place();
    let begun = Instant::now();
    assert_eq!(end(start_all(&root, 60_000)), (PROCESSES as usize, 0));
    eprintln!("{PROCESSES} processes, {KEYS} keys: {:?}", begun.elapsed());
    assert_eq!(compilations(&root), (0..KEYS).collect::<Vec<_>>());
    let stats = check_store(&root).stats().expect("stats");
    assert_eq!((stats.puts, stats.reasons), (u64::from(KEYS), vec![]));
}

#[test]
fn when_those_who_compile_are_killed_the_next_takes_over() {
    let (_directory, root) = place();
    let marked: Vec<u32> = (0..KEYS).step_by(2).collect();
    marked.iter().for_each(|key| fs::write(deadly(&root, *key), "").expect("written"));
    let (well, killed) = end(start_all(&root, 60_000));
    assert_eq!((well, killed), (PROCESSES as usize - marked.len(), marked.len()));
    let mut expected: Vec<u32> = (0..KEYS).chain(marked).collect();
    expected.sort_unstable();
    assert_eq!(compilations(&root), expected, "once, and once more where the first was killed");
    eprintln!("slowest take-over: {:?}", slowest_take_over(&root));
    check_store(&root);
}

#[test]
fn nobody_waits_for_one_that_hangs_longer_than_the_bound() {
    let (_directory, root) = place();
    fs::write(hanging(&root, 7), "").expect("written");
    let mut first = start(&[&"all", &root, &"1", &"200"]);
    wait_until("it hangs", || !hanging(&root, 7).exists());
    // It stops itself a moment after.
    signal(&first, Signal::STOP);
    assert_eq!(end(start_all(&root, 200)), (PROCESSES as usize, 0));
    let store = check_store_beside_one_that_hangs(&root);
    let reasons = store.stats().expect("stats").reasons;
    assert!(reasons.iter().all(|(reason, _)| *reason == Reason::LockTimeout), "{reasons:?}");
    assert!(!reasons.is_empty(), "somebody waited in vain");
    first.kill().expect("killed");
    finish(first);
    support::check_sound("after it was killed", &root);
}

fn check_store_beside_one_that_hangs(root: &Path) -> Store {
    let store = store_at(root);
    (0..KEYS).for_each(|key| assert!(has(&store, key, LENGTH)));
    store
}
