//! What a process has counted and not yet written down.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::admin::CacheStats;
use crate::error::Reason;
use crate::latency::BUCKETS;

const FIRST_REASON: u8 = 16;
const FIRST_HIT_LATENCY: u8 = 160;
const FIRST_MISS_LATENCY: u8 = FIRST_HIT_LATENCY + BUCKETS as u8;
const END: u8 = FIRST_MISS_LATENCY + BUCKETS as u8;
const COUNT: usize = END as usize;

/// Something that is counted over the life of a store. The numbers are written to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Counter {
    Hits,
    Misses,
    Puts,
    PutBytes,
    Quarantined,
    Evicted,
    SavedCompileTimeUs,
    Declined,
    Full,
    Failures,
    FailureHits,
    HitTimeNs,
    MissTimeNs,
    PutTimeNs,
    Reason(Reason),
    /// Hits that took as long as this bucket of [`Latencies`] says.
    HitLatency(u8),
    /// Misses that did.
    MissLatency(u8),
}

impl Counter {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Hits => 0,
            Self::Misses => 1,
            Self::Puts => 2,
            Self::PutBytes => 3,
            Self::Quarantined => 4,
            Self::Evicted => 5,
            Self::SavedCompileTimeUs => 6,
            Self::Declined => 7,
            Self::Full => 8,
            Self::Failures => 9,
            Self::FailureHits => 10,
            Self::HitTimeNs => 11,
            Self::MissTimeNs => 12,
            Self::PutTimeNs => 13,
            Self::Reason(reason) => FIRST_REASON + reason as u8,
            Self::HitLatency(bucket) => FIRST_HIT_LATENCY + bucket,
            Self::MissLatency(bucket) => FIRST_MISS_LATENCY + bucket,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Hits,
            1 => Self::Misses,
            2 => Self::Puts,
            3 => Self::PutBytes,
            4 => Self::Quarantined,
            5 => Self::Evicted,
            6 => Self::SavedCompileTimeUs,
            7 => Self::Declined,
            8 => Self::Full,
            9 => Self::Failures,
            10 => Self::FailureHits,
            11 => Self::HitTimeNs,
            12 => Self::MissTimeNs,
            13 => Self::PutTimeNs,
            FIRST_HIT_LATENCY..FIRST_MISS_LATENCY => Self::HitLatency(number - FIRST_HIT_LATENCY),
            FIRST_MISS_LATENCY..END => Self::MissLatency(number - FIRST_MISS_LATENCY),
            _ => {
                let index = number.checked_sub(FIRST_REASON)?;
                Self::Reason(*Reason::ALL.get(usize::from(index))?)
            }
        })
    }

    /// Adds `by` to the figure that this counter is reported as.
    pub(crate) fn add_to(self, stats: &mut CacheStats, by: u64) {
        let figure = match self {
            Self::Hits => &mut stats.hits,
            Self::Misses => &mut stats.misses,
            Self::Puts => &mut stats.puts,
            Self::PutBytes => &mut stats.put_bytes,
            Self::Quarantined => &mut stats.quarantined,
            Self::Evicted => &mut stats.evicted,
            Self::SavedCompileTimeUs => &mut stats.saved_compile_time_us,
            Self::Declined => &mut stats.declined,
            Self::Full => &mut stats.full,
            Self::Failures => &mut stats.failures,
            Self::FailureHits => &mut stats.failure_hits,
            Self::HitTimeNs => return stats.hit_latency.add_time(by),
            Self::MissTimeNs => return stats.miss_latency.add_time(by),
            Self::HitLatency(bucket) => return stats.hit_latency.add(bucket, by),
            Self::MissLatency(bucket) => return stats.miss_latency.add(bucket, by),
            Self::PutTimeNs => {
                stats.put_time = stats.put_time.saturating_add(Duration::from_nanos(by));
                return;
            }
            Self::Reason(reason) => {
                let at = stats.reasons.binary_search_by_key(&reason, |(reason, _)| *reason);
                let at = at.unwrap_or_else(|at| {
                    stats.reasons.insert(at, (reason, 0));
                    at
                });
                &mut stats.reasons[at].1
            }
        };
        *figure = figure.saturating_add(by);
    }
}

pub(crate) struct Counters([AtomicU64; COUNT]);

impl Default for Counters {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counters {
    pub(crate) fn add(&self, counter: Counter, by: u64) {
        if by != 0 {
            self.0[usize::from(counter.number())].fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Takes out what was counted since the last time.
    pub(crate) fn take(&self) -> Vec<(Counter, u64)> {
        let counters = (0u8..).zip(&self.0).filter_map(|(number, count)| {
            let count = count.swap(0, Ordering::Relaxed);
            Counter::from_number(number).filter(|_| count != 0).map(|counter| (counter, count))
        });
        counters.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_number_of_its_own() {
        let known: Vec<Counter> = (0..=255).filter_map(Counter::from_number).collect();
        assert_eq!(known.len(), 14 + Reason::ALL.len() + 2 * BUCKETS);
        assert!(known.iter().all(|c| Counter::from_number(c.number()) == Some(*c)));
        assert!(known.iter().all(|c| usize::from(c.number()) < COUNT));
    }

    #[test]
    fn what_is_taken_is_gone() {
        let counters = Counters::default();
        counters.add(Counter::Hits, 2);
        counters.add(Counter::Reason(Reason::Io), 3);
        assert_eq!(counters.take(), [(Counter::Hits, 2), (Counter::Reason(Reason::Io), 3)]);
        assert_eq!(counters.take(), []);
    }
}
