//! How an object is stored: as it is, or compressed; and which, by a policy.
//!
//! The digest of an entry is over what lies on disk and is checked first, so nothing here sees damage. What it
//! may see is a lie that somebody sealed: the length that comes out is declared, bounded in proportion to what
//! is stored, and must be met exactly.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::str::FromStr;

use zstd::bulk::Compressor;

/// How the object of an entry is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// As it is.
    #[default]
    Plain,
    /// As an LZ4 block: less than half as large, and takes less than twice as long to get.
    Lz4,
    /// As a Zstandard frame: little more than a quarter as large, and takes three times as long to get.
    Zstd,
}

impl Codec {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Lz4, Self::Zstd];

    /// A stable name, for machines: `none`, `lz4` or `zstd`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The number in an entry's trailer.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Plain => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.number() == number)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which codec objects are put with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// LZ4 for objects of 512 KiB and more, if that saves a quarter; others are stored as they are.
    #[default]
    Auto,
    /// This one, for whatever gets smaller by it.
    Always(Codec),
}

impl FromStr for Compression {
    type Err = ();

    /// `auto`, `none`, `lz4` or `zstd`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.to_ascii_lowercase();
        match Codec::ALL.into_iter().find(|codec| codec.as_str() == text) {
            Some(codec) => Ok(Self::Always(codec)),
            None if text == "auto" => Ok(Self::Auto),
            None => Err(()),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Always(codec) => codec.fmt(f),
        }
    }
}

/// Smaller objects are faster as they are, and do not take much room.
const AUTO_FROM: usize = 512 * 1024;
/// What has to be saved to be worth it: this part of the object.
const AUTO_SHARE: usize = 4;
/// Of objects of C libraries 440 MB/s become 0.278 of their length; at level 3 290 MB/s 0.270, at 9 51 MB/s 0.248. One
/// for all: a pack has the same bytes, wherever its entries were compressed.
const ZSTD_LEVEL: i32 = 1;

thread_local! {
    /// To begin anew takes longer than to compress what is small.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// An object is at most so many times as long as what is stored of it, and `SLACK` bytes. LZ4 cannot do better;
/// what Zstandard shrinks by more is stored as LZ4.
const MOST_RATIO: usize = 256;
const SLACK: usize = 4096;

impl Compression {
    /// The object as it is stored, and how.
    pub(crate) fn apply(self, object: &[u8]) -> (Codec, Cow<'_, [u8]>) {
        let plain = (Codec::Plain, Cow::Borrowed(object));
        let (codec, most) = match self {
            Self::Auto if object.len() < AUTO_FROM => return plain,
            Self::Auto => (Codec::Lz4, object.len() - object.len() / AUTO_SHARE),
            // A compressed object has one more thing that can go wrong: it must at least get smaller.
            Self::Always(codec) => (codec, object.len().saturating_sub(1)),
        };
        let (codec, stored) = match codec {
            Codec::Plain => return plain,
            Codec::Lz4 => (Codec::Lz4, lz4_flex::block::compress(object)),
            Codec::Zstd => match zstd_frame(object) {
                Ok(stored) if is_plausible(object.len(), stored.len()) => (Codec::Zstd, stored),
                _ => (Codec::Lz4, lz4_flex::block::compress(object)),
            },
        };
        match stored.len() <= most && is_plausible(object.len(), stored.len()) {
            true => (codec, Cow::Owned(stored)),
            false => plain,
        }
    }
}

impl Compression {
    /// Whether it is known without a try how an object is stored by this policy: as it is stored now.
    pub(crate) fn is_met_by(self, codec: Codec, object_bytes: u64) -> bool {
        let least = match self {
            Self::Auto => AUTO_FROM as u64,
            // What fits into one block of the disk takes one, however it is stored.
            Self::Always(_) => 4096,
        };
        match self {
            Self::Auto if codec == Codec::Lz4 => true,
            Self::Always(wanted) if codec == wanted => true,
            _ => codec == Codec::Plain && object_bytes < least,
        }
    }
}

fn zstd_frame(object: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|compressor| match compressor {
        Some(compressor) => compressor.compress(object),
        None => compressor.insert(Compressor::new(ZSTD_LEVEL)?).compress(object),
    })
}

