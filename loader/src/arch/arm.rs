//! 32-bit Arm, by "ELF for the Arm Architecture" (aaelf32, "Relocation"): A32 and T32 ("Thumb") code, which may call each
//! other.
//!
//! Oddities: the lowest bit of a function's address says that it is Thumb code (T in the formulas), and calls become `bl`
//! or `blx` by it; a plain jump cannot change the state and goes through a stub. Symbols that are not functions have no
//! such bit, and calls to them stay what they are. Addends are mostly in the instructions (`SHT_REL`). Values are computed
//! modulo 2^32. ARMv7-A is assumed: `blx` exists, a load into the pc changes the state, Thumb branches reach 16 MiB.

use super::{
    Architecture, ElfIdentity, Fixup, Identity, Operand, SlotKind, Stub, ThreadBlock, bytes_at, change_u32,
    either, field, insert, is_function, sign_extend, signed,
};
use crate::error::FixupProblem;
use crate::graph::{Format, Symbol, SymbolPlace};

mod a32;
mod thumb;

use thumb::{MOVT, MOVW, change_half, change_pair, half_at, pair_at};

pub(crate) enum Arm {}

/// Relocation kinds in the ABI's names, without `R_ARM_`. Groups are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    Abs32,
    Abs16,
    Abs8,
    Rel32,
    Prel31,
    GotOff32,
    BasePrel,
    GotBrel,
    GotPrel,
    Call,
    Jump24,
    MovwAbs,
    MovtAbs,
    MovwPrel,
    MovtPrel,
    AluPc { group: u8, checked: bool },
    LdrPc { group: u8 },
    LdrsPc { group: u8 },
    ThmCall,
    ThmJump24,
    ThmJump19,
    ThmJump11,
    ThmJump8,
    ThmMovwAbs,
    ThmMovtAbs,
    ThmMovwPrel,
    ThmMovtPrel,
    ThmAluPrel11,
    ThmPc8,
    ThmPc12,
    ThmAluAbs { group: u8 },
    TlsGd32,
    TlsLdm32,
    TlsLdo32,
    TlsIe32,
    TlsLe32,
}

