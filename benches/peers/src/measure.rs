//! Clocks, medians, and how times are shown.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of CPU time of this thread.
pub fn thread_time() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

/// What `work` gives, and the nanoseconds of CPU time it took, less those of reading the clock.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let started = thread_time();
    let result = work();
    let time = thread_time() - started;
    (result, (time - clock_overhead()).max(0.0))
}

/// The least that two readings of the clock are apart.
fn clock_overhead() -> f64 {
    use std::sync::OnceLock;
    static OVERHEAD: OnceLock<f64> = OnceLock::new();
    *OVERHEAD.get_or_init(|| {
        let apart = || -(thread_time() - thread_time());
        (0..1000).map(|_| apart()).fold(f64::MAX, f64::min)
    })
}

/// The median; `None` of nothing.
pub fn median(times: &mut [f64]) -> Option<f64> {
    times.sort_unstable_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

/// The order in which `count` contenders have their turns in a round: another in each, so that nobody always comes after the
/// same one, whose traces are in the caches. The same in every run.
pub fn turns(round: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    // Knuth's linear congruential generator, and his shuffle.
    let mut random = round as u64;
    for last in (1..count).rev() {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        order.swap(last, (random >> 33) as usize % (last + 1));
    }
    order
}

/// Three digits and a unit.
pub fn show(nanoseconds: f64) -> String {
    let (number, unit) = match nanoseconds {
        n if n < 995.0 => (n / 1e3, "µs"),
        n if n < 995e3 => (n / 1e3, "µs"),
        n if n < 995e6 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    let digits = if number < 9.95 {
        2
    } else if number < 99.5 {
        1
    } else {
        0
    };
    format!("{number:.digits$} {unit}")
}
