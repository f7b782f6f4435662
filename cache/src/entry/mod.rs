//! The format of an entry: an object that says by itself whose it is and whether it is whole.
//!
//! ```text
//! object │ key document │ record (bincode) │ CPU features │ signatures │ trailer, 224 bytes
//! ```
//! The object comes first, so that it is as aligned as the buffer it is read into. The trailer comes last, so
//! that bytes lost or gained at the end are noticed at once. All integers are little-endian:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | magic `objcache` |
//! | 8 | 4 | format version |
//! | 12 | 4 | codec of the object; 0: as it is, 1: LZ4 block, 2: Zstandard frame |
//! | 16 | 5 × 8 | lengths of the five parts before the trailer, as they are stored |
//! | 56 | 8 | length of the object |
//! | 64 | 8 | compile time, µs |
//! | 72 | 8 | created, µs since 1970-01-01 UTC |
//! | 80 | 8 | length of the key document, if it is stored as a [frame](crate::document), else zero |
//! | 88 | 8 | zero |
//! | 96 | 32 | signature of the compilation |
//! | 128 | 32 | BLAKE3 of the object, not as it is stored but as it is handed out |
//! | 160 | 32 | MAC over the [digest](crate::digest) of everything before it, or zero |
//! | 192 | 32 | BLAKE3 over the digest of everything before the MAC, and the MAC |
//!
//! Checks run in this order: magic and version, then the entry's *own* signature against the one that was
//! asked for, then lengths, then the digest, then whoever vouches for it. A valid entry that was copied under
//! another name is refused. Only what passed is decompressed.
//!
//! Format 1 had neither features nor seals; its entries are misses.

mod encode;
mod trailer;

use std::ops::Deref;

use objcache_signature::Signature;
use serde::{Deserialize, Serialize};

pub(crate) use self::encode::Encoded;
pub(crate) use self::trailer::Trailer;
use crate::codec;

pub(crate) const TRAILER_LENGTH: usize = 224;
/// The longest entry, and the longest object in one, in bytes. A damaged length must not use up the memory.
pub(crate) const ENTRY_LIMIT: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"objcache";
const VERSION: u32 = 2;

/// Where MAC and digest stand, from the end.
const MAC_AND_DIGEST: usize = 64;
const NO_MAC: [u8; 32] = [0; 32];

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

/// The last 32 bytes of an entry.
fn sealed(content: &[u8; 32], mac: &[u8; 32]) -> blake3::Hash {
    let mut both = [0; 64];
    both[..32].copy_from_slice(content);
    both[32..].copy_from_slice(mac);
    blake3::hash(&both)
}

/// The namespace in the encoded `record` of an entry; `None` when that is damaged.
pub(crate) fn namespace(record: &[u8]) -> Option<String> {
    codec::decode::<Record>(record).map(|record| record.namespace)
}

