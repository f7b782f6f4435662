//! 64-bit PowerPC, little-endian, ELF V2. A field of half a word is the first half of its instruction.
//!
//! lld links a program: what a script gives an address is a part of it, with the same TOC. For us it is not, so that
//! calls go through a stub that saves r2, and the `nop` after them becomes the load that brings it back.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags, RelocationTarget};

use crate::case::Case;
use crate::machine::{Form, Kind, Machine, Value, Word, code, data, word};
use crate::support::elf::Target;

const REGISTERS: u64 = 0x3ff_0000;
const HALF: u64 = 0xffff;

const ADDIS: &[Word] = &[word(0x3c00_0000, REGISTERS, HALF)];
const ADDI: &[Word] = &[word(0x3800_0000, REGISTERS, HALF)];
/// `ld`, `ldu`, `lwa`: the lowest bits tell.
const LD: &[Word] = &[word(0xe800_0000, REGISTERS | 3, HALF & !3)];
const STD: &[Word] = &[word(0xf800_0000, REGISTERS | 3, HALF & !3)];
/// `lxv`, `lxvp`, `lq`: fields without their lowest four bits.
const LXV: &[Word] = &[word(0xf400_0001, REGISTERS | 0xc, HALF & !0xf)];
const LXVP: &[Word] = &[word(0x1800_0000, REGISTERS | 0xf, HALF & !0xf)];
const LQ: &[Word] = &[word(0xe000_0000, REGISTERS | 0xf, HALF & !0xf)];
const NOP: u32 = 0x6000_0000;
const LOAD_TOC: u32 = 0xe841_0018; // ld 2,24(1)
const CALL: &[Word] = &[word(0x4800_0000, 3, 0x3ff_fffc), word(NOP as u64, 0, 0)];
const BRANCH: &[Word] = &[word(0x4082_0000, 0x1f_0003, 0xfffc), word(NOP as u64, 0, 0)];
/// `pla`, `pld`.
const PLA: &[Word] = &[word(0x0610_0000, 0, 0x3_ffff), word(0x3800_0000, 0x3e0_0000, HALF)];
const PLI: &[Word] = &[word(0x0600_0000, 0, 0x3_ffff), word(0x3800_0000, 0x3ff_0000, HALF)];
const PLD: &[Word] = &[word(0x0410_0000, 0, 0x3_ffff), word(0xe400_0000, 0x3e0_0000, HALF)];

/// Functions by what `st_other` says of their entries: distances of 0, 4 and 32 bytes, and one that does not keep r2.
const ENTRIES: &[u8] = &[0, 0, 2 << 5, 5 << 5, 1 << 5];

const KINDS: &[Kind] = &[
    data(1, "ADDR32", 4).absolute(&[32]),
    code(3, "ADDR16", ADDI).absolute(&[16]),
    code(4, "ADDR16_LO", ADDI).absolute(&[16, 32]),
    code(5, "ADDR16_HI", ADDIS).absolute(&[32]),
    code(6, "ADDR16_HA", ADDIS).absolute(&[32]).round(0x8000),
    code(10, "REL24", CALL).relative(&[26]).step(4).stub().plain().others(ENTRIES),
    code(11, "REL14", BRANCH).relative(&[16]).step(4).stub().plain().others(ENTRIES),
    code(14, "GOT16", ADDI).of(Value::SlotOffset, &[16]),
    code(15, "GOT16_LO", ADDI).of(Value::SlotOffset, &[16, 32]),
    code(16, "GOT16_HI", ADDIS).of(Value::SlotOffset, &[32]),
    code(17, "GOT16_HA", ADDIS).of(Value::SlotOffset, &[32]).round(0x8000),
    data(26, "REL32", 4).relative(&[32]),
    data(38, "ADDR64", 8),
    code(39, "ADDR16_HIGHER", ADDI).absolute(&[48, 64]),
    code(40, "ADDR16_HIGHERA", ADDI).absolute(&[48, 64]).round(0x8000),
    code(41, "ADDR16_HIGHEST", ADDIS).absolute(&[64]),
    code(42, "ADDR16_HIGHESTA", ADDIS).absolute(&[64]).round(0x8000),
    data(44, "REL64", 8).relative(&[64]),
    code(47, "TOC16", ADDI).of(Value::GotOffset, &[16]),
    code(48, "TOC16_LO", ADDI).of(Value::GotOffset, &[16, 32]),
    code(49, "TOC16_HI", ADDIS).of(Value::GotOffset, &[32]),
    code(50, "TOC16_HA", ADDIS).of(Value::GotOffset, &[32]).round(0x8000),
    data(51, "TOC", 8).of(Value::Got, &[64]),
    code(56, "ADDR16_DS", LD).absolute(&[16]).step(4),
    code(56, "ADDR16_DS", LXV).absolute(&[16]).step(16),
    code(57, "ADDR16_LO_DS", STD).absolute(&[16, 32]).step(4),
    code(57, "ADDR16_LO_DS", LXV).absolute(&[16, 32]).step(16),
    code(57, "ADDR16_LO_DS", LXVP).absolute(&[16, 32]).step(16),
    code(57, "ADDR16_LO_DS", LQ).absolute(&[16, 32]).step(16),
    code(58, "GOT16_DS", LD).of(Value::SlotOffset, &[16]).step(4),
    code(59, "GOT16_LO_DS", LD).of(Value::SlotOffset, &[16, 32]).step(4),
    code(63, "TOC16_DS", LD).of(Value::GotOffset, &[16]).step(4),
    code(63, "TOC16_DS", LXVP).of(Value::GotOffset, &[16]).step(16),
    code(64, "TOC16_LO_DS", STD).of(Value::GotOffset, &[16, 32]).step(4),
    code(64, "TOC16_LO_DS", LXV).of(Value::GotOffset, &[16, 32]).step(16),
    code(110, "ADDR16_HIGH", ADDIS).absolute(&[32, 48]),
    code(116, "REL24_NOTOC", CALL).relative(&[26]).step(4).stub().plain().others(ENTRIES),
    code(132, "PCREL34", PLA).relative(&[34]),
    code(133, "GOT_PCREL34", PLD).of(Value::SlotRelative, &[34]),
    code(250, "REL16_LO", ADDI).relative(&[16, 32]),
    code(251, "REL16_HI", ADDIS).relative(&[32]),
    code(252, "REL16_HA", ADDIS).relative(&[32]).round(0x8000),
    code(69, "TPREL16", ADDI).thread(&[16]),
    code(70, "TPREL16_LO", ADDI).thread(&[16, 32]),
    code(71, "TPREL16_HI", ADDIS).thread(&[32]),
    code(72, "TPREL16_HA", ADDIS).thread(&[32]).round(0x8000),
    code(95, "TPREL16_DS", LD).thread(&[16]).step(4),
    code(96, "TPREL16_LO_DS", STD).thread(&[16, 32]).step(4),
    code(97, "TPREL16_HIGHER", ADDI).thread(&[48, 64]),
    code(98, "TPREL16_HIGHERA", ADDI).thread(&[48, 64]).round(0x8000),
    code(99, "TPREL16_HIGHEST", ADDI).thread(&[64]),
    code(100, "TPREL16_HIGHESTA", ADDI).thread(&[64]).round(0x8000),
    code(146, "TPREL34", PLI).thread(&[34]),
];

