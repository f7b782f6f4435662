//! Facts about single fix-ups: the value, and both sides of each edge.

use super::{Kind::*, *};
use FixupProblem::OutsideSection;

type Riscv64 = Riscv<64>;
type Riscv32 = Riscv<32>;

/// Place 0x1000, addend 0 unless changed.
fn to(target: u64) -> Fixup {
    Fixup { place: 0x1000, target, ..Fixup::default() }
}

fn plus(target: u64, addend: i64) -> Fixup {
    Fixup { addend, ..to(target) }
}

/// From a place far from both ends of the address space, at that distance.
fn far(distance: i64) -> Fixup {
    let place = (1 << 40) + 0x124;
    Fixup { place, target: place, addend: distance, ..Fixup::default() }
}

const fn out_of(bits: u32, value: i64) -> FixupProblem {
    FixupProblem::OutOfRange { value, bits }
}

const fn odd(value: i64) -> FixupProblem {
    FixupProblem::Misaligned { value, align: 2 }
}

/// Applies to a field between guards, with leftovers in it.
#[track_caller]
fn field_after<A: Architecture<Kind = Kind>, const N: usize>(
    kind: Kind,
    before: [u8; N],
    fixup: Fixup,
) -> Result<[u8; N], FixupProblem> {
    let mut section = [&[0xa5; 4][..], &before, &[0xa5; 4]].concat();
    let result = A::apply(kind, &mut section, 4, fixup);
    assert_eq!(
        (&section[..4], &section[4 + N..]),
        (&[0xa5; 4][..], &[0xa5; 4][..]),
        "wrote beside the field"
    );
    result.map(|()| section[4..4 + N].try_into().unwrap())
}

/// An instruction before and after, on both widths.
#[track_caller]
fn check(kind: Kind, before: u32, fixup: Fixup, expected: Result<u32, FixupProblem>) {
    for after in [
        field_after::<Riscv64, 4>(kind, before.to_le_bytes(), fixup),
        field_after::<Riscv32, 4>(kind, before.to_le_bytes(), fixup),
    ] {
        assert_eq!(after.map(u32::from_le_bytes), expected, "{:#x?}", after.map(u32::from_le_bytes));
    }
}

/// The same for a compressed one.
#[track_caller]
fn check_compressed(kind: Kind, before: u16, fixup: Fixup, expected: Result<u16, FixupProblem>) {
    let after = field_after::<Riscv64, 2>(kind, before.to_le_bytes(), fixup);
    assert_eq!(after.map(u16::from_le_bytes), expected, "{:#x?}", after.map(u16::from_le_bytes));
}

#[test]
fn data_is_cut_off() {
    check(Abs32, 0xdead_beef, plus(0x1_2345_6789, 1), Ok(0x2345_678a));
    let after = field_after::<Riscv64, 8>(Abs64, [0xee; 8], plus(0x1_2345_6789, -1));
    assert_eq!(after.map(u64::from_le_bytes), Ok(0x1_2345_6788));
}

#[test]
fn a_conditional_branch_reaches_4_kib() {
    check(Branch, 0x00b5_0063, far(0), Ok(0x00b5_0063)); // beq a0, a1, .
    check(Branch, 0x00b5_0063, far(0x156), Ok(0x14b5_0b63));
    check(Branch, 0xfeb5_0fe3, far(4094), Ok(0x7eb5_0fe3)); // over what was there
    check(Branch, 0x00b5_0063, far(-4096), Ok(0x80b5_0063));
    check(Branch, 0x00b5_0063, far(2048), Ok(0x00b5_00e3));
    check(Branch, 0x00b5_0063, far(4096), Err(out_of(13, 4096)));
    check(Branch, 0x00b5_0063, far(-4098), Err(out_of(13, -4098)));
    check(Branch, 0x00b5_0063, far(1), Err(odd(1)));
}

