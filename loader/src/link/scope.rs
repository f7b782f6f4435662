//! Scope: which definition a name means when there are several, in one object of which something was discarded, or in
//! several objects that are linked together.
//!
//! The rules are those of static linkers (gABI, "Symbol Table"): a strong definition wins over a common symbol, that over
//! a weak definition; two strong ones are an error. The largest of several common symbols is
//! made, as strictly aligned as any of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Object;
use super::symbols::{Facts, SymbolState};
use crate::error::{LoadError, printable};
use crate::graph::{Binding, LinkGraph, Symbol, SymbolKind, SymbolPlace};
use crate::limits::{Limits, NameBudget};

/// A symbol of an object of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) object: u32,
    pub(crate) symbol: u32,
}

/// Global names with the definition that each means. None where the object alone decides: a map would ask the system for
/// random numbers.
#[derive(Default)]
pub(crate) struct Scope<'a> {
    definitions: Option<HashMap<&'a [u8], Candidate>>,
}

/// A definition and how much it weighs against others.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    definition: Definition,
    strength: Strength,
    /// Its address is a number of its own, anywhere.
    absolute: bool,
    /// [`Fixup::symbol_flags`](crate::arch::Fixup::symbol_flags).
    flags: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    Weak,
    Common { size: u64, align: u64 },
    Strong,
}

impl<'a> Scope<'a> {
    /// The scope of all objects. Of symbols that lose against another definition it notes so in `symbols`.
    pub(super) fn of(objects: &mut [Object<'a>], limits: &Limits) -> Result<Self, LoadError> {
        let mut scope = Scope::default();
        let mut budget = NameBudget::of(limits);
        for (number, object) in objects.iter().enumerate() {
            scope.add_all(objects, number as u32, object, &mut budget)?;
        }
        for (number, object) in objects.iter_mut().enumerate() {
            scope.bind(number as u32, object)?;
        }
        Ok(scope)
    }

    /// What a name means, if an object of the link defines it.
    pub(super) fn definition(&self, name: &[u8]) -> Option<Definition> {
        Some(self.definitions.as_ref()?.get(name)?.definition)
    }

    /// How a common symbol of this name has to be aligned, if several objects may have it.
    pub(super) fn common_align(&self, name: &[u8]) -> Option<u64> {
        match self.definitions.as_ref()?.get(name)?.strength {
            Strength::Common { align, .. } => Some(align),
            Strength::Weak | Strength::Strong => None,
        }
    }

    fn add_all(
        &mut self,
        objects: &[Object<'a>],
        number: u32,
        object: &Object<'a>,
        budget: &mut NameBudget,
    ) -> Result<(), LoadError> {
        object.graph.symbols.try_for_each(|symbol_number, symbol| {
            let state = &object.symbols.states[symbol_number];
            let Some(strength) = strength(symbol, state) else { return Ok(()) };
            let name = object.graph.symbols.name(&symbol)?;
            budget.spend(name)?;
            let definition = Definition { object: number, symbol: symbol_number as u32 };
            let absolute = symbol.place == SymbolPlace::Absolute;
            self.add(name, Candidate { definition, strength, absolute, flags: state.flags })
                .map_err(|other| twice(name, &objects[other.object as usize].graph, &object.graph))
        })
    }

    /// Fails with the definition that is there, when both are strong.
    fn add(&mut self, name: &'a [u8], candidate: Candidate) -> Result<(), Definition> {
        match self.definitions.get_or_insert_default().entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(candidate);
            }
            Entry::Occupied(entry) => {
                let known = entry.into_mut();
                match (known.strength, candidate.strength) {
                    (Strength::Strong, Strength::Strong) => return Err(known.definition),
                    // The largest, as strictly aligned as any of them asks for.
                    (Strength::Common { size, align }, Strength::Common { size: other, align: its }) => {
                        if other > size {
                            *known = candidate;
                        }
                        known.strength = Strength::Common { size: size.max(other), align: align.max(its) };
                    }
                    (one, other) if other > one => *known = candidate,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Notes which symbols of an object mean a definition other than themselves.
    fn bind(&self, number: u32, object: &mut Object<'a>) -> Result<(), LoadError> {
        let Object { graph, symbols, .. } = object;
        graph.symbols.try_for_each(|symbol_number, symbol| {
            let state = &mut symbols.states[symbol_number];
            if symbol.binding == Binding::Local || symbol.place == SymbolPlace::Absolute {
                return Ok(());
            }
            let itself = Definition { object: number, symbol: symbol_number as u32 };
            let name = graph.symbols.name(&symbol)?;
            let candidate = self.definitions.as_ref().and_then(|definitions| definitions.get(name));
            let Some(Candidate { definition, absolute, flags, .. }) = candidate else { return Ok(()) };
            if *definition != itself {
                state.section = SymbolState::NO_SECTION;
                // Whether branches need a stub is a matter of the definition.
                state.flags = *flags;
                state.facts.remove(Facts::EXTERNAL.and(Facts::NOT_LOADED));
                state.facts.add(Facts::DEFINED_ELSEWHERE);
                if *absolute {
                    state.facts.add(Facts::EXTERNAL);
                }
                if state.facts.has(Facts::EXPORTED) {
                    state.facts.remove(Facts::EXPORTED);
                    symbols.exported -= 1;
                }
            }
            Ok(())
        })
    }
}

/// What a symbol weighs as a definition of its name; `None` if it is none that others see.
fn strength(symbol: Symbol, state: &SymbolState) -> Option<Strength> {
    if symbol.binding == Binding::Local || matches!(symbol.kind, SymbolKind::Section | SymbolKind::File) {
        return None;
    }
    match symbol.place {
        SymbolPlace::Undefined => None,
        SymbolPlace::Common => Some(Strength::Common { size: symbol.size, align: symbol.value }),
        SymbolPlace::Section(_) if state.section == SymbolState::NO_SECTION => None,
        SymbolPlace::Section(_) | SymbolPlace::Absolute if symbol.binding == Binding::Weak => {
            Some(Strength::Weak)
        }
        SymbolPlace::Section(_) | SymbolPlace::Absolute => Some(Strength::Strong),
    }
}

#[cold]
fn twice(name: &[u8], one: &LinkGraph<'_>, other: &LinkGraph<'_>) -> LoadError {
    let place = format!("symbol `{}`", printable(name));
    match one.name == other.name {
        true => LoadError::malformed(place, "it is defined twice"),
        false => LoadError::malformed(place, format!("it is defined in {} and in {}", one.name, other.name)),
    }
}
