//! COMDAT sections ("COMDAT Sections (Object Only)"): of those with one name, one is kept.
//!
//! The first symbol of such a section defines it, and an auxiliary record says how one of several is selected; the
//! second symbol is the name. Sections that are associated with another stand or fall with it.

use object::LittleEndian as LE;
use object::pe::{self, ImageAuxSymbolSection, ImageSectionHeader};

use super::symbol::TableOfSymbols;
use super::{SymbolEntry, section};
use crate::error::{LoadError, printable};
use crate::graph::{Group, GroupMembers, Section, Selection};
use crate::limits::{Limits, NameBudget};

/// What is known of one section.
#[derive(Clone, Copy)]
enum Comdat {
    /// It is no COMDAT section.
    No,
    /// It is one, but no symbol defines it.
    Undefined,
    /// Its definition was seen, its name not yet.
    Unnamed(Selection),
    /// The symbol that names it, by its number.
    Named(Selection, usize),
    /// The symbol that would name it is local: there is no other.
    Alone,
    /// Goes with another section.
    Associated(u32),
}

/// The groups of the object. Sections that are associated with one that is not loaded are not loaded either.
pub(super) fn read<'a, E: SymbolEntry>(
    headers: &[ImageSectionHeader],
    symbols: &TableOfSymbols<'a, E>,
    sections: &mut [Section<'a>],
    limits: &Limits,
) -> Result<Vec<Group<'a>>, LoadError> {
    if !headers.iter().any(section::is_comdat) {
        return Ok(Vec::new());
    }
    let mut comdats = definitions(headers, symbols, sections)?;
    associate_unwind_tables(&mut comdats, sections);
    let roots = roots(&comdats, sections)?;
    for (number, root) in roots.iter().enumerate() {
        if sections[*root as usize].segment.is_none() && number != 0 {
            sections[number].segment = None;
        }
    }
    groups(&comdats, &roots, symbols, sections, limits)
}

