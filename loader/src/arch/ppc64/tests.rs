//! Facts about single fix-ups: the value, both sides of each edge, and the bits around the field.

use super::*;
use crate::graph::Format::Elf;
use FixupProblem::{Misaligned, OutOfRange, OutsideSection};

/// Place 0x1000, `.TOC.` 0x1_0000, addend 0.
fn to(target: u64) -> Fixup {
    Fixup { place: 0x1000, target, got: 0x1_0000, ..Fixup::default() }
}

fn plus(target: u64, addend: i64) -> Fixup {
    Fixup { addend, ..to(target) }
}

fn flags(symbol_flags: u8, fixup: Fixup) -> Fixup {
    Fixup { symbol_flags, ..fixup }
}

fn stub(symbol_flags: u8, target: u64) -> Fixup {
    Fixup { through_stub: true, ..flags(symbol_flags, to(target)) }
}

const fn out_of(bits: u32, value: i64) -> FixupProblem {
    OutOfRange { value, bits }
}

/// The number behind a name.
#[track_caller]
fn number(name: &str) -> u32 {
    let row = ELF.iter().find(|(_, known, _)| *known == name);
    row.unwrap_or_else(|| panic!("no relocation R_PPC64_{name}")).0
}

#[track_caller]
fn kind(name: &str) -> Kind {
    Ppc64::kind(Elf, number(name)).unwrap()
}

/// Applies to words in the middle of others, and compares them.
#[track_caller]
fn check<const N: usize>(name: &str, before: [u32; N], fixup: Fixup, after: Result<[u32; N], FixupProblem>) {
    let mut section: Vec<u8> = [[0xa5a5_a5a5].as_slice(), &before, &[0xa5a5_a5a5]]
        .concat()
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let result = Ppc64::apply(kind(name), &mut section, 4, fixup);
    let words: Vec<u32> =
        section.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    assert_eq!((words[0], words[N + 1]), (0xa5a5_a5a5, 0xa5a5_a5a5), "wrote beside the field");
    assert_eq!(result.map(|()| words[1..=N].try_into().unwrap()), after);
}

/// The same for kinds that fill the low half of a word, here of `addi 3,4,-1`.
#[track_caller]
fn half(name: &str, fixup: Fixup, expected: Result<u16, FixupProblem>) {
    check(name, [0x3864_ffff], fixup, expected.map(|low| [0x3864_0000 | u32::from(low)]));
}

#[test]
fn every_number_has_one_name() {
    for (first, second) in ELF.iter().zip(&ELF[1..]) {
        assert!(first.0 < second.0, "{}", second.1);
    }
    assert_eq!(Ppc64::name(Elf, 10), "R_PPC64_REL24");
    assert_eq!(Ppc64::name(Elf, 252), "R_PPC64_REL16_HA");
    assert_eq!(Ppc64::name(Elf, 18), "relocation type 18");
    assert_eq!(Ppc64::kind(Elf, 18), Err("this kind of relocation"));
    assert_eq!(Ppc64::kind(Elf, u32::MAX), Err("this kind of relocation"));
    assert!(Ppc64::kind(Format::Coff, 1).is_err());
    assert_eq!(Ppc64::kind(Elf, 22), Err("a relocation of the dynamic linker in an object file"));
}

#[test]
fn halves_of_an_address() {
    const S: u64 = 0x1234_5678_9abc_def0;
    half("ADDR16_LO", to(S), Ok(0xdef0));
    half("ADDR16_HIGH", to(S), Ok(0x9abc));
    half("ADDR16_HIGHA", to(S), Ok(0x9abd));
    half("ADDR16_HIGHER", to(S), Ok(0x5678));
    half("ADDR16_HIGHERA", to(0x1234_5678_ffff_8000), Ok(0x5679));
    half("ADDR16_HIGHERA", to(0x1234_5678_ffff_7fff), Ok(0x5678));
    half("ADDR16_HIGHEST", to(S), Ok(0x1234));
    half("ADDR16_HIGHESTA", to(0x1234_ffff_ffff_8000), Ok(0x1235));
    half("ADDR16_HIGHESTA", to(0x1234_ffff_ffff_7fff), Ok(0x1234));
}

