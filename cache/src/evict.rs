//! Which entries go first, as a pure function of what is known of them.
//!
//! The worth of keeping an entry is *compile cost × rate of use × recency ÷ size*: what a hit saves, how likely it
//! is, and what room it costs. The rate is that of all its life, as in hyperbolic caching (Blankstein et al. 2017):
//! what was used much and is superseded loses its worth by itself, and nothing depends on whether a store fills in
//! an hour or in a year. Dearest to keep and cheapest to make again go first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::admin::{EntryInfo, GcLimits};

/// The power of the time since the last use that divides the worth. Small, because the rate tells more; tuned on
/// the first halves of the traces of `benches/src/policy.rs`.
const RECENCY: f64 = 0.15;
/// Below it no difference is made, in seconds: what one build takes.
const MOMENT: f64 = 60.0;

/// An entry whose cost nobody measured is taken to have cost this much.
const UNKNOWN_COST_US: u64 = 1_000;

/// The indices of the entries to remove so that `limits` hold at `now_unix_us` (µs since 1970), in order of
/// removal. A pure function: the same entries give the same victims.
///
/// Expired entries go first, whatever they are worth; then, of every namespace that is above its own limit,
/// those worth least; then those worth least of all. Pinned entries never go, even when a limit cannot be held
/// then. O(n) to look at all, O(log n) per victim.
pub fn choose_victims(entries: &[EntryInfo], limits: &GcLimits, now_unix_us: u64) -> Vec<usize> {
    let mut stays: Vec<bool> = vec![true; entries.len()];
    let mut victims = expired(entries, limits, now_unix_us);
    victims.iter().for_each(|&gone| stays[gone] = false);

    for (namespace, max_size) in &limits.namespace_max_size {
        let of_it = |at: usize, stays: &[bool]| stays[at] && entries[at].namespace == *namespace;
        let members = (0..entries.len()).filter(|&at| of_it(at, &stays));
        let room = Room::taken_by(members.clone().map(|at| &entries[at]), Some(*max_size), None);
        let gone = room.make(entries, ranking(entries, members, now_unix_us));
        gone.iter().for_each(|&gone| stays[gone] = false);
        victims.extend(gone);
    }

    let all = (0..entries.len()).filter(|&at| stays[at]);
    let room = Room::taken_by(all.clone().map(|at| &entries[at]), limits.max_size, limits.max_entries);
    victims.extend(room.make(entries, ranking(entries, all, now_unix_us)));
    victims
}

/// All that may go, by what is worth least first: what [`choose_victims`] would choose one after the other.
pub(crate) fn ranking(
    entries: &[EntryInfo],
    candidates: impl Iterator<Item = usize>,
    now_unix_us: u64,
) -> impl Iterator<Item = usize> {
    // Made in O(n), and not before somebody asks for the first.
    let candidates = candidates.filter(|&at| !entries[at].pinned);
    let worth = move |at: usize| Reverse((Worth::of(&entries[at], now_unix_us), at));
    let mut heap: BinaryHeap<_> = candidates.map(worth).collect();
    std::iter::from_fn(move || heap.pop().map(|Reverse((_, at))| at))
}

fn expired(entries: &[EntryInfo], limits: &GcLimits, now_unix_us: u64) -> Vec<usize> {
    let Some(max_age) = limits.max_age else { return Vec::new() };
    let is_expired = |&at: &usize| !entries[at].pinned && age(&entries[at], now_unix_us) > max_age;
    let mut expired: Vec<usize> = (0..entries.len()).filter(is_expired).collect();
    expired.sort_unstable_by_key(|&at| entries[at].last_used_unix_us);
    expired
}

/// What entries take, and may take.
struct Room {
    bytes: u64,
    entries: u64,
    max_bytes: u64,
    max_entries: u64,
}

impl Room {
    fn taken_by<'a>(
        entries: impl Iterator<Item = &'a EntryInfo>,
        max_bytes: Option<u64>,
        max_entries: Option<u64>,
    ) -> Self {
        let (bytes, count) = entries
            .fold((0_u64, 0), |(bytes, count), entry| (bytes.saturating_add(entry.disk_bytes), count + 1));
        let (max_bytes, max_entries) = (max_bytes.unwrap_or(u64::MAX), max_entries.unwrap_or(u64::MAX));
        Self { bytes, entries: count, max_bytes, max_entries }
    }

    /// As many of `ranking` as have to go.
    fn make(mut self, entries: &[EntryInfo], mut ranking: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut victims = Vec::new();
        while self.bytes > self.max_bytes || self.entries > self.max_entries {
            let Some(victim) = ranking.next() else { break };
            self.bytes = self.bytes.saturating_sub(entries[victim].disk_bytes);
            self.entries -= 1;
            victims.push(victim);
        }
        victims
    }
}

fn age(entry: &EntryInfo, now_unix_us: u64) -> Duration {
    since(entry.last_used_unix_us, now_unix_us)
}

