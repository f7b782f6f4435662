//! The store beside plain files, sled, LMDB and redb, in one run. See the README.

mod calls;
mod children;
mod disk;
mod entries;
mod measure;
mod peers;

use std::fmt::Write as _;
use std::time::Duration;

use entries::{Entry, Key, LARGE, SMALL};
use peers::KINDS;

const ENTRIES: u64 = 3000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == children::CHILD => children::run(rest),
        Some(_) => {
            eprintln!("objcache-stores takes no arguments");
            std::process::exit(2);
        }
        None => compare(),
    }
}

fn compare() {
    let folder = tempfile::tempdir().expect("a folder for stores");
    let folder = folder.path();
    let mut entries: Vec<Entry> = (0..ENTRIES).map(Entry::of).collect();
    let all: Vec<Key> = entries.iter().map(|entry| entry.key).collect();
    let mut of_length = |count: u64, length: usize| -> Vec<Key> {
        let from = entries.len();
        entries.extend((0..count).map(|it| Entry::of_length((length as u64) << 32 | it, length)));
        entries[from..].iter().map(|entry| entry.key).collect()
    };
    let (small, large) = (of_length(100, SMALL), of_length(8, LARGE));
    let payload: usize = entries.iter().map(|entry| entry.value.len()).sum();
    println!("{} values, median 12 KB, {} MB in all", entries.len(), payload >> 20);

    let fresh: Vec<f64> = KINDS.iter().map(|kind| disk::fill(kind, folder, &entries)).collect();
    head("thread CPU time, and peer ÷ objcache");
    {
        let peers: Vec<_> = KINDS.iter().map(|kind| kind.at(folder)).collect();
        for (length, keys, batch) in [(12, &small, 50), (256, &large, 4)] {
            let (bare, checked) = calls::hits(&peers, keys, batch);
            row(&format!("hit of {length} KB, bytes checked"), &times(&checked));
            row(&format!("hit of {length} KB, only ours checked"), &times(&bare));
        }
        row("miss", &times(&calls::misses(&peers)));
    }
    let (held_back, settled) = calls::puts(folder);
    row("put of 12 KB, no `fsync`", &times(&held_back));
    row("the same; sled and redb write what they held back, once in 20", &times(&settled));

    let first = children::first_hits(folder, &small[0]);
    let sum: Vec<Duration> = first.iter().map(|(opening, hit)| *opening + *hit).collect();
    let (opening, hit): (Vec<_>, Vec<_>) = first.into_iter().unzip();
    head("new process, by the clock");
    row("opening", &times(&opening));
    row("first hit of 12 KB, bytes checked", &times(&hit));
    row("both", &times(&sum));

    let scaling = children::two_processes(folder, &all);
    let show = |of: fn(&children::Scaling) -> f64| -> Vec<String> {
        scaling
            .iter()
            .map(|it| it.as_ref().map_or("refused".to_owned(), |it| format!("{:.2}", of(it))))
            .collect()
    };
    head("two processes ÷ one, checked hits");
    row("by the clock, best of 9", &show(|it| it.clock));
    row("by CPU time", &show(|it| it.cpu));

    let usage = disk::churn(folder, entries, &fresh);
    let show = |of: fn(&disk::Usage) -> f64| -> Vec<String> {
        usage.iter().map(|it| format!("{:.2}", of(it))).collect()
    };
    head("disk ÷ payload");
    row("fresh", &show(|it| it.fresh));
    row("after churn", &show(|it| it.after_churn));
    row("after half was removed", &show(|it| it.after_half));
}

fn head(title: &str) {
    let names: String = KINDS.iter().fold(String::new(), |mut line, kind| {
        write!(line, " {} |", kind.name).expect("a string takes it");
        line
    });
    println!("\n| {title} |{names}\n|---|{}", "---:|".repeat(KINDS.len()));
}

fn row(name: &str, cells: &[String]) {
    println!("| {name} | {} |", cells.join(" | "));
}

/// Each with its ratio to the first.
fn times(times: &[Duration]) -> Vec<String> {
    let ours = times[0].as_secs_f64();
    let cell = |(place, time): (usize, &Duration)| match place {
        0 => show(*time),
        _ => format!("{} ({:.2} ×)", show(*time), time.as_secs_f64() / ours),
    };
    times.iter().enumerate().map(cell).collect()
}

fn show(time: Duration) -> String {
    match time.as_secs_f64() * 1e6 {
        us if us < 10.0 => format!("{us:.2} µs"),
        us if us < 10_000.0 => format!("{us:.0} µs"),
        us => format!("{:.1} ms", us / 1e3),
    }
}
