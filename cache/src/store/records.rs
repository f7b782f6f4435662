//! The records of entries as they lie in sled: those whose signatures begin alike share a key.
//!
//! sled takes most of a microsecond per key, which is what a look at all entries costs. A value is a sequence of
//! signature, length (16 bits, little-endian) and record.

use std::collections::BTreeMap;

use objcache_signature::Signature;

use crate::codec;
use crate::sled_guard::{Database, DatabaseError, Keyspace};
use crate::store::catalogue::EntryKnowledge;

const ENTRIES: Keyspace = Keyspace(0);
const HEAD: usize = 32 + 2;

type Bucket = BTreeMap<Signature, Option<EntryKnowledge>>;

/// Twelve bits: a few records for each key where there are ten thousand, a few kilobytes where there are a
/// million.
fn key(signature: &Signature) -> [u8; 2] {
    let bytes = signature.as_bytes();
    [bytes[0], bytes[1] & 0xf0]
}

/// Every record in `value`, as far as it can be read.
fn decode(mut value: &[u8]) -> impl Iterator<Item = (Signature, EntryKnowledge)> {
    std::iter::from_fn(move || {
        loop {
            let (head, rest) = value.split_first_chunk::<HEAD>()?;
            let (signature, length) = head.split_first_chunk::<32>()?;
            let length = usize::from(u16::from_le_bytes(length.try_into().ok()?));
            let record = rest.get(..length)?;
            value = &rest[length..];
            if let Some(knowledge) = codec::decode(record) {
                return Some((Signature::from_bytes(*signature), knowledge));
            }
        }
    })
}

fn encode(bucket: &Bucket) -> Vec<u8> {
    let mut value = Vec::new();
    for (signature, knowledge) in bucket {
        let Some(record) = knowledge.as_ref().and_then(codec::encode) else { continue };
        let Ok(length) = u16::try_from(record.len()) else { continue };
        value.extend_from_slice(signature.as_bytes());
        value.extend_from_slice(&length.to_le_bytes());
        value.extend_from_slice(&record);
    }
    value
}

/// What is known of one entry.
pub(crate) fn get(
    database: &Database,
    signature: &Signature,
) -> Result<Option<EntryKnowledge>, DatabaseError> {
    let value = database.get(ENTRIES, &key(signature))?.unwrap_or_default();
    Ok(decode(&value).find(|(of, _)| of == signature).map(|(_, knowledge)| knowledge))
}

/// What is known of the entries whose signatures begin with this byte.
pub(crate) fn beginning_with(
    database: &Database,
    first: u8,
) -> Result<Vec<(Signature, EntryKnowledge)>, DatabaseError> {
    let mut known = Vec::new();
    for second in (0..=0xf0).step_by(0x10) {
        let value = database.get(ENTRIES, &[first, second])?;
        known.extend(decode(&value.unwrap_or_default()));
    }
    Ok(known)
}

/// All that is known.
pub(crate) fn all(database: &Database) -> Result<Vec<(Signature, EntryKnowledge)>, DatabaseError> {
    let mut known = Vec::new();
    database.scan(ENTRIES, |_, value| known.extend(decode(value)))?;
    Ok(known)
}

/// Writes records; `None` removes one.
pub(crate) fn write(
    database: &Database,
    changes: impl IntoIterator<Item = (Signature, Option<EntryKnowledge>)>,
) -> Result<(), DatabaseError> {
    let mut buckets: BTreeMap<[u8; 2], Bucket> = BTreeMap::new();
    for (signature, change) in changes {
        buckets.entry(key(&signature)).or_default().insert(signature, change);
    }
    let mut writes = Vec::with_capacity(buckets.len());
    for (key, changes) in buckets {
        let value = database.get(ENTRIES, &key)?.unwrap_or_default();
        let mut bucket: Bucket = decode(&value).map(|(of, knowledge)| (of, Some(knowledge))).collect();
        bucket.extend(changes);
        let value = encode(&bucket);
        writes.push((key.to_vec(), (!value.is_empty()).then_some(value)));
    }
    database.write(ENTRIES, writes)
}
