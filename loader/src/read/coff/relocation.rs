//! COFF relocations ("COFF Relocations (Object Only)"), decoded entry by entry. Addends are in the fields.

use object::LittleEndian as LE;
use object::pe;

use crate::graph::Relocation;

/// The relocations of one section, still as bytes of the object.
#[derive(Clone, Copy)]
pub(crate) struct Relocations<'a> {
    entries: &'a [pe::ImageRelocation],
    /// What the section's own address is said to be: places count from there. Compilers leave it zero.
    base: u32,
}

impl<'a> Relocations<'a> {
    pub(super) fn new(entries: &'a [pe::ImageRelocation], base: u32) -> Self {
        Relocations { entries, base }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline(always)]
    pub(crate) fn get(&self, number: usize) -> Option<Relocation> {
        let entry = self.entries.get(number)?;
        Some(Relocation {
            // A place before its section ends up far behind it, and is refused there.
            offset: u64::from(entry.virtual_address.get(LE)).wrapping_sub(self.base.into()),
            raw_kind: entry.typ.get(LE).0.into(),
            symbol: entry.symbol_table_index.get(LE),
            addend: 0,
            subtrahend: Relocation::NO_SYMBOL,
        })
    }
}
