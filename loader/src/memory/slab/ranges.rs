//! Which ranges of a slab are free: a size-class allocator over plain numbers.
//!
//! Ranges come from free lists by size class, then from the untouched end, and in the end from joining free neighbours.
//! What is given back is first kept in quarantine; see [`Ranges::release_quarantine`].

use std::ops::Range;

/// Everything is a multiple of this: a cache line, so that no two images share one.
pub(super) const GRANULE: usize = 64;

/// Free ranges between 0 and `len`.
pub(super) struct Ranges {
    len: usize,
    /// From here on nothing was handed out since the last join.
    end: usize,
    /// From here on nothing was ever handed out: still zero.
    touched: usize,
    /// Starts of free ranges, by size class. A range in class `c` has exactly `class_size(c)` bytes.
    classes: Vec<Vec<usize>>,
    quarantine: Vec<Range<usize>>,
    quarantined: usize,
    /// Bytes given back since free neighbours were joined last.
    unjoined: usize,
    live: usize,
}

/// A range that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) range: Range<usize>,
    /// Never handed out before.
    pub(super) fresh: bool,
}

impl Ranges {
    pub(super) fn new(len: usize) -> Self {
        let len = len / GRANULE * GRANULE;
        Ranges {
            len,
            end: 0,
            touched: 0,
            classes: vec![Vec::new(); class_of_at_most(len.max(GRANULE)) + 1],
            quarantine: Vec::new(),
            quarantined: 0,
            unjoined: 0,
            live: 0,
        }
    }

    /// At least `len` bytes, or `None` when there is no such range.
    pub(super) fn take(&mut self, len: usize) -> Option<Taken> {
        let class = class_of_at_least(len.max(1));
        let size = class_size(class);
        let start = self
            .pop(class)
            .or_else(|| self.extend(size))
            .or_else(|| self.split_larger(class))
            .or_else(|| self.join().then(|| self.pop(class).or_else(|| self.extend(size))).flatten())
            .or_else(|| self.split_larger(class))?;
        let range = start..start + size;
        let fresh = range.start >= self.touched;
        self.touched = self.touched.max(range.end);
        self.live += 1;
        Some(Taken { range, fresh })
    }

    /// Gives a range back, into quarantine.
    pub(super) fn give(&mut self, range: Range<usize>) {
        self.live -= 1;
        self.quarantined += range.len();
        self.quarantine.push(range);
    }

    /// Gives a range back in which nothing was executed.
    pub(super) fn give_unused(&mut self, range: Range<usize>) {
        self.live -= 1;
        self.unjoined += range.len();
        self.put(range);
    }

    /// Whether enough is in quarantine to make releasing it worth its price.
    pub(super) fn is_quarantine_full(&self) -> bool {
        const BYTES: usize = 1 << 20;
        const COUNT: usize = 512;
        self.quarantined >= BYTES || self.quarantine.len() >= COUNT
    }

    /// Whether a range of such a length should be available at once when it is given back: what would be taken in place of a
    /// large one, memory that was not used for long or never, comes from far away or a page at a time.
    pub(super) fn is_wanted(&self, len: usize) -> bool {
        const LARGE: usize = 16 << 10;
        len >= LARGE && self.classes[class_of_at_most(len)].is_empty()
    }

    pub(super) fn has_quarantine(&self) -> bool {
        !self.quarantine.is_empty()
    }

    /// Makes what is in quarantine available. The caller has seen to it that no core can still run what was there.
    pub(super) fn release_quarantine(&mut self) {
        self.unjoined += self.quarantined;
        self.quarantined = 0;
        // What was used last, and is in caches, is taken first.
        for range in std::mem::take(&mut self.quarantine) {
            self.put(range);
        }
    }

    /// Ranges handed out and not given back.
    #[cfg(test)]
    pub(super) fn live(&self) -> usize {
        self.live
    }

    fn pop(&mut self, class: usize) -> Option<usize> {
        self.classes.get_mut(class)?.pop()
    }

