//! Facts about all architectures: their relocations have the names that others gave the numbers.

use object::ConstantNames;
use object::elf::{self, RelocationType};

use super::*;

/// Names by number as the `object` crate has them, which has them from the headers of the GNU C library. `apart` are
/// ours where the psABI of today has others. The two have `common` names in common.
#[track_caller]
fn named_as_elsewhere<A: Architecture>(
    elsewhere: &ConstantNames<RelocationType>,
    common: usize,
    apart: &[&str],
) {
    let mut shared = 0;
    let mut differ = Vec::new();
    for raw in 0..1200 {
        let ours = A::name(Format::Elf, raw);
        let Some(theirs) = elsewhere.name(RelocationType(raw)) else { continue };
        if !ours.starts_with("R_") {
            assert!(A::kind(Format::Elf, raw).is_err(), "{theirs} has no name");
        } else if ours == theirs {
            shared += 1;
        } else {
            differ.push(ours);
        }
    }
    assert_eq!(differ, apart);
    assert_eq!(shared, common, "names");
}

#[test]
fn relocations_of_x86_64_have_their_names() {
    named_as_elsewhere::<x86_64::X86_64>(&elf::NAMES_R_X86_64, 49, &[]);
}

#[test]
fn relocations_of_i386_have_their_names() {
    named_as_elsewhere::<i386::I386>(&elf::NAMES_R_386, 41, &["R_386_JUMP_SLOT"]);
}

#[test]
fn relocations_of_aarch64_have_their_names() {
    named_as_elsewhere::<aarch64::AArch64>(
        &elf::NAMES_R_AARCH64,
        122,
        &["R_AARCH64_TLS_DTPMOD64", "R_AARCH64_TLS_DTPREL64", "R_AARCH64_TLS_TPREL64"],
    );
}

#[test]
fn relocations_of_arm_have_their_names() {
    let renamed = [
        "R_ARM_LDR_PC_G0",
        "R_ARM_THM_CALL",
        "R_ARM_BREL_ADJ",
        "R_ARM_TLS_DESC",
        "R_ARM_GOTOFF32",
        "R_ARM_BASE_PREL",
        "R_ARM_GOT_BREL",
        "R_ARM_LDR_SBREL_11_0_NC",
        "R_ARM_ALU_SBREL_19_12_NC",
        "R_ARM_ALU_SBREL_27_20_CK",
        "R_ARM_THM_JUMP11",
        "R_ARM_THM_JUMP8",
        "R_ARM_THM_TLS_DESCSEQ16",
    ];
    named_as_elsewhere::<arm::Arm>(&elf::NAMES_R_ARM, 103, &renamed);
}

#[test]
fn relocations_of_riscv_have_their_names() {
    named_as_elsewhere::<riscv::Riscv<64>>(&elf::NAMES_R_RISCV, 62, &[]);
    named_as_elsewhere::<riscv::Riscv<32>>(&elf::NAMES_R_RISCV, 62, &[]);
}

#[test]
fn relocations_of_powerpc_have_their_names() {
    named_as_elsewhere::<ppc64::Ppc64>(&elf::NAMES_R_PPC64, 118, &["R_PPC64_REL30"]);
}

#[test]
fn relocations_of_loongarch_have_their_names() {
    named_as_elsewhere::<loongarch64::LoongArch64>(&elf::NAMES_R_LARCH, 130, &[]);
}

#[test]
fn relocations_of_s390x_have_their_names() {
    named_as_elsewhere::<s390x::S390x>(&elf::NAMES_R_390, 61, &["R_390_GOTOFF"]);
}

/// The operands of ELF relocations.
#[track_caller]
fn operands<A: Architecture>(expected: &[(&[RelocationType], Operand)]) {
    for (numbers, operand) in expected {
        for RelocationType(raw) in *numbers {
            let kind = A::kind(Format::Elf, *raw).unwrap_or_else(|why| panic!("{raw}: {why}"));
            assert_eq!(A::operand(kind), *operand, "{}", A::name(Format::Elf, *raw));
        }
    }
}

const fn slot(kind: SlotKind) -> Operand {
    Operand::Slot(kind)
}

#[test]
fn a_uleb128_number_ends_within_ten_bytes_and_the_section() {
    let long = FixupProblem::Unsupported("a ULEB128 number of more than 10 bytes");
    let problem = |bytes: usize| uleb128(&mut vec![0x80; bytes], 0).err();
    assert_eq!(problem(9), Some(FixupProblem::OutsideSection));
    assert_eq!(problem(10), Some(long));
    assert_eq!(problem(11), Some(long));
}

