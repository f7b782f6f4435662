//! A file that is being written, until it gets its name.

use std::fs::File;
use std::io;

use rustix::fs::{
    AtFlags, FileType, FlockOperation, OFlags, RenameFlags, flock, fstat, openat, renameat, renameat_with,
    statat, unlinkat,
};
use rustix::io::Errno;

use super::{CLOSED, Directory, FILE_MODE, QUARANTINE, TEMPORARY, allocated, file_type, unique};

/// So many times in a row a temporary file may be swept away before it is locked.
const MOST_SWEEPS: u32 = 100;

/// What stands before the size of a file that is being written, in its name.
pub(crate) const PLANNED: char = '+';

/// A file that is being written. It is removed when dropped before it got its name, and by others when its
/// writer died: it is locked as long as that lives.
pub(crate) struct Temporary<'a> {
    directory: &'a Directory,
    pub(crate) file: File,
    name: Option<String>,
}

impl<'a> Temporary<'a> {
    pub(crate) fn create(directory: &'a Directory) -> io::Result<Self> {
        Self::create_as(directory, unique)
    }

    /// One that will take `bytes`, which its name tells to whoever measures the store before they are written.
    pub(crate) fn create_for(directory: &'a Directory, bytes: u64) -> io::Result<Self> {
        Self::create_as(directory, || format!("{}{PLANNED}{bytes}", unique()))
    }

    fn create_as(directory: &'a Directory, name: impl Fn() -> String) -> io::Result<Self> {
        // Between making the file and locking it, another process may have taken it for a dead one's.
        for _ in 0..MOST_SWEEPS {
            if let Some(temporary) = Self::create_and_lock(directory, &name())? {
                return Ok(temporary);
            }
        }
        // A file system on which every file seems to be removed.
        Err(Errno::STALE.into())
    }

    /// `None`: the file was swept away before it was locked.
    fn create_and_lock(directory: &'a Directory, name: &str) -> io::Result<Option<Self>> {
        let name = format!("{TEMPORARY}/{name}");
        let flags = CLOSED | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = match openat(directory.root(), &name, flags, FILE_MODE) {
            // A process of another container, which has the same number.
            Err(Errno::EXIST) => return Ok(None),
            // Somebody cleared the directory, or put something else there.
            Err(Errno::NOENT | Errno::NOTDIR) => {
                directory.make_directory(TEMPORARY)?;
                openat(directory.root(), &name, flags, FILE_MODE)?
            }
            opened => opened?,
        };
        // Where there are no locks, others take the file for a dead one and the writer has to try again.
        let swept = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => true,
            _ => fstat(&file)?.st_nlink == 0,
        };
        Ok((!swept).then(|| Self { directory, file: file.into(), name: Some(name) }))
    }

    /// Gives the file its name, over what had it before. All or nothing for every reader.
    pub(crate) fn rename_to(&mut self, name: &[u8]) -> rustix::io::Result<()> {
        let Some(temporary) = &self.name else { return Ok(()) };
        renameat(self.directory.root(), temporary, self.directory.root(), name)?;
        self.name = None;
        Ok(())
    }
}

/// How a file got its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// Nothing had it.
    Anew,
    /// In place of something that lay there: a directory was moved to quarantine, a file took so many bytes
    /// and is removed.
    InPlaceOf(u64),
}

impl Temporary<'_> {
    /// Gives the file its name, and tells what it replaced. All or nothing for every reader.
    pub(crate) fn rename_and_replace(&mut self, name: &[u8]) -> rustix::io::Result<Named> {
        let Some(temporary) = self.name.clone() else { return Ok(Named::Anew) };
        let root = self.directory.root();
        // Another may put or take away the same meanwhile.
        for _ in 0..MOST_SWEEPS {
            match renameat_with(root, &temporary, root, name, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    self.name = None;
                    return Ok(Named::Anew);
                }
                Err(Errno::EXIST) => {}
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => return self.rename_over(name),
                Err(error) => return Err(error),
            }
            // Both have a name all the time, and what was replaced is known for certain.
            match renameat_with(root, &temporary, root, name, RenameFlags::EXCHANGE) {
                Ok(()) => return self.remove_replaced(),
                Err(Errno::NOENT) => {}
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => return self.rename_over(name),
                Err(error) => return Err(error),
            }
        }
        self.rename_over(name)
    }

    /// For file systems that cannot exchange names.
    fn rename_over(&mut self, name: &[u8]) -> rustix::io::Result<Named> {
        let before = statat(self.directory.root(), name, AtFlags::SYMLINK_NOFOLLOW);
        self.rename_to(name)?;
        Ok(before.map_or(Named::Anew, |stat| Named::InPlaceOf(allocated(&stat))))
    }

    /// The temporary name leads to what was replaced.
    fn remove_replaced(&mut self) -> rustix::io::Result<Named> {
        let Some(replaced) = self.name.take() else { return Ok(Named::Anew) };
        let root = self.directory.root();
        // What cannot be seen or removed is swept later, and stays counted until then.
        let Ok(stat) = statat(root, &replaced, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(Named::Anew) };
        if file_type(&stat) == FileType::Directory {
            // Not ours to empty.
            let _ = renameat(root, &replaced, root, format!("{QUARANTINE}/{}", unique()));
            return Ok(Named::Anew);
        }
        match unlinkat(root, &replaced, AtFlags::empty()) {
            Ok(()) => Ok(Named::InPlaceOf(allocated(&stat))),
            Err(_) => Ok(Named::Anew),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = self.directory.remove_file(name.as_bytes());
        }
    }
}