#[test]
fn a_jump_reaches_1_mib() {
    check(Jal, 0x0000_00ef, far(0), Ok(0x0000_00ef)); // jal ra, .
    check(Jal, 0xffff_f0ef, far(0x0f_fffe), Ok(0x7fff_f0ef));
    check(Jal, 0x0000_00ef, far(-0x10_0000), Ok(0x8000_00ef));
    check(Jal, 0x0000_00ef, far(0x800), Ok(0x0010_00ef));
    check(Jal, 0x0000_00ef, far(0x1000), Ok(0x0000_10ef));
    check(Jal, 0x0000_00ef, far(0x2aa), Ok(0x2aa0_00ef));
    check(Jal, 0x0000_00ef, far(0x10_0000), Err(out_of(21, 0x10_0000)));
    check(Jal, 0x0000_00ef, far(-0x10_0002), Err(out_of(21, -0x10_0002)));
    check(Jal, 0x0000_00ef, far(3), Err(odd(3)));
}

#[test]
fn compressed_branches() {
    check_compressed(RvcBranch, 0xc101, far(0), Ok(0xc101)); // c.beqz a0, .
    check_compressed(RvcBranch, 0xdd7d, far(2), Ok(0xc109));
    check_compressed(RvcBranch, 0xc101, far(254), Ok(0xcd7d));
    check_compressed(RvcBranch, 0xc101, far(-256), Ok(0xd101));
    check_compressed(RvcBranch, 0xc101, far(32), Ok(0xc105));
    check_compressed(RvcBranch, 0xc101, far(64), Ok(0xc121));
    check_compressed(RvcBranch, 0xc101, far(8), Ok(0xc501));
    check_compressed(RvcBranch, 0xc101, far(256), Err(out_of(9, 256)));
    check_compressed(RvcBranch, 0xc101, far(-258), Err(out_of(9, -258)));
    check_compressed(RvcBranch, 0xc101, far(5), Err(odd(5)));

    check_compressed(RvcJump, 0xa001, far(0), Ok(0xa001)); // c.j .
    check_compressed(RvcJump, 0xbffd, far(2), Ok(0xa009));
    for (bit, place) in [(4, 11), (5, 2), (6, 7), (7, 6), (8, 9), (9, 10), (10, 8), (3, 5)] {
        check_compressed(RvcJump, 0xa001, far(1 << bit), Ok(0xa001 | 1 << place));
    }
    check_compressed(RvcJump, 0xa001, far(2046), Ok(0xaffd));
    check_compressed(RvcJump, 0xa001, far(-2048), Ok(0xb001));
    check_compressed(RvcJump, 0xa001, far(2048), Err(out_of(12, 2048)));
    check_compressed(RvcJump, 0xa001, far(-2050), Err(out_of(12, -2050)));
    check_compressed(RvcJump, 0xa001, far(7), Err(odd(7)));
}

#[track_caller]
fn check_call<const XLEN: u8>(distance: i64, expected: Result<[u32; 2], FixupProblem>) {
    // auipc ra, 0; jalr ra, ra, 0, with leftovers in both immediates.
    let before = (0xfff0_80e7u64 << 32 | 0xffff_f097).to_le_bytes();
    let after = field_after::<Riscv<XLEN>, 8>(Call, before, far(distance)).map(u64::from_le_bytes);
    let expected = expected.map(|[first, second]| u64::from(second) << 32 | u64::from(first));
    assert_eq!(after, expected, "{after:#x?}");
}

#[test]
fn a_call_reaches_2_gib_less_the_rounding() {
    check_call::<64>(0, Ok([0x0000_0097, 0x0000_80e7]));
    check_call::<64>(0x1234_57ff, Ok([0x1234_5097, 0x7ff0_80e7]));
    check_call::<64>(0x1234_5800, Ok([0x1234_6097, 0x8000_80e7]));
    check_call::<64>(-1, Ok([0x0000_0097, 0xfff0_80e7]));
    check_call::<64>(0x7fff_f7ff, Ok([0x7fff_f097, 0x7ff0_80e7]));
    check_call::<64>(0x7fff_f800, Err(out_of(32, 0x7fff_f800)));
    check_call::<64>(-0x8000_0800, Ok([0x8000_0097, 0x8000_80e7]));
    check_call::<64>(-0x8000_0801, Err(out_of(32, -0x8000_0801)));
    check_call::<32>(0x7fff_f800, Ok([0x8000_0097, 0x8000_80e7]));
    check_call::<32>(-0x8000_0801, Ok([0x7fff_f097, 0x7ff0_80e7]));
}

