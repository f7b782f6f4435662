//! Facts about single fix-ups: the value, and both sides of each edge.

use super::{Kind::*, *};
use crate::arch::Simple;
use FixupProblem::OutsideSection;

/// Place 0x1000, addend 0, GOT 0x5000 unless changed.
const fn to(target: u64) -> Fixup {
    Fixup {
        place: 0x1000,
        target,
        addend: 0,
        got: 0x5000,
        image: 0,
        subtrahend: 0,
        symbol_flags: 0,
        through_stub: false,
        undefined_weak: false,
    }
}

const fn plus(target: u64, addend: i64) -> Fixup {
    Fixup { addend, ..to(target) }
}

const fn out_of(bits: u32, value: i64) -> FixupProblem {
    FixupProblem::OutOfRange { value, bits }
}

/// Applies to a field between guards, with leftovers in it, and compares the bytes of the field's width.
#[track_caller]
fn check<const N: usize>(kind: Kind, fixup: Fixup, expected: Result<[u8; N], FixupProblem>) {
    let mut section = vec![0xa5; N + 8];
    let result = X86_64::apply(kind, &mut section, 4, fixup);
    assert_eq!(result.map(|()| section[4..4 + N].try_into().unwrap()), expected);
    assert_eq!(
        (&section[..4], &section[4 + N..]),
        (&[0xa5; 4][..], &[0xa5; 4][..]),
        "wrote beside the field"
    );
}

/// The value that fits in no more than 32 bits, as bytes.
fn word(value: u32) -> Result<[u8; 4], FixupProblem> {
    Ok(value.to_le_bytes())
}

fn long(value: u64) -> Result<[u8; 8], FixupProblem> {
    Ok(value.to_le_bytes())
}

#[test]
fn none_does_nothing() {
    check(None, to(u64::MAX), Ok([]));
}

#[test]
fn absolute_64() {
    check(Abs64, plus(0xffff_8000_0000_0000, 8), long(0xffff_8000_0000_0008));
    check(Abs64, plus(1, -2), long(u64::MAX));
    check(Size64, plus(24, 1), long(25));
}

#[test]
fn absolute_32_is_zero_extended() {
    check(Abs32, to(0), word(0));
    check(Abs32, to(0xffff_ffff), word(0xffff_ffff));
    check::<4>(Abs32, to(0x1_0000_0000), Err(out_of(32, 0x1_0000_0000)));
    check::<4>(Abs32, plus(0, -1), Err(out_of(32, -1)));
    check(Abs32, plus(0x1_0000_0000, -1), word(0xffff_ffff));
}

#[test]
fn absolute_32s_is_sign_extended() {
    for kind in [Abs32S, Size32] {
        check(kind, to(0x7fff_ffff), word(0x7fff_ffff));
        check::<4>(kind, to(0x8000_0000), Err(out_of(32, 0x8000_0000)));
        check(kind, to(0xffff_ffff_8000_0000), word(0x8000_0000));
        check::<4>(kind, to(0xffff_ffff_7fff_ffff), Err(out_of(32, -0x8000_0001)));
    }
}

#[test]
fn absolute_16_and_8_have_no_sign() {
    check(Abs16, to(0xffff), Ok([0xff, 0xff]));
    check::<2>(Abs16, to(0x1_0000), Err(out_of(16, 0x1_0000)));
    check(Abs16, plus(0, -0x8000), Ok([0x00, 0x80]));
    check::<2>(Abs16, plus(0, -0x8001), Err(out_of(16, -0x8001)));
    check(Abs8, to(0xff), Ok([0xff]));
    check::<1>(Abs8, to(0x100), Err(out_of(8, 0x100)));
    check(Abs8, plus(0, -0x80), Ok([0x80]));
    check::<1>(Abs8, plus(0, -0x81), Err(out_of(8, -0x81)));
}

#[test]
fn relative_32() {
    for kind in [Pc32, Plt32, GotPcRel, GotPcRelX, RexGotPcRelX, Code4GotPcRelX, GotPc32] {
        check(kind, plus(0x1000, -4), word(-4i32 as u32));
        check(kind, to(0x8000_0fff), word(0x7fff_ffff));
        check::<4>(kind, to(0x8000_1000), Err(out_of(32, 0x8000_0000)));
        check(kind, plus(0, -0x7fff_f000), word(0x8000_0000));
        check::<4>(kind, plus(0, -0x7fff_f001), Err(out_of(32, -0x8000_0001)));
    }
}

