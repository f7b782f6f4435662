//! Entry files: look up, publish, take out, list. This is the whole hit path: `openat`, `fstat`, `read` into
//! memory of our own, the checks of [`crate::entry`], done. No lock, no daemon, no catalogue.
//!
//! An entry file is never changed after it got its name, only unlinked or replaced by a rename. So a reader
//! sees all of one version or all of another, and eviction is safe under readers in flight.

mod listing;
mod publish;
mod removal;

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use objcache_signature::Signature;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat};
use rustix::io::Errno;

pub(crate) use self::listing::{
    FileFacts, Listed, directory_bytes, facts, file_bytes, in_flight, list, list_in, quarantine_bytes,
    signature_named, signatures, signatures_in, size, size_of,
};
pub(crate) use self::publish::{Published, Written, publish, write};
pub(crate) use self::removal::{quarantine, remove, remove_unless};
use crate::buffer::Buffer;
use crate::cpu::HostFeatures;
use crate::digest;
use crate::entry::{self, ENTRY_LIMIT, TRAILER_LENGTH, Trailer};
use crate::error::Reason;
use crate::object::ObjectBuffer;
use crate::store::directory::{Directory, EntryName, Identity, file_type};
use crate::trust::Gate;

/// What an entry takes beyond its blocks: inode, name, its record in the catalogue. In bytes.
const ENTRY_OVERHEAD: u64 = 512;

/// What a look-up found.
pub(crate) enum Found<T> {
    Absent,
    Whole(T),
    /// It is sound, and not for us.
    Refused(Reason),
    Damaged(Damage),
}

/// Something that is no sound entry, and which file it was.
pub(crate) struct Damage {
    pub(crate) reason: Reason,
    // `None` where not even that could be seen.
    identity: Option<Identity>,
    // Open as long as it is talked of, because the number of a removed inode is soon given to another file.
    _file: Option<OwnedFd>,
}

impl Damage {
    fn of(file: OwnedFd, stat: &Stat, reason: Reason) -> Self {
        Self { reason, identity: Some(Identity::of(stat)), _file: Some(file) }
    }

    /// For what cannot be opened, or is damaged in a way that does not show.
    pub(crate) fn by_name(directory: &Directory, name: &EntryName, reason: Reason) -> Self {
        let stat = statat(directory.root(), name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
        Self { reason, identity: stat.ok().as_ref().map(Identity::of), _file: None }
    }
}

/// The object of `signature`, for a host with these features, and what compiling it took, in µs.
pub(crate) fn look_up(
    directory: &Directory,
    signature: &Signature,
    gate: &Gate,
    host: &HostFeatures,
) -> io::Result<Found<(ObjectBuffer, u64)>> {
    let open = |entry: Buffer, trailer: Trailer| match trailer.runs_on(&entry, host) {
        true => Ok((trailer.into_object(entry)?, trailer.compile_time_us)),
        false => Err(Reason::CpuFeatures),
    };
    read_and(directory, signature, gate, open)
}

/// The entry of `signature`, checked, wherever it may run.
pub(crate) fn read(
    directory: &Directory,
    signature: &Signature,
    gate: &Gate,
) -> io::Result<Found<(Buffer, Trailer)>> {
    read_and(directory, signature, gate, |entry, trailer| Ok((entry, trailer)))
}

/// Reads an entry and checks all there is to check about it; returns its length in bytes.
pub(crate) fn verify(directory: &Directory, signature: &Signature, gate: &Gate) -> io::Result<Found<u64>> {
    read_and(directory, signature, gate, |entry, trailer| match trailer.states_its_object(&entry)? {
        true => Ok(entry.len() as u64),
        false => Err(Reason::EntryDigest),
    })
}

/// Reads an entry, checks it, and goes on with it.
fn read_and<T>(
    directory: &Directory,
    signature: &Signature,
    gate: &Gate,
    open: impl FnOnce(Buffer, Trailer) -> Result<T, Reason>,
) -> io::Result<Found<T>> {
    let (file, stat) = match open_entry(directory, signature)? {
        Opened::Absent => return Ok(Found::Absent),
        Opened::Damaged(damage) => return Ok(Found::Damaged(damage)),
        Opened::File(file, stat) => (file, stat),
    };
    let length = stat.st_size as usize;
    // `open_entry` bounds the size; what the system cannot give even so is an error, not an abort.
    let mut bytes = Buffer::with_room(digest::room(length)).ok_or(Errno::NOMEM)?;
    while bytes.len() < length {
        match rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)) {
            Ok(0) => return Ok(Found::Damaged(Damage::of(file, &stat, Reason::EntryLength))),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let checked = Trailer::check_buffer(&mut bytes, signature, gate).and_then(|trailer| open(bytes, trailer));
    Ok(match checked {
        Ok(whole) => Found::Whole(whole),
        Err(reason) if reason.is_ours_alone() => Found::Refused(reason),
        Err(reason) => Found::Damaged(Damage::of(file, &stat, reason)),
    })
}

enum Opened {
    Absent,
    Damaged(Damage),
    File(OwnedFd, Stat),
}

fn open_entry(directory: &Directory, signature: &Signature) -> io::Result<Opened> {
    let name = EntryName::of(signature);
    // Not blocking, not a controlling terminal: whatever was put in place of an entry must not hold us up.
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | directory.quietly();
    let file = match open_without_links(directory.root(), name.as_bytes(), flags) {
        Ok(file) => file,
        // A link in place of the directory: the next to write here moves it away.
        Err(Errno::LOOP) if is_link(directory, name.fan()) => return Ok(Opened::Absent),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Opened::Absent),
        Err(Errno::LOOP | Errno::NXIO | Errno::MLINK) => {
            return Ok(Opened::Damaged(Damage::by_name(directory, &name, Reason::EntryNotAFile)));
        }
        Err(Errno::ACCESS | Errno::PERM) => {
            return Ok(Opened::Damaged(Damage::by_name(directory, &name, Reason::EntryForeignOwner)));
        }
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&file)?;
    let fault = if file_type(&stat) != FileType::RegularFile {
        Some(Reason::EntryNotAFile)
    } else if stat.st_uid != directory.owner() {
        Some(Reason::EntryForeignOwner)
    } else if stat.st_nlink > 1 {
        Some(Reason::EntryLinked)
    } else if Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
        Some(Reason::EntryInsecureMode)
    } else if !(TRAILER_LENGTH as u64..=ENTRY_LIMIT).contains(&(stat.st_size as u64)) {
        Some(Reason::EntryLength)
    } else {
        None
    };
    Ok(match fault {
        Some(reason) => Opened::Damaged(Damage::of(file, &stat, reason)),
        None => Opened::File(file, stat),
    })
}

