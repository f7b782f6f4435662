//! GOT and stubs: which symbols need an entry, decided by one look at every relocation.
//!
//! A branch to a symbol outside of the image gets a stub next to the code, because memory managers place images
//! anywhere and a 32-bit displacement reaches 2 GiB; the stub is only used when the target is out of reach. So does every
//! branch when the image itself may be larger than a branch reaches. The same look tells whether the code holds 31-bit
//! addresses of itself, which decides where the image must be.

use std::ops::Range;

use super::survey::Survey;
use super::symbols::{Facts, SymbolState, Symbols};
use super::thread_relax::{ThreadAccesses, is_consumed};
use crate::arch::{Architecture, Operand, Simple, SimpleKinds, SlotKind};
use crate::error::{FixupError, FixupProblem, LoadError, printable};
use crate::graph::{Binding, LinkGraph, Relocation, RelocationTable, Role, Section};
use crate::memory::Segment;

/// The GOT entries and stubs of an object.
#[derive(Default)]
pub(crate) struct Tables {
    /// Numbers of the GOT entries that hold just a symbol's address, by symbol; empty when there are none.
    address_slots: Vec<u32>,
    /// All other GOT entries, sorted; they follow.
    other_slots: Vec<OtherSlot>,
    /// Words of all GOT entries together.
    pub(crate) slot_words: u64,
    /// Sorted; the position is the number.
    stubs: Vec<StubKey>,
    /// Each section has stubs of its own.
    islands: bool,
    /// The code holds absolute addresses of itself that only reach the lowest 2 GiB.
    pub(crate) low_2gib: bool,
}

/// A GOT entry other than a symbol's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotKey {
    pub(crate) symbol: u32,
    pub(crate) kind: SlotKind,
    /// Added to the symbol's address.
    pub(crate) addend: i64,
}

impl SlotKey {
    /// Of a relocation's slot. The one for the module is the same whatever the symbol.
    pub(crate) fn of(kind: SlotKind, symbol: u32) -> Self {
        let symbol = if kind == SlotKind::ThreadModule { 0 } else { symbol };
        SlotKey { symbol, kind, addend: 0 }
    }
}

#[derive(Debug, Clone, Copy)]
struct OtherSlot {
    key: SlotKey,
    /// Number of its first word.
    word: u32,
}

/// A stub: a jump to a symbol, or to a place at some distance from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StubKey {
    /// Number of the section whose branches use it, or [`StubKey::SHARED`].
    pub(crate) section: u32,
    pub(crate) symbol: u32,
    pub(crate) kind: u8,
    pub(crate) addend: i64,
}

impl StubKey {
    /// All sections use it.
    pub(crate) const SHARED: u32 = u32::MAX;
}

impl SlotKind {
    /// Words of a GOT entry.
    pub(crate) fn words(self) -> u32 {
        match self {
            SlotKind::Address | SlotKind::ThreadOffset | SlotKind::BlockOffset => 1,
            SlotKind::ThreadIndex | SlotKind::ThreadModule | SlotKind::ThreadDescriptor => 2,
        }
    }
}

impl Tables {
    const NO_SLOT: u32 = u32::MAX;

    /// Number of the first word of a GOT entry.
    #[inline]
    pub(crate) fn slot(&self, key: SlotKey) -> Option<u64> {
        if key.kind == SlotKind::Address && key.addend == 0 {
            let word = *self.address_slots.get(key.symbol as usize)?;
            return (word != Self::NO_SLOT).then_some(u64::from(word));
        }
        let found = self.other_slots.binary_search_by_key(&key, |slot| slot.key).ok()?;
        Some(u64::from(self.other_slots[found].word))
    }

