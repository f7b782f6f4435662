//! GOT and stubs: which symbols need an entry, decided by one look at every relocation.
//!
//! A branch to a symbol outside of the image gets a stub next to the code, because memory managers place images
//! anywhere and a 32-bit displacement reaches 2 GiB; the stub is only used when the target is out of reach. The same
//! look tells whether the code holds 31-bit addresses of itself, which decides where the image must be.

use super::symbols::{Facts, SymbolState, Symbols};
use crate::arch::{Architecture, Operand};
use crate::error::{FixupError, FixupProblem, LoadError, printable};
use crate::graph::{LinkGraph, Relocation, Role, Section};
use crate::memory::Segment;

/// Numbers of the GOT entries and stubs.
pub(crate) struct Tables {
    /// By symbol; empty when there are no entries at all.
    entries: Vec<Entry>,
    pub(crate) slots: u64,
    pub(crate) stubs: u64,
    /// The code holds absolute addresses of itself that only reach the lowest 2 GiB.
    pub(crate) low_2gib: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    slot: u32,
    stub: u32,
}

impl Tables {
    /// Number of the symbol's GOT entry. The plan made one for every relocation that asks.
    #[inline]
    pub(super) fn slot(&self, symbol: u32) -> u64 {
        u64::from(self.entries[symbol as usize].slot)
    }

    #[inline]
    pub(super) fn stub(&self, symbol: u32) -> u64 {
        u64::from(self.entries[symbol as usize].stub)
    }
}

/// Plans the tables, and refuses what cannot be relocated whatever the addresses will be.
pub(super) fn plan<A: Architecture>(
    graph: &LinkGraph<'_>,
    symbols: &mut Symbols,
) -> Result<Tables, LoadError> {
    let mut plan = Plan { low_2gib: false, any: false };
    for section in &graph.sections {
        if section.segment.is_none() {
            continue;
        }
        for relocation in section.relocations.iter() {
            // What most objects are full of: the image's own symbols, in reach.
            let state = symbols.states.get(relocation.symbol as usize);
            if A::is_relative_32(graph.format, relocation.raw_kind)
                && state.is_some_and(|state| !state.facts.has(Facts::SPECIAL))
            {
                continue;
            }
            plan.look_at::<A>(graph, section, relocation, symbols)?;
        }
    }
    Ok(plan.number(symbols))
}

struct Plan {
    low_2gib: bool,
    any: bool,
}

impl Plan {
    #[inline(never)]
    fn look_at<A: Architecture>(
        &mut self,
        graph: &LinkGraph<'_>,
        section: &Section<'_>,
        relocation: Relocation,
        symbols: &mut Symbols,
    ) -> Result<(), LoadError> {
        let Some(state) = symbols.states.get_mut(relocation.symbol as usize) else {
            return Err(no_such_symbol(section, relocation));
        };
        let facts = &mut state.facts;
        let kind = match A::kind(graph.format, relocation.raw_kind) {
            Ok(kind) => kind,
            Err(what) => {
                return Err(refuse::<A>(graph, section, relocation, FixupProblem::Unsupported(what)));
            }
        };
        let operand = A::operand(kind);
        if facts.has(Facts::NOT_LOADED.and(Facts::THREAD_LOCAL).and(Facts::INDIRECT)) {
            check_target::<A>(graph, section, relocation, *facts, operand)?;
        }
        match operand {
            Operand::None | Operand::Got | Operand::Size => return Ok(()),
            Operand::Symbol => {}
            Operand::LowSymbol if !facts.has(Facts::EXTERNAL) => self.low_2gib = true,
            Operand::LowSymbol | Operand::NearSymbol | Operand::Branch if facts.has(Facts::EXTERNAL) => {
                if may_use_stub::<A>(section, relocation, operand) {
                    facts.add(Facts::STUB);
                    self.any = true;
                } else if operand == Operand::NearSymbol && (facts.has(Facts::WEAK) || host_is_low()) {
                    // Data that is reached without the GOT: code for a program. A weak symbol may well be zero.
                    // Otherwise the data is the shared libraries', beside which the system puts our memory, or
                    // that of a host which was itself linked low.
                    self.low_2gib = true;
                }
            }
            Operand::LowSymbol | Operand::NearSymbol | Operand::Branch => {}
            Operand::Slot => {
                facts.add(Facts::SLOT);
                self.any = true;
            }
        }
        facts.add(Facts::REFERENCED);
        Ok(())
    }

