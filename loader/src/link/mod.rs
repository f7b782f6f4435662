//! The phases between a link graph and memory that is ready to run, in order and by name.
//!
//! There is no clean-up code: dropping memory that was not finalized abandons it.

mod exports;
mod hooks;
mod layout;
mod prune;
mod resolve;
mod symbols;
mod tables;
mod write;

pub(crate) use exports::Exports;
pub use exports::ImageSymbol;
pub(crate) use hooks::{FunctionArray, Hooks};

use std::ops::Range;

use crate::arch::Architecture;
use crate::error::LoadError;
use crate::graph::{LinkGraph, Role};
use crate::limits::Limits;
use crate::memory::{FinalizedMemory, MemoryManager};
use crate::resolver::SymbolResolver;
use crate::unwind::{FrameTable, UnwindInfo};

/// What a link works with besides the object.
pub(crate) struct Environment<'e> {
    pub(crate) memory: &'e dyn MemoryManager,
    pub(crate) resolver: &'e dyn SymbolResolver,
    pub(crate) limits: &'e Limits,
}

/// A linked object in its final memory.
pub(crate) struct Linked {
    pub(crate) memory: Box<dyn FinalizedMemory>,
    pub(crate) exports: Exports,
    pub(crate) hooks: Hooks,
    pub(crate) unwind: UnwindInfo,
    pub(crate) sizes: [usize; 3],
}

/// Links an object into memory of its own. `graph` afterwards holds the addresses of its sections.
pub(crate) fn link<A: Architecture>(
    graph: &mut LinkGraph<'_>,
    environment: &Environment<'_>,
) -> Result<Linked, LoadError> {
    let Environment { memory: manager, resolver, limits } = environment;

    let discarded = prune::discard_duplicate_groups(graph, limits)?;
    let mut symbols = symbols::classify(graph, limits)?;
    let tables = tables::plan::<A>(graph, &mut symbols)?;
    let layout = layout::arrange::<A>(graph, &symbols, &tables, limits)?;
    let mut memory = manager.allocate(&layout.request)?;
    let addresses = layout.assign(graph, &*memory, manager.placement());
    let exports = resolve::resolve(graph, &mut symbols, &addresses, &discarded, *resolver, limits)?;
    write::write::<A>(graph, &symbols, &tables, &addresses, &mut memory.working()?)?;
    let memory = memory.finalize()?;

    let sizes = layout.request.segments.map(|segment| segment.size);
    Ok(Linked {
        memory,
        exports,
        hooks: Hooks::of(graph, symbols.uses_dso_handle.then_some(addresses.image)),
        unwind: unwind_info(graph, addresses.code(&layout.request)),
        sizes,
    })
}

/// What an unwinder wants to know of the image.
fn unwind_info(graph: &LinkGraph<'_>, code: Range<u64>) -> UnwindInfo {
    let mut info = UnwindInfo { code, ..UnwindInfo::default() };
    for section in graph.sections.iter().filter(|section| section.segment.is_some() && section.size != 0) {
        match section.role {
            Role::EhFrame => info.eh_frames.push(FrameTable { address: section.address, size: section.size }),
            Role::ExceptTable => info.catches = true,
            _ => {}
        }
    }
    info
}
