//! Facts about single fix-ups: the value, and both sides of each edge.

use super::*;
use FixupProblem::OutsideSection;

const NEGATIVE: u64 = 1 << 63;

/// Place 0x1000, addend 0, GOT 0x5000 unless changed.
fn to(target: u64) -> Fixup {
    Fixup { place: 0x1000, target, got: 0x5000, ..Fixup::default() }
}

fn plus(target: u64, addend: i64) -> Fixup {
    Fixup { addend, ..to(target) }
}

fn weak(addend: i64) -> Fixup {
    Fixup { undefined_weak: true, ..plus(0, addend) }
}

fn out_of(bits: u32, value: i64) -> FixupProblem {
    FixupProblem::OutOfRange { value, bits }
}

fn odd(align: u64, value: i64) -> FixupProblem {
    FixupProblem::Misaligned { value, align }
}

/// The kind of an ELF relocation by its name.
#[track_caller]
fn named(name: &str) -> Kind {
    let name = format!("R_AARCH64_{name}");
    let raw = (0..1100).find(|raw| elf::name(*raw) == name).expect(&name);
    elf::kind(raw).unwrap()
}

/// Applies to a field between guards, with leftovers in it, and compares the bytes of the field's width.
#[track_caller]
fn data<const N: usize>(name: &str, fixup: Fixup, expected: Result<[u8; N], FixupProblem>) {
    let mut section = vec![0xa5; N + 8];
    let result = AArch64::apply(named(name), &mut section, 4, fixup);
    assert_eq!(result.map(|()| section[4..4 + N].try_into().unwrap()), expected);
    assert_eq!(
        (&section[..4], &section[4 + N..]),
        (&[0xa5; 4][..], &[0xa5; 4][..]),
        "wrote beside the field"
    );
}

/// Applies to an instruction.
#[track_caller]
fn code(name: &str, word: u32, fixup: Fixup, expected: Result<u32, FixupProblem>) {
    let mut section = [0xa5; 12];
    section[4..8].copy_from_slice(&word.to_le_bytes());
    let result = AArch64::apply(named(name), &mut section, 4, fixup);
    let found = u32::from_le_bytes(section[4..8].try_into().unwrap());
    let shown = |result: Result<u32, FixupProblem>| result.map(|word| format!("{word:08x}"));
    assert_eq!(shown(result.map(|()| found)), shown(expected), "{name}");
    assert_eq!((&section[..4], &section[8..]), (&[0xa5; 4][..], &[0xa5; 4][..]), "wrote beside the field");
}

/// The largest and the smallest value that an instruction takes, and what happens one step beyond.
#[track_caller]
fn edges(name: &str, word: u32, bits: u32, step: i64, [least, most]: [u32; 2]) {
    let half = 1i64 << (bits - 1);
    let at = |value: i64| to(0x1000u64.wrapping_add_signed(value));
    code(name, word, at(-half), Ok(least));
    code(name, word, at(half - step), Ok(most));
    code(name, word, at(half), Err(out_of(bits, half)));
    code(name, word, at(-half - step), Err(out_of(bits, -half - step)));
}

#[test]
fn markers_do_nothing() {
    for name in ["NONE", "TLSDESC_CALL", "TLSDESC_ADD", "TLSDESC_LDR"] {
        data(name, to(u64::MAX), Ok([]));
    }
}

#[test]
fn data_of_64_bits() {
    data("ABS64", plus(u64::MAX, -7), Ok((u64::MAX - 7).to_le_bytes()));
    data("PREL64", plus(0, 4), Ok(0xffff_ffff_ffff_f004u64.to_le_bytes()));
    data("GOTREL64", plus(0x4000, 1), Ok((-0xfffi64).to_le_bytes()));
}

#[test]
fn data_of_32_and_16_bits_is_signed_or_unsigned() {
    for (name, base) in [("ABS32", 0), ("PREL32", 0x1000u64), ("GOTREL32", 0x5000)] {
        let at = |value: i64| to(base.wrapping_add_signed(value));
        data(name, at(0xffff_ffff), Ok([0xff; 4]));
        data::<4>(name, at(0x1_0000_0000), Err(out_of(32, 0x1_0000_0000)));
        data(name, at(-0x8000_0000), Ok([0, 0, 0, 0x80]));
        data::<4>(name, at(-0x8000_0001), Err(out_of(32, -0x8000_0001)));
    }
    for (name, base) in [("ABS16", 0), ("PREL16", 0x1000u64)] {
        let at = |value: i64| to(base.wrapping_add_signed(value));
        data(name, at(0xffff), Ok([0xff; 2]));
        data::<2>(name, at(0x1_0000), Err(out_of(16, 0x1_0000)));
        data(name, at(-0x8000), Ok([0, 0x80]));
        data::<2>(name, at(-0x8001), Err(out_of(16, -0x8001)));
    }
}

