//! What is stored: bytes that do not compress, of sizes as objects have them, under their own BLAKE3.

use std::f64::consts::TAU;

/// A key is the BLAKE3 of its value, so that whoever has both can tell whether they belong together.
pub(crate) type Key = [u8; 32];

pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) value: Vec<u8>,
}

pub(crate) const SMALL: usize = 12 << 10;
pub(crate) const LARGE: usize = 256 << 10;

const MEDIAN: f64 = SMALL as f64;
/// Of the logarithm: two thirds of all sizes are between a third and three times the median.
const SPREAD: f64 = 1.2;
const LARGEST: f64 = (1 << 20) as f64;

impl Entry {
    /// One of a log-normal size.
    pub(crate) fn of(number: u64) -> Self {
        let random = blake3::hash(&number.to_le_bytes());
        let unit = |at: usize| {
            let word = u32::from_le_bytes(random.as_bytes()[at..at + 4].try_into().expect("four bytes"));
            (f64::from(word) + 0.5) / (f64::from(u32::MAX) + 1.0)
        };
        let normal = (-2.0 * unit(0).ln()).sqrt() * (TAU * unit(4)).cos();
        let length = (MEDIAN * (SPREAD * normal).exp()).clamp(64.0, LARGEST);
        Self::of_length(number, length as usize)
    }

    pub(crate) fn of_length(number: u64, length: usize) -> Self {
        let mut value = vec![0; length];
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut value);
        Self { key: key_of(&value), value }
    }
}

pub(crate) fn key_of(value: &[u8]) -> Key {
    blake3::hash(value).into()
}

/// A key that nothing has.
pub(crate) fn absent(number: usize) -> Key {
    key_of(&[&b"absent"[..], &number.to_le_bytes()].concat())
}
