//! Layout: an offset for every section, and how much memory that takes; then, once there is memory, addresses.
//!
//! Sections keep the object's order within their segment. After the sections come the loader's own: stubs behind the
//! code, the GOT behind the read-only data, zero-filled sections and common symbols behind the data, so that what has
//! bytes is one run and what is zero another.

use std::ops::Range;

use super::symbols::Symbols;
use super::tables::Tables;
use crate::arch::Architecture;
use crate::error::{LoadError, printable};
use crate::graph::{LinkGraph, Role, Section};
use crate::limits::Limits;
use crate::memory::{InFlightMemory, MemoryRequest, Placement, Segment, SegmentRequest};

/// Where everything goes, before addresses are known.
pub(crate) struct Layout {
    pub(crate) request: MemoryRequest,
    stubs: u64,
    slots: u64,
    commons: u64,
}

/// Target addresses of what the loader made itself.
pub(crate) struct Addresses {
    /// The GOT's entries.
    pub(crate) slots: u64,
    /// What `_GLOBAL_OFFSET_TABLE_` names.
    pub(crate) got: u64,
    pub(crate) stubs: u64,
    pub(crate) commons: u64,
    /// Offsets of slots and stubs in their segments.
    pub(crate) slots_offset: u64,
    pub(crate) stubs_offset: u64,
    /// First byte of the image: an address that is its alone (`__dso_handle`).
    pub(crate) image: u64,
    code: u64,
}

impl Addresses {
    /// All of the code segment.
    pub(super) fn code(&self, request: &MemoryRequest) -> Range<u64> {
        self.code..self.code + request.segments[Segment::Code.index()].size as u64
    }
}

/// Bytes behind an `.eh_frame` section for the terminator: a record of length zero (LSB, "Exception Frames").
const EH_FRAME_TERMINATOR: u64 = 4;

/// Gives each loaded section its offset.
pub(super) fn arrange<A: Architecture>(
    graph: &mut LinkGraph<'_>,
    symbols: &Symbols,
    tables: &Tables,
    limits: &Limits,
) -> Result<Layout, LoadError> {
    let mut cursor = Cursor { ends: [0; 3], aligns: [1; 3], limit: limits.bounded_image_bytes() };
    for zero_fill in [false, true] {
        for section in graph.sections.iter_mut().filter(|section| section.zero_fill == zero_fill) {
            cursor.place_section(section)?;
        }
    }
    let stubs = cursor.place_table(Segment::Code, tables.stubs * A::STUB_SIZE, A::STUB_SIZE)?;
    let slots = cursor.place_table(Segment::ReadOnly, tables.slots * A::SLOT_SIZE, A::SLOT_SIZE)?;
    let commons = cursor.place_table(Segment::Data, symbols.common_size, symbols.common_align)?;
    Ok(Layout { request: cursor.request(tables.low_2gib)?, stubs, slots, commons })
}

struct Cursor {
    ends: [u64; 3],
    aligns: [u64; 3],
    limit: u64,
}

impl Cursor {
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
    fn place_table(&mut self, segment: Segment, size: u64, align: u64) -> Result<u64, LoadError> {
        if size == 0 { Ok(self.ends[segment.index()]) } else { self.place(segment, size, align) }
    }

    fn place(&mut self, segment: Segment, size: u64, align: u64) -> Result<u64, LoadError> {
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

    fn request(&self, low_2gib: bool) -> Result<MemoryRequest, LoadError> {
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

impl Layout {
    /// Turns offsets into target addresses.
    pub(super) fn assign(
        &self,
        graph: &mut LinkGraph<'_>,
        memory: &dyn InFlightMemory,
        placement: Option<&dyn Placement>,
    ) -> Addresses {
        let bases = Segment::ALL.map(|segment| memory.target(segment));
        let place = |name: &[u8], number: usize, otherwise: u64| {
            placement.and_then(|placement| placement.place(name, number)).unwrap_or(otherwise)
        };
        for (number, section) in graph.sections.iter_mut().enumerate() {
            if let Some(segment) = section.segment {
                section.address = place(section.name, number, bases[segment.index()] + section.offset);
            }
        }
        let [code, read_only, data] = bases;
        let slots = place(b".got", 0, read_only + self.slots);
        let first = Segment::ALL.into_iter().find(|segment| self.request.segments[segment.index()].size != 0);
        Addresses {
            slots,
            got: place(b".got.plt", 0, slots),
            stubs: place(b".plt", 0, code + self.stubs),
            commons: place(b"COMMON", 0, data + self.commons),
            slots_offset: self.slots,
            stubs_offset: self.stubs,
            image: first.map_or(0, |segment| bases[segment.index()]),
            code,
        }
    }
}