    fn extend(&mut self, size: usize) -> Option<usize> {
        let start = self.end;
        let end = start.checked_add(size).filter(|end| *end <= self.len)?;
        self.end = end;
        Some(start)
    }

    /// Takes the front of a larger free range.
    fn split_larger(&mut self, class: usize) -> Option<usize> {
        let larger = (class + 1..self.classes.len()).find(|class| !self.classes[*class].is_empty())?;
        let start = self.pop(larger)?;
        self.put(start + class_size(class)..start + class_size(larger));
        Some(start)
    }

    /// Sorts a free range into the lists, in as few pieces of a class's exact size as it takes.
    fn put(&mut self, mut range: Range<usize>) {
        while !range.is_empty() {
            let class = class_of_at_most(range.len());
            let piece = class_size(class);
            self.classes[class].push(range.start);
            range.start += piece;
        }
    }

    /// Joins free neighbours. Not worth the time before a good part of the slab was given back.
    fn join(&mut self) -> bool {
        if self.unjoined < self.len / 16 {
            return false;
        }
        self.join_all();
        true
    }

    /// Whether nothing is handed out of what was mostly used at some time.
    pub(super) fn is_abandoned(&self) -> bool {
        self.live == 0 && self.touched > self.len / 4 * 3
    }

    /// Beyond this nothing was ever used, and all is zero.
    pub(super) fn touched(&self) -> usize {
        self.touched
    }

    /// What lies before was used after all.
    pub(super) fn keep_touched(&mut self, touched: usize) {
        self.touched = self.touched.max(touched);
    }

    /// All that is free and was used before, for the caller to give back to the system by pages of `page` bytes, after which
    /// they are zero. What is in quarantine does not count.
    pub(super) fn take_stock(&mut self, page: usize) -> Vec<Range<usize>> {
        let mut unused = self.join_all();
        if self.end < self.touched {
            unused.push(self.end..self.touched.next_multiple_of(page).min(self.len));
            self.touched = self.end.next_multiple_of(page).min(self.touched);
        }
        unused
    }

    /// Free ranges that have no free neighbour, but for the last.
    fn join_all(&mut self) -> Vec<Range<usize>> {
        self.unjoined = 0;
        let mut free: Vec<Range<usize>> = Vec::new();
        for (class, starts) in self.classes.iter_mut().enumerate() {
            free.extend(starts.drain(..).map(|start| start..start + class_size(class)));
        }
        free.sort_unstable_by_key(|range| range.start);
        let mut joined: Vec<Range<usize>> = Vec::new();
        for range in free {
            match joined.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => joined.push(range),
            }
        }
        if joined.last().is_some_and(|last| last.end == self.end) {
            self.end = joined.pop().map_or(self.end, |last| last.start);
        }
        joined.iter().for_each(|range| self.put(range.clone()));
        joined
    }
}

/// Classes are 1 to 4 granules, then four to each doubling: what is wasted stays below a quarter.
fn class_size(class: usize) -> usize {
    let granules = match class {
        0..=3 => class + 1,
        _ => (class % 4 + 5) << ((class - 4) / 4),
    };
    granules * GRANULE
}

/// The smallest class of at least `len` bytes. `len` is not zero.
fn class_of_at_least(len: usize) -> usize {
    let class = class_of_at_most(len.max(GRANULE));
    if class_size(class) >= len { class } else { class + 1 }
}

