//! Plain objects, linked in one go.
//!
//! Most of what compilers make for this process's own machine is plain: ELF whose sections are loaded as they are, whose
//! relocations take a symbol's address and nothing else, and which calls functions of others through stubs or the GOT.
//! What [`link`](super::link) does with an object in phases, each a look at all of it, is done here with one look at the
//! sections, one at the symbols and one at the relocations, in little code and little memory: in a busy process a load
//! costs what has to come back into the caches, and that is mostly the loader itself.
//!
//! Nothing is refused here. What is not plain, and what is wrong, is left to the phases, which know all of it and have the
//! messages. What is linked here comes out as they would have it (`tests/plain.rs` compares), but for unused room behind code and
//! constants, GOT entries that nothing uses, and that names of sections are not held against [`Limits`](crate::Limits) where
//! nobody looks at them.

mod externals;
mod sections;
mod symbols;
mod write;

use std::ops::Range;

use object::LittleEndian;
use object::elf::{FileHeader64, Rela64, SectionHeader64, Sym64};

use self::externals::{Externals, Tables};
use self::sections::Sections;
use self::symbols::Symbols;
use crate::arch::{Architecture, with_architecture};
use crate::error::{LoadError, UnresolvedSymbols};
use crate::link::{Environment, ImageAddresses, Linked, Threads, frames, may_call_indirectly, resolve};
use crate::memory::{MemoryRequest, Segment};
use crate::read::{self, elf};
use crate::unwind::UnwindInfo;

type FileHeader = FileHeader64<LittleEndian>;
type Header = SectionHeader64<LittleEndian>;
type SymbolEntry = Sym64<LittleEndian>;
type Relocation = Rela64<LittleEndian>;

/// Byte order of what is read here.
const ORDER: LittleEndian = LittleEndian;

/// Links a plain object into memory that is executed here. `None`: it is not plain.
///
/// # Errors
/// The memory cannot be written or protected, or nobody knows a symbol.
pub(crate) fn link(object: &[u8], environment: &Environment<'_>) -> Result<Option<Linked>, LoadError> {
    // ELF of 64 bits, little-endian.
    if !matches!(object, [0x7f, b'E', b'L', b'F', 2, 1, ..]) {
        return Ok(None);
    }
    let Ok((file, machine)) = elf::file_header::<FileHeader>(object) else { return Ok(None) };
    with_architecture!(machine, A => match A::PLAIN && A::IDENTITY.is_host {
        true => link_for::<A>(object, file, environment),
        false => Ok(None),
    })
}

fn link_for<A: Architecture>(
    object: &[u8],
    file: &FileHeader,
    environment: &Environment<'_>,
) -> Result<Option<Linked>, LoadError> {
    let Some(mut sections) = Sections::read::<A>(object, file, environment.limits) else { return Ok(None) };
    let Some(mut symbols) = Symbols::find(object, &sections, environment.limits) else { return Ok(None) };
    let Some((request, tables)) = sections.request::<A>(symbols.undefined()) else { return Ok(None) };
    // The phases may do with less.
    let Ok(mut memory) = environment.memory.allocate(&request) else { return Ok(None) };
    let bases = Segment::ALL.map(|segment| memory.target(segment));
    if !is_in_reach(bases, &request) {
        return Ok(None);
    }

    let Some(exports) = symbols.place(&sections, bases, environment.resolver) else { return Ok(None) };
    let mut externals = Externals::default();
    let written = write::write::<A>(
        object,
        &mut sections,
        &symbols,
        &mut externals,
        bases,
        environment.limits,
        &mut memory.working()?,
    );
    if written.is_none() {
        return Ok(None);
    }
    if !externals.is_empty() {
        let Some(unknown) = externals.resolve::<A>(&symbols, environment) else { return Ok(None) };
        if !unknown.is_empty() {
            return Err(nobody_knows(object, &unknown, environment));
        }
        let written = externals.write::<A>(&sections, bases, tables, &mut memory.working()?);
        if written.is_none() {
            return Ok(None);
        }
    }

    let image = ImageAddresses::of(bases, &request);
    let memory = memory.finalize()?;
    let unwind = unwind_info::<A>(object, &sections, &externals, bases, image.code.clone(), memory.arena());
    Ok(Some(Linked {
        memory,
        exports,
        hooks: None,
        unwind,
        threads: Threads::default(),
        sizes: request.segments.map(|segment| segment.size),
        targets: bases,
        image,
    }))
}

/// Whether any place of the image reaches any other, so that nothing can fail once resolvers were asked.
fn is_in_reach(bases: [u64; 3], request: &MemoryRequest) -> bool {
    const REACH: u64 = (1 << 31) - 2 * write::FARTHEST;
    let used = bases.into_iter().zip(request.segments).filter(|(_, segment)| segment.size != 0);
    let ends = used.map(|(base, segment)| (base, base.saturating_add(segment.size as u64)));
    let (start, end) = ends.fold((u64::MAX, 0), |(start, end), (base, top)| (start.min(base), end.max(top)));
    end.saturating_sub(start) < REACH
}

/// What an unwinder wants to know of the image.
fn unwind_info<A: Architecture>(
    object: &[u8],
    sections: &Sections<'_>,
    externals: &Externals<'_>,
    bases: [u64; 3],
    code: Range<u64>,
    arena: Option<Range<u64>>,
) -> UnwindInfo {
    let (throws, catches) = (externals.throws(), sections.catches());
    let mut info = UnwindInfo { code, arena, throws, catches, ..UnwindInfo::default() };
    for table in sections.frames(bases) {
        frames::push(&mut info.eh_frames, table);
    }
    info.calls = throws
        || !info.eh_frames.is_empty()
            && (!externals.is_empty() || may_call_indirectly::<A>(sections.code(object)));
    info
}

/// The error that names the symbols, by their numbers, with the places that need them.
#[cold]
fn nobody_knows(object: &[u8], unknown: &[u32], environment: &Environment<'_>) -> LoadError {
    let storage = read::Storage::default();
    let shown = &unknown[..unknown.len().min(UnresolvedSymbols::SHOWN)];
    match read::parse(object, &storage, environment.limits) {
        Ok(graph) => resolve::unresolved(&graph, shown, unknown.len()),
        Err(error) => error,
    }
}
