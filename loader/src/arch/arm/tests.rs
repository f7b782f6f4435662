//! Facts about single fix-ups: the value, and both sides of each edge.

use super::{Kind::*, *};
use FixupProblem::{Misaligned, OutsideSection};

const PLACE: u64 = 0x10_0000;

/// Place 0x100000, addend 0, GOT 0x5000 unless changed.
fn to(target: u64) -> Fixup {
    Fixup { place: PLACE, target, got: 0x5000, ..Fixup::default() }
}

fn plus(target: u64, addend: i64) -> Fixup {
    Fixup { addend, ..to(target) }
}

/// At some distance from the place, addend included.
fn away(distance: i64) -> Fixup {
    to(PLACE.wrapping_add_signed(distance))
}

fn to_arm(fixup: Fixup) -> Fixup {
    Fixup { symbol_flags: FUNCTION, ..fixup }
}

fn to_thumb(fixup: Fixup) -> Fixup {
    Fixup { symbol_flags: FUNCTION | THUMB, ..fixup }
}

fn out_of(bits: u32, value: i64) -> Result<u32, FixupProblem> {
    Err(FixupProblem::OutOfRange { value, bits })
}

/// Applies to the `N` bytes of an instruction or a word between guards.
fn apply<const N: usize>(kind: Kind, before: [u8; N], fixup: Fixup) -> Result<[u8; N], FixupProblem> {
    let mut section = [&[0xa6; 4][..], &before, &[0xa6; 4]].concat();
    let result = Arm::apply(kind, &mut section, 4, fixup);
    assert_eq!(
        (&section[..4], &section[4 + N..]),
        (&[0xa6; 4][..], &[0xa6; 4][..]),
        "wrote beside the field"
    );
    let after = section[4..4 + N].try_into().unwrap();
    assert!(result.is_ok() || after == before, "changed something and failed");
    result.map(|()| after)
}

/// A word, or an A32 instruction.
#[track_caller]
fn check(kind: Kind, before: u32, fixup: Fixup, expected: Result<u32, FixupProblem>) {
    let result = apply(kind, before.to_le_bytes(), fixup).map(u32::from_le_bytes);
    assert_eq!(result.map(Hex), expected.map(Hex));
}

/// A T32 instruction of two halfwords, the first one above.
#[track_caller]
fn check_pair(kind: Kind, before: u32, fixup: Fixup, expected: Result<u32, FixupProblem>) {
    let bytes = |pair: u32| pair.rotate_left(16).to_le_bytes();
    let result = apply(kind, bytes(before), fixup).map(|bytes| u32::from_le_bytes(bytes).rotate_left(16));
    assert_eq!(result.map(Hex), expected.map(Hex));
}

/// One halfword.
#[track_caller]
fn check_half(kind: Kind, before: u16, fixup: Fixup, expected: Result<u32, FixupProblem>) {
    let result = apply(kind, before.to_le_bytes(), fixup).map(|bytes| u32::from(u16::from_le_bytes(bytes)));
    assert_eq!(result.map(Hex), expected.map(Hex));
}

#[derive(PartialEq)]
struct Hex(u32);

impl std::fmt::Debug for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What the field holds as an addend.
#[track_caller]
fn addend(kind: Kind, word: u32, expected: i64) {
    assert_eq!(Arm::implicit_addend(kind, &word.to_le_bytes(), 0), Ok(expected), "{kind:?} {word:#x}");
}

#[track_caller]
fn addend_of_pair(kind: Kind, pair: u32, expected: i64) {
    addend(kind, pair.rotate_left(16), expected);
}

#[test]
fn none_does_nothing() {
    check(None, 0x1234, to(u64::MAX), Ok(0x1234));
}