#[test]
fn operands_of_aarch64() {
    use elf::*;
    operands::<aarch64::AArch64>(&[
        (&[R_AARCH64_MOVW_PREL_G0, R_AARCH64_MOVW_PREL_G1_NC, R_AARCH64_PREL32], Operand::NearSymbol),
        (&[R_AARCH64_LD_PREL_LO19, R_AARCH64_ADR_PREL_LO21, R_AARCH64_PREL16], Operand::NearSymbol),
        (&[R_AARCH64_MOVW_PREL_G2, R_AARCH64_MOVW_PREL_G3, R_AARCH64_MOVW_PREL_G0_NC], Operand::NearSymbol),
        (&[R_AARCH64_MOVW_PREL_G1, R_AARCH64_MOVW_PREL_G2_NC], Operand::NearSymbol),
        (&[R_AARCH64_PREL64], Operand::Symbol),
    ]);
}

#[test]
fn operands_of_arm() {
    use elf::*;
    operands::<arm::Arm>(&[
        (&[R_ARM_TLS_GD32], slot(SlotKind::ThreadIndex)),
        (&[R_ARM_TLS_LDM32], slot(SlotKind::ThreadModule)),
        (&[R_ARM_TLS_IE32], slot(SlotKind::ThreadOffset)),
        (&[R_ARM_TLS_LE32], Operand::ThreadOffset),
        (&[R_ARM_TLS_LDO32], Operand::BlockOffset),
    ]);
}

#[test]
fn operands_of_x86_64() {
    use elf::*;
    operands::<x86_64::X86_64>(&[
        (&[R_X86_64_64, R_X86_64_PC64, R_X86_64_GOTOFF64, R_X86_64_PC16, R_X86_64_PC8], Operand::Symbol),
        (&[R_X86_64_32, R_X86_64_32S, R_X86_64_16, R_X86_64_8], Operand::LowSymbol),
        (&[R_X86_64_PC32], Operand::NearSymbol),
        (&[R_X86_64_PLT32], Operand::Branch),
        (&[R_X86_64_GOTPCREL, R_X86_64_GOTPCRELX, R_X86_64_GOTPCREL64], slot(SlotKind::Address)),
        (&[R_X86_64_GOTPC32, R_X86_64_GOTPC64], Operand::Got),
        (&[R_X86_64_SIZE32, R_X86_64_SIZE64], Operand::Size),
        (&[R_X86_64_TLSGD], slot(SlotKind::ThreadIndex)),
        (&[R_X86_64_TLSLD], slot(SlotKind::ThreadModule)),
        (&[R_X86_64_GOTTPOFF], slot(SlotKind::ThreadOffset)),
        (&[R_X86_64_GOTPC32_TLSDESC], slot(SlotKind::ThreadDescriptor)),
        (&[R_X86_64_TPOFF32, R_X86_64_TPOFF64], Operand::ThreadOffset),
        (&[R_X86_64_DTPOFF32, R_X86_64_DTPOFF64], Operand::BlockOffset),
        (&[R_X86_64_NONE, R_X86_64_TLSDESC_CALL], Operand::None),
    ]);
}

#[test]
fn operands_of_i386() {
    use elf::*;
    operands::<i386::I386>(&[
        (&[R_386_32, R_386_16, R_386_8, R_386_PC32, R_386_PC16, R_386_GOTOFF], Operand::Symbol),
        (&[R_386_GOT32, R_386_GOT32X], slot(SlotKind::Address)),
        (&[R_386_GOTPC], Operand::Got),
        (&[R_386_SIZE32], Operand::Size),
        (&[R_386_TLS_GD], slot(SlotKind::ThreadIndex)),
        (&[R_386_TLS_LDM], slot(SlotKind::ThreadModule)),
        (&[R_386_TLS_IE, R_386_TLS_GOTIE], slot(SlotKind::ThreadOffset)),
        (&[R_386_TLS_LDO_32], Operand::BlockOffset),
        (&[R_386_TLS_LE, R_386_TLS_LE_32], Operand::ThreadOffset),
    ]);
}

