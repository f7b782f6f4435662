//! Who vouches for an entry, and whom we believe.
//!
//! Without trust configured an entry is believed because of where it lies: in a directory that is ours and
//! closed to others. That is not enough for a directory or a pack that came from elsewhere. Then one of two
//! seals is asked for, before a byte of the entry is handed over:
//!
//! - A **MAC**: keyed BLAKE3 over the entry as it lies on disk, by a key that all who write and read share. It
//!   costs 0.1 µs, because the digest that it is over is computed anyway.
//! - A **signature**: ed25519 over what the entry *states* ([`Statement`]): this object, for this compilation, in
//!   this namespace, for these CPUs. It does not depend on how the object is stored, so it stays true when the
//!   entry is compressed otherwise or moves into a pack and out again. It costs about 50 µs and a digest of the
//!   object, so what was found true is remembered for the life of the process ([`Gate`]).
//!
//! Whoever has both kinds of keys seals its own entries with both, and finds the cheap one first. The key of a
//! MAC is never kept in the cache directory: a directory that was unpacked from an archive would bring its own.

mod gate;
mod keys;
mod statement;

use std::fmt;

pub(crate) use gate::Gate;
pub use keys::{KeyError, MacKey, PublicKey, SigningKey, read_trusted_keys};
pub(crate) use statement::{SEAL_LENGTH, Statement, sign_pack, signer_of_pack};

use crate::error::Reason;

/// Signatures on one entry, or one pack, at most.
pub(crate) const MOST_SEALS: usize = 16;

/// Whom a store believes. By default everybody who can write into its directory.
///
/// With any key configured, entries that none of them vouches for are misses ([`Reason::Unsigned`],
/// [`Reason::EntryMac`], [`Reason::Untrusted`], [`Reason::EntrySeal`]). They stay where they are: others may
/// believe them. With public keys alone nothing can be offered, since nothing of one's own would be believed.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Trust {
    /// Entries with a MAC by this key are believed, and entries that are offered get one.
    pub mac: Option<MacKey>,
    /// Entries signed by one of these are believed.
    pub trusted: Vec<PublicKey>,
    /// Entries that are offered are signed with it, and those that it signed are believed.
    pub sign_with: Option<SigningKey>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mac, trusted, sign_with } = self;
        f.debug_struct("Trust")
            .field("mac", &mac.is_some())
            .field("trusted", trusted)
            .field("sign_with", &sign_with.as_ref().map(SigningKey::public))
            .finish()
    }
}

impl Trust {
    /// Whoever can write into the directory is believed.
    pub fn everybody() -> Self {
        Self::default()
    }

    /// Whoever has `key` is believed.
    pub fn mac(key: MacKey) -> Self {
        Self { mac: Some(key), ..Self::default() }
    }

    /// Whoever signs as one of these is believed.
    pub fn ed25519(trusted: impl IntoIterator<Item = PublicKey>) -> Self {
        Self { trusted: trusted.into_iter().collect(), ..Self::default() }
    }

    /// The same, and who has `key` as well.
    pub fn and_mac(mut self, key: MacKey) -> Self {
        self.mac = Some(key);
        self
    }

    /// The same, and what is offered is signed with `key`.
    pub fn signing_with(mut self, key: SigningKey) -> Self {
        self.sign_with = Some(key);
        self
    }

    /// Whether entries have to be vouched for.
    pub fn is_required(&self) -> bool {
        self.mac.is_some() || self.sign_with.is_some() || !self.trusted.is_empty()
    }

    /// Whether entries that are offered would be believed when they are looked up.
    pub fn vouches(&self) -> bool {
        !self.is_required() || self.mac.is_some() || self.sign_with.is_some()
    }

    /// Whether one of `signers` is believed; `None`: no public key is configured to believe.
    pub fn trusts_one_of(&self, signers: &[PublicKey]) -> Option<bool> {
        let asks = !self.trusted.is_empty() || self.sign_with.is_some();
        asks.then(|| signers.iter().any(|signer| self.trusts(signer.as_bytes())))
    }

    /// The signatures that an entry with this statement gets.
    pub(crate) fn seals(&self, statement: &Statement<'_>) -> Vec<u8> {
        self.sign_with.as_ref().map(|key| statement.sign(key)).unwrap_or_default()
    }

