//! Facts about single fix-ups: the value, both sides of each edge, and the bits around the field.

use super::*;
use crate::graph::Format::Elf;
use FixupProblem::{Misaligned, OutOfRange, OutsideSection};

/// Place 0x1000, GOT 0x5000, addend 0.
fn to(target: u64) -> Fixup {
    Fixup { place: 0x1000, target, got: 0x5000, ..Fixup::default() }
}

fn plus(target: u64, addend: i64) -> Fixup {
    Fixup { addend, ..to(target) }
}

const fn out_of(bits: u32, value: i64) -> FixupProblem {
    OutOfRange { value, bits }
}

#[track_caller]
fn kind(name: &str) -> Kind {
    let number = ELF.iter().position(|(known, _)| *known == name);
    S390x::kind(Elf, number.unwrap_or_else(|| panic!("no relocation R_390_{name}")) as u32).unwrap()
}

/// Applies to bytes in the middle of others, and compares them.
#[track_caller]
fn check<const N: usize>(name: &str, before: [u8; N], fixup: Fixup, after: Result<[u8; N], FixupProblem>) {
    let mut section = [[0xa5; 8].as_slice(), &before, &[0xa5; 8]].concat();
    let result = S390x::apply(kind(name), &mut section, 8, fixup);
    assert_eq!(
        (&section[..8], &section[8 + N..]),
        (&[0xa5; 8][..], &[0xa5; 8][..]),
        "wrote beside the field"
    );
    assert_eq!(result.map(|()| section[8..8 + N].try_into().unwrap()), after);
}

#[test]
fn numbers_and_names() {
    assert_eq!(S390x::name(Elf, 0), "R_390_NONE");
    assert_eq!(S390x::name(Elf, 22), "R_390_64");
    assert_eq!(S390x::name(Elf, 26), "R_390_GOTENT");
    assert_eq!(S390x::name(Elf, 47), "R_390_TLS_IE32");
    assert_eq!(S390x::name(Elf, 61), "R_390_IRELATIVE");
    assert_eq!(S390x::name(Elf, 65), "R_390_PLT24DBL");
    assert_eq!(S390x::name(Elf, 66), "relocation type 66");
    assert_eq!(S390x::kind(Elf, 66), Err("this kind of relocation"));
    assert_eq!(S390x::kind(Elf, 10), Err("a relocation of the dynamic linker in an object file"));
    assert!(S390x::kind(Format::MachO, 1).is_err());
}

#[test]
fn data() {
    check("64", [0; 8], plus(0x0123_4567_89ab_cdef, 1), Ok([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xf0]));
    check("PC64", [0; 8], to(0), Ok([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0, 0x00]));
    for name in ["32", "TLS_LE32", "TLS_LDO32", "TLS_IE32"] {
        check(name, [0; 4], to(0xffff_fffe), Ok([0xff, 0xff, 0xff, 0xfe]));
        check(name, [0; 4], to(0x1_0000_0000), Err(out_of(32, 0x1_0000_0000)));
        check(name, [0; 4], plus(0, -0x8000_0000), Ok([0x80, 0, 0, 0]));
        check(name, [0; 4], plus(0, -0x8000_0001), Err(out_of(32, -0x8000_0001)));
    }
    check("16", [0; 2], to(0xfffe), Ok([0xff, 0xfe]));
    check("16", [0; 2], to(0x1_0000), Err(out_of(16, 0x1_0000)));
    check("16", [0; 2], plus(0, -0x8001), Err(out_of(16, -0x8001)));
    check("8", [0], to(0xff), Ok([0xff]));
    check("8", [0], plus(0, -0x80), Ok([0x80]));
    check("8", [0], to(0x100), Err(out_of(8, 0x100)));
    check("8", [0], plus(0, -0x81), Err(out_of(8, -0x81)));
}

#[test]
fn relative_data() {
    for name in ["PC32", "PLT32"] {
        check(name, [0; 4], to(0x8000_0fff), Ok([0x7f, 0xff, 0xff, 0xff]));
        check(name, [0; 4], to(0x8000_1000), Err(out_of(32, 0x8000_0000)));
        check(name, [0; 4], plus(0, -0x7fff_f001), Err(out_of(32, -0x8000_0001)));
    }
    check("PC16", [0; 2], to(0x8fff), Ok([0x7f, 0xff]));
    check("PC16", [0; 2], to(0x9000), Err(out_of(16, 0x8000)));
    check("PC16", [0; 2], plus(0, -0x7001), Err(out_of(16, -0x8001)));
}