    /// All GOT entries with the number of their first word.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (SlotKey, u64)> + '_ {
        let addresses = self.address_slots.iter().enumerate().filter(|(_, word)| **word != Self::NO_SLOT);
        let addresses = addresses.map(|(symbol, word)| {
            (SlotKey { symbol: symbol as u32, kind: SlotKind::Address, addend: 0 }, u64::from(*word))
        });
        addresses.chain(self.other_slots.iter().map(|slot| (slot.key, u64::from(slot.word))))
    }

    /// Number of a stub, for a branch in the section that the key names.
    pub(crate) fn stub(&self, key: StubKey) -> Option<u64> {
        let find = |key| self.stubs.binary_search(&key).ok();
        let own = if self.islands { find(key) } else { None };
        let found = own.or_else(|| find(StubKey { section: StubKey::SHARED, ..key }));
        found.map(|number| number as u64)
    }

    /// Numbers of the stubs that only branches of one section use.
    pub(crate) fn stubs_of(&self, section: u32) -> Range<u64> {
        let start = self.stubs.partition_point(|key| key.section < section);
        let end = self.stubs.partition_point(|key| key.section <= section);
        start as u64..end as u64
    }

    /// The stubs by number.
    pub(crate) fn stubs(&self) -> &[StubKey] {
        &self.stubs
    }
}

/// Plans the tables, and refuses what cannot be relocated whatever the addresses will be. `everything_is_near`: every
/// branch within the image reaches its target. `islands`: sections may be far from each other, so each needs its own stubs.
pub(super) fn plan<A: Architecture>(
    graph: &LinkGraph<'_>,
    survey: &Survey,
    symbols: &mut Symbols,
    thread_accesses: &ThreadAccesses,
    everything_is_near: bool,
    islands: bool,
    binds_indirect: bool,
) -> Result<Tables, LoadError> {
    let mut plan = Plan { everything_is_near, islands, binds_indirect, ..Plan::default() };
    for (number, section) in survey.loaded(&graph.sections) {
        if section.relocations.len() == 0 {
            continue;
        }
        let consumed = thread_accesses.consumed_of(number);
        let explicit = !section.relocations.has_implicit_addends();
        let simple = if explicit && everything_is_near { A::simple(graph.format) } else { SimpleKinds::NONE };
        let mut next = 0;
        loop {
            next = skip_settled(simple, &symbols.states, &section.relocations, next);
            let Some(relocation) = section.relocations.get(next) else { break };
            if !is_consumed(consumed, next) {
                plan.look_at::<A>(graph, number, relocation, symbols, thread_accesses)?;
            }
            next += 1;
        }
    }
    match plan.any {
        true => plan.number::<A>(graph, symbols),
        false => Ok(Tables { low_2gib: plan.low_2gib, ..Tables::default() }),
    }
}

/// The number of the first relocation from `start` on that is to be looked at. On its own, so that what it works with stays
/// in registers.
#[inline(never)]
fn skip_settled(
    kinds: SimpleKinds,
    states: &[SymbolState],
    relocations: &RelocationTable<'_>,
    start: usize,
) -> usize {
    relocations.skip_while(start, |_, relocation| {
        let simple = kinds.find(relocation.raw_kind);
        simple
            .zip(states.get(relocation.symbol as usize))
            .is_some_and(|(simple, state)| is_settled(simple, state.facts))
    })
}

/// Whether the relocation asks for nothing that is not planned already. What most objects are full of: the image's own
/// symbols, in reach; and functions of others, called again.
#[inline(always)]
fn is_settled(simple: Simple, facts: Facts) -> bool {
    let is_known_external = || facts.only(Facts::SPECIAL) == Facts::EXTERNAL && facts.has(Facts::REFERENCED);
    match simple {
        Simple::Relative32 => !facts.has(Facts::SPECIAL),
        Simple::Branch32 => !facts.has(Facts::SPECIAL) || is_known_external() && facts.has(Facts::STUB),
        Simple::Absolute64 => !facts.has(Facts::SPECIAL) || is_known_external(),
    }
}

#[derive(Default)]
struct Plan {
    everything_is_near: bool,
    islands: bool,
    /// Indirect functions have stubs of their own.
    binds_indirect: bool,
    low_2gib: bool,
    any: bool,
    stubs: Vec<StubKey>,
    other_slots: Vec<SlotKey>,
}

