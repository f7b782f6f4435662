//! Facts about single fix-ups: the value, and both sides of each edge.

use super::{Kind::*, *};
use FixupProblem::OutsideSection;

/// Place 0x1000, addend 0, GOT 0x5000 unless changed.
fn to(target: u64) -> Fixup {
    Fixup { place: 0x1000, target, got: 0x5000, ..Fixup::default() }
}

fn plus(target: u64, addend: i64) -> Fixup {
    Fixup { addend, ..to(target) }
}

fn out_of(bits: u32, value: i64) -> FixupProblem {
    FixupProblem::OutOfRange { value, bits }
}

/// Applies to a field between guards, with leftovers in it, and compares the bytes of the field's width.
#[track_caller]
fn check<const N: usize>(kind: Kind, fixup: Fixup, expected: Result<[u8; N], FixupProblem>) {
    let mut section = vec![0xa6; N + 8];
    let result = I386::apply(kind, &mut section, 4, fixup);
    assert_eq!(result.map(|()| section[4..4 + N].try_into().unwrap()), expected);
    assert_eq!(
        (&section[..4], &section[4 + N..]),
        (&[0xa6; 4][..], &[0xa6; 4][..]),
        "wrote beside the field"
    );
}

/// A value of 32 bits as bytes.
fn word(value: u32) -> Result<[u8; 4], FixupProblem> {
    Ok(value.to_le_bytes())
}

#[test]
fn none_does_nothing() {
    check(None, to(u64::MAX), Ok([]));
}

#[test]
fn words_wrap_round() {
    for kind in [Abs32, Size32] {
        check(kind, plus(0x1234, 4), word(0x1238));
        check(kind, plus(0xffff_fffc, 8), word(4));
        check(kind, plus(0, -1), word(u32::MAX));
    }
    for kind in [Pc32, GotPc] {
        check(kind, plus(0x1000, -4), word(-4i32 as u32));
        check(kind, to(0xffff_ffff), word(0xffff_efff));
        check(kind, to(0), word(0xffff_f000));
    }
    for kind in [GotOff, TlsGd, TlsLdm, TlsGotIe] {
        check(kind, plus(0x5018, 1), word(0x19));
        check(kind, to(0x4000), word(0xffff_f000));
    }
}

#[test]
fn words_of_thread_local_storage() {
    check(TlsIe, plus(0x5018, 0), word(0x5018));
    check(TlsLdo32, plus(0x10, 4), word(0x14));
    check(TlsLe, plus(-0x10i64 as u64, 4), word(-0xci32 as u32));
    check(TlsLe32, plus(-0x10i64 as u64, 4), word(0x14));
}

#[test]
fn halves_and_bytes_have_no_sign() {
    check(Abs16, to(0xffff), Ok([0xff, 0xff]));
    check::<2>(Abs16, to(0x1_0000), Err(out_of(16, 0x1_0000)));
    check(Abs16, plus(0, -0x8000), Ok([0x00, 0x80]));
    check(Abs16, to(0xffff_8000), Ok([0x00, 0x80]));
    check::<2>(Abs16, plus(0, -0x8001), Err(out_of(16, -0x8001)));
    check(Abs8, to(0xff), Ok([0xff]));
    check::<1>(Abs8, to(0x100), Err(out_of(8, 0x100)));
    check(Abs8, plus(0, -0x80), Ok([0x80]));
    check::<1>(Abs8, plus(0, -0x81), Err(out_of(8, -0x81)));
}

#[test]
fn a_half_relative_to_its_place_has_a_bit_more() {
    check(Pc16, to(0x1_0fff), Ok([0xff, 0xff]));
    check::<2>(Pc16, to(0x1_1000), Err(out_of(17, 0x1_0000)));
    check(Pc16, plus(0x1000, -0x1_0000), Ok([0x00, 0x00]));
    check::<2>(Pc16, plus(0x1000, -0x1_0001), Err(out_of(17, -0x1_0001)));
}

#[test]
fn a_byte_relative_to_its_place_has_a_sign() {
    check(Pc8, to(0x107f), Ok([0x7f]));
    check::<1>(Pc8, to(0x1080), Err(out_of(8, 0x80)));
    check(Pc8, to(0xf80), Ok([0x80]));
    check::<1>(Pc8, to(0xf7f), Err(out_of(8, -0x81)));
}

