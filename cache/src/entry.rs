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

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::ops::Deref;

use objcache_signature::{Provenance, Signature};
use serde::{Deserialize, Serialize};

use crate::admin::EntryRecord;
use crate::buffer::Buffer;
use crate::clock::microseconds;
use crate::codec;
use crate::compression::{self, Codec, Compression};
use crate::cpu::{self, HostFeatures};
use crate::digest;
use crate::document;
use crate::error::{CacheError, Reason};
use crate::object::{CompiledObject, ObjectBuffer};
use crate::trust::{Gate, MOST_SEALS, PublicKey, SEAL_LENGTH, Statement, Trust};

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

/// An entry that is to be written: the object as it is stored, and everything that follows it.
pub(crate) struct Encoded<'a> {
    pub(crate) object: Cow<'a, [u8]>,
    pub(crate) tail: Vec<u8>,
}

impl<'a> Encoded<'a> {
    /// # Errors
    /// [`Reason::TooLarge`] when object, key document, record or features are above their limits.
    pub(crate) fn new(
        compiled: &CompiledObject<'a>,
        created_unix_us: u64,
        compression: Compression,
        trust: &Trust,
    ) -> Result<Self, CacheError> {
        let CompiledObject {
            signature,
            object,
            key_document,
            provenance,
            namespace,
            compile_time,
            cpu_features,
        } = compiled;
        let too_large = |what| CacheError::new(Reason::TooLarge, format!("{what} of {signature}"));
        let record = Record { namespace: (*namespace).to_owned(), provenance: provenance.encode() };
        let record = codec::encode(&record).ok_or_else(|| too_large("provenance and namespace"))?;
        let cpu_features = cpu::encode(cpu_features).ok_or_else(|| too_large("CPU features"))?;
        if key_document.len() > KEY_DOCUMENT_LIMIT {
            return Err(too_large("key document"));
        }
        if object.len() as u64 > ENTRY_LIMIT {
            return Err(too_large("object"));
        }
        let statement = Statement {
            signature: *signature,
            object_digest: blake3::hash(object).into(),
            object_bytes: object.len() as u64,
            key_document_digest: blake3::hash(key_document).into(),
            namespace,
            cpu_features: &cpu_features,
        };
        let (codec, stored) = compression.apply(object);
        let shortened = document::shortened(key_document);
        let parts = Parts {
            codec,
            object: &stored,
            key_document: shortened.as_deref().unwrap_or(key_document),
            document_bytes: shortened.as_ref().map(|_| key_document.len()),
            record: &record,
            cpu_features: &cpu_features,
            seals: &trust.seals(&statement),
            object_bytes: statement.object_bytes,
            compile_time_us: microseconds(*compile_time),
            created_unix_us,
            signature: *signature,
            object_digest: statement.object_digest,
        };
        let tail = parts.tail(trust);
        Ok(Self { object: stored, tail })
    }

    /// A checked entry with its object stored otherwise, and how that is. All else stays, signatures too, but for the MAC.
    ///
    /// # Errors
    /// [`Reason::EntryCodec`] when the object does not decompress to what the trailer says.
    pub(crate) fn again(
        entry: &[u8],
        trailer: &Trailer,
        compression: Compression,
        trust: &Trust,
    ) -> Result<(Codec, Self), Reason> {
        let object = trailer.decompressed(entry)?;
        let (codec, stored) = compression.apply(&object);
        let parts = Parts {
            codec,
            object: &stored,
            key_document: trailer.stored_document(entry),
            document_bytes: trailer.document.map(|bytes| bytes.get() as usize),
            record: trailer.record(entry),
            cpu_features: trailer.cpu_features(entry),
            seals: trailer.seals(entry),
            object_bytes: trailer.object as u64,
            compile_time_us: trailer.compile_time_us,
            created_unix_us: trailer.created_unix_us,
            signature: trailer.signature,
            object_digest: trailer.object_digest,
        };
        let tail = parts.tail(trust);
        Ok((codec, Self { object: Cow::Owned(stored.into_owned()), tail }))
    }

    /// A checked entry as it is.
    pub(crate) fn as_is(entry: &'a [u8]) -> Self {
        Self::admitted(entry, &Trust::everybody())
    }

