//! What [`LoadedImage::symbolize`](crate::LoadedImage::symbolize) answers.

use std::fmt;

/// Why debug information cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("debug information: {0}")]
pub struct DebugInfoError(String);

impl DebugInfoError {
    #[cfg_attr(not(feature = "symbolize"), allow(dead_code))] // Said by readers of DWARF.
    pub(crate) fn new(why: impl Into<String>) -> Self {
        DebugInfoError(why.into())
    }
}

/// A function and a place in the source that an instruction belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceFrame {
    /// The function's linkage name (mangled, where the language does); of an inlined one its plain name, if the debug
    /// information has no other.
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
