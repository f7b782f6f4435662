//! `SHT_RELA` tables (gABI, "Relocation"), decoded entry by entry.

use std::fmt::Display;

use object::{LittleEndian, elf};

use super::{Header, LE, section_table};
use crate::error::LoadError;
use crate::graph::Relocation;

/// One relocation table, still as bytes of the object.
#[derive(Clone, Copy)]
pub(crate) struct Relocations<'a> {
    entries: &'a [elf::Rela64<LittleEndian>],
}

impl<'a> Relocations<'a> {
    pub(crate) const EMPTY: Relocations<'static> = Relocations { entries: &[] };

    pub(super) fn read(object: &'a [u8], header: &Header, what: &dyn Display) -> Result<Self, LoadError> {
        Ok(Relocations { entries: section_table(object, header, what)? })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(crate) fn iter(self) -> impl Iterator<Item = Relocation> + 'a {
        self.entries.iter().map(|entry| {
            let info = entry.r_info.get(LE);
            Relocation {
                offset: entry.r_offset.get(LE),
                raw_kind: info as u32,
                symbol: (info >> 32) as u32,
                addend: entry.r_addend.get(LE),
            }
        })
    }
}
