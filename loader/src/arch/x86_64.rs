//! x86-64, by the System V psABI (AMD64 supplement, "Relocation", and its large code model), and by the PE format ("x64
//! Processors", "Type Indicators").
//!
//! Oddities: `PC32` is used by older assemblers for calls too, so whether it may go through a stub is told from the
//! opcode before it. `GOTPCRELX` invites relaxation: the same instruction may then do without the GOT. The field
//! of `32` is zero-extended by the instruction, that of `32S` sign-extended: both only reach the lowest 2 GiB of
//! addresses (`32` up to 4 GiB), which is where an image that uses them on itself must be.
//!
//! COFF keeps addends in the fields, and counts relative ones from the end of the instruction: `REL32_n` says that n
//! bytes follow the field. Here that is part of the addend, so that the fix-ups are ELF's.

use super::{
    Architecture, Detour, DetourPlaces, ElfIdentity, Fixup, Identity, LocalExec, LocalExecForm, Operand,
    Refused, Relaxed, SimpleKinds, SlotKind, Stub, bytes_at, coff, either, field, signed, unsigned,
};
use crate::error::FixupProblem;
use crate::graph::{Format, Relocation};

mod detour;
mod local_exec;
mod relax;

pub(crate) enum X86_64 {}

/// Relocation kinds in the psABI's names, without `R_X86_64_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    Abs64,
    Abs32,
    Abs32S,
    Abs16,
    Abs8,
    Pc64,
    Pc32,
    Pc16,
    Pc8,
    Plt32,
    PltOff64,
    Got32,
    Got64,
    GotOff64,
    GotPc32,
    GotPc64,
    GotPcRel,
    GotPcRelX,
    RexGotPcRelX,
    /// With a REX2 prefix.
    Code4GotPcRelX,
    GotPcRel64,
    Size32,
    Size64,
    /// COFF's `REL32`, with this many bytes of the instruction behind the field.
    Rel32(u8),
    Addr32,
    Coff(coff::Common),
    TlsGd,
    TlsLd,
    GotTpOff,
    /// With a REX2 prefix.
    Code4GotTpOff,
    /// With an EVEX prefix.
    Code6GotTpOff,
    TlsDesc,
    /// With a REX2 prefix.
    Code4TlsDesc,
    /// Marks the call of the descriptor's function.
    TlsDescCall,
    TpOff32,
    TpOff64,
    DtpOff32,
    DtpOff64,
    /// Mach-O `UNSIGNED` of a byte.
    Unsigned8,
    /// Mach-O `SUBTRACTOR`.
    Difference32,
    Difference64,
}

/// Numbers and names of the ELF relocations. Those of thread-local storage, dynamic linking and ABIs other than
/// LP64 are named for the message only.
const ELF: [(u32, &str); 49] = [
    (0, "NONE"),
    (1, "64"),
    (2, "PC32"),
    (3, "GOT32"),
    (4, "PLT32"),
    (5, "COPY"),
    (6, "GLOB_DAT"),
    (7, "JUMP_SLOT"),
    (8, "RELATIVE"),
    (9, "GOTPCREL"),
    (10, "32"),
    (11, "32S"),
    (12, "16"),
    (13, "PC16"),
    (14, "8"),
    (15, "PC8"),
    (16, "DTPMOD64"),
    (17, "DTPOFF64"),
    (18, "TPOFF64"),
    (19, "TLSGD"),
    (20, "TLSLD"),
    (21, "DTPOFF32"),
    (22, "GOTTPOFF"),
    (23, "TPOFF32"),
    (24, "PC64"),
    (25, "GOTOFF64"),
    (26, "GOTPC32"),
    (27, "GOT64"),
    (28, "GOTPCREL64"),
    (29, "GOTPC64"),
    (30, "GOTPLT64"),
    (31, "PLTOFF64"),
    (32, "SIZE32"),
    (33, "SIZE64"),
    (34, "GOTPC32_TLSDESC"),
    (35, "TLSDESC_CALL"),
    (36, "TLSDESC"),
    (37, "IRELATIVE"),
    (41, "GOTPCRELX"),
    (42, "REX_GOTPCRELX"),
    (43, "CODE_4_GOTPCRELX"),
    (44, "CODE_4_GOTTPOFF"),
    (45, "CODE_4_GOTPC32_TLSDESC"),
    (46, "CODE_5_GOTPCRELX"),
    (47, "CODE_5_GOTTPOFF"),
    (48, "CODE_5_GOTPC32_TLSDESC"),
    (49, "CODE_6_GOTPCRELX"),
    (50, "CODE_6_GOTTPOFF"),
    (51, "CODE_6_GOTPC32_TLSDESC"),
];