#[test]
fn operands_of_riscv() {
    use elf::*;
    operands::<riscv::Riscv<64>>(&[
        (&[R_RISCV_64, R_RISCV_ADD32, R_RISCV_SUB8, R_RISCV_SET6, R_RISCV_SET_ULEB128], Operand::Symbol),
        (&[R_RISCV_32, R_RISCV_HI20, R_RISCV_LO12_I, R_RISCV_LO12_S], Operand::LowSymbol),
        (&[R_RISCV_BRANCH, R_RISCV_RVC_JUMP, R_RISCV_32_PCREL, R_RISCV_PCREL_HI20], Operand::NearSymbol),
        (&[R_RISCV_JAL, R_RISCV_CALL, R_RISCV_CALL_PLT, R_RISCV_PLT32], Operand::Branch),
        (&[R_RISCV_GOT_HI20, R_RISCV_GOT32_PCREL], slot(SlotKind::Address)),
        (&[R_RISCV_TLS_GOT_HI20], slot(SlotKind::ThreadOffset)),
        (&[R_RISCV_TLS_GD_HI20], slot(SlotKind::ThreadIndex)),
        (&[R_RISCV_TLSDESC_HI20], slot(SlotKind::ThreadDescriptor)),
        (&[R_RISCV_PCREL_LO12_I, R_RISCV_PCREL_LO12_S, R_RISCV_TLSDESC_LOAD_LO12], Operand::PairedLow),
        (&[R_RISCV_TPREL_HI20, R_RISCV_TPREL_LO12_I, R_RISCV_TPREL_LO12_S], Operand::ThreadOffset),
        (&[R_RISCV_ALIGN], Operand::Alignment),
        (&[R_RISCV_NONE, R_RISCV_RELAX, R_RISCV_TPREL_ADD, R_RISCV_TLSDESC_CALL], Operand::None),
    ]);
}

#[test]
fn operands_of_loongarch() {
    use elf::*;
    operands::<loongarch64::LoongArch64>(&[
        (&[R_LARCH_32], Operand::LowSymbol),
        (&[R_LARCH_64, R_LARCH_64_PCREL, R_LARCH_ADD32, R_LARCH_SUB_ULEB128], Operand::Symbol),
        (&[R_LARCH_32_PCREL, R_LARCH_PCALA_HI20, R_LARCH_PCALA_LO12], Operand::NearSymbol),
        (&[R_LARCH_B16, R_LARCH_B21, R_LARCH_B26, R_LARCH_CALL36], Operand::Branch),
        (&[R_LARCH_ABS_HI20, R_LARCH_ABS_LO12], Operand::Symbol),
        (&[R_LARCH_GOT_PC_HI20, R_LARCH_GOT_PC_LO12], slot(SlotKind::Address)),
        (&[R_LARCH_TLS_IE_PC_HI20, R_LARCH_TLS_IE_PC_LO12], slot(SlotKind::ThreadOffset)),
        (&[R_LARCH_TLS_GD_PC_HI20], slot(SlotKind::ThreadIndex)),
        (&[R_LARCH_TLS_LE_HI20, R_LARCH_TLS_LE_LO12], Operand::ThreadOffset),
        (&[R_LARCH_TLS_DTPREL32, R_LARCH_TLS_DTPREL64], Operand::BlockOffset),
        (&[R_LARCH_ALIGN], Operand::Alignment),
        (&[R_LARCH_NONE, R_LARCH_RELAX], Operand::None),
    ]);
}

#[test]
fn operands_of_s390x() {
    use elf::*;
    operands::<s390x::S390x>(&[
        (&[R_390_32], Operand::LowSymbol),
        (&[R_390_64, R_390_16, R_390_PC16DBL, R_390_PC64, R_390_PLT16DBL], Operand::Symbol),
        (&[R_390_PC32, R_390_PC32DBL], Operand::NearSymbol),
        (&[R_390_PLT32DBL, R_390_PLT32], Operand::Branch),
        (&[R_390_GOTPC, R_390_GOTPCDBL], Operand::Got),
        (&[R_390_GOT12, R_390_GOTENT, R_390_GOT64], slot(SlotKind::Address)),
        (&[R_390_TLS_GD64], slot(SlotKind::ThreadIndex)),
        (&[R_390_TLS_LDM64], slot(SlotKind::ThreadModule)),
        (&[R_390_TLS_IE64, R_390_TLS_IEENT, R_390_TLS_GOTIE64], slot(SlotKind::ThreadOffset)),
        (&[R_390_TLS_LE64], Operand::ThreadOffset),
        (&[R_390_TLS_LDO64], Operand::BlockOffset),
    ]);
}

