//! Accesses to a program's own thread-local variables through the GOT or descriptors, made local-exec (LoongArch ELF psABI,
//! "TLS IE -> LE" and "TLS DESC -> LE"). The instructions that are not needed become nops.
//!
//! The extreme code model stays, and so do accesses with absolute or `pcaddu12i` addresses, and general- and
//! local-dynamic ones: `ld.lld` has nothing for them.

use super::{ADDI_D, Bits, DESC, IE, JIRL, Kind, LD_D, PCALAU12I, set_j20, set_k12};
use crate::arch::{
    CallRole, Fixup, LocalExec, LocalExecForm, ThreadModel, bytes_at, change_u32, signed, unsigned,
};
use crate::error::FixupProblem;

/// `andi $zero, $zero, 0`.
const NOP: u32 = 0x0340_0000;
const LU12I_W: u32 = 0x1400_0000;
const ORI: u32 = 0x0380_0000;
const PCADDI: u32 = 0x1800_0000;
const A0: u32 = 4;
const RA: u32 = 1;

pub(super) fn of(kind: Kind) -> Option<LocalExec> {
    const DESCRIPTOR: LocalExec = LocalExec::part(ThreadModel::Descriptor);
    Some(match kind {
        Kind::PagePart(IE, Bits::Hi20) | Kind::Part(IE, Bits::Lo12) => {
            LocalExec::part(ThreadModel::InitialExec)
        }
        Kind::PagePart(IE, _) | Kind::Part(IE, _) | Kind::PcaddHi20(IE) => {
            LocalExec::stays(ThreadModel::InitialExec)
        }
        Kind::PagePart(DESC, Bits::Hi20)
        | Kind::Part(DESC, Bits::Lo12)
        | Kind::Pcrel20S2(DESC)
        | Kind::DescLoad => DESCRIPTOR.with(CallRole::Needed),
        Kind::DescCall => DESCRIPTOR.with(CallRole::Call),
        Kind::PagePart(DESC, _) | Kind::Part(DESC, _) | Kind::PcaddHi20(DESC) => {
            LocalExec::stays(ThreadModel::Descriptor)
        }
        _ => return None,
    })
}

pub(super) fn form(kind: Kind, section: &[u8], offset: u64) -> LocalExecForm {
    let Ok(word) = bytes_at(section, offset).map(u32::from_le_bytes) else { return LocalExecForm::Foreign };
    LocalExecForm::alone(match kind {
        Kind::PagePart(IE, _) => word & 0xfe00_0000 == PCALAU12I,
        Kind::Part(IE, _) => word & 0xffc0_0000 == LD_D,
        Kind::PagePart(DESC, _) => word & 0xfe00_001f == PCALAU12I | A0,
        Kind::Part(DESC, _) => word & 0xffc0_03ff == ADDI_D | A0 << 5 | A0,
        Kind::Pcrel20S2(DESC) => word & 0xfe00_001f == PCADDI | A0,
        Kind::DescLoad => word & 0xffc0_03ff == LD_D | A0 << 5 | RA,
        Kind::DescCall => word & 0xfc00_03ff == JIRL | RA << 5 | RA,
        _ => false,
    })
}

pub(super) fn rewrite(
    kind: Kind,
    section: &mut [u8],
    offset: u64,
    fixup: &Fixup,
) -> Result<(), FixupProblem> {
    let value = signed(fixup.absolute() as i64, 32)? as u64;
    let is_short = unsigned(value, 12).is_ok();
    // The high part, into a register; the low part, out of one register into another.
    let high = |target| if is_short { NOP } else { set_j20(LU12I_W | target, value >> 12) };
    let low = |target, source| set_k12(ORI | target | if is_short { 0 } else { source << 5 }, value);
    change_u32(section, offset, |word| {
        let (target, source) = (word & 0x1f, word >> 5 & 0x1f);
        Ok(match kind {
            Kind::PagePart(IE, _) => high(target),
            Kind::Part(IE, _) => low(target, source),
            Kind::PagePart(DESC, _) | Kind::Part(DESC, _) | Kind::Pcrel20S2(DESC) => NOP,
            Kind::DescLoad => high(A0),
            Kind::DescCall => low(A0, A0),
            _ => return Err(FixupProblem::Unsupported("this access to a thread-local variable")),
        })
    })
}
