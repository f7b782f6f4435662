//! The ELF header and the order in which the tables are read: sections, symbols, relocations, groups.

use std::fmt;
use std::ops::Range;

use object::elf::{self, FileHeader32, FileHeader64};
use object::pod;
use object::read::elf::SectionHeader as _;

use super::section::{self, SectionNames};
use super::{Header, Shape, Symbols, group, order, section_table, table};
use crate::arch::{self, ElfIdentity, Machine};
use crate::error::LoadError;
use crate::graph::{Format, LinkGraph, RelocationTable, Section};
use crate::limits::{Limits, NameBudget};
use crate::read::FileBudget;
use object::endian::Endian as _;
use object::{BigEndian, LittleEndian};

/// Reads a relocatable ELF object of any shape that a machine has.
pub(crate) fn parse<'a>(object: &'a [u8], limits: &Limits) -> Result<LinkGraph<'a>, LoadError> {
    match object.get(4..6) {
        Some([2, 1]) => parse_shape::<FileHeader64<LittleEndian>>(object, limits),
        Some([1, 1]) => parse_shape::<FileHeader32<LittleEndian>>(object, limits),
        Some([2, 2]) => parse_shape::<FileHeader64<BigEndian>>(object, limits),
        Some([1, 2]) => Err(LoadError::unsupported("32-bit big-endian ELF")),
        _ => Err(LoadError::malformed("ELF header", "unknown class or byte order")),
    }
}

fn parse_shape<'a, F: Shape>(object: &'a [u8], limits: &Limits) -> Result<LinkGraph<'a>, LoadError> {
    let (header, machine) = file_header::<F>(object)?;
    let headers = section_headers(object, header, limits)?;
    let names = SectionNames::of(object, header, headers, limits)?;

    let mut sections = vec![Section::NOT_LOADED; headers.len()];
    let mut budget = NameBudget::of(limits);
    let mut content = FileBudget::of(object, "sections");
    let mut tables = Tables::default();
    for (number, (header, section)) in headers.iter().zip(&mut sections).enumerate() {
        tables.note(header.sh_type(order::<F>()), number);
        if !section::is_loaded::<F>(header) {
            continue;
        }
        section::read::<F>(section, object, header, number, &names, limits)?;
        budget.spend(section.name)?;
        content.spend(section.bytes.len(), 1)?;
    }
    let symbols = Symbols::<F>::find(object, headers, tables.symbols, limits)?;
    let relocations = tables.relocations;
    attach_relocations::<F>(object, headers, relocations, symbols.section(), &mut sections, limits)?;
    let groups = group::read(object, headers, tables.groups, &symbols, &names, limits)?;

    let symbols = F::symbol_table(symbols);
    Ok(LinkGraph { name: "", format: Format::Elf, machine, sections, symbols, groups, cuts: Vec::new() })
}

/// Between which numbers sections of some types are, so that those who look for them need not look everywhere.
#[derive(Default)]
struct Tables {
    /// Symbols, and their extended section numbers.
    symbols: Range<usize>,
    groups: Range<usize>,
    relocations: Range<usize>,
}

impl Tables {
    #[inline]
    fn note(&mut self, kind: elf::SectionType, number: usize) {
        let range = match kind {
            elf::SHT_SYMTAB | elf::SHT_SYMTAB_SHNDX => &mut self.symbols,
            elf::SHT_GROUP => &mut self.groups,
            elf::SHT_RELA | elf::SHT_REL | elf::SHT_CREL => &mut self.relocations,
            _ => return,
        };
        *range = if range.end == 0 { number..number + 1 } else { range.start..number + 1 };
    }
}

pub(crate) fn file_header<F: Shape>(object: &[u8]) -> Result<(&F, Machine), LoadError> {
    let unsupported = |what: String| Err(LoadError::unsupported(what));
    let (header, _) = pod::from_bytes::<F>(object)
        .map_err(|()| LoadError::malformed("ELF header", "the file is shorter than its header"))?;
    let machine = machine(header)?;
    match header.e_type(order::<F>()) {
        elf::ET_REL => Ok((header, machine)),
        elf::ET_DYN => {
            unsupported("a shared object or executable (ET_DYN); a relocatable object is needed".into())
        }
        elf::ET_EXEC => unsupported("an executable (ET_EXEC); a relocatable object is needed".into()),
        other => unsupported(format!("ELF file type {}; a relocatable object is needed", other.0)),
    }
}