#[test]
fn references_to_functions_and_slots_are_signed() {
    for name in ["PLT32", "GOTPCREL32"] {
        data(name, to(0x8000_0fff), Ok([0xff, 0xff, 0xff, 0x7f]));
        data::<4>(name, to(0x8000_1000), Err(out_of(32, 0x8000_0000)));
        data(name, plus(0, -0x7fff_f000), Ok([0, 0, 0, 0x80]));
        data::<4>(name, plus(0, -0x7fff_f001), Err(out_of(32, -0x8000_0001)));
    }
}

#[test]
fn branches() {
    for (name, word) in [("CALL26", 0x9400_0000), ("JUMP26", 0x1400_0000)] {
        edges(name, word, 28, 4, [word | 0x0200_0000, word | 0x01ff_ffff]);
        code(name, word, to(0x1002), Err(odd(4, 2)));
        code(name, word | 0x3ff_ffff, to(0x1008), Ok(word | 2));
    }
    edges("CONDBR19", 0x5400_0001, 21, 4, [0x5480_0001, 0x547f_ffe1]);
    edges("TSTBR14", 0xb7f8_001f, 16, 4, [0xb7fc_001f, 0xb7fb_ffff]);
    code("CONDBR19", 0xb500_0000, to(0x1001), Err(odd(4, 1)));
    code("TSTBR14", 0x3600_0000, to(0x1003), Err(odd(4, 3)));
}

#[test]
fn literals_and_addresses() {
    for name in ["LD_PREL_LO19", "GOT_LD_PREL19", "TLSIE_LD_GOTTPREL_PREL19", "TLSDESC_LD_PREL19"] {
        edges(name, 0x5800_001e, 21, 4, [0x5880_001e, 0x587f_fffe]);
        code(name, 0x5800_001e, to(0x1002), Err(odd(4, 2)));
    }
    for name in ["ADR_PREL_LO21", "TLSGD_ADR_PREL21", "TLSLD_ADR_PREL21", "TLSDESC_ADR_PREL21"] {
        edges(name, 0x1000_0003, 21, 1, [0x1080_0003, 0x707f_ffe3]);
    }
}

#[test]
fn pages() {
    let names = [
        "ADR_PREL_PG_HI21",
        "ADR_GOT_PAGE",
        "TLSIE_ADR_GOTTPREL_PAGE21",
        "TLSGD_ADR_PAGE21",
        "TLSLD_ADR_PAGE21",
        "TLSDESC_ADR_PAGE21",
    ];
    for name in names {
        edges(name, 0x9000_0010, 33, 0x1000, [0x9080_0010, 0xf07f_fff0]);
        // What counts is the page, of both.
        code(name, 0x9000_0010, Fixup { place: 0x1fff, ..to(0x2000) }, Ok(0xb000_0010));
        code(name, 0x9000_0010, Fixup { place: 0x2000, ..to(0x1fff) }, Ok(0xf0ff_fff0));
    }
    let far = to(0x1_0000_1000);
    code("ADR_PREL_PG_HI21", 0x9000_0010, far, Err(out_of(33, 0x1_0000_0000)));
    code("ADR_PREL_PG_HI21_NC", 0x9000_0010, far, Ok(0x9080_0010));
}

#[test]
fn low_twelve_bits() {
    for (name, scale, word) in [
        ("ADD_ABS_LO12_NC", 0, 0x9100_0000u32),
        ("LDST8_ABS_LO12_NC", 0, 0x3940_0000),
        ("LDST16_ABS_LO12_NC", 1, 0x7940_0000),
        ("LDST32_ABS_LO12_NC", 2, 0xb940_0000),
        ("LDST64_ABS_LO12_NC", 3, 0xf940_0000),
        ("LDST128_ABS_LO12_NC", 4, 0x3dc0_0000),
        ("LD64_GOT_LO12_NC", 3, 0xf940_0000),
        ("TLSIE_LD64_GOTTPREL_LO12_NC", 3, 0xf940_0000),
        ("TLSGD_ADD_LO12_NC", 0, 0x9100_0000),
        ("TLSLD_ADD_LO12_NC", 0, 0x9100_0000),
        ("TLSDESC_LD64_LO12", 3, 0xf940_0000),
        ("TLSDESC_ADD_LO12", 0, 0x9100_0000),
        ("TLSLE_ADD_TPREL_LO12_NC", 0, 0x9100_0000),
        ("TLSLE_LDST128_TPREL_LO12_NC", 4, 0x3dc0_0000),
        ("TLSLD_LDST32_DTPREL_LO12_NC", 2, 0xb940_0000),
    ] {
        let (unit, registers) = (1u64 << scale, 0x3ff);
        let expected = word | registers | ((0xff0 >> scale) << 10);
        code(name, word | 0x003f_ffff, to(NEGATIVE | 0x7ff0), Ok(expected));
        if scale > 0 {
            let low = (unit - 1) as i64;
            code(name, word, to(0x7ff0 | (unit - 1)), Err(odd(unit, 0x7ff0 | low)));
            code(name, word, to(unit / 2), Err(odd(unit, unit as i64 / 2)));
        }
    }
}