#[test]
fn twelve_bits_beside_a_register() {
    check("12", [0xbf, 0xff], to(0x123), Ok([0xb1, 0x23]));
    check("12", [0xb0, 0], to(0xfff), Ok([0xbf, 0xff]));
    check("12", [0xb0, 0], to(0x1000), Err(out_of(12, 0x1000)));
    check("12", [0xb0, 0], plus(0, -1), Err(out_of(12, -1)));
    for name in ["PC12DBL", "PLT12DBL"] {
        check(name, [0x5f, 0xff], plus(0x1000, 0xffe), Ok([0x57, 0xff]));
        check(name, [0x50, 0], plus(0x1000, 0x1000), Err(out_of(13, 0x1000)));
        check(name, [0x50, 0], plus(0x1000, -0x1000), Ok([0x58, 0x00]));
        check(name, [0x50, 0], plus(0x1000, -0x1002), Err(out_of(13, -0x1002)));
        check(name, [0x50, 0], to(0x1001), Err(Misaligned { value: 1, align: 2 }));
    }
}

#[test]
fn twenty_bits_in_two_parts() {
    check("20", [0xbf, 0xff, 0xff, 0x58], to(0x1_2345), Ok([0xb3, 0x45, 0x12, 0x58]));
    check("20", [0xb0, 0, 0, 0x58], to(0x7_ffff), Ok([0xbf, 0xff, 0x7f, 0x58]));
    check("20", [0xb0, 0, 0, 0x58], to(0x8_0000), Err(out_of(20, 0x8_0000)));
    check("20", [0xb0, 0, 0, 0x58], plus(0, -0x8_0000), Ok([0xb0, 0x00, 0x80, 0x58]));
    check("20", [0xb0, 0, 0, 0x58], plus(0, -0x8_0001), Err(out_of(20, -0x8_0001)));
    check("GOT20", [0xb0, 0, 0, 0x58], to(0x5008), Ok([0xb0, 0x08, 0x00, 0x58]));
}

#[test]
fn branches_count_halfwords() {
    for name in ["PC32DBL", "PLT32DBL", "GOTENT", "GOTPLTENT", "GOTPCDBL", "TLS_IEENT"] {
        check(name, [0xff; 4], plus(0x1000, 2), Ok([0, 0, 0, 1]));
        check(name, [0; 4], plus(0x1000, 0xffff_fffe), Ok([0x7f, 0xff, 0xff, 0xff]));
        check(name, [0; 4], plus(0x1000, 0x1_0000_0000), Err(out_of(33, 0x1_0000_0000)));
        check(name, [0; 4], plus(0x1000, -0x1_0000_0000), Ok([0x80, 0, 0, 0]));
        check(name, [0; 4], plus(0x1000, -0x1_0000_0002), Err(out_of(33, -0x1_0000_0002)));
        check(name, [0; 4], to(0x1001), Err(Misaligned { value: 1, align: 2 }));
    }
    for name in ["PC16DBL", "PLT16DBL"] {
        check(name, [0; 2], plus(0x1000, 0xfffe), Ok([0x7f, 0xff]));
        check(name, [0; 2], plus(0x1000, 0x1_0000), Err(out_of(17, 0x1_0000)));
        check(name, [0; 2], plus(0x1000, -0x1_0002), Err(out_of(17, -0x1_0002)));
        check(name, [0; 2], to(0x1003), Err(Misaligned { value: 3, align: 2 }));
    }
    for name in ["PC24DBL", "PLT24DBL"] {
        check(name, [0; 3], plus(0x1000, 0xff_fffe), Ok([0x7f, 0xff, 0xff]));
        check(name, [0; 3], plus(0x1000, 0x100_0000), Err(out_of(25, 0x100_0000)));
        check(name, [0; 3], plus(0x1000, -0x100_0000), Ok([0x80, 0, 0]));
        check(name, [0; 3], plus(0x1000, -0x100_0002), Err(out_of(25, -0x100_0002)));
        check(name, [0; 3], to(0x1001), Err(Misaligned { value: 1, align: 2 }));
    }
}

#[test]
fn relative_to_the_got() {
    for name in ["GOTOFF64", "PLTOFF64", "GOT64", "GOTPLT64", "TLS_GD64", "TLS_LDM64", "TLS_GOTIE64"] {
        check(name, [0; 8], plus(0x5018, 1), Ok([0, 0, 0, 0, 0, 0, 0, 0x19]));
    }
    for name in ["GOTOFF", "PLTOFF32", "GOT32", "GOTPLT32", "TLS_GD32", "TLS_GOTIE32"] {
        check(name, [0; 4], plus(0x5000, -2), Ok([0xff, 0xff, 0xff, 0xfe]));
        check(name, [0; 4], plus(0x5000, 0x1_0000_0000), Err(out_of(32, 0x1_0000_0000)));
    }
    for name in ["GOTOFF16", "PLTOFF16", "GOT16", "GOTPLT16"] {
        check(name, [0; 2], to(0x5008), Ok([0, 8]));
        check(name, [0; 2], to(0x1_5000), Err(out_of(16, 0x1_0000)));
    }
    for name in ["GOT12", "GOTPLT12", "TLS_GOTIE12"] {
        check(name, [0xc0, 0], to(0x5008), Ok([0xc0, 8]));
        check(name, [0xc0, 0], to(0x4ff8), Err(out_of(12, -8)));
    }
    check("GOTPC", [0; 8], to(0x5000), Ok([0, 0, 0, 0, 0, 0, 0x40, 0]));
}