impl Plan {
    #[inline(never)]
    fn look_at<A: Architecture>(
        &mut self,
        graph: &LinkGraph<'_>,
        number: usize,
        relocation: Relocation,
        symbols: &mut Symbols,
        thread_accesses: &ThreadAccesses,
    ) -> Result<(), LoadError> {
        let section = &graph.sections[number];
        self.check_subtrahend::<A>(graph, section, relocation, symbols)?;
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
        let operand = operand::<A>(kind, *facts, thread_accesses);
        if facts.has(Facts::IMPORT) && !facts.has(Facts::DEFINED_ELSEWHERE) {
            // A pointer that is to be in this image, so in reach of all of it.
            facts.add(Facts::SLOT.and(Facts::REFERENCED));
            self.any = true;
            return Ok(());
        }
        if facts.has(Facts::NOT_LOADED.and(Facts::THREAD_LOCAL).and(Facts::INDIRECT)) {
            if facts.has(Facts::INDIRECT) && !self.binds_indirect {
                let problem = FixupProblem::Unsupported("an indirect function (STT_GNU_IFUNC)");
                return Err(refuse::<A>(graph, section, relocation, problem));
            }
            check_target::<A>(graph, section, relocation, *facts, operand)?;
        }
        if is_thread_local(operand) && !facts.has(Facts::THREAD_LOCAL) && operand != MODULE {
            if !facts.has(Facts::EXTERNAL.and(Facts::DEFINED_ELSEWHERE)) {
                let problem = FixupProblem::Unsupported("a thread-local access to what is not thread-local");
                return Err(refuse::<A>(graph, section, relocation, problem));
            }
            facts.add(Facts::THREAD_LOCAL);
            symbols.seen.add(Facts::THREAD_LOCAL);
        }
        match operand {
            Operand::None | Operand::Got | Operand::Size | Operand::Alignment => return Ok(()),
            Operand::ThreadOffset | Operand::BlockOffset => {}
            Operand::Symbol | Operand::SectionOffset | Operand::SectionNumber | Operand::PairedLow => {}
            Operand::LowSymbol | Operand::NearSymbol | Operand::Branch | Operand::ImageOffset => {
                let external = facts.has(Facts::EXTERNAL);
                let may_be_far = external || !self.everything_is_near;
                let flags = match facts.has(Facts::DEFINED_ELSEWHERE) {
                    true => A::foreign_flags(state.flags),
                    false => state.flags,
                };
                let needs_stub = || A::needs_stub(kind, section.bytes, relocation.offset, flags);
                let is_branch = may_use_stub::<A>(section, kind, relocation);
                if operand == Operand::LowSymbol && !external {
                    self.low_2gib = true;
                } else if is_branch && (may_be_far || operand == Operand::Branch && needs_stub()) {
                    let mut key = stub_key::<A>(section, kind, relocation, *facts, flags);
                    // What is not code cannot have code behind it.
                    let own = self.islands && section.segment == Some(Segment::Code);
                    key.section = if own { number as u32 } else { StubKey::SHARED };
                    self.add_stub(key, facts);
                } else if external
                    && operand == Operand::NearSymbol
                    && (facts.has(Facts::WEAK) || host_is_low())
                {
                    // Data that is reached without the GOT: code for a program. A weak symbol may well be zero.
                    // Otherwise the data is the shared libraries', beside which the system puts our memory, or
                    // that of a host which was itself linked low.
                    self.low_2gib = true;
                }
            }
            Operand::Slot(SlotKind::Address) => {
                facts.add(Facts::SLOT);
                self.any = true;
            }
            Operand::Slot(slot) => {
                self.other_slots.push(SlotKey::of(slot, relocation.symbol));
                self.any = true;
                if slot == SlotKind::ThreadModule {
                    return Ok(());
                }
            }
        }
        facts.add(Facts::REFERENCED);
        Ok(())
    }

