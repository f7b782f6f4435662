//! Everything that decides the bytes of an object.
//!
//! The compiler is handed the very [`CompileInputs`] that was hashed. What is not in here cannot reach it, so
//! it cannot be forgotten in the key. What only describes the compilation is [`Provenance`](crate::Provenance).

mod choices;
mod compiler;
mod ir;
mod target;

use std::collections::BTreeMap;

pub use choices::{ArtifactKind, CodeModel, ObjectFormat, OptLevel, RelocationModel, TlsModel};
pub use compiler::{CompilerIdentity, Component};
pub use ir::{Digest, Ir, IrKind, UnknownIrKind};
pub use target::Target;

/// A library or module that is linked into the IR, known by its content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkedInput {
    /// What the client calls it.
    pub name: String,
    /// Digest of its content, never of its time stamp.
    pub digest: Digest,
}

/// Bytes of the engine's own that also decide the object, under a label that says whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Whose bytes they are and in which version, e.g. `mydb.plan/3`.
    pub label: String,
    /// Opaque to objcache.
    pub bytes: Vec<u8>,
}

/// Everything that decides the bytes of one object.
///
/// Two values that differ in any field have different signatures. Fields may be set freely after
/// [`CompileInputs::new`]; what is contradictory or not decided yet is refused when the signature is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileInputs {
    /// Separates users of one store that must not see each other's objects.
    pub namespace: String,
    /// Anything the user wants to invalidate by; empty for nothing.
    pub salt: Vec<u8>,
    /// What the compilation makes.
    pub artifact: ArtifactKind,
    /// The container it makes it in.
    pub object_format: ObjectFormat,
    /// What is compiled.
    pub ir: Ir,
    /// What is linked into the IR after the cache was asked, in link order.
    pub linked: Vec<LinkedInput>,
    /// What it is compiled for.
    pub target: Target,
    /// Optimisation level.
    pub optimization: OptLevel,
    /// The pass pipeline, where it is not the optimisation level's own.
    pub pass_pipeline: Option<String>,
    /// Flags in the compiler's own normal form and order; unknown ones literally.
    pub flags: Vec<String>,
    /// Who compiles.
    pub compiler: CompilerIdentity,
    /// Environment variables that the compiler is declared to read: the value, or `None` for unset.
    pub environment: BTreeMap<String, Option<Vec<u8>>>,
    /// Further files that the compilation reads (headers, profiles, plug-ins): digest of the content by name.
    pub external_inputs: BTreeMap<String, Digest>,
    /// Constants the IR is specialised on, by name.
    pub specialization: BTreeMap<String, Vec<u8>>,
    /// Bytes of the engine's own.
    pub extension: Option<Extension>,
}

impl CompileInputs {
    /// Inputs for a relocatable ELF object at [`OptLevel::O2`], with no flags, environment or further inputs.
    pub fn new(ir: Ir, target: Target, compiler: CompilerIdentity) -> Self {
        Self {
            namespace: String::new(),
            salt: Vec::new(),
            artifact: ArtifactKind::RelocatableObject,
            object_format: ObjectFormat::Elf,
            ir,
            linked: Vec::new(),
            target,
            optimization: OptLevel::O2,
            pass_pipeline: None,
            flags: Vec::new(),
            compiler,
            environment: BTreeMap::new(),
            external_inputs: BTreeMap::new(),
            specialization: BTreeMap::new(),
            extension: None,
        }
    }

    /// Refuses what does not decide the object: `native` without a machine, or a feature both on and off.
    pub(crate) fn check(&self) -> Result<(), InputError> {
        self.target.check()?;
        if self.compiler.name.is_empty() || self.compiler.version.is_empty() {
            return Err(InputError::UnknownCompiler);
        }
        match self.flags.iter().find(|flag| names_native(flag)) {
            Some(flag) => Err(InputError::UnresolvedNative { place: "flags", value: flag.clone() }),
            None => Ok(()),
        }
    }
}

/// `native` by itself (after `-march`, `-target-cpu`), or as the value of a flag.
fn names_native(text: &str) -> bool {
    let value = text.rsplit_once('=').map_or(text, |(_, value)| value);
    value.eq_ignore_ascii_case("native")
}

/// Why inputs have no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// `native` means another machine on every machine: it must be resolved before it is hashed.
    #[error("{place}: `{value}` is not resolved: name the CPU and its features instead of `native`")]
    UnresolvedNative {
        /// The ingredient it stands in.
        place: &'static str,
        /// As given.
        value: String,
    },
    /// No target triple, or no CPU.
    #[error("{place} is empty: it decides the object and must be named")]
    Unnamed {
        /// The ingredient that is missing.
        place: &'static str,
    },
    /// A CPU feature is both on and off.
    #[error("{place}: `{feature}` is both on and off")]
    ContradictoryFeature {
        /// The ingredient it stands in.
        place: &'static str,
        /// Without its sign.
        feature: String,
    },
    /// Neither name nor version of the compiler may be empty.
    #[error("the compiler's name and version must be known")]
    UnknownCompiler,
}
