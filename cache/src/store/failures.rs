//! Compilations that failed because of what was compiled, with what the compiler said, for a while.
//!
//! One small file each in `failures/`, by its signature. Off unless a time to live is set. Integers are
//! little-endian: magic, when it failed, the signature, the diagnostics, and BLAKE3 over all that.

use std::io::{self, Read, Write};
use std::time::Duration;

use objcache_signature::Signature;
use rustix::fs::{AtFlags, statat};

use crate::clock::{microseconds, now_unix_us};
use crate::object::CompileFailure;
use crate::store::directory::{Directory, FAILURES, Temporary};

const MAGIC: [u8; 8] = *b"objcfal1";
const HEAD: usize = 8 + 8 + 32;
const DIGEST: usize = 32;
const LONGEST: u64 = (HEAD + CompileFailure::LONGEST + DIGEST) as u64;

/// So many are remembered at most; then the oldest quarter goes.
const KEPT: usize = 1024;

/// Bytes that a failure takes on the disk, at most.
pub(crate) const DISK_BYTES: u64 = LONGEST.next_multiple_of(4096);

fn name(signature: &Signature) -> String {
    format!("{FAILURES}/{signature}")
}

/// The failure of `signature`, if it is not older than `ttl`. Damage is as good as nothing.
pub(crate) fn read(
    directory: &Directory,
    signature: &Signature,
    ttl: Duration,
) -> io::Result<Option<CompileFailure>> {
    let Some(file) = directory.open_file(&name(signature))? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    Ok(decode(&bytes, signature).filter(|(at, _)| is_fresh(*at, ttl)).map(|(_, failure)| failure))
}

/// Not of the future either: the clock may have been set back.
fn is_fresh(at_unix_us: u64, ttl: Duration) -> bool {
    let now = now_unix_us();
    at_unix_us <= now && now - at_unix_us <= microseconds(ttl)
}

fn decode(bytes: &[u8], signature: &Signature) -> Option<(u64, CompileFailure)> {
    let (sealed, digest) = bytes.split_last_chunk::<DIGEST>()?;
    let (magic, rest) = sealed.split_first_chunk::<8>()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (of, diagnostics) = rest.split_first_chunk::<32>()?;
    let sound = *magic == MAGIC && of == signature.as_bytes() && blake3::hash(sealed) == *digest;
    let diagnostics = std::str::from_utf8(diagnostics).ok().filter(|_| sound)?;
    Some((u64::from_le_bytes(*at), CompileFailure::new(diagnostics)))
}

/// Remembers a failure.
pub(crate) fn write(
    directory: &Directory,
    signature: &Signature,
    failure: &CompileFailure,
) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEAD + failure.diagnostics().len() + DIGEST);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&now_unix_us().to_le_bytes());
    bytes.extend_from_slice(signature.as_bytes());
    bytes.extend_from_slice(failure.diagnostics().as_bytes());
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    directory.make_directory(FAILURES)?;
    bound(directory)?;
    let mut temporary = Temporary::create(directory)?;
    temporary.file.write_all(&bytes)?;
    Ok(temporary.rename_to(name(signature).as_bytes())?)
}

/// Forgets one: it compiled after all.
pub(crate) fn forget(directory: &Directory, signature: &Signature) -> io::Result<bool> {
    directory.remove_file(name(signature).as_bytes())
}

/// Removes those that are older than `ttl`.
pub(crate) fn expire(directory: &Directory, ttl: Duration) -> io::Result<()> {
    let oldest = (now_unix_us().saturating_sub(microseconds(ttl)) / 1_000_000) as i64;
    for (modified, name) in by_age(directory)? {
        if modified < oldest {
            directory.remove_file(name.as_bytes())?;
        }
    }
    Ok(())
}

fn bound(directory: &Directory) -> io::Result<()> {
    if directory.names_in(FAILURES)?.len() < KEPT {
        return Ok(());
    }
    for (_, name) in by_age(directory)?.into_iter().take(KEPT / 4) {
        directory.remove_file(name.as_bytes())?;
    }
    Ok(())
}

/// Their names, the oldest first, with when they were written, in seconds.
fn by_age(directory: &Directory) -> io::Result<Vec<(i64, String)>> {
    let name = |name: &std::ffi::OsString| format!("{FAILURES}/{}", name.to_string_lossy());
    let aged = |name: String| {
        let stat = statat(directory.root(), &name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_mtime, name))
    };
    let mut names: Vec<_> = directory.names_in(FAILURES)?.iter().map(name).filter_map(aged).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Signature = Signature::from_bytes([1; 32]);
    const HOUR: Duration = Duration::from_secs(3600);

    fn place() -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        (place, directory)
    }

    #[test]
    fn a_failure_comes_back_until_it_is_too_old_or_forgotten() {
        let (_place, directory) = place();
        let read = |ttl| read(&directory, &ONE, ttl).expect("read");
        assert_eq!(read(HOUR), None);
        let failure = CompileFailure::new("error: ä".repeat(9000));
        assert!(failure.diagnostics().len() <= CompileFailure::LONGEST);
        write(&directory, &ONE, &failure).expect("written");
        assert_eq!(read(HOUR), Some(failure));
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(read(Duration::from_millis(1)), None);
        assert!(forget(&directory, &ONE).expect("forgotten"));
        assert_eq!(read(HOUR), None);
    }

    #[test]
    fn damage_is_as_good_as_nothing() {
        let (_place, directory) = place();
        write(&directory, &ONE, &CompileFailure::new("error")).expect("written");
        let path = directory.path().join(name(&ONE));
        let sound = std::fs::read(&path).expect("there");
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << (at % 8);
            assert_eq!(decode(&bytes, &ONE), None, "flip at {at}");
            assert_eq!(decode(&sound[..at], &ONE), None, "cut at {at}");
        }
        assert_eq!(decode(&sound, &Signature::from_bytes([2; 32])), None, "under another name");
        std::fs::write(&path, vec![7; 3 * LONGEST as usize]).expect("written");
        assert_eq!(read(&directory, &ONE, HOUR).expect("read"), None);
    }

    #[test]
    fn so_many_are_kept_and_no_more() {
        let (_place, directory) = place();
        for number in 0..KEPT as u32 + 10 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            write(&directory, &Signature::from_bytes(bytes), &CompileFailure::new("")).expect("written");
        }
        let left = directory.names_in(FAILURES).expect("listed").len();
        assert!((KEPT / 2..=KEPT).contains(&left), "{left}");
        expire(&directory, HOUR).expect("looked");
        assert_eq!(directory.names_in(FAILURES).expect("listed").len(), left);
    }
}