/// The callee's TOC is another.
fn changes_toc(case: &Case) -> bool {
    case.symbol.form == Form::External || case.symbol.other >> 5 == 1
}

fn through_stub(case: &Case, bytes: &mut [u8]) {
    if case.kind.name != "REL24_NOTOC" && changes_toc(case) {
        bytes[case.offset + 4..][..4].copy_from_slice(&LOAD_TOC.to_le_bytes());
    }
}

/// Calls of what is not in the object, of which ours go through a stub: their distance, and the instruction that follows
/// one that keeps r2.
fn mask(object: &[u8], name: &str, sides: [&mut Vec<u8>; 2]) {
    const REL24: u32 = 10;
    const REL24_NOTOC: u32 = 116;
    let file = object::File::parse(object).unwrap();
    let section = file.section_by_name(name).unwrap();
    let [theirs, ours] = sides;
    for (offset, relocation) in section.relocations() {
        let (RelocationFlags::Elf { r_type }, RelocationTarget::Symbol(symbol)) =
            (relocation.flags(), relocation.target())
        else {
            continue;
        };
        let is_external = file.symbol_by_index(symbol).unwrap().is_undefined();
        if !matches!(r_type.0, REL24 | REL24_NOTOC) || !is_external {
            continue;
        }
        let place = offset as usize;
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..][..4].try_into().unwrap());
        for side in [&mut *theirs, &mut *ours] {
            let branch = word(side, place) & 0xfc00_0003;
            side[place..][..4].copy_from_slice(&branch.to_le_bytes());
        }
        if r_type.0 == REL24 && word(theirs, place + 4) == NOP && word(ours, place + 4) == LOAD_TOC {
            ours[place + 4..][..4].copy_from_slice(&NOP.to_le_bytes());
        }
    }
}

pub static MACHINE: Machine = Machine {
    name: "powerpc64le",
    prefix: "R_PPC64_",
    target: Target { machine: 21, class: 64, big_endian: false, explicit_addends: true, flags: 2 },
    kinds: KINDS,
    thread_block: -0x7000,
    got: (".got", 0x8000),
    got_header: 1,
    // The second is R_PPC64_ENTRY, of the large code model: a hint of where a function's instructions may be made fewer.
    harmless: &["R12 setup stub offset is out of range", "unknown relocation (118)"],
    whole_only: &[(118, "ENTRY"), (123, "PCREL_OPT")],
    through_stub,
    always_stub: changes_toc_or_needs_r12,
    mask,
    ..Machine::DEFAULT
};

fn changes_toc_or_needs_r12(case: &Case) -> bool {
    changes_toc(case) || case.kind.name == "REL24_NOTOC"
}
