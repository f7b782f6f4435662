//! The object that `disasm`, `symbols` and `relocs` look into: an entry of the cache, or a file.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use objcache::cache::CacheAdmin;
use objcache::loader::{Inspection, inspect};

use crate::context::{Context, find};
use crate::failure::Failure;
use crate::files;

/// Which object is meant.
#[derive(Debug, Args)]
pub(crate) struct ObjectOptions {
    /// The beginning of an entry's signature, or an object file; - for standard input
    #[arg(value_name = "SIG|FILE", value_hint = ValueHint::FilePath)]
    object: PathBuf,
}

/// An object, and what is in it.
pub(crate) struct Inspected {
    /// The signature, or the file.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) contents: Inspection,
}

impl ObjectOptions {
    pub(crate) fn read(&self, context: &Context) -> Result<Inspected, Failure> {
        let (name, bytes) = match signature_prefix(&self.object) {
            Some(prefix) => {
                let store = context.store()?;
                let signature = find(&store, prefix)?;
                let object = store.peek(&signature)?.ok_or_else(|| {
                    let message = format!("entry {signature} is gone, or is damaged");
                    Failure::finding("unknown_signature", message).hint("objcache verify tells which")
                })?;
                (signature.to_string(), object.to_vec())
            }
            None => (self.object.display().to_string(), files::read(&self.object)?),
        };
        let contents =
            inspect(&bytes).map_err(|error| Failure::finding("load", format!("{name}: {error}")))?;
        Ok(Inspected { name, bytes, contents })
    }
}

/// A word that is no file and could be the beginning of a signature.
pub(crate) fn signature_prefix(what: &Path) -> Option<&str> {
    let word = what.to_str()?;
    let is_hexadecimal = !word.is_empty() && word.chars().all(|c| c.is_ascii_hexdigit());
    (is_hexadecimal && !what.exists()).then_some(word)
}