/// Numbers and names of the ELF relocations that are known by name. `None` in the third place says that the loader does
/// not do it.
const ELF: &[(u32, &str, Option<Kind>)] = &[
    (0, "NONE", Some(Kind::None)),
    (1, "PC24", Some(Kind::Jump24)),
    (2, "ABS32", Some(Kind::Abs32)),
    (3, "REL32", Some(Kind::Rel32)),
    (4, "LDR_PC_G0", Some(Kind::LdrPc { group: 0 })),
    (5, "ABS16", Some(Kind::Abs16)),
    (6, "ABS12", None),
    (7, "THM_ABS5", None),
    (8, "ABS8", Some(Kind::Abs8)),
    (9, "SBREL32", None),
    (10, "THM_CALL", Some(Kind::ThmCall)),
    (11, "THM_PC8", Some(Kind::ThmPc8)),
    (12, "BREL_ADJ", None),
    (13, "TLS_DESC", None),
    (14, "THM_SWI8", None),
    (15, "XPC25", None),
    (16, "THM_XPC22", None),
    (17, "TLS_DTPMOD32", None),
    (18, "TLS_DTPOFF32", None),
    (19, "TLS_TPOFF32", None),
    (20, "COPY", None),
    (21, "GLOB_DAT", None),
    (22, "JUMP_SLOT", None),
    (23, "RELATIVE", None),
    (24, "GOTOFF32", Some(Kind::GotOff32)),
    (25, "BASE_PREL", Some(Kind::BasePrel)),
    (26, "GOT_BREL", Some(Kind::GotBrel)),
    (27, "PLT32", Some(Kind::Jump24)),
    (28, "CALL", Some(Kind::Call)),
    (29, "JUMP24", Some(Kind::Jump24)),
    (30, "THM_JUMP24", Some(Kind::ThmJump24)),
    (31, "BASE_ABS", None),
    (32, "ALU_PCREL_7_0", None),
    (33, "ALU_PCREL_15_8", None),
    (34, "ALU_PCREL_23_15", None),
    (35, "LDR_SBREL_11_0_NC", None),
    (36, "ALU_SBREL_19_12_NC", None),
    (37, "ALU_SBREL_27_20_CK", None),
    // As ABS32 on every platform with shared objects, to be taken for REL32 elsewhere.
    (38, "TARGET1", Some(Kind::Abs32)),
    (39, "SBREL31", None),
    // Marks `bx` for linkers that have to replace it on machines without.
    (40, "V4BX", Some(Kind::None)),
    // As GOT_PREL on Linux and BSD: how exception tables refer to types.
    (41, "TARGET2", Some(Kind::GotPrel)),
    (42, "PREL31", Some(Kind::Prel31)),
    (43, "MOVW_ABS_NC", Some(Kind::MovwAbs)),
    (44, "MOVT_ABS", Some(Kind::MovtAbs)),
    (45, "MOVW_PREL_NC", Some(Kind::MovwPrel)),
    (46, "MOVT_PREL", Some(Kind::MovtPrel)),
    (47, "THM_MOVW_ABS_NC", Some(Kind::ThmMovwAbs)),
    (48, "THM_MOVT_ABS", Some(Kind::ThmMovtAbs)),
    (49, "THM_MOVW_PREL_NC", Some(Kind::ThmMovwPrel)),
    (50, "THM_MOVT_PREL", Some(Kind::ThmMovtPrel)),
    (51, "THM_JUMP19", Some(Kind::ThmJump19)),
    (52, "THM_JUMP6", None),
    (53, "THM_ALU_PREL_11_0", Some(Kind::ThmAluPrel11)),
    (54, "THM_PC12", Some(Kind::ThmPc12)),
    (55, "ABS32_NOI", None),
    (56, "REL32_NOI", None),
    (57, "ALU_PC_G0_NC", Some(Kind::AluPc { group: 0, checked: false })),
    (58, "ALU_PC_G0", Some(Kind::AluPc { group: 0, checked: true })),
    (59, "ALU_PC_G1_NC", Some(Kind::AluPc { group: 1, checked: false })),
    (60, "ALU_PC_G1", Some(Kind::AluPc { group: 1, checked: true })),
    (61, "ALU_PC_G2", Some(Kind::AluPc { group: 2, checked: true })),
    (62, "LDR_PC_G1", Some(Kind::LdrPc { group: 1 })),
    (63, "LDR_PC_G2", Some(Kind::LdrPc { group: 2 })),
    (64, "LDRS_PC_G0", Some(Kind::LdrsPc { group: 0 })),
    (65, "LDRS_PC_G1", Some(Kind::LdrsPc { group: 1 })),
    (66, "LDRS_PC_G2", Some(Kind::LdrsPc { group: 2 })),
    (67, "LDC_PC_G0", None),
    (68, "LDC_PC_G1", None),
    (69, "LDC_PC_G2", None),
    (70, "ALU_SB_G0_NC", None),
    (71, "ALU_SB_G0", None),
    (72, "ALU_SB_G1_NC", None),
    (73, "ALU_SB_G1", None),
    (74, "ALU_SB_G2", None),
    (75, "LDR_SB_G0", None),
    (76, "LDR_SB_G1", None),
    (77, "LDR_SB_G2", None),
    (78, "LDRS_SB_G0", None),
    (79, "LDRS_SB_G1", None),
    (80, "LDRS_SB_G2", None),
    (81, "LDC_SB_G0", None),
    (82, "LDC_SB_G1", None),
    (83, "LDC_SB_G2", None),
    (84, "MOVW_BREL_NC", None),
    (85, "MOVT_BREL", None),
    (86, "MOVW_BREL", None),
    (87, "THM_MOVW_BREL_NC", None),
    (88, "THM_MOVT_BREL", None),
    (89, "THM_MOVW_BREL", None),
    (90, "TLS_GOTDESC", None),
    (91, "TLS_CALL", None),
    (92, "TLS_DESCSEQ", None),
    (93, "THM_TLS_CALL", None),
    (94, "PLT32_ABS", None),
    (95, "GOT_ABS", None),
    (96, "GOT_PREL", Some(Kind::GotPrel)),
    (97, "GOT_BREL12", None),
    (98, "GOTOFF12", None),
    (99, "GOTRELAX", None),
    (100, "GNU_VTENTRY", None),
    (101, "GNU_VTINHERIT", None),
    (102, "THM_JUMP11", Some(Kind::ThmJump11)),
    (103, "THM_JUMP8", Some(Kind::ThmJump8)),
    (104, "TLS_GD32", Some(Kind::TlsGd32)),
    (105, "TLS_LDM32", Some(Kind::TlsLdm32)),
    (106, "TLS_LDO32", Some(Kind::TlsLdo32)),
    (107, "TLS_IE32", Some(Kind::TlsIe32)),
    (108, "TLS_LE32", Some(Kind::TlsLe32)),
    (109, "TLS_LDO12", None),
    (110, "TLS_LE12", None),
    (111, "TLS_IE12GP", None),
    (129, "THM_TLS_DESCSEQ16", None),
    (130, "THM_TLS_DESCSEQ32", None),
    (131, "THM_GOT_BREL12", None),
    (132, "THM_ALU_ABS_G0_NC", Some(Kind::ThmAluAbs { group: 0 })),
    (133, "THM_ALU_ABS_G1_NC", Some(Kind::ThmAluAbs { group: 1 })),
    (134, "THM_ALU_ABS_G2_NC", Some(Kind::ThmAluAbs { group: 2 })),
    (135, "THM_ALU_ABS_G3", Some(Kind::ThmAluAbs { group: 3 })),
    (136, "THM_BF16", None),
    (137, "THM_BF12", None),
    (138, "THM_BF18", None),
    (160, "IRELATIVE", None),
    (161, "GOTFUNCDESC", None),
    (162, "GOTOFFFUNCDESC", None),
    (163, "FUNCDESC", None),
    (164, "FUNCDESC_VALUE", None),
    (165, "TLS_GD32_FDPIC", None),
    (166, "TLS_LDM32_FDPIC", None),
    (167, "TLS_IE32_FDPIC", None),
];

