//! The format of an entry: an object that says by itself whose it is and whether it is whole.
//!
//! ```text
//! object │ key document │ record (bincode) │ trailer, 128 bytes
//! ```
//! The object comes first, so that it is as aligned as the buffer it is read into. The trailer comes last, so
//! that bytes lost or gained at the end are noticed at once. All integers are little-endian:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic `objcache` |
//! | 8 | 4 | format version |
//! | 12 | 4 | codec of the object; 0: as it is |
//! | 16 | 3 × 8 | lengths of object, key document, record |
//! | 40 | 8 | compile time, µs |
//! | 48 | 8 | created, µs since 1970-01-01 UTC |
//! | 56 | 8 | zero |
//! | 64 | 32 | signature |
//! | 96 | 32 | BLAKE3 over everything before it |
//!
//! Checks run in this order: magic and version, then the entry's *own* signature against the one that was
//! asked for, then lengths, then the digest. A valid entry that was copied under another name is refused.

use objcache_signature::{Provenance, Signature};
use serde::{Deserialize, Serialize};

use crate::admin::EntryRecord;
use crate::clock::microseconds;
use crate::codec;
use crate::error::{CacheError, Reason};
use crate::object::CompiledObject;

pub(crate) const TRAILER_LENGTH: usize = 128;
const DIGEST_LENGTH: usize = 32;
const MAGIC: [u8; 8] = *b"objcache";
const VERSION: u32 = 1;
const CODEC_AS_IS: u32 = 0;

/// The longest key document kept, in bytes.
const KEY_DOCUMENT_LIMIT: usize = 64 << 20;

/// Bytes at the end of an entry that tell enough of it nearly always.
const DESCRIPTION: usize = 4096;

/// What is kept beside object and key document.
#[derive(Serialize, Deserialize)]
struct Record {
    namespace: String,
    provenance: Vec<u8>,
}

/// Everything of an entry that follows the object.
///
/// # Errors
/// [`Reason::TooLarge`] when the key document or the record is above its limit.
pub(crate) fn tail(compiled: &CompiledObject<'_>, created_unix_us: u64) -> Result<Vec<u8>, CacheError> {
    let CompiledObject { signature, object, key_document, provenance, namespace, compile_time } = compiled;
    let record = Record { namespace: (*namespace).to_owned(), provenance: provenance.encode() };
    let too_large = |what| CacheError::new(Reason::TooLarge, format!("{what} of {signature}"));
    let record = codec::encode(&record).ok_or_else(|| too_large("provenance and namespace"))?;
    if key_document.len() > KEY_DOCUMENT_LIMIT {
        return Err(too_large("key document"));
    }

    let mut tail = Vec::with_capacity(key_document.len() + record.len() + TRAILER_LENGTH);
    tail.extend_from_slice(key_document);
    tail.extend_from_slice(&record);
    tail.extend_from_slice(&MAGIC);
    tail.extend_from_slice(&VERSION.to_le_bytes());
    tail.extend_from_slice(&CODEC_AS_IS.to_le_bytes());
    for length in [object.len(), key_document.len(), record.len()] {
        tail.extend_from_slice(&(length as u64).to_le_bytes());
    }
    tail.extend_from_slice(&microseconds(*compile_time).to_le_bytes());
    tail.extend_from_slice(&created_unix_us.to_le_bytes());
    tail.extend_from_slice(&0u64.to_le_bytes());
    tail.extend_from_slice(signature.as_bytes());
    let digest = blake3::Hasher::new().update(object).update(&tail).finalize();
    tail.extend_from_slice(digest.as_bytes());
    Ok(tail)
}

/// A trailer whose magic, version, signature and lengths are right. The digest is not yet looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) object: usize,
    pub(crate) key_document: usize,
    pub(crate) record: usize,
    pub(crate) compile_time_us: u64,
    pub(crate) created_unix_us: u64,
}