#[test]
fn words_wrap_round_and_have_the_state_of_functions() {
    check(Abs32, 7, plus(0x1234, 4), Ok(0x1238));
    check(Abs32, 7, plus(0, -1), Ok(u32::MAX));
    check(Abs32, 7, to_thumb(plus(0x1234, 4)), Ok(0x1239));
    check(Abs32, 7, to_arm(plus(0x1234, 4)), Ok(0x1238));
    check(Rel32, 7, away(0x40), Ok(0x40));
    check(Rel32, 7, to_thumb(away(-0x40)), Ok(-0x3fi32 as u32));
    check(GotOff32, 7, to_thumb(plus(0x4000, 8)), Ok(0xffff_f009));
    check(BasePrel, 7, away(8), Ok(8));
    // Entries have the state in them, not in their addresses.
    check(GotBrel, 7, to_thumb(plus(0x5010, 4)), Ok(0x14));
    for kind in [GotPrel, TlsGd32, TlsLdm32, TlsIe32] {
        check(kind, 7, to_thumb(away(-8)), Ok(-8i32 as u32));
    }
    for kind in [TlsLe32, TlsLdo32] {
        check(kind, 7, plus(8, 4), Ok(12));
    }
}

#[test]
fn halves_and_bytes_have_neither_sign_nor_state() {
    check_half(Abs16, 7, to_thumb(plus(0x1234, 4)), Ok(0x1238));
    assert_eq!(apply(Abs8, [7], to_thumb(plus(0x12, 4))), Ok([0x16]));
    check_half(Abs16, 7, to(0xffff), Ok(0xffff));
    check_half(Abs16, 7, to(0x1_0000), out_of(16, 0x1_0000));
    check_half(Abs16, 7, plus(0, -0x8000), Ok(0x8000));
    check_half(Abs16, 7, plus(0, -0x8001), out_of(16, -0x8001));
    assert_eq!(apply(Abs8, [7], to(0xff)), Ok([0xff]));
    assert_eq!(apply(Abs8, [7], to(0x100)), Err(FixupProblem::OutOfRange { value: 0x100, bits: 8 }));
    assert_eq!(apply(Abs8, [7], plus(0, -0x80)), Ok([0x80]));
    assert_eq!(apply(Abs8, [7], plus(0, -0x81)), Err(FixupProblem::OutOfRange { value: -0x81, bits: 8 }));
}

#[test]
fn prel31_leaves_the_highest_bit_alone() {
    check(Prel31, 0x8000_0000, away(0x3fff_ffff), Ok(0xbfff_ffff));
    check(Prel31, 0x7fff_ffff, away(0), Ok(0));
    check(Prel31, 0, away(0x4000_0000), out_of(31, 0x4000_0000));
    check(Prel31, 0, away(-0x4000_0000), Ok(0x4000_0000));
    check(Prel31, 0, away(-0x4000_0001), out_of(31, -0x4000_0001));
    check(Prel31, 0, to_thumb(away(8)), Ok(9));
    addend(Prel31, 0xffff_fffc, -4);
    addend(Prel31, 0x8000_0004, 4);
}

#[test]
fn an_arm_call_becomes_what_its_target_needs() {
    check(Call, 0xebff_fffe, to_arm(away(-8)), Ok(0xebff_fffe));
    check(Call, 0xebff_fffe, to_arm(away(0x1ff_fffc)), Ok(0xeb7f_ffff));
    check(Call, 0xebff_fffe, to_arm(away(0x200_0000)), out_of(26, 0x200_0000));
    check(Call, 0xebff_fffe, to_arm(away(-0x200_0000)), Ok(0xeb80_0000));
    check(Call, 0xebff_fffe, to_arm(away(-0x200_0004)), out_of(26, -0x200_0004));
    // blx, with the bit for halfwords.
    check(Call, 0xebff_fffe, to_thumb(away(0x10)), Ok(0xfa00_0004));
    check(Call, 0xebff_fffe, to_thumb(away(0x12)), Ok(0xfb00_0004));
    check(Call, 0xebff_fffe, to_thumb(away(0x1ff_fffe)), Ok(0xfb7f_ffff));
    check(Call, 0xebff_fffe, to_thumb(away(0x200_0000)), out_of(26, 0x200_0001));
    check(Call, 0xfb00_0000, to_arm(away(0x10)), Ok(0xeb00_0004));
    check(Call, 0x0b00_0000, to_arm(away(0x10)), Ok(0xeb00_0004));
    // Nothing is known of the target: the instruction stays what it is.
    check(Call, 0xeb00_0000, away(0x10), Ok(0xeb00_0004));
    check(Call, 0xfb00_0000, away(0x12), Ok(0xfb00_0004));
    check(Call, 0xfa00_0000, away(0x10), Ok(0xfa00_0004));
}

