//! Accesses to a program's own thread-local variables, made local-exec (psABI, "Thread-Local Storage", its tables of code
//! transitions). All keep their length.
//!
//! Fields of the dynamic forms are relative to their end, so that their addends are -4; those of the new ones are not.

use super::Kind;
use crate::arch::{CallRole, Fixup, LocalExec, LocalExecForm, ThreadModel, bytes_at, field, signed};
use crate::error::FixupProblem;

const MOV: u8 = 0x8b;
const ADD: u8 = 0x03;
const LEA: u8 = 0x8d;
const REX2: u8 = 0xd5;
const EVEX: u8 = 0x62;
/// `mov $constant, %register` and `add $constant, %register`.
const MOV_CONSTANT: u8 = 0xc7;
const ADD_CONSTANT: u8 = 0x81;
/// A prefix that changes nothing here.
const DATA16: u8 = 0x66;
/// `mov %fs:0, %rax`.
const THREAD_POINTER: [u8; 9] = [0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0];

pub(super) fn of(kind: Kind) -> Option<LocalExec> {
    Some(match kind {
        Kind::TlsGd => LocalExec::part(ThreadModel::GeneralDynamic),
        Kind::TlsLd => LocalExec::part(ThreadModel::LocalDynamic).of(crate::arch::LocalExecOperand::Nothing),
        Kind::DtpOff32 | Kind::DtpOff64 => LocalExec::part(ThreadModel::LocalDynamic),
        Kind::GotTpOff | Kind::Code4GotTpOff | Kind::Code6GotTpOff => {
            LocalExec::part(ThreadModel::InitialExec)
        }
        Kind::TlsDesc | Kind::Code4TlsDesc => LocalExec::part(ThreadModel::Descriptor).with(CallRole::Needed),
        Kind::TlsDescCall => LocalExec::part(ThreadModel::Descriptor).with(CallRole::Call),
        _ => return None,
    })
}

/// `N` bytes that end right before the field.
fn before<const N: usize>(section: &[u8], offset: u64) -> Option<[u8; N]> {
    bytes_at(section, offset.checked_sub(N as u64)?).ok()
}

/// Whether the operand is at a distance from the next instruction.
fn is_relative_to_next(modrm: u8) -> bool {
    modrm & 0xc7 == 0x05
}

pub(super) fn form(kind: Kind, section: &[u8], offset: u64) -> Option<LocalExecForm> {
    let after = offset.checked_add(4)?;
    Some(match kind {
        // data16 lea x@tlsgd(%rip), %rdi; then data16 data16 rex.W call __tls_get_addr@plt, or
        // data16 rex.W call *__tls_get_addr@gotpcrel(%rip).
        Kind::TlsGd if before(section, offset)? == [DATA16, 0x48, LEA, 0x3d] => {
            match bytes_at::<8>(section, after).ok()? {
                [DATA16, DATA16, 0x48, 0xe8, ..] | [DATA16, 0x48, 0xff, 0x15, _, _, _, _] => {
                    LocalExecForm::WithCall(offset.checked_add(8)?)
                }
                _ => LocalExecForm::Foreign,
            }
        }
        // lea x@tlsld(%rip), %rdi; then call __tls_get_addr@plt, or call *__tls_get_addr@gotpcrel(%rip).
        Kind::TlsLd if before(section, offset)? == [0x48, LEA, 0x3d] => {
            match (bytes_at::<5>(section, after).ok()?, bytes_at::<6>(section, after)) {
                ([0xe8, ..], _) => LocalExecForm::WithCall(offset.checked_add(5)?),
                (_, Ok([0xff, 0x15, ..])) => LocalExecForm::WithCall(offset.checked_add(6)?),
                _ => LocalExecForm::Foreign,
            }
        }
        Kind::DtpOff32 | Kind::DtpOff64 => LocalExecForm::Alone,
        // mov or add x@gottpoff(%rip), %register.
        Kind::GotTpOff => {
            let [rex, opcode, modrm] = before(section, offset)?;
            let is_one = matches!(rex, 0x48 | 0x4c) && matches!(opcode, MOV | ADD);
            LocalExecForm::alone(is_one && is_relative_to_next(modrm))
        }
        Kind::Code4GotTpOff => {
            let [rex2, _, opcode, modrm] = before(section, offset)?;
            let is_one = rex2 == REX2 && matches!(opcode, MOV | ADD);
            LocalExecForm::alone(is_one && is_relative_to_next(modrm))
        }
        // add x@gottpoff(%rip), %register, %register and add %register, x@gottpoff(%rip), %register; without flags or not.
        Kind::Code6GotTpOff => {
            let [evex, p0, p1, p2, opcode, modrm] = before(section, offset)?;
            let is_one = evex == EVEX
                && p0 & 0x47 == 0x44
                && p1 & 0x87 == 0x84
                && p2 & 0x14 != 0
                && matches!(opcode, 0x01 | ADD);
            LocalExecForm::alone(is_one && is_relative_to_next(modrm))
        }
        // lea x@tlsdesc(%rip), %register.
        Kind::TlsDesc => {
            let [rex, opcode, modrm] = before(section, offset)?;
            LocalExecForm::alone(rex & 0xfb == 0x48 && opcode == LEA && is_relative_to_next(modrm))
        }
        Kind::Code4TlsDesc => {
            let [rex2, _, opcode, modrm] = before(section, offset)?;
            LocalExecForm::alone(rex2 == REX2 && opcode == LEA && is_relative_to_next(modrm))
        }
        // call *x@tlscall(%register).
        Kind::TlsDescCall => match bytes_at(section, offset).ok()? {
            [0xff, modrm] => LocalExecForm::alone(modrm & 0xf8 == 0x10),
            _ => LocalExecForm::Foreign,
        },
        _ => LocalExecForm::Foreign,
    })
}

