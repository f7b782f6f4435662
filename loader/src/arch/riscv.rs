//! RISC-V, 32 and 64 bits, by the RISC-V ELF psABI ("Relocations", "Linker Relaxation").
//!
//! Oddities: an address is made of 20 bits in one instruction and 12 in a later one that names the place of the first, not
//! the target. The 12 bits are signed, so that the 20 are rounded. Because a linker may take out code, even a difference of
//! two labels is left to it, as an addition and a subtraction on what the field holds, and so is alignment: `ALIGN` stands
//! at as much padding as may be needed. A branch to a weak symbol that is defined nowhere leads back to itself, as
//! `ld.lld` has it, so that it is always in reach.

use super::{
    Architecture, ElfIdentity, Fixup, Identity, LocalExec, LocalExecForm, Operand, Padding, SlotKind, Stub,
    ThreadBlock, aligned, bytes_at, change_bits, change_u16, change_u32, field, insert, sign_extend, signed,
    uleb128,
};
use crate::error::FixupProblem;
use crate::graph::{Format, Relocation};

mod local_exec;

/// RISC-V with registers of `XLEN` bits.
pub(crate) enum Riscv<const XLEN: u8> {}

/// Relocation kinds in the psABI's names, without `R_RISCV_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    Abs32,
    Abs64,
    Branch,
    Jal,
    RvcBranch,
    RvcJump,
    /// `CALL` and `CALL_PLT`.
    Call,
    Plt32,
    Pcrel32,
    GotPcrel32,
    Hi20,
    Lo12I,
    Lo12S,
    PcrelHi20,
    GotHi20,
    TlsGotHi20,
    TlsGdHi20,
    TlsDescHi20,
    PcrelLo12I,
    PcrelLo12S,
    TlsDescLoadLo12,
    TlsDescAddLo12,
    /// Marks the call of the descriptor's function.
    TlsDescCall,
    TprelHi20,
    TprelLo12I,
    TprelLo12S,
    /// Of so many bits.
    Add(u8),
    Sub(u8),
    Set(u8),
    SetUleb128,
    SubUleb128,
    Align,
}

const DYNAMIC: Result<Kind, &str> = Err("a relocation of the dynamic linker in an object file");
const RESERVED: Result<Kind, &str> = Err("a number that the psABI reserves");

