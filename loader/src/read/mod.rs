//! Object readers: one folder per file format, each turning untrusted bytes into the same [`LinkGraph`].
//!
//! Readers only check and point: they copy nothing of the object and allocate in proportion to the section count.
//! Another format is a folder here, a variant in [`Format`](crate::graph::Format) and an arm in [`parse`].

pub(crate) mod coff;
pub(crate) mod elf;
pub(crate) mod macho;

use crate::error::LoadError;
use crate::graph::{Format, LinkGraph, SymbolTable, UnloadedSection};
use crate::limits::Limits;

/// What a link graph borrows that is not in the object's bytes as such. Made empty, filled by [`parse`].
#[derive(Default)]
pub(crate) struct Storage<'a> {
    macho: macho::Storage<'a>,
}

/// Reads the object's tables, whichever format it has.
pub(crate) fn parse<'a>(
    object: &'a [u8],
    storage: &'a Storage<'a>,
    limits: &Limits,
) -> Result<LinkGraph<'a>, LoadError> {
    match object {
        [0x7f, b'E', b'L', b'F', ..] => elf::parse(object, limits),
        [0xcf, 0xfa, 0xed, 0xfe, ..] => macho::parse(object, &storage.macho, limits),
        _ if coff::is_coff(object) => coff::parse(object, limits),
        _ => Err(foreign(object)),
    }
}

/// Reads no more than the symbols.
pub(crate) fn parse_symbols<'a>(object: &'a [u8], limits: &Limits) -> Result<SymbolTable<'a>, LoadError> {
    match object {
        [0x7f, b'E', b'L', b'F', ..] => Ok(elf::parse(object, limits)?.symbols),
        [0xcf, 0xfa, 0xed, 0xfe, ..] => Ok(SymbolTable::MachO64(macho::parse_symbols(object, limits)?)),
        _ if coff::is_coff(object) => Ok(coff::parse(object, limits)?.symbols),
        _ => Err(foreign(object)),
    }
}

/// The sections with debug information. The object was parsed before.
pub(crate) fn debug_sections<'a>(
    format: Format,
    object: &'a [u8],
    limits: &Limits,
) -> Result<Vec<UnloadedSection<'a>>, LoadError> {
    match format {
        Format::Elf => elf::debug_sections(object, limits),
        Format::MachO | Format::Coff => {
            Err(LoadError::unsupported(format!("debug information in {format:?} objects")))
        }
    }
}

/// Names what the bytes are instead, as far as their first bytes tell.
fn foreign(object: &[u8]) -> LoadError {
    let unsupported =
        |what: &str| LoadError::unsupported(format!("{what}; only ELF, Mach-O and COFF objects are loaded"));
    match object {
        [] => LoadError::UnknownFormat("it is empty".to_owned()),
        [0xce, 0xfa, 0xed, 0xfe, ..] => unsupported("this is a 32-bit Mach-O file"),
        [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..] => unsupported("this is a big-endian Mach-O file"),
        [0xca, 0xfe, 0xba, 0xbe, ..] => unsupported("this is a universal (fat) Mach-O file"),
        [b'M', b'Z', ..] => unsupported("this is a PE image"),
        [b'B', b'C', 0xc0, 0xde, ..] => unsupported("this is LLVM bitcode"),
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => unsupported("this is an archive"),
        [0x00, b'a', b's', b'm', ..] => unsupported("this is WebAssembly"),
        _ => {
            let head = &object[..object.len().min(4)];
            LoadError::UnknownFormat(format!("it begins with the bytes {head:02x?}"))
        }
    }
}

/// Counts the bytes of the file that one kind of thing takes, sections or relocations. In a sound object nothing overlaps,
/// so that all together take no more than there are: this is what keeps the work in proportion to the object.
pub(crate) struct FileBudget {
    left: usize,
    what: &'static str,
}

impl FileBudget {
    pub(crate) fn of(object: &[u8], what: &'static str) -> Self {
        FileBudget { left: object.len(), what }
    }

    /// Takes `count` things of `size` bytes each.
    #[inline]
    pub(crate) fn spend(&mut self, count: usize, size: usize) -> Result<(), LoadError> {
        let left = count.checked_mul(size).and_then(|bytes| self.left.checked_sub(bytes));
        self.left = left.ok_or_else(|| LoadError::malformed(self.what, "they overlap in the file"))?;
        Ok(())
    }
}
