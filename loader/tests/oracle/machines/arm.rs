//! 32-bit Arm: A32 and T32 code, addends in the fields and, once more, in the tables. lld knows neither ABS16 nor ABS8.
//!
//! Every branch is there with the instruction for either state, and Thumb code that is aligned to words also stands two
//! bytes further on: some distances count from a word.

use crate::case::{Case, sign_extend};
use crate::machine::{Difference, Dynamic, Form, Kind, Known, Machine, Value, Word, code, data, half, word};
use crate::support::elf::{Object, Target};

const RD: u64 = 0xf000;
const IMM24: u64 = 0xff_ffff;
const BL: &[Word] = &[word(0xebff_fffe, 0, IMM24)];
const BL_IF: &[Word] = &[word(0x1bff_fffe, 0xc000_0000, IMM24)];
const BLX: &[Word] = &[word(0xfaff_fffe, 0x100_0000, IMM24)];
const B: &[Word] = &[word(0xeaff_fffe, 0, IMM24)];
const B_IF: &[Word] = &[word(0x1aff_fffe, 0xc000_0000, IMM24)];
const MOVW: &[Word] = &[word(0xe300_0000, RD, 0xf_0fff)];
const MOVT: &[Word] = &[word(0xe340_0000, RD, 0xf_0fff)];
const ADD: &[Word] = &[word(0xe28f_0000, RD, 0xfff)];
const SUB: &[Word] = &[word(0xe24f_0008, RD, 0xfff)];
const LDR: &[Word] = &[word(0xe51f_0008, RD, 0xfff)];
const LDRH: &[Word] = &[word(0xe15f_00b8, RD, 0xf0f)];
const BX: &[Word] = &[word(0xe12f_ff10, 0xf, 0)];

const NOP: Word = half(0xbf00, 0, 0);
const BRANCH: Word = half(0xf7ff, 0, 0x7ff);
const T_BL: Word = half(0xfffe, 0, 0x2fff);
const T_BLX: Word = half(0xeffe, 0, 0x2fff);
const T_B: Word = half(0xbffe, 0, 0x2fff);
const T_B_IF: &[Word] = &[half(0xf43f, 0xc0, 0x43f), half(0xaffe, 0, 0x2fff)];
const T_MOVW: &[Word] = &[half(0xf240, 0, 0x40f), half(0, 0xf00, 0x70ff)];
const T_MOVT: &[Word] = &[half(0xf2c0, 0, 0x40f), half(0, 0xf00, 0x70ff)];
const ADR_SUB: [Word; 2] = [half(0xf2af, 0, 0x400), half(0x0004, 0xf00, 0x70ff)];
const ADR_ADD: [Word; 2] = [half(0xf20f, 0, 0x400), half(0x0000, 0xf00, 0x70ff)];
const T_LDR_SUB: [Word; 2] = [half(0xf85f, 0, 0), half(0x0004, 0xf000, 0xfff)];
const T_LDR_ADD: [Word; 2] = [half(0xf8df, 0, 0), half(0x0000, 0xf000, 0xfff)];
const T_LDR_SHORT: Word = half(0x48ff, 0x700, 0xff);
const MOVS: &[Word] = &[half(0x2000, 0x700, 0xff)];

/// What the groups before leave of a distance.
const fn group(number: u32, name: &'static str, words: &'static [Word], addend: i64) -> Kind {
    code(number, name, words).relative(&[8, 12, 16, 20, 24, 28]).addend(addend).defined()
}

const fn arm_branch(number: u32, name: &'static str, words: &'static [Word]) -> Kind {
    code(number, name, words).relative(&[26]).step(4).addend(-8).stub()
}

const fn thumb_branch(number: u32, name: &'static str, words: &'static [Word], bits: &'static [u32]) -> Kind {
    code(number, name, words).relative(bits).step(2).addend(-4)
}

