//! The link graph: what a format reader hands to the passes, the same for every format and architecture.
//!
//! It is flat. Sections and symbols are numbered as in the object, and everything borrows from the object's bytes:
//! symbols and relocations are decoded where they are looked at, so that loading allocates nothing per symbol or
//! per relocation. Where formats differ in kind, an enum has one variant per format, and is matched outside of loops.

use crate::arch::Machine;
use crate::error::LoadError;
use crate::memory::Segment;
use crate::read::{coff, elf, macho};

use object::{BigEndian, LittleEndian};

type Elf64 = object::elf::FileHeader64<LittleEndian>;
type Elf32 = object::elf::FileHeader32<LittleEndian>;
type Elf64Big = object::elf::FileHeader64<BigEndian>;

/// A parsed object. Section and symbol numbers index into it.
pub(crate) struct LinkGraph<'a> {
    /// What the caller calls the object; empty when there is only one.
    pub(crate) name: &'a str,
    pub(crate) format: Format,
    pub(crate) machine: Machine,
    pub(crate) sections: Vec<Section<'a>>,
    pub(crate) symbols: SymbolTable<'a>,
    /// Groups of which one copy is kept (COMDAT).
    pub(crate) groups: Vec<Group<'a>>,
    /// What was cut out of sections; [`Section::cuts`] says which section has which.
    pub(crate) cuts: Vec<Cuts>,
}

/// Object file format: decides what a raw relocation type means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Elf,
    MachO,
    Coff,
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
    /// Number in [`LinkGraph::cuts`], or [`Section::NO_CUTS`].
    pub(crate) cuts: u32,
    /// Offset in its segment. Set by layout.
    pub(crate) offset: u64,
    /// Target address. Set when memory was allocated.
    pub(crate) address: u64,
}

impl Section<'_> {
    /// It is a part of the image's thread-local block.
    #[inline]
    pub(crate) fn is_thread_local(&self) -> bool {
        self.role == Role::ThreadLocal
    }

    /// [`Section::cuts`] of a section that is loaded as it is.
    pub(crate) const NO_CUTS: u32 = u32::MAX;

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
        cuts: Self::NO_CUTS,
        offset: 0,
        address: 0,
    };
}

/// A section that is not loaded but of use to debuggers, still as it is in the object.
pub(crate) struct UnloadedSection<'a> {
    /// Its number among all sections of the object.
    pub(crate) number: usize,
    pub(crate) name: &'a [u8],
    pub(crate) bytes: &'a [u8],
    pub(crate) relocations: RelocationTable<'a>,
}

/// Sections that mean something to the loader itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Plain,
    /// Pointers to functions to run, in order of priority.
    Initializers {
        priority: u32,
    },
    /// The same, run from last to first (`.ctors`).
    InitializersBackwards {
        priority: u32,
    },
    /// Pointers to functions to run when the image goes, from last to first.
    Finalizers {
        priority: u32,
    },
    /// The same, run in order (`.dtors`).
    FinalizersForwards {
        priority: u32,
    },
    /// Call frame information.
    EhFrame,
    /// A part of the thread-local block that each thread has: its initial content.
    ThreadLocal,
    /// Language-specific unwind data: the image catches exceptions or cleans up.
    ExceptTable,
}

/// Sections that stand or fall together: of the groups with one name, one is kept.
pub(crate) struct Group<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) members: GroupMembers<'a>,
    pub(crate) selection: Selection,
}

/// Which of several groups with one name is kept (PE format, "COMDAT Sections"). ELF knows only `Any`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    /// The first.
    Any,
    /// There must be no other.
    NoDuplicates,
    /// The first; all must have the same size.
    SameSize,
    /// The first; all must have the same bytes.
    ExactMatch,
    /// The largest, of equals the first.
    Largest,
}

/// The section numbers in a group; all are sections of the object. The first decides size and bytes for [`Selection`].
pub(crate) enum GroupMembers<'a> {
    Elf(elf::GroupMembers<'a>),
    /// The section that has the symbol, and all that are associated with it.
    Coff(Vec<u32>),
}

impl GroupMembers<'_> {
    pub(crate) fn for_each(&self, mut each: impl FnMut(usize)) {
        match self {
            GroupMembers::Elf(members) => members.iter().for_each(each),
            GroupMembers::Coff(members) => members.iter().for_each(|member| each(*member as usize)),
        }
    }
}

/// What was cut out of a section: padding that its alignment makes superfluous.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cuts {
    /// Where a cut begins in the object's bytes, and how many bytes are gone from there on, all cuts before included.
    /// Ascending.
    pub(crate) cuts: Vec<(u64, u64)>,
    /// The content that is left.
    pub(crate) bytes: Vec<u8>,
}

