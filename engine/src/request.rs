//! What a client wants compiled, in its own words. A compiler turns it into
//! [`CompileInputs`](objcache_signature::CompileInputs), in which nothing is left open.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use objcache_signature::{CompileInputs, CompilerIdentity, Digest, Extension, Ir, IrKind, OptLevel, Target};

/// Source text or IR, and where it came from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file it was read from. Compilers resolve relative includes against its folder.
    pub path: Option<PathBuf>,
    /// When that file was last modified. It describes the object and never decides it.
    pub modified: Option<SystemTime>,
    /// Its language.
    pub kind: IrKind,
    /// Its text, as it stands.
    pub bytes: Vec<u8>,
}

impl Source {
    /// Source that is in memory.
    pub fn new(kind: IrKind, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: None, modified: None, kind, bytes: bytes.into() }
    }

    /// Reads a file whose extension tells its language.
    ///
    /// # Errors
    /// When it cannot be read, or its extension stands for no language we know.
    pub fn read(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match IrKind::from_extension(extension) {
            Some(kind) => Self::read_as(path, kind),
            None => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{}: the extension `{extension}` stands for no language that objcache knows",
                    path.display()
                ),
            )),
        }
    }

    /// Reads a file of this language.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_as(path: impl AsRef<Path>, kind: IrKind) -> io::Result<Self> {
        let path = path.as_ref();
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let bytes = std::fs::read(path).map_err(named)?;
        let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        Ok(Self { path: Some(path.to_owned()), modified, kind, bytes })
    }

    /// The file's name, or what else to call the source in a message.
    pub fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => format!("<{}>", self.kind),
        }
    }

    /// µs since 1970-01-01 UTC at which the file was last modified.
    pub fn modified_unix_us(&self) -> Option<u64> {
        self.modified.and_then(unix_us)
    }
}

/// `time` in µs since 1970-01-01 UTC, unless it lies before.
pub(crate) fn unix_us(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros()).ok()
}

/// What is to be compiled, for what and how. Start from [`CompileRequest::new`] and set what matters.
#[derive(Debug, Clone)]
pub struct CompileRequest {
    /// What is compiled.
    pub source: Source,
    /// Target triple; `None` for the host's.
    pub target: Option<String>,
    /// CPU; `None` for the compiler's default, `native` for the host's.
    pub cpu: Option<String>,
    /// CPU features to add (`+avx2`) or to leave out (`-avx2`), over those of the CPU.
    pub features: Vec<String>,
    /// Optimisation level.
    pub optimization: OptLevel,
    /// Further flags, in the compiler's own language.
    pub flags: Vec<String>,
    /// Environment variables that the compiler is to see, as value or unset. It sees no others of ours.
    pub environment: BTreeMap<String, Option<Vec<u8>>>,
    /// Separates users of one store.
    pub namespace: String,
    /// Anything to invalidate by.
    pub salt: Vec<u8>,
    /// Further files that decide the object, by digest of their content.
    pub external_inputs: BTreeMap<String, Digest>,
    /// Constants the IR is specialised on.
    pub specialization: BTreeMap<String, Vec<u8>>,
    /// Bytes of the client's own that decide the object.
    pub extension: Option<Extension>,
}

impl CompileRequest {
    /// `source` for the host, at [`OptLevel::O2`].
    pub fn new(source: Source) -> Self {
        Self {
            source,
            target: None,
            cpu: None,
            features: Vec::new(),
            optimization: OptLevel::O2,
            flags: Vec::new(),
            environment: BTreeMap::new(),
            namespace: String::new(),
            salt: Vec::new(),
            external_inputs: BTreeMap::new(),
            specialization: BTreeMap::new(),
            extension: None,
        }
    }

    /// Inputs with all that passes from the request unchanged. A compiler adds what it makes of the rest:
    /// flags, further external inputs, models.
    pub fn inputs(&self, ir: Ir, target: Target, compiler: CompilerIdentity) -> CompileInputs {
        CompileInputs {
            namespace: self.namespace.clone(),
            salt: self.salt.clone(),
            optimization: self.optimization,
            environment: self.environment.clone(),
            external_inputs: self.external_inputs.clone(),
            specialization: self.specialization.clone(),
            extension: self.extension.clone(),
            ..CompileInputs::new(ir, target, compiler)
        }
    }
}
