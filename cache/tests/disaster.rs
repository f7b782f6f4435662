//! Random damage to every file of a store: bits flipped, files cut short, made longer, spliced, swapped, deleted.
//! Nothing wrong is served, nobody gets an error, and afterwards all is whole again.
//!
//! 1,000 times; 100,000 with `OBJCACHE_SOAK=1`.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use objcache_cache::{CacheAdmin, CompileOnce, Offer, Outcome, Store, StoreOptions};
use support::{Random, has, object, offer, place, signature, store_at};

const ENTRIES: u32 = 12;

fn length(number: u32) -> usize {
    number as usize * 977 % 9_000
}

/// Files of a store by what they are.
#[derive(Default)]
struct Files {
    entries: Vec<PathBuf>,
    journal: Vec<PathBuf>,
    catalogue: Vec<PathBuf>,
}

impl Files {
    fn of(root: &Path) -> Self {
        let mut files = Self::default();
        for path in all_files(root) {
            let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
            match name.split('/').next().expect("a name") {
                fan if fan.len() == 2 => files.entries.push(path),
                "catalogue" => files.catalogue.push(path),
                first if first.starts_with("journal") || first == "misses" || first == "keeper" => {
                    files.journal.push(path);
                }
                // The format, which is refused when it is not ours, and what nobody reads.
                _ => {}
            }
        }
        files
    }

    /// Entries mostly; the catalogue takes ten times as long to look at.
    fn some<'a>(&'a self, random: &mut Random) -> Option<&'a Path> {
        let kind = match random.below(20) {
            0 => &self.catalogue,
            1..4 => &self.journal,
            _ => &self.entries,
        };
        let count = u32::try_from(kind.len()).expect("few");
        (count > 0).then(|| &*kind[random.below(count) as usize])
    }
}

fn all_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("there") {
        let path = entry.expect("listed").path();
        match path.is_dir() {
            true => files.extend(all_files(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

/// Returns what was done.
fn harm(files: &Files, random: &mut Random) -> String {
    let (Some(file), Some(other)) = (files.some(random), files.some(random)) else { return String::new() };
    let mut bytes = fs::read(file).expect("there");
    let at = |random: &mut Random, length: usize| random.below(length as u32 + 1) as usize;
    let what = match random.below(8) {
        0..3 if !bytes.is_empty() => {
            for _ in 0..=random.below(4) {
                let at = at(random, bytes.len() - 1);
                bytes[at] ^= 1 << random.below(8);
            }
            "flipped"
        }
        3 => {
            let length = at(random, bytes.len());
            bytes.truncate(length);
            "cut"
        }
        4 => {
            let more = at(random, 5000);
            bytes.resize(bytes.len() + more, random.below(256) as u8);
            "longer"
        }
        5 => {
            // A piece of another file in the place of a piece of this one.
            let from = fs::read(other).expect("there");
            let (begin, to) = (at(random, from.len()), at(random, bytes.len()));
            let piece = &from[begin..(begin + at(random, 4096)).min(from.len())];
            let end = (to + piece.len()).min(bytes.len());
            bytes.splice(to..end, piece.iter().copied());
            "spliced"
        }
        6 => {
            let swapped = fs::read(other).expect("there");
            fs::write(other, &bytes).expect("written");
            bytes = swapped;
            "swapped"
        }
        _ => {
            fs::remove_file(file).expect("there");
            return format!("deleted {}", file.display());
        }
    };
    fs::write(file, bytes).expect("written");
    format!("{what} {} (and {})", file.display(), other.display())
}

/// What an engine does. Returns how many were compiled.
fn ask_for_all(what: &str, store: &Store) -> u32 {
    let get = |number| {
        let compile = || Ok::<_, ()>(Offer { object: object(number, length(number)), ..Offer::default() });
        let fetched = store.get_or_compile(&signature(number), compile).expect("compiles");
        assert!(*fetched.object == *object(number, length(number)), "{what}: wrong bytes of {number}");
        u32::from(fetched.outcome == Outcome::Miss)
    };
    (0..ENTRIES).map(get).sum()
}

#[test]
fn random_damage_to_all_files() {
    let soak = std::env::var_os("OBJCACHE_SOAK").is_some();
    let threads: u64 = 2;
    let rounds = if soak { 100_000 } else { 1_000 } / threads;
    std::thread::scope(|scope| {
        (0..threads).for_each(|seed| {
            scope.spawn(move || suffer(seed + 1, rounds));
        });
    });
}

fn suffer(seed: u64, rounds: u64) {
    let (_directory, root) = place();
    let mut random = Random::new(seed);
    let store = store_at(&root);
    (0..ENTRIES).for_each(|number| offer(&store, number, length(number)).expect("taken"));
    store.list().expect("makes the catalogue");
    drop(store);
    let mut compiled = 0;
    for round in 0..rounds {
        let what = format!("round {round} of seed {seed}: {}", harm(&Files::of(&root), &mut random));
        let store = Store::open_or_degrade(StoreOptions::at(&root));
        assert_eq!(store.degraded(), None, "{what}");
        compiled += ask_for_all(&what, &store);
        assert_eq!(ask_for_all(&what, &store), 0, "{what}: not healed");
        if what.contains("/catalogue/") || what.contains("/journal") || round % 50 == 0 {
            let listed = store.list().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(listed.len(), ENTRIES as usize, "{what}");
            store.stats().unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        (0..ENTRIES).for_each(|number| assert!(has(&store, number, length(number)), "{what}"));
    }
    eprintln!("{rounds} times, {compiled} compiled afresh");
    assert!(u64::from(compiled) > rounds / 2, "only {compiled} of {rounds} were damaged");
}
