//! Accesses to a program's own thread-local variables, made local-exec ("ELF Handling For Thread-Local Storage", section
//! 5, "IA-32 Linker Optimizations", and the psABI's descriptors). All keep their length.

use super::{Kind, wrapped};
use crate::arch::{
    CallRole, Fixup, LocalExec, LocalExecForm, LocalExecOperand, ThreadModel, bytes_at, field,
};
use crate::error::FixupProblem;

const MOV: u8 = 0x8b;
const ADD: u8 = 0x03;
const LEA: u8 = 0x8d;
const CALL: u8 = 0xe8;
/// `call`, among others, by the middle bits of the ModRM byte.
const GROUP_5: u8 = 0xff;
/// `mov x, %eax` has an opcode of its own, and so has `mov $x, %eax`.
const MOV_EAX: u8 = 0xa1;
const MOV_CONSTANT_EAX: u8 = 0xb8;
/// `mov $constant, %register` and `add $constant, %register`.
const MOV_CONSTANT: u8 = 0xc7;
const ADD_CONSTANT: u8 = 0x81;
/// `mov %gs:0, %eax`.
const THREAD_POINTER: [u8; 6] = [0x65, 0xa1, 0, 0, 0, 0];

pub(super) fn of(kind: Kind) -> Option<LocalExec> {
    Some(match kind {
        Kind::TlsGd => LocalExec::part(ThreadModel::GeneralDynamic),
        Kind::TlsLdm => LocalExec::part(ThreadModel::LocalDynamic).of(LocalExecOperand::Nothing),
        Kind::TlsLdo32 => LocalExec::part(ThreadModel::LocalDynamic),
        Kind::TlsIe | Kind::TlsGotIe => LocalExec::part(ThreadModel::InitialExec),
        Kind::TlsGotDesc => LocalExec::part(ThreadModel::Descriptor).with(CallRole::Needed),
        Kind::TlsDescCall => LocalExec::part(ThreadModel::Descriptor).with(CallRole::Call),
        _ => return None,
    })
}

/// `N` bytes that end right before the field.
fn before<const N: usize>(section: &[u8], offset: u64) -> Option<[u8; N]> {
    bytes_at(section, offset.checked_sub(N as u64)?).ok()
}

/// Whether the operand is a register and a field of 32 bits, and no more.
fn is_base_and_field(modrm: u8) -> bool {
    modrm & 0xc0 == 0x80 && modrm & 7 != 4
}

/// `lea x(%register), %eax`.
fn is_lea_to_eax([opcode, modrm]: [u8; 2]) -> bool {
    opcode == LEA && modrm & 0x38 == 0 && is_base_and_field(modrm)
}

/// `lea x(, %ebx, 1), %eax`.
const LEA_BY_INDEX: [u8; 3] = [LEA, 0x04, 0x1d];
const NOP: u8 = 0x90;

/// The call after a field, with its relocation: `call ___tls_get_addr@plt` or `call *___tls_get_addr@got(%register)`.
fn call_after(section: &[u8], offset: u64) -> Option<(u8, u64)> {
    let after = offset.checked_add(4)?;
    match bytes_at(section, after).ok()? {
        [CALL, _, _, _, _] => Some((CALL, after.checked_add(1)?)),
        [GROUP_5, modrm, ..] if modrm & 0x38 == 0x10 && is_base_and_field(modrm) => {
            bytes_at::<6>(section, after).ok()?;
            Some((GROUP_5, after.checked_add(2)?))
        }
        _ => None,
    }
}

