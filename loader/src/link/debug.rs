//! What debuggers and profilers want to see of a linked object: its debug sections, fixed up against the addresses that
//! its code got by the same fix-ups as the code itself, its sections as they are in memory, and its symbols.
//!
//! Debug sections themselves are nowhere: references among them are offsets. Several of one name (type units come in sections
//! of their own) become one, as a linker makes of them. References to what was discarded become
//! what linkers write there ("tombstones", LLVM's lld `InputSection.cpp`), so that no range begins at a live address.

use super::symbols::Facts;
use super::tables::refuse;
use super::write::{Consumed, FoundOut, Link, Place};
use crate::arch::{Architecture, Operand};
use crate::error::{FixupProblem, LoadError};
use crate::graph::{Binding, Relocation, Role, Section, SymbolKind, SymbolPlace, UnloadedSection};
use crate::limits::{Limits, NameBudget};

/// A debug section with its fix-ups done.
pub(crate) struct DebugSection<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) bytes: Vec<u8>,
}

/// A symbol in a loaded section or among the common ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SymbolRecord<'a> {
    pub(crate) name: &'a [u8],
    /// Target address, as a function pointer has it.
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) kind: SymbolKind,
    pub(crate) binding: Binding,
    /// Its section; `None` for a common symbol.
    pub(crate) section: Option<u32>,
}

