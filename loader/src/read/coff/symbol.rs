//! The symbol table ("COFF Symbol Table"), decoded entry by entry.
//!
//! Some entries are auxiliary records of the entry before, and are numbered all the same. They, and symbols that only
//! mean something to debuggers, stand in section 0, which is never loaded: a relocation against one is refused.
//!
//! A *weak external* is an undefined symbol with a default. If the default is defined in the object, both together are
//! what a weak definition is elsewhere, and that is what is made of them (compilers write weak functions that way). Else
//! resolvers are asked first, and the default is what [`Symbols::weak_default`] tells.

use object::LittleEndian as LE;
use object::pe::{self, ImageAuxSymbolWeak};
use object::pod::{self, Pod};

use super::directives::CommonAlignments;
use super::{Strings, SymbolEntry, padded, table};
use crate::error::LoadError;
use crate::graph::{Binding, DecodeSymbols, Symbol, SymbolKind, SymbolLabel, SymbolPlace};
use crate::limits::Limits;

/// The table itself: which records are symbols, and their names.
pub(super) struct TableOfSymbols<'a, E> {
    pub(super) entries: &'a [E],
    pub(super) strings: Strings<'a>,
    /// A bit for each record that is auxiliary.
    auxiliary: Vec<u64>,
}

impl<'a, E: SymbolEntry> TableOfSymbols<'a, E> {
    /// An object without symbols is odd, not wrong.
    pub(super) fn find(
        object: &'a [u8],
        offset: u32,
        count: u32,
        limits: &Limits,
    ) -> Result<Self, LoadError> {
        let count = if offset == 0 { 0 } else { count };
        let entries: &'a [E] = table(object, offset, count, "symbol table")?;
        let end = u64::from(offset) + size_of_val(entries) as u64;
        let rest = usize::try_from(end).ok().and_then(|end| object.get(end..)).unwrap_or_default();
        let strings = if offset == 0 { &[] } else { rest };
        let strings = Strings { bytes: string_table(strings)?, limit: limits.name_bytes };
        let auxiliary = mark_auxiliary(entries)?;
        Ok(TableOfSymbols { entries, strings, auxiliary })
    }

    #[inline(always)]
    fn is_auxiliary(&self, number: usize) -> bool {
        self.auxiliary[number / 64] & 1 << (number % 64) != 0
    }

    /// The symbols with their numbers, auxiliary records left out.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &'a E)> {
        self.entries.iter().enumerate().filter(|(number, _)| !self.is_auxiliary(*number))
    }

    /// The first auxiliary record of a symbol.
    pub(super) fn auxiliary<T: Pod>(&self, number: usize) -> Option<&'a T> {
        let record = self.entries.get(number + 1).filter(|_| self.is_auxiliary(number + 1))?;
        pod::from_bytes(pod::bytes_of(record)).ok().map(|(record, _)| record)
    }

    /// A name of up to eight bytes stands in the entry; else four bytes of zero and an offset.
    pub(super) fn name(&self, number: usize) -> Option<&'a [u8]> {
        let entry: &'a E = self.entries.get(number)?;
        match entry.short_name() {
            [0, 0, 0, 0, offset @ ..] => match u32::from_le_bytes(*offset) {
                0 => Some(b""),
                offset => self.strings.get(offset),
            },
            short => Some(padded(short)),
        }
    }

    /// The same without looking for the end of the name.
    #[inline(always)]
    fn has_name(&self, entry: &E) -> bool {
        match entry.short_name() {
            [0, 0, 0, 0, offset @ ..] => {
                let offset = u32::from_le_bytes(*offset);
                offset == 0 || self.strings.contains(offset)
            }
            _ => true,
        }
    }
}

