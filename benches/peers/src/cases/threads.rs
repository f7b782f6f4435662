//! One thread against two that load at once.

use std::ffi::CString;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::measure::turns;
use crate::peers::{Code, Peer};

/// How many times as fast two threads are as one. Wall-clock time, so the best of many times, which other processes disturbed
/// least.
pub fn compare(peers: &[&dyn Peer], codes: &[Code]) -> Vec<Option<f64>> {
    const ROUNDS: usize = 8;

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

/// Threads load all objects several times, each its share: the shortest time from the first one's start to the last one's end.
fn with_threads(peer: &dyn Peer, codes: &[Code], names: &[CString], threads: usize) -> Duration {
    const TIMES: usize = 10;

    let arrived = AtomicUsize::new(0);
    // Threads that sleep do not wake up at once, so they wait awake, unless another has no processor.
    let wait_for_all = |meeting: usize| {
        arrived.fetch_add(1, Ordering::SeqCst);
        for spun in 0.. {
            if arrived.load(Ordering::SeqCst) >= threads * meeting {
                break;
            }
            if spun % 1000 == 999 {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    };
    let work = |thread: usize| {
        let mut spans = Vec::with_capacity(TIMES);
        let mut loaded = Vec::with_capacity(codes.len());
        for time in 0..TIMES {
            wait_for_all(2 * time + 1);
            let started = Instant::now();
            for (code, name) in codes.iter().zip(names).skip(thread).step_by(threads) {
                loaded.extend(peer.load(code, name));
            }
            spans.push((started, Instant::now()));
            wait_for_all(2 * time + 2);
            loaded.drain(..).for_each(|loaded| peer.unload(loaded));
        }
        spans
    };
    let spans: Vec<Vec<(Instant, Instant)>> = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it loads")).collect()
    });
    let span = |time: usize| {
        let started = spans.iter().map(|spans| spans[time].0).min().expect("a thread");
        let ended = spans.iter().map(|spans| spans[time].1).max().expect("a thread");
        ended - started
    };
    (0..TIMES).map(span).min().expect("it is positive")
}
