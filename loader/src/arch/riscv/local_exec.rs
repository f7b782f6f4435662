//! Accesses through thread-local descriptors to a program's own variables, made local-exec (RISC-V ELF psABI, "TLS
//! Descriptors -> Local Exec Relaxation"). The instructions that are not needed become nops.
//!
//! Other accesses stay: the psABI and `ld.lld` have nothing for them.

use super::{I_TYPE, Kind, Riscv, U_TYPE, encode};
use crate::arch::{
    CallRole, Fixup, LocalExec, LocalExecForm, LocalExecOperand, ThreadModel, bytes_at, change_u32, signed,
};
use crate::error::FixupProblem;

const NOP: u32 = 0x0000_0013;
/// `lui a0, 0`.
const LUI_A0: u32 = 0x0000_0537;
/// `addi a0, zero, 0` and `addi a0, a0, 0`.
const LI_A0: u32 = 0x0000_0513;
const ADDI_A0_A0: u32 = 0x0005_0513;

pub(super) fn of(kind: Kind) -> Option<LocalExec> {
    const PART: LocalExec = LocalExec::part(ThreadModel::Descriptor);
    Some(match kind {
        Kind::TlsDescHi20 => PART.with(CallRole::Needed),
        Kind::TlsDescLoadLo12 | Kind::TlsDescAddLo12 => {
            PART.of(LocalExecOperand::Paired).with(CallRole::Needed)
        }
        Kind::TlsDescCall => PART.of(LocalExecOperand::Paired).with(CallRole::Call),
        _ => return None,
    })
}

pub(super) fn form(kind: Kind, section: &[u8], offset: u64) -> LocalExecForm {
    let Ok(word) = bytes_at(section, offset).map(u32::from_le_bytes) else { return LocalExecForm::Foreign };
    let (opcode, target) = (word & 0x7f, word >> 7 & 0x1f);
    LocalExecForm::alone(match kind {
        // auipc.
        Kind::TlsDescHi20 => opcode == 0x17,
        // lw, ld.
        Kind::TlsDescLoadLo12 => opcode == 0x03,
        // addi a0.
        Kind::TlsDescAddLo12 => opcode == 0x13 && target == 10,
        // jalr t0.
        Kind::TlsDescCall => opcode == 0x67 && target == 5,
        _ => false,
    })
}

pub(super) fn rewrite<const XLEN: u8>(
    kind: Kind,
    section: &mut [u8],
    offset: u64,
    fixup: &Fixup,
) -> Result<(), FixupProblem> {
    let value = fixup.absolute() as i64;
    let high = Riscv::<XLEN>::rounded(value)?;
    let is_short = signed(value, 12).is_ok();
    let word = match kind {
        Kind::TlsDescHi20 | Kind::TlsDescLoadLo12 => NOP,
        Kind::TlsDescAddLo12 if is_short => NOP,
        Kind::TlsDescAddLo12 => encode(U_TYPE, LUI_A0, high),
        Kind::TlsDescCall => encode(I_TYPE, if is_short { LI_A0 } else { ADDI_A0_A0 }, value),
        _ => return Err(FixupProblem::Unsupported("this access to a thread-local variable")),
    };
    change_u32(section, offset, |_| Ok(word))
}
