//! s390x (z/Architecture, 64 bits, big-endian), by the "ELF Application Binary Interface, s390x Supplement".
//!
//! Oddities: branches and `larl` count in halfwords from the instruction's start, while the field is two bytes further
//! on, so compilers give an addend of 2. A displacement of 20 bits has its low 12 bits before the high 8. As on PowerPC,
//! a relocation is a value and a field, and a table says which numbers mean which.

use super::{
    Architecture, ElfIdentity, Fixup, Identity, LocalExec, LocalExecForm, Operand, SlotKind, Stub, aligned,
    bytes_at, either, field, signed, unsigned,
};
use crate::error::FixupProblem;
use crate::graph::Format;

use Field::*;
use Support::{Does, Refused};
use Value::*;

mod local_exec;

pub(crate) enum S390x {}

/// What a relocation writes, and where in the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    value: Value,
    field: Field,
}

/// The expressions of the ABI's table of relocation types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// Nothing: marks an instruction for linkers that rewrite it.
    Marker,
    /// Nothing: the call of a general-dynamic access, and of a local-dynamic one.
    GdCall,
    LdCall,
    /// `S + A`.
    Address,
    /// `S + A - P`.
    Relative,
    /// `L + A - P`.
    Call,
    /// `S + A - GOT`, and `L + A - GOT`: a function is not called through this, so L is S.
    GotOffset,
    /// `GOT + A - P`.
    Got,
    /// `G + A`, where G is the offset of an entry in the GOT.
    Slot(SlotKind),
    /// `G + A`, G its address.
    SlotAddress(SlotKind),
    /// `G + A - P`, G its address.
    SlotRelative(SlotKind),
    /// `@ntpoff`.
    ThreadOffset,
    /// `@dtpoff`.
    BlockOffset,
}

/// The fields of the ABI, with their range checks. `Half` ones hold halves of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// No field.
    Nowhere,
    /// Data of 8, 16 or 32 bits, read as signed or unsigned.
    Word8,
    Word16,
    Word32,
    /// The same, signed.
    Signed16,
    Signed32,
    Word64,
    /// The low 12 bits of a halfword, unsigned.
    Unsigned12,
    /// 20 bits, signed, in two parts.
    Split20,
    Half12,
    Half16,
    Half24,
    Half32,
}

