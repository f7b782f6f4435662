//! Reads packs. A pack is opened once and read at offsets into memory of our own, never mapped: it may lie
//! where others can truncate it.
//!
//! Nothing in the file is believed. Each node and each entry is checked against the digest that its parent
//! has for it, entries by [`crate::entry`] as well, as if they were files.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use objcache_signature::Signature;
use papaya::HashMap;
use rustix::fs::{Mode, OFlags, open};

use super::format::{self, Node, Record, TRAILER_LENGTH, is_node_length};
use crate::admin::{DamagedEntry, EntryRecord, Progress, VerifyReport};
use crate::buffer::Buffer;
use crate::digest;
use crate::entry::{self, Trailer};
use crate::error::{CacheError, Reason};
use crate::object::ObjectBuffer;
use crate::trust::{Gate, PublicKey, SEAL_LENGTH, signer_of_pack};

/// Nodes of the index that are kept in memory once read: 16 MB at most.
const KEPT_NODES: usize = 4096;

/// The longest entry that is read, in bytes.
const ENTRY_LIMIT: u64 = 1 << 30;

/// A file of many entries that is only read.
///
/// Opening one reads its last 128 bytes; a look-up reads a node of the index for each level, a few KB, and the
/// entry. Nodes stay in memory, up to 16 MB of them.
pub struct Pack {
    file: File,
    path: PathBuf,
    trailer: format::Trailer,
    length: u64,
    nodes: HashMap<u64, Arc<Node>>,
    kept: AtomicUsize,
}

/// A pack as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackSummary {
    /// Entries in it.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Names the pack by its content: BLAKE3 over its index, which has the digest of every entry.
    pub digest: [u8; 32],
}

/// What a pack tells of one of its entries. Times are µs since 1970-01-01 UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackEntry {
    /// Names the entry.
    pub signature: Signature,
    /// Bytes of the object file.
    pub object_bytes: u64,
    /// Bytes it takes in the pack, with what is kept beside the object.
    pub pack_bytes: u64,
    /// When the entry was made.
    pub created_unix_us: u64,
    /// What its compilation took, in µs.
    pub compile_time_us: u64,
    /// The namespace it was offered under.
    pub namespace: String,
}

/// What a look-up in a pack found.
pub(crate) enum Found {
    Absent,
    Whole(Buffer, Trailer),
    Damaged(Reason),
}

/// An entry that was read and checked, or what is wrong with it.
pub(crate) type CheckedEntry = Result<(Buffer, Trailer), Reason>;

impl std::fmt::Debug for Pack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pack({}, {} entries)", self.path.display(), self.trailer.entries)
    }
}

/// Why something in a pack cannot be had.
enum Trouble {
    Damaged(Reason),
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // It was longer when it was opened.
            io::ErrorKind::UnexpectedEof => Self::Damaged(Reason::PackDamaged),
            _ => Self::Io(error),
        }
    }
}

impl Pack {
    /// Opens a pack. Anybody's, since every byte of it is checked; whether to trust its maker is for the caller
    /// to say.
    ///
    /// # Errors
    /// [`Reason::PackDamaged`] when it is no pack, [`Reason::FutureFormat`] for one of a later release, and
    /// errors of the operating system.
    pub fn open(path: &Path) -> Result<Self, CacheError> {
        let named = |error: io::Error| CacheError::io(path.display().to_string(), error);
        // Not blocking, for a FIFO; not a controlling terminal.
        let flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = open(path, flags, Mode::empty()).map_err(|error| named(error.into()))?;
        Self::of(file.into(), path).map_err(|trouble| match trouble {
            Trouble::Io(error) => named(error),
            Trouble::Damaged(reason) => CacheError::new(reason, path.display().to_string()),
        })
    }

