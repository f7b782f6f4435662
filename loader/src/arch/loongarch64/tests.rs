//! Facts about single fix-ups: the value, and both sides of each edge.

use super::*;
use FixupProblem::OutsideSection;

/// Place 0x1000, addend 0 unless changed.
fn to(target: u64) -> Fixup {
    Fixup { place: 0x1000, target, ..Fixup::default() }
}

fn plus(target: u64, addend: i64) -> Fixup {
    Fixup { addend, ..to(target) }
}

/// From a place far from both ends of the address space, at that distance.
fn far(distance: i64) -> Fixup {
    Fixup { place: 1 << 60, target: 1 << 60, addend: distance, ..Fixup::default() }
}

const fn out_of(bits: u32, value: i64) -> FixupProblem {
    FixupProblem::OutOfRange { value, bits }
}

const fn no_word(value: i64) -> FixupProblem {
    FixupProblem::Misaligned { value, align: 4 }
}

fn kind(name: &str) -> Kind {
    let number = ELF.iter().position(|(known, _)| *known == name);
    let number = number.unwrap_or_else(|| panic!("{name} is no kind"));
    LoongArch64::kind(Format::Elf, number as u32).unwrap()
}

/// Applies to a field between guards.
#[track_caller]
fn field_after<const N: usize>(name: &str, before: [u8; N], fixup: Fixup) -> Result<[u8; N], FixupProblem> {
    let mut section = [&[0xa5; 4][..], &before, &[0xa5; 8]].concat();
    let result = LoongArch64::apply(kind(name), &mut section, 4, fixup);
    assert_eq!(
        (&section[..4], &section[4 + N..]),
        (&[0xa5; 4][..], &[0xa5; 8][..]),
        "wrote beside the field"
    );
    result.map(|()| section[4..4 + N].try_into().unwrap())
}

#[track_caller]
fn check(name: &str, before: u32, fixup: Fixup, expected: Result<u32, FixupProblem>) {
    let after = field_after::<4>(name, before.to_le_bytes(), fixup).map(u32::from_le_bytes);
    assert_eq!(after, expected, "{name}: {after:#x?}");
}

#[test]
fn data() {
    check("32", 0xdead_beef, plus(0x1_2345_6789, 1), Ok(0x2345_678a));
    check("TLS_DTPREL32", 0xdead_beef, plus(0x20, 1), Ok(0x21));
    for name in ["64", "TLS_DTPREL64"] {
        let after = field_after::<8>(name, [0xee; 8], plus(0x1_2345_6789, -1));
        assert_eq!(after.map(u64::from_le_bytes), Ok(0x1_2345_6788));
    }
    let after = field_after::<8>("64_PCREL", [0xee; 8], far(-0x9_0000_0000));
    assert_eq!(after.map(i64::from_le_bytes), Ok(-0x9_0000_0000));
    check("32_PCREL", 0xffff_ffff, far(0x7fff_ffff), Ok(0x7fff_ffff));
    check("32_PCREL", 0, far(0x8000_0000), Err(out_of(32, 0x8000_0000)));
    check("32_PCREL", 0, far(-0x8000_0000), Ok(0x8000_0000));
    check("32_PCREL", 0, far(-0x8000_0001), Err(out_of(32, -0x8000_0001)));
}

#[test]
fn branches() {
    check("B16", 0x5800_0085, far(0), Ok(0x5800_0085)); // beq $a0, $a1, .
    check("B16", 0x5bff_fc85, far(0x1_fffc), Ok(0x59ff_fc85));
    check("B16", 0x5800_0085, far(-0x2_0000), Ok(0x5a00_0085));
    check("B16", 0x5800_0085, far(0x2_0000), Err(out_of(18, 0x2_0000)));
    check("B16", 0x5800_0085, far(-0x2_0004), Err(out_of(18, -0x2_0004)));
    check("B16", 0x5800_0085, far(2), Err(no_word(2)));

    check("B21", 0x4000_0080, far(0), Ok(0x4000_0080)); // beqz $a0, .
    check("B21", 0x43ff_fc9f, far(0x3f_fffc), Ok(0x43ff_fc8f));
    check("B21", 0x4000_0080, far(-0x40_0000), Ok(0x4000_0090));
    check("B21", 0x4000_0080, far(0x40_0000), Err(out_of(23, 0x40_0000)));
    check("B21", 0x4000_0080, far(-0x40_0004), Err(out_of(23, -0x40_0004)));
    check("B21", 0x4000_0080, far(1), Err(no_word(1)));

    check("B26", 0x5400_0000, far(4), Ok(0x5400_0400)); // bl .
    check("B26", 0x57ff_ffff, far(0x7ff_fffc), Ok(0x57ff_fdff));
    check("B26", 0x5400_0000, far(-0x800_0000), Ok(0x5400_0200));
    check("B26", 0x5400_0000, far(0x800_0000), Err(out_of(28, 0x800_0000)));
    check("B26", 0x5400_0000, far(-0x800_0004), Err(out_of(28, -0x800_0004)));
    check("B26", 0x5400_0000, far(3), Err(no_word(3)));
}