/// Names of the COFF relocations, by number. Those for managed code and for other tools' own use are named for the message
/// only.
const COFF: [&str; 17] = [
    "ABSOLUTE", "ADDR64", "ADDR32", "ADDR32NB", "REL32", "REL32_1", "REL32_2", "REL32_3", "REL32_4",
    "REL32_5", "SECTION", "SECREL", "SECREL7", "TOKEN", "SREL32", "PAIR", "SSPAN32",
];

fn coff_kind(raw: u32) -> Result<Kind, &'static str> {
    Ok(match raw {
        0 => Kind::None,
        1 => Kind::Abs64,
        2 => Kind::Addr32,
        3 => Kind::Coff(coff::Common::ImageRelative),
        4..=9 => Kind::Rel32(raw as u8 - 4),
        10 => Kind::Coff(coff::Common::SectionNumber),
        11 => Kind::Coff(coff::Common::SectionOffset),
        12 => Kind::Coff(coff::Common::SectionOffset7),
        13 => return Err("managed code"),
        14..=16 => return Err("a value that depends on how far code spans"),
        _ => return Err("this kind of relocation"),
    })
}

fn elf_kind(raw: u32) -> Option<Kind> {
    Some(match raw {
        0 => Kind::None,
        1 => Kind::Abs64,
        2 => Kind::Pc32,
        3 => Kind::Got32,
        4 => Kind::Plt32,
        9 | 46 | 49 => Kind::GotPcRel,
        41 => Kind::GotPcRelX,
        42 => Kind::RexGotPcRelX,
        43 => Kind::Code4GotPcRelX,
        10 => Kind::Abs32,
        11 => Kind::Abs32S,
        12 => Kind::Abs16,
        13 => Kind::Pc16,
        14 => Kind::Abs8,
        15 => Kind::Pc8,
        17 => Kind::DtpOff64,
        18 => Kind::TpOff64,
        19 => Kind::TlsGd,
        20 => Kind::TlsLd,
        21 => Kind::DtpOff32,
        22 => Kind::GotTpOff,
        44 => Kind::Code4GotTpOff,
        47 | 50 => Kind::Code6GotTpOff,
        23 => Kind::TpOff32,
        24 => Kind::Pc64,
        25 => Kind::GotOff64,
        26 => Kind::GotPc32,
        27 | 30 => Kind::Got64,
        28 => Kind::GotPcRel64,
        29 => Kind::GotPc64,
        31 => Kind::PltOff64,
        32 => Kind::Size32,
        33 => Kind::Size64,
        34 | 48 | 51 => Kind::TlsDesc,
        45 => Kind::Code4TlsDesc,
        35 => Kind::TlsDescCall,
        _ => return None,
    })
}

/// Names of the Mach-O relocations (`<mach-o/x86_64/reloc.h>`), by type.
const MACHO: [&str; 10] = [
    "UNSIGNED",
    "SIGNED",
    "BRANCH",
    "GOT_LOAD",
    "GOT",
    "SUBTRACTOR",
    "SIGNED_1",
    "SIGNED_2",
    "SIGNED_4",
    "TLV",
];

