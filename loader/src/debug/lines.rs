//! The line table of an object, for profilers.

#[cfg(feature = "symbolize")]
use super::dwarf::{Dwarf, OwnedSections};
use super::symbols::DebugInfoError;
use crate::events::LoadedObject;

/// From this address on, code is of this line.
pub(crate) struct Row {
    pub(crate) address: u64,
    pub(crate) line: u32,
    /// 0: unknown.
    pub(crate) column: u32,
    pub(crate) file: String,
}

/// Empty for objects without debug information.
#[derive(Default)]
pub(crate) struct LineTable {
    #[cfg(feature = "symbolize")]
    dwarf: Option<Dwarf>,
}

impl LineTable {
    #[cfg(feature = "symbolize")]
    pub(crate) fn of(loaded: &LoadedObject<'_>) -> Result<Self, DebugInfoError> {
        let sections = loaded.debug_sections().map_err(|error| DebugInfoError::new(error.to_string()))?;
        let sections = OwnedSections::of(sections);
        let dwarf = if sections.has_units() { Some(Dwarf::of(&sections)?) } else { None };
        Ok(LineTable { dwarf })
    }

    /// Without what reads them, there are none.
    #[cfg(not(feature = "symbolize"))]
    pub(crate) fn of(_loaded: &LoadedObject<'_>) -> Result<Self, DebugInfoError> {
        Ok(LineTable::default())
    }

    #[cfg(feature = "symbolize")]
    pub(crate) fn within(&self, address: u64, size: u64) -> Vec<Row> {
        self.dwarf.as_ref().map_or(Vec::new(), |dwarf| dwarf.rows(address, address.saturating_add(size)))
    }

    #[cfg(not(feature = "symbolize"))]
    pub(crate) fn within(&self, _address: u64, _size: u64) -> Vec<Row> {
        Vec::new()
    }
}
