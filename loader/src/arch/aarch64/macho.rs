//! The relocations of Mach-O objects (`<mach-o/arm64/reloc.h>`). What they compute is what ELF's do; addends are in fields
//! of data, and otherwise in an entry of their own (`ADDEND`), which the reader merges.

use super::{Field, Kind, SlotKind, Value};

/// Names without `ARM64_RELOC_`, by type.
const NAMES: [&str; 12] = [
    "UNSIGNED",
    "SUBTRACTOR",
    "BRANCH26",
    "PAGE21",
    "PAGEOFF12",
    "GOT_LOAD_PAGE21",
    "GOT_LOAD_PAGEOFF12",
    "POINTER_TO_GOT",
    "TLVP_LOAD_PAGE21",
    "TLVP_LOAD_PAGEOFF12",
    "ADDEND",
    "AUTHENTICATED_POINTER",
];

pub(super) fn name(raw: u32) -> String {
    match NAMES.get((raw & 0xff) as usize) {
        Some(name) => format!("ARM64_RELOC_{name}"),
        None => format!("relocation type {}", raw & 0xff),
    }
}

/// Type, length and whether it is relative to its place.
pub(super) fn kind(raw: u32) -> Result<Kind, &'static str> {
    const RELATIVE: u32 = 1 << 16;
    const BYTES_4: u32 = 2 << 8;
    const BYTES_8: u32 = 3 << 8;
    const RELATIVE_4: u32 = RELATIVE | BYTES_4;
    const SLOT: SlotKind = SlotKind::Address;
    Ok(match (raw & 0xff, raw & !0xff) {
        (0, BYTES_8) => Kind::POINTER64,
        (0, BYTES_4) => Kind::of(Value::Symbol, Field::Signed32),
        (1, BYTES_8) => Kind::of(Value::Difference, Field::Data64),
        (1, BYTES_4) => Kind::of(Value::Difference, Field::Signed32),
        (2, RELATIVE_4) => Kind::BRANCH26,
        (3, RELATIVE_4) => Kind::PAGE21,
        (4, BYTES_4) => Kind::PAGE_OFFSET12,
        (5, RELATIVE_4) => Kind::GOT_PAGE21,
        (6, BYTES_4) => Kind::GOT_PAGE_OFFSET12,
        (7, RELATIVE_4) => Kind::of(Value::SlotRelative(SLOT), Field::Signed32),
        (7, BYTES_8) => Kind::of(Value::Slot(SLOT), Field::Data64),
        (8 | 9, _) => return Err("thread-local storage"),
        (11, _) => return Err("a signed pointer"),
        (0..=7, _) => return Err("a field of this size, or this way to count from its place,"),
        _ => return Err("this kind of relocation"),
    })
}
