//! Thread-local accesses of a program: where an image is linked for elsewhere, it is the program, and its own variables are
//! at fixed distances from the thread pointer. So accesses that compilers wrote for code that might be anybody's become
//! local-exec, as static linkers have it ("ELF Handling For Thread-Local Storage", section 5).
//!
//! The instructions of one access belong together, and those of several may share a part. So an object's accesses of a model
//! are rewritten all, or, if one of them is none that the ABI has, none: then they keep their GOT entries.

use super::symbols::{Facts, Symbols};
use crate::arch::{Architecture, CallRole, LocalExec, LocalExecForm, LocalExecOperand, Operand, ThreadModel};
use crate::error::LoadError;
use crate::graph::{Format, LinkGraph, Section};

/// What of an object is rewritten.
#[derive(Default)]
pub(crate) struct ThreadAccesses {
    /// By [`ThreadModel`].
    rewritten: [bool; ThreadModel::COUNT],
    /// Relocations of calls that are gone, by section and number; sorted.
    consumed: Vec<(u32, u32)>,
}

/// What was found of a model.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    /// Some access is none that the ABI has.
    foreign: bool,
    /// There are parts that go with a call, and there are calls.
    needs_call: bool,
    has_call: bool,
}

impl Found {
    fn is_rewritten(self) -> bool {
        !self.foreign && (self.has_call || !self.needs_call)
    }
}

/// Looks at every access of an object.
pub(super) fn find<A: Architecture>(
    graph: &LinkGraph<'_>,
    symbols: &Symbols,
) -> Result<ThreadAccesses, LoadError> {
    let mut accesses = ThreadAccesses::default();
    let mut states = symbols.states.iter();
    if graph.format != Format::Elf || !states.any(|state| state.facts.has(Facts::THREAD_LOCAL)) {
        return Ok(accesses);
    }
    let mut models = [Found::default(); ThreadModel::COUNT];
    let mut calls = Vec::new();
    for (number, section) in graph.sections.iter().enumerate().filter(|(_, s)| s.segment.is_some()) {
        section.relocations.try_for_each(|index, relocation| {
            let Ok(kind) = A::kind(graph.format, relocation.raw_kind) else { return Ok(()) };
            let Some(LocalExec { model, operand, role }) = A::local_exec(kind) else { return Ok(()) };
            let found = &mut models[model as usize];
            found.needs_call |= role == CallRole::Needed;
            found.has_call |= role == CallRole::Call;
            found.foreign |= operand.is_none();
            let next = section.relocations.get(index + 1);
            let next = next.and_then(|next| A::kind(graph.format, next.raw_kind).ok());
            match A::local_exec_form(kind, next, section.bytes, relocation.offset) {
                LocalExecForm::Foreign => found.foreign = true,
                LocalExecForm::Alone => {}
                LocalExecForm::WithCall(place) => match call_at(section, index, place) {
                    Some(call) => calls.push((model, number as u32, call as u32)),
                    None => found.foreign = true,
                },
            }
            Ok(())
        })?;
    }
    accesses.rewritten = models.map(Found::is_rewritten);
    let gone = calls.into_iter().filter(|(model, ..)| accesses.rewritten[*model as usize]);
    accesses.consumed = gone.map(|(_, section, call)| (section, call)).collect();
    accesses.consumed.sort_unstable();
    Ok(accesses)
}

/// The relocation at that place, which stands beside the one of that number in the table. Before it, if at all, where
/// assemblers write marks last.
fn call_at(section: &Section<'_>, index: usize, place: u64) -> Option<usize> {
    let beside = [Some(index + 1), index.checked_sub(1)];
    let mut beside = beside.into_iter().flatten();
    beside.find(|other| section.relocations.get(*other).is_some_and(|other| other.offset == place))
}

impl ThreadAccesses {
    /// What a relocation of that kind becomes.
    #[inline]
    pub(super) fn rewritten<A: Architecture>(&self, kind: A::Kind) -> Option<LocalExecOperand> {
        if self.rewritten == [false; ThreadModel::COUNT] {
            return None;
        }
        let LocalExec { model, operand, .. } = A::local_exec(kind)?;
        operand.filter(|_| self.rewritten[model as usize])
    }

    /// The same in the terms of other relocations.
    #[inline]
    pub(super) fn operand<A: Architecture>(&self, kind: A::Kind) -> Option<Operand> {
        Some(match self.rewritten::<A>(kind)? {
            LocalExecOperand::Variable => Operand::ThreadOffset,
            LocalExecOperand::Paired => Operand::PairedLow,
            LocalExecOperand::Nothing => Operand::None,
        })
    }

    /// Whether `_TLS_MODULE_BASE_` stands for the thread pointer instead of the block.
    pub(super) fn count_from_thread_pointer<A: Architecture>(&self) -> bool {
        A::MODULE_IS_AT_THREAD_POINTER && self.rewritten[ThreadModel::LocalDynamic as usize]
    }

    /// The numbers of a section's relocations that are nobody's any more; sorted.
    pub(super) fn consumed_of(&self, section: usize) -> &[(u32, u32)] {
        let section = section as u32;
        let start = self.consumed.partition_point(|(other, _)| *other < section);
        let end = self.consumed.partition_point(|(other, _)| *other <= section);
        &self.consumed[start..end]
    }
}

/// Whether a relocation is among those of [`ThreadAccesses::consumed_of`].
#[inline(always)]
pub(super) fn is_consumed(consumed: &[(u32, u32)], number: usize) -> bool {
    !consumed.is_empty() && is_among(consumed, number)
}

/// A call of its own: most objects have none, and the loops that ask must stay small.
#[cold]
#[inline(never)]
fn is_among(consumed: &[(u32, u32)], number: usize) -> bool {
    consumed.binary_search_by_key(&number, |(_, number)| *number as usize).is_ok()
}
