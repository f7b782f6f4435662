//! COFF relocatable objects, by the "PE Format" specification. The structures are those of `object::pe`; every slice is
//! bounds-checked by `object::pod`.
//!
//! COFF comes in two shapes, which differ in the file header and in the width of a symbol's section number: the
//! ordinary one, and `/bigobj` for more than 65,279 sections. What differs is behind [`Shape`] and [`SymbolEntry`].

mod directives;
mod file;
mod group;
mod relocation;
mod section;
mod symbol;

pub(crate) use file::{is_coff, parse};
pub(crate) use relocation::Relocations;
pub(crate) use symbol::Symbols;

use std::ffi::CStr;

use object::LittleEndian as LE;
use object::pe;
use object::pod::{self, Pod};

use crate::error::LoadError;
use crate::graph::SymbolTable;

/// What a symbol table entry of either shape says.
pub(crate) trait SymbolEntry: Pod {
    /// Section numbers in auxiliary records have 32 bits.
    const WIDE: bool;

    fn short_name(&self) -> &[u8; 8];
    fn value(&self) -> u32;
    /// From 1; 0, -1 and -2 have meanings of their own.
    fn section(&self) -> i32;
    fn has_function_type(&self) -> bool;
    fn class(&self) -> pe::SymbolClass;
    /// How many records that follow belong to it.
    fn auxiliary_records(&self) -> u8;
    fn table(symbols: Symbols<'_, Self>) -> SymbolTable<'_>;
}

macro_rules! symbol_entries {
    ($($entry:ty: $wide:literal, $variant:ident, $section:expr;)*) => {$(
        impl SymbolEntry for $entry {
            const WIDE: bool = $wide;

            #[inline(always)]
            fn short_name(&self) -> &[u8; 8] {
                &self.name
            }

            #[inline(always)]
            fn value(&self) -> u32 {
                self.value.get(LE)
            }

            #[inline(always)]
            fn section(&self) -> i32 {
                $section(self)
            }

            /// The more significant byte of the type says what is derived from the base type: 2 for a function.
            #[inline(always)]
            fn has_function_type(&self) -> bool {
                self.typ.get(LE).0 >> 4 == 2
            }

            #[inline(always)]
            fn class(&self) -> pe::SymbolClass {
                self.storage_class
            }

            #[inline(always)]
            fn auxiliary_records(&self) -> u8 {
                self.number_of_aux_symbols
            }

            fn table(symbols: Symbols<'_, Self>) -> SymbolTable<'_> {
                SymbolTable::$variant(symbols)
            }
        }
    )*};
}
symbol_entries! {
    pe::ImageSymbol: false, Coff, |entry: &pe::ImageSymbol| narrow_section(entry.section_number.get(LE));
    pe::ImageSymbolEx: true, CoffBig, |entry: &pe::ImageSymbolEx| entry.section_number.get(LE).0;
}

/// Sixteen bits count sections up to 65,279; what is above are the negative numbers.
#[inline(always)]
fn narrow_section(number: u16) -> i32 {
    const MOST: u16 = 65_279;
    if number <= MOST { i32::from(number) } else { i32::from(number as i16) }
}

/// The string table that follows the symbols. Its first four bytes are its own size, and offsets count from there.
#[derive(Clone, Copy)]
struct Strings<'a> {
    bytes: &'a [u8],
    limit: u64,
}

impl<'a> Strings<'a> {
    const SIZE_BYTES: u32 = 4;

    fn contains(&self, offset: u32) -> bool {
        offset >= Self::SIZE_BYTES && (offset as usize) < self.bytes.len()
    }

    fn get(&self, offset: u32) -> Option<&'a [u8]> {
        let tail = self.bytes.get(offset as usize..).filter(|_| self.contains(offset))?;
        let name = CStr::from_bytes_until_nul(tail).ok()?.to_bytes();
        (name.len() as u64 <= self.limit).then_some(name)
    }
}

/// A name of eight bytes, padded with NULs.
fn padded(name: &[u8; 8]) -> &[u8] {
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    &name[..end]
}

/// The start of a table: `count` entries of it at `offset`.
fn table<'a, T: Pod>(data: &'a [u8], offset: u32, count: u32, what: &str) -> Result<&'a [T], LoadError> {
    let tail = data.get(offset as usize..);
    match tail.and_then(|tail| pod::slice_from_bytes(tail, count as usize).ok()) {
        Some((entries, _)) => Ok(entries),
        None => Err(LoadError::malformed(what, "the table reaches past the end of the file")),
    }
}