/// The largest class of at most `len` bytes. `len` is at least a granule.
fn class_of_at_most(len: usize) -> usize {
    let granules = len / GRANULE;
    if granules <= 4 {
        return granules - 1;
    }
    let doubling = granules.ilog2() as usize - 2;
    // 4 << doubling itself is the last class of the doubling before.
    let quarter = (granules >> doubling) - 4;
    4 * doubling + quarter + 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_ascend_without_gaps_and_round_both_ways() {
        for class in 0..60 {
            let size = class_size(class);
            assert!(class_size(class + 1) > size);
            assert_eq!(class_of_at_most(size), class);
            assert_eq!(class_of_at_least(size), class);
            assert_eq!(class_of_at_least(size + 1), class + 1);
            assert_eq!(class_of_at_most(class_size(class + 1) - 1), class);
        }
        assert_eq!(class_of_at_least(1), 0);
    }

    #[test]
    fn a_class_wastes_less_than_a_quarter() {
        for len in 257..20_000 {
            let size = class_size(class_of_at_least(len));
            assert!(size - len < len / 4 + GRANULE, "{len} takes {size}");
        }
    }

    #[test]
    fn a_range_is_fresh_once() {
        let mut ranges = Ranges::new(1 << 20);
        let first = ranges.take(100).unwrap();
        assert!(first.fresh);
        ranges.give(first.range.clone());
        let second = ranges.take(100).unwrap();
        assert_ne!(second.range, first.range, "quarantined");
        ranges.release_quarantine();
        let third = ranges.take(100).unwrap();
        assert_eq!(third, Taken { range: first.range, fresh: false });
    }

    #[test]
    fn many_small_ranges_become_a_large_one_again() {
        let mut ranges = Ranges::new(1 << 20);
        let taken: Vec<_> = std::iter::from_fn(|| ranges.take(64)).collect();
        assert_eq!(taken.len(), (1 << 20) / 64);
        assert!(ranges.take(1).is_none());
        taken.into_iter().for_each(|taken| ranges.give(taken.range));
        ranges.release_quarantine();
        assert!(ranges.take(1 << 20).is_some_and(|taken| !taken.fresh));
        assert!(ranges.take(1).is_none());
        assert_eq!(ranges.live(), 1);
    }

    #[test]
    fn what_is_given_back_to_the_system_is_fresh_at_the_end_alone() {
        const PAGE: usize = 4096;
        let mut ranges = Ranges::new(1 << 20);
        let taken: Vec<_> = (0..64).map(|_| ranges.take(10 << 10).unwrap().range).collect();
        let kept = 10;
        for (number, range) in taken.iter().enumerate().filter(|(number, _)| *number != kept) {
            assert!(!ranges.is_abandoned(), "{number}");
            ranges.give(range.clone());
        }
        assert!(ranges.take_stock(PAGE).is_empty(), "quarantined");
        ranges.release_quarantine();
        let [before, after] = &ranges.take_stock(PAGE)[..] else { panic!() };
        assert_eq!(*before, 0..taken[kept].start);
        assert_eq!(*after, taken[kept].end..640 << 10);
        assert!(!ranges.take(4 << 10).unwrap().fresh, "in the middle");
        let rest = ranges.take(256 << 10).unwrap();
        assert!(!rest.fresh && rest.range.start == taken[kept].end, "shares a page with what is kept");
        assert!(ranges.take(64 << 10).unwrap().fresh);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut ranges = Ranges::new(1 << 16);
        assert!(ranges.take((1 << 16) + 1).is_none());
        assert!(ranges.take(usize::MAX / 2).is_none());
        assert!(ranges.take(1 << 16).is_some());
        assert!(ranges.take(1).is_none());
    }

    proptest::proptest! {
        #[test]
        fn live_ranges_never_overlap(steps in proptest::collection::vec((0usize..20_000, 0usize..8), 1..300)) {
            let mut ranges = Ranges::new(1 << 18);
            let mut live: Vec<Range<usize>> = Vec::new();
            for (len, action) in steps {
                match action {
                    0..=3 => {
                        if let Some(Taken { range, .. }) = ranges.take(len) {
                            proptest::prop_assert!(range.len() >= len && range.end <= 1 << 18);
                            proptest::prop_assert!(live.iter().all(|other| other.end <= range.start || range.end <= other.start));
                            live.push(range);
                        }
                    }
                    4..=5 if !live.is_empty() => ranges.give(live.swap_remove(len % live.len())),
                    6 if !live.is_empty() => ranges.give_unused(live.swap_remove(len % live.len())),
                    _ => ranges.release_quarantine(),
                }
            }
            proptest::prop_assert_eq!(ranges.live(), live.len());
        }
    }
}
