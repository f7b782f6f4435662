//! x86-64: instructions are bytes, so nearly every field may stand anywhere. lld does not know GOTPCREL64 and
//! GOTPLT64, and of APX's only those that are here.

use crate::machine::{Difference, Dynamic, Kind, Known, Machine, Value, Word, byte, byte_with, code, data};
use crate::whole::blank;
use crate::support::elf::Target;

const FIELD: Word = Word { width: 4, bits: 0, random: 0, field: 0xffff_ffff };
/// `call`, `jmp`, `jne`.
const CALL: &[Word] = &[byte(0xe8), FIELD];
const JUMP: &[Word] = &[byte(0xe9), FIELD];
const JUMP_IF: &[Word] = &[byte(0x0f), byte(0x85), FIELD];
/// `call *(%rax)`.
const CALL_DESCRIPTOR: &[Word] = &[byte(0xff), byte(0x10)];
/// `mov slot(%rip), %r16`.
const LOAD_REX2: &[Word] = &[byte(0xd5), byte(0x48), byte(0x8b), byte(0x05), FIELD];
/// `mov slot(%rip), %rax`.
const LOAD: &[Word] = &[byte(0x48), byte(0x8b), byte(0x05), FIELD];

/// REX prefixes of all registers, and their ModRM byte without a base.
const REX: Word = byte_with(0x48, 0x04);
const REGISTER: Word = byte_with(0x05, 0x38);
/// `mov x@gottpoff(%rip), %register`, and `add`; the same with registers from 16 on.
const MOV_OFFSET: &[Word] = &[REX, byte(0x8b), REGISTER, FIELD];
const ADD_OFFSET: &[Word] = &[REX, byte(0x03), REGISTER, FIELD];
const MOV_OFFSET_2: &[Word] = &[byte(0xd5), byte_with(0x08, 0x44), byte(0x8b), REGISTER, FIELD];
const ADD_OFFSET_2: &[Word] = &[byte(0xd5), byte_with(0x08, 0x44), byte(0x03), REGISTER, FIELD];
/// `lea x@tlsdesc(%rip), %register; call *x@tlscall(%rax)`.
const DESCRIPTOR: &[Word] = &[REX, byte(0x8d), REGISTER, FIELD, byte(0xff), byte(0x10)];
const DESCRIPTOR_2: &[Word] =
    &[byte(0xd5), byte_with(0x48, 0x04), byte(0x8d), REGISTER, FIELD, byte(0xff), byte(0x10)];
/// The address of a variable and of the block, directly called and through the GOT.
const GENERAL: &[Word] =
    &[byte(0x66), byte(0x48), byte(0x8d), byte(0x3d), FIELD, byte(0x66), byte(0x66), byte(0x48), byte(0xe8), FIELD];
const GENERAL_BY_GOT: &[Word] =
    &[byte(0x66), byte(0x48), byte(0x8d), byte(0x3d), FIELD, byte(0x66), byte(0x48), byte(0xff), byte(0x15), FIELD];
const LOCAL: &[Word] = &[byte(0x48), byte(0x8d), byte(0x3d), FIELD, byte(0xe8), FIELD];
const LOCAL_BY_GOT: &[Word] = &[byte(0x48), byte(0x8d), byte(0x3d), FIELD, byte(0xff), byte(0x15), FIELD];

