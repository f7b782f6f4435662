//! LoongArch, 64 bits.

use crate::machine::{Difference, Dynamic, Kind, Known, Machine, Value, Word, code, data, word};
use crate::support::elf::Target;

const RD: u64 = 0x1f;
const RJ: u64 = 0x3e0;
const J20: u64 = 0x1ff_ffe0;
const K12: u64 = 0x3f_fc00;

const PCALAU12I: Word = word(0x1a00_0000, RD, J20);
const PCADDU12I: Word = word(0x1c00_0000, RD, J20);
const LU12I: Word = word(0x1400_0000, RD, J20);
const LU32I: Word = word(0x1600_0000, RD, J20);
const LU52I: Word = word(0x0300_0000, RD | RJ, K12);
const ADDI: Word = word(0x02c0_0000, RD | RJ, K12);
const LD: Word = word(0x28c0_0000, RD | RJ, K12);
const ORI: Word = word(0x0380_0000, RD | RJ, K12);
const JIRL: Word = word(0x4c00_0000, RD | RJ, 0x3ff_fc00);

const BEQ: &[Word] = &[word(0x5800_0000, RD | RJ, 0x3ff_fc00)];
const BEQZ: &[Word] = &[word(0x4000_0000, RJ, 0x3ff_fc1f)];
const BL: &[Word] = &[word(0x5000_0000, 0x400_0000, 0x3ff_ffff)];
const CALL36: &[Word] = &[word(0x1e00_0000, RD, J20), JIRL];
/// The parts of an address of 64 bits, in the extreme code model.
const EXTREME: &[Word] = &[PCALAU12I, ADDI, LU32I, LU52I];
const ABSOLUTE: &[Word] = &[LU12I, ORI, LU32I, LU52I];
const ULEB: Word = Word { width: 1, bits: 0x80, random: 0x7f, field: 0 };
const LAST: Word = Word { width: 1, bits: 0, random: 0x7f, field: 0 };

/// The parts of an access through a descriptor, by $a0 and $ra.
const DESCRIPTOR_LOAD: Word = word(0x28c0_0081, 0, K12);
const DESCRIPTOR_CALL: Word = word(0x4c00_0021, 0, 0);