#[test]
fn a_branch_to_a_weak_symbol_that_nobody_defines_is_in_reach() {
    let weak = |addend| Fixup { place: 1 << 40, undefined_weak: true, addend, ..Fixup::default() };
    check(Branch, 0x00b5_0063, weak(0), Ok(0x00b5_0063));
    check(Jal, 0x0000_00ef, weak(2), Ok(0x0020_00ef));
    check(Plt32, 7, weak(4), Ok(4));
    check_compressed(RvcBranch, 0xc101, weak(0), Ok(0xc101));
    check_compressed(RvcJump, 0xa001, weak(0), Ok(0xa001));
    let call = field_after::<Riscv64, 8>(Call, [0; 8], weak(8));
    assert_eq!(call, Ok([0, 0, 0, 0, 0, 0, 0x80, 0]));
    let through_stub = Fixup { target: (1 << 40) + 64, through_stub: true, ..weak(0) };
    check(Jal, 0x0000_00ef, through_stub, Ok(0x0400_00ef));
    let address = field_after::<Riscv64, 4>(PcrelHi20, [0; 4], weak(0));
    assert_eq!(address, Err(out_of(32, -1 << 40)), "what is no branch means address 0");
    check(Pcrel32, 0, Fixup { place: 0x1000, ..weak(0) }, Ok(-0x1000i32 as u32));
}

#[test]
fn relative_words() {
    for kind in [Pcrel32, Plt32, GotPcrel32] {
        check(kind, 0xffff_ffff, plus(0x1000, -4), Ok(-4i32 as u32));
        check(kind, 0, far(0x7fff_ffff), Ok(0x7fff_ffff));
        check(kind, 0, far(0x8000_0000), Err(out_of(32, 0x8000_0000)));
        check(kind, 0, far(-0x8000_0000), Ok(0x8000_0000));
        check(kind, 0, far(-0x8000_0001), Err(out_of(32, -0x8000_0001)));
    }
}

#[test]
fn absolute_addresses_in_two_parts() {
    for (high, low_i, low_s) in [(Hi20, Lo12I, Lo12S), (TprelHi20, TprelLo12I, TprelLo12S)] {
        check(high, 0xffff_f537, to(0x1234_5678), Ok(0x1234_5537)); // lui a0
        check(high, 0x0000_0537, plus(0x1234_5678, 0x188), Ok(0x1234_6537));
        check(low_i, 0xfff5_0513, to(0x1234_5678), Ok(0x6785_0513)); // addi a0, a0
        check(low_i, 0x0005_0513, to(0x1234_5fff), Ok(0xfff5_0513));
        check(low_s, 0x00b5_2023, to(0x1234_5678), Ok(0x66b5_2c23)); // sw a1, (a0)
        check(low_s, 0xfeb5_2fa3, to(0x1234_5800), Ok(0x80b5_2023));
    }
}

#[test]
fn an_absolute_high_part_has_a_sign_when_registers_are_longer() {
    let high = |target| field_after::<Riscv64, 4>(Hi20, [0x37, 5, 0, 0], to(target)).map(u32::from_le_bytes);
    assert_eq!(high(0x7fff_f7ff), Ok(0x7fff_f537));
    assert_eq!(high(0x7fff_f800), Err(out_of(32, 0x7fff_f800)));
    assert_eq!(high(0xffff_ffff_8000_0000), Ok(0x8000_0537));
    assert_eq!(high(0xffff_ffff_7fff_f800), Ok(0x8000_0537));
    assert_eq!(high(0xffff_ffff_7fff_f7ff), Err(out_of(32, -0x8000_0801)));
    let high = |target| field_after::<Riscv32, 4>(Hi20, [0x37, 5, 0, 0], to(target)).map(u32::from_le_bytes);
    assert_eq!(high(0xffff_f800), Ok(0x0000_0537));
    assert_eq!(high(0x8000_0000), Ok(0x8000_0537));
}