#[test]
fn the_high_half_of_an_address_of_31_bits() {
    half("ADDR16_HI", to(0x7fff_ffff), Ok(0x7fff));
    half("ADDR16_HI", to(0x8000_0000), Err(out_of(32, 0x8000_0000)));
    half("ADDR16_HI", plus(0, -0x8000_0000), Ok(0x8000));
    half("ADDR16_HI", plus(0, -0x8000_0001), Err(out_of(32, -0x8000_0001)));
    half("ADDR16_HA", to(0x7fff_7fff), Ok(0x7fff));
    half("ADDR16_HA", to(0x7fff_8000), Err(out_of(32, 0x8000_0000)));
    half("ADDR16_HA", plus(0, -0x8000_8000), Ok(0x8000));
    half("ADDR16_HA", plus(0, -0x8000_8001), Err(out_of(32, -0x8000_0001)));
    half("ADDR16_HA", to(0x1_8000), Ok(2));
}

#[test]
fn sixteen_bits_in_either_reading_or_signed() {
    half("ADDR16", to(0xffff), Ok(0xffff));
    half("ADDR16", to(0x1_0000), Err(out_of(16, 0x1_0000)));
    half("ADDR16", plus(0, -0x8000), Ok(0x8000));
    half("ADDR16", plus(0, -0x8001), Err(out_of(16, -0x8001)));
    half("TPREL16", to(0x7fff), Ok(0x7fff));
    half("TPREL16", to(0x8000), Err(out_of(16, 0x8000)));
    half("REL16", to(0x8fff), Ok(0x7fff));
    half("REL16", to(0x9000), Err(out_of(16, 0x8000)));
}

#[test]
fn a_ds_field_leaves_the_bits_of_the_opcode() {
    check("ADDR16_DS", [0xe864_ffff], to(0x7ffc), Ok([0xe864_7fff])); // ldu's bits
    check("ADDR16_DS", [0xe864_0000], to(0x8000), Err(out_of(16, 0x8000)));
    check("ADDR16_DS", [0xe864_0000], plus(0, -0x8000), Ok([0xe864_8000]));
    check("ADDR16_DS", [0xe864_0000], to(2), Err(Misaligned { value: 2, align: 4 }));
    check("ADDR16_LO_DS", [0xe864_0002], to(0x1_2344), Ok([0xe864_2346])); // lwa
    check("ADDR16_LO_DS", [0xe864_0000], to(0x1_2342), Err(Misaligned { value: 0x2342, align: 4 }));
    for dq in [0xf464_0001, 0x1864_0001, 0xe064_0000] {
        check("ADDR16_LO_DS", [dq], to(0x1_2340), Ok([dq | 0x2340])); // lxv, stxvp, lq
        check("ADDR16_LO_DS", [dq], to(0x1_2344), Err(Misaligned { value: 0x2344, align: 16 }));
    }
    check("ADDR16_LO_DS", [0xf464_0002], to(0x1_2344), Ok([0xf464_2346])); // stxsd is DS
}

#[test]
fn a_half_may_end_its_section() {
    for name in ["ADDR16_LO", "ADDR16_LO_DS"] {
        let mut section = [0, 0, 3, 0];
        assert_eq!(Ppc64::apply(kind(name), &mut section, 2, to(0x1_2344)), Ok(()));
        assert_eq!(section[2..], if name == "ADDR16_LO" { [0x44, 0x23] } else { [0x47, 0x23] });
    }
}

#[test]
fn words() {
    check("ADDR32", [0], to(0xffff_ffff), Ok([0xffff_ffff]));
    check("ADDR32", [0], to(0x1_0000_0000), Err(out_of(32, 0x1_0000_0000)));
    check("ADDR32", [0], plus(0, -0x8000_0000), Ok([0x8000_0000]));
    check("ADDR32", [0], plus(0, -0x8000_0001), Err(out_of(32, -0x8000_0001)));
    check("REL32", [0], to(0x8000_0fff), Ok([0x7fff_ffff]));
    check("REL32", [0], to(0x8000_1000), Err(out_of(32, 0x8000_0000)));
    check("REL32", [0], plus(0, -0x7fff_f001), Err(out_of(32, -0x8000_0001)));
    check("ADDR64", [0, 0], plus(0x1234_5678_9abc_def0, 1), Ok([0x9abc_def1, 0x1234_5678]));
    check("REL64", [0, 0], to(0), Ok([0xffff_f000, 0xffff_ffff]));
    check("ADDR64_LOCAL", [0, 0], flags(3, to(0x10)), Ok([0x18, 0]));
}