pub(super) fn rewrite(
    kind: Kind,
    section: &mut [u8],
    offset: u64,
    fixup: &Fixup,
) -> Result<(), FixupProblem> {
    let back = |bytes| offset.checked_sub(bytes).ok_or(FixupProblem::OutsideSection);
    let value = |end: i64| signed((fixup.absolute() as i64).wrapping_add(end), 32).map(|value| value as i32);
    match kind {
        // mov %fs:0, %rax; lea x@tpoff(%rax), %rax.
        Kind::TlsGd => {
            let [a, b, c, d] = value(4)?.to_le_bytes();
            let instructions: &mut [u8; 16] = field(section, back(4)?)?;
            instructions[..9].copy_from_slice(&THREAD_POINTER);
            instructions[9..].copy_from_slice(&[0x48, LEA, 0x80, a, b, c, d]);
        }
        // mov %fs:0, %rax, with prefixes to fill.
        Kind::TlsLd => {
            let is_direct = bytes_at(section, back(0)?.wrapping_add(4)) == Ok([0xe8]);
            if is_direct {
                let instruction: &mut [u8; 12] = field(section, back(3)?)?;
                instruction[..3].fill(DATA16);
                instruction[3..].copy_from_slice(&THREAD_POINTER);
            } else {
                let instruction: &mut [u8; 13] = field(section, back(3)?)?;
                instruction[..4].fill(DATA16);
                instruction[4..].copy_from_slice(&THREAD_POINTER);
            }
        }
        // x@tpoff instead of x@dtpoff.
        Kind::DtpOff32 => *field(section, offset)? = value(0)?.to_le_bytes(),
        Kind::DtpOff64 => *field(section, offset)? = fixup.absolute().to_le_bytes(),
        Kind::GotTpOff => {
            let value = value(4)?;
            let instruction: &mut [u8; 7] = field(section, back(3)?)?;
            let [rex, opcode, modrm, constant @ ..] = instruction;
            *constant = value.to_le_bytes();
            let register = *modrm >> 3 & 7;
            const STACK_POINTER: u8 = 4;
            // Whether the register is one of the upper eight.
            let upper = *rex >> 2 & 1;
            (*rex, *opcode, *modrm) = match *opcode {
                MOV => (0x48 | upper, MOV_CONSTANT, 0xc0 | register),
                // A base of that number would need a byte more.
                _ if register == STACK_POINTER => (0x48 | upper, ADD_CONSTANT, 0xc0 | register),
                _ => (0x48 | upper << 2 | upper, LEA, 0x80 | register << 3 | register),
            };
        }
        Kind::Code4GotTpOff => {
            let value = value(4)?;
            let instruction: &mut [u8; 8] = field(section, back(4)?)?;
            let [_, payload, opcode, modrm, constant @ ..] = instruction;
            *constant = value.to_le_bytes();
            *payload = register_to_base(*payload);
            *opcode = if *opcode == MOV { MOV_CONSTANT } else { ADD_CONSTANT };
            *modrm = 0xc0 | *modrm >> 3 & 7;
        }
        Kind::Code6GotTpOff => {
            let value = value(4)?;
            let instruction: &mut [u8; 10] = field(section, back(6)?)?;
            let [_, payload, _, _, opcode, modrm, constant @ ..] = instruction;
            *constant = value.to_le_bytes();
            // R3 and R4, inverted, move to the places of B3 and, not inverted, B4.
            let (r3, r4) = (*payload >> 7 & 1, *payload >> 4 & 1);
            *payload = *payload & 0x47 | 0x90 | r3 << 5 | (r4 ^ 1) << 3;
            *opcode = ADD_CONSTANT;
            *modrm = 0xc0 | *modrm >> 3 & 7;
        }
        // mov $x@tpoff, %register.
        Kind::TlsDesc => {
            let value = value(4)?;
            let instruction: &mut [u8; 7] = field(section, back(3)?)?;
            let [rex, opcode, modrm, constant @ ..] = instruction;
            *constant = value.to_le_bytes();
            (*rex, *opcode, *modrm) = (0x48 | *rex >> 2 & 1, MOV_CONSTANT, 0xc0 | *modrm >> 3 & 7);
        }
        Kind::Code4TlsDesc => {
            let value = value(4)?;
            let instruction: &mut [u8; 8] = field(section, back(4)?)?;
            let [_, payload, opcode, modrm, constant @ ..] = instruction;
            *constant = value.to_le_bytes();
            *payload = register_to_base(*payload);
            (*opcode, *modrm) = (MOV_CONSTANT, 0xc0 | *modrm >> 3 & 7);
        }
        // xchg %ax, %ax.
        Kind::TlsDescCall => *field(section, offset)? = [DATA16, 0x90],
        _ => return Err(FixupProblem::Unsupported("this access to a thread-local variable")),
    }
    Ok(())
}

/// A REX2 prefix whose bits R are those of B.
fn register_to_base(payload: u8) -> u8 {
    payload & !0x44 | (payload & 0x44) >> 2
}
