//! Relocations (`reloc.h`), decoded entry by entry.
//!
//! What is one relocation elsewhere may be two entries here: the first of `SUBTRACTOR` and `UNSIGNED` names what is
//! subtracted, and `ARM64_RELOC_ADDEND` has the addend for the one behind it. Decoding gives one [`Relocation`] for both,
//! at the number of the second.
//!
//! The addend is in the field. It counts from zero when the relocation refers to a section, as if that were still at
//! its address in the object; then the address is taken off. x86-64 counts relative fields from their ends. What is
//! behind the field in its instruction (`SIGNED_1`, `_2`, `_4`) is part of the number in the field, so that it needs no
//! attention.

use object::LittleEndian;
use object::macho::{self, RelocationInfo};

use super::section::{self, SectionName};
use super::{Header, LE};
use crate::arch::Machine;
use crate::error::LoadError;
use crate::graph::Relocation;

type Entry = macho::Relocation<LittleEndian>;

/// The relocations of one section.
#[derive(Clone, Copy)]
pub(crate) struct Relocations<'a> {
    input: &'a RelocationInput<'a>,
}

impl<'a> Relocations<'a> {
    pub(super) fn new(input: &'a RelocationInput<'a>) -> Self {
        Relocations { input }
    }

    pub(crate) fn len(&self) -> usize {
        self.input.len()
    }

    pub(crate) fn get(&self, number: usize) -> Option<Relocation> {
        self.input.get(number)
    }
}

/// What the relocations of a section are decoded from.
pub(super) struct RelocationInput<'a> {
    pub(super) entries: &'a [Entry],
    /// More, which the object leaves out because linkers know them. They follow the entries.
    pub(super) added: Vec<Relocation>,
    /// Content of the section.
    pub(super) bytes: &'a [u8],
    pub(super) headers: &'a [Header],
    /// Number of the section.
    pub(super) section: u32,
    pub(super) symbol_count: u32,
    pub(super) machine: Machine,
}

/// The types that the reader has to know, of both machines.
const UNSIGNED: u8 = 0;
const ARM64_BRANCH26: u8 = macho::ARM64_RELOC_BRANCH26.0;
const ARM64_PAGE21: u8 = macho::ARM64_RELOC_PAGE21.0;
const ARM64_PAGEOFF12: u8 = macho::ARM64_RELOC_PAGEOFF12.0;

