//! Whether a directory may become a store. It may hold nothing of anybody's: a store sweeps, moves and overwrites what
//! lies under the names that it uses, and a setting that leads to somebody's home must not cost them their files.

use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use crate::store::directory::{
    CATALOGUE, Directory, FAILURES, JOURNAL, KEEPER, LAYERS, LOCKS, MISSES, PINS, PLANNED, QUARANTINE,
    RUNNING, TAG_FILE, TAG_TEXT, TEMPORARY, TRACE, TRACE_ENDED, VERSION_FILE, VICTIMS, file_type,
    is_in_the_way, is_unique,
};
use crate::store::running::is_mark;

/// What a version file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Ours,
    Later,
    /// Nothing of any release: there is none, a power cut left it cut short or zeroed, or it is damaged.
    Unknown,
}

const FORMAT: u32 = 1;
const BEFORE: &[u8] = b"objcache store ";

pub(crate) fn version_text() -> String {
    format!("{}{FORMAT}\n", String::from_utf8_lossy(BEFORE))
}

impl Format {
    pub(crate) fn of(text: &[u8]) -> Self {
        if text == version_text().as_bytes() {
            return Self::Ours;
        }
        // However later ones write it: a number behind our words that is not ours.
        let Some(rest) = text.strip_prefix(BEFORE) else { return Self::Unknown };
        let rest = rest.strip_prefix(b"v").unwrap_or(rest);
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        match rest.get(..digits) {
            None | Some(b"" | b"0" | b"1") => Self::Unknown,
            Some(_) => Self::Later,
        }
    }
}

/// Whether a directory without a sound version file is a store of ours even so, or empty, or what a process left that
/// died while it made one. A power cut may have taken any of its files, those that say so too: then all that is there has to
/// look like ours.
pub(crate) fn may_become_a_store(directory: &Directory) -> io::Result<bool> {
    // Others may be making the same store meanwhile. It is tagged before it holds what only a store's users make.
    Ok(has_our_tag(directory)? || holds_only_ours(directory)? || has_our_tag(directory)?)
}

fn holds_only_ours(directory: &Directory) -> io::Result<bool> {
    for (name, kind) in entries(directory, ".")? {
        let is_ours = match kind {
            FileType::Directory => is_folder_of_ours(directory, &name)?,
            FileType::RegularFile => is_file_of_ours(directory, &name)?,
            _ => false,
        };
        if !is_ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The beginning of the tag that is any cache's, and a little more than that.
const STANDARD_TAG: usize = 60;

/// A power cut may leave the tag cut short, but not to what other programs write.
fn has_our_tag(directory: &Directory) -> io::Result<bool> {
    const LONGER: usize = TAG_TEXT.len() + 1;
    Ok(match beginning::<LONGER>(directory, TAG_FILE)? {
        Beginning::Text(text) => TAG_TEXT.as_bytes().starts_with(&text) && text.len() > STANDARD_TAG,
        Beginning::Gone | Beginning::NotOurs => false,
    })
}

fn is_folder_of_ours(directory: &Directory, name: &str) -> io::Result<bool> {
    let is_made_up: fn(&str) -> bool = match name {
        TEMPORARY => |name| is_unique(name.split_once(PLANNED).map_or(name, |(name, _)| name)),
        LOCKS | PINS | FAILURES => |name| is_hex(name, 64) || name == LAYERS,
        RUNNING => is_mark,
        // Under the name that it had.
        QUARANTINE => |name| is_unique(name) || last_three_parts(name).is_some_and(is_unique),
        CATALOGUE | "catalogue.damaged" => {
            |name| matches!(name, "conf" | "db" | "blobs") || name.starts_with("snap.")
        }
        // A file system of its own.
        "lost+found" => return Ok(true),
        fan if is_hex(fan, 2) => |name| is_hex(name, 62),
        _ => return Ok(false),
    };
    Ok(entries(directory, name)?.iter().all(|(name, _)| is_made_up(name)))
}

fn is_file_of_ours(directory: &Directory, name: &str) -> io::Result<bool> {
    let is_likely: fn(&[u8]) -> bool = match name {
        JOURNAL | "journal.folding" | MISSES | VERSION_FILE => |text| text.starts_with(b"objc"),
        KEEPER => |_| false,
        LAYERS => |text| text.starts_with(b"/"),
        TRACE | TRACE_ENDED => |text| text.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'\n'),
        // Numbers; and what was no tag of ours a moment ago.
        VICTIMS | TAG_FILE => |_| true,
        // A folder that is kept in a repository.
        ".gitignore" | ".gitkeep" => |_| true,
        _ => return Ok(false),
    };
    Ok(match beginning::<8>(directory, name)? {
        // Nothing is lost with what is empty.
        Beginning::Text(text) => is_zeroed(&text) || is_likely(&text),
        Beginning::Gone => true,
        Beginning::NotOurs => false,
    })
}

/// What comes behind what [`unique`](super::directory::unique) names are put behind.
fn last_three_parts(name: &str) -> Option<&str> {
    let (at, _) = name.rmatch_indices('-').nth(2)?;
    name.get(at + 1..)
}

fn is_hex(name: &str, length: usize) -> bool {
    name.len() == length && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_zeroed(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte == 0)
}

/// The first bytes of a file, or why there are none to judge by.
enum Beginning {
    Text(Vec<u8>),
    Gone,
    NotOurs,
}

fn beginning<const BYTES: usize>(directory: &Directory, name: &str) -> io::Result<Beginning> {
    let file = match directory.open_file(name) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(Beginning::Gone),
        Err(error) if is_in_the_way(&error) || error.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(Beginning::NotOurs);
        }
        Err(error) => return Err(error),
    };
    let mut text = vec![0; BYTES];
    let length = file.read_at(&mut text, 0)?;
    text.truncate(length);
    Ok(Beginning::Text(text))
}

/// What is there and is not gone by the time that it is looked at.
fn entries(directory: &Directory, name: &str) -> io::Result<Vec<(String, FileType)>> {
    let flags = OFlags::CLOEXEC | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let folder = match openat(directory.root(), name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut found = Vec::new();
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            stat => found.push((name.to_string_lossy().into_owned(), file_type(&stat?))),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_is_another_format() {
        assert_eq!(Format::of(version_text().as_bytes()), Format::Ours);
        assert_eq!(Format::of(b"objcache store 2\n"), Format::Later);
        assert_eq!(Format::of(b"objcache store 17\n"), Format::Later);
        let text = version_text();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone().into_bytes();
                flipped[at] ^= 1 << bit;
                let is_number = at + 2 == text.len() && matches!(flipped[at], b'2'..=b'9');
                let expected = if is_number { Format::Later } else { Format::Unknown };
                assert_eq!(Format::of(&flipped), expected, "byte {at}, bit {bit}");
            }
            assert_eq!(Format::of(&text.as_bytes()[..at]), Format::Unknown);
        }
        assert_eq!(Format::of(b"objcache store +2\n"), Format::Unknown);
        for later in ["2", "v2\n", "2.0\n", "99999999999\n"] {
            assert_eq!(Format::of(format!("objcache store {later}").as_bytes()), Format::Later, "{later}");
        }
    }
}