/// What is done about a relocation.
#[derive(Debug, Clone, Copy)]
enum Support {
    Does(Value, Field),
    Refused(&'static str),
}

const DYNAMIC: Support = Refused("a relocation of the dynamic linker in an object file");
const OTHER: Support = Refused("this kind of relocation");
const MARKER: Support = Does(Marker, Nowhere);

const ADDRESS: SlotKind = SlotKind::Address;
const INDEX: SlotKind = SlotKind::ThreadIndex;
const MODULE: SlotKind = SlotKind::ThreadModule;
const OFFSET: SlotKind = SlotKind::ThreadOffset;

/// Names without `R_390_`, and meanings, by number. `GOTPLT` entries are entries of the GOT: nothing is bound late.
const ELF: [(&str, Support); 66] = [
    ("NONE", MARKER),
    ("8", Does(Address, Word8)),
    ("12", Does(Address, Unsigned12)),
    ("16", Does(Address, Word16)),
    ("32", Does(Address, Word32)),
    ("PC32", Does(Relative, Signed32)),
    ("GOT12", Does(Slot(ADDRESS), Unsigned12)),
    ("GOT32", Does(Slot(ADDRESS), Word32)),
    ("PLT32", Does(Call, Signed32)),
    ("COPY", DYNAMIC),
    ("GLOB_DAT", DYNAMIC),
    ("JMP_SLOT", DYNAMIC),
    ("RELATIVE", DYNAMIC),
    ("GOTOFF", Does(GotOffset, Word32)),
    ("GOTPC", Does(Got, Word64)),
    ("GOT16", Does(Slot(ADDRESS), Word16)),
    ("PC16", Does(Relative, Signed16)),
    ("PC16DBL", Does(Relative, Half16)),
    ("PLT16DBL", Does(Call, Half16)),
    ("PC32DBL", Does(Relative, Half32)),
    ("PLT32DBL", Does(Call, Half32)),
    ("GOTPCDBL", Does(Got, Half32)),
    ("64", Does(Address, Word64)),
    ("PC64", Does(Relative, Word64)),
    ("GOT64", Does(Slot(ADDRESS), Word64)),
    ("PLT64", Does(Call, Word64)),
    ("GOTENT", Does(SlotRelative(ADDRESS), Half32)),
    ("GOTOFF16", Does(GotOffset, Word16)),
    ("GOTOFF64", Does(GotOffset, Word64)),
    ("GOTPLT12", Does(Slot(ADDRESS), Unsigned12)),
    ("GOTPLT16", Does(Slot(ADDRESS), Word16)),
    ("GOTPLT32", Does(Slot(ADDRESS), Word32)),
    ("GOTPLT64", Does(Slot(ADDRESS), Word64)),
    ("GOTPLTENT", Does(SlotRelative(ADDRESS), Half32)),
    ("PLTOFF16", Does(GotOffset, Word16)),
    ("PLTOFF32", Does(GotOffset, Word32)),
    ("PLTOFF64", Does(GotOffset, Word64)),
    ("TLS_LOAD", MARKER),
    ("TLS_GDCALL", Does(GdCall, Nowhere)),
    ("TLS_LDCALL", Does(LdCall, Nowhere)),
    ("TLS_GD32", Does(Slot(INDEX), Word32)),
    ("TLS_GD64", Does(Slot(INDEX), Word64)),
    ("TLS_GOTIE12", Does(Slot(OFFSET), Unsigned12)),
    ("TLS_GOTIE32", Does(Slot(OFFSET), Word32)),
    ("TLS_GOTIE64", Does(Slot(OFFSET), Word64)),
    ("TLS_LDM32", Does(Slot(MODULE), Word32)),
    ("TLS_LDM64", Does(Slot(MODULE), Word64)),
    ("TLS_IE32", Does(SlotAddress(OFFSET), Word32)),
    ("TLS_IE64", Does(SlotAddress(OFFSET), Word64)),
    ("TLS_IEENT", Does(SlotRelative(OFFSET), Half32)),
    ("TLS_LE32", Does(ThreadOffset, Word32)),
    ("TLS_LE64", Does(ThreadOffset, Word64)),
    ("TLS_LDO32", Does(BlockOffset, Word32)),
    ("TLS_LDO64", Does(BlockOffset, Word64)),
    ("TLS_DTPMOD", DYNAMIC),
    ("TLS_DTPOFF", DYNAMIC),
    ("TLS_TPOFF", DYNAMIC),
    ("20", Does(Address, Split20)),
    ("GOT20", Does(Slot(ADDRESS), Split20)),
    ("GOTPLT20", Does(Slot(ADDRESS), Split20)),
    ("TLS_GOTIE20", Does(Slot(OFFSET), Split20)),
    ("IRELATIVE", DYNAMIC),
    ("PC12DBL", Does(Relative, Half12)),
    ("PLT12DBL", Does(Call, Half12)),
    ("PC24DBL", Does(Relative, Half24)),
    ("PLT24DBL", Does(Call, Half24)),
];

/// Where the field of an instruction is after its start, and so the addend that means the symbol itself.
const FIELD_IN_INSTRUCTION: i64 = 2;

impl Architecture for S390x {
    type Kind = Kind;

    const IDENTITY: Identity = Identity {
        name: "s390x",
        elf: Some(ElfIdentity { e_machine: 22, class: 64, big_endian: true }),
        macho: None,
        coff: None,
        is_host: cfg!(target_arch = "s390x"),
    };
    const BIG_ENDIAN: bool = true;
    const SLOT_SIZE: u64 = 8;
    const STUB_SIZE: u64 = 16;
    const STUB_ALIGN: u64 = 2;
    const BRANCH_REACH: u64 = 1 << 32;
    const TRAP: &'static [u8] = &[0x00, 0x00]; // an operation exception

    fn kind(format: Format, raw: u32) -> Result<Kind, &'static str> {
        if format != Format::Elf {
            return Err("this object format");
        }
        match ELF.get(raw as usize).map_or(OTHER, |(_, support)| *support) {
            Does(value, field) => Ok(Kind { value, field }),
            Refused(why) => Err(why),
        }
    }

    fn name(_format: Format, raw: u32) -> String {
        match ELF.get(raw as usize) {
            Some((name, _)) => format!("R_390_{name}"),
            None => format!("relocation type {raw}"),
        }
    }

    fn operand(kind: Kind) -> Operand {
        match (kind.value, kind.field) {
            (Marker | GdCall | LdCall, _) => Operand::None,
            (Address, Word32) => Operand::LowSymbol,
            (Address | GotOffset, _) => Operand::Symbol,
            (Relative, Half32 | Signed32) => Operand::NearSymbol,
            // Short branches stay where they are, so that a stub need not be near every one.
            (Call, Half32 | Signed32) => Operand::Branch,
            (Relative | Call, _) => Operand::Symbol,
            (Got, _) => Operand::Got,
            (Slot(slot) | SlotAddress(slot) | SlotRelative(slot), _) => Operand::Slot(slot),
            (ThreadOffset, _) => Operand::ThreadOffset,
            (BlockOffset, _) => Operand::BlockOffset,
        }
    }

