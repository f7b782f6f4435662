//! Resolve: an address for every symbol that something refers to, and the list of those that others may refer to.

use super::bounds::Bounds;
use super::exports::{ExportBuilder, Exports};
use super::layout::ImageAddresses;
use super::scope::Scope;
use super::symbols::{Facts, SymbolState};
use super::{Environment, Object};
use crate::arch::Architecture;
use crate::error::{LoadError, UnresolvedSymbol, UnresolvedSymbols, printable};
use crate::graph::{LinkGraph, Symbol, SymbolPlace};
use crate::limits::NameBudget;
use crate::resolver::SymbolResolver;

/// Fills in all addresses. A weak symbol that nobody defines is zero; a strong one is an error, which names all.
pub(super) fn resolve<A: Architecture>(
    objects: &mut [Object<'_>],
    scope: &Scope<'_>,
    bounds: &Bounds,
    image: &ImageAddresses,
    environment: &Environment<'_>,
) -> Result<(), LoadError> {
    for object in &mut *objects {
        resolve_own(object);
    }
    let mut budget = NameBudget::of(environment.limits);
    for number in 0..objects.len() {
        let mut states = std::mem::take(&mut objects[number].symbols.states);
        let mut elsewhere = Elsewhere {
            objects,
            object: &objects[number],
            number,
            scope,
            bounds,
            image,
            resolver: environment.resolver,
            addresses_are_pointers: environment.memory.executes_here(),
            budget: &mut budget,
            uses_dso_handle: false,
            unresolved: Vec::new(),
            unresolved_count: 0,
        };
        let mut result = Ok(());
        for symbol in 0..states.len() {
            let mut state = states[symbol];
            if state.section == SymbolState::NO_SECTION {
                result = elsewhere.fill_in::<A>(symbol, &mut state, &states);
                if result.is_err() {
                    break;
                }
                states[symbol] = state;
            }
        }
        let uses_dso_handle = elsewhere.uses_dso_handle;
        let resolved = result.and_then(|()| elsewhere.into_result());
        let symbols = &mut objects[number].symbols;
        symbols.states = states;
        symbols.uses_dso_handle = uses_dso_handle;
        resolved.map_err(|error| error.of_object(objects[number].graph.name))?;
    }
    Ok(())
}

/// Symbols in sections and common ones.
fn resolve_own(object: &mut Object<'_>) {
    let Object { graph, symbols, addresses, .. } = object;
    for state in &mut symbols.states {
        if let Some(section) = graph.sections.get(state.section as usize) {
            state.address = section.address.wrapping_add(state.address);
        } else if state.facts.has(Facts::COMMON) && !state.facts.has(Facts::DEFINED_ELSEWHERE) {
            state.address = addresses.commons.wrapping_add(state.address);
        }
    }
}

/// Lists what others may refer to.
pub(super) fn exports<A: Architecture>(objects: &[Object<'_>]) -> Result<Exports, LoadError> {
    let count = objects.iter().map(|object| object.symbols.exported).sum();
    // The one object's string table is taken as it is; of several, the names are gathered.
    let strings = match objects {
        [object] => object.graph.symbols.strings(),
        _ => None,
    };
    let mut exports = ExportBuilder::new(count, strings);
    for Object { graph, symbols, .. } in objects {
        for (number, state) in symbols.states.iter().enumerate() {
            if !state.facts.has(Facts::EXPORTED) {
                continue;
            }
            let mut label = graph.symbols.label(number);
            if let Some(section) = graph.sections.get(state.section as usize) {
                // No more than its section has from there on: readers of the image rely on it.
                let offset = state.address.wrapping_sub(section.address);
                label.size = label.size.min(section.size.saturating_sub(offset));
            }
            let address = A::pointer_value(state.address, state.flags);
            match strings {
                Some(_) => exports.add(label, address),
                None => {
                    let name = graph.symbols.name(&graph.symbols.get(number)?)?;
                    exports.add_named(label, address, name);
                }
            }
        }
    }
    Ok(exports.finish())
}

/// Finds symbols that are in no loaded section of their object.
struct Elsewhere<'e, 'a> {
    /// All objects of the link; the symbols of the one at work are taken out meanwhile.
    objects: &'e [Object<'a>],
    object: &'e Object<'a>,
    number: usize,
    scope: &'e Scope<'a>,
    bounds: &'e Bounds,
    image: &'e ImageAddresses,
    resolver: &'e dyn SymbolResolver,
    addresses_are_pointers: bool,
    budget: &'e mut NameBudget,
    uses_dso_handle: bool,
    /// The first of those that nobody knows.
    unresolved: Vec<u32>,
    unresolved_count: usize,
}

impl Elsewhere<'_, '_> {
    fn fill_in<A: Architecture>(
        &mut self,
        number: usize,
        state: &mut SymbolState,
        own: &[SymbolState],
    ) -> Result<(), LoadError> {
        if state.facts.has(Facts::DEFINED_ELSEWHERE) {
            return self.take_over::<A>(number, state, own);
        }
        let graph = &self.object.graph;
        let symbol = graph.symbols.get(number)?;
        match symbol.place {
            SymbolPlace::Common => return Ok(()),
            SymbolPlace::Section(_) => self.check_discarded(&symbol, state.facts)?,
            SymbolPlace::Absolute => return Ok(()),
            SymbolPlace::Undefined if state.facts.has(Facts::REFERENCED) => {
                let address = self.undefined(number, &symbol, &mut state.facts)?;
                (state.address, state.flags) = A::external_value(address, self.addresses_are_pointers);
                return Ok(());
            }
            // Named beside an operand that needs no symbol, as the GOT is.
            SymbolPlace::Undefined => {
                if let Some(address) = self.synthesized(graph.symbols.name(&symbol)?) {
                    state.facts.add(Facts::SYNTHESIZED);
                    state.address = address;
                    return Ok(());
                }
            }
        }
        state.address = 0;
        Ok(())
    }

    /// Address and flags of the definition that is meant instead.
    #[cold]
    fn take_over<A: Architecture>(
        &mut self,
        number: usize,
        state: &mut SymbolState,
        own: &[SymbolState],
    ) -> Result<(), LoadError> {
        let graph = &self.object.graph;
        let name = graph.symbols.name(&graph.symbols.get(number)?)?;
        let Some(meant) = self.scope.definition(name) else { return Ok(()) };
        let object = &self.objects[meant.object as usize];
        let symbol = object.graph.symbols.get(meant.symbol as usize)?;
        let (value, flags) = A::symbol_value(symbol);
        state.flags = if meant.object as usize == self.number { flags } else { A::foreign_flags(flags) };
        state.address = match symbol.place {
            SymbolPlace::Section(section) => {
                let section = &object.graph.sections[section as usize];
                let offset =
                    object.graph.cuts.get(section.cuts as usize).map_or(value, |cuts| cuts.moved(value));
                section.address.wrapping_add(offset)
            }
            SymbolPlace::Absolute => value,
            SymbolPlace::Common | SymbolPlace::Undefined => {
                let is_own = meant.object as usize == self.number;
                let states = if is_own { own } else { &object.symbols.states };
                states[meant.symbol as usize].address
            }
        };
        Ok(())
    }

    fn undefined(&mut self, number: usize, symbol: &Symbol, facts: &mut Facts) -> Result<u64, LoadError> {
        let name = self.object.graph.symbols.name(symbol)?;
        self.budget.spend(name)?;
        self.uses_dso_handle |= name == DSO_HANDLE;
        if let Some(address) = self.synthesized(name) {
            facts.add(Facts::SYNTHESIZED);
            return Ok(address);
        }
        let found = std::str::from_utf8(name).ok().and_then(|name| self.resolver.resolve(name));
        if found.is_none() && !facts.has(Facts::WEAK) {
            self.unresolved_count += 1;
            if self.unresolved.len() < UnresolvedSymbols::SHOWN {
                self.unresolved.push(number as u32);
            }
        }
        Ok(found.unwrap_or(0))
    }

    /// Names the loader defines itself come first: they mean this image.
    fn synthesized(&self, name: &[u8]) -> Option<u64> {
        let Object { graph, addresses, .. } = self.object;
        match name {
            b"_GLOBAL_OFFSET_TABLE_" | b".TOC." => Some(addresses.got),
            DSO_HANDLE | b"___dso_handle" | b"__ImageBase" => Some(self.image.image),
            _ => self.bounds.address(graph.format, name),
        }
    }

    /// A global of a section that is not loaded, which nobody defines instead, must not be needed.
    #[cold]
    fn check_discarded(&self, symbol: &Symbol, facts: Facts) -> Result<(), LoadError> {
        if facts.has(Facts::EXTERNAL) && facts.has(Facts::REFERENCED) {
            let name = self.object.graph.symbols.name(symbol)?;
            let why = "its section is not loaded, and nothing else defines it";
            return Err(LoadError::malformed(format!("symbol `{}`", printable(name)), why));
        }
        Ok(())
    }

    fn into_result(self) -> Result<(), LoadError> {
        if self.unresolved_count == 0 {
            return Ok(());
        }
        Err(LoadError::Unresolved(report(&self.object.graph, &self.unresolved, self.unresolved_count)))
    }
}

/// What static destructors are registered under (Itanium C++ ABI, 3.3.5.3).
const DSO_HANDLE: &[u8] = b"__dso_handle";

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