    /// Entries that relocations refer to come first, those that only a stub jumps through follow.
    fn number(self, symbols: &Symbols) -> Tables {
        let mut tables = Tables { entries: Vec::new(), slots: 0, stubs: 0, low_2gib: self.low_2gib };
        if !self.any {
            return tables;
        }
        tables.entries = vec![Entry { slot: 0, stub: 0 }; symbols.states.len()];
        for (entry, SymbolState { facts, .. }) in tables.entries.iter_mut().zip(&symbols.states) {
            if facts.has(Facts::SLOT) {
                entry.slot = tables.slots as u32;
                tables.slots += 1;
            }
        }
        for (entry, SymbolState { facts, .. }) in tables.entries.iter_mut().zip(&symbols.states) {
            if facts.has(Facts::STUB) {
                entry.stub = tables.stubs as u32;
                tables.stubs += 1;
                if !facts.has(Facts::SLOT) {
                    entry.slot = tables.slots as u32;
                    tables.slots += 1;
                }
            }
        }
        tables
    }
}

#[cold]
fn check_target<A: Architecture>(
    graph: &LinkGraph<'_>,
    section: &Section<'_>,
    relocation: Relocation,
    facts: Facts,
    operand: Operand,
) -> Result<(), LoadError> {
    let refuse = |problem| Err(refuse::<A>(graph, section, relocation, problem));
    if matches!(operand, Operand::None | Operand::Got | Operand::Size) {
        Ok(())
    } else if facts.has(Facts::THREAD_LOCAL) {
        refuse(FixupProblem::Unsupported("thread-local storage"))
    } else if facts.has(Facts::INDIRECT) {
        refuse(FixupProblem::Unsupported("an indirect function (STT_GNU_IFUNC)"))
    } else if is_unwind_table(section) || facts.has(Facts::EXTERNAL) {
        Ok(())
    } else {
        refuse(FixupProblem::TargetNotLoaded)
    }
}

/// Whether the host is a program that runs in the lowest 2 GiB, with its data: one linked without PIE.
fn host_is_low() -> bool {
    (host_is_low as fn() -> bool as usize as u64) < 1 << 31
}

/// Whether a reference to a symbol that is out of reach may go to a stub for it: branches may, and so may the pointer
/// to the personality routine, the only external thing that unwind tables refer to.
pub(super) fn may_use_stub<A: Architecture>(
    section: &Section<'_>,
    relocation: Relocation,
    operand: Operand,
) -> bool {
    match operand {
        Operand::Branch => true,
        Operand::NearSymbol if section.segment == Some(Segment::Code) => {
            A::is_branch(section.bytes, relocation.offset, relocation.addend)
        }
        Operand::LowSymbol => section.role == Role::EhFrame,
        _ => false,
    }
}

/// Unwind tables may refer to functions of discarded groups; nothing looks there.
pub(super) fn is_unwind_table(section: &Section<'_>) -> bool {
    matches!(section.role, Role::EhFrame | Role::ExceptTable)
}

#[cold]
fn no_such_symbol(section: &Section<'_>, relocation: Relocation) -> LoadError {
    LoadError::malformed(
        format!("{}+{:#x}", printable(section.name), relocation.offset),
        format!("the relocation is against symbol {}, which is not there", relocation.symbol),
    )
}

/// The error for one relocation.
#[cold]
pub(super) fn refuse<A: Architecture>(
    graph: &LinkGraph<'_>,
    section: &Section<'_>,
    relocation: Relocation,
    problem: FixupProblem,
) -> LoadError {
    LoadError::Fixup(Box::new(FixupError {
        section: printable(section.name),
        offset: relocation.offset,
        kind: A::name(graph.format, relocation.raw_kind),
        symbol: graph.symbol_label(relocation.symbol),
        problem,
    }))
}
