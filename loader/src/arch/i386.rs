//! i386, by the System V psABI (Intel386 supplement, "Relocation"), and by the PE format ("Intel 386 Processors", "Type
//! Indicators").
//!
//! Oddities: addends are in the fields (`SHT_REL`), and everything of 32 bits wraps round, so that a branch reaches every
//! address and needs no stub. The GOT is addressed relative to a register or, without one, by its address: the same
//! relocation means either, and the instruction tells which. COFF's `REL32` counts from the end of the field, which is made
//! part of the addend here.

use super::{
    Architecture, ElfIdentity, Fixup, Identity, LocalExec, LocalExecForm, Operand, SlotKind, Stub, bytes_at,
    coff, either, field, sign_extend, signed,
};
use crate::error::FixupProblem;
use crate::graph::Format;

mod local_exec;

pub(crate) enum I386 {}

/// Relocation kinds in the psABI's names, without `R_386_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    Abs32,
    Abs16,
    Abs8,
    /// PC32 and PLT32.
    Pc32,
    Pc16,
    Pc8,
    /// GOT32 and GOT32X.
    Got32,
    GotOff,
    GotPc,
    Size32,
    TlsGd,
    TlsLdm,
    TlsLdo32,
    TlsIe,
    TlsGotIe,
    TlsLe,
    TlsLe32,
    TlsGotDesc,
    /// Marks the call of the descriptor's function.
    TlsDescCall,
    /// COFF's `REL32`.
    Rel32,
    Coff(coff::Common),
}

/// Numbers and names of the ELF relocations. `None` in the third place says that the loader does not do it.
const ELF: [(u32, &str, Option<Kind>); 42] = [
    (0, "NONE", Some(Kind::None)),
    (1, "32", Some(Kind::Abs32)),
    (2, "PC32", Some(Kind::Pc32)),
    (3, "GOT32", Some(Kind::Got32)),
    (4, "PLT32", Some(Kind::Pc32)),
    (5, "COPY", None),
    (6, "GLOB_DAT", None),
    (7, "JUMP_SLOT", None),
    (8, "RELATIVE", None),
    (9, "GOTOFF", Some(Kind::GotOff)),
    (10, "GOTPC", Some(Kind::GotPc)),
    (11, "32PLT", None),
    (14, "TLS_TPOFF", None),
    (15, "TLS_IE", Some(Kind::TlsIe)),
    (16, "TLS_GOTIE", Some(Kind::TlsGotIe)),
    (17, "TLS_LE", Some(Kind::TlsLe)),
    (18, "TLS_GD", Some(Kind::TlsGd)),
    (19, "TLS_LDM", Some(Kind::TlsLdm)),
    (20, "16", Some(Kind::Abs16)),
    (21, "PC16", Some(Kind::Pc16)),
    (22, "8", Some(Kind::Abs8)),
    (23, "PC8", Some(Kind::Pc8)),
    (24, "TLS_GD_32", None),
    (25, "TLS_GD_PUSH", None),
    (26, "TLS_GD_CALL", None),
    (27, "TLS_GD_POP", None),
    (28, "TLS_LDM_32", None),
    (29, "TLS_LDM_PUSH", None),
    (30, "TLS_LDM_CALL", None),
    (31, "TLS_LDM_POP", None),
    (32, "TLS_LDO_32", Some(Kind::TlsLdo32)),
    (33, "TLS_IE_32", None),
    (34, "TLS_LE_32", Some(Kind::TlsLe32)),
    (35, "TLS_DTPMOD32", None),
    (36, "TLS_DTPOFF32", None),
    (37, "TLS_TPOFF32", None),
    (38, "SIZE32", Some(Kind::Size32)),
    (39, "TLS_GOTDESC", Some(Kind::TlsGotDesc)),
    (40, "TLS_DESC_CALL", Some(Kind::TlsDescCall)),
    (41, "TLS_DESC", None),
    (42, "IRELATIVE", None),
    (43, "GOT32X", Some(Kind::Got32)),
];

