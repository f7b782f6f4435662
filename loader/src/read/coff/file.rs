//! The COFF header and the order in which the tables are read: sections, symbols, relocations, groups.

use object::LittleEndian as LE;
use object::pe::{self, AnonObjectHeaderBigobj, ImageFileHeader, ImageSectionHeader};
use object::pod;

use super::directives::CommonAlignments;
use super::symbol::TableOfSymbols;
use super::{Strings, SymbolEntry, Symbols, group, section, table};
use crate::arch::{self, Machine};
use crate::error::LoadError;
use crate::graph::{Format, LinkGraph, Section};
use crate::limits::{Limits, NameBudget};
use crate::read::FileBudget;

/// What either file header says.
struct Header {
    machine: u16,
    sections: u32,
    symbols_at: u32,
    symbols: u32,
    /// Where the section headers begin.
    sections_at: u32,
}

/// Whether the bytes begin like a COFF object: there is no magic number, so the machine has to do.
pub(crate) fn is_coff(object: &[u8]) -> bool {
    match object {
        [0, 0, 0xff, 0xff, ..] => true,
        [low, high, ..] => is_known_machine(u16::from_le_bytes([*low, *high])),
        _ => false,
    }
}

/// Machines we do not do are named in the refusal.
fn is_known_machine(machine: u16) -> bool {
    machine_name(machine).is_some() || Machine::find(|known| known.coff == Some(machine)).is_some()
}

fn machine_name(machine: u16) -> Option<&'static str> {
    Some(match machine {
        0x014c => "i386",
        0x8664 => "x86-64",
        0xaa64 => "ARM64",
        0xa641 => "ARM64EC",
        0xa64e => "ARM64X",
        0x01c4 => "ARM (Thumb-2)",
        0x01c0 => "ARM",
        0x0200 => "Itanium",
        _ => return None,
    })
}

/// Reads a COFF object of either shape.
pub(crate) fn parse<'a>(object: &'a [u8], limits: &Limits) -> Result<LinkGraph<'a>, LoadError> {
    if object.starts_with(&[0, 0, 0xff, 0xff]) {
        return parse_shape::<pe::ImageSymbolEx>(object, &big_header(object)?, limits);
    }
    parse_shape::<pe::ImageSymbol>(object, &ordinary_header(object)?, limits)
}

fn short_file() -> LoadError {
    LoadError::malformed("COFF header", "the file is shorter than its header")
}

fn ordinary_header(object: &[u8]) -> Result<Header, LoadError> {
    let (header, _) = pod::from_bytes::<ImageFileHeader>(object).map_err(|()| short_file())?;
    if header.characteristics.get(LE).0 & pe::IMAGE_FILE_EXECUTABLE_IMAGE.0 != 0 {
        return Err(LoadError::unsupported("a linked COFF image; a relocatable object is needed"));
    }
    Ok(Header {
        machine: header.machine.get(LE).0,
        sections: header.number_of_sections.get(LE).into(),
        symbols_at: header.pointer_to_symbol_table.get(LE),
        symbols: header.number_of_symbols.get(LE),
        sections_at: size_of::<ImageFileHeader>() as u32 + u32::from(header.size_of_optional_header.get(LE)),
    })
}

/// "ANON_OBJECT_HEADER_BIGOBJ": the class says what an anonymous object is.
fn big_header(object: &[u8]) -> Result<Header, LoadError> {
    let unsupported = |what: &str| Err(LoadError::unsupported(what));
    match object.get(4..6) {
        None => return Err(short_file()),
        Some([0, 0]) => return unsupported("a short import object; it has no code"),
        Some([1, 0]) => return unsupported("an anonymous COFF object: intermediate code of a compiler"),
        Some(_) => {}
    }
    let (header, _) = pod::from_bytes::<AnonObjectHeaderBigobj>(object).map_err(|()| short_file())?;
    if header.class_id != pe::ANON_OBJECT_HEADER_BIGOBJ_CLASS_ID {
        return unsupported("an anonymous COFF object of unknown class");
    }
    Ok(Header {
        machine: header.machine.get(LE).0,
        sections: header.number_of_sections.get(LE),
        symbols_at: header.pointer_to_symbol_table.get(LE),
        symbols: header.number_of_symbols.get(LE),
        sections_at: size_of::<AnonObjectHeaderBigobj>() as u32,
    })
}

fn machine(number: u16) -> Result<Machine, LoadError> {
    Machine::find(|known| known.coff == Some(number)).ok_or_else(|| {
        let name = machine_name(number).unwrap_or("unknown");
        LoadError::unsupported(format!("COFF machine {number:#06x} ({name}){}", arch::NOT_ALL))
    })
}

fn parse_shape<'a, E: SymbolEntry>(
    object: &'a [u8],
    header: &Header,
    limits: &Limits,
) -> Result<LinkGraph<'a>, LoadError> {
    let machine = machine(header.machine)?;
    for (what, value, limit) in [
        ("the number of sections", header.sections, limits.sections),
        ("the number of symbols", header.symbols, limits.symbols),
    ] {
        if u64::from(value) > limit {
            return Err(LoadError::limit(what, value.into(), limit));
        }
    }
    let headers = table(object, header.sections_at, header.sections, "section table")?;
    let symbols = TableOfSymbols::<E>::find(object, header.symbols_at, header.symbols, limits)?;

    let (mut sections, commons) = read_sections(object, headers, symbols.strings, limits)?;
    let groups = group::read(headers, &symbols, &mut sections, limits)?;
    attach_relocations(object, headers, &mut sections, limits)?;

    let symbols = E::table(Symbols::new(symbols, sections.len() as u32, commons));
    Ok(LinkGraph { name: "", format: Format::Coff, machine, sections, symbols, groups, cuts: Vec::new() })
}

/// All sections. COFF counts them from 1; number 0 is nothing, and where symbols are that stand for nothing.
fn read_sections<'a>(
    object: &'a [u8],
    headers: &'a [ImageSectionHeader],
    strings: Strings<'a>,
    limits: &Limits,
) -> Result<(Vec<Section<'a>>, CommonAlignments<'a>), LoadError> {
    let mut sections = vec![Section::NOT_LOADED; headers.len() + 1];
    let mut commons = CommonAlignments::default();
    let mut budget = NameBudget::of(limits);
    let mut content = FileBudget::of(object, "sections");
    for (number, header) in (1..).zip(headers) {
        let section = &mut sections[number];
        section::read(section, object, header, number, strings, limits)?;
        budget.spend(section.name)?;
        content.spend(section.bytes.len(), 1)?;
        if section.name == section::DIRECTIVES {
            commons.read(section.bytes);
        }
    }
    Ok((sections, commons.finish()))
}

/// Hands each loaded section its relocations.
fn attach_relocations<'a>(
    object: &'a [u8],
    headers: &'a [ImageSectionHeader],
    sections: &mut [Section<'a>],
    limits: &Limits,
) -> Result<(), LoadError> {
    let mut total = 0;
    let mut entries = FileBudget::of(object, "relocation tables");
    for (section, header) in sections[1..].iter_mut().zip(headers) {
        if section.segment.is_some() {
            section.relocations = section::relocations(section.name, object, header)?;
            total += section.relocations.len() as u64;
            entries.spend(section.relocations.len(), size_of::<pe::ImageRelocation>())?;
            if total > limits.relocations {
                return Err(LoadError::limit("the number of relocations", total, limits.relocations));
            }
        }
    }
    Ok(())
}
