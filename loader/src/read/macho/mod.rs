//! Mach-O relocatable objects (`MH_OBJECT`) of 64-bit little-endian machines, by Apple's `<mach-o/loader.h>`, `nlist.h`
//! and `reloc.h`, and, where these are silent, by what `ld64` does. The structures are those of `object::macho`; every
//! slice is bounds-checked by `object::pod`.
//!
//! Three things differ from other formats. Sections carry addresses, and symbols and addends count from zero rather than
//! from their section, so both are turned into offsets here. Relocations may refer to a section instead of a symbol: each
//! section has a symbol for that, numbered behind the object's own. And a section is named by a segment and a section,
//! which users see as `__TEXT,__text`.
//!
//! Sections stay whole. A linker may cut them at symbols (`MH_SUBSECTIONS_VIA_SYMBOLS`), because the assembler leaves a
//! relocation for every reference from one such piece to another; keeping the pieces where they are is always right.

mod eh_frame;
mod file;
mod relocation;
mod section;
mod symbol;

pub(crate) use file::{parse, parse_symbols};
pub(crate) use relocation::Relocations;
pub(crate) use symbol::Symbols;

use std::cell::OnceCell;

use object::macho::Section64;
use object::pod::{self, Pod};
use object::{LittleEndian, U32};

use crate::error::LoadError;
use relocation::RelocationInput;

const LE: LittleEndian = LittleEndian;

type Header = Section64<LittleEndian>;

/// What the link graph of a Mach-O object borrows that is not in the object's bytes as such. Filled by [`parse`].
pub(crate) type Storage<'a> = OnceCell<Tables<'a>>;

/// Made once per object, in proportion to its sections.
pub(crate) struct Tables<'a> {
    /// The names of all sections, one behind the other.
    names: Vec<u8>,
    /// The relocations of each section that is loaded and has any.
    relocations: Vec<RelocationInput<'a>>,
}

/// `count` entries of a table at `offset`, or an error that names the table.
fn table<'a, T: Pod>(
    data: &'a [u8],
    offset: U32<LittleEndian>,
    count: U32<LittleEndian>,
    what: &str,
) -> Result<&'a [T], LoadError> {
    let entries = data
        .get(offset.get(LE) as usize..)
        .and_then(|tail| pod::slice_from_bytes(tail, count.get(LE) as usize).ok());
    match entries {
        Some((entries, _)) => Ok(entries),
        None => Err(LoadError::malformed(what, "the table reaches past the end of the file")),
    }
}
