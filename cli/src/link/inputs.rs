//! The objects that `link` is given.

use std::path::{Path, PathBuf};

use objcache::loader::InputObject;

use crate::failure::Failure;
use crate::files;

/// An object with the name it has in messages and in the layout.
pub(crate) struct Input {
    /// Last component of its path.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Input {
    pub(crate) fn as_object(&self) -> InputObject<'_> {
        InputObject { name: &self.name, bytes: &self.bytes }
    }
}

pub(crate) struct Inputs {
    pub(crate) objects: Vec<Input>,
}

impl Inputs {
    pub(crate) fn read(objects: &[PathBuf], _archives: &[PathBuf]) -> Result<Self, Failure> {
        let read = |path: &PathBuf| Ok(Input { name: name(path), bytes: files::read(path)? });
        let objects = objects.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
        Ok(Inputs { objects })
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.objects.iter().map(|input| input.name.as_str()).collect()
    }

    /// There is at least one: the command line asks for it.
    pub(crate) fn first(&self) -> &Input {
        &self.objects[0]
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
