//! Accesses to a program's own thread-local variables, made local-exec (aaelf64, "Relocation operations" of thread-local
//! storage, and the sequences of its section "TLS descriptors"): the offset goes into the register with MOVZ and MOVK.
//!
//! General- and local-dynamic accesses without descriptors stay: `ld.lld` does not know them at all.

use super::{Field, Kind, SlotKind, Value};
use crate::arch::{
    CallRole, Fixup, LocalExec, LocalExecForm, ThreadModel, bytes_at, change_u32, insert, unsigned,
};
use crate::error::FixupProblem;

const NOP: u32 = 0xd503_201f;
/// `movz x0, #0, lsl #16` and `movk x0, #0`.
const MOVZ_16: u32 = 0xd2a0_0000;
const MOVK: u32 = 0xf280_0000;

/// A part of an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// ADRP of a descriptor to x0.
    DescriptorPage,
    /// LDR of its function, by x0.
    DescriptorLoad,
    /// ADD of its low bits to x0.
    DescriptorAdd,
    /// BLR.
    DescriptorCall,
    /// ADRP of a GOT entry.
    OffsetPage,
    /// LDR of it to the register of its address.
    OffsetLoad,
}

fn part(kind: Kind) -> Option<Part> {
    const DESCRIPTOR: SlotKind = SlotKind::ThreadDescriptor;
    const OFFSET: SlotKind = SlotKind::ThreadOffset;
    Some(match (kind.value, kind.field) {
        (Value::SlotPage(DESCRIPTOR), Field::Adrp) => Part::DescriptorPage,
        (Value::Slot(DESCRIPTOR), Field::Low12 { scale: 3 }) => Part::DescriptorLoad,
        (Value::Slot(DESCRIPTOR), Field::Low12 { scale: 0 }) => Part::DescriptorAdd,
        (Value::DescriptorCall, _) => Part::DescriptorCall,
        (Value::SlotPage(OFFSET), Field::Adrp) => Part::OffsetPage,
        (Value::Slot(OFFSET), Field::Low12 { scale: 3 }) => Part::OffsetLoad,
        _ => return None,
    })
}

pub(super) fn of(kind: Kind) -> Option<LocalExec> {
    Some(match (part(kind), kind.value) {
        (Some(Part::DescriptorCall), _) => LocalExec::part(ThreadModel::Descriptor).with(CallRole::Call),
        (Some(Part::OffsetPage | Part::OffsetLoad), _) => LocalExec::part(ThreadModel::InitialExec),
        (Some(_), _) => LocalExec::part(ThreadModel::Descriptor).with(CallRole::Needed),
        // The tiny and the large code model.
        (
            None,
            Value::SlotRelative(SlotKind::ThreadDescriptor) | Value::SlotFromGot(SlotKind::ThreadDescriptor),
        ) => LocalExec::stays(ThreadModel::Descriptor),
        _ => return None,
    })
}

pub(super) fn form(kind: Kind, section: &[u8], offset: u64) -> LocalExecForm {
    let Ok(word) = bytes_at(section, offset).map(u32::from_le_bytes) else { return LocalExecForm::Foreign };
    let (first, second) = (word & 0x1f, word >> 5 & 0x1f);
    LocalExecForm::alone(match part(kind) {
        Some(Part::DescriptorPage) => word & 0x9f00_001f == 0x9000_0000,
        Some(Part::DescriptorLoad) => word & 0xffc0_03e0 == 0xf940_0000,
        Some(Part::DescriptorAdd) => word & 0xffc0_03ff == 0x9100_0000,
        Some(Part::DescriptorCall) => word & 0xffff_fc1f == 0xd63f_0000,
        Some(Part::OffsetPage) => word & 0x9f00_0000 == 0x9000_0000,
        Some(Part::OffsetLoad) => word & 0xffc0_0000 == 0xf940_0000 && first == second,
        None => false,
    })
}

pub(super) fn rewrite(
    kind: Kind,
    section: &mut [u8],
    offset: u64,
    fixup: &Fixup,
) -> Result<(), FixupProblem> {
    let part = part(kind).ok_or(FixupProblem::Unsupported("this access to a thread-local variable"))?;
    let value = unsigned(fixup.absolute(), 32)?;
    let high = insert(MOVZ_16, 5, 16, value >> 16);
    let low = insert(MOVK, 5, 16, value);
    change_u32(section, offset, |word| {
        Ok(match part {
            Part::DescriptorPage => high,
            Part::DescriptorLoad => low,
            Part::DescriptorAdd | Part::DescriptorCall => NOP,
            Part::OffsetPage => high | word & 0x1f,
            Part::OffsetLoad => low | word & 0x1f,
        })
    })
}