#[test]
fn thread_offsets_of_12_and_24_bits() {
    for prefix in ["TLSLE_ADD_TPREL", "TLSLD_ADD_DTPREL"] {
        let (high, low) = (format!("{prefix}_HI12"), format!("{prefix}_LO12"));
        code(&high, 0x9140_0000, to(0xff_ffff), Ok(0x917f_fc00));
        code(&high, 0x9140_0000, to(0x1fff), Ok(0x9140_0400));
        code(&high, 0x9140_0000, to(0x100_0000), Err(out_of(24, 0x100_0000)));
        code(&high, 0x9140_0000, plus(0, -1), Err(out_of(24, -1)));
        code(&low, 0x9100_0000, to(0xfff), Ok(0x913f_fc00));
        code(&low, 0x9100_0000, to(0x1000), Err(out_of(12, 0x1000)));
    }
    for (bits, scale) in [(8, 0), (16, 1), (32, 2), (64, 3), (128, 4)] {
        for name in [format!("TLSLE_LDST{bits}_TPREL_LO12"), format!("TLSLD_LDST{bits}_DTPREL_LO12")] {
            code(&name, 0x3940_0000, to(0xff0), Ok(0x3940_0000 | (0xff0 >> scale) << 10));
            code(&name, 0x3940_0000, to(0x1000), Err(out_of(12, 0x1000)));
            if scale > 0 {
                code(&name, 0x3940_0000, to(1), Err(odd(1 << scale, 1)));
            }
        }
    }
}

#[test]
fn loads_from_the_got_by_its_page() {
    let got = |target| Fixup { got: 0x5008, ..to(target) };
    code("LD64_GOTPAGE_LO15", 0xf940_0000, got(0x5000 + 0x7ff8), Ok(0xf97f_fc00));
    code("LD64_GOTPAGE_LO15", 0xf940_0000, got(0x5010), Ok(0xf940_0800));
    code("LD64_GOTPAGE_LO15", 0xf940_0000, got(0x5000 + 0x8000), Err(out_of(15, 0x8000)));
    code("LD64_GOTPAGE_LO15", 0xf940_0000, got(0x5004), Err(odd(8, 4)));
    code("LD64_GOTPAGE_LO15", 0xf940_0000, got(0x4ff8), Err(out_of(15, -8)));
    code("LD64_GOTOFF_LO15", 0xf940_0000, got(0x5008 + 0x7ff8), Ok(0xf97f_fc00));
    code("LD64_GOTOFF_LO15", 0xf940_0000, got(0x5008 + 0x8000), Err(out_of(15, 0x8000)));
}

#[test]
fn unsigned_groups() {
    let value = 0x4321_8765_cba9_0fed;
    for (group, bits) in [(0, 16), (1, 32), (2, 48)] {
        let (name, unchecked) = (format!("MOVW_UABS_G{group}"), format!("MOVW_UABS_G{group}_NC"));
        let field = ((value >> (16 * group)) & 0xffff) as u32;
        let fits = value & ((1 << bits) - 1);
        code(&name, 0xd280_001f | 0xffff << 5, to(fits), Ok(0xd280_001f | field << 5));
        code(&name, 0xd280_001f, to(1 << bits), Err(out_of(bits, 1 << bits)));
        code(&name, 0xd280_001f, plus(0, -1), Err(out_of(bits, -1)));
        code(&unchecked, 0xf280_001f, to(value), Ok(0xf280_001f | field << 5));
        code(&unchecked, 0x9280_001f, to(value), Ok(0x9280_001f | field << 5));
    }
    code("MOVW_UABS_G3", 0xd2e0_0000, to(value), Ok(0xd2e0_0000 | 0x4321 << 5));
}

