//! Makes a pack in one pass: entries are handed over in order and go straight to the file, then come the index
//! and the trailer, and at last the file gets its name.

use std::fs;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use objcache_signature::Signature;
use tempfile::NamedTempFile;

use super::draft;
use super::format::{FAN_OUT, HEAD_LENGTH, Record, Trailer, array, head};
use super::reader::PackSummary;
use crate::entry::Encoded;
use crate::trust::{SigningKey, sign_pack};

/// What is gathered before it is written, in bytes.
const BUFFER: usize = 1 << 20;

/// A pack being made. Dropped before it is finished, it leaves nothing behind.
pub(crate) struct PackWriter {
    file: BufWriter<NamedTempFile<File>>,
    path: PathBuf,
    offset: u64,
    // The records of the leaves.
    records: Vec<Record>,
    durable: bool,
}

impl PackWriter {
    /// Begins a pack that will be called `path`; `durable`: and survive a power cut once it is.
    pub(crate) fn create(path: &Path, durable: bool) -> io::Result<Self> {
        let draft = draft::create(parent(path))?;
        if let Ok(replaced) = fs::metadata(path) {
            // Whoever closed it to others did so for a reason.
            draft.as_file().set_permissions(replaced.permissions())?;
        }
        let mut file = BufWriter::with_capacity(BUFFER, draft);
        file.write_all(&head())?;
        Ok(Self { file, path: path.to_owned(), offset: HEAD_LENGTH as u64, records: Vec::new(), durable })
    }

    /// Adds a whole entry that was found to be sound. Signatures must ascend.
    pub(crate) fn add(&mut self, signature: &Signature, entry: &Encoded<'_>) -> io::Result<()> {
        if self.records.last().is_some_and(|last| last.signature >= *signature) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "signatures do not ascend"));
        }
        let digest = array(&entry.tail, entry.tail.len().saturating_sub(32));
        let length = entry.length();
        self.records.push(Record { signature: *signature, digest, offset: self.offset, length });
        self.write(&entry.object)?;
        self.write(&entry.tail)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.offset += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// Writes the index, signs it, and gives the file its name, over what had it before.
    pub(crate) fn finish(mut self, sign_with: Option<&SigningKey>) -> io::Result<PackSummary> {
        let (entries, entries_end) = (self.records.len() as u64, self.offset);
        let mut trailer = Trailer {
            levels: 0,
            entries,
            entries_end,
            root: (entries_end, 0),
            signatures: 0,
            root_digest: [0; 32],
        };
        let mut level = std::mem::take(&mut self.records);
        while level.len() > 1 || trailer.levels == 0 && entries != 0 {
            level = self.write_level(&level)?;
            trailer.levels += 1;
        }
        if let [root] = level[..] {
            trailer.root = (root.offset, root.length);
            trailer.root_digest = root.digest;
        }
        let digest = trailer.pack_digest();
        if let Some(key) = sign_with {
            let seal = sign_pack(&digest, key);
            trailer.signatures = seal.len() as u64;
            self.write(&seal)?;
        }
        self.write(&trailer.encode())?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        if self.durable {
            file.as_file().sync_all()?;
        }
        file.persist(&self.path).map_err(|error| error.error)?;
        if self.durable {
            File::open(parent(&self.path))?.sync_all()?;
        }
        Ok(PackSummary { entries, bytes: self.offset, digest })
    }

    /// Writes the nodes that hold these records; returns the records of the nodes.
    fn write_level(&mut self, below: &[Record]) -> io::Result<Vec<Record>> {
        let mut level = Vec::with_capacity(below.len().div_ceil(FAN_OUT));
        for records in below.chunks(FAN_OUT) {
            let node: Vec<u8> = records.iter().flat_map(Record::encode).collect();
            level.push(Record {
                signature: records[0].signature,
                digest: *blake3::hash(&node).as_bytes(),
                offset: self.offset,
                length: node.len() as u64,
            });
            self.write(&node)?;
        }
        Ok(level)
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