    /// A checked entry with its object stored as `compression` says; `None`: it stays as it is. So it is stored
    /// already, or it has a MAC and we not the key, and with the MAC it would be lost for those who have.
    ///
    /// # Errors
    /// As [`again`](Self::again).
    pub(crate) fn recoded(
        entry: &[u8],
        trailer: &Trailer,
        compression: Compression,
        trust: &Trust,
    ) -> Result<Option<Self>, Reason> {
        let loses_mac = trailer.has_mac() && trust.mac.is_none();
        if loses_mac || compression == Compression::Always(trailer.codec) {
            return Ok(None);
        }
        let (codec, encoded) = Self::again(entry, trailer, compression, trust)?;
        Ok((codec != trailer.codec).then_some(encoded))
    }

    /// An entry made elsewhere, as it is, but with a MAC by our own key if we have one: it was believed when it
    /// was let in, and is not to be asked for a signature at each look-up.
    pub(crate) fn admitted(entry: &'a [u8], trust: &Trust) -> Self {
        let Some((covered, mac_and_digest)) = entry.split_last_chunk::<MAC_AND_DIGEST>() else {
            return Self { object: Cow::Borrowed(entry), tail: Vec::new() };
        };
        let tail = match &trust.mac {
            Some(key) => {
                let content = digest::of(covered);
                let mac = key.mac(content.as_bytes());
                [*mac.as_bytes(), *sealed(content.as_bytes(), mac.as_bytes()).as_bytes()].concat()
            }
            None => mac_and_digest.to_vec(),
        };
        Self { object: Cow::Borrowed(covered), tail }
    }

    pub(crate) fn length(&self) -> u64 {
        (self.object.len() + self.tail.len()) as u64
    }
}

/// What an entry is put together from.
struct Parts<'a> {
    codec: Codec,
    object: &'a [u8],
    key_document: &'a [u8],
    /// How long it is, if it is stored as a frame.
    document_bytes: Option<usize>,
    record: &'a [u8],
    cpu_features: &'a [u8],
    seals: &'a [u8],
    object_bytes: u64,
    compile_time_us: u64,
    created_unix_us: u64,
    signature: Signature,
    object_digest: [u8; 32],
}

impl Parts<'_> {
    fn tail(&self, trust: &Trust) -> Vec<u8> {
        let beside = [self.key_document, self.record, self.cpu_features, self.seals];
        let mut tail = beside.concat();
        tail.reserve_exact(TRAILER_LENGTH);
        tail.extend_from_slice(&MAGIC);
        tail.extend_from_slice(&VERSION.to_le_bytes());
        tail.extend_from_slice(&self.codec.number().to_le_bytes());
        tail.extend_from_slice(&(self.object.len() as u64).to_le_bytes());
        for part in beside {
            tail.extend_from_slice(&(part.len() as u64).to_le_bytes());
        }
        let document_bytes = self.document_bytes.map_or(0, |bytes| bytes as u64);
        for number in [self.object_bytes, self.compile_time_us, self.created_unix_us, document_bytes, 0] {
            tail.extend_from_slice(&number.to_le_bytes());
        }
        tail.extend_from_slice(self.signature.as_bytes());
        tail.extend_from_slice(&self.object_digest);
        let content = digest::of_both(self.object, &tail);
        let mac = trust.mac.as_ref().map_or(NO_MAC, |key| key.mac(content.as_bytes()).into());
        tail.extend_from_slice(&mac);
        tail.extend_from_slice(sealed(content.as_bytes(), &mac).as_bytes());
        tail
    }
}

/// The last 32 bytes of an entry.
fn sealed(content: &[u8; 32], mac: &[u8; 32]) -> blake3::Hash {
    let mut both = [0; 64];
    both[..32].copy_from_slice(content);
    both[32..].copy_from_slice(mac);
    blake3::hash(&both)
}