/// What an entry of `length` bytes says of itself at its end, of which `end` gives so many bytes: its trailer and
/// namespace. The digest is not checked: that would mean reading it all. `None` when there is no sound end.
pub(crate) fn describe<B: Deref<Target = Vec<u8>>>(
    end: impl Fn(usize) -> Option<B>,
    length: u64,
    expected: &Signature,
) -> Option<(Trailer, String)> {
    let mut bytes = end(DESCRIPTION)?;
    let trailer = Trailer::parse(&bytes, length, expected).ok()?;
    let wanted = trailer.record_from_end();
    if bytes.len() < wanted && trailer.record <= codec::LIMIT {
        bytes = end(wanted)?;
    }
    let record = bytes.len().checked_sub(wanted).and_then(|at| bytes.get(at..at + trailer.record));
    Some((trailer, record.and_then(namespace).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use objcache_signature::Provenance;
    use proptest::prelude::*;

    use super::trailer::array;
    use super::*;
    use crate::compression::{Codec, Compression};
    use crate::digest;
    use crate::error::Reason;
    use crate::object::CompiledObject;
    use crate::trust::{Gate, MacKey, SEAL_LENGTH, SigningKey, Trust};

    const SIGNATURE: Signature = Signature::from_bytes([0x5a; 32]);

    fn entry(object: &[u8], key_document: &[u8], namespace: &str) -> Vec<u8> {
        sealed_entry(object, key_document, namespace, Codec::Plain, &Trust::everybody())
    }

    fn sealed_entry(
        object: &[u8],
        key_document: &[u8],
        namespace: &str,
        codec: Codec,
        trust: &Trust,
    ) -> Vec<u8> {
        let provenance = Provenance { host: Some("here".to_owned()), ..Provenance::default() };
        let compiled = CompiledObject {
            signature: SIGNATURE,
            object,
            key_document,
            provenance: &provenance,
            namespace,
            compile_time: Duration::from_micros(77),
            cpu_features: &["x86/sse2".to_owned(), "x86/avx2".to_owned()],
        };
        let encoded = Encoded::new(&compiled, 99, Compression::Always(codec), trust).expect("small");
        [&encoded.object, encoded.tail.as_slice()].concat()
    }

    fn reseal(entry: &mut [u8]) {
        let covered = entry.len() - MAC_AND_DIGEST;
        let content = digest::of(&entry[..covered]);
        let mac = array(entry.last_chunk().expect("long enough"), 160);
        entry[covered + 32..].copy_from_slice(sealed(content.as_bytes(), &mac).as_bytes());
    }

    fn checked(entry: &[u8], trust: Trust) -> Result<Trailer, Reason> {
        Trailer::check(entry, &SIGNATURE, &Gate::new(trust))
    }

    fn check(entry: &[u8], expected: Reason) {
        assert_eq!(checked(entry, Trust::everybody()), Err(expected));
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
        assert!(checked(&good, Trust::everybody()).is_ok());
        check(&[], Reason::EntryLength);
        check(&good[trailer + 1..], Reason::EntryLength);
        check(&good[1..], Reason::EntryLength);
        check(&good[..good.len() - 1], Reason::EntryMagic);
        check(&with(0, 1), Reason::EntryMagic);
        check(&with(8, 2), Reason::EntryVersion);
        check(&with(12, 4), Reason::EntryVersion);
        check(&with(93, 1), Reason::EntryVersion);
        check(&with(85, 1), Reason::EntryLength);
        for length in [16, 24, 32, 40, 48, 56] {
            check(&with(length, 1), Reason::EntryLength);
            check(&with(length + 7, 0x80), Reason::EntryLength);
        }
        check(&with(96, 1), Reason::EntrySignature);
        let mut flipped = good.clone();
        flipped[trailer + 170] ^= 1;
        check(&flipped, Reason::EntryDigest);
        let mut flipped = good.clone();
        flipped[0] ^= 1;
        check(&flipped, Reason::EntryDigest);
        let other = Signature::from_bytes([1; 32]);
        assert_eq!(Trailer::check(&good, &other, &Gate::default()), Err(Reason::EntrySignature));
    }

    #[test]
    fn a_resealed_record_with_a_hostile_length_is_only_no_record() {
        let mut hostile = entry(b"object", b"", "ns");
        hostile[6..15].copy_from_slice(&[253, 255, 255, 255, 255, 255, 255, 255, 127]);
        reseal(&mut hostile);
        let trailer = checked(&hostile, Trust::everybody()).expect("sealed");
        assert_eq!(trailer.entry_record(&hostile), None);
    }

    #[test]
    fn a_key_document_is_stored_shorter_and_a_lie_about_it_is_only_no_record() {
        let document = b"clang version 22.1.8 x86_64-unknown-linux-gnu".repeat(10);
        let sound = entry(b"object", &document, "ns");
        assert!(sound.len() < document.len());
        let document_of = |entry: &[u8]| {
            let trailer = checked(entry, Trust::everybody()).expect("sealed");
            trailer.entry_record(entry).map(|record| record.key_document)
        };
        assert_eq!(document_of(&sound), Some(document.clone()));
        for lie in [0, 1, document.len() - 1, document.len() + 1, KEY_DOCUMENT_LIMIT] {
            let mut lying = sound.clone();
            let at = sound.len() - TRAILER_LENGTH + 80;
            lying[at..at + 8].copy_from_slice(&(lie as u64).to_le_bytes());
            reseal(&mut lying);
            assert_ne!(document_of(&lying), Some(document.clone()), "{lie}");
            if lie > 0 {
                assert_eq!(document_of(&lying), None, "{lie}");
            }
        }
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
            cpu_features: &[],
        };
        let check = |compiled: &CompiledObject<'_>| {
            let encoded = Encoded::new(compiled, 0, Compression::Auto, &Trust::everybody());
            assert_eq!(encoded.map(|it| it.length()).expect_err("too large").reason(), Reason::TooLarge);
        };
        check(&compiled);
        check(&CompiledObject { namespace: "", cpu_features: &["x".repeat(300)], ..compiled });
    }

    #[test]
    fn a_lie_about_what_was_compressed_is_damage() {
        let object = [7; 5000];
        for codec in [Codec::Lz4, Codec::Zstd] {
            let sound = sealed_entry(&object, b"key", "ns", codec, &Trust::everybody());
            let trailer = sound.len() - TRAILER_LENGTH;
            let claiming = |length: u64| {
                let mut entry = sound.clone();
                entry[trailer + 56..trailer + 64].copy_from_slice(&length.to_le_bytes());
                reseal(&mut entry);
                let trailer = checked(&entry, Trust::everybody())?;
                trailer.into_object(entry)
            };
            assert_eq!(*claiming(5000).expect("true"), object);
            for lie in [0, 1, 4999, 5001, 6000] {
                assert_eq!(claiming(lie), Err(Reason::EntryCodec), "{codec} {lie}");
            }
            // Before anything is allocated for it.
            assert_eq!(claiming(1 << 29), Err(Reason::EntryCodec));
            assert_eq!(claiming(u64::MAX), Err(Reason::EntryLength));
            let mut garbage = sound.clone();
            garbage[..10].fill(0xff);
            reseal(&mut garbage);
            let trailer = checked(&garbage, Trust::everybody()).expect("sealed");
            assert_eq!(trailer.into_object(garbage), Err(Reason::EntryCodec));
        }
    }

    #[test]
    fn who_vouches_decides_where_it_matters() {
        let (mac, other_mac) = (MacKey::from_bytes([1; 32]), MacKey::from_bytes([2; 32]));
        let (key, other_key) = (SigningKey::from_bytes([1; 32]), SigningKey::from_bytes([2; 32]));
        for codec in Codec::ALL {
            let sealed = |trust: &Trust| sealed_entry(&[7; 3000], b"key", "ns", codec, trust);
            let (open, maced) = (sealed(&Trust::everybody()), sealed(&Trust::mac(mac.clone())));
            let signed = sealed(&Trust::everybody().signing_with(key.clone()));
            let reason = |entry: &[u8], trust: Trust| checked(entry, trust).err();
            for entry in [&open, &maced, &signed] {
                assert_eq!(reason(entry, Trust::everybody()), None, "as if nobody had sealed it");
            }
            let by_mac = || Trust::mac(mac.clone());
            assert_eq!(reason(&open, by_mac()), Some(Reason::Unsigned));
            assert_eq!(reason(&maced, by_mac()), None);
            assert_eq!(reason(&maced, Trust::mac(other_mac.clone())), Some(Reason::EntryMac));
            assert_eq!(reason(&signed, by_mac()), Some(Reason::Untrusted));
            let by_key = || Trust::ed25519([key.public()]);
            assert_eq!(reason(&open, by_key()), Some(Reason::Unsigned));
            assert_eq!(reason(&maced, by_key()), Some(Reason::EntryMac));
            assert_eq!(reason(&signed, by_key()), None);
            assert_eq!(reason(&signed, Trust::ed25519([other_key.public()])), Some(Reason::Untrusted));
            assert_eq!(reason(&maced, by_key().and_mac(mac.clone())), None, "either is enough");
        }
    }

    #[test]
    fn a_signature_is_for_this_object_and_compilation() {
        let key = SigningKey::from_bytes([1; 32]);
        let signing = Trust::everybody().signing_with(key.clone());
        let reason = |entry: &[u8]| checked(entry, Trust::ed25519([key.public()])).err();
        for codec in Codec::ALL {
            let sound = sealed_entry(&[7; 3000], b"key", "ns", codec, &signing);
            let unsigned = sealed_entry(&[8; 3000], b"key", "ns", codec, &Trust::everybody());
            let seal_end = sound.len() - TRAILER_LENGTH;
            let seal = &sound[seal_end - SEAL_LENGTH..seal_end];
            // Somebody who can write here puts the seal onto an object of theirs, and the digest that it is over.
            let end = unsigned.len() - TRAILER_LENGTH;
            let mut forged = [&unsigned[..end], seal, &unsigned[end..]].concat();
            let trailer = end + SEAL_LENGTH;
            forged[trailer + 48..trailer + 56].copy_from_slice(&(SEAL_LENGTH as u64).to_le_bytes());
            reseal(&mut forged);
            assert_eq!(reason(&forged), Some(Reason::EntrySeal), "{codec}: another digest");
            forged[trailer + 128..trailer + 160].copy_from_slice(blake3::hash(&[7; 3000]).as_bytes());
            reseal(&mut forged);
            assert_eq!(reason(&forged), Some(Reason::EntrySeal), "{codec}: another object");

            let mut renamed = sound.clone();
            let other = Signature::from_bytes([1; 32]);
            renamed[seal_end + 96..seal_end + 128].copy_from_slice(other.as_bytes());
            reseal(&mut renamed);
            let gate = Gate::new(Trust::ed25519([key.public()]));
            assert_eq!(Trailer::check(&renamed, &other, &gate), Err(Reason::EntrySeal));
            assert_eq!(reason(&sound), None);
        }
    }

    proptest! {
        #[test]
        fn parts_come_back(object: Vec<u8>, repeat in 1usize..20, key: Vec<u8>, ns: String, codec in 0u32..3) {
            let (object, codec) = (object.repeat(repeat), Codec::from_number(codec).expect("known"));
            let signing = Trust::everybody().signing_with(SigningKey::from_bytes([1; 32]));
            let bytes = sealed_entry(&object, &key, &ns, codec, &signing);
            let trailer = checked(&bytes, signing).expect("whole");
            prop_assert_eq!(&*trailer.into_object(bytes.clone()).expect("whole"), &object[..]);
            prop_assert_eq!(trailer.states_its_object(&bytes), Ok(true));
            prop_assert_eq!((trailer.compile_time_us, trailer.created_unix_us), (77, 99));
            let record = trailer.entry_record(&bytes).expect("whole");
            prop_assert_eq!(record.key_document, key);
            prop_assert_eq!(record.provenance.host.as_deref(), Some("here"));
            let at = trailer.stored + trailer.key_document;
            prop_assert_eq!(namespace(&bytes[at..at + trailer.record]), Some(ns));
        }

        #[test]
        fn arbitrary_bytes_are_no_entry(bytes: Vec<u8>, resealed: bool) {
            let mut bytes = bytes;
            if resealed && bytes.len() >= TRAILER_LENGTH { reseal(&mut bytes); }
            prop_assert!(checked(&bytes, Trust::everybody()).is_err());
        }
    }
}
