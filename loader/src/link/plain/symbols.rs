//! Symbols: an address for each that the object defines, and the list of those that others may refer to.

use object::elf;
use object::read::elf::Sym as _;
use smallvec::{SmallVec, smallvec};

use super::sections::Sections;
use super::{FileHeader, ORDER, SymbolEntry};
use crate::graph::{Binding, Symbol, SymbolKind, SymbolLabel, SymbolPlace};
use crate::limits::{Limits, NameBudget};
use crate::link::exports::{ExportBuilder, Exports, NamedExports};
use crate::link::resolve::{GOT, means_more};
use crate::link::symbols::{Facts, is_exported};
use crate::read::elf::{Symbols as Table, read_groups};
use crate::resolver::SymbolResolver;

/// The symbols of an object, and what relocations make of them.
pub(super) struct Symbols<'a> {
    table: Table<'a, FileHeader>,
    /// By symbol number.
    targets: SmallVec<[Target; 16]>,
    budget: NameBudget,
    undefined: u64,
    /// Number of the one that names the GOT, which compilers often name and relocations need not.
    got: Option<usize>,
    /// No more than these are exported, and hardly fewer: room is made for them.
    shown: usize,
}

/// What a symbol is to a relocation: an address, unless it has none yet. Those of this process leave the top bit free.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Target(u64);

impl Target {
    const TOP: u64 = 1 << 63;
    /// No plain relocation refers to such a symbol.
    const NONE: Target = Target(u64::MAX);
    const EXTERNAL: Target = Target(Self::TOP);

    /// The address, if the symbol is in the image.
    #[inline(always)]
    pub(super) fn address(self) -> Option<u64> {
        (self.0 < Self::TOP).then_some(self.0)
    }

    /// Others define it.
    pub(super) fn is_external(self) -> bool {
        self == Self::EXTERNAL
    }
}

impl<'a> Symbols<'a> {
    /// Finds the table, and counts. Names that mean something by themselves, weak references and thread-local ones are not
    /// plain: better known before there is memory.
    pub(super) fn find(object: &'a [u8], sections: &Sections<'a>, limits: &Limits) -> Option<Self> {
        let number = sections.symbol_table;
        let numbers = if number == 0 { 0..0 } else { number..number + 1 };
        let table = Table::find(object, sections.headers, numbers, limits).ok()?;
        if !table.has_short_names()
            || !sections.groups.is_empty() && !groups_are_kept(object, sections, &table, limits)
        {
            return None;
        }
        let mut budget = NameBudget::of(limits);
        let (mut undefined, mut got, mut shown) = (0, None, 0);
        let entries: &[SymbolEntry] = table.entries();
        for (number, entry) in entries.iter().enumerate().skip(1) {
            let section = entry.st_shndx(ORDER);
            if section == elf::SHN_UNDEF {
                let name = name_of_undefined(entry, &table, &mut budget)?;
                match name == GOT {
                    true if got.is_none() => got = Some(number),
                    _ if means_more(name) => return None,
                    _ => undefined += 1,
                }
            } else if entry.st_bind() != elf::STB_LOCAL {
                let is_hidden = matches!(entry.st_visibility(), elf::STV_HIDDEN | elf::STV_INTERNAL);
                let place = sections.places.get(usize::from(section.0));
                let is_loaded = place.is_some_and(|place| place.segment.is_some());
                shown += usize::from(is_loaded && !is_hidden);
            }
        }
        Some(Symbols { table, budget, targets: SmallVec::new(), undefined, got, shown })
    }

    /// How many the object does not define.
    pub(super) fn undefined(&self) -> u64 {
        self.undefined
    }