impl Trailer {
    /// Reads the trailer from `end`, the last bytes of an entry of `length` bytes filed under `expected`.
    pub(crate) fn parse(end: &[u8], length: u64, expected: &Signature) -> Result<Self, Reason> {
        let Some((_, trailer)) = end.split_last_chunk::<TRAILER_LENGTH>() else {
            return Err(Reason::EntryLength);
        };
        let u32_at = |at: usize| u32::from_le_bytes(array(trailer, at));
        let u64_at = |at: usize| u64::from_le_bytes(array(trailer, at));
        if array(trailer, 0) != MAGIC {
            return Err(Reason::EntryMagic);
        }
        if u32_at(8) != VERSION || u32_at(12) != CODEC_AS_IS {
            return Err(Reason::EntryVersion);
        }
        if array(trailer, 64) != *expected.as_bytes() {
            return Err(Reason::EntrySignature);
        }
        let lengths = [u64_at(16), u64_at(24), u64_at(32), TRAILER_LENGTH as u64];
        let sum = lengths.iter().try_fold(0u64, |sum, &part| sum.checked_add(part));
        if sum != Some(length) {
            return Err(Reason::EntryLength);
        }
        let part = |at| usize::try_from(u64_at(at)).map_err(|_| Reason::EntryLength);
        Ok(Self {
            object: part(16)?,
            key_document: part(24)?,
            record: part(32)?,
            compile_time_us: u64_at(40),
            created_unix_us: u64_at(48),
        })
    }

    /// All checks, over a whole entry.
    pub(crate) fn check(entry: &[u8], expected: &Signature) -> Result<Self, Reason> {
        let trailer = Self::parse(entry, entry.len() as u64, expected)?;
        let Some((covered, digest)) = entry.split_last_chunk::<DIGEST_LENGTH>() else {
            return Err(Reason::EntryLength);
        };
        // `blake3::Hash` compares in constant time, for what it is worth here.
        if blake3::hash(covered) != blake3::Hash::from_bytes(*digest) {
            return Err(Reason::EntryDigest);
        }
        Ok(trailer)
    }

    /// Key document and provenance of the checked `entry` this trailer was read from.
    pub(crate) fn entry_record(&self, entry: &[u8]) -> Option<EntryRecord> {
        let key_document = entry.get(self.object..self.object + self.key_document)?.to_vec();
        let record = entry.get(self.object + self.key_document..)?.get(..self.record)?;
        let record: Record = codec::decode(record)?;
        let provenance = Provenance::decode(&record.provenance).ok()?;
        Some(EntryRecord { key_document, provenance })
    }
}

/// The namespace in the encoded `record` of an entry; `None` when that is damaged.
pub(crate) fn namespace(record: &[u8]) -> Option<String> {
    codec::decode::<Record>(record).map(|record| record.namespace)
}

/// What an entry of `length` bytes says of itself at its end, of which `end` gives so many bytes: its trailer and
/// namespace. The digest is not checked: that would mean reading it all. `None` when there is no sound end.
pub(crate) fn describe(
    end: impl Fn(usize) -> Option<Vec<u8>>,
    length: u64,
    expected: &Signature,
) -> Option<(Trailer, String)> {
    let mut bytes = end(DESCRIPTION)?;
    let trailer = Trailer::parse(&bytes, length, expected).ok()?;
    let wanted = trailer.record + TRAILER_LENGTH;
    if bytes.len() < wanted && trailer.record <= codec::LIMIT {
        bytes = end(wanted)?;
    }
    let record = bytes.len().checked_sub(wanted).and_then(|at| bytes.get(at..at + trailer.record));
    Some((trailer, record.and_then(namespace).unwrap_or_default()))
}

