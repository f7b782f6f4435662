//! Entry files cut short and written over while others read them: no SIGBUS, since no cache file is ever mapped,
//! and no wrong byte, since what is checked is what is used.
//!
//! Ten seconds; thirty with `OBJCACHE_SOAK=1`.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use objcache_cache::{CompileOnce, Offer, Outcome};
use support::{Random, Span, entry_path, has, object, offer, place, signature, store_at};

const ENTRIES: u32 = 8;
const READERS: u64 = 4;

fn length(number: u32) -> usize {
    // Within a page, over several, and large.
    [900, 5_000, 40_000, 300_000][number as usize % 4]
}

#[test]
fn four_readers_of_files_that_are_cut_and_rewritten() {
    let (_directory, root) = place();
    let store = store_at(&root);
    (0..ENTRIES).for_each(|number| offer(&store, number, length(number)).expect("taken"));
    let whole: Vec<Vec<u8>> =
        (0..ENTRIES).map(|number| std::fs::read(entry_path(&root, number)).expect("there")).collect();
    let seconds = if std::env::var_os("OBJCACHE_SOAK").is_some() { 30 } else { 10 };
    let span = Span::of(Duration::from_secs(seconds));
    let (stop, hits, misses) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut harms = 0;
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (root, stop, hits, misses) = (&root, &stop, &hits, &misses);
            scope.spawn(move || {
                // Of its own, as a process would have.
                let store = store_at(root);
                let mut random = Random::new(reader + 1);
                while !stop.load(Ordering::Relaxed) {
                    let number = random.below(ENTRIES);
                    let compile =
                        || Ok::<_, ()>(Offer { object: object(number, length(number)), ..Offer::default() });
                    let fetched = store.get_or_compile(&signature(number), compile).expect("compiles");
                    assert!(*fetched.object == *object(number, length(number)), "wrong bytes of {number}");
                    let count = if fetched.outcome == Outcome::Hit { hits } else { misses };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut random = Random::new(99);
        let count = |it: &AtomicU64| it.load(Ordering::Relaxed);
        while span.goes_on(|| harms > 500 && count(&hits) > 100 && count(&misses) > 100) {
            let number = random.below(ENTRIES);
            harms += u64::from(harm(&entry_path(&root, number), &whole[number as usize], &mut random));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (hits, misses) = (hits.into_inner(), misses.into_inner());
    eprintln!("{harms} harms, {hits} hits, {misses} misses");
    assert!(harms > 500 && hits > 100 && misses > 100, "{harms} harms, {hits} hits, {misses} misses");
    for number in 0..ENTRIES {
        has(&store, number, length(number));
        offer(&store, number, length(number)).expect("taken");
        assert!(has(&store, number, length(number)));
    }
    assert_eq!(store.degraded(), None);
}

/// In place, as a careless program of the same user would. `false`: the file was not there.
fn harm(path: &Path, whole: &[u8], random: &mut Random) -> bool {
    let Ok(file) = File::options().write(true).open(path) else {
        std::thread::sleep(Duration::from_micros(200));
        return false;
    };
    let at = u64::from(random.below(whole.len() as u32));
    let done = match random.below(6) {
        0 => file.set_len(0),
        1 => file.set_len(at),
        2 => file.write_all_at(&[0xa5; 300], at),
        // Cut and made whole again, as `cp` over it does.
        3 | 4 => file.set_len(at).and_then(|()| file.write_all_at(whole, 0)),
        _ => file.set_len(whole.len() as u64 + 5),
    };
    done.is_ok()
}
