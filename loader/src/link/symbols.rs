//! What the passes know of each symbol, in one array by symbol number.

use super::scope::Scope;
use crate::arch::Architecture;
use crate::error::LoadError;
use crate::graph::{
    Binding, DecodeSymbols, Format, LinkGraph, Section, Symbol, SymbolKind, SymbolPlace, of_every_format,
};
use crate::limits::Limits;

/// Facts about the symbols of an object.
#[derive(Default)]
pub(crate) struct Symbols {
    pub(crate) states: Vec<SymbolState>,
    /// What is true of any of them, as far as the object alone tells.
    pub(crate) seen: Facts,
    /// No symbol before this one has to be looked for outside of the object.
    pub(crate) first_elsewhere: usize,
    /// How many are exported.
    pub(crate) exported: usize,
    /// Size and alignment of the block that holds the common symbols.
    pub(crate) common_size: u64,
    pub(crate) common_align: u64,
    /// Something refers to the `__dso_handle` of the image, or to what registers destructors without. Set by resolving.
    pub(crate) registers_destructors: bool,
    /// Something refers to the `atexit` that is ours. Set by resolving.
    pub(crate) calls_atexit: bool,
    /// Something refers to a function that may throw an exception. Set by resolving.
    pub(crate) throws: bool,
    /// Something refers to what is not of this link. Set by resolving.
    pub(crate) refers_out: bool,
    /// How many are imports ([`Facts::IMPORT`]).
    pub(crate) import_count: usize,
    /// For imports that nobody defines as such, by number: the address that their GOT entries hold. Set by resolving.
    pub(crate) imports: Vec<(u32, u64)>,
}

/// One symbol. Sixteen bytes: a relocation touches one cache line of these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SymbolState {
    /// Target address, set by resolving. Before that, the offset in the section or in the block of common symbols.
    pub(crate) address: u64,
    /// The loaded section it is in; [`SymbolState::NO_SECTION`] for all that are defined otherwise, or not at all.
    pub(crate) section: u32,
    pub(crate) facts: Facts,
    /// [`Fixup::symbol_flags`](crate::arch::Fixup::symbol_flags).
    pub(crate) flags: u8,
}

impl SymbolState {
    pub(crate) const NO_SECTION: u32 = u32::MAX;

    /// Weak, and nobody defines it.
    pub(crate) fn is_undefined_weak(&self) -> bool {
        self.address == 0 && self.facts.has(Facts::WEAK) && self.facts.has(Facts::EXTERNAL)
    }
}

/// A set of facts about one symbol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts(u16);

impl Facts {
    pub(crate) const NONE: Facts = Facts(0);
    /// Not in this image: its address may be anywhere.
    pub(crate) const EXTERNAL: Facts = Facts(1);
    /// In a section that is not loaded.
    pub(crate) const NOT_LOADED: Facts = Facts(2);
    /// Thread-local.
    pub(crate) const THREAD_LOCAL: Facts = Facts(4);
    /// An indirect function.
    pub(crate) const INDIRECT: Facts = Facts(8);
    /// Some relocation needs its address. Not noted for symbols that are simply there.
    pub(crate) const REFERENCED: Facts = Facts(16);
    /// Some relocation needs a GOT entry with its address.
    pub(crate) const SLOT: Facts = Facts(32);
    /// Some branch goes to it and may not reach it: it has a stub of kind 0.
    pub(crate) const STUB: Facts = Facts(64);
    /// A weak symbol.
    pub(crate) const WEAK: Facts = Facts(128);
    /// Others may refer to it.
    pub(crate) const EXPORTED: Facts = Facts(256);
    /// Another definition of the same link is meant, in this object or another.
    pub(crate) const DEFINED_ELSEWHERE: Facts = Facts(512);
    /// A common symbol.
    pub(crate) const COMMON: Facts = Facts(1024);
    /// The loader itself gave it its address.
    pub(crate) const SYNTHESIZED: Facts = Facts(2048);
    /// A COFF symbol `__imp_NAME` that is not defined: a pointer to NAME, made here unless somebody has it.
    pub(crate) const IMPORT: Facts = Facts(4096);
    /// The object only refers to it.
    pub(crate) const UNDEFINED: Facts = Facts(8192);
    /// A weak definition of this object that another one, elsewhere, is used in place of.
    pub(crate) const PREEMPTED: Facts = Facts(16384);
    /// What makes a symbol other than simply there, in this image.
    pub(crate) const SPECIAL: Facts =
        Facts::EXTERNAL.and(Facts::NOT_LOADED).and(Facts::THREAD_LOCAL).and(Facts::INDIRECT);