#[test]
fn relative_halves() {
    half("REL16_LO", to(0x1_2345_6789), Ok(0x5789));
    half("REL16_HI", to(0x1234_6789), Ok(0x1234));
    half("REL16_HA", to(0x1234_9000), Ok(0x1235));
    half("REL16_HA", to(0x1234_8fff), Ok(0x1234));
    half("REL16_HA", to(0x7fff_9000), Err(out_of(32, 0x8000_0000)));
    half("REL16_HIGHERA", to(0x1_ffff_9000), Ok(2));
}

#[test]
fn relative_to_the_toc() {
    for name in ["TOC16", "GOT16", "GOT_TLSGD16", "GOT_TLSLD16"] {
        half(name, to(0x8000), Ok(0x8000));
        half(name, plus(0x1_0000, -0x8001), Err(out_of(16, -0x8001)));
    }
    for name in ["TOC16_DS", "GOT16_DS", "GOT_TPREL16_DS"] {
        check(name, [0xe862_0000], to(0x8000), Ok([0xe862_8000]));
        check(name, [0xe862_0000], to(0x1_8000), Err(out_of(16, 0x8000)));
    }
    half("TOC16_HA", to(0x3_8000), Ok(3));
    half("TOC16_LO", to(0x3_8000), Ok(0x8000));
    check("TOC16_LO_DS", [0xe863_0000], to(0x3_8004), Ok([0xe863_8004]));
    check("TOC", [0, 0], plus(0x1_0000, 8), Ok([0x1_0008, 0]));
}

#[test]
fn offsets_of_thread_local_variables() {
    half("DTPREL16", to(0x7fff), Ok(0x7fff));
    half("DTPREL16_LO", plus(0, -0x8000), Ok(0x8000));
    half("DTPREL16_HA", to(0x1_8004), Ok(2));
    check("DTPREL64", [0, 0], plus(0, -0x8000), Ok([0xffff_8000, 0xffff_ffff]));
    check("DTPREL34", [0x0600_0000, 0x3863_0000], to(4), Ok([0x0600_0000, 0x3863_0004]));
    half("TPREL16_HA", to(0x1_8004), Ok(2));
}

#[test]
fn prefixed_instructions() {
    let pla = [0x0610_0000, 0x3860_0000]; // paddi 3,0,0,1
    check("PCREL34", pla, to(0x1_2345_6789 + 0x1000), Ok([0x0611_2345, 0x3860_6789]));
    check("PCREL34", [0x0613_ffff, 0x3860_ffff], to(0x1000), Ok(pla));
    check("PCREL34", pla, plus(0x1000, 0x1_ffff_ffff), Ok([0x0611_ffff, 0x3860_ffff]));
    check("PCREL34", pla, plus(0x1000, 0x2_0000_0000), Err(out_of(34, 0x2_0000_0000)));
    check("PCREL34", pla, plus(0x1000, -0x2_0000_0000), Ok([0x0612_0000, 0x3860_0000]));
    check("PCREL34", pla, plus(0x1000, -0x2_0000_0001), Err(out_of(34, -0x2_0000_0001)));
    check("GOT_PCREL34", [0x0410_0000, 0xe460_0000], to(0x1008), Ok([0x0410_0000, 0xe460_0008]));
    check("TPREL34", [0x0600_0000, 0x386d_0000], plus(0, -0x7000), Ok([0x0603_ffff, 0x386d_9000]));
}

#[test]
fn branches_keep_their_flags() {
    check("REL24", [0x4800_0001], to(0x200_0ffc), Ok([0x49ff_fffd]));
    check("REL24", [0x4bff_fffd], to(0x1004), Ok([0x4800_0005]));
    check("REL24", [0x4800_0001], to(0x200_1000), Err(out_of(26, 0x200_0000)));
    check("REL24", [0x4800_0001], plus(0, -0x1ff_f000), Ok([0x4a00_0001]));
    check("REL24", [0x4800_0001], plus(0, -0x1ff_f004), Err(out_of(26, -0x200_0004)));
    check("REL24", [0x4800_0001], to(0x1002), Err(Misaligned { value: 2, align: 4 }));
    check("REL14", [0x4182_0003], to(0x8ffc), Ok([0x4182_7fff]));
    check("REL14", [0x4182_0000], to(0x9000), Err(out_of(16, 0x8000)));
    check("REL14", [0x4182_0000], to(0x1001), Err(Misaligned { value: 1, align: 4 }));
    check("ADDR24", [0x4800_0003], to(0x1234), Ok([0x4800_1237]));
    check("ADDR14", [0x4182_0003], to(0x1234), Ok([0x4182_1237]));
}