#[test]
fn an_arm_jump_keeps_its_condition() {
    check(Jump24, 0x1a00_0000, away(0x1ff_fffc), Ok(0x1a7f_ffff));
    check(Jump24, 0x1a00_0000, away(0x200_0000), out_of(26, 0x200_0000));
    check(Jump24, 0x1a12_3456, away(-0x200_0000), Ok(0x1a80_0000));
    check(Jump24, 0x1a00_0000, away(-0x200_0004), out_of(26, -0x200_0004));
    for kind in [Call, Jump24] {
        addend(kind, 0xebff_fffe, -8);
        addend(kind, 0xeb7f_ffff, 0x1ff_fffc);
        addend(kind, 0xeb80_0000, -0x200_0000);
    }
}

#[test]
fn a_thumb_call_becomes_what_its_target_needs() {
    // bl.
    check_pair(ThmCall, 0xf7ff_fffe, to_thumb(away(-4)), Ok(0xf7ff_fffe));
    check_pair(ThmCall, 0xf7ff_fffe, to_thumb(away(0xff_fffe)), Ok(0xf3ff_d7ff));
    check_pair(ThmCall, 0xf7ff_fffe, to_thumb(away(0x100_0000)), out_of(25, 0x100_0001));
    check_pair(ThmCall, 0xf7ff_fffe, to_thumb(away(-0x100_0000)), Ok(0xf400_d000));
    check_pair(ThmCall, 0xf7ff_fffe, to_thumb(away(-0x100_0002)), out_of(25, -0x100_0001));
    check_pair(ThmCall, 0xf7ff_effe, to_thumb(away(0x40_0000)), Ok(0xf000_f000));
    // blx, which counts from a word.
    check_pair(ThmCall, 0xf7ff_fffe, to_arm(away(0x10)), Ok(0xf000_e808));
    check_pair(ThmCall, 0xf7ff_fffe, to_arm(Fixup { place: PLACE + 2, ..away(0x10) }), Ok(0xf000_e808));
    check_pair(ThmCall, 0xf7ff_fffe, to_arm(away(0xff_fffc)), Ok(0xf3ff_c7fe));
    check_pair(ThmCall, 0xf7ff_fffe, to_arm(away(0x100_0000)), out_of(25, 0x100_0000));
    // Nothing is known of the target: the instruction stays what it is.
    check_pair(ThmCall, 0xf7ff_fffe, away(0x10), Ok(0xf000_f808));
    check_pair(ThmCall, 0xf7ff_effe, away(0x10), Ok(0xf000_e808));
}

#[test]
fn thumb_jumps() {
    check_pair(ThmJump24, 0xf7ff_bffe, to_thumb(away(0xff_fffe)), Ok(0xf3ff_97ff));
    check_pair(ThmJump24, 0xf7ff_bffe, away(0x100_0000), out_of(25, 0x100_0000));
    check_pair(ThmJump24, 0xf7ff_bffe, away(-0x100_0000), Ok(0xf400_9000));
    check_pair(ThmJump24, 0xf7ff_bffe, away(-0x100_0002), out_of(25, -0x100_0002));
    check_pair(ThmJump24, 0xf7ff_bffe, away(0x80_0000), Ok(0xf000_9800));
    check_pair(ThmJump24, 0xf7ff_bffe, away(0x40_0000), Ok(0xf000_b000));
    // beq.w, bne.w: the condition stays.
    check_pair(ThmJump19, 0xf43f_affe, away(0xf_fffe), Ok(0xf03f_afff));
    check_pair(ThmJump19, 0xf47f_affe, away(0xf_fffe), Ok(0xf07f_afff));
    check_pair(ThmJump19, 0xf43f_affe, away(0x10_0000), out_of(21, 0x10_0000));
    check_pair(ThmJump19, 0xf43f_affe, away(-0x10_0000), Ok(0xf400_8000));
    check_pair(ThmJump19, 0xf43f_affe, away(-0x10_0002), out_of(21, -0x10_0002));
    check_pair(ThmJump19, 0xf43f_affe, away(0x8_0000), Ok(0xf000_8800));
    check_pair(ThmJump19, 0xf43f_affe, away(0x4_0000), Ok(0xf000_a000));
    check_half(ThmJump11, 0xe7fe, away(0x7fe), Ok(0xe3ff));
    check_half(ThmJump11, 0xe7fe, away(0x800), out_of(12, 0x800));
    check_half(ThmJump11, 0xe7fe, away(-0x800), Ok(0xe400));
    check_half(ThmJump11, 0xe7fe, away(-0x802), out_of(12, -0x802));
    check_half(ThmJump8, 0xd0fe, away(0xfe), Ok(0xd07f));
    check_half(ThmJump8, 0xd0fe, away(0x100), out_of(9, 0x100));
    check_half(ThmJump8, 0xd1fe, away(-0x100), Ok(0xd180));
    check_half(ThmJump8, 0xd0fe, away(-0x102), out_of(9, -0x102));
}