/// Follows no link in place of a directory either. Systems that know no such call (before Linux 5.6, some sandboxes) tell so
/// once.
fn open_without_links(root: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    static UNKNOWN: AtomicBool = AtomicBool::new(false);
    if !UNKNOWN.load(Ordering::Relaxed) {
        match openat2(root, name, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Err(Errno::NOSYS) => UNKNOWN.store(true, Ordering::Relaxed),
            // A sandbox that forbids calls it does not know, or a file that is not ours.
            Err(Errno::PERM) => {}
            opened => return opened,
        }
    }
    openat(root, name, flags, Mode::empty())
}

fn is_link(directory: &Directory, name: &str) -> bool {
    let stat = statat(directory.root(), name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| file_type(&stat) == FileType::Symlink)
}

/// What an entry of `length` bytes takes, in bytes.
pub(crate) fn disk_bytes(length: u64) -> u64 {
    length.next_multiple_of(4096) + ENTRY_OVERHEAD
}

/// What an entry says of itself at its end. The digest is not checked: that would mean reading it all.
pub(crate) struct Description {
    pub(crate) facts: FileFacts,
    pub(crate) trailer: Trailer,
    pub(crate) namespace: String,
}

/// Reads the end of an entry; `None` when there is none that is sound.
pub(crate) fn describe(directory: &Directory, signature: &Signature) -> io::Result<Option<Description>> {
    let Opened::File(file, stat) = open_entry(directory, signature)? else { return Ok(None) };
    let length = stat.st_size as u64;
    let failed = Cell::new(None);
    let end = |count| read_end(&file, length, count).map_err(|error| failed.set(Some(error))).ok();
    let described = entry::describe(end, length, signature);
    if let Some(error) = failed.take() {
        return Err(error);
    }
    let Some((trailer, namespace)) = described else { return Ok(None) };
    Ok(Some(Description { facts: FileFacts::of(&stat), trailer, namespace }))
}

/// The last `count` bytes of a file, or all of a shorter one.
fn read_end(file: &OwnedFd, length: u64, count: usize) -> io::Result<Buffer> {
    let count = count.min(usize::try_from(length).unwrap_or(usize::MAX));
    let mut bytes = Buffer::of_length(count).ok_or(Errno::NOMEM)?;
    let got = rustix::io::pread(file, &mut bytes[..], length - count as u64)?;
    bytes.truncate(got);
    Ok(bytes)
}
