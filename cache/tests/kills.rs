//! Processes that put, replace, remove, look up, list and collect at once, and are killed at random times, again
//! and again. A model knows what each was acknowledged: no entry is lost, none comes back that was removed,
//! nothing wrong is served, nothing is left behind.
//!
//! 500 kills; 10,000 with `OBJCACHE_SOAK=1`.

#[path = "support/child.rs"]
mod child;
#[path = "support/model.rs"]
mod model;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use child::{finish, start};
use model::{Known, Model};
use objcache_cache::{CacheAdmin, Fault, GcLimits, Reason, Store, VerifyOptions};
use support::{Random, has, offer, place, signature, store_at};

/// Processes at once. Each has numbers of its own to put and remove, and looks up those of all.
const PROCESSES: u32 = 6;
const NUMBERS: u32 = 40;
/// So many kills between two looks at everything.
const ROUND: u32 = 50;

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    let ["mix", root, slot, seed] = role[..] else { panic!("unknown role {role:?}") };
    let number = |word: &str| word.parse::<u32>().expect("a number");
    mix(Path::new(root), number(slot), number(seed));
}

/// Says what it is about to do, and then that it did.
fn mix(root: &Path, slot: u32, seed: u32) {
    child::begin();
    let begun = Instant::now();
    let store = store_at(root);
    has(&store, slot * NUMBERS, length(slot * NUMBERS));
    println!("\nopened {}", begun.elapsed().as_micros());
    let mut random = Random::new(u64::from(seed));
    loop {
        let number = slot * NUMBERS + random.below(NUMBERS);
        match random.below(100) {
            0..40 => {
                println!("put {number}");
                offer(&store, number, length(number)).expect("taken");
                println!("done {number}");
            }
            40..55 => {
                println!("remove {number}");
                store.remove(&signature(number)).expect("removed");
                println!("done {number}");
            }
            55..97 => {
                let any = random.below(PROCESSES * NUMBERS);
                has(&store, any, length(any));
            }
            97 => {
                assert_eq!(store.verify(VerifyOptions::default(), &mut |_| ()).expect("verifies").damaged, [])
            }
            98 => drop(store.list().expect("lists")),
            _ => {
                let limits = GcLimits { max_size: Some(u64::MAX), ..GcLimits::default() };
                store.collect_garbage(&limits, false).expect("collects");
            }
        }
        assert_eq!(store.degraded(), None, "nothing here is a reason to do less");
    }
}

fn length(number: u32) -> usize {
    (number as usize * 7919) % 20_000
}

fn check(model: &Model, store: &Store, numbers: impl Iterator<Item = u32>) {
    for number in numbers {
        let found = has(store, number, length(number));
        match model.numbers.get(&number) {
            Some(Known::There) => assert!(found, "lost {number}"),
            Some(Known::Gone) | None => assert!(!found, "{number} came back"),
            Some(Known::Either) => {}
        }
    }
}

fn kills() -> u32 {
    if std::env::var_os("OBJCACHE_SOAK").is_some() { 10_000 } else { 500 }
}

#[test]
fn random_kills_of_a_mix_of_processes() {
    let (_directory, root) = place();
    let (mut model, mut random, mut seed) = (Model::default(), Random::new(11), 0);
    let mut begin = |slot: u32| -> Child {
        seed += 1;
        start(&[&"mix", &root, &slot.to_string(), &seed.to_string()])
    };
    let mut children: BTreeMap<u32, Child> = (0..PROCESSES).map(|slot| (slot, begin(slot))).collect();
    let store = store_at(&root);
    let mut killed = 0;
    // More where the machine is too busy for them to get far; there is an end to that.
    while killed < kills() || model.acknowledged <= u64::from(kills()) && killed < 10 * kills() {
        killed += 1;
        let slot = random.below(PROCESSES);
        children.get_mut(&slot).into_iter().for_each(child::wait_until_begun);
        std::thread::sleep(Duration::from_millis(2 + u64::from(random.below(30))));
        children.remove(&slot).into_iter().for_each(|child| end_by_force(child, &mut model));
        check(&model, &store, slot * NUMBERS..(slot + 1) * NUMBERS);
        children.insert(slot, begin(slot));
        if killed % ROUND == 0 {
            std::mem::take(&mut children).into_values().for_each(|child| end_by_force(child, &mut model));
            check_all(&root, &model);
            children = (0..PROCESSES).map(|slot| (slot, begin(slot))).collect();
        }
    }
    children.into_values().for_each(|child| end_by_force(child, &mut model));
    drop(store);
    check_all(&root, &model);
    assert!(model.acknowledged > u64::from(kills()), "only {} acknowledged", model.acknowledged);
    let Model { acknowledged, slowest_start_us, .. } = model;
    eprintln!("{killed} kills, {acknowledged} acknowledged, slowest start {slowest_start_us} µs");
}

/// It must have been well until now.
fn end_by_force(mut child: Child, model: &mut Model) {
    let ended = child.try_wait().expect("runs");
    let _ = child.kill();
    let output = finish(child);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(ended.is_none(), "{ended:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    model.take(&said);
}

/// With nobody else there.
fn check_all(root: &Path, model: &Model) {
    let store = store_at(root);
    check(model, &store, 0..PROCESSES * NUMBERS);
    offer(&store, 1_000_000, 100).expect("taken");
    // Tidying, if it was due, writes files too.
    store.settle();
    for subdirectory in ["tmp", "locks"] {
        assert_eq!(fs::read_dir(root.join(subdirectory)).expect("there").count(), 0, "{subdirectory}");
    }
    store.remove(&signature(1_000_000)).expect("removed");
    let report = store.verify(VerifyOptions::default(), &mut |_| ()).expect("verifies");
    assert_eq!(report.damaged, []);
    let stats = store.stats().expect("looks");
    let harmless = [Reason::CatalogueRebuilt, Reason::CatalogueBusy, Reason::LockTimeout];
    assert!(stats.reasons.iter().all(|(reason, _)| harmless.contains(reason)), "{stats:?}");
    assert_eq!(stats.quarantined, 0);
    store.list().expect("lists");
    // A list goes by the numbers of files. Who was killed before it noted an entry that got the number of the one it
    // replaced has left that one's record: nothing else may be wrong, and it is mended.
    for finding in store.fsck(true, &mut |_| ()).expect("looks").findings {
        let hex = finding.path.file_name().expect("a name").to_string_lossy().into_owned();
        let is_replaced =
            finding.fault == Fault::StaleRecord && root.join(&hex[..2]).join(&hex[2..]).exists();
        assert!(is_replaced && finding.mended, "{finding:?}");
    }
    assert_eq!(store.fsck(false, &mut |_| ()).expect("looks").findings, []);
}
