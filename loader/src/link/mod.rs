//! The phases between link graphs and memory that is ready to run, in order and by name.
//!
//! There is no clean-up code: dropping memory that was not finalized abandons it.

mod align;
mod bounds;
mod debug;
mod detours;
mod exports;
mod frames;
mod hooks;
mod indirect;
mod layout;
mod map;
pub(crate) mod plain;
mod preempt;
mod prune;
mod resolve;
mod scope;
mod survey;
mod symbols;
mod tables;
mod thread_relax;
mod threads;
mod write;

pub(crate) use debug::{DebugSection, SymbolRecord};
pub(crate) use exports::Exports;
pub use exports::ImageSymbol;
pub(crate) use hooks::{FunctionArray, Hooks};
pub(crate) use indirect::IndirectFunction;
pub(crate) use layout::ImageAddresses;
pub use map::{FileMap, LinkMap, MappedSection, MappedSlot, MappedStub, MappedSymbol};

pub(crate) use threads::Threads;
pub(crate) use write::Link;

use std::ops::Range;

use bounds::Bounds;
use detours::Detours;
use layout::Addresses;
use scope::Scope;
use survey::Survey;
use symbols::Symbols;
use tables::{StubKey, Tables};
use thread_relax::ThreadAccesses;

use crate::arch::Architecture;
use crate::error::LoadError;
use crate::graph::{Format, LinkGraph, Role, Section};
use crate::limits::{Limits, NameBudget};
use crate::memory::{FinalizedMemory, MemoryManager, Segment};
use crate::resolver::SymbolResolver;
use crate::unwind::{FrameTable, UnwindInfo};

/// What a link works with besides the objects.
pub(crate) struct Environment<'e> {
    pub(crate) memory: &'e dyn MemoryManager,
    pub(crate) resolver: &'e dyn SymbolResolver,
    pub(crate) limits: &'e Limits,
    /// Accesses through the GOT become direct where the target is in reach.
    pub(crate) relax: bool,
}

/// An object on its way through the phases.
pub(crate) struct Object<'a> {
    pub(crate) graph: LinkGraph<'a>,
    survey: Survey,
    symbols: Symbols,
    tables: Tables,
    /// Accesses to thread-local variables that become local-exec.
    thread_accesses: ThreadAccesses,
    /// Numbers of the symbols that are indirect functions and get a stub.
    indirect: Vec<u32>,
    /// Round instructions that count on one distance of thread-local variables in all threads.
    detours: Detours,
    addresses: Addresses,
}

impl<'a> Object<'a> {
    pub(crate) fn of(graph: LinkGraph<'a>) -> Self {
        Object {
            graph,
            survey: Survey::default(),
            symbols: Symbols::default(),
            tables: Tables::default(),
            thread_accesses: ThreadAccesses::default(),
            indirect: Vec::new(),
            detours: Detours::default(),
            addresses: Addresses::default(),
        }
    }
}

impl Object<'_> {
    /// Target address of a stub. Stubs are all in one place, unless the image is larger than branches reach, or the section
    /// whose branches need them was put so far from there that these may not reach it: then they follow that section.
    fn stub_address<A: Architecture>(&self, number: u64) -> u64 {
        let shared = self.addresses.stubs.wrapping_add(self.nth_shared(number) * A::STUB_SIZE);
        let Some((section, nth)) = self.stub_user(number) else { return shared };
        let end = section.address.wrapping_add(section.size);
        let farthest = shared.abs_diff(section.address).max(shared.abs_diff(end));
        if !self.addresses.islands_have_room && farthest.saturating_add(A::STUB_SIZE) < A::BRANCH_REACH {
            return shared;
        }
        let island = end.checked_next_multiple_of(A::STUB_ALIGN).unwrap_or(end);
        island.wrapping_add(nth * A::STUB_SIZE)
    }

    /// Where a stub is written: offset in the code's working memory.
    fn stub_offset<A: Architecture>(&self, number: u64) -> u64 {
        match self.stub_user(number).filter(|_| self.addresses.islands_have_room) {
            Some((section, nth)) => {
                (section.offset + section.size).next_multiple_of(A::STUB_ALIGN) + nth * A::STUB_SIZE
            }
            None => self.addresses.stubs_offset + self.nth_shared(number) * A::STUB_SIZE,
        }
    }

    /// The place of a stub among those that stand together: all, unless others stand behind their sections. The shared
    /// ones sort last.
    fn nth_shared(&self, number: u64) -> u64 {
        match self.addresses.islands_have_room {
            true => number.saturating_sub(self.tables.stubs_of(StubKey::SHARED).start),
            false => number,
        }
    }

    /// The section that alone uses a stub, and the stub's number among those of that section.
    fn stub_user(&self, number: u64) -> Option<(&Section<'_>, u64)> {
        let user = self.tables.stubs().get(number as usize).map_or(StubKey::SHARED, |key| key.section);
        let section = self.graph.sections.get(user as usize)?;
        Some((section, number - self.tables.stubs_of(user).start))
    }
}