/// MOVN and MOVZ are `10 0 100101` and `10 1 100101` behind bit 31.
#[test]
fn signed_groups_choose_the_instruction() {
    const MOVZ: u32 = 0xd280_0004;
    const MOVN: u32 = 0x9280_0004;
    for (group, bits) in [(0u32, 17), (1, 33), (2, 49)] {
        for name in [format!("MOVW_SABS_G{group}"), format!("TLSLE_MOVW_TPREL_G{group}")] {
            let limit = 1u64 << (bits - 1);
            for word in [MOVZ, MOVN] {
                code(&name, word, to(limit - 1), Ok(MOVZ | 0xffff << 5));
                code(&name, word, to(limit.wrapping_neg()), Ok(MOVN | 0xffff << 5));
                code(&name, word, plus(0, -1), Ok(MOVN));
                code(&name, word, to(0), Ok(MOVZ));
                code(&name, word, to(limit), Err(out_of(bits, limit as i64)));
            }
            let beyond = (limit as i64 + 1).wrapping_neg();
            code(&name, MOVZ, plus(0, beyond), Err(out_of(bits, beyond)));
        }
    }
    code("MOVW_PREL_G0", MOVZ, to(0xfff), Ok(MOVN));
    code("MOVW_PREL_G1", MOVZ, to(0x7654_2fff), Ok(MOVZ | 0x7654 << 5));
    code("MOVW_GOTOFF_G0", MOVN, to(0x6234), Ok(MOVZ | 0x1234 << 5));
    code("TLSGD_MOVW_G1", MOVN, to(0x1_5000), Ok(MOVZ | 1 << 5));
}

#[test]
fn signed_groups_without_a_check() {
    const MOVK: u32 = 0xf280_0004;
    let target = 0x4321_8765_cba9_1fed;
    for (group, field) in [(0, 0x0fed), (1, 0xcba9), (2, 0x8765)] {
        code(&format!("MOVW_PREL_G{group}_NC"), MOVK, to(target), Ok(MOVK | field << 5));
    }
    // Bit 32 of 0x8765_cba9 is that of a negative number.
    code("MOVW_PREL_G1_NC", 0xd280_0004, to(target), Ok(0x9280_0004 | 0x3456 << 5));
    code("MOVW_PREL_G2_NC", 0xd280_0004, to(target), Ok(0x9280_0004 | 0x789a << 5));
    code("MOVW_PREL_G3", 0x92e0_0004, to(NEGATIVE | 0x1000), Ok(0xd2e0_0004 | 0x8000 << 5));
    code("MOVW_PREL_G3", 0xf2e0_0004, to(target), Ok(0xf2e0_0004 | 0x4321 << 5));
}

#[test]
fn a_branch_to_an_undefined_weak_symbol_goes_on() {
    for (name, word) in [
        ("CALL26", 0x9400_0000),
        ("JUMP26", 0x1400_0000),
        ("CONDBR19", 0x5400_0000),
        ("TSTBR14", 0x3600_0000),
    ] {
        let field = if name.ends_with("26") { 0 } else { 5 };
        code(name, word, weak(0), Ok(word | 1 << field));
        code(name, word, weak(8), Ok(word | 3 << field));
    }
    data("PREL32", weak(3), Ok([3, 0, 0, 0]));
    data("PREL64", weak(-1), Ok([0xff; 8]));
    data("PLT32", weak(0), Ok([0; 4]));
    data("ABS64", weak(5), Ok([5, 0, 0, 0, 0, 0, 0, 0]));
    code("ADR_PREL_PG_HI21", 0x9000_0000, weak(0x2000), Ok(0xd000_0000));
    code("ADR_PREL_LO21", 0x1000_0000, weak(0), Ok(0x1000_0000));
    code("ADD_ABS_LO12_NC", 0x9100_0000, weak(1), Ok(0x9100_0400));
}

#[test]
fn no_stub_leads_to_a_distance_from_nothing() {
    let through_stub = |name, word| {
        let fixup = Fixup { target: 0x2000, through_stub: true, ..weak(0) };
        let why = "a branch to a distance from a weak symbol that nobody defines";
        code(name, word, fixup, Err(FixupProblem::Unsupported(why)));
    };
    through_stub("CALL26", 0x9400_0000);
    through_stub("JUMP26", 0x1400_0000);
}