#[test]
fn an_entry_is_relative_to_the_got_if_a_register_holds_its_address() {
    let got32 = |before: &[u8]| {
        let mut section = [before, &[0; 4]].concat();
        I386::apply(Got32, &mut section, before.len() as u64, to(0x5010)).unwrap();
        assert_eq!(section[..before.len()], *before);
        u32::from_le_bytes(section[before.len()..].try_into().unwrap())
    };
    assert_eq!(got32(&[0x8b, 0x83]), 0x10, "mov foo@GOT(%ebx), %eax");
    assert_eq!(got32(&[0x8b, 0x05]), 0x5010, "mov foo@GOT, %eax");
    assert_eq!(got32(&[0x8b, 0x1d]), 0x5010, "mov foo@GOT, %ebx");
    assert_eq!(got32(&[0xff, 0x25]), 0x5010, "jmp *foo@GOT");
    assert_eq!(got32(&[0x8b, 0x45]), 0x10, "a byte follows");
    assert_eq!(got32(&[]), 0x10);
}

#[test]
fn addends_are_in_the_fields() {
    let addend = |kind| I386::implicit_addend(kind, &[0, 0xfe, 0xff, 0xff, 0x7f], 1);
    let words = [Abs32, Pc32, Got32, GotOff, GotPc, Size32];
    for kind in words.into_iter().chain([TlsGd, TlsLdm, TlsLdo32, TlsIe, TlsGotIe, TlsLe, TlsLe32]) {
        assert_eq!(addend(kind), Ok(0x7fff_fffe), "{kind:?}");
        assert_eq!(I386::implicit_addend(kind, &[0xff; 4], 0), Ok(-1), "{kind:?}");
        assert_eq!(I386::implicit_addend(kind, &[0xff; 4], 1), Err(OutsideSection), "{kind:?}");
    }
    for kind in [Abs16, Pc16, Abs8, Pc8] {
        assert_eq!(addend(kind), Ok(-2), "{kind:?}");
        assert_eq!(I386::implicit_addend(kind, &[0x7f; 2], 2), Err(OutsideSection), "{kind:?}");
    }
    assert_eq!(addend(None), Ok(0));
}

#[test]
fn a_field_must_be_inside_of_the_section() {
    for (kind, width) in [(Abs32, 4), (Pc32, 4), (Got32, 4), (Abs16, 2), (Pc16, 2), (Abs8, 1), (Pc8, 1)] {
        let fixup = Fixup::default();
        let mut section = vec![0; width];
        assert_eq!(I386::apply(kind, &mut section, 0, fixup), Ok(()));
        assert_eq!(I386::apply(kind, &mut section, 1, fixup), Err(OutsideSection));
        assert_eq!(I386::apply(kind, &mut section, u64::MAX, fixup), Err(OutsideSection));
        assert_eq!(I386::apply(kind, &mut [], 0, fixup), Err(OutsideSection));
    }
}

#[test]
fn a_stub_jumps_to_its_target() {
    let mut stub = [0; 8];
    let leads = |target| Stub { slot: 0, target, got: 0 };
    assert_eq!(I386::write_stub(0, &mut stub, 0x1000, leads(0x2000)), Ok(()));
    assert_eq!(stub, [0xe9, 0xfb, 0x0f, 0x00, 0x00, 0xcc, 0xcc, 0xcc]);
    assert_eq!(I386::write_stub(0, &mut stub, 0xffff_f000, leads(0x10)), Ok(()));
    assert_eq!(stub[..5], [0xe9, 0x0b, 0x10, 0x00, 0x00], "wraps round");
}

#[test]
fn each_number_has_a_name_and_a_kind_or_a_reason() {
    assert!(ELF.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for raw in 0..=64 {
        let name = I386::name(Format::Elf, raw);
        match I386::kind(Format::Elf, raw) {
            Ok(_) => assert!(name.starts_with("R_386_"), "{raw}"),
            Err(why) => assert!(name.starts_with("R_386_") || why == "this kind of relocation", "{raw}"),
        }
    }
    assert_eq!(I386::name(Format::Elf, 4), "R_386_PLT32");
    assert_eq!(I386::name(Format::Elf, 43), "R_386_GOT32X");
    assert_eq!(I386::name(Format::Elf, 12), "relocation type 12");
    assert_eq!(I386::kind(Format::Elf, 24), Err("this form of thread-local storage"));
    assert_eq!(I386::kind(Format::Elf, 42), Err("a relocation of the dynamic linker in an object file"));
    assert!(I386::kind(Format::Elf, u32::MAX).is_err());
}