/// Type, length and whether it is relative to its place. `SIGNED_n` says how many bytes of the instruction are behind the
/// field; the number in the field knows of them already.
fn macho_kind(raw: u32) -> Result<Kind, &'static str> {
    const RELATIVE: u32 = 1 << 16;
    const BYTES_4: u32 = 2 << 8;
    const BYTES_8: u32 = 3 << 8;
    const RELATIVE_4: u32 = RELATIVE | BYTES_4;
    Ok(match (raw & 0xff, raw & !0xff) {
        (0, BYTES_8) => Kind::Abs64,
        (0, BYTES_4) => Kind::Abs32,
        (0, 0) => Kind::Unsigned8,
        (1 | 6..=8, RELATIVE_4) => Kind::Pc32,
        (2, RELATIVE_4) => Kind::Plt32,
        // LOOP and JRCXZ.
        (2, RELATIVE) => Kind::Pc8,
        (3, RELATIVE_4) => Kind::RexGotPcRelX,
        (4, RELATIVE_4) => Kind::GotPcRel,
        (5, BYTES_4) => Kind::Difference32,
        (5, BYTES_8) => Kind::Difference64,
        (9, _) => return Err("thread-local storage"),
        (0..=8, _) => return Err("a field of this size, or this way to count from its place,"),
        _ => return Err("this kind of relocation"),
    })
}

#[cold]
fn elf_unsupported(raw: u32) -> &'static str {
    match raw {
        5..=8 | 16 | 36 | 37 => "a relocation of the dynamic linker in an object file",
        _ => "this kind of relocation",
    }
}

impl Architecture for X86_64 {
    type Kind = Kind;

    const IDENTITY: Identity = Identity {
        name: "x86_64",
        elf: Some(ElfIdentity { e_machine: 62, class: 64, big_endian: false }),
        macho: Some(0x0100_0007),
        coff: Some(0x8664),
        is_host: cfg!(all(target_arch = "x86_64", target_pointer_width = "64")),
    };
    const SLOT_SIZE: u64 = 8;
    const STUB_SIZE: u64 = 8;
    const STUB_ALIGN: u64 = 8;
    /// Not by `ld.lld` either, though others do.
    const RELAXES_EXTERNALS: bool = false;
    const PLAIN: bool = true;
    const TRAP: &'static [u8] = &[0xcc]; // int3

    /// PC32, PLT32 and 64; SIGNED and BRANCH of 4 bytes.
    #[inline(always)]
    fn simple(format: Format) -> SimpleKinds {
        match format {
            Format::Elf => SimpleKinds { relative32: 2, branch32: 4, absolute64: 1 },
            Format::MachO => {
                SimpleKinds { relative32: 0x1_0201, branch32: 0x1_0202, absolute64: SimpleKinds::NO_NUMBER }
            }
            Format::Coff => SimpleKinds::NONE,
        }
    }

