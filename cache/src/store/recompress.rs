//! Entries that nobody has asked for in a while take less room as Zstandard frames, and those that are asked for
//! again are quicker to get as they would be put today.
//!
//! An entry is replaced as by a put: the new file gets its name by a rename, so that a reader sees all of one or
//! all of the other. What is in the entry stays, times, signatures and pin included; only a MAC is made anew.

use std::io;
use std::time::Duration;

use objcache_signature::Signature;

use crate::admin::{EntryInfo, Progress};
use crate::clock::now_unix_us;
use crate::compression::{Codec, Compression};
use crate::entry::Encoded;
use crate::error::CacheError;
use crate::store::Store;
use crate::store::directory::Directory;
use crate::store::entries::{self, Found};
use crate::store::keeper;
use crate::store::recorder::Extent;

/// Disks hand out room in blocks of this many bytes.
const BLOCK: u64 = 4096;

/// Which codec an entry is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecompressPolicy {
    /// An entry is cold when it was not used for longer than this. Default: 7 days.
    pub cold_after: Duration,
    /// How cold entries are stored. Default: as Zstandard frames.
    pub cold: Compression,
    /// How the others are stored. Default: [`Compression::Auto`].
    pub hot: Compression,
}

impl Default for RecompressPolicy {
    fn default() -> Self {
        Self {
            cold_after: Duration::from_secs(7 * 24 * 3600),
            cold: Compression::Always(Codec::Zstd),
            hot: Compression::Auto,
        }
    }
}

impl RecompressPolicy {
    fn compression(&self, entry: &EntryInfo, now_unix_us: u64) -> Compression {
        // A clock that went back must not make everything look cold.
        let unused = Duration::from_micros(now_unix_us.saturating_sub(entry.last_used_unix_us));
        if unused > self.cold_after { self.cold } else { self.hot }
    }
}

/// An entry that is, or would be, stored otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recompressed {
    /// Which one.
    pub signature: Signature,
    /// How it was stored.
    pub from: Codec,
    /// How it is stored now.
    pub to: Codec,
    /// Bytes of the object as it was stored.
    pub bytes_before: u64,
    /// Bytes of the object as it is stored now.
    pub bytes_after: u64,
}

/// What recompression did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecompressReport {
    /// Entries that are stored otherwise now, by ascending signature.
    pub changed: Vec<Recompressed>,
    /// Entries that are as they were: as they should be, or with nothing to be gained.
    pub kept: u64,
    /// Entries that could not be read, are damaged, or are sealed by others; they are as they were, too.
    pub left: u64,
}

impl Store {
    /// Stores every entry as `policy` says; with `dry_run` only says which would change. `progress` is called
    /// after each.
    ///
    /// # Errors
    /// When entries cannot be listed or written. What was changed before that stays changed.
    pub fn recompress(
        &self,
        policy: &RecompressPolicy,
        dry_run: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<RecompressReport, CacheError> {
        let directory = if dry_run { self.directory_or_why()? } else { self.writable_or_why()? };
        self.write_down(Extent::All);
        let listed = self.with_keeper(keeper::view)?.entries;
        let (now, total) = (now_unix_us(), listed.len() as u64);
        let (mut report, mut bytes) = (RecompressReport::default(), 0);
        for (done, entry) in (1..).zip(&listed) {
            let compression = policy.compression(entry, now);
            let outcome = match compression.is_met_by(entry.codec, entry.object_bytes) {
                true => Outcome::Kept,
                false => self
                    .recompress_entry(directory, entry, compression, dry_run)
                    .map_err(|error| CacheError::io(format!("entry {}", entry.signature), error))?,
            };
            match outcome {
                Outcome::Changed(changed) => report.changed.push(changed),
                Outcome::Kept => report.kept += 1,
                Outcome::Left => report.left += 1,
            }
            bytes += entry.stored_bytes;
            progress(Progress { done, total, bytes });
        }
        self.write_down(Extent::Due);
        Ok(report)
    }

    fn recompress_entry(
        &self,
        directory: &Directory,
        entry: &EntryInfo,
        compression: Compression,
        dry_run: bool,
    ) -> io::Result<Outcome> {
        let signature = &entry.signature;
        let trust = &self.options().trust;
        let facts = entries::facts(directory, signature)?;
        let (bytes, trailer) = match entries::read(directory, signature, &self.shared.gate)? {
            Found::Whole(whole) => whole,
            // Evicted meanwhile, damaged, or sealed by others.
            Found::Absent | Found::Damaged(_) | Found::Refused(_) => return Ok(Outcome::Left),
        };
        // Without its key the MAC would be lost, and with it the entry for those who have the key.
        if trailer.has_mac() && trust.mac.is_none() {
            return Ok(Outcome::Left);
        }
        let Ok((to, encoded)) = Encoded::again(&bytes, &trailer, compression, trust) else {
            return Ok(Outcome::Left);
        };
        let (from, before, after) = (trailer.codec, bytes.len() as u64, encoded.length());
        let gains = after.div_ceil(BLOCK) < before.div_ceil(BLOCK);
        // From Zstandard it is the time that is gained.
        if from == to || (!gains && from != Codec::Zstd) {
            return Ok(Outcome::Kept);
        }
        // Replaced or evicted since it was read: that is newer than what we have.
        if !dry_run && entries::facts(directory, signature)? != facts {
            return Ok(Outcome::Left);
        }
        let changed = Recompressed {
            signature: *signature,
            from,
            to,
            bytes_before: trailer.stored as u64,
            bytes_after: encoded.object.len() as u64,
        };
        if dry_run {
            return Ok(Outcome::Changed(changed));
        }
        // There must be room to write it beside the old one.
        let Some(published) = self.place(directory, signature, &encoded)? else { return Ok(Outcome::Left) };
        self.shared.recorder.replaced(published.replaced, published.made);
        published.synced?;
        Ok(Outcome::Changed(changed))
    }
}

enum Outcome {
    Changed(Recompressed),
    Kept,
    Left,
}
