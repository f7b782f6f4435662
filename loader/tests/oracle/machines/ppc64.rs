//! 64-bit PowerPC, little-endian, ELF V2. A field of half a word is the first half of its instruction.
//!
//! lld links a program: what a script gives an address is a part of it, with the same TOC. For us it is not, so that
//! calls go through a stub that saves r2, and the `nop` after them becomes the load that brings it back.

use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags, RelocationTarget};

use crate::case::{Case, sign_extend};
use crate::machine::{Difference, Dynamic, Form, Kind, Known, Machine, Value, Word, code, data, word};
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
const BRANCH_TO: &[Word] = &[word(0x4800_0002, 1, 0x3ff_fffc)];
const BRANCH_IF: &[Word] = &[word(0x4082_0002, 0x1f_0001, 0xfffc)];
const BCTRL: Word = word(0x4e80_0421, 0, 0);
/// `add` of the thread pointer.
const ADD_R13: &[Word] = &[word(0x7c00_6a14, REGISTERS, 0)];
/// `pla`, `pld`.
const PLA: &[Word] = &[word(0x0610_0000, 0, 0x3_ffff), word(0x3800_0000, 0x3e0_0000, HALF)];
const PLI: &[Word] = &[word(0x0600_0000, 0, 0x3_ffff), word(0x3800_0000, 0x3ff_0000, HALF)];
const PLD: &[Word] = &[word(0x0410_0000, 0, 0x3_ffff), word(0xe400_0000, 0x3e0_0000, HALF)];

/// An instruction of that extended opcode whose second operand is the thread pointer, r13.
const fn by_pointer(opcode: u64) -> [Word; 1] {
    [word(0x7c00_0000 | 13 << 11 | opcode << 1, REGISTERS, 0)]
}
/// `addis x,2,0`.
const ADDIS_TOC: &[Word] = &[word(0x3c02_0000, 0x3e0_0000, HALF)];
const LD_ONLY: &[Word] = &[word(0xe800_0000, REGISTERS, HALF & !3)];

/// Functions by what `st_other` says of their entries: distances of 0, 4 and 32 bytes, and one that does not keep r2.
const ENTRIES: &[u8] = &[0, 0, 2 << 5, 5 << 5, 1 << 5];

const KINDS: &[Kind] = &[
    data(0, "NONE", 4).absolute(&[32]),
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
    code(90, "GOT_TPREL16_HA", ADDIS_TOC).thread(&[16, 32]).round(0x8000),
    code(88, "GOT_TPREL16_LO_DS", LD_ONLY).thread(&[16, 32]).round(0x8000),
    code(87, "GOT_TPREL16_DS", LD_ONLY).thread(&[16, 32]).round(0x8000),
    code(150, "GOT_TPREL_PCREL34", PLD).thread(&[34]),
    code(67, "TLS", &by_pointer(87)).thread(&[16, 32]), // lbzx
    code(67, "TLS", &by_pointer(279)).thread(&[16, 32]), // lhzx
    code(67, "TLS", &by_pointer(23)).thread(&[16, 32]), // lwzx
    code(67, "TLS", &by_pointer(215)).thread(&[16, 32]), // stbx
    code(67, "TLS", &by_pointer(407)).thread(&[16, 32]), // sthx
    code(67, "TLS", &by_pointer(151)).thread(&[16, 32]), // stwx
    code(67, "TLS", &by_pointer(343)).thread(&[16, 32]), // lhax
    code(67, "TLS", &by_pointer(535)).thread(&[16, 32]), // lfsx
    code(67, "TLS", &by_pointer(599)).thread(&[16, 32]), // lfdx
    code(67, "TLS", &by_pointer(663)).thread(&[16, 32]), // stfsx
    code(67, "TLS", &by_pointer(727)).thread(&[16, 32]), // stfdx
    code(67, "TLS", &by_pointer(266)).thread(&[16, 32]), // add
    code(67, "TLS", &by_pointer(341)).thread(&[16, 32]).step(4), // lwax
    code(67, "TLS", &by_pointer(21)).thread(&[16, 32]).step(4), // ldx
    code(67, "TLS", &by_pointer(149)).thread(&[16, 32]).step(4), // stdx
];