/// Its first four bytes count themselves; a file may end without one.
fn string_table(rest: &[u8]) -> Result<&[u8], LoadError> {
    const WHAT: &str = "string table";
    let Some(size) = rest.first_chunk().map(|size| u32::from_le_bytes(*size)) else { return Ok(&[]) };
    match rest.get(..(size as usize).max(Strings::SIZE_BYTES as usize)) {
        None => Err(LoadError::malformed(WHAT, "it reaches past the end of the file")),
        Some(strings) if strings.len() > Strings::SIZE_BYTES as usize && strings.last() != Some(&0) => {
            Err(LoadError::malformed(WHAT, "it does not end in a NUL"))
        }
        Some(strings) => Ok(strings),
    }
}

fn mark_auxiliary<E: SymbolEntry>(entries: &[E]) -> Result<Vec<u64>, LoadError> {
    let mut marks = vec![0u64; entries.len().div_ceil(64)];
    let mut number = 0;
    while let Some(entry) = entries.get(number) {
        let next = number + 1 + usize::from(entry.auxiliary_records());
        if next > entries.len() {
            return Err(LoadError::malformed(
                format!("symbol {number}"),
                "its auxiliary records reach past the end of the table",
            ));
        }
        for record in number + 1..next {
            marks[record / 64] |= 1 << (record % 64);
        }
        number = next;
    }
    Ok(marks)
}

/// The symbols of an object, still as bytes of it. Names are known by the symbol's number.
pub(crate) struct Symbols<'a, E> {
    table: TableOfSymbols<'a, E>,
    section_count: u32,
    commons: CommonAlignments<'a>,
}

impl<'a, E: SymbolEntry> Symbols<'a, E> {
    pub(super) fn new(
        table: TableOfSymbols<'a, E>,
        section_count: u32,
        commons: CommonAlignments<'a>,
    ) -> Self {
        Symbols { table, section_count, commons }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.entries.len()
    }

