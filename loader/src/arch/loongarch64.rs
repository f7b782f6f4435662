//! LoongArch, 64 bits, by the LoongArch ELF psABI ("Relocations", object ABI version 1).
//!
//! Oddities: `pcalau12i` counts in pages of 4 KiB, and the 12 bits that go with it are signed, so that the page is that of
//! the address rounded. In the extreme code model two more instructions add the bits above 32; each knows at which distance
//! `pcalau12i` stands before it, and makes up for the signs of the bits below. Only where these two do not follow is the
//! value checked to have 32 bits: other linkers cut it off. As on RISC-V, differences of labels and alignment are the
//! linker's, and so is the load from the GOT, which becomes an addition when the symbol is in reach.

use super::{
    Architecture, ElfIdentity, Fixup, Identity, LocalExec, LocalExecForm, Operand, Padding, Relaxed,
    SlotKind, Stub, ThreadBlock, aligned, bytes_at, change_bits, change_u32, field, insert, sign_extend,
    signed, uleb128,
};
use crate::error::FixupProblem;
use crate::graph::{Format, Relocation};

mod local_exec;

pub(crate) enum LoongArch64 {}

/// Relocation kinds in the psABI's names, without `R_LARCH_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    Abs32,
    Abs64,
    Pcrel32,
    Pcrel64,
    B16,
    B21,
    B26,
    Call30,
    Call36,
    /// A part of an address.
    Part(Of, Bits),
    /// `PCALA_LO12`, which may stand at a `jirl`.
    PcalaLo12,
    /// A part of the distance to the address, in pages: `PCALA_HI20` and its like.
    PagePart(Of, Bits),
    /// `PCREL20_S2` and its like.
    Pcrel20S2(Of),
    PcaddHi20(Of),
    /// The low part of any `PCADD_HI20`, by its label.
    PcaddLo12,
    /// The high part of a thread-local symbol's offset, rounded.
    TlsLeHi20R,
    TlsDtprel32,
    TlsDtprel64,
    /// Mark the load of a descriptor's function, and its call.
    DescLoad,
    DescCall,
    /// Of so many bits.
    Add(u8),
    Sub(u8),
    AddUleb128,
    SubUleb128,
    Align,
}

/// What an address is that of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Symbol,
    Slot(SlotKind),
    /// No address: the offset of a thread-local symbol from the thread pointer.
    ThreadOffset,
}

/// Which bits of a number an instruction holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    /// 12 to 31: `lu12i.w`, `pcalau12i`.
    Hi20,
    /// 0 to 11: `addi.d`, `ori`, loads and stores.
    Lo12,
    /// 32 to 51: `lu32i.d`.
    Hi20Of64,
    /// 52 to 63: `lu52i.d`.
    Hi12Of64,
}

const GOT: Of = Of::Slot(SlotKind::Address);
const IE: Of = Of::Slot(SlotKind::ThreadOffset);
/// Local-dynamic accesses use an entry of their symbol too, as compilers and GNU ld do.
const GD: Of = Of::Slot(SlotKind::ThreadIndex);
const DESC: Of = Of::Slot(SlotKind::ThreadDescriptor);

const DYNAMIC: Result<Kind, &str> = Err("a relocation of the dynamic linker in an object file");
const STACK: Result<Kind, &str> = Err("object ABI version 0, whose relocations are computed on a stack,");
const NOT_EMITTED: Result<Kind, &str> = Err("a relocation that assemblers do not emit");

