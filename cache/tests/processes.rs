//! Several processes on one directory: compile once, killed and stopped holders, who keeps the catalogue.

#[path = "support/child.rs"]
mod child;
mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use child::{finish, signal, start, succeed, wait_until};
use objcache_cache::{
    CacheAdmin, CompileOnce, GcLimits, ObjectCache, Offer, Outcome, Reason, Store, StoreOptions,
};
use rustix::fs::{FlockOperation, flock};
use support::{has, object, offer, place, signature, skip, store_at};

const LENGTH: usize = 10_000;

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    match role[..] {
        ["compile", root, marks, number, milliseconds] => {
            compile(Path::new(root), Path::new(marks), parse(number), parse(milliseconds), 60_000);
        }
        ["compile-impatiently", root, marks, number] => {
            compile(Path::new(root), Path::new(marks), parse(number), 0, 100);
        }
        ["write-and-die", root, number] => write_and_die(Path::new(root), parse(number)),
        ["use", root, puts, hits] => put_and_hit(Path::new(root), parse(puts), parse(hits)),
        ["hold-the-journal", root, marks, work] => {
            hold_the_journal(Path::new(root), Path::new(marks), work == "works");
        }
        ["fill", root, from, count] => fill(Path::new(root), parse(from), parse(count)),
        ["keep", root] => loop {
            store_at(Path::new(root)).stats().expect("stats");
            println!("round");
        },
        _ => panic!("unknown role {role:?}"),
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Debug>>(word: &str) -> T {
    word.parse().expect("a number")
}

/// Leaves a line in `marks` for every compilation.
fn compile(root: &Path, marks: &Path, number: u32, milliseconds: u64, wait: u64) {
    let mut options = StoreOptions::at(root);
    options.lock_wait = Duration::from_millis(wait);
    let store = Store::open(options).expect("opens");
    let fetched = store.get_or_compile(&signature(number), || {
        let mut file = OpenOptions::new().append(true).create(true).open(marks)?;
        writeln!(file, "compiled")?;
        std::thread::sleep(Duration::from_millis(milliseconds));
        Ok::<_, std::io::Error>(Offer { object: object(number, LENGTH), ..Offer::default() })
    });
    let fetched = fetched.expect("compiles");
    assert_eq!(*fetched.object, *object(number, LENGTH));
    println!("{:?}", fetched.outcome);
}

fn compilations(marks: &Path) -> usize {
    fs::read_to_string(marks).map_or(0, |text| text.lines().count())
}

/// Waits for the first line of `marks`, not only for the file: it is there a moment before.
fn a_compilation_begins(marks: &Path) {
    wait_until("a compilation begins", || compilations(marks) > 0);
}

/// Dies while it holds a permit and while a temporary file is being written.
fn write_and_die(root: &Path, number: u32) {
    let store = store_at(root);
    let permit = objcache_cache::ObjectCache::exclude_others(&store, &signature(number)).expect("free");
    fs::write(root.join("tmp/1234-5-6"), "half").expect("written");
    std::mem::forget(permit);
    std::process::abort();
}

fn put_and_hit(root: &Path, puts: u32, hits: u32) {
    let store = store_at(root);
    for number in 0..puts {
        offer(&store, 100 + number, LENGTH).expect("taken");
    }
    for _ in 0..hits {
        assert!(has(&store, 100, LENGTH));
    }
}

/// Locks the journal: for ever and doing nothing, or working for far longer than a put waits for a holder that
/// does nothing.
fn hold_the_journal(root: &Path, marks: &Path, works: bool) {
    let _journal = Held::lock(&root.join("journal"));
    fs::write(marks, "locked\n").expect("written");
    let started = Instant::now();
    while works && started.elapsed() < Duration::from_millis(600) {}
    if !works {
        std::thread::sleep(Duration::from_secs(600));
    }
}

fn fill(root: &Path, from: u32, count: u32) {
    let mut options = StoreOptions::at(root);
    options.max_size = 8 << 20;
    let store = Store::open(options).expect("opens");
    for number in from..from + count {
        offer(&store, number, 100_000).expect("taken");
        has(&store, number, 100_000);
    }
}

struct Scene {
    _directory: tempfile::TempDir,
    root: PathBuf,
    marks: PathBuf,
}

fn scene() -> Scene {
    let (_directory, root) = place();
    drop(store_at(&root));
    let marks = root.with_file_name("marks");
    Scene { _directory, root, marks }
}

fn names_in(directory: &Path) -> usize {
    fs::read_dir(directory).expect("there").count()
}

#[test]
fn eight_processes_on_a_cold_key_compile_once() {
    let Scene { _directory, root, marks } = scene();
    let children: Vec<_> = (0..8).map(|_| start(&[&"compile", &root, &marks, &"1", &"100"])).collect();
    let outcomes: Vec<String> = children.into_iter().map(succeed).collect();
    assert_eq!(compilations(&marks), 1);
    assert_eq!(outcomes.iter().filter(|text| text.contains("Miss")).count(), 1);
    assert_eq!(outcomes.iter().filter(|text| text.contains("Hit")).count(), 7);
    assert_eq!(names_in(&root.join("locks")), 0, "no lock file is left");
    assert_eq!(names_in(&root.join("tmp")), 0, "no temporary file is left");
}

/// Each is process 1 or 2 of its own container, so what they call their files and locks by must not rest on
/// process numbers.
#[test]
fn processes_in_containers_of_their_own_compile_once() {
    let contained = ["unshare", "--pid", "--fork", "--kill-child"];
    let can = std::process::Command::new("unshare").args(["--pid", "--fork", "true"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        return skip("no namespaces for processes can be made");
    }
    let Scene { _directory, root, marks } = scene();
    let begin = |number: u32, milliseconds: u32| {
        let role: [&dyn AsRef<std::ffi::OsStr>; 5] =
            [&"compile", &root, &marks, &number.to_string(), &milliseconds.to_string()];
        child::command(&contained, &role).spawn().expect("starts")
    };
    let children: Vec<_> = (0..8).map(|_| begin(1, 100)).collect();
    let outcomes: Vec<String> = children.into_iter().map(succeed).collect();
    assert_eq!(compilations(&marks), 1);
    assert_eq!(outcomes.iter().filter(|text| text.contains("Miss")).count(), 1);
    // All at once, with names that would be the same if numbers and times were all there is to them.
    let children: Vec<_> = (2..18).map(|number| begin(number, 0)).collect();
    children.into_iter().for_each(|child| drop(succeed(child)));
    let store = store_at(&root);
    (1..18).for_each(|number| assert!(has(&store, number, LENGTH), "{number}"));
    assert_eq!(store.stats().expect("stats").reasons, []);
    assert_eq!((names_in(&root.join("locks")), names_in(&root.join("tmp"))), (0, 0));
}

#[test]
fn when_the_compiling_process_is_killed_one_other_takes_over() {
    let Scene { _directory, root, marks } = scene();
    let mut first = start(&[&"compile", &root, &marks, &"1", &"600000"]);
    a_compilation_begins(&marks);
    let others: Vec<_> = (0..7).map(|_| start(&[&"compile", &root, &marks, &"1", &"50"])).collect();
    first.kill().expect("killed");
    assert!(!finish(first).status.success());
    let outcomes: Vec<String> = others.into_iter().map(succeed).collect();
    assert_eq!(compilations(&marks), 2, "the killed one and one more");
    assert_eq!(outcomes.iter().filter(|text| text.contains("Miss")).count(), 1);
    let store = store_at(&root);
    assert!(has(&store, 1, LENGTH));
    assert_eq!(store.stats().expect("stats").puts, 1);
    assert_eq!((names_in(&root.join("locks")), names_in(&root.join("tmp"))), (0, 0));
}

#[test]
fn a_stopped_compiler_is_waited_for_only_so_long() {
    let Scene { _directory, root, marks } = scene();
    let mut first = start(&[&"compile", &root, &marks, &"1", &"600000"]);
    a_compilation_begins(&marks);
    signal(&first, rustix::process::Signal::STOP);
    assert!(succeed(start(&[&"compile-impatiently", &root, &marks, &"1"])).contains("Miss"));
    assert_eq!(compilations(&marks), 2);
    first.kill().expect("killed");
    finish(first);
    let reasons = store_at(&root).stats().expect("stats").reasons;
    assert_eq!(reasons, [(Reason::LockTimeout, 1)]);
}

#[test]
fn what_dead_processes_leave_is_removed_by_the_next_that_opens_or_writes() {
    let Scene { _directory, root, .. } = scene();
    let left = || (names_in(&root.join("locks")), names_in(&root.join("tmp")));
    let writers: [&dyn Fn(&Store); 4] = [
        &|store| offer(store, 2, LENGTH).expect("taken"),
        &|store| drop(store.exclude_others(&signature(3))),
        &|store| drop(store.stats().expect("looks")),
        &|store| assert!(store.clear().is_ok()),
    ];
    for write in writers {
        let opened_before = store_at(&root);
        assert!(!finish(start(&[&"write-and-die", &root, &"1"])).status.success());
        // Whoever put it there, and whatever it is, it does not protect what comes after it.
        fs::create_dir_all(root.join("tmp/0/0")).expect("made");
        assert_eq!(left(), (1, 2));
        let mut read_only = StoreOptions::at(&root);
        read_only.read_only = true;
        for reader in [&opened_before, &Store::open(read_only).expect("opens")] {
            assert!(!has(reader, 1, LENGTH));
            assert_eq!(left(), (1, 2), "a look-up leaves things as they are");
        }
        write(&opened_before);
        assert_eq!(left(), (0, 1));
        assert!(!finish(start(&[&"write-and-die", &root, &"1"])).status.success());
        let _opened = store_at(&root);
        assert_eq!(left(), (0, 1), "nor does anything stay after the next has opened it");
    }
    let store = store_at(&root);
    let compiled = store.get_or_compile(&signature(1), || Ok::<_, ()>(Offer::default())).expect("free");
    assert_eq!(compiled.outcome, Outcome::Miss);
}

#[test]
fn sweeping_leaves_alone_what_is_in_use() {
    let Scene { _directory, root, marks } = scene();
    let mut busy = start(&[&"compile", &root, &marks, &"1", &"600000"]);
    a_compilation_begins(&marks);
    let temporary = File::create(root.join("tmp/7-7-7")).expect("made");
    flock(&temporary, FlockOperation::NonBlockingLockExclusive).expect("free");
    offer(&store_at(&root), 2, LENGTH).expect("taken");
    assert_eq!((names_in(&root.join("locks")), names_in(&root.join("tmp"))), (1, 1));
    busy.kill().expect("killed");
    finish(busy);
}

/// A file of the store, locked as another process would.
struct Held(File);

impl Held {
    fn lock(path: &Path) -> Self {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).expect("made");
        flock(&file, FlockOperation::NonBlockingLockExclusive).expect("free");
        Self(file)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing the file would not do: a child that another test just forked may still have it open.
        flock(&self.0, FlockOperation::Unlock).expect("unlocks");
    }
}

fn hold_the_role_of_keeper(root: &Path) -> Held {
    Held::lock(&root.join("keeper"))
}

#[test]
fn without_the_keeper_all_goes_on() {
    let Scene { _directory, root, .. } = scene();
    let keeper = hold_the_role_of_keeper(&root);
    succeed(start(&[&"use", &root, &"3", &"5"]));
    let store = store_at(&root);
    let listed = store.list().expect("from the entries and the journal");
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|entry| entry.object_bytes == LENGTH as u64 && entry.namespace == "tests"));
    let hits = |store: &Store| store.stat(&signature(100)).expect("stats").expect("there").hits;
    assert_eq!(hits(&store), 5);
    assert_eq!(store.stats().expect("stats").puts, 3);
    assert!(!root.join("catalogue").exists(), "nobody opened it");

    drop(keeper);
    assert_eq!(store.list().expect("lists"), listed, "the keeper tells the same");
    assert!(root.join("catalogue").exists());
    assert_eq!(hits(&store), 5, "folded in once");
    assert_eq!(store.stats().expect("stats").puts, 3);
    succeed(start(&[&"use", &root, &"1", &"2"]));
    assert_eq!(hits(&store), 7);
}

