//! Which tables are registered together, where an unwinder looks through its registrations one by one.
//!
//! Images of one arena stand in *groups*, each of them one registration: an array of pointers to the images' tables.
//! Groups of about the same size are joined as images come, so that there are few of them and a table is copied into a
//! new array a logarithmic number of times. At a throw such an unwinder sorts the groups that are new, no others; so an
//! image in the middle of a large group divides it, and whatever comes and goes in that place afterwards is cheap. At the
//! end of each arena stands a *fence*, a registration of one byte of no code: all code above it, as that of shared libraries
//! is, need not be looked for in large groups.
//!
//! libgcc before version 13 keeps what it has sorted in descending order of the lowest address, looks into the first
//! whose lowest address is not above the one in question, and nowhere else. So groups must not overlap (they hold images
//! that are neighbours in an arena, in which nobody else has code); and while a new group takes the place of old ones
//! both are registered, since threads throw through the same images meanwhile. Parts of an old one are registered *from the
//! highest down*: at any moment somebody's throw may sort in what there is, and a part in the middle would then stand before the
//! old group for all that is above it. The old ones are then taken away *from the lowest up*: as long as one is left, it is the
//! first for addresses of its own.

use std::collections::BTreeMap;
use std::ops::Range;

/// More tables are not put into one registration: sorting them at the next throw takes some hundred microseconds.
const LARGEST: usize = 4096;

/// Smaller groups are not divided.
const DIVIDED: usize = 64;

/// A group is joined with a neighbour that is less than this many times as large.
const RATIO: usize = 4;

/// An unwinder, to which tables are known as long as they are in registered arrays.
pub(super) trait Registry {
    /// A registered table about one byte, which is deregistered when dropped.
    type Fence;

    /// A fence at an address.
    fn fence(&self, address: u64) -> Self::Fence;

    /// Address of a table without frames, with which every array begins.
    fn empty_table(&self) -> usize;

    /// Registers all tables of an array of their addresses, which ends in zero and stays where it is.
    fn register(&self, tables: &[usize]);

    /// Deregisters the array that begins at the same address.
    fn deregister(&self, tables: &[usize]);
}

/// What is registered: groups in the order of their addresses.
pub(super) struct Pool<Fence> {
    groups: Vec<Group>,
    /// By the beginnings of their arenas: those that have images.
    fences: BTreeMap<u64, Fence>,
    /// Tables in them.
    tables: usize,
}

/// Images that are registered as one.
struct Group {
    /// Where the arena begins.
    arena: u64,
    /// Where the code of each table's image begins, ascending.
    starts: Vec<u64>,
    /// An empty table, the tables in the same order, and zero. Never changed, since the unwinder knows it.
    array: Vec<usize>,
}

impl Group {
    /// Of parts in ascending order.
    fn new(registry: &impl Registry, arena: u64, parts: &[(&[u64], &[usize])]) -> Self {
        let len = parts.iter().map(|(starts, _)| starts.len()).sum::<usize>();
        let (mut starts, mut array) = (Vec::with_capacity(len), Vec::with_capacity(len + 2));
        array.push(registry.empty_table());
        for (part, tables) in parts {
            starts.extend_from_slice(part);
            array.extend_from_slice(tables);
        }
        array.push(0);
        Group { arena, starts, array }
    }

    fn len(&self) -> usize {
        self.starts.len()
    }

    fn first(&self) -> u64 {
        self.starts.first().copied().unwrap_or_default()
    }

    fn last(&self) -> u64 {
        self.starts.last().copied().unwrap_or_default()
    }

    fn tables(&self) -> &[usize] {
        &self.array[1..=self.len()]
    }
}

impl<Fence> Pool<Fence> {
    pub(super) const fn new() -> Self {
        Pool { groups: Vec::new(), fences: BTreeMap::new(), tables: 0 }
    }

    /// Adds an image: its arena, of which the last byte is no code, where its code begins, its tables. At least one.
    pub(super) fn insert(
        &mut self,
        registry: &impl Registry<Fence = Fence>,
        arena: &Range<u64>,
        start: u64,
        tables: &[usize],
    ) {
        self.fences.entry(arena.start).or_insert_with(|| registry.fence(arena.end - 1));
        self.tables += tables.len();
        let next = self.groups.partition_point(|group| group.first() < start);
        let around = next.checked_sub(1).filter(|at| {
            let group = &self.groups[*at];
            group.arena == arena.start && group.last() > start
        });
        match around {
            Some(at) if self.groups[at].len() >= DIVIDED => self.divide(registry, at, (start, tables)),
            _ => {
                let joined = self.extend(around.unwrap_or(next)..next, arena.start, tables.len());
                self.join(registry, joined, arena.start, Some((start, tables)));
            }
        }
        self.keep_few(registry);
    }

