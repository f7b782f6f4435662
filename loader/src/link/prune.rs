//! Prune: what the objects have twice is kept once.
//!
//! Sections that are not part of the image were never taken in by the reader. What is left to drop are groups with a
//! name that occurred before: COMDAT groups of ELF (gABI, "Section Groups": one copy is kept, any of them) and of COFF
//! (PE format, "COMDAT Sections", with its selections).

use super::Object;
use crate::error::{LoadError, printable};
use crate::graph::{LinkGraph, Selection};

/// Unloads all but one group of each name. Says whether anything was unloaded.
#[inline]
pub(super) fn discard_duplicate_groups(objects: &mut [Object<'_>]) -> Result<bool, LoadError> {
    match objects.iter().map(|object| object.graph.groups.len()).sum() {
        0 | 1 => Ok(false),
        total => discard_duplicates_of(objects, total),
    }
}

#[inline(never)]
fn discard_duplicates_of(objects: &mut [Object<'_>], total: usize) -> Result<bool, LoadError> {
    let mut order = Vec::with_capacity(total);
    for (number, object) in objects.iter().enumerate() {
        order.extend((0..object.graph.groups.len()).map(|group| (number, group)));
    }
    let name = |&(object, group): &(usize, usize)| objects[object].graph.groups[group].name;
    order.sort_by(|one, other| name(one).cmp(name(other)).then(one.cmp(other)));

    let mut losers = Vec::new();
    for same in order.chunk_by(|one, other| name(one) == name(other)) {
        let winner = select(objects, same)?;
        losers.extend(same.iter().copied().filter(|group| *group != winner));
    }
    for (object, group) in &losers {
        unload(&mut objects[*object].graph, *group);
    }
    Ok(!losers.is_empty())
}

/// Which of the groups with one name is kept. The first that a selection cannot put up with is an error.
fn select(objects: &[Object<'_>], same: &[(usize, usize)]) -> Result<(usize, usize), LoadError> {
    let mut winner = same[0];
    for candidate in &same[1..] {
        let graph = |(object, _): (usize, usize)| &objects[object].graph;
        let (kept, other) = (graph(winner), graph(*candidate));
        let (kept_section, other_section) = (head(kept, winner.1), head(other, candidate.1));
        let refuse = |why: &str| {
            let name = printable(kept.groups[winner.1].name);
            Err(LoadError::malformed(format!("COMDAT group `{name}`"), why))
        };
        let size = |graph: &LinkGraph<'_>, section: Option<usize>| {
            section.map(|section| graph.sections[section].size)
        };
        let bytes = |graph: &LinkGraph<'_>, section: Option<usize>| {
            section.map(|section| graph.sections[section].bytes.to_vec())
        };
        match kept.groups[winner.1].selection {
            Selection::Any => {}
            Selection::NoDuplicates => return refuse("there are two, and there must be one only"),
            Selection::SameSize if size(kept, kept_section) != size(other, other_section) => {
                return refuse("there are two of different sizes");
            }
            Selection::ExactMatch if bytes(kept, kept_section) != bytes(other, other_section) => {
                return refuse("there are two with different content");
            }
            Selection::Largest if size(other, other_section) > size(kept, kept_section) => {
                winner = *candidate
            }
            Selection::SameSize | Selection::ExactMatch | Selection::Largest => {}
        }
    }
    Ok(winner)
}

/// The section that decides for a group.
fn head(graph: &LinkGraph<'_>, group: usize) -> Option<usize> {
    let mut head = None;
    graph.groups[group].members.for_each(|member| head = head.or(Some(member)));
    head
}

fn unload(graph: &mut LinkGraph<'_>, group: usize) {
    let LinkGraph { groups, sections, .. } = graph;
    groups[group].members.for_each(|member| sections[member].segment = None);
}