const KINDS: &[Kind] = &[
    data(0, "NONE", 4).absolute(&[32]),
    code(20, "MARK_LA", ABSOLUTE).absolute(&[32]),
    code(21, "MARK_PCREL", ABSOLUTE).absolute(&[32]),
    data(1, "32", 4).absolute(&[32]),
    data(2, "64", 8),
    data(47, "ADD8", 1).absolute(&[8]).same(52, "SUB8"),
    data(48, "ADD16", 2).absolute(&[16]).same(53, "SUB16"),
    data(50, "ADD32", 4).absolute(&[32]).same(55, "SUB32"),
    data(51, "ADD64", 8).same(56, "SUB64"),
    data(47, "ADD8", 1).absolute(&[8]),
    data(55, "SUB32", 4).absolute(&[32]),
    code(64, "B16", BEQ).relative(&[18]).step(4).stub(),
    code(65, "B21", BEQZ).relative(&[23]).step(4).stub(),
    code(66, "B26", BL).relative(&[28]).step(4).stub(),
    code(67, "ABS_HI20", &[LU12I]).absolute(&[32]),
    code(68, "ABS_LO12", &[ORI]).absolute(&[12, 32]),
    code(69, "ABS64_LO20", ABSOLUTE).at(8).absolute(&[52, 64]),
    code(70, "ABS64_HI12", ABSOLUTE).at(12).absolute(&[64]),
    code(71, "PCALA_HI20", &[PCALAU12I]).of(Value::Page, &[32]).round(0x800),
    code(71, "PCALA_HI20", EXTREME).of(Value::Page, &[32, 52]).round(0x800),
    code(72, "PCALA_LO12", &[ADDI]).absolute(&[12, 32]),
    code(72, "PCALA_LO12", &[JIRL]).absolute(&[12, 32]).step(4),
    code(73, "PCALA64_LO20", EXTREME).at(8).of(Value::Page, &[32, 52]).round(0x800),
    code(74, "PCALA64_HI12", EXTREME).at(12).of(Value::Page, &[32, 52, 64]).round(0x800),
    code(75, "GOT_PC_HI20", &[PCALAU12I]).of(Value::SlotPage, &[32]).round(0x800),
    code(76, "GOT_PC_LO12", &[LD]).of(Value::Slot, &[12, 32]),
    code(77, "GOT64_PC_LO20", EXTREME).at(8).of(Value::SlotPage, &[32, 52]).round(0x800),
    code(78, "GOT64_PC_HI12", EXTREME).at(12).of(Value::SlotPage, &[32, 52, 64]).round(0x800),
    code(79, "GOT_HI20", &[LU12I]).of(Value::Slot, &[32]),
    code(80, "GOT_LO12", &[ORI]).of(Value::Slot, &[12, 32]),
    code(81, "GOT64_LO20", ABSOLUTE).at(8).of(Value::Slot, &[52, 64]),
    code(82, "GOT64_HI12", ABSOLUTE).at(12).of(Value::Slot, &[64]),
    data(99, "32_PCREL", 4).relative(&[32]),
    code(103, "PCREL20_S2", &[word(0x1800_0000, RD, J20)]).relative(&[22]).step(4),
    data(105, "ADD6", 1).absolute(&[6]).same(106, "SUB6"),
    code(107, "ADD_ULEB128", &[LAST]).same(108, "SUB_ULEB128"),
    code(107, "ADD_ULEB128", &[ULEB, LAST]).same(108, "SUB_ULEB128"),
    code(107, "ADD_ULEB128", &[ULEB, ULEB, LAST]).same(108, "SUB_ULEB128"),
    data(109, "64_PCREL", 8).relative(&[64]),
    code(110, "CALL36", CALL36).relative(&[38]).step(4).round(0x2_0000).stub(),
    code(127, "CALL30", &[PCADDU12I, JIRL]).relative(&[32]).step(4).stub(),
    code(128, "PCADD_HI20", &[PCADDU12I]).relative(&[32]).round(0x800).low(129, "PCADD_LO12", ADDI),
    code(130, "GOT_PCADD_HI20", &[PCADDU12I]).of(Value::SlotRelative, &[32]).round(0x800).low(131, "GOT_PCADD_LO12", LD),
    code(83, "TLS_LE_HI20", &[LU12I]).thread(&[32]),
    code(84, "TLS_LE_LO12", &[ORI]).thread(&[12, 32]),
    code(85, "TLS_LE64_LO20", ABSOLUTE).at(8).thread(&[52, 64]),
    code(86, "TLS_LE64_HI12", ABSOLUTE).at(12).thread(&[64]),
    code(87, "TLS_IE_PC_HI20", &[PCALAU12I]).thread(&[12, 13, 32]),
    code(88, "TLS_IE_PC_LO12", &[LD]).thread(&[12, 13, 32]),
    code(111, "TLS_DESC_PC_HI20", &[word(0x1a00_0004, 0, J20), DESCRIPTOR_CALL]).thread(&[12, 32]).mark(120, "TLS_DESC_CALL", 4),
    code(112, "TLS_DESC_PC_LO12", &[word(0x02c0_0084, 0, K12), DESCRIPTOR_CALL]).thread(&[12, 32]).mark(120, "TLS_DESC_CALL", 4),
    code(119, "TLS_DESC_LD", &[DESCRIPTOR_LOAD, DESCRIPTOR_CALL]).thread(&[12, 13, 32]).mark(120, "TLS_DESC_CALL", 4),
    code(120, "TLS_DESC_CALL", &[DESCRIPTOR_CALL]).thread(&[12, 13, 32]),
    code(121, "TLS_LE_HI20_R", &[LU12I]).thread(&[32]).round(0x800),
    code(123, "TLS_LE_LO12_R", &[ADDI]).thread(&[12, 32]),
];

const PCADDI: &[Word] = &[word(0x1800_0000, RD, J20)];

