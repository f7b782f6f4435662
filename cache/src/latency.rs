//! How long look-ups take, in buckets.

use std::time::Duration;

/// How many buckets there are.
pub(crate) const BUCKETS: usize = 24;
/// The bound of the first bucket is 2 to the power of this, in nanoseconds: 256 ns.
const FIRST_POWER: u32 = 8;

/// Times in buckets whose bounds are powers of two: 256 ns, 512 ns, … 1.07 s, and all that took longer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latencies {
    counts: [u64; BUCKETS],
    total_ns: u64,
}

impl Latencies {
    /// The bucket of a time.
    pub(crate) fn bucket_of(nanoseconds: u64) -> u8 {
        // `n - 1`, so that a bound belongs to the bucket below it.
        let power = u64::BITS - nanoseconds.saturating_sub(1).leading_zeros();
        power.saturating_sub(FIRST_POWER).min(BUCKETS as u32 - 1) as u8
    }

    pub(crate) fn add(&mut self, bucket: u8, count: u64) {
        if let Some(counted) = self.counts.get_mut(usize::from(bucket)) {
            *counted = counted.saturating_add(count);
        }
    }

    pub(crate) fn add_time(&mut self, nanoseconds: u64) {
        self.total_ns = self.total_ns.saturating_add(nanoseconds);
    }

    /// The buckets: their upper bounds (`None`: all that took longer), and how many times are in them.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bound = |bucket: usize| {
            (bucket + 1 < BUCKETS).then(|| Duration::from_nanos(1 << (bucket as u32 + FIRST_POWER)))
        };
        self.counts.into_iter().enumerate().map(move |(bucket, count)| (bound(bucket), count))
    }

    /// How many times there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// All of them together.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns)
    }

    /// The bound of the bucket below which this part of all times lies: 0.5 for the median. `None` when there are no times,
    /// or when the bound is that of the last bucket.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * part).ceil().max(1.0);
        let mut below = 0.0;
        let bucket = self.buckets().find(|(_, count)| {
            below += *count as f64;
            below >= wanted
        });
        bucket?.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let bounds: Vec<_> = Latencies::default().buckets().map(|(bound, _)| bound).collect();
        assert_eq!(
            (bounds.len(), bounds[0], bounds[BUCKETS - 1]),
            (BUCKETS, Some(Duration::from_nanos(256)), None)
        );
        for (bucket, bound) in bounds.iter().enumerate() {
            let Some(bound) = bound else { continue };
            let nanoseconds = bound.as_nanos() as u64;
            assert_eq!(usize::from(Latencies::bucket_of(nanoseconds)), bucket);
            assert_eq!(usize::from(Latencies::bucket_of(nanoseconds + 1)), bucket + 1);
        }
        assert_eq!((Latencies::bucket_of(0), Latencies::bucket_of(u64::MAX)), (0, BUCKETS as u8 - 1));
    }

    #[test]
    fn quantiles_are_bounds() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), None);
        latencies.add(2, 98);
        latencies.add(5, 1);
        latencies.add(200, 7);
        latencies.add(BUCKETS as u8 - 1, 1);
        assert_eq!(latencies.count(), 100);
        assert_eq!(latencies.quantile(0.5), Some(Duration::from_nanos(1024)));
        assert_eq!(latencies.quantile(0.99), Some(Duration::from_nanos(8192)));
        assert_eq!(latencies.quantile(1.0), None);
    }
}