    #[inline]
    pub(crate) fn has(self, other: Facts) -> bool {
        self.0 & other.0 != 0
    }

    #[inline]
    pub(crate) fn add(&mut self, other: Facts) {
        self.0 |= other.0;
    }

    pub(crate) fn remove(&mut self, other: Facts) {
        self.0 &= !other.0;
    }

    /// Those that are among others.
    #[inline]
    pub(crate) fn only(self, others: Facts) -> Facts {
        Facts(self.0 & others.0)
    }

    pub(crate) const fn and(self, other: Facts) -> Facts {
        Facts(self.0 | other.0)
    }
}

/// Checks every symbol against the sections.
pub(super) fn classify<A: Architecture>(graph: &LinkGraph<'_>) -> Result<Symbols, LoadError> {
    of_every_format!(&graph.symbols, table => classify_all::<A>(graph, table))
}

// On its own and with variables of its own, so that what it works with stays in registers.
#[inline(never)]
fn classify_all<A: Architecture>(
    graph: &LinkGraph<'_>,
    table: &impl DecodeSymbols,
) -> Result<Symbols, LoadError> {
    let mut states = Vec::with_capacity(graph.symbols.len());
    let (mut seen, mut exported, mut import_count) = (Facts::NONE, 0, 0);
    let sections = &graph.sections[..];
    table.try_for_each(|number, symbol| {
        let (mut section, mut facts) = (SymbolState::NO_SECTION, Facts::NONE);
        let (mut address, flags) = A::symbol_value(symbol);
        match symbol.place {
            SymbolPlace::Undefined if is_import(graph, symbol)? => {
                facts = Facts::EXTERNAL.and(Facts::UNDEFINED).and(Facts::IMPORT);
                import_count += 1;
            }
            SymbolPlace::Undefined => facts = Facts::EXTERNAL.and(Facts::UNDEFINED),
            SymbolPlace::Absolute => facts = Facts::EXTERNAL,
            SymbolPlace::Common => facts = Facts::COMMON,
            SymbolPlace::Section(place) => {
                let home = &sections[place as usize];
                if home.segment.is_some() {
                    section = place;
                    if home.is_thread_local() {
                        facts = Facts::THREAD_LOCAL;
                    }
                    address = offset_in(graph, number, home, address)?;
                } else {
                    facts = not_loaded(symbol);
                }
            }
        }
        match symbol.kind {
            SymbolKind::ThreadLocal => facts.add(Facts::THREAD_LOCAL),
            SymbolKind::IndirectFunction => facts.add(Facts::INDIRECT),
            _ => {}
        }
        if symbol.binding == Binding::Weak {
            facts.add(Facts::WEAK);
        }
        if is_exported(symbol, facts) {
            facts.add(Facts::EXPORTED);
            exported += 1;
        }
        seen.add(facts);
        states.push(SymbolState { address, section, facts, flags });
        Ok(())
    })?;
    Ok(Symbols { states, seen, exported, import_count, common_align: 1, ..Symbols::default() })
}

/// What the names of imports begin with (PE format, "Import Name Type").
pub(super) const IMPORT_PREFIX: &[u8] = b"__imp_";

#[inline(always)]
fn is_import(graph: &LinkGraph<'_>, symbol: Symbol) -> Result<bool, LoadError> {
    Ok(graph.format == Format::Coff && graph.symbols.name(&symbol)?.starts_with(IMPORT_PREFIX))
}

