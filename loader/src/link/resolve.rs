//! Resolve: an address for every symbol that something refers to, and the list of those that others may refer to.

use super::bounds::{self, Bounds};
use super::exports::{ExportBuilder, Exports, NamedExports};
use super::layout::ImageAddresses;
use super::scope::{Definition, Scope};
use super::symbols::{Facts, IMPORT_PREFIX, SymbolState};
use super::tables::SlotKey;
use super::threads::TLS_MODULE_BASE;
use super::{Environment, Object};
use crate::arch::{Architecture, SlotKind};
use crate::error::{LoadError, UnresolvedSymbol, UnresolvedSymbols, printable};
use crate::exit;
use crate::graph::{
    DecodeSymbols, Format, LinkGraph, Symbol, SymbolKind, SymbolLabel, SymbolPlace, of_every_format,
};
use crate::limits::NameBudget;
use crate::process;
use crate::resolver::SymbolResolver;
use crate::tls;

/// Fills in all addresses. A weak symbol that nobody defines is zero; a strong one is an error, which names all.
pub(super) fn resolve<A: Architecture>(
    objects: &mut [Object<'_>],
    scope: &Scope<'_>,
    bounds: &Bounds,
    image: &ImageAddresses,
    environment: &Environment<'_>,
) -> Result<(), LoadError> {
    for object in &mut *objects {
        object.symbols.first_elsewhere = resolve_own(object);
    }
    let mut budget = NameBudget::of(environment.limits);
    for number in 0..objects.len() {
        let mut states = std::mem::take(&mut objects[number].symbols.states);
        let mut elsewhere = Elsewhere {
            objects,
            object: &objects[number],
            number,
            scope,
            bounds,
            image,
            resolver: environment.resolver,
            addresses_are_pointers: environment.memory.executes_here(),
            budget: &mut budget,
            registers_destructors: false,
            calls_atexit: false,
            throws: false,
            refers_out: false,
            imports: Vec::new(),
            unresolved: Vec::new(),
            unresolved_count: 0,
        };
        let mut result = Ok(());
        for symbol in objects[number].symbols.first_elsewhere..states.len() {
            let mut state = states[symbol];
            if state.section == SymbolState::NO_SECTION && !is_number(state.facts) {
                result = elsewhere.fill_in::<A>(symbol, &mut state, &states);
                if result.is_err() {
                    break;
                }
                states[symbol] = state;
            }
        }
        let (registers_destructors, throws) = (elsewhere.registers_destructors, elsewhere.throws);
        let (refers_out, calls_atexit) = (elsewhere.refers_out, elsewhere.calls_atexit);
        let imports = std::mem::take(&mut elsewhere.imports);
        let resolved = result.and_then(|()| elsewhere.into_result());
        let symbols = &mut objects[number].symbols;
        symbols.states = states;
        symbols.registers_destructors = registers_destructors;
        symbols.calls_atexit = calls_atexit;
        symbols.throws = throws;
        symbols.refers_out = refers_out;
        symbols.imports = imports;
        resolved.map_err(|error| error.of_object(objects[number].graph.name))?;
    }
    Ok(())
}

/// An absolute symbol, which is its own address.
#[inline]
fn is_number(facts: Facts) -> bool {
    let otherwise =
        Facts::UNDEFINED.and(Facts::NOT_LOADED).and(Facts::DEFINED_ELSEWHERE).and(Facts::PREEMPTED);
    facts.has(Facts::EXTERNAL) && !facts.has(otherwise)
}

/// Symbols in sections and common ones. Gives the number of the first that is to be found elsewhere.
fn resolve_own(object: &mut Object<'_>) -> usize {
    let Object { graph, symbols, addresses, .. } = object;
    let mut first = symbols.states.len();
    for (number, state) in symbols.states.iter_mut().enumerate() {
        if let Some(section) = graph.sections.get(state.section as usize) {
            state.address = section.address.wrapping_add(state.address);
            continue;
        }
        if state.facts.has(Facts::COMMON) && !state.facts.has(Facts::DEFINED_ELSEWHERE) {
            state.address = addresses.commons.wrapping_add(state.address);
        }
        if !is_number(state.facts) {
            first = first.min(number);
        }
    }
    first
}

/// Lists what others may refer to.
pub(super) fn exports<A: Architecture>(objects: &[Object<'_>]) -> Result<Exports, LoadError> {
    let count = objects.iter().map(|object| object.symbols.exported).sum();
    // The one object's string table is taken as it is; if there are several, or few names, those are gathered.
    if let ([object], true) = (objects, count > Exports::SCANNED) {
        if let Some(strings) = object.graph.symbols.strings() {
            let mut exports = ExportBuilder::new(count, strings);
            of_every_format!(&object.graph.symbols, table => {
                each_export::<A>(object, table, |label, weak, address| exports.add(label, weak, address));
            });
            return Ok(exports.finish());
        }
    }
    let mut exports = NamedExports::default();
    for object in objects {
        of_every_format!(&object.graph.symbols, table => {
            each_export::<A>(object, table, |label, weak, address| {
                // A name longer than anybody may ask for is no export.
                if let Ok(name) = table.name(label.name) {
                    exports.add(label, weak, address, name);
                }
            });
        });
    }
    Ok(exports.finish())
}

/// Gives each exported symbol: its label, whether it is weak, its address as a pointer.
#[inline(always)]
fn each_export<A: Architecture>(
    object: &Object<'_>,
    table: &impl DecodeSymbols,
    mut each: impl FnMut(SymbolLabel, bool, u64),
) {
    let Object { graph, symbols, .. } = object;
    for (number, state) in symbols.states.iter().enumerate() {
        if !state.facts.has(Facts::EXPORTED) {
            continue;
        }
        let mut label = table.label(number);
        if let Some(section) = graph.sections.get(state.section as usize) {
            // No more than its section has from there on: readers of the image rely on it.
            let offset = state.address.wrapping_sub(section.address);
            label.size = label.size.min(section.size.saturating_sub(offset));
        }
        each(label, state.facts.has(Facts::WEAK), A::pointer_value(state.address, state.flags));
    }
}

/// Finds symbols that are in no loaded section of their object.
struct Elsewhere<'e, 'a> {
    /// All objects of the link; the symbols of the one at work are taken out meanwhile.
    objects: &'e [Object<'a>],
    object: &'e Object<'a>,
    number: usize,
    scope: &'e Scope<'a>,
    bounds: &'e Bounds,
    image: &'e ImageAddresses,
    resolver: &'e dyn SymbolResolver,
    addresses_are_pointers: bool,
    budget: &'e mut NameBudget,
    registers_destructors: bool,
    calls_atexit: bool,
    throws: bool,
    refers_out: bool,
    /// As [`Symbols::imports`](super::symbols::Symbols::imports).
    imports: Vec<(u32, u64)>,
    /// The first of those that nobody knows.
    unresolved: Vec<u32>,
    unresolved_count: usize,
}

impl Elsewhere<'_, '_> {
    fn fill_in<A: Architecture>(
        &mut self,
        number: usize,
        state: &mut SymbolState,
        own: &[SymbolState],
    ) -> Result<(), LoadError> {
        if state.facts.has(Facts::DEFINED_ELSEWHERE) {
            return self.take_over::<A>(number, state, own);
        }
        let graph = &self.object.graph;
        let symbol = graph.symbols.get(number)?;
        if state.facts.has(Facts::PREEMPTED) {
            return match state.facts.has(Facts::REFERENCED) {
                true => self.undefined::<A>(number, &symbol, state, own),
                false => Ok(()),
            };
        }
        match symbol.place {
            SymbolPlace::Common => return Ok(()),
            SymbolPlace::Section(_) => self.check_discarded(&symbol, state.facts)?,
            SymbolPlace::Absolute => return Ok(()),
            SymbolPlace::Undefined if state.facts.has(Facts::REFERENCED) => {
                return self.undefined::<A>(number, &symbol, state, own);
            }
            // Named beside an operand that needs no symbol, as the GOT is.
            SymbolPlace::Undefined => {
                if let Some(address) = self.synthesized(graph.symbols.name(&symbol)?) {
                    state.facts.add(Facts::SYNTHESIZED);
                    state.address = address;
                    return Ok(());
                }
            }
        }
        state.address = 0;
        Ok(())
    }

    /// Address and flags of the definition that is meant instead.
    #[cold]
    fn take_over<A: Architecture>(
        &mut self,
        number: usize,
        state: &mut SymbolState,
        own: &[SymbolState],
    ) -> Result<(), LoadError> {
        let graph = &self.object.graph;
        let name = graph.symbols.name(&graph.symbols.get(number)?)?;
        let Some(meant) = self.scope.definition(name) else { return Ok(()) };
        (state.address, state.flags) = self.definition::<A>(meant, own)?;
        let object = &self.objects[meant.object as usize].graph;
        if object.symbols.get(meant.symbol as usize)?.kind == SymbolKind::IndirectFunction {
            if !self.addresses_are_pointers || !A::STUB_USES_SLOT {
                let what = format!("`{}`: an indirect function (STT_GNU_IFUNC)", printable(name));
                return Err(LoadError::unsupported(what));
            }
            state.facts.add(Facts::INDIRECT);
        }
        Ok(())
    }

    /// Address and flags of a definition.
    fn definition<A: Architecture>(
        &self,
        meant: Definition,
        own: &[SymbolState],
    ) -> Result<(u64, u8), LoadError> {
        let object = &self.objects[meant.object as usize];
        let symbol = object.graph.symbols.get(meant.symbol as usize)?;
        let (value, flags) = A::symbol_value(symbol);
        let flags = if meant.object as usize == self.number { flags } else { A::foreign_flags(flags) };
        let address = match symbol.place {
            SymbolPlace::Section(section) => {
                let section = &object.graph.sections[section as usize];
                let offset =
                    object.graph.cuts.get(section.cuts as usize).map_or(value, |cuts| cuts.moved(value));
                section.address.wrapping_add(offset)
            }
            SymbolPlace::Absolute => value,
            SymbolPlace::Common | SymbolPlace::Undefined => {
                let is_own = meant.object as usize == self.number;
                let states = if is_own { own } else { &object.symbols.states };
                states[meant.symbol as usize].address
            }
        };
        Ok((address, flags))
    }

    fn undefined<A: Architecture>(
        &mut self,
        number: usize,
        symbol: &Symbol,
        state: &mut SymbolState,
        own: &[SymbolState],
    ) -> Result<(), LoadError> {
        let name = self.object.graph.symbols.name(symbol)?;
        self.budget.spend(name)?;
        self.registers_destructors |= may_register_destructors(name);
        self.throws |= may_throw(name);
        let synthesized = self.synthesized(name);
        if synthesized.is_some() {
            state.facts.add(Facts::SYNTHESIZED);
        }
        self.refers_out |= synthesized.is_none();
        let weak = state.facts.has(Facts::WEAK);
        let found = synthesized.or_else(|| self.ask(name, weak));
        let found = if name == ATEXIT { self.atexit(found) } else { found };
        if let Some(address) = found {
            (state.address, state.flags) = A::external_value(address, self.addresses_are_pointers);
            return Ok(());
        }
        (state.address, state.flags) = A::external_value(0, self.addresses_are_pointers);
        if state.facts.has(Facts::IMPORT) && self.import::<A>(number, name, state, own)? {
            state.facts.add(Facts::SYNTHESIZED);
            return Ok(());
        }
        if !state.facts.has(Facts::WEAK) {
            self.unresolved_count += 1;
            if self.unresolved.len() < UnresolvedSymbols::SHOWN {
                self.unresolved.push(number as u32);
            }
            return Ok(());
        }
        match self.object.graph.symbols.weak_default(number) {
            Some(default) => self.take_default::<A>(number, default as usize, state, own),
            None => Ok(()),
        }
    }

    /// Makes `__imp_NAME` the symbol's GOT entry, which is to hold the address of NAME. Says whether there is a NAME.
    #[cold]
    fn import<A: Architecture>(
        &mut self,
        number: usize,
        name: &[u8],
        state: &mut SymbolState,
        own: &[SymbolState],
    ) -> Result<bool, LoadError> {
        let Some(name) = name.strip_prefix(IMPORT_PREFIX) else { return Ok(false) };
        let target = match self.scope.definition(name) {
            Some(definition) => Some(self.definition::<A>(definition, own)?),
            None => {
                let address = self.synthesized(name).or_else(|| self.ask(name, false));
                address.map(|address| A::external_value(address, self.addresses_are_pointers))
            }
        };
        let key = SlotKey { symbol: number as u32, kind: SlotKind::Address, addend: 0 };
        let Some(((address, flags), word)) = target.zip(self.object.tables.slot(key)) else {
            return Ok(false);
        };
        state.address = self.object.addresses.slots.wrapping_add(word * A::SLOT_SIZE);
        self.imports.push((number as u32, A::pointer_value(address, flags)));
        Ok(true)
    }

    /// A weak external that nobody defines stands for another symbol of the object, which is none such itself.
    #[cold]
    fn take_default<A: Architecture>(
        &mut self,
        number: usize,
        default: usize,
        state: &mut SymbolState,
        own: &[SymbolState],
    ) -> Result<(), LoadError> {
        let mut meant = own[default];
        if meant.section == SymbolState::NO_SECTION && !meant.facts.has(Facts::WEAK) {
            meant.facts.add(Facts::REFERENCED);
            let known = self.unresolved.len();
            self.fill_in::<A>(default, &mut meant, own)?;
            // It is this symbol that relocations refer to.
            self.unresolved[known..].fill(number as u32);
        }
        (state.address, state.flags) = (meant.address, meant.flags);
        // Even if that is zero, as an absolute address: it is defined.
        state.facts.remove(Facts::WEAK);
        Ok(())
    }

    fn ask(&self, name: &[u8], weak: bool) -> Option<u64> {
        let here = if self.addresses_are_pointers { tls::function(name) } else { None };
        here.or_else(|| {
            let found = ask(self.resolver, name, weak);
            if self.addresses_are_pointers { exit::in_place_of(name, found) } else { found }
        })
    }

    /// In place of the C library's, which would call what is gone, and also where that has it for linkers alone: in both cases
    /// the resolver knows `__cxa_atexit` of this process.
    #[cold]
    fn atexit(&mut self, found: Option<u64>) -> Option<u64> {
        if found.is_some() && found != process::function(c"atexit") {
            return found;
        }
        let ours = self.ask(b"__cxa_atexit", false).and_then(exit::atexit);
        self.registers_destructors |= ours.is_some();
        self.calls_atexit = ours.is_some();
        ours.or(found)
    }

    /// Names the loader defines itself come first: they mean this image.
    fn synthesized(&self, name: &[u8]) -> Option<u64> {
        let Object { graph, addresses, .. } = self.object;
        match name {
            GOT | b".TOC." => Some(addresses.got),
            DSO_HANDLE | MACHO_DSO_HANDLE => Some(self.image.image),
            _ if graph.format == Format::Coff && is_image_base(name) => Some(self.image.image),
            // `threads` knows where it is.
            TLS_MODULE_BASE => Some(0),
            _ => self.bounds.address(graph.format, name),
        }
    }

    /// A global of a section that is not loaded, which nobody defines instead, must not be needed.
    #[cold]
    fn check_discarded(&self, symbol: &Symbol, facts: Facts) -> Result<(), LoadError> {
        if facts.has(Facts::EXTERNAL) && facts.has(Facts::REFERENCED) {
            let name = self.object.graph.symbols.name(symbol)?;
            let why = "its section is not loaded, and nothing else defines it";
            return Err(LoadError::malformed(format!("symbol `{}`", printable(name)), why));
        }
        Ok(())
    }

    fn into_result(self) -> Result<(), LoadError> {
        if self.unresolved_count == 0 {
            return Ok(());
        }
        Err(unresolved(&self.object.graph, &self.unresolved, self.unresolved_count))
    }
}

/// What a resolver says of a name.
pub(super) fn ask(resolver: &dyn SymbolResolver, name: &[u8], weak: bool) -> Option<u64> {
    let name = std::str::from_utf8(name).ok()?;
    if weak { resolver.resolve_weak(name) } else { resolver.resolve(name) }
}

/// Whether an undefined symbol of an ELF object may be other than what a resolver says, or say something of the image.
pub(super) fn means_more(name: &[u8]) -> bool {
    may_register_destructors(name)
        || matches!(name, GOT | b".TOC." | TLS_MODULE_BASE | ATEXIT | exit::REGISTRAR)
        || bounds::asks_for_an_end(name)
        || tls::function(name).is_some()
}

/// Whether the object may register destructors of static or thread-local objects: it has the handle for that, or calls what is
/// given one.
fn may_register_destructors(name: &[u8]) -> bool {
    matches!(name, DSO_HANDLE | MACHO_DSO_HANDLE | b"__cxa_thread_atexit" | b"__cxa_thread_atexit_impl")
}

/// Whether exceptions may come out of a function of that name: it throws one itself (Itanium C++ ABI, level II), or is
/// one of C++ or Rust, by its mangling (`_Z`, `_R`). Names of Mach-O have one underscore more.
pub(super) fn may_throw(name: &[u8]) -> bool {
    let throws = |name: &[u8]| {
        let is_mangled = matches!(name, [b'_', b'Z' | b'R', ..]);
        is_mangled
            || matches!(
                name,
                b"__cxa_throw" | b"__cxa_rethrow" | b"_Unwind_RaiseException" | b"_Unwind_Resume"
            )
    };
    matches!(name, [b'_', rest @ ..] if throws(name) || throws(rest))
}

/// The first byte of a COFF image, as Microsoft's and as GNU tools call it, on i386 with an underscore in front.
fn is_image_base(name: &[u8]) -> bool {
    matches!(name, b"__ImageBase" | b"___ImageBase" | b"__image_base__" | b"___image_base__")
}

/// The GOT, by the psABIs' name.
pub(super) const GOT: &[u8] = b"_GLOBAL_OFFSET_TABLE_";

/// What static destructors are registered under (Itanium C++ ABI, 3.3.5.3).
const DSO_HANDLE: &[u8] = b"__dso_handle";

/// C, 7.22.4.2. Registers without a handle.
const ATEXIT: &[u8] = b"atexit";

/// The same as [`DSO_HANDLE`] where C names begin with an underscore.
const MACHO_DSO_HANDLE: &[u8] = b"___dso_handle";

/// The error that names the first of some symbols, ascending, of `total` that nobody knows.
#[cold]
pub(super) fn unresolved(graph: &LinkGraph<'_>, unresolved: &[u32], total: usize) -> LoadError {
    let mut first_places: Vec<Option<String>> = vec![None; unresolved.len()];
    for (section, relocation) in graph.places() {
        if let Ok(found) = unresolved.binary_search(&relocation.symbol) {
            first_places[found]
                .get_or_insert_with(|| format!("{}+{:#x}", printable(section.name), relocation.offset));
        }
    }
    let shown = unresolved.iter().zip(first_places).map(|(number, place)| UnresolvedSymbol {
        name: graph.symbol_label(*number),
        needed_at: place.unwrap_or_default(),
    });
    LoadError::Unresolved(UnresolvedSymbols { shown: shown.collect(), total })
}
