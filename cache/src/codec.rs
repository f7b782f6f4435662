//! The one place that knows bincode.
//!
//! Decoding has a byte limit: without one a hostile length makes the decoder allocate until the process dies.
//! Nothing encoded here decides a hit; it is what is known *about* entries.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest encoding that is read, in bytes.
pub(crate) const LIMIT: usize = 64 * 1024;

/// The longest that is written. Less, because the decoder counts short integers at their full width.
pub(crate) const WRITE_LIMIT: usize = LIMIT / 2;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<LIMIT>,
> = bincode::config::standard().with_limit::<LIMIT>();

/// `None`: the encoding would be above [`WRITE_LIMIT`].
pub(crate) fn encode(value: &impl Serialize) -> Option<Vec<u8>> {
    bincode::serde::encode_to_vec(value, CONFIG).ok().filter(|bytes| bytes.len() <= WRITE_LIMIT)
}

/// `None`: the bytes are no encoding of a `T`, or something follows it.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, CONFIG).ok()?;
    (used == bytes.len()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_lengths_are_refused_without_allocating_them() {
        for length in [u64::MAX, 1 << 40, LIMIT as u64 + 1] {
            let mut bytes = vec![253];
            bytes.extend_from_slice(&length.to_le_bytes());
            assert_eq!(decode::<Vec<u8>>(&bytes), None);
            assert_eq!(decode::<String>(&bytes), None);
        }
    }

    #[test]
    fn what_is_too_long_to_read_is_not_written() {
        let longest = "x".repeat(WRITE_LIMIT - 3);
        let bytes = encode(&longest).expect("fits with its length");
        assert!(decode::<String>(&bytes) == Some(longest));
        assert!(encode(&"x".repeat(WRITE_LIMIT - 2)).is_none());
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u64).expect("short");
        assert_eq!(decode::<u64>(&bytes), Some(7));
        bytes.push(0);
        assert_eq!(decode::<u64>(&bytes), None);
    }
}