pub(super) fn form(kind: Kind, section: &[u8], offset: u64) -> Option<LocalExecForm> {
    Some(match kind {
        Kind::TlsGd => {
            let (call, place) = call_after(section, offset)?;
            let by_index = before(section, offset) == Some(LEA_BY_INDEX);
            let is_one = match call {
                CALL if by_index => true,
                // A byte of the new instructions takes the place of a nop.
                CALL => {
                    is_lea_to_eax(before(section, offset)?)
                        && bytes_at(section, offset.checked_add(9)?) == Ok([NOP])
                }
                _ => is_lea_to_eax(before(section, offset)?),
            };
            if is_one { LocalExecForm::WithCall(place) } else { LocalExecForm::Foreign }
        }
        Kind::TlsLdm if is_lea_to_eax(before(section, offset)?) => {
            LocalExecForm::WithCall(call_after(section, offset)?.1)
        }
        Kind::TlsLdo32 => LocalExecForm::Alone,
        // mov or add x@indntpoff, %register.
        Kind::TlsIe => {
            let is_short = before(section, offset)? == [MOV_EAX];
            let is_long = || {
                let before = before(section, offset);
                before.is_some_and(|[opcode, modrm]| matches!(opcode, MOV | ADD) && modrm & 0xc7 == 5)
            };
            LocalExecForm::alone(is_short || is_long())
        }
        // mov or add x@gotntpoff(%register), %register. The sum becomes a lea, whose base may not be %esp.
        Kind::TlsGotIe => {
            let [opcode, modrm] = before(section, offset)?;
            let is_one = opcode == MOV || opcode == ADD && modrm & 0x38 != 0x20;
            LocalExecForm::alone(is_one && is_base_and_field(modrm))
        }
        // lea x@tlsdesc(%ebx), %register.
        Kind::TlsGotDesc => {
            let [opcode, modrm] = before(section, offset)?;
            LocalExecForm::alone(opcode == LEA && modrm & 0xc7 == 0x83)
        }
        // call *x@tlscall(%eax).
        Kind::TlsDescCall => LocalExecForm::alone(bytes_at(section, offset).ok()? == [GROUP_5, 0x10]),
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
    let value = (wrapped(fixup.absolute()) as u32).to_le_bytes();
    match kind {
        // mov %gs:0, %eax; sub $-x@ntpoff, %eax.
        Kind::TlsGd => {
            let by_index = before(section, offset) == Some(LEA_BY_INDEX);
            let instructions: &mut [u8; 12] = field(section, back(if by_index { 3 } else { 2 })?)?;
            let negative = fixup.target.wrapping_neg().wrapping_add_signed(fixup.addend) as u32;
            instructions[..6].copy_from_slice(&THREAD_POINTER);
            instructions[6..8].copy_from_slice(&[0x81, 0xe8]);
            instructions[8..].copy_from_slice(&negative.to_le_bytes());
        }
        // mov %gs:0, %eax, and an instruction that does nothing.
        Kind::TlsLdm => {
            let start = back(2)?;
            if bytes_at(section, offset.wrapping_add(4)) == Ok([CALL]) {
                let instructions: &mut [u8; 11] = field(section, start)?;
                instructions[..6].copy_from_slice(&THREAD_POINTER);
                instructions[6..].copy_from_slice(&[NOP, LEA, 0x74, 0x26, 0]);
            } else {
                let instructions: &mut [u8; 12] = field(section, start)?;
                instructions[..6].copy_from_slice(&THREAD_POINTER);
                instructions[6..].copy_from_slice(&[LEA, 0xb6, 0, 0, 0, 0]);
            }
        }
        // x@ntpoff instead of x@dtpoff.
        Kind::TlsLdo32 => *field(section, offset)? = value,
        Kind::TlsIe if before(section, offset) == Some([MOV_EAX]) => {
            let [a, b, c, d] = value;
            *field(section, back(1)?)? = [MOV_CONSTANT_EAX, a, b, c, d];
        }
        Kind::TlsIe | Kind::TlsGotIe => {
            let instruction: &mut [u8; 6] = field(section, back(2)?)?;
            let [opcode, modrm, constant @ ..] = instruction;
            *constant = value;
            let register = *modrm >> 3 & 7;
            (*opcode, *modrm) = match (*opcode, kind) {
                (MOV, _) => (MOV_CONSTANT, 0xc0 | register),
                (_, Kind::TlsIe) => (ADD_CONSTANT, 0xc0 | register),
                _ => (LEA, 0x80 | register << 3 | register),
            };
        }
        // lea x@ntpoff, %register.
        Kind::TlsGotDesc => {
            let [modrm, constant @ ..]: &mut [u8; 5] = field(section, back(1)?)?;
            *modrm = 0x05 | *modrm & 0x38;
            *constant = value;
        }
        // xchg %ax, %ax.
        Kind::TlsDescCall => *field(section, offset)? = [0x66, 0x90],
        _ => return Err(FixupProblem::Unsupported("this access to a thread-local variable")),
    }
    Ok(())
}