/// Objects linked into their final memory.
pub(crate) struct Linked {
    pub(crate) memory: Box<dyn FinalizedMemory>,
    pub(crate) exports: Exports,
    /// If there are any.
    pub(crate) hooks: Option<Hooks>,
    pub(crate) unwind: UnwindInfo,
    pub(crate) sizes: [usize; 3],
    /// Target addresses of the segments.
    pub(crate) targets: [u64; 3],
    /// The thread-local blocks, if there are any.
    pub(crate) threads: Threads,
    pub(crate) image: ImageAddresses,
}

impl Linked {
    /// Target addresses of what is in each segment.
    pub(crate) fn segments(&self) -> [Range<u64>; 3] {
        Segment::ALL.map(|segment| {
            let start = self.targets[segment.index()];
            start..start.wrapping_add(self.sizes[segment.index()] as u64)
        })
    }
}

/// Links objects into one piece of memory. Their graphs afterwards hold the addresses of their sections.
pub(crate) fn link<A: Architecture>(
    objects: &mut [Object<'_>],
    environment: &Environment<'_>,
) -> Result<Linked, LoadError> {
    let Environment { memory: manager, resolver, limits, relax } = environment;
    let executes_here = manager.executes_here();

    if A::ALIGNS_BY_RELOCATION {
        for object in &mut *objects {
            align::cut_padding::<A>(&mut object.graph, limits)
                .map_err(|error| error.of_object(object.graph.name))?;
        }
    }
    let anything_discarded = prune::discard_duplicate_groups(objects)?;
    for object in &mut *objects {
        object.survey = Survey::of(&object.graph);
        let symbols = symbols::classify::<A>(&object.graph);
        object.symbols = symbols.map_err(|error| error.of_object(object.graph.name))?;
    }
    let mut budget = NameBudget::of(limits);
    for object in &mut *objects {
        preempt::give_way(object, *resolver, &mut budget)
            .map_err(|error| error.of_object(object.graph.name))?;
    }
    let binds_here = executes_here && A::STUB_USES_SLOT;
    if binds_here {
        indirect::plan(objects)?;
    }
    let imports = objects.iter().any(|object| object.symbols.import_count != 0);
    let several = objects.len() > 1 || anything_discarded || imports;
    let scope = if several { Scope::of(objects, limits)? } else { Scope::default() };
    for Object { graph, symbols, .. } in &mut *objects {
        symbols::place_commons(graph, symbols, &scope, limits)?;
    }
    let has_thread_locals = objects.iter().any(|object| object.survey.thread_locals);
    let reserved = match has_thread_locals && executes_here {
        true => threads::plan_fixed::<A>(objects)?,
        false => None,
    };
    let mut bounds = Bounds::wanted(objects, limits)?;
    let placed = manager.placement().is_some();
    let near = !placed && image_bytes(objects) < A::BRANCH_REACH;
    for Object { graph, survey, symbols, tables, thread_accesses, .. } in &mut *objects {
        if !executes_here {
            let found = thread_relax::find::<A>(graph, symbols);
            *thread_accesses = found.map_err(|error| error.of_object(graph.name))?;
        }
        *tables = tables::plan::<A>(graph, survey, symbols, thread_accesses, near, !near, binds_here)
            .map_err(|error| error.of_object(graph.name))?;
    }

    let request = layout::arrange::<A>(objects, &bounds, [!near && !placed, !placed], limits)?;
    let mut memory = manager.allocate(&request)?;
    let image = layout::assign::<A>(objects, &request, &*memory, manager.placement());
    bounds.measure(objects);
    resolve::resolve::<A>(objects, &scope, &bounds, &image, environment)?;
    let indirect = indirect::redirect::<A>(objects);
    let exports = resolve::exports::<A>(objects)?;
    let threads = threads::serve::<A>(objects, reserved, environment)?;
    write::write::<A>(objects, &image, &threads, *relax, &mut memory.working()?)?;
    let memory = memory.finalize()?;

    let unwind = unwind_info::<A>(objects, image.code.clone(), memory.arena());
    let registers_destructors = objects.iter().any(|object| object.symbols.registers_destructors);
    Ok(Linked {
        memory,
        exports,
        hooks: Hooks::of(objects, indirect, registers_destructors.then_some(image.image)),
        unwind,
        threads,
        sizes: request.segments.map(|segment| segment.size),
        targets: image.segments,
        image,
    })
}

/// What was linked where.
pub(crate) fn map<A: Architecture>(objects: &[Object<'_>], image: u64) -> Result<LinkMap, LoadError> {
    map::of::<A>(objects, image)
}

/// About how large the image will be: what decides whether branches within it reach.
fn image_bytes(objects: &[Object<'_>]) -> u64 {
    let sections = objects.iter().fold(0u64, |sum, object| sum.saturating_add(object.survey.bytes));
    let detours: u64 = objects.iter().map(|object| object.detours.size()).sum();
    // What else the loader adds comes to less than this again.
    sections.saturating_mul(2).saturating_add(detours)
}

/// What an unwinder wants to know of the image.
fn unwind_info<A: Architecture>(
    objects: &[Object<'_>],
    code: Range<u64>,
    arena: Option<Range<u64>>,
) -> UnwindInfo {
    let throws = objects.iter().any(|object| object.symbols.throws);
    let mut info = UnwindInfo { code, arena, throws, ..UnwindInfo::default() };
    let table = |section: &Section<'_>| FrameTable { address: section.address, size: section.size };
    for section in survey::special(objects).filter(|section| section.size != 0) {
        match section.role {
            Role::EhFrame => frames::push(&mut info.eh_frames, table(section)),
            Role::ExceptTable => info.catches = true,
            _ => {}
        }
    }
    let coff = objects.iter().filter(|object| object.graph.format == Format::Coff);
    let loaded = coff.flat_map(|object| &object.graph.sections).filter(|section| section.segment.is_some());
    for section in loaded.filter(|section| section.size != 0) {
        if is_or_extends(section.name, b".pdata") {
            info.pdata.push(table(section));
        } else if is_or_extends(section.name, b".xdata") {
            info.xdata.push(table(section));
        }
    }
    info.calls = throws || !info.eh_frames.is_empty() && may_call_out::<A>(objects);
    info
}

/// Whether a function of the image may be waiting for one elsewhere.
fn may_call_out<A: Architecture>(objects: &[Object<'_>]) -> bool {
    let sections = objects.iter().flat_map(|object| &object.graph.sections);
    let code = sections.filter(|section| section.segment == Some(Segment::Code));
    objects.iter().any(|object| object.symbols.refers_out)
        || may_call_indirectly::<A>(code.map(|section| section.bytes))
}

/// Whether there may be calls by pointers in the code. They are looked for in small images only: a large one without any is
/// rare, and what follows from it costs it less.
fn may_call_indirectly<'c, A: Architecture>(mut code: impl Iterator<Item = &'c [u8]>) -> bool {
    const SMALL: usize = 16 << 10;
    let mut left = SMALL;
    code.any(|code| {
        left = left.saturating_sub(code.len());
        left == 0 || A::may_call_indirectly(code)
    })
}

/// COFF: `.pdata`, or `.pdata$function`.
fn is_or_extends(name: &[u8], stem: &[u8]) -> bool {
    name.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest[0] == b'$')
}