fn disk_bytes(root: &Path) -> u64 {
    store_at(root).list().expect("lists").iter().map(|entry| entry.disk_bytes).sum()
}

#[test]
fn whoever_gives_the_keepers_role_back_tidies_for_those_who_did_not_get_it() {
    const MAX_SIZE: u64 = 4 << 20;
    let Scene { _directory, root, .. } = scene();
    let keeper = hold_the_role_of_keeper(&root);
    let store = store_at(&root);
    (0..30).for_each(|number| offer(&store, number, 300_000).expect("taken"));
    drop(store);
    drop(keeper);
    assert!(disk_bytes(&root) > MAX_SIZE, "the process that put has ended");
    // It has put nothing, and only asks; but it is to keep the store smaller.
    let mut options = StoreOptions::at(&root);
    options.max_size = MAX_SIZE;
    let other = Store::open(options).expect("opens");
    other.list().expect("lists");
    other.settle();
    assert!(disk_bytes(&root) <= MAX_SIZE);
}

#[test]
fn puts_noted_late_are_made_room_for_before_a_collection() {
    const MAX_SIZE: u64 = 4 << 20;
    for _ in 0..5 {
        let Scene { _directory, root, .. } = scene();
        let mut options = StoreOptions::at(&root);
        options.max_size = MAX_SIZE;
        let store = Store::open(options).expect("opens");
        let journal = Held::lock(&root.join("journal"));
        (0..30).for_each(|number| offer(&store, number, 300_000).expect("taken"));
        drop(journal);
        let plan = store.collect_garbage(&GcLimits::default(), true).expect("looks");
        assert!(plan.kept_bytes <= MAX_SIZE, "{plan:?}");
    }
}