    /// Removes the image whose code begins there.
    pub(super) fn remove(&mut self, registry: &impl Registry<Fence = Fence>, start: u64) {
        let next = self.groups.partition_point(|group| group.first() <= start);
        let Some(group) = next.checked_sub(1).and_then(|at| self.groups.get(at)) else { return };
        let (arena, len) = (group.arena, group.len());
        let from = group.starts.partition_point(|other| *other < start);
        let to = group.starts.partition_point(|other| *other <= start);
        self.tables -= to - from;
        let parts = [0..from, to..len].map(|part| (&group.starts[part.clone()], &group.tables()[part]));
        let parts: &[&[(&[u64], &[usize])]] =
            if len < DIVIDED { &[&parts] } else { &[&parts[..1], &parts[1..]] };
        let rest: Vec<_> = parts.iter().map(|parts| Group::new(registry, arena, parts)).collect();
        let rest: Vec<_> = rest.into_iter().filter(|group| group.len() != 0).collect();
        rest.iter().rev().for_each(|group| registry.register(&group.array));
        registry.deregister(&group.array);
        self.groups.splice(next - 1..next, rest);
        if !self.groups.iter().any(|group| group.arena == arena) {
            self.fences.remove(&arena);
        }
        self.keep_few(registry);
    }

    /// Makes two groups of one, and one between them of an image that is new.
    fn divide(
        &mut self,
        registry: &impl Registry<Fence = Fence>,
        at: usize,
        (start, tables): (u64, &[usize]),
    ) {
        let old = &self.groups[at];
        let middle = old.starts.partition_point(|other| *other < start);
        let part = |part: Range<usize>| {
            Group::new(registry, old.arena, &[(&old.starts[part.clone()], &old.tables()[part])])
        };
        let added = Group::new(registry, old.arena, &[(&vec![start; tables.len()], tables)]);
        let parts = [part(0..middle), added, part(middle..old.len())];
        parts.iter().rev().for_each(|group| registry.register(&group.array));
        registry.deregister(&old.array);
        self.groups.splice(at..=at, parts);
    }

    /// The groups that become one with something of that length between them.
    fn extend(&self, mut joined: Range<usize>, arena: u64, added: usize) -> Range<usize> {
        let mut len = added + self.groups[joined.clone()].iter().map(Group::len).sum::<usize>();
        loop {
            let neighbour = |at: Option<usize>| {
                let group = self.groups.get(at?).filter(|group| group.arena == arena)?;
                (group.len() < RATIO * len && group.len() + len <= LARGEST).then_some(group.len())
            };
            if let Some(before) = neighbour(joined.start.checked_sub(1)) {
                joined.start -= 1;
                len += before;
            } else if let Some(after) = neighbour(Some(joined.end)) {
                joined.end += 1;
                len += after;
            } else {
                return joined;
            }
        }
    }

    /// More are joined where that is possible: each costs every throw some time.
    fn groups_wanted(&self) -> usize {
        6 + 2 * self.tables / LARGEST
    }

    fn keep_few(&mut self, registry: &impl Registry<Fence = Fence>) {
        while self.groups.len() > self.groups_wanted() && self.join_two(registry) {}
    }

    /// Joins the two neighbours that are smallest together, if there are any.
    fn join_two(&mut self, registry: &impl Registry<Fence = Fence>) -> bool {
        let sizes = self.groups.windows(2).enumerate().filter_map(|(at, pair)| {
            let size = pair[0].len() + pair[1].len();
            (pair[0].arena == pair[1].arena && size <= LARGEST).then_some((size, at))
        });
        let Some((_, at)) = sizes.min() else { return false };
        let arena = self.groups[at].arena;
        self.join(registry, at..at + 2, arena, None);
        true
    }

    /// Makes one group of several, and of an image that is new.
    fn join(
        &mut self,
        registry: &impl Registry<Fence = Fence>,
        joined: Range<usize>,
        arena: u64,
        added: Option<(u64, &[usize])>,
    ) {
        let old = &self.groups[joined.clone()];
        let mut parts: Vec<(&[u64], &[usize])> =
            old.iter().map(|group| (&group.starts[..], group.tables())).collect();
        let starts;
        if let Some((start, tables)) = added {
            starts = vec![start; tables.len()];
            let at = parts.partition_point(|(others, _)| others[0] < start);
            parts.insert(at, (&starts, tables));
            // In the middle of the part before it, perhaps.
            if let Some((others, tables)) = at.checked_sub(1).map(|before| parts[before]) {
                let middle = others.partition_point(|other| *other < start);
                parts[at - 1] = (&others[..middle], &tables[..middle]);
                parts.insert(at + 1, (&others[middle..], &tables[middle..]));
            }
        }
        let group = Group::new(registry, arena, &parts);
        registry.register(&group.array);
        old.iter().for_each(|group| registry.deregister(&group.array));
        self.groups.splice(joined, [group]);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};
    use std::rc::Rc;

