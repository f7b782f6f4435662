//! An event, as it lies in the journal: 64 bytes, of which the last eight are a checksum.

use objcache_signature::Signature;

use crate::store::counters::Counter;

pub(super) const EVENT: usize = 64;
const CHECKED: usize = 56;

/// Something that happened to an entry or a counter. Times are µs since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Put { signature: Signature, at: u64 },
    Hits { signature: Signature, count: u64, at: u64 },
    Count { counter: Counter, by: u64 },
}

impl Event {
    pub(super) fn encode(&self) -> [u8; EVENT] {
        let (kind, number, value, at, signature) = match self {
            Self::Put { signature, at } => (1, 0, 0, *at, *signature.as_bytes()),
            Self::Hits { signature, count, at } => (2, 0, *count, *at, *signature.as_bytes()),
            Self::Count { counter, by } => (3, counter.number(), *by, 0, [0; 32]),
        };
        let mut bytes = [0; EVENT];
        bytes[0] = kind;
        bytes[1] = number;
        bytes[8..16].copy_from_slice(&u64::to_le_bytes(value));
        bytes[16..24].copy_from_slice(&u64::to_le_bytes(at));
        bytes[24..CHECKED].copy_from_slice(&signature);
        let check = checksum(&bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&check);
        bytes
    }

    pub(super) fn decode(bytes: &[u8; EVENT]) -> Option<Self> {
        if !is_whole(bytes) {
            return None;
        }
        let signature: [u8; 32] = bytes[24..CHECKED].try_into().ok()?;
        let signature = Signature::from_bytes(signature);
        let (value, at) = (number(bytes, 8), number(bytes, 16));
        match bytes[0] {
            1 => Some(Self::Put { signature, at }),
            2 => Some(Self::Hits { signature, count: value, at }),
            3 => Some(Self::Count { counter: Counter::from_number(bytes[1])?, by: value }),
            _ => None,
        }
    }
}

pub(super) fn is_whole(event: &[u8; EVENT]) -> bool {
    event[CHECKED..] == checksum(&event[..CHECKED])
}

pub(super) fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    check
}

pub(super) fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
}