fn coff_kind(raw: u32) -> Result<Kind, &'static str> {
    Ok(match raw {
        0 => Kind::None,
        6 => Kind::Abs32,
        7 => Kind::Coff(coff::Common::ImageRelative),
        10 => Kind::Coff(coff::Common::SectionNumber),
        11 => Kind::Coff(coff::Common::SectionOffset),
        13 => Kind::Coff(coff::Common::SectionOffset7),
        20 => Kind::Rel32,
        1 | 2 | 9 => return Err("16-bit code"),
        12 => return Err("managed code"),
        _ => return Err("this kind of relocation"),
    })
}

fn coff_name(raw: u32) -> Option<&'static str> {
    Some(match raw {
        0 => "ABSOLUTE",
        1 => "DIR16",
        2 => "REL16",
        6 => "DIR32",
        7 => "DIR32NB",
        9 => "SEG12",
        10 => "SECTION",
        11 => "SECREL",
        12 => "TOKEN",
        13 => "SECREL7",
        20 => "REL32",
        _ => return None,
    })
}

fn elf(raw: u32) -> Option<&'static (u32, &'static str, Option<Kind>)> {
    ELF.iter().find(|(number, ..)| *number == raw)
}

#[cold]
fn elf_unsupported(raw: u32) -> &'static str {
    match raw {
        24..=31 | 33 => "this form of thread-local storage",
        5..=8 | 14 | 35..=37 | 41 | 42 => "a relocation of the dynamic linker in an object file",
        _ => "this kind of relocation",
    }
}

/// Whether the field is the whole address of its instruction's operand: a ModRM byte before it that says "no register".
fn is_absolute(section: &[u8], offset: u64) -> bool {
    let before = offset.checked_sub(1).and_then(|before| bytes_at(section, before).ok());
    before.is_some_and(|[modrm]| modrm & 0xc7 == 5)
}

/// A value modulo 2^32, as a signed number.
fn wrapped(value: u64) -> i64 {
    sign_extend(value, 32)
}

impl Architecture for I386 {
    type Kind = Kind;

    const IDENTITY: Identity = Identity {
        name: "i386",
        elf: Some(ElfIdentity { e_machine: 3, class: 32, big_endian: false }),
        macho: None,
        coff: Some(0x14c),
        is_host: cfg!(target_arch = "x86"),
    };
    const SLOT_SIZE: u64 = 4;
    const STUB_SIZE: u64 = 8;
    const STUB_ALIGN: u64 = 8;
    const STUB_USES_SLOT: bool = false;
    /// A branch that wraps round reaches every address.
    const BRANCH_REACH: u64 = 1 << 32;
    const TRAP: &'static [u8] = &[0xcc]; // int3

