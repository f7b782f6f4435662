//! The directory of a store: opened once, checked by `fstat` on what was opened, and from then on the base of
//! every other path. Nothing else is reached by an absolute name, so nobody can redirect us later.
//!
//! ```text
//! CACHEDIR.TAG     tells backup programs to pass it over
//! VERSION          format of the directory
//! ab/cdef…         entries, by the hexadecimal signature
//! tmp/             files being written; each is locked while its writer lives
//! locks/           signatures being compiled
//! pins/            signatures that eviction passes over
//! quarantine/      damaged entries, the last few
//! running/         entries whose code runs; each is locked while its process lives
//! journal          what the store takes; puts and hits that the catalogue has not yet taken in
//! misses           the last compilations whose objects are not here
//! failures/        what failed to compile, if that is remembered
//! victims          what goes next when a put finds no room
//! keeper, catalogue/   the catalogue (sled) and the lock of whoever has it open
//! layers           packs and directories that are asked after this one, a path a line
//! trace            what is used, while somebody wants to know; trace.ended: the last such
//! ```
//! A link in place of the directory itself is followed: moving a cache to another disk is its owner's right,
//! and owner and mode, of it and of the directories above it, are checked where the link leads. Below it no link
//! is followed: those to files are refused, and others are moved away before the first write.

mod temporary;
mod unique;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use objcache_signature::Signature;
use parking_lot::Mutex;
use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, Stat, accessat, flock, fstat, fsync, mkdirat, open,
    openat, renameat, statat, syncfs, unlinkat,
};
use rustix::io::Errno;

pub(crate) use self::temporary::{Named, PLANNED, Temporary};
pub(crate) use self::unique::{is_unique, unique};
use crate::error::{CacheError, Reason};
use crate::store::founding::{self, Format};
use crate::store::parents;

pub(crate) const TEMPORARY: &str = "tmp";
pub(crate) const LOCKS: &str = "locks";
pub(crate) const PINS: &str = "pins";
pub(crate) const QUARANTINE: &str = "quarantine";
pub(crate) const RUNNING: &str = "running";
pub(crate) const CATALOGUE: &str = "catalogue";
pub(crate) const KEEPER: &str = "keeper";
pub(crate) const JOURNAL: &str = "journal";
pub(crate) const MISSES: &str = "misses";
pub(crate) const LAYERS: &str = "layers";
pub(crate) const TRACE: &str = "trace";
pub(crate) const TRACE_ENDED: &str = "trace.ended";
pub(crate) const VICTIMS: &str = "victims";
pub(crate) const FAILURES: &str = "failures";

/// Everything that lies in a store beside the fan-out directories of its entries. What is not named here is
/// foreign to `fsck`.
pub(crate) const KNOWN_NAMES: &[&str] = &[
    TEMPORARY,
    LOCKS,
    PINS,
    QUARANTINE,
    RUNNING,
    CATALOGUE,
    "catalogue.damaged",
    KEEPER,
    JOURNAL,
    VICTIMS,
    FAILURES,
    "journal.folding",
    MISSES,
    VERSION_FILE,
    TAG_FILE,
    LAYERS,
    TRACE,
    TRACE_ENDED,
];

pub(crate) const VERSION_FILE: &str = "VERSION";
pub(crate) const TAG_FILE: &str = "CACHEDIR.TAG";
/// The first line is prescribed by <https://bford.info/cachedir/>.
pub(crate) const TAG_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # This directory is a cache of compiled objects, made by objcache. It may be removed at any time.\n";

const DIRECTORY_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const CLOSED: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW);
const DIRECTORY: OFlags = OFlags::CLOEXEC.union(OFlags::DIRECTORY);

/// So far up it is seen to that directories survive a power cut.
const MOST_PARENTS: u32 = 16;

/// What can be done with a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// It can be written, and its layout was made just now.
    WriteFresh,
}