#[track_caller]
fn check_call(name: &str, distance: i64, expected: Result<[u32; 2], FixupProblem>) {
    // The immediates of `pcaddu18i $ra` or `pcaddu12i $ra`, and `jirl $ra, $ra` with leftovers.
    let before = (0x4fff_fc21u64 << 32 | 0x1fff_ffe1).to_le_bytes();
    let after = field_after::<8>(name, before, far(distance)).map(u64::from_le_bytes);
    let expected = expected.map(|[first, second]| u64::from(second) << 32 | u64::from(first));
    assert_eq!(after, expected, "{after:#x?}");
}

#[test]
fn calls_in_two_instructions() {
    check_call("CALL36", 0, Ok([0x1e00_0001, 0x4c00_0021]));
    check_call("CALL36", 0x1_fffc, Ok([0x1e00_0001, 0x4dff_fc21]));
    check_call("CALL36", 0x2_0000, Ok([0x1e00_0021, 0x4e00_0021]));
    check_call("CALL36", -4, Ok([0x1e00_0001, 0x4fff_fc21]));
    check_call("CALL36", 0x1f_fffd_fffc, Ok([0x1eff_ffe1, 0x4dff_fc21]));
    check_call("CALL36", 0x1f_fffe_0000, Err(out_of(38, 0x1f_fffe_0000)));
    check_call("CALL36", -0x20_0002_0000, Ok([0x1f00_0001, 0x4e00_0021]));
    check_call("CALL36", -0x20_0002_0004, Err(out_of(38, -0x20_0002_0004)));
    check_call("CALL36", 6, Err(no_word(6)));

    check_call("CALL30", 0x1234_5ffc, Ok([0x1e24_68a1, 0x4c0f_fc21]));
    check_call("CALL30", 0x7fff_fffc, Ok([0x1eff_ffe1, 0x4c0f_fc21]));
    check_call("CALL30", 0x8000_0000, Err(out_of(32, 0x8000_0000)));
    check_call("CALL30", -0x8000_0000, Ok([0x1f00_0001, 0x4c00_0021]));
    check_call("CALL30", -0x8000_0004, Err(out_of(32, -0x8000_0004)));
    check_call("CALL30", 2, Err(no_word(2)));
}

#[test]
fn relative_addresses_in_one_instruction() {
    for name in ["PCREL20_S2", "TLS_LD_PCREL20_S2", "TLS_GD_PCREL20_S2", "TLS_DESC_PCREL20_S2"] {
        check(name, 0x19ff_ffe4, far(4), Ok(0x1800_0024)); // pcaddi $a0
        check(name, 0x1800_0004, far(0x1f_fffc), Ok(0x18ff_ffe4));
        check(name, 0x1800_0004, far(-0x20_0000), Ok(0x1900_0004));
        check(name, 0x1800_0004, far(0x20_0000), Err(out_of(22, 0x20_0000)));
        check(name, 0x1800_0004, far(-0x20_0004), Err(out_of(22, -0x20_0004)));
        check(name, 0x1800_0004, far(1), Err(no_word(1)));
    }
}

