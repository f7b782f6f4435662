//! AArch64. lld does not know the checked TLSLE_…_LO12, the kinds of MOVW_GOTOFF and LD64_GOTOFF_LO15, nor any of the
//! general-dynamic and local-dynamic models; GOTREL and some of the others nobody knows.

use crate::case::{Case, sign_extend};
use crate::machine::{Difference, Dynamic, Form, Kind, Known, Machine, Value, Word, code, data, word};
use crate::whole::blank;
use crate::support::elf::Target;

const RD: u64 = 0x1f;
const RN: u64 = 0x3e0;
const IMM12: u64 = 0x3f_fc00;
const IMM19: u64 = 0xff_ffe0;

const ADR: &[Word] = &[word(0x1000_0000, RD, 0x60ff_ffe0)];
const ADRP: &[Word] = &[word(0x9000_0000, RD, 0x60ff_ffe0)];
const ADD: &[Word] = &[word(0x9100_0000, RD | RN, IMM12)];
const LDRB: &[Word] = &[word(0x3940_0000, RD | RN, IMM12)];
const STRH: &[Word] = &[word(0x7900_0000, RD | RN, IMM12)];
const LDRSW: &[Word] = &[word(0xb980_0000, RD | RN, IMM12)];
const LDRX: &[Word] = &[word(0xf940_0000, RD | RN, IMM12)];
const LDRQ: &[Word] = &[word(0x3dc0_0000, RD | RN, IMM12)];
const LDR_LITERAL: &[Word] = &[word(0x5800_0000, RD, IMM19)];
const CBZ: &[Word] = &[word(0xb400_0000, RD | 0x0100_0000, IMM19)];
const B_COND: &[Word] = &[word(0x5400_0000, 0xf, IMM19)];
const TBZ: &[Word] = &[word(0x3600_0000, RD | 0x81f8_0000 & !0x7_ffe0, 0x7_ffe0)];
const B: &[Word] = &[word(0x1400_0000, 0, 0x3ff_ffff)];
const BL: &[Word] = &[word(0x9400_0000, 0, 0x3ff_ffff)];
const CALL_ANY: &[Word] = &[word(0xd63f_0000, RN, 0)];
/// MOVZ, MOVN, MOVK of the four groups. Their fields are empty: lld adds to what is there.
const MOVZ: [&[Word]; 4] = [
    &[word(0xd280_0000, RD, 0)],
    &[word(0xd2a0_0000, RD, 0)],
    &[word(0xd2c0_0000, RD, 0)],
    &[word(0xd2e0_0000, RD, 0)],
];
const MOVN: [&[Word]; 3] = [
    &[word(0x9280_0000, RD, 0)],
    &[word(0x92a0_0000, RD, 0)],
    &[word(0x92c0_0000, RD, 0)],
];
const MOVK: [&[Word]; 4] = [
    &[word(0xf280_0000, RD, 0)],
    &[word(0xf2a0_0000, RD, 0)],
    &[word(0xf2c0_0000, RD, 0)],
    &[word(0xf2e0_0000, RD, 0)],
];

/// A part of an access through a descriptor, and `blr x1`.
const BLR: Word = word(0xd63f_0020, 0, 0);
const DESCRIPTOR_PAGE: &[Word] = &[word(0x9000_0000, 0, 0x60ff_ffe0), BLR];
const DESCRIPTOR_LOAD: &[Word] = &[word(0xf940_0000, RD, IMM12), BLR];
const DESCRIPTOR_ADD: &[Word] = &[word(0x9100_0000, 0, IMM12), BLR];
/// `ldr x9, [x9]`.
const LOAD_ITSELF: &[Word] = &[word(0xf940_0129, 0, IMM12)];