const LIBRARY_KINDS: &[Kind] = &[
    code(67, "TLS", ADD_R13).thread(&[32]),
    code(74, "DTPREL16", ADDI).block(&[16]),
    code(75, "DTPREL16_LO", ADDI).block(&[16, 32]),
    code(76, "DTPREL16_HI", ADDIS).block(&[32]),
    code(77, "DTPREL16_HA", ADDIS).block(&[32]).round(0x8000),
    data(78, "DTPREL64", 8).block(&[64]),
    code(79, "GOT_TLSGD16", ADDI).entry(Value::SlotOffset, &[16]),
    code(80, "GOT_TLSGD16_LO", ADDI).entry(Value::SlotOffset, &[16, 32]),
    code(81, "GOT_TLSGD16_HI", ADDIS).entry(Value::SlotOffset, &[32]),
    code(82, "GOT_TLSGD16_HA", ADDIS).entry(Value::SlotOffset, &[32]).round(0x8000),
    code(83, "GOT_TLSLD16", ADDI).entry(Value::SlotOffset, &[16]),
    code(84, "GOT_TLSLD16_LO", ADDI).entry(Value::SlotOffset, &[16, 32]),
    code(85, "GOT_TLSLD16_HI", ADDIS).entry(Value::SlotOffset, &[32]),
    code(86, "GOT_TLSLD16_HA", ADDIS).entry(Value::SlotOffset, &[32]).round(0x8000),
    code(87, "GOT_TPREL16_DS", LD).entry(Value::SlotOffset, &[16]).step(4),
    code(88, "GOT_TPREL16_LO_DS", LD).entry(Value::SlotOffset, &[16, 32]).step(4),
    code(89, "GOT_TPREL16_HI", ADDIS).entry(Value::SlotOffset, &[32]),
    code(90, "GOT_TPREL16_HA", ADDIS).entry(Value::SlotOffset, &[32]).round(0x8000),
    code(91, "GOT_DTPREL16_DS", LD).entry(Value::SlotOffset, &[16]).step(4),
    code(92, "GOT_DTPREL16_LO_DS", LD).entry(Value::SlotOffset, &[16, 32]).step(4),
    code(93, "GOT_DTPREL16_HI", ADDIS).entry(Value::SlotOffset, &[32]),
    code(94, "GOT_DTPREL16_HA", ADDIS).entry(Value::SlotOffset, &[32]).round(0x8000),
    code(101, "DTPREL16_DS", LD).block(&[16]).step(4),
    code(102, "DTPREL16_LO_DS", STD).block(&[16, 32]).step(4),
    code(103, "DTPREL16_HIGHER", ADDI).block(&[48, 64]),
    code(104, "DTPREL16_HIGHERA", ADDI).block(&[48, 64]).round(0x8000),
    code(105, "DTPREL16_HIGHEST", ADDI).block(&[64]),
    code(106, "DTPREL16_HIGHESTA", ADDI).block(&[64]).round(0x8000),
    code(147, "DTPREL34", PLI).block(&[34]),
    code(148, "GOT_TLSGD_PCREL34", PLA).entry(Value::SlotRelative, &[34]),
    code(149, "GOT_TLSLD_PCREL34", PLA).entry(Value::SlotRelative, &[34]),
    code(150, "GOT_TPREL_PCREL34", PLD).entry(Value::SlotRelative, &[34]),
];

const GNU_KINDS: &[Kind] = &[
    code(2, "ADDR24", BRANCH_TO).absolute(&[26]).step(4).defined(),
    code(7, "ADDR14", BRANCH_IF).absolute(&[16]).step(4).defined(),
    data(24, "UADDR32", 4).absolute(&[32]),
    data(25, "UADDR16", 2).absolute(&[16]),
    data(43, "UADDR64", 8),
    code(109, "TOCSAVE", ADDI).absolute(&[32]),
    code(111, "ADDR16_HIGHA", ADDIS).absolute(&[32, 48]).round(0x8000).defined(),
    code(112, "TPREL16_HIGH", ADDIS).thread(&[32, 48]),
    code(113, "TPREL16_HIGHA", ADDIS).thread(&[32, 48]).round(0x8000),
    data(117, "ADDR64_LOCAL", 8).others(ENTRIES),
    code(128, "D34", PLI).absolute(&[34]),
    code(240, "REL16_HIGH", ADDIS).relative(&[32, 48]),
    code(241, "REL16_HIGHA", ADDIS).relative(&[32, 48]).round(0x8000).defined(),
    code(242, "REL16_HIGHER", ADDI).relative(&[48, 64]),
    code(243, "REL16_HIGHERA", ADDI).relative(&[48, 64]).round(0x8000).defined(),
    code(244, "REL16_HIGHEST", ADDI).relative(&[64]),
    code(245, "REL16_HIGHESTA", ADDI).relative(&[64]).round(0x8000).defined(),
    code(249, "REL16", ADDI).relative(&[16]),
    code(253, "GNU_VTINHERIT", ADDI).absolute(&[32]),
    code(254, "GNU_VTENTRY", ADDI).absolute(&[32]),
];

