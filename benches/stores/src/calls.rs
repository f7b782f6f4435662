//! Hits, misses and puts in one process, taking turns.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use crate::children::{checked, hit};
use crate::entries::{Entry, Key, SMALL, absent};
use crate::measure::{Contender, ROUNDS, WARM_UP, turns};
use crate::peers::{KINDS, Peer};

type Peers = Vec<Box<dyn Peer>>;

/// Without a check, and with BLAKE3 of the value, of each peer. Ours checks always.
pub(crate) fn hits(peers: &Peers, keys: &[Key], batch: usize) -> (Vec<Duration>, Vec<Duration>) {
    let mut contenders: Vec<Contender<'_>> = Vec::new();
    for (peer, kind) in peers.iter().zip(&KINDS) {
        contenders.push(Box::new(|index| {
            let found = peer.get(&keys[index % keys.len()], &mut |value| {
                black_box(value);
            });
            assert!(found, "{} has lost a value", kind.name);
        }));
        contenders.push(Box::new(|index| hit(&**peer, &keys[index % keys.len()], kind)));
    }
    let times = turns(batch, contenders);
    let every_second = |from: usize| times.iter().copied().skip(from).step_by(2).collect();
    (every_second(0), every_second(1))
}

pub(crate) fn misses(peers: &Peers) -> Vec<Duration> {
    let keys: Vec<Key> = (0..4096).map(absent).collect();
    let keys = &keys;
    let miss = move |peer: &dyn Peer, index: usize| {
        assert!(!peer.get(&keys[index % keys.len()], &mut |_| ()), "found what is not there");
    };
    let contender = |peer| -> Contender<'_> { Box::new(move |index| miss(peer, index)) };
    turns(200, peers.iter().map(|peer| contender(&**peer)).collect())
}

/// As `put` leaves them, and with what a store needs to write what it held back, once a batch.
pub(crate) fn puts(folder: &Path) -> (Vec<Duration>, Vec<Duration>) {
    const BATCH: usize = 20;
    let entries: Vec<Entry> =
        (0..(BATCH * (ROUNDS + WARM_UP)) as u64).map(|it| Entry::of_length(1 << 40 | it, SMALL)).collect();
    // Nobody starts with an empty tree, or lacks a folder.
    let before: Vec<Entry> = (0..2000).map(|it| Entry::of_length(2 << 40 | it, 1 << 10)).collect();
    let run = |folder: &Path, settled: bool| {
        std::fs::create_dir(folder).expect("a folder");
        let peers: Peers = KINDS.iter().map(|kind| kind.at(folder)).collect();
        for peer in &peers {
            before.iter().for_each(|it| peer.put(&it.key, &it.value));
            peer.settle();
        }
        let mut contenders: Vec<Contender<'_>> = Vec::new();
        for (peer, kind) in peers.iter().zip(&KINDS) {
            contenders.push(Box::new(|index| {
                let entry = &entries[index];
                peer.put(&entry.key, &entry.value);
                if settled && kind.holds_back && (index + 1).is_multiple_of(BATCH) {
                    peer.settle();
                }
            }));
        }
        let times = turns(BATCH, contenders);
        for peer in &peers {
            entries[..BATCH * ROUNDS].iter().for_each(|it| checked(&**peer, &it.key));
        }
        times
    };
    (run(&folder.join("put"), false), run(&folder.join("settled"), true))
}
