//! Indirect functions (gABI extension `STT_GNU_IFUNC`): the symbol names a function that chooses the implementation.
//!
//! In this process each gets a stub, which is the function as far as anyone can see, and a word that the stub jumps
//! through. The word is among the data, because it is written late: loading runs no code of an object, so the choice is
//! made when the image's initialisers are run. Until then a call ends the process with a message. Links for elsewhere
//! refuse such symbols: it takes a dynamic linker to bind them.

use std::collections::HashMap;

use super::Object;
use super::symbols::{Facts, SymbolState, is_exported};
use crate::arch::{Architecture, Stub, field};
use crate::error::LoadError;

/// A word that is to hold the address of the implementation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndirectFunction {
    /// Target address of the word.
    pub(crate) slot: u64,
    /// The function that says what to write there.
    pub(crate) resolver: u64,
}

/// Finds the functions that need a stub, by symbol number. Others may refer to them as to any.
#[inline]
pub(super) fn plan(objects: &mut [Object<'_>]) -> Result<(), LoadError> {
    match objects.iter().any(|object| object.symbols.seen.has(Facts::INDIRECT)) {
        true => plan_some(objects),
        false => Ok(()),
    }
}

#[cold]
fn plan_some(objects: &mut [Object<'_>]) -> Result<(), LoadError> {
    for Object { graph, symbols, indirect, .. } in objects {
        let exported = &mut symbols.exported;
        for (number, state) in symbols.states.iter_mut().enumerate() {
            if !state.facts.has(Facts::INDIRECT) || state.section == SymbolState::NO_SECTION {
                continue;
            }
            let symbol = graph.symbols.get(number)?;
            if is_exported(symbol, Facts::NONE) {
                state.facts.add(Facts::EXPORTED);
                *exported += 1;
            }
            indirect.push(number as u32);
        }
    }
    Ok(())
}

/// From now on the symbols mean their stubs, in all objects. Returns what there is to bind.
#[inline]
pub(super) fn redirect<A: Architecture>(objects: &mut [Object<'_>]) -> Vec<IndirectFunction> {
    match objects.iter().all(|object| object.indirect.is_empty()) {
        true => Vec::new(),
        false => redirect_some::<A>(objects),
    }
}

#[cold]
fn redirect_some<A: Architecture>(objects: &mut [Object<'_>]) -> Vec<IndirectFunction> {
    let mut functions = Vec::new();
    let mut stubs = HashMap::new();
    for Object { symbols, indirect, addresses, .. } in &mut *objects {
        for (place, number) in (0u64..).zip(&*indirect) {
            let state = &mut symbols.states[*number as usize];
            let stub = addresses.indirect_stubs.wrapping_add(place * A::STUB_SIZE);
            let slot = addresses.indirect_slots.wrapping_add(place * A::SLOT_SIZE);
            functions.push(IndirectFunction { slot, resolver: state.address });
            stubs.insert(state.address, stub);
            state.address = stub;
        }
    }
    let meant = Facts::DEFINED_ELSEWHERE;
    for state in objects.iter_mut().flat_map(|object| &mut object.symbols.states) {
        if state.facts.has(meant) && state.facts.has(Facts::INDIRECT) {
            state.address = stubs.get(&state.address).copied().unwrap_or(state.address);
        }
    }
    functions
}

/// Writes the stubs, and `unbound` into the words that they jump through.
#[cold]
pub(super) fn write<A: Architecture>(
    object: &Object<'_>,
    code: &mut [u8],
    data: &mut [u8],
    unbound: u64,
) -> Result<(), LoadError> {
    let Object { indirect, addresses, graph, .. } = object;
    let stubs = &mut code[addresses.indirect_stubs_offset as usize..];
    let slots = &mut data[addresses.indirect_slots_offset as usize..];
    let words = slots.chunks_exact_mut(A::SLOT_SIZE as usize);
    let stubs = stubs.chunks_exact_mut(A::STUB_SIZE as usize);
    for (place, ((number, stub), word)) in (0u64..).zip(indirect.iter().zip(stubs).zip(words)) {
        let slot = addresses.indirect_slots.wrapping_add(place * A::SLOT_SIZE);
        let runs_at = addresses.indirect_stubs.wrapping_add(place * A::STUB_SIZE);
        let leads = Stub { slot, target: 0, got: addresses.got };
        let written = A::write_stub(0, stub, runs_at, leads).and_then(|()| {
            *field(word, 0)? = unbound.to_ne_bytes();
            Ok(())
        });
        written.map_err(|problem| {
            let what = format!("stub for `{}`", graph.symbol_label(*number));
            LoadError::malformed(what, problem.to_string())
        })?;
    }
    Ok(())
}