/// Names and kinds of the ELF relocations, by number. `-`: the psABI reserves it.
const ELF: [(&str, Result<Kind, &str>); 140] = [
    ("NONE", Ok(Kind::None)),
    ("32", Ok(Kind::Abs32)),
    ("64", Ok(Kind::Abs64)),
    ("RELATIVE", DYNAMIC),
    ("COPY", DYNAMIC),
    ("JUMP_SLOT", DYNAMIC),
    ("TLS_DTPMOD32", DYNAMIC),
    ("TLS_DTPMOD64", DYNAMIC),
    ("TLS_DTPREL32", Ok(Kind::TlsDtprel32)),
    ("TLS_DTPREL64", Ok(Kind::TlsDtprel64)),
    ("TLS_TPREL32", DYNAMIC),
    ("TLS_TPREL64", DYNAMIC),
    ("IRELATIVE", DYNAMIC),
    ("TLS_DESC32", DYNAMIC),
    ("TLS_DESC64", DYNAMIC),
    ("-", NOT_EMITTED),
    ("-", NOT_EMITTED),
    ("-", NOT_EMITTED),
    ("-", NOT_EMITTED),
    ("-", NOT_EMITTED),
    ("MARK_LA", Ok(Kind::None)),
    ("MARK_PCREL", Ok(Kind::None)),
    ("SOP_PUSH_PCREL", STACK),
    ("SOP_PUSH_ABSOLUTE", STACK),
    ("SOP_PUSH_DUP", STACK),
    ("SOP_PUSH_GPREL", STACK),
    ("SOP_PUSH_TLS_TPREL", STACK),
    ("SOP_PUSH_TLS_GOT", STACK),
    ("SOP_PUSH_TLS_GD", STACK),
    ("SOP_PUSH_PLT_PCREL", STACK),
    ("SOP_ASSERT", STACK),
    ("SOP_NOT", STACK),
    ("SOP_SUB", STACK),
    ("SOP_SL", STACK),
    ("SOP_SR", STACK),
    ("SOP_ADD", STACK),
    ("SOP_AND", STACK),
    ("SOP_IF_ELSE", STACK),
    ("SOP_POP_32_S_10_5", STACK),
    ("SOP_POP_32_U_10_12", STACK),
    ("SOP_POP_32_S_10_12", STACK),
    ("SOP_POP_32_S_10_16", STACK),
    ("SOP_POP_32_S_10_16_S2", STACK),
    ("SOP_POP_32_S_5_20", STACK),
    ("SOP_POP_32_S_0_5_10_16_S2", STACK),
    ("SOP_POP_32_S_0_10_10_16_S2", STACK),
    ("SOP_POP_32_U", STACK),
    ("ADD8", Ok(Kind::Add(8))),
    ("ADD16", Ok(Kind::Add(16))),
    ("ADD24", NOT_EMITTED),
    ("ADD32", Ok(Kind::Add(32))),
    ("ADD64", Ok(Kind::Add(64))),
    ("SUB8", Ok(Kind::Sub(8))),
    ("SUB16", Ok(Kind::Sub(16))),
    ("SUB24", NOT_EMITTED),
    ("SUB32", Ok(Kind::Sub(32))),
    ("SUB64", Ok(Kind::Sub(64))),
    ("GNU_VTINHERIT", NOT_EMITTED),
    ("GNU_VTENTRY", NOT_EMITTED),
    ("-", NOT_EMITTED),
    ("-", NOT_EMITTED),
    ("-", NOT_EMITTED),
    ("-", NOT_EMITTED),
    ("-", NOT_EMITTED),
    ("B16", Ok(Kind::B16)),
    ("B21", Ok(Kind::B21)),
    ("B26", Ok(Kind::B26)),
    ("ABS_HI20", Ok(Kind::Part(Of::Symbol, Bits::Hi20))),
    ("ABS_LO12", Ok(Kind::Part(Of::Symbol, Bits::Lo12))),
    ("ABS64_LO20", Ok(Kind::Part(Of::Symbol, Bits::Hi20Of64))),
    ("ABS64_HI12", Ok(Kind::Part(Of::Symbol, Bits::Hi12Of64))),
    ("PCALA_HI20", Ok(Kind::PagePart(Of::Symbol, Bits::Hi20))),
    ("PCALA_LO12", Ok(Kind::PcalaLo12)),
    ("PCALA64_LO20", Ok(Kind::PagePart(Of::Symbol, Bits::Hi20Of64))),
    ("PCALA64_HI12", Ok(Kind::PagePart(Of::Symbol, Bits::Hi12Of64))),
    ("GOT_PC_HI20", Ok(Kind::PagePart(GOT, Bits::Hi20))),
    ("GOT_PC_LO12", Ok(Kind::Part(GOT, Bits::Lo12))),
    ("GOT64_PC_LO20", Ok(Kind::PagePart(GOT, Bits::Hi20Of64))),
    ("GOT64_PC_HI12", Ok(Kind::PagePart(GOT, Bits::Hi12Of64))),
    ("GOT_HI20", Ok(Kind::Part(GOT, Bits::Hi20))),
    ("GOT_LO12", Ok(Kind::Part(GOT, Bits::Lo12))),
    ("GOT64_LO20", Ok(Kind::Part(GOT, Bits::Hi20Of64))),
    ("GOT64_HI12", Ok(Kind::Part(GOT, Bits::Hi12Of64))),
    ("TLS_LE_HI20", Ok(Kind::Part(Of::ThreadOffset, Bits::Hi20))),
    ("TLS_LE_LO12", Ok(Kind::Part(Of::ThreadOffset, Bits::Lo12))),
    ("TLS_LE64_LO20", Ok(Kind::Part(Of::ThreadOffset, Bits::Hi20Of64))),
    ("TLS_LE64_HI12", Ok(Kind::Part(Of::ThreadOffset, Bits::Hi12Of64))),
    ("TLS_IE_PC_HI20", Ok(Kind::PagePart(IE, Bits::Hi20))),
    ("TLS_IE_PC_LO12", Ok(Kind::Part(IE, Bits::Lo12))),
    ("TLS_IE64_PC_LO20", Ok(Kind::PagePart(IE, Bits::Hi20Of64))),
    ("TLS_IE64_PC_HI12", Ok(Kind::PagePart(IE, Bits::Hi12Of64))),
    ("TLS_IE_HI20", Ok(Kind::Part(IE, Bits::Hi20))),
    ("TLS_IE_LO12", Ok(Kind::Part(IE, Bits::Lo12))),
    ("TLS_IE64_LO20", Ok(Kind::Part(IE, Bits::Hi20Of64))),
    ("TLS_IE64_HI12", Ok(Kind::Part(IE, Bits::Hi12Of64))),
    ("TLS_LD_PC_HI20", Ok(Kind::PagePart(GD, Bits::Hi20))),
    ("TLS_LD_HI20", Ok(Kind::Part(GD, Bits::Hi20))),
    ("TLS_GD_PC_HI20", Ok(Kind::PagePart(GD, Bits::Hi20))),
    ("TLS_GD_HI20", Ok(Kind::Part(GD, Bits::Hi20))),
    ("32_PCREL", Ok(Kind::Pcrel32)),
    ("RELAX", Ok(Kind::None)),
    ("DELETE", NOT_EMITTED),
    ("ALIGN", Ok(Kind::Align)),
    ("PCREL20_S2", Ok(Kind::Pcrel20S2(Of::Symbol))),
    ("CFA", NOT_EMITTED),
    ("ADD6", Ok(Kind::Add(6))),
    ("SUB6", Ok(Kind::Sub(6))),
    ("ADD_ULEB128", Ok(Kind::AddUleb128)),
    ("SUB_ULEB128", Ok(Kind::SubUleb128)),
    ("64_PCREL", Ok(Kind::Pcrel64)),
    ("CALL36", Ok(Kind::Call36)),
    ("TLS_DESC_PC_HI20", Ok(Kind::PagePart(DESC, Bits::Hi20))),
    ("TLS_DESC_PC_LO12", Ok(Kind::Part(DESC, Bits::Lo12))),
    ("TLS_DESC64_PC_LO20", Ok(Kind::PagePart(DESC, Bits::Hi20Of64))),
    ("TLS_DESC64_PC_HI12", Ok(Kind::PagePart(DESC, Bits::Hi12Of64))),
    ("TLS_DESC_HI20", Ok(Kind::Part(DESC, Bits::Hi20))),
    ("TLS_DESC_LO12", Ok(Kind::Part(DESC, Bits::Lo12))),
    ("TLS_DESC64_LO20", Ok(Kind::Part(DESC, Bits::Hi20Of64))),
    ("TLS_DESC64_HI12", Ok(Kind::Part(DESC, Bits::Hi12Of64))),
    ("TLS_DESC_LD", Ok(Kind::DescLoad)),
    ("TLS_DESC_CALL", Ok(Kind::DescCall)),
    ("TLS_LE_HI20_R", Ok(Kind::TlsLeHi20R)),
    ("TLS_LE_ADD_R", Ok(Kind::None)),
    ("TLS_LE_LO12_R", Ok(Kind::Part(Of::ThreadOffset, Bits::Lo12))),
    ("TLS_LD_PCREL20_S2", Ok(Kind::Pcrel20S2(GD))),
    ("TLS_GD_PCREL20_S2", Ok(Kind::Pcrel20S2(GD))),
    ("TLS_DESC_PCREL20_S2", Ok(Kind::Pcrel20S2(DESC))),
    ("CALL30", Ok(Kind::Call30)),
    ("PCADD_HI20", Ok(Kind::PcaddHi20(Of::Symbol))),
    ("PCADD_LO12", Ok(Kind::PcaddLo12)),
    ("GOT_PCADD_HI20", Ok(Kind::PcaddHi20(GOT))),
    ("GOT_PCADD_LO12", Ok(Kind::PcaddLo12)),
    ("TLS_IE_PCADD_HI20", Ok(Kind::PcaddHi20(IE))),
    ("TLS_IE_PCADD_LO12", Ok(Kind::PcaddLo12)),
    ("TLS_LD_PCADD_HI20", Ok(Kind::PcaddHi20(GD))),
    ("TLS_LD_PCADD_LO12", Ok(Kind::PcaddLo12)),
    ("TLS_GD_PCADD_HI20", Ok(Kind::PcaddHi20(GD))),
    ("TLS_GD_PCADD_LO12", Ok(Kind::PcaddLo12)),
    ("TLS_DESC_PCADD_HI20", Ok(Kind::PcaddHi20(DESC))),
    ("TLS_DESC_PCADD_LO12", Ok(Kind::PcaddLo12)),
];

