//! Accesses to a program's own thread-local variables, made local-exec (ELF V2 ABI, 3.7.4, "Thread-Local Storage Link
//! Editor Optimizations"). The thread pointer is r13.
//!
//! Code for Power10 has another sequence, with other marks: at a call the relocation of the call itself tells them apart,
//! elsewhere the mark stands one byte into its instruction. A local-dynamic access keeps its offsets in the block, so the block's address becomes one that they count from.

use super::Field::*;
use super::Value::*;
use super::{BLOCK, INDEX, Kind, MODULE, NOP, OFFSET, prefix34};
use crate::arch::{
    CallRole, Fixup, LocalExec, LocalExecForm, LocalExecOperand, ThreadModel, bytes_at, change_u32, field,
};
use crate::error::FixupProblem;

const ADDIS_3_13: u32 = 0x3c6d_0000; // addis 3,13,0
const ADDIS_0_13: u32 = 0x3c0d_0000; // addis 0,13,0
const ADDI_3_3: u32 = 0x3863_0000; // addi 3,3,0
const PADDI: u32 = 0x0600_0000; // prefix of paddi without pc
const PADDI_3_13: u32 = 0x386d_0000; // its instruction, r3 and r13
const PADDI_0_13: u32 = 0x380d_0000;
/// From the thread pointer to what offsets in the block count from.
const BLOCK_FROM_POINTER: u32 = 0x1000;
/// RT, RS.
const TARGET: u32 = 0x03e0_0000;

pub(super) fn of(kind: Kind) -> Option<LocalExec> {
    use CallRole::{Call, Needed};
    use LocalExecOperand::Nothing;
    use ThreadModel::{GeneralDynamic, InitialExec, LocalDynamic};
    Some(match (kind.value, kind.field) {
        (Slot(INDEX), Ha | Half | Lo) | (SlotRelative(INDEX), Prefix34) => {
            LocalExec::part(GeneralDynamic).with(Needed)
        }
        (GdMarker, _) => LocalExec::part(GeneralDynamic).with(Call),
        (Slot(INDEX) | SlotRelative(INDEX), _) => LocalExec::stays(GeneralDynamic),
        (Slot(MODULE), Ha | Half | Lo) | (SlotRelative(MODULE), Prefix34) => {
            LocalExec::part(LocalDynamic).of(Nothing).with(Needed)
        }
        (LdMarker, _) => LocalExec::part(LocalDynamic).of(Nothing).with(Call),
        (Slot(MODULE) | SlotRelative(MODULE), _) => LocalExec::stays(LocalDynamic),
        (Slot(OFFSET), Ha | HalfDs | LoDs) | (SlotRelative(OFFSET), Prefix34) | (TlsMarker, _) => {
            LocalExec::part(InitialExec)
        }
        (Slot(OFFSET) | SlotRelative(OFFSET), _) => LocalExec::stays(InitialExec),
        (Slot(BLOCK), _) => return None,
        _ => return None,
    })
}

fn word_at(section: &[u8], offset: u64) -> Option<u32> {
    bytes_at(section, offset).ok().map(u32::from_le_bytes)
}

/// The call is one from code without a TOC.
fn is_without_toc(next: Option<Kind>) -> bool {
    next.is_some_and(|next| next.value == CallNoToc)
}

/// The instruction that a mark means, and whether it is one of code without a TOC.
fn marked(offset: u64) -> Option<(u64, bool)> {
    match offset % 4 {
        0 => Some((offset, false)),
        1 => Some((offset - 1, true)),
        _ => None,
    }
}

pub(super) fn form(kind: Kind, next: Option<Kind>, section: &[u8], offset: u64) -> LocalExecForm {
    known_form(kind, next, section, offset).unwrap_or(LocalExecForm::Foreign)
}

fn known_form(kind: Kind, next: Option<Kind>, section: &[u8], offset: u64) -> Option<LocalExecForm> {
    let opcode = |number: u32| word_at(section, offset).is_some_and(|word| word >> 26 == number);
    Some(match (kind.value, kind.field) {
        // addis x,2; addi 3,x.
        (Slot(INDEX | MODULE), Ha) => {
            LocalExecForm::alone(word_at(section, offset)? & 0xfc1f_0000 == 0x3c02_0000)
        }
        (Slot(INDEX | MODULE), _) => {
            LocalExecForm::alone(word_at(section, offset)? & 0xffe0_0000 == 0x3860_0000)
        }
        // paddi 3,0,0,1.
        (SlotRelative(INDEX | MODULE), _) => {
            let suffix = word_at(section, offset.checked_add(4)?)?;
            LocalExecForm::alone(opcode(1) && suffix & 0xffff_0000 == 0x3860_0000)
        }
        // bl, and a nop unless the code is without a TOC.
        (GdMarker | LdMarker, _) => {
            let is_call = word_at(section, offset)? & 0xfc00_0003 == 0x4800_0001;
            let has_nop = is_without_toc(next) || word_at(section, offset.checked_add(4)?) == Some(NOP);
            if is_call && has_nop { LocalExecForm::WithCall(offset) } else { LocalExecForm::Foreign }
        }
        (Slot(OFFSET), Ha) => LocalExecForm::alone(word_at(section, offset)? & 0xfc1f_0000 == 0x3c02_0000),
        // ld.
        (Slot(OFFSET), _) => LocalExecForm::alone(opcode(58) && word_at(section, offset)? & 3 == 0),
        // pld.
        (SlotRelative(OFFSET), _) => {
            let suffix = word_at(section, offset.checked_add(4)?)?;
            LocalExecForm::alone(opcode(1) && suffix >> 26 == 57)
        }
        // An instruction whose second operand is r13.
        (TlsMarker, _) => {
            let word = word_at(section, marked(offset)?.0)?;
            LocalExecForm::alone(word >> 11 & 0x1f == 13 && with_displacement(word).is_some())
        }
        _ => LocalExecForm::Foreign,
    })
}

