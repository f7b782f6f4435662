//! What others define: functions reached through stubs, everything through the GOT or by an address.

use object::read::elf::Rela as _;
use smallvec::SmallVec;

use super::sections::Sections;
use super::symbols::Symbols;
use super::{ORDER, Relocation};
use crate::arch::{Architecture, Fixup, Simple, Stub, field};
use crate::graph::Format;
use crate::link::Environment;
use crate::link::resolve::{ask, may_throw};
use crate::link::write::simple_field;
use crate::memory::{Segment, WorkingMemory};

/// Where stubs and GOT entries begin, in their segments.
#[derive(Clone, Copy)]
pub(super) struct Tables {
    pub(super) stubs: u64,
    pub(super) slots: u64,
}

/// How a place refers to a symbol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    /// By its address.
    Address,
    /// By a branch, for which a stub stands in where it does not reach.
    Branch,
    /// By its GOT entry.
    Slot,
}

/// A relocation that waits for the address of what others define.
pub(super) struct Waiting<'a> {
    pub(super) section: u32,
    pub(super) relocation: &'a Relocation,
    pub(super) access: Access,
}

impl Waiting<'_> {
    fn symbol(&self) -> u32 {
        self.relocation.r_sym(ORDER, false)
    }
}

/// A symbol of others.
struct External {
    symbol: u32,
    address: u64,
    flags: u8,
    /// Numbers of its stub and its GOT entry.
    stub: Option<u32>,
    slot: Option<u32>,
}

/// All that the object needs of others.
#[derive(Default)]
pub(super) struct Externals<'a> {
    waiting: SmallVec<[Waiting<'a>; 4]>,
    /// By symbol number.
    all: SmallVec<[External; 4]>,
    throws: bool,
}

impl<'a> Externals<'a> {
    pub(super) fn wait(&mut self, waiting: Waiting<'a>) {
        self.waiting.push(waiting);
    }

    /// The image refers to nothing but itself.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The image refers to functions that may throw exceptions.
    pub(super) fn throws(&self) -> bool {
        self.throws
    }

    /// Asks for all symbols, once each: after the first question there is no other way than to go on. Gives the numbers of
    /// those that nobody knows.
    #[inline(never)]
    pub(super) fn resolve<A: Architecture>(
        &mut self,
        symbols: &Symbols<'a>,
        environment: &Environment<'_>,
    ) -> Option<Vec<u32>> {
        self.number::<A>();
        let mut unknown = Vec::new();
        for External { symbol, address, flags, .. } in &mut self.all {
            let name = symbols.name(*symbol as usize)?;
            self.throws |= may_throw(name);
            match ask(environment.resolver, name, false) {
                Some(found) => (*address, *flags) = A::external_value(found, true),
                None => unknown.push(*symbol),
            }
        }
        Some(unknown)
    }

    /// Lists the symbols, and numbers their stubs and GOT entries as the phases do: in the order of the symbol table, entries that
    /// only a stub uses behind the others.
    fn number<A: Architecture>(&mut self) {
        let mut wanted: SmallVec<[(u32, Access); 8]> =
            self.waiting.iter().map(|waiting| (waiting.symbol(), waiting.access)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let (mut stubs, mut slots) = (0, 0);
        let next = |count: &mut u32| {
            *count += 1;
            Some(*count - 1)
        };
        for (symbol, access) in wanted {
            if self.all.last().is_none_or(|last| last.symbol != symbol) {
                self.all.push(External { symbol, address: 0, flags: 0, stub: None, slot: None });
            }
            let Some(external) = self.all.last_mut() else { return };
            match access {
                Access::Address => {}
                Access::Branch => external.stub = next(&mut stubs),
                Access::Slot => external.slot = next(&mut slots),
            }
        }
        for external in &mut self.all {
            if A::STUB_USES_SLOT && external.stub.is_some() && external.slot.is_none() {
                external.slot = next(&mut slots);
            }
        }
    }

    /// Writes what waited, the stubs and the GOT.
    #[inline(never)]
    pub(super) fn write<A: Architecture>(
        &self,
        sections: &Sections<'_>,
        bases: [u64; 3],
        tables: Tables,
        working: &mut [WorkingMemory<'_>; 3],
    ) -> Option<()> {
        let [code, read_only, _] = bases;
        let stub_address = |stub: u32| code + tables.stubs + u64::from(stub) * A::STUB_SIZE;
        let slot_address = |slot: u32| read_only + tables.slots + u64::from(slot) * A::SLOT_SIZE;
        let got = (read_only + tables.slots).wrapping_add(A::GOT_BIAS);
        for waiting in &self.waiting {
            let at = self.all.binary_search_by_key(&waiting.symbol(), |external| external.symbol).ok()?;
            let external = &self.all[at];
            let place = &sections.places[waiting.section as usize];
            let (start, address) = (place.offset as usize, place.address(bases)?);
            let bytes = &mut working[place.segment?.index()].bytes[start..start + place.size as usize];
            let relocation = waiting.relocation;
            let (offset, addend) = (relocation.r_offset(ORDER), relocation.r_addend(ORDER));
            let fixup = |target| Fixup {
                place: address.wrapping_add(offset),
                target,
                addend,
                symbol_flags: external.flags,
                got,
                ..Fixup::default()
            };
            match waiting.access {
                Access::Address => simple_field(Simple::Absolute64, fixup(external.address), bytes, offset)?,
                Access::Branch => simple_field(Simple::Branch32, fixup(external.address), bytes, offset)
                    .or_else(|| {
                        let stub = fixup(stub_address(external.stub?));
                        simple_field(Simple::Branch32, stub, bytes, offset)
                    })?,
                Access::Slot => {
                    let kind = A::kind(Format::Elf, relocation.r_type(ORDER, false).0).ok()?;
                    A::apply(kind, bytes, offset, fixup(slot_address(external.slot?))).ok()?;
                }
            }
        }
        let [code, read_only, _] = working;
        for external in &self.all {
            let target = A::pointer_value(external.address, external.flags);
            let slot = external.slot.map_or(0, slot_address);
            if external.slot.is_some() {
                let offset = slot - bases[Segment::ReadOnly.index()];
                *field(read_only.bytes, offset).ok()? = target.to_le_bytes();
            }
            if let Some(stub) = external.stub {
                let place = stub_address(stub);
                let start = (place - bases[Segment::Code.index()]) as usize;
                let bytes = &mut code.bytes[start..start + A::STUB_SIZE as usize];
                A::write_stub(0, bytes, place, Stub { slot, target, got }).ok()?;
            }
        }
        Some(())
    }
}
