//! Fix-ups alone, of what a linker puts into a shared library: its dynamic relocations say what the GOT entries hold.

use std::cell::Cell;

use objcache_loader::FixupProblem;
use objcache_loader::fixups::{self, Reference};

use super::{Batch, Refusal};
use crate::case::Case;
use crate::lld::LinkedFile;
use crate::machine::Second;

impl Batch {
    /// Does the case's relocations, with the GOT entries where the linker has them.
    pub(super) fn fix_up(&self, number: usize, case: &Case, linked: &LinkedFile) -> Result<Vec<u8>, Refusal> {
        let first = Reference {
            machine: self.machine.architecture(),
            kind: case.kind.number,
            place: case.section + case.offset as u64,
            addend: self.machine.target.explicit_addends.then_some(case.addend),
            got: self.places.got,
            thread_local: !case.kind.imported,
        };
        let refusal = |problem: FixupProblem| Refusal { by_fixup: true, why: problem.to_string() };
        let mut bytes = case.bytes.clone();
        let target = |operand: &str| self.target(operand, number, case, linked);
        // What a low part refers to by the place of the high one.
        let value = Cell::new(0);
        let remembered = |operand: &str| {
            value.set(target(operand));
            value.get()
        };
        fixups::fix_up(first, &mut bytes, case.offset as u64, remembered).map_err(refusal)?;
        let low = case.low() as u64;
        match case.kind.second {
            Second::Low { number, .. } => {
                let low_target =
                    |operand: &str| if operand == "PairedLow" { value.get() } else { target(operand) };
                let second = Reference { kind: number, ..first };
                fixups::fix_up(second, &mut bytes, low, low_target).map_err(refusal)?;
            }
            Second::Next { number, .. } => {
                let second = Reference { kind: number, place: case.section + low, ..first };
                fixups::fix_up(second, &mut bytes, low, target).map_err(refusal)?;
            }
            _ => {}
        }
        Ok(bytes)
    }

    /// What the loader makes a value from, by its name for that.
    fn target(&self, operand: &str, number: usize, case: &Case, linked: &LinkedFile) -> u64 {
        let dynamic = &self.machine.dynamic;
        let own = format!("s{number}");
        let slot = |kind: u32, symbol: &str| {
            let found = linked.dynamic.iter().find(|slot| slot.kind == kind && slot.symbol == symbol);
            found.map(|slot| slot.address)
        };
        let instead =
            |symbol: &str| slot(dynamic.module, symbol).filter(|_| self.machine.swaps_local_dynamic);
        let slot = match operand {
            "None" => return 0,
            "Got" => return self.places.got,
            "BlockOffset" => return case.symbol.value,
            "Slot(ThreadModule)" => slot(dynamic.module, "").or_else(|| instead(&own)),
            "Slot(ThreadIndex)" => slot(dynamic.module, &own).or_else(|| instead("")),
            "Slot(BlockOffset)" => slot(dynamic.block_offset, &own)
                .or_else(|| self.slot_with(case.symbol.value.wrapping_sub(self.machine.block_bias), linked)),
            "Slot(ThreadOffset)" => slot(dynamic.thread_offset, &own),
            "Slot(ThreadDescriptor)" => slot(dynamic.descriptor, &own),
            "Slot(Address)" => slot(dynamic.jump_slot, &own),
            other => panic!("{case}: {other}"),
        };
        slot.unwrap_or_else(|| panic!("{case}: the linker has no GOT entry for {operand}"))
    }

    /// The GOT entry that holds a number.
    fn slot_with(&self, number: u64, linked: &LinkedFile) -> Option<u64> {
        let word = self.machine.target.word();
        let number = self.machine.target.number(number, word);
        let (address, got) = &linked.sections[".got"];
        let slot = got.chunks_exact(word).position(|slot| slot == number)?;
        Some(address + (slot * word) as u64)
    }
}