const KINDS: &[Kind] = &[
    code(0, "NONE", BX),
    arm_branch(1, "PC24", B_IF),
    data(2, "ABS32", 4).absolute(&[32]),
    data(3, "REL32", 4).relative(&[32]),
    thumb_branch(10, "THM_CALL", &[BRANCH, T_BL], &[25]).stub(),
    thumb_branch(10, "THM_CALL", &[BRANCH, T_BL], &[25]).plain().stub(),
    thumb_branch(10, "THM_CALL", &[BRANCH, T_BLX], &[25]).stub(),
    thumb_branch(10, "THM_CALL", &[NOP, BRANCH, T_BL], &[25]).at(2).plain().stub(),
    thumb_branch(10, "THM_CALL", &[NOP, BRANCH, T_BLX], &[25]).at(2).plain().stub(),
    code(11, "THM_PC8", &[T_LDR_SHORT]).relative(&[9, 10]).step(4).addend(-4),
    code(11, "THM_PC8", &[NOP, T_LDR_SHORT]).at(2).relative(&[9, 10]).step(2).addend(-4),
    data(24, "GOTOFF32", 4).of(Value::GotOffset, &[32]),
    data(25, "BASE_PREL", 4).of(Value::Got, &[32]),
    data(26, "GOT_BREL", 4).of(Value::SlotOffset, &[32]),
    arm_branch(27, "PLT32", B),
    arm_branch(27, "PLT32", BL),
    arm_branch(28, "CALL", BL),
    arm_branch(28, "CALL", BL).plain(),
    arm_branch(28, "CALL", BL_IF).plain(),
    arm_branch(28, "CALL", BLX),
    arm_branch(29, "JUMP24", B),
    arm_branch(29, "JUMP24", B_IF).plain(),
    thumb_branch(30, "THM_JUMP24", &[BRANCH, T_B], &[25]).stub(),
    thumb_branch(30, "THM_JUMP24", &[BRANCH, T_B], &[25]).plain().stub(),
    thumb_branch(30, "THM_JUMP24", &[NOP, BRANCH, T_B], &[25]).at(2).plain().stub(),
    data(38, "TARGET1", 4).absolute(&[32]),
    code(40, "V4BX", BX),
    data(41, "TARGET2", 4).of(Value::SlotRelative, &[32]),
    data(42, "PREL31", 4).relative(&[31]),
    data(42, "PREL31", 4).relative(&[31, 32]),
    code(43, "MOVW_ABS_NC", MOVW).absolute(&[16, 32]),
    code(44, "MOVT_ABS", MOVT).absolute(&[16, 32]),
    code(45, "MOVW_PREL_NC", MOVW).relative(&[16, 32]),
    code(46, "MOVT_PREL", MOVT).relative(&[16, 32]),
    code(47, "THM_MOVW_ABS_NC", T_MOVW).absolute(&[16, 32]),
    code(48, "THM_MOVT_ABS", T_MOVT).absolute(&[16, 32]),
    code(49, "THM_MOVW_PREL_NC", T_MOVW).relative(&[16, 32]),
    code(50, "THM_MOVT_PREL", T_MOVT).relative(&[16, 32]),
    thumb_branch(51, "THM_JUMP19", T_B_IF, &[21]).stub(),
    thumb_branch(51, "THM_JUMP19", T_B_IF, &[21]).plain().stub(),
    code(53, "THM_ALU_PREL_11_0", &ADR_SUB).relative(&[12, 13]).addend(-4),
    code(53, "THM_ALU_PREL_11_0", &ADR_ADD).relative(&[12, 13]),
    code(53, "THM_ALU_PREL_11_0", &[NOP, ADR_SUB[0], ADR_SUB[1]]).at(2).relative(&[12, 13]).addend(-4),
    code(54, "THM_PC12", &T_LDR_SUB).relative(&[12, 13]).addend(-4),
    code(54, "THM_PC12", &T_LDR_ADD).relative(&[12, 13]),
    code(54, "THM_PC12", &[NOP, T_LDR_SUB[0], T_LDR_SUB[1]]).at(2).relative(&[12, 13]).addend(-4),
    data(96, "GOT_PREL", 4).of(Value::SlotRelative, &[32]),
    thumb_branch(102, "THM_JUMP11", &[half(0xe7fe, 0, 0x7ff)], &[12]),
    thumb_branch(103, "THM_JUMP8", &[half(0xd0fe, 0x700, 0xff)], &[9]),
    thumb_branch(103, "THM_JUMP8", &[NOP, half(0xd0fe, 0x700, 0xff)], &[9]).at(2),
    code(132, "THM_ALU_ABS_G0_NC", MOVS).absolute(&[8, 32]),
    code(133, "THM_ALU_ABS_G1_NC", MOVS).absolute(&[16, 32]),
    code(134, "THM_ALU_ABS_G2_NC", MOVS).absolute(&[24, 32]),
    code(135, "THM_ALU_ABS_G3", MOVS).absolute(&[32]),
    group(4, "LDR_PC_G0", LDR, -8),
    group(57, "ALU_PC_G0_NC", ADD, 0),
    group(57, "ALU_PC_G0_NC", SUB, -8),
    group(58, "ALU_PC_G0", ADD, 0),
    group(58, "ALU_PC_G0", SUB, -8),
    group(59, "ALU_PC_G1_NC", ADD, 0),
    group(60, "ALU_PC_G1", SUB, -8),
    group(60, "ALU_PC_G1", ADD, 0),
    group(61, "ALU_PC_G2", ADD, 0),
    group(62, "LDR_PC_G1", LDR, -8),
    group(63, "LDR_PC_G2", LDR, -8),
    group(64, "LDRS_PC_G0", LDRH, -8),
    group(65, "LDRS_PC_G1", LDRH, -8),
    group(66, "LDRS_PC_G2", LDRH, -8),
    data(108, "TLS_LE32", 4).thread(&[32]),
];

