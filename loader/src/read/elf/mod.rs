//! ELF relocatable objects, 64-bit little-endian, by the System V gABI (chapters 4: Object Files) and the psABI of
//! the machine. The structures are those of `object::elf`; every slice is bounds-checked by `object::pod`.

mod file;
mod group;
mod relocation;
mod section;
mod symbol;

pub(crate) use file::parse;
pub(crate) use group::GroupMembers;
pub(crate) use relocation::Relocations;
pub(crate) use symbol::Symbols;

use std::ffi::CStr;
use std::fmt::Display;

use object::LittleEndian;
use object::pod::{self, Pod};

use crate::error::LoadError;

type Header = object::elf::SectionHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// `count` entries of a table at `offset`, or an error that names the table.
fn table<'a, T: Pod>(
    data: &'a [u8],
    offset: u64,
    count: u64,
    what: &dyn Display,
) -> Result<&'a [T], LoadError> {
    let entries = usize::try_from(offset)
        .ok()
        .and_then(|offset| data.get(offset..))
        .zip(usize::try_from(count).ok())
        .and_then(|(tail, count)| pod::slice_from_bytes(tail, count).ok());
    match entries {
        Some((entries, _)) => Ok(entries),
        None => Err(LoadError::malformed(what.to_string(), "the table reaches past the end of the file")),
    }
}

/// The bytes of a section in the file.
fn content<'a>(data: &'a [u8], header: &Header, what: &str) -> Result<&'a [u8], LoadError> {
    let start = usize::try_from(header.sh_offset.get(LE)).ok();
    let size = usize::try_from(header.sh_size.get(LE)).ok();
    let range = start.zip(size).and_then(|(start, size)| Some(start..start.checked_add(size)?));
    range
        .and_then(|range| data.get(range))
        .ok_or_else(|| LoadError::malformed(what, "its bytes reach past the end of the file"))
}

/// The entries of a section that is a table of `T`. A size that is no multiple of the entry's is malformed.
fn section_table<'a, T: Pod>(
    data: &'a [u8],
    header: &Header,
    what: &dyn Display,
) -> Result<&'a [T], LoadError> {
    let entry = size_of::<T>() as u64;
    let size = header.sh_size.get(LE);
    if size % entry != 0 {
        return Err(LoadError::malformed(
            what.to_string(),
            format!("its size {size:#x} is no multiple of {entry}"),
        ));
    }
    if !matches!(header.sh_entsize.get(LE), 0) && header.sh_entsize.get(LE) != entry {
        return Err(LoadError::malformed(
            what.to_string(),
            format!("its entries are not {entry} bytes each"),
        ));
    }
    table(data, header.sh_offset.get(LE), size / entry, what)
}

/// The string at `offset` of a string table that is known to end in a NUL.
fn string(strings: &[u8], offset: u32, limit: u64) -> Option<&[u8]> {
    let name = CStr::from_bytes_until_nul(strings.get(offset as usize..)?).ok()?.to_bytes();
    (name.len() as u64 <= limit).then_some(name)
}
