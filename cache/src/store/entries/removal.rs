//! How an entry loses its name: damaged ones are kept for a while in the quarantine, others are gone.

use std::io;

use objcache_signature::Signature;
use rustix::fs::{AtFlags, FileType, RenameFlags, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;

use super::{Damage, ENTRY_OVERHEAD};
use crate::store::directory::{
    Directory, EntryName, Identity, QUARANTINE, TEMPORARY, allocated, file_type, unique,
};

/// Damaged entries that are kept at most.
const QUARANTINE_FILES: usize = 32;

/// Takes a damaged entry out of the way, unless another is there by now. Returns whether it did. The oldest of
/// the quarantine go when it takes more than `max_bytes`.
pub(crate) fn quarantine(
    directory: &Directory,
    signature: &Signature,
    damage: &Damage,
    max_bytes: u64,
) -> io::Result<bool> {
    let name = EntryName::of(signature);
    let there = match statat(directory.root(), name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Identity::of(&stat),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if damage.identity.is_some_and(|damaged| damaged != there) {
        return Ok(false);
    }
    let taken = take_out(directory, &name, damage.identity.unwrap_or(there))?;
    bound_quarantine(directory, max_bytes)?;
    Ok(taken)
}

/// Takes the file that is `damaged` out of the way. A sound one that got its name at the last moment is given
/// back; look-ups in between miss.
fn take_out(directory: &Directory, name: &EntryName, damaged: Identity) -> io::Result<bool> {
    let Some(taken) = move_to_quarantine(directory, name)? else { return Ok(false) };
    let stat = statat(directory.root(), &taken, AtFlags::SYMLINK_NOFOLLOW);
    if stat.as_ref().map(Identity::of) == Ok(damaged) {
        return Ok(true);
    }
    let (root, flags) = (directory.root(), RenameFlags::NOREPLACE);
    // Where that does not work, or another has the name by now, it stays here: one more compilation.
    let _ = renameat_with(root, &taken, root, name.as_bytes(), flags);
    Ok(false)
}

/// Returns the new name; `None` when there is nothing any more.
pub(super) fn move_to_quarantine(directory: &Directory, name: &EntryName) -> io::Result<Option<String>> {
    let hex = String::from_utf8_lossy(name.as_bytes()).replace('/', "");
    let to = format!("{QUARANTINE}/{hex}-{}", unique());
    let rename = || renameat(directory.root(), name.as_bytes(), directory.root(), &to);
    match rename() {
        Err(Errno::NOENT | Errno::NOTDIR) => {
            directory.make_directory(QUARANTINE)?;
            match rename() {
                // Another was faster.
                Err(Errno::NOENT) => Ok(None),
                done => Ok(done.map(|()| Some(to))?),
            }
        }
        done => Ok(done.map(|()| Some(to))?),
    }
}

/// Removes the oldest of the quarantine until it is within its bounds.
fn bound_quarantine(directory: &Directory, max_bytes: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for name in directory.names_in(QUARANTINE)? {
        let name = format!("{QUARANTINE}/{}", name.to_string_lossy());
        if let Ok(stat) = statat(directory.root(), &name, AtFlags::SYMLINK_NOFOLLOW) {
            files.push((stat.st_ctime, name, stat));
        }
    }
    files.sort_by_key(|(changed, ..)| std::cmp::Reverse(*changed));
    let mut bytes = 0;
    for (index, (_, name, stat)) in files.iter().enumerate() {
        bytes += allocated(stat);
        if index >= QUARANTINE_FILES || bytes > max_bytes {
            let directory_flag = match file_type(stat) {
                // Only an empty one goes: what else somebody put there is theirs.
                FileType::Directory => AtFlags::REMOVEDIR,
                _ => AtFlags::empty(),
            };
            let _ = unlinkat(directory.root(), name, directory_flag);
        }
    }
    Ok(())
}

/// Removes an entry, and tells what it took, in bytes; `None` when there was none.
///
/// It loses its name first: what has the name by then is exactly what is removed and counted, whoever puts the
/// same again meanwhile.
pub(crate) fn remove(directory: &Directory, signature: &Signature) -> io::Result<Option<u64>> {
    remove_unless(directory, signature, || false)
}

/// The same; it gets its name back if it is to `stay`, which is asked when it has lost that.
pub(crate) fn remove_unless(
    directory: &Directory,
    signature: &Signature,
    stay: impl FnOnce() -> bool,
) -> io::Result<Option<u64>> {
    let name = EntryName::of(signature);
    let taken = format!("{TEMPORARY}/{}", unique());
    let rename = || renameat(directory.root(), name.as_bytes(), directory.root(), &taken);
    match rename() {
        Err(Errno::NOENT | Errno::NOTDIR) if exists(directory, &name) => {
            directory.make_directory(TEMPORARY)?;
            match rename() {
                Err(Errno::NOENT) => return Ok(None),
                renamed => renamed?,
            }
        }
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        renamed => renamed?,
    }
    if stay() {
        // Where another has the name by now, that one stays.
        let _ = renameat_with(
            directory.root(),
            &taken,
            directory.root(),
            name.as_bytes(),
            RenameFlags::NOREPLACE,
        );
        return Ok(None);
    }
    let stat = match statat(directory.root(), &taken, AtFlags::SYMLINK_NOFOLLOW) {
        // Swept by another.
        Err(Errno::NOENT) => return Ok(Some(0)),
        stat => stat?,
    };
    if file_type(&stat) == FileType::Directory {
        // It is not ours to empty.
        directory.make_directory(QUARANTINE)?;
        renameat(directory.root(), &taken, directory.root(), format!("{QUARANTINE}/{}", unique()))?;
        return Ok(Some(0));
    }
    directory.remove_file(taken.as_bytes())?;
    Ok(Some(allocated(&stat) + ENTRY_OVERHEAD))
}

fn exists(directory: &Directory, name: &EntryName) -> bool {
    statat(directory.root(), name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use objcache_signature::Provenance;

    use super::super::{Found, publish, quarantine_bytes};
    use super::*;
    use crate::buffer::Buffer;
    use crate::compression::{Codec, Compression};
    use crate::entry::{Encoded, Trailer};
    use crate::object::CompiledObject;
    use crate::trust::{Gate, Trust};

    fn read(directory: &Directory, signature: &Signature) -> io::Result<Found<(Buffer, Trailer)>> {
        super::super::read(directory, signature, &Gate::default())
    }

    const SIGNATURE: Signature = Signature::from_bytes([0x3c; 32]);

    fn put(directory: &Directory, object: &[u8]) {
        let compiled = CompiledObject {
            signature: SIGNATURE,
            object,
            key_document: b"",
            provenance: &Provenance::default(),
            namespace: "",
            compile_time: Duration::ZERO,
            cpu_features: &[],
        };
        let trust = Trust::default();
        let entry = Encoded::new(&compiled, 0, Compression::Always(Codec::Plain), &trust).expect("small");
        let published = publish(directory, &SIGNATURE, &entry, false, || true).expect("published");
        assert!(published.is_some());
    }

    fn damage(directory: &Directory) -> Damage {
        put(directory, b"first");
        let name = EntryName::of(&SIGNATURE);
        let path = directory.path().join(std::str::from_utf8(name.as_bytes()).expect("hexadecimal"));
        std::fs::write(path, b"damaged").expect("written");
        let Found::Damaged(damage) = read(directory, &SIGNATURE).expect("read") else { panic!("damaged") };
        damage
    }

    #[test]
    fn an_entry_healed_meanwhile_is_not_put_into_quarantine() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        // More than once, because the file system may give the new file the number of the old one.
        for _ in 0..20 {
            let damage = damage(&directory);
            remove(&directory, &SIGNATURE).expect("removed");
            put(&directory, b"second");
            assert!(!quarantine(&directory, &SIGNATURE, &damage, u64::MAX).expect("looked"));
            assert!(matches!(read(&directory, &SIGNATURE), Ok(Found::Whole(..))));
        }
    }

    #[test]
    fn an_entry_healed_at_the_last_moment_is_given_back() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        let damaged = damage(&directory).identity.expect("known");
        put(&directory, b"second");
        // What `quarantine` does after it has looked.
        assert!(!take_out(&directory, &EntryName::of(&SIGNATURE), damaged).expect("looked"));
        assert!(matches!(read(&directory, &SIGNATURE), Ok(Found::Whole(..))));
        assert!(directory.names_in(QUARANTINE).expect("lists").is_empty());
    }

    #[test]
    fn the_quarantine_is_bounded_in_bytes_too() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        for _ in 0..5 {
            put(&directory, &[7; 100_000]);
            move_to_quarantine(&directory, &EntryName::of(&SIGNATURE)).expect("moved");
        }
        bound_quarantine(&directory, 250_000).expect("bounded");
        assert_eq!(directory.names_in(QUARANTINE).expect("lists").len(), 2);
        assert!(quarantine_bytes(&directory).expect("measured") <= 250_000);
    }
}