    fn of(file: File, path: &Path) -> Result<Self, Trouble> {
        let metadata = file.metadata()?;
        let length = metadata.len();
        let shortest = (format::HEAD_LENGTH + TRAILER_LENGTH) as u64;
        if !metadata.is_file() || length < shortest {
            return Err(Trouble::Damaged(Reason::PackDamaged));
        }
        let mut end = [0; TRAILER_LENGTH];
        file.read_exact_at(&mut end, length - TRAILER_LENGTH as u64)?;
        let trailer = format::Trailer::decode(&end, length).map_err(Trouble::Damaged)?;
        let path = path.to_owned();
        Ok(Self { file, path, trailer, length, nodes: HashMap::new(), kept: AtomicUsize::new(0) })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The user who owns the file, and its mode.
    pub(crate) fn owner_and_mode(&self) -> io::Result<(u32, u32)> {
        self.file.metadata().map(|metadata| (metadata.uid(), metadata.mode()))
    }

    /// The pack as a whole, as its trailer has it.
    pub fn summary(&self) -> PackSummary {
        PackSummary { entries: self.trailer.entries, bytes: self.length, digest: self.trailer.pack_digest() }
    }

    /// Who signed the pack as a whole: that these are its entries, all of them. Nobody, often. What each entry
    /// holds is vouched for by the entry itself.
    ///
    /// # Errors
    /// [`Reason::PackDamaged`] when a signature is false, and errors of the operating system.
    pub fn signed_by(&self) -> Result<Vec<PublicKey>, CacheError> {
        self.signers().map_err(|trouble| self.failed(trouble))
    }

    fn signers(&self) -> Result<Vec<PublicKey>, Trouble> {
        let length = self.trailer.signatures;
        // Bounded when the trailer was read.
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, self.length - TRAILER_LENGTH as u64 - length)?;
        let (seals, _) = bytes.as_chunks::<SEAL_LENGTH>();
        let digest = self.trailer.pack_digest();
        let signers = seals.iter().map(|seal| signer_of_pack(&digest, seal));
        signers.collect::<Option<_>>().ok_or(Trouble::Damaged(Reason::PackDamaged))
    }

    /// The object of an entry; `None` when there is none.
    ///
    /// # Errors
    /// When the entry, or the part of the index that leads to it, is damaged or cannot be read.
    pub fn get(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        let sound = self.sound(signature)?;
        let object = sound.map(|(bytes, trailer)| trailer.into_object(bytes));
        object.transpose().map_err(|reason| self.damaged(signature, reason))
    }

