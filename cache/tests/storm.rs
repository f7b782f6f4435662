//! Many processes do everything at once on one directory, are killed at random, and what they are served is
//! checked against what was put: nothing wrong, nothing damaged, nothing left behind, no hang, a bounded size.
//!
//! A storm lasts a few seconds; `OBJCACHE_SOAK=1` makes it ten minutes, a larger number so many seconds.

#[path = "support/child.rs"]
mod child;
mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use child::{finish, start};
use objcache_cache::{CacheAdmin, CompileOnce, GcLimits, Offer, Store, StoreOptions, VerifyOptions};
use support::{Random, Span, has, object, offer, place, signature, store_at};

const MAX_SIZE: u64 = 8 << 20;
/// Objects the storm is about; together about twice what the store may keep.
const OBJECTS: u32 = 400;

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    match role[..] {
        ["storm", root, seed] => storm(Path::new(root), seed.parse().expect("a number")),
        ["use", root, seed] => use_whatever_it_is_like(Path::new(root), seed.parse().expect("a number")),
        ["put", root, from] => put_until_killed(Path::new(root), from.parse().expect("a number")),
        _ => panic!("unknown role {role:?}"),
    }
}

/// How long a storm lasts.
fn duration() -> Duration {
    support::soak(3, 600)
}

fn length(number: u32) -> usize {
    (number as usize * 7919) % 80_000
}

fn options(root: &Path) -> StoreOptions {
    let mut options = StoreOptions::at(root);
    options.max_size = MAX_SIZE;
    options
}

/// Does this and that until it is killed.
fn storm(root: &Path, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        let store = Store::open(options(root)).expect("opens");
        for _ in 0..random.below(400) {
            act(&store, &mut random);
            assert_eq!(store.degraded(), None, "nothing here is a reason to do less");
        }
    }
}

fn act(store: &Store, random: &mut Random) {
    let number = random.below(OBJECTS);
    let length = length(number);
    match random.below(1000) {
        0..400 => {
            has(store, number, length);
        }
        400..600 => offer(store, number, length).expect("taken"),
        600..950 => {
            let compile = || Ok::<_, ()>(Offer { object: object(number, length), ..Offer::default() });
            let fetched = store.get_or_compile(&signature(number), compile).expect("compiles");
            assert_eq!(*fetched.object, *object(number, length));
        }
        950..985 => {
            store.remove(&signature(number)).expect("removes");
        }
        985..990 => drop(store.stat(&signature(number)).expect("looks")),
        990..993 => drop(store.list().expect("lists")),
        993..996 => {
            let limits = GcLimits { max_size: Some(MAX_SIZE / 2), ..GcLimits::default() };
            store.collect_garbage(&limits, random.below(2) == 0).expect("collects");
        }
        996..998 => {
            let report = store.verify(VerifyOptions { repair: true }, &mut |_| ()).expect("verifies");
            assert_eq!(report.damaged, [], "nothing was damaged");
        }
        998 => drop(store.stats().expect("looks")),
        // A keeper that is about to be killed may keep us waiting.
        _ => drop(store.clear()),
    }
}

/// What an engine does, with a store that others damage and remove.
fn use_whatever_it_is_like(root: &Path, seed: u64) {
    let mut random = Random::new(seed);
    loop {
        let store = Store::open_or_degrade(options(root));
        for _ in 0..random.below(200) {
            let number = random.below(OBJECTS);
            let compile =
                || Ok::<_, ()>(Offer { object: object(number, length(number)), ..Offer::default() });
            let fetched = store.get_or_compile(&signature(number), compile).expect("compiles");
            assert_eq!(*fetched.object, *object(number, length(number)));
        }
    }
}

/// Starts processes in a role, and kills and replaces them at random, for `duration`.
fn rage(role: &str, root: &Path, processes: u64, duration: Duration, mut meanwhile: impl FnMut(&mut Random)) {
    let mut random = Random::new(processes);
    let mut seed = 0;
    let mut begin = || -> Child {
        seed += 1;
        start(&[&role, &root, &seed.to_string()])
    };
    let mut children: Vec<Child> = (0..processes).map(|_| begin()).collect();
    let end = Instant::now() + duration;
    while Instant::now() < end {
        meanwhile(&mut random);
        std::thread::sleep(Duration::from_millis(u64::from(random.below(60))));
        let next = begin();
        let at = random.below(children.len() as u32) as usize;
        end_by_force(std::mem::replace(&mut children[at], next));
    }
    children.into_iter().for_each(end_by_force);
}

/// It must have been well until now.
fn end_by_force(mut child: Child) {
    let ended = child.try_wait().expect("runs");
    let _ = child.kill();
    let output = finish(child);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(ended.is_none(), "{ended:?}: {text}");
}