pub(crate) struct Directory {
    root: OwnedFd,
    path: PathBuf,
    owner: u32,
    // What files of the owner's are opened with to leave their times of access alone; only owners may.
    quietly: OFlags,
    // Subdirectories whose names survive a power cut, as far as this process has seen to it; "." for the
    // directory itself.
    on_disk: Mutex<BTreeSet<String>>,
}

impl Directory {
    /// Opens the directory, makes it where it is missing (unless `read_only`), and checks that it is ours.
    pub(crate) fn open(path: &Path, read_only: bool) -> Result<(Self, Access), CacheError> {
        // The catalogue is opened by path, later, and the working directory may be another by then.
        let absolute;
        let path = if path.is_absolute() {
            path
        } else {
            absolute = std::path::absolute(path)
                .map_err(|error| CacheError::io(format!("path `{}`", path.display()), error))?;
            &absolute
        };
        let root = open_root(path, read_only).map_err(|error| cannot_open(path, error))?;
        let directory = Self {
            root,
            path: path.to_owned(),
            owner: rustix::process::geteuid().as_raw(),
            quietly: OFlags::NOATIME,
            on_disk: Mutex::default(),
        };
        directory.check_owner()?;
        let writable = !read_only
            && accessat(&directory.root, ".", rustix::fs::Access::WRITE_OK, AtFlags::empty()).is_ok();
        let access = match (directory.check_version()?, writable) {
            (_, false) => Access::Read,
            (true, true) => Access::Write,
            (false, true) => Access::WriteFresh,
        };
        if access == Access::WriteFresh {
            let may = founding::may_become_a_store(&directory);
            match may.map_err(|error| CacheError::io(path.display().to_string(), error))? {
                true => {}
                false => return Err(CacheError::new(Reason::NotAStore, path.display().to_string())),
            }
            directory.make_layout().map_err(|error| CacheError::io(path.display().to_string(), error))?;
        }
        Ok((directory, access))
    }

    /// Opens the directory of another store to read from: our own, or the system's. Entries must belong to
    /// whoever owns the directory.
    pub(crate) fn open_layer(path: &Path) -> Result<Self, CacheError> {
        let root = open_root(path, true).map_err(|error| cannot_open(path, error))?;
        let stat = fstat(&root).map_err(|error| CacheError::io("fstat", error.into()))?;
        let me = rustix::process::geteuid().as_raw();
        let owner = if stat.st_uid == 0 { 0 } else { me };
        let quietly = if owner == me { OFlags::NOATIME } else { OFlags::empty() };
        let directory = Self { root, path: path.to_owned(), owner, quietly, on_disk: Mutex::default() };
        directory.check_owner()?;
        match directory.check_version()? {
            true => Ok(directory),
            false => Err(CacheError::new(Reason::NoDirectory, path.join(VERSION_FILE).display().to_string())),
        }
    }

