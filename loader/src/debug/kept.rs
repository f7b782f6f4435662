//! What an image keeps of its objects to symbolise addresses: copies of the debug sections, which are read when first
//! asked, and the names of functions.

use std::ops::Range;

use parking_lot::Mutex;

use super::dwarf::{Dwarf, OwnedSections};
use super::symbols::{DebugInfoError, SourceFrame};
use crate::events::LoadedObject;
use crate::fork;
use crate::memory::Segment;

/// What an image keeps for symbolising: nothing of its objects but this.
pub(crate) struct KeptDebugInfo {
    objects: Vec<KeptObject>,
}

struct KeptObject {
    /// Where its code is.
    code: Vec<Range<u64>>,
    /// By address.
    functions: Vec<KeptFunction>,
    sections: Result<OwnedSections, DebugInfoError>,
    /// Read when first asked. Forks wait for whoever is asking.
    dwarf: Mutex<Option<Result<Dwarf, DebugInfoError>>>,
}

struct KeptFunction {
    address: u64,
    size: u64,
    name: Box<str>,
}

impl KeptDebugInfo {
    /// What is to be kept of objects that were just loaded. What is wrong with their debug information is told when
    /// somebody asks for it.
    pub(crate) fn of<'a>(objects: impl Iterator<Item = LoadedObject<'a>>) -> Self {
        KeptDebugInfo { objects: objects.map(|object| KeptObject::of(&object)).collect() }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.objects.iter().map(KeptObject::heap_bytes).sum()
    }

    /// The frames of an address; none if it is no code of these objects.
    pub(crate) fn symbolize(&self, address: u64) -> Result<Vec<SourceFrame>, DebugInfoError> {
        let home = self.objects.iter().find(|object| object.has_code_at(address));
        home.map_or(Ok(Vec::new()), |object| object.symbolize(address))
    }
}

impl KeptObject {
    fn of(loaded: &LoadedObject<'_>) -> Self {
        let is_code = |segment| segment == Segment::Code;
        let code = loaded.sections().filter(|section| is_code(section.segment) && section.size != 0);
        let code =
            code.map(|section| section.address..section.address.saturating_add(section.size)).collect();
        let sections = loaded.debug_sections().map(OwnedSections::of);
        let functions = loaded.functions().unwrap_or_default().into_iter().map(|function| KeptFunction {
            address: function.address,
            size: function.size,
            name: function.name.into(),
        });
        KeptObject {
            code,
            functions: functions.collect(),
            sections: sections.map_err(|error| DebugInfoError::new(error.to_string())),
            dwarf: Mutex::new(None),
        }
    }

    fn has_code_at(&self, address: u64) -> bool {
        self.code.iter().any(|range| range.contains(&address))
    }

    fn heap_bytes(&self) -> usize {
        let sections = self.sections.as_ref().map_or(0, OwnedSections::heap_bytes);
        let functions = self.functions.iter().map(|function| size_of::<KeptFunction>() + function.name.len());
        sections + functions.sum::<usize>()
    }

    fn symbolize(&self, address: u64) -> Result<Vec<SourceFrame>, DebugInfoError> {
        let sections = self.sections.as_ref().map_err(Clone::clone)?;
        if sections.has_units() {
            let mut frames = self.frames(sections, address)?;
            if let Some(outermost) = frames.last_mut() {
                let symbol = self.nearest_function(address).and_then(|frame| frame.function);
                outermost.function = better_name(outermost.function.take(), symbol);
                // What has a line but belongs to no function is the padding between two.
                let is_code = frames.iter().any(|frame| frame.function.is_some());
                return Ok(if is_code { frames } else { Vec::new() });
            }
        }
        Ok(self.nearest_function(address).into_iter().collect())
    }

    fn frames(&self, sections: &OwnedSections, address: u64) -> Result<Vec<SourceFrame>, DebugInfoError> {
        let mut dwarf = fork::lock(&self.dwarf);
        let dwarf = dwarf.get_or_insert_with(|| Dwarf::of(sections));
        dwarf.as_mut().map_err(|error| error.clone())?.frames(address)
    }

    fn nearest_function(&self, address: u64) -> Option<SourceFrame> {
        let after = self.functions.partition_point(|function| function.address <= address);
        let function = &self.functions[after.checked_sub(1)?];
        let offset = address - function.address;
        (offset < function.size).then(|| SourceFrame::of_symbol(&function.name, offset))
    }
}

/// Of the name in the debug information and that of the symbol. To local functions gcc gives no linkage name, and to parts that
/// it split off (`.cold`, `.isra.0`) the whole's; of several symbols at one address (constructors) only debug
/// information knows which is meant.
fn better_name(debug: Option<String>, symbol: Option<String>) -> Option<String> {
    let is_mangled = |name: &str| ["_Z", "_R", "?"].iter().any(|prefix| name.starts_with(prefix));
    match (debug, symbol) {
        (Some(debug), Some(symbol)) if is_mangled(&debug) && !symbol.starts_with(&debug) => Some(debug),
        (debug, symbol) => symbol.or(debug),
    }
}