    use super::*;

    /// libgcc 12, as far as it finds tables: `_Unwind_Find_FDE` of its `unwind-dw2-fde.c`.
    #[derive(Clone, Default)]
    struct Libgcc {
        unseen: Vec<Object>,
        seen: Vec<Object>,
    }

    /// A registered array. The tables of the tests are the addresses of the code they are about.
    #[derive(Clone)]
    struct Object {
        begin: usize,
        /// Bytes that each is about.
        length: u64,
        tables: Vec<u64>,
    }

    const LENGTH: u64 = 16;

    impl Object {
        fn lowest(&self) -> u64 {
            self.tables.iter().copied().min().unwrap_or(u64::MAX)
        }

        fn search(&self, pc: u64) -> Option<u64> {
            self.tables.iter().copied().find(|start| (*start..start + self.length).contains(&pc))
        }
    }

    impl Libgcc {
        fn find(&mut self, pc: u64) -> Option<u64> {
            let first = self.seen.iter().find(|object| pc >= object.lowest());
            if let Some(found) = first.and_then(|object| object.search(pc)) {
                return Some(found);
            }
            while let Some(object) = self.unseen.pop() {
                let found = object.search(pc);
                let at = self.seen.partition_point(|other| other.lowest() >= object.lowest());
                self.seen.insert(at, object);
                if found.is_some() {
                    return found;
                }
            }
            None
        }

        fn deregister(&mut self, begin: usize) {
            let of = |objects: &[Object]| objects.iter().rposition(|object| object.begin == begin);
            match of(&self.unseen) {
                Some(at) => drop(self.unseen.remove(at)),
                None => drop(self.seen.remove(of(&self.seen).expect("it is registered"))),
            }
        }
    }

    /// At each step everybody's tables are found, whether or not somebody threw before.
    struct Watched {
        libgcc: Rc<RefCell<Libgcc>>,
        live: RefCell<BTreeMap<u64, Vec<u64>>>,
    }

    impl Watched {
        fn check(&self) {
            let libgcc = self.libgcc.borrow();
            for table in self.live.borrow().values().flatten() {
                assert_eq!(libgcc.clone().find(table + 3), Some(*table));
            }
        }

        fn throw(&self, pc: u64) -> Option<u64> {
            self.libgcc.borrow_mut().find(pc)
        }
    }

    struct Fence {
        libgcc: Rc<RefCell<Libgcc>>,
        begin: usize,
    }

    impl Drop for Fence {
        fn drop(&mut self) {
            self.libgcc.borrow_mut().deregister(self.begin);
        }
    }

    impl Registry for Watched {
        type Fence = Fence;

        fn fence(&self, address: u64) -> Fence {
            // Not the address of any array.
            let begin = address as usize;
            self.libgcc.borrow_mut().unseen.push(Object { begin, length: 1, tables: vec![address] });
            Fence { libgcc: Rc::clone(&self.libgcc), begin }
        }

        fn empty_table(&self) -> usize {
            1
        }

        fn register(&self, array: &[usize]) {
            let [1, tables @ .., 0] = array else { panic!("{array:?}") };
            let object = Object {
                begin: array.as_ptr() as usize,
                length: LENGTH,
                tables: tables.iter().map(|table| *table as u64).collect(),
            };
            self.libgcc.borrow_mut().unseen.push(object);
            self.check();
        }

        fn deregister(&self, tables: &[usize]) {
            self.libgcc.borrow_mut().deregister(tables.as_ptr() as usize);
            self.check();
        }
    }

    fn watched() -> Watched {
        Watched { libgcc: Rc::default(), live: RefCell::default() }
    }

    /// An arena of 2^16 bytes holds a place for each.
    fn arena_of(start: u64) -> Range<u64> {
        let arena = start & !0xffff;
        arena..arena + 0x10000
    }

    fn insert(pool: &mut Pool<Fence>, registry: &Watched, start: u64, tables: u64) {
        let tables: Vec<u64> = (0..tables).map(|number| start + number * LENGTH).collect();
        let array: Vec<usize> = tables.iter().map(|table| *table as usize).collect();
        pool.insert(registry, &arena_of(start), start, &array);
        registry.live.borrow_mut().insert(start, tables);
        registry.check();
    }