#[test]
fn relative_64() {
    for kind in [Pc64, GotPc64, GotPcRel64] {
        check(kind, to(0x7fff_0000_0000), long(0x7ffe_ffff_f000));
        check(kind, to(0), long(0x1000u64.wrapping_neg()));
    }
}

#[test]
fn relative_16_and_8() {
    check(Pc16, to(0x8fff), Ok([0xff, 0x7f]));
    check::<2>(Pc16, to(0x9000), Err(out_of(16, 0x8000)));
    check(Pc16, plus(0, -0x7000), Ok([0x00, 0x80]));
    check::<2>(Pc16, plus(0, -0x7001), Err(out_of(16, -0x8001)));
    check(Pc8, to(0x107f), Ok([0x7f]));
    check::<1>(Pc8, to(0x1080), Err(out_of(8, 0x80)));
    check(Pc8, to(0xf80), Ok([0x80]));
    check::<1>(Pc8, to(0xf7f), Err(out_of(8, -0x81)));
}

#[test]
fn relative_to_the_got() {
    for kind in [Got64, GotOff64, PltOff64] {
        check(kind, plus(0x5018, 1), long(0x19));
        check(kind, to(0x4000), long(0x1000u64.wrapping_neg()));
    }
    check(Got32, to(0x8000_4fff), word(0x7fff_ffff));
    check::<4>(Got32, to(0x8000_5000), Err(out_of(32, 0x8000_0000)));
}

#[test]
fn a_field_must_be_inside_of_the_section() {
    for (kind, width) in
        [(Abs64, 8), (Pc64, 8), (Abs32, 4), (Pc32, 4), (Got32, 4), (Abs16, 2), (Pc16, 2), (Abs8, 1), (Pc8, 1)]
    {
        let fixup = Fixup::default();
        let mut section = vec![0; width];
        assert_eq!(X86_64::apply(kind, &mut section, 0, fixup), Ok(()));
        assert_eq!(X86_64::apply(kind, &mut section, 1, fixup), Err(OutsideSection));
        assert_eq!(X86_64::apply(kind, &mut section, u64::MAX, fixup), Err(OutsideSection));
        assert_eq!(X86_64::apply(kind, &mut section, u64::MAX - 3, fixup), Err(OutsideSection));
        assert_eq!(X86_64::apply(kind, &mut [], 0, fixup), Err(OutsideSection));
    }
}

#[test]
fn thread_local_variables() {
    for kind in [TlsGd, TlsLd, GotTpOff, TlsDesc] {
        check(kind, plus(0x2000, -4), word(0xffc));
        check::<4>(kind, to(0x8000_1000), Err(out_of(32, 0x8000_0000)));
    }
    for kind in [TpOff32, DtpOff32] {
        check(kind, plus(0, -16), word(-16i32 as u32));
        check(kind, to(0x7fff_ffff), word(0x7fff_ffff));
        check::<4>(kind, to(0x8000_0000), Err(out_of(32, 0x8000_0000)));
    }
    check(TpOff64, plus(0, -16), long(-16i64 as u64));
    check(DtpOff64, plus(0x10, 8), long(0x18));
    assert_eq!(X86_64::operand(TlsGd), Operand::Slot(SlotKind::ThreadIndex));
    assert_eq!(X86_64::operand(TlsLd), Operand::Slot(SlotKind::ThreadModule));
    assert_eq!(X86_64::operand(GotTpOff), Operand::Slot(SlotKind::ThreadOffset));
    assert_eq!(X86_64::operand(TlsDesc), Operand::Slot(SlotKind::ThreadDescriptor));
    assert_eq!(X86_64::operand(TpOff32), Operand::ThreadOffset);
    assert_eq!(X86_64::operand(DtpOff32), Operand::BlockOffset);
}

#[test]
fn a_stub_jumps_through_its_entry() {
    let mut stub = [0; 8];
    assert_eq!(X86_64::write_stub(0, &mut stub, 0x1000, Stub { slot: 0x2000, target: 0, got: 0 }), Ok(()));
    assert_eq!(stub, [0xff, 0x25, 0xfa, 0x0f, 0x00, 0x00, 0xcc, 0xcc]);
    assert_eq!(X86_64::write_stub(0, &mut stub, 0, Stub { slot: 0x8000_0005, target: 0, got: 0 }), Ok(()));
    assert_eq!(
        X86_64::write_stub(0, &mut stub, 0, Stub { slot: 0x8000_0006, target: 0, got: 0 }),
        Err(out_of(32, 0x8000_0000))
    );
}

