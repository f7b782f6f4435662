//! Fix up: copy each section to working memory and patch it there, then fill in stubs and GOT.
//!
//! One section is copied and patched while it is still in the cache. Every byte of the working memory is written:
//! gaps in code become traps, everything else zero.

use super::layout::Addresses;
use super::symbols::{Facts, SymbolState, Symbols};
use super::tables::{Tables, is_unwind_table, may_use_stub, refuse};
use crate::arch::{Architecture, Fixup, Operand, field};
use crate::error::{FixupProblem, LoadError};
use crate::graph::{LinkGraph, Relocation, Section};
use crate::memory::{Segment, WorkingMemory};

/// Writes the whole image.
pub(super) fn write<A: Architecture>(
    graph: &LinkGraph<'_>,
    symbols: &Symbols,
    tables: &Tables,
    addresses: &Addresses,
    working: &mut [WorkingMemory<'_>; 3],
) -> Result<(), LoadError> {
    let mut ends = [0usize; 3];
    let link = Link { graph, symbols, tables, addresses };
    for section in &graph.sections {
        let Some(segment) = section.segment.filter(|_| !section.zero_fill) else {
            link.refuse_patches::<A>(section)?;
            continue;
        };
        let start = section.offset as usize;
        let end = start + section.bytes.len();
        let memory = &mut working[segment.index()];
        fill::<A>(segment, memory, ends[segment.index()], start);
        let bytes = &mut memory.bytes[start..end];
        bytes.copy_from_slice(section.bytes);
        link.patch::<A>(section, bytes)?;
        ends[segment.index()] = end;
    }
    for segment in Segment::ALL {
        let memory = &mut working[segment.index()];
        let end = memory.bytes.len();
        fill::<A>(segment, memory, ends[segment.index()], end);
    }
    let [code, read_only, _] = working;
    link.write_tables::<A>(code.bytes, read_only.bytes)
}

/// Fills a gap.
fn fill<A: Architecture>(segment: Segment, memory: &mut WorkingMemory<'_>, start: usize, end: usize) {
    if start < end {
        match segment {
            Segment::Code => memory.bytes[start..end].fill(A::TRAP),
            _ if memory.zeroed => {}
            _ => memory.bytes[start..end].fill(0),
        }
    }
}

struct Link<'l, 'a> {
    graph: &'l LinkGraph<'a>,
    symbols: &'l Symbols,
    tables: &'l Tables,
    addresses: &'l Addresses,
}

impl Link<'_, '_> {
    fn patch<A: Architecture>(&self, section: &Section<'_>, bytes: &mut [u8]) -> Result<(), LoadError> {
        let is_unwind_table = is_unwind_table(section);
        for relocation in section.relocations.iter() {
            if is_unwind_table && self.is_left_alone(relocation.symbol) {
                continue;
            }
            if A::is_relative_32(self.graph.format, relocation.raw_kind)
                && self.fix_up_relative_32(section.address, relocation, bytes)
            {
                continue;
            }
            if let Err(problem) = self.fix_up::<A>(section, relocation, bytes) {
                return Err(refuse::<A>(self.graph, section, relocation, problem));
            }
        }
        Ok(())
    }

    /// Unwind tables keep their entries for functions of discarded groups. The field stays as it is, zero, which unwinders
    /// take for an entry without a function.
    fn is_left_alone(&self, symbol: u32) -> bool {
        let state = &self.symbols.states[symbol as usize];
        state.facts.has(Facts::NOT_LOADED) && state.address == 0
    }

    /// A section that is all zeros, or not there, has nothing to patch.
    fn refuse_patches<A: Architecture>(&self, section: &Section<'_>) -> Result<(), LoadError> {
        if section.segment.is_some() { self.patch::<A>(section, &mut []) } else { Ok(()) }
    }

    /// `S + A - P: word32`. Says no, and does nothing, if that is out of range or the field out of the section.
    #[inline(always)]
    fn fix_up_relative_32(&self, section: u64, relocation: Relocation, bytes: &mut [u8]) -> bool {
        let Relocation { offset, symbol, addend, .. } = relocation;
        let target = self.symbols.states[symbol as usize].address;
        let fixup = Fixup { place: section.wrapping_add(offset), target, addend, got: 0 };
        match (field(bytes, offset), i32::try_from(fixup.relative())) {
            (Ok(field), Ok(value)) => {
                *field = value.to_le_bytes();
                true
            }
            _ => false,
        }
    }

    #[inline(never)]
    fn fix_up<A: Architecture>(
        &self,
        section: &Section<'_>,
        relocation: Relocation,
        bytes: &mut [u8],
    ) -> Result<(), FixupProblem> {
        let Relocation { offset, raw_kind, symbol, addend } = relocation;
        let kind = A::kind(self.graph.format, raw_kind).map_err(FixupProblem::Unsupported)?;
        let operand = A::operand(kind);
        let target = match operand {
            Operand::None => return Ok(()),
            Operand::Got => self.addresses.got,
            Operand::Slot => self.slot::<A>(symbol),
            Operand::Size => self.size(symbol),
            Operand::Symbol | Operand::LowSymbol | Operand::NearSymbol | Operand::Branch => {
                self.symbols.states[symbol as usize].address
            }
        };
        let place = section.address.wrapping_add(offset);
        let fixup = Fixup { place, target, addend, got: self.addresses.got };
        match A::apply(kind, bytes, offset, fixup) {
            Ok(()) => Ok(()),
            Err(problem) => self.detour::<A>(section, relocation, bytes, fixup, problem),
        }
    }

    /// What did not fit may do with a stub.
    #[cold]
    fn detour<A: Architecture>(
        &self,
        section: &Section<'_>,
        relocation: Relocation,
        bytes: &mut [u8],
        fixup: Fixup,
        problem: FixupProblem,
    ) -> Result<(), FixupProblem> {
        let Relocation { offset, raw_kind, symbol, .. } = relocation;
        let kind = A::kind(self.graph.format, raw_kind).map_err(FixupProblem::Unsupported)?;
        let facts = self.symbols.states[symbol as usize].facts;
        if !facts.has(Facts::STUB) || !may_use_stub::<A>(section, relocation, A::operand(kind)) {
            return Err(problem);
        }
        A::apply(kind, bytes, offset, Fixup { target: self.stub::<A>(symbol), ..fixup })
    }

    #[inline]
    fn slot<A: Architecture>(&self, symbol: u32) -> u64 {
        self.addresses.slots.wrapping_add(self.tables.slot(symbol) * A::SLOT_SIZE)
    }

    fn stub<A: Architecture>(&self, symbol: u32) -> u64 {
        self.addresses.stubs.wrapping_add(self.tables.stub(symbol) * A::STUB_SIZE)
    }

    fn size(&self, symbol: u32) -> u64 {
        self.graph.symbols.get(symbol as usize).map_or(0, |symbol| symbol.size)
    }

    /// GOT entries hold the symbols' addresses, stubs jump through them.
    fn write_tables<A: Architecture>(&self, code: &mut [u8], read_only: &mut [u8]) -> Result<(), LoadError> {
        if self.tables.slots == 0 {
            return Ok(());
        }
        let slots = &mut read_only[self.addresses.slots_offset as usize..];
        let stubs = &mut code[self.addresses.stubs_offset as usize..];
        let wanted = Facts::SLOT.and(Facts::STUB);
        for (number, state) in self.symbols.states.iter().enumerate() {
            let SymbolState { address, facts, .. } = state;
            if !facts.has(wanted) {
                continue;
            }
            let slot = (self.tables.slot(number as u32) * A::SLOT_SIZE) as usize;
            slots[slot..][..8].copy_from_slice(&address.to_le_bytes());
            if facts.has(Facts::STUB) {
                let stub = (self.tables.stub(number as u32) * A::STUB_SIZE) as usize;
                let stub = &mut stubs[stub..][..A::STUB_SIZE as usize];
                self.write_stub::<A>(stub, number as u32)?;
            }
        }
        Ok(())
    }

    fn write_stub<A: Architecture>(&self, stub: &mut [u8], symbol: u32) -> Result<(), LoadError> {
        A::write_stub(stub, self.stub::<A>(symbol), self.slot::<A>(symbol)).map_err(|problem| {
            LoadError::malformed(
                format!("stub for `{}`", self.graph.symbol_label(symbol)),
                problem.to_string(),
            )
        })
    }
}