const KINDS: &[Kind] = &[
    code(0, "NONE", LDRX).absolute(&[32]),
    data(257, "ABS64", 8),
    data(258, "ABS32", 4).absolute(&[32]),
    data(259, "ABS16", 2).absolute(&[16]),
    data(260, "PREL64", 8).relative(&[64]),
    data(261, "PREL32", 4).relative(&[32]),
    data(262, "PREL16", 2).relative(&[16]),
    code(263, "MOVW_UABS_G0", MOVZ[0]).absolute(&[16]),
    code(264, "MOVW_UABS_G0_NC", MOVK[0]).absolute(&[16, 32]),
    code(265, "MOVW_UABS_G1", MOVZ[1]).absolute(&[32]),
    code(266, "MOVW_UABS_G1_NC", MOVK[1]).absolute(&[32, 48]),
    code(267, "MOVW_UABS_G2", MOVZ[2]).absolute(&[48]),
    code(268, "MOVW_UABS_G2_NC", MOVK[2]).absolute(&[48, 64]),
    code(269, "MOVW_UABS_G3", MOVZ[3]).absolute(&[64]),
    code(270, "MOVW_SABS_G0", MOVZ[0]).absolute(&[16, 17]),
    code(270, "MOVW_SABS_G0", MOVN[0]).absolute(&[16, 17]),
    code(271, "MOVW_SABS_G1", MOVZ[1]).absolute(&[32, 33]),
    code(271, "MOVW_SABS_G1", MOVN[1]).absolute(&[32, 33]),
    code(272, "MOVW_SABS_G2", MOVZ[2]).absolute(&[48, 49]),
    code(273, "LD_PREL_LO19", LDR_LITERAL).relative(&[21]).step(4),
    code(274, "ADR_PREL_LO21", ADR).relative(&[21]),
    code(275, "ADR_PREL_PG_HI21", ADRP).of(Value::Page, &[33]).round(0x1000),
    code(276, "ADR_PREL_PG_HI21_NC", ADRP).of(Value::Page, &[33, 48]).round(0x1000),
    code(277, "ADD_ABS_LO12_NC", ADD).absolute(&[12, 32]),
    code(278, "LDST8_ABS_LO12_NC", LDRB).absolute(&[12, 32]),
    code(279, "TSTBR14", TBZ).relative(&[16]).step(4),
    code(280, "CONDBR19", CBZ).relative(&[21]).step(4),
    code(280, "CONDBR19", B_COND).relative(&[21]).step(4),
    code(282, "JUMP26", B).relative(&[28]).step(4).stub().leads(),
    code(283, "CALL26", BL).relative(&[28]).step(4).stub().leads(),
    code(284, "LDST16_ABS_LO12_NC", STRH).absolute(&[12, 32]).step(2),
    code(285, "LDST32_ABS_LO12_NC", LDRSW).absolute(&[12, 32]).step(4),
    code(286, "LDST64_ABS_LO12_NC", LDRX).absolute(&[12, 32]).step(8),
    code(287, "MOVW_PREL_G0", MOVZ[0]).relative(&[16, 17]),
    code(288, "MOVW_PREL_G0_NC", MOVK[0]).relative(&[16, 32]),
    code(289, "MOVW_PREL_G1", MOVZ[1]).relative(&[32, 33]),
    code(289, "MOVW_PREL_G1", MOVN[1]).relative(&[32, 33]),
    code(290, "MOVW_PREL_G1_NC", MOVK[1]).relative(&[32, 48]),
    code(291, "MOVW_PREL_G2", MOVZ[2]).relative(&[48, 49]),
    code(292, "MOVW_PREL_G2_NC", MOVK[2]).relative(&[48, 64]),
    code(293, "MOVW_PREL_G3", MOVK[3]).relative(&[64]),
    code(293, "MOVW_PREL_G3", MOVZ[3]).relative(&[64]),
    code(299, "LDST128_ABS_LO12_NC", LDRQ).absolute(&[12, 32]).step(16),
    code(309, "GOT_LD_PREL19", LDR_LITERAL).of(Value::SlotRelative, &[21]).step(4),
    code(311, "ADR_GOT_PAGE", ADRP).of(Value::SlotPage, &[33]).round(0x1000),
    code(312, "LD64_GOT_LO12_NC", LDRX).of(Value::Slot, &[12, 32]).step(8),
    code(313, "LD64_GOTPAGE_LO15", LDRX).of(Value::SlotOffset, &[15, 16]).step(8),
    data(314, "PLT32", 4).relative(&[32]).stub(),
    data(315, "GOTPCREL32", 4).of(Value::SlotRelative, &[32]),
    code(544, "TLSLE_MOVW_TPREL_G2", MOVZ[2]).thread(&[48, 49]),
    code(545, "TLSLE_MOVW_TPREL_G1", MOVZ[1]).thread(&[32, 33]),
    code(546, "TLSLE_MOVW_TPREL_G1_NC", MOVK[1]).thread(&[32, 48]),
    code(547, "TLSLE_MOVW_TPREL_G0", MOVZ[0]).thread(&[16, 17]),
    code(548, "TLSLE_MOVW_TPREL_G0_NC", MOVK[0]).thread(&[16, 32]),
    code(549, "TLSLE_ADD_TPREL_HI12", ADD).thread(&[24, 25]),
    code(551, "TLSLE_ADD_TPREL_LO12_NC", ADD).thread(&[12, 32]),
    code(553, "TLSLE_LDST8_TPREL_LO12_NC", LDRB).thread(&[12, 32]),
    code(555, "TLSLE_LDST16_TPREL_LO12_NC", STRH).thread(&[12, 32]).step(2),
    code(557, "TLSLE_LDST32_TPREL_LO12_NC", LDRSW).thread(&[12, 32]).step(4),
    code(559, "TLSLE_LDST64_TPREL_LO12_NC", LDRX).thread(&[12, 32]).step(8),
    code(541, "TLSIE_ADR_GOTTPREL_PAGE21", ADRP).thread(&[16, 32]),
    code(542, "TLSIE_LD64_GOTTPREL_LO12_NC", LOAD_ITSELF).thread(&[16, 32]),
    code(562, "TLSDESC_ADR_PAGE21", DESCRIPTOR_PAGE).thread(&[16, 32]).mark(569, "TLSDESC_CALL", 4),
    code(563, "TLSDESC_LD64_LO12", DESCRIPTOR_LOAD).thread(&[16, 32]).mark(569, "TLSDESC_CALL", 4),
    code(564, "TLSDESC_ADD_LO12", DESCRIPTOR_ADD).thread(&[16, 32]).mark(569, "TLSDESC_CALL", 4),
    code(571, "TLSLE_LDST128_TPREL_LO12_NC", LDRQ).thread(&[12, 32]).step(16),
];