#[test]
fn a_load_tells_its_unit() {
    for (word, scale) in [
        (0x3940_0000, 0), // ldrb
        (0x3d40_0000, 0), // ldr b
        (0x7980_0000, 1), // ldrsh
        (0xb900_0000, 2), // str w
        (0xbd40_0000, 2), // ldr s
        (0xf940_0000, 3), // ldr x
        (0xfd00_0000, 3), // str d
        (0x3dc0_0000, 4), // ldr q
        (0x3d80_0000, 4), // str q
        (0x3980_0000, 0), // ldrsb
        (0x9100_0000, 0), // add
    ] {
        let field = Field::Low12ByInstruction;
        assert_eq!(field.insert(word, 0x12340), Ok(word | (0x340 >> scale) << 10), "{word:08x}");
        if scale > 0 {
            assert_eq!(field.insert(word, 1), Err(odd(1 << scale, 1)), "{word:08x}");
        }
    }
}

#[test]
fn implicit_addends_are_in_the_field() {
    let addend = |name: &str, word: u32| AArch64::implicit_addend(named(name), &word.to_le_bytes(), 0);
    assert_eq!(addend("ABS32", 0x8000_0000), Ok(-0x8000_0000));
    assert_eq!(addend("PREL16", 0xffff), Ok(-1));
    assert_eq!(AArch64::implicit_addend(named("ABS64"), &(-9i64).to_le_bytes(), 0), Ok(-9));
    assert_eq!(addend("CALL26", 0x97ff_ffff), Ok(-4));
    assert_eq!(addend("CALL26", 0x95ff_ffff), Ok(0x7ff_fffc));
    assert_eq!(addend("CONDBR19", 0x5480_0001), Ok(-0x10_0000));
    assert_eq!(addend("TSTBR14", 0xb7fb_ffff), Ok(0x7ffc));
    assert_eq!(addend("ADR_PREL_LO21", 0x707f_ffe3), Ok(0xf_ffff));
    assert_eq!(addend("ADR_PREL_PG_HI21", 0xb080_0000), Ok(-0xf_ffff));
    assert_eq!(addend("ADD_ABS_LO12_NC", 0x913f_fc00), Ok(-1));
    assert_eq!(addend("LDST64_ABS_LO12_NC", 0xf97f_fc00), Ok(0x7ff8));
    assert_eq!(addend("LD64_GOTPAGE_LO15", 0xf940_0400), Ok(8));
    assert_eq!(addend("MOVW_UABS_G1", 0xd290_0000), Ok(-0x8000));
    assert_eq!(Field::Low12ByInstruction.addend(&0x3dc0_0400u32.to_le_bytes(), 0), Ok(16));
    assert_eq!(AArch64::implicit_addend(named("CALL26"), &[0; 4], 1), Err(OutsideSection));
}

#[test]
fn a_field_must_be_inside_of_the_section() {
    for raw in 0..1100 {
        let Ok(kind) = elf::kind(raw) else { continue };
        let width = match kind.field {
            Field::None => continue,
            Field::Data64 => 8,
            Field::Data16 => 2,
            _ => 4,
        };
        let fixup = Fixup::default();
        let mut section = vec![0; width];
        assert_eq!(AArch64::apply(kind, &mut section, 0, fixup), Ok(()), "{raw}");
        for offset in [1, u64::MAX, u64::MAX - 3] {
            assert_eq!(AArch64::apply(kind, &mut section, offset, fixup), Err(OutsideSection), "{raw}");
            assert_eq!(AArch64::implicit_addend(kind, &section, offset), Err(OutsideSection), "{raw}");
        }
        assert_eq!(AArch64::apply(kind, &mut [], 0, fixup), Err(OutsideSection), "{raw}");
    }
}

#[test]
fn a_stub_jumps_through_its_entry() {
    let mut stub = [0xff; 12];
    let slot = |slot| Stub { slot, target: 0, got: 0 };
    AArch64::write_stub(0, &mut stub, 0x1ffc, slot(0x3008)).unwrap();
    let words: Vec<u32> = stub.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words, [0xd000_0010, 0xf940_0610, 0xd61f_0200]);
    assert_eq!(AArch64::write_stub(0, &mut stub, 0x1000, slot(0xffff_fff8)), Ok(()));
    assert_eq!(
        AArch64::write_stub(0, &mut stub, 0xffc, slot(0x1_0000_0000)),
        Err(out_of(33, 0x1_0000_0000)),
        "4 GiB"
    );
    assert_eq!(AArch64::write_stub(0, &mut stub, 0, slot(4)), Err(odd(8, 4)));
}

