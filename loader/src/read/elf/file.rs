//! The ELF header and the order in which the tables are read: sections, symbols, relocations, groups.

use std::fmt;

use object::elf;
use object::{LittleEndian, pod};

use super::section::{self, SectionNames};
use super::{Header, LE, Relocations, Symbols, group, table};
use crate::arch::Machine;
use crate::error::LoadError;
use crate::graph::{Format, LinkGraph, RelocationTable, Section, SymbolTable};
use crate::limits::{Limits, NameBudget};

type FileHeader = elf::FileHeader64<LittleEndian>;

/// Reads a 64-bit little-endian relocatable ELF object.
pub(crate) fn parse<'a>(object: &'a [u8], limits: &Limits) -> Result<LinkGraph<'a>, LoadError> {
    let header = file_header(object)?;
    let machine = machine(header)?;
    let headers = section_headers(object, header, limits)?;
    let names = SectionNames::of(object, header, headers, limits)?;

    let mut sections = vec![Section::NOT_LOADED; headers.len()];
    let mut budget = NameBudget::of(limits);
    for (number, (header, section)) in headers.iter().zip(&mut sections).enumerate() {
        section::read(section, object, header, number, &names, limits)?;
        budget.spend(section.name)?;
    }
    let symbols = Symbols::find(object, headers, limits)?;
    attach_relocations(object, headers, symbols.section(), &mut sections, limits)?;
    let groups = group::read(object, headers, &symbols, &sections, limits)?;

    Ok(LinkGraph { format: Format::Elf, machine, sections, symbols: SymbolTable::Elf(symbols), groups })
}

fn file_header(object: &[u8]) -> Result<&FileHeader, LoadError> {
    let unsupported = |what: String| Err(LoadError::Unsupported(what));
    match object.get(4..6) {
        Some([2, 1]) => {}
        Some([1, _]) => return unsupported("32-bit ELF".to_owned()),
        Some([2, 2]) => return unsupported("big-endian ELF".to_owned()),
        _ => return Err(LoadError::malformed("ELF header", "unknown class or byte order")),
    }
    let (header, _) = pod::from_bytes::<FileHeader>(object)
        .map_err(|()| LoadError::malformed("ELF header", "the file is shorter than its header"))?;
    match header.e_type.get(LE) {
        elf::ET_REL => Ok(header),
        elf::ET_DYN => {
            unsupported("a shared object or executable (ET_DYN); a relocatable object is needed".into())
        }
        elf::ET_EXEC => unsupported("an executable (ET_EXEC); a relocatable object is needed".into()),
        other => unsupported(format!("ELF file type {}; a relocatable object is needed", other.0)),
    }
}

fn machine(header: &FileHeader) -> Result<Machine, LoadError> {
    match header.e_machine.get(LE) {
        elf::EM_X86_64 => Ok(Machine::X86_64),
        other => {
            let name = match other {
                elf::EM_AARCH64 => "AArch64",
                elf::EM_RISCV => "RISC-V",
                elf::EM_PPC64 => "PowerPC 64",
                elf::EM_LOONGARCH => "LoongArch",
                elf::EM_BPF => "BPF",
                _ => "unknown",
            };
            Err(LoadError::Unsupported(format!("ELF machine {} ({name}); only x86-64 is loaded", other.0)))
        }
    }
}

/// The section header table. More than 0xfeff sections are counted in the first header (gABI, "e_shnum").
fn section_headers<'a>(
    object: &'a [u8],
    header: &FileHeader,
    limits: &Limits,
) -> Result<&'a [Header], LoadError> {
    const WHAT: &str = "section header table";
    let offset = header.e_shoff.get(LE);
    if offset == 0 {
        return Err(LoadError::malformed(WHAT, "the file has none"));
    }
    if usize::from(header.e_shentsize.get(LE)) != size_of::<Header>() {
        return Err(LoadError::malformed(WHAT, "its entries are not 64 bytes each"));
    }
    let count = match header.e_shnum.get(LE) {
        0 => table::<Header>(object, offset, 1, &WHAT)?[0].sh_size.get(LE),
        count => u64::from(count),
    };
    if count > limits.sections {
        return Err(LoadError::limit("the number of sections", count, limits.sections));
    }
    table(object, offset, count, &WHAT)
}

/// What to call a section of relocations in a message.
struct RelocationSection(usize);

impl fmt::Display for RelocationSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "relocation section {}", self.0)
    }
}

/// Hands each loaded section its relocations. Tables of sections that are not loaded are not looked at.
fn attach_relocations<'a>(
    object: &'a [u8],
    headers: &'a [Header],
    symbol_section: usize,
    sections: &mut [Section<'a>],
    limits: &Limits,
) -> Result<(), LoadError> {
    let mut total = 0;
    for (number, header) in headers.iter().enumerate() {
        let kind = header.sh_type.get(LE);
        if !matches!(kind, elf::SHT_RELA | elf::SHT_REL | elf::SHT_CREL) || header.sh_size.get(LE) == 0 {
            continue;
        }
        let what = RelocationSection(number);
        let malformed = |why: &str| Err(LoadError::malformed(what.to_string(), why));
        let target = header.sh_info.get(LE) as usize;
        let Some(section) = sections.get_mut(target) else {
            return malformed(&format!("it applies to section {target}, which is not there"));
        };
        if section.segment.is_none() {
            continue;
        }
        if kind != elf::SHT_RELA {
            return Err(LoadError::Unsupported(format!("{what}: relocations other than SHT_RELA")));
        }
        if header.sh_link.get(LE) as usize != symbol_section {
            return malformed("it does not refer to the symbol table");
        }
        if section.relocations.len() != 0 {
            return malformed("its section has relocations already");
        }
        let table = Relocations::read(object, header, &what)?;
        total += table.len() as u64;
        if total > limits.relocations {
            return Err(LoadError::limit("the number of relocations", total, limits.relocations));
        }
        section.relocations = RelocationTable::ElfRela(table);
    }
    Ok(())
}