fn since(then_unix_us: u64, now_unix_us: u64) -> Duration {
    // A clock that went back must not make everything look old.
    Duration::from_micros(now_unix_us.saturating_sub(then_unix_us))
}

/// The worth as a logarithm, so that no product overflows and no quotient loses its small end.
#[derive(PartialEq)]
struct Worth(f64);

impl Worth {
    fn of(entry: &EntryInfo, now_unix_us: u64) -> Self {
        let cost = if entry.compile_time_us == 0 { UNKNOWN_COST_US } else { entry.compile_time_us } as f64;
        let uses = entry.hits.saturating_add(1) as f64;
        let size = entry.disk_bytes.max(1) as f64;
        let lived = since(entry.created_unix_us, now_unix_us).as_secs_f64() + MOMENT;
        let unused = age(entry, now_unix_us).as_secs_f64() + MOMENT;
        Self(cost.log2() + uses.log2() - size.log2() - lived.log2() - RECENCY * unused.log2())
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
            stored_bytes: disk_bytes,
            codec: crate::Codec::Plain,
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
        GcLimits { max_size: Some(max), ..GcLimits::default() }
    }

    #[test]
    fn nothing_goes_while_it_fits() {
        assert_eq!(choose_victims(&[entry(10, 1, 0), entry(10, 1, 0)], &size(20), NOW), []);
        assert_eq!(choose_victims(&[entry(10, 1, 0), entry(10, 1, 1)], &size(19), NOW), [1]);
        assert_eq!(choose_victims(&[], &size(0), NOW), []);
    }

    #[test]
    fn the_least_worth_goes_first() {
        let old_first = [entry(10, 5, 3), entry(10, 5, 9), entry(10, 5, 6)];
        assert_eq!(choose_victims(&old_first, &size(10), NOW), [1, 2]);
        let cheap_first = [entry(10, 9_000_000, 3), entry(10, 5_000, 3)];
        assert_eq!(choose_victims(&cheap_first, &size(10), NOW), [1]);
        let large_first = [entry(10, 5, 3), entry(90, 5, 3)];
        assert_eq!(choose_victims(&large_first, &size(50), NOW), [1]);
        let mut unused_first = [entry(10, 5, 3), entry(10, 5, 3)];
        unused_first[0].hits = 7;
        assert_eq!(choose_victims(&unused_first, &size(10), NOW), [1]);
    }

    #[test]
    fn use_counts_by_the_time_it_took() {
        let used = |hits, days_of_life| {
            let created_unix_us = NOW - days_of_life * DAY_US;
            EntryInfo { hits, created_unix_us, ..entry(10, 10_000, 1) }
        };
        let goes = |entries: [EntryInfo; 2]| choose_victims(&entries, &size(10), NOW);
        assert_eq!(goes([used(9, 100), used(9, 10)]), [0]);
        assert_eq!(goes([used(59, 100), used(6, 10)]), [0]);
        assert_eq!(goes([used(79, 100), used(6, 10)]), [1], "ten lives, more than ten times as often");
    }

    #[test]
    fn expired_ones_go_whatever_they_are_worth_and_pinned_ones_never() {
        let limits = GcLimits { max_age: Some(Duration::from_secs(5 * 24 * 3600)), ..GcLimits::default() };
        let mut entries = [entry(10, u64::MAX, 6), entry(10, 1, 5), entry(10, 1, 9)];
        assert_eq!(choose_victims(&entries, &limits, NOW), [2, 0]);
        entries[2].pinned = true;
        assert_eq!(choose_victims(&entries, &limits, NOW), [0]);
        assert_eq!(choose_victims(&entries, &size(0), NOW), [1, 0]);
    }

    #[test]
    fn a_clock_that_went_back_expires_nothing() {
        let limits = GcLimits { max_age: Some(Duration::from_secs(1)), ..GcLimits::default() };
        assert_eq!(choose_victims(&[entry(10, 1, 0)], &limits, NOW - DAY_US), []);
    }

    #[test]
    fn entries_are_counted_too() {
        let limits = GcLimits { max_entries: Some(1), ..GcLimits::default() };
        let mut entries = [entry(10, 5, 3), entry(10, 5, 9), entry(10, 5, 6)];
        assert_eq!(choose_victims(&entries, &limits, NOW), [1, 2]);
        entries[1].pinned = true;
        assert_eq!(choose_victims(&entries, &limits, NOW), [2, 0], "what is pinned counts, and stays");
    }

    #[test]
    fn a_namespace_keeps_to_its_own_limit_before_all_keep_to_theirs() {
        let of = |namespace: &str, entry| EntryInfo { namespace: namespace.to_owned(), ..entry };
        let entries = [
            of("debug", entry(10, 9, 0)),
            of("", entry(10, 1, 9)),
            of("debug", entry(10, 9, 5)),
            of("debug", entry(10, 9, 9)),
        ];
        let mut limits = GcLimits::default();
        limits.namespace_max_size.insert("debug".to_owned(), 15);
        limits.namespace_max_size.insert("absent".to_owned(), 0);
        assert_eq!(choose_victims(&entries, &limits, NOW), [3, 2]);
        limits.max_size = Some(10);
        assert_eq!(choose_victims(&entries, &limits, NOW), [3, 2, 1]);
    }

