//! Unwind tables of several objects stand together and are one, as static linkers make it.
//!
//! Code of two objects may interleave, where sections of a name that something asks the bounds of stand together. Unwinders
//! that know of each table which addresses it is about, as libgcc's does since version 13, cannot be told of two that overlap.

use crate::graph::{Role, Section};
use crate::memory::Segment;
use crate::unwind::{FrameTable, FrameTables, eh_frame};

/// Where tables are that can be joined.
pub(super) const SEGMENT: Segment = Segment::ReadOnly;

/// No other object's table is kept from being read by this one before it, nor the records between shifted.
pub(super) fn can_be_joined(section: &Section<'_>) -> bool {
    section.role == Role::EhFrame
        && section.segment == Some(SEGMENT)
        && section.size != 0
        && section.bytes.len() as u64 == section.size
        && section.size % section.align == 0
        && eh_frame::is_open(section.bytes)
}

/// Notes a table; one that begins where the last one ends is a part of it, since others have a terminator behind them.
pub(super) fn push(tables: &mut FrameTables, table: FrameTable) {
    match tables.last_mut() {
        Some(last) if last.address.checked_add(last.size) == Some(table.address) => last.size += table.size,
        _ => tables.push(table),
    }
}
