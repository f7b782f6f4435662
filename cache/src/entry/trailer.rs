//! The end of an entry, with which reading it begins: what is where, and the checks of it.

use std::borrow::Cow;
use std::num::NonZeroU32;

use objcache_signature::{Provenance, Signature};

use super::{
    ENTRY_LIMIT, KEY_DOCUMENT_LIMIT, MAC_AND_DIGEST, MAGIC, NO_MAC, Record, TRAILER_LENGTH, VERSION,
    namespace, sealed,
};
use crate::admin::EntryRecord;
use crate::buffer::Buffer;
use crate::compression::{self, Codec};
use crate::cpu::HostFeatures;
use crate::error::Reason;
use crate::object::ObjectBuffer;
use crate::trust::{Gate, MOST_SEALS, PublicKey, SEAL_LENGTH, Statement};
use crate::{codec, cpu, digest, document};

/// A trailer whose magic, version, signature and lengths are right. The digest is not yet looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) codec: Codec,
    /// Bytes of the object as it is stored.
    pub(crate) stored: usize,
    /// Bytes of the key document as it is stored.
    pub(super) key_document: usize,
    /// Bytes of the key document, if it is stored as a frame.
    pub(super) document: Option<NonZeroU32>,
    pub(super) record: usize,
    cpu_features: usize,
    seals: usize,
    /// Bytes of the object as it is handed out.
    pub(crate) object: usize,
    pub(crate) compile_time_us: u64,
    pub(crate) created_unix_us: u64,
    pub(super) signature: Signature,
    pub(super) object_digest: [u8; 32],
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

    pub(super) fn decompressed(&self, entry: &[u8]) -> Result<Buffer, Reason> {
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

    pub(super) fn stored_document<'e>(&self, entry: &'e [u8]) -> &'e [u8] {
        part(entry, self.stored, self.key_document)
    }

    pub(super) fn record<'e>(&self, entry: &'e [u8]) -> &'e [u8] {
        part(entry, self.stored + self.key_document, self.record)
    }

    pub(super) fn cpu_features<'e>(&self, entry: &'e [u8]) -> &'e [u8] {
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

pub(super) fn array<const N: usize>(bytes: &[u8; TRAILER_LENGTH], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}
