//! What a compilation is made of, and the hash that names it.
//!
//! A [`CompileInputs`] lists everything that decides the bytes of an object file. Its canonical encoding is
//! the [`KeyDocument`]; the BLAKE3 hash of that is the [`Signature`], under which the object is kept. The
//! document and some [`Provenance`] can be embedded in the object as a [`Record`], so that the object alone
//! tells whether it must be rebuilt: [`verdict`].
//!
//! The one idea: a wrong hit is worse than a miss. So every field is labelled and length-prefixed, absent is
//! not empty, nothing is trimmed, and a field that nobody hashes does not compile.
//!
//! This crate knows nothing of files, caches, loaders or compilers. It does no I/O.
//!
//! ```
//! use objcache_signature::{CompileInputs, CompilerIdentity, Ir, IrKind, Signature, Target};
//!
//! let ir = Ir::new(IrKind::Clif, b"function %one() -> i32 { ... }".to_vec());
//! let target = Target::new("x86_64-unknown-linux-gnu", "znver4");
//! let mut inputs = CompileInputs::new(ir, target, CompilerIdentity::new("cranelift", "0.135.8"));
//! let before = Signature::of(&inputs)?;
//!
//! inputs.target.features.insert("+avx2".to_owned());
//! assert_ne!(before, Signature::of(&inputs)?);
//! # Ok::<(), objcache_signature::InputError>(())
//! ```

#![forbid(unsafe_code)]

mod document;
mod inputs;
mod provenance;
mod record;
mod signature;

pub use document::{Difference, DocumentError, Ingredient, KeyDocument, Pair, SCHEMA, Value};
pub use inputs::{
    ArtifactKind, CodeModel, CompileInputs, CompilerIdentity, Component, Digest, Extension, InputError, Ir,
    IrKind, LinkedInput, ObjectFormat, OptLevel, RelocationModel, Target, TlsModel, UnknownIrKind,
};
pub use provenance::Provenance;
pub use record::{Record, RecordError, Verdict, embed, is_untouched, read_record, verdict};
pub use signature::{ParseSignatureError, Signature};
