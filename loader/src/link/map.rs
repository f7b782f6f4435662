//! The link map: what was put where, of every object of a link. For tools and tests that look at a linked image.

use super::Object;
use super::symbols::{Facts, SymbolState};
use crate::arch::{Architecture, SlotKind};
use crate::error::LoadError;
use crate::graph::{Format, SymbolKind, SymbolPlace};
use crate::memory::Segment;

/// Where everything of a link is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkMap {
    /// The machine, as target triples name it.
    pub machine: &'static str,
    /// Bytes of an address.
    pub address_size: u64,
    /// The most significant byte of a word comes first.
    pub big_endian: bool,
    /// Target address of the first byte of the image, from which image-relative relocations count.
    pub image: u64,
    /// The objects, in the order of the link.
    pub files: Vec<FileMap>,
    /// Names that no object defines, with the addresses that the resolver gave.
    pub absolute: Vec<(String, u64)>,
}

/// What one object became.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileMap {
    /// The object's name, as it was given.
    pub name: String,
    /// Sections that were loaded, in the object's order; behind them what the loader added for the object: `COMMON`
    /// (common symbols), `$__GOT` and `$__STUBS`, as JITLink calls them.
    pub sections: Vec<MappedSection>,
    /// Symbols that the object defines, local ones included, in the order of its symbol table, and those it refers to that
    /// the loader defined (`_GLOBAL_OFFSET_TABLE_`, bounds of sections).
    pub symbols: Vec<MappedSymbol>,
    /// GOT entries.
    pub got: Vec<MappedSlot>,
    /// Stubs.
    pub stubs: Vec<MappedStub>,
}

/// A section in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappedSection {
    /// Its name as in the object.
    pub name: String,
    /// Its number in the object; `None` for what the loader added.
    pub number: Option<usize>,
    /// The segment it was loaded to.
    pub segment: Segment,
    /// Offset in the segment's memory.
    pub offset: usize,
    /// Target address.
    pub address: u64,
    /// Bytes in memory.
    pub size: u64,
    /// It has no content: all zeros.
    pub zero_fill: bool,
}

/// A symbol in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappedSymbol {
    /// Its name as in the object.
    pub name: String,
    /// Target address, without the bit that marks Thumb code.
    pub address: u64,
    /// Bytes, or 0 when the object does not say.
    pub size: u64,
    /// It is Thumb code.
    pub thumb: bool,
    /// Function or data.
    pub kind: SymbolKind,
}

/// A GOT entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappedSlot {
    /// The symbol it is for; for a section's symbol the section's name.
    pub target: String,
    /// Target address of the entry.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

/// A stub.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappedStub {
    /// The symbol it leads to; for a section's symbol the section's name.
    pub target: String,
    /// Target address of the stub.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Which of the architecture's kinds of stub it is.
    pub kind: &'static str,
}

