//! Which entries go first, as a pure function of what is known of them.
//!
//! The worth of keeping an entry is *compile cost × use × recency ÷ size*, after GreedyDual-Size-Frequency:
//! what a hit saves, how likely it is, and what room it costs. Recency halves the worth every [`HALF_LIFE`].
//! Dearest to keep and cheapest to make again go first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::admin::{self, EntryInfo, GcLimits};

/// In this time an entry that is not used loses half its worth.
const HALF_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// An entry whose cost nobody measured is taken to have cost this much.
const UNKNOWN_COST_US: u64 = 1_000;

/// The indices of the entries to remove so that `limits` hold at `now_unix_us`, in order of removal.
///
/// Expired entries go first, whatever they are worth. Pinned entries never go, even when the limit cannot be
/// held then. O(n) to look at all, O(log n) per victim.
pub(crate) fn victims(entries: &[EntryInfo], limits: &GcLimits, now_unix_us: u64) -> Vec<usize> {
    let mut total = admin::total(entries.iter().map(|entry| entry.disk_bytes));
    let evictable = || entries.iter().enumerate().filter(|(_, entry)| !entry.pinned);

    let expired = |entry: &EntryInfo| limits.max_age.is_some_and(|max| age(entry, now_unix_us) > max);
    let mut victims: Vec<usize> =
        evictable().filter(|(_, entry)| expired(entry)).map(|(index, _)| index).collect();
    victims.sort_unstable_by_key(|&index| entries[index].last_used_unix_us);
    for &index in &victims {
        total = total.saturating_sub(entries[index].disk_bytes);
    }

    let Some(max_size) = limits.max_size.filter(|max| total > *max) else { return victims };
    let mut heap: BinaryHeap<Reverse<(Worth, usize)>> = evictable()
        .filter(|(_, entry)| !expired(entry))
        .map(|(index, entry)| Reverse((Worth::of(entry, now_unix_us), index)))
        .collect();
    while total > max_size {
        let Some(Reverse((_, index))) = heap.pop() else { break };
        total = total.saturating_sub(entries[index].disk_bytes);
        victims.push(index);
    }
    victims
}

fn age(entry: &EntryInfo, now_unix_us: u64) -> Duration {
    // A clock that went back must not make everything look old.
    Duration::from_micros(now_unix_us.saturating_sub(entry.last_used_unix_us))
}

/// The worth as a logarithm, so that no product overflows and no quotient loses its small end.
#[derive(PartialEq)]
struct Worth(f64);

impl Worth {
    fn of(entry: &EntryInfo, now_unix_us: u64) -> Self {
        let cost = if entry.compile_time_us == 0 { UNKNOWN_COST_US } else { entry.compile_time_us } as f64;
        let uses = entry.hits.saturating_add(1) as f64;
        let size = entry.disk_bytes.max(1) as f64;
        let half_lives = age(entry, now_unix_us).as_secs_f64() / HALF_LIFE.as_secs_f64();
        Self(cost.log2() + uses.log2() - size.log2() - half_lives)
    }
}

impl Eq for Worth {}

impl Ord for Worth {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Worth {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use objcache_signature::Signature;
    use proptest::prelude::*;

    use super::*;

    const DAY_US: u64 = 24 * 3600 * 1_000_000;
    const NOW: u64 = 1_000 * DAY_US;

    fn entry(disk_bytes: u64, compile_time_us: u64, days_unused: u64) -> EntryInfo {
        EntryInfo {
            signature: Signature::from_bytes([0; 32]),
            object_bytes: disk_bytes,
            disk_bytes,
            created_unix_us: 0,
            last_used_unix_us: NOW - days_unused * DAY_US,
            hits: 0,
            compile_time_us,
            namespace: String::new(),
            pinned: false,
        }
    }

    fn size(max: u64) -> GcLimits {
        GcLimits { max_size: Some(max), max_age: None }
    }

    #[test]
    fn nothing_goes_while_it_fits() {
        assert_eq!(victims(&[entry(10, 1, 0), entry(10, 1, 0)], &size(20), NOW), []);
        assert_eq!(victims(&[entry(10, 1, 0), entry(10, 1, 1)], &size(19), NOW), [1]);
        assert_eq!(victims(&[], &size(0), NOW), []);
    }

    #[test]
    fn the_least_worth_goes_first() {
        let old_first = [entry(10, 5, 3), entry(10, 5, 9), entry(10, 5, 6)];
        assert_eq!(victims(&old_first, &size(10), NOW), [1, 2]);
        let cheap_first = [entry(10, 9_000_000, 3), entry(10, 5_000, 3)];
        assert_eq!(victims(&cheap_first, &size(10), NOW), [1]);
        let large_first = [entry(10, 5, 3), entry(90, 5, 3)];
        assert_eq!(victims(&large_first, &size(50), NOW), [1]);
        let mut unused_first = [entry(10, 5, 3), entry(10, 5, 3)];
        unused_first[0].hits = 7;
        assert_eq!(victims(&unused_first, &size(10), NOW), [1]);
    }

    #[test]
    fn a_week_is_worth_a_factor_of_two() {
        assert_eq!(victims(&[entry(10, 10_000, 7), entry(10, 5_100, 0)], &size(10), NOW), [0]);
        assert_eq!(victims(&[entry(10, 10_000, 7), entry(10, 4_900, 0)], &size(10), NOW), [1]);
    }

    #[test]
    fn expired_ones_go_whatever_they_are_worth_and_pinned_ones_never() {
        let limits = GcLimits { max_size: None, max_age: Some(Duration::from_secs(5 * 24 * 3600)) };
        let mut entries = [entry(10, u64::MAX, 6), entry(10, 1, 5), entry(10, 1, 9)];
        assert_eq!(victims(&entries, &limits, NOW), [2, 0]);
        entries[2].pinned = true;
        assert_eq!(victims(&entries, &limits, NOW), [0]);
        assert_eq!(victims(&entries, &GcLimits { max_size: Some(0), max_age: None }, NOW), [1, 0]);
    }

    #[test]
    fn a_clock_that_went_back_expires_nothing() {
        let limits = GcLimits { max_size: None, max_age: Some(Duration::from_secs(1)) };
        assert_eq!(victims(&[entry(10, 1, 0)], &limits, NOW - DAY_US), []);
    }

    proptest! {
        #[test]
        fn the_limit_holds_and_no_victim_is_needless(
            sizes in proptest::collection::vec((1u64..1_000, 0u64..1_000_000, 0u64..400, any::<bool>()), 0..60),
            max in 0u64..30_000,
        ) {
            let entries: Vec<EntryInfo> = sizes
                .iter()
                .map(|&(size, cost, days, pinned)| EntryInfo { pinned, ..entry(size, cost, days) })
                .collect();
            let gone = victims(&entries, &size(max), NOW);
            let all: u64 = entries.iter().map(|e| e.disk_bytes).sum();
            let freed: u64 = gone.iter().map(|&i| entries[i].disk_bytes).sum();
            let pinned: u64 = entries.iter().filter(|e| e.pinned).map(|e| e.disk_bytes).sum();
            prop_assert!(gone.iter().all(|&i| !entries[i].pinned));
            prop_assert!(all - freed <= max.max(pinned));
            if let Some(&last) = gone.last() {
                prop_assert!(all - freed + entries[last].disk_bytes > max, "the last victim was needless");
            }
            let mut once = gone.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), gone.len());
        }
    }
}