const LIBRARY_KINDS: &[Kind] = &[
    data(104, "TLS_GD32", 4).entry(Value::SlotRelative, &[32]),
    data(105, "TLS_LDM32", 4).entry(Value::SlotRelative, &[32]),
    data(106, "TLS_LDO32", 4).block(&[32]),
    data(107, "TLS_IE32", 4).entry(Value::SlotRelative, &[32]),
];

const GNU_KINDS: &[Kind] = &[
    data(5, "ABS16", 2).absolute(&[16]),
    data(8, "ABS8", 1).absolute(&[8]),
];

pub static MACHINE: Machine = Machine {
    name: "arm",
    prefix: "R_ARM_",
    target: Target { machine: 40, class: 32, big_endian: false, explicit_addends: false, flags: 0x500_0000 },
    kinds: KINDS,
    library_kinds: LIBRARY_KINDS,
    gnu_kinds: GNU_KINDS,
    gnu_ld: &["arm-linux-gnueabihf-ld"],
    dynamic: Dynamic { module: 17, block_offset: 18, thread_offset: 19, descriptor: 13, jump_slot: 0 },
    thread_block: 8,
    bases: &[0x20_0000, 0x5000_0000, 0xff00_0000],
    has_thumb: true,
    adorn: add_attributes,
    harmless: &["interworking not performed"],
    known: KNOWN,
    ..Machine::DEFAULT
};

/// As objects of old toolchains have them.
pub static EXPLICIT: Machine = Machine {
    name: "arm-rela",
    target: Target { explicit_addends: true, ..MACHINE.target },
    ..MACHINE
};

/// ARMv7 with both instruction sets (Addenda to the ABI for the Arm Architecture, "Build Attributes"): else lld writes
/// short Thumb branches.
fn add_attributes(object: &mut Object) {
    let tags = [6, 10, 8, 1, 9, 2]; // CPU_arch: v7; ARM_ISA_use; THUMB_ISA_use: Thumb-2
    let mut file = vec![1];
    file.extend((5 + tags.len() as u32).to_le_bytes());
    file.extend(tags);
    let mut bytes = vec![b'A'];
    bytes.extend((4 + 6 + file.len() as u32).to_le_bytes());
    bytes.extend(b"aeabi\0");
    bytes.extend(file);
    let section = object.section(".ARM.attributes", 0, &bytes);
    (section.kind, section.flags) = (0x7000_0003, 0);
}

const BRANCHES: &[&str] = &["PC24", "PLT32", "CALL", "JUMP24", "THM_CALL", "THM_JUMP24", "THM_JUMP19"];
const THUMB_BRANCHES: &[&str] = &["THM_CALL", "THM_JUMP24", "THM_JUMP19"];

const ODD: &str = "an odd address from outside is that of a Thumb function; lld does not take it for a function";
const FAR: &str = "lld loses the uppermost bit of a Thumb branch's implicit addend";
const ODD_SECTION: &str =
    "a function's state is the lowest bit of its value; lld looks at its address, as if sections could be odd";

