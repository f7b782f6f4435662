//! From an object's bytes to a callable address, and back.

use std::time::{Duration, Instant};

use crate::foreign::call_entry;
use crate::measure::{median, timed, turns};
use crate::peers::{Code, Peer};

/// Nanoseconds of a load and of an unload, if the peer was asked and could.
#[derive(Clone, Copy)]
pub struct Times {
    pub load: f64,
    pub unload: f64,
}

/// Each peer loads the code as often as there is time for, and three times at least.
pub fn compare(peers: &[&dyn Peer], code: &Code) -> Vec<Option<Times>> {
    const MOST: usize = 60;
    const FEWEST: usize = 3;
    const EACH: Duration = Duration::from_secs(4);

    let mut runs: Vec<Run> = peers.iter().map(|_| Run::default()).collect();
    for round in 0..=MOST {
        for number in turns(round, peers.len()) {
            let run = &mut runs[number];
            if run.failed || run.spent > EACH && run.loads.len() >= FEWEST {
                continue;
            }
            let started = Instant::now();
            // The first round warms allocators, free lists and predictors.
            run.once(peers[number], code, round != 0);
            run.spent += started.elapsed();
        }
    }
    agree(peers, &runs);
    runs.iter_mut().map(Run::times).collect()
}

#[derive(Default)]
struct Run {
    loads: Vec<f64>,
    unloads: Vec<f64>,
    spent: Duration,
    result: Option<i64>,
    failed: bool,
}

impl Run {
    fn once(&mut self, peer: &dyn Peer, code: &Code, counts: bool) {
        peer.prepare(1);
        code.touch();
        let (loaded, load) = timed(|| peer.load(code, c"entry"));
        let Some(loaded) = loaded else {
            self.failed = true;
            return;
        };
        if peer.runs() {
            self.result = Some(call_entry(loaded.address, 5));
        }
        let ((), unload) = timed(|| peer.unload(loaded));
        if counts {
            self.loads.push(load);
            self.unloads.push(unload);
        }
    }

    fn times(&mut self) -> Option<Times> {
        Some(Times { load: median(&mut self.loads)?, unload: median(&mut self.unloads)? })
    }
}

/// What was loaded computes the same, whoever loaded it.
fn agree(peers: &[&dyn Peer], runs: &[Run]) {
    let mut results = peers.iter().zip(runs).filter_map(|(peer, run)| Some((peer.name(), run.result?)));
    let Some((first, expected)) = results.next() else { return };
    for (other, result) in results {
        // A program counts its calls in memory that `dlopen` keeps when it is not the first to be asked; all others begin anew.
        assert_eq!(expected, result, "what {first} and {other} loaded gives different results");
    }
}
