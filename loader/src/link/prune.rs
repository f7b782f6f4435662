//! Prune: what the object has twice is kept once.
//!
//! Sections without `SHF_ALLOC` were never taken in by the reader. What is left to drop are COMDAT groups with a name
//! that occurred before (gABI, "Section Groups": one copy is kept, any of them).

use crate::error::LoadError;
use crate::graph::{Binding, LinkGraph, SymbolPlace};
use crate::limits::{Limits, NameBudget};

/// Where the names of discarded definitions are defined instead. Empty unless something was discarded.
#[derive(Default)]
pub(crate) struct Discarded<'a> {
    /// Defined global names with their symbol numbers, sorted by name.
    kept: Vec<(&'a [u8], u32)>,
}

impl Discarded<'_> {
    /// The symbol that defines a name in a section that was kept.
    pub(super) fn kept_definition(&self, name: &[u8]) -> Option<u32> {
        let found = self.kept.binary_search_by_key(&name, |(kept, _)| kept).ok()?;
        Some(self.kept[found].1)
    }
}

/// Unloads all but the first group of each name.
pub(super) fn discard_duplicate_groups<'a>(
    graph: &mut LinkGraph<'a>,
    limits: &Limits,
) -> Result<Discarded<'a>, LoadError> {
    if graph.groups.len() < 2 {
        return Ok(Discarded::default());
    }
    let mut order: Vec<usize> = (0..graph.groups.len()).collect();
    order.sort_by_key(|group| (graph.groups[*group].name, *group));
    let mut any = false;
    for pair in order.windows(2) {
        let [first, second] = [&graph.groups[pair[0]], &graph.groups[pair[1]]];
        if first.name == second.name {
            for member in second.members.iter() {
                graph.sections[member].segment = None;
                any = true;
            }
        }
    }
    if any { kept_definitions(graph, limits) } else { Ok(Discarded::default()) }
}

fn kept_definitions<'a>(graph: &LinkGraph<'a>, limits: &Limits) -> Result<Discarded<'a>, LoadError> {
    let mut kept = Vec::new();
    let mut budget = NameBudget::of(limits);
    for number in 0..graph.symbols.len() {
        let symbol = graph.symbols.get(number)?;
        let SymbolPlace::Section(section) = symbol.place else { continue };
        if symbol.binding != Binding::Local && graph.sections[section as usize].segment.is_some() {
            let name = graph.symbols.name(&symbol)?;
            budget.spend(name)?;
            kept.push((name, number as u32));
        }
    }
    kept.sort_unstable();
    Ok(Discarded { kept })
}
