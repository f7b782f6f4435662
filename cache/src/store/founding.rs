//! Whether a directory may become a store. It may hold nothing of anybody's: a store sweeps, moves and overwrites what
//! lies under the names that it uses, and a setting that leads to somebody's home must not cost them their files.

use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};

use crate::store::directory::{
    Directory, LOCKS, PINS, QUARANTINE, TAG_FILE, TAG_TEXT, TEMPORARY, VERSION_FILE, file_type,
};

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
        let number = text.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(b"\n"));
        let number = number.filter(|digits| digits.iter().all(u8::is_ascii_digit));
        match number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok()) {
            Some(FORMAT) => Self::Ours,
            None | Some(0) => Self::Unknown,
            Some(_) => Self::Later,
        }
    }
}

/// Whether a directory without a sound version file is a store of ours even so, or empty, or what a process left that
/// died while it made one.
pub(crate) fn may_become_a_store(directory: &Directory) -> io::Result<bool> {
    Ok(has_our_tag(directory)? || is_begun(directory)?)
}

/// A power cut may leave the tag cut short, or zeroed.
fn has_our_tag(directory: &Directory) -> io::Result<bool> {
    let Ok(Some(file)) = directory.open_file(TAG_FILE) else { return Ok(false) };
    let mut text = [0; TAG_TEXT.len() + 1];
    let length = file.read_at(&mut text, 0)?;
    let text = &text[..length];
    Ok(TAG_TEXT.as_bytes().starts_with(text) || text.iter().all(|byte| *byte == 0))
}

/// No more is there than what is made before the tag is.
fn is_begun(directory: &Directory) -> io::Result<bool> {
    for (name, kind) in entries(directory, ".")? {
        let is_ours = match name.as_str() {
            TEMPORARY => kind == FileType::Directory && holds_temporaries(directory)?,
            LOCKS | PINS | QUARANTINE => kind == FileType::Directory && entries(directory, &name)?.is_empty(),
            VERSION_FILE => true,
            // A file system of its own, or a folder that is kept in a repository.
            "lost+found" | ".gitignore" | ".gitkeep" => true,
            _ => false,
        };
        if !is_ours {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds_temporaries(directory: &Directory) -> io::Result<bool> {
    let is_temporary = |(name, kind): &(String, FileType)| {
        let parts: Vec<&str> = name.split(['-', '+']).collect();
        *kind == FileType::RegularFile
            && (3..=4).contains(&parts.len())
            && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|it| it.is_ascii_hexdigit()))
    };
    Ok(entries(directory, TEMPORARY)?.iter().all(is_temporary))
}

fn entries(directory: &Directory, name: &str) -> io::Result<Vec<(String, FileType)>> {
    let flags = OFlags::CLOEXEC | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let folder = openat(directory.root(), name, flags, Mode::empty())?;
    let mut found = Vec::new();
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| file_type(&stat))?;
        found.push((name.to_string_lossy().into_owned(), kind));
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
        assert_eq!(Format::of(b"objcache store 99999999999\n"), Format::Unknown);
    }
}
