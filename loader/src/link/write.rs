//! Fix up: copy each section to working memory and patch it there, then fill in stubs and GOT.
//!
//! One section is copied and patched while it is still in the cache. Every byte of the working memory is written:
//! gaps in code become traps, everything else zero.

use super::layout::ImageAddresses;
use super::symbols::{Facts, SymbolState, Symbols};
use super::tables::{
    SlotKey, StubKey, is_unwind_table, leads_with_addend, may_use_stub, operand, refuse, stub_key,
};
use super::thread_relax::is_consumed;
use super::threads::Threads;
use super::{Object, indirect};
use crate::arch::{
    Architecture, Fixup, LocalExecOperand, Operand, Relaxed, Simple, SimpleKinds, SlotKind, Stub, field,
};
use crate::error::{FixupProblem, LoadError};
use crate::graph::{Relocation, Section};
use crate::memory::{Segment, WorkingMemory};

/// Fixes up all simple relocations from `start` on, up to one that is not, or is refused. Gives its number. Most of the time
/// of a load is spent here: on its own, so that what it works with stays in registers.
#[inline(never)]
fn fix_up_simple_ones(
    kinds: SimpleKinds,
    states: &[SymbolState],
    section: &Section<'_>,
    start: usize,
    bytes: &mut [u8],
) -> usize {
    let address = section.address;
    section
        .relocations
        .skip_while(start, |_, relocation| fix_up_simple(kinds, states, address, relocation, bytes))
}

/// Says no, and does nothing, if the relocation is not simple, the value out of range or the field out of the section.
#[inline(always)]
fn fix_up_simple(
    kinds: SimpleKinds,
    states: &[SymbolState],
    section: u64,
    relocation: Relocation,
    bytes: &mut [u8],
) -> bool {
    let Relocation { offset, symbol, addend, .. } = relocation;
    let Some(simple) = kinds.find(relocation.raw_kind) else { return false };
    let Some(state) = states.get(symbol as usize) else { return false };
    let fixup =
        Fixup { place: section.wrapping_add(offset), target: state.address, addend, ..Fixup::default() };
    simple_field(simple, fixup, bytes, offset).is_some()
}

/// Fixes up one field. Does nothing if the value is out of range or the field out of the section.
#[inline(always)]
pub(super) fn simple_field(simple: Simple, fixup: Fixup, bytes: &mut [u8], offset: u64) -> Option<()> {
    match simple {
        Simple::Relative32 | Simple::Branch32 => {
            let value = i32::try_from(fixup.relative()).ok()?;
            *field(bytes, offset).ok()? = value.to_le_bytes();
        }
        Simple::Absolute64 => *field(bytes, offset).ok()? = fixup.absolute().to_le_bytes(),
    }
    Some(())
}

