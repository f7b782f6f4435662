//! Thread-local storage: where the image's variables are in each thread, and those of others that it refers to.
//!
//! Linked for elsewhere, the image is the program: its block is where a static linker has it, at a fixed distance from the
//! thread pointer. In this process it comes late, so most blocks are made when a thread first asks for them
//! ([`crate::tls`]); only for code that knows no other way (initial-exec, local-exec), variables that begin as zero are taken
//! from what was set aside in every thread from its beginning. All others have [detours](super::detours).

use super::detours;
use super::layout::{thread_block_size, thread_locals};
use super::symbols::{Facts, SymbolState};
use super::{Environment, Object};
use crate::arch::{Architecture, Operand, SlotKind};
use crate::error::{FixupProblem, LoadError};
use crate::graph::{LinkGraph, Relocation};
use crate::tls::{self, Module, Template, Variable};

/// How the image gets at thread-local variables.
#[derive(Default)]
pub(crate) struct Threads {
    template: Template,
    /// From the thread pointer to the block, if that is the same in every thread.
    offset: Option<u64>,
    /// The room there, which is given back if the load fails after all.
    reserved: Option<tls::Reserved>,
    /// The blocks of threads that asked for one.
    module: Option<Module>,
    /// The descriptor of the block's start that detours ask. The image is linked as if the block began at the thread pointer.
    detours: Option<[u64; 2]>,
    executes_here: bool,
}

/// The start of the image's block, as a name: descriptors of the local-dynamic model are for this.
pub(super) const TLS_MODULE_BASE: &[u8] = b"_TLS_MODULE_BASE_";

