//! s390x. Fields of instructions are two bytes from their start, and distances count halfwords.

use crate::machine::{Dynamic, Kind, Machine, Value, Word, code, data, half};
use crate::support::elf::Target;

const FIELD: Word = Word { width: 4, bits: 0, random: 0, field: 0xffff_ffff };
const LARL: &[Word] = &[half(0xc000, 0xf0, 0), FIELD];
const BRASL: &[Word] = &[half(0xc005, 0xf0, 0), FIELD];
const BRCL: &[Word] = &[half(0xc004, 0xf0, 0), FIELD];
const LGRL: &[Word] = &[half(0xc408, 0xf0, 0), FIELD];
const BRC: &[Word] = &[half(0xa704, 0xf0, 0), half(0, 0, 0xffff)];
/// `bpp`: a mask, 12 bits in its second byte and the next, 16 more.
const BPRP: &[Word] = &[half(0xc500, 0xf0, 0xf), Word { width: 1, bits: 0, random: 0, field: 0xff }, Word { width: 3, bits: 0, random: 0, field: 0xff_ffff }];
/// `l %r, D(%x, %b)`.
const LOAD_12: &[Word] = &[half(0x5800, 0xff, 0), half(0, 0xf000, 0xfff)];
/// `lg %r, D(%x, %b)`.
const LOAD_20: &[Word] = &[half(0xe300, 0xff, 0), Word { width: 4, bits: 4, random: 0xf000_0000, field: 0xfff_ff00 }];

const KINDS: &[Kind] = &[
    data(0, "NONE", 4).absolute(&[32]),
    data(1, "8", 1).absolute(&[8]),
    code(2, "12", LOAD_12).at(2).absolute(&[12, 13]),
    data(3, "16", 2).absolute(&[16]),
    data(4, "32", 4).absolute(&[32]),
    data(5, "PC32", 4).relative(&[32]),
    code(6, "GOT12", LOAD_12).at(2).of(Value::SlotOffset, &[12, 13]),
    data(7, "GOT32", 4).of(Value::SlotOffset, &[32]),
    data(8, "PLT32", 4).relative(&[32]).stub(),
    data(13, "GOTOFF", 4).of(Value::GotOffset, &[32]),
    data(14, "GOTPC", 8).of(Value::Got, &[64]),
    data(15, "GOT16", 2).of(Value::SlotOffset, &[16]),
    data(16, "PC16", 2).relative(&[16]),
    code(17, "PC16DBL", BRC).at(2).relative(&[17]).step(2).addend(2),
    code(18, "PLT16DBL", BRC).at(2).relative(&[17]).step(2).addend(2),
    code(19, "PC32DBL", LARL).at(2).relative(&[33]).step(2).addend(2),
    code(19, "PC32DBL", BRASL).at(2).relative(&[33]).step(2).addend(2).plain().stub(),
    code(20, "PLT32DBL", BRASL).at(2).relative(&[33]).step(2).addend(2).plain().stub(),
    code(20, "PLT32DBL", BRCL).at(2).relative(&[33]).step(2).addend(2).plain().stub(),
    code(21, "GOTPCDBL", LARL).at(2).of(Value::Got, &[33]).step(2).addend(2),
    data(22, "64", 8),
    data(23, "PC64", 8).relative(&[64]),
    data(24, "GOT64", 8).of(Value::SlotOffset, &[64]),
    data(25, "PLT64", 8).relative(&[64]),
    code(26, "GOTENT", LGRL).at(2).of(Value::SlotRelative, &[33]).step(2).addend(2),
    data(27, "GOTOFF16", 2).of(Value::GotOffset, &[16]),
    data(28, "GOTOFF64", 8).of(Value::GotOffset, &[64]),
    code(29, "GOTPLT12", LOAD_12).at(2).of(Value::SlotOffset, &[12, 13]).in_got_plt(),
    data(30, "GOTPLT16", 2).of(Value::SlotOffset, &[16]).in_got_plt(),
    data(31, "GOTPLT32", 4).of(Value::SlotOffset, &[32]).in_got_plt(),
    data(32, "GOTPLT64", 8).of(Value::SlotOffset, &[64]).in_got_plt(),
    code(33, "GOTPLTENT", LGRL).at(2).of(Value::SlotRelative, &[33]).step(2).addend(2).in_got_plt(),
    data(34, "PLTOFF16", 2).of(Value::GotOffset, &[16]),
    data(35, "PLTOFF32", 4).of(Value::GotOffset, &[32]),
    data(36, "PLTOFF64", 8).of(Value::GotOffset, &[64]),
    code(57, "20", LOAD_20).at(2).absolute(&[20]),
    code(58, "GOT20", LOAD_20).at(2).of(Value::SlotOffset, &[20]),
    code(59, "GOTPLT20", LOAD_20).at(2).of(Value::SlotOffset, &[20]).in_got_plt(),
    code(62, "PC12DBL", BPRP).at(1).relative(&[13]).step(2).addend(1),
    code(63, "PLT12DBL", BPRP).at(1).relative(&[13]).step(2).addend(1),
    code(64, "PC24DBL", BPRP).at(3).relative(&[25]).step(2).addend(3),
    code(65, "PLT24DBL", BPRP).at(3).relative(&[25]).step(2).addend(3),
    data(50, "TLS_LE32", 4).thread(&[32]),
    data(51, "TLS_LE64", 8).thread(&[64]),
    data(53, "TLS_LDO64", 8).thread(&[64]),
];

const LIBRARY_KINDS: &[Kind] = &[
    code(37, "TLS_LOAD", LOAD_20).thread(&[32]),
    code(38, "TLS_GDCALL", BRASL).thread(&[32]),
    code(39, "TLS_LDCALL", BRASL).thread(&[32]),
    data(40, "TLS_GD32", 4).entry(Value::SlotOffset, &[32]),
    data(41, "TLS_GD64", 8).entry(Value::SlotOffset, &[64]),
    code(42, "TLS_GOTIE12", LOAD_12).at(2).entry(Value::SlotOffset, &[12, 13]),
    data(43, "TLS_GOTIE32", 4).entry(Value::SlotOffset, &[32]),
    data(44, "TLS_GOTIE64", 8).entry(Value::SlotOffset, &[64]),
    data(45, "TLS_LDM32", 4).entry(Value::SlotOffset, &[32]),
    data(46, "TLS_LDM64", 8).entry(Value::SlotOffset, &[64]),
    data(47, "TLS_IE32", 4).entry(Value::Slot, &[32]),
    data(48, "TLS_IE64", 8).entry(Value::Slot, &[64]),
    code(49, "TLS_IEENT", LGRL).at(2).entry(Value::SlotRelative, &[33]).step(2).addend(2),
    data(52, "TLS_LDO32", 4).block(&[32]),
    data(53, "TLS_LDO64", 8).block(&[64]),
    code(60, "TLS_GOTIE20", LOAD_20).at(2).entry(Value::SlotOffset, &[20]),
];

pub static MACHINE: Machine = Machine {
    name: "s390x",
    prefix: "R_390_",
    target: Target { machine: 22, class: 64, big_endian: true, explicit_addends: true, flags: 0 },
    kinds: KINDS,
    library_kinds: LIBRARY_KINDS,
    dynamic: Dynamic { module: 54, block_offset: 55, thread_offset: 56, descriptor: 0, jump_slot: 0 },
    thread_block: -0x400,
    code_align: 2,
    got_header: 3,
    ..Machine::DEFAULT
};