/// Names and kinds of the ELF relocations, by number.
const ELF: [(&str, Result<Kind, &str>); 66] = [
    ("NONE", Ok(Kind::None)),
    ("32", Ok(Kind::Abs32)),
    ("64", Ok(Kind::Abs64)),
    ("RELATIVE", DYNAMIC),
    ("COPY", DYNAMIC),
    ("JUMP_SLOT", DYNAMIC),
    ("TLS_DTPMOD32", DYNAMIC),
    ("TLS_DTPMOD64", DYNAMIC),
    ("TLS_DTPREL32", DYNAMIC),
    ("TLS_DTPREL64", DYNAMIC),
    ("TLS_TPREL32", DYNAMIC),
    ("TLS_TPREL64", DYNAMIC),
    ("TLSDESC", DYNAMIC),
    ("13", RESERVED),
    ("14", RESERVED),
    ("15", RESERVED),
    ("BRANCH", Ok(Kind::Branch)),
    ("JAL", Ok(Kind::Jal)),
    ("CALL", Ok(Kind::Call)),
    ("CALL_PLT", Ok(Kind::Call)),
    ("GOT_HI20", Ok(Kind::GotHi20)),
    ("TLS_GOT_HI20", Ok(Kind::TlsGotHi20)),
    ("TLS_GD_HI20", Ok(Kind::TlsGdHi20)),
    ("PCREL_HI20", Ok(Kind::PcrelHi20)),
    ("PCREL_LO12_I", Ok(Kind::PcrelLo12I)),
    ("PCREL_LO12_S", Ok(Kind::PcrelLo12S)),
    ("HI20", Ok(Kind::Hi20)),
    ("LO12_I", Ok(Kind::Lo12I)),
    ("LO12_S", Ok(Kind::Lo12S)),
    ("TPREL_HI20", Ok(Kind::TprelHi20)),
    ("TPREL_LO12_I", Ok(Kind::TprelLo12I)),
    ("TPREL_LO12_S", Ok(Kind::TprelLo12S)),
    ("TPREL_ADD", Ok(Kind::None)),
    ("ADD8", Ok(Kind::Add(8))),
    ("ADD16", Ok(Kind::Add(16))),
    ("ADD32", Ok(Kind::Add(32))),
    ("ADD64", Ok(Kind::Add(64))),
    ("SUB8", Ok(Kind::Sub(8))),
    ("SUB16", Ok(Kind::Sub(16))),
    ("SUB32", Ok(Kind::Sub(32))),
    ("SUB64", Ok(Kind::Sub(64))),
    ("GOT32_PCREL", Ok(Kind::GotPcrel32)),
    ("42", RESERVED),
    ("ALIGN", Ok(Kind::Align)),
    ("RVC_BRANCH", Ok(Kind::RvcBranch)),
    ("RVC_JUMP", Ok(Kind::RvcJump)),
    // Once used among linkers only, never by assemblers.
    ("RVC_LUI", RESERVED),
    ("GPREL_I", RESERVED),
    ("GPREL_S", RESERVED),
    ("TPREL_I", RESERVED),
    ("TPREL_S", RESERVED),
    ("RELAX", Ok(Kind::None)),
    ("SUB6", Ok(Kind::Sub(6))),
    ("SET6", Ok(Kind::Set(6))),
    ("SET8", Ok(Kind::Set(8))),
    ("SET16", Ok(Kind::Set(16))),
    ("SET32", Ok(Kind::Set(32))),
    ("32_PCREL", Ok(Kind::Pcrel32)),
    ("IRELATIVE", DYNAMIC),
    ("PLT32", Ok(Kind::Plt32)),
    ("SET_ULEB128", Ok(Kind::SetUleb128)),
    ("SUB_ULEB128", Ok(Kind::SubUleb128)),
    ("TLSDESC_HI20", Ok(Kind::TlsDescHi20)),
    ("TLSDESC_LOAD_LO12", Ok(Kind::TlsDescLoadLo12)),
    ("TLSDESC_ADD_LO12", Ok(Kind::TlsDescAddLo12)),
    ("TLSDESC_CALL", Ok(Kind::TlsDescCall)),
];

/// How an immediate is spread over an instruction: lowest bit in the value, number of bits, lowest bit in the instruction
/// (ISA manual, "Immediate Encoding Variants" and "Compressed Instruction Formats").
type Spread = &'static [(u32, u32, u32)];

const I_TYPE: Spread = &[(0, 12, 20)];
const S_TYPE: Spread = &[(0, 5, 7), (5, 7, 25)];
const B_TYPE: Spread = &[(1, 4, 8), (5, 6, 25), (11, 1, 7), (12, 1, 31)];
const U_TYPE: Spread = &[(12, 20, 12)];
const J_TYPE: Spread = &[(1, 10, 21), (11, 1, 20), (12, 8, 12), (20, 1, 31)];
const CB_TYPE: Spread = &[(1, 2, 3), (3, 2, 10), (5, 1, 2), (6, 2, 5), (8, 1, 12)];
const CJ_TYPE: Spread =
    &[(1, 3, 3), (4, 1, 11), (5, 1, 2), (6, 1, 7), (7, 1, 6), (8, 2, 9), (10, 1, 8), (11, 1, 12)];

/// `instruction` with the immediate replaced.
fn encode(spread: Spread, instruction: u32, value: i64) -> u32 {
    spread.iter().fold(instruction, |word, (from, width, to)| insert(word, *to, *width, value as u64 >> from))
}

