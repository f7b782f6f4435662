//! How an entry gets its name: written under another one first, whole, and renamed.

use std::io::{self, IoSlice, Write};

use objcache_signature::Signature;
use rustix::io::Errno;

use super::removal::move_to_quarantine;
use super::{ENTRY_OVERHEAD, disk_bytes};
use crate::entry::Encoded;
use crate::store::directory::{Directory, EntryName, Named, Temporary};

/// What a directory takes that was just made, in bytes.
const DIRECTORY_BYTES: u64 = 4096;

/// What came of a publication.
pub(crate) struct Published {
    /// What the entry that had the name before took, in bytes.
    pub(crate) replaced: Option<u64>,
    /// Bytes of a directory that was made for it.
    pub(crate) made: u64,
    /// Whether its name survives a power cut, where that was asked for.
    pub(crate) synced: io::Result<()>,
}

/// Publishes an entry: `object` and what comes after it. The file to write has its name before `reserve` is
/// asked for room, so whoever measures the store sees one or the other; `None`: it said no.
pub(crate) fn publish(
    directory: &Directory,
    signature: &Signature,
    entry: &Encoded<'_>,
    durable: bool,
    reserve: impl FnOnce() -> bool,
) -> io::Result<Option<Published>> {
    let name = EntryName::of(signature);
    let bytes = disk_bytes(entry.length());
    let mut temporary = Temporary::create_for(directory, bytes)?;
    if !reserve() {
        return Ok(None);
    }
    let mut tries = 0;
    let mut published = loop {
        write_all(&mut temporary, &entry.object, &entry.tail)?;
        if durable {
            temporary.file.sync_all()?;
        }
        tries += 1;
        match name_entry(directory, &mut temporary, &name) {
            // Somebody removed our temporary file.
            Err(Errno::NOENT) if tries < 3 => temporary = Temporary::create_for(directory, bytes)?,
            published => break published?,
        }
    };
    if durable {
        published.synced = directory.sync_names_in(name.fan());
    }
    Ok(Some(published))
}

/// An entry that is written and has no name yet. Dropped, it is gone.
pub(crate) struct Written<'a> {
    directory: &'a Directory,
    temporary: Temporary<'a>,
    name: EntryName,
}

/// Writes an entry and leaves it to the caller to sync and to name it. Otherwise as [`publish`].
pub(crate) fn write<'a>(
    directory: &'a Directory,
    signature: &Signature,
    entry: &Encoded<'_>,
    reserve: impl FnOnce() -> bool,
) -> io::Result<Option<Written<'a>>> {
    let mut temporary = Temporary::create_for(directory, disk_bytes(entry.length()))?;
    if !reserve() {
        return Ok(None);
    }
    write_all(&mut temporary, &entry.object, &entry.tail)?;
    Ok(Some(Written { directory, temporary, name: EntryName::of(signature) }))
}

impl Written<'_> {
    /// Gives the entry its name.
    pub(crate) fn name(mut self) -> io::Result<Published> {
        Ok(name_entry(self.directory, &mut self.temporary, &self.name)?)
    }
}

fn write_all(temporary: &mut Temporary<'_>, object: &[u8], tail: &[u8]) -> io::Result<()> {
    let written = temporary.file.write_vectored(&[IoSlice::new(object), IoSlice::new(tail)])?;
    // Nearly always everything went at once, and these two write nothing.
    temporary.file.write_all(object.get(written..).unwrap_or_default())?;
    temporary.file.write_all(&tail[written.saturating_sub(object.len())..])
}

fn name_entry(
    directory: &Directory,
    temporary: &mut Temporary<'_>,
    name: &EntryName,
) -> rustix::io::Result<Published> {
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
    let mut made = 0;
    let named = match temporary.rename_and_replace(name.as_bytes()) {
        Err(Errno::NOENT | Errno::NOTDIR) => {
            directory.make_directory(name.fan()).map_err(errno)?;
            made = DIRECTORY_BYTES;
            temporary.rename_and_replace(name.as_bytes())?
        }
        // A directory in its place, on a file system that cannot exchange names.
        Err(Errno::ISDIR) => {
            move_to_quarantine(directory, name).map_err(errno)?;
            temporary.rename_and_replace(name.as_bytes())?
        }
        named => named?,
    };
    let replaced = match named {
        Named::Anew => None,
        Named::InPlaceOf(bytes) => Some(bytes + ENTRY_OVERHEAD),
    };
    Ok(Published { replaced, made, synced: Ok(()) })
}
