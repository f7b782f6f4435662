//! Section groups (gABI, "Section Groups"): the first word holds flags, the others are section numbers.

use std::fmt::Display;

use object::{LittleEndian, U32, elf};

use super::{Header, LE, Symbols, section_table};
use crate::error::LoadError;
use crate::graph::{Group, Section, SymbolPlace};
use crate::limits::{Limits, NameBudget};

/// The section numbers in a group.
pub(crate) struct GroupMembers<'a> {
    words: &'a [U32<LittleEndian>],
}

impl GroupMembers<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().map(|word| word.get(LE) as usize)
    }
}

/// The COMDAT groups. Other groups only matter to linkers that drop unused sections.
///
/// A section is in one group at most, so all groups together have no more members than there are sections. That is
/// held against the object: tables may overlap in the file, and a thousand groups could each name everything.
pub(super) fn read<'a>(
    object: &'a [u8],
    headers: &'a [Header],
    symbols: &Symbols<'a>,
    sections: &[Section<'a>],
    limits: &Limits,
) -> Result<Vec<Group<'a>>, LoadError> {
    let mut groups = Vec::new();
    let mut budget = NameBudget::of(limits);
    let mut members_left = sections.len();
    for (number, header) in headers.iter().enumerate() {
        if header.sh_type.get(LE) != elf::SHT_GROUP {
            continue;
        }
        let what = format_args!("section group {number}");
        let words: &[U32<LittleEndian>] = section_table(object, header, &what)?;
        let Some((flags, members)) = words.split_first() else {
            return Err(LoadError::malformed(what.to_string(), "it has no flag word"));
        };
        if flags.get(LE) & elf::GRP_COMDAT.0 == 0 {
            continue;
        }
        let Some(left) = members_left.checked_sub(members.len()) else {
            let why = "the groups have more members than the object has sections";
            return Err(LoadError::malformed(what.to_string(), why));
        };
        members_left = left;
        let members = GroupMembers { words: members };
        if let Some(stranger) = members.iter().find(|member| *member >= sections.len()) {
            return Err(LoadError::malformed(
                what.to_string(),
                format!("it names section {stranger}, which is not there"),
            ));
        }
        let name = name(header, symbols, sections, &what)?;
        budget.spend(name)?;
        groups.push(Group { name, members });
    }
    Ok(groups)
}

/// A group is named by a symbol, or, as some assemblers do it, by the section of a section symbol.
fn name<'a>(
    header: &Header,
    symbols: &Symbols<'a>,
    sections: &[Section<'a>],
    what: &dyn Display,
) -> Result<&'a [u8], LoadError> {
    let number = header.sh_info.get(LE) as usize;
    if number >= symbols.len() {
        return Err(LoadError::malformed(
            what.to_string(),
            format!("it is named by symbol {number}, which is not there"),
        ));
    }
    let symbol = symbols.get(number)?;
    match symbol.place {
        SymbolPlace::Section(section) if symbol.name == 0 => Ok(sections[section as usize].name),
        _ => symbols.name(symbol.name),
    }
}