#[test]
fn each_number_has_a_name_and_a_kind_or_a_reason() {
    for raw in 0..1200 {
        let name = AArch64::name(Format::Elf, raw);
        match AArch64::kind(Format::Elf, raw) {
            Ok(_) => assert!(name.starts_with("R_AARCH64_"), "{raw}"),
            Err(why) => assert_eq!(name.starts_with("R_AARCH64_"), why != "this kind of relocation", "{raw}"),
        }
    }
    assert_eq!(AArch64::name(Format::Elf, 283), "R_AARCH64_CALL26");
    assert_eq!(AArch64::name(Format::Elf, 573), "R_AARCH64_TLSLD_LDST128_DTPREL_LO12_NC");
    assert_eq!(AArch64::name(Format::Elf, 281), "relocation type 281");
    assert_eq!(AArch64::kind(Format::Elf, 580), Err("pointer authentication"));
    assert_eq!(AArch64::kind(Format::Elf, 1027), Err("a relocation of the dynamic linker in an object file"));
    assert!(AArch64::kind(Format::Elf, u32::MAX).is_err());
}

#[test]
fn operands_say_what_is_to_be_made() {
    let operand = |name| AArch64::operand(named(name));
    assert_eq!(operand("CALL26"), Operand::Branch);
    assert_eq!(operand("PLT32"), Operand::Branch);
    assert_eq!(operand("CONDBR19"), Operand::Symbol, "linkers make no stubs for these");
    assert_eq!(operand("ABS64"), Operand::Symbol);
    assert_eq!(operand("ABS32"), Operand::LowSymbol);
    assert_eq!(operand("MOVW_UABS_G1"), Operand::LowSymbol);
    assert_eq!(operand("MOVW_UABS_G1_NC"), Operand::Symbol);
    assert_eq!(operand("ADR_PREL_PG_HI21"), Operand::NearSymbol);
    assert_eq!(operand("LD64_GOTPAGE_LO15"), Operand::Slot(SlotKind::Address));
    assert_eq!(operand("TLSGD_ADR_PAGE21"), Operand::Slot(SlotKind::ThreadIndex));
    assert_eq!(operand("TLSLD_ADR_PAGE21"), Operand::Slot(SlotKind::ThreadModule));
    assert_eq!(operand("TLSIE_ADR_GOTTPREL_PAGE21"), Operand::Slot(SlotKind::ThreadOffset));
    assert_eq!(operand("TLSDESC_ADD_LO12"), Operand::Slot(SlotKind::ThreadDescriptor));
    assert_eq!(operand("TLSLE_ADD_TPREL_HI12"), Operand::ThreadOffset);
    assert_eq!(operand("TLSLD_ADD_DTPREL_HI12"), Operand::BlockOffset);
    assert_eq!(operand("TLSDESC_CALL"), Operand::None);
}

const ADRP_X3: u32 = 0x9000_0003;
const LDR_X3_X3: u32 = 0xf940_0063;

/// Relaxes an access whose instructions are those words; says what they are then.
fn relaxed(words: [u32; 2], symbols: [u32; 2], offsets: [u64; 2], fixup: Fixup) -> Option<[u32; 2]> {
    let relocation = |number: usize| Relocation {
        offset: offsets[number],
        raw_kind: 0,
        symbol: symbols[number],
        addend: 0,
        subtrahend: Relocation::NO_SYMBOL,
    };
    let mut section: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let before = section.clone();
    let next = Some((named("LD64_GOT_LO12_NC"), relocation(1)));
    let outcome = AArch64::relax(named("ADR_GOT_PAGE"), &relocation(0), next, &mut section, fixup);
    match outcome {
        Relaxed::Both => {
            let word = |at: usize| u32::from_le_bytes(section[at..][..4].try_into().unwrap());
            Some([word(0), word(4)])
        }
        _ => {
            assert_eq!(section, before, "must not be changed");
            None
        }
    }
}

#[test]
fn an_access_through_the_got_becomes_direct() {
    let pair = |fixup| relaxed([ADRP_X3, LDR_X3_X3], [1, 1], [0, 4], fixup);
    assert_eq!(pair(to(0x1009)), Some([0xd503_201f, 0x3000_0023]), "nop; adr x3, .+5");
    assert_eq!(pair(to(0x10_1003)), Some([0xd503_201f, 0x707f_ffe3]), "the last byte that ADR reaches");
    assert_eq!(pair(to(0x10_1004)), Some([0x9000_0803, 0x9100_1063]), "adrp x3; add x3, x3, #4");
    assert_eq!(pair(to(0xffff_ffff)), Some([0xd07f_ffe3, 0x913f_fc63]));
    assert_eq!(pair(to(0x1_0000_1000)), None, "4 GiB");
    assert_eq!(pair(plus(0x1009, 4)), None);
}