#[test]
fn calls_and_jumps_are_told_from_data() {
    let is_branch = |before: &[u8], addend| X86_64::is_branch(before, before.len() as u64, addend);
    assert!(is_branch(&[0xe8], -4));
    assert!(is_branch(&[0x90, 0xe9], -4));
    assert!(is_branch(&[0x0f, 0x80], -4));
    assert!(is_branch(&[0x0f, 0x8f], -4));
    assert!(!is_branch(&[0x0f, 0x90], -4));
    assert!(!is_branch(&[0x8b, 0x05], -4), "mov x(%rip), %eax");
    assert!(!is_branch(&[0xe8], 0));
    assert!(!is_branch(&[], -4));
    assert!(!X86_64::is_branch(&[0xe8], 7, -4));
}

#[test]
fn each_number_has_a_name_and_a_kind_or_a_reason() {
    for raw in 0..=64 {
        let name = X86_64::name(Format::Elf, raw);
        match X86_64::kind(Format::Elf, raw) {
            Ok(_) => assert!(name.starts_with("R_X86_64_"), "{raw}"),
            Err(why) => assert_eq!(name.starts_with("R_X86_64_"), why != "this kind of relocation", "{raw}"),
        }
    }
    assert_eq!(X86_64::name(Format::Elf, 4), "R_X86_64_PLT32");
    assert_eq!(X86_64::name(Format::Elf, 42), "R_X86_64_REX_GOTPCRELX");
    assert_eq!(X86_64::name(Format::Elf, 99), "relocation type 99");
    assert_eq!(X86_64::kind(Format::Elf, 16), Err("a relocation of the dynamic linker in an object file"));
    assert!(X86_64::kind(Format::Elf, u32::MAX).is_err());
}

#[test]
fn instructions_with_longer_prefixes_have_the_same_fields() {
    let kind = |raw| X86_64::kind(Format::Elf, raw).unwrap();
    for (numbers, like) in [(&[46, 49][..], 9), (&[44, 47, 50], 22), (&[45, 48, 51], 34)] {
        for raw in numbers {
            let name = X86_64::name(Format::Elf, *raw);
            assert_eq!(X86_64::operand(kind(*raw)), X86_64::operand(kind(like)), "{name}");
            for kind in [kind(*raw), kind(like)] {
                check(kind, plus(0x1234_5678, -4), word(0x1234_5678 - 4 - 0x1000));
                check::<4>(kind, to(0x1_8000_0000), Err(out_of(32, 0x1_7fff_f000)));
            }
        }
    }
}

#[test]
fn the_short_cut_agrees_with_the_table() {
    for raw in 0..100 {
        let kind = X86_64::kind(Format::Elf, raw);
        let expected = match kind {
            Ok(Kind::Pc32) => Some(Simple::Relative32),
            Ok(Kind::Plt32) => Some(Simple::Branch32),
            Ok(Kind::Abs64) => Some(Simple::Absolute64),
            _ => Option::None,
        };
        assert_eq!(X86_64::simple(Format::Elf).find(raw), expected, "{raw}");
    }
}

/// Relaxes the instruction whose last field is at the end of `before`; what follows is a guard.
#[track_caller]
fn relaxed(kind: Kind, before: &[u8], fixup: Fixup, expected: Option<&[u8]>) {
    let mut section = [before, &[0xa5; 4], &[0x77]].concat();
    let original = section.clone();
    let offset = before.len() as u64;
    let current =
        Relocation { offset, raw_kind: 0, symbol: 0, addend: -4, subtrahend: Relocation::NO_SYMBOL };
    let result = X86_64::relax(kind, &current, Option::None, &mut section, fixup);
    match expected {
        Some(after) => assert_eq!((result, &section[..]), (Relaxed::This, &[after, &[0x77]].concat()[..])),
        Option::None => assert_eq!((result, section), (Relaxed::No, original)),
    }
}