#[test]
fn a_call_in_the_image_goes_to_the_local_entry() {
    for (code, distance) in [(0, 0), (2, 4), (3, 8), (4, 16), (5, 32), (6, 64)] {
        check("REL24", [0x4800_0001], flags(code, to(0x2000)), Ok([0x4800_1001 + distance]));
        check("REL24_NOTOC", [0x4800_0001], flags(code, to(0x2000)), Ok([0x4800_1001]));
    }
    check("REL24", [0x4800_0001], flags(3, to(0x200_0ff8)), Err(out_of(26, 0x200_0000)));
    let reserved = FixupProblem::Unsupported("a reserved local entry (`st_other`)");
    check("REL24", [0x4800_0001], flags(7, to(0x2000)), Err(reserved));
}

#[test]
fn an_undefined_weak_function_is_not_called() {
    let nowhere = Fixup { place: 0x1_0000_0000, undefined_weak: true, ..to(0) };
    check("REL24", [0x4bff_fffd], nowhere, Ok([0x4800_0001]));
}

#[test]
fn which_calls_need_a_stub() {
    let needs = |name, flags| Ppc64::needs_stub(kind(name), &[], 0, flags);
    for code in [0, 2, 3, 6] {
        assert!(!needs("REL24", code));
        assert_eq!(needs("REL24_NOTOC", code), code > 1);
    }
    assert!(needs("REL24", 1) && !needs("REL24_NOTOC", 1), "r2 is not kept");
    assert!(needs("REL24", EXTERNAL) && needs("REL24_NOTOC", EXTERNAL) && needs("REL14", EXTERNAL));
    assert!(!needs("REL32", EXTERNAL));
    let stub_kind = |name, flags| Ppc64::STUB_KINDS[Ppc64::stub_kind(kind(name), flags) as usize];
    assert_eq!(stub_kind("REL24", 3), "long");
    assert_eq!(stub_kind("REL24", 1), "toc");
    assert_eq!(stub_kind("REL24", EXTERNAL), "toc");
    assert_eq!(stub_kind("REL24_NOTOC", EXTERNAL), "notoc");
}

#[test]
fn a_stub_that_saves_the_toc_pointer_is_called_before_a_nop() {
    check("REL24", [0x4800_0001, NOP], stub(EXTERNAL, 0x2000), Ok([0x4800_1001, LOAD_TOC]));
    check("REL24", [0x4800_0001, NOP], stub(1, 0x2000), Ok([0x4800_1001, LOAD_TOC]));
    check("REL24", [0x4800_0001, NOP], stub(3, 0x2000), Ok([0x4800_1001, NOP]));
    check("REL24_NOTOC", [0x4800_0001, NOP], stub(EXTERNAL, 0x2000), Ok([0x4800_1001, NOP]));
    let lacks = FixupProblem::Unsupported("a call that changes the TOC pointer, without a nop after it,");
    check("REL24", [0x4800_0001, 0x4e80_0020], stub(EXTERNAL, 0x2000), Err(lacks));
    let mut last = 0x4800_0001u32.to_le_bytes();
    assert_eq!(Ppc64::apply(kind("REL24"), &mut last, 0, stub(EXTERNAL, 0x2000)), Err(lacks));
}

#[test]
fn nothing_changes_where_a_stub_is_out_of_reach() {
    let mut section: Vec<u8> = [0x4800_0001, NOP].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    let before = section.clone();
    let far = stub(EXTERNAL, 0x200_1000);
    assert_eq!(Ppc64::apply(kind("REL24"), &mut section, 0, far), Err(out_of(26, 0x200_0000)));
    assert_eq!(section, before);
    let middle = Fixup { addend: 4, ..stub(EXTERNAL, 0x2000) };
    assert!(matches!(
        Ppc64::apply(kind("REL24"), &mut section, 0, middle),
        Err(FixupProblem::Unsupported(_))
    ));
}