#[test]
fn relative_addresses_in_two_parts() {
    for kind in [PcrelHi20, GotHi20, TlsGotHi20, TlsGdHi20, TlsDescHi20] {
        check(kind, 0xffff_f517, far(0x1234_5678), Ok(0x1234_5517)); // auipc a0
        check(kind, 0x0000_0517, far(-0x801), Ok(0xffff_f517));
        check(kind, 0x0000_0517, far(-0x800), Ok(0x0000_0517));
        let reach = |distance| field_after::<Riscv64, 4>(kind, [0; 4], far(distance)).map(u32::from_le_bytes);
        assert_eq!(reach(0x7fff_f7ff), Ok(0x7fff_f000));
        assert_eq!(reach(0x7fff_f800), Err(out_of(32, 0x7fff_f800)));
        assert_eq!(reach(-0x8000_0800), Ok(0x8000_0000));
        assert_eq!(reach(-0x8000_0801), Err(out_of(32, -0x8000_0801)));
    }
    for kind in [PcrelLo12I, TlsDescLoadLo12, TlsDescAddLo12] {
        check(kind, 0xfff5_0513, far(0x1234_5678), Ok(0x6785_0513));
    }
    check(PcrelLo12S, 0x00b5_2023, far(0x1234_5678), Ok(0x66b5_2c23));
}

#[test]
fn numbers_are_added_to_and_subtracted_from() {
    for (width, mask) in [(8, 0xff), (16, 0xffff), (32, 0xffff_ffff), (64, u64::MAX)] {
        let bytes = |number: u64| (number & mask | 0x1122_3344_5566_7788 & !mask).to_le_bytes();
        let after = |kind, fixup| {
            let mut section = bytes(0xa0);
            Riscv64::apply(kind, &mut section, 0, fixup).map(|()| section)
        };
        assert_eq!(after(Add(width), plus(0x1_0000_0071, -1)), Ok(bytes(0x1_0000_0110)));
        assert_eq!(after(Sub(width), plus(0x1_0000_0071, 1)), Ok(bytes(0xffff_ffff_0000_002e)));
    }
    for (before, after) in [(0b11_000001, 0b11_111111), (0b00_111111, 0b00_111101)] {
        assert_eq!(field_after::<Riscv64, 1>(Sub(6), [before], to(0x42)), Ok([after]));
    }
}

#[test]
fn numbers_are_set() {
    assert_eq!(field_after::<Riscv64, 1>(Set(6), [0b10_111111], to(0x42)), Ok([0b10_000010]));
    assert_eq!(field_after::<Riscv64, 1>(Set(8), [0xff], to(0x142)), Ok([0x42]));
    assert_eq!(field_after::<Riscv64, 2>(Set(16), [0xff; 2], to(0x1_4243)), Ok([0x43, 0x42]));
    check(Set(32), 0xffff_ffff, to(0x7fff_ffff), Ok(0x7fff_ffff));
    check(Set(32), 0xffff_ffff, to(0x8000_0000), Err(out_of(32, 0x8000_0000)));
    check(Set(32), 0, plus(0, -1), Ok(0xffff_ffff));
}