    fn check_owner(&self) -> Result<(), CacheError> {
        let refuse = |reason| Err(CacheError::new(reason, self.path.display().to_string()));
        let stat = fstat(&self.root).map_err(|error| CacheError::io("fstat", error.into()))?;
        if stat.st_uid != self.owner {
            return refuse(Reason::ForeignOwner);
        }
        if Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
            return refuse(Reason::InsecureMode);
        }
        if !parents::are_safe(self.root.as_fd(), &stat, rustix::process::geteuid().as_raw()) {
            return refuse(Reason::InsecureParent);
        }
        Ok(())
    }

    /// Whether there is a sound version file; an error when it is of a later format.
    fn check_version(&self) -> Result<bool, CacheError> {
        let refuse = |reason| CacheError::new(reason, self.path.join(VERSION_FILE).display().to_string());
        let file = match self.open_file(VERSION_FILE) {
            Ok(Some(file)) => file,
            Ok(None) => return Ok(false),
            Err(error) if is_in_the_way(&error) => return Ok(false),
            Err(error) => return Err(refuse(Reason::of(&error)).with_source(error)),
        };
        // One read: nobody writes such a file but by a rename.
        let mut text = [0; 64];
        let length = match file.read_at(&mut text, 0) {
            Err(error) if is_in_the_way(&error) => return Ok(false),
            read => read.map_err(|error| refuse(Reason::of(&error)).with_source(error))?,
        };
        match Format::of(&text[..length]) {
            Format::Ours => Ok(true),
            Format::Unknown => Ok(false),
            Format::Later => Err(refuse(Reason::FutureFormat)),
        }
    }

    /// Makes what belongs in the directory; the version file last, so that its presence vouches for the rest.
    pub(crate) fn make_layout(&self) -> io::Result<()> {
        for name in [TEMPORARY, LOCKS, PINS, QUARANTINE] {
            self.make_directory(name)?;
        }
        self.replace_file(TAG_FILE, TAG_TEXT.as_bytes())?;
        self.replace_file(VERSION_FILE, founding::version_text().as_bytes())
    }

    pub(crate) fn replace_file(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let mut temporary = Temporary::create(self)?;
        temporary.file.write_all(contents)?;
        if temporary.rename_to(name.as_bytes()) == Err(Errno::ISDIR) {
            self.move_away(name)?;
        }
        temporary.rename_to(name.as_bytes())?;
        Ok(())
    }

    /// Makes a subdirectory. That it exists already is fine; what else is in its place goes to quarantine.
    pub(crate) fn make_directory(&self, name: &str) -> io::Result<()> {
        self.on_disk.lock().remove(name);
        for _ in 0..2 {
            match mkdirat(&self.root, name, DIRECTORY_MODE) {
                Err(Errno::EXIST) => {}
                done => return Ok(done?),
            }
            match statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if file_type(&stat) == FileType::Directory => return Ok(()),
                _ => self.move_away(name)?,
            }
        }
        Err(Errno::NOTDIR.into())
    }

    /// Moves what lies under this name to quarantine.
    pub(crate) fn move_away(&self, name: &str) -> io::Result<()> {
        if name == QUARANTINE {
            return Ok(unlinkat(&self.root, name, AtFlags::empty())?);
        }
        let to = format!("{QUARANTINE}/{}-{}", name.replace('/', "-"), unique());
        let rename = || renameat(&self.root, name, &self.root, &to);
        match rename() {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.make_directory(QUARANTINE)?;
                Ok(rename()?)
            }
            done => Ok(done?),
        }
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The only user whose entries are read.
    pub(crate) fn owner(&self) -> u32 {
        self.owner
    }

    /// What to open a file of ours with, so that reading it does not write the time of access: after each change the
    /// first to read would, and it takes as long as a hit.
    pub(crate) fn quietly(&self) -> OFlags {
        self.quietly
    }

    /// Opens a file for reading; `None` when it does not exist. Nothing but a file of ours is opened.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<Option<File>> {
        // Not blocking: a FIFO in place of a file would make us wait for a writer.
        match openat(&self.root, name, CLOSED | OFlags::NONBLOCK, Mode::empty()) {
            Ok(file) => self.only_ours(file).map(|(file, _)| Some(file)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file for reading and writing, making it when missing. Also tells which file it is.
    pub(crate) fn open_or_create(&self, name: &str) -> io::Result<(File, Identity)> {
        let flags = CLOSED | OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK | self.quietly;
        self.only_ours(openat(&self.root, name, flags, FILE_MODE)?)
    }

    /// A file that is ours, and that has no second name by which what we write would get elsewhere.
    fn only_ours(&self, file: OwnedFd) -> io::Result<(File, Identity)> {
        let stat = fstat(&file)?;
        let refused = match file_type(&stat) {
            FileType::Directory => Some(Errno::ISDIR),
            FileType::RegularFile if stat.st_uid != self.owner => Some(Errno::PERM),
            FileType::RegularFile if stat.st_nlink > 1 => Some(Errno::MLINK),
            FileType::RegularFile => None,
            // A FIFO, which cannot be read at a place.
            _ => Some(Errno::SPIPE),
        };
        if let Some(refused) = refused {
            return Err(refused.into());
        }
        Ok((file.into(), Identity::of(&stat)))
    }

    /// Moves links away that lie where directories of ours should: what is written must not get elsewhere. The
    /// directory itself may be reached through a link, since its owner has moved it. Links with names of their own stay.
    pub(crate) fn move_links_away(&self) -> io::Result<()> {
        // First, because the others are moved there.
        if let Ok(stat) = statat(&self.root, QUARANTINE, AtFlags::SYMLINK_NOFOLLOW)
            && file_type(&stat) == FileType::Symlink
        {
            self.move_away(QUARANTINE)?;
        }
        let root = openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        let mut result = Ok(());
        for entry in Dir::new(root)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if entry.file_type() == FileType::Symlink && is_name_of_ours(name) {
                // One that stays must not protect the others.
                result = self.move_away(name).and(result);
            }
        }
        result
    }

    /// Removes a file; `false` when there was none.
    pub(crate) fn remove_file(&self, name: &[u8]) -> io::Result<bool> {
        match unlinkat(&self.root, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file of ours; what else is in its place goes to quarantine.
    pub(crate) fn make_way(&self, name: &str) -> io::Result<()> {
        match self.remove_file(name.as_bytes()) {
            Err(error) if is_in_the_way(&error) => self.move_away(name),
            removed => removed.map(drop),
        }
    }

    /// The names in a subdirectory; none when there is no such directory, or a link in its place.
    pub(crate) fn names_in(&self, name: &str) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        self.for_each_in(name, |name, _| names.push(name.to_owned()))?;
        Ok(names)
    }

    /// Calls `each` with every name in a subdirectory, and the number of the file; never when there is no such
    /// directory.
    pub(crate) fn for_each_in(&self, name: &str, mut each: impl FnMut(&OsStr, u64)) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let directory = match openat(&self.root, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for entry in Dir::new(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                each(OsStr::from_bytes(name), entry.ino());
            }
        }
        Ok(())
    }

    /// Makes the names in a subdirectory survive a power cut, and its own, whoever made it.
    pub(crate) fn sync_names_in(&self, name: &str) -> io::Result<()> {
        self.sync_directory(name)?;
        if !self.on_disk.lock().contains(name) {
            self.sync_directory(".")?;
            self.sync_parents_once();
            self.on_disk.lock().insert(name.to_owned());
        }
        Ok(())
    }

    /// Makes everything written so far survive a power cut, whoever wrote it. Names need a second call.
    pub(crate) fn sync_file_system(&self) -> io::Result<()> {
        Ok(syncfs(&self.root)?)
    }

    /// The same for all renames, and for the directory itself.
    pub(crate) fn sync_all_names(&self) -> io::Result<()> {
        self.sync_file_system()?;
        self.sync_parents_once();
        Ok(())
    }

    fn sync_directory(&self, name: &str) -> io::Result<()> {
        Ok(fsync(openat(&self.root, name, DIRECTORY, Mode::empty())?)?)
    }

    /// The directory may have been made a moment ago, and those it is in as well. One that we may not open or
    /// sync belongs to others, and was there before.
    fn sync_parents_once(&self) {
        if !self.on_disk.lock().insert(".".to_owned()) {
            return;
        }
        let mut below = openat(&self.root, ".", DIRECTORY, Mode::empty());
        for _ in 0..MOST_PARENTS {
            let Ok(directory) = below else { return };
            let parent = openat(&directory, "..", DIRECTORY, Mode::empty());
            let _ = parent.as_ref().map(fsync);
            below = parent;
        }
    }

    /// Removes temporary files whose writers are dead: their locks are free. Returns which.
    pub(crate) fn sweep_temporaries(&self) -> io::Result<Vec<String>> {
        let names = self.names_in(TEMPORARY)?.into_iter();
        let paths = names.map(|name| format!("{TEMPORARY}/{}", name.to_string_lossy()));
        // What cannot be removed (somebody's directory) must not protect the others.
        Ok(paths.filter(|path| self.sweep_temporary(path).unwrap_or(false)).collect())
    }

    fn sweep_temporary(&self, name: &str) -> io::Result<bool> {
        // Open until it is removed, and so locked: a writer that has made the file and not yet locked it must
        // see one or the other, or it would go on with a file that loses its name.
        let held = match self.open_file(name) {
            Ok(Some(file)) => match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Some(file),
                Err(_) => return Ok(false),
            },
            Ok(None) => return Ok(false),
            // A link or a socket: nothing a writer of ours made.
            Err(_) => None,
        };
        let removed = self.remove_file(name.as_bytes());
        drop(held);
        removed
    }

    /// Whether new entries can be made here, but for where they are filed.
    pub(crate) fn can_be_written(&self) -> bool {
        let may = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        [".", TEMPORARY].iter().all(|name| accessat(&self.root, *name, may, AtFlags::EACCESS).is_ok())
    }

    /// Whether the directory itself was removed.
    pub(crate) fn is_gone(&self) -> bool {
        fstat(&self.root).is_ok_and(|stat| stat.st_nlink == 0)
    }
}

