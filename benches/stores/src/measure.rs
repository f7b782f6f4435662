//! Contenders take turns; medians of thread CPU time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

pub(crate) const ROUNDS: usize = 41;
/// Rounds before, which fill caches and free lists.
pub(crate) const WARM_UP: usize = 2;

/// One way to do a piece of work, told how many have been done before.
pub(crate) type Contender<'a> = Box<dyn FnMut(usize) + 'a>;

/// The median of what one piece of work takes each contender, `batch` pieces to a turn.
pub(crate) fn turns(batch: usize, mut contenders: Vec<Contender<'_>>) -> Vec<Duration> {
    let count = contenders.len();
    let mut times = vec![Vec::with_capacity(ROUNDS); count];
    for round in 0..ROUNDS + WARM_UP {
        // Each has each of the others before it in some round.
        let step = if round % 2 == 0 { 1 } else { count - 1 };
        for place in 0..count {
            let chosen = (round + place * step) % count;
            let started = thread_time();
            (round * batch..(round + 1) * batch).for_each(&mut contenders[chosen]);
            let time = (thread_time() - started) / batch as u32;
            if round >= WARM_UP {
                times[chosen].push(time);
            }
        }
    }
    times.iter_mut().map(|times| median(times)).collect()
}

pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

pub(crate) fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