/// `pcalau12i rd, 0`.
const PCALAU12I: u32 = 0x1a00_0000;
/// `addi.d rd, rj, 0`.
const ADDI_D: u32 = 0x02c0_0000;
/// `ld.d rd, rj, 0`.
const LD_D: u32 = 0x28c0_0000;
/// `jirl rd, rj, 0`.
const JIRL: u32 = 0x4c00_0000;
/// `lu32i.d rd, 0`.
const LU32I_D: u32 = 0x1600_0000;

/// The two instruction formats with an immediate of 20 and of 12 bits.
fn set_j20(word: u32, value: u64) -> u32 {
    insert(word, 5, 20, value)
}

fn set_k12(word: u32, value: u64) -> u32 {
    insert(word, 10, 12, value)
}

/// The immediate of `jirl` and of conditional branches, in words.
fn set_k16(word: u32, value: u64) -> u32 {
    insert(word, 10, 16, value >> 2)
}

/// The immediate of branches whose upper bits, so many, stand at the low end.
fn set_k16_d(word: u32, upper: u32, value: u64) -> u32 {
    insert(set_k16(word, value), 0, upper, value >> 18)
}

impl Bits {
    fn set(self, word: u32, value: u64) -> u32 {
        match self {
            Bits::Hi20 => set_j20(word, value >> 12),
            Bits::Lo12 => set_k12(word, value),
            Bits::Hi20Of64 => set_j20(word, value >> 32),
            Bits::Hi12Of64 => set_k12(word, value >> 52),
        }
    }
}