/// The distance to a branch's target, or to itself if there is none.
fn distance(fixup: &Fixup) -> i64 {
    if fixup.undefined_weak && !fixup.through_stub { fixup.addend } else { fixup.relative() }
}

impl<const XLEN: u8> Riscv<XLEN> {
    /// The value whose bits from 12 on are the high part: rounded, because the low part is signed. Registers wrap round, so
    /// that with 32 bits everything is in reach.
    fn rounded(value: i64) -> Result<i64, FixupProblem> {
        let rounded = sign_extend(value.wrapping_add(0x800) as u64, u32::from(XLEN));
        signed(rounded, 32).map_err(|_| FixupProblem::OutOfRange { value, bits: 32 })
    }
}

impl<const XLEN: u8> Architecture for Riscv<XLEN> {
    type Kind = Kind;

    const IDENTITY: Identity = Identity {
        name: if XLEN == 32 { "riscv32" } else { "riscv64" },
        elf: Some(ElfIdentity { e_machine: 243, class: XLEN, big_endian: false }),
        macho: None,
        coff: None,
        is_host: cfg!(target_arch = "riscv32") && XLEN == 32 || cfg!(target_arch = "riscv64") && XLEN == 64,
    };
    const SLOT_SIZE: u64 = XLEN as u64 / 8;
    const THREAD_BLOCK: ThreadBlock = ThreadBlock::AfterPointer { gap: 0, bias: 0 };
    // The bias of `dtv` entries (RISC-V ELF psABI, "Thread Local Storage").
    const BLOCK_BIAS: u64 = 0x800;
    const STUB_SIZE: u64 = 16;
    const STUB_ALIGN: u64 = 16;
    const ALIGNS_BY_RELOCATION: bool = true;
    /// The shortest encoding of an instruction that is never one.
    const TRAP: &'static [u8] = &[0, 0];

