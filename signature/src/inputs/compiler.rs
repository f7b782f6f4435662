//! Who compiles: a version text alone does not tell two builds of one compiler apart.

use std::collections::BTreeMap;
use std::fmt;

use super::Digest;

/// What is known of one file whose code takes part in code generation: the driver, `libLLVM.so`, `cc1`, `as`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    /// The linker's build-id note.
    BuildId(Vec<u8>),
    /// Digest of the whole file.
    Content(Digest),
    /// It could not be looked at, and why. That is an ingredient too: an unknown component is not "none".
    ProbeFailed(String),
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuildId(id) => {
                f.write_str("build-id:")?;
                id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Content(digest) => write!(f, "blake3:{digest}"),
            Self::ProbeFailed(why) => write!(f, "probe-failed:{why}"),
        }
    }
}

/// The compiler, as exactly as it can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompilerIdentity {
    /// Its name, e.g. `cranelift`, `clang`.
    pub name: String,
    /// Its version text, as it states it.
    pub version: String,
    /// The files that do the work, by name.
    pub components: BTreeMap<String, Component>,
}

impl CompilerIdentity {
    /// A compiler that its name and version describe wholly, as those built into this program.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self { name: name.into(), version: version.into(), components: BTreeMap::new() }
    }
}