/// The instruction that has a displacement where this one has a second register, and the field that it is in (Power ISA,
/// "Load and Store Instructions").
fn with_displacement(word: u32) -> Option<(u32, super::Field)> {
    if word >> 26 != 31 {
        return None;
    }
    let (opcode, field) = match word >> 1 & 0x3ff {
        87 => (34 << 26, Lo),        // lbzx
        279 => (40 << 26, Lo),       // lhzx
        23 => (32 << 26, Lo),        // lwzx
        215 => (38 << 26, Lo),       // stbx
        407 => (44 << 26, Lo),       // sthx
        151 => (36 << 26, Lo),       // stwx
        343 => (42 << 26, Lo),       // lhax
        535 => (48 << 26, Lo),       // lfsx
        599 => (50 << 26, Lo),       // lfdx
        663 => (52 << 26, Lo),       // stfsx
        727 => (54 << 26, Lo),       // stfdx
        ADD => (14 << 26, Lo),       // add
        341 => (58 << 26 | 2, LoDs), // lwax
        21 => (58 << 26, LoDs),      // ldx
        149 => (62 << 26, LoDs),     // stdx
        _ => return None,
    };
    Some((opcode | word & 0x03ff_0000, field))
}
const ADD: u32 = 266;

pub(super) fn rewrite(
    kind: Kind,
    next: Option<Kind>,
    section: &mut [u8],
    offset: u64,
    fixup: &Fixup,
) -> Result<(), FixupProblem> {
    const OTHER: FixupProblem = FixupProblem::Unsupported("this access to a thread-local variable");
    let value = fixup.absolute() as i64;
    let is_general = matches!(kind.value, Slot(INDEX) | SlotRelative(INDEX) | GdMarker);
    match (kind.value, kind.field) {
        (Slot(_), Ha) => change_u32(section, offset, |_| Ok(NOP)),
        (Slot(INDEX | MODULE), _) => {
            change_u32(section, offset, |_| Ok(ADDIS_3_13))?;
            if is_general { Ha.write(section, offset, value) } else { Ok(()) }
        }
        (SlotRelative(INDEX | MODULE), _) => {
            prefixed(section, offset, PADDI_3_13, if is_general { value } else { BLOCK_FROM_POINTER.into() })
        }
        (GdMarker | LdMarker, _) => {
            change_u32(section, offset, |_| Ok(NOP))?;
            if is_without_toc(next) {
                return Ok(());
            }
            let after = offset.wrapping_add(4);
            change_u32(section, after, |_| Ok(ADDI_3_3 | BLOCK_FROM_POINTER))?;
            if is_general { Lo.write(section, after, value) } else { Ok(()) }
        }
        (Slot(OFFSET), _) => {
            change_u32(section, offset, |word| Ok(ADDIS_0_13 | word & TARGET))?;
            Ha.write(section, offset, value)
        }
        (SlotRelative(OFFSET), _) => {
            let suffix: [u8; 4] = bytes_at(section, offset.wrapping_add(4))?;
            prefixed(section, offset, PADDI_0_13 | u32::from_le_bytes(suffix) & TARGET, value)
        }
        (TlsMarker, _) => {
            let (place, is_without_toc) = marked(offset).ok_or(OTHER)?;
            let word = u32::from_le_bytes(bytes_at(section, place)?);
            let (mut replaced, field) = with_displacement(word).ok_or(OTHER)?;
            if is_without_toc && word >> 1 & 0x3ff == ADD {
                // The sum is there already.
                let (target, base) = (word >> 21 & 0x1f, word >> 16 & 0x1f);
                let move_register = 0x7c00_0378 | base << 21 | target << 16 | base << 11; // mr
                replaced = if target == base { NOP } else { move_register };
            }
            change_u32(section, place, |_| Ok(replaced))?;
            if is_without_toc { Ok(()) } else { field.write(section, place, value) }
        }
        _ => Err(OTHER),
    }
}

/// `paddi` with that value.
fn prefixed(section: &mut [u8], offset: u64, instruction: u32, value: i64) -> Result<(), FixupProblem> {
    let whole: &mut [u8; 8] = field(section, offset)?;
    *whole = (u64::from(instruction) << 32 | u64::from(PADDI)).to_le_bytes();
    prefix34(section, offset, crate::arch::signed(value, 34)?)
}