impl Of {
    fn operand(self, symbol: Operand) -> Operand {
        match self {
            Of::Symbol => symbol,
            Of::Slot(kind) => Operand::Slot(kind),
            Of::ThreadOffset => Operand::ThreadOffset,
        }
    }
}

fn page(address: u64) -> u64 {
    address & !0xfff
}

/// The distance between the pages of two addresses, the first rounded.
fn page_distance(address: u64, pc: u64) -> u64 {
    page(address.wrapping_add(0x800)).wrapping_sub(page(pc))
}

/// The number whose bits above 32 the last two instructions of the extreme code model hold. They are added to what the
/// first two made, whose parts are sign-extended (psABI, "Code Models", "extreme").
fn extreme(address: u64, pc: u64) -> u64 {
    let borrowed = if address & 0x800 != 0 { 1 << 32 } else { 0 };
    let distance = page_distance(address, pc).wrapping_sub(borrowed);
    let carried = if distance & 0x8000_0000 != 0 { 1 << 32 } else { 0 };
    distance.wrapping_add(carried)
}

/// The value, if it has 32 bits; bits above that are for the `lu32i.d` that follows, if one does.
fn hi20(value: u64, section: &[u8], offset: u64) -> Result<u64, FixupProblem> {
    let later = offset.checked_add(8).ok_or(FixupProblem::OutsideSection)?;
    let is_extreme = match bytes_at(section, later) {
        Ok(word) => u32::from_le_bytes(word) & 0xfe00_0000 == LU32I_D,
        Err(_) => false,
    };
    if is_extreme { Ok(value) } else { signed(value as i64, 32).map(|value| value as u64) }
}