#[test]
fn a_difference_keeps_the_length_of_its_field() {
    let minus = |target, subtrahend| Fixup { subtrahend, ..to(target) };
    let after = |before: [u8; 3], fixup| field_after::<Riscv64, 3>(SetUleb128, before, fixup);
    assert_eq!(after([0x80, 0x80, 0x00], minus(0x1234, 0x1000)), Ok([0xb4, 0x84, 0x00]));
    assert_eq!(after([0xff, 0x7f, 0xee], minus(0x1234, 0x1000)), Ok([0xb4, 0x04, 0xee]));
    assert_eq!(after([0x00, 0x80, 0x80], minus(0x107f, 0x1000)), Ok([0x7f, 0x80, 0x80]));
    assert_eq!(after([0x00, 0x80, 0x80], minus(0x1080, 0x1000)), Err(out_of(7, 0x80)));
    assert_eq!(after([0x80, 0x00, 0x80], minus(0xfff, 0x1000)), Err(out_of(14, -1)));
    let mut all = [0x80; 10];
    all[9] = 0;
    let after = field_after::<Riscv64, 10>(SetUleb128, all, minus(0, 1));
    assert_eq!(after, Ok([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]));
    let endless = Riscv64::apply(SetUleb128, &mut [0x80; 100], 0, to(0));
    assert_eq!(endless, Err(FixupProblem::Unsupported("a ULEB128 number of more than 10 bytes")));
    assert_eq!(Riscv64::apply(SetUleb128, &mut [0x80; 9], 0, to(0)), Err(OutsideSection));
    assert_eq!(Riscv64::apply(SetUleb128, &mut [0x80; 9], 9, to(0)), Err(OutsideSection));
    assert_eq!(Riscv64::apply(SetUleb128, &mut [0x80; 9], u64::MAX, to(0)), Err(OutsideSection));
    assert_eq!([SetUleb128, SubUleb128].map(Riscv64::subtrahend), [Some(SubUleb128), Option::None]);
    assert!(Riscv64::apply(SubUleb128, &mut [0], 0, to(0)).is_err(), "the second part alone");
}

#[test]
fn a_field_must_be_inside_of_the_section() {
    for (kind, width) in [
        (Abs64, 8),
        (Call, 8),
        (Add(64), 8),
        (Abs32, 4),
        (Branch, 4),
        (Jal, 4),
        (Hi20, 4),
        (Lo12I, 4),
        (Lo12S, 4),
        (PcrelHi20, 4),
        (PcrelLo12I, 4),
        (PcrelLo12S, 4),
        (Pcrel32, 4),
        (Plt32, 4),
        (Set(32), 4),
        (Sub(32), 4),
        (RvcBranch, 2),
        (RvcJump, 2),
        (Set(16), 2),
        (Add(8), 1),
        (Sub(6), 1),
    ] {
        let fixup = Fixup::default();
        let mut section = vec![0; width];
        assert_eq!(Riscv64::apply(kind, &mut section, 0, fixup), Ok(()), "{kind:?}");
        for offset in [1, u64::MAX, u64::MAX - 3] {
            assert_eq!(Riscv64::apply(kind, &mut section, offset, fixup), Err(OutsideSection), "{kind:?}");
        }
        assert!(section.iter().all(|byte| *byte == 0), "{kind:?}");
    }
}

#[test]
fn padding_and_what_it_is_filled_with() {
    let padding = |addend| {
        let relocation =
            Relocation { offset: 0, raw_kind: 43, symbol: 0, addend, subtrahend: Relocation::NO_SYMBOL };
        Riscv64::padding(Align, &relocation)
    };
    let of = |bytes, align| Ok(Padding { bytes, align, most: u64::MAX });
    assert_eq!(padding(0), of(0, 2));
    assert_eq!(padding(2), of(2, 4));
    assert_eq!(padding(6), of(6, 8));
    assert_eq!(padding(12), of(12, 16));
    assert_eq!(padding(14), of(14, 16));
    assert_eq!(padding(16), of(16, 32));
    assert!([-2, 1, 7, i64::MIN, i64::MAX].map(padding).iter().all(Result::is_err));

    let nops = |length| {
        let mut bytes = vec![0xa5; length];
        Riscv64::write_nops(&mut bytes);
        bytes
    };
    assert_eq!(nops(0), []);
    assert_eq!(nops(2), [1, 0]);
    assert_eq!(nops(4), [0x13, 0, 0, 0]);
    assert_eq!(nops(6), [0x13, 0, 0, 0, 1, 0]);
    assert_eq!(nops(7), [0x13, 0, 0, 0, 0, 0, 0], "nothing that an assembler leaves");
}

