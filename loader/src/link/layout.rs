//! Layout: an offset for every section, and how much memory that takes; then, once there is memory, addresses.
//!
//! Sections keep the objects' order within their segment, except that those of one name stand together when a symbol
//! marks where they begin or end, and so do the parts of the thread-local block, and unwind tables ([`frames`]). After the sections come the loader's own: stubs behind the code, the GOT behind the
//! read-only data, zero-filled sections and common symbols behind the data, so that what has bytes is one run and what
//! is zero another.

use std::ops::Range;

use super::bounds::Bounds;
use super::detours::{Detours, Island};
use super::tables::{StubKey, Tables};
use super::{Object, frames, survey};
use crate::arch::Architecture;
use crate::error::{LoadError, printable};
use crate::graph::{Role, Section};
use crate::limits::Limits;
use crate::memory::{InFlightMemory, MemoryRequest, Placement, Segment, SegmentRequest};

/// Where the loader put what it made for one object.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Addresses {
    /// Target addresses of the GOT's entries, of what `_GLOBAL_OFFSET_TABLE_` names, of stubs and common symbols.
    pub(crate) slots: u64,
    pub(crate) got: u64,
    pub(crate) stubs: u64,
    pub(crate) commons: u64,
    /// Those of indirect functions: stubs, and the words that they jump through.
    pub(crate) indirect_stubs: u64,
    pub(crate) indirect_slots: u64,
    /// Offsets in their segments.
    pub(crate) slots_offset: u64,
    pub(crate) stubs_offset: u64,
    pub(crate) commons_offset: u64,
    pub(crate) indirect_stubs_offset: u64,
    pub(crate) indirect_slots_offset: u64,
    /// Behind each section of code there is room for the stubs that only it uses.
    pub(crate) islands_have_room: bool,
}

/// What is known of the image as a whole once it has addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImageAddresses {
    /// First byte of the image: an address that is its alone (`__dso_handle`, `__ImageBase`).
    pub(crate) image: u64,
    /// All of the code segment.
    pub(crate) code: Range<u64>,
    /// The first byte of each segment.
    pub(crate) segments: [u64; 3],
}

/// Bytes behind an `.eh_frame` section for the terminator: a record of length zero (LSB, "Exception Frames").
pub(super) const EH_FRAME_TERMINATOR: u64 = 4;

/// Gives each loaded section its offset, and says how much memory that takes. `islands`: stubs stand behind the sections
/// that use them. `joins_frames`: unwind tables become one where that is possible.
pub(super) fn arrange<A: Architecture>(
    objects: &mut [Object<'_>],
    bounds: &Bounds,
    [islands, joins_frames]: [bool; 2],
    limits: &Limits,
) -> Result<MemoryRequest, LoadError> {
    let mut cursor = Cursor::new(limits);
    cursor.place_thread_locals(objects)?;
    for object in &mut *objects {
        object.addresses.islands_have_room = islands;
    }
    cursor.place_bounded::<A>(objects, bounds)?;
    let joins_frames = joins_frames && objects.len() > 1;
    if joins_frames {
        cursor.place_frames(objects)?;
    }
    for zero_fill in [false, true] {
        for Object { graph, survey, tables, detours, addresses, .. } in &mut *objects {
            let range = if zero_fill { &survey.zero_filled } else { &survey.loaded };
            let range = range.clone();
            for number in range {
                let section = &mut graph.sections[number];
                let is_next = section.segment.is_some() && section.zero_fill == zero_fill;
                let is_placed = bounds.includes(section)
                    || section.is_thread_local()
                    || joins_frames && frames::can_be_joined(section);
                if is_next && !is_placed {
                    cursor.place_section(section)?;
                    cursor.place_island::<A>(addresses, tables, number)?;
                    cursor.place_detours(section, detours.island_mut(number))?;
                }
            }
        }
    }
    for Object { symbols, tables, indirect, addresses, .. } in &mut *objects {
        let shared = if islands { tables.stubs_of(StubKey::SHARED).count() } else { tables.stubs().len() };
        let stubs = shared as u64 * A::STUB_SIZE;
        let slots = tables.slot_words * A::SLOT_SIZE;
        addresses.stubs_offset = cursor.place_table(Segment::Code, stubs, A::STUB_ALIGN)?;
        addresses.slots_offset = cursor.place_table(Segment::ReadOnly, slots, A::SLOT_SIZE)?;
        let indirect = indirect.len() as u64;
        addresses.indirect_stubs_offset =
            cursor.place_table(Segment::Code, indirect * A::STUB_SIZE, A::STUB_ALIGN)?;
        addresses.indirect_slots_offset =
            cursor.place_table(Segment::Data, indirect * A::SLOT_SIZE, A::SLOT_SIZE)?;
        addresses.commons_offset =
            cursor.place_table(Segment::Data, symbols.common_size, symbols.common_align)?;
    }
    // All addresses of a 32-bit machine are low, as far as memory managers can tell.
    let is_32_bit = A::SLOT_SIZE == 4;
    cursor.request(is_32_bit || objects.iter().any(|object| object.tables.low_2gib))
}

/// The parts of the thread-local block.
pub(super) fn thread_locals<'o, 'a>(objects: &'o [Object<'a>]) -> impl Iterator<Item = &'o Section<'a>> {
    // Most images have none, and are asked several times.
    let objects = if objects.iter().any(|object| object.survey.thread_locals) { objects } else { &[] };
    survey::special(objects).filter(|section| section.is_thread_local())
}

