//! x86-64: instructions are bytes, so nearly every field may stand anywhere. lld does not know GOTPCREL64.

use crate::machine::{Machine, Kind, Value, Word, byte, code, data};
use crate::whole::blank;
use crate::support::elf::Target;

const FIELD: Word = Word { width: 4, bits: 0, random: 0, field: 0xffff_ffff };
/// `call`, `jmp`, `jne`.
const CALL: &[Word] = &[byte(0xe8), FIELD];
const JUMP: &[Word] = &[byte(0xe9), FIELD];
const JUMP_IF: &[Word] = &[byte(0x0f), byte(0x85), FIELD];
/// `mov slot(%rip), %rax`.
const LOAD: &[Word] = &[byte(0x48), byte(0x8b), byte(0x05), FIELD];

const KINDS: &[Kind] = &[
    data(1, "64", 8),
    data(2, "PC32", 4).relative(&[32]),
    code(2, "PC32", CALL).at(1).relative(&[32]).addend(-4).plain().stub(),
    code(2, "PC32", JUMP_IF).at(2).relative(&[32]).addend(-4).plain().stub(),
    data(3, "GOT32", 4).of(Value::SlotOffset, &[32]),
    data(4, "PLT32", 4).relative(&[32]).addend(-4).stub(),
    code(4, "PLT32", JUMP).at(1).relative(&[32]).addend(-4).plain().stub(),
    data(9, "GOTPCREL", 4).of(Value::SlotRelative, &[32]).addend(-4),
    data(10, "32", 4).absolute(&[32]),
    data(11, "32S", 4).absolute(&[32]),
    data(12, "16", 2).absolute(&[16]),
    data(13, "PC16", 2).relative(&[16]),
    data(14, "8", 1).absolute(&[8]),
    data(15, "PC8", 1).relative(&[8]),
    data(24, "PC64", 8).relative(&[64]),
    data(25, "GOTOFF64", 8).of(Value::GotOffset, &[64]),
    data(26, "GOTPC32", 4).of(Value::Got, &[32]),
    data(27, "GOT64", 8).of(Value::SlotOffset, &[64]),
    data(29, "GOTPC64", 8).of(Value::Got, &[64]),
    data(31, "PLTOFF64", 8).of(Value::GotOffset, &[64]),
    data(32, "SIZE32", 4).of(Value::Size, &[32]),
    data(33, "SIZE64", 8).of(Value::Size, &[64]),
    code(41, "GOTPCRELX", LOAD).at(3).of(Value::SlotRelative, &[32]).addend(-4),
    code(42, "REX_GOTPCRELX", LOAD).at(3).of(Value::SlotRelative, &[32]).addend(-4),
    data(18, "TPOFF64", 8).thread(&[64]),
    data(23, "TPOFF32", 4).thread(&[32]),
];

pub static MACHINE: Machine = Machine {
    name: "x86_64",
    prefix: "R_X86_64_",
    target: Target { machine: 62, class: 64, big_endian: false, explicit_addends: true, flags: 0 },
    kinds: KINDS,
    thread_block: -0x400,
    relaxes: true,
    relaxed_mask,
    code_align: 1,
    got: (".got.plt", 0),
    ..Machine::DEFAULT
};

/// Neither linker relaxes GOTPCREL, nor anything against symbols from outside. But lld has no GOT entries for what it
/// relaxes, so that these have others.
fn relaxed_mask(object: &[u8], name: &str, [theirs, ours]: [&mut Vec<u8>; 2]) {
    blank(object, name, [theirs, ours], &[9], false);
    blank(object, name, [theirs, ours], &[41, 42], true);
}