#[test]
fn a_stub_jumps_through_its_entry() {
    fn stub<const XLEN: u8>(place: u64, slot: u64) -> Result<[u32; 4], FixupProblem> {
        let mut stub = [0; 16];
        Riscv::<XLEN>::write_stub(0, &mut stub, place, Stub { slot, target: 0, got: 0 })?;
        Ok([0, 4, 8, 12].map(|at| u32::from_le_bytes(*stub[at..].first_chunk().unwrap())))
    }
    let rest = [0x000e_0067, 0x0000_0013]; // jr t3; nop
    assert_eq!(stub::<64>(0x1000, 0x4ff8), Ok([0x0000_4e17, 0xff8e_3e03, rest[0], rest[1]]));
    assert_eq!(stub::<32>(0x1000, 0x4ff8), Ok([0x0000_4e17, 0xff8e_2e03, rest[0], rest[1]]));
    assert_eq!(stub::<64>(0, 0x7fff_f800), Err(out_of(32, 0x7fff_f800)));
    assert_eq!(stub::<32>(0, 0x7fff_f800).map(|stub| stub[0]), Ok(0x8000_0e17));
}

#[test]
fn each_number_has_a_name_and_a_kind_or_a_reason() {
    for raw in 0..=300 {
        let name = Riscv64::name(Format::Elf, raw);
        let named = name.starts_with("R_RISCV_");
        match Riscv64::kind(Format::Elf, raw) {
            Ok(_) => assert!(named, "{raw}"),
            Err(why) => assert!(!why.is_empty() && (named || name.contains("type")), "{raw}"),
        }
        assert!(Riscv64::kind(Format::Coff, raw).is_err());
    }
    for (raw, name) in [
        (0, "R_RISCV_NONE"),
        (1, "R_RISCV_32"),
        (2, "R_RISCV_64"),
        (13, "relocation type 13"),
        (19, "R_RISCV_CALL_PLT"),
        (40, "R_RISCV_SUB64"),
        (43, "R_RISCV_ALIGN"),
        (46, "R_RISCV_RVC_LUI"),
        (57, "R_RISCV_32_PCREL"),
        (61, "R_RISCV_SUB_ULEB128"),
        (65, "R_RISCV_TLSDESC_CALL"),
        (66, "relocation type 66"),
        (191, "R_RISCV_VENDOR"),
        (192, "R_RISCV_CUSTOM192"),
        (255, "R_RISCV_CUSTOM255"),
        (256, "relocation type 256"),
    ] {
        assert_eq!(Riscv64::name(Format::Elf, raw), name);
    }
    assert_eq!(Riscv64::kind(Format::Elf, 191), Err("a vendor's relocation"));
    assert!(Riscv64::kind(Format::Elf, u32::MAX).is_err());
}

#[test]
fn what_each_kind_refers_to() {
    let operand = |raw| Riscv64::operand(Riscv64::kind(Format::Elf, raw).unwrap());
    assert!([0, 32, 51, 65].map(operand).iter().all(|operand| *operand == Operand::None));
    assert!([17, 18, 19, 59].map(operand).iter().all(|operand| *operand == Operand::Branch));
    assert!([24, 25, 63, 64].map(operand).iter().all(|operand| *operand == Operand::PairedLow));
    assert!([29, 30, 31].map(operand).iter().all(|operand| *operand == Operand::ThreadOffset));
    assert_eq!(operand(43), Operand::Alignment);
    assert_eq!([20, 41].map(operand), [Operand::Slot(SlotKind::Address); 2]);
    assert_eq!(operand(21), Operand::Slot(SlotKind::ThreadOffset));
    assert_eq!(operand(22), Operand::Slot(SlotKind::ThreadIndex));
    assert_eq!(operand(62), Operand::Slot(SlotKind::ThreadDescriptor));
    let high = (0..66).filter(|raw| Riscv64::kind(Format::Elf, *raw).is_ok_and(Riscv64::is_paired_high));
    assert_eq!(high.collect::<Vec<_>>(), [20, 21, 22, 23, 62]);
}

