//! How a command ends: [`Status`] when it did its work, [`Failure`] when it could not.
//!
//! The exit codes are part of the interface: 0 fine, 1 findings, 2 usage, 3 input or output.

use std::fmt;
use std::io;
use std::path::Path;

use objcache::cache::{CacheError, Reason};
use objcache::call::CallError;
use objcache::loader::{FixupProblem, LoadError};
use objcache::signature::RecordError;
use objcache::{CompileError, EngineError};
use serde::Serialize;

use crate::call::symbols::is_cxx;

/// A command that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Nothing to report.
    Fine,
    /// It found what it looks for: damage.
    Findings,
}

impl Status {
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Findings => 1,
        }
    }
}

/// The family of a failure; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureKind {
    /// The input is at fault: it does not compile, does not load, names nothing.
    Finding,
    /// The command line is at fault.
    Usage,
    /// A file or directory is at fault.
    Io,
}

impl FailureKind {
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Finding => 1,
            Self::Usage => 2,
            Self::Io => 3,
        }
    }
}

/// A command that could not do its work, in words a person can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    /// A stable name in snake case, for machines.
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn finding(code: &'static str, message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Finding, code, message: message.into(), hint: None }
    }

    pub(crate) fn usage(code: &'static str, message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Usage, ..Self::finding(code, message) }
    }

    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        Self::unreadable(&format!("{}: {error}", path.display()))
    }

    /// An error of input or output whose message names the file.
    pub(crate) fn unreadable(error: &dyn fmt::Display) -> Self {
        Self { kind: FailureKind::Io, ..Self::finding("io", error.to_string()) }
    }

    /// Says which file it is about, unless the message does: the loader sees bytes.
    pub(crate) fn about(mut self, file: &Path) -> Self {
        let file = file.display().to_string();
        if self.kind == FailureKind::Finding && !self.message.contains(&file) {
            self.message = format!("{file}: {}", self.message);
        }
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<CompileError> for Failure {
    fn from(error: CompileError) -> Self {
        Self::finding("compile", error.to_string())
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Compile(error) => error.into(),
            EngineError::Cache(error) => error.into(),
            EngineError::Inputs(error) => Self::finding("inputs", error.to_string()),
            EngineError::Load(error) => error.into(),
            other => Self::finding("load", other.to_string()),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self {
            hint: load_hint(&error).map(str::to_owned),
            ..Self::finding("load", format!("cannot load the object: {error}"))
        }
    }
}

/// What to do about an object that does not load, where we know.
fn load_hint(error: &LoadError) -> Option<&'static str> {
    match error {
        LoadError::Unresolved(unresolved) if unresolved.shown.iter().any(|symbol| is_cxx(&symbol.name)) => {
            Some("the C++ run-time library, where there is one, does not have these either")
        }
        LoadError::Fixup(error) if matches!(error.problem, FixupProblem::OutOfRange { .. }) => {
            Some("code that is to be loaded must not expect its data nearby: compile it with -fPIC")
        }
        _ => None,
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        match error.reason() {
            Reason::EntryDigest
            | Reason::EntryLength
            | Reason::EntryMagic
            | Reason::EntryNotAFile
            | Reason::EntrySignature
            | Reason::EntryVersion
            | Reason::EntryForeignOwner
            | Reason::EntryCodec
            | Reason::EntryLinked
            | Reason::EntryInsecureMode
            | Reason::EntrySeal
            | Reason::PackDamaged => Self::finding("damaged", error.to_string()),
            Reason::TooLarge => Self::finding("too_large", error.to_string()),
            _ => Self { kind: FailureKind::Io, ..Self::finding("cache", error.to_string()) },
        }
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        Self::finding("record", error.to_string())
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::usage("call", error.to_string())
    }
}