/// The block that the sections make up. They need not stand together when they were placed one by one.
fn template(objects: &[Object<'_>]) -> Template {
    let mut template = Template::default();
    let mut end = 0;
    let mut content_end = 0;
    for section in thread_locals(objects) {
        let section_end = section.address.saturating_add(section.size);
        if template.align == 0 || section.address < template.address {
            template.address = section.address;
        }
        template.align = template.align.max(section.align);
        end = section_end.max(end);
        if !section.zero_fill {
            content_end = section_end.max(content_end);
        }
    }
    template.size = end.wrapping_sub(template.address);
    template.content = content_end.saturating_sub(template.address);
    template
}

/// Decides how the image's own variables are served in this process to code that counts on one distance in all threads:
/// from what is set aside, as long as they begin as zero and there is room, or with detours.
#[cold]
pub(super) fn plan_fixed<A: Architecture>(
    objects: &mut [Object<'_>],
) -> Result<Option<tls::Reserved>, LoadError> {
    if !any_at_fixed_offset::<A>(objects) {
        return Ok(None);
    }
    let align = thread_locals(objects).map(|section| section.align).max().unwrap_or(1);
    let reserved = if is_zero(objects) { tls::set_aside(thread_block_size(objects), align) } else { None };
    if reserved.is_none() {
        detours::plan::<A>(objects)?;
    }
    Ok(reserved)
}

/// Finds a place for the block. The sections have their addresses, the symbols theirs.
#[inline]
pub(super) fn serve<A: Architecture>(
    objects: &mut [Object<'_>],
    reserved: Option<tls::Reserved>,
    environment: &Environment<'_>,
) -> Result<Threads, LoadError> {
    let any =
        |object: &Object<'_>| object.survey.thread_locals || object.symbols.seen.has(Facts::THREAD_LOCAL);
    let executes_here = environment.memory.executes_here();
    match objects.iter().any(any) {
        true => serve_some::<A>(objects, reserved, environment, executes_here),
        false => Ok(Threads { executes_here, ..Threads::default() }),
    }
}

#[cold]
fn serve_some<A: Architecture>(
    objects: &mut [Object<'_>],
    reserved: Option<tls::Reserved>,
    environment: &Environment<'_>,
    executes_here: bool,
) -> Result<Threads, LoadError> {
    let template = template(objects);
    let some_have = |object: &&mut Object<'_>| object.symbols.seen.has(Facts::THREAD_LOCAL);
    for Object { graph, symbols, .. } in objects.iter_mut().filter(some_have) {
        find_external(graph, &mut symbols.states, &template, environment)
            .map_err(|error| error.of_object(graph.name))?;
    }
    let mut threads = Threads { template, executes_here, ..Threads::default() };
    let Template { address, size, align, .. } = template;
    if align == 0 {
        return Ok(threads);
    }
    if !executes_here && !environment.memory.has_thread_blocks() {
        let what = "a thread-local variable, of which the threads of the target have no copy,";
        return Err(LoadError::unsupported(what));
    }
    if !executes_here {
        threads.offset = Some(A::THREAD_BLOCK.offset(address, size, align));
    } else if let Some(reserved) = reserved {
        threads.offset = Some(reserved.offset(size)?);
        threads.reserved = Some(reserved);
    } else {
        let module = tls::Module::new(template).map_err(LoadError::unsupported)?;
        if objects.iter().any(|object| object.detours.size() != 0) {
            threads.detours = Some(module.descriptor(0));
        }
        threads.module = Some(module);
    }
    Ok(threads)
}

/// A variable that is not the image's becomes its offset from the thread pointer.
fn find_external(
    graph: &LinkGraph<'_>,
    states: &mut [SymbolState],
    template: &Template,
    environment: &Environment<'_>,
) -> Result<(), LoadError> {
    let mut others = Vec::new();
    for (number, state) in states.iter_mut().enumerate().filter(|(_, state)| is_external(state)) {
        let name = graph.symbols.name(&graph.symbols.get(number)?)?;
        if name == TLS_MODULE_BASE {
            state.address = template.address;
            state.facts.remove(Facts::EXTERNAL);
        } else if state.address != 0 {
            let name = std::str::from_utf8(name).unwrap_or_default();
            others.push((number, Variable { name, address: state.address }));
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    let variables: Vec<Variable<'_>> = others.iter().map(|(_, variable)| *variable).collect();
    let offsets = match environment.memory.executes_here() {
        true => tls::thread_offsets(&variables, environment.resolver),
        false => vec![Err("a thread-local variable of another image"); others.len()],
    };
    for ((number, _), offset) in others.iter().zip(offsets) {
        states[*number].address = offset.map_err(|why| {
            LoadError::unsupported(format!("`{}`: {why}", graph.symbol_label(*number as u32)))
        })?;
    }
    Ok(())
}

fn is_external(state: &SymbolState) -> bool {
    state.facts.has(Facts::THREAD_LOCAL)
        && state.facts.has(Facts::EXTERNAL)
        && state.facts.has(Facts::REFERENCED)
}

/// Some relocation wants one of the image's own variables at the same offset in all threads.
fn any_at_fixed_offset<A: Architecture>(objects: &[Object<'_>]) -> bool {
    objects.iter().any(|object| {
        let mut places = object.graph.places();
        places.any(|(_, relocation)| is_at_fixed_offset::<A>(object, &relocation))
    })
}

/// The relocation wants a variable of this image at the same offset in all threads.
pub(super) fn is_at_fixed_offset<A: Architecture>(object: &Object<'_>, relocation: &Relocation) -> bool {
    let operand = A::kind(object.graph.format, relocation.raw_kind).map(A::operand);
    let is_fixed = matches!(operand, Ok(Operand::ThreadOffset | Operand::Slot(SlotKind::ThreadOffset)));
    let state = object.symbols.states.get(relocation.symbol as usize);
    is_fixed && state.is_some_and(|state| !state.facts.has(Facts::EXTERNAL))
}

/// All variables begin as zero.
fn is_zero(objects: &[Object<'_>]) -> bool {
    let mut with_content = thread_locals(objects).filter(|section| !section.zero_fill);
    with_content.all(|section| section.relocations.len() == 0 && section.bytes.iter().all(|byte| *byte == 0))
}

impl Threads {
    /// What keeps the blocks, for as long as the image lives, which is complete now.
    pub(crate) fn take_module(&mut self) -> Option<Module> {
        if let Some(reserved) = self.reserved.take() {
            reserved.keep();
        }
        self.module.take()
    }

    /// The descriptor that detours ask.
    pub(super) fn detour_descriptor(&self) -> [u64; 2] {
        self.detours.unwrap_or_default()
    }

    /// `S - TP`, less what detours add.
    pub(super) fn thread_offset(&self, state: &SymbolState) -> Result<u64, FixupProblem> {
        if is_external(state) {
            return Ok(state.address);
        }
        if self.detours.is_some() {
            return self.offset_in_block(state);
        }
        let offset =
            self.offset.ok_or(FixupProblem::Unsupported("a thread-local variable at a fixed offset"))?;
        Ok(offset.wrapping_add(self.offset_in_block(state)?))
    }

    /// `@dtpoff`: from what the module's number stands for.
    pub(super) fn block_offset<A: Architecture>(&self, state: &SymbolState) -> Result<u64, FixupProblem> {
        if is_external(state) {
            return Err(FixupProblem::Unsupported(
                "a thread-local variable of another image in this one's block",
            ));
        }
        let offset = self.offset_in_block(state)?;
        let block = if self.executes_here { self.offset.unwrap_or(0) } else { 0 };
        Ok(block.wrapping_add(offset).wrapping_sub(A::BLOCK_BIAS))
    }

    /// Both words of a GOT entry for a thread-local variable; of one word the second is 0.
    pub(super) fn slot<A: Architecture>(
        &self,
        kind: SlotKind,
        state: &SymbolState,
    ) -> Result<[u64; 2], FixupProblem> {
        let own = |offset| Ok([self.module_word(), offset]);
        match kind {
            SlotKind::Address | SlotKind::ThreadOffset => Ok([self.thread_offset(state)?, 0]),
            SlotKind::BlockOffset => Ok([self.block_offset::<A>(state)?, 0]),
            SlotKind::ThreadModule => own(0),
            SlotKind::ThreadIndex if is_external(state) && self.executes_here => {
                Ok([tls::IN_EVERY_THREAD, state.address])
            }
            // Of a program, a weak variable that nobody defines, as static linkers have it.
            SlotKind::ThreadIndex if is_external(state) => own(state.address.wrapping_sub(A::BLOCK_BIAS)),
            SlotKind::ThreadIndex => own(self.block_offset::<A>(state)?),
            SlotKind::ThreadDescriptor if !self.executes_here => {
                Err(FixupProblem::Unsupported("a thread-local descriptor without a dynamic linker"))
            }
            SlotKind::ThreadDescriptor => match &self.module {
                Some(module) if !is_external(state) => Ok(module.descriptor(self.offset_in_block(state)?)),
                _ => Ok(tls::descriptor_of(self.thread_offset(state)?)),
            },
        }
    }

    /// What a static linker writes for the program, or what this process's `__tls_get_addr` for objects understands.
    fn module_word(&self) -> u64 {
        const THE_PROGRAM: u64 = 1;
        match &self.module {
            Some(module) => module.word(),
            None if self.executes_here => tls::IN_EVERY_THREAD,
            None => THE_PROGRAM,
        }
    }

    fn offset_in_block(&self, state: &SymbolState) -> Result<u64, FixupProblem> {
        let offset = state.address.wrapping_sub(self.template.address);
        match offset <= self.template.size && self.template.align != 0 {
            true => Ok(offset),
            false => Err(FixupProblem::Unsupported("a thread-local access to what is not thread-local")),
        }
    }
}