    proptest! {
        #[test]
        fn limits_hold_and_no_victim_is_needless(
            entries in proptest::collection::vec(any_entry(), 0..60),
            max_size in proptest::option::of(0u64..30_000),
            max_entries in proptest::option::of(0u64..60),
            max_days in proptest::option::of(0u64..400),
            namespace_max in proptest::option::of(0u64..10_000),
        ) {
            let limits = GcLimits {
                max_size,
                max_entries,
                max_age: max_days.map(|days| Duration::from_micros(days * DAY_US)),
                namespace_max_size: namespace_max.map(|max| ("a".to_owned(), max)).into_iter().collect(),
            };
            let gone = choose_victims(&entries, &limits, NOW);
            let unique: std::collections::BTreeSet<_> = gone.iter().copied().collect();
            prop_assert_eq!(unique.len(), gone.len(), "nothing goes twice");
            prop_assert!(gone.iter().all(|&at| !entries[at].pinned));
            prop_assert_eq!(&gone, &choose_victims(&entries, &limits, NOW), "a pure function");

            let is_met = |gone: &[usize]| limits_are_met(&entries, gone, &limits);
            let useless = |at: usize| {
                entries[at].pinned || unique.contains(&at) || !is_needed(&entries, at, &gone, &limits)
            };
            prop_assert!(is_met(&gone) || (0..entries.len()).all(useless), "a limit could be held");
            if let Some((last, before)) = gone.split_last() {
                prop_assert!(!is_met(before), "{last} was needless");
            }
        }

        #[test]
        fn of_two_that_differ_in_one_thing_the_right_one_goes(
            one in any_entry(), days in 1u64..100, cost in 1u64..1_000_000, hits in 1u64..100, size in 1u64..900
        ) {
            let one = EntryInfo { pinned: false, compile_time_us: one.compile_time_us.max(1), ..one };
            let older = one.last_used_unix_us.saturating_sub(days * DAY_US);
            let worse = [
                EntryInfo { last_used_unix_us: older, ..one.clone() },
                EntryInfo { disk_bytes: one.disk_bytes + size, ..one.clone() },
            ];
            let better = [
                EntryInfo { compile_time_us: one.compile_time_us + cost, ..one.clone() },
                EntryInfo { hits: one.hits + hits, ..one.clone() },
            ];
            let limits = GcLimits { max_entries: Some(1), ..GcLimits::default() };
            for worse in worse {
                prop_assert_eq!(choose_victims(&[one.clone(), worse], &limits, NOW), [1]);
            }
            for better in better {
                prop_assert_eq!(choose_victims(&[better, one.clone()], &limits, NOW), [1]);
            }
        }
    }

    fn any_entry() -> impl Strategy<Value = EntryInfo> {
        let facts = (1u64..1_000, 0u64..1_000_000, 0u64..400, 0u64..50);
        (facts, any::<bool>(), any::<bool>()).prop_map(|((size, cost, days, hits), pinned, a)| {
            let namespace = if a { "a" } else { "" }.to_owned();
            EntryInfo { pinned, namespace, hits, ..entry(size, cost, days) }
        })
    }

    /// What is left of `entries`, and whether it keeps to each limit.
    fn limits_are_met(entries: &[EntryInfo], gone: &[usize], limits: &GcLimits) -> bool {
        let left = || (0..entries.len()).filter(|at| !gone.contains(at)).map(|at| &entries[at]);
        let bytes = |of: &dyn Fn(&EntryInfo) -> bool| -> u64 {
            left().filter(|entry| of(entry)).map(|entry| entry.disk_bytes).sum()
        };
        let namespaces = || {
            let mut limits = limits.namespace_max_size.iter();
            limits.all(|(name, max)| bytes(&|entry| entry.namespace == *name) <= *max)
        };
        left().count() as u64 <= limits.max_entries.unwrap_or(u64::MAX)
            && bytes(&|_| true) <= limits.max_size.unwrap_or(u64::MAX)
            && left().all(|entry| entry.pinned || limits.max_age.is_none_or(|max| age(entry, NOW) <= max))
            && namespaces()
    }

    /// Whether removing one more would be of use: some limit that it falls under is not met.
    fn is_needed(entries: &[EntryInfo], at: usize, gone: &[usize], limits: &GcLimits) -> bool {
        let alone = match entries[at].namespace.as_str() {
            "a" => limits.clone(),
            _ => GcLimits { namespace_max_size: std::collections::BTreeMap::new(), ..limits.clone() },
        };
        !limits_are_met(entries, gone, &alone)
    }
}
