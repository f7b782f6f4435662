//! Detours: code that counts on one distance from the thread pointer to the image's thread-local variables (initial-exec,
//! local-exec), in a process whose running threads have no room for them at one distance.
//!
//! Such an image is linked as if its block began at the thread pointer, and its threads get blocks when they ask, as
//! with the other models. The instructions that make up a distance are replaced by branches to detours, which add
//! what is missing in their thread. Detours stand behind the section whose instructions they replace, after the one
//! TLS descriptor that they ask.

use std::collections::HashSet;

use super::Object;
use super::tables::refuse;
use super::threads::is_at_fixed_offset;
use crate::arch::{Architecture, Detour, DetourPlaces, Refused, field};
use crate::error::{FixupProblem, LoadError};
use crate::graph::{LinkGraph, Relocation, Section, SymbolKind, SymbolPlace};
use crate::memory::Segment;

/// The detours of an object.
#[derive(Default)]
pub(crate) struct Detours {
    /// By section.
    islands: Vec<Island>,
}

/// The detours of one section.
pub(crate) struct Island {
    section: u32,
    /// From the start of the section. Set by layout.
    pub(super) distance: u64,
    /// With the descriptor.
    pub(super) size: u64,
    detours: Vec<Detour>,
}

impl Detours {
    /// Alignment of an island.
    pub(super) const ALIGN: u64 = 16;

    /// The island behind a section, if it has one.
    #[inline]
    pub(super) fn island(&self, section: usize) -> Option<&Island> {
        let found = self.islands.binary_search_by_key(&(section as u32), |island| island.section).ok()?;
        self.islands.get(found)
    }

    pub(super) fn island_mut(&mut self, section: usize) -> Option<&mut Island> {
        let found = self.islands.binary_search_by_key(&(section as u32), |island| island.section).ok()?;
        self.islands.get_mut(found)
    }

    /// Bytes of all islands.
    pub(super) fn size(&self) -> u64 {
        self.islands.iter().map(|island| island.size + Self::ALIGN).sum()
    }
}

/// Both words of the TLS descriptor.
const DESCRIPTOR_SIZE: u64 = 16;