    /// Short names stand in the entries, without a NUL.
    pub(crate) fn strings(&self) -> Option<&'a [u8]> {
        None
    }

    pub(crate) fn name(&self, number: u32) -> Result<&'a [u8], LoadError> {
        if self.len() > number as usize && self.table.is_auxiliary(number as usize) {
            return Ok(b"");
        }
        self.table.name(number as usize).ok_or_else(|| {
            LoadError::malformed(
                format!("symbol {number}"),
                "its name is outside of the string table or too long",
            )
        })
    }

    pub(crate) fn get(&self, number: usize) -> Result<Symbol, LoadError> {
        self.decode(number).map_err(|fault| fault.of(number))
    }

    /// The symbol that a weak external stands for if nothing defines it.
    pub(crate) fn weak_default(&self, number: usize) -> Option<u32> {
        let entry = self.table.entries.get(number)?;
        if self.table.is_auxiliary(number) || entry.class() != pe::IMAGE_SYM_CLASS_WEAK_EXTERNAL {
            return None;
        }
        self.end_of_chain(number).ok().map(|(default, _)| default as u32)
    }

    #[inline(always)]
    fn decode(&self, number: usize) -> Result<Symbol, Fault> {
        let Some(entry) = self.table.entries.get(number) else { return Err(Fault::NoSuchSymbol) };
        if self.table.is_auxiliary(number) {
            return Ok(nothing(number));
        }
        if !self.table.has_name(entry) {
            return Err(Fault::Name);
        }
        match entry.class() {
            pe::IMAGE_SYM_CLASS_WEAK_EXTERNAL => self.weak_external(number),
            _ => self.plain(number, entry),
        }
    }

    /// A symbol of any class but weak external.
    #[inline(always)]
    fn plain(&self, number: usize, entry: &E) -> Result<Symbol, Fault> {
        let binding = match entry.class() {
            pe::IMAGE_SYM_CLASS_EXTERNAL => Binding::Global,
            // A section that is not here: as a name, which some other object may have.
            pe::IMAGE_SYM_CLASS_SECTION if entry.section() == 0 => Binding::Global,
            pe::IMAGE_SYM_CLASS_STATIC | pe::IMAGE_SYM_CLASS_LABEL | pe::IMAGE_SYM_CLASS_SECTION => {
                Binding::Local
            }
            class if is_for_debuggers(class) => return Ok(nothing(number)),
            class => return Err(Fault::Class(class.0)),
        };
        let mut symbol = Symbol {
            name: number as u32,
            place: SymbolPlace::Undefined,
            value: entry.value().into(),
            size: 0,
            binding,
            hidden: false,
            kind: if entry.has_function_type() { SymbolKind::Function } else { SymbolKind::Unknown },
            other: 0,
        };
        match entry.section() {
            -2 => return Ok(nothing(number)),
            -1 => symbol.place = SymbolPlace::Absolute,
            0 if binding == Binding::Local => return Err(Fault::LocalUndefined),
            0 if entry.value() == 0 || entry.class() == pe::IMAGE_SYM_CLASS_SECTION => {}
            0 => {
                symbol.place = SymbolPlace::Common;
                symbol.size = symbol.value;
                symbol.value = self.common_alignment(number, symbol.size);
                symbol.kind = SymbolKind::Data;
            }
            section => match u32::try_from(section) {
                Ok(place) if place < self.section_count => {
                    symbol.place = SymbolPlace::Section(place);
                    if is_section_definition(entry) {
                        symbol.kind = SymbolKind::Section;
                    }
                }
                _ => return Err(Fault::NoSuchSection(section)),
            },
        }
        Ok(symbol)
    }

    /// As the size, rounded up to a power of two, but no more than 32; or more, if a directive says so.
    #[cold]
    fn common_alignment(&self, number: usize, size: u64) -> u64 {
        const MOST: u64 = 32;
        let natural = size.next_power_of_two().min(MOST);
        let exponent = (!self.commons.is_empty())
            .then(|| self.commons.get(self.table.name(number)?))
            .flatten()
            .unwrap_or(0);
        // What is out of every bound stays so, and is refused with the symbol's number.
        natural.max(1u64.checked_shl(exponent.into()).unwrap_or(1 << 63))
    }

    #[cold]
    fn weak_external(&self, number: usize) -> Result<Symbol, Fault> {
        let entry = &self.table.entries[number];
        if entry.section() != 0 {
            return Err(Fault::WeakDefined);
        }
        let (default, search) = self.end_of_chain(number)?;
        let definition = self.plain(default, &self.table.entries[default])?;
        let is_defined_here = match definition.place {
            // A null pointer is what a weak reference without a definition is.
            SymbolPlace::Absolute => definition.value != 0,
            SymbolPlace::Section(section) => section != 0,
            SymbolPlace::Common => false,
            SymbolPlace::Undefined => false,
        };
        let own = is_defined_here && search != pe::IMAGE_WEAK_EXTERN_SEARCH_LIBRARY;
        let place = if own { definition.place } else { SymbolPlace::Undefined };
        let value = if own { definition.value } else { 0 };
        let kind = if entry.has_function_type() { SymbolKind::Function } else { definition.kind };
        Ok(Symbol { name: number as u32, place, value, binding: Binding::Weak, kind, ..definition })
    }

    /// Where the defaults lead: a default may be a weak external itself. Also what the first says about searching.
    fn end_of_chain(&self, number: usize) -> Result<(usize, pe::WeakExternSearch), Fault> {
        /// Longer chains are no compiler's work, and following them from every symbol would take long.
        const LONGEST: usize = 64;
        let (mut at, first_search) = self.next_of_chain(number)?;
        for _ in 0..LONGEST {
            if self.table.entries[at].class() != pe::IMAGE_SYM_CLASS_WEAK_EXTERNAL {
                return Ok((at, first_search));
            }
            let (next, search) = self.next_of_chain(at)?;
            // An anti-dependency is no default for another weak external.
            if search == pe::IMAGE_WEAK_EXTERN_ANTI_DEPENDENCY {
                return Err(Fault::WeakAntiDependency);
            }
            at = next;
        }
        Err(Fault::WeakChain)
    }

    /// The default of one weak external.
    fn next_of_chain(&self, number: usize) -> Result<(usize, pe::WeakExternSearch), Fault> {
        let Some(record) = self.table.auxiliary::<ImageAuxSymbolWeak>(number) else {
            return Err(Fault::WeakRecord);
        };
        let default = record.weak_default_sym_index.get(LE) as usize;
        if default >= self.len() || self.table.is_auxiliary(default) {
            return Err(Fault::WeakDefault(default));
        }
        match record.weak_search_type.get(LE) {
            search if (1..=4).contains(&search.0) => Ok((default, search)),
            search => Err(Fault::WeakSearch(search.0)),
        }
    }
}

