//! The file that a pack is written to before it takes its name. Whoever writes it holds a lock (`flock`) on it for as
//! long as it lives: a kill leaves a file that nobody has locked, up to the size of the pack, and the next pack that
//! is made in that folder removes it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::geteuid;
use tempfile::NamedTempFile;

/// What names of drafts begin with; so many letters and digits follow.
const PREFIX: &str = ".objcache-pack-";
const RANDOM: usize = 6;

/// A new draft, after those that the dead left in the folder are removed. Dropped, it is removed as well.
pub(super) fn create(folder: &Path) -> io::Result<NamedTempFile<File>> {
    sweep(folder);
    tempfile::Builder::new().prefix(PREFIX).rand_bytes(RANDOM).make_in(folder, create_locked)
}

fn create_locked(path: &Path) -> io::Result<File> {
    // Others may read a pack, and nobody else write it, or it would not be used.
    let file = File::options().write(true).create_new(true).mode(0o644).open(path)?;
    let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
    // Before it was locked, another may have taken it for one of the dead's. Then another name is tried. A file
    // system without locks has none for the other either.
    let is_swept = locked == Err(Errno::WOULDBLOCK)
        || fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    if is_swept { Err(ErrorKind::AlreadyExists.into()) } else { Ok(file) }
}

/// Removes the drafts of the dead. What cannot be removed stays: no pack fails for it.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| is_draft(&entry.file_name())) {
        let _ = remove_of_the_dead(&entry.path());
    }
}

fn is_draft(name: &OsStr) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
    random.is_some_and(|it| it.len() == RANDOM && it.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn remove_of_the_dead(path: &Path) -> io::Result<()> {
    let named = fs::symlink_metadata(path)?;
    if !named.is_file() || named.uid() != geteuid().as_raw() {
        return Ok(());
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    // For writing, because network file systems give such locks only to those who may write.
    let file = File::options().read(true).write(true).custom_flags(flags.bits() as i32).open(path)?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    // It may have become a pack since the folder was read, or another file.
    let (named, locked) = (fs::symlink_metadata(path)?, file.metadata()?);
    if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) {
        fs::remove_file(path)?;
    }
    Ok(())
}