const KINDS: &[Kind] = &[
    data(0, "NONE", 4).absolute(&[32]),
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
    code(43, "CODE_4_GOTPCRELX", LOAD_REX2).at(4).of(Value::SlotRelative, &[32]).addend(-4),
    data(18, "TPOFF64", 8).thread(&[64]),
    data(23, "TPOFF32", 4).thread(&[32]),
    data(21, "DTPOFF32", 4).thread(&[32]),
    data(17, "DTPOFF64", 8).thread(&[64]),
    code(22, "GOTTPOFF", MOV_OFFSET).at(3).thread(&[32]).round(4),
    code(22, "GOTTPOFF", ADD_OFFSET).at(3).thread(&[32]).round(4),
    code(44, "CODE_4_GOTTPOFF", MOV_OFFSET_2).at(4).thread(&[32]).round(4),
    code(44, "CODE_4_GOTTPOFF", ADD_OFFSET_2).at(4).thread(&[32]).round(4),
    code(34, "GOTPC32_TLSDESC", DESCRIPTOR).at(3).thread(&[32]).round(4).mark(35, "TLSDESC_CALL", 7),
    code(45, "CODE_4_GOTPC32_TLSDESC", DESCRIPTOR_2).at(4).thread(&[32]).round(4).mark(35, "TLSDESC_CALL", 8),
    code(19, "TLSGD", GENERAL).at(4).thread(&[32]).round(4).call(4, 12),
    code(19, "TLSGD", GENERAL_BY_GOT).at(4).thread(&[32]).round(4).call(41, 12),
    code(20, "TLSLD", LOCAL).at(3).thread(&[32]).call(4, 8),
    code(20, "TLSLD", LOCAL_BY_GOT).at(3).thread(&[32]).call(41, 9),
];

const LIBRARY_KINDS: &[Kind] = &[
    data(17, "DTPOFF64", 8).block(&[64]),
    data(19, "TLSGD", 4).entry(Value::SlotRelative, &[32]).addend(-4),
    data(20, "TLSLD", 4).entry(Value::SlotRelative, &[32]).addend(-4),
    data(21, "DTPOFF32", 4).block(&[32]),
    data(22, "GOTTPOFF", 4).entry(Value::SlotRelative, &[32]).addend(-4),
    data(34, "GOTPC32_TLSDESC", 4).entry(Value::SlotRelative, &[32]).addend(-4),
    code(35, "TLSDESC_CALL", CALL_DESCRIPTOR).thread(&[32]),
    data(44, "CODE_4_GOTTPOFF", 4).entry(Value::SlotRelative, &[32]).addend(-4),
    data(45, "CODE_4_GOTPC32_TLSDESC", 4).entry(Value::SlotRelative, &[32]).addend(-4),
    data(50, "CODE_6_GOTTPOFF", 4).entry(Value::SlotRelative, &[32]).addend(-4),
];

const GNU_KINDS: &[Kind] = &[
    data(28, "GOTPCREL64", 8).of(Value::SlotRelative, &[64]),
    data(30, "GOTPLT64", 8).of(Value::SlotOffset, &[64]),
];

pub static MACHINE: Machine = Machine {
    name: "x86_64",
    prefix: "R_X86_64_",
    target: Target { machine: 62, class: 64, big_endian: false, explicit_addends: true, flags: 0 },
    kinds: KINDS,
    library_kinds: LIBRARY_KINDS,
    gnu_kinds: GNU_KINDS,
    gnu_ld: &["x86_64-linux-gnu-ld"],
    dynamic: Dynamic { module: 16, block_offset: 17, thread_offset: 18, descriptor: 36, jump_slot: 0 },
    thread_block: -0x400,
    relaxes: true,
    relaxed_mask,
    code_align: 1,
    got: (".got.plt", 0),
    known: KNOWN,
    ..Machine::DEFAULT
};

const KNOWN: &[Known] = &[
    Known {
        kinds: &[
            "GOTTPOFF",
            "CODE_4_GOTTPOFF",
            "GOTPC32_TLSDESC",
            "CODE_4_GOTPC32_TLSDESC",
            "TLSGD",
        ],
        what: Difference::OnlyWeRefuse,
        when: |_| true,
        why: "lld cuts off an offset that does not fit in the instruction that it writes",
    },
];

/// Neither linker relaxes GOTPCREL, nor anything against symbols from outside. But lld has no GOT entries for what it
/// relaxes, so that these have others.
fn relaxed_mask(object: &[u8], name: &str, [theirs, ours]: [&mut Vec<u8>; 2]) {
    blank(object, name, [theirs, ours], &[9], false);
    blank(object, name, [theirs, ours], &[41, 42], true);
}