#[test]
fn addends_of_thumb_branches() {
    for kind in [ThmCall, ThmJump24] {
        addend_of_pair(kind, 0xf7ff_fffe, -4);
        addend_of_pair(kind, 0xf3ff_d7ff, 0xff_fffe);
        addend_of_pair(kind, 0xf400_d000, -0x100_0000);
        addend_of_pair(kind, 0xf000_d800, 0x80_0000);
        addend_of_pair(kind, 0xf000_f000, 0x40_0000);
    }
    addend_of_pair(ThmJump19, 0xf43f_affe, -4);
    addend_of_pair(ThmJump19, 0xf03f_afff, 0xf_fffe);
    addend_of_pair(ThmJump19, 0xf400_8000, -0x10_0000);
    addend_of_pair(ThmJump19, 0xf000_8800, 0x8_0000);
    addend_of_pair(ThmJump19, 0xf000_a000, 0x4_0000);
    addend(ThmJump11, 0xe7fe, -4);
    addend(ThmJump11, 0xe3ff, 0x7fe);
    addend(ThmJump8, 0xd0fe, -4);
    addend(ThmJump8, 0xd07f, 0xfe);
}

#[test]
fn moves_take_sixteen_bits_each() {
    for (low, high) in [(MovwAbs, MovtAbs), (MovwPrel, MovtPrel)] {
        let fixup = if low == MovwAbs { to(0x89ab_cdef) } else { away(0x89ab_cdef) };
        check(low, 0xe300_3000, fixup, Ok(0xe30c_3def));
        check(high, 0xe340_3000, fixup, Ok(0xe348_39ab));
        check(low, 0xe30f_3fff, to_thumb(if low == MovwAbs { to(0) } else { away(0) }), Ok(0xe300_3001));
        check(high, 0xe34f_3fff, if low == MovwAbs { to(0) } else { away(0) }, Ok(0xe340_3000));
        for kind in [low, high] {
            addend(kind, 0xe30c_3def, -0x3211);
            addend(kind, 0xe347_3fff, 0x7fff);
        }
    }
    for (low, high) in [(ThmMovwAbs, ThmMovtAbs), (ThmMovwPrel, ThmMovtPrel)] {
        let fixup = if low == ThmMovwAbs { to(0x89ab_cdef) } else { away(0x89ab_cdef) };
        check_pair(low, 0xf240_0300, fixup, Ok(0xf64c_53ef));
        check_pair(high, 0xf2c0_0300, fixup, Ok(0xf6c8_13ab));
        let ones = if low == ThmMovwAbs { to(0x1fff_1fff) } else { away(0x1fff_1fff) };
        check_pair(low, 0xf240_0300, ones, Ok(0xf641_73ff));
        check_pair(high, 0xf2c0_0300, ones, Ok(0xf6c1_73ff));
        check_pair(
            low,
            0xf64f_73ff,
            to_thumb(if low == ThmMovwAbs { to(0) } else { away(0) }),
            Ok(0xf240_0301),
        );
        for kind in [low, high] {
            addend_of_pair(kind, 0xf64c_53ef, -0x3211);
            addend_of_pair(kind, 0xf247_73ff, 0x77ff);
        }
    }
}

