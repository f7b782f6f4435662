//! What a signature is over: that this object is what a compilation gave, or that these are the entries of a pack.

use ed25519_dalek::{Signature as Ed25519Signature, Signer, VerifyingKey};
use objcache_signature::Signature;

use super::{PublicKey, SigningKey};

/// A public key and a signature by it, in bytes.
pub(crate) const SEAL_LENGTH: usize = 32 + 64;

/// Nothing else is ever signed with these words before it.
const CONTEXT: &str = "objcache 2026-11 statement of an entry: what a compilation gave";
const PACK_CONTEXT: &str = "objcache 2026-11 statement of a pack: which entries are in it";

/// A signature on a pack of this digest, and before it the public key.
pub(crate) fn sign_pack(digest: &[u8; 32], key: &SigningKey) -> Vec<u8> {
    sign(&blake3::derive_key(PACK_CONTEXT, digest), key)
}

/// Who signed the pack of this digest; `None`: the signature is false.
pub(crate) fn signer_of_pack(digest: &[u8; 32], seal: &[u8; SEAL_LENGTH]) -> Option<PublicKey> {
    if !verify(&blake3::derive_key(PACK_CONTEXT, digest), seal) {
        return None;
    }
    seal.first_chunk().and_then(|key| PublicKey::from_bytes(*key).ok())
}

fn sign(message: &[u8; 32], key: &SigningKey) -> Vec<u8> {
    let signature = key.0.sign(message);
    [key.0.verifying_key().as_bytes().as_slice(), &signature.to_bytes()].concat()
}

fn verify(message: &[u8; 32], seal: &[u8; SEAL_LENGTH]) -> bool {
    let (Some(key), Some(signature)) = (seal.first_chunk(), seal.last_chunk()) else { return false };
    let Ok(key) = VerifyingKey::from_bytes(key) else { return false };
    // Strict: one statement has one signature by a key, and keys that sign everything are refused.
    key.verify_strict(message, &Ed25519Signature::from_bytes(signature)).is_ok()
}

/// What whoever signs an entry vouches for. It says nothing of how the object is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Statement<'a> {
    /// The compilation. Without it a sound object could be served for another one.
    pub(crate) signature: Signature,
    /// BLAKE3 of the object, as it is handed out.
    pub(crate) object_digest: [u8; 32],
    pub(crate) object_bytes: u64,
    /// BLAKE3 of the key document.
    pub(crate) key_document_digest: [u8; 32],
    pub(crate) namespace: &'a str,
    /// As an entry keeps them ([`crate::cpu::encode`]). Without them code could be passed to hosts it kills.
    pub(crate) cpu_features: &'a [u8],
}

impl Statement<'_> {
    fn message(&self) -> [u8; 32] {
        let Self { signature, object_digest, object_bytes, key_document_digest, namespace, cpu_features } =
            self;
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(signature.as_bytes());
        hasher.update(object_digest);
        hasher.update(&object_bytes.to_le_bytes());
        hasher.update(key_document_digest);
        for field in [namespace.as_bytes(), *cpu_features] {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        hasher.finalize().into()
    }

    /// The public key, and the signature.
    pub(crate) fn sign(&self, key: &SigningKey) -> Vec<u8> {
        sign(&self.message(), key)
    }

    /// Whether `seal` is a true signature, by whoever its key belongs to.
    pub(crate) fn verify(&self, seal: &[u8; SEAL_LENGTH]) -> bool {
        verify(&self.message(), seal)
    }
}