    /// What is kept beside the object of an entry; `None` when there is none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn record(&self, signature: &Signature) -> Result<Option<EntryRecord>, CacheError> {
        Ok(self.sound(signature)?.and_then(|(bytes, trailer)| trailer.entry_record(&bytes)))
    }

    fn sound(&self, signature: &Signature) -> Result<Option<(Buffer, Trailer)>, CacheError> {
        match self.find(signature, &Gate::default()) {
            Ok(Found::Whole(bytes, trailer)) => Ok(Some((bytes, trailer))),
            Ok(Found::Absent) => Ok(None),
            Ok(Found::Damaged(reason)) => Err(self.damaged(signature, reason)),
            Err(error) => Err(CacheError::io(self.named(signature), error)),
        }
    }

    fn named(&self, signature: &Signature) -> String {
        format!("entry {signature} in {}", self.path.display())
    }

    fn damaged(&self, signature: &Signature, reason: Reason) -> CacheError {
        CacheError::new(reason, self.named(signature))
    }

    /// Looks an entry up and checks it, and who vouches for it.
    pub(crate) fn find(&self, signature: &Signature, gate: &Gate) -> io::Result<Found> {
        let found = self.record_of(signature).and_then(|record| match record {
            Some(record) => {
                self.read_entry(&record, gate).map(|(bytes, trailer)| Found::Whole(bytes, trailer))
            }
            None => Ok(Found::Absent),
        });
        match found {
            Ok(found) => Ok(found),
            Err(Trouble::Damaged(reason)) => Ok(Found::Damaged(reason)),
            Err(Trouble::Io(error)) => Err(error),
        }
    }

    /// The record of the root, as if it had a parent.
    fn root(&self) -> Record {
        let format::Trailer { root: (offset, length), root_digest: digest, .. } = self.trailer;
        Record { signature: Signature::from_bytes([0; 32]), digest, offset, length }
    }

    fn record_of(&self, signature: &Signature) -> Result<Option<Record>, Trouble> {
        let mut at = self.root();
        for level in (0..self.trailer.levels).rev() {
            let node = self.node(&at)?;
            let next = if level == 0 { node.exactly(signature) } else { node.towards(signature) };
            match next {
                Some(record) => at = *record,
                None => return Ok(None),
            }
        }
        Ok((self.trailer.levels != 0).then_some(at))
    }

    /// Reads a node, or remembers it.
    fn node(&self, at: &Record) -> Result<Arc<Node>, Trouble> {
        let nodes = self.nodes.pin();
        if let Some(node) = nodes.get(&at.offset) {
            return Ok(Arc::clone(node));
        }
        let damaged = || Trouble::Damaged(Reason::PackDamaged);
        if !is_node_length(at.length) || !at.lies_in(self.trailer.entries_end, self.length) {
            return Err(damaged());
        }
        let bytes = self.read(at)?;
        if blake3::hash(&bytes) != blake3::Hash::from_bytes(at.digest) {
            return Err(damaged());
        }
        let node = Arc::new(Node::decode(&bytes).ok_or_else(damaged)?);
        if self.kept.load(Ordering::Relaxed) < KEPT_NODES {
            self.kept.fetch_add(1, Ordering::Relaxed);
            nodes.insert(at.offset, Arc::clone(&node));
        }
        Ok(node)
    }

    fn read_entry(&self, at: &Record, gate: &Gate) -> Result<(Buffer, Trailer), Trouble> {
        if at.length > ENTRY_LIMIT || !at.lies_in(format::HEAD_LENGTH as u64, self.trailer.entries_end) {
            return Err(Trouble::Damaged(Reason::PackDamaged));
        }
        let mut bytes = self.read(at)?;
        // The index must vouch for this entry, not for any that is sound.
        if !bytes.ends_with(&at.digest) {
            return Err(Trouble::Damaged(Reason::EntryDigest));
        }
        let trailer = Trailer::check_buffer(&mut bytes, &at.signature, gate).map_err(Trouble::Damaged)?;
        Ok((bytes, trailer))
    }

    /// The caller has bounded the length by that of the file.
    fn read(&self, at: &Record) -> io::Result<Buffer> {
        let length = at.length as usize;
        let mut bytes = Buffer::with_room(digest::room(length)).ok_or(io::ErrorKind::OutOfMemory)?;
        while bytes.len() < length {
            let offset = at.offset + bytes.len() as u64;
            let room = rustix::buffer::spare_capacity(&mut bytes);
            match rustix::io::pread(&self.file, room, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    /// All entries by ascending signature. Only their ends are read, and their digests are not checked.
    ///
    /// # Errors
    /// When the index is damaged or cannot be read. Entries that are damaged are left out.
    pub fn entries(&self) -> Result<Vec<PackEntry>, CacheError> {
        let mut entries = Vec::new();
        for record in self.records() {
            let record = record.map_err(|trouble| self.failed(trouble))?;
            entries.extend(self.describe(&record));
        }
        Ok(entries)
    }

    /// All signatures, ascending.
    ///
    /// # Errors
    /// When the index is damaged or cannot be read.
    pub fn signatures(&self) -> Result<Vec<Signature>, CacheError> {
        let signatures = self.records().map(|record| record.map(|record| record.signature));
        signatures.collect::<Result<_, _>>().map_err(|trouble| self.failed(trouble))
    }

    fn failed(&self, trouble: Trouble) -> CacheError {
        let what = format!("index of {}", self.path.display());
        match trouble {
            Trouble::Damaged(reason) => CacheError::new(reason, what),
            Trouble::Io(error) => CacheError::io(what, error),
        }
    }

    fn describe(&self, at: &Record) -> Option<PackEntry> {
        if !at.lies_in(format::HEAD_LENGTH as u64, self.trailer.entries_end) {
            return None;
        }
        let end = |length: usize| {
            let length = at.length.min(length as u64);
            self.read(&Record { offset: at.offset + at.length - length, length, ..*at }).ok()
        };
        let (trailer, namespace) = entry::describe(end, at.length, &at.signature)?;
        Some(PackEntry {
            signature: at.signature,
            object_bytes: trailer.object as u64,
            pack_bytes: at.length,
            created_unix_us: trailer.created_unix_us,
            compile_time_us: trailer.compile_time_us,
            namespace,
        })
    }

    /// Reads and checks everything: the index, each entry, the signatures, and that there is nothing else.
    ///
    /// # Errors
    /// When the index is damaged, a signature is false or the file cannot be read. Damaged entries are findings.
    pub fn verify(&self, progress: &mut dyn FnMut(Progress)) -> Result<VerifyReport, CacheError> {
        let (mut report, gate) = (VerifyReport::default(), Gate::default());
        self.signed_by()?;
        let mut end = format::HEAD_LENGTH as u64;
        for record in self.records() {
            let record = record.map_err(|trouble| self.failed(trouble))?;
            // Between entries there is nothing.
            let sound =
                if record.offset == end { self.checked(&record, &gate)? } else { Err(Reason::PackDamaged) };
            end = record.offset.saturating_add(record.length);
            match sound {
                Ok((bytes, _)) => report.bytes += bytes.len() as u64,
                Err(reason) => report.damaged.push(DamagedEntry { signature: record.signature, reason }),
            }
            report.checked += 1;
            progress(Progress { done: report.checked, total: self.trailer.entries, bytes: report.bytes });
        }
        let complete = report.checked == self.trailer.entries && end == self.trailer.entries_end;
        match complete && self.head_is_sound() {
            true => Ok(report),
            false => Err(self.failed(Trouble::Damaged(Reason::PackDamaged))),
        }
    }

    fn head_is_sound(&self) -> bool {
        let mut head = [0; format::HEAD_LENGTH];
        self.file.read_exact_at(&mut head, 0).is_ok() && head == format::head()
    }

    /// Every entry in order: its bytes and its trailer, or why they are none.
    pub(crate) fn each_entry<'a>(
        &'a self,
        gate: &'a Gate,
    ) -> impl Iterator<Item = Result<(Signature, CheckedEntry), CacheError>> + 'a {
        self.records().map(|record| {
            let record = record.map_err(|trouble| self.failed(trouble))?;
            Ok((record.signature, self.checked(&record, gate)?))
        })
    }

    fn checked(&self, at: &Record, gate: &Gate) -> Result<CheckedEntry, CacheError> {
        match self.read_entry(at, gate) {
            Ok(entry) => Ok(Ok(entry)),
            Err(Trouble::Damaged(reason)) => Ok(Err(reason)),
            Err(Trouble::Io(error)) => Err(CacheError::io(self.named(&at.signature), error)),
        }
    }

    /// The records of all entries, in order. Ends with the first trouble.
    fn records(&self) -> Records<'_> {
        let mut levels = VecDeque::new();
        if self.trailer.levels != 0 {
            levels.push_back((self.trailer.levels, self.root()));
        }
        // Every step takes one record that an honest tree has.
        let nodes = self.trailer.entries.saturating_mul(2).saturating_add(u64::from(self.trailer.levels));
        Records { pack: self, waiting: levels, steps: nodes, last: None }
    }
}

/// Goes through the tree depth first. The front of the queue is what comes next.
struct Records<'a> {
    pack: &'a Pack,
    waiting: VecDeque<(u32, Record)>,
    steps: u64,
    last: Option<Signature>,
}

impl Records<'_> {
    fn step(&mut self) -> Result<Option<Record>, Trouble> {
        while let Some((level, record)) = self.waiting.pop_front() {
            // A tree that leads round would never end.
            self.steps = self.steps.checked_sub(1).ok_or(Trouble::Damaged(Reason::PackDamaged))?;
            if level == 0 {
                if self.last.replace(record.signature).is_some_and(|last| last >= record.signature) {
                    return Err(Trouble::Damaged(Reason::PackDamaged));
                }
                return Ok(Some(record));
            }
            for child in self.pack.node(&record)?.records().iter().rev() {
                self.waiting.push_front((level - 1, *child));
            }
        }
        Ok(None)
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Trouble>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step().transpose();
        if matches!(step, Some(Err(_))) {
            self.waiting.clear();
        }
        step
    }
}