/// Where the ISA manual puts the bits of an immediate: instruction bits from the highest named down.
#[test]
fn each_bit_of_an_immediate_has_its_place() {
    fn check(spread: Spread, manual: &[(u32, &[u32])]) {
        let all =
            manual.iter().flat_map(|(top, bits)| (0..).zip(*bits).map(move |(down, bit)| (top - down, *bit)));
        let mut field = 0;
        for (place, bit) in all {
            assert_eq!(encode(spread, 0, 1 << bit), 1 << place, "bit {bit}");
            assert_eq!(encode(spread, u32::MAX, !(1 << bit)), !(1 << place), "bit {bit}");
            field |= 1 << place;
        }
        assert_eq!(encode(spread, u32::MAX, 0), !field, "what was there goes");
        assert_eq!(encode(spread, 0, -1), field, "nothing beside the field changes");
    }
    let down = |from: u32, to: u32| (to..=from).rev().collect::<Vec<_>>();
    check(I_TYPE, &[(31, &down(11, 0))]);
    check(S_TYPE, &[(31, &down(11, 5)), (11, &down(4, 0))]);
    check(B_TYPE, &[(31, &[12, 10, 9, 8, 7, 6, 5]), (11, &[4, 3, 2, 1, 11])]);
    check(U_TYPE, &[(31, &down(31, 12))]);
    check(J_TYPE, &[(31, &[20, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 11, 19, 18, 17, 16, 15, 14, 13, 12])]);
    check(CB_TYPE, &[(12, &[8, 4, 3]), (6, &[7, 6, 2, 1, 5])]);
    check(CJ_TYPE, &[(12, &[11, 4, 9, 8, 10, 6, 7, 3, 2, 1, 5])]);
}

#[test]
fn numbers_have_the_widths_of_their_names() {
    for raw in [33, 34, 35, 36, 37, 38, 39, 40, 52, 53, 54, 55, 56] {
        let kind = Riscv64::kind(Format::Elf, raw).unwrap();
        let name = match kind {
            Add(width) => format!("R_RISCV_ADD{width}"),
            Sub(width) => format!("R_RISCV_SUB{width}"),
            Set(width) => format!("R_RISCV_SET{width}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(Riscv64::name(Format::Elf, raw), name);
    }
}

/// `lui a0, high; addi a0, a0, low`, or `li a0, low` where that is enough, by the psABI.
#[test]
fn descriptors_of_the_program_become_offsets() {
    let rewritten = |target: u64| {
        let mut section = [0u8; 16];
        let kinds = [TlsDescHi20, TlsDescLoadLo12, TlsDescAddLo12, TlsDescCall];
        for (offset, kind) in (0..).step_by(4).zip(kinds) {
            let fixup = Fixup { target, ..Fixup::default() };
            Riscv::<64>::to_local_exec(kind, Option::None, &mut section, offset, fixup)?;
        }
        Ok(section
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect::<Vec<_>>())
    };
    const NOP: u32 = 0x13;
    assert_eq!(rewritten(0x7ff), Ok(vec![NOP, NOP, NOP, 0x7ff0_0513]));
    assert_eq!(rewritten(0x800), Ok(vec![NOP, NOP, 0x0000_1537, 0x8005_0513]));
    assert_eq!(rewritten(0xffff_ffff_ffff_f800), Ok(vec![NOP, NOP, NOP, 0x8000_0513]));
    assert_eq!(rewritten(0xffff_ffff_ffff_f7ff), Ok(vec![NOP, NOP, 0xffff_f537, 0x7ff5_0513]));
    assert_eq!(rewritten(0x7fff_f7ff), Ok(vec![NOP, NOP, 0x7fff_f537, 0x7ff5_0513]));
    let beyond = FixupProblem::OutOfRange { value: 0x7fff_f800, bits: 32 };
    assert_eq!(rewritten(0x7fff_f800), Err(beyond));
}
