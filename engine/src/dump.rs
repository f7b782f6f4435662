//! Intermediate results for people to read: one folder per signature.

use std::path::{Path, PathBuf};

use objcache_signature::Signature;

/// The folder that one compilation leaves its intermediate results in.
#[derive(Debug, Clone)]
pub struct DumpDirectory {
    path: PathBuf,
}

impl DumpDirectory {
    /// The folder for `signature` below `root`. It is made when something is written.
    pub fn of(root: &Path, signature: &Signature) -> Self {
        Self { path: root.join(signature.to_string()) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one result. A dump that fails is a warning: it must not cost the compilation.
    pub fn write(&self, name: &str, contents: &[u8]) {
        let path = self.path.join(name);
        let written = std::fs::create_dir_all(&self.path).and_then(|()| std::fs::write(&path, contents));
        if let Err(error) = written {
            tracing::warn!("cannot dump to {}: {error}", path.display());
        }
    }
}
