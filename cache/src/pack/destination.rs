//! Where a pack is to be: over nothing, or over a regular file, be it behind links. A device, a FIFO or a link
//! itself would be gone for good once the pack took its name.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// The file that a pack called `path` is to replace, or to make. Links are followed.
pub(crate) fn destination(path: &Path) -> io::Result<PathBuf> {
    let is_link = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(path.to_owned()),
        named => named?.is_symlink(),
    };
    // Asked of the path itself: what links below `/proc` say leads nowhere, though what they stand for is there.
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(io::Error::new(ErrorKind::NotFound, "it is a link to a file that is not there"));
        }
        found => found?,
    };
    if !found.is_file() {
        let why = "something that is no regular file has that name, and a pack does not take its place";
        return Err(io::Error::new(ErrorKind::InvalidInput, why));
    }
    if is_link { path.canonicalize() } else { Ok(path.to_owned()) }
}
