//! Relocations that the object leaves out of `__TEXT,__eh_frame`.
//!
//! For x86-64, LLVM's assembler writes the distances from an FDE to its function and to its language-specific data as
//! numbers, right only while all sections are where the object has them; linkers know where to look (`ld64`, and lld
//! after it). Here they become relocations like any other.

use super::relocation::RelocationInput;
use super::{Header, section};
use crate::error::LoadError;
use crate::graph::Relocation;
use crate::unwind::eh_frame;

/// Finds out what is missing from the unwind tables of an object. There is one, as a rule.
pub(super) struct UnwindTables<'a> {
    headers: &'a [Header],
    homes: Option<Homes>,
    /// How many bytes may still be read: tables that overlap are read again and again.
    bytes_left: usize,
}

impl<'a> UnwindTables<'a> {
    pub(super) fn of(object: &[u8], headers: &'a [Header]) -> Self {
        UnwindTables { headers, homes: None, bytes_left: object.len() }
    }

    /// Adds a relocation for each pointer that has none.
    pub(super) fn add_relocations(&mut self, input: &mut RelocationInput<'_>) -> Result<(), LoadError> {
        let Some(left) = self.bytes_left.checked_sub(input.bytes.len()) else {
            return Err(LoadError::malformed("unwind tables", "together they are larger than the object"));
        };
        self.bytes_left = left;
        let homes = self.homes.get_or_insert_with(|| Homes::of(self.headers));
        let mut relocated: Vec<u32> =
            input.entries.iter().map(|entry| entry.r_word0.get(super::LE)).collect();
        relocated.sort_unstable();
        let own = section::address(&self.headers[input.section as usize - 1]);
        let mut added: Vec<Relocation> = Vec::new();
        eh_frame::relative_pointers(input.bytes, |offset, size, value| {
            let is_relocated =
                u32::try_from(offset).is_ok_and(|offset| relocated.binary_search(&offset).is_ok());
            let target = own.wrapping_add(offset as u64).wrapping_add(value);
            // Language-specific data that is not there is a zero; what is in no section is left to whoever reads it.
            let found = homes.find(target).filter(|_| value != 0 && !is_relocated && matches!(size, 4 | 8));
            if let Some((section, target)) = found {
                added.push(input.pointer_from_here(offset as u64, size == 8, section, target));
            }
        });
        input.added = added;
        Ok(())
    }
}

/// Where sections are in the object, by address.
struct Homes {
    /// Start, end and number.
    sections: Vec<(u64, u64, u32)>,
}

impl Homes {
    fn of(headers: &[Header]) -> Self {
        let ranges = headers.iter().zip(1..).map(|(header, number)| {
            let start = section::address(header);
            (start, start.saturating_add(header.size.get(super::LE)), number)
        });
        let mut sections: Vec<_> = ranges.filter(|(start, end, _)| start < end).collect();
        sections.sort_unstable();
        Homes { sections }
    }

    /// The section that has an address, and the offset in it.
    fn find(&self, address: u64) -> Option<(u32, u64)> {
        let behind = self.sections.partition_point(|(start, ..)| *start <= address);
        let (start, end, number) = self.sections[behind.checked_sub(1)?];
        (address < end).then(|| (number, address - start))
    }
}