#[test]
fn groups_of_a_distance() {
    let alu = |group, checked| AluPc { group, checked };
    // 0x1234560 is 0x48 from bit 18 up, then 0xd1 from bit 10, then 0x58 from bit 2: rotations by 14, 22 and 30.
    check(alu(0, false), 0xe28f_0000, away(0x0123_4560), Ok(0xe28f_0748));
    check(alu(0, true), 0xe28f_0fff, away(0x0120_0000), Ok(0xe28f_0748));
    check(alu(0, true), 0xe28f_0000, away(0x0123_4560), out_of(8, 0x0123_4560));
    check(alu(1, false), 0xe280_0000, away(0x0123_4560), Ok(0xe280_0bd1));
    check(alu(1, true), 0xe280_0000, away(0x0123_4400), Ok(0xe280_0bd1));
    check(alu(1, true), 0xe280_0000, away(0x0123_4560), out_of(8, 0x3_4560));
    check(alu(2, true), 0xe280_0000, away(0x0123_4560), Ok(0xe280_0f58));
    check(alu(2, true), 0xe280_0000, away(0x0123_4561), out_of(8, 0x161));
    check(alu(0, true), 0xe28f_0000, away(-0x8000_0000), Ok(0xe24f_0480));
    // What is subtracted.
    check(alu(0, true), 0xe28f_0000, away(-0xff), Ok(0xe24f_00ff));
    check(alu(0, true), 0xe24f_0fff, away(0), Ok(0xe28f_0000));
    check(alu(0, true), 0xe28f_0000, to_thumb(away(4)), Ok(0xe28f_0005));
    addend(alu(0, true), 0xe28f_0748, 0x0120_0000);
    addend(alu(0, true), 0xe24f_00ff, -0xff);
}

#[test]
fn loads_relative_to_a_word() {
    let inside = |distance: i64| Fixup { place: PLACE + 2, ..away(distance) };
    check(LdrPc { group: 0 }, 0xe51f_0000, away(0xfff), Ok(0xe59f_0fff));
    check(LdrPc { group: 0 }, 0xe51f_0000, away(0x1000), out_of(12, 0x1000));
    check(LdrPc { group: 0 }, 0xe59f_0fff, away(-0xfff), Ok(0xe51f_0fff));
    check(LdrPc { group: 0 }, 0xe59f_0fff, to_thumb(away(8)), Ok(0xe59f_0008));
    check(LdrPc { group: 1 }, 0xe590_0000, away(0x12_0456), Ok(0xe590_0456));
    check(LdrPc { group: 2 }, 0xe590_0000, away(-0x12_3456), Ok(0xe510_0016));
    check(LdrsPc { group: 0 }, 0xe15f_00d0, away(0xab), Ok(0xe1df_0adb));
    check(LdrsPc { group: 0 }, 0xe15f_00d0, away(0x100), out_of(8, 0x100));
    check(LdrsPc { group: 0 }, 0xe1df_0fdf, away(-0x12), Ok(0xe15f_01d2));
    addend(LdrPc { group: 0 }, 0xe59f_0123, 0x123);
    addend(LdrPc { group: 0 }, 0xe51f_0008, -8);
    addend(LdrsPc { group: 0 }, 0xe15f_00d8, -8);
    addend(LdrsPc { group: 0 }, 0xe1df_0adb, 0xab);

    check_pair(ThmPc12, 0xf85f_0004, inside(0xfff), Ok(0xf8df_0fff));
    check_pair(ThmPc12, 0xf85f_0004, away(0x1000), out_of(12, 0x1000));
    check_pair(ThmPc12, 0xf8df_0004, away(-0xfff), Ok(0xf85f_0fff));
    check_pair(ThmPc12, 0xf8df_0004, away(-0x1000), out_of(12, 0x1000));
    check_pair(ThmAluPrel11, 0xf2af_0104, inside(0xfff), Ok(0xf60f_71ff));
    check_pair(ThmAluPrel11, 0xf2af_0104, away(0x1000), out_of(12, 0x1000));
    check_pair(ThmAluPrel11, 0xf2af_0104, away(0), Ok(0xf20f_0100));
    check_pair(ThmAluPrel11, 0xf20f_0104, away(-0xfff), Ok(0xf6af_71ff));
    check_pair(ThmAluPrel11, 0xf20f_0104, to_thumb(away(4)), Ok(0xf20f_0105));
    check_half(ThmPc8, 0x48ff, inside(0x3fc), Ok(0x48ff));
    check_half(ThmPc8, 0x4fff, to_thumb(away(0x10)), Ok(0x4f04));
    check_half(ThmPc8, 0x48ff, away(0x400), out_of(10, 0x400));
    check_half(ThmPc8, 0x48ff, away(-4), out_of(10, -4));
    check_half(ThmPc8, 0x48ff, away(2), Err(Misaligned { value: 2, align: 4 }));
    addend_of_pair(ThmPc12, 0xf85f_0004, -4);
    addend_of_pair(ThmPc12, 0xf8df_0fff, 0xfff);
    addend_of_pair(ThmAluPrel11, 0xf2af_0104, -4);
    addend_of_pair(ThmAluPrel11, 0xf60f_71ff, 0xfff);
    addend(ThmPc8, 0x48ff, -4);
    addend(ThmPc8, 0x4801, 4);
}