const LIBRARY_KINDS: &[Kind] = &[
    code(541, "TLSIE_ADR_GOTTPREL_PAGE21", ADRP).entry(Value::SlotPage, &[33]).round(0x1000),
    code(542, "TLSIE_LD64_GOTTPREL_LO12_NC", LDRX).entry(Value::Slot, &[12, 32]).step(8),
    code(562, "TLSDESC_ADR_PAGE21", ADRP).entry(Value::SlotPage, &[33]).round(0x1000),
    code(563, "TLSDESC_LD64_LO12", LDRX).entry(Value::Slot, &[12, 32]).step(8),
    code(564, "TLSDESC_ADD_LO12", ADD).entry(Value::Slot, &[12, 32]),
    code(569, "TLSDESC_CALL", CALL_ANY).thread(&[32]),
];

/// GNU ld forgets addends of GOT entries.
const GNU_KINDS: &[Kind] = &[
    code(256, "NULL", LDRX).absolute(&[32]),
    code(301, "MOVW_GOTOFF_G0_NC", MOVK[0]).of(Value::SlotOffset, &[16, 32]).plain(),
    code(302, "MOVW_GOTOFF_G1", MOVZ[1]).of(Value::SlotOffset, &[32, 33]).plain(),
    code(310, "LD64_GOTOFF_LO15", LDRX).of(Value::SlotOffset, &[15, 16]).step(8).plain(),
    code(550, "TLSLE_ADD_TPREL_LO12", ADD).thread(&[12, 13]),
    code(552, "TLSLE_LDST8_TPREL_LO12", LDRB).thread(&[12, 13]),
    code(554, "TLSLE_LDST16_TPREL_LO12", STRH).thread(&[12, 13]).step(2),
    code(556, "TLSLE_LDST32_TPREL_LO12", LDRSW).thread(&[12, 13]).step(4),
    code(558, "TLSLE_LDST64_TPREL_LO12", LDRX).thread(&[12, 13]).step(8),
];

