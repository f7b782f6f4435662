//! Maps by signature in memory. A signature is a hash already, so its words only need to be brought together;
//! and a map made this way asks the system for no random numbers, which a new process would wait for.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use objcache_signature::Signature;

pub(crate) type SignatureMap<T> = HashMap<Signature, T, BuildHasherDefault<Words>>;
pub(crate) type SignatureSet = HashSet<Signature, BuildHasherDefault<Words>>;

/// Odd, and with no pattern: the fraction of the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Brings words of eight bytes together.
#[derive(Default)]
pub(crate) struct Words(u64);

impl Hasher for Words {
    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let word = word.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
            // Both halves of the product, or high bits would count for little.
            let product = u128::from(self.0 ^ word) * u128::from(MULTIPLIER);
            self.0 = ((product >> 64) as u64 ^ product as u64).wrapping_add(MULTIPLIER);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn every_byte_counts() {
        let hash = |bytes| BuildHasherDefault::<Words>::default().hash_one(Signature::from_bytes(bytes));
        let mut seen = HashSet::from([hash([0; 32])]);
        for at in 0..32 {
            for bit in 0..8 {
                let mut bytes = [0; 32];
                bytes[at] = 1 << bit;
                assert!(seen.insert(hash(bytes)), "bit {bit} of byte {at}");
            }
        }
        let low: HashSet<u64> = seen.iter().map(|hash| hash % 256).collect();
        assert!(low.len() > 100, "{} of 256 values of the low byte", low.len());
    }
}