mod coff_fields {
    use super::super::coff::Common;
    use super::*;
    use FixupProblem::{OutOfRange, OutsideSection};

    /// Applies to a field between guards, and compares its bytes.
    #[track_caller]
    fn check<const N: usize>(
        kind: Common,
        before: [u8; N],
        fixup: Fixup,
        after: Result<[u8; N], FixupProblem>,
    ) {
        let mut section = [&[0xa5; 4][..], &before, &[0xa5; 4]].concat();
        let result = kind.apply(&mut section, 4, fixup);
        assert_eq!((&section[..4], &section[4 + N..]), (&[0xa5; 4][..], &[0xa5; 4][..]));
        assert_eq!(result.map(|()| section[4..4 + N].try_into().unwrap()), after);
    }

    const fn to(target: u64, addend: i64) -> Fixup {
        Fixup {
            place: 0x1000,
            target,
            addend,
            got: 0,
            image: 0x40_0000,
            subtrahend: 0,
            symbol_flags: 0,
            through_stub: false,
            undefined_weak: false,
        }
    }

    #[test]
    fn distances_from_the_image_have_no_sign() {
        check(Common::ImageRelative, [0xee; 4], to(0x40_1000, 4), Ok([4, 0x10, 0, 0]));
        check(Common::ImageRelative, [0xee; 4], to(0x1_003f_ffff, 0), Ok([0xff; 4]));
        let beyond = Err(OutOfRange { value: 1 << 32, bits: 32 });
        check(Common::ImageRelative, [0xee; 4], to(0x1_0040_0000, 0), beyond);
        let before = Err(OutOfRange { value: -1, bits: 32 });
        check(Common::ImageRelative, [0xee; 4], to(0x40_0000, -1), before);
    }

    #[test]
    fn a_section_number_is_added_to_what_is_there() {
        check(Common::SectionNumber, [0xee; 2], to(3, 0x100), Ok([3, 1]));
        check(Common::SectionNumber, [0xee; 2], to(0xffff, 1), Ok([0, 0]));
        check(
            Common::SectionNumber,
            [0xee; 2],
            to(0x1_0000, 0),
            Err(OutOfRange { value: 0x1_0000, bits: 16 }),
        );
    }

    #[test]
    fn an_offset_in_a_section_has_32_bits_or_seven() {
        check(Common::SectionOffset, [0xee; 4], to(0x1234_5678, 1), Ok([0x79, 0x56, 0x34, 0x12]));
        check(Common::SectionOffset, [0xee; 4], to(0, -1), Ok([0xff; 4]));
        let beyond = Err(OutOfRange { value: 1 << 32, bits: 32 });
        check(Common::SectionOffset, [0xee; 4], to(1 << 32, 0), beyond);
        check(Common::SectionOffset7, [0xaa], to(0x7e, 1), Ok([0xff]));
        check(Common::SectionOffset7, [0x55], to(0, 0), Ok([0]));
        check(Common::SectionOffset7, [0xaa], to(0x7f, 1), Err(OutOfRange { value: 0x80, bits: 7 }));
    }

    #[test]
    fn addends_are_in_the_fields() {
        let addend = |kind: Common, bytes: &[u8]| kind.implicit_addend(bytes, 0);
        assert_eq!(addend(Common::ImageRelative, &[0xff; 4]), Ok(-1));
        assert_eq!(addend(Common::SectionOffset, &[1, 2, 3, 0x80]), Ok(-0x7ffc_fdff));
        assert_eq!(addend(Common::SectionNumber, &[0xff, 0xff]), Ok(0xffff));
        assert_eq!(addend(Common::SectionOffset7, &[0xff]), Ok(0x7f));
        assert_eq!(addend(Common::SectionOffset7, &[0x81]), Ok(1));
        assert_eq!(addend(Common::SectionOffset7, &[]), Err(OutsideSection));
        assert_eq!(addend(Common::SectionNumber, &[1]), Err(OutsideSection));
        assert_eq!(addend(Common::ImageRelative, &[1, 2, 3]), Err(OutsideSection));
    }

    #[test]
    fn operands_are_the_image_or_the_section() {
        assert_eq!(Common::ImageRelative.operand(), Operand::ImageOffset);
        assert_eq!(Common::SectionNumber.operand(), Operand::SectionNumber);
        assert_eq!(Common::SectionOffset.operand(), Operand::SectionOffset);
        assert_eq!(Common::SectionOffset7.operand(), Operand::SectionOffset);
    }
}
