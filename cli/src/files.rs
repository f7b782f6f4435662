//! Files that the user named: read, and written all or nothing.

use std::fs;
use std::io::{self, IsTerminal, Read, Write, stdin, stdout};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::context::Context;
use crate::failure::Failure;

/// Whether the name stands for standard input or output.
pub(crate) fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// The content of a file, or of standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    match is_standard(path) {
        true => read_stdin(),
        false => fs::read(path).map_err(|error| Failure::io(path, &error)),
    }
}

pub(crate) fn read_stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    stdin().lock().read_to_end(&mut bytes).map_err(|error| Failure::io("stdin".as_ref(), &error))?;
    Ok(bytes)
}

/// Refuses to mix an object with a JSON result, or to spill it on a terminal.
pub(crate) fn check_output(path: &Path, context: &Context) -> Result<(), Failure> {
    if !is_standard(path) {
        return Ok(());
    }
    if context.output.json {
        return Err(Failure::usage("stdout_taken", "with --json the object cannot go to stdout as well"));
    }
    if stdout().is_terminal() {
        return Err(Failure::usage("stdout_terminal", "an object is not written to a terminal"));
    }
    Ok(())
}

/// Refuses to write an object over the file it is made from.
pub(crate) fn check_apart(input: &Path, output: &Path) -> Result<(), Failure> {
    // Also by another name: a link, or a path that leads there.
    let file = |path: &Path| fs::metadata(path).ok().filter(fs::Metadata::is_file);
    let identity = |path: &Path| file(path).map(|it| (it.dev(), it.ino()));
    if is_standard(input)
        || is_standard(output)
        || identity(input).is_none_or(|it| Some(it) != identity(output))
    {
        return Ok(());
    }
    let message = format!("{} is compiled, and {} is the same file", input.display(), output.display());
    Err(Failure::usage("output_is_input", message).hint("name another file with -o OUT"))
}

/// Writes a file, or standard output for `-`. Readers of the file see the old content or the new, never a part.
pub(crate) fn write(path: &Path, bytes: &[u8], context: &Context) -> Result<(), Failure> {
    match is_standard(path) {
        true => context.output.bytes(bytes),
        false => replace(path, bytes, None).map_err(|error| Failure::io(path, &error)),
    }
}

/// Writes a file, all or nothing. A new one gets these permissions, else those of any new file.
pub(crate) fn replace(path: &Path, bytes: &[u8], permissions: Option<fs::Permissions>) -> io::Result<()> {
    // Renaming over a device such as /dev/null would replace it; renaming over a link would break it.
    let special = fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if special {
        return fs::write(path, bytes);
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Made as any new file is, with the permissions that the umask leaves. (`tempfile_in` would leave fewer, and
    // its errors name the temporary file, of which the user never heard.)
    let create = |path: &Path| fs::File::options().write(true).create_new(true).open(path);
    let mut file = tempfile::Builder::new().prefix(".objcache-").suffix(".tmp").make_in(folder, create)?;
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions)?;
    }
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
