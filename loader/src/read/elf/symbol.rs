//! The symbol table (gABI, "Symbol Table"), decoded entry by entry.

use std::ops::Range;

use object::read::elf::{SectionHeader as _, Sym as _};
use object::{U32, elf};

use super::{Header, Shape, are_short, content, order, section_table, string};
use crate::error::LoadError;
use crate::graph::{Binding, DecodeSymbols, Symbol, SymbolKind, SymbolLabel, SymbolPlace};
use crate::limits::Limits;

/// Common symbols of the large code model (x86-64 psABI, "Special Section Indexes").
const SHN_X86_64_LCOMMON: elf::SymbolSection = elf::SymbolSection(0xff02);

/// The symbols of an object, still as bytes of it.
pub(crate) struct Symbols<'a, F: Shape> {
    entries: &'a [F::Sym],
    /// Section numbers of the symbols that have `SHN_XINDEX`; empty when the object has no such table.
    extended: &'a [U32<F::Endian>],
    /// Ends in a NUL.
    strings: &'a [u8],
    /// Number of the symbol table's section; 0 when there is none.
    section: usize,
    section_count: u32,
    name_limit: u64,
}

impl<'a, F: Shape> Symbols<'a, F> {
    /// The one symbol table of the object, which is among the sections of these numbers. An object without one is empty, not
    /// wrong.
    pub(crate) fn find(
        object: &'a [u8],
        headers: &'a [Header<F>],
        numbers: Range<usize>,
        limits: &Limits,
    ) -> Result<Self, LoadError> {
        let mut symbols = Symbols {
            entries: &[],
            extended: &[],
            strings: b"\0",
            section: 0,
            section_count: headers.len() as u32,
            name_limit: limits.name_bytes,
        };
        for number in numbers {
            let header = &headers[number];
            match header.sh_type(order::<F>()) {
                elf::SHT_SYMTAB if symbols.section != 0 => {
                    return Err(LoadError::malformed("symbol table", "there are two of them"));
                }
                elf::SHT_SYMTAB => symbols.read(object, headers, number, limits)?,
                elf::SHT_SYMTAB_SHNDX => {
                    symbols.extended = section_table::<F, _>(object, header, &"extended section numbers")?;
                }
                _ => {}
            }
        }
        Ok(symbols)
    }

    fn read(
        &mut self,
        object: &'a [u8],
        headers: &'a [Header<F>],
        number: usize,
        limits: &Limits,
    ) -> Result<(), LoadError> {
        const WHAT: &str = "symbol table";
        let header = &headers[number];
        self.section = number;
        self.entries = section_table::<F, _>(object, header, &WHAT)?;
        let count = self.entries.len() as u64;
        if count > limits.symbols {
            return Err(LoadError::limit("the number of symbols", count, limits.symbols));
        }
        let strings = headers
            .get(header.sh_link(order::<F>()) as usize)
            .filter(|strings| strings.sh_type(order::<F>()) == elf::SHT_STRTAB)
            .ok_or_else(|| LoadError::malformed(WHAT, "it has no string table"))?;
        self.strings = content::<F>(object, strings, "symbol string table")?;
        match self.strings.last() {
            Some(0) => Ok(()),
            _ => Err(LoadError::malformed("symbol string table", "it does not end in a NUL")),
        }
    }

