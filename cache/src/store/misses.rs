//! The last compilations whose objects are not in the store: failed ones, and objects that it did not take.
//!
//! Of every other compilation the entry itself tells. Together they answer "what was compiled last, and why?"
//! ([`Store::last_misses`]). A ring of a few records in one small file, written with the journal and only when there
//! is something new; nobody waits for it. What is lost with it is an explanation.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use objcache_signature::{Provenance, Signature};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::admin::CacheAdmin;
use crate::clock::now_unix_us;
use crate::codec;
use crate::error::{CacheError, Reason};
use crate::object::CompiledObject;
use crate::object_cache::FailedCompile;
use crate::store::Store;
use crate::store::directory::{Directory, MISSES};

/// So many are remembered.
const KEPT: usize = 16;
/// A key document that is longer is not remembered: the miss is, without it.
const LONGEST_DOCUMENT: usize = 24 * 1024;
/// A source's name that is longer is cut off.
const LONGEST_NAME: usize = 1024;

const MAGIC: [u8; 8] = *b"objcmis1";
/// Magic, and the digest of what follows.
const HEADER: usize = 8 + 32;
/// The longest file that is read: a full ring, each record with its length.
const LONGEST: usize = HEADER + KEPT * (4 + codec::WRITE_LIMIT);

/// A compilation that the cache did not spare its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// Names the compilation.
    pub signature: Signature,
    /// When it ended: µs since 1970-01-01 UTC.
    pub at_unix_us: u64,
    /// What became of it.
    pub end: MissEnd,
    /// What was compiled; empty where that is not known, or was too long to remember.
    pub key_document: Vec<u8>,
    /// The source, as it was named then.
    pub source_path: Option<String>,
}

/// What became of a compilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissEnd {
    /// Its object is in the cache.
    Kept,
    /// There was no object: the compilation failed.
    Failed,
    /// The object is not worth keeping, by the limits of the cache: it was compiled too fast, or is too large for them.
    Declined,
    /// The cache could not take the object.
    Refused(Reason),
}

/// A miss as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Noted {
    signature: [u8; 32],
    at_unix_us: u64,
    end: NotedEnd,
    key_document: Vec<u8>,
    source_path: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum NotedEnd {
    Failed,
    Declined,
    /// With the number of the reason.
    Refused(u8),
}

impl Noted {
    pub(crate) fn failed(failed: &FailedCompile<'_>) -> Self {
        Self::new(&failed.signature, NotedEnd::Failed, failed.key_document, failed.provenance)
    }

    pub(crate) fn declined(compiled: &CompiledObject<'_>) -> Self {
        Self::new(&compiled.signature, NotedEnd::Declined, compiled.key_document, compiled.provenance)
    }

    pub(crate) fn refused(compiled: &CompiledObject<'_>, reason: Reason) -> Self {
        let end = NotedEnd::Refused(reason as u8);
        Self::new(&compiled.signature, end, compiled.key_document, compiled.provenance)
    }

    fn new(signature: &Signature, end: NotedEnd, document: &[u8], provenance: &Provenance) -> Self {
        let key_document = if document.len() <= LONGEST_DOCUMENT { document.to_vec() } else { Vec::new() };
        let source_path =
            provenance.source_path.as_ref().map(|name| name.chars().take(LONGEST_NAME).collect());
        Self { signature: *signature.as_bytes(), at_unix_us: now_unix_us(), end, key_document, source_path }
    }

    fn miss(self) -> Miss {
        let end = match self.end {
            NotedEnd::Failed => MissEnd::Failed,
            NotedEnd::Declined => MissEnd::Declined,
            NotedEnd::Refused(number) => {
                MissEnd::Refused(Reason::ALL.get(usize::from(number)).copied().unwrap_or(Reason::Other))
            }
        };
        Miss {
            signature: Signature::from_bytes(self.signature),
            at_unix_us: self.at_unix_us,
            end,
            key_document: self.key_document,
            source_path: self.source_path,
        }
    }
}

/// The last few, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Ring(VecDeque<Noted>);

impl Ring {
    pub(crate) fn push(&mut self, noted: Noted) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(noted);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds these to the file, and forgets them here. When another process has it locked, they are kept for the next time.
    pub(crate) fn write(&mut self, directory: &Directory) -> io::Result<()> {
        let (file, _) = directory.open_or_create(MISSES)?;
        // Other errors come from file systems without locks: there two processes may lose each other's records.
        if let Err(rustix::io::Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            return Ok(());
        }
        let mut all = Self(read(&file)?.into());
        self.0.drain(..).for_each(|noted| all.push(noted));
        let bytes = encode(&all.0);
        // Torn by a crash, its digest does not match and it is begun anew.
        let written = file.write_all_at(&bytes, 0).and_then(|()| file.set_len(bytes.len() as u64));
        // By hand, because a child forked meanwhile would hold the lock on with its copy of the descriptor.
        let _ = flock(&file, FlockOperation::Unlock);
        written
    }
}

