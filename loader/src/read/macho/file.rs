//! The Mach-O header and the load commands, and the order in which the tables are read: sections, relocations, symbols.

use object::macho::{self, LoadCommand, MachHeader64, SegmentCommand64, SymtabCommand};
use object::pod;
use object::{LittleEndian, U32};

use super::eh_frame::UnwindTables;
use super::relocation::RelocationInput;
use super::section::{self, SectionName};
use super::{Header, LE, Relocations, Storage, Symbols, Tables, table};
use crate::arch::{self, Machine};
use crate::error::LoadError;
use crate::graph::{Format, LinkGraph, RelocationTable, Role, Section, SymbolTable};
use crate::limits::{Limits, NameBudget};
use crate::read::FileBudget;

/// Reads a relocatable Mach-O object.
pub(crate) fn parse<'a>(
    object: &'a [u8],
    storage: &'a Storage<'a>,
    limits: &Limits,
) -> Result<LinkGraph<'a>, LoadError> {
    let File { machine, headers, symbols } = read_file(object, limits)?;
    let (tables, sections) = read_sections(object, headers, machine, symbols.own_len(), limits)?;
    let sections = attach(storage.get_or_init(|| tables), headers, sections, limits)?;
    Ok(LinkGraph {
        name: "",
        format: Format::MachO,
        machine,
        sections,
        symbols: SymbolTable::MachO64(symbols),
        groups: Vec::new(),
        cuts: Vec::new(),
    })
}

/// Reads no more than the symbols.
pub(crate) fn parse_symbols<'a>(object: &'a [u8], limits: &Limits) -> Result<Symbols<'a>, LoadError> {
    Ok(read_file(object, limits)?.symbols)
}

struct File<'a> {
    machine: Machine,
    headers: &'a [Header],
    symbols: Symbols<'a>,
}

fn read_file<'a>(object: &'a [u8], limits: &Limits) -> Result<File<'a>, LoadError> {
    let header = file_header(object)?;
    let machine = machine(header)?;
    let Commands { sections: headers, symbols } = Commands::read(object, header)?;
    let count = headers.len() as u64;
    if count > limits.sections {
        return Err(LoadError::limit("the number of sections", count, limits.sections));
    }
    let symbols = Symbols::find(object, symbols, headers, limits)?;
    Ok(File { machine, headers, symbols })
}

fn file_header(object: &[u8]) -> Result<&MachHeader64<LittleEndian>, LoadError> {
    let (header, _) = pod::from_bytes::<MachHeader64<LittleEndian>>(object)
        .map_err(|()| LoadError::malformed("Mach-O header", "the file is shorter than its header"))?;
    let what = match header.filetype.get(LE) {
        macho::MH_OBJECT => return Ok(header),
        macho::MH_EXECUTE => "an executable (MH_EXECUTE)".to_owned(),
        macho::MH_DYLIB => "a dynamic library (MH_DYLIB)".to_owned(),
        macho::MH_BUNDLE => "a bundle (MH_BUNDLE)".to_owned(),
        other => format!("Mach-O file type {}", other.0),
    };
    Err(LoadError::unsupported(format!("{what}; a relocatable object is needed")))
}

/// `arm64e` has the same type as `arm64`, but signs its pointers.
fn machine(header: &MachHeader64<LittleEndian>) -> Result<Machine, LoadError> {
    const ARM64E: u32 = 2;
    const SUBTYPE: u32 = 0x00ff_ffff;
    let cpu = header.cputype.get(LE);
    let subtype = header.cpusubtype.get(LE).0 & SUBTYPE;
    if cpu == macho::CPU_TYPE_ARM64 && subtype == ARM64E {
        return Err(LoadError::unsupported("arm64e, with signed pointers"));
    }
    Machine::find(|known| known.macho == Some(cpu.0))
        .ok_or_else(|| LoadError::unsupported(format!("Mach-O cpu type {:#x}{}", cpu.0, arch::NOT_ALL)))
}

/// What the load commands say, as far as a relocatable object needs it. Versions, linker options, optimisation hints and
/// the like change nothing of what code does.
struct Commands<'a> {
    sections: &'a [Header],
    symbols: Option<&'a SymtabCommand<LittleEndian>>,
}