fn cannot_open(path: &Path, error: Errno) -> CacheError {
    let error = io::Error::from(error);
    let reason = match error.kind() {
        io::ErrorKind::NotFound => Reason::NoDirectory,
        // What `mkdir -p` says when a file is in the way.
        io::ErrorKind::AlreadyExists => Reason::NotADirectory,
        _ => Reason::of(&error),
    };
    CacheError::new(reason, path.display().to_string()).with_source(error)
}

/// Whether something that is no file of ours lies there: a directory, a link, a socket, a FIFO.
pub(crate) fn is_in_the_way(error: &io::Error) -> bool {
    let error = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(error, Some(Errno::ISDIR | Errno::LOOP | Errno::NXIO | Errno::MLINK | Errno::SPIPE))
}

fn open_root(path: &Path, read_only: bool) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::CLOEXEC | OFlags::DIRECTORY;
    match open(path, flags, Mode::empty()) {
        Err(Errno::NOENT) if !read_only => {
            let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE.bits()).create(path);
            open(path, flags, Mode::empty()).map_err(|error| {
                match made.map_err(|error| error.raw_os_error()) {
                    Err(Some(why)) => Errno::from_raw_os_error(why),
                    _ => error,
                }
            })
        }
        opened => opened,
    }
}

/// Which file it is, among all that are open or have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// What a file takes on the disk, in bytes.
pub(crate) fn allocated(stat: &Stat) -> u64 {
    // Some file systems count blocks only when they are written back.
    let blocks = (stat.st_blocks as u64).saturating_mul(512);
    if blocks == 0 { (stat.st_size as u64).next_multiple_of(4096) } else { blocks }
}

/// Whether something right in the directory may have this name because of us.
pub(crate) fn is_name_of_ours(name: &str) -> bool {
    KNOWN_NAMES.contains(&name) || is_fan(name)
}

/// Whether a subdirectory of this name holds entries.
pub(crate) fn is_fan(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Where the entry of a signature lies: two digits, a slash, the other 62. On the stack, since every look-up
/// needs one.
pub(crate) struct EntryName([u8; 65]);

impl EntryName {
    pub(crate) fn of(signature: &Signature) -> Self {
        let hex = blake3::Hash::from_bytes(*signature.as_bytes()).to_hex();
        let mut name = [b'/'; 65];
        name[..2].copy_from_slice(&hex.as_bytes()[..2]);
        name[3..].copy_from_slice(&hex.as_bytes()[2..]);
        Self(name)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name of the subdirectory.
    pub(crate) fn fan(&self) -> &str {
        std::str::from_utf8(&self.0[..2]).unwrap_or_default()
    }
}