#[track_caller]
fn stub_words(kind: u8, place: u64, slot: u64) -> Result<[u32; 6], FixupProblem> {
    let mut stub = [0; 24];
    let leads = Stub { slot, target: 0, got: 0x10_0000 };
    Ppc64::write_stub(kind, &mut stub, place, leads)?;
    Ok(std::array::from_fn(|word| u32::from_le_bytes(stub[4 * word..][..4].try_into().unwrap())))
}

#[test]
fn stubs() {
    const TRAP: u32 = 0x7fe0_0008;
    let toc = [0xf841_0018, 0x3d82_0002, 0xe98c_8008, 0x7d89_03a6, 0x4e80_0420, TRAP];
    assert_eq!(stub_words(TOC, 0x1000, 0x11_8008), Ok(toc));
    let long = [0x3d82_ffff, 0xe98c_0010, 0x7d89_03a6, 0x4e80_0420, TRAP, TRAP];
    assert_eq!(stub_words(LONG, 0x1000, 0xf_0010), Ok(long));
    let notoc = [0x0411_2345, 0xe580_6788, 0x7d89_03a6, 0x4e80_0420, TRAP, TRAP];
    assert_eq!(stub_words(NOTOC, 0x1000, 0x1_2345_7788), Ok(notoc));
    assert_eq!(stub_words(TOC, 0, 0x800f_8000), Err(out_of(32, 0x8000_0000)));
    assert_eq!(stub_words(NOTOC, 0, 0x2_0000_0000), Err(out_of(34, 0x2_0000_0000)));
    assert_eq!(stub_words(LONG, 0, 0x10_0004 + 2), Err(Misaligned { value: 6, align: 4 }));
}

#[test]
fn markers_do_nothing() {
    for name in ["NONE", "TLS", "TLSGD", "TLSLD", "TOCSAVE", "ENTRY", "PLTSEQ", "PLTCALL", "PCREL_OPT"] {
        assert_eq!(Ppc64::operand(kind(name)), Operand::None);
        check(name, [1], to(0x1234), Ok([1]));
    }
}

#[test]
fn a_field_must_be_inside_of_the_section() {
    for (number, name, support) in ELF {
        let Does(_, field) = support else { continue };
        let width = match field {
            Nowhere => continue,
            Half | SignedHalf | HalfDs | Lo | LoDs | Hi | Ha | High | HighA | Higher | HigherA | Highest
            | HighestA => 2,
            Low14 | Low24 | Word32 | SignedWord32 => 4,
            Word64 | Prefix34 => 8,
        };
        let kind = Ppc64::kind(Elf, number).unwrap();
        let fixup = Fixup { place: 0, target: 0, got: 0, ..Fixup::default() };
        let mut section = vec![0; width];
        assert_eq!(Ppc64::apply(kind, &mut section, 0, fixup), Ok(()), "{name}");
        for offset in [1, u64::MAX, u64::MAX - 3] {
            assert_eq!(Ppc64::apply(kind, &mut section, offset, fixup), Err(OutsideSection), "{name}");
        }
    }
}

#[test]
fn what_relocations_refer_to() {
    let operand = |name| Ppc64::operand(kind(name));
    assert_eq!(operand("REL24"), Operand::Branch);
    assert_eq!(operand("ADDR64"), Operand::Symbol);
    assert_eq!(operand("TOC"), Operand::Got);
    assert_eq!(operand("GOT_PCREL34"), Operand::Slot(SlotKind::Address));
    assert_eq!(operand("PLT16_LO_DS"), Operand::Slot(SlotKind::Address));
    assert_eq!(operand("GOT_TLSGD16_HA"), Operand::Slot(SlotKind::ThreadIndex));
    assert_eq!(operand("GOT_TLSLD16_LO"), Operand::Slot(SlotKind::ThreadModule));
    assert_eq!(operand("GOT_TPREL16_LO_DS"), Operand::Slot(SlotKind::ThreadOffset));
    assert_eq!(operand("GOT_DTPREL16_HA"), Operand::Slot(SlotKind::BlockOffset));
    assert_eq!(operand("TPREL16_HA"), Operand::ThreadOffset);
    assert_eq!(operand("DTPREL64"), Operand::BlockOffset);
}