#[test]
fn a_holder_of_the_journal_that_works_is_waited_for_and_one_that_does_nothing_costs_an_offer() {
    for (work, taken) in [("works", true), ("stands", false)] {
        let Scene { _directory, root, marks } = scene();
        let mut holder = start(&[&"hold-the-journal", &root, &marks, &work]);
        wait_until("the journal is locked", || compilations(&marks) > 0);
        let store = store_at(&root);
        offer(&store, 1, LENGTH).expect("no error");
        let reasons = if taken { vec![] } else { vec![(Reason::JournalStuck, 1)] };
        assert_eq!((has(&store, 1, LENGTH), store.reasons()), (taken, reasons), "{work}");
        // A child that was killed has no lock any more, whatever it did.
        holder.kill().expect("killed");
        finish(holder);
        offer(&store, 2, LENGTH).expect("taken");
        assert!(has(&store, 2, LENGTH), "{work}");
        drop(store);
        let stats = store_at(&root).stats().expect("stats");
        assert_eq!((stats.full, stats.reasons.len()), (0, usize::from(!taken)), "{work}: {stats:?}");
    }
}

/// A tidying of a store that nobody knows the size of must not forget what is put meanwhile.
#[test]
fn puts_are_counted_while_the_size_is_measured() {
    let Scene { _directory, root, .. } = scene();
    fs::remove_file(root.join("journal")).expect("there");
    // As long as another has the role, the measurement that the first put asks for does not end, and nobody
    // but the puts has the journal locked: a put that finds it locked is noted later, which is no loss.
    let keeper = hold_the_role_of_keeper(&root);
    let store = store_at(&root);
    offer(&store, 1, 100_000).expect("taken");
    let before = noted_bytes(&root);
    offer(&store, 2, 100_000).expect("taken");
    assert!(noted_bytes(&root) - before >= 100_000, "{before} before");

    drop(keeper);
    offer(&store, 3, 100_000).expect("taken");
    store.settle();
    let (noted, entries) = (noted_bytes(&root), disk_bytes(&root));
    assert!((entries..before).contains(&noted), "{noted} noted, {entries} in entries");
}

