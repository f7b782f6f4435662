//! Relocations that the object leaves out of `__TEXT,__eh_frame`.
//!
//! For x86-64, LLVM's assembler writes the distances from an FDE to its function and to its language-specific data as
//! numbers, right only while all sections are where the object has them; linkers know where to look (`ld64`, and lld
//! after it). Here they become relocations like any other.

use super::relocation::RelocationInput;
use super::section;
use crate::error::LoadError;
use crate::graph::{Relocation, Role};
use crate::limits::Limits;
use crate::unwind::eh_frame;

/// Adds a relocation for each pointer that has none.
pub(super) fn add_relocations(
    input: &mut RelocationInput<'_>,
    role: Role,
    limits: &Limits,
) -> Result<(), LoadError> {
    if role != Role::EhFrame {
        return Ok(());
    }
    let mut relocated: Vec<u32> = input.entries.iter().map(|entry| entry.r_word0.get(super::LE)).collect();
    relocated.sort_unstable();
    let home = Homes::of(input);
    let own = section::address(&input.headers[input.section as usize - 1]);
    let mut added: Vec<Relocation> = Vec::new();
    eh_frame::relative_pointers(input.bytes, |offset, size, value| {
        let is_relocated = u32::try_from(offset).is_ok_and(|offset| relocated.binary_search(&offset).is_ok());
        let target = own.wrapping_add(offset as u64).wrapping_add(value);
        // Language-specific data that is not there is a zero; anything else in no section is left to whoever reads it.
        let found = home.find(target).filter(|_| value != 0 && !is_relocated && matches!(size, 4 | 8));
        if let Some((section, target)) = found {
            added.push(input.pointer_from_here(offset as u64, size == 8, section, target));
        }
    });
    let count = added.len() as u64;
    if count > limits.relocations {
        return Err(LoadError::limit("the number of relocations", count, limits.relocations));
    }
    input.added = added;
    Ok(())
}

/// Where sections are in the object, by address.
struct Homes {
    /// Start, end and number.
    sections: Vec<(u64, u64, u32)>,
}

impl Homes {
    fn of(input: &RelocationInput<'_>) -> Self {
        let ranges = input.headers.iter().zip(1..).map(|(header, number)| {
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