#[test]
fn parts_of_an_address() {
    const ADDRESS: u64 = 0xfedc_ba98_7654_3210;
    for (family, high, low) in [
        ("ABS", "ABS_HI20", "ABS_LO12"),
        ("GOT", "GOT_HI20", "GOT_LO12"),
        ("TLS_LE", "TLS_LE_HI20", "TLS_LE_LO12"),
        ("TLS_IE", "TLS_IE_HI20", "TLS_IE_LO12"),
        ("TLS_DESC", "TLS_DESC_HI20", "TLS_DESC_LO12"),
    ] {
        check(high, 0x15ff_ffe4, to(0x7654_3210), Ok(0x14ec_a864)); // lu12i.w $a0
        check(high, 0x1400_0004, to(0x7fff_ffff), Ok(0x14ff_ffe4));
        check(high, 0x1400_0004, to(0x8000_0000), Err(out_of(32, 0x8000_0000)));
        check(high, 0x1400_0004, to(0xffff_ffff_8000_0000), Ok(0x1500_0004));
        check(low, 0x03bf_fc84, plus(ADDRESS, 1), Ok(0x0388_4484)); // ori $a0, $a0
        check(&format!("{family}64_LO20"), 0x17ff_ffe4, to(ADDRESS), Ok(0x1797_5304)); // lu32i.d $a0
        check(&format!("{family}64_HI12"), 0x033f_fc84, to(ADDRESS), Ok(0x033f_b484)); // lu52i.d $a0, $a0
    }
    check("GOT_PC_LO12", 0x28c0_0084, to(ADDRESS), Ok(0x28c8_4084));
    check("TLS_LE_LO12_R", 0x02c0_0084, to(ADDRESS), Ok(0x02c8_4084));
}

#[test]
fn a_high_part_has_32_bits_unless_more_follow() {
    for (name, fixup) in [("ABS_HI20", to(0x1_8000_0000)), ("PCALA_HI20", far(0x1_8000_0000))] {
        let mut code = [0u8; 12];
        let problem = Err(out_of(32, 0x1_8000_0000));
        assert_eq!(LoongArch64::apply(kind(name), &mut code, 0, fixup), problem);
        code[8..].copy_from_slice(&(LU32I_D | 5).to_le_bytes());
        assert_eq!(LoongArch64::apply(kind(name), &mut code, 0, fixup), Ok(()));
        assert_eq!(code[..4], (0x8_0000u32 << 5).to_le_bytes());
    }
}

#[test]
fn pages_are_those_of_the_rounded_address() {
    for name in [
        "PCALA_HI20",
        "GOT_PC_HI20",
        "TLS_IE_PC_HI20",
        "TLS_LD_PC_HI20",
        "TLS_GD_PC_HI20",
        "TLS_DESC_PC_HI20",
    ] {
        check(name, 0x1bff_ffe4, to(0x17ff), Ok(0x1a00_0004)); // pcalau12i $a0
        check(name, 0x1a00_0004, to(0x1800), Ok(0x1a00_0024));
        check(name, 0x1a00_0004, Fixup { place: 0x1ffc, ..to(0x1000) }, Ok(0x1a00_0004));
        check(name, 0x1a00_0004, Fixup { place: 0x2000, ..to(0x1000) }, Ok(0x1bff_ffe4));
        check(name, 0x1a00_0004, far(0x7fff_f7ff), Ok(0x1aff_ffe4));
        check(name, 0x1a00_0004, far(0x7fff_f800), Err(out_of(32, 0x8000_0000)));
        check(name, 0x1a00_0004, far(-0x8000_0800), Ok(0x1b00_0004));
        check(name, 0x1a00_0004, far(-0x8000_0801), Err(out_of(32, -0x8000_1000)));
    }
}

/// What the four instructions of the extreme code model compute at a place, by the ISA manual.
fn computed(place: u64, target: u64) -> u64 {
    let signed = |value: u64, bits| sign_extend(value, bits) as u64;
    let apply = |name, back: u64| {
        let fixup = Fixup { place: place + back, target, ..Fixup::default() };
        let mut code = [0u8; 24];
        code[8..12].copy_from_slice(&LU32I_D.to_le_bytes());
        LoongArch64::apply(kind(name), &mut code, 0, fixup).unwrap();
        u64::from(u32::from_le_bytes(*code.first_chunk().unwrap()))
    };
    let pcalau12i = page(place).wrapping_add(signed((apply("PCALA_HI20", 0) >> 5 & 0xf_ffff) << 12, 32));
    let addi = signed(apply("PCALA_LO12", 4) >> 10 & 0xfff, 12);
    let lu32i = signed(apply("PCALA64_LO20", 8) >> 5 & 0xf_ffff, 20) << 32 | addi & 0xffff_ffff;
    let lu52i = (apply("PCALA64_HI12", 12) >> 10 & 0xfff) << 52 | lu32i & 0xf_ffff_ffff_ffff;
    pcalau12i.wrapping_add(lu52i)
}