#[test]
fn only_the_pair_that_compilers_emit_is_relaxed() {
    let near = to(0x2000);
    assert!(relaxed([ADRP_X3, LDR_X3_X3], [1, 1], [0, 4], near).is_some());
    assert_eq!(relaxed([ADRP_X3, LDR_X3_X3], [1, 2], [0, 4], near), None, "two symbols");
    assert_eq!(relaxed([ADRP_X3, LDR_X3_X3], [1, 1], [0, 8], near), None, "not adjacent");
    assert_eq!(relaxed([ADRP_X3, LDR_X3_X3], [1, 1], [4, 8], near), None, "outside");
    assert_eq!(relaxed([ADRP_X3, LDR_X3_X3], [1, 1], [u64::MAX - 3, 0], near), None, "outside");
    assert_eq!(relaxed([ADRP_X3, LDR_X3_X3 ^ 1], [1, 1], [0, 4], near), None, "another register");
    assert_eq!(relaxed([ADRP_X3, LDR_X3_X3 ^ 32], [1, 1], [0, 4], near), None, "another register");
    assert_eq!(relaxed([ADRP_X3, 0xb940_0063], [1, 1], [0, 4], near), None, "32 bits");
    assert_eq!(relaxed([ADRP_X3, 0xf900_0063], [1, 1], [0, 4], near), None, "a store");
    assert_eq!(relaxed([0x1000_0003, LDR_X3_X3], [1, 1], [0, 4], near), None, "ADR");
}

#[test]
fn a_section_with_a_lone_half_of_an_access_is_left_alone() {
    let [page, load, other] = ["ADR_GOT_PAGE", "LD64_GOT_LO12_NC", "CALL26"].map(named);
    let may_relax = |kinds: &[Kind]| AArch64::may_relax(kinds.iter().copied());
    assert!(may_relax(&[]));
    assert!(may_relax(&[other, page, load, other, page, load]));
    assert!(!may_relax(&[page, load, load]), "two loads after one page");
    assert!(!may_relax(&[page, page, load]), "one load after two pages");
    assert!(!may_relax(&[page, other, load]));
    assert!(!may_relax(&[page]));
    assert!(!may_relax(&[load]));
}

#[test]
fn thread_local_kinds_say_in_their_names_what_they_refer_to() {
    for raw in 512..1100 {
        let name = elf::name(raw);
        let Ok(kind) = elf::kind(raw) else { continue };
        let name = name.strip_prefix("R_AARCH64_").unwrap();
        let expected = match name.split_once('_').unwrap() {
            (_, operation) if operation.contains("DTPREL") => Operand::BlockOffset,
            ("TLSGD", _) => Operand::Slot(SlotKind::ThreadIndex),
            ("TLSLD", _) => Operand::Slot(SlotKind::ThreadModule),
            ("TLSIE", _) => Operand::Slot(SlotKind::ThreadOffset),
            ("TLSLE", _) => Operand::ThreadOffset,
            ("TLSDESC", "LDR" | "ADD" | "CALL") => Operand::None,
            ("TLSDESC", _) => Operand::Slot(SlotKind::ThreadDescriptor),
            _ => panic!("{name}"),
        };
        assert_eq!(AArch64::operand(kind), expected, "{name}");
    }
}

#[test]
fn kinds_say_in_their_names_which_bits_they_fill() {
    for raw in 0..1100 {
        let name = elf::name(raw);
        let Ok(kind) = elf::kind(raw) else { continue };
        let checked = !name.ends_with("_NC");
        match kind.field {
            Field::MovUnsigned { group } | Field::MovSigned { group } => {
                assert!(checked && name.contains(&format!("_G{group}")), "{name} checks group {group}");
            }
            Field::MovNoCheck { group } | Field::MovSignedNoCheck { group } => {
                assert!(!checked || group == 3, "{name} checks nothing");
                assert!(name.contains(&format!("_G{group}")), "{name} fills group {group}");
            }
            Field::Low12 { scale } | Field::All12 { scale } if name.contains("LDST") => {
                assert!(name.contains(&format!("LDST{}_", 8 << scale)), "{name} counts by 2^{scale}");
                assert_eq!(matches!(kind.field, Field::All12 { .. }), checked, "{name}");
            }
            Field::Low12 { scale } | Field::All12 { scale } => {
                assert_eq!(scale, if name.contains("LD64") { 3 } else { 0 }, "{name}");
            }
            Field::High12 => assert!(name.ends_with("_HI12"), "{name}"),
            Field::Low15 => assert!(name.ends_with("_LO15"), "{name}"),
            _ => {}
        }
    }
}

