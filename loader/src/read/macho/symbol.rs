//! The symbol table (`nlist.h`), decoded entry by entry. Behind its symbols come those that stand for sections.

use std::ffi::CStr;

use object::LittleEndian;
use object::macho::{self, Nlist64, SymtabCommand};

use super::{Header, LE, section, table};
use crate::error::LoadError;
use crate::graph::{Binding, DecodeSymbols, Symbol, SymbolKind, SymbolLabel, SymbolPlace};
use crate::limits::Limits;

type Entry = Nlist64<LittleEndian>;

/// Relocations name a symbol by 24 bits.
const MOST_SYMBOLS: u64 = 1 << 24;

/// The symbols of an object, still as bytes of it. Number `own_len() + n - 1` stands for section `n`.
pub(crate) struct Symbols<'a> {
    entries: &'a [Entry],
    /// Ends in a NUL.
    strings: &'a [u8],
    headers: &'a [Header],
    name_limit: u64,
}

impl<'a> Symbols<'a> {
    /// The symbol table of the object. An object without one is empty, not wrong.
    pub(super) fn find(
        object: &'a [u8],
        command: Option<&SymtabCommand<LittleEndian>>,
        headers: &'a [Header],
        limits: &Limits,
    ) -> Result<Self, LoadError> {
        const STRINGS: &str = "symbol string table";
        let (mut entries, mut strings): (&[Entry], &[u8]) = (&[], b"\0");
        if let Some(command) = command {
            let limit = limits.symbols.min(MOST_SYMBOLS);
            let count = u64::from(command.nsyms.get(LE));
            if count > limit {
                return Err(LoadError::limit("the number of symbols", count, limit));
            }
            entries = table(object, command.symoff, command.nsyms, "symbol table")?;
            if command.strsize.get(LE) != 0 {
                strings = table::<u8>(object, command.stroff, command.strsize, STRINGS)?;
            }
        }
        match strings.last() {
            Some(0) => Ok(Symbols { entries, strings, headers, name_limit: limits.name_bytes }),
            _ => Err(LoadError::malformed(STRINGS, "it does not end in a NUL")),
        }
    }

    /// How many symbols the object itself has.
    pub(super) fn own_len(&self) -> u32 {
        self.entries.len() as u32
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() + self.headers.len()
    }

    pub(crate) fn strings(&self) -> Option<&'a [u8]> {
        Some(self.strings)
    }

    /// The name at an offset of the string table. Offset 0 is no name, whatever is there (`nlist.h`).
    pub(crate) fn name(&self, offset: u32) -> Result<&'a [u8], LoadError> {
        if offset == 0 {
            return Ok(b"");
        }
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        match CStr::from_bytes_until_nul(tail) {
            Ok(name) if name.count_bytes() as u64 <= self.name_limit => Ok(name.to_bytes()),
            _ => Err(LoadError::malformed(
                "symbol table",
                format!("the name at offset {offset:#x} is outside or too long"),
            )),
        }
    }

    pub(crate) fn get(&self, number: usize) -> Result<Symbol, LoadError> {
        self.decode(number).map_err(|fault| fault.of(number))
    }

    fn decode(&self, number: usize) -> Result<Symbol, Fault> {
        let Some(entry) = self.entries.get(number) else {
            return Ok(section_symbol((number - self.entries.len()) as u32 + 1));
        };
        if entry.n_type.is_stab() {
            return Ok(NOTHING);
        }
        let name = entry.n_strx.get(LE);
        if name as usize >= self.strings.len() {
            return Err(Fault::Name);
        }
        let description = entry.n_desc.get(LE);
        let value = entry.n_value.get(LE);
        let symbol = Symbol { name, ..NOTHING };
        let is_weak = |flag: macho::SymbolDesc| description.0 & flag.0 != 0;
        Ok(match entry.n_type.typ() {
            macho::N_UNDF if value == 0 => Symbol {
                place: SymbolPlace::Undefined,
                binding: if is_weak(macho::N_WEAK_REF) { Binding::Weak } else { Binding::Global },
                ..symbol
            },
            macho::N_UNDF => Symbol {
                place: SymbolPlace::Common,
                value: common_alignment(description.common_alignment(), value),
                size: value,
                binding: Binding::Global,
                hidden: is_hidden(entry),
                kind: SymbolKind::Data,
                ..symbol
            },
            macho::N_ABS => Symbol {
                place: SymbolPlace::Absolute,
                value,
                binding: binding(entry),
                hidden: is_hidden(entry),
                ..symbol
            },
            macho::N_SECT => {
                let number = u32::from(entry.n_sect);
                let header = number.checked_sub(1).and_then(|index| self.headers.get(index as usize));
                let header = header.ok_or(Fault::NoSuchSection(number))?;
                Symbol {
                    place: SymbolPlace::Section(number),
                    value: value.wrapping_sub(section::address(header)),
                    binding: binding(entry),
                    hidden: is_hidden(entry),
                    kind: match section::has_instructions(header) {
                        true => SymbolKind::Function,
                        false => SymbolKind::Data,
                    },
                    ..symbol
                }
            }
            macho::N_INDR => return Err(Fault::Indirect),
            other => return Err(Fault::Type(other.0)),
        })
    }
}

