//! Where an entry is let in or not: its digest is right, and now somebody has to have vouched for it.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::Trust;
use crate::entry::Trailer;
use crate::error::Reason;

/// Whom to believe, and what this process has found out about signatures.
#[derive(Default)]
pub(crate) struct Gate {
    trust: Trust,
    verified: Verified,
}

impl Gate {
    pub(crate) fn new(trust: Trust) -> Self {
        Self { trust, verified: Verified::default() }
    }

    /// Whether an entry is believed whose digest is right. `content` is that of all of it before the MAC.
    pub(crate) fn admit(&self, trailer: &Trailer, entry: &[u8], content: &[u8; 32]) -> Result<(), Reason> {
        if !self.trust.is_required() || self.has_our_mac(trailer, content) || self.verified.contains(content)
        {
            return Ok(());
        }
        let namespace = trailer.namespace(entry).ok_or(Reason::EntrySeal)?;
        let statement = trailer.statement(entry, &namespace).ok_or(Reason::EntryCodec)?;
        match self.trust.check_seals(trailer.seals(entry), &statement) {
            Ok(()) if !trailer.states_its_object(entry)? => Err(Reason::EntrySeal),
            Ok(()) => {
                self.verified.insert(*content);
                Ok(())
            }
            Err(Reason::Unsigned) if trailer.has_mac() => Err(Reason::EntryMac),
            Err(reason) => Err(reason),
        }
    }

    fn has_our_mac(&self, trailer: &Trailer, content: &[u8; 32]) -> bool {
        let Some(key) = &self.trust.mac else { return false };
        // Compared in constant time. What has no MAC has a zero, which no key gives.
        key.mac(content) == blake3::Hash::from_bytes(trailer.mac)
    }
}

/// Entries whose signatures were found true, by the digest of all that could be false about them.
#[derive(Default)]
struct Verified(Mutex<BTreeSet<[u8; 32]>>);

impl Verified {
    /// Beyond this all are forgotten: they take half a megabyte.
    const MOST: usize = 16 * 1024;

    fn contains(&self, content: &[u8; 32]) -> bool {
        self.0.lock().contains(content)
    }

    fn insert(&self, content: [u8; 32]) {
        let mut verified = self.0.lock();
        if verified.len() >= Self::MOST {
            verified.clear();
        }
        verified.insert(content);
    }
}