/// GNU ld forgets addends of GOT entries.
const GNU_LIBRARY_KINDS: &[Kind] = &[
    code(107, "TLSGD", CALL).thread(&[32]),
    code(108, "TLSLD", CALL).thread(&[32]),
    code(114, "DTPREL16_HIGH", ADDIS).block(&[32, 48]),
    code(115, "DTPREL16_HIGHA", ADDIS).block(&[32, 48]).round(0x8000),
    code(151, "GOT_DTPREL_PCREL34", PLD).entry(Value::SlotRelative, &[34]).plain(),
    code(29, "PLT16_LO", ADDI).imported(Value::SlotOffset, &[16, 32]).plain(),
    code(30, "PLT16_HI", ADDIS).imported(Value::SlotOffset, &[32]).plain(),
    code(31, "PLT16_HA", ADDIS).imported(Value::SlotOffset, &[32]).round(0x8000).plain(),
    code(60, "PLT16_LO_DS", LD).imported(Value::SlotOffset, &[16, 32]).plain().next(119, "PLTSEQ", STD[0]),
    code(60, "PLT16_LO_DS", LD).imported(Value::SlotOffset, &[16, 32]).plain().next(120, "PLTCALL", BCTRL),
    code(134, "PLT_PCREL34", PLD).imported(Value::SlotRelative, &[34]).plain().next(121, "PLTSEQ_NOTOC", STD[0]),
    code(135, "PLT_PCREL34_NOTOC", PLD)
        .imported(Value::SlotRelative, &[34])
        .plain()
        .next(122, "PLTCALL_NOTOC", BCTRL),
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
    library_kinds: LIBRARY_KINDS,
    gnu_kinds: GNU_KINDS,
    gnu_library_kinds: GNU_LIBRARY_KINDS,
    gnu_ld: &["powerpc64le-linux-gnu-ld", "--no-toc-optimize", "--no-tls-optimize", "--no-pcrel-optimize", "--no-inline-optimize"],
    dynamic: Dynamic { module: 68, block_offset: 78, thread_offset: 73, descriptor: 0, jump_slot: 21 },
    block_bias: 0x8000,
    thread_block: -0x7000,
    got: (".got", 0x8000),
    got_header: 1,
    // The second is R_PPC64_ENTRY, of the large code model: a hint of where a function's instructions may be made fewer.
    harmless: &["R12 setup stub offset is out of range", "unknown relocation (118)", "disable TLS relaxation"],
    whole_only: &[(118, "ENTRY"), (123, "PCREL_OPT")],
    through_stub,
    always_stub: changes_toc_or_needs_r12,
    known: KNOWN,
    mask,
    ..Machine::DEFAULT
};

const KNOWN: &[Known] = &[
    Known {
        kinds: &["ADDR14", "ADDR24"],
        what: Difference::OnlyWeRefuse,
        when: |case| is_within(case, case.kind.bits[0] + 1) && (!is_within(case, case.kind.bits[0]) || case.sum() % 4 != 0),
        why: "absolute branches have signed fields, and go to instructions (Power ISA, 2.4); GNU ld takes any number of one bit more",
    },
    Known {
        kinds: &["UADDR16", "UADDR32"],
        what: Difference::OnlyWeRefuse,
        when: |case| !is_within(case, case.kind.bits[0]) && case.sum() >> case.kind.bits[0] != 0,
        why: "the ABI has the same checked fields for UADDR16 and UADDR32 as for ADDR16 and ADDR32; GNU ld cuts off",
    },
];

/// `S + A` is a signed number of so many bits.
fn is_within(case: &Case, bits: u32) -> bool {
    sign_extend(case.sum(), bits) as u64 == case.sum()
}

fn changes_toc_or_needs_r12(case: &Case) -> bool {
    changes_toc(case) || case.kind.name == "REL24_NOTOC"
}
