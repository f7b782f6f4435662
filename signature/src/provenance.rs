//! Where an object came from. It is kept beside the key and in the object, but never decides a hit.

use crate::document::{DocumentError, TlvReader, TlvWriter};

/// Where and when an object was made. Nothing of it is part of the signature.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provenance {
    /// The source file, as the user named it.
    pub source_path: Option<String>,
    /// Time stamp of the source file: µs since 1970-01-01 UTC.
    pub source_modified_unix_us: Option<u64>,
    /// Working directory of the compilation.
    pub working_directory: Option<String>,
    /// Name of the machine that compiled.
    pub host: Option<String>,
    /// What the compilation took, in µs.
    pub compile_time_us: Option<u64>,
    /// When it was compiled: µs since 1970-01-01 UTC.
    pub compiled_at_unix_us: Option<u64>,
}

impl Provenance {
    /// A self-delimiting encoding that [`decode`](Self::decode) reads back.
    pub fn encode(&self) -> Vec<u8> {
        let Self {
            source_path,
            source_modified_unix_us,
            working_directory,
            host,
            compile_time_us,
            compiled_at_unix_us,
        } = self;
        let mut out = TlvWriter::default();
        out.optional_text(1, source_path.as_deref());
        out.optional_number(2, *source_modified_unix_us);
        out.optional_text(3, working_directory.as_deref());
        out.optional_text(4, host.as_deref());
        out.optional_number(5, *compile_time_us);
        out.optional_number(6, *compiled_at_unix_us);
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) wrote. Fields of later versions are passed over.
    ///
    /// # Errors
    /// When the bytes are no such encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, DocumentError> {
        let mut found = Self::default();
        for item in TlvReader::new(bytes) {
            let item = item?;
            match item.tag {
                1 => found.source_path = Some(item.text()?.to_owned()),
                2 => found.source_modified_unix_us = Some(item.number()?),
                3 => found.working_directory = Some(item.text()?.to_owned()),
                4 => found.host = Some(item.text()?.to_owned()),
                5 => found.compile_time_us = Some(item.number()?),
                6 => found.compiled_at_unix_us = Some(item.number()?),
                _ => {}
            }
        }
        Ok(found)
    }
}