/// Plans detours for all accesses to the image's own variables, or says which cannot have one.
pub(super) fn plan<A: Architecture>(objects: &mut [Object<'_>]) -> Result<(), LoadError> {
    for object in objects {
        let planned = plan_object::<A>(object).map_err(|error| error.of_object(object.graph.name));
        object.detours = planned?;
    }
    Ok(())
}

fn plan_object<A: Architecture>(object: &Object<'_>) -> Result<Detours, LoadError> {
    let graph = &object.graph;
    let mut detours = Detours::default();
    let mut functions = None;
    for (number, section) in graph.sections.iter().enumerate().filter(|(_, s)| s.segment.is_some()) {
        let accesses = accesses::<A>(object, section);
        if accesses.is_empty() {
            continue;
        }
        let functions = match &functions {
            Some(functions) => functions,
            None => functions.insert(Functions::of(graph)?),
        };
        let planned = plan_section::<A>(section, &functions.in_section(number), &accesses);
        let planned = planned.map_err(|Refused { access, what }| {
            refuse::<A>(graph, section, accesses[access].1, FixupProblem::Unsupported(what))
        })?;
        let size = planned.iter().map(|detour| detour.size).sum::<u64>() + DESCRIPTOR_SIZE;
        detours.islands.push(Island { section: number as u32, distance: 0, size, detours: planned });
    }
    Ok(detours)
}

/// The accesses of a section to variables of the image, in the order of their places.
fn accesses<A: Architecture>(object: &Object<'_>, section: &Section<'_>) -> Vec<(A::Kind, Relocation)> {
    let own = section.relocations.iter().filter_map(|relocation| {
        let kind = A::kind(object.graph.format, relocation.raw_kind).ok()?;
        is_at_fixed_offset::<A>(object, &relocation).then_some((kind, relocation))
    });
    let mut accesses: Vec<_> = own.collect();
    accesses.sort_by_key(|(_, relocation)| relocation.offset);
    accesses
}

fn plan_section<A: Architecture>(
    section: &Section<'_>,
    functions: &[u64],
    accesses: &[(A::Kind, Relocation)],
) -> Result<Vec<Detour>, Refused> {
    if section.segment != Some(Segment::Code) {
        return Err(Refused {
            access: 0,
            what: "a thread-local variable's distance from the thread pointer in data",
        });
    }
    let places: Vec<_> = accesses.iter().map(|(kind, relocation)| (*kind, relocation.offset)).collect();
    let planned = A::plan_detours(section.bytes, functions, &places)?;
    let symbol = |access: usize| accesses[access].1.symbol;
    let with_detour: HashSet<u32> =
        (0..planned.len()).filter(|access| planned[*access].is_some()).map(symbol).collect();
    let mut detours: Vec<Detour> = Vec::with_capacity(planned.len());
    for (access, detour) in planned.into_iter().enumerate() {
        let Some(detour) = detour else {
            // Without the part that has a detour, this one would lead astray.
            match with_detour.contains(&symbol(access)) {
                true => continue,
                false => {
                    return Err(Refused {
                        access,
                        what: "a part of a thread-local variable's distance alone",
                    });
                }
            }
        };
        if detours.last().is_some_and(|last| detour.instruction < last.instruction + last.length) {
            return Err(Refused { access, what: "a second thread-local access in one instruction" });
        }
        detours.push(detour);
    }
    Ok(detours)
}

/// Where functions begin, by section; sorted.
struct Functions(Vec<(u32, u64)>);

impl Functions {
    fn of(graph: &LinkGraph<'_>) -> Result<Self, LoadError> {
        let mut functions = Vec::new();
        graph.symbols.try_for_each(|_, symbol| {
            if let (SymbolKind::Function, SymbolPlace::Section(section)) = (symbol.kind, symbol.place) {
                functions.push((section, symbol.value));
            }
            Ok(())
        })?;
        functions.sort_unstable();
        Ok(Functions(functions))
    }

    fn in_section(&self, section: usize) -> Vec<u64> {
        let section = section as u32;
        let start = self.0.partition_point(|(other, _)| *other < section);
        let end = self.0.partition_point(|(other, _)| *other <= section);
        self.0[start..end].iter().map(|(_, offset)| *offset).collect()
    }
}

impl Island {
    /// Writes the island of a section that is fixed up. `code` begins with the section, and reaches over the island.
    pub(super) fn write<A: Architecture>(
        &self,
        section: &Section<'_>,
        descriptor: [u64; 2],
        code: &mut [u8],
    ) -> Result<(), LoadError> {
        let written = self.write_detours::<A>(section, descriptor, code);
        written.map_err(|(offset, problem)| {
            let place = format!("{}+{offset:#x}", crate::error::printable(section.name));
            LoadError::malformed(place, format!("no detour for a thread-local access: {problem}"))
        })
    }

    fn write_detours<A: Architecture>(
        &self,
        section: &Section<'_>,
        descriptor: [u64; 2],
        code: &mut [u8],
    ) -> Result<(), (u64, FixupProblem)> {
        let (code, island) = code.split_at_mut(self.distance as usize);
        for (offset, word) in [0, 8].into_iter().zip(descriptor) {
            *field(island, offset).map_err(|problem| (0, problem))? = word.to_le_bytes();
        }
        let start = section.address.wrapping_add(self.distance);
        let mut offset = DESCRIPTOR_SIZE;
        for detour in &self.detours {
            let places = DetourPlaces {
                section: section.address,
                detour: start.wrapping_add(offset),
                descriptor: start,
            };
            let end = offset + detour.size;
            let bytes = &mut island[offset as usize..end as usize];
            let code = &mut code[..section.size as usize];
            A::write_detour(detour, code, places, bytes).map_err(|problem| (detour.instruction, problem))?;
            offset = end;
        }
        Ok(())
    }
}
