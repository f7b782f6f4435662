//! What is in an object, for who wants to look at it and not to run it: as the loader's reader sees it.

use crate::arch::{Architecture, with_architecture};
use crate::error::{LoadError, printable};
use crate::graph::{Binding, Format, LinkGraph, Section, SymbolKind, SymbolPlace};
use crate::limits::{Limits, NameBudget};
use crate::memory::Segment;
use crate::read::{self, Storage};

/// The parts of an object that a loader looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// `elf`, `mach-o` or `coff`.
    pub format: &'static str,
    /// The instruction set, as target triples name it.
    pub machine: &'static str,
    /// The sections that are loaded.
    pub sections: Vec<InspectedSection>,
    /// All symbols, numbered as in the object.
    pub symbols: Vec<InspectedSymbol>,
}

/// A section that is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InspectedSection {
    /// Its number in the object: that of [`InspectedSymbol::section`].
    pub number: usize,
    /// Its name, cut off where it is very long, with what is not printable escaped. So are all names here.
    pub name: String,
    /// Where it is loaded.
    pub segment: Segment,
    /// Its content in the object; empty for a section that is all zeros.
    pub bytes: Vec<u8>,
    /// Its size in memory, in bytes.
    pub size: u64,
    /// Its relocations, by offset.
    pub relocations: Vec<InspectedRelocation>,
}

/// A place that is changed when the object is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InspectedRelocation {
    /// Offset of the place in its section.
    pub offset: u64,
    /// Its name in the ABI, such as `R_X86_64_PLT32`.
    pub kind: String,
    /// What it refers to: the symbol's name, or its section's.
    pub symbol: String,
    /// What is added; `None` where the place itself holds it.
    pub addend: Option<i64>,
}

/// A symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InspectedSymbol {
    /// Its name; a section's symbol often has none.
    pub name: String,
    /// What it names.
    pub kind: SymbolKind,
    /// `global`, `weak` or `local`.
    pub binding: &'static str,
    /// Whether others than the image see it.
    pub hidden: bool,
    /// Number of the section that it is in; `None` when it is defined elsewhere, is only a number, or is made in the image.
    pub section: Option<usize>,
    /// `section`, `undefined`, `absolute` or `common`: where it is.
    pub place: &'static str,
    /// Offset in its section, the number that it is, or the alignment of a common symbol.
    pub value: u64,
    /// Its size in bytes; 0 when the object does not say.
    pub size: u64,
}

/// Reads an object without loading it.
///
/// # Errors
/// As when it is loaded: what cannot be read, names where and why. It need not be loadable: references may be unresolved, and
/// kinds of relocations unknown.
pub fn inspect(object: &[u8]) -> Result<Inspection, LoadError> {
    let limits = Limits::default();
    let storage = Storage::default();
    let graph = read::parse(object, &storage, &limits)?;
    let mut names = NameBudget::of(&limits);
    let mut text = |name: &[u8]| -> Result<String, LoadError> {
        let name = printable(name);
        names.spend(name.as_bytes())?;
        Ok(name)
    };
    let mut symbols = Vec::with_capacity(graph.symbols.len());
    let mut next = 0;
    graph.symbols.try_for_each(|number, symbol| {
        // Numbers that are none of a symbol's own (auxiliary records of COFF) stay in the count.
        while next < number {
            symbols.push(InspectedSymbol::nothing());
            next += 1;
        }
        next += 1;
        let (section, place) = match symbol.place {
            SymbolPlace::Section(section) => (Some(section as usize), "section"),
            SymbolPlace::Undefined => (None, "undefined"),
            SymbolPlace::Absolute => (None, "absolute"),
            SymbolPlace::Common => (None, "common"),
        };
        symbols.push(InspectedSymbol {
            name: text(graph.symbols.name(&symbol)?)?,
            kind: symbol.kind,
            binding: match symbol.binding {
                Binding::Local => "local",
                Binding::Global => "global",
                Binding::Weak => "weak",
            },
            hidden: symbol.hidden,
            section,
            place,
            value: symbol.value,
            size: symbol.size,
        });
        Ok(())
    })?;
    let mut sections = Vec::new();
    for (number, section) in graph.sections.iter().enumerate() {
        let Some(segment) = section.segment else { continue };
        sections.push(InspectedSection {
            number,
            name: text(section.name)?,
            segment,
            bytes: section.bytes.to_vec(),
            size: section.size,
            relocations: relocations(&graph, section, &mut text)?,
        });
    }
    let format = match graph.format {
        Format::Elf => "elf",
        Format::MachO => "mach-o",
        Format::Coff => "coff",
    };
    Ok(Inspection { format, machine: graph.machine.name(), sections, symbols })
}

fn relocations(
    graph: &LinkGraph<'_>,
    section: &Section<'_>,
    text: &mut dyn FnMut(&[u8]) -> Result<String, LoadError>,
) -> Result<Vec<InspectedRelocation>, LoadError> {
    let explicit = !section.relocations.has_implicit_addends();
    let mut found = Vec::new();
    for relocation in section.relocations.iter() {
        let kind = with_architecture!(graph.machine, A => A::name(graph.format, relocation.raw_kind));
        found.push(InspectedRelocation {
            offset: relocation.offset,
            kind,
            symbol: text(graph.symbol_label(relocation.symbol).as_bytes())?,
            addend: explicit.then_some(relocation.addend),
        });
    }
    found.sort_by_key(|relocation| relocation.offset);
    Ok(found)
}

impl InspectedSymbol {
    /// Stands for a number that is no symbol's.
    fn nothing() -> Self {
        Self {
            name: String::new(),
            kind: SymbolKind::File,
            binding: "local",
            hidden: true,
            section: None,
            place: "absolute",
            value: 0,
            size: 0,
        }
    }
}
