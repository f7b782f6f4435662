//! The link graph: what a format reader hands to the passes, the same for every format and architecture.
//!
//! It is flat. Sections and symbols are numbered as in the object, and everything borrows from the object's bytes:
//! symbols and relocations are decoded where they are looked at, so that loading allocates nothing per symbol or
//! per relocation.

use crate::arch::Machine;
use crate::error::LoadError;
use crate::memory::Segment;
use crate::read::elf;

/// A parsed object. Section and symbol numbers index into it.
pub(crate) struct LinkGraph<'a> {
    pub(crate) format: Format,
    pub(crate) machine: Machine,
    pub(crate) sections: Vec<Section<'a>>,
    pub(crate) symbols: SymbolTable<'a>,
    /// Groups of which one copy is kept (COMDAT).
    pub(crate) groups: Vec<Group<'a>>,
}

/// Object file format: decides what a raw relocation type means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Elf,
}

/// One section: where its bytes are in the object, and, after layout, in memory.
#[derive(Clone, Copy)]
pub(crate) struct Section<'a> {
    pub(crate) name: &'a [u8],
    /// Content in the object; empty for a section that is all zeros.
    pub(crate) bytes: &'a [u8],
    /// Size in memory.
    pub(crate) size: u64,
    /// A power of two.
    pub(crate) align: u64,
    /// Where it is loaded; `None`: not at all.
    pub(crate) segment: Option<Segment>,
    pub(crate) zero_fill: bool,
    pub(crate) role: Role,
    pub(crate) relocations: RelocationTable<'a>,
    /// Offset in its segment. Set by layout.
    pub(crate) offset: u64,
    /// Target address. Set when memory was allocated.
    pub(crate) address: u64,
}

impl Section<'_> {
    /// A section that the loader leaves in the object.
    pub(crate) const NOT_LOADED: Self = Section {
        name: b"",
        bytes: &[],
        size: 0,
        align: 1,
        segment: None,
        zero_fill: false,
        role: Role::Plain,
        relocations: RelocationTable::None,
        offset: 0,
        address: 0,
    };
}

/// Sections that mean something to the loader itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Plain,
    /// Pointers to functions to run, in order of priority.
    Initializers {
        priority: u16,
    },
    /// The same, run from last to first (`.ctors`).
    InitializersBackwards {
        priority: u16,
    },
    /// Pointers to functions to run when the image goes, from last to first.
    Finalizers {
        priority: u16,
    },
    /// The same, run in order (`.dtors`).
    FinalizersForwards {
        priority: u16,
    },
    /// Call frame information.
    EhFrame,
    /// Language-specific unwind data: the image catches exceptions or cleans up.
    ExceptTable,
}

/// Sections that stand or fall together: the first group of each name is kept.
pub(crate) struct Group<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) members: elf::GroupMembers<'a>,
}

/// A decoded symbol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol {
    /// Offset of the name in the string table.
    pub(crate) name: u32,
    pub(crate) place: SymbolPlace,
    /// Offset in the section, address of an absolute symbol, or alignment of a common one.
    pub(crate) value: u64,
    pub(crate) size: u64,
    pub(crate) binding: Binding,
    /// Not visible outside of the image.
    pub(crate) hidden: bool,
    pub(crate) kind: SymbolKind,
}

/// What users of an image see of a symbol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SymbolLabel {
    /// Offset of the name in the string table.
    pub(crate) name: u32,
    pub(crate) size: u64,
    pub(crate) kind: SymbolKind,
}

/// Where a symbol is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SymbolPlace {
    Undefined,
    Section(u32),
    Absolute,
    Common,
}

/// Which definition wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Binding {
    Local,
    Global,
    Weak,
}

/// What a symbol names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SymbolKind {
    /// A function.
    Function,
    /// A variable, constant or table.
    Data,
    /// The object does not say.
    Unknown,
    /// A section (never exported).
    Section,
    /// A source file (never exported).
    File,
    /// A thread-local variable.
    ThreadLocal,
    /// A function that chooses its implementation when it is bound.
    IndirectFunction,
}

/// A decoded relocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Relocation {
    /// Offset of the place in its section.
    pub(crate) offset: u64,
    /// The format's number for the kind.
    pub(crate) raw_kind: u32,
    /// Symbol number; not checked yet.
    pub(crate) symbol: u32,
    pub(crate) addend: i64,
}

/// The symbols of an object, decoded one at a time. One variant per format.
pub(crate) enum SymbolTable<'a> {
    Elf(elf::Symbols<'a>),
}

impl<'a> SymbolTable<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            SymbolTable::Elf(symbols) => symbols.len(),
        }
    }

    /// All symbols in order, until one cannot be one or `each` fails.
    #[inline(always)]
    pub(crate) fn try_for_each(
        &self,
        each: impl FnMut(usize, Symbol) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        match self {
            SymbolTable::Elf(symbols) => symbols.try_for_each(each),
        }
    }

    /// What users see of a symbol that was decoded before.
    #[inline]
    pub(crate) fn label(&self, number: usize) -> SymbolLabel {
        match self {
            SymbolTable::Elf(symbols) => symbols.label(number),
        }
    }

    /// The symbol with that number, or why it cannot be one.
    pub(crate) fn get(&self, number: usize) -> Result<Symbol, LoadError> {
        match self {
            SymbolTable::Elf(symbols) => symbols.get(number),
        }
    }

    /// The string table; every string in it ends in a NUL inside of it.
    pub(crate) fn strings(&self) -> &'a [u8] {
        match self {
            SymbolTable::Elf(symbols) => symbols.strings(),
        }
    }

    pub(crate) fn name(&self, symbol: &Symbol) -> Result<&'a [u8], LoadError> {
        match self {
            SymbolTable::Elf(symbols) => symbols.name(symbol.name),
        }
    }
}

/// The relocations of one section, decoded one at a time. One variant per format.
#[derive(Clone, Copy)]
pub(crate) enum RelocationTable<'a> {
    None,
    ElfRela(elf::Relocations<'a>),
}

impl<'a> RelocationTable<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            RelocationTable::None => 0,
            RelocationTable::ElfRela(table) => table.len(),
        }
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Relocation> + 'a {
        let table = match self {
            RelocationTable::None => elf::Relocations::EMPTY,
            RelocationTable::ElfRela(table) => table,
        };
        table.iter()
    }
}

impl<'a> LinkGraph<'a> {
    /// Every place that will be fixed up, with its section.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&Section<'a>, Relocation)> {
        let loaded = self.sections.iter().filter(|section| section.segment.is_some());
        loaded.flat_map(|section| section.relocations.iter().map(move |relocation| (section, relocation)))
    }

    /// What to call a symbol in a message: its name, or its section's.
    pub(crate) fn symbol_label(&self, number: u32) -> String {
        let Ok(symbol) = self.symbols.get(number as usize) else {
            return format!("symbol {number}");
        };
        let name = self.symbols.name(&symbol).unwrap_or(b"");
        let name = match symbol.place {
            SymbolPlace::Section(section) if name.is_empty() => self.sections[section as usize].name,
            _ => name,
        };
        crate::error::printable(name)
    }
}
