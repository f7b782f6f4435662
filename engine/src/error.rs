//! Why a compilation gave no object: which stage failed, on what, and why.

use std::fmt;

/// The steps of a compilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Reading the source and deciding what is compiled for what.
    Prepare,
    /// Finding out which compiler this is.
    Identify,
    /// Checking the IR.
    Verify,
    /// Optimising and generating code.
    Compile,
    /// Writing the object.
    Emit,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare",
            Self::Identify => "identify the compiler",
            Self::Verify => "verify",
            Self::Compile => "compile",
            Self::Emit => "emit",
        })
    }
}

/// A compilation that gave no object. The compiler may be used again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {stage} {what}: {why}")]
pub struct CompileError {
    /// The stage that failed.
    pub stage: Stage,
    /// What it failed on: a file, a function, a program.
    pub what: String,
    /// In the compiler's own words where it has some.
    pub why: String,
    /// Whether what was compiled is at fault, and would fail again. Not so when the compiler is missing, was killed,
    /// or had no memory or disk left.
    pub is_source_at_fault: bool,
    /// Whether no file descriptor was left to run the compiler with. It may run once others are closed, as those that
    /// a cache has open.
    pub is_out_of_descriptors: bool,
}

impl CompileError {
    /// An error of this stage.
    pub fn new(stage: Stage, what: impl Into<String>, why: impl fmt::Display) -> Self {
        Self {
            stage,
            what: what.into(),
            why: why.to_string(),
            is_source_at_fault: false,
            is_out_of_descriptors: false,
        }
    }

    /// The same, and the source is to blame for it.
    pub fn blame_the_source(mut self) -> Self {
        self.is_source_at_fault = true;
        self
    }

    /// Says which source it is about: once there are inputs, compilers see texts that have no names.
    pub(crate) fn of_source(mut self, name: &str) -> Self {
        if !self.what.contains(name) {
            self.what = format!("{} of {name}", self.what);
        }
        self
    }
}
