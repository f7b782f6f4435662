//! Entry files: look up, publish, take out, list. This is the whole hit path: `openat`, `fstat`, `read` into
//! memory of our own, the checks of [`crate::entry`], done. No lock, no daemon, no catalogue.
//!
//! An entry file is never changed after it got its name, only unlinked or replaced by a rename. So a reader
//! sees all of one version or all of another, and eviction is safe under readers in flight.

use std::cell::Cell;
use std::ffi::OsStr;
use std::io::{self, IoSlice, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use objcache_signature::Signature;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, fstat, openat, openat2, renameat,
    renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

use crate::buffer::Buffer;
use crate::cpu::HostFeatures;
use crate::digest;
use crate::entry::{self, ENTRY_LIMIT, Encoded, TRAILER_LENGTH, Trailer};
use crate::error::Reason;
use crate::object::ObjectBuffer;
use crate::store::directory::{
    Directory, EntryName, Identity, Named, PLANNED, QUARANTINE, TEMPORARY, Temporary, allocated, file_type,
    unique,
};
use crate::store::journal::Size;
use crate::trust::Gate;

/// What an entry takes beyond its blocks: inode, name, its record in the catalogue. In bytes.
const ENTRY_OVERHEAD: u64 = 512;

/// What a directory takes that was just made, in bytes.
const DIRECTORY_BYTES: u64 = 4096;

/// Damaged entries that are kept at most.
const QUARANTINE_FILES: usize = 32;

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

/// What came of a publication.
pub(crate) struct Published {
    /// What the entry that had the name before took, in bytes.
    pub(crate) replaced: Option<u64>,
    /// Bytes of a directory that was made for it.
    pub(crate) made: u64,
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
    let published = loop {
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
        directory.sync_names_in(name.fan())?;
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
    Ok(Published { replaced, made })
}

/// Takes a damaged entry out of the way, unless another is there by now. Returns whether it did. The oldest of
/// the quarantine go when it takes more than `max_bytes`.
pub(crate) fn quarantine(
    directory: &Directory,
    signature: &Signature,
    damage: &Damage,
    max_bytes: u64,
) -> io::Result<bool> {
    let name = EntryName::of(signature);
    let there = match statat(directory.root(), name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Identity::of(&stat),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if damage.identity.is_some_and(|damaged| damaged != there) {
        return Ok(false);
    }
    let taken = take_out(directory, &name, damage.identity.unwrap_or(there))?;
    bound_quarantine(directory, max_bytes)?;
    Ok(taken)
}

/// Takes the file that is `damaged` out of the way. A sound one that got its name at the last moment is given
/// back; look-ups in between miss.
fn take_out(directory: &Directory, name: &EntryName, damaged: Identity) -> io::Result<bool> {
    let Some(taken) = move_to_quarantine(directory, name)? else { return Ok(false) };
    let stat = statat(directory.root(), &taken, AtFlags::SYMLINK_NOFOLLOW);
    if stat.as_ref().map(Identity::of) == Ok(damaged) {
        return Ok(true);
    }
    let (root, flags) = (directory.root(), RenameFlags::NOREPLACE);
    // Where that does not work, or another has the name by now, it stays here: one more compilation.
    let _ = renameat_with(root, &taken, root, name.as_bytes(), flags);
    Ok(false)
}

/// Returns the new name; `None` when there is nothing any more.
fn move_to_quarantine(directory: &Directory, name: &EntryName) -> io::Result<Option<String>> {
    let hex = String::from_utf8_lossy(name.as_bytes()).replace('/', "");
    let to = format!("{QUARANTINE}/{hex}-{}", unique());
    let rename = || renameat(directory.root(), name.as_bytes(), directory.root(), &to);
    match rename() {
        Err(Errno::NOENT | Errno::NOTDIR) => {
            directory.make_directory(QUARANTINE)?;
            match rename() {
                // Another was faster.
                Err(Errno::NOENT) => Ok(None),
                done => Ok(done.map(|()| Some(to))?),
            }
        }
        done => Ok(done.map(|()| Some(to))?),
    }
}

/// Removes the oldest of the quarantine until it is within its bounds.
fn bound_quarantine(directory: &Directory, max_bytes: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for name in directory.names_in(QUARANTINE)? {
        let name = format!("{QUARANTINE}/{}", name.to_string_lossy());
        if let Ok(stat) = statat(directory.root(), &name, AtFlags::SYMLINK_NOFOLLOW) {
            files.push((stat.st_ctime, name, stat));
        }
    }
    files.sort_by_key(|(changed, ..)| std::cmp::Reverse(*changed));
    let mut bytes = 0;
    for (index, (_, name, stat)) in files.iter().enumerate() {
        bytes += allocated(stat);
        if index >= QUARANTINE_FILES || bytes > max_bytes {
            let directory_flag = match file_type(stat) {
                // Only an empty one goes: what else somebody put there is theirs.
                FileType::Directory => AtFlags::REMOVEDIR,
                _ => AtFlags::empty(),
            };
            let _ = unlinkat(directory.root(), name, directory_flag);
        }
    }
    Ok(())
}

/// Removes an entry, and tells what it took, in bytes; `None` when there was none.
///
/// It loses its name first: what has the name by then is exactly what is removed and counted, whoever puts the
/// same again meanwhile.
pub(crate) fn remove(directory: &Directory, signature: &Signature) -> io::Result<Option<u64>> {
    let name = EntryName::of(signature);
    let taken = format!("{TEMPORARY}/{}", unique());
    let rename = || renameat(directory.root(), name.as_bytes(), directory.root(), &taken);
    match rename() {
        Err(Errno::NOENT | Errno::NOTDIR) if exists(directory, &name) => {
            directory.make_directory(TEMPORARY)?;
            match rename() {
                Err(Errno::NOENT) => return Ok(None),
                renamed => renamed?,
            }
        }
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        renamed => renamed?,
    }
    let stat = match statat(directory.root(), &taken, AtFlags::SYMLINK_NOFOLLOW) {
        // Swept by another.
        Err(Errno::NOENT) => return Ok(Some(0)),
        stat => stat?,
    };
    if file_type(&stat) == FileType::Directory {
        // It is not ours to empty.
        directory.make_directory(QUARANTINE)?;
        renameat(directory.root(), &taken, directory.root(), format!("{QUARANTINE}/{}", unique()))?;
        return Ok(Some(0));
    }
    directory.remove_file(taken.as_bytes())?;
    Ok(Some(allocated(&stat) + ENTRY_OVERHEAD))
}

fn exists(directory: &Directory, name: &EntryName) -> bool {
    statat(directory.root(), name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// What the file system tells of an entry file. It changes when the file is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileFacts {
    pub(crate) inode: u64,
    pub(crate) length: u64,
    pub(crate) modified_ns: i64,
    pub(crate) disk_bytes: u64,
}

impl FileFacts {
    fn of(stat: &Stat) -> Self {
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

/// Whether a directory of this name holds entries.
pub(crate) fn is_fan(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
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
    let stat = |file: std::ffi::OsString| {
        let path = format!("{name}/{}", file.to_string_lossy());
        statat(directory.root(), path, AtFlags::SYMLINK_NOFOLLOW).ok()
    };
    Ok(directory.names_in(name)?.into_iter().filter_map(stat).map(|stat| allocated(&stat)).sum())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use objcache_signature::Provenance;

    use super::*;
    use crate::compression::{Codec, Compression};
    use crate::object::CompiledObject;
    use crate::trust::Trust;

    fn read(directory: &Directory, signature: &Signature) -> io::Result<Found<(Buffer, Trailer)>> {
        super::read(directory, signature, &Gate::default())
    }

    const SIGNATURE: Signature = Signature::from_bytes([0x3c; 32]);

    fn put(directory: &Directory, object: &[u8]) {
        let compiled = CompiledObject {
            signature: SIGNATURE,
            object,
            key_document: b"",
            provenance: &Provenance::default(),
            namespace: "",
            compile_time: Duration::ZERO,
            cpu_features: &[],
        };
        let trust = Trust::default();
        let entry = Encoded::new(&compiled, 0, Compression::Always(Codec::Plain), &trust).expect("small");
        let published = publish(directory, &SIGNATURE, &entry, false, || true).expect("published");
        assert!(published.is_some());
    }

    fn damage(directory: &Directory) -> Damage {
        put(directory, b"first");
        let name = EntryName::of(&SIGNATURE);
        let path = directory.path().join(std::str::from_utf8(name.as_bytes()).expect("hexadecimal"));
        std::fs::write(path, b"damaged").expect("written");
        let Found::Damaged(damage) = read(directory, &SIGNATURE).expect("read") else { panic!("damaged") };
        damage
    }

    #[test]
    fn an_entry_healed_meanwhile_is_not_put_into_quarantine() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        // More than once, because the file system may give the new file the number of the old one.
        for _ in 0..20 {
            let damage = damage(&directory);
            remove(&directory, &SIGNATURE).expect("removed");
            put(&directory, b"second");
            assert!(!quarantine(&directory, &SIGNATURE, &damage, u64::MAX).expect("looked"));
            assert!(matches!(read(&directory, &SIGNATURE), Ok(Found::Whole(..))));
        }
    }

    #[test]
    fn an_entry_healed_at_the_last_moment_is_given_back() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        let damaged = damage(&directory).identity.expect("known");
        put(&directory, b"second");
        // What `quarantine` does after it has looked.
        assert!(!take_out(&directory, &EntryName::of(&SIGNATURE), damaged).expect("looked"));
        assert!(matches!(read(&directory, &SIGNATURE), Ok(Found::Whole(..))));
        assert!(directory.names_in(QUARANTINE).expect("lists").is_empty());
    }

    #[test]
    fn the_quarantine_is_bounded_in_bytes_too() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        for _ in 0..5 {
            put(&directory, &[7; 100_000]);
            move_to_quarantine(&directory, &EntryName::of(&SIGNATURE)).expect("moved");
        }
        bound_quarantine(&directory, 250_000).expect("bounded");
        assert_eq!(directory.names_in(QUARANTINE).expect("lists").len(), 2);
        assert!(quarantine_bytes(&directory).expect("measured") <= 250_000);
    }
}
