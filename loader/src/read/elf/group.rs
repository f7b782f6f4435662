//! Section groups (gABI, "Section Groups"): the first word holds flags, the others are section numbers.

use std::fmt::{self, Display, Formatter};
use std::ops::Range;

use object::elf;
use object::endian::Endian as _;
use object::read::elf::SectionHeader as _;

use super::section::SectionNames;
use super::{Header, Shape, Symbols, order, section_table};
use crate::error::LoadError;
use crate::graph::{Group, GroupMembers as AnyMembers, Selection, SymbolPlace};
use crate::limits::{Limits, NameBudget};

/// The section numbers in a group, as words of the object.
pub(crate) struct GroupMembers<'a> {
    words: &'a [[u8; 4]],
    big_endian: bool,
}

impl GroupMembers<'_> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().map(|word| number(*word, self.big_endian) as usize)
    }
}

fn number(word: [u8; 4], big_endian: bool) -> u32 {
    if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
}

/// The COMDAT groups, which are among the sections of these numbers. Other groups only matter to linkers that drop unused sections.
///
/// A section is in one group at most, so all groups together have no more members than there are sections. That is
/// held against the object: tables may overlap in the file, and a thousand groups could each name everything.
pub(crate) fn read<'a, F: Shape>(
    object: &'a [u8],
    headers: &'a [Header<F>],
    numbers: Range<usize>,
    symbols: &Symbols<'a, F>,
    names: &SectionNames<'a>,
    limits: &Limits,
) -> Result<Vec<Group<'a>>, LoadError> {
    let mut groups = Vec::new();
    let mut budget = NameBudget::of(limits);
    let mut members_left = headers.len();
    for number in numbers {
        let header = &headers[number];
        if header.sh_type(order::<F>()) != elf::SHT_GROUP {
            continue;
        }
        let what = GroupNumber(number);
        let (flags, members) = words::<F>(object, header, &what)?;
        if flags & elf::GRP_COMDAT.0 == 0 {
            continue;
        }
        let Some(left) = members_left.checked_sub(members.words.len()) else {
            let why = "the groups have more members than the object has sections";
            return Err(LoadError::malformed(what.to_string(), why));
        };
        members_left = left;
        if let Some(stranger) = members.iter().find(|member| *member >= headers.len()) {
            return Err(LoadError::malformed(
                what.to_string(),
                format!("it names section {stranger}, which is not there"),
            ));
        }
        let name = name::<F>(header, headers, symbols, names, &what)?;
        budget.spend(name)?;
        groups.push(Group { name, members: AnyMembers::Elf(members), selection: Selection::Any });
    }
    Ok(groups)
}

/// A group in messages.
struct GroupNumber(usize);

impl Display for GroupNumber {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "section group {}", self.0)
    }
}

/// The flag word of a group, and the others.
fn words<'a, F: Shape>(
    object: &'a [u8],
    header: &Header<F>,
    what: &dyn Display,
) -> Result<(u32, GroupMembers<'a>), LoadError> {
    let words: &[[u8; 4]] = section_table::<F, _>(object, header, what)?;
    let big_endian = order::<F>().is_big_endian();
    match words.split_first() {
        Some((flags, words)) => Ok((number(*flags, big_endian), GroupMembers { words, big_endian })),
        None => Err(LoadError::malformed(what.to_string(), "it has no flag word")),
    }
}

/// A group is named by a symbol, or, as some assemblers do it, by the section of a section symbol: with `ld.gold -r` the
/// group's own.
fn name<'a, F: Shape>(
    header: &Header<F>,
    headers: &[Header<F>],
    symbols: &Symbols<'a, F>,
    names: &SectionNames<'a>,
    what: &dyn Display,
) -> Result<&'a [u8], LoadError> {
    let number = header.sh_info(order::<F>()) as usize;
    if number >= symbols.len() {
        return Err(LoadError::malformed(
            what.to_string(),
            format!("it is named by symbol {number}, which is not there"),
        ));
    }
    let symbol = symbols.get(number)?;
    match symbol.place {
        SymbolPlace::Section(section) if symbol.name == 0 => {
            let section = section as usize;
            headers.get(section).map_or(Ok(b""), |header| names.get::<F>(section, header))
        }
        _ => symbols.name(symbol.name),
    }
}