impl Cuts {
    /// Where what is at an offset in the object has moved to. An offset inside of a cut moves to its start.
    pub(crate) fn moved(&self, offset: u64) -> u64 {
        let before = self.cuts.partition_point(|(start, _)| *start < offset);
        let Some(last) = before.checked_sub(1) else { return offset };
        let (start, gone) = self.cuts[last];
        let gone_before = last.checked_sub(1).map_or(0, |number| self.cuts[number].1);
        offset - gone.min(gone_before + (offset - start))
    }
}

/// A decoded symbol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbol {
    /// What [`SymbolTable::name`] knows the name by.
    pub(crate) name: u32,
    pub(crate) place: SymbolPlace,
    /// Offset in the section, address of an absolute symbol, or alignment of a common one. What else a format puts into
    /// these bits is still there: see [`Architecture::symbol_value`](crate::arch::Architecture::symbol_value).
    pub(crate) value: u64,
    pub(crate) size: u64,
    pub(crate) binding: Binding,
    /// Not visible outside of the image.
    pub(crate) hidden: bool,
    pub(crate) kind: SymbolKind,
    /// ELF's `st_other`, where some ABIs keep facts of their own; 0 in other formats.
    pub(crate) other: u8,
}

/// What users of an image see of a symbol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SymbolLabel {
    /// What [`SymbolTable::name`] knows the name by.
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
    /// To this the field's own content is added where the table says so
    /// ([`RelocationTable::has_implicit_addends`]).
    pub(crate) addend: i64,
    /// Number of a symbol whose address is subtracted (Mach-O `SUBTRACTOR`), or [`Relocation::NO_SYMBOL`].
    pub(crate) subtrahend: u32,
}

impl Relocation {
    pub(crate) const NO_SYMBOL: u32 = u32::MAX;
}