/// Says what was acknowledged, as soon as it was.
fn put_until_killed(root: &Path, from: u32) {
    child::begin();
    let store = store_at(root);
    for number in from.. {
        offer(&store, number, length(number)).expect("taken");
        println!("put {number}");
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill_at_any_time() {
    let (_directory, root) = place();
    let mut random = Random::new(7);
    let (span, mut there) = (Span::of(duration() / 2), Vec::new());
    for from in (0..).step_by(1_000_000) {
        if !span.goes_on(|| there.len() > 100) {
            break;
        }
        let mut child = start(&[&"put", &root, &from.to_string()]);
        // From the opening of the store on.
        child::wait_until_begun(&mut child);
        std::thread::sleep(Duration::from_millis(u64::from(random.below(70))));
        child.kill().expect("runs");
        let text = String::from_utf8_lossy(&finish(child).stdout).into_owned();
        // The last line may be cut short, and then looks like another number.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let numbers = whole.lines().filter_map(|line| line.strip_prefix("put ")?.parse::<u32>().ok());
        there.extend(numbers);
    }
    assert!(there.len() > 100, "only {} puts", there.len());
    let store = store_at(&root);
    let lost = there.iter().filter(|number| !has(&store, **number, length(**number))).count();
    assert_eq!(lost, 0, "of {}", there.len());
    let report = store.verify(VerifyOptions::default(), &mut |_| ()).expect("verifies");
    assert_eq!(report.damaged, []);
    assert!(report.checked as usize >= there.len());
}

fn names_in(directory: &Path) -> usize {
    // One that was removed, and not needed since, has none.
    fs::read_dir(directory).map_or(0, Iterator::count)
}

fn disk_bytes(root: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let size = |path: PathBuf| match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => disk_bytes(&path),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    fs::read_dir(root).expect("there").map(|entry| size(entry.expect("listed").path())).sum()
}

#[test]
fn a_storm_of_processes_leaves_a_sound_store() {
    let (_directory, root) = place();
    rage("storm", &root, 12, duration(), |_| ());

    let store = Store::open(options(&root)).expect("opens");
    offer(&store, 0, length(0)).expect("taken");
    store.settle();
    let report = store.verify(VerifyOptions::default(), &mut |_| ()).expect("verifies");
    assert_eq!(report.damaged, []);
    let stats = store.stats().expect("looks");
    eprintln!("{stats:?}, {} bytes", disk_bytes(&root));
    assert_eq!(stats.quarantined, 0);
    assert_eq!(names_in(&root.join("quarantine")), 0);
    assert!(stats.reasons.iter().all(|(reason, _)| support::HARMLESS.contains(reason)), "{stats:?}");
    assert_eq!((names_in(&root.join("locks")), names_in(&root.join("tmp"))), (0, 0));
    assert!(disk_bytes(&root) <= MAX_SIZE, "{}", disk_bytes(&root));
    let _found = (0..OBJECTS).filter(|number| has(&store, *number, length(*number))).count();
}

/// Overwrites, cuts short, moves or removes something of the store.
fn vandalise(root: &Path, random: &mut Random) {
    let entry = |random: &mut Random| support::entry_path(root, random.below(OBJECTS));
    for _ in 0..20 {
        let path = entry(random);
        // What is not there cannot be damaged; that is fine as well.
        let _ = match random.below(7) {
            0 => fs::OpenOptions::new()
                .write(true)
                .open(path)
                .and_then(|file| file.write_all_at(&[0xa5; 16], u64::from(random.below(9000)))),
            1 => fs::OpenOptions::new()
                .write(true)
                .open(path)
                .and_then(|file| file.set_len(u64::from(random.below(9000)))),
            2 => fs::copy(entry(random), path).map(drop),
            3 => fs::rename(entry(random), path),
            4 => fs::remove_file(&path).and_then(|()| std::os::unix::fs::symlink("nowhere", path)),
            5 => fs::remove_file(&path).and_then(|()| fs::create_dir(path)),
            // Seldom, or there would be nothing left to damage.
            _ => match random.below(100) {
                0 => fs::write(root.join("journal"), [0xa5; 500]),
                1 => fs::remove_dir_all(root.join("tmp")),
                2 => fs::remove_dir_all(root.join("locks")),
                3 => fs::remove_dir_all(root.join("quarantine")),
                4 => path.parent().map_or(Ok(()), fs::remove_dir_all),
                5 => fs::remove_file(root.join("keeper")),
                6 => fs::write(root.join("catalogue/db"), [0xa5; 5000]),
                7 => fs::remove_dir_all(root),
                _ => Ok(()),
            },
        };
    }
}

#[test]
fn under_damage_and_removal_nobody_gets_wrong_bytes_or_an_error() {
    let (_directory, root) = place();
    rage("use", &root, 6, duration(), |random| vandalise(&root, random));

    let store = Store::open(options(&root)).expect("opens");
    store.verify(VerifyOptions { repair: true }, &mut |_| ()).expect("verifies");
    let report = store.verify(VerifyOptions::default(), &mut |_| ()).expect("verifies");
    assert_eq!(report.damaged, []);
    offer(&store, 0, length(0)).expect("taken");
    assert!(has(&store, 0, length(0)));
    assert!(names_in(&root.join("quarantine")) <= 33);
    store.settle();
    assert!(disk_bytes(&root) <= MAX_SIZE, "{}", disk_bytes(&root));
}

#[test]
fn many_make_the_same_directory_at_once() {
    for _ in 0..150 {
        let (_directory, root) = place();
        let together = Barrier::new(8);
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (root, together) = (&root, &together);
                // A store of its own is as good as a process of its own: all that they share is the directory.
                scope.spawn(move || {
                    let mut options = StoreOptions::at(root);
                    options.strict = true;
                    together.wait();
                    let store = Store::open(options).expect("opens");
                    offer(&store, number, 2000).expect("taken");
                    assert!(has(&store, number, 2000));
                    let compile = || Ok::<_, ()>(Offer { object: object(99, 100), ..Offer::default() });
                    store.get_or_compile(&signature(99), compile).expect("works");
                    assert_eq!(store.degraded(), None);
                });
            }
        });
        let stats = store_at(&root).stats().expect("looks");
        assert_eq!((stats.entries, stats.puts, stats.reasons), (9, 9, vec![]));
    }
}
