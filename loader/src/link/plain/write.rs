//! Copies sections into the image, and fixes each up while it is still in the cache.

use object::elf::{SHT_NOBITS, SHT_RELA};
use object::read::elf::{Rela as _, SectionHeader as _};

use super::externals::{Access, Externals, Waiting};
use super::sections::Sections;
use super::symbols::{Symbols, Target};
use super::{FileHeader, ORDER, Relocation};
use crate::arch::{Architecture, Fixup, Operand, Relaxed, Simple, SlotKind};
use crate::graph::{self, Format};
use crate::limits::Limits;
use crate::link::write::{fill, simple_field};
use crate::memory::{Segment, WorkingMemory};
use crate::read::elf::{content, section_table};

/// Writes all but what waits for addresses of others.
#[inline(never)]
pub(super) fn write<'a, A: Architecture>(
    object: &'a [u8],
    sections: &mut Sections<'a>,
    symbols: &Symbols<'a>,
    externals: &mut Externals<'a>,
    bases: [u64; 3],
    limits: &Limits,
    working: &mut [WorkingMemory<'_>; 3],
) -> Option<()> {
    let mut ends = [0; 3];
    let (mut relocations_left, mut bytes_left) = (limits.relocations, object.len());
    for (number, header) in sections.headers.iter().enumerate() {
        if let Some(segment) = sections.places[number].segment {
            if header.sh_type(ORDER) != SHT_NOBITS {
                let content = content::<FileHeader>(object, header, "").ok()?;
                let start = sections.places[number].offset as usize;
                let (end, memory) = (&mut ends[segment.index()], &mut working[segment.index()]);
                fill::<A>(segment, memory, *end, start);
                *end = start + content.len();
                memory.bytes[start..*end].copy_from_slice(content);
            }
            continue;
        }
        if header.sh_type(ORDER) != SHT_RELA || header.sh_size(ORDER) == 0 {
            continue;
        }
        let target = header.sh_info(ORDER) as usize;
        let place = sections.places.get_mut(target)?;
        let Some(segment) = place.segment else { continue };
        // Nothing that was copied later, and nothing twice.
        if place.is_fixed_up || target > number || header.sh_link(ORDER) as usize != sections.symbol_table {
            return None;
        }
        place.is_fixed_up = true;
        let relocations: &[Relocation] = section_table::<FileHeader, _>(object, header, &"").ok()?;
        relocations_left = relocations_left.checked_sub(relocations.len() as u64)?;
        bytes_left = bytes_left.checked_sub(size_of_val(relocations))?;
        let start = place.offset as usize;
        let mut section = Section {
            number: target as u32,
            segment,
            address: place.address(bases)?,
            bytes: &mut working[segment.index()].bytes[start..start + place.size as usize],
        };
        section.fix_up::<A>(relocations, symbols.targets(), externals)?;
    }
    for segment in Segment::ALL {
        let memory = &mut working[segment.index()];
        let end = memory.bytes.len();
        fill::<A>(segment, memory, ends[segment.index()], end);
    }
    Some(())
}

/// A section in the image.
struct Section<'w> {
    number: u32,
    segment: Segment,
    address: u64,
    bytes: &'w mut [u8],
}

/// The addend of a plain reference to what others define, at most.
pub(super) const FARTHEST: u64 = 1 << 24;

impl Section<'_> {
    /// Fixes up what refers to the image itself, and notes what refers to others.
    // On its own, so that what it works with stays in registers.
    #[inline(never)]
    fn fix_up<'a, A: Architecture>(
        &mut self,
        relocations: &'a [Relocation],
        targets: &[Target],
        externals: &mut Externals<'a>,
    ) -> Option<()> {
        let kinds = A::simple(Format::Elf);
        for relocation in relocations {
            let target = *targets.get(relocation.r_sym(ORDER, false) as usize)?;
            let simple = kinds.find(relocation.r_type(ORDER, false).0);
            let offset = relocation.r_offset(ORDER);
            match target.address().zip(simple) {
                Some((target, simple)) => {
                    let (place, addend) = (self.address.wrapping_add(offset), relocation.r_addend(ORDER));
                    let fixup = Fixup { place, target, addend, ..Fixup::default() };
                    simple_field(simple, fixup, self.bytes, offset)?;
                }
                None => self.fix_up_otherwise::<A>(relocation, target, externals)?,
            }
        }
        Some(())
    }

    #[inline(never)]
    fn fix_up_otherwise<'a, A: Architecture>(
        &mut self,
        relocation: &'a Relocation,
        target: Target,
        externals: &mut Externals<'a>,
    ) -> Option<()> {
        let raw = relocation.r_type(ORDER, false).0;
        let (offset, addend) = (relocation.r_offset(ORDER), relocation.r_addend(ORDER));
        let kind = A::kind(Format::Elf, raw).ok()?;
        let operand = A::operand(kind);
        if operand == Operand::None {
            return Some(());
        }
        let place = self.address.wrapping_add(offset);
        let Some(target) = target.address() else {
            let access = match (A::simple(Format::Elf).find(raw), operand) {
                (Some(Simple::Absolute64), _) => Access::Address,
                (Some(Simple::Branch32), _) => Access::Branch,
                (Some(Simple::Relative32), _) if self.is_branch::<A>(offset, addend) => Access::Branch,
                (None, Operand::Slot(SlotKind::Address)) => Access::Slot,
                _ => return None,
            };
            // Resolvers are asked once, so it must be known now that the field takes what comes.
            let trial = Fixup { place, target: place, addend, got: place, ..Fixup::default() };
            A::apply(kind, self.bytes, offset, trial).ok()?;
            let is_plain = target.is_external() && addend.unsigned_abs() <= FARTHEST;
            return is_plain.then(|| externals.wait(Waiting { section: self.number, relocation, access }));
        };
        if operand != Operand::Slot(SlotKind::Address) {
            return None;
        }
        let current = graph::Relocation {
            offset,
            raw_kind: raw,
            symbol: relocation.r_sym(ORDER, false),
            addend,
            subtrahend: graph::Relocation::NO_SYMBOL,
        };
        let direct = Fixup { place, target, addend, ..Fixup::default() };
        (A::relax(kind, &current, None, self.bytes, direct) == Relaxed::This).then_some(())
    }

    /// Whether the place is the target of a call or a jump.
    fn is_branch<A: Architecture>(&self, offset: u64, addend: i64) -> bool {
        self.segment == Segment::Code && A::is_branch(self.bytes, offset, addend)
    }
}
