//! Files that profilers look for by name, in directories that others may write to: never through a link, never into a
//! file that somebody else made.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Makes a file of our own that did not exist. One of the same name that we left behind earlier, which profilers would
/// take for this one's, is removed; one of somebody else stays, and is an error.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    match create_exclusively(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            check(&fs::symlink_metadata(path)?)?;
            fs::remove_file(path)?;
            create_exclusively(path)
        }
        result => result,
    }
}

/// Opens a file to append to, that others in this process may append to as well, or makes it. One that a dead process
/// with the same number left is made anew.
pub(super) fn append_or_create(path: &Path) -> io::Result<File> {
    let existing = OpenOptions::new().append(true).custom_flags(NO_FOLLOW).open(path);
    match existing {
        Ok(file) => {
            let metadata = file.metadata()?;
            check(&metadata)?;
            let is_older =
                process_start().is_some_and(|start| metadata.modified().is_ok_and(|time| time < start));
            if is_older { create_new(path) } else { Ok(file) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => create_exclusively(path),
        Err(error) => Err(error),
    }
}

const NO_FOLLOW: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

fn create_exclusively(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create_new(true).mode(0o600).custom_flags(NO_FOLLOW).open(path)
}

fn check(metadata: &fs::Metadata) -> io::Result<()> {
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw() && metadata.nlink() == 1;
    if metadata.is_file() && is_ours {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file of that name exists and is not ours"))
}

/// When this process began, to the second (proc(5): `btime`, and `starttime` in clock ticks since then).
fn process_start() -> Option<SystemTime> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let seconds = ticks / rustix::param::clock_ticks_per_second();
    UNIX_EPOCH.checked_add(Duration::from_secs(boot.checked_add(seconds)?))
}