impl<'a> Link<'_, 'a> {
    /// The debug sections, fixed up.
    pub(crate) fn fix_up_debug_sections<A: Architecture>(
        &self,
        unloaded: Vec<UnloadedSection<'a>>,
    ) -> Result<Vec<DebugSection<'a>>, LoadError> {
        let mut merged: Vec<DebugSection<'a>> = Vec::new();
        // By section number: the merged section, and the offset in it.
        let mut places = Vec::with_capacity(unloaded.len());
        for UnloadedSection { number, name, bytes, .. } in &unloaded {
            let found = merged.iter().position(|section| section.name == *name);
            let found = found.unwrap_or_else(|| {
                merged.push(DebugSection { name, bytes: Vec::new() });
                merged.len() - 1
            });
            places.push((*number, found, merged[found].bytes.len()));
            merged[found].bytes.extend_from_slice(bytes);
        }
        let bases: Vec<(usize, usize)> = places.iter().map(|(number, _, base)| (*number, *base)).collect();
        for (section, (_, found, base)) in unloaded.into_iter().zip(places) {
            let end = base + section.bytes.len();
            self.fix_up_debug_section::<A>(section, &bases, &mut merged[found].bytes[base..end])?;
        }
        Ok(merged)
    }

    /// `bases`: by section number, where the debug sections begin among those of their names.
    fn fix_up_debug_section<A: Architecture>(
        &self,
        unloaded: UnloadedSection<'a>,
        bases: &[(usize, usize)],
        bytes: &mut [u8],
    ) -> Result<(), LoadError> {
        let UnloadedSection { number, name, bytes: content, relocations } = unloaded;
        let size = content.len() as u64;
        let section = Section { name, bytes: content, size, relocations, ..Section::NOT_LOADED };
        let mut found_out = FoundOut::default();
        let mut done = usize::MAX;
        relocations.try_for_each(|index, relocation| {
            if index == done {
                return Ok(());
            }
            let place = Place { number, section: &section, index, relocation };
            let consumed = match self.debug_target::<A>(&relocation, name, bases) {
                Ok(None) => self.fix_up::<A>(&place, bytes, &mut found_out),
                Ok(Some(target)) => self.fix_up_to::<A>(target, &place, bytes),
                Err(problem) => Err(problem),
            };
            match consumed {
                Ok(Consumed::One) => Ok(()),
                Ok(Consumed::With(later)) => {
                    done = later;
                    Ok(())
                }
                Err(problem) => Err(refuse::<A>(&self.object.graph, &section, relocation, problem)),
            }
        })
    }

    /// What a relocation refers to, if that is no address in memory.
    fn debug_target<A: Architecture>(
        &self,
        relocation: &Relocation,
        name: &[u8],
        bases: &[(usize, usize)],
    ) -> Result<Option<Target>, FixupProblem> {
        let number = relocation.symbol as usize;
        let state = self.object.symbols.states.get(number);
        let state = state.ok_or(FixupProblem::Unsupported("a symbol that is not there"))?;
        let operand = A::operand(self.kind::<A>(relocation)?);
        if operand == Operand::None {
            return Ok(None);
        }
        if matches!(operand, Operand::BlockOffset | Operand::ThreadOffset) && state.facts.has(Facts::EXTERNAL)
        {
            // A thread-local variable of someone else: where it is, only its own debug information can tell.
            return Ok(Some(Target::Gone { tombstone: 0 }));
        }
        if !state.facts.has(Facts::NOT_LOADED) || state.address != 0 {
            return Ok(None);
        }
        let symbol = self.object.graph.symbols.get(number);
        let symbol = symbol.map_err(|_| FixupProblem::Unsupported("a symbol that cannot be one"))?;
        let SymbolPlace::Section(section) = symbol.place else { return Ok(None) };
        Ok(Some(match bases.binary_search_by_key(&(section as usize), |(number, _)| *number) {
            Ok(found) => Target::Offset(A::symbol_value(symbol).0.wrapping_add(bases[found].1 as u64)),
            Err(_) => Target::Gone { tombstone: tombstone(name) },
        }))
    }

    /// A fix-up with a target of our own.
    fn fix_up_to<A: Architecture>(
        &self,
        target: Target,
        place: &Place<'_, '_>,
        bytes: &mut [u8],
    ) -> Result<Consumed, FixupProblem> {
        let Place { section, relocation, .. } = place;
        let kind = self.kind::<A>(relocation)?;
        let mut fixup = match A::operand(kind) {
            Operand::BlockOffset | Operand::ThreadOffset => Default::default(),
            _ => self.fixup::<A>(kind, section, *relocation, bytes)?,
        };
        match target {
            Target::Offset(offset) => fixup.target = offset,
            Target::Gone { tombstone } => (fixup.target, fixup.addend) = (tombstone, 0),
        }
        A::apply(kind, bytes, relocation.offset, fixup)?;
        Ok(Consumed::One)
    }

    /// What a loaded section holds in memory.
    pub(crate) fn section_content<A: Architecture>(&self, number: usize) -> Result<Vec<u8>, LoadError> {
        let graph = &self.object.graph;
        let section = &graph.sections[number];
        let mut bytes = graph.content(section).to_vec();
        self.patch::<A>(number, section, &mut bytes)?;
        Ok(bytes)
    }

    /// Numbers of the loaded sections with call frame information.
    pub(crate) fn frame_sections(&self) -> impl Iterator<Item = usize> + '_ {
        let sections = self.object.graph.sections.iter().enumerate();
        sections
            .filter(|(_, section)| section.role == Role::EhFrame && section.segment.is_some())
            .map(|(number, _)| number)
    }

    /// Every symbol with a name and an address in the image, local ones included.
    pub(crate) fn symbol_records<A: Architecture>(
        &self,
        limits: &Limits,
    ) -> Result<Vec<SymbolRecord<'a>>, LoadError> {
        let mut budget = NameBudget::of(limits);
        let mut records = Vec::new();
        let (graph, states) = (&self.object.graph, &self.object.symbols.states);
        graph.symbols.try_for_each(|number, symbol| {
            let state = &states[number];
            let section = graph.sections.get(state.section as usize);
            let elsewhere = state.facts.has(Facts::DEFINED_ELSEWHERE.and(Facts::THREAD_LOCAL));
            let is_here = section.is_some() || state.facts.has(Facts::COMMON);
            if elsewhere || !is_here || matches!(symbol.kind, SymbolKind::Section | SymbolKind::File) {
                return Ok(());
            }
            let name = graph.symbols.name(&symbol)?;
            budget.spend(name)?;
            if name.is_empty() {
                return Ok(());
            }
            let room = section.map_or(symbol.size, |section| {
                section.size.saturating_sub(state.address.wrapping_sub(section.address))
            });
            records.push(SymbolRecord {
                name,
                address: A::pointer_value(state.address, state.flags),
                size: symbol.size.min(room),
                kind: symbol.kind,
                binding: symbol.binding,
                section: section.map(|_| state.section),
            });
            Ok(())
        })?;
        Ok(records)
    }
}

/// Where a reference to something that is not in memory leads.
enum Target {
    /// An offset in another debug section.
    Offset(u64),
    /// It is gone, and the addend with it.
    Gone { tombstone: u64 },
}

/// A pair of zeros would end a list of ranges.
fn tombstone(section: &[u8]) -> u64 {
    match section {
        b".debug_loc" | b".debug_ranges" => 1,
        _ => 0,
    }
}
