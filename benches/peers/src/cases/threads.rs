//! One thread against two that load at once.

use std::ffi::CString;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::measure::turns;
use crate::peers::{Code, Peer};

/// How many times as fast two threads are as one. Wall-clock time, so the best of many rounds, which other processes
/// disturbed least.
pub fn compare(peers: &[&dyn Peer], codes: &[Code]) -> Vec<Option<f64>> {
    const ROUNDS: usize = 25;
    let names: Vec<CString> =
        (0..codes.len()).map(|k| CString::new(format!("k{k}")).expect("no NUL")).collect();
    let mut best = vec![[Duration::MAX; 2]; peers.len()];
    for round in 0..ROUNDS {
        for number in turns(round, peers.len()).into_iter().filter(|number| peers[*number].is_for_threads()) {
            for threads in [1, 2] {
                let time = with_threads(peers[number], codes, &names, threads);
                let best = &mut best[number][threads - 1];
                *best = time.min(*best);
            }
        }
    }
    let ratio =
        |[one, two]: &[Duration; 2]| (*one != Duration::MAX).then(|| one.as_secs_f64() / two.as_secs_f64());
    best.iter().map(ratio).collect()
}

/// Threads take one object after the other until all are loaded.
fn with_threads(peer: &dyn Peer, codes: &[Code], names: &[CString], threads: usize) -> Duration {
    let (next, start) = (AtomicUsize::new(0), Barrier::new(threads + 1));
    let work = || {
        let mut loaded = Vec::with_capacity(codes.len());
        start.wait();
        let started = Instant::now();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(code) = codes.get(number) else { break };
            loaded.extend(peer.load(code, &names[number]));
        }
        (started, Instant::now(), loaded)
    };
    let ends: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        start.wait();
        threads.into_iter().map(|thread| thread.join().expect("it loads")).collect()
    });
    let started = ends.iter().map(|(started, ..)| *started).min().expect("a thread");
    let ended = ends.iter().map(|(_, ended, _)| *ended).max().expect("a thread");
    for (.., loaded) in ends {
        loaded.into_iter().for_each(|loaded| peer.unload(loaded));
    }
    ended - started
}