#[test]
fn the_extreme_code_model_reaches_everything() {
    for place in [0x1ff8u64, 0x7fff_fff0, 0x1234_5678_9abc_def0, 0xffff_ffff_ffff_e000] {
        for high in [0u64, 1, 0x7fff_ffff, 0x8000_0000, 0x000f_ffff, 0xfff0_0000, 0xffff_ffff] {
            for low in
                [0u64, 0x7ff, 0x800, 0xfff, 0x7fff_f7ff, 0x7fff_f800, 0x8000_0000, 0xffff_f800, 0xffff_ffff]
            {
                let target = high << 32 | low;
                assert_eq!(computed(place, target), target, "{target:#x} from {place:#x}");
            }
        }
    }
}

/// The last two instructions find `pcalau12i`, be it on a page of its own.
#[test]
fn the_extreme_code_model_counts_from_its_first_instruction() {
    for place in [0x7000_1000u64, 0x7000_1ff4, 0x7000_1ff8, 0x7000_1ffc] {
        for distance in [0x7fff_e7ffu64, 0x7fff_e800, 0x7fff_f7ff, 0x7fff_f800, 0x8000_07ff, 0x8000_0800] {
            for target in [page(place).wrapping_add(distance), page(place).wrapping_sub(distance)] {
                assert_eq!(computed(place, target), target, "{target:#x} from {place:#x}");
            }
        }
    }
}

#[test]
fn the_last_parts_of_the_extreme_code_model_are_fixed_numbers_too() {
    let at = |place| Fixup { place, ..to(0x1234_5678_9abc_d800) };
    for family in ["PCALA64", "GOT64_PC", "TLS_IE64_PC", "TLS_DESC64_PC"] {
        check(&format!("{family}_LO20"), 0x16ff_ffe4, at(0x1008), Ok(0x168a_cf04));
        check(&format!("{family}_HI12"), 0x033f_fc84, at(0x100c), Ok(0x0304_8c84));
    }
}

#[test]
fn the_low_part_of_a_jump_counts_in_words() {
    check("PCALA_LO12", 0x02ff_fc84, to(0x1234_5678), Ok(0x02d9_e084)); // addi.d
    check("PCALA_LO12", 0x4fff_fc21, to(0x1234_5678), Ok(0x4c06_7821 & !0x3ff_fc00 | 0x19e << 10)); // jirl
    check("PCALA_LO12", 0x4c00_0021, to(0x1234_5ffc), Ok(0x4fff_fc21));
    check("PCALA_LO12", 0x4c00_0021, to(0x1234_5ffe), Err(no_word(0x1234_5ffe)));
}

#[test]
fn rounded_pairs() {
    for name in
        ["PCADD_HI20", "GOT_PCADD_HI20", "TLS_IE_PCADD_HI20", "TLS_LD_PCADD_HI20", "TLS_GD_PCADD_HI20"]
    {
        check(name, 0x1dff_ffe4, far(0x1234_57ff), Ok(0x1c24_68a4)); // pcaddu12i $a0
        check(name, 0x1c00_0004, far(0x1234_5800), Ok(0x1c24_68c4));
        check(name, 0x1c00_0004, far(0x7fff_f7ff), Ok(0x1cff_ffe4));
        check(name, 0x1c00_0004, far(0x7fff_f800), Err(out_of(32, 0x8000_0000)));
        check(name, 0x1c00_0004, far(-0x8000_0800), Ok(0x1d00_0004));
        check(name, 0x1c00_0004, far(-0x8000_0801), Err(out_of(32, -0x8000_0001)));
    }
    for name in ["PCADD_LO12", "GOT_PCADD_LO12", "TLS_DESC_PCADD_LO12"] {
        check(name, 0x02ff_fc84, far(0x1234_5678), Ok(0x02d9_e084));
    }
    check("TLS_LE_HI20_R", 0x15ff_ffe4, to(0x1234_5800), Ok(0x1424_68c4));
    check("TLS_LE_HI20_R", 0x1400_0004, to(0x7fff_f800), Err(out_of(32, 0x8000_0000)));
}