/// The symbols of an object, decoded one at a time. One variant per format.
pub(crate) enum SymbolTable<'a> {
    Elf64(elf::Symbols<'a, Elf64>),
    Elf32(elf::Symbols<'a, Elf32>),
    Elf64Big(elf::Symbols<'a, Elf64Big>),
    Coff(coff::Symbols<'a, object::pe::ImageSymbol>),
    CoffBig(coff::Symbols<'a, object::pe::ImageSymbolEx>),
    MachO64(macho::Symbols<'a>),
}

/// The symbols of an object of one format. Loops over all of them are written for this and compiled for each format: what they
/// do with a symbol then happens in registers.
pub(crate) trait DecodeSymbols {
    /// All symbols in order, until one cannot be one or `each` fails.
    fn try_for_each(&self, each: impl FnMut(usize, Symbol) -> Result<(), LoadError>)
    -> Result<(), LoadError>;

    /// What users of the image see of a symbol. Asked for what was decoded before, so nothing can be wrong.
    fn label(&self, number: usize) -> SymbolLabel;
}

/// Evaluates the same expression for the symbols of every format.
macro_rules! of_every_format {
    ($table:expr, $symbols:ident => $body:expr) => {
        match $table {
            $crate::graph::SymbolTable::Elf64($symbols) => $body,
            $crate::graph::SymbolTable::Elf32($symbols) => $body,
            $crate::graph::SymbolTable::Elf64Big($symbols) => $body,
            $crate::graph::SymbolTable::Coff($symbols) => $body,
            $crate::graph::SymbolTable::CoffBig($symbols) => $body,
            $crate::graph::SymbolTable::MachO64($symbols) => $body,
        }
    };
}

pub(crate) use of_every_format;

impl<'a> SymbolTable<'a> {
    pub(crate) fn len(&self) -> usize {
        of_every_format!(self, symbols => symbols.len())
    }

    /// All symbols in order, until one cannot be one or `each` fails.
    #[inline(always)]
    pub(crate) fn try_for_each(
        &self,
        each: impl FnMut(usize, Symbol) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        of_every_format!(self, symbols => symbols.try_for_each(each))
    }

    /// The symbol with that number, or why it cannot be one.
    pub(crate) fn get(&self, number: usize) -> Result<Symbol, LoadError> {
        of_every_format!(self, symbols => symbols.get(number))
    }

    /// The string table, if names are offsets into one in which every string ends in a NUL.
    pub(crate) fn strings(&self) -> Option<&'a [u8]> {
        of_every_format!(self, symbols => symbols.strings())
    }

    pub(crate) fn name(&self, symbol: &Symbol) -> Result<&'a [u8], LoadError> {
        of_every_format!(self, symbols => symbols.name(symbol.name))
    }

    /// The symbol of this object that an undefined weak one stands for if nobody defines it. Only COFF has that.
    pub(crate) fn weak_default(&self, number: usize) -> Option<u32> {
        match self {
            SymbolTable::Coff(symbols) => symbols.weak_default(number),
            SymbolTable::CoffBig(symbols) => symbols.weak_default(number),
            SymbolTable::Elf64(_)
            | SymbolTable::Elf32(_)
            | SymbolTable::Elf64Big(_)
            | SymbolTable::MachO64(_) => None,
        }
    }
}

/// The relocations of one section, decoded one at a time. One variant per format.
#[derive(Clone, Copy)]
pub(crate) enum RelocationTable<'a> {
    None,
    Elf64Rela(elf::Relocations<'a, object::elf::Rela64<LittleEndian>>),
    Elf64Rel(elf::Relocations<'a, object::elf::Rel64<LittleEndian>>),
    Elf32Rela(elf::Relocations<'a, object::elf::Rela32<LittleEndian>>),
    Elf32Rel(elf::Relocations<'a, object::elf::Rel32<LittleEndian>>),
    Elf64BigRela(elf::Relocations<'a, object::elf::Rela64<BigEndian>>),
    Coff(coff::Relocations<'a>),
    MachO64(macho::Relocations<'a>),
}

/// Evaluates the same expression for the relocations of every format.
macro_rules! of_every_table {
    ($table:expr, $entries:ident => $body:expr, none => $none:expr) => {
        match $table {
            RelocationTable::None => $none,
            RelocationTable::Elf64Rela($entries) => $body,
            RelocationTable::Elf64Rel($entries) => $body,
            RelocationTable::Elf32Rela($entries) => $body,
            RelocationTable::Elf32Rel($entries) => $body,
            RelocationTable::Elf64BigRela($entries) => $body,
            RelocationTable::Coff($entries) => $body,
            RelocationTable::MachO64($entries) => $body,
        }
    };
}

impl RelocationTable<'_> {
    /// How many entries there are; some may be no relocation of their own (see [`get`](Self::get)).
    pub(crate) fn len(&self) -> usize {
        of_every_table!(self, entries => entries.len(), none => 0)
    }

    /// The field holds (a part of) the addend.
    pub(crate) fn has_implicit_addends(&self) -> bool {
        match self {
            RelocationTable::Elf32Rel(_) | RelocationTable::Elf64Rel(_) | RelocationTable::Coff(_) => true,
            RelocationTable::None
            | RelocationTable::Elf64Rela(_)
            | RelocationTable::Elf32Rela(_)
            | RelocationTable::Elf64BigRela(_) => false,
            // The reader takes them along: what they are depends on more than the kind.
            RelocationTable::MachO64(_) => false,
        }
    }

    /// The relocation with that number; `None` for an entry that only completes the one after it, or past the end.
    #[inline]
    pub(crate) fn get(&self, number: usize) -> Option<Relocation> {
        of_every_table!(self, entries => entries.get(number), none => None)
    }

    /// All relocations in order with their numbers, until `each` fails.
    #[inline(always)]
    pub(crate) fn try_for_each(
        &self,
        mut each: impl FnMut(usize, Relocation) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        of_every_table!(self, entries => {
            for number in 0..entries.len() {
                if let Some(relocation) = entries.get(number) {
                    each(number, relocation)?;
                }
            }
            Ok(())
        }, none => Ok(()))
    }

    /// The number of the first relocation from `start` on that `is_done` says no to, or one past the last.
    #[inline(always)]
    pub(crate) fn skip_while(
        &self,
        start: usize,
        mut is_done: impl FnMut(usize, Relocation) -> bool,
    ) -> usize {
        of_every_table!(self, entries => {
            let mut number = start;
            while number < entries.len() && entries.get(number).is_none_or(|relocation| is_done(number, relocation)) {
                number += 1;
            }
            number
        }, none => start)
    }

    /// All relocations in order. For where time does not matter: looks at the format for each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Relocation> + '_ {
        (0..self.len()).filter_map(|number| self.get(number))
    }
}

impl<'a> LinkGraph<'a> {
    /// What a section's memory is filled with, before fix-ups.
    pub(crate) fn content<'g>(&'g self, section: &Section<'g>) -> &'g [u8] {
        self.cuts.get(section.cuts as usize).map_or(section.bytes, |cuts| &cuts.bytes)
    }

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
        if name.is_empty() {
            return format!("symbol {number}");
        }
        crate::error::printable(name)
    }
}