fn array<const N: usize>(bytes: &[u8; TRAILER_LENGTH], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SIGNATURE: Signature = Signature::from_bytes([0x5a; 32]);

    fn entry(object: &[u8], key_document: &[u8], namespace: &str) -> Vec<u8> {
        let provenance = Provenance { host: Some("here".to_owned()), ..Provenance::default() };
        let compiled = CompiledObject {
            signature: SIGNATURE,
            object,
            key_document,
            provenance: &provenance,
            namespace,
            compile_time: Duration::from_micros(77),
        };
        let tail = tail(&compiled, 99).expect("small");
        [object, &tail].concat()
    }

    fn reseal(entry: &mut [u8]) {
        let covered = entry.len() - DIGEST_LENGTH;
        let digest = blake3::hash(&entry[..covered]);
        entry[covered..].copy_from_slice(digest.as_bytes());
    }

    fn check(entry: &[u8], expected: Reason) {
        assert_eq!(Trailer::check(entry, &SIGNATURE), Err(expected));
    }

    #[test]
    fn each_fault_has_its_reason() {
        let good = entry(b"object", b"key", "ns");
        let trailer = good.len() - TRAILER_LENGTH;
        let with = |at: usize, byte: u8| {
            let mut changed = good.clone();
            changed[trailer + at] ^= byte;
            reseal(&mut changed);
            changed
        };
        assert!(Trailer::check(&good, &SIGNATURE).is_ok());
        check(&[], Reason::EntryLength);
        check(&good[trailer + 1..], Reason::EntryLength);
        check(&good[1..], Reason::EntryLength);
        check(&good[..good.len() - 1], Reason::EntryMagic);
        check(&with(0, 1), Reason::EntryMagic);
        check(&with(8, 2), Reason::EntryVersion);
        check(&with(12, 1), Reason::EntryVersion);
        check(&with(16, 1), Reason::EntryLength);
        check(&with(23, 0x80), Reason::EntryLength);
        check(&with(64, 1), Reason::EntrySignature);
        let mut flipped = good.clone();
        flipped[0] ^= 1;
        check(&flipped, Reason::EntryDigest);
        let other = Signature::from_bytes([1; 32]);
        assert_eq!(Trailer::check(&good, &other), Err(Reason::EntrySignature));
    }

    #[test]
    fn a_resealed_record_with_a_hostile_length_is_only_no_record() {
        let mut hostile = entry(b"object", b"", "ns");
        hostile[6..15].copy_from_slice(&[253, 255, 255, 255, 255, 255, 255, 255, 127]);
        reseal(&mut hostile);
        let trailer = Trailer::check(&hostile, &SIGNATURE).expect("sealed");
        assert_eq!(trailer.entry_record(&hostile), None);
    }

    #[test]
    fn too_much_beside_the_object_is_refused() {
        let provenance = Provenance::default();
        let namespace = "n".repeat(codec::LIMIT);
        let compiled = CompiledObject {
            signature: SIGNATURE,
            object: b"",
            key_document: b"",
            provenance: &provenance,
            namespace: &namespace,
            compile_time: Duration::ZERO,
        };
        assert_eq!(tail(&compiled, 0).expect_err("too large").reason(), Reason::TooLarge);
    }

    proptest! {
        #[test]
        fn parts_come_back(object: Vec<u8>, key: Vec<u8>, ns: String) {
            let bytes = entry(&object, &key, &ns);
            let trailer = Trailer::check(&bytes, &SIGNATURE).expect("whole");
            prop_assert_eq!(&bytes[..trailer.object], &object[..]);
            prop_assert_eq!((trailer.compile_time_us, trailer.created_unix_us), (77, 99));
            let record = trailer.entry_record(&bytes).expect("whole");
            prop_assert_eq!(record.key_document, key);
            prop_assert_eq!(record.provenance.host.as_deref(), Some("here"));
            let at = trailer.object + trailer.key_document;
            prop_assert_eq!(namespace(&bytes[at..at + trailer.record]), Some(ns));
        }

        #[test]
        fn arbitrary_bytes_are_no_entry(bytes: Vec<u8>, resealed: bool) {
            let mut bytes = bytes;
            if resealed && bytes.len() >= DIGEST_LENGTH { reseal(&mut bytes); }
            prop_assert!(Trailer::check(&bytes, &SIGNATURE).is_err());
        }
    }
}