impl RelocationInput<'_> {
    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.added.len()
    }

    fn is_x86_64(&self) -> bool {
        self.machine.name() == "x86_64"
    }

    fn subtractor(&self) -> u8 {
        match self.is_x86_64() {
            true => macho::X86_64_RELOC_SUBTRACTOR.0,
            false => macho::ARM64_RELOC_SUBTRACTOR.0,
        }
    }

    fn is_subtractor(&self, entry: &RelocationInfo) -> bool {
        entry.r_type.0 == self.subtractor()
    }

    fn is_addend(&self, entry: &RelocationInfo) -> bool {
        !self.is_x86_64() && entry.r_type == macho::ARM64_RELOC_ADDEND
    }

    /// Checks what does not depend on what the types mean: that each entry names a symbol or a section that is there, and
    /// that pairs are pairs.
    pub(super) fn check(&self, name: &SectionName) -> Result<(), LoadError> {
        for (number, entry) in self.entries.iter().enumerate() {
            let place = || format!("{name}+{:#x}", entry.r_word0.get(LE));
            if entry.r_word0.get(LE) & macho::R_SCATTERED != 0 {
                let what = "a scattered relocation";
                return Err(LoadError::unsupported(format!("{name}: relocation {number}: {what}")));
            }
            let info = entry.info(LE);
            let next = self.entries.get(number + 1).map(|next| next.info(LE));
            self.check_reference(&info).map_err(|why| LoadError::malformed(place(), why))?;
            self.check_pair(&info, next.as_ref()).map_err(|why| LoadError::malformed(place(), why))?;
        }
        Ok(())
    }

    fn check_reference(&self, entry: &RelocationInfo) -> Result<(), String> {
        let number = entry.r_symbolnum;
        let limit = self.headers.len();
        if self.is_addend(entry) {
            Ok(())
        } else if !entry.r_extern && self.needs_symbol(entry) {
            Err("the relocation names a section, where its type needs a symbol".to_owned())
        } else if entry.r_extern && number >= self.symbol_count {
            Err(format!("the relocation is against symbol {number}, which is not there"))
        } else if !entry.r_extern && (number == 0 || number as usize > limit) {
            Err(format!("the relocation is against section {number}, which is not there"))
        } else {
            Ok(())
        }
    }

    /// GOT entries are those of symbols; and fields of arm64's instructions do not say how far into a section to go.
    fn needs_symbol(&self, entry: &RelocationInfo) -> bool {
        match self.is_x86_64() {
            true => matches!(
                entry.r_type,
                macho::X86_64_RELOC_GOT_LOAD | macho::X86_64_RELOC_GOT | macho::X86_64_RELOC_TLV
            ),
            false => entry.r_type.0 != UNSIGNED && !self.is_subtractor(entry),
        }
    }

    fn check_pair(&self, entry: &RelocationInfo, next: Option<&RelocationInfo>) -> Result<(), &'static str> {
        let next = next.filter(|next| next.r_address == entry.r_address);
        if self.is_subtractor(entry) {
            let is_right = |next: &&RelocationInfo| {
                next.r_type.0 == UNSIGNED && next.r_length == entry.r_length && !next.r_pcrel
            };
            next.filter(is_right).map(drop).ok_or("SUBTRACTOR is not followed by UNSIGNED for the same field")
        } else if self.is_addend(entry) {
            let is_right = |next: &&RelocationInfo| {
                matches!(next.r_type.0, ARM64_BRANCH26 | ARM64_PAGE21 | ARM64_PAGEOFF12)
            };
            let why =
                "ARM64_RELOC_ADDEND is not followed by BRANCH26, PAGE21 or PAGEOFF12 for the same field";
            next.filter(is_right).map(drop).ok_or(why)
        } else {
            Ok(())
        }
    }

    fn get(&self, number: usize) -> Option<Relocation> {
        let Some(entry) = self.entries.get(number) else {
            return self.added.get(number - self.entries.len()).copied();
        };
        let entry = entry.info(LE);
        if self.is_subtractor(&entry) || self.is_addend(&entry) {
            return None;
        }
        let first = number.checked_sub(1).map(|first| self.entries[first].info(LE));
        let subtrahend = first.filter(|first| self.is_subtractor(first));
        let mut relocation = Relocation {
            offset: u64::from(entry.r_address),
            raw_kind: raw_kind(&entry),
            symbol: self.symbol(&entry),
            addend: self.addend(&entry),
            subtrahend: Relocation::NO_SYMBOL,
        };
        if let Some(subtrahend) = &subtrahend {
            // The field has the difference of both addresses in the object.
            relocation.raw_kind = raw_kind(subtrahend);
            relocation.subtrahend = self.symbol(subtrahend);
            relocation.addend = relocation.addend.wrapping_add_unsigned(self.address(subtrahend));
        }
        if let Some(addend) = first.filter(|first| self.is_addend(first)) {
            relocation.addend = sign_extend_24(addend.r_symbolnum);
        }
        Some(relocation)
    }

    /// Number of the symbol that the entry refers to, or of the one that stands for the section.
    fn symbol(&self, entry: &RelocationInfo) -> u32 {
        match entry.r_extern {
            true => entry.r_symbolnum,
            false => self.section_symbol(entry.r_symbolnum),
        }
    }

    pub(super) fn section_symbol(&self, section: u32) -> u32 {
        (self.symbol_count + section).wrapping_sub(1)
    }

    /// The address in the object of the section that the entry refers to, from which the field counts; of symbols 0.
    fn address(&self, entry: &RelocationInfo) -> u64 {
        if entry.r_extern {
            return 0;
        }
        let header = (entry.r_symbolnum as usize).checked_sub(1).and_then(|index| self.headers.get(index));
        header.map_or(0, section::address)
    }

    fn addend(&self, entry: &RelocationInfo) -> i64 {
        let in_field = match self.is_x86_64() || entry.r_type.0 == UNSIGNED {
            true => self.number_in_field(entry),
            // What instructions of arm64 have there says nothing.
            false => 0,
        };
        let address = self.address(entry);
        let addend = in_field.wrapping_sub_unsigned(address);
        match (self.is_x86_64() && entry.r_pcrel, entry.r_extern) {
            (false, _) => addend,
            // S + field - (P + length).
            (true, true) => addend.wrapping_sub(1 << entry.r_length),
            // The field is what it would be if all stayed where the object has it: target - (P + length).
            (true, false) => {
                let own = self.headers[self.section as usize - 1].addr.get(LE);
                addend.wrapping_add_unsigned(own).wrapping_add(i64::from(entry.r_address))
            }
        }
    }

    /// A field outside of the section is found when it is written.
    fn number_in_field(&self, entry: &RelocationInfo) -> i64 {
        let field = self.bytes.get(entry.r_address as usize..).unwrap_or_default();
        match entry.r_length {
            3 => field.first_chunk().map_or(0, |field| i64::from_le_bytes(*field)),
            2 => field.first_chunk().map_or(0, |field| i64::from(i32::from_le_bytes(*field))),
            0 => field.first().map_or(0, |field| i64::from(*field as i8)),
            _ => 0,
        }
    }

    /// A relocation that makes the pointer at `offset`, of 8 bytes or 4, relative to its place again after sections moved:
    /// what it points to is at `target` bytes of `section`.
    pub(super) fn pointer_from_here(
        &self,
        offset: u64,
        is_long: bool,
        section: u32,
        target: u64,
    ) -> Relocation {
        let length = if is_long { 3 } else { 2 };
        Relocation {
            offset,
            raw_kind: u32::from(self.subtractor()) | length << 8,
            symbol: self.section_symbol(section),
            addend: target.wrapping_sub(offset) as i64,
            subtrahend: self.section_symbol(self.section),
        }
    }
}

/// What architectures know a relocation by.
fn raw_kind(entry: &RelocationInfo) -> u32 {
    u32::from(entry.r_type.0) | u32::from(entry.r_length) << 8 | u32::from(entry.r_pcrel) << 16
}

fn sign_extend_24(number: u32) -> i64 {
    i64::from(((number << 8) as i32) >> 8)
}