/// What the head of the journal says the store takes.
fn noted_bytes(root: &Path) -> u64 {
    let header = fs::read(root.join("journal")).expect("there");
    u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"))
}

#[test]
fn a_store_cleared_under_load_knows_what_it_takes() {
    let Scene { _directory, root, .. } = scene();
    let (stop, stores) = (AtomicBool::new(false), [(); 3].map(|()| store_at(&root)));
    std::thread::scope(|scope| {
        for (nth, store) in (0u32..).zip(&stores) {
            let stop = &stop;
            scope.spawn(move || {
                for number in (nth * 1_000_000..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                    offer(store, number, 10_000).expect("taken");
                }
            });
        }
        let store = store_at(&root);
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(5));
            store.clear().expect("clears");
        }
        stop.store(true, Ordering::Relaxed);
    });
    drop(stores);
    let entries = disk_bytes(&root);
    let noted = noted_bytes(&root);
    assert!((entries..1 << 40).contains(&noted), "{noted} noted, {entries} in entries");
}

#[test]
fn a_wait_may_be_for_ever() {
    let (_directory, root) = place();
    let mut options = StoreOptions::at(&root);
    options.lock_wait = Duration::MAX;
    let store = Store::open(options).expect("opens");
    assert!(store.exclude_others(&signature(1)).is_some());
}