impl DecodeSymbols for Symbols<'_> {
    #[inline(always)]
    fn try_for_each(
        &self,
        mut each: impl FnMut(usize, Symbol) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        for number in 0..self.len() {
            match self.decode(number) {
                Ok(symbol) => each(number, symbol)?,
                Err(fault) => return Err(fault.of(number)),
            }
        }
        Ok(())
    }

    fn label(&self, number: usize) -> SymbolLabel {
        match self.decode(number) {
            Ok(Symbol { name, size, kind, .. }) => SymbolLabel { name, size, kind },
            Err(_) => SymbolLabel { name: 0, size: 0, kind: SymbolKind::Unknown },
        }
    }
}

/// A symbol that is not there: in section 0, which is never loaded. The entries of debuggers (stabs) are such, and keep
/// their numbers.
const NOTHING: Symbol = Symbol {
    name: 0,
    place: SymbolPlace::Section(0),
    value: 0,
    size: 0,
    binding: Binding::Local,
    hidden: false,
    kind: SymbolKind::Unknown,
    other: 0,
};

fn section_symbol(section: u32) -> Symbol {
    Symbol { place: SymbolPlace::Section(section), kind: SymbolKind::Section, ..NOTHING }
}

/// A private external symbol is seen by the other objects of the link only. `N_ALT_ENTRY` and the like are about pieces of
/// sections, which stay together here.
fn is_hidden(entry: &Entry) -> bool {
    entry.n_type.0 & macho::N_PEXT.0 != 0
}

fn binding(entry: &Entry) -> Binding {
    let is_weak = entry.n_desc.get(LE).0 & macho::N_WEAK_DEF.0 != 0;
    match (entry.n_type.is_ext(), is_weak) {
        (false, _) => Binding::Local,
        (true, true) => Binding::Weak,
        (true, false) => Binding::Global,
    }
}

/// The alignment of a common symbol is a power of two, given by its exponent; if that is zero, it follows from the size, up
/// to a page (as in `ld64`).
fn common_alignment(exponent: u8, size: u64) -> u64 {
    const PAGE: u64 = 4096;
    match exponent {
        0 => size.min(PAGE).next_power_of_two(),
        exponent => 1 << exponent,
    }
}

/// Why an entry is no symbol.
enum Fault {
    Name,
    NoSuchSection(u32),
    Indirect,
    Type(u8),
}

impl Fault {
    #[cold]
    fn of(self, number: usize) -> LoadError {
        let why = match self {
            Fault::Name => "its name is outside of the string table".to_owned(),
            Fault::NoSuchSection(section) => format!("it is in section {section}, which is not there"),
            Fault::Indirect => {
                let what = "an alias for a symbol of another object (N_INDR)";
                return LoadError::unsupported(format!("symbol {number}: {what}"));
            }
            Fault::Type(kind) => format!("its type {kind:#x} is unknown"),
        };
        LoadError::malformed(format!("symbol {number}"), why)
    }
}