fn elf(raw: u32) -> Option<&'static (u32, &'static str, Option<Kind>)> {
    let found = ELF.binary_search_by_key(&raw, |(number, ..)| *number).ok()?;
    Some(&ELF[found])
}

#[cold]
fn elf_unsupported(raw: u32) -> &'static str {
    match raw {
        13 | 90..=93 | 109..=111 | 129 | 130 => "this form of thread-local storage",
        17..=23 | 160 => "a relocation of the dynamic linker in an object file",
        9 | 12 | 31 | 35..=37 | 39 | 70..=89 => "addressing relative to a static base",
        161..=167 => "a function descriptor (FDPIC)",
        _ => "this kind of relocation",
    }
}

/// [`Fixup::symbol_flags`]: the symbol is a function, so that calls to it become what its state needs.
const FUNCTION: u8 = 1;
/// [`Fixup::symbol_flags`]: it is Thumb code.
const THUMB: u8 = 2;

/// Kinds of stub, by the state they are entered in.
const FROM_ARM: u8 = 0;
const FROM_THUMB: u8 = 1;

/// How far the pc that an instruction sees is ahead of it.
const ARM_AHEAD: i64 = 8;
const THUMB_AHEAD: i64 = 4;

/// `S`, with `T` in its lowest bit.
fn with_state(fixup: &Fixup) -> Fixup {
    Fixup { target: Arm::pointer_value(fixup.target, fixup.symbol_flags), ..*fixup }
}

