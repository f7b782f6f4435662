//! The relocations of COFF (PE format, "ARM64 Processors", "Type Indicators"), as an operation and a field each.
//!
//! Addends are in the fields, in bytes. `REL32` counts from the end of its field.

use super::super::coff::Common;
use super::{Field, Kind, Value};

/// Names, by number.
const NAMES: [&str; 18] = [
    "ABSOLUTE",
    "ADDR32",
    "ADDR32NB",
    "BRANCH26",
    "PAGEBASE_REL21",
    "REL21",
    "PAGEOFFSET_12A",
    "PAGEOFFSET_12L",
    "SECREL",
    "SECREL_LOW12A",
    "SECREL_HIGH12A",
    "SECREL_LOW12L",
    "TOKEN",
    "SECTION",
    "ADDR64",
    "BRANCH19",
    "BRANCH14",
    "REL32",
];

pub(super) fn name(raw: u32) -> String {
    match NAMES.get(raw as usize) {
        Some(name) => format!("IMAGE_REL_ARM64_{name}"),
        None => format!("relocation type {raw}"),
    }
}

pub(super) fn kind(raw: u32) -> Result<Kind, &'static str> {
    let common = |kind| Kind::of(Value::Coff(kind), Field::None);
    Ok(match raw {
        0 => Kind::NONE,
        1 => Kind::of(Value::Symbol, Field::Data32),
        2 => common(Common::ImageRelative),
        3 => Kind::BRANCH26,
        4 => Kind::PAGE21,
        5 => Kind::ADR21,
        6 => Kind::of(Value::Symbol, Field::Low12 { scale: 0 }),
        7 => Kind::PAGE_OFFSET12,
        8 => common(Common::SectionOffset),
        9 => Kind::of(Value::SectionOffset, Field::Low12 { scale: 0 }),
        10 => Kind::of(Value::SectionOffset, Field::High12),
        11 => Kind::of(Value::SectionOffset, Field::Low12ByInstruction),
        12 => return Err("managed code"),
        13 => common(Common::SectionNumber),
        14 => Kind::POINTER64,
        // Unlike ELF linkers, those for COFF make stubs for short branches, too.
        15 => Kind::of(Value::Branch, Field::Branch19),
        16 => Kind::of(Value::Branch, Field::Branch14),
        17 => Kind::of(Value::RelativeToEnd, Field::Signed32),
        _ => return Err("this kind of relocation"),
    })
}
