//! Survey: what the sections of an object ask for, found with one look at each, so that passes for what few sections are
//! about need not look at all of them again. Objects may have a section for each function.

use std::ops::Range;

use super::Object;
use crate::graph::{LinkGraph, Role, Section};

/// What a look at all loaded sections found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Survey {
    /// About how many bytes they take.
    pub(super) bytes: u64,
    /// All are among these numbers.
    pub(super) loaded: Range<usize>,
    /// All that are zeros are among these numbers.
    pub(super) zero_filled: Range<usize>,
    /// All that mean something to the loader itself are among these.
    special: Range<usize>,
    /// Some are parts of the thread-local block.
    pub(super) thread_locals: bool,
    /// Some are arrays of initialisers or finalisers.
    pub(super) hooks: bool,
}

impl Survey {
    pub(super) fn of(graph: &LinkGraph<'_>) -> Self {
        let mut survey = Survey::default();
        for (number, section) in graph.sections.iter().enumerate() {
            if section.segment.is_none() {
                continue;
            }
            include(&mut survey.loaded, number);
            survey.bytes = survey.bytes.saturating_add(section.size).saturating_add(section.align);
            if section.zero_fill {
                include(&mut survey.zero_filled, number);
            }
            match section.role {
                Role::Plain => continue,
                Role::ThreadLocal => survey.thread_locals = true,
                Role::EhFrame | Role::ExceptTable => {}
                Role::Initializers { .. }
                | Role::InitializersBackwards { .. }
                | Role::Finalizers { .. }
                | Role::FinalizersForwards { .. } => survey.hooks = true,
            }
            include(&mut survey.special, number);
        }
        survey
    }
}

impl Survey {
    /// The loaded sections with their numbers. Behind them objects have tables, a section each.
    #[inline]
    pub(super) fn loaded<'g, 'a>(
        &self,
        sections: &'g [Section<'a>],
    ) -> impl Iterator<Item = (usize, &'g Section<'a>)> + use<'g, 'a> {
        let numbered = self.loaded.clone().zip(&sections[self.loaded.clone()]);
        numbered.filter(|(_, section)| section.segment.is_some())
    }

    /// Likewise.
    #[inline]
    pub(super) fn loaded_mut<'g, 'a>(
        &self,
        sections: &'g mut [Section<'a>],
    ) -> impl Iterator<Item = (usize, &'g mut Section<'a>)> + use<'g, 'a> {
        let numbered = self.loaded.clone().zip(&mut sections[self.loaded.clone()]);
        numbered.filter(|(_, section)| section.segment.is_some())
    }
}

#[inline]
fn include(range: &mut Range<usize>, number: usize) {
    *range = if range.end == 0 { number..number + 1 } else { range.start..number + 1 };
}

/// The loaded sections that mean something to the loader itself, in order.
pub(super) fn special<'o, 'a>(objects: &'o [Object<'a>]) -> impl Iterator<Item = &'o Section<'a>> {
    let sections = objects.iter().flat_map(|object| &object.graph.sections[object.survey.special.clone()]);
    sections.filter(|section| section.segment.is_some() && section.role != Role::Plain)
}