    /// What is subtracted has an address.
    fn check_subtrahend<A: Architecture>(
        &self,
        graph: &LinkGraph<'_>,
        section: &Section<'_>,
        relocation: Relocation,
        symbols: &mut Symbols,
    ) -> Result<(), LoadError> {
        if relocation.subtrahend == Relocation::NO_SYMBOL {
            return Ok(());
        }
        match symbols.states.get_mut(relocation.subtrahend as usize) {
            Some(state) => {
                if state.facts.has(Facts::NOT_LOADED) {
                    let named = Relocation { symbol: relocation.subtrahend, ..relocation };
                    check_target::<A>(graph, section, named, state.facts, Operand::Symbol)?;
                }
                state.facts.add(Facts::REFERENCED);
                Ok(())
            }
            None => Err(no_such_symbol(section, Relocation { symbol: relocation.subtrahend, ..relocation })),
        }
    }

    /// The stub of kind 0 at the symbol itself is what all but all branches need, so that one is noted once.
    fn add_stub(&mut self, key: StubKey, facts: &mut Facts) {
        self.any = true;
        if key.kind == 0 && key.addend == 0 && !self.islands {
            if facts.has(Facts::STUB) {
                return;
            }
            facts.add(Facts::STUB);
        }
        self.stubs.push(key);
    }

    /// Entries that relocations refer to come first, those that only a stub jumps through follow.
    #[inline(never)]
    fn number<A: Architecture>(
        mut self,
        graph: &LinkGraph<'_>,
        symbols: &Symbols,
    ) -> Result<Tables, LoadError> {
        let mut tables = Tables { low_2gib: self.low_2gib, ..Tables::default() };
        self.stubs.sort_unstable();
        self.stubs.dedup();
        let mut words = 0;
        tables.address_slots = vec![Tables::NO_SLOT; symbols.states.len()];
        if self.other_slots.is_empty() {
            for (slot, SymbolState { facts, .. }) in tables.address_slots.iter_mut().zip(&symbols.states) {
                if facts.has(Facts::SLOT) {
                    *slot = words;
                    words += 1;
                }
            }
        } else {
            words = self.number_all(graph, symbols, &mut tables)?;
        }
        if A::STUB_USES_SLOT {
            for stub in &self.stubs {
                let slot = &mut tables.address_slots[stub.symbol as usize];
                if stub.addend != 0 {
                    let key = SlotKey { symbol: stub.symbol, kind: SlotKind::Address, addend: stub.addend };
                    tables.other_slots.push(OtherSlot { key, word: 0 });
                } else if *slot == Tables::NO_SLOT {
                    *slot = words;
                    words += 1;
                }
            }
        }
        tables.other_slots.sort_unstable_by_key(|slot| slot.key);
        tables.other_slots.dedup_by_key(|slot| slot.key);
        for slot in tables.other_slots.iter_mut().filter(|slot| slot.key.kind == SlotKind::Address) {
            slot.word = words;
            words += slot.key.kind.words();
        }
        tables.slot_words = u64::from(words);
        tables.stubs = self.stubs;
        tables.islands = self.islands;
        Ok(tables)
    }

    /// Numbers the words of all entries when some are of thread-local variables, in the order of `ld.lld`: that of the
    /// module, those of global symbols, those of local ones.
    #[cold]
    fn number_all(
        &mut self,
        graph: &LinkGraph<'_>,
        symbols: &Symbols,
        tables: &mut Tables,
    ) -> Result<u32, LoadError> {
        let with_address =
            symbols.states.iter().enumerate().filter(|(_, state)| state.facts.has(Facts::SLOT));
        let with_address = with_address.map(|(symbol, _)| SlotKey::of(SlotKind::Address, symbol as u32));
        let mut ordered = Vec::new();
        for key in with_address.chain(self.other_slots.drain(..)) {
            let is_module = key.kind == SlotKind::ThreadModule;
            let is_local = graph.symbols.get(key.symbol as usize)?.binding == Binding::Local;
            ordered.push((!is_module, is_local, key.symbol, order_of(key.kind), key));
        }
        ordered.sort_unstable();
        ordered.dedup();
        let mut words = 0;
        for (.., key) in ordered {
            match key.kind {
                SlotKind::Address => tables.address_slots[key.symbol as usize] = words,
                _ => tables.other_slots.push(OtherSlot { key, word: words }),
            }
            words += key.kind.words();
        }
        Ok(words)
    }
}