    #[inline]
    fn kind(format: Format, raw: u32) -> Result<Kind, &'static str> {
        match format {
            Format::Elf => elf_kind(raw).ok_or_else(|| elf_unsupported(raw)),
            Format::Coff => coff_kind(raw),
            Format::MachO => macho_kind(raw),
        }
    }

    fn name(format: Format, raw: u32) -> String {
        let elf = || Some(format!("R_X86_64_{}", ELF.iter().find(|(number, _)| *number == raw)?.1));
        let coff = || Some(format!("IMAGE_REL_AMD64_{}", COFF.get(raw as usize)?));
        let macho = || Some(format!("X86_64_RELOC_{}", MACHO.get((raw & 0xff) as usize)?));
        let name = match format {
            Format::Elf => elf(),
            Format::Coff => coff(),
            Format::MachO => macho(),
        };
        name.unwrap_or_else(|| format!("relocation type {raw}"))
    }

    /// `call r/m64` and `call m16:64` are FF /2 and FF /3. A thunk against speculation, which returns to its target, has a
    /// `pause` where the processor may guess.
    fn may_call_indirectly(code: &[u8]) -> bool {
        let Some(next) = code.get(1..) else { return false };
        // Without branches, so that many bytes are compared at once.
        let found = code.iter().zip(next).fold(0, |found, (byte, next)| {
            let is_call = u8::from(*byte == 0xff) & u8::from(next & 0x30 == 0x10);
            found | is_call | u8::from(*byte == 0xf3) & u8::from(*next == 0x90)
        });
        found != 0
    }

    #[inline]
    fn operand(kind: Kind) -> Operand {
        match kind {
            Kind::None | Kind::TlsDescCall => Operand::None,
            Kind::Abs64 | Kind::Pc64 | Kind::GotOff64 | Kind::PltOff64 => Operand::Symbol,
            Kind::Difference32 | Kind::Difference64 => Operand::Symbol,
            Kind::Abs32 | Kind::Abs32S | Kind::Abs16 | Kind::Abs8 | Kind::Addr32 | Kind::Unsigned8 => {
                Operand::LowSymbol
            }
            Kind::Pc32 | Kind::Rel32(_) => Operand::NearSymbol,
            Kind::Pc16 | Kind::Pc8 => Operand::Symbol,
            Kind::Plt32 => Operand::Branch,
            Kind::Got32
            | Kind::Got64
            | Kind::GotPcRel
            | Kind::GotPcRelX
            | Kind::RexGotPcRelX
            | Kind::Code4GotPcRelX
            | Kind::GotPcRel64 => Operand::Slot(SlotKind::Address),
            Kind::GotPc32 | Kind::GotPc64 => Operand::Got,
            Kind::Size32 | Kind::Size64 => Operand::Size,
            Kind::Coff(kind) => kind.operand(),
            Kind::TlsGd => Operand::Slot(SlotKind::ThreadIndex),
            Kind::TlsLd => Operand::Slot(SlotKind::ThreadModule),
            Kind::GotTpOff | Kind::Code4GotTpOff | Kind::Code6GotTpOff => {
                Operand::Slot(SlotKind::ThreadOffset)
            }
            Kind::TlsDesc | Kind::Code4TlsDesc => Operand::Slot(SlotKind::ThreadDescriptor),
            Kind::TpOff32 | Kind::TpOff64 => Operand::ThreadOffset,
            Kind::DtpOff32 | Kind::DtpOff64 => Operand::BlockOffset,
        }
    }

    /// Only COFF's kinds are asked for: ELF has the addends in the table.
    fn implicit_addend(kind: Kind, section: &[u8], offset: u64) -> Result<i64, FixupProblem> {
        Ok(match kind {
            Kind::Rel32(behind) => coff::word(section, offset)? - 4 - i64::from(behind),
            Kind::Abs64 => i64::from_le_bytes(bytes_at(section, offset)?),
            Kind::Addr32 => coff::word(section, offset)?,
            Kind::Coff(kind) => kind.implicit_addend(section, offset)?,
            _ => 0,
        })
    }

    #[inline]
    fn branch_addend(kind: Kind) -> i64 {
        if matches!(kind, Kind::Pc32 | Kind::Plt32 | Kind::Rel32(_)) { -4 } else { 0 }
    }

    /// `call` is E8, `jmp` E9, a conditional jump 0F 80 to 0F 8F; the displacement is the instruction's last field,
    /// so the addend is -4.
    fn is_branch(section: &[u8], offset: u64, addend: i64) -> bool {
        let before =
            usize::try_from(offset).ok().and_then(|offset| section.get(..offset)).unwrap_or_default();
        addend == -4 && matches!(before, [.., 0xe8 | 0xe9] | [.., 0x0f, 0x80..=0x8f])
    }

    #[inline]
    fn apply(kind: Kind, section: &mut [u8], offset: u64, fixup: Fixup) -> Result<(), FixupProblem> {
        match kind {
            Kind::None | Kind::TlsDescCall => {}
            // S + A: word64. Z + A: word64. @tpoff, @dtpoff: word64.
            Kind::Abs64 | Kind::Size64 | Kind::TpOff64 | Kind::DtpOff64 => {
                *field(section, offset)? = fixup.absolute().to_le_bytes()
            }
            // S + A: word32, zero-extended.
            Kind::Abs32 => {
                *field(section, offset)? = (unsigned(fixup.absolute(), 32)? as u32).to_le_bytes();
            }
            // S + A: word32, sign-extended. Z + A, @tpoff, @dtpoff: word32.
            Kind::Abs32S | Kind::Size32 | Kind::TpOff32 | Kind::DtpOff32 => {
                *field(section, offset)? = (signed(fixup.absolute() as i64, 32)? as i32).to_le_bytes();
            }
            // S + A: word16.
            Kind::Abs16 => *field(section, offset)? = (either(fixup.absolute(), 16)? as u16).to_le_bytes(),
            // S + A: word8.
            Kind::Abs8 => *field(section, offset)? = (either(fixup.absolute(), 8)? as u8).to_le_bytes(),
            // S + A - P: word64. GOT + A - P: word64. G + GOT + A - P: word64.
            Kind::Pc64 | Kind::GotPc64 | Kind::GotPcRel64 => {
                *field(section, offset)? = fixup.relative().to_le_bytes();
            }
            // S + A - P, L + A - P, G + GOT + A - P, GOT + A - P: word32.
            Kind::Pc32
            | Kind::Rel32(_)
            | Kind::Plt32
            | Kind::GotPcRel
            | Kind::GotPcRelX
            | Kind::RexGotPcRelX
            | Kind::Code4GotPcRelX
            | Kind::GotPc32
            | Kind::TlsGd
            | Kind::TlsLd
            | Kind::GotTpOff
            | Kind::Code4GotTpOff
            | Kind::Code6GotTpOff
            | Kind::TlsDesc
            | Kind::Code4TlsDesc => {
                *field(section, offset)? = (signed(fixup.relative(), 32)? as i32).to_le_bytes();
            }
            // S + A - P: word16.
            Kind::Pc16 => *field(section, offset)? = (signed(fixup.relative(), 16)? as i16).to_le_bytes(),
            // S + A - P: word8.
            Kind::Pc8 => *field(section, offset)? = (signed(fixup.relative(), 8)? as i8).to_le_bytes(),
            // G + A: word32.
            Kind::Got32 => {
                *field(section, offset)? = (signed(fixup.got_relative(), 32)? as i32).to_le_bytes()
            }
            // G + A, S + A - GOT, L - GOT + A: word64.
            Kind::Got64 | Kind::GotOff64 | Kind::PltOff64 => {
                *field(section, offset)? = fixup.got_relative().to_le_bytes();
            }
            // S + A: word32, in either reading.
            Kind::Addr32 => *field(section, offset)? = (either(fixup.absolute(), 32)? as u32).to_le_bytes(),
            Kind::Coff(kind) => kind.apply(section, offset, fixup)?,
            // S + A: word8, unsigned.
            Kind::Unsigned8 => *field(section, offset)? = [unsigned(fixup.absolute(), 8)? as u8],
            // S + A - subtrahend: word32.
            Kind::Difference32 => {
                *field(section, offset)? = (signed(fixup.difference(), 32)? as i32).to_le_bytes();
            }
            // S + A - subtrahend: word64.
            Kind::Difference64 => *field(section, offset)? = fixup.difference().to_le_bytes(),
        }
        Ok(())
    }

    fn relax(
        kind: Kind,
        current: &Relocation,
        _next: Option<(Kind, Relocation)>,
        section: &mut [u8],
        fixup: Fixup,
    ) -> Relaxed {
        let done = match kind {
            Kind::GotPcRelX | Kind::RexGotPcRelX | Kind::Code4GotPcRelX => {
                relax::got_access(kind, section, current.offset, &fixup)
            }
            _ => None,
        };
        if done.is_some() { Relaxed::This } else { Relaxed::No }
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

    fn plan_detours(
        code: &[u8],
        functions: &[u64],
        accesses: &[(Kind, u64)],
    ) -> Result<Vec<Option<Detour>>, Refused> {
        detour::plan(code, functions, accesses)
    }

    fn write_detour(
        detour: &Detour,
        code: &mut [u8],
        places: DetourPlaces,
        bytes: &mut [u8],
    ) -> Result<(), FixupProblem> {
        detour::write(detour, code, places, bytes)
    }

    /// `jmp *slot(%rip)`, six bytes, then traps.
    fn write_stub(_kind: u8, stub: &mut [u8], place: u64, leads: Stub) -> Result<(), FixupProblem> {
        let displacement = Fixup { place, target: leads.slot, addend: -6, ..Fixup::default() };
        stub.fill(Self::TRAP[0]);
        *field(stub, 0)? = [0xff, 0x25];
        *field(stub, 2)? = (signed(displacement.relative(), 32)? as i32).to_le_bytes();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
