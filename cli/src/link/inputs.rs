//! The objects that `link` is given.

use std::path::{Path, PathBuf};

use objcache::loader::{Archive, InputObject, Limits, needed_members};

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
    /// Reads the objects, and of the archives the members that they need. `is_defined` knows the names that need no member.
    pub(crate) fn read(
        objects: &[PathBuf],
        archives: &[PathBuf],
        is_defined: &dyn Fn(&str) -> bool,
    ) -> Result<Self, Failure> {
        let read = |path: &PathBuf| Ok(Input { name: name(path), bytes: files::read(path)? });
        let mut objects = objects.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
        let libraries = archives.iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
        objects.extend(members(&objects, &libraries, is_defined)?);
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

/// The members of the libraries that the objects need.
fn members(
    objects: &[Input],
    libraries: &[Input],
    is_defined: &dyn Fn(&str) -> bool,
) -> Result<Vec<Input>, Failure> {
    if libraries.is_empty() {
        return Ok(Vec::new());
    }
    let mut archives = Vec::with_capacity(libraries.len());
    for Input { name, bytes } in libraries {
        archives.push(Archive::parse(bytes).map_err(|error| Failure::from(error).about(Path::new(name)))?);
    }
    let objects: Vec<_> = objects.iter().map(Input::as_object).collect();
    let members = needed_members(&objects, &archives, is_defined, &Limits::default())?;
    let input = |member: objcache::loader::Member<'_>| Input {
        name: member.name().into_owned(),
        bytes: member.bytes().to_vec(),
    };
    Ok(members.into_iter().map(input).collect())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