/// What the symbols say of each section.
fn definitions<E: SymbolEntry>(
    headers: &[ImageSectionHeader],
    symbols: &TableOfSymbols<'_, E>,
    sections: &[Section<'_>],
) -> Result<Vec<Comdat>, LoadError> {
    let flags =
        headers.iter().map(|header| if section::is_comdat(header) { Comdat::Undefined } else { Comdat::No });
    let mut comdats: Vec<Comdat> = [Comdat::No].into_iter().chain(flags).collect();
    for (number, entry) in symbols.iter() {
        let place = match usize::try_from(entry.section()) {
            Ok(place) if place != 0 && place < sections.len() => place,
            _ => continue,
        };
        match comdats[place] {
            Comdat::Undefined => {
                // Some runtimes' variables are defined by external symbols with such a record.
                let defines = entry.class() == pe::IMAGE_SYM_CLASS_STATIC && entry.value() == 0;
                if let Some(record) = symbols.auxiliary(number).filter(|_| defines) {
                    comdats[place] = definition::<E>(record, place, sections)?;
                }
            }
            Comdat::Unnamed(selection) => {
                let global = entry.class() == pe::IMAGE_SYM_CLASS_EXTERNAL;
                comdats[place] = if global { Comdat::Named(selection, number) } else { Comdat::Alone };
            }
            _ => {}
        }
    }
    Ok(comdats)
}

fn definition<E: SymbolEntry>(
    record: &ImageAuxSymbolSection,
    place: usize,
    sections: &[Section<'_>],
) -> Result<Comdat, LoadError> {
    let malformed = |why: String| Err(LoadError::malformed(printable(sections[place].name), why));
    Ok(Comdat::Unnamed(match record.selection {
        pe::IMAGE_COMDAT_SELECT_NODUPLICATES => Selection::NoDuplicates,
        pe::IMAGE_COMDAT_SELECT_ANY => Selection::Any,
        pe::IMAGE_COMDAT_SELECT_SAME_SIZE => Selection::SameSize,
        pe::IMAGE_COMDAT_SELECT_EXACT_MATCH => Selection::ExactMatch,
        pe::IMAGE_COMDAT_SELECT_LARGEST => Selection::Largest,
        pe::IMAGE_COMDAT_SELECT_ASSOCIATIVE => {
            let high = if E::WIDE { u32::from(record.high_number.get(LE)) } else { 0 };
            let with = high << 16 | u32::from(record.number.get(LE));
            if with == 0 || with as usize >= sections.len() {
                return malformed(format!("it is associated with section {with}, which is not there"));
            }
            return Ok(Comdat::Associated(with));
        }
        pe::IMAGE_COMDAT_SELECT_NEWEST => {
            let name = printable(sections[place].name);
            let what = "a COMDAT section of which the newest is wanted (IMAGE_COMDAT_SELECT_NEWEST)";
            return Err(LoadError::unsupported(format!("{name}: {what}")));
        }
        other => return malformed(format!("its COMDAT selection {} is unknown", other.0)),
    }))
}

/// GNU tools know no association: the unwind tables of a function in `.text$NAME` are COMDAT sections without a name of
/// their own, and only theirs says what they belong to.
fn associate_unwind_tables(comdats: &mut [Comdat], sections: &[Section<'_>]) {
    let is_unnamed =
        |comdat: &Comdat| matches!(comdat, Comdat::Undefined | Comdat::Unnamed(_) | Comdat::Alone);
    if !comdats.iter().any(is_unnamed) {
        return;
    }
    let mut functions: Vec<(&[u8], u32)> = (0..)
        .zip(comdats.iter().zip(sections))
        .filter(|(_, (comdat, _))| matches!(comdat, Comdat::Named(..)))
        .filter_map(|(number, (_, section))| Some((section.name.strip_prefix(b".text$")?, number)))
        .collect();
    functions.sort_unstable();
    for (comdat, section) in comdats.iter_mut().zip(sections).filter(|(comdat, _)| is_unnamed(comdat)) {
        let Some(name) = function_of_table(section.name) else { continue };
        let found = functions.partition_point(|(other, _)| *other < name);
        if let Some((_, with)) = functions.get(found).filter(|(other, _)| *other == name) {
            *comdat = Comdat::Associated(*with);
        }
    }
}

fn function_of_table(name: &[u8]) -> Option<&[u8]> {
    const STEMS: [&[u8]; 3] = [b".pdata$", b".xdata$", b".eh_frame$"];
    STEMS.iter().find_map(|stem| name.strip_prefix(*stem))
}

/// For each section the one that it stands or falls with; most stand alone. Every chain of associations is walked once.
fn roots(comdats: &[Comdat], sections: &[Section<'_>]) -> Result<Vec<u32>, LoadError> {
    const UNKNOWN: u32 = u32::MAX;
    let mut roots: Vec<u32> = vec![UNKNOWN; comdats.len()];
    let mut chain = Vec::new();
    for start in 0..comdats.len() as u32 {
        let mut at = start;
        let root = loop {
            match (roots[at as usize], comdats[at as usize]) {
                (UNKNOWN, Comdat::Associated(with)) if chain.len() < comdats.len() => {
                    chain.push(at);
                    at = with;
                }
                (UNKNOWN, Comdat::Associated(_)) => {
                    let name = printable(sections[start as usize].name);
                    return Err(LoadError::malformed(name, "the sections it is associated with go round"));
                }
                (UNKNOWN, _) => break at,
                (root, _) => break root,
            }
        };
        roots[at as usize] = root;
        chain.drain(..).for_each(|member| roots[member as usize] = root);
    }
    Ok(roots)
}

/// A group for every section that has a name, with all that are associated with it behind.
fn groups<'a, E: SymbolEntry>(
    comdats: &[Comdat],
    roots: &[u32],
    symbols: &TableOfSymbols<'a, E>,
    sections: &[Section<'a>],
    limits: &Limits,
) -> Result<Vec<Group<'a>>, LoadError> {
    let mut budget = NameBudget::of(limits);
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut group_of_root = vec![u32::MAX; comdats.len()];
    for (number, (comdat, section)) in comdats.iter().zip(sections).enumerate() {
        if section.segment.is_none() {
            continue;
        }
        let (selection, name) = match *comdat {
            Comdat::Named(selection, symbol) => (selection, symbols.name(symbol)),
            // GNU linkers keep one of several with the same section name.
            Comdat::Unnamed(selection) => (selection, Some(section.name)),
            Comdat::No | Comdat::Undefined | Comdat::Alone | Comdat::Associated(_) => continue,
        };
        let name = name.ok_or_else(|| {
            LoadError::malformed(printable(section.name), "the symbol that names it has no name itself")
        })?;
        budget.spend(name)?;
        group_of_root[number] = groups.len() as u32;
        groups.push(Group { name, members: GroupMembers::Coff(vec![number as u32]), selection });
    }
    for (number, root) in roots.iter().enumerate().filter(|(number, root)| *number != **root as usize) {
        let group = groups.get_mut(group_of_root[*root as usize] as usize);
        if let Some(Group { members: GroupMembers::Coff(members), .. }) = group {
            members.push(number as u32);
        }
    }
    Ok(groups)
}