impl<E: SymbolEntry> DecodeSymbols for Symbols<'_, E> {
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

    /// The format does not say how large it is, unless it is common.
    #[inline]
    fn label(&self, number: usize) -> SymbolLabel {
        let symbol = self.decode(number).ok();
        SymbolLabel {
            name: number as u32,
            size: symbol.map_or(0, |symbol| symbol.size),
            kind: symbol.map_or(SymbolKind::Unknown, |symbol| symbol.kind),
        }
    }
}

/// The symbol of a section: local, at its start, with an auxiliary record about it.
fn is_section_definition<E: SymbolEntry>(entry: &E) -> bool {
    match entry.class() {
        pe::IMAGE_SYM_CLASS_SECTION => true,
        pe::IMAGE_SYM_CLASS_STATIC => entry.value() == 0 && entry.auxiliary_records() != 0,
        _ => false,
    }
}

/// Source files, the begin and end of functions and blocks, types and variables of stack frames: none is at an address.
fn is_for_debuggers(class: pe::SymbolClass) -> bool {
    matches!(
        class,
        pe::IMAGE_SYM_CLASS_NULL
            | pe::IMAGE_SYM_CLASS_AUTOMATIC
            | pe::IMAGE_SYM_CLASS_REGISTER
            | pe::IMAGE_SYM_CLASS_FILE
            | pe::IMAGE_SYM_CLASS_FUNCTION
            | pe::IMAGE_SYM_CLASS_BLOCK
            | pe::IMAGE_SYM_CLASS_END_OF_FUNCTION
            | pe::IMAGE_SYM_CLASS_END_OF_STRUCT
    ) || (pe::IMAGE_SYM_CLASS_MEMBER_OF_STRUCT.0..=pe::IMAGE_SYM_CLASS_BIT_FIELD.0).contains(&class.0)
}

/// What an entry is that is no symbol.
fn nothing(number: usize) -> Symbol {
    Symbol {
        name: number as u32,
        place: SymbolPlace::Section(0),
        value: 0,
        size: 0,
        binding: Binding::Local,
        hidden: false,
        kind: SymbolKind::File,
        other: 0,
    }
}

/// Why an entry is no symbol. Small, unlike the error it becomes, so that decoding stays in registers.
enum Fault {
    NoSuchSymbol,
    Name,
    Class(u8),
    LocalUndefined,
    NoSuchSection(i32),
    WeakDefined,
    WeakRecord,
    WeakDefault(usize),
    WeakSearch(u32),
    WeakChain,
    WeakAntiDependency,
}

impl Fault {
    #[cold]
    fn of(self, number: usize) -> LoadError {
        let why = match self {
            Fault::NoSuchSymbol => "it is not there".to_owned(),
            Fault::Name => "its name is outside of the string table".to_owned(),
            Fault::Class(class) => format!("its storage class {class} is not supported"),
            Fault::LocalUndefined => "it is local, but undefined".to_owned(),
            Fault::NoSuchSection(section) => format!("it is in section {section}, which is not there"),
            Fault::WeakDefined => "it is a weak external, but defined".to_owned(),
            Fault::WeakRecord => "it is a weak external without an auxiliary record".to_owned(),
            Fault::WeakDefault(default) => {
                format!("its default is symbol {default}, which is not there")
            }
            Fault::WeakSearch(search) => format!("its search characteristics {search} are unknown"),
            Fault::WeakChain => "the weak externals behind it go round, or too far".to_owned(),
            Fault::WeakAntiDependency => "its default is an anti-dependency".to_owned(),
        };
        LoadError::malformed(format!("symbol {number}"), why)
    }
}