#[test]
fn numbers_are_added_to_and_subtracted_from() {
    for (width, mask) in [(8, 0xff), (16, 0xffff), (32, 0xffff_ffff), (64, u64::MAX)] {
        let bytes = |number: u64| (number & mask | 0x1122_3344_5566_7788 & !mask).to_le_bytes();
        let after = |name: &str, fixup| {
            let mut section = bytes(0xa0);
            LoongArch64::apply(kind(name), &mut section, 0, fixup).map(|()| section)
        };
        assert_eq!(after(&format!("ADD{width}"), plus(0x1_0000_0071, -1)), Ok(bytes(0x1_0000_0110)));
        assert_eq!(after(&format!("SUB{width}"), plus(0x1_0000_0071, 1)), Ok(bytes(0xffff_ffff_0000_002e)));
    }
    assert_eq!(field_after::<1>("SUB6", [0b11_000001], to(0x42)), Ok([0b11_111111]));
    assert_eq!(field_after::<1>("ADD6", [0b01_111111], to(0x42)), Ok([0b01_000001]));
}

#[test]
fn numbers_have_the_widths_of_their_names() {
    for (name, listed) in ELF.iter() {
        match listed {
            Ok(Kind::Add(width)) => assert_eq!(*name, format!("ADD{width}")),
            Ok(Kind::Sub(width)) => assert_eq!(*name, format!("SUB{width}")),
            _ => {}
        }
    }
}

#[test]
fn a_difference_keeps_the_length_of_its_field() {
    let add = |before, value| field_after::<2>("ADD_ULEB128", before, to(value));
    let sub = |before, value| field_after::<2>("SUB_ULEB128", before, to(value));
    assert_eq!(add([0x80, 0x00], 0x1234), Ok([0xb4, 0x24]));
    assert_eq!(sub([0xb4, 0x24], 0x1000), Ok([0xb4, 0x04]));
    assert_eq!(add([0x80, 0x00], 0x9234), Ok([0xb4, 0x24]), "what is too much is cut off");
    assert_eq!(sub([0x80, 0x00], 1), Ok([0xff, 0x7f]));
    assert_eq!(add([0x01, 0xee], 0x7f), Ok([0x00, 0xee]));
    let mut all = [0xff; 10];
    all[9] = 1;
    let after = field_after::<10>("SUB_ULEB128", all, to(u64::MAX));
    assert_eq!(after, Ok([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]));
    let endless = LoongArch64::apply(Kind::AddUleb128, &mut [0x80; 100], 0, to(0));
    assert_eq!(endless, Err(FixupProblem::Unsupported("a ULEB128 number of more than 10 bytes")));
}

#[test]
fn a_field_must_be_inside_of_the_section() {
    for (name, listed) in ELF.iter() {
        let Ok(listed) = *listed else { continue };
        let width = match listed {
            Kind::None | Kind::Align | Kind::DescLoad | Kind::DescCall => continue,
            Kind::Abs64 | Kind::Pcrel64 | Kind::Call30 | Kind::Call36 | Kind::TlsDtprel64 => 8,
            Kind::Add(bits) | Kind::Sub(bits) => usize::from(bits).div_ceil(8),
            Kind::AddUleb128 | Kind::SubUleb128 => 1,
            _ => 4,
        };
        let fixup = Fixup::default();
        let mut section = vec![0; width];
        assert_eq!(LoongArch64::apply(listed, &mut section, 0, fixup), Ok(()), "{name}");
        for offset in [1, u64::MAX, u64::MAX - 3] {
            assert_eq!(
                LoongArch64::apply(listed, &mut section, offset, fixup),
                Err(OutsideSection),
                "{name}"
            );
        }
        assert!(section.iter().all(|byte| *byte == 0), "{name}");
    }
}

fn at(offset: u64, symbol: u32, addend: i64) -> Relocation {
    Relocation { offset, raw_kind: 0, symbol, addend, subtrahend: Relocation::NO_SYMBOL }
}