#[test]
fn a_load_becomes_an_address() {
    let near = plus(0x3000, -4);
    relaxed(GotPcRelX, &[0x8b, 0x05], near, Some(&[0x8d, 0x05, 0xfc, 0x1f, 0, 0]));
    relaxed(RexGotPcRelX, &[0x4c, 0x8b, 0x3d], near, Some(&[0x4c, 0x8d, 0x3d, 0xfc, 0x1f, 0, 0]));
    relaxed(
        Code4GotPcRelX,
        &[0xd5, 0x48, 0x8b, 0x05],
        near,
        Some(&[0xd5, 0x48, 0x8d, 0x05, 0xfc, 0x1f, 0, 0]),
    );
    relaxed(GotPcRel, &[0x48, 0x8b, 0x05], near, Option::None);
    relaxed(RexGotPcRelX, &[0x48, 0x8b, 0x05], plus(0x3000, 0), Option::None);
    relaxed(RexGotPcRelX, &[0x48, 0x8b, 0x45], near, Option::None);
    relaxed(RexGotPcRelX, &[0x05], near, Option::None);
    let last = plus(0x8000_1003, -4);
    relaxed(RexGotPcRelX, &[0x48, 0x8b, 0x05], last, Some(&[0x48, 0x8d, 0x05, 0xff, 0xff, 0xff, 0x7f]));
    relaxed(RexGotPcRelX, &[0x48, 0x8b, 0x05], plus(0x8000_1004, -4), Option::None);
}

#[test]
fn calls_and_jumps_become_direct() {
    let near = plus(0x3000, -4);
    relaxed(GotPcRelX, &[0xff, 0x15], near, Some(&[0x67, 0xe8, 0xfc, 0x1f, 0, 0]));
    relaxed(GotPcRelX, &[0xff, 0x25], near, Some(&[0xe9, 0xfd, 0x1f, 0, 0, 0x90]));
    relaxed(GotPcRelX, &[0xff, 0x35], near, Option::None);
    relaxed(GotPcRelX, &[0xff, 0x15], plus(0x8000_1004, -4), Option::None);
    relaxed(GotPcRelX, &[0xff, 0x25], plus(0x8000_1002, -4), Some(&[0xe9, 0xff, 0xff, 0xff, 0x7f, 0x90]));
    relaxed(GotPcRelX, &[0xff, 0x25], plus(0x8000_1003, -4), Option::None);
}

#[test]
fn operations_take_the_address_as_a_constant() {
    let low = plus(0x1234_5678, -4);
    let constant = [0x78, 0x56, 0x34, 0x12];
    let with = |instruction: &[u8]| [instruction, &constant].concat();
    relaxed(RexGotPcRelX, &[0x48, 0x85, 0x05], low, Some(&with(&[0x48, 0xf7, 0xc0])));
    relaxed(RexGotPcRelX, &[0x4c, 0x85, 0x3d], low, Some(&with(&[0x49, 0xf7, 0xc7])));
    for (number, opcode) in [0x03, 0x0b, 0x13, 0x1b, 0x23, 0x2b, 0x33, 0x3b].into_iter().enumerate() {
        let operation = (number as u8) << 3;
        relaxed(RexGotPcRelX, &[0x48, opcode, 0x0d], low, Some(&with(&[0x48, 0x81, 0xc1 | operation])));
        relaxed(RexGotPcRelX, &[0x4c, opcode, 0x1d], low, Some(&with(&[0x49, 0x81, 0xc3 | operation])));
        relaxed(GotPcRelX, &[0x90, opcode, 0x0d], low, Option::None);
    }
    relaxed(Code4GotPcRelX, &[0xd5, 0x4c, 0x03, 0x3d], low, Some(&with(&[0xd5, 0x19, 0x81, 0xc7])));
    relaxed(RexGotPcRelX, &[0x48, 0x63, 0x05], low, Option::None);
    relaxed(RexGotPcRelX, &[0x48, 0x03, 0x45], low, Option::None);
    let last = plus(0x7fff_ffff, -4);
    relaxed(RexGotPcRelX, &[0x48, 0x03, 0x05], last, Some(&[0x48, 0x81, 0xc0, 0xff, 0xff, 0xff, 0x7f]));
    relaxed(RexGotPcRelX, &[0x48, 0x03, 0x05], plus(0x8000_0000, -4), Option::None);
    let negative = plus(0xffff_ffff_8000_0000, -4);
    relaxed(RexGotPcRelX, &[0x48, 0x03, 0x05], negative, Some(&[0x48, 0x81, 0xc0, 0, 0, 0, 0x80]));
}