/// Whether an object of this length can be stored in so few bytes. Asked before anything is allocated.
pub(crate) fn is_plausible(object: usize, stored: usize) -> bool {
    object <= stored.saturating_mul(MOST_RATIO).saturating_add(SLACK)
}

/// The object of `length` bytes that is `stored`, into `into`, which has room for it; `false` when it is not
/// exactly that long, or is no such encoding.
pub(crate) fn decompress(codec: Codec, stored: &[u8], into: &mut [u8]) -> bool {
    let length = into.len();
    let written = match codec {
        Codec::Plain => {
            if stored.len() == length {
                into.copy_from_slice(stored);
            }
            Some(stored.len())
        }
        Codec::Lz4 => lz4_flex::block::decompress_into(stored, into).ok(),
        Codec::Zstd => zstd::bulk::decompress_to_buffer(stored, into).ok(),
    };
    written == Some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(compression: Compression, object: &[u8]) -> Codec {
        let (codec, stored) = compression.apply(object);
        assert!(codec == Codec::Plain || stored.len() < object.len());
        assert!(is_plausible(object.len(), stored.len()));
        let mut back = vec![0xa5; object.len()];
        assert!(decompress(codec, &stored, &mut back));
        assert!(back == object);
        codec
    }

    fn compressible(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at / 7 % 31) as u8).collect()
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn the_policy_decides_by_size_and_gain() {
        let auto = |object: &[u8]| round_trip(Compression::Auto, object);
        assert_eq!(auto(&compressible(AUTO_FROM - 1)), Codec::Plain);
        assert_eq!(auto(&compressible(AUTO_FROM)), Codec::Lz4);
        assert_eq!(auto(&noise(AUTO_FROM)), Codec::Plain);
        let hardly = [noise(AUTO_FROM * 4 / 5), vec![0; AUTO_FROM / 5]].concat();
        assert_eq!(auto(&hardly), Codec::Plain, "saves a fifth");
        for codec in Codec::ALL {
            assert_eq!(round_trip(Compression::Always(codec), &compressible(5000)), codec);
            assert_eq!(round_trip(Compression::Always(codec), &noise(5000)), Codec::Plain);
            assert_eq!(round_trip(Compression::Always(codec), b""), Codec::Plain);
        }
    }

    #[test]
    fn what_shrinks_beyond_belief_is_still_believed() {
        for codec in Codec::ALL {
            round_trip(Compression::Always(codec), &vec![0; 16 << 20]);
        }
        round_trip(Compression::Auto, &vec![0; 16 << 20]);
    }

    #[test]
    fn policies_have_names() {
        for text in ["auto", "none", "lz4", "zstd"] {
            assert_eq!(text.parse::<Compression>().expect("known").to_string(), text);
        }
        assert!("gzip".parse::<Compression>().is_err());
        assert!(Codec::ALL.into_iter().all(|codec| Codec::from_number(codec.number()) == Some(codec)));
        assert_eq!(Codec::from_number(3), None);
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let object = compressible(5000);
        for codec in Codec::ALL {
            let (codec, stored) = Compression::Always(codec).apply(&object);
            for length in [0, 1, 4999, 5001, 10_000] {
                assert!(!decompress(codec, &stored, &mut vec![0; length]), "{codec} {length}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decompress_to_something_or_nothing(stored: Vec<u8>, length in 0usize..5000) {
            for codec in Codec::ALL {
                decompress(codec, &stored, &mut vec![0; length]);
            }
        }

        #[test]
        fn every_object_comes_back(object: Vec<u8>, repeat in 1usize..40) {
            for codec in Codec::ALL {
                round_trip(Compression::Always(codec), &object.repeat(repeat));
            }
        }
    }
}