const GNU_LIBRARY_KINDS: &[Kind] = &[
    code(512, "TLSGD_ADR_PREL21", ADR).entry(Value::SlotRelative, &[21]).plain(),
    code(513, "TLSGD_ADR_PAGE21", ADRP).entry(Value::SlotPage, &[33]).round(0x1000).plain(),
    code(514, "TLSGD_ADD_LO12_NC", ADD).entry(Value::Slot, &[12, 32]).plain(),
    code(515, "TLSGD_MOVW_G1", MOVZ[1]).entry(Value::SlotOffset, &[32, 33]).plain(),
    code(516, "TLSGD_MOVW_G0_NC", MOVK[0]).entry(Value::SlotOffset, &[16, 32]).plain(),
    code(517, "TLSLD_ADR_PREL21", ADR).entry(Value::SlotRelative, &[21]).plain(),
    code(518, "TLSLD_ADR_PAGE21", ADRP).entry(Value::SlotPage, &[33]).round(0x1000).plain(),
    code(519, "TLSLD_ADD_LO12_NC", ADD).entry(Value::Slot, &[12, 32]).plain(),
    code(523, "TLSLD_MOVW_DTPREL_G2", MOVZ[2]).block(&[48, 49]),
    code(524, "TLSLD_MOVW_DTPREL_G1", MOVZ[1]).block(&[32, 33]),
    code(525, "TLSLD_MOVW_DTPREL_G1_NC", MOVK[1]).block(&[32, 48]),
    code(526, "TLSLD_MOVW_DTPREL_G0", MOVZ[0]).block(&[16, 17]),
    code(527, "TLSLD_MOVW_DTPREL_G0_NC", MOVK[0]).block(&[16, 32]),
    code(528, "TLSLD_ADD_DTPREL_HI12", ADD).block(&[24, 25]),
    code(529, "TLSLD_ADD_DTPREL_LO12", ADD).block(&[12, 13]),
    code(530, "TLSLD_ADD_DTPREL_LO12_NC", ADD).block(&[12, 32]),
    code(531, "TLSLD_LDST8_DTPREL_LO12", LDRB).block(&[12, 13]),
    code(532, "TLSLD_LDST8_DTPREL_LO12_NC", LDRB).block(&[12, 32]),
    code(533, "TLSLD_LDST16_DTPREL_LO12", STRH).block(&[12, 13]).step(2),
    code(534, "TLSLD_LDST16_DTPREL_LO12_NC", STRH).block(&[12, 32]).step(2),
    code(535, "TLSLD_LDST32_DTPREL_LO12", LDRSW).block(&[12, 13]).step(4),
    code(536, "TLSLD_LDST32_DTPREL_LO12_NC", LDRSW).block(&[12, 32]).step(4),
    code(537, "TLSLD_LDST64_DTPREL_LO12", LDRX).block(&[12, 13]).step(8),
    code(538, "TLSLD_LDST64_DTPREL_LO12_NC", LDRX).block(&[12, 32]).step(8),
    code(539, "TLSIE_MOVW_GOTTPREL_G1", MOVZ[1]).entry(Value::SlotOffset, &[32, 33]).plain(),
    code(540, "TLSIE_MOVW_GOTTPREL_G0_NC", MOVK[0]).entry(Value::SlotOffset, &[16, 32]).plain(),
    code(543, "TLSIE_LD_GOTTPREL_PREL19", LDR_LITERAL).entry(Value::SlotRelative, &[21]).step(4).plain(),
    code(560, "TLSDESC_LD_PREL19", LDR_LITERAL).entry(Value::SlotRelative, &[21]).step(4).plain(),
    code(561, "TLSDESC_ADR_PREL21", ADR).entry(Value::SlotRelative, &[21]).plain(),
    code(565, "TLSDESC_OFF_G1", MOVZ[1]).entry(Value::SlotOffset, &[32, 33]).plain(),
    code(566, "TLSDESC_OFF_G0_NC", MOVK[0]).entry(Value::SlotOffset, &[16, 32]).plain(),
    code(567, "TLSDESC_LDR", LDRX).thread(&[32]),
    code(568, "TLSDESC_ADD", ADD).thread(&[32]),
];