#[test]
fn calls_and_jumps_are_told_from_data() {
    let is_branch = |bytes: &[u8], addend| S390x::is_branch(bytes, 2, addend);
    assert!(is_branch(&[0xc0, 0xe5, 0, 0, 0, 0], 2), "brasl %r14");
    assert!(is_branch(&[0xc0, 0xf4, 0, 0, 0, 0], 2), "jg");
    assert!(is_branch(&[0xc0, 0x84, 0, 0, 0, 0], 2), "jge");
    assert!(!is_branch(&[0xc0, 0x10, 0, 0, 0, 0], 2), "larl");
    assert!(!is_branch(&[0xc4, 0x15, 0, 0, 0, 0], 2), "not C0");
    assert!(!is_branch(&[0xc0, 0xe5, 0, 0, 0, 0], 0));
    assert!(!S390x::is_branch(&[0xc0, 0xe5], 1, 2));
    assert!(!S390x::is_branch(&[0xc0, 0xe5], u64::MAX, 2));
}

#[test]
fn a_branch_goes_to_a_stubs_first_byte() {
    let through = |addend| Fixup { through_stub: true, ..plus(0x2000, addend) };
    check("PLT32DBL", [0; 4], through(2), Ok([0, 0, 0x08, 0x01]));
    let problem = FixupProblem::Unsupported("a call into the middle of a function elsewhere");
    check("PLT32DBL", [0; 4], through(6), Err(problem));
    check("PLT32", [0; 4], through(0), Ok([0, 0, 0x10, 0]));
    check("PLT32", [0; 4], through(2), Err(problem));
}

#[test]
fn a_stub_jumps_through_its_entry() {
    let write = |place, slot| {
        let mut stub = [0xa5; 16];
        S390x::write_stub(0, &mut stub, place, Stub { slot, target: 0, got: 0 }).map(|()| stub)
    };
    let stub = [0xc0, 0x10, 0, 0, 0x08, 0, 0xe3, 0x10, 0x10, 0, 0, 0x04, 0x07, 0xf1, 0, 0];
    assert_eq!(write(0x1000, 0x2000), Ok(stub));
    assert_eq!(write(0, 0x1_0000_0000), Err(out_of(33, 0x1_0000_0000)));
    assert_eq!(write(2, 0x1_0000_0000).map(|stub| stub[2..6].to_vec()), Ok(vec![0x7f, 0xff, 0xff, 0xff]));
}

#[test]
fn markers_do_nothing() {
    for name in ["NONE", "TLS_LOAD", "TLS_GDCALL", "TLS_LDCALL"] {
        assert_eq!(S390x::operand(kind(name)), Operand::None);
        check(name, [1; 4], to(0x1234), Ok([1; 4]));
    }
}

#[test]
fn a_field_must_be_inside_of_the_section() {
    for (number, (name, support)) in ELF.iter().enumerate() {
        let Does(_, field) = support else { continue };
        let width = match field {
            Nowhere => continue,
            Word8 => 1,
            Word16 | Signed16 | Unsigned12 | Half12 | Half16 => 2,
            Half24 => 3,
            Word32 | Signed32 | Half32 | Split20 => 4,
            Word64 => 8,
        };
        let kind = S390x::kind(Elf, number as u32).unwrap();
        let mut section = vec![0; width];
        assert_eq!(S390x::apply(kind, &mut section, 0, Fixup::default()), Ok(()), "{name}");
        for offset in [1, u64::MAX, u64::MAX - 3] {
            assert_eq!(
                S390x::apply(kind, &mut section, offset, Fixup::default()),
                Err(OutsideSection),
                "{name}"
            );
        }
    }
}

#[test]
fn what_relocations_refer_to() {
    let operand = |name| S390x::operand(kind(name));
    assert_eq!(operand("PLT32DBL"), Operand::Branch);
    assert_eq!(operand("PC32DBL"), Operand::NearSymbol);
    assert_eq!(operand("PLT16DBL"), Operand::Symbol);
    assert_eq!(operand("64"), Operand::Symbol);
    assert_eq!(operand("32"), Operand::LowSymbol);
    assert_eq!(operand("GOTPCDBL"), Operand::Got);
    assert_eq!(operand("GOTENT"), Operand::Slot(SlotKind::Address));
    assert_eq!(operand("TLS_GD64"), Operand::Slot(SlotKind::ThreadIndex));
    assert_eq!(operand("TLS_LDM64"), Operand::Slot(SlotKind::ThreadModule));
    assert_eq!(operand("TLS_IE64"), Operand::Slot(SlotKind::ThreadOffset));
    assert_eq!(operand("TLS_LE64"), Operand::ThreadOffset);
    assert_eq!(operand("TLS_LDO64"), Operand::BlockOffset);
}
