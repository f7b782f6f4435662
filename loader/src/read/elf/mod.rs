//! ELF relocatable objects, by the System V gABI (chapter 4: Object Files) and the psABI of the machine. The structures
//! are those of `object::elf`; every slice is bounds-checked by `object::pod`.
//!
//! ELF comes in shapes: 32 or 64 bits, either byte order. All is written once, over [`Shape`], so that the code for each
//! shape looks at nothing but its own.

mod debug;
mod file;
mod group;
mod relocation;
mod section;
mod symbol;

pub(crate) use debug::{debug_sections, header_flags};
pub(crate) use file::{file_header, parse, section_headers};
pub(crate) use group::{GroupMembers, read as read_groups};
pub(crate) use relocation::Relocations;
pub(crate) use section::SectionNames;
pub(crate) use symbol::Symbols;

use std::fmt::Display;

use object::elf::{FileHeader32, FileHeader64, Rel32, Rel64};
use object::endian::FixedEndian;
use object::pod::{self, Pod};
use object::read::elf::{FileHeader, SectionHeader as _};
use object::{BigEndian, LittleEndian};

use crate::error::LoadError;
use crate::graph::{RelocationTable, SymbolTable};

/// A shape of ELF: class and byte order, named by the type of its file header.
pub(crate) trait Shape: FileHeader<Endian: FixedEndian, Word: Pod> + Sized {
    const CLASS: u8;

    fn symbol_table(symbols: Symbols<'_, Self>) -> SymbolTable<'_>;

    /// A table of relocations with addends of their own, if this shape has such.
    fn rela<'a>(entries: &'a [Self::Rela]) -> RelocationTable<'a>;

    /// A table of relocations whose addends are in the fields, if any machine of this shape has such.
    fn rel<'a>(entries: &'a [Self::Rel]) -> Option<RelocationTable<'a>>;
}

macro_rules! shapes {
    ($($header:ty: $class:literal, $symbols:ident, $rela:ident, $rel:expr;)*) => {$(
        impl Shape for $header {
            const CLASS: u8 = $class;

            fn symbol_table(symbols: Symbols<'_, Self>) -> SymbolTable<'_> {
                SymbolTable::$symbols(symbols)
            }

            fn rela<'a>(entries: &'a [Self::Rela]) -> RelocationTable<'a> {
                RelocationTable::$rela(Relocations::new(entries))
            }

            fn rel<'a>(entries: &'a [Self::Rel]) -> Option<RelocationTable<'a>> {
                $rel(entries)
            }
        }
    )*};
}
shapes! {
    FileHeader64<LittleEndian>: 64, Elf64, Elf64Rela,
        |entries| Some(RelocationTable::Elf64Rel(Relocations::<Rel64<LittleEndian>>::new(entries)));
    FileHeader32<LittleEndian>: 32, Elf32, Elf32Rela,
        |entries| Some(RelocationTable::Elf32Rel(Relocations::<Rel32<LittleEndian>>::new(entries)));
    FileHeader64<BigEndian>: 64, Elf64Big, Elf64BigRela, |_| None;
}

type Header<F> = <F as FileHeader>::SectionHeader;

/// The byte order of a shape.
const fn order<F: Shape>() -> F::Endian {
    <F::Endian as FixedEndian>::FIXED
}

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
pub(crate) fn content<'a, F: Shape>(
    data: &'a [u8],
    header: &Header<F>,
    what: &str,
) -> Result<&'a [u8], LoadError> {
    let start = usize::try_from(header.sh_offset(order::<F>()).into()).ok();
    let size = usize::try_from(header.sh_size(order::<F>()).into()).ok();
    let range = start.zip(size).and_then(|(start, size)| Some(start..start.checked_add(size)?));
    range
        .and_then(|range| data.get(range))
        .ok_or_else(|| LoadError::malformed(what, "its bytes reach past the end of the file"))
}

/// The entries of a section that is a table of `T`. A size that is no multiple of the entry's is malformed.
pub(crate) fn section_table<'a, F: Shape, T: Pod>(
    data: &'a [u8],
    header: &Header<F>,
    what: &dyn Display,
) -> Result<&'a [T], LoadError> {
    let entry = size_of::<T>() as u64;
    let size = header.sh_size(order::<F>()).into();
    if size % entry != 0 {
        return Err(LoadError::malformed(
            what.to_string(),
            format!("its size {size:#x} is no multiple of {entry}"),
        ));
    }
    let declared = header.sh_entsize(order::<F>()).into();
    if declared != 0 && declared != entry {
        return Err(LoadError::malformed(
            what.to_string(),
            format!("its entries are not {entry} bytes each"),
        ));
    }
    table(data, header.sh_offset(order::<F>()).into(), size / entry, what)
}

/// The string at `offset` of a string table that is known to end in a NUL.
fn string(strings: &[u8], offset: u32, limit: u64) -> Option<&[u8]> {
    let tail = strings.get(offset as usize..)?;
    let name = &tail[..first_nul(tail)?];
    (name.len() as u64 <= limit).then_some(name)
}

/// Whether all strings of a table end in a NUL, after no more than `limit` bytes.
fn are_short(strings: &[u8], limit: u64) -> bool {
    let mut rest = strings;
    while rest.len() as u64 > limit {
        // Whatever begins before the last NUL within reach ends there, or before.
        match memchr::memrchr(0, &rest[..=limit as usize]) {
            Some(last) => rest = &rest[last + 1..],
            None => return false,
        }
    }
    rest.is_empty() || rest.last() == Some(&0)
}

/// What every processor can do is faster for names, and the first use of all else asks what this one can, which takes longer
/// than a load where a hypervisor has to answer.
#[cfg(target_arch = "x86_64")]
fn first_nul(bytes: &[u8]) -> Option<usize> {
    match memchr::arch::x86_64::sse2::memchr::One::new(0) {
        Some(finder) => finder.find(bytes),
        None => memchr::memchr(0, bytes),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn first_nul(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(0, bytes)
}
