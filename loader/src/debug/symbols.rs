//! What [`LoadedImage::symbolize`](crate::LoadedImage::symbolize) answers, and what an image keeps for that.

use std::fmt;

/// Why debug information cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("debug information: {0}")]
pub struct DebugInfoError(String);

impl DebugInfoError {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        DebugInfoError(why.into())
    }
}

/// A function and a place in the source that an instruction belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceFrame {
    /// The function's linkage name (mangled, where the language does), else its plain one.
    pub function: Option<String>,
    /// Bytes from the start of the symbol, where only the symbol table knew the function.
    pub offset: Option<u64>,
    /// Path of the source file, as the compiler wrote it down.
    pub file: Option<String>,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Column, from 1.
    pub column: Option<u32>,
    /// The function was inlined into that of the next frame.
    pub inlined: bool,
}

impl fmt::Display for SourceFrame {
    /// `function file:line:column`, with `??` for what is not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function.as_deref().unwrap_or("??"))?;
        if let Some(offset) = self.offset {
            return write!(f, "+{offset:#x}");
        }
        write!(f, " {}", self.file.as_deref().unwrap_or("??"))?;
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, ":{line}:{column}"),
            (Some(line), None) => write!(f, ":{line}"),
            (None, _) => Ok(()),
        }
    }
}

#[cfg(feature = "symbolize")]
pub(crate) use kept::KeptDebugInfo;

#[cfg(feature = "symbolize")]
mod kept {
    use std::ops::Range;
    use std::sync::OnceLock;

    use parking_lot::Mutex;

    use super::super::dwarf::{Dwarf, OwnedSections};
    use super::{DebugInfoError, SourceFrame};
    use crate::events::LoadedObject;
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
        /// Read when first asked.
        dwarf: OnceLock<Result<Mutex<Dwarf>, DebugInfoError>>,
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
                dwarf: OnceLock::new(),
            }
        }

        fn has_code_at(&self, address: u64) -> bool {
            self.code.iter().any(|range| range.contains(&address))
        }

        fn heap_bytes(&self) -> usize {
            let sections = self.sections.as_ref().map_or(0, OwnedSections::heap_bytes);
            let functions =
                self.functions.iter().map(|function| size_of::<KeptFunction>() + function.name.len());
            sections + functions.sum::<usize>()
        }

        fn symbolize(&self, address: u64) -> Result<Vec<SourceFrame>, DebugInfoError> {
            let sections = self.sections.as_ref().map_err(Clone::clone)?;
            if sections.has_units() {
                let dwarf = self.dwarf.get_or_init(|| Dwarf::of(sections).map(Mutex::new));
                let frames = dwarf.as_ref().map_err(Clone::clone)?.lock().frames(address)?;
                if !frames.is_empty() {
                    return Ok(frames);
                }
            }
            Ok(self.nearest_function(address).into_iter().collect())
        }

        fn nearest_function(&self, address: u64) -> Option<SourceFrame> {
            let after = self.functions.partition_point(|function| function.address <= address);
            let function = &self.functions[after.checked_sub(1)?];
            let offset = address - function.address;
            (offset < function.size).then(|| SourceFrame::of_symbol(&function.name, offset))
        }
    }
}

impl SourceFrame {
    /// What the symbol table knows.
    pub(crate) fn of_symbol(name: &str, offset: u64) -> Self {
        SourceFrame {
            function: Some(name.to_owned()),
            offset: Some(offset),
            file: None,
            line: None,
            column: None,
            inlined: false,
        }
    }
}