fn encode(ring: &VecDeque<Noted>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    for record in ring.iter().filter_map(codec::encode) {
        bytes.extend_from_slice(&(record.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&record);
    }
    bytes[..8].copy_from_slice(&MAGIC);
    let digest = blake3::hash(&bytes[HEADER..]);
    bytes[8..HEADER].copy_from_slice(digest.as_bytes());
    bytes
}

fn read(file: &File) -> io::Result<Vec<Noted>> {
    let length = file.metadata()?.len().min(LONGEST as u64) as usize;
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What is damaged, or written just now, tells nothing.
fn decode(bytes: &[u8]) -> Vec<Noted> {
    let Some((header, mut records)) = bytes.split_first_chunk::<HEADER>() else { return Vec::new() };
    if header[..8] != MAGIC || header[8..] != *blake3::hash(records).as_bytes() {
        return Vec::new();
    }
    let mut ring = Vec::new();
    while let Some((length, rest)) = records.split_first_chunk::<4>() {
        let Some((record, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
        ring.extend(codec::decode::<Noted>(record));
        records = rest;
    }
    ring
}

impl Store {
    /// The last compilations that this cache did not spare its users, at most `limit`, the latest first. Failed ones
    /// and those whose objects were not taken are remembered for a while; the others are in the cache.
    ///
    /// # Errors
    /// When the entries cannot be listed.
    pub fn last_misses(&self, limit: usize) -> Result<Vec<Miss>, CacheError> {
        let mut entries = self.list()?;
        entries.sort_by_key(|entry| Reverse(entry.created_unix_us));
        let mut misses = Vec::new();
        for entry in entries.iter().take(limit) {
            let Some(record) = self.record(&entry.signature)? else { continue };
            misses.push(Miss {
                signature: entry.signature,
                at_unix_us: entry.created_unix_us,
                end: MissEnd::Kept,
                key_document: record.key_document,
                source_path: record.provenance.source_path,
            });
        }
        misses.extend(self.noted_misses()?);
        misses.sort_by_key(|miss| Reverse(miss.at_unix_us));
        misses.truncate(limit);
        Ok(misses)
    }

    fn noted_misses(&self) -> Result<impl Iterator<Item = Miss>, CacheError> {
        let directory = self.directory_or_why()?;
        let noted =
            directory.open_file(MISSES).and_then(|file| file.map_or(Ok(Vec::new()), |file| read(&file)));
        let noted = noted.map_err(|error| CacheError::io("misses", error))?;
        Ok(noted.into_iter().map(Noted::miss))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noted(number: u8, document: usize) -> Noted {
        let provenance = Provenance { source_path: Some("a.c".to_owned()), ..Provenance::default() };
        let signature = Signature::from_bytes([number; 32]);
        Noted::new(&signature, NotedEnd::Failed, &vec![number; document], &provenance)
    }

    fn directory() -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        (place, directory)
    }

    fn kept(directory: &Directory) -> Vec<Noted> {
        read(&directory.open_file(MISSES).expect("opens").expect("is there")).expect("reads")
    }

    #[test]
    fn the_last_few_are_kept() {
        let (_place, directory) = directory();
        for first in [0, 10, 20] {
            let mut ring = Ring::default();
            (first..first + 10).for_each(|number| ring.push(noted(number, 10)));
            ring.write(&directory).expect("written");
            assert!(ring.is_empty());
        }
        let numbers: Vec<u8> = kept(&directory).iter().map(|noted| noted.signature[0]).collect();
        assert_eq!(numbers, (14..30).collect::<Vec<u8>>());
    }

    #[test]
    fn the_file_is_bounded_whatever_is_noted() {
        let (_place, directory) = directory();
        let mut ring = Ring::default();
        (0..40).for_each(|number| ring.push(noted(number, LONGEST_DOCUMENT + usize::from(number % 2))));
        ring.write(&directory).expect("written");
        let kept = kept(&directory);
        assert_eq!(kept.len(), KEPT);
        assert!(kept.iter().all(|noted| [0, LONGEST_DOCUMENT].contains(&noted.key_document.len())));
        let length =
            directory.open_file(MISSES).expect("opens").expect("is there").metadata().expect("stat").len();
        assert!(length <= LONGEST as u64);
    }

    #[test]
    fn what_another_process_has_locked_is_kept_for_the_next_time() {
        let (_place, directory) = directory();
        let (other, _) = directory.open_or_create(MISSES).expect("opens");
        flock(&other, FlockOperation::NonBlockingLockExclusive).expect("free");
        let mut ring = Ring::default();
        ring.push(noted(1, 1));
        ring.write(&directory).expect("no error");
        assert!(!ring.is_empty());
        drop(other);
        ring.write(&directory).expect("written");
        assert_eq!(kept(&directory).len(), 1);
    }

    proptest! {
        #[test]
        fn damage_tells_nothing(at: prop::sample::Index, bit in 0u8..8, cut: prop::sample::Index) {
            let mut bytes = encode(&[noted(1, 20), noted(2, 0)].into());
            prop_assert_eq!(decode(&bytes).len(), 2);
            prop_assert_eq!(decode(&bytes[..cut.index(bytes.len())]), []);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes), []);
        }
    }
}
