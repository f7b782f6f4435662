//! Debug sections: what the loader leaves in the object, for debuggers. Nothing here is looked at in a load without
//! someone who asks.

use object::elf;
use object::read::elf::SectionHeader as _;
use object::{BigEndian, LittleEndian};

use super::file::{RelocationSection, file_header, relocation_table, section_headers};
use super::section::SectionNames;
use super::{Shape, Symbols, content, order};
use crate::error::{LoadError, printable};
use crate::graph::{RelocationTable, UnloadedSection};
use crate::limits::{Limits, NameBudget};
use crate::read::FileBudget;

/// The debug sections of an object that was loaded before, in its order.
pub(crate) fn debug_sections<'a>(
    object: &'a [u8],
    limits: &Limits,
) -> Result<Vec<UnloadedSection<'a>>, LoadError> {
    match object.get(4..6) {
        Some([2, 1]) => of_shape::<elf::FileHeader64<LittleEndian>>(object, limits),
        Some([1, 1]) => of_shape::<elf::FileHeader32<LittleEndian>>(object, limits),
        Some([2, 2]) => of_shape::<elf::FileHeader64<BigEndian>>(object, limits),
        _ => Err(LoadError::malformed("ELF header", "unknown class or byte order")),
    }
}

/// What an ABI keeps in the header of its files (`e_flags`), such as the float convention.
pub(crate) fn header_flags(object: &[u8]) -> u32 {
    fn of_shape<F: Shape>(object: &[u8]) -> u32 {
        file_header::<F>(object).map_or(0, |(header, _)| header.e_flags(order::<F>()).0)
    }
    match object.get(4..6) {
        Some([2, 1]) => of_shape::<elf::FileHeader64<LittleEndian>>(object),
        Some([1, 1]) => of_shape::<elf::FileHeader32<LittleEndian>>(object),
        Some([2, 2]) => of_shape::<elf::FileHeader64<BigEndian>>(object),
        _ => 0,
    }
}

fn of_shape<'a, F: Shape>(object: &'a [u8], limits: &Limits) -> Result<Vec<UnloadedSection<'a>>, LoadError> {
    let (header, _) = file_header::<F>(object)?;
    let headers = section_headers(object, header, limits)?;
    let names = SectionNames::of(object, header, headers, limits)?;
    let mut budget = FileBudget::of(object, "debug sections");
    let mut name_budget = NameBudget::of(limits);
    let mut sections = Vec::new();
    for (number, header) in headers.iter().enumerate() {
        let flags = header.sh_flags(order::<F>()).0;
        let has = |flag: elf::SectionFlags| flags & flag.0 != 0;
        // What is excluded is for other files (`.debug_info.dwo`).
        if has(elf::SHF_ALLOC)
            || has(elf::SHF_EXCLUDE)
            || !may_hold_debug_information(header.sh_type(order::<F>()))
        {
            continue;
        }
        let Ok(name) = names.get::<F>(number, header) else { continue };
        name_budget.spend(name)?;
        if name.starts_with(b".zdebug_") || name.starts_with(b".debug_") && has(elf::SHF_COMPRESSED) {
            let what = format!("{}: compressed debug information", printable(name));
            return Err(LoadError::unsupported(what));
        }
        if name.starts_with(b".debug_") {
            let bytes = content::<F>(object, header, ".debug")?;
            budget.spend(bytes.len(), 1)?;
            let relocations = RelocationTable::None;
            sections.push(UnloadedSection { number, name, bytes, relocations });
        }
    }
    attach_relocations::<F>(object, headers, &mut sections, limits)?;
    Ok(sections)
}

/// Some psABIs have a type of their own for debug information (`SHT_MIPS_DWARF`); machines that we load for do not.
fn may_hold_debug_information(kind: elf::SectionType) -> bool {
    kind == elf::SHT_PROGBITS
}

fn attach_relocations<'a, F: Shape>(
    object: &'a [u8],
    headers: &'a [super::Header<F>],
    sections: &mut [UnloadedSection<'a>],
    limits: &Limits,
) -> Result<(), LoadError> {
    let symbols = Symbols::<F>::find(object, headers, 0..headers.len(), limits)?;
    let mut entries = FileBudget::of(object, "relocation tables");
    let mut total = 0;
    for (number, header) in headers.iter().enumerate() {
        let kind = header.sh_type(order::<F>());
        if !matches!(kind, elf::SHT_RELA | elf::SHT_REL | elf::SHT_CREL) {
            continue;
        }
        let target = header.sh_info(order::<F>()) as usize;
        let Ok(found) = sections.binary_search_by_key(&target, |section| section.number) else { continue };
        let what = RelocationSection(number);
        let section = &mut sections[found];
        if header.sh_link(order::<F>()) as usize != symbols.section() || section.relocations.len() != 0 {
            let why = "it is the second for its section, or does not refer to the symbol table";
            return Err(LoadError::malformed(what.to_string(), why));
        }
        let table = relocation_table::<F>(object, header, &what)?;
        entries.spend(header.sh_size(order::<F>()).into() as usize, 1)?;
        total += table.len() as u64;
        if total > limits.relocations {
            return Err(LoadError::limit("the number of relocations", total, limits.relocations));
        }
        section.relocations = table;
    }
    Ok(())
}