const LIBRARY_KINDS: &[Kind] = &[
    data(8, "TLS_DTPREL32", 4).block(&[32]),
    data(9, "TLS_DTPREL64", 8).block(&[64]),
    code(87, "TLS_IE_PC_HI20", &[PCALAU12I]).entry(Value::SlotPage, &[32]).round(0x800).next(88, "TLS_IE_PC_LO12", LD),
    code(87, "TLS_IE_PC_HI20", EXTREME).entry(Value::SlotPage, &[32, 52]).round(0x800),
    code(89, "TLS_IE64_PC_LO20", EXTREME).at(8).entry(Value::SlotPage, &[32, 52]).round(0x800),
    code(90, "TLS_IE64_PC_HI12", EXTREME).at(12).entry(Value::SlotPage, &[32, 52, 64]).round(0x800),
    code(91, "TLS_IE_HI20", ABSOLUTE).entry(Value::Slot, &[32]),
    code(92, "TLS_IE_LO12", &[ORI]).entry(Value::Slot, &[12, 32]),
    code(93, "TLS_IE64_LO20", ABSOLUTE).at(8).entry(Value::Slot, &[52, 64]),
    code(94, "TLS_IE64_HI12", ABSOLUTE).at(12).entry(Value::Slot, &[64]),
    code(95, "TLS_LD_PC_HI20", &[PCALAU12I]).entry(Value::SlotPage, &[32]).round(0x800).next(76, "GOT_PC_LO12", ADDI),
    code(95, "TLS_LD_PC_HI20", EXTREME).entry(Value::SlotPage, &[32, 52]).round(0x800),
    code(96, "TLS_LD_HI20", ABSOLUTE).entry(Value::Slot, &[32]),
    code(97, "TLS_GD_PC_HI20", &[PCALAU12I]).entry(Value::SlotPage, &[32]).round(0x800).next(76, "GOT_PC_LO12", ADDI),
    code(97, "TLS_GD_PC_HI20", EXTREME).entry(Value::SlotPage, &[32, 52]).round(0x800),
    code(98, "TLS_GD_HI20", ABSOLUTE).entry(Value::Slot, &[32]),
    code(111, "TLS_DESC_PC_HI20", &[PCALAU12I]).entry(Value::SlotPage, &[32]).round(0x800).next(112, "TLS_DESC_PC_LO12", ADDI),
    code(111, "TLS_DESC_PC_HI20", EXTREME).entry(Value::SlotPage, &[32, 52]).round(0x800),

    code(113, "TLS_DESC64_PC_LO20", EXTREME).at(8).entry(Value::SlotPage, &[32, 52]).round(0x800),
    code(114, "TLS_DESC64_PC_HI12", EXTREME).at(12).entry(Value::SlotPage, &[32, 52, 64]).round(0x800),
    code(115, "TLS_DESC_HI20", ABSOLUTE).entry(Value::Slot, &[32]),
    code(116, "TLS_DESC_LO12", &[ORI]).entry(Value::Slot, &[12, 32]),
    code(117, "TLS_DESC64_LO20", ABSOLUTE).at(8).entry(Value::Slot, &[52, 64]),
    code(118, "TLS_DESC64_HI12", ABSOLUTE).at(12).entry(Value::Slot, &[64]),
    code(119, "TLS_DESC_LD", &[LD]).thread(&[32]),
    code(120, "TLS_DESC_CALL", &[JIRL]).thread(&[32]),
    code(124, "TLS_LD_PCREL20_S2", PCADDI).entry(Value::SlotRelative, &[22]).step(4),
    code(125, "TLS_GD_PCREL20_S2", PCADDI).entry(Value::SlotRelative, &[22]).step(4),
    code(126, "TLS_DESC_PCREL20_S2", PCADDI).entry(Value::SlotRelative, &[22]).step(4),
    code(132, "TLS_IE_PCADD_HI20", &[PCADDU12I]).entry(Value::SlotRelative, &[32]).round(0x800).low(133, "TLS_IE_PCADD_LO12", LD),
    code(134, "TLS_LD_PCADD_HI20", &[PCADDU12I]).entry(Value::SlotRelative, &[32]).round(0x800).low(135, "TLS_LD_PCADD_LO12", ADDI),
    code(138, "TLS_DESC_PCADD_HI20", &[PCADDU12I])
        .entry(Value::SlotRelative, &[32])
        .round(0x800)
        .low(139, "TLS_DESC_PCADD_LO12", ADDI)
        .at_zero(),
    code(136, "TLS_GD_PCADD_HI20", &[PCADDU12I]).entry(Value::SlotRelative, &[32]).round(0x800).low(137, "TLS_GD_PCADD_LO12", ADDI),
];