    fn remove(pool: &mut Pool<Fence>, registry: &Watched, start: u64) {
        let tables = registry.live.borrow_mut().remove(&start).unwrap();
        pool.remove(registry, start);
        for table in tables {
            assert_eq!(registry.throw(table), None, "removed at once");
        }
    }

    proptest::proptest! {
        #[test]
        fn everybody_is_found_at_each_step(steps in proptest::collection::vec((0u64..200, 0u8..10, 1u64..4), 1..250)) {
            let (mut pool, registry) = (Pool::new(), watched());
            for (place, action, tables) in steps {
                // 50 places in each of four arenas.
                let start = ((place % 4 + 1) << 16) + place / 4 * 64;
                let is_live = registry.live.borrow().contains_key(&start);
                match action {
                    0..=6 if !is_live => insert(&mut pool, &registry, start, tables),
                    3..=7 if is_live => remove(&mut pool, &registry, start),
                    _ => drop(registry.throw(start + 1)),
                }
                let live = registry.live.borrow().values().map(Vec::len).sum::<usize>();
                proptest::prop_assert_eq!(pool.tables, live);
                let arenas: BTreeSet<u64> = registry.live.borrow().keys().map(|start| arena_of(*start).start).collect();
                proptest::prop_assert!(pool.fences.keys().eq(&arenas));
                // What cannot be joined stands in different arenas.
                proptest::prop_assert!(pool.groups.len() <= 8);
            }
            let left: Vec<u64> = registry.live.borrow().keys().copied().collect();
            left.into_iter().for_each(|start| remove(&mut pool, &registry, start));
            let libgcc = registry.libgcc.borrow();
            proptest::prop_assert!(libgcc.seen.is_empty() && libgcc.unseen.is_empty() && pool.groups.is_empty());
        }
    }

    /// Counts only.
    #[derive(Default)]
    struct Counting(RefCell<(usize, isize)>);

    impl Registry for Counting {
        type Fence = ();

        fn fence(&self, _address: u64) {}

        fn empty_table(&self) -> usize {
            1
        }

        fn register(&self, tables: &[usize]) {
            let mut counted = self.0.borrow_mut();
            counted.0 += tables.len();
            counted.1 += 1;
        }

        fn deregister(&self, _tables: &[usize]) {
            self.0.borrow_mut().1 -= 1;
        }
    }

    #[test]
    fn ten_thousand_in_a_row_are_few_registrations_and_few_copies() {
        const COUNT: usize = 10_000;
        for upwards in [true, false] {
            let (mut pool, registry) = (Pool::new(), Counting::default());
            for number in 0..COUNT {
                let at = if upwards { number } else { COUNT - number };
                pool.insert(&registry, &(0..1 << 32), at as u64 * 64, &[at]);
            }
            let (copied, registered) = *registry.0.borrow();
            assert_eq!(registered, pool.groups.len() as isize);
            assert!(registered <= 10, "{registered}");
            assert!(copied < 30 * COUNT, "{copied}");
            assert!(pool.groups.iter().all(|group| group.len() <= LARGEST));
        }
    }

    #[test]
    fn what_was_freed_here_and_there_does_not_leave_many_small_groups() {
        let (mut pool, registry) = (Pool::new(), Counting::default());
        (0..40_000u64).for_each(|number| pool.insert(&registry, &(0..1 << 32), number * 64, &[1]));
        (0..40_000u64)
            .filter(|number| number % 100 != 0)
            .for_each(|number| pool.remove(&registry, number * 64));
        assert_eq!(pool.tables, 400);
        assert!(pool.groups.len() <= pool.groups_wanted(), "{}", pool.groups.len());
    }

    #[test]
    fn what_comes_and_goes_in_one_place_touches_large_groups_once() {
        let (mut pool, registry) = (Pool::new(), Counting::default());
        let arena = 0..1 << 32;
        (0..10_000u64)
            .filter(|number| *number != 3000)
            .for_each(|number| pool.insert(&registry, &arena, number * 64, &[1]));
        pool.insert(&registry, &arena, 3000 * 64, &[1]);
        let before = registry.0.borrow().0;
        for _ in 0..100 {
            pool.remove(&registry, 3000 * 64);
            pool.insert(&registry, &arena, 3000 * 64, &[1]);
        }
        assert_eq!(registry.0.borrow().0 - before, 300, "with the empty table and the zero");
    }
}
