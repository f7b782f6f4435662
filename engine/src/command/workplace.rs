//! Private folders for the temporary files of compilers, and what dead processes left of theirs.
//!
//! A folder is removed by whoever made it. One that was killed cannot; so each folder has a file in it that is
//! locked while its process lives, and the first folder that a process makes is an occasion to look for those
//! whose lock is free. A process number would not do: it means nothing to another container with the same `/tmp`.

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::TempDir;

use crate::error::{CompileError, Stage};

/// How the names of our folders begin.
const PREFIX: &str = "objcache-";
/// So many letters and digits by chance follow.
const RANDOM: usize = 6;
/// The file in it that tells whether its process lives.
const LOCK: &str = ".objcache-workplace";
/// So many times in a row another may take our folder for a dead one's before it is locked.
const MOST_TRIES: u32 = 10;

/// A private folder for temporary files, made when it is first needed and removed in the end.
#[derive(Default)]
pub(super) struct Workplace {
    made: OnceCell<Made>,
}

struct Made {
    // Removed before the lock is given back.
    folder: TempDir,
    _lock: Option<File>,
}

impl Workplace {
    pub(super) fn path(&self) -> Result<&Path, CompileError> {
        if let Some(made) = self.made.get() {
            return Ok(made.folder.path());
        }
        let failed = |error| CompileError::new(Stage::Prepare, "a temporary folder", error);
        let made = Made::new(&std::env::temp_dir()).map_err(failed)?;
        #[cfg(unix)]
        dead::sweep_once(made.folder.path());
        Ok(self.made.get_or_init(|| made).folder.path())
    }
}

impl Made {
    fn new(among: &Path) -> io::Result<Self> {
        for _ in 0..MOST_TRIES {
            let folder = tempfile::Builder::new().prefix(PREFIX).rand_bytes(RANDOM).tempdir_in(among)?;
            match lock(folder.path()) {
                Ok(Some(lock)) => return Ok(Self { folder, _lock: Some(lock) }),
                // Another took it for a dead one's.
                Ok(None) => {}
                // It works without, and is not looked for when it is left behind.
                Err(_) => return Ok(Self { folder, _lock: None }),
            }
        }
        let folder = tempfile::Builder::new().prefix(PREFIX).rand_bytes(RANDOM).tempdir_in(among)?;
        Ok(Self { folder, _lock: None })
    }
}

/// The lock of a folder just made. `None`: another removes the folder.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let path = folder.join(LOCK);
    let file = match File::create_new(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
        Err(std::fs::TryLockError::Error(error)) => {
            // Without locks it would be taken for a dead one's.
            std::fs::remove_file(path)?;
            return Err(error);
        }
    }
    // Whoever was faster has removed it by now.
    Ok(path.exists().then_some(file))
}

#[cfg(unix)]
mod dead {
    use std::ffi::{OsStr, OsString};
    use std::fs::{self, File};
    use std::io;
    use std::path::Path;
    use std::sync::Once;

    use rustix::fs::{FileType, Mode, OFlags, fstat, openat};

    use super::{LOCK, PREFIX, RANDOM};

    /// Removes what dead processes of the same user left beside `ours`, the first time in this process.
    pub(super) fn sweep_once(ours: &Path) {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| {
            // That it cannot be removed is no trouble of this compilation.
            let _ = sweep(ours);
        });
    }

    pub(super) fn sweep(ours: &Path) -> io::Result<()> {
        let Some(among) = ours.parent() else { return Ok(()) };
        // What we make is ours: so no one needs to be asked who we are.
        let owner = fstat(File::open(ours)?)?.st_uid;
        let parent = File::open(among)?;
        for entry in fs::read_dir(among)?.flatten() {
            let name = entry.file_name();
            if is_workplace(&name) && !ours.ends_with(&name) {
                let _ = remove_if_dead(&parent, among, &name, owner);
            }
        }
        Ok(())
    }

    /// Whether a name is like those that we give.
    pub(super) fn is_workplace(name: &OsStr) -> bool {
        let random = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        random.is_some_and(|it| it.len() == RANDOM && it.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    }

    fn remove_if_dead(parent: &File, among: &Path, name: &OsString, owner: u32) -> io::Result<()> {
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::RDONLY;
        let folder = openat(parent, name, flags | OFlags::DIRECTORY, Mode::empty())?;
        if fstat(&folder)?.st_uid != owner {
            return Ok(());
        }
        // A FIFO would make us wait.
        let lock = File::from(openat(&folder, LOCK, flags | OFlags::NONBLOCK, Mode::empty())?);
        let found = fstat(&lock)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || found.st_uid != owner {
            return Ok(());
        }
        // Held until all is gone, so that nobody makes use of the folder meanwhile.
        lock.try_lock().map_err(io::Error::from)?;
        fs::remove_dir_all(among.join(name))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder as a killed process leaves it.
    fn left(among: &Path) -> std::path::PathBuf {
        let made = Made::new(among).expect("a folder");
        std::fs::write(made.folder.path().join("cc1.s"), "half").expect("written");
        made.folder.keep()
    }

    #[test]
    fn those_of_the_dead_go_and_those_of_the_living_stay() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let dead = left(place.path());
        let [ours, living] = [(); 2].map(|()| Made::new(place.path()).expect("a folder"));
        dead::sweep(ours.folder.path()).expect("looks");
        assert!(!dead.exists() && living.folder.path().exists() && ours.folder.path().exists());
        drop(living);
        drop(ours);
        assert_eq!(std::fs::read_dir(place.path()).expect("lists").count(), 0);
    }

    #[test]
    fn what_only_looks_like_one_stays() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let elsewhere = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(elsewhere.path().join(LOCK), "").expect("written");
        symlink(elsewhere.path(), place.path().join("objcache-abcdef")).expect("linked");
        std::fs::create_dir(place.path().join("objcache-nolock")).expect("made");
        let target = elsewhere.path().join("target");
        std::fs::write(&target, "").expect("written");
        let linked = place.path().join("objcache-linked");
        std::fs::create_dir(&linked).expect("made");
        symlink(target, linked.join(LOCK)).expect("linked");
        let named = place.path().join("objcache-7-letters");
        std::fs::rename(left(place.path()), &named).expect("renamed");
        let ours = Made::new(place.path()).expect("a folder");
        dead::sweep(ours.folder.path()).expect("looks");
        assert_eq!(std::fs::read_dir(place.path()).expect("lists").count(), 5);
        assert!(elsewhere.path().join(LOCK).exists());
    }

    #[test]
    fn names_of_others_are_none_of_ours() {
        let is = |name: &str| dead::is_workplace(name.as_ref());
        assert!(is("objcache-aB3dE9"));
        for name in
            ["objcache-", "objcache-abcde", "objcache-abcdefg", "objcache-abc.ef", "Objcache-abcdef", ""]
        {
            assert!(!is(name), "{name}");
        }
    }

    #[test]
    fn a_folder_taken_for_a_dead_one_is_not_used() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let folder = place.path().join("objcache-abcdef");
        assert!(lock(&folder).expect("looks").is_none(), "it is gone");
        std::fs::create_dir(&folder).expect("made");
        assert!(lock(&folder).expect("locks").is_some());
    }
}