    fn branch_addend(kind: Kind) -> i64 {
        if kind.field == Half32 { FIELD_IN_INSTRUCTION } else { 0 }
    }

    /// `brasl` is C0x5, `brcl` C0x4.
    fn is_branch(section: &[u8], offset: u64, addend: i64) -> bool {
        let opcode = offset.checked_sub(FIELD_IN_INSTRUCTION as u64);
        let opcode = opcode.and_then(|opcode| bytes_at::<2>(section, opcode).ok());
        addend == FIELD_IN_INSTRUCTION
            && opcode.is_some_and(|[first, second]| first == 0xc0 && matches!(second & 0xf, 4 | 5))
    }

    fn apply(kind: Kind, section: &mut [u8], offset: u64, fixup: Fixup) -> Result<(), FixupProblem> {
        if fixup.through_stub && fixup.addend != Self::branch_addend(kind) {
            return Err(FixupProblem::Unsupported("a call into the middle of a function elsewhere"));
        }
        let value = match kind.value {
            Marker | GdCall | LdCall => return Ok(()),
            Address | SlotAddress(_) | ThreadOffset | BlockOffset => fixup.absolute() as i64,
            Relative | Call | Got | SlotRelative(_) => fixup.relative(),
            GotOffset | Slot(_) => fixup.got_relative(),
        };
        kind.field.write(section, offset, value)
    }

    fn local_exec(kind: Kind) -> Option<LocalExec> {
        local_exec::of(kind)
    }

    fn local_exec_form(kind: Kind, _next: Option<Kind>, section: &[u8], offset: u64) -> LocalExecForm {
        local_exec::form(kind, section, offset)
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

    /// `larl %r1,slot; lg %r1,0(%r1); br %r1`: r1 belongs to whoever is between caller and callee.
    fn write_stub(_kind: u8, stub: &mut [u8], place: u64, leads: Stub) -> Result<(), FixupProblem> {
        *field(stub, 0)? = [
            0xc0,
            0x10,
            0,
            0,
            0,
            0,
            0xe3,
            0x10,
            0x10,
            0x00,
            0x00,
            0x04,
            0x07,
            0xf1,
            Self::TRAP[0],
            Self::TRAP[1],
        ];
        Half32.write(stub, 2, leads.slot.wrapping_sub(place) as i64)
    }
}

impl Field {
    fn write(self, section: &mut [u8], offset: u64, value: i64) -> Result<(), FixupProblem> {
        match self {
            Nowhere => {}
            Word8 => *field(section, offset)? = [either(value as u64, 8)? as u8],
            Word16 => *field(section, offset)? = (either(value as u64, 16)? as u16).to_be_bytes(),
            Word32 => *field(section, offset)? = (either(value as u64, 32)? as u32).to_be_bytes(),
            Signed16 => *field(section, offset)? = (signed(value, 16)? as i16).to_be_bytes(),
            Signed32 => *field(section, offset)? = (signed(value, 32)? as i32).to_be_bytes(),
            Word64 => *field(section, offset)? = value.to_be_bytes(),
            Unsigned12 => low_12(section, offset, unsigned(value as u64, 12)?)?,
            Half12 => low_12(section, offset, halves(value, 13)? as u64)?,
            Half16 => *field(section, offset)? = (halves(value, 17)? as i16).to_be_bytes(),
            Half24 => {
                let [_, bytes @ ..] = (halves(value, 25)? as i32).to_be_bytes();
                *field(section, offset)? = bytes;
            }
            Half32 => *field(section, offset)? = (halves(value, 33)? as i32).to_be_bytes(),
            Split20 => {
                let value = signed(value, 20)? as u32;
                let field = field(section, offset)?;
                let parts = (value & 0xfff) << 16 | (value >> 12 & 0xff) << 8;
                *field = (u32::from_be_bytes(*field) & 0xf000_00ff | parts).to_be_bytes();
            }
        }
        Ok(())
    }
}

/// How many halfwords that is, if it is a signed number of that width.
fn halves(value: i64, bits: u32) -> Result<i64, FixupProblem> {
    Ok(aligned(signed(value, bits)?, 2)? >> 1)
}

/// The four bits before are a register number.
fn low_12(section: &mut [u8], offset: u64, value: u64) -> Result<(), FixupProblem> {
    let field = field(section, offset)?;
    *field = (u16::from_be_bytes(*field) & 0xf000 | value as u16 & 0xfff).to_be_bytes();
    Ok(())
}

#[cfg(test)]
mod tests;