/// The value that goes into the field.
fn value(kind: Kind, fixup: &Fixup) -> i64 {
    use Kind::*;
    let value = match kind {
        // (S + A) | T. B + A. The linkers' S + T + A is the same but for odd addends.
        None | Abs32 | MovwAbs | MovtAbs | ThmMovwAbs | ThmMovtAbs | ThmAluAbs { .. } => {
            with_state(fixup).absolute() as i64
        }
        // S + A.
        Abs16 | Abs8 => fixup.absolute() as i64,
        // ((S + A) | T) - P.
        Rel32 | Prel31 | MovwPrel | MovtPrel | ThmMovwPrel | ThmMovtPrel | Call | Jump24 | ThmCall
        | ThmJump24 | ThmJump19 | ThmJump11 | ThmJump8 => relative(kind, with_state(fixup)),
        // ((S + A) | T) - Pa, where Pa is the word that P is in.
        AluPc { .. } | ThmAluPrel11 => relative(kind, of_word(with_state(fixup))),
        // S + A - Pa. Data in a function may be given by the function's name, whose state does not count then.
        LdrPc { .. } | LdrsPc { .. } | ThmPc8 | ThmPc12 => {
            let value = relative(kind, of_word(with_state(fixup)));
            if fixup.symbol_flags & FUNCTION == 0 { value } else { value & !1 }
        }
        // ((S + A) | T) - GOT_ORG.
        GotOff32 => with_state(fixup).got_relative(),
        // GOT(S) + A - GOT_ORG.
        GotBrel => fixup.got_relative(),
        // GOT(S) + A - P. B(S) + A - P, where B(S) is the GOT's address.
        GotPrel | BasePrel | TlsGd32 | TlsLdm32 | TlsIe32 => fixup.relative(),
        // S + A - tp. S + A - TLS.
        TlsLe32 | TlsLdo32 => fixup.absolute() as i64,
    };
    sign_extend(value as u64, 32)
}

fn of_word(fixup: Fixup) -> Fixup {
    Fixup { place: fixup.place & !3, ..fixup }
}

/// A weak symbol that nobody defines is where a branch goes on as if it were not there, and the place itself for anything
/// else (aaelf32, "Weak references"; what is no branch is not said there, and all linkers do it so).
fn relative(kind: Kind, fixup: Fixup) -> i64 {
    if !fixup.undefined_weak {
        return fixup.relative();
    }
    let instruction = match kind {
        Kind::ThmJump8 | Kind::ThmJump11 => 2,
        Kind::Call | Kind::Jump24 | Kind::Prel31 | Kind::ThmJump19 | Kind::ThmJump24 => 4,
        // The next instruction is Thumb code.
        Kind::ThmCall => 4 + 1,
        // A negative distance, which the pc's being ahead makes of it, has no place in the field.
        Kind::ThmPc8 => return 0,
        _ => 0,
    };
    fixup.addend.wrapping_add(instruction)
}

impl Architecture for Arm {
    type Kind = Kind;