    /// The entries as they are.
    pub(crate) fn entries(&self) -> &'a [F::Sym] {
        self.entries
    }

    /// No name is longer than is looked at.
    pub(crate) fn has_short_names(&self) -> bool {
        are_short(self.strings, self.name_limit)
    }

    pub(super) fn section(&self) -> usize {
        self.section
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn strings(&self) -> Option<&'a [u8]> {
        Some(self.strings)
    }

    pub(crate) fn name(&self, offset: u32) -> Result<&'a [u8], LoadError> {
        string(self.strings, offset, self.name_limit).ok_or_else(|| {
            LoadError::malformed(
                "symbol table",
                format!("the name at offset {offset:#x} is outside or too long"),
            )
        })
    }

    /// The symbol with that number; there may be none.
    pub(crate) fn get(&self, number: usize) -> Result<Symbol, LoadError> {
        if number >= self.entries.len() {
            return Err(Fault::NotThere.of(number));
        }
        self.decode(number).map_err(|fault| fault.of(number))
    }

    /// Symbol 0 stands for "no symbol": an absolute zero.
    #[inline(always)]
    pub(crate) fn decode(&self, number: usize) -> Result<Symbol, Fault> {
        let entry = &self.entries[number];
        let name = entry.st_name(order::<F>());
        if name as usize >= self.strings.len() {
            return Err(Fault::Name);
        }
        let place = if number == 0 { SymbolPlace::Absolute } else { self.place(number, entry)? };
        Ok(Symbol {
            name,
            place,
            value: entry.st_value(order::<F>()).into(),
            size: entry.st_size(order::<F>()).into(),
            binding: binding(entry.st_bind())?,
            hidden: matches!(entry.st_visibility(), elf::STV_HIDDEN | elf::STV_INTERNAL),
            kind: kind(entry.st_type()),
            other: entry.st_other().0,
        })
    }

    #[inline(always)]
    fn place(&self, number: usize, entry: &F::Sym) -> Result<SymbolPlace, Fault> {
        let section = match entry.st_shndx(order::<F>()) {
            elf::SHN_UNDEF => return Ok(SymbolPlace::Undefined),
            elf::SHN_ABS => return Ok(SymbolPlace::Absolute),
            elf::SHN_COMMON | SHN_X86_64_LCOMMON => return Ok(SymbolPlace::Common),
            elf::SHN_XINDEX => match self.extended.get(number) {
                Some(section) => section.get(order::<F>()),
                None => return Err(Fault::NoExtendedSection),
            },
            index if index.0 < elf::SHN_LORESERVE => u32::from(index.0),
            index => return Err(Fault::ReservedSection(index.0)),
        };
        if section >= self.section_count {
            return Err(Fault::NoSuchSection(section));
        }
        Ok(SymbolPlace::Section(section))
    }
}

impl<F: Shape> DecodeSymbols for Symbols<'_, F> {
    #[inline(always)]
    fn try_for_each(
        &self,
        mut each: impl FnMut(usize, Symbol) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        for number in 0..self.entries.len() {
            match self.decode(number) {
                Ok(symbol) => each(number, symbol)?,
                Err(fault) => return Err(fault.of(number)),
            }
        }
        Ok(())
    }

    #[inline]
    fn label(&self, number: usize) -> SymbolLabel {
        let entry = &self.entries[number];
        SymbolLabel {
            name: entry.st_name(order::<F>()),
            size: entry.st_size(order::<F>()).into(),
            kind: kind(entry.st_type()),
        }
    }
}

/// Why an entry is no symbol. Small, unlike the error it becomes, so that decoding stays in registers.
pub(crate) enum Fault {
    NotThere,
    Name,
    NoExtendedSection,
    ReservedSection(u16),
    NoSuchSection(u32),
    Binding(u8),
}

impl Fault {
    #[cold]
    fn of(self, number: usize) -> LoadError {
        let why = match self {
            Fault::NotThere => "it is not there".to_owned(),
            Fault::Name => "its name is outside of the string table".to_owned(),
            Fault::NoExtendedSection => "its extended section number is missing".to_owned(),
            Fault::ReservedSection(section) => format!("its section number {section:#x} is reserved"),
            Fault::NoSuchSection(section) => format!("it is in section {section}, which is not there"),
            Fault::Binding(binding) => format!("its binding {binding} is unknown"),
        };
        LoadError::malformed(format!("symbol {number}"), why)
    }
}

/// `STB_GNU_UNIQUE` asks that the whole process share one definition, whoever comes first: it gives way as a weak one does.
#[inline(always)]
fn binding(binding: elf::SymbolBind) -> Result<Binding, Fault> {
    match binding {
        elf::STB_LOCAL => Ok(Binding::Local),
        elf::STB_GLOBAL => Ok(Binding::Global),
        elf::STB_WEAK | elf::STB_GNU_UNIQUE => Ok(Binding::Weak),
        other => Err(Fault::Binding(other.0)),
    }
}

/// Looked up: in the order of the symbol table kinds alternate in a way that no branch predictor foresees.
#[inline(always)]
fn kind(kind: elf::SymbolType) -> SymbolKind {
    const KINDS: [SymbolKind; 16] = {
        let mut kinds = [SymbolKind::Unknown; 16];
        kinds[elf::STT_FUNC.0 as usize] = SymbolKind::Function;
        kinds[elf::STT_OBJECT.0 as usize] = SymbolKind::Data;
        kinds[elf::STT_COMMON.0 as usize] = SymbolKind::Data;
        kinds[elf::STT_SECTION.0 as usize] = SymbolKind::Section;
        kinds[elf::STT_FILE.0 as usize] = SymbolKind::File;
        kinds[elf::STT_TLS.0 as usize] = SymbolKind::ThreadLocal;
        kinds[elf::STT_GNU_IFUNC.0 as usize] = SymbolKind::IndirectFunction;
        kinds
    };
    KINDS[usize::from(kind.0 & 15)]
}
