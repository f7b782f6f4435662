//! The format of a pack.
//!
//! ```text
//! head, 16 bytes │ entries │ nodes of the index │ signatures │ trailer, 128 bytes
//! ```
//! Entries stand end to end in ascending order of their signatures, so that the same entries make the same
//! bytes, whoever packs them and when. The index is a search tree whose nodes name their children by digest:
//! the root's digest vouches for every byte of every entry, and a look-up reads and checks one node a level.
//! Leaves come first, then each level above, the root last. All integers are little-endian.
//!
//! The head is the magic `objcpack`, the version (4 bytes) and four zeros. A node is up to [`FAN_OUT`] records
//! of 80 bytes, ascending:
//!
//! | offset | bytes | in a leaf | above |
//! |---|---|---|---|
//! | 0 | 32 | signature of an entry | the smallest signature below a node |
//! | 32 | 32 | digest at the end of the entry | BLAKE3 of the node |
//! | 64 | 8 | where it begins in the file | the same |
//! | 72 | 8 | its length | the same |
//!
//! The trailer:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic `objcpack` |
//! | 8 | 4 | format version |
//! | 12 | 4 | levels of the tree; 0: there are no entries |
//! | 16 | 8 | number of entries |
//! | 24 | 8 | where the entries end |
//! | 32 | 2 × 8 | where the root begins, its length |
//! | 48 | 8 | zero |
//! | 56 | 8 | length of the signatures |
//! | 64 | 32 | BLAKE3 of the root |
//! | 96 | 32 | BLAKE3 of the trailer before it |
//!
//! The digest of a pack is BLAKE3 over the first 48 bytes of the trailer and the root's digest: over all but
//! the signatures, which are made over it. Each is a public key, 32 bytes, and an ed25519 signature, 64.

use objcache_signature::Signature;

use crate::error::Reason;
use crate::trust::{MOST_SEALS, SEAL_LENGTH};

pub(super) const HEAD_LENGTH: usize = 16;
pub(super) const TRAILER_LENGTH: usize = 128;
pub(super) const RECORD_LENGTH: usize = 80;

/// Records in a node, at most: a little less than a page.
pub(super) const FAN_OUT: usize = 51;

/// Levels of a tree, at most: enough for more entries than there are disks for.
const MOST_LEVELS: u32 = 8;

const MAGIC: [u8; 8] = *b"objcpack";
const VERSION: u32 = 1;

pub(super) fn head() -> [u8; HEAD_LENGTH] {
    let mut head = [0; HEAD_LENGTH];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head
}

/// One line of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) signature: Signature,
    pub(super) digest: [u8; 32],
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Record {
    pub(super) fn encode(&self) -> [u8; RECORD_LENGTH] {
        let mut bytes = [0; RECORD_LENGTH];
        bytes[..32].copy_from_slice(self.signature.as_bytes());
        bytes[32..64].copy_from_slice(&self.digest);
        bytes[64..72].copy_from_slice(&self.offset.to_le_bytes());
        bytes[72..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; RECORD_LENGTH]) -> Self {
        Self {
            signature: Signature::from_bytes(array(bytes, 0)),
            digest: array(bytes, 32),
            offset: u64::from_le_bytes(array(bytes, 64)),
            length: u64::from_le_bytes(array(bytes, 72)),
        }
    }

    /// Whether it names a range of the file between `from` and `to`.
    pub(super) fn lies_in(&self, from: u64, to: u64) -> bool {
        self.offset >= from && self.offset.checked_add(self.length).is_some_and(|end| end <= to)
    }
}

/// The records of a node, ascending, at least one.
#[derive(Debug)]
pub(super) struct Node(Vec<Record>);

impl Node {
    /// `None`: these bytes are no node.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (records, rest) = bytes.as_chunks::<RECORD_LENGTH>();
        if records.is_empty() || !rest.is_empty() {
            return None;
        }
        let records: Vec<Record> = records.iter().map(Record::decode).collect();
        records.is_sorted_by(|a, b| a.signature < b.signature).then_some(Self(records))
    }

    /// The record of `signature` itself.
    pub(super) fn exactly(&self, signature: &Signature) -> Option<&Record> {
        let at = self.0.binary_search_by_key(signature, |record| record.signature).ok()?;
        self.0.get(at)
    }

    /// The record of the child below which `signature` would be.
    pub(super) fn towards(&self, signature: &Signature) -> Option<&Record> {
        let after = self.0.partition_point(|record| record.signature <= *signature);
        self.0.get(after.checked_sub(1)?)
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.0
    }
}

/// Whether a node may have this length.
pub(super) fn is_node_length(length: u64) -> bool {
    length != 0 && length <= (FAN_OUT * RECORD_LENGTH) as u64 && length.is_multiple_of(RECORD_LENGTH as u64)
}

/// What the trailer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) levels: u32,
    pub(super) entries: u64,
    pub(super) entries_end: u64,
    pub(super) root: (u64, u64),
    pub(super) signatures: u64,
    pub(super) root_digest: [u8; 32],
}

impl Trailer {
    pub(super) fn encode(&self) -> [u8; TRAILER_LENGTH] {
        let mut bytes = [0; TRAILER_LENGTH];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.levels.to_le_bytes());
        let numbers = [(16, self.entries), (24, self.entries_end), (32, self.root.0), (40, self.root.1)];
        for (at, number) in numbers {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes[56..64].copy_from_slice(&self.signatures.to_le_bytes());
        bytes[64..96].copy_from_slice(&self.root_digest);
        let seal = blake3::hash(&bytes[..96]);
        bytes[96..].copy_from_slice(seal.as_bytes());
        bytes
    }

