//! An entry put together.

use std::borrow::Cow;

use objcache_signature::Signature;

use super::trailer::Trailer;
use super::{
    ENTRY_LIMIT, KEY_DOCUMENT_LIMIT, MAC_AND_DIGEST, MAGIC, NO_MAC, Record, TRAILER_LENGTH, VERSION, sealed,
};
use crate::clock::microseconds;
use crate::compression::{Codec, Compression};
use crate::error::{CacheError, Reason};
use crate::object::CompiledObject;
use crate::trust::{Statement, Trust};
use crate::{codec, cpu, digest, document};

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
