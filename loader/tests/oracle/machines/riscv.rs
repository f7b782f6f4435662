//! RISC-V of both widths. Low parts of PC-relative addresses name the place of their high part.

use crate::machine::{Dynamic, Kind, Machine, Value, Word, code, data, half, word};
use crate::support::elf::Target;

const RD: u64 = 0xf80;
const RS1: u64 = 0xf_8000;
const RS2: u64 = 0x1f0_0000;

const AUIPC: Word = word(0x17, RD, 0xffff_f000);
const LUI: &[Word] = &[word(0x37, RD, 0xffff_f000)];
const ADDI: Word = word(0x13, RD | RS1, 0xfff0_0000);
const LOAD: Word = word(0x2003, RD | RS1 | 0x4000, 0xfff0_0000); // lw, lwu
const JALR: Word = word(0x67, RD | RS1, 0);
const STORE: Word = word(0x2023, RS1 | RS2, 0xfe00_0f80); // sw
/// beq, bne; blt, bge: any condition whose second bit is 0.
const BRANCH: &[Word] = &[word(0x63, RS1 | RS2 | 0x5000, 0xfe00_0f80)];
const JAL: &[Word] = &[word(0x6f, RD, 0xffff_f000)];
const CALL: &[Word] = &[AUIPC, word(0x67, RD | RS1, 0xfff0_0000)];
const C_BEQZ: &[Word] = &[half(0xc001, 0x2380, 0x1c7c)];
const C_J: &[Word] = &[half(0xa001, 0, 0x1ffc)];
const HIGH: &[Word] = &[AUIPC];
const ULEB: Word = Word { width: 1, bits: 0x80, random: 0x7f, field: 0 };
const LAST: Word = Word { width: 1, bits: 0, random: 0x7f, field: 0 };

const KINDS: &[Kind] = &[
    data(0, "NONE", 4).absolute(&[32]),
    data(2, "64", 8),
    data(1, "32", 4).absolute(&[32]),
    code(16, "BRANCH", BRANCH).relative(&[13]).step(2),
    code(17, "JAL", JAL).relative(&[21]).step(2).stub(),
    code(18, "CALL", CALL).relative(&[32]).round(0x800).stub(),
    code(19, "CALL_PLT", CALL).relative(&[32]).round(0x800).stub(),
    code(20, "GOT_HI20", HIGH).of(Value::SlotRelative, &[32]).round(0x800).plain().low(24, "PCREL_LO12_I", LOAD),
    code(23, "PCREL_HI20", HIGH).relative(&[32]).round(0x800).low(24, "PCREL_LO12_I", ADDI),
    code(23, "PCREL_HI20", HIGH).relative(&[32]).round(0x800).low(24, "PCREL_LO12_I", LOAD),
    code(23, "PCREL_HI20", HIGH).relative(&[32]).round(0x800).low(25, "PCREL_LO12_S", STORE),
    code(26, "HI20", LUI).absolute(&[32]).round(0x800),
    code(27, "LO12_I", &[ADDI]).absolute(&[12, 32]),
    code(27, "LO12_I", &[LOAD]).absolute(&[12, 32]),
    code(28, "LO12_S", &[STORE]).absolute(&[12, 32]),
    data(33, "ADD8", 1).absolute(&[8]).same(37, "SUB8"),
    data(34, "ADD16", 2).absolute(&[16]).same(38, "SUB16"),
    data(35, "ADD32", 4).absolute(&[32]).same(39, "SUB32"),
    data(36, "ADD64", 8).same(40, "SUB64"),
    data(33, "ADD8", 1).absolute(&[8]),
    data(39, "SUB32", 4).absolute(&[32]),
    data(40, "SUB64", 8),
    data(41, "GOT32_PCREL", 4).of(Value::SlotRelative, &[32]),
    code(44, "RVC_BRANCH", C_BEQZ).relative(&[9]).step(2),
    code(45, "RVC_JUMP", C_J).relative(&[12]).step(2),
    data(53, "SET6", 1).absolute(&[6, 8]).same(52, "SUB6"),
    data(54, "SET8", 1).absolute(&[8]).same(37, "SUB8"),
    data(55, "SET16", 2).absolute(&[16]).same(38, "SUB16"),
    data(56, "SET32", 4).absolute(&[32]).same(39, "SUB32"),
    data(53, "SET6", 1).absolute(&[6]),
    data(54, "SET8", 1).absolute(&[8]),
    data(56, "SET32", 4).absolute(&[32]),
    data(57, "32_PCREL", 4).relative(&[32]),
    data(59, "PLT32", 4).relative(&[32]).stub(),
    code(29, "TPREL_HI20", LUI).thread(&[32]).round(0x800),
    code(30, "TPREL_LO12_I", &[ADDI]).thread(&[12, 32]),
    code(31, "TPREL_LO12_S", &[STORE]).thread(&[12, 32]),
    code(60, "SET_ULEB128", &[LAST]).same(61, "SUB_ULEB128"),
    code(60, "SET_ULEB128", &[ULEB, LAST]).same(61, "SUB_ULEB128"),
    code(60, "SET_ULEB128", &[ULEB, ULEB, LAST]).same(61, "SUB_ULEB128"),
];

const LIBRARY_KINDS: &[Kind] = &[
    code(21, "TLS_GOT_HI20", HIGH).entry(Value::SlotRelative, &[32]).round(0x800).low(24, "PCREL_LO12_I", LOAD),
    code(22, "TLS_GD_HI20", HIGH).entry(Value::SlotRelative, &[32]).round(0x800).low(24, "PCREL_LO12_I", ADDI),
    code(62, "TLSDESC_HI20", HIGH).entry(Value::SlotRelative, &[32]).round(0x800).low(63, "TLSDESC_LOAD_LO12", LOAD),
    code(62, "TLSDESC_HI20", HIGH).entry(Value::SlotRelative, &[32]).round(0x800).low(64, "TLSDESC_ADD_LO12", ADDI),
    code(62, "TLSDESC_HI20", HIGH).entry(Value::SlotRelative, &[32]).round(0x800).low(65, "TLSDESC_CALL", JALR),
];

const WHOLE_ONLY: &[(u32, &str)] = &[
    (21, "TLS_GOT_HI20"),
    (32, "TPREL_ADD"),
    (43, "ALIGN"),
    (51, "RELAX"),
];

const TARGET: Target = Target { machine: 243, class: 64, big_endian: false, explicit_addends: true, flags: 5 };

pub static RISCV64: Machine = Machine {
    name: "riscv64",
    prefix: "R_RISCV_",
    target: TARGET,
    kinds: KINDS,
    library_kinds: LIBRARY_KINDS,
    dynamic: Dynamic { module: 7, block_offset: 9, thread_offset: 11, descriptor: 12, jump_slot: 0 },
    code_align: 2,
    got_header: 1,
    whole_only: WHOLE_ONLY,
    ..Machine::DEFAULT
};

pub static RISCV32: Machine = Machine {
    name: "riscv32",
    target: Target { class: 32, ..TARGET },
    kinds: KINDS,
    library_kinds: LIBRARY_KINDS,
    dynamic: Dynamic { module: 6, block_offset: 8, thread_offset: 10, descriptor: 12, jump_slot: 0 },
    bases: &[0x20_0000, 0x5000_0000, 0xff00_0000],
    prefix: "R_RISCV_",
    code_align: 2,
    got_header: 1,
    whole_only: WHOLE_ONLY,
    ..Machine::DEFAULT
};
