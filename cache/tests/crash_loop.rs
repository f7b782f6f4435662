//! Processes that die while they run an entry's code: after three deaths in a row it is taken out and compiled
//! afresh, whichever cache is asked.

#[path = "support/child.rs"]
mod child;
mod support;

use std::path::Path;

use child::{finish, start};
use objcache_cache::{CacheAdmin, ObjectCache, Reason, Store, StoreOptions, Tiered};
use support::{has, offer, place, signature, store_at};

const LENGTH: usize = 500;

#[test]
fn child() {
    let Some(role) = child::role() else { return };
    let role: Vec<&str> = role.iter().map(String::as_str).collect();
    let store = store_at(Path::new(role[1]));
    let _mark = store.mark_running(&signature(1)).expect("marked");
    match role[0] {
        "die" => std::process::abort(),
        "live" => {}
        _ => panic!("unknown role {role:?}"),
    }
}

fn die(root: &Path) {
    assert!(!finish(start(&[&"die", &root])).status.success());
}

fn is_suspect(cache: &dyn ObjectCache) -> bool {
    cache.mark_running(&signature(1)).expect("marked").is_suspect()
}

#[test]
fn three_deaths_in_a_row_take_an_entry_out() {
    let (_directory, root) = place();
    let store = store_at(&root);
    (1..3).for_each(|number| offer(&store, number, LENGTH).expect("taken"));
    for _ in 0..3 {
        (0..2).for_each(|_| die(&root));
        assert!(has(&store, 1, LENGTH), "it stays");
        // One that lives clears it.
        child::succeed(start(&[&"live", &root]));
    }
    (0..3).for_each(|_| die(&root));
    assert!(has(&store, 1, LENGTH), "nobody has asked");
    assert!(is_suspect(&store));
    assert!(!has(&store, 1, LENGTH) && has(&store, 2, LENGTH));
    assert_eq!(store.reasons(), [(Reason::CrashLoop, 1)]);
    assert_eq!(store.stats().expect("stats").quarantined, 1);
    offer(&store, 1, LENGTH).expect("taken");
    assert!(!is_suspect(&store), "the next one is not to blame");
    assert!(has(&store, 1, LENGTH));
}

#[test]
fn a_tier_of_memory_lets_go_of_it_as_well() {
    let (_directory, root) = place();
    let tier = Tiered::new(store_at(&root), 1 << 20);
    offer(&tier, 1, LENGTH).expect("taken");
    assert!(has(&tier, 1, LENGTH));
    (0..3).for_each(|_| die(&root));
    assert!(is_suspect(&tier));
    assert!(!has(&tier, 1, LENGTH));
}

/// What a layer has cannot be taken out; whoever asks is told, and compiles it into the store, which goes first.
#[test]
fn in_a_layer_it_stays_and_is_suspect() {
    let (_below, layer) = place();
    offer(&store_at(&layer), 1, LENGTH).expect("taken");
    let (_directory, root) = place();
    let mut options = StoreOptions::at(&root);
    options.layers = vec![layer];
    let store = Store::open(options).expect("opens");
    (0..3).for_each(|_| die(&root));
    assert!(is_suspect(&store));
    assert!(has(&store, 1, LENGTH));
}

#[test]
fn a_store_that_is_read_only_keeps_no_count() {
    let (_directory, root) = place();
    offer(&store_at(&root), 1, LENGTH).expect("taken");
    let mut options = StoreOptions::at(&root);
    options.read_only = true;
    let store = Store::open(options).expect("opens");
    assert!(store.mark_running(&signature(1)).is_none());
}