/// Writes the whole image.
pub(super) fn write<A: Architecture>(
    objects: &[Object<'_>],
    image: &ImageAddresses,
    threads: &Threads,
    relax: bool,
    working: &mut [WorkingMemory<'_>; 3],
) -> Result<(), LoadError> {
    fill_gaps::<A>(objects, working);
    for object in objects {
        let link = Link { object, image, threads, relax };
        link.write_sections::<A>(working).map_err(|error| error.of_object(object.graph.name))?;
    }
    Ok(())
}

/// Fills what no section covers. Sections of one segment are laid out without overlap, but not in the objects' order.
fn fill_gaps<A: Architecture>(objects: &[Object<'_>], working: &mut [WorkingMemory<'_>; 3]) {
    let mut ends = [0usize; 3];
    let mut in_order = true;
    for (_, section) in objects.iter().flat_map(|object| object.survey.loaded(&object.graph.sections)) {
        let Some(segment) = section.segment.filter(|_| !section.zero_fill) else { continue };
        let start = section.offset as usize;
        let end = start + section.size as usize;
        if start < ends[segment.index()] {
            in_order = false;
            break;
        }
        fill::<A>(segment, &mut working[segment.index()], ends[segment.index()], start);
        ends[segment.index()] = end;
    }
    for segment in Segment::ALL {
        let memory = &mut working[segment.index()];
        let start = if in_order { ends[segment.index()] } else { 0 };
        let end = memory.bytes.len();
        fill::<A>(segment, memory, start, end);
    }
}

/// Fills a gap.
pub(super) fn fill<A: Architecture>(
    segment: Segment,
    memory: &mut WorkingMemory<'_>,
    start: usize,
    end: usize,
) {
    if start < end {
        match segment {
            Segment::Code => fill_with_traps(A::TRAP, &mut memory.bytes[..end], start),
            _ if memory.zeroed => {}
            _ => memory.bytes[start..end].fill(0),
        }
    }
}

/// Traps stand where instructions could, counted from the segment's start.
fn fill_with_traps(trap: &[u8], bytes: &mut [u8], start: usize) {
    match trap {
        [byte] => bytes[start..].fill(*byte),
        _ => {
            for (offset, byte) in bytes.iter_mut().enumerate().skip(start) {
                *byte = trap[offset % trap.len()];
            }
        }
    }
}

/// An object with all that its fix-ups need: it can be written as often as one likes.
pub(crate) struct Link<'l, 'a> {
    pub(crate) object: &'l Object<'a>,
    pub(crate) image: &'l ImageAddresses,
    pub(crate) threads: &'l Threads,
    pub(crate) relax: bool,
}

/// The places of the high parts in a section, with the numbers of their relocations; sorted.
type HighParts = Vec<(u64, usize)>;

/// What is found out about a section as a whole when its first relocation asks.
#[derive(Default)]
pub(super) struct FoundOut {
    high_parts: Option<HighParts>,
    may_relax: Option<bool>,
}

impl Link<'_, '_> {
    fn write_sections<A: Architecture>(&self, working: &mut [WorkingMemory<'_>; 3]) -> Result<(), LoadError> {
        let graph = &self.object.graph;
        for (number, section) in self.object.survey.loaded(&graph.sections) {
            let Some(segment) = section.segment else { continue };
            if section.zero_fill {
                // A section that is all zeros has nothing to patch: any relocation is refused.
                self.patch::<A>(number, section, &mut [])?;
                continue;
            }
            let content = graph.content(section);
            let start = section.offset as usize;
            let bytes = &mut working[segment.index()].bytes[start..start + content.len()];
            bytes.copy_from_slice(content);
            self.patch::<A>(number, section, bytes)?;
            if let Some(island) = self.object.detours.island(number) {
                let bytes = &mut working[segment.index()].bytes[start..];
                island.write::<A>(section, self.threads.detour_descriptor(), bytes)?;
            }
        }
        let [code, read_only, data] = working;
        if !self.object.indirect.is_empty() {
            indirect::write::<A>(self.object, code.bytes, data.bytes, crate::lifecycle::unbound_function())?;
        }
        if self.object.tables.slot_words != 0 {
            self.write_slots::<A>(read_only.bytes)?;
        }
        if !self.object.tables.stubs().is_empty() {
            self.write_stubs::<A>(code.bytes)?;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn patch<A: Architecture>(
        &self,
        number: usize,
        section: &Section<'_>,
        bytes: &mut [u8],
    ) -> Result<(), LoadError> {
        match section.relocations.len() {
            0 => Ok(()),
            _ => self.patch_all::<A>(number, section, bytes),
        }
    }

    #[inline(never)]
    fn patch_all<A: Architecture>(
        &self,
        number: usize,
        section: &Section<'_>,
        bytes: &mut [u8],
    ) -> Result<(), LoadError> {
        let graph = &self.object.graph;
        let is_unwind_table = is_unwind_table(section);
        let cuts = graph.cuts.get(section.cuts as usize);
        let simple = match section.relocations.has_implicit_addends() {
            true => SimpleKinds::NONE,
            false => A::simple(graph.format),
        };
        let mut found_out = FoundOut::default();
        // Number of a relocation that was done together with the one before it.
        let mut done = usize::MAX;
        let consumed = self.object.thread_accesses.consumed_of(number);
        let mut index = 0;
        loop {
            let states = &self.object.symbols.states;
            index = if is_unwind_table || !consumed.is_empty() || done != usize::MAX {
                section.relocations.skip_while(index, |index, relocation| {
                    is_consumed(consumed, index)
                        || is_unwind_table && self.is_left_alone(relocation.symbol)
                        || index == done
                        || fix_up_simple(simple, states, section.address, relocation, bytes)
                })
            } else {
                fix_up_simple_ones(simple, states, section, index, bytes)
            };
            let Some(mut relocation) = section.relocations.get(index) else { return Ok(()) };
            if let Some(cuts) = cuts {
                relocation.offset = cuts.moved(relocation.offset);
            }
            let place = Place { number, section, index, relocation };
            match self.fix_up::<A>(&place, bytes, &mut found_out) {
                Ok(Consumed::One) => {}
                Ok(Consumed::With(later)) => done = later,
                Err(problem) => return Err(refuse::<A>(graph, section, relocation, problem)),
            }
            index += 1;
        }
    }

    /// Unwind tables keep their entries for functions of discarded groups. The field stays as it is, zero, which unwinders
    /// take for an entry without a function.
    fn is_left_alone(&self, symbol: u32) -> bool {
        let state = &self.object.symbols.states[symbol as usize];
        state.facts.has(Facts::NOT_LOADED) && state.address == 0
    }

    #[inline(never)]
    pub(super) fn fix_up<A: Architecture>(
        &self,
        place: &Place<'_, '_>,
        bytes: &mut [u8],
        found_out: &mut FoundOut,
    ) -> Result<Consumed, FixupProblem> {
        let Place { section, index, relocation, .. } = place;
        let kind = self.kind::<A>(relocation)?;
        let offset = relocation.offset;
        if let Some(operand) = self.object.thread_accesses.rewritten::<A>(kind) {
            self.rewrite_thread_access::<A>(kind, operand, place, bytes, found_out)?;
            return Ok(Consumed::One);
        }
        let (mut fixup, mut consumed) = (None, Consumed::One);
        match A::operand(kind) {
            Operand::None | Operand::Alignment => return Ok(consumed),
            Operand::PairedLow => {
                fixup = Some(self.high_part::<A>(place, bytes, &mut found_out.high_parts)?)
            }
            Operand::Slot(SlotKind::Address) if self.relax && self.may_relax::<A>(section, found_out) => {
                if let Some(consumed) = self.relaxed::<A>(kind, place, bytes)? {
                    return Ok(consumed);
                }
            }
            _ => {}
        }
        let mut fixup = match fixup {
            Some(fixup) => fixup,
            None => self.fixup::<A>(kind, section, *relocation, bytes)?,
        };
        if let Some(second) = A::subtrahend(kind) {
            fixup.subtrahend = self.subtrahend::<A>(second, section, *index)?;
            consumed = Consumed::With(index + 1);
        }
        let is_branch = matches!(A::operand(kind), Operand::Branch);
        let state = &self.object.symbols.states[relocation.symbol as usize];
        let problem = match is_branch && A::needs_stub(kind, bytes, offset, state.flags) {
            true => FixupProblem::Unsupported("this branch without a stub"),
            false => match A::apply(kind, bytes, offset, fixup) {
                Ok(()) => return Ok(consumed),
                Err(problem) => problem,
            },
        };
        self.detour::<A>(kind, place, bytes, fixup, problem)?;
        Ok(consumed)
    }

    /// An access to one of the program's own thread-local variables becomes local-exec.
    #[cold]
    fn rewrite_thread_access<A: Architecture>(
        &self,
        kind: A::Kind,
        operand: LocalExecOperand,
        place: &Place<'_, '_>,
        bytes: &mut [u8],
        found_out: &mut FoundOut,
    ) -> Result<(), FixupProblem> {
        let Place { section, index, relocation, .. } = place;
        let mut fixup = match operand {
            LocalExecOperand::Paired => self.high_part::<A>(place, bytes, &mut found_out.high_parts)?,
            _ => self.fixup::<A>(kind, section, *relocation, bytes)?,
        };
        let facts = self.object.symbols.states[relocation.symbol as usize].facts;
        let is_module_base = facts.has(Facts::SYNTHESIZED) && facts.has(Facts::THREAD_LOCAL);
        if is_module_base && self.object.thread_accesses.count_from_thread_pointer::<A>() {
            fixup.target = 0;
        }
        let next = section.relocations.get(index + 1).and_then(|next| self.kind::<A>(&next).ok());
        A::to_local_exec(kind, next, bytes, relocation.offset, fixup)
    }

    pub(super) fn kind<A: Architecture>(&self, relocation: &Relocation) -> Result<A::Kind, FixupProblem> {
        A::kind(self.object.graph.format, relocation.raw_kind).map_err(FixupProblem::Unsupported)
    }

    /// The numbers of a fix-up.
    #[inline]
    pub(super) fn fixup<A: Architecture>(
        &self,
        kind: A::Kind,
        section: &Section<'_>,
        relocation: Relocation,
        bytes: &[u8],
    ) -> Result<Fixup, FixupProblem> {
        let Relocation { offset, symbol, addend, .. } = relocation;
        let Object { symbols, addresses, .. } = self.object;
        let state = &symbols.states[symbol as usize];
        let target = match operand::<A>(kind, state.facts, &self.object.thread_accesses) {
            Operand::None | Operand::Alignment => 0,
            Operand::Got => addresses.got,
            Operand::Slot(slot) => self.slot::<A>(SlotKey::of(slot, symbol))?,
            Operand::Size => self.size(symbol),
            Operand::SectionOffset => state.address.wrapping_sub(self.home(state)?.address),
            Operand::SectionNumber => {
                self.home(state)?;
                u64::from(state.section)
            }
            Operand::ThreadOffset => self.threads.thread_offset(state)?,
            Operand::BlockOffset => self.threads.block_offset::<A>(state)?,
            Operand::Symbol
            | Operand::LowSymbol
            | Operand::NearSymbol
            | Operand::Branch
            | Operand::ImageOffset
            | Operand::PairedLow => state.address,
        };
        let implicit = match section.relocations.has_implicit_addends() {
            true => A::implicit_addend(kind, bytes, offset)?,
            false => 0,
        };
        let subtrahend = match symbols.states.get(relocation.subtrahend as usize) {
            Some(state) => state.address,
            None => 0,
        };
        Ok(Fixup {
            place: section.address.wrapping_add(offset),
            target,
            addend: addend.wrapping_add(implicit),
            got: addresses.got,
            image: self.image.image,
            subtrahend,
            symbol_flags: state.flags,
            through_stub: false,
            undefined_weak: state.is_undefined_weak(),
        })
    }

    /// The loaded section that a symbol is in.
    fn home(&self, state: &SymbolState) -> Result<&Section<'_>, FixupProblem> {
        let section = self.object.graph.sections.get(state.section as usize);
        section.ok_or(FixupProblem::Unsupported("a section's offset or number of a symbol of another image"))
    }

    /// The fix-up of the relocation at the place that a low part's symbol names. Both are in the same section.
    #[cold]
    fn high_part<A: Architecture>(
        &self,
        place: &Place<'_, '_>,
        bytes: &[u8],
        high_parts: &mut Option<HighParts>,
    ) -> Result<Fixup, FixupProblem> {
        let state = &self.object.symbols.states[place.relocation.symbol as usize];
        if state.section as usize != place.number {
            return Err(FixupProblem::NoHighPart);
        }
        let label = state.address.wrapping_add_signed(place.relocation.addend);
        let label = label.wrapping_sub(place.section.address);
        let parts = high_parts.get_or_insert_with(|| self.high_parts::<A>(place.section));
        let found = parts.partition_point(|(offset, _)| *offset < label);
        let (offset, index) =
            *parts.get(found).filter(|(offset, _)| *offset == label).ok_or(FixupProblem::NoHighPart)?;
        let relocation = place.section.relocations.get(index).ok_or(FixupProblem::NoHighPart)?;
        let kind = self.kind::<A>(&relocation)?;
        self.fixup::<A>(kind, place.section, Relocation { offset, ..relocation }, bytes)
    }

    fn high_parts<A: Architecture>(&self, section: &Section<'_>) -> HighParts {
        let graph = &self.object.graph;
        let cuts = graph.cuts.get(section.cuts as usize);
        let mut parts: HighParts = (0..section.relocations.len())
            .filter_map(|index| Some((index, section.relocations.get(index)?)))
            .filter(|(_, relocation)| self.kind::<A>(relocation).is_ok_and(A::is_paired_high))
            .map(|(index, Relocation { offset, .. })| (cuts.map_or(offset, |cuts| cuts.moved(offset)), index))
            .collect();
        parts.sort_unstable();
        parts
    }

    /// Address and addend of what the next relocation, of that kind, says to subtract at the same place.
    fn subtrahend<A: Architecture>(
        &self,
        kind: A::Kind,
        section: &Section<'_>,
        index: usize,
    ) -> Result<u64, FixupProblem> {
        let pair = section.relocations.get(index).zip(section.relocations.get(index + 1));
        match pair {
            Some((this, next)) if this.offset == next.offset && self.kind::<A>(&next) == Ok(kind) => {
                let state = self.object.symbols.states.get(next.symbol as usize);
                let state = state.ok_or(FixupProblem::Unsupported("a difference without its second part"))?;
                Ok(state.address.wrapping_add_signed(next.addend))
            }
            _ => Err(FixupProblem::Unsupported("a difference without its second part")),
        }
    }

    fn may_relax<A: Architecture>(&self, section: &Section<'_>, found_out: &mut FoundOut) -> bool {
        let kinds = || section.relocations.iter().filter_map(|relocation| self.kind::<A>(&relocation).ok());
        *found_out.may_relax.get_or_insert_with(|| A::may_relax(kinds()))
    }

    /// An access through the GOT to what may be in reach.
    fn relaxed<A: Architecture>(
        &self,
        kind: A::Kind,
        place: &Place<'_, '_>,
        bytes: &mut [u8],
    ) -> Result<Option<Consumed>, FixupProblem> {
        let Place { section, index, relocation, .. } = place;
        let state = &self.object.symbols.states[relocation.symbol as usize];
        let external = state.facts.has(Facts::EXTERNAL);
        if external && (!A::RELAXES_EXTERNALS || state.is_undefined_weak()) {
            return Ok(None);
        }
        let slot = self.fixup::<A>(kind, section, *relocation, bytes)?;
        let direct = Fixup { target: A::pointer_value(state.address, state.flags), ..slot };
        let cuts = self.object.graph.cuts.get(section.cuts as usize);
        // A mark that the linker may relax this one may stand between.
        let mut following = (index + 1..index + 3).filter_map(|index| {
            let mut next = section.relocations.get(index)?;
            next.offset = cuts.map_or(next.offset, |cuts| cuts.moved(next.offset));
            let kind = self.kind::<A>(&next).ok()?;
            (A::operand(kind) != Operand::None).then_some((index, (kind, next)))
        });
        let (index, next) = following.next().unzip();
        Ok(match (A::relax(kind, relocation, next, bytes, direct), index) {
            (Relaxed::No, _) => None,
            (Relaxed::Both, Some(index)) => Some(Consumed::With(index)),
            (Relaxed::This | Relaxed::Both, _) => Some(Consumed::One),
        })
    }

    /// What did not fit may do with a stub.
    #[cold]
    fn detour<A: Architecture>(
        &self,
        kind: A::Kind,
        place: &Place<'_, '_>,
        bytes: &mut [u8],
        fixup: Fixup,
        problem: FixupProblem,
    ) -> Result<(), FixupProblem> {
        let Place { section, relocation, .. } = place;
        let state = &self.object.symbols.states[relocation.symbol as usize];
        let is_misaligned = matches!(problem, FixupProblem::Misaligned { .. });
        if is_misaligned || !may_use_stub::<A>(section, kind, *relocation) {
            return Err(problem);
        }
        let mut key = stub_key::<A>(section, kind, *relocation, state.facts, state.flags);
        key.section = place.number as u32;
        let Some(target) = self.stub::<A>(key) else { return Err(problem) };
        // A stub leads to where the addend pointed, unless that counts from the stub.
        let addend = match leads_with_addend::<A>(kind, state.facts) {
            true => A::branch_addend(kind),
            false => fixup.addend,
        };
        let symbol_flags = A::stub_flags(key.kind);
        let through_stub = true;
        A::apply(
            kind,
            bytes,
            relocation.offset,
            Fixup { target, addend, symbol_flags, through_stub, ..fixup },
        )
    }

    #[inline]
    fn slot<A: Architecture>(&self, key: SlotKey) -> Result<u64, FixupProblem> {
        let word = self.object.tables.slot(key).ok_or(FixupProblem::Unsupported("this GOT entry"))?;
        Ok(self.object.addresses.slots.wrapping_add(word * A::SLOT_SIZE))
    }

    fn stub<A: Architecture>(&self, key: StubKey) -> Option<u64> {
        Some(self.object.stub_address::<A>(self.object.tables.stub(key)?))
    }

    fn size(&self, symbol: u32) -> u64 {
        self.object.graph.symbols.get(symbol as usize).map_or(0, |symbol| symbol.size)
    }

    /// The address that a GOT entry or a stub is to lead to.
    fn pointer<A: Architecture>(&self, symbol: u32, addend: i64) -> u64 {
        let Symbols { states, imports, .. } = &self.object.symbols;
        if let Ok(found) = imports.binary_search_by_key(&symbol, |(import, _)| *import) {
            return imports[found].1;
        }
        let state = &states[symbol as usize];
        let address = match addend {
            0 => state.address,
            // Addresses wrap round at the machine's own width.
            _ if A::SLOT_SIZE == 4 => u64::from(state.address.wrapping_add_signed(addend) as u32),
            _ => state.address.wrapping_add_signed(addend),
        };
        A::pointer_value(address, state.flags)
    }

    #[inline(never)]
    fn write_slots<A: Architecture>(&self, read_only: &mut [u8]) -> Result<(), LoadError> {
        let Object { tables, addresses, .. } = self.object;
        let slots = &mut read_only[addresses.slots_offset as usize..];
        for (key, word) in tables.slots() {
            let slot = &mut slots[(word * A::SLOT_SIZE) as usize..];
            self.write_slot::<A>(key, slot).map_err(|problem| {
                let what = format!("GOT entry for `{}`", self.object.graph.symbol_label(key.symbol));
                LoadError::malformed(what, problem.to_string())
            })?;
        }
        Ok(())
    }

    fn write_slot<A: Architecture>(&self, key: SlotKey, slot: &mut [u8]) -> Result<(), FixupProblem> {
        if key.kind == SlotKind::Address {
            return write_word::<A>(slot, self.pointer::<A>(key.symbol, key.addend));
        }
        let state = &self.object.symbols.states[key.symbol as usize];
        let words = self.threads.slot::<A>(key.kind, state)?;
        for (word, place) in words
            .into_iter()
            .zip(slot.chunks_exact_mut(A::SLOT_SIZE as usize))
            .take(key.kind.words() as usize)
        {
            // Of 32 bits: offsets may be negative.
            let word = if A::SLOT_SIZE == 4 { u64::from(word as u32) } else { word };
            write_word::<A>(place, word)?;
        }
        Ok(())
    }

    #[inline(never)]
    fn write_stubs<A: Architecture>(&self, code: &mut [u8]) -> Result<(), LoadError> {
        let Object { tables, .. } = self.object;
        for (number, key) in (0..).zip(tables.stubs()) {
            let offset = self.object.stub_offset::<A>(number) as usize;
            let stub = &mut code[offset..offset + A::STUB_SIZE as usize];
            self.write_stub::<A>(*key, stub).map_err(|problem| {
                let what = format!("stub for `{}`", self.object.graph.symbol_label(key.symbol));
                LoadError::malformed(what, problem.to_string())
            })?;
        }
        Ok(())
    }

    fn write_stub<A: Architecture>(&self, key: StubKey, stub: &mut [u8]) -> Result<(), FixupProblem> {
        let StubKey { symbol, kind, addend, .. } = key;
        let slot = match A::STUB_USES_SLOT {
            true => self.slot::<A>(SlotKey { symbol, kind: SlotKind::Address, addend })?,
            false => 0,
        };
        let place = self.stub::<A>(key).unwrap_or(0);
        let target = self.pointer::<A>(symbol, addend);
        let got = self.object.addresses.got;
        A::write_stub(kind, stub, place, Stub { slot, target, got })
    }
}

/// One relocation where it stands.
pub(super) struct Place<'p, 'a> {
    /// Number of the section.
    pub(super) number: usize,
    pub(super) section: &'p Section<'a>,
    /// Number of the relocation in its table.
    pub(super) index: usize,
    pub(super) relocation: Relocation,
}

/// How many relocations a fix-up took care of.
pub(super) enum Consumed {
    One,
    /// And a later one, of that number.
    With(usize),
}

/// Writes an address of the target.
fn write_word<A: Architecture>(slot: &mut [u8], address: u64) -> Result<(), FixupProblem> {
    if A::SLOT_SIZE == 8 {
        let bytes = if A::BIG_ENDIAN { address.to_be_bytes() } else { address.to_le_bytes() };
        *field(slot, 0)? = bytes;
    } else {
        let word = u32::try_from(address);
        let word = word.map_err(|_| FixupProblem::OutOfRange { value: address as i64, bits: 32 })?;
        *field(slot, 0)? = if A::BIG_ENDIAN { word.to_be_bytes() } else { word.to_le_bytes() };
    }
    Ok(())
}
