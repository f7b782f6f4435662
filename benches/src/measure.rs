//! Contenders take turns; medians of thread CPU time are compared with the first one's.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// As entries have it: one of clang's.
pub(crate) const KEY_DOCUMENT: &[u8] = include_bytes!("../key-document");

/// One way to do a piece of work.
pub(crate) struct Contender<'a> {
    name: String,
    /// Does the work this many times and returns the CPU time that took.
    run: Box<dyn FnMut(usize) -> Duration + 'a>,
}

impl<'a> Contender<'a> {
    /// `work` is timed; dropping what it returns is not.
    pub(crate) fn new<T>(name: impl Into<String>, mut work: impl FnMut(usize) -> T + 'a) -> Self {
        let run = move |count| {
            let mut results = Vec::with_capacity(count);
            let started = thread_time();
            for index in 0..count {
                results.push(work(index));
            }
            thread_time() - started
        };
        Self { name: name.into(), run: Box::new(run) }
    }
}

/// Lets the contenders take turns and prints their medians.
///
/// `batch` runs of one contender are timed together, and all their results live until its turn is over.
/// The ratio is to the first contender, which is ours; `goal` is what it aims at.
pub(crate) fn compare(title: &str, goal: Option<Duration>, batch: usize, mut contenders: Vec<Contender<'_>>) {
    const ROUNDS: usize = 41;
    let mut times = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    for round in 0..ROUNDS + 2 {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let time = (contender.run)(batch) / batch as u32;
            // The first two rounds warm caches, branch predictors and free lists.
            if round >= 2 {
                times.push(time);
            }
        }
    }
    let medians: Vec<_> = times.iter_mut().map(|times| median(times)).collect();
    println!("\n{title}");
    for (contender, median) in contenders.iter().zip(&medians) {
        let ratio = median.as_secs_f64() / medians[0].as_secs_f64();
        println!("  {:<52} {:>10}  {ratio:>8.2}x", contender.name, show(*median));
    }
    if let Some(goal) = goal {
        let ratio = medians[0].as_secs_f64() / goal.as_secs_f64();
        println!("  {:<52} {:>10}  ours is {ratio:.2} of it", "goal", show(goal));
    }
}

pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

pub(crate) fn show(time: Duration) -> String {
    let nanoseconds = time.as_secs_f64() * 1e9;
    match nanoseconds {
        n if n < 10_000.0 => format!("{n:.0} ns"),
        n if n < 10_000_000.0 => format!("{:.1} us", n / 1e3),
        n => format!("{:.1} ms", n / 1e6),
    }
}

pub(crate) fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