/// A trailer whose magic, version, signature and lengths are right. The digest is not yet looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) codec: Codec,
    /// Bytes of the object as it is stored.
    pub(crate) stored: usize,
    /// Bytes of the key document as it is stored.
    key_document: usize,
    /// Bytes of the key document, if it is stored as a frame.
    document: Option<NonZeroU32>,
    record: usize,
    cpu_features: usize,
    seals: usize,
    /// Bytes of the object as it is handed out.
    pub(crate) object: usize,
    pub(crate) compile_time_us: u64,
    pub(crate) created_unix_us: u64,
    signature: Signature,
    object_digest: [u8; 32],
    pub(crate) mac: [u8; 32],
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
        let codec = Codec::from_number(u32_at(12)).filter(|_| u32_at(8) == VERSION);
        let codec = codec.filter(|_| array(trailer, 88) == [0; 8]).ok_or(Reason::EntryVersion)?;
        if array(trailer, 96) != *expected.as_bytes() {
            return Err(Reason::EntrySignature);
        }
        let part = |at| usize::try_from(u64_at(at)).map_err(|_| Reason::EntryLength);
        let [stored, key_document, record, cpu_features, seals, object, document] =
            [part(16)?, part(24)?, part(32)?, part(40)?, part(48)?, part(56)?, part(80)?];
        let parts = [stored, key_document, record, cpu_features, seals, TRAILER_LENGTH];
        let sum = parts.iter().try_fold(0u64, |sum, &part| sum.checked_add(part as u64));
        let as_it_is = codec == Codec::Plain;
        if sum != Some(length)
            || cpu_features > cpu::LIMIT
            || seals > MOST_SEALS * SEAL_LENGTH
            || object as u64 > ENTRY_LIMIT
            || document > KEY_DOCUMENT_LIMIT
            || (as_it_is && object != stored)
        {
            return Err(Reason::EntryLength);
        }
        if !as_it_is && !compression::is_plausible(object, stored) {
            return Err(Reason::EntryCodec);
        }
        Ok(Self {
            codec,
            stored,
            key_document,
            document: u32::try_from(document).ok().and_then(NonZeroU32::new),
            record,
            cpu_features,
            seals,
            object,
            compile_time_us: u64_at(64),
            created_unix_us: u64_at(72),
            signature: *expected,
            object_digest: array(trailer, 128),
            mac: array(trailer, 160),
        })
    }

    /// All checks, over a whole entry, but whether its object runs here ([`runs_on`](Self::runs_on)).
    pub(crate) fn check(entry: &[u8], expected: &Signature, gate: &Gate) -> Result<Self, Reason> {
        let trailer = Self::parse(entry, entry.len() as u64, expected)?;
        let (covered, _) = entry.split_last_chunk::<MAC_AND_DIGEST>().ok_or(Reason::EntryLength)?;
        let content = digest::of(covered);
        trailer.admit(entry, &content, gate)
    }

    /// The same for an entry that was read into a buffer of its own, which is quicker if that has
    /// [room](digest::room).
    pub(crate) fn check_buffer(
        entry: &mut Buffer,
        expected: &Signature,
        gate: &Gate,
    ) -> Result<Self, Reason> {
        let trailer = Self::parse(entry, entry.len() as u64, expected)?;
        let content = digest::of_front::<MAC_AND_DIGEST>(entry).ok_or(Reason::EntryLength)?;
        trailer.admit(entry, &content, gate)
    }

    /// `content`: the digest of all that it covers.
    fn admit(self, entry: &[u8], content: &blake3::Hash, gate: &Gate) -> Result<Self, Reason> {
        if !entry.ends_with(sealed(content.as_bytes(), &self.mac).as_bytes()) {
            return Err(Reason::EntryDigest);
        }
        gate.admit(&self, entry, content.as_bytes())?;
        Ok(self)
    }

    /// Whether the object of the checked `entry` runs on a host with these features. An entry whose features
    /// cannot be read runs nowhere.
    pub(crate) fn runs_on(&self, entry: &[u8], host: &HostFeatures) -> bool {
        self.cpu_features == 0
            || cpu::decode(self.cpu_features(entry)).is_some_and(|features| host.suffice_for(features))
    }

    /// The object of the checked `entry`.
    ///
    /// # Errors
    /// [`Reason::EntryCodec`] when it does not decompress to what the trailer says.
    pub(crate) fn into_object(self, entry: impl Into<Buffer>) -> Result<ObjectBuffer, Reason> {
        let mut entry = entry.into();
        if self.codec != Codec::Plain {
            entry = self.decompressed(&entry)?;
        }
        Ok(ObjectBuffer::prefix(entry, self.object).costing(self.compile_time_us))
    }

    fn decompressed(&self, entry: &[u8]) -> Result<Buffer, Reason> {
        let mut object = Buffer::of_length(self.object).ok_or(Reason::OutOfResources)?;
        match compression::decompress(self.codec, self.object(entry), &mut object) {
            true => Ok(object),
            false => Err(Reason::EntryCodec),
        }
    }

    /// Whether the digest of the object, which is what is signed, is right. That of the entry says so too, but
    /// only on the word of whoever wrote the entry.
    pub(crate) fn states_its_object(&self, entry: &[u8]) -> Result<bool, Reason> {
        let found = match self.codec {
            Codec::Plain => blake3::hash(self.object(entry)),
            _ => blake3::hash(&self.decompressed(entry)?),
        };
        Ok(found == blake3::Hash::from_bytes(self.object_digest))
    }

    /// What whoever signed the checked `entry` has signed. `namespace` is its [record](Self::record)'s. `None` when
    /// its key document does not read.
    pub(crate) fn statement<'e>(&self, entry: &'e [u8], namespace: &'e str) -> Option<Statement<'e>> {
        Some(Statement {
            signature: self.signature,
            object_digest: self.object_digest,
            object_bytes: self.object as u64,
            key_document_digest: blake3::hash(&self.key_document(entry)?).into(),
            namespace,
            cpu_features: self.cpu_features(entry),
        })
    }

    /// The namespace of the checked `entry`; `None` when its record does not read.
    pub(crate) fn namespace(&self, entry: &[u8]) -> Option<String> {
        namespace(self.record(entry))
    }

    /// What is kept beside the object of the checked `entry`.
    pub(crate) fn entry_record(&self, entry: &[u8]) -> Option<EntryRecord> {
        let record: Record = codec::decode(self.record(entry))?;
        let cpu_features = cpu::decode(self.cpu_features(entry))?;
        let (seals, _) = self.seals(entry).as_chunks::<SEAL_LENGTH>();
        let signers = seals.iter().filter_map(|seal| PublicKey::from_bytes(*seal.first_chunk()?).ok());
        Some(EntryRecord {
            key_document: self.key_document(entry)?.into_owned(),
            provenance: Provenance::decode(&record.provenance).ok()?,
            cpu_features: cpu_features.into_iter().map(str::to_owned).collect(),
            signed_by: signers.collect(),
            has_mac: self.has_mac(),
        })
    }

    pub(crate) fn has_mac(&self) -> bool {
        self.mac != NO_MAC
    }

    fn object<'e>(&self, entry: &'e [u8]) -> &'e [u8] {
        part(entry, 0, self.stored)
    }

    fn key_document<'e>(&self, entry: &'e [u8]) -> Option<Cow<'e, [u8]>> {
        let stored = self.stored_document(entry);
        match self.document {
            Some(length) => document::restored(stored, length.get() as usize).map(Cow::Owned),
            None => Some(Cow::Borrowed(stored)),
        }
    }

    fn stored_document<'e>(&self, entry: &'e [u8]) -> &'e [u8] {
        part(entry, self.stored, self.key_document)
    }

    fn record<'e>(&self, entry: &'e [u8]) -> &'e [u8] {
        part(entry, self.stored + self.key_document, self.record)
    }

    fn cpu_features<'e>(&self, entry: &'e [u8]) -> &'e [u8] {
        part(entry, self.stored + self.key_document + self.record, self.cpu_features)
    }

    pub(crate) fn seals<'e>(&self, entry: &'e [u8]) -> &'e [u8] {
        part(entry, self.stored + self.key_document + self.record + self.cpu_features, self.seals)
    }

    /// How far before the end of an entry its record begins.
    pub(crate) fn record_from_end(&self) -> usize {
        self.record + self.cpu_features + self.seals + TRAILER_LENGTH
    }
}

/// A part of an entry; nothing, where the entry is not the one that the lengths were read from.
fn part(entry: &[u8], at: usize, length: usize) -> &[u8] {
    entry.get(at..).and_then(|rest| rest.get(..length)).unwrap_or_default()
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
    use crate::trust::{MacKey, SigningKey};

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