fn plan(name: &str, word: u32) -> Result<bool, ()> {
    let planned = AArch64::plan_detours(&word.to_le_bytes(), &[], &[(named(name), 0)]);
    planned.map(|detours| detours[0].is_some()).map_err(|_| ())
}

/// One instruction of those that make up a distance has a detour.
#[test]
fn thread_accesses_have_one_detour() {
    const ADD: u32 = 0x9100_0020;
    const LDR: u32 = 0xf940_0020;
    const MOVZ: u32 = 0xd280_0000;
    assert_eq!(plan("TLSLE_ADD_TPREL_HI12", ADD | 1 << 22), Ok(true));
    assert_eq!(plan("TLSLE_ADD_TPREL_LO12_NC", ADD), Ok(false));
    assert_eq!(plan("TLSLE_LDST64_TPREL_LO12_NC", LDR), Ok(false));
    assert_eq!(plan("TLSLE_ADD_TPREL_LO12", ADD), Ok(true));
    assert_eq!(plan("TLSLE_MOVW_TPREL_G2", MOVZ), Ok(false));
    assert_eq!(plan("TLSLE_MOVW_TPREL_G1", MOVZ), Ok(false));
    assert_eq!(plan("TLSLE_MOVW_TPREL_G1_NC", MOVZ), Ok(false));
    assert_eq!(plan("TLSLE_MOVW_TPREL_G0_NC", MOVZ), Ok(true));
    assert_eq!(plan("TLSLE_MOVW_TPREL_G0", MOVZ), Ok(true));
    assert_eq!(plan("TLSIE_ADR_GOTTPREL_PAGE21", 0x9000_0000), Ok(false));
    assert_eq!(plan("TLSIE_LD64_GOTTPREL_LO12_NC", LDR), Ok(true));
    assert_eq!(plan("TLSIE_LD_GOTTPREL_PREL19", 0x5800_0000), Ok(true));
    // A load of the variable itself has no register for the distance; other instructions are not those.
    assert_eq!(plan("TLSLE_LDST8_TPREL_LO12", 0x3940_0020), Err(()));
    assert_eq!(plan("TLSLE_LDST64_TPREL_LO12", LDR), Err(()));
    assert_eq!(plan("TLSLE_ADD_TPREL_HI12", LDR), Err(()));
    assert_eq!(plan("TLSLE_ADD_TPREL_HI12", ADD | 31), Err(()));
    assert_eq!(plan("TLSIE_LD64_GOTTPREL_LO12_NC", 0xb940_0020), Err(()));
    assert_eq!(plan("TLSIE_MOVW_GOTTPREL_G1", MOVZ), Err(()));
    let short = AArch64::plan_detours(&[0; 3], &[], &[(named("TLSLE_ADD_TPREL_HI12"), 0)]);
    assert_eq!(short.map_err(|refused| refused.access), Err(0));
}

#[test]
fn detours_lead_there_and_back() {
    let mut code = [0xd503_201fu32, 0x5800_0049].map(u32::to_le_bytes).concat();
    let detour = AArch64::plan_detours(&code, &[], &[(named("TLSIE_LD_GOTTPREL_PREL19"), 4)]).unwrap();
    let detour = detour[0].unwrap();
    let mut bytes = vec![0; detour.size as usize];
    let places = DetourPlaces { section: 0x10000, detour: 0x10110, descriptor: 0x10100 };
    AArch64::write_detour(&detour, &mut code, places, &mut bytes).unwrap();
    let word = |bytes: &[u8], number: usize| {
        u32::from_le_bytes(bytes[4 * number..4 * number + 4].try_into().unwrap())
    };
    assert_eq!([word(&code, 0), word(&code, 1)], [0xd503_201f, 0x1400_0000 | ((0x10110 - 0x10004) / 4)]);
    // The same slot, 8 bytes behind the instruction.
    assert_eq!(word(&bytes, 0), 0x5800_0009 | (((0x1000c_u32.wrapping_sub(0x10110) / 4) & 0x7_ffff) << 5));
    let last = bytes.len() / 4 - 1;
    let from = 0x10110 + 4 * last as u32;
    assert_eq!(word(&bytes, last), 0x1400_0000 | ((0x10008_u32.wrapping_sub(from) >> 2) & 0x03ff_ffff));
    let far = DetourPlaces { detour: 0x10004 + (1 << 27), ..places };
    let problem = AArch64::write_detour(&detour, &mut code, far, &mut bytes);
    assert!(problem.is_err());
}
