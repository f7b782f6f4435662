//! A strict store tells of all trouble: also of what came up when no call was there to return it.

mod support;

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::time::Duration;

use objcache_cache::{CacheAdmin, CompileOnce, ObjectCache, Offer, Outcome, Reason, Store, StoreOptions};
use support::{has, object, offer, place, signature, store_at};

fn strict(root: &Path) -> Store {
    let mut options = StoreOptions::at(root);
    options.strict = true;
    Store::open(options).expect("opens")
}

/// A store with one entry, whose catalogue must be made anew.
fn damage_the_catalogue(root: &Path) {
    let store = store_at(root);
    offer(&store, 1, 1000).expect("taken");
    store.list().expect("makes the catalogue");
    drop(store);
    fs::write(root.join("catalogue/conf"), [0xa5; 100]).expect("written");
}

#[test]
fn what_befell_the_store_before_is_returned_by_the_next_call_and_once() {
    let (_directory, root) = place();
    damage_the_catalogue(&root);
    let store = strict(&root);
    assert_eq!(store.list().expect("goes without").len(), 1);
    let error = store.get_object(&signature(1)).expect_err("strict");
    assert_eq!(error.reason(), Reason::CatalogueRebuilt);
    assert!(has(&store, 1, 1000));
    assert!(store.untold().take().is_none());
}

#[test]
fn what_no_call_returned_is_there_when_the_store_is_gone() {
    let (_directory, root) = place();
    damage_the_catalogue(&root);
    let store = strict(&root);
    let untold = store.untold();
    store.list().expect("goes without");
    drop(store);
    assert_eq!(untold.take().expect("kept").reason(), Reason::CatalogueRebuilt);
}

#[test]
fn own_errors_are_those_of_the_call() {
    let (_directory, root) = place();
    damage_the_catalogue(&root);
    let mut options = StoreOptions::at(&root);
    options.own_errors = true;
    let store = Store::open(options).expect("opens");
    store.list().expect("goes without");
    assert!(has(&store, 1, 1000), "it has nothing to do with the catalogue");
    fs::write(support::entry_path(&root, 1), "damaged").expect("written");
    store.get_object(&signature(1)).expect_err("its own");
}

#[test]
fn waiting_for_another_is_no_trouble_unless_it_takes_too_long() {
    let (_directory, root) = place();
    let mut options = StoreOptions::at(&root);
    (options.strict, options.lock_wait) = (true, Duration::from_secs(30));
    let together = Barrier::new(2);
    let get = |pause: Duration| {
        let store = Store::open(options.clone()).expect("opens");
        together.wait();
        let compile = || {
            std::thread::sleep(pause);
            Ok::<_, ()>(Offer { object: object(1, 1000), ..Offer::default() })
        };
        let fetched = store.get_or_compile(&signature(1), compile).expect("nothing is wrong");
        (fetched.outcome, store.untold().take().is_none())
    };
    let pause = Duration::from_millis(300);
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| get(pause));
        (get(pause), other.join().expect("ends"))
    });
    let mut outcomes = [one, other].map(|(outcome, fine)| (outcome == Outcome::Hit, fine));
    outcomes.sort();
    assert_eq!(outcomes, [(false, true), (true, true)]);

    options.lock_wait = Duration::from_millis(50);
    let [holder, waiter] = [(); 2].map(|()| Store::open(options.clone()).expect("opens"));
    let _permit = holder.exclude_others(&signature(2)).expect("free");
    let compile = || Ok::<_, ()>(Offer { object: object(2, 1000), ..Offer::default() });
    let error = waiter.get_or_compile(&signature(2), compile).expect_err("the other hangs");
    let objcache_cache::GetOrCompileError::Cache(error) = error else { panic!("it compiles") };
    assert_eq!(error.reason(), Reason::LockTimeout);
}

#[test]
fn a_directory_deleted_underneath_is_an_error() {
    let (_directory, root) = place();
    let store = strict(&root);
    offer(&store, 1, 1000).expect("taken");
    fs::remove_dir_all(&root).expect("there");
    assert_eq!(offer(&store, 2, 1000).expect_err("gone").reason(), Reason::DirectoryGone);
    let untold = store.untold();
    drop(store);
    assert!(untold.take().is_none_or(|error| error.reason() == Reason::DirectoryGone));
}

/// What the bound takes out is what it is for.
#[test]
fn a_miss_and_an_eviction_are_no_trouble() {
    let (_directory, root) = place();
    let mut options = StoreOptions::at(&root);
    (options.strict, options.max_entries) = (true, Some(4));
    let store = Store::open(options).expect("opens");
    assert!(!has(&store, 99, 1000));
    (0..20).for_each(|number| offer(&store, number, 1000).expect("room is made"));
    store.settle();
    let untold = store.untold();
    drop(store);
    assert!(untold.take().is_none());
}