/// Bytes of the thread-local block, as it is laid out.
pub(super) fn thread_block_size(objects: &[Object<'_>]) -> u64 {
    let parts = |zero_fill| thread_locals(objects).filter(move |section| section.zero_fill == zero_fill);
    let add = |end: u64, section: &Section<'_>| {
        let start = end.checked_next_multiple_of(section.align).unwrap_or(u64::MAX);
        start.saturating_add(section.size)
    };
    parts(false).chain(parts(true)).fold(0, add)
}

/// What was placed in each segment so far.
pub(super) struct Cursor {
    ends: [u64; 3],
    aligns: [u64; 3],
    limit: u64,
}

impl Cursor {
    pub(super) fn new(limits: &Limits) -> Self {
        Cursor { ends: [0; 3], aligns: [1; 3], limit: limits.bounded_image_bytes() }
    }

    /// The block that each thread gets a copy of: first what has content, then what is zero. Threads get it with its
    /// greatest alignment, so it has that here.
    fn place_thread_locals(&mut self, objects: &mut [Object<'_>]) -> Result<(), LoadError> {
        let Some(align) = thread_locals(objects).map(|section| section.align).max() else { return Ok(()) };
        self.place(Segment::ReadOnly, 0, align)?;
        for zero_fill in [false, true] {
            for Object { graph, .. } in &mut *objects {
                for section in graph.sections.iter_mut().filter(|section| section.is_thread_local()) {
                    if section.zero_fill == zero_fill {
                        self.place_section(section)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sections that stand together because a symbol marks their bounds.
    fn place_bounded<A: Architecture>(
        &mut self,
        objects: &mut [Object<'_>],
        bounds: &Bounds,
    ) -> Result<(), LoadError> {
        for (object, number) in bounds.sections(objects) {
            let Object { graph, tables, detours, addresses, .. } = &mut objects[object];
            let section = &mut graph.sections[number];
            if !section.is_thread_local() {
                self.place_section(section)?;
                self.place_island::<A>(addresses, tables, number)?;
                self.place_detours(section, detours.island_mut(number))?;
            }
        }
        Ok(())
    }

    /// One unwind table of all objects'.
    fn place_frames(&mut self, objects: &mut [Object<'_>]) -> Result<(), LoadError> {
        let mut any = false;
        for Object { graph, survey, .. } in objects {
            for (_, section) in survey.loaded_mut(&mut graph.sections) {
                if frames::can_be_joined(section) {
                    section.offset = self.place(frames::SEGMENT, section.size, section.align)?;
                    any = true;
                }
            }
        }
        if any {
            self.place(frames::SEGMENT, EH_FRAME_TERMINATOR, 1)?;
        }
        Ok(())
    }

    /// Room for the stubs of the section that was just placed.
    fn place_island<A: Architecture>(
        &mut self,
        addresses: &Addresses,
        tables: &Tables,
        section: usize,
    ) -> Result<(), LoadError> {
        if addresses.islands_have_room {
            let stubs = tables.stubs_of(section as u32).count() as u64 * A::STUB_SIZE;
            self.place_table(Segment::Code, stubs, A::STUB_ALIGN)?;
        }
        Ok(())
    }

    /// Room for the detours of the section that was just placed.
    fn place_detours(&mut self, section: &Section<'_>, island: Option<&mut Island>) -> Result<(), LoadError> {
        if let Some(island) = island {
            island.distance = self.place(Segment::Code, island.size, Detours::ALIGN)? - section.offset;
        }
        Ok(())
    }

    fn place_section(&mut self, section: &mut Section<'_>) -> Result<(), LoadError> {
        let Some(segment) = section.segment else { return Ok(()) };
        // Gaps in code become traps, so code without content would not be the zeros it says it is.
        if section.zero_fill && segment == Segment::Code && section.size != 0 {
            return Err(LoadError::malformed(printable(section.name), "executable, but without content"));
        }
        let tail = if section.role == Role::EhFrame { EH_FRAME_TERMINATOR } else { 0 };
        section.offset = self.place(segment, section.size.saturating_add(tail), section.align)?;
        Ok(())
    }

    /// What the loader adds: nothing, not even alignment, when it is empty.
    pub(super) fn place_table(&mut self, segment: Segment, size: u64, align: u64) -> Result<u64, LoadError> {
        if size == 0 { Ok(self.ends[segment.index()]) } else { self.place(segment, size, align) }
    }

    #[inline]
    pub(super) fn place(&mut self, segment: Segment, size: u64, align: u64) -> Result<u64, LoadError> {
        let end = &mut self.ends[segment.index()];
        let start = end.next_multiple_of(align);
        *end = start.saturating_add(size);
        if *end > self.limit {
            return Err(LoadError::limit("the size of the image", *end, self.limit));
        }
        let segment_align = &mut self.aligns[segment.index()];
        *segment_align = (*segment_align).max(align);
        Ok(start)
    }

    pub(super) fn request(&self, low_2gib: bool) -> Result<MemoryRequest, LoadError> {
        let total: u64 = self.ends.iter().sum();
        if total > self.limit {
            return Err(LoadError::limit("the size of the image", total, self.limit));
        }
        let segment = |segment: Segment| {
            let size = usize::try_from(self.ends[segment.index()]).ok();
            let align = usize::try_from(self.aligns[segment.index()]).ok();
            size.zip(align)
                .map(|(size, align)| SegmentRequest { size, align })
                .ok_or_else(|| LoadError::limit("the size of the image", total, usize::MAX as u64))
        };
        let [code, read_only, data] = Segment::ALL.map(segment);
        Ok(MemoryRequest { segments: [code?, read_only?, data?], low_2gib })
    }
}

/// Turns offsets into target addresses.
pub(super) fn assign<A: Architecture>(
    objects: &mut [Object<'_>],
    request: &MemoryRequest,
    memory: &dyn InFlightMemory,
    placement: Option<&dyn Placement>,
) -> ImageAddresses {
    let bases = Segment::ALL.map(|segment| memory.target(segment));
    for (file, object) in objects.iter_mut().enumerate() {
        let place = |name: &[u8], number: usize, otherwise: u64| {
            let placed = placement.and_then(|placement| placement.place(file, name, number));
            placed.unwrap_or(otherwise)
        };
        for (number, section) in object.survey.loaded_mut(&mut object.graph.sections) {
            let Some(segment) = section.segment else { continue };
            section.address = place(section.name, number, bases[segment.index()] + section.offset);
        }
        let [code, read_only, data] = bases;
        let addresses = &mut object.addresses;
        addresses.slots = place(b".got", 0, read_only + addresses.slots_offset);
        addresses.got = place(b".got.plt", 0, addresses.slots.wrapping_add(A::GOT_BIAS));
        addresses.stubs = place(b".plt", 0, code + addresses.stubs_offset);
        addresses.indirect_stubs = code + addresses.indirect_stubs_offset;
        addresses.indirect_slots = data + addresses.indirect_slots_offset;
        addresses.commons = place(b"COMMON", 0, data + addresses.commons_offset);
    }
    ImageAddresses::of(bases, request)
}

impl ImageAddresses {
    /// Of an image whose segments begin at `bases`.
    pub(super) fn of(bases: [u64; 3], request: &MemoryRequest) -> Self {
        let used = Segment::ALL.into_iter().filter(|segment| request.segments[segment.index()].size != 0);
        let code = bases[Segment::Code.index()];
        ImageAddresses {
            image: used.map(|segment| bases[segment.index()]).min().unwrap_or(0),
            code: code..code + request.segments[Segment::Code.index()].size as u64,
            segments: bases,
        }
    }
}