#[test]
fn padding_has_two_encodings() {
    let padding = |symbol, addend| LoongArch64::padding(Kind::Align, &at(0, symbol, addend));
    let of = |align, most| Ok(Padding { bytes: align - 4, align, most });
    assert_eq!(padding(0, 4), of(8, u64::MAX));
    assert_eq!(padding(0, 12), of(16, u64::MAX));
    assert_eq!(padding(0, 28), of(32, u64::MAX));
    assert_eq!(padding(7, 4), of(16, u64::MAX));
    assert_eq!(padding(7, 5), of(32, u64::MAX));
    assert_eq!(padding(7, 5 | 12 << 8), of(32, 12));
    assert_eq!(padding(7, 2), of(4, u64::MAX));
    for (symbol, addend) in [(0, 0), (0, 1), (0, -1), (7, 0), (7, 1), (7, 64), (7, 255), (7, i64::MIN)] {
        assert!(padding(symbol, addend).is_err(), "{symbol} {addend}");
    }
    let mut bytes = [0xa5; 10];
    LoongArch64::write_nops(&mut bytes);
    assert_eq!(bytes, [0, 0, 0x40, 0x03, 0, 0, 0x40, 0x03, 0, 0]);
}

/// A load through the GOT with its relocations, at a target that is or is not in reach.
fn relaxed(code: [u32; 2], low: Relocation, low_kind: Kind, fixup: Fixup) -> (Relaxed, [u32; 2]) {
    let mut bytes = (u64::from(code[1]) << 32 | u64::from(code[0])).to_le_bytes();
    let next = Some((low_kind, low));
    let relaxed = LoongArch64::relax(kind("GOT_PC_HI20"), &at(0, 3, 0), next, &mut bytes, fixup);
    let after = u64::from_le_bytes(bytes);
    (relaxed, [after as u32, (after >> 32) as u32])
}

#[test]
fn a_load_from_the_got_becomes_an_addition() {
    let code = [0x1a00_0004, 0x28c0_0084]; // pcalau12i $a0, 0; ld.d $a0, $a0, 0
    let low = at(4, 3, 0);
    let done = (Relaxed::Both, [0x1a68_acc4, 0x02e0_0084]);
    assert_eq!(relaxed(code, low, PART_OF_SLOT, to(0x3456_6800)), done);
    let upper = relaxed([0x1a00_0014, 0x28c0_0294], low, PART_OF_SLOT, to(0x3456_6800)); // $t8
    assert_eq!(upper, (Relaxed::Both, [0x1a68_acd4, 0x02e0_0294]));
    let edge = |distance: i64| {
        relaxed(code, low, PART_OF_SLOT, Fixup { addend: 0, target: (1 << 60) + distance as u64, ..far(0) })
    };
    assert_eq!(edge(0x7fff_f7ff).0, Relaxed::Both);
    assert_eq!(edge(0x7fff_f800).0, Relaxed::No);

    let kept = (Relaxed::No, code);
    assert_eq!(relaxed(code, at(4, 4, 0), PART_OF_SLOT, to(0x2000)), kept, "another symbol");
    assert_eq!(relaxed(code, at(8, 3, 0), PART_OF_SLOT, to(0x2000)), kept, "another place");
    assert_eq!(relaxed(code, at(4, 3, 8), PART_OF_SLOT, to(0x2000)), kept, "not the entry itself");
    assert_eq!(relaxed(code, low, Kind::PcalaLo12, to(0x2000)), kept);
    for other in
        [[0x1a00_0005, code[1]], [code[0], 0x28c0_0085], [code[0], 0x28c0_00a4], [code[0], 0x02c0_0084]]
    {
        assert_eq!(relaxed(other, low, PART_OF_SLOT, to(0x2000)), (Relaxed::No, other));
    }
    let none = LoongArch64::relax(PAGE_PART_OF_SLOT, &at(0, 3, 0), None, &mut [0; 8], to(0));
    assert_eq!(none, Relaxed::No);
    let short =
        LoongArch64::relax(PAGE_PART_OF_SLOT, &at(0, 3, 0), Some((PART_OF_SLOT, low)), &mut [0; 4], to(0));
    assert_eq!(short, Relaxed::No);
}

#[test]
fn a_stub_jumps_through_its_entry() {
    let stub = |place, slot| {
        let mut stub = [0; 16];
        LoongArch64::write_stub(0, &mut stub, place, Stub { slot, target: 0, got: 0 })?;
        Ok([0, 4, 8, 12].map(|at| u32::from_le_bytes(*stub[at..].first_chunk().unwrap())))
    };
    assert_eq!(stub(0x1010, 0x4ff8), Ok([0x1a00_0094, 0x28ff_e294, 0x4c00_0280, 0x002a_0000]));
    assert_eq!(stub(0, 0x7fff_f800), Err(out_of(32, 0x8000_0000)));
}