    const IDENTITY: Identity = Identity {
        name: "arm",
        elf: Some(ElfIdentity { e_machine: 40, class: 32, big_endian: false }),
        macho: None,
        coff: None,
        is_host: cfg!(all(target_arch = "arm", target_endian = "little")),
    };
    const SLOT_SIZE: u64 = 4;
    const THREAD_BLOCK: ThreadBlock = ThreadBlock::AfterPointer { gap: 8, bias: 0 };
    const STUB_SIZE: u64 = 8;
    const STUB_ALIGN: u64 = 4;
    const STUB_KINDS: &'static [&'static str] = &["arm", "thumb"];
    /// A load from the GOT would reach no further than 4 KiB.
    const STUB_USES_SLOT: bool = false;
    /// That of `b<cond>.w`.
    const BRANCH_REACH: u64 = 1 << 20;
    /// `udf #0xfdee` in A32; `udf #0xfe` and a branch to what follows in T32.
    const TRAP: &'static [u8] = &[0xfe, 0xde, 0xff, 0xe7];

    fn kind(format: Format, raw: u32) -> Result<Kind, &'static str> {
        match format {
            Format::Elf => elf(raw).and_then(|(.., kind)| *kind).ok_or_else(|| elf_unsupported(raw)),
            Format::MachO | Format::Coff => Err("this object format"),
        }
    }

    fn name(_format: Format, raw: u32) -> String {
        match elf(raw) {
            Some((_, name, _)) => format!("R_ARM_{name}"),
            None => format!("relocation type {raw}"),
        }
    }

    fn operand(kind: Kind) -> Operand {
        use Kind::*;
        match kind {
            None => Operand::None,
            Abs32
            | Abs16
            | Abs8
            | Rel32
            | GotOff32
            | MovwAbs
            | MovtAbs
            | MovwPrel
            | MovtPrel
            | Prel31
            | AluPc { .. }
            | LdrPc { .. }
            | LdrsPc { .. }
            | ThmJump11
            | ThmJump8
            | ThmMovwAbs
            | ThmMovtAbs
            | ThmMovwPrel
            | ThmMovtPrel
            | ThmAluPrel11
            | ThmPc8
            | ThmPc12
            | ThmAluAbs { .. } => Operand::Symbol,
            Call | Jump24 | ThmCall | ThmJump24 | ThmJump19 => Operand::Branch,
            BasePrel => Operand::Got,
            GotBrel | GotPrel => Operand::Slot(SlotKind::Address),
            TlsGd32 => Operand::Slot(SlotKind::ThreadIndex),
            TlsLdm32 => Operand::Slot(SlotKind::ThreadModule),
            TlsIe32 => Operand::Slot(SlotKind::ThreadOffset),
            TlsLdo32 => Operand::BlockOffset,
            TlsLe32 => Operand::ThreadOffset,
        }
    }

    fn implicit_addend(kind: Kind, section: &[u8], offset: u64) -> Result<i64, FixupProblem> {
        use Kind::*;
        let word = || bytes_at(section, offset).map(u32::from_le_bytes);
        let pair = || pair_at(section, offset);
        let half = || half_at(section, offset);
        Ok(match kind {
            None => 0,
            Abs32 | Rel32 | GotOff32 | BasePrel | GotBrel | GotPrel | TlsGd32 | TlsLdm32 | TlsLdo32
            | TlsIe32 | TlsLe32 => sign_extend(word()?.into(), 32),
            Abs16 => sign_extend(half()?.into(), 16),
            Abs8 => bytes_at(section, offset).map(|[byte]| i64::from(byte as i8))?,
            Prel31 => sign_extend(word()?.into(), 31),
            Call | Jump24 => a32::branch_addend(word()?),
            MovwAbs | MovtAbs | MovwPrel | MovtPrel => a32::move_addend(word()?),
            AluPc { .. } => a32::alu_addend(word()?),
            LdrPc { .. } => a32::load_addend(word()?),
            LdrsPc { .. } => a32::small_load_addend(word()?),
            ThmCall | ThmJump24 => thumb::branch_addend(pair()?),
            ThmJump19 => thumb::jump_19_addend(pair()?),
            ThmJump11 => thumb::jump_11_addend(half()?),
            ThmJump8 => thumb::jump_8_addend(half()?),
            ThmMovwAbs | ThmMovtAbs | ThmMovwPrel | ThmMovtPrel => thumb::move_addend(pair()?),
            ThmAluPrel11 => thumb::adr_addend(pair()?),
            ThmPc8 => thumb::words_8_addend(half()?),
            ThmPc12 => thumb::load_12_addend(pair()?),
            ThmAluAbs { .. } => thumb::byte_addend(half()?),
        })
    }

    /// The lowest bit of a function's value is its state.
    fn symbol_value(symbol: Symbol) -> (u64, u8) {
        if !is_function(&symbol) || symbol.place == SymbolPlace::Undefined {
            return (symbol.value, 0);
        }
        let thumb = if symbol.value & 1 == 0 { 0 } else { THUMB };
        (symbol.value & !1, FUNCTION | thumb)
    }

    /// An odd address is that of a Thumb function, and one of this process is never without its state. Of any other even
    /// address nothing is known; calls to it stay as they are.
    fn external_value(address: u64, is_function_pointer: bool) -> (u64, u8) {
        match address {
            0 => (0, 0),
            _ if address & 1 != 0 => (address & !1, FUNCTION | THUMB),
            _ if is_function_pointer => (address, FUNCTION),
            _ => (address, 0),
        }
    }

    fn pointer_value(address: u64, symbol_flags: u8) -> u64 {
        if symbol_flags & THUMB == 0 { address } else { address | 1 }
    }

    fn branch_addend(kind: Kind) -> i64 {
        match kind {
            Kind::Call | Kind::Jump24 => -ARM_AHEAD,
            Kind::ThmCall | Kind::ThmJump24 | Kind::ThmJump19 => -THUMB_AHEAD,
            _ => 0,
        }
    }

    /// Jumps, other than calls, stay in their state.
    fn needs_stub(kind: Kind, _section: &[u8], _offset: u64, symbol_flags: u8) -> bool {
        match kind {
            Kind::Jump24 => symbol_flags & THUMB != 0,
            Kind::ThmJump24 | Kind::ThmJump19 => symbol_flags & (FUNCTION | THUMB) == FUNCTION,
            _ => false,
        }
    }

    fn stub_kind(kind: Kind, _symbol_flags: u8) -> u8 {
        match kind {
            Kind::ThmCall | Kind::ThmJump24 | Kind::ThmJump19 => FROM_THUMB,
            _ => FROM_ARM,
        }
    }

    fn stub_flags(stub_kind: u8) -> u8 {
        if stub_kind == FROM_THUMB { FUNCTION | THUMB } else { FUNCTION }
    }

    fn apply(kind: Kind, section: &mut [u8], offset: u64, fixup: Fixup) -> Result<(), FixupProblem> {
        use Kind::*;
        let value = value(kind, &fixup);
        // The state that a call arrives in: the function's, or, if it is not known to be one, the instruction's.
        let to_thumb = |otherwise| {
            if fixup.symbol_flags & FUNCTION == 0 { otherwise } else { value & 1 != 0 }
        };
        match kind {
            None => Ok(()),
            Abs32 | Rel32 | GotOff32 | BasePrel | GotBrel | GotPrel | TlsGd32 | TlsLdm32 | TlsLdo32
            | TlsIe32 | TlsLe32 => {
                *field(section, offset)? = (value as u32).to_le_bytes();
                Ok(())
            }
            Abs16 => {
                *field(section, offset)? = (either(value as u64, 16)? as u16).to_le_bytes();
                Ok(())
            }
            Abs8 => {
                *field(section, offset)? = [either(value as u64, 8)? as u8];
                Ok(())
            }
            Prel31 => change_u32(section, offset, |word| Ok(insert(word, 0, 31, signed(value, 31)? as u64))),
            Call => change_u32(section, offset, |word| a32::call(value, to_thumb(a32::is_blx(word)))),
            Jump24 => change_u32(section, offset, |word| a32::branch(word, value)),
            MovwAbs | MovwPrel => change_u32(section, offset, |word| Ok(a32::move_16(word, value))),
            MovtAbs | MovtPrel => change_u32(section, offset, |word| Ok(a32::move_16(word, value >> 16))),
            AluPc { group, checked } => {
                change_u32(section, offset, |word| a32::alu_group(word, value, group, checked))
            }
            LdrPc { group } => change_u32(section, offset, |word| a32::load_group(word, value, group)),
            LdrsPc { group } => change_u32(section, offset, |word| a32::small_load_group(word, value, group)),
            ThmCall => {
                change_pair(section, offset, |pair| thumb::call(pair, value, to_thumb(!thumb::is_blx(pair))))
            }
            ThmJump24 => change_pair(section, offset, |pair| thumb::branch(pair, value)),
            ThmJump19 => change_pair(section, offset, |pair| thumb::jump_19(pair, value)),
            ThmJump11 => change_half(section, offset, |half| thumb::jump_11(half, value)),
            ThmJump8 => change_half(section, offset, |half| thumb::jump_8(half, value)),
            ThmMovwAbs | ThmMovwPrel => {
                change_pair(section, offset, |pair| Ok(thumb::move_16(pair, MOVW, value)))
            }
            ThmMovtAbs | ThmMovtPrel => {
                change_pair(section, offset, |pair| Ok(thumb::move_16(pair, MOVT, value >> 16)))
            }
            ThmAluPrel11 => change_pair(section, offset, |pair| thumb::adr(pair, value)),
            ThmPc8 => change_half(section, offset, |half| thumb::words_8(half, value)),
            ThmPc12 => change_pair(section, offset, |pair| thumb::load_12(pair, value)),
            ThmAluAbs { group } => change_half(section, offset, |half| Ok(thumb::byte(half, value, group))),
        }
    }

    /// A load into the pc, which takes the state from the lowest bit, and the target. Both forms are loads from the word
    /// that follows, the pc being ahead.
    fn write_stub(stub_kind: u8, stub: &mut [u8], _place: u64, leads: Stub) -> Result<(), FixupProblem> {
        *field(stub, 0)? = match stub_kind {
            FROM_THUMB => 0xf8df_f000_u32.rotate_left(16), // ldr.w pc, [pc]
            _ => 0xe51f_f004,                              // ldr pc, [pc, #-4]
        }
        .to_le_bytes();
        *field(stub, 4)? = (leads.target as u32).to_le_bytes();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
