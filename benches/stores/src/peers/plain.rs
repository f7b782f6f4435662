//! A file per value, in 256 folders.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Opened, Peer};
use crate::entries::Key;

struct Files(PathBuf);

pub(super) fn open(path: &Path) -> Opened {
    if !path.exists() {
        (0..256).try_for_each(|fan| fs::create_dir_all(path.join(format!("{fan:02x}"))))?;
    }
    Ok(Box::new(Files(path.to_owned())))
}

impl Files {
    fn path(&self, key: &Key) -> PathBuf {
        let mut name = String::with_capacity(64);
        key.iter().for_each(|byte| write!(name, "{byte:02x}").expect("a string takes it"));
        let mut path = PathBuf::with_capacity(self.0.as_os_str().len() + 72);
        path.extend([self.0.as_path(), Path::new(&name[..2]), Path::new(&name[2..])]);
        path
    }
}

impl Peer for Files {
    fn get(&self, key: &Key, look: &mut dyn FnMut(&[u8])) -> bool {
        match fs::read(self.path(key)) {
            Ok(value) => look(&value),
            Err(error) if error.kind() == ErrorKind::NotFound => return false,
            Err(error) => panic!("a plain file cannot be read: {error}"),
        }
        true
    }

    fn put(&self, key: &Key, value: &[u8]) {
        let path = self.path(key);
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, value).and_then(|()| fs::rename(temporary, path)).expect("a plain file");
    }

    fn remove(&self, key: &Key) {
        fs::remove_file(self.path(key)).expect("removed");
    }
}
