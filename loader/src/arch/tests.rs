//! Facts about all architectures: their relocations have the names that others gave the numbers.

use object::ConstantNames;
use object::elf::{self, RelocationType};

use super::*;

/// Names by number as the `object` crate has them, which has them from the headers of the GNU C library. `apart` are
/// ours where the psABI of today has others.
#[track_caller]
fn named_as_elsewhere<A: Architecture>(elsewhere: &ConstantNames<RelocationType>, apart: &[&str]) {
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
    assert!(shared > 30, "{shared} names");
}

#[test]
fn relocations_of_x86_64_have_their_names() {
    named_as_elsewhere::<x86_64::X86_64>(&elf::NAMES_R_X86_64, &[]);
}

#[test]
fn relocations_of_i386_have_their_names() {
    named_as_elsewhere::<i386::I386>(&elf::NAMES_R_386, &["R_386_JUMP_SLOT"]);
}

#[test]
fn relocations_of_aarch64_have_their_names() {
    named_as_elsewhere::<aarch64::AArch64>(
        &elf::NAMES_R_AARCH64,
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
    named_as_elsewhere::<arm::Arm>(&elf::NAMES_R_ARM, &renamed);
}

#[test]
fn relocations_of_riscv_have_their_names() {
    named_as_elsewhere::<riscv::Riscv<64>>(&elf::NAMES_R_RISCV, &[]);
    named_as_elsewhere::<riscv::Riscv<32>>(&elf::NAMES_R_RISCV, &[]);
}

#[test]
fn relocations_of_powerpc_have_their_names() {
    named_as_elsewhere::<ppc64::Ppc64>(&elf::NAMES_R_PPC64, &["R_PPC64_REL30"]);
}

#[test]
fn relocations_of_loongarch_have_their_names() {
    named_as_elsewhere::<loongarch64::LoongArch64>(&elf::NAMES_R_LARCH, &[]);
}

#[test]
fn relocations_of_s390x_have_their_names() {
    named_as_elsewhere::<s390x::S390x>(&elf::NAMES_R_390, &["R_390_GOTOFF"]);
}