    #[inline]
    fn kind(format: Format, raw: u32) -> Result<Kind, &'static str> {
        match (format, ELF.get(raw as usize), raw) {
            (Format::Elf, Some((_, kind)), _) => *kind,
            (Format::Elf, None, 191) => Err("a vendor's relocation"),
            (Format::Elf, None, 192..=255) => Err("a relocation that only its vendor knows"),
            (Format::Elf, None, _) => Err("this kind of relocation"),
            (Format::MachO | Format::Coff, ..) => Err("this object format"),
        }
    }

    fn name(_format: Format, raw: u32) -> String {
        match (ELF.get(raw as usize), raw) {
            (Some((name, kind)), _) if name.parse::<u32>() != Ok(raw) || kind.is_ok() => {
                format!("R_RISCV_{name}")
            }
            (_, 191) => "R_RISCV_VENDOR".to_owned(),
            (_, 192..=255) => format!("R_RISCV_CUSTOM{raw}"),
            _ => format!("relocation type {raw}"),
        }
    }

    #[inline]
    fn operand(kind: Kind) -> Operand {
        match kind {
            Kind::None | Kind::TlsDescCall => Operand::None,
            Kind::Align => Operand::Alignment,
            Kind::Abs64
            | Kind::Add(_)
            | Kind::Sub(_)
            | Kind::Set(_)
            | Kind::SetUleb128
            | Kind::SubUleb128 => Operand::Symbol,
            Kind::Abs32 | Kind::Hi20 | Kind::Lo12I | Kind::Lo12S => Operand::LowSymbol,
            Kind::Branch | Kind::RvcBranch | Kind::RvcJump | Kind::Pcrel32 | Kind::PcrelHi20 => {
                Operand::NearSymbol
            }
            Kind::Jal | Kind::Call | Kind::Plt32 => Operand::Branch,
            Kind::GotPcrel32 | Kind::GotHi20 => Operand::Slot(SlotKind::Address),
            Kind::TlsGotHi20 => Operand::Slot(SlotKind::ThreadOffset),
            Kind::TlsGdHi20 => Operand::Slot(SlotKind::ThreadIndex),
            Kind::TlsDescHi20 => Operand::Slot(SlotKind::ThreadDescriptor),
            Kind::PcrelLo12I | Kind::PcrelLo12S | Kind::TlsDescLoadLo12 | Kind::TlsDescAddLo12 => {
                Operand::PairedLow
            }
            Kind::TprelHi20 | Kind::TprelLo12I | Kind::TprelLo12S => Operand::ThreadOffset,
        }
    }

    /// The field is as long as the difference, so that it cannot hold the first part alone.
    fn subtrahend(kind: Kind) -> Option<Kind> {
        (kind == Kind::SetUleb128).then_some(Kind::SubUleb128)
    }

    fn is_paired_high(kind: Kind) -> bool {
        matches!(
            kind,
            Kind::PcrelHi20 | Kind::GotHi20 | Kind::TlsGotHi20 | Kind::TlsGdHi20 | Kind::TlsDescHi20
        )
    }

    /// The addend says how much padding there is: two bytes, or four without compressed instructions, less than the
    /// alignment, so that this is the next power of two.
    fn padding(_kind: Kind, relocation: &Relocation) -> Result<Padding, FixupProblem> {
        let bytes = u64::try_from(relocation.addend).ok().filter(|bytes| bytes % 2 == 0);
        let bytes = bytes.ok_or(FixupProblem::Unsupported("an odd amount of padding"))?;
        let align = bytes.checked_add(2).and_then(u64::checked_next_power_of_two);
        let align = align.ok_or(FixupProblem::Unsupported("as much padding"))?;
        Ok(Padding { bytes, align, most: u64::MAX })
    }

    /// `addi x0, x0, 0`, and `c.nop` for two bytes at the end.
    fn write_nops(padding: &mut [u8]) {
        for nop in padding.chunks_mut(4) {
            match nop.len() {
                4 => nop.copy_from_slice(&0x0000_0013u32.to_le_bytes()),
                2 => nop.copy_from_slice(&0x0001u16.to_le_bytes()),
                _ => nop.fill(0),
            }
        }
    }

    #[inline]
    fn apply(kind: Kind, section: &mut [u8], offset: u64, fixup: Fixup) -> Result<(), FixupProblem> {
        // A conditional branch or a jump, of that many bits.
        let branch = |bits| aligned(signed(distance(&fixup), bits)?, 2);
        match kind {
            Kind::None | Kind::Align | Kind::TlsDescCall => Ok(()),
            // S + A: word32. Addresses above 4 GiB are cut off.
            Kind::Abs32 => {
                *field(section, offset)? = (fixup.absolute() as u32).to_le_bytes();
                Ok(())
            }
            // S + A: word64.
            Kind::Abs64 => {
                *field(section, offset)? = fixup.absolute().to_le_bytes();
                Ok(())
            }
            // S + A - P: B-Type.
            Kind::Branch => change_u32(section, offset, |word| Ok(encode(B_TYPE, word, branch(13)?))),
            // S + A - P: J-Type.
            Kind::Jal => change_u32(section, offset, |word| Ok(encode(J_TYPE, word, branch(21)?))),
            // S + A - P: CB-Type.
            Kind::RvcBranch => change_u16(section, offset, |word| Ok(encode(CB_TYPE, word, branch(9)?))),
            // S + A - P: CJ-Type.
            Kind::RvcJump => change_u16(section, offset, |word| Ok(encode(CJ_TYPE, word, branch(12)?))),
            // S + A - P: U-Type and I-Type, of `auipc` and the `jalr` after it.
            Kind::Call => {
                let value = distance(&fixup);
                let high = Self::rounded(value)?;
                bytes_at::<8>(section, offset)?;
                change_u32(section, offset, |word| Ok(encode(U_TYPE, word, high)))?;
                change_u32(section, offset + 4, |word| Ok(encode(I_TYPE, word, value)))
            }
            // S + A - P: word32.
            Kind::Plt32 => {
                *field(section, offset)? = (signed(distance(&fixup), 32)? as i32).to_le_bytes();
                Ok(())
            }
            // S + A - P, G + GOT + A - P: word32.
            Kind::Pcrel32 | Kind::GotPcrel32 => {
                *field(section, offset)? = (signed(fixup.relative(), 32)? as i32).to_le_bytes();
                Ok(())
            }
            // S + A, TPREL + A: U-Type.
            Kind::Hi20 | Kind::TprelHi20 => {
                let high = Self::rounded(fixup.absolute() as i64)?;
                change_u32(section, offset, |word| Ok(encode(U_TYPE, word, high)))
            }
            // S + A, TPREL + A: I-Type.
            Kind::Lo12I | Kind::TprelLo12I => {
                change_u32(section, offset, |word| Ok(encode(I_TYPE, word, fixup.absolute() as i64)))
            }
            // S + A, TPREL + A: S-Type.
            Kind::Lo12S | Kind::TprelLo12S => {
                change_u32(section, offset, |word| Ok(encode(S_TYPE, word, fixup.absolute() as i64)))
            }
            // S + A - P, G + GOT + A - P: U-Type.
            Kind::PcrelHi20 | Kind::GotHi20 | Kind::TlsGotHi20 | Kind::TlsGdHi20 | Kind::TlsDescHi20 => {
                let high = Self::rounded(fixup.relative())?;
                change_u32(section, offset, |word| Ok(encode(U_TYPE, word, high)))
            }
            // S + A - P of the high part: I-Type.
            Kind::PcrelLo12I | Kind::TlsDescLoadLo12 | Kind::TlsDescAddLo12 => {
                change_u32(section, offset, |word| Ok(encode(I_TYPE, word, fixup.relative())))
            }
            // S + A - P of the high part: S-Type.
            Kind::PcrelLo12S => {
                change_u32(section, offset, |word| Ok(encode(S_TYPE, word, fixup.relative())))
            }
            // V + S + A: word8, word16, word32, word64.
            Kind::Add(width) => change_bits(section, offset, width, |old| old.wrapping_add(fixup.absolute())),
            // V - S - A: word6, word8, word16, word32, word64.
            Kind::Sub(width) => change_bits(section, offset, width, |old| old.wrapping_sub(fixup.absolute())),
            // S + A: word32. Unlike the shorter ones, it is checked.
            Kind::Set(32) => {
                *field(section, offset)? = (signed(fixup.absolute() as i64, 32)? as i32).to_le_bytes();
                Ok(())
            }
            // S + A: word6, word8, word16.
            Kind::Set(width) => change_bits(section, offset, width, |_| fixup.absolute()),
            // S + A, less S + A of the relocation that follows: ULEB128.
            Kind::SetUleb128 => {
                let difference = fixup.absolute().wrapping_sub(fixup.subtrahend);
                uleb128(section, offset)?.set(difference)
            }
            // Done together with the one before it.
            Kind::SubUleb128 => Err(FixupProblem::Unsupported("a difference without its first part")),
        }
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
        local_exec::rewrite::<XLEN>(kind, section, offset, &fixup)
    }

    /// `auipc t3, slot; l[wd] t3, slot(t3); jr t3; nop`.
    fn write_stub(_kind: u8, stub: &mut [u8], place: u64, leads: Stub) -> Result<(), FixupProblem> {
        let distance = leads.slot.wrapping_sub(place) as i64;
        let load = if XLEN == 32 { 0x000e_2e03 } else { 0x000e_3e03 };
        *field(stub, 0)? = encode(U_TYPE, 0x0000_0e17, Self::rounded(distance)?).to_le_bytes();
        *field(stub, 4)? = encode(I_TYPE, load, distance).to_le_bytes();
        *field(stub, 8)? = 0x000e_0067u32.to_le_bytes();
        *field(stub, 12)? = 0x0000_0013u32.to_le_bytes();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