    /// Reads the trailer of a file of `file_length` bytes, and sees to it that its parts fit in there.
    pub(super) fn decode(bytes: &[u8; TRAILER_LENGTH], file_length: u64) -> Result<Self, Reason> {
        if array(bytes, 0) != MAGIC {
            return Err(Reason::PackDamaged);
        }
        // Before the seal, which another version may make in another way.
        if u32::from_le_bytes(array(bytes, 8)) != VERSION {
            return Err(Reason::FutureFormat);
        }
        if blake3::hash(&bytes[..96]) != blake3::Hash::from_bytes(array(bytes, 96)) {
            return Err(Reason::PackDamaged);
        }
        let u64_at = |at| u64::from_le_bytes(array(bytes, at));
        let trailer = Self {
            levels: u32::from_le_bytes(array(bytes, 12)),
            entries: u64_at(16),
            entries_end: u64_at(24),
            root: (u64_at(32), u64_at(40)),
            signatures: u64_at(56),
            root_digest: array(bytes, 64),
        };
        // The zeros included.
        match trailer.fits(file_length) && trailer.encode() == *bytes {
            true => Ok(trailer),
            false => Err(Reason::PackDamaged),
        }
    }

    fn fits(&self, file_length: u64) -> bool {
        let index_end =
            file_length.checked_sub(TRAILER_LENGTH as u64).and_then(|end| end.checked_sub(self.signatures));
        let root_end = self.root.0.checked_add(self.root.1);
        let root_fits = match self.levels {
            0 => self.entries == 0 && self.root.1 == 0,
            _ => self.entries != 0 && is_node_length(self.root.1),
        };
        self.levels <= MOST_LEVELS
            && self.signatures <= (MOST_SEALS * SEAL_LENGTH) as u64
            && self.signatures.is_multiple_of(SEAL_LENGTH as u64)
            && root_fits
            && root_end.is_some()
            && root_end == index_end
            && (HEAD_LENGTH as u64..=self.root.0).contains(&self.entries_end)
    }

    /// Names the pack by its content.
    pub(super) fn pack_digest(&self) -> [u8; 32] {
        let bytes = self.encode();
        blake3::Hasher::new().update(&bytes[..48]).update(&self.root_digest).finalize().into()
    }
}

pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(part) = bytes.get(at..at + N) {
        out.copy_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(first: u8) -> Record {
        let signature = Signature::from_bytes([first; 32]);
        Record { signature, digest: [first; 32], offset: 16, length: 200 }
    }

    #[test]
    fn a_node_is_searched_for_an_entry_or_the_way_to_it() {
        let bytes = [record(2).encode(), record(4).encode(), record(6).encode()].concat();
        let node = Node::decode(&bytes).expect("ascending");
        let at = |first| Signature::from_bytes([first; 32]);
        assert_eq!(node.exactly(&at(4)), Some(&record(4)));
        assert_eq!(node.exactly(&at(5)), None);
        assert_eq!(node.towards(&at(1)), None);
        assert_eq!(node.towards(&at(2)), Some(&record(2)));
        assert_eq!(node.towards(&at(5)), Some(&record(4)));
        assert_eq!(node.towards(&at(255)), Some(&record(6)));
    }

    #[test]
    fn nodes_that_are_none() {
        let one = record(1).encode();
        assert!(Node::decode(&[]).is_none());
        assert!(Node::decode(&one[1..]).is_none());
        assert!(Node::decode(&[one, one].concat()).is_none(), "not ascending");
        assert!(!is_node_length(0) && !is_node_length(81) && !is_node_length(52 * 80));
        assert!(is_node_length(80) && is_node_length(51 * 80));
    }

    fn resealed(mut bytes: [u8; TRAILER_LENGTH]) -> [u8; TRAILER_LENGTH] {
        let seal = blake3::hash(&bytes[..96]);
        bytes[96..].copy_from_slice(seal.as_bytes());
        bytes
    }

    #[test]
    fn a_later_version_is_told_from_damage() {
        let mut bytes = [0; TRAILER_LENGTH];
        assert_eq!(Trailer::decode(&bytes, 1000), Err(Reason::PackDamaged));
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = 2;
        assert_eq!(Trailer::decode(&bytes, 1000), Err(Reason::FutureFormat));
    }

    proptest! {
        #[test]
        fn a_record_comes_back(signature: [u8; 32], digest: [u8; 32], offset: u64, length: u64) {
            let record = Record { signature: Signature::from_bytes(signature), digest, offset, length };
            prop_assert_eq!(Record::decode(&record.encode()), record);
        }

        #[test]
        fn resealed_trailers_that_lie_are_refused_or_fit(at in 12usize..64, byte: u8, length in 128u64..5000) {
            let sound = Trailer {
                levels: 1,
                entries: 1,
                entries_end: 216,
                root: (216, 80),
                signatures: 0,
                root_digest: [1; 32],
            };
            prop_assert_eq!(Trailer::decode(&sound.encode(), 216 + 80 + 128), Ok(sound));
            let mut bytes = sound.encode();
            bytes[at] = byte;
            if let Ok(read) = Trailer::decode(&resealed(bytes), length) {
                prop_assert!(read.root.0 + read.root.1 + read.signatures + 128 == length);
                prop_assert!(read.entries_end <= read.root.0);
            }
        }
    }
}