impl<'a> Commands<'a> {
    fn read(object: &'a [u8], header: &MachHeader64<LittleEndian>) -> Result<Self, LoadError> {
        let malformed =
            |number: u32, why: &str| Err(LoadError::malformed(format!("load command {number}"), why));
        let start = size_of::<MachHeader64<LittleEndian>>();
        let size = header.sizeofcmds.get(LE) as usize;
        let Some(mut rest) = object.get(start..).and_then(|rest| rest.get(..size)) else {
            return Err(LoadError::malformed("load commands", "they reach past the end of the file"));
        };
        let (mut sections, mut symbols) = (None, None);
        for number in 0..header.ncmds.get(LE) {
            let Ok((command, _)) = pod::from_bytes::<LoadCommand<LittleEndian>>(rest) else {
                return malformed(number, "it is outside of the load commands");
            };
            let size = command.cmdsize.get(LE) as usize;
            if size < size_of::<LoadCommand<LittleEndian>>() {
                return malformed(number, "it is shorter than its own header");
            }
            let Some((bytes, behind)) = rest.split_at_checked(size) else {
                return malformed(number, "it reaches past the end of the load commands");
            };
            rest = behind;
            match command.cmd.get(LE) {
                macho::LC_SEGMENT_64 if sections.is_some() => {
                    return malformed(number, "a second segment, and an object has one");
                }
                macho::LC_SEGMENT_64 => match section_headers(bytes) {
                    Some(headers) => sections = Some(headers),
                    None => return malformed(number, "its section headers reach past its end"),
                },
                macho::LC_SEGMENT => return malformed(number, "a 32-bit segment in a 64-bit object"),
                macho::LC_SYMTAB if symbols.is_some() => return malformed(number, "a second symbol table"),
                macho::LC_SYMTAB => match pod::from_bytes::<SymtabCommand<LittleEndian>>(bytes) {
                    Ok((command, _)) => symbols = Some(command),
                    Err(()) => return malformed(number, "it is too short for a symbol table"),
                },
                _ => {}
            }
        }
        Ok(Commands { sections: sections.unwrap_or_default(), symbols })
    }
}

fn section_headers(command: &[u8]) -> Option<&[Header]> {
    let (segment, rest) = pod::from_bytes::<SegmentCommand64<LittleEndian>>(command).ok()?;
    let (headers, _) = pod::slice_from_bytes(rest, segment.nsects.get(LE) as usize).ok()?;
    Some(headers)
}

/// The sections, still without names and relocations, and what these are made of.
fn read_sections<'a>(
    object: &'a [u8],
    headers: &'a [Header],
    machine: Machine,
    symbol_count: u32,
    limits: &Limits,
) -> Result<(Tables<'a>, Vec<Section<'a>>), LoadError> {
    // The sections are numbered from 1, as they are in the object.
    let mut sections = vec![Section::NOT_LOADED; headers.len() + 1];
    let mut tables = Tables { names: Vec::new(), relocations: Vec::new() };
    let mut count = RelocationCount { count: 0, limit: limits.relocations };
    let mut content = FileBudget::of(object, "sections");
    let mut tables_size = FileBudget::of(object, "relocation tables");
    let mut unwind_tables = UnwindTables::of(object, headers);
    for (header, (number, section)) in headers.iter().zip(sections.iter_mut().enumerate().skip(1)) {
        let name = SectionName::of(header);
        section::read(section, object, header, &name, limits)?;
        content.spend(section.bytes.len(), 1)?;
        tables.names.extend_from_slice(name.as_bytes());
        if section.segment.is_none() {
            continue;
        }
        let entries = relocation_entries(object, header, &name)?;
        count.add(entries.len())?;
        tables_size.spend(entries.len(), size_of::<macho::Relocation<LittleEndian>>())?;
        let (added, bytes, section_number) = (Vec::new(), section.bytes, number as u32);
        let mut input = RelocationInput {
            entries,
            added,
            bytes,
            headers,
            section: section_number,
            symbol_count,
            machine,
        };
        input.check(&name)?;
        if section.role == Role::EhFrame {
            unwind_tables.add_relocations(&mut input)?;
            count.add(input.added.len())?;
        }
        if input.len() != 0 {
            tables.relocations.push(input);
        }
    }
    Ok((tables, sections))
}

/// Counts relocations before anything looks at them: tables may overlap in the file.
struct RelocationCount {
    count: u64,
    limit: u64,
}

impl RelocationCount {
    fn add(&mut self, count: usize) -> Result<(), LoadError> {
        self.count += count as u64;
        match self.count > self.limit {
            true => Err(LoadError::limit("the number of relocations", self.count, self.limit)),
            false => Ok(()),
        }
    }
}

fn relocation_entries<'a>(
    object: &'a [u8],
    header: &Header,
    name: &SectionName,
) -> Result<&'a [macho::Relocation<LittleEndian>], LoadError> {
    let none = U32::new(LE, 0);
    let offset = if header.nreloc == none { none } else { header.reloff };
    table(object, offset, header.nreloc, &format!("relocations of {name}"))
}

/// Hands each section its name and its relocations.
fn attach<'a>(
    tables: &'a Tables<'a>,
    headers: &[Header],
    mut sections: Vec<Section<'a>>,
    limits: &Limits,
) -> Result<Vec<Section<'a>>, LoadError> {
    let mut budget = NameBudget::of(limits);
    let mut names = &tables.names[..];
    for (header, section) in headers.iter().zip(sections.iter_mut().skip(1)) {
        let length = SectionName::of(header).as_bytes().len();
        (section.name, names) = names.split_at(length);
        budget.spend(section.name)?;
    }
    for input in &tables.relocations {
        sections[input.section as usize].relocations = RelocationTable::MachO64(Relocations::new(input));
    }
    Ok(sections)
}