impl Architecture for LoongArch64 {
    type Kind = Kind;

    const IDENTITY: Identity = Identity {
        name: "loongarch64",
        elf: Some(ElfIdentity { e_machine: 258, class: 64, big_endian: false }),
        macho: None,
        coff: None,
        is_host: cfg!(target_arch = "loongarch64"),
    };
    const SLOT_SIZE: u64 = 8;
    const THREAD_BLOCK: ThreadBlock = ThreadBlock::AfterPointer { gap: 0, bias: 0 };
    const STUB_SIZE: u64 = 16;
    const STUB_ALIGN: u64 = 16;
    /// That of `b` and `bl`.
    const BRANCH_REACH: u64 = 1 << 27;
    const ALIGNS_BY_RELOCATION: bool = true;
    const TRAP: &'static [u8] = &[0x00, 0x00, 0x2a, 0x00]; // break 0

    #[inline]
    fn kind(format: Format, raw: u32) -> Result<Kind, &'static str> {
        match (format, ELF.get(raw as usize)) {
            (Format::Elf, Some((_, kind))) => *kind,
            (Format::Elf, None) => Err("this kind of relocation"),
            (Format::MachO | Format::Coff, _) => Err("this object format"),
        }
    }

    fn name(_format: Format, raw: u32) -> String {
        match ELF.get(raw as usize) {
            Some((name, _)) if *name != "-" => format!("R_LARCH_{name}"),
            _ => format!("relocation type {raw}"),
        }
    }

    #[inline]
    fn operand(kind: Kind) -> Operand {
        match kind {
            Kind::None | Kind::DescLoad | Kind::DescCall => Operand::None,
            Kind::Align => Operand::Alignment,
            Kind::Abs32 => Operand::LowSymbol,
            Kind::Abs64
            | Kind::Pcrel64
            | Kind::Add(_)
            | Kind::Sub(_)
            | Kind::AddUleb128
            | Kind::SubUleb128 => Operand::Symbol,
            Kind::Pcrel32 | Kind::PcalaLo12 => Operand::NearSymbol,
            Kind::B16 | Kind::B21 | Kind::B26 | Kind::Call30 | Kind::Call36 => Operand::Branch,
            Kind::PagePart(of, Bits::Hi20) | Kind::Pcrel20S2(of) | Kind::PcaddHi20(of) => {
                of.operand(Operand::NearSymbol)
            }
            Kind::Part(of, _) | Kind::PagePart(of, _) => of.operand(Operand::Symbol),
            Kind::PcaddLo12 => Operand::PairedLow,
            Kind::TlsLeHi20R => Operand::ThreadOffset,
            Kind::TlsDtprel32 | Kind::TlsDtprel64 => Operand::BlockOffset,
        }
    }

    /// A general-dynamic access has a high part of its own, but shares the others with the GOT.
    fn thread_local_operand(kind: Kind) -> Operand {
        match Self::operand(kind) {
            Operand::Slot(SlotKind::Address) => GD.operand(Operand::None),
            operand => operand,
        }
    }

    fn is_paired_high(kind: Kind) -> bool {
        matches!(kind, Kind::PcaddHi20(_))
    }

    /// Without a symbol the addend is the amount of padding, 4 less than the alignment. With one, its low byte is the
    /// alignment's logarithm, and the rest is how much padding is worth it, 0 for any.
    fn padding(_kind: Kind, relocation: &Relocation) -> Result<Padding, FixupProblem> {
        const PROBLEM: FixupProblem = FixupProblem::Unsupported("as much padding");
        let addend = u64::try_from(relocation.addend).map_err(|_| PROBLEM)?;
        let (log, most) = match relocation.symbol {
            0 => (addend.checked_ilog2().map_or(0, |log| log + 1), 0),
            _ => (addend as u32 & 0xff, addend >> 8),
        };
        let align = 1u64.checked_shl(log).filter(|align| *align >= 4).ok_or(PROBLEM)?;
        Ok(Padding { bytes: align - 4, align, most: if most == 0 { u64::MAX } else { most } })
    }

    /// `andi $zero, $zero, 0`.
    fn write_nops(padding: &mut [u8]) {
        for nop in padding.chunks_mut(4) {
            nop.copy_from_slice(&0x0340_0000u32.to_le_bytes()[..nop.len()]);
        }
    }

    #[inline]
    fn apply(kind: Kind, section: &mut [u8], offset: u64, fixup: Fixup) -> Result<(), FixupProblem> {
        // A distance of that many bits, in words.
        let words = |bits| Ok(aligned(signed(fixup.relative(), bits)?, 4)? as u64);
        match kind {
            Kind::None | Kind::Align | Kind::DescLoad | Kind::DescCall => Ok(()),
            // S + A: word32. Addresses above 4 GiB are cut off.
            Kind::Abs32 | Kind::TlsDtprel32 => {
                *field(section, offset)? = (fixup.absolute() as u32).to_le_bytes();
                Ok(())
            }
            // S + A: word64.
            Kind::Abs64 | Kind::TlsDtprel64 => {
                *field(section, offset)? = fixup.absolute().to_le_bytes();
                Ok(())
            }
            // S + A - PC: word32.
            Kind::Pcrel32 => {
                *field(section, offset)? = (signed(fixup.relative(), 32)? as i32).to_le_bytes();
                Ok(())
            }
            // S + A - PC: word64.
            Kind::Pcrel64 => {
                *field(section, offset)? = fixup.relative().to_le_bytes();
                Ok(())
            }
            // S + A - PC, of 18, 23 or 28 bits, in words.
            Kind::B16 => change_u32(section, offset, |word| Ok(set_k16(word, words(18)?))),
            Kind::B21 => change_u32(section, offset, |word| Ok(set_k16_d(word, 5, words(23)?))),
            Kind::B26 => change_u32(section, offset, |word| Ok(set_k16_d(word, 10, words(28)?))),
            // S + A - PC, of 32 bits, in words: `pcaddu12i` and, without a sign, `jirl`.
            Kind::Call30 => {
                let value = words(32)?;
                bytes_at::<8>(section, offset)?;
                change_u32(section, offset, |word| Ok(set_j20(word, value >> 12)))?;
                change_u32(section, offset + 4, |word| Ok(set_k16(word, value & 0xfff)))
            }
            // S + A - PC, of 38 bits, in words: `pcaddu18i` and `jirl`, whose part is signed.
            Kind::Call36 => {
                let value = aligned(fixup.relative(), 4)?;
                let rounded = value.wrapping_add(0x2_0000);
                signed(rounded, 38).map_err(|_| FixupProblem::OutOfRange { value, bits: 38 })?;
                bytes_at::<8>(section, offset)?;
                change_u32(section, offset, |word| Ok(set_j20(word, rounded as u64 >> 18)))?;
                change_u32(section, offset + 4, |word| Ok(set_k16(word, value as u64)))
            }
            // S + A, of 22 bits, in words.
            Kind::Pcrel20S2(_) => change_u32(section, offset, |word| Ok(set_j20(word, words(22)? >> 2))),
            // S + A, GOT + G + A, T: bits 12 to 31.
            Kind::Part(_, Bits::Hi20) => {
                let value = hi20(fixup.absolute(), section, offset)?;
                change_u32(section, offset, |word| Ok(Bits::Hi20.set(word, value)))
            }
            // S + A, GOT + G + A, T: the other bits.
            Kind::Part(_, bits) => change_u32(section, offset, |word| Ok(bits.set(word, fixup.absolute()))),
            // S + A: bits 0 to 11, for `jirl` in words and signed.
            Kind::PcalaLo12 => change_u32(section, offset, |word| match word & 0xfc00_0000 {
                JIRL => {
                    let value = aligned(fixup.absolute() as i64, 4)?;
                    Ok(set_k16(word, sign_extend(value as u64, 12) as u64))
                }
                _ => Ok(set_k12(word, fixup.absolute())),
            }),
            // S + A - PC, GOT + G + A - PC, in pages: bits 12 to 31.
            Kind::PagePart(_, Bits::Hi20) => {
                let value = hi20(page_distance(fixup.absolute(), fixup.place), section, offset)?;
                change_u32(section, offset, |word| Ok(Bits::Hi20.set(word, value)))
            }
            // The same, bits 32 to 63. `pcalau12i` stands two or three instructions before.
            Kind::PagePart(_, bits) => {
                let back = if bits == Bits::Hi12Of64 { 12 } else { 8 };
                let value = extreme(fixup.absolute(), fixup.place.wrapping_sub(back));
                change_u32(section, offset, |word| Ok(bits.set(word, value)))
            }
            // S + A - PC, GOT + G + A - PC: bits 12 to 31, rounded.
            Kind::PcaddHi20(_) => {
                let value = signed(fixup.relative().wrapping_add(0x800), 32)? as u64;
                change_u32(section, offset, |word| Ok(Bits::Hi20.set(word, value)))
            }
            // S + A - PC, GOT + G + A - PC of the high part: bits 0 to 11.
            Kind::PcaddLo12 => change_u32(section, offset, |word| Ok(set_k12(word, fixup.relative() as u64))),
            // T: bits 12 to 31, rounded.
            Kind::TlsLeHi20R => {
                let value = signed(fixup.absolute().wrapping_add(0x800) as i64, 32)? as u64;
                change_u32(section, offset, |word| Ok(Bits::Hi20.set(word, value)))
            }
            // *PC + S + A: word6, word8, word16, word32, word64.
            Kind::Add(width) => change_bits(section, offset, width, |old| old.wrapping_add(fixup.absolute())),
            // *PC - S - A: word6, word8, word16, word32, word64.
            Kind::Sub(width) => change_bits(section, offset, width, |old| old.wrapping_sub(fixup.absolute())),
            // *PC + S + A, *PC - S - A: ULEB128. What is too much goes again with the other half of the pair.
            Kind::AddUleb128 | Kind::SubUleb128 => {
                let number = uleb128(section, offset)?;
                let (old, mask) = (number.get(), u64::MAX >> (64 - number.bits()));
                let new = match kind {
                    Kind::AddUleb128 => old.wrapping_add(fixup.absolute()),
                    _ => old.wrapping_sub(fixup.absolute()),
                };
                number.set(new & mask)
            }
        }
    }

    /// The two parts of an entry's address come in pairs throughout. General-dynamic accesses have the second part only.
    fn may_relax(kinds: impl Iterator<Item = Kind>) -> bool {
        let mut kinds = kinds.filter(|kind| *kind != Kind::None);
        while let Some(kind) = kinds.next() {
            let is_alone = match kind {
                PAGE_PART_OF_SLOT => kinds.next() != Some(PART_OF_SLOT),
                _ => kind == PART_OF_SLOT,
            };
            if is_alone {
                return false;
            }
        }
        true
    }

    /// `pcalau12i rd, hi; ld.d rd, rd, lo` through the GOT becomes `pcalau12i rd, hi; addi.d rd, rd, lo`.
    fn relax(
        kind: Kind,
        current: &Relocation,
        next: Option<(Kind, Relocation)>,
        section: &mut [u8],
        fixup: Fixup,
    ) -> Relaxed {
        let is_pair = |next: &Relocation| {
            next.symbol == current.symbol
                && next.addend == 0
                && current.addend == 0
                && next.offset.checked_sub(4) == Some(current.offset)
        };
        let (PAGE_PART_OF_SLOT, Some((PART_OF_SLOT, next))) = (kind, next) else { return Relaxed::No };
        let Ok(pair) = bytes_at::<8>(section, current.offset) else { return Relaxed::No };
        let [high, low] =
            [0, 4].map(|at| u32::from_le_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]));
        let (register, base, loaded) = (high & 0x1f, low >> 5 & 0x1f, low & 0x1f);
        let distance = fixup.target.wrapping_sub(page(fixup.place)) as i64;
        if !is_pair(&next)
            || high & 0xfe00_0000 != PCALAU12I
            || low & 0xffc0_0000 != LD_D
            || register != base
            || base != loaded
            || signed(distance.wrapping_add(0x800), 32).is_err()
        {
            return Relaxed::No;
        }
        let high = set_j20(PCALAU12I | register, page_distance(fixup.target, fixup.place) >> 12);
        let low = set_k12(ADDI_D | base << 5 | loaded, fixup.target);
        match field(section, current.offset) {
            Ok(pair) => *pair = (u64::from(low) << 32 | u64::from(high)).to_le_bytes(),
            Err(_) => return Relaxed::No,
        }
        Relaxed::Both
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

    /// `pcalau12i $t8, slot; ld.d $t8, $t8, slot; jr $t8; break 0`.
    fn write_stub(_kind: u8, stub: &mut [u8], place: u64, leads: Stub) -> Result<(), FixupProblem> {
        const T8: u32 = 20;
        let distance = signed(page_distance(leads.slot, place) as i64, 32)? as u64;
        *field(stub, 0)? = set_j20(PCALAU12I | T8, distance >> 12).to_le_bytes();
        *field(stub, 4)? = set_k12(LD_D | T8 << 5 | T8, leads.slot).to_le_bytes();
        *field(stub, 8)? = (JIRL | T8 << 5).to_le_bytes();
        *field(stub, 12)? = [0x00, 0x00, 0x2a, 0x00];
        Ok(())
    }
}

const PAGE_PART_OF_SLOT: Kind = Kind::PagePart(GOT, Bits::Hi20);
const PART_OF_SLOT: Kind = Kind::Part(GOT, Bits::Lo12);

#[cfg(test)]
mod tests;
