//! What is there, as the file system tells it, without a look into any entry.

use std::ffi::{OsStr, OsString};
use std::io;

use objcache_signature::Signature;
use rustix::fs::{AtFlags, Stat, statat};
use rustix::io::Errno;

use super::ENTRY_OVERHEAD;
use crate::store::directory::{Directory, EntryName, PLANNED, QUARANTINE, TEMPORARY, allocated, is_fan};
use crate::store::journal::Size;

/// What the file system tells of an entry file. It changes when the file is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileFacts {
    pub(crate) inode: u64,
    pub(crate) length: u64,
    pub(crate) modified_ns: i64,
    pub(crate) disk_bytes: u64,
}

impl FileFacts {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            length: stat.st_size as u64,
            modified_ns: stat
                .st_mtime
                .saturating_mul(1_000_000_000)
                .saturating_add(stat.st_mtime_nsec as i64),
            disk_bytes: allocated(stat).saturating_add(ENTRY_OVERHEAD),
        }
    }
}

/// Something that is filed as an entry, as its directory lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listed {
    pub(crate) signature: Signature,
    pub(crate) inode: u64,
}

/// All that is filed as an entry, by ascending signature.
pub(crate) fn list(directory: &Directory) -> io::Result<Vec<Listed>> {
    let mut fans = directory.names_in(".")?;
    fans.sort_unstable();
    let mut listed = Vec::new();
    for fan in fans {
        if let Some(fan) = fan.to_str().filter(|fan| is_fan(fan)) {
            let before = listed.len();
            list_into(&mut listed, directory, fan)?;
            listed[before..].sort_unstable();
        }
    }
    Ok(listed)
}

/// The same for one pair of digits, in no order.
pub(crate) fn list_in(directory: &Directory, fan: &str) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    list_into(&mut listed, directory, fan)?;
    Ok(listed)
}

fn list_into(listed: &mut Vec<Listed>, directory: &Directory, fan: &str) -> io::Result<()> {
    directory.for_each_in(fan, |name, inode| {
        listed.extend(signature_named(fan, name).map(|signature| Listed { signature, inode }));
    })
}

/// All signatures that something is filed under, ascending.
pub(crate) fn signatures(directory: &Directory) -> io::Result<Vec<Signature>> {
    Ok(list(directory)?.iter().map(|listed| listed.signature).collect())
}

/// The signatures filed under one pair of digits, in no order.
pub(crate) fn signatures_in(directory: &Directory, fan: &str) -> io::Result<Vec<Signature>> {
    let names = directory.names_in(fan)?;
    Ok(names.iter().filter_map(|name| signature_named(fan, name)).collect())
}

/// The signature whose entry has this name in this fan-out directory.
pub(crate) fn signature_named(fan: &str, name: &OsStr) -> Option<Signature> {
    let (fan, name) = (fan.as_bytes(), name.as_encoded_bytes());
    // We never write capitals.
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    if fan.len() != 2 || name.len() != 2 * (bytes.len() - 1) {
        return None;
    }
    let pairs = fan.as_chunks::<2>().0.iter().chain(name.as_chunks::<2>().0);
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(Signature::from_bytes(bytes))
}

/// What the file system tells of one entry; `None` when there is none.
pub(crate) fn facts(directory: &Directory, signature: &Signature) -> io::Result<Option<FileFacts>> {
    match statat(directory.root(), EntryName::of(signature).as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileFacts::of(&stat))),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What these entries take.
pub(crate) fn size_of(directory: &Directory, signatures: &[Signature]) -> Size {
    let facts = signatures.iter().map(|signature| facts(directory, signature));
    let sizes = facts.filter_map(|facts| Some(Size::one(facts.ok()??.disk_bytes)));
    sizes.fold(Size::default(), Size::plus)
}

/// What all entries take.
pub(crate) fn size(directory: &Directory) -> io::Result<Size> {
    Ok(size_of(directory, &signatures(directory)?))
}

/// What the files that are being written take, or will take.
pub(crate) fn in_flight(directory: &Directory) -> io::Result<Size> {
    let size = |name: &OsStr| {
        let path = format!("{TEMPORARY}/{}", name.to_string_lossy());
        let stat = statat(directory.root(), path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let planned = name.to_str()?.rsplit_once(PLANNED).and_then(|(_, bytes)| bytes.parse().ok());
        // Others are on their way out, and taken back if nobody does it.
        Some(Size::one(planned.unwrap_or_else(|| allocated(&stat) + ENTRY_OVERHEAD)))
    };
    let names = directory.names_in(TEMPORARY)?;
    Ok(names.iter().filter_map(|name| size(name)).fold(Size::default(), Size::plus))
}

/// What the quarantine takes, in bytes.
pub(crate) fn quarantine_bytes(directory: &Directory) -> io::Result<u64> {
    directory_bytes(directory, QUARANTINE)
}

/// What one file takes, in bytes; nothing when it is not there.
pub(crate) fn file_bytes(directory: &Directory, name: &str) -> u64 {
    statat(directory.root(), name, AtFlags::SYMLINK_NOFOLLOW).map_or(0, |stat| allocated(&stat))
}

/// What the files right in a subdirectory take, in bytes.
pub(crate) fn directory_bytes(directory: &Directory, name: &str) -> io::Result<u64> {
    let stat = |file: OsString| {
        let path = format!("{name}/{}", file.to_string_lossy());
        statat(directory.root(), path, AtFlags::SYMLINK_NOFOLLOW).ok()
    };
    Ok(directory.names_in(name)?.into_iter().filter_map(stat).map(|stat| allocated(&stat)).sum())
}