pub(super) fn of<A: Architecture>(objects: &[Object<'_>], image: u64) -> Result<LinkMap, LoadError> {
    let mut map = LinkMap {
        machine: A::IDENTITY.name,
        address_size: A::SLOT_SIZE,
        big_endian: A::BIG_ENDIAN,
        image,
        files: Vec::new(),
        absolute: Vec::new(),
    };
    for object in objects {
        map.files.push(FileMap {
            name: object.graph.name.to_owned(),
            sections: sections::<A>(object),
            symbols: symbols::<A>(object)?,
            got: slots::<A>(object),
            stubs: stubs::<A>(object),
        });
        add_absolute::<A>(object, &mut map.absolute)?;
    }
    map.absolute.sort();
    map.absolute.dedup();
    Ok(map)
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn sections<A: Architecture>(object: &Object<'_>) -> Vec<MappedSection> {
    let sections = object.graph.sections.iter().enumerate();
    let loaded = sections.filter_map(|(number, section)| {
        Some(MappedSection {
            name: text(section.name),
            number: Some(number),
            segment: section.segment?,
            offset: section.offset as usize,
            address: section.address,
            size: section.size,
            zero_fill: section.zero_fill,
        })
    });
    loaded.chain(added::<A>(object)).collect()
}

/// What the loader itself put into the image for an object.
fn added<A: Architecture>(object: &Object<'_>) -> impl Iterator<Item = MappedSection> {
    let Object { symbols, tables, addresses, .. } = object;
    let slots = tables.slot_words * A::SLOT_SIZE;
    let tables = [
        ("COMMON", Segment::Data, addresses.commons_offset, addresses.commons, symbols.common_size),
        ("$__GOT", Segment::ReadOnly, addresses.slots_offset, addresses.slots, slots),
    ];
    let islands = islands::<A>(object).into_iter();
    let islands = islands.map(|(offset, address, size)| ("$__STUBS", Segment::Code, offset, address, size));
    let sections =
        tables.into_iter().chain(islands).map(|(name, segment, offset, address, size)| MappedSection {
            name: name.to_owned(),
            number: None,
            segment,
            offset: offset as usize,
            address,
            size,
            zero_fill: segment == Segment::Data,
        });
    sections.filter(|section| section.size != 0)
}

/// The runs of stubs that stand together: offset in the segment, target address and size.
fn islands<A: Architecture>(object: &Object<'_>) -> Vec<(u64, u64, u64)> {
    let mut islands: Vec<(u64, u64, u64)> = Vec::new();
    for number in 0..object.tables.stubs().len() as u64 {
        let address = object.stub_address::<A>(number);
        match islands.last_mut() {
            Some((_, start, size)) if start.wrapping_add(*size) == address => *size += A::STUB_SIZE,
            _ => {
                let offset = object.stub_offset::<A>(number);
                islands.push((offset, address, A::STUB_SIZE));
            }
        }
    }
    islands
}

fn symbols<A: Architecture>(object: &Object<'_>) -> Result<Vec<MappedSymbol>, LoadError> {
    let Object { graph, symbols, .. } = object;
    let mut mapped = Vec::new();
    for (number, state) in symbols.states.iter().enumerate() {
        let is_here = state.section != SymbolState::NO_SECTION
            || state.facts.has(Facts::SYNTHESIZED)
            || state.facts.has(Facts::COMMON) && !state.facts.has(Facts::DEFINED_ELSEWHERE);
        let symbol = graph.symbols.get(number)?;
        if !is_here || matches!(symbol.kind, SymbolKind::Section | SymbolKind::File) {
            continue;
        }
        mapped.push(MappedSymbol {
            name: text(graph.symbols.name(&symbol)?),
            address: state.address,
            size: symbol.size,
            thumb: A::pointer_value(state.address, state.flags) != state.address,
            kind: symbol.kind,
        });
    }
    add_got_symbols::<A>(object, &mut mapped);
    Ok(mapped)
}

/// The names of the GOT itself, whether the object says them or not: `.TOC.`, which JITLink calls `__TOC__`, where there is
/// a table of contents.
fn add_got_symbols<A: Architecture>(object: &Object<'_>, mapped: &mut Vec<MappedSymbol>) {
    if object.graph.format != Format::Elf {
        return;
    }
    let names: &[&str] = if A::GOT_BIAS == 0 { &["_GLOBAL_OFFSET_TABLE_"] } else { &[".TOC.", "__TOC__"] };
    for name in names {
        if mapped.iter().all(|symbol| symbol.name != *name) {
            mapped.push(MappedSymbol {
                name: (*name).to_owned(),
                address: object.addresses.got,
                size: 0,
                thumb: false,
                kind: SymbolKind::Data,
            });
        }
    }
}

fn slots<A: Architecture>(object: &Object<'_>) -> Vec<MappedSlot> {
    let slots = object.tables.slots().map(|(key, word)| MappedSlot {
        target: object.graph.symbol_label(key.symbol),
        address: object.addresses.slots.wrapping_add(word * A::SLOT_SIZE),
        size: u64::from(SlotKind::words(key.kind)) * A::SLOT_SIZE,
    });
    let mut slots: Vec<_> = slots.collect();
    slots.sort_by_key(|slot| slot.address);
    slots
}

fn stubs<A: Architecture>(object: &Object<'_>) -> Vec<MappedStub> {
    let stubs = object.tables.stubs().iter().enumerate().map(|(number, key)| MappedStub {
        target: object.graph.symbol_label(key.symbol),
        address: object.stub_address::<A>(number as u64),
        size: A::STUB_SIZE,
        kind: A::STUB_KINDS.get(usize::from(key.kind)).copied().unwrap_or_default(),
    });
    stubs.collect()
}

/// Symbols that only have an address: what the resolver gave, what the loader made, and what is absolute.
fn add_absolute<A: Architecture>(object: &Object<'_>, all: &mut Vec<(String, u64)>) -> Result<(), LoadError> {
    let Object { graph, symbols, .. } = object;
    for (number, state) in symbols.states.iter().enumerate() {
        if !state.facts.has(Facts::EXTERNAL) || state.facts.has(Facts::NOT_LOADED.and(Facts::SYNTHESIZED)) {
            continue;
        }
        let symbol = graph.symbols.get(number)?;
        let name = graph.symbols.name(&symbol)?;
        let is_needed = symbol.place == SymbolPlace::Absolute || state.facts.has(Facts::REFERENCED);
        if is_needed && !name.is_empty() && symbol.kind != SymbolKind::File {
            all.push((text(name), A::pointer_value(state.address, state.flags)));
        }
    }
    Ok(())
}