#[test]
fn a_process_that_only_puts_does_not_open_the_catalogue() {
    let Scene { _directory, root, .. } = scene();
    succeed(start(&[&"use", &root, &"1", &"1"]));
    assert!(!root.join("catalogue").exists());
    assert!(fs::metadata(root.join("journal")).expect("there").len() > 0);
}

#[test]
fn when_the_keeper_is_killed_the_next_takes_over() {
    let Scene { _directory, root, .. } = scene();
    let store = store_at(&root);
    for round in 0..10u64 {
        let mut keeper = start(&[&"keep", &root]);
        wait_until("it keeps", || root.join("catalogue/db").exists());
        succeed(start(&[&"use", &root, &"3", &"1"]));
        std::thread::sleep(Duration::from_millis(7 * round));
        keeper.kill().expect("killed");
        finish(keeper);
        assert_eq!(store.list().expect("lists").len(), 3);
    }
    let stats = store.stats().expect("stats");
    assert_eq!(stats.entries, 3);
    // A fold that was cut off is done again, so counts may be too high, and never too low. Should a kill
    // damage the catalogue, it is begun afresh and says so.
    let rebuilt = stats.reasons.iter().any(|(reason, _)| *reason == Reason::CatalogueRebuilt);
    assert!(stats.puts >= 30 || rebuilt, "{stats:?}");
}

#[test]
fn several_processes_keep_under_the_size() {
    let Scene { _directory, root, .. } = scene();
    let children: Vec<_> =
        (0..4u32).map(|part| start(&[&"fill", &root, &(part * 100).to_string(), &"60"])).collect();
    children.into_iter().for_each(|child| drop(succeed(child)));
    let usage = disk_usage(&root);
    assert!(usage <= 8 << 20, "{usage}");
    let store = store_at(&root);
    let stats = store.stats().expect("stats");
    // Who makes room may be slow on a busy machine. Others do not wait for that long: what they have is not taken.
    assert_eq!((stats.puts + stats.full, stats.entries + stats.evicted), (240, stats.puts), "{stats:?}");
    assert!(stats.entries > 20, "{stats:?}");
    assert!(stats.reasons.iter().all(|(reason, _)| support::HARMLESS.contains(reason)), "{stats:?}");
}

/// What `du` would say, in bytes.
fn disk_usage(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path).expect("there");
    let below = match metadata.is_dir() {
        true => fs::read_dir(path).expect("there").map(|it| disk_usage(&it.expect("there").path())).sum(),
        false => 0,
    };
    below + if metadata.is_dir() { 0 } else { metadata.blocks() * 512 }
}
