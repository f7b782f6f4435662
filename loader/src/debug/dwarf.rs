//! Symbolising with the crates `gimli` and `addr2line`, over debug sections that were checked ([`super::check`]) and are
//! our own.

use std::sync::Arc;

use addr2line::Context;
use gimli::{EndianArcSlice, RunTimeEndian, SectionId};

use super::DebugSections;
use super::check::{self, Problem};
use super::lines::Row;
use super::symbols::{DebugInfoError, SourceFrame};

/// Bytes of a section, cheap to clone.
pub(super) type Bytes = EndianArcSlice<RunTimeEndian>;

/// The debug sections.
pub(super) type Sections = gimli::Dwarf<Bytes>;

/// Debug sections that are owned, not looked at yet.
pub(crate) struct OwnedSections {
    sections: Vec<(SectionId, Arc<[u8]>)>,
    endian: RunTimeEndian,
}

/// What symbolising looks at. `.debug_aranges` says nothing that these do not.
const WANTED: [SectionId; 9] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
];

impl OwnedSections {
    /// Keeps what is needed of the sections.
    pub(crate) fn of(debug: DebugSections<'_>) -> Self {
        let endian = if debug.big_endian { RunTimeEndian::Big } else { RunTimeEndian::Little };
        let wanted = |name: &[u8]| WANTED.into_iter().find(|id| id.name().as_bytes() == name);
        let sections = debug
            .sections
            .into_iter()
            .filter_map(|section| Some((wanted(section.name)?, section.bytes.into())));
        OwnedSections { sections: sections.collect(), endian }
    }

    /// There is something to look at.
    pub(crate) fn has_units(&self) -> bool {
        self.sections.iter().any(|(id, bytes)| *id == SectionId::DebugInfo && !bytes.is_empty())
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.sections.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    fn get(&self, id: SectionId) -> Bytes {
        let found = self.sections.iter().find(|(known, _)| *known == id);
        EndianArcSlice::new(found.map_or_else(|| Arc::from([]), |(_, bytes)| Arc::clone(bytes)), self.endian)
    }

    /// The longest string that an offset can lead to.
    fn longest_string(&self) -> usize {
        let runs =
            self.sections.iter().flat_map(|(_, bytes)| bytes.split(|byte| *byte == 0)).map(<[u8]>::len);
        runs.max().unwrap_or(0)
    }
}

/// Debug information that can be asked.
pub(crate) struct Dwarf {
    context: Context<Bytes>,
}

impl Dwarf {
    /// Reads the units' outlines.
    pub(crate) fn of(sections: &OwnedSections) -> Result<Self, DebugInfoError> {
        let load = |id| Ok::<_, gimli::Error>(sections.get(id));
        let open = || {
            let mut dwarf = Sections::load(load)?;
            check::check(&mut dwarf, sections.heap_bytes(), sections.longest_string())?;
            Ok(Context::from_dwarf(dwarf)?)
        };
        match open() {
            Ok(context) => Ok(Dwarf { context }),
            Err(Problem::Malformed(error)) => Err(malformed(error)),
            Err(Problem::TooMuch(what)) => {
                Err(DebugInfoError::new(format!("refused: more {what} than its size accounts for")))
            }
        }
    }

    /// The frames of an address, innermost first; none if the debug information does not know it.
    pub(crate) fn frames(&self, address: u64) -> Result<Vec<SourceFrame>, DebugInfoError> {
        // The address after the last is looked at as well.
        if address == u64::MAX {
            return Ok(Vec::new());
        }
        let mut found = self.context.find_frames(address).skip_all_loads().map_err(malformed)?;
        let mut frames = Vec::new();
        while let Some(frame) = found.next().map_err(malformed)? {
            let name = frame.function.and_then(|function| Some(function.raw_name().ok()?.into_owned()));
            let location = frame.location;
            let line = location.as_ref().and_then(|location| location.line);
            frames.push(SourceFrame {
                function: name,
                offset: None,
                file: location.as_ref().and_then(|location| Some(location.file?.to_owned())),
                line,
                column: location.and_then(|location| location.column).filter(|column| *column != 0),
                inlined: true,
            });
        }
        if let Some(outermost) = frames.last_mut() {
            outermost.inlined = false;
        }
        Ok(frames)
    }

    /// The line table from `start` to `end`.
    pub(crate) fn rows(&self, start: u64, end: u64) -> Vec<Row> {
        let Ok(ranges) = self.context.find_location_range(start, end) else { return Vec::new() };
        let row = |(address, _, location): (u64, u64, addr2line::Location<'_>)| {
            Some(Row {
                address,
                line: location.line?,
                column: location.column.unwrap_or(0),
                file: location.file?.to_owned(),
            })
        };
        ranges.filter_map(row).collect()
    }
}

fn malformed(error: gimli::Error) -> DebugInfoError {
    DebugInfoError::new(format!("malformed: {error}"))
}
