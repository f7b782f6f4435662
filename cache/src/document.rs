//! How the key document of an entry is stored: as a Zstandard frame, if that is shorter. No hit reads it.
//!
//! Documents have most of their text in common: the names of ingredients, of features, of libraries. Frames refer
//! to a dictionary of it, documents of Cranelift, llc, gcc and clang without their digests, so a document of 1.1 KB
//! takes 0.3 KB. The dictionary is part of the format: with another one, what is stored would not read any more.

use std::sync::LazyLock;

use parking_lot::Mutex;
use zstd::bulk::{Compressor, Decompressor};
use zstd::dict::{DecoderDictionary, EncoderDictionary};

const DICTIONARY: &[u8] = include_bytes!("document.dictionary");
const LEVEL: i32 = 3;

// To digest the dictionary takes longer than all the rest, and to begin anew half as long again.
static ENCODER: LazyLock<EncoderDictionary<'_>> =
    LazyLock::new(|| EncoderDictionary::copy(DICTIONARY, LEVEL));
static COMPRESSOR: Mutex<Option<Compressor<'_>>> = Mutex::new(None);
static DECODER: LazyLock<DecoderDictionary<'_>> = LazyLock::new(|| DecoderDictionary::copy(DICTIONARY));

/// A document is at most so many times as long as its frame, and `SLACK` bytes: half of it is digests as a rule.
const MOST_RATIO: usize = 64;
const SLACK: usize = 16 * 1024;

/// The document as a frame; `None`: it is to be stored as it is.
pub(crate) fn shortened(document: &[u8]) -> Option<Vec<u8>> {
    if document.is_empty() {
        return None;
    }
    // Never waited for: in a child that was forked it may be locked for ever.
    let mut kept = COMPRESSOR.try_lock();
    let reused = kept.as_mut().and_then(|kept| kept.take());
    let mut compressor = match reused {
        Some(compressor) => compressor,
        None => Compressor::with_prepared_dictionary(&ENCODER).ok()?,
    };
    let frame = compressor.compress(document).ok()?;
    if let Some(mut kept) = kept {
        *kept = Some(compressor);
    }
    (frame.len() < document.len() && is_plausible(document.len(), frame.len())).then_some(frame)
}

/// The document of `length` bytes in a frame; `None` when it is not exactly that long, or is no frame of ours.
pub(crate) fn restored(frame: &[u8], length: usize) -> Option<Vec<u8>> {
    if !is_plausible(length, frame.len()) {
        return None;
    }
    let document = Decompressor::with_prepared_dictionary(&DECODER).ok()?.decompress(frame, length).ok()?;
    (document.len() == length).then_some(document)
}

/// Whether a document of this length can be in so short a frame. Asked before anything is allocated.
pub(crate) fn is_plausible(document: usize, frame: usize) -> bool {
    document <= frame.saturating_mul(MOST_RATIO).saturating_add(SLACK)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_is_of_exactly_one_length_and_bounded() {
        let document = [b"clang", DICTIONARY].concat();
        let frame = shortened(&document).expect("much shorter");
        assert!(frame.len() < 100, "the dictionary is not used: {}", frame.len());
        for length in [0, 1, document.len() - 1, document.len() + 1, usize::MAX] {
            assert_eq!(restored(&frame, length), None, "{length}");
        }
        assert_eq!(restored(&frame, document.len()), Some(document));
        let zeros = vec![0; 1 << 20];
        assert_eq!(shortened(&zeros), None, "it would look like a lie");
        assert_eq!(shortened(b""), None);
    }

    proptest! {
        #[test]
        fn every_document_comes_back(document: Vec<u8>, repeat in 1usize..40) {
            let document = document.repeat(repeat);
            if let Some(frame) = shortened(&document) {
                prop_assert!(frame.len() < document.len());
                prop_assert_eq!(restored(&frame, document.len()), Some(document));
            }
        }

        #[test]
        fn any_bytes_are_a_document_or_none(frame: Vec<u8>, length in 0usize..5000) {
            prop_assert!(restored(&frame, length).is_none_or(|document| document.len() == length));
        }
    }
}