const KNOWN: &[Known] = &[
    Known { kinds: &[], what: Difference::Bytes, when: is_odd_external, why: ODD },
    Known { kinds: &[], what: Difference::OnlyTheyRefuse, when: is_odd_external, why: ODD },
    Known { kinds: &[], what: Difference::OnlyWeRefuse, when: is_odd_external, why: ODD },
    Known { kinds: THUMB_BRANCHES, what: Difference::Bytes, when: has_far_addend, why: FAR },
    Known { kinds: THUMB_BRANCHES, what: Difference::OnlyTheyRefuse, when: has_far_addend, why: FAR },
    Known {
        kinds: &["ABS16", "ABS8"],
        what: Difference::OnlyTheyRefuse,
        when: fits,
        why: "aaelf32 has -2^(n-1) <= X < 2^n and addends with a sign; GNU ld has 0 <= X < 2^(n-1) and addends without",
    },
    Known { kinds: THUMB_BRANCHES, what: Difference::OnlyWeRefuse, when: has_far_addend, why: FAR },
    Known {
        kinds: &["THM_PC12"],
        what: Difference::Bytes,
        when: |case| case.bytes[case.offset] & 0x80 != 0,
        why: "lld leaves the sign of a Thumb load's offset at plus when it becomes minus",
    },
    Known {
        kinds: BRANCHES,
        what: Difference::OnlyWeRefuse,
        when: |case| addend(case) != case.kind.addend,
        why: "lld forgets the addend of a branch that needs a thunk; we count it from the stub, out of reach",
    },
    Known {
        kinds: THUMB_BRANCHES,
        what: Difference::Bytes,
        when: is_at_the_edge_of_a_word,
        why: "lld counts the way to what is no Thumb function from a word, and makes a thunk a halfword early",
    },
    Known { kinds: &[], what: Difference::Bytes, when: is_in_odd_section, why: ODD_SECTION },
    Known { kinds: &[], what: Difference::OnlyTheyRefuse, when: is_in_odd_section, why: ODD_SECTION },
    Known { kinds: &[], what: Difference::OnlyWeRefuse, when: is_in_odd_section, why: ODD_SECTION },
];

/// Within a word of the reach of `b.w` and `bl`, and not to Thumb code.
fn is_at_the_edge_of_a_word(case: &Case) -> bool {
    let origin = if case.symbol.form == Form::Own { case.section } else { 0 };
    let target = origin.wrapping_add(case.symbol.value).wrapping_add_signed(addend(case));
    let distance = sign_extend(target.wrapping_sub(case.section + case.offset as u64), 32).abs();
    let is_thumb = case.symbol.function && case.symbol.form != Form::External && target & 1 != 0;
    !is_thumb && (0xff_fffc..=0x100_0004).contains(&distance)
}

/// A number of as many bits with or without a sign, not counting the lowest of a Thumb function's address.
fn fits(case: &Case) -> bool {
    let bits = 8 * case.kind.width as u32;
    let is_thumb = case.symbol.function && case.symbol.form != Form::External && case.symbol.value & 1 != 0;
    let value = sign_extend(case.sum().wrapping_sub(u64::from(is_thumb)), 32);
    (-1 << (bits - 1)..1 << bits).contains(&value)
}

fn is_in_odd_section(case: &Case) -> bool {
    case.symbol.form == Form::Own && case.symbol.function && case.section & 1 != 0
}

fn is_odd_external(case: &Case) -> bool {
    case.symbol.form == Form::External && case.symbol.value & 1 != 0
}

/// The two halfwords of a Thumb instruction.
fn pair(case: &Case) -> u64 {
    let half = |at: usize| u64::from(u16::from_le_bytes(case.bytes[at..][..2].try_into().unwrap()));
    half(case.offset) << 16 | half(case.offset + 2)
}

/// What a Thumb branch has in its field, shifted to the left: S, the next bit, and so on.
fn thumb_addend(case: &Case) -> i64 {
    let pair = pair(case);
    let bit = |number: u32| pair >> number & 1;
    let (s, j1, j2) = (bit(26), bit(13), bit(11));
    let low = (pair & 0x7ff) << 1;
    if case.kind.name == "THM_JUMP19" {
        return sign_extend(s << 20 | j2 << 19 | j1 << 18 | (pair >> 16 & 0x3f) << 12 | low, 21);
    }
    let (i1, i2) = (j1 ^ s ^ 1, j2 ^ s ^ 1);
    sign_extend(s << 24 | i1 << 23 | i2 << 22 | (pair >> 16 & 0x3ff) << 12 | low, 25)
}

/// One that takes the uppermost bit, in front of which lld looks for the sign.
fn has_far_addend(case: &Case) -> bool {
    let bits = if case.kind.name == "THM_JUMP19" { 20 } else { 24 };
    let addend = thumb_addend(case);
    !case.machine.target.explicit_addends && sign_extend(addend as u64, bits) != addend
}

fn addend(case: &Case) -> i64 {
    if case.machine.target.explicit_addends {
        case.addend
    } else if case.kind.name.starts_with("THM") {
        thumb_addend(case)
    } else {
        let word = u32::from_le_bytes(case.bytes[case.offset..][..4].try_into().unwrap());
        sign_extend(u64::from(word) << 2, 26)
    }
}