    #[inline(always)]
    pub(super) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The name of a symbol that is there.
    pub(super) fn name(&self, number: usize) -> Option<&'a [u8]> {
        let entries: &[SymbolEntry] = self.table.entries();
        self.table.name(entries.get(number)?.st_name(ORDER)).ok()
    }

    /// Gives each its address. The image's segments are at `bases`.
    #[inline(never)]
    pub(super) fn place(
        &mut self,
        sections: &Sections<'_>,
        bases: [u64; 3],
        resolver: &dyn SymbolResolver,
    ) -> Option<Exports> {
        if bases.iter().any(|base| *base >= Target::TOP >> 1) {
            return None;
        }
        let is_few = self.shown <= Exports::SCANNED;
        let mut few = NamedExports::default();
        let mut many = ExportBuilder::new(if is_few { 0 } else { self.shown }, self.table.strings()?);
        self.targets = smallvec![Target::NONE; self.table.len()];
        // As slices: whether a small vector is on the heap would be asked for each.
        let places = &sections.places[..];
        for (number, target) in self.targets.iter_mut().enumerate() {
            let symbol = self.table.decode(number).ok()?;
            let is_special = matches!(symbol.kind, SymbolKind::ThreadLocal | SymbolKind::IndirectFunction);
            let SymbolPlace::Section(section) = symbol.place else {
                *target = if Some(number) == self.got { Target::NONE } else { target_elsewhere(symbol)? };
                continue;
            };
            let place = places.get(section as usize)?;
            let Some(base) = place.address(bases) else { continue };
            if is_special || symbol.value > place.size.into() {
                return None;
            }
            let address = base + symbol.value;
            *target = Target(address);
            if !is_exported(symbol, Facts::NONE) {
                continue;
            }
            let weak = symbol.binding == Binding::Weak;
            if weak && gives_way(&self.table, symbol.name, &mut self.budget, resolver)? {
                return None;
            }
            // No more than its section has from there on: readers of the image rely on it.
            let size = symbol.size.min(u64::from(place.size) - symbol.value);
            let label = SymbolLabel { name: symbol.name, size, kind: symbol.kind };
            match is_few {
                true => few.add(label, weak, address, self.table.name(symbol.name).ok()?),
                false => many.add(label, weak, address),
            }
        }
        Some(if is_few { few.finish() } else { many.finish() })
    }
}

/// What a symbol is to relocations that is not in a section. What others define was looked at when it was counted.
#[inline(always)]
fn target_elsewhere(symbol: Symbol) -> Option<Target> {
    match symbol.place {
        SymbolPlace::Undefined if symbol.binding == Binding::Global => Some(Target::EXTERNAL),
        SymbolPlace::Undefined => Some(Target::NONE),
        SymbolPlace::Absolute if symbol.binding == Binding::Local || symbol.kind == SymbolKind::File => {
            Some(Target::NONE)
        }
        SymbolPlace::Absolute | SymbolPlace::Common | SymbolPlace::Section(_) => None,
    }
}

/// Whether all groups have names of their own, so that all of them stay.
#[cold]
fn groups_are_kept(
    object: &[u8],
    sections: &Sections<'_>,
    table: &Table<'_, FileHeader>,
    limits: &Limits,
) -> bool {
    let (headers, numbers) = (sections.headers, sections.groups.clone());
    let Ok(groups) = read_groups(object, headers, numbers, table, &sections.names, limits) else {
        return false;
    };
    let mut names: Vec<&[u8]> = groups.iter().map(|group| group.name).collect();
    names.sort_unstable();
    names.windows(2).all(|pair| pair[0] != pair[1])
}

/// Whether another definition is used in place of a weak one.
#[cold]
fn gives_way(
    table: &Table<'_, FileHeader>,
    name: u32,
    budget: &mut NameBudget,
    resolver: &dyn SymbolResolver,
) -> Option<bool> {
    let name = table.name(name).ok()?;
    budget.spend(name).ok()?;
    Some(std::str::from_utf8(name).is_ok_and(|name| resolver.preempts(name)))
}

/// The name of a symbol that others define. `None`: it is not simply an address, or it may be that nobody does.
fn name_of_undefined<'a>(
    entry: &SymbolEntry,
    table: &Table<'a, FileHeader>,
    budget: &mut NameBudget,
) -> Option<&'a [u8]> {
    let is_weak = entry.st_bind() == elf::STB_WEAK;
    if is_weak || matches!(entry.st_type(), elf::STT_TLS | elf::STT_GNU_IFUNC) {
        return None;
    }
    let name = table.name(entry.st_name(ORDER)).ok()?;
    budget.spend(name).ok()?;
    Some(name)
}
