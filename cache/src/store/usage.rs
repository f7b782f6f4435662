//! What a store takes on disk, by what it is for.

use std::io;

use crate::admin::total;
use crate::error::CacheError;
use crate::store::Store;
use crate::store::directory::{CATALOGUE, Directory, JOURNAL};
use crate::store::{entries, tidy};

/// What a store takes on disk, in bytes of allocated blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Entries, damaged ones among them until somebody notices.
    pub entries: u64,
    /// What is known of entries: the catalogue, and the journal that it has not yet taken in.
    pub catalogue: u64,
    /// Damaged entries that were taken out.
    pub quarantine: u64,
    /// Everything else: marks, locks, files being written.
    pub other: u64,
}

impl DiskUsage {
    /// All of it.
    pub fn total(&self) -> u64 {
        let Self { entries, catalogue, quarantine, other } = *self;
        total([entries, catalogue, quarantine, other].into_iter())
    }
}

impl Store {
    /// What the store takes on disk.
    ///
    /// # Errors
    /// When the store is off or its files cannot be looked at.
    pub fn disk_usage(&self) -> Result<DiskUsage, CacheError> {
        let directory = self.directory_or_why()?;
        usage(directory).map_err(|error| CacheError::io(directory.path().display().to_string(), error))
    }
}

fn usage(directory: &Directory) -> io::Result<DiskUsage> {
    let mut entry_bytes = 0u64;
    for signature in entries::signatures(directory)? {
        // One that vanished meanwhile takes nothing.
        let facts = entries::facts(directory, &signature).ok().flatten();
        entry_bytes = entry_bytes.saturating_add(facts.map_or(0, |facts| facts.disk_bytes));
    }
    let journal = entries::file_bytes(directory, JOURNAL);
    let sled = [
        entries::directory_bytes(directory, CATALOGUE)?,
        entries::directory_bytes(directory, &format!("{CATALOGUE}/blobs"))?,
    ];
    let quarantine = entries::quarantine_bytes(directory)?;
    let catalogue = total(sled.into_iter()).saturating_add(journal);
    let beside = tidy::disk_bytes_beside_entries(directory)?;
    let other = beside.saturating_add(journal).saturating_sub(catalogue).saturating_sub(quarantine);
    Ok(DiskUsage { entries: entry_bytes, catalogue, quarantine, other })
}