/// `mov %fs:0,%eax`, `call *%fs:0`, `mov 0(%rip),%rcx`, `ret`, with fields at 4, 12 and 19.
const THREAD_ACCESSES: [u8; 24] = [
    0x64, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x64, 0xff, 0x14, 0x25, 0, 0, 0, 0, 0x48, 0x8b, 0x0d, 0, 0, 0, 0,
    0xc3,
];

fn places() -> DetourPlaces {
    DetourPlaces { section: 0x1000, detour: 0x2010, descriptor: 0x2000 }
}

#[test]
fn thread_accesses_become_branches_to_detours() {
    let mut code = THREAD_ACCESSES;
    let planned = X86_64::plan_detours(&code, &[0], &[(TpOff32, 4), (TpOff32, 12), (GotTpOff, 19)]).unwrap();
    let detours: Vec<Detour> = planned.into_iter().map(Option::unwrap).collect();
    let found: Vec<_> = detours.iter().map(|detour| (detour.instruction, detour.length)).collect();
    assert_eq!(found, [(0, 8), (8, 8), (16, 7)]);
    let distance = |to: u32, from: u32| (to - from).to_le_bytes();
    for detour in &detours {
        let mut bytes = vec![0; detour.size as usize];
        X86_64::write_detour(detour, &mut code, places(), &mut bytes).unwrap();
        let returns = !matches!(detour.instruction, 8);
        assert_eq!(
            bytes[bytes.len() - 5] == 0xe9,
            returns,
            "back behind the instruction, unless it was called"
        );
        let back = 0x1000 + (detour.instruction + detour.length) as u32;
        let end = 0x2010 + bytes.len() as u32;
        assert!(!returns || bytes[bytes.len() - 4..] == back.wrapping_sub(end).to_le_bytes());
        let too_short = X86_64::write_detour(detour, &mut THREAD_ACCESSES.clone(), places(), &mut bytes[1..]);
        assert_eq!(too_short, Err(FixupProblem::WrongInstruction));
    }
    assert_eq!((code[0], &code[1..5], &code[5..8]), (0xe9, &distance(0x2010, 0x1005)[..], &[0xcc; 3][..]));
    assert_eq!(
        (&code[8..11], code[11], &code[12..16]),
        (&[0x90; 3][..], 0xe8, &distance(0x2010, 0x1010)[..])
    );
    assert_eq!(
        (code[16], &code[17..21], &code[21..]),
        (0xe9, &distance(0x2010, 0x1015)[..], &[0xcc, 0xcc, 0xc3][..])
    );
}

#[test]
fn detours_must_be_in_reach() {
    let mut code = THREAD_ACCESSES;
    let detour = X86_64::plan_detours(&code, &[], &[(TpOff32, 4)]).unwrap()[0].unwrap();
    let mut bytes = vec![0; detour.size as usize];
    for (far, reaches) in [(0x1005 + 0x7fff_ffff - 0x80, true), (0x1005 + 0x8000_0000, false)] {
        let places = DetourPlaces { section: 0x1000, detour: far, descriptor: far };
        assert_eq!(X86_64::write_detour(&detour, &mut code.clone(), places, &mut bytes).is_ok(), reaches);
    }
    let outside = X86_64::write_detour(&detour, &mut code[..7], places(), &mut bytes);
    assert_eq!(outside, Err(OutsideSection));
}

#[test]
fn thread_accesses_that_are_none_are_refused() {
    let refused = |functions: &[u64], accesses: &[(Kind, u64)]| {
        X86_64::plan_detours(&THREAD_ACCESSES, functions, accesses).unwrap_err().access
    };
    // Beside the field, in another instruction, past the end; not in the middle of one for the decoder either.
    for offset in [0, 3, 5, 8, 19, 23, 24, u64::MAX] {
        assert_eq!(refused(&[], &[(TpOff32, offset)]), 0);
        assert!(offset == 19 || refused(&[], &[(GotTpOff, offset)]) == 0);
    }
    assert_eq!(refused(&[], &[(TpOff32, 4), (TpOff32, 4)]), 1);
    assert_eq!(refused(&[], &[(TpOff32, 4), (TpOff64, 12)]), 1);
    assert_eq!(refused(&[], &[(Code6GotTpOff, 19)]), 0);
    assert_eq!(refused(&[2], &[(TpOff32, 4)]), 0, "a function begins inside");
}