#[test]
fn an_address_byte_by_byte() {
    for (group, byte) in [(0, 0xf0), (1, 0xcd), (2, 0xab), (3, 0x89)] {
        check_half(ThmAluAbs { group }, 0x20ff, to(0x89ab_cdf0), Ok(0x2000 | byte));
        addend(ThmAluAbs { group }, 0x2012, 0x12);
    }
    check_half(ThmAluAbs { group: 0 }, 0x20ff, to_thumb(to(0x10)), Ok(0x2011));
}

#[test]
fn a_weak_symbol_that_nobody_defines_is_the_next_instruction() {
    let nowhere = |addend| Fixup { undefined_weak: true, ..plus(0, addend) };
    check(Call, 0xebff_fffe, nowhere(-8), Ok(0xebff_ffff));
    check(Jump24, 0xeaff_fffe, nowhere(-8), Ok(0xeaff_ffff));
    check_pair(ThmCall, 0xf7ff_fffe, nowhere(-4), Ok(0xf000_f800));
    check_pair(ThmJump24, 0xf7ff_bffe, nowhere(-4), Ok(0xf000_b800));
    check_pair(ThmJump19, 0xf43f_affe, nowhere(-4), Ok(0xf000_8000));
    check_half(ThmJump11, 0xe7fe, nowhere(-4), Ok(0xe7ff));
    check_half(ThmJump8, 0xd0fe, nowhere(-4), Ok(0xd0ff));
    check(Prel31, 0, nowhere(8), Ok(12));
    check(Abs32, 7, nowhere(0), Ok(0));
    check(Rel32, 7, nowhere(4), Ok(4));
    check_half(ThmPc8, 0x48ff, nowhere(-4), Ok(0x4800));
    assert!(!Arm::needs_stub(ThmJump24, &[], 0, Arm::external_value(0, true).1));
}

#[test]
fn symbols_and_addresses_have_a_state() {
    let symbol = |kind, place, value| Symbol {
        name: 0,
        place,
        value,
        size: 0,
        binding: crate::graph::Binding::Global,
        hidden: false,
        kind,
        other: 0,
    };
    use crate::graph::SymbolKind::{Data, Function, Unknown};
    let here = SymbolPlace::Section(1);
    assert_eq!(Arm::symbol_value(symbol(Function, here, 0x101)), (0x100, FUNCTION | THUMB));
    assert_eq!(Arm::symbol_value(symbol(Function, here, 0x100)), (0x100, FUNCTION));
    assert_eq!(Arm::symbol_value(symbol(Unknown, here, 0x101)), (0x101, 0));
    assert_eq!(Arm::symbol_value(symbol(Data, here, 0x101)), (0x101, 0));
    assert_eq!(Arm::symbol_value(symbol(Function, SymbolPlace::Undefined, 0)), (0, 0));
    assert_eq!(Arm::external_value(0x101, false), (0x100, FUNCTION | THUMB));
    assert_eq!(Arm::external_value(0x100, false), (0x100, 0));
    assert_eq!(Arm::external_value(0x100, true), (0x100, FUNCTION));
    assert_eq!(Arm::pointer_value(0x100, FUNCTION | THUMB), 0x101);
    assert_eq!(Arm::pointer_value(0x100, FUNCTION), 0x100);
    assert_eq!(Arm::pointer_value(0x100, 0), 0x100);
}