pub static MACHINE: Machine = Machine {
    name: "loongarch64",
    prefix: "R_LARCH_",
    target: Target { machine: 258, class: 64, big_endian: false, explicit_addends: true, flags: 0x43 },
    kinds: KINDS,
    library_kinds: LIBRARY_KINDS,
    dynamic: Dynamic { module: 7, block_offset: 9, thread_offset: 11, descriptor: 14, jump_slot: 0 },
    // In the last, what lld counts from the GOT is as if it were not.
    bases: &[0x20_0000, 0x5555_5000_0000, 0x7ffe_ffc0_0000, 0x7ffe_0000_0000],
    known: KNOWN,
    // lld, of some kinds; there are no offsets in the block to go with the module's entry.
    swaps_local_dynamic: true,
    always_relaxed: true,
    whole_only: &[
        (100, "RELAX"),
        (102, "ALIGN"),
        (122, "TLS_LE_ADD_R"),
    ],
    ..Machine::DEFAULT
};

const DESC_PCADD: &[&str] = &["TLS_DESC_PCADD_HI20"];
const FROM_ZERO: &str = "lld forgets that the distance to a descriptor counts from its instruction, pcaddu12i";

const PCADD: &[&str] =
    &["GOT_PCADD_HI20", "PCADD_HI20", "TLS_DESC_PCADD_HI20", "TLS_GD_PCADD_HI20", "TLS_IE_PCADD_HI20", "TLS_LD_PCADD_HI20"];

const HIGH_PARTS: &[&str] = &[
    "ABS_HI20", "GOT_HI20", "GOT_PC_HI20", "PCALA_HI20", "TLS_DESC_PC_HI20", "TLS_GD_PC_HI20", "TLS_IE_PC_HI20",
    "TLS_LD_PC_HI20", "TLS_LE_HI20", "TLS_LE_HI20_R",
];

const KNOWN: &[Known] = &[
    Known {
        kinds: &[
            "TLS_IE_PC_HI20",
            "TLS_IE_PC_LO12",
            "TLS_DESC_PC_HI20",
            "TLS_DESC_PC_LO12",
            "TLS_DESC_LD",
            "TLS_DESC_CALL",
        ],
        what: Difference::OnlyWeRefuse,
        when: |_| true,
        why: "lld cuts off an offset of more than 32 bits",
    },
    Known {
        kinds: HIGH_PARTS,
        what: Difference::OnlyWeRefuse,
        when: |case| case.kind.code.len() == 1,
        why: "lld cuts off what does not fit in 32 bits, though no instruction for the rest follows",
    },
    Known {
        kinds: &["TLS_GD_HI20", "TLS_LD_HI20"],
        what: Difference::Bytes,
        when: |case| case.section as u32 > 0x10_0000,
        why: "the psABI has absolute addresses; lld counts from the GOT",
    },
    Known { kinds: DESC_PCADD, what: Difference::Bytes, when: |case| case.section != 0, why: FROM_ZERO },
    Known { kinds: DESC_PCADD, what: Difference::OnlyWeRefuse, when: |case| case.section != 0, why: FROM_ZERO },
    Known { kinds: DESC_PCADD, what: Difference::OnlyTheyRefuse, when: |case| case.section != 0, why: FROM_ZERO },
    Known {
        kinds: PCADD,
        what: Difference::OnlyWeRefuse,
        when: |_| true,
        why: "the low part is signed, so the last 2 KiB before 2^31 cannot be reached; lld encodes them wrongly",
    },
    Known {
        kinds: PCADD,
        what: Difference::OnlyTheyRefuse,
        when: |_| true,
        why: "the low part is signed, so 2 KiB before -2^31 can be reached; lld does not know",
    },
];
