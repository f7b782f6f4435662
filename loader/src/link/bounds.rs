//! Bounds: symbols that mark where all sections of one name begin and end.
//!
//! Static linkers define them when somebody refers to them: `__start_NAME` and `__stop_NAME` for sections whose names are
//! C identifiers (GNU ld, "Input Section Example"; lld), `section$start$SEGMENT$SECTION` and `section$end$…` in Mach-O
//! (ld64). In COFF the sections' names do it: what is up to a `$` is one section to linkers, whose parts are sorted by what
//! follows, so that programs put marks of their own in the first and the last (PE format, "Grouped Sections").

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::Object;
use super::symbols::Facts;
use crate::error::LoadError;
use crate::graph::{Format, Section};
use crate::limits::{Limits, NameBudget};
use crate::memory::Segment;

/// The names of sections of which some object asks where they begin or end, with the addresses once they are known.
/// Rarely any.
#[derive(Default)]
pub(crate) struct Bounds {
    /// All sections with data stand in the order of their names.
    by_name: bool,
    /// Nearly always none, and then nothing of the map's code is run or brought into memory, not even to drop it.
    ends: Option<Ends>,
}

/// Where all sections of a name begin and end, once that is known.
type Ends = BTreeMap<Vec<u8>, Option<Range<u64>>>;

/// An end of all sections of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Start,
    Stop,
}

/// Whether a symbol of an ELF object may mark an end of all sections of a name.
pub(super) fn asks_for_an_end(symbol: &[u8]) -> bool {
    let [start, stop] = ELF_PREFIXES;
    symbol.starts_with(start) || symbol.starts_with(stop)
}

/// What such symbols begin with.
const ELF_PREFIXES: [&[u8]; 2] = [b"__start_", b"__stop_"];

/// The section name and the side that a symbol's name asks for.
fn parse(format: Format, symbol: &[u8]) -> Option<(Side, Vec<u8>)> {
    let [start, stop]: [&[u8]; 2] = match format {
        Format::Elf => ELF_PREFIXES,
        Format::MachO => [b"section$start$", b"section$end$"],
        Format::Coff => return None,
    };
    let (side, rest) = match (symbol.strip_prefix(start), symbol.strip_prefix(stop)) {
        (Some(rest), _) => (Side::Start, rest),
        (_, Some(rest)) => (Side::Stop, rest),
        _ => return None,
    };
    match format {
        // `SEGMENT$SECTION` names the section that readers call `SEGMENT,SECTION`.
        Format::MachO => {
            let dollar = rest.iter().position(|byte| *byte == b'$')?;
            Some((side, [&rest[..dollar], b",", &rest[dollar + 1..]].concat()))
        }
        _ => Some((side, rest.to_vec())),
    }
}

/// Those of the names that sections have.
#[cold]
fn ends_of_sections(objects: &[Object<'_>], mut asked: BTreeSet<Vec<u8>>) -> Option<Ends> {
    let mut ends = Ends::new();
    let sections = objects.iter().flat_map(|object| &object.graph.sections);
    for section in sections.filter(|section| section.segment.is_some()) {
        if let Some(name) = asked.take(section.name) {
            ends.insert(name, None);
        }
    }
    (!ends.is_empty()).then_some(ends)
}

impl Bounds {
    /// What the undefined symbols of all objects ask for, as far as there are such sections.
    #[inline]
    pub(super) fn wanted(objects: &[Object<'_>], limits: &Limits) -> Result<Self, LoadError> {
        let by_name = objects.iter().any(|object| object.graph.format == Format::Coff);
        let ends = match objects.iter().any(|object| object.symbols.seen.has(Facts::UNDEFINED)) {
            true => Self::wanted_ends(objects, limits)?,
            false => None,
        };
        Ok(Bounds { by_name, ends })
    }

    #[inline(never)]
    fn wanted_ends(objects: &[Object<'_>], limits: &Limits) -> Result<Option<Ends>, LoadError> {
        let mut asked = None;
        let mut budget = NameBudget::of(limits);
        for Object { graph, symbols, .. } in objects {
            if !symbols.seen.has(Facts::UNDEFINED) {
                continue;
            }
            for (number, state) in symbols.states.iter().enumerate() {
                // What another object defines is no longer external.
                if !state.facts.has(Facts::EXTERNAL) || !state.facts.has(Facts::UNDEFINED) {
                    continue;
                }
                let symbol = graph.symbols.get(number)?;
                if let Some((_, section)) = parse(graph.format, graph.symbols.name(&symbol)?) {
                    budget.spend(&section)?;
                    asked.get_or_insert_with(BTreeSet::new).insert(section);
                }
            }
        }
        Ok(asked.and_then(|asked| ends_of_sections(objects, asked)))
    }

    #[inline]
    pub(super) fn includes(&self, section: &Section<'_>) -> bool {
        if self.by_name {
            return section.segment.is_some_and(|segment| segment != Segment::Code) && !section.zero_fill;
        }
        self.ends.as_ref().is_some_and(|ends| ends.contains_key(section.name))
    }

    /// All sections that are to stand together, as object and section numbers, in the order in which they do.
    #[inline]
    pub(super) fn sections(&self, objects: &[Object<'_>]) -> Vec<(usize, usize)> {
        match self.by_name || self.ends.is_some() {
            true => self.sections_by_name(objects),
            false => Vec::new(),
        }
    }

    #[inline(never)]
    fn sections_by_name(&self, objects: &[Object<'_>]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for (object, Object { graph, .. }) in objects.iter().enumerate() {
            let sections = graph.sections.iter().enumerate();
            let included = sections.filter(|(_, section)| self.includes(section));
            found.extend(included.map(|(section, _)| (object, section)));
        }
        found.sort_by_key(|(object, section)| objects[*object].graph.sections[*section].name);
        found
    }

    /// Notes the target addresses, once the sections have theirs.
    #[inline]
    pub(super) fn measure(&mut self, objects: &[Object<'_>]) {
        if self.ends.is_some() {
            self.measure_some(objects);
        }
    }

    #[cold]
    fn measure_some(&mut self, objects: &[Object<'_>]) {
        for (object, section) in self.sections(objects) {
            let section = &objects[object].graph.sections[section];
            let (start, end) = (section.address, section.address.wrapping_add(section.size));
            let ends = self.ends.as_mut().and_then(|ends| ends.get_mut(section.name));
            if let Some(ends) = ends.filter(|_| section.segment.is_some()) {
                *ends =
                    Some(ends.as_ref().map_or(start..end, |ends| ends.start.min(start)..ends.end.max(end)));
            }
        }
    }

    /// The target address of one end of all sections of a name.
    pub(super) fn address(&self, format: Format, symbol: &[u8]) -> Option<u64> {
        let wanted = self.ends.as_ref()?;
        let (side, name) = parse(format, symbol)?;
        let ends = wanted.get(&name)?.as_ref()?;
        Some(match side {
            Side::Start => ends.start,
            Side::Stop => ends.end,
        })
    }
}