/// Of the entries of one symbol.
fn order_of(kind: SlotKind) -> u8 {
    match kind {
        SlotKind::ThreadModule | SlotKind::Address => 0,
        SlotKind::ThreadDescriptor => 1,
        SlotKind::ThreadIndex => 2,
        SlotKind::BlockOffset => 3,
        SlotKind::ThreadOffset => 4,
    }
}

/// The stub that a branch may use, shared by all sections.
pub(super) fn stub_key<A: Architecture>(
    section: &Section<'_>,
    kind: A::Kind,
    relocation: Relocation,
    facts: Facts,
    symbol_flags: u8,
) -> StubKey {
    let stub_kind = A::stub_kind(kind, symbol_flags);
    if !leads_with_addend::<A>(kind, facts) {
        return StubKey { section: StubKey::SHARED, symbol: relocation.symbol, kind: stub_kind, addend: 0 };
    }
    let addend = addend::<A>(section, kind, relocation).wrapping_sub(A::branch_addend(kind));
    StubKey { section: StubKey::SHARED, symbol: relocation.symbol, kind: stub_kind, addend }
}

/// The addend that is in the table and the field together, as the object has them.
fn addend<A: Architecture>(section: &Section<'_>, kind: A::Kind, relocation: Relocation) -> i64 {
    let implicit = match section.relocations.has_implicit_addends() {
        true => A::implicit_addend(kind, section.bytes, relocation.offset).unwrap_or(0),
        false => 0,
    };
    relocation.addend.wrapping_add(implicit)
}

/// Whether the addend of a branch tells where its stub leads. What others define is jumped to at its start, and an addend
/// counts from the stub, unless the ABI knows no stub there. What this object defines may be given as its section and a
/// distance.
pub(super) fn leads_with_addend<A: Architecture>(kind: A::Kind, facts: Facts) -> bool {
    !facts.has(Facts::EXTERNAL.and(Facts::DEFINED_ELSEWHERE)) || A::addend_leads(kind)
}

/// What a relocation against such a symbol is made from.
#[inline]
pub(super) fn operand<A: Architecture>(
    kind: A::Kind,
    facts: Facts,
    thread_accesses: &ThreadAccesses,
) -> Operand {
    if let Some(operand) = thread_accesses.operand::<A>(kind) {
        return operand;
    }
    if facts.has(Facts::THREAD_LOCAL) { A::thread_local_operand(kind) } else { A::operand(kind) }
}

/// Has no symbol.
const MODULE: Operand = Operand::Slot(SlotKind::ThreadModule);

fn is_thread_local(operand: Operand) -> bool {
    match operand {
        Operand::ThreadOffset | Operand::BlockOffset => true,
        Operand::Slot(kind) => kind != SlotKind::Address,
        _ => false,
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
    if matches!(operand, Operand::None | Operand::Got | Operand::Size | Operand::Alignment) {
        Ok(())
    } else if facts.has(Facts::THREAD_LOCAL) && !is_thread_local(operand) {
        refuse(FixupProblem::Unsupported("the address of a thread-local variable"))
    } else if !facts.has(Facts::NOT_LOADED)
        || is_unwind_table(section)
        || facts.has(Facts::EXTERNAL.and(Facts::DEFINED_ELSEWHERE))
    {
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
    kind: A::Kind,
    relocation: Relocation,
) -> bool {
    match A::operand(kind) {
        Operand::Branch | Operand::ImageOffset => true,
        Operand::NearSymbol if section.segment == Some(Segment::Code) => {
            A::is_branch(section.bytes, relocation.offset, addend::<A>(section, kind, relocation))
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
