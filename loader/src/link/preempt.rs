//! Weak definitions that give way to one outside of the image (gABI, "Symbol Table": a weak symbol has lower precedence),
//! as those of a shared library do to one that was there before. C++ relies on it: the variables of inline functions are
//! the same object wherever they are used.
//!
//! Only in ELF, where no other section of the object takes for granted that the definition is its own.

use super::Object;
use super::symbols::{Facts, SymbolState};
use crate::error::LoadError;
use crate::graph::Format;
use crate::limits::NameBudget;
use crate::resolver::SymbolResolver;

/// From now on such symbols are external, and what the object has of them is used by nobody.
#[inline]
pub(super) fn give_way(
    object: &mut Object<'_>,
    resolver: &dyn SymbolResolver,
    budget: &mut NameBudget,
) -> Result<(), LoadError> {
    match object.graph.format == Format::Elf && object.symbols.seen.has(Facts::WEAK) {
        true => weak_ones_give_way(object, resolver, budget),
        false => Ok(()),
    }
}

#[inline(never)]
fn weak_ones_give_way(
    object: &mut Object<'_>,
    resolver: &dyn SymbolResolver,
    budget: &mut NameBudget,
) -> Result<(), LoadError> {
    let Object { graph, symbols, .. } = object;
    for (number, state) in symbols.states.iter_mut().enumerate() {
        let is_weak = state.facts.has(Facts::WEAK) && state.facts.has(Facts::EXPORTED);
        if !is_weak || state.section == SymbolState::NO_SECTION {
            continue;
        }
        let name = graph.symbols.name(&graph.symbols.get(number)?)?;
        budget.spend(name)?;
        if std::str::from_utf8(name).is_ok_and(|name| resolver.preempts(name)) {
            state.section = SymbolState::NO_SECTION;
            state.facts.add(Facts::EXTERNAL.and(Facts::PREEMPTED));
            // It is known to be defined: if it is gone in a moment, that is an error.
            state.facts.remove(Facts::WEAK.and(Facts::EXPORTED));
            symbols.exported -= 1;
        }
    }
    Ok(())
}