#[test]
fn jumps_that_change_the_state_need_a_stub() {
    let needs = |kind, flags| Arm::needs_stub(kind, &[], 0, flags);
    let (unknown, arm, thumb) = (0, FUNCTION, FUNCTION | THUMB);
    for kind in [ThmJump24, ThmJump19] {
        assert_eq!([unknown, arm, thumb].map(|flags| needs(kind, flags)), [false, true, false]);
        assert_eq!(Arm::stub_kind(kind, 0), FROM_THUMB);
    }
    assert_eq!([unknown, arm, thumb].map(|flags| needs(Jump24, flags)), [false, false, true]);
    assert_eq!([Jump24, Call].map(|kind| Arm::stub_kind(kind, 0)), [FROM_ARM; 2]);
    assert_eq!(Arm::stub_kind(ThmCall, 0), FROM_THUMB);
    for kind in [Call, ThmCall] {
        assert_eq!([unknown, arm, thumb].map(|flags| needs(kind, flags)), [false; 3]);
    }
    assert_eq!(Arm::stub_flags(FROM_ARM), arm);
    assert_eq!(Arm::stub_flags(FROM_THUMB), thumb);
    assert_eq!(Arm::STUB_KINDS[FROM_ARM as usize], "arm");
    assert_eq!(Arm::STUB_KINDS[FROM_THUMB as usize], "thumb");
}

#[test]
fn gaps_trap_in_either_state() {
    assert_eq!(u32::from_le_bytes(Arm::TRAP.try_into().unwrap()), 0xe7ff_defe, "udf #0xfdee; udf #0xfe");
}

#[test]
fn a_stub_loads_the_pc() {
    let mut stub = [0; 8];
    let leads = Stub { slot: 0, target: 0x1234_5679, got: 0 };
    assert_eq!(Arm::write_stub(FROM_ARM, &mut stub, 0x1000, leads), Ok(()));
    assert_eq!(stub, [0x04, 0xf0, 0x1f, 0xe5, 0x79, 0x56, 0x34, 0x12]);
    assert_eq!(Arm::write_stub(FROM_THUMB, &mut stub, 0x1000, leads), Ok(()));
    assert_eq!(stub, [0xdf, 0xf8, 0x00, 0xf0, 0x79, 0x56, 0x34, 0x12]);
}

#[test]
fn a_field_must_be_inside_of_the_section() {
    let kinds = ELF.iter().filter_map(|(.., kind)| *kind).filter(|kind| *kind != None);
    for kind in kinds {
        let width = match kind {
            Abs8 => 1,
            Abs16 | ThmJump11 | ThmJump8 | ThmPc8 | ThmAluAbs { .. } => 2,
            _ => 4,
        };
        let fixup = Fixup::default();
        let mut section = vec![0; width];
        assert_eq!(Arm::apply(kind, &mut section, 0, fixup), Ok(()), "{kind:?}");
        assert!(Arm::implicit_addend(kind, &section, 0).is_ok(), "{kind:?}");
        for offset in [1, 4, u64::MAX, u64::MAX - 3] {
            assert_eq!(Arm::apply(kind, &mut section, offset, fixup), Err(OutsideSection), "{kind:?}");
            assert_eq!(Arm::implicit_addend(kind, &section, offset), Err(OutsideSection), "{kind:?}");
        }
    }
}

#[test]
fn each_number_has_a_name_and_a_kind_or_a_reason() {
    assert!(ELF.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for raw in 0..=256 {
        let name = Arm::name(Format::Elf, raw);
        match Arm::kind(Format::Elf, raw) {
            Ok(_) => assert!(name.starts_with("R_ARM_"), "{raw}"),
            Err(why) => assert!(name.starts_with("R_ARM_") || why == "this kind of relocation", "{raw}"),
        }
    }
    assert_eq!(Arm::name(Format::Elf, 28), "R_ARM_CALL");
    assert_eq!(Arm::name(Format::Elf, 102), "R_ARM_THM_JUMP11");
    assert_eq!(Arm::name(Format::Elf, 255), "relocation type 255");
    assert_eq!(Arm::kind(Format::Elf, 163), Err("a function descriptor (FDPIC)"));
    assert_eq!(Arm::kind(Format::Elf, 21), Err("a relocation of the dynamic linker in an object file"));
    assert_eq!(Arm::kind(Format::Elf, 90), Err("this form of thread-local storage"));
    assert_eq!(Arm::kind(Format::Elf, 9), Err("addressing relative to a static base"));
    assert!(Arm::kind(Format::Elf, u32::MAX).is_err());
}