fn machine<F: Shape>(header: &F) -> Result<Machine, LoadError> {
    let identity = ElfIdentity {
        e_machine: header.e_machine(order::<F>()).0,
        class: F::CLASS,
        big_endian: order::<F>().is_big_endian(),
    };
    Machine::find(|known| known.elf == Some(identity)).ok_or_else(|| {
        let ElfIdentity { e_machine, class, big_endian } = identity;
        let order = if big_endian { "big" } else { "little" };
        let not_all = arch::NOT_ALL;
        LoadError::unsupported(format!("ELF machine {e_machine}, {class}-bit, {order}-endian{not_all}"))
    })
}

/// The section header table. More than 0xfeff sections are counted in the first header (gABI, "e_shnum").
pub(crate) fn section_headers<'a, F: Shape>(
    object: &'a [u8],
    header: &F,
    limits: &Limits,
) -> Result<&'a [Header<F>], LoadError> {
    const WHAT: &str = "section header table";
    let offset = header.e_shoff(order::<F>()).into();
    if offset == 0 {
        return Err(LoadError::malformed(WHAT, "the file has none"));
    }
    if usize::from(header.e_shentsize(order::<F>())) != size_of::<Header<F>>() {
        let size = size_of::<Header<F>>();
        return Err(LoadError::malformed(WHAT, format!("its entries are not {size} bytes each")));
    }
    let count = match header.e_shnum(order::<F>()) {
        0 => table::<Header<F>>(object, offset, 1, &WHAT)?[0].sh_size(order::<F>()).into(),
        count => u64::from(count),
    };
    if count > limits.sections {
        return Err(LoadError::limit("the number of sections", count, limits.sections));
    }
    table(object, offset, count, &WHAT)
}

/// What to call a section of relocations in a message.
pub(super) struct RelocationSection(pub(super) usize);

impl fmt::Display for RelocationSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "relocation section {}", self.0)
    }
}

/// Hands each loaded section its relocations. Tables of sections that are not loaded are not looked at.
fn attach_relocations<'a, F: Shape>(
    object: &'a [u8],
    headers: &'a [Header<F>],
    numbers: Range<usize>,
    symbol_section: usize,
    sections: &mut [Section<'a>],
    limits: &Limits,
) -> Result<(), LoadError> {
    let mut total = 0;
    let mut entries = FileBudget::of(object, "relocation tables");
    for number in numbers {
        let header = &headers[number];
        let kind = header.sh_type(order::<F>());
        if !matches!(kind, elf::SHT_RELA | elf::SHT_REL | elf::SHT_CREL)
            || header.sh_size(order::<F>()).into() == 0
        {
            continue;
        }
        let what = RelocationSection(number);
        let malformed = |why: &str| Err(LoadError::malformed(what.to_string(), why));
        let target = header.sh_info(order::<F>()) as usize;
        let Some(section) = sections.get_mut(target) else {
            return malformed(&format!("it applies to section {target}, which is not there"));
        };
        if section.segment.is_none() {
            continue;
        }
        if header.sh_link(order::<F>()) as usize != symbol_section {
            return malformed("it does not refer to the symbol table");
        }
        if section.relocations.len() != 0 {
            return malformed("its section has relocations already");
        }
        let table = relocation_table::<F>(object, header, &what)?;
        total += table.len() as u64;
        entries.spend(header.sh_size(order::<F>()).into() as usize, 1)?;
        if total > limits.relocations {
            return Err(LoadError::limit("the number of relocations", total, limits.relocations));
        }
        section.relocations = table;
    }
    Ok(())
}

pub(super) fn relocation_table<'a, F: Shape>(
    object: &'a [u8],
    header: &Header<F>,
    what: &RelocationSection,
) -> Result<RelocationTable<'a>, LoadError> {
    let unsupported = |kind: &str| Err(LoadError::unsupported(format!("{what}: {kind}")));
    match header.sh_type(order::<F>()) {
        elf::SHT_RELA => Ok(F::rela(section_table::<F, _>(object, header, what)?)),
        elf::SHT_REL => match F::rel(section_table::<F, _>(object, header, what)?) {
            Some(table) => Ok(table),
            None => unsupported("relocations without addends (SHT_REL)"),
        },
        _ => unsupported("compact relocations (SHT_CREL)"),
    }
}
