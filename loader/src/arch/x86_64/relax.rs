//! Accesses through the GOT that become direct ones (psABI, "Optimize GOTPCRELX Relocations").
//!
//! The assembler marks the instructions that may be changed. They all have the form prefix, opcode, ModRM, field, and keep
//! their length: what follows stays where it is.

use super::Kind;
use crate::arch::{Fixup, bytes_at, field};

/// The addend of a field that ends its instruction and takes in the whole entry.
const WHOLE_ENTRY: i64 = -4;

const MOV: u8 = 0x8b;
const LEA: u8 = 0x8d;
const TEST: u8 = 0x85;
/// `call`, `jmp` and others, by the middle bits of the ModRM byte.
const GROUP_5: u8 = 0xff;
const CALL_INDIRECT: u8 = 0x15;
const JMP_INDIRECT: u8 = 0x25;
const CALL: u8 = 0xe8;
const JMP: u8 = 0xe9;
const ADDR32: u8 = 0x67;
const NOP: u8 = 0x90;

/// Changes an instruction with its field, if that can be done: `fixup.target` is the symbol itself.
pub(super) fn got_access(kind: Kind, section: &mut [u8], offset: u64, fixup: &Fixup) -> Option<()> {
    if fixup.addend != WHOLE_ENTRY {
        return None;
    }
    let [opcode, modrm] = bytes_at(section, offset.checked_sub(2)?).ok()?;
    let relative = i32::try_from(fixup.relative());
    match (opcode, modrm) {
        // mov symbol@GOTPCREL(%rip), %reg: lea symbol(%rip), %reg.
        (MOV, _) if is_relative_to_next(modrm) => replace(section, offset, [LEA, modrm], relative.ok()?),
        // call *symbol@GOTPCREL(%rip): addr32 call symbol, one instruction of the same length.
        (GROUP_5, CALL_INDIRECT) => replace(section, offset, [ADDR32, CALL], relative.ok()?),
        // jmp *symbol@GOTPCREL(%rip): jmp symbol; nop. The field is a byte further ahead.
        (GROUP_5, JMP_INDIRECT) => {
            let [a, b, c, d] = relative.ok()?.checked_add(1)?.to_le_bytes();
            *field(section, offset - 2).ok()? = [JMP, a, b, c, d, NOP];
            Some(())
        }
        _ => with_constant(kind, section, offset, fixup),
    }
}

/// Whether the operand is at a distance from the next instruction.
fn is_relative_to_next(modrm: u8) -> bool {
    modrm & 0xc7 == 0x05
}

fn replace(section: &mut [u8], offset: u64, opcode: [u8; 2], value: i32) -> Option<()> {
    let [a, b, c, d] = value.to_le_bytes();
    let [first, second] = opcode;
    *field(section, offset - 2).ok()? = [first, second, a, b, c, d];
    Some(())
}

/// `test` and the eight operations of one encoding take the address as a constant, if it is one of 32 bits with a sign. The
/// register moves from ModRM.reg to ModRM.rm, and its upper bits move in the prefix.
fn with_constant(kind: Kind, section: &mut [u8], offset: u64, fixup: &Fixup) -> Option<()> {
    let address = i32::try_from(fixup.target as i64).ok()?;
    let instruction = field::<7>(section, offset.checked_sub(3)?).ok()?;
    let [prefix, opcode, modrm, ..] = *instruction;
    // The bits R of the prefix, which move to the place of B.
    let upper = match kind {
        Kind::RexGotPcRelX => 0x04,
        Kind::Code4GotPcRelX => 0x44,
        _ => return None,
    };
    let register = 0xc0 | (modrm & 0x38) >> 3;
    let (opcode, modrm) = match opcode {
        TEST => (0xf7, register),
        // add, or, adc, sbb, and, sub, xor, cmp: the number of the operation moves as well.
        _ if opcode & 0xc7 == 0x03 => (0x81, register | opcode & 0x38),
        _ => return None,
    };
    if !is_relative_to_next(instruction[2]) {
        return None;
    }
    let prefix = prefix & !upper | (prefix & upper) >> 2;
    let [a, b, c, d] = address.to_le_bytes();
    *instruction = [prefix, opcode, modrm, a, b, c, d];
    Some(())
}