#[test]
fn each_number_has_a_name_and_a_kind_or_a_reason() {
    for raw in 0..=200 {
        let name = LoongArch64::name(Format::Elf, raw);
        let named = name.starts_with("R_LARCH_");
        match LoongArch64::kind(Format::Elf, raw) {
            Ok(_) => assert!(named, "{raw}"),
            Err(why) => assert!(!why.is_empty() && (named || name.contains("type")), "{raw}"),
        }
        assert!(LoongArch64::kind(Format::MachO, raw).is_err());
    }
    for (raw, name) in [
        (2, "R_LARCH_64"),
        (15, "relocation type 15"),
        (22, "R_LARCH_SOP_PUSH_PCREL"),
        (46, "R_LARCH_SOP_POP_32_U"),
        (56, "R_LARCH_SUB64"),
        (64, "R_LARCH_B16"),
        (72, "R_LARCH_PCALA_LO12"),
        (82, "R_LARCH_GOT64_HI12"),
        (99, "R_LARCH_32_PCREL"),
        (102, "R_LARCH_ALIGN"),
        (110, "R_LARCH_CALL36"),
        (126, "R_LARCH_TLS_DESC_PCREL20_S2"),
        (139, "R_LARCH_TLS_DESC_PCADD_LO12"),
        (140, "relocation type 140"),
    ] {
        assert_eq!(LoongArch64::name(Format::Elf, raw), name);
    }
    assert_eq!(LoongArch64::kind(Format::Elf, 30), STACK);
    assert!(LoongArch64::kind(Format::Elf, u32::MAX).is_err());
}

#[test]
fn what_each_kind_refers_to() {
    let operand = |name| LoongArch64::operand(kind(name));
    for name in ["B16", "B21", "B26", "CALL30", "CALL36"] {
        assert_eq!(operand(name), Operand::Branch);
    }
    for name in ["NONE", "MARK_LA", "MARK_PCREL", "RELAX", "TLS_LE_ADD_R", "TLS_DESC_LD", "TLS_DESC_CALL"] {
        assert_eq!(operand(name), Operand::None);
    }
    for (name, slot) in [
        ("GOT_PC_HI20", SlotKind::Address),
        ("GOT64_PC_HI12", SlotKind::Address),
        ("GOT_LO12", SlotKind::Address),
        ("GOT_PCADD_HI20", SlotKind::Address),
        ("TLS_IE_PC_HI20", SlotKind::ThreadOffset),
        ("TLS_IE64_LO20", SlotKind::ThreadOffset),
        ("TLS_GD_PC_HI20", SlotKind::ThreadIndex),
        ("TLS_LD_HI20", SlotKind::ThreadIndex),
        ("TLS_GD_PCREL20_S2", SlotKind::ThreadIndex),
        ("TLS_DESC_PC_LO12", SlotKind::ThreadDescriptor),
        ("TLS_DESC_PCADD_HI20", SlotKind::ThreadDescriptor),
    ] {
        assert_eq!(operand(name), Operand::Slot(slot), "{name}");
    }
    for name in ["TLS_LE_HI20", "TLS_LE64_HI12", "TLS_LE_HI20_R", "TLS_LE_LO12_R"] {
        assert_eq!(operand(name), Operand::ThreadOffset);
    }
    for name in ["GOT_PC_LO12", "GOT64_PC_LO20", "GOT64_PC_HI12"] {
        let operand = LoongArch64::thread_local_operand(kind(name));
        assert_eq!(operand, Operand::Slot(SlotKind::ThreadIndex), "{name}");
    }
    let low = LoongArch64::thread_local_operand(kind("TLS_IE_PC_LO12"));
    assert_eq!(low, Operand::Slot(SlotKind::ThreadOffset));
    assert_eq!(operand("TLS_DTPREL64"), Operand::BlockOffset);
    assert_eq!(operand("PCADD_LO12"), Operand::PairedLow);
    assert_eq!(operand("ALIGN"), Operand::Alignment);
    assert!(
        LoongArch64::is_paired_high(kind("GOT_PCADD_HI20"))
            && !LoongArch64::is_paired_high(kind("PCALA_HI20"))
    );
}