    fn trusts(&self, key: &[u8; 32]) -> bool {
        let own = self.sign_with.as_ref().map(SigningKey::public);
        self.trusted.iter().chain(&own).any(|trusted| trusted.as_bytes() == key)
    }

    /// Whether one of `seals` is by somebody we believe, and true. One that is false is not passed over: nobody
    /// who is honest leaves one.
    pub(crate) fn check_seals(&self, seals: &[u8], statement: &Statement<'_>) -> Result<(), Reason> {
        let (seals, rest) = seals.as_chunks::<SEAL_LENGTH>();
        if !rest.is_empty() || seals.len() > MOST_SEALS {
            return Err(Reason::EntrySeal);
        }
        let Some(seal) = seals.iter().find(|seal| seal.first_chunk().is_some_and(|key| self.trusts(key)))
        else {
            return Err(if seals.is_empty() { Reason::Unsigned } else { Reason::Untrusted });
        };
        statement.verify(seal).then_some(()).ok_or(Reason::EntrySeal)
    }
}

#[cfg(test)]
mod tests {
    use objcache_signature::Signature;

    use super::*;

    const STATEMENT: Statement<'_> = Statement {
        signature: Signature::from_bytes([7; 32]),
        object_digest: [8; 32],
        object_bytes: 1000,
        key_document_digest: [9; 32],
        namespace: "ns",
        cpu_features: b"\x04x86/",
    };

    #[test]
    fn every_part_of_a_statement_is_signed() {
        let key = SigningKey::from_bytes([1; 32]);
        let trust = Trust::ed25519([key.public()]);
        let seals = Trust::everybody().signing_with(key).seals(&STATEMENT);
        assert_eq!(trust.check_seals(&seals, &STATEMENT), Ok(()));
        let others = [
            Statement { signature: Signature::from_bytes([6; 32]), ..STATEMENT },
            Statement { object_digest: [6; 32], ..STATEMENT },
            Statement { object_bytes: 1001, ..STATEMENT },
            Statement { key_document_digest: [6; 32], ..STATEMENT },
            Statement { namespace: "n", cpu_features: b"s\x04x86/", ..STATEMENT },
            Statement { cpu_features: b"", ..STATEMENT },
        ];
        for other in &others {
            assert_eq!(trust.check_seals(&seals, other), Err(Reason::EntrySeal));
        }
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let (ours, theirs) = (SigningKey::from_bytes([1; 32]), SigningKey::from_bytes([2; 32]));
        let trust = Trust::ed25519([ours.public()]);
        let sealed = |key: &SigningKey| STATEMENT.sign(key);
        let check = |seals: &[u8]| trust.check_seals(seals, &STATEMENT);
        assert_eq!(check(&[]), Err(Reason::Unsigned));
        assert_eq!(check(&sealed(&theirs)), Err(Reason::Untrusted));
        assert_eq!(check(&[sealed(&theirs), sealed(&ours)].concat()), Ok(()));
        assert_eq!(check(&sealed(&ours)[1..]), Err(Reason::EntrySeal));
        assert_eq!(check(&sealed(&ours).repeat(MOST_SEALS + 1)), Err(Reason::EntrySeal));
        for bit in 32 * 8..SEAL_LENGTH * 8 {
            let mut flipped = sealed(&ours);
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(&flipped), Err(Reason::EntrySeal), "bit {bit}");
        }
    }

    #[test]
    fn what_was_signed_with_is_believed_and_public_keys_alone_vouch_for_nothing() {
        let key = SigningKey::from_bytes([3; 32]);
        let public = key.public();
        let signing = Trust::everybody().signing_with(key);
        assert_eq!(signing.check_seals(&signing.seals(&STATEMENT), &STATEMENT), Ok(()));
        assert!(signing.vouches() && signing.is_required());
        assert!(Trust::everybody().vouches() && !Trust::everybody().is_required());
        let reading = Trust::ed25519([public]);
        assert!(reading.is_required() && !reading.vouches());
        assert!(reading.and_mac(MacKey::from_bytes([1; 32])).vouches());
    }

    #[test]
    fn keys_are_not_shown() {
        let trust =
            Trust::mac(MacKey::from_bytes([0xab; 32])).signing_with(SigningKey::from_bytes([0xcd; 32]));
        let shown = format!("{trust:?}");
        assert!(!shown.contains("abab") && !shown.contains("cdcd") && !shown.contains("171"), "{shown}");
    }
}
