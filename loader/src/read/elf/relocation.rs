//! `SHT_RELA` and `SHT_REL` tables (gABI, "Relocation"), decoded entry by entry.

use object::endian::FixedEndian;
use object::pod::Pod;
use object::read::elf::{Rel, Rela};
use object::{BigEndian, LittleEndian, elf};

use crate::graph::Relocation;

/// One relocation table, still as bytes of the object.
pub(crate) struct Relocations<'a, R> {
    entries: &'a [R],
}

impl<R> Clone for Relocations<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Relocations<'_, R> {}

impl<'a, R: Entry> Relocations<'a, R> {
    pub(super) fn new(entries: &'a [R]) -> Self {
        Relocations { entries }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline(always)]
    pub(crate) fn get(&self, number: usize) -> Option<Relocation> {
        self.entries.get(number).map(Entry::decode)
    }
}

/// An entry of a table of either kind.
pub(crate) trait Entry: Pod {
    fn decode(&self) -> Relocation;
}

macro_rules! entries {
    ($($with_addend:ty),*; $($without:ty),*) => {
        $(impl Entry for $with_addend {
            #[inline(always)]
            fn decode(&self) -> Relocation {
                rela(self)
            }
        })*
        $(impl Entry for $without {
            #[inline(always)]
            fn decode(&self) -> Relocation {
                rel(self)
            }
        })*
    };
}
entries! {
    elf::Rela64<LittleEndian>, elf::Rela32<LittleEndian>, elf::Rela64<BigEndian>;
    elf::Rel64<LittleEndian>, elf::Rel32<LittleEndian>
}

#[inline(always)]
fn rela<R: Rela<Endian: FixedEndian>>(entry: &R) -> Relocation {
    let order = <R::Endian as FixedEndian>::FIXED;
    Relocation {
        offset: entry.r_offset(order).into(),
        raw_kind: entry.r_type(order, false).0,
        symbol: entry.r_sym(order, false),
        addend: entry.r_addend(order).into(),
        subtrahend: Relocation::NO_SYMBOL,
    }
}

#[inline(always)]
fn rel<R: Rel<Endian: FixedEndian>>(entry: &R) -> Relocation {
    let order = <R::Endian as FixedEndian>::FIXED;
    Relocation {
        offset: entry.r_offset(order).into(),
        raw_kind: entry.r_type(order).0,
        symbol: entry.r_sym(order),
        addend: 0,
        subtrahend: Relocation::NO_SYMBOL,
    }
}