    fn kind(format: Format, raw: u32) -> Result<Kind, &'static str> {
        match format {
            Format::Elf => elf(raw).and_then(|(.., kind)| *kind).ok_or_else(|| elf_unsupported(raw)),
            Format::Coff => coff_kind(raw),
            Format::MachO => Err("this object format"),
        }
    }

    fn name(format: Format, raw: u32) -> String {
        let name = match format {
            Format::Elf => elf(raw).map(|(_, name, _)| format!("R_386_{name}")),
            Format::Coff => coff_name(raw).map(|name| format!("IMAGE_REL_I386_{name}")),
            Format::MachO => None,
        };
        name.unwrap_or_else(|| format!("relocation type {raw}"))
    }

    fn operand(kind: Kind) -> Operand {
        match kind {
            Kind::None | Kind::TlsDescCall => Operand::None,
            Kind::Abs32 | Kind::Abs16 | Kind::Abs8 | Kind::Pc32 | Kind::Pc16 | Kind::Pc8 | Kind::GotOff => {
                Operand::Symbol
            }
            Kind::Rel32 => Operand::Symbol,
            Kind::Coff(kind) => kind.operand(),
            Kind::Got32 => Operand::Slot(SlotKind::Address),
            Kind::GotPc => Operand::Got,
            Kind::Size32 => Operand::Size,
            Kind::TlsGd => Operand::Slot(SlotKind::ThreadIndex),
            Kind::TlsLdm => Operand::Slot(SlotKind::ThreadModule),
            Kind::TlsIe | Kind::TlsGotIe => Operand::Slot(SlotKind::ThreadOffset),
            Kind::TlsGotDesc => Operand::Slot(SlotKind::ThreadDescriptor),
            Kind::TlsLdo32 => Operand::BlockOffset,
            Kind::TlsLe | Kind::TlsLe32 => Operand::ThreadOffset,
        }
    }

    fn implicit_addend(kind: Kind, section: &[u8], offset: u64) -> Result<i64, FixupProblem> {
        match kind {
            Kind::None | Kind::TlsDescCall => Ok(0),
            Kind::Rel32 => Ok(coff::word(section, offset)? - 4),
            Kind::Coff(kind) => kind.implicit_addend(section, offset),
            Kind::Abs16 | Kind::Pc16 => {
                bytes_at(section, offset).map(|bytes| i16::from_le_bytes(bytes).into())
            }
            Kind::Abs8 | Kind::Pc8 => bytes_at(section, offset).map(|bytes| i8::from_le_bytes(bytes).into()),
            _ => bytes_at(section, offset).map(|bytes| i32::from_le_bytes(bytes).into()),
        }
    }

    fn apply(kind: Kind, section: &mut [u8], offset: u64, fixup: Fixup) -> Result<(), FixupProblem> {
        let value = match kind {
            Kind::None | Kind::TlsDescCall => return Ok(()),
            Kind::Coff(kind) => return kind.apply(section, offset, fixup),
            // S + A. Z + A.
            Kind::Abs32 | Kind::Abs16 | Kind::Abs8 | Kind::Size32 => fixup.absolute(),
            // S + A - P, L + A - P, GOT + A - P.
            Kind::Pc32 | Kind::Rel32 | Kind::Pc16 | Kind::Pc8 | Kind::GotPc => fixup.relative() as u64,
            // G + A - GOT, where G is the entry's address; or G + A.
            Kind::Got32 if is_absolute(section, offset) => fixup.absolute(),
            Kind::Got32 => fixup.got_relative() as u64,
            // S + A - GOT, and the same of entries for thread-local symbols.
            Kind::GotOff | Kind::TlsGd | Kind::TlsLdm | Kind::TlsGotIe | Kind::TlsGotDesc => {
                fixup.got_relative() as u64
            }
            // The entry's address. The offset from the thread pointer; that in the block.
            Kind::TlsIe | Kind::TlsLe | Kind::TlsLdo32 => fixup.absolute(),
            // The offset from the thread pointer, to be subtracted from it; the addend is not.
            Kind::TlsLe32 => fixup.target.wrapping_neg().wrapping_add_signed(fixup.addend),
        };
        let value = wrapped(value);
        match kind {
            Kind::Abs16 => *field(section, offset)? = (either(value as u64, 16)? as u16).to_le_bytes(),
            Kind::Abs8 => *field(section, offset)? = (either(value as u64, 8)? as u8).to_le_bytes(),
            // Sixteen-bit code wraps round at 64 KiB: from anywhere in it to anywhere else is 17 bits away.
            Kind::Pc16 => *field(section, offset)? = (signed(value, 17)? as u16).to_le_bytes(),
            Kind::Pc8 => *field(section, offset)? = (signed(value, 8)? as i8).to_le_bytes(),
            _ => *field(section, offset)? = (value as u32).to_le_bytes(),
        }
        Ok(())
    }

    const MODULE_IS_AT_THREAD_POINTER: bool = true;

    #[inline]
    fn local_exec(kind: Kind) -> Option<LocalExec> {
        local_exec::of(kind)
    }

    fn local_exec_form(kind: Kind, _next: Option<Kind>, section: &[u8], offset: u64) -> LocalExecForm {
        local_exec::form(kind, section, offset).unwrap_or(LocalExecForm::Foreign)
    }

    fn to_local_exec(
        kind: Kind,
        _next: Option<Kind>,
        section: &mut [u8],
        offset: u64,
        fixup: Fixup,
    ) -> Result<(), FixupProblem> {
        local_exec::rewrite(kind, section, offset, &fixup)
    }

    /// `jmp target`, five bytes, then traps.
    fn write_stub(_kind: u8, stub: &mut [u8], place: u64, leads: Stub) -> Result<(), FixupProblem> {
        let displacement = Fixup { place, target: leads.target, addend: -5, ..Fixup::default() };
        stub.fill(Self::TRAP[0]);
        *field(stub, 0)? = [0xe9];
        *field(stub, 1)? = (displacement.relative() as u32).to_le_bytes();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
