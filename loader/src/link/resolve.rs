//! Resolve: an address for every symbol that something refers to, and the list of those that others may refer to.

use super::exports::{ExportBuilder, Exports};
use super::layout::Addresses;
use super::prune::Discarded;
use super::symbols::{Facts, SymbolState, Symbols};
use crate::error::{LoadError, UnresolvedSymbol, UnresolvedSymbols, printable};
use crate::graph::{LinkGraph, Symbol, SymbolPlace};
use crate::limits::{Limits, NameBudget};
use crate::resolver::SymbolResolver;

/// Fills in all addresses. A weak symbol that nobody defines is zero; a strong one is an error, which names all.
pub(super) fn resolve(
    graph: &LinkGraph<'_>,
    symbols: &mut Symbols,
    addresses: &Addresses,
    discarded: &Discarded<'_>,
    resolver: &dyn SymbolResolver,
    limits: &Limits,
) -> Result<Exports, LoadError> {
    let mut exports = ExportBuilder::with_capacity(symbols.exported);
    let mut elsewhere = Elsewhere {
        graph,
        addresses,
        discarded,
        resolver,
        budget: NameBudget::of(limits),
        uses_dso_handle: false,
        unresolved: Vec::new(),
        unresolved_count: 0,
    };
    for (number, state) in symbols.states.iter_mut().enumerate() {
        let offset = state.address;
        let section = graph.sections.get(state.section as usize);
        state.address = match section {
            Some(section) => section.address.wrapping_add(offset),
            None => elsewhere.address(number, state)?,
        };
        if state.facts.has(Facts::EXPORTED) {
            let mut label = graph.symbols.label(number);
            if let Some(section) = section {
                // No more than its section has from there on: readers of the image rely on it.
                label.size = label.size.min(section.size.saturating_sub(offset));
            }
            exports.add(label, state.address);
        }
    }
    symbols.uses_dso_handle = elsewhere.uses_dso_handle;
    elsewhere.into_result()?;
    Ok(exports.finish(graph.symbols.strings()))
}

/// Finds symbols that are in no loaded section.
struct Elsewhere<'e, 'a> {
    graph: &'e LinkGraph<'a>,
    addresses: &'e Addresses,
    discarded: &'e Discarded<'a>,
    resolver: &'e dyn SymbolResolver,
    budget: NameBudget,
    uses_dso_handle: bool,
    /// The first of those that nobody knows.
    unresolved: Vec<u32>,
    unresolved_count: usize,
}

impl Elsewhere<'_, '_> {
    fn address(&mut self, number: usize, state: &SymbolState) -> Result<u64, LoadError> {
        let symbol = self.graph.symbols.get(number)?;
        match symbol.place {
            SymbolPlace::Section(_) => Ok(self.kept_copy(&symbol, state.facts)?.unwrap_or(0)),
            SymbolPlace::Absolute => Ok(symbol.value),
            SymbolPlace::Common => Ok(self.addresses.commons.wrapping_add(state.address)),
            SymbolPlace::Undefined if !state.facts.has(Facts::REFERENCED) => Ok(0),
            SymbolPlace::Undefined => self.undefined(number, &symbol, state.facts),
        }
    }

    fn undefined(&mut self, number: usize, symbol: &Symbol, facts: Facts) -> Result<u64, LoadError> {
        let name = self.graph.symbols.name(symbol)?;
        self.budget.spend(name)?;
        self.uses_dso_handle |= name == DSO_HANDLE;
        let found = external(name, self.addresses, self.resolver);
        if found.is_none() && !facts.has(Facts::WEAK) {
            self.unresolved_count += 1;
            if self.unresolved.len() < UnresolvedSymbols::SHOWN {
                self.unresolved.push(number as u32);
            }
        }
        Ok(found.unwrap_or(0))
    }

    /// The address of a global from a discarded group: that of the copy that was kept.
    #[cold]
    fn kept_copy(&self, symbol: &Symbol, facts: Facts) -> Result<Option<u64>, LoadError> {
        if !facts.has(Facts::EXTERNAL) {
            return Ok(None);
        }
        let name = self.graph.symbols.name(symbol)?;
        let Some(kept) = self.discarded.kept_definition(name) else {
            return match facts.has(Facts::REFERENCED) {
                true => {
                    let why = "its section is not loaded, and nothing else defines it";
                    Err(LoadError::malformed(format!("symbol `{}`", printable(name)), why))
                }
                false => Ok(None),
            };
        };
        let definition = self.graph.symbols.get(kept as usize)?;
        match definition.place {
            SymbolPlace::Section(section) => {
                Ok(Some(self.graph.sections[section as usize].address.wrapping_add(definition.value)))
            }
            _ => Ok(None),
        }
    }

    fn into_result(self) -> Result<(), LoadError> {
        if self.unresolved_count == 0 {
            return Ok(());
        }
        Err(LoadError::Unresolved(report(self.graph, &self.unresolved, self.unresolved_count)))
    }
}

/// What static destructors are registered under (Itanium C++ ABI, 3.3.5.3).
const DSO_HANDLE: &[u8] = b"__dso_handle";

/// Names the loader defines itself come first: they mean this image.
fn external(name: &[u8], addresses: &Addresses, resolver: &dyn SymbolResolver) -> Option<u64> {
    match name {
        b"_GLOBAL_OFFSET_TABLE_" => Some(addresses.got),
        DSO_HANDLE => Some(addresses.image),
        _ => resolver.resolve(std::str::from_utf8(name).ok()?),
    }
}

#[cold]
fn report(graph: &LinkGraph<'_>, unresolved: &[u32], total: usize) -> UnresolvedSymbols {
    let mut first_places: Vec<Option<String>> = vec![None; unresolved.len()];
    for (section, relocation) in graph.places() {
        if let Ok(found) = unresolved.binary_search(&relocation.symbol) {
            first_places[found]
                .get_or_insert_with(|| format!("{}+{:#x}", printable(section.name), relocation.offset));
        }
    }
    let shown = unresolved.iter().zip(first_places).map(|(number, place)| UnresolvedSymbol {
        name: graph.symbol_label(*number),
        needed_at: place.unwrap_or_default(),
    });
    UnresolvedSymbols { shown: shown.collect(), total }
}
