//! i386: addends are in the fields, and values wrap round. lld does not know SIZE32.

use crate::machine::{Dynamic, Kind, Machine, Value, Word, byte, byte_with, code, data};
use crate::support::elf::Target;

const FIELD: Word = Word { width: 4, bits: 0xffff_fffc, random: 0, field: 0xffff_ffff };
const NO_ADDEND: Word = Word { width: 4, bits: 0, random: 0, field: 0xffff_ffff };
const CALL: &[Word] = &[byte(0xe8), FIELD];
/// `mov slot(%ebx), %eax`, and `mov slot, %ecx`.
const LOAD: &[Word] = &[byte(0x8b), byte(0x83), NO_ADDEND];
const LOAD_ABSOLUTE: &[Word] = &[byte(0x8b), byte(0x0d), NO_ADDEND];

/// `mov x@indntpoff, %eax`; the other registers, and `add`; the same relative to the GOT.
const MOV_OFFSET_EAX: &[Word] = &[byte(0xa1), NO_ADDEND];
const MOV_OFFSET: &[Word] = &[byte(0x8b), byte_with(0x05, 0x38), NO_ADDEND];
const ADD_OFFSET: &[Word] = &[byte(0x03), byte_with(0x05, 0x38), NO_ADDEND];
const MOV_OFFSET_BY_GOT: &[Word] = &[byte(0x8b), byte_with(0x83, 0x38), NO_ADDEND];
const ADD_OFFSET_BY_GOT: &[Word] = &[byte(0x03), byte_with(0x83, 0x18), NO_ADDEND];
/// `lea x@tlsdesc(%ebx), %eax; call *x@tlscall(%eax)`.
const DESCRIPTOR: &[Word] = &[byte(0x8d), byte(0x83), NO_ADDEND, byte(0xff), byte(0x10)];
/// The address of a variable and of the block, directly called and through the GOT.
const GENERAL: &[Word] = &[byte(0x8d), byte(0x04), byte(0x1d), NO_ADDEND, byte(0xe8), FIELD];
const GENERAL_BY_BASE: &[Word] = &[byte(0x8d), byte(0x83), NO_ADDEND, byte(0xe8), FIELD, byte(0x90)];
const GENERAL_BY_GOT: &[Word] = &[byte(0x8d), byte_with(0x80, 3), NO_ADDEND, byte(0xff), byte_with(0x90, 3), FIELD];
const LOCAL: &[Word] = &[byte(0x8d), byte(0x83), NO_ADDEND, byte(0xe8), FIELD];
const LOCAL_BY_GOT: &[Word] = &[byte(0x8d), byte_with(0x80, 3), NO_ADDEND, byte(0xff), byte_with(0x90, 3), FIELD];

const KINDS: &[Kind] = &[
    data(0, "NONE", 4).absolute(&[32]),
    data(1, "32", 4).absolute(&[32]),
    data(2, "PC32", 4).relative(&[32]),
    code(2, "PC32", CALL).at(1).relative(&[32]).addend(-4),
    code(3, "GOT32", LOAD).at(2).of(Value::SlotOffset, &[32]),
    code(4, "PLT32", CALL).at(1).relative(&[32]).addend(-4),
    data(9, "GOTOFF", 4).of(Value::GotOffset, &[32]),
    data(10, "GOTPC", 4).of(Value::Got, &[32]),
    data(20, "16", 2).absolute(&[16]),
    data(21, "PC16", 2).relative(&[16, 17]),
    data(22, "8", 1).absolute(&[8]),
    data(23, "PC8", 1).relative(&[8]),
    code(43, "GOT32X", LOAD).at(2).of(Value::SlotOffset, &[32]),
    code(43, "GOT32X", LOAD_ABSOLUTE).at(2).of(Value::Slot, &[32]),
    data(17, "TLS_LE", 4).thread(&[32]),
    data(34, "TLS_LE_32", 4).thread(&[32]),
    data(32, "TLS_LDO_32", 4).thread(&[32]),
    code(15, "TLS_IE", MOV_OFFSET_EAX).at(1).thread(&[32]),
    code(15, "TLS_IE", MOV_OFFSET).at(2).thread(&[32]),
    code(15, "TLS_IE", ADD_OFFSET).at(2).thread(&[32]),
    code(16, "TLS_GOTIE", MOV_OFFSET_BY_GOT).at(2).thread(&[32]),
    code(16, "TLS_GOTIE", ADD_OFFSET_BY_GOT).at(2).thread(&[32]),
    code(39, "TLS_GOTDESC", DESCRIPTOR).at(2).thread(&[32]).mark(40, "TLS_DESC_CALL", 6),
    code(18, "TLS_GD", GENERAL).at(3).thread(&[32]).call(4, 8),
    code(18, "TLS_GD", GENERAL_BY_BASE).at(2).thread(&[32]).call(4, 7),
    code(18, "TLS_GD", GENERAL_BY_GOT).at(2).thread(&[32]).call(43, 8),
    code(19, "TLS_LDM", LOCAL).at(2).thread(&[32]).call(4, 7),
    code(19, "TLS_LDM", LOCAL_BY_GOT).at(2).thread(&[32]).call(43, 8),
];

const LIBRARY_KINDS: &[Kind] = &[
    data(15, "TLS_IE", 4).entry(Value::Slot, &[32]),
    data(16, "TLS_GOTIE", 4).entry(Value::SlotOffset, &[32]),
    data(18, "TLS_GD", 4).entry(Value::SlotOffset, &[32]),
    data(19, "TLS_LDM", 4).entry(Value::SlotOffset, &[32]),
    data(32, "TLS_LDO_32", 4).block(&[32]),
];

const GNU_KINDS: &[Kind] = &[data(38, "SIZE32", 4).of(Value::Size, &[32])];

pub static MACHINE: Machine = Machine {
    name: "i386",
    prefix: "R_386_",
    target: Target { machine: 3, class: 32, big_endian: false, explicit_addends: false, flags: 0 },
    kinds: KINDS,
    library_kinds: LIBRARY_KINDS,
    gnu_kinds: GNU_KINDS,
    gnu_ld: &["i686-linux-gnu-ld"],
    dynamic: Dynamic { module: 35, block_offset: 36, thread_offset: 14, descriptor: 41, jump_slot: 0 },
    thread_block: -0x400,
    bases: &[0x20_0000, 0x5000_0000, 0xff00_0000],
    code_align: 1,
    got: (".got.plt", 0),
    ..Machine::DEFAULT
};

/// As objects of other toolchains have them.
pub static EXPLICIT: Machine = Machine {
    name: "i386-rela",
    target: Target { explicit_addends: true, ..MACHINE.target },
    ..MACHINE
};