pub static MACHINE: Machine = Machine {
    name: "aarch64",
    prefix: "R_AARCH64_",
    target: Target { machine: 183, class: 64, big_endian: false, explicit_addends: true, flags: 0 },
    kinds: KINDS,
    library_kinds: LIBRARY_KINDS,
    gnu_kinds: GNU_KINDS,
    gnu_library_kinds: GNU_LIBRARY_KINDS,
    gnu_ld: &["aarch64-linux-gnu-ld"],
    gnu_filler: Some(312), // LD64_GOT_LO12_NC
    dynamic: Dynamic { module: 1028, block_offset: 1029, thread_offset: 1030, descriptor: 1031, jump_slot: 0 },
    thread_block: 16,
    // GNU ld.
    swaps_local_dynamic: true,
    relaxes: true,
    relaxed_mask,
    known: KNOWN,
    ..Machine::DEFAULT
};

const KNOWN: &[Known] = &[
    Known {
        kinds: &["CALL26", "JUMP26"],
        what: Difference::Bytes,
        when: |case| case.wraps(),
        why: "lld does not know that branches wrap round, and makes a thunk",
    },
    Known {
        kinds: &["MOVW_PREL_G0", "MOVW_PREL_G0_NC", "MOVW_PREL_G1", "MOVW_PREL_G1_NC", "MOVW_PREL_G2"],
        what: Difference::Bytes,
        when: |case| case.symbol.form == Form::UndefinedWeak,
        why: "aaelf64 says that the place stands for a weak symbol that is not there; lld takes this for a branch",
    },
    Known {
        kinds: &[
            "TLSDESC_ADR_PREL21", "TLSDESC_LD_PREL19", "TLSGD_ADR_PAGE21", "TLSGD_ADR_PREL21",
            "TLSIE_LD_GOTTPREL_PREL19", "TLSLD_ADR_PAGE21", "TLSLD_ADR_PREL21",
        ],
        what: Difference::OnlyWeRefuse,
        when: slot_is_out_of_reach,
        why: "aaelf64 has these distances checked; GNU ld cuts off",
    },
    Known {
        kinds: &["TLSLD_MOVW_DTPREL_G0", "TLSLD_MOVW_DTPREL_G1", "TLSLD_MOVW_DTPREL_G2"],
        what: Difference::OnlyTheyRefuse,
        when: |case| case.symbol.value.checked_add_signed(case.addend).is_none(),
        why: "aaelf64 has MOV[NZ] and -2^n <= X < 2^n; GNU ld takes no negative numbers",
    },
    Known {
        kinds: &["LD64_GOTPAGE_LO15"],
        what: Difference::OnlyWeRefuse,
        when: |_| true,
        why: "aaelf64 has 0 <= X < 2^15; lld cuts off",
    },
    Known {
        kinds: &["CALL26", "JUMP26", "CONDBR19", "TSTBR14", "LD_PREL_LO19"],
        what: Difference::OnlyWeRefuse,
        when: |case| case.distance() % 4 != 0,
        why: "lld does not see that a target is between instructions",
    },
];

/// The place, or its page, is too far from the GOT entry, or its page.
fn slot_is_out_of_reach(case: &Case) -> bool {
    let place = case.section + case.offset as u64;
    let distance = |slot: u64| match case.kind.value {
        Value::SlotPage => (slot & !0xfff).wrapping_sub(place & !0xfff),
        _ => slot.wrapping_sub(place),
    };
    let is_far = |distance: u64| sign_extend(distance, case.kind.bits[0]) as u64 != distance;
    case.slot.is_some_and(|slot| is_far(distance(slot)))
}

/// ADRP and ADD of a near symbol become one ADR in lld's hands, and keep their two instructions in ours.
fn relaxed_mask(object: &[u8], name: &str, [theirs, ours]: [&mut Vec<u8>; 2]) {
    blank(object, name, [theirs, ours], &[275, 277], false);
}