#[inline(always)]
pub(super) fn is_exported(symbol: Symbol, facts: Facts) -> bool {
    symbol.binding != Binding::Local
        && !symbol.hidden
        && symbol.place != SymbolPlace::Undefined
        && !matches!(symbol.kind, SymbolKind::Section | SymbolKind::File)
        && !facts.has(Facts::NOT_LOADED.and(Facts::THREAD_LOCAL).and(Facts::INDIRECT))
}

/// Offset in the loaded section.
// Here and below symbols go by value: one that is anywhere borrowed lives in memory, and that takes twice the time.
#[inline(always)]
fn offset_in(
    graph: &LinkGraph<'_>,
    number: usize,
    section: &Section<'_>,
    offset: u64,
) -> Result<u64, LoadError> {
    let offset = if section.cuts == Section::NO_CUTS {
        offset
    } else {
        graph.cuts[section.cuts as usize].moved(offset)
    };
    if offset > section.size {
        return Err(outside(graph, number, offset, section.size));
    }
    Ok(offset)
}

fn not_loaded(symbol: Symbol) -> Facts {
    // A global of a discarded group lives on in the copy that was kept.
    let discarded = symbol.binding != Binding::Local && symbol.kind != SymbolKind::Section;
    if discarded { Facts::NOT_LOADED.and(Facts::EXTERNAL) } else { Facts::NOT_LOADED }
}

#[cold]
fn outside(graph: &LinkGraph<'_>, number: usize, offset: u64, size: u64) -> LoadError {
    LoadError::malformed(
        format!("symbol {number} `{}`", graph.symbol_label(number as u32)),
        format!("its offset {offset:#x} is outside of its section of {size:#x} bytes"),
    )
}

/// Makes room for the common symbols of an object that are not defined elsewhere.
#[inline]
pub(super) fn place_commons(
    graph: &LinkGraph<'_>,
    symbols: &mut Symbols,
    scope: &Scope<'_>,
    limits: &Limits,
) -> Result<(), LoadError> {
    match symbols.seen.has(Facts::COMMON) {
        true => place_some_commons(graph, symbols, scope, limits),
        false => Ok(()),
    }
}

#[cold]
fn place_some_commons(
    graph: &LinkGraph<'_>,
    symbols: &mut Symbols,
    scope: &Scope<'_>,
    limits: &Limits,
) -> Result<(), LoadError> {
    for number in 0..symbols.states.len() {
        let facts = symbols.states[number].facts;
        if facts.has(Facts::COMMON) && !facts.has(Facts::DEFINED_ELSEWHERE) {
            let symbol = graph.symbols.get(number)?;
            let align = scope.common_align(graph.symbols.name(&symbol)?).unwrap_or(symbol.value);
            symbols.states[number].address = symbols.place_common(number, align, symbol.size, limits)?;
        }
    }
    Ok(())
}

impl Symbols {
    /// The value of a common symbol is its alignment.
    fn place_common(
        &mut self,
        number: usize,
        align: u64,
        size: u64,
        limits: &Limits,
    ) -> Result<u64, LoadError> {
        let align = align.max(1);
        let limit = limits.alignment.min(Limits::MAX_ALIGNMENT);
        if !align.is_power_of_two() {
            let why = format!("the alignment {align:#x} of a common symbol is no power of two");
            return Err(LoadError::malformed(format!("symbol {number}"), why));
        }
        if align > limit {
            return Err(LoadError::limit("the alignment of a common symbol", align, limit));
        }
        let start = self.common_size.next_multiple_of(align);
        let end = start.saturating_add(size);
        let limit = limits.bounded_image_bytes();
        if end > limit {
            return Err(LoadError::limit("the size of the common symbols", end, limit));
        }
        self.common_size = end;
        self.common_align = self.common_align.max(align);
        Ok(start)
    }
}
