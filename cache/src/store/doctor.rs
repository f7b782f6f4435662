//! Looking for what keeps a store from working as well as it could, and saying what to do about it.
//!
//! A store that is in trouble does less and says so once. This is for who wants to know beforehand, or why. What is *in* the
//! store is looked over by [`Store::fsck`].

use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, StatVfs, StatVfsMountFlags, flock, statvfs};

use crate::clock::{microseconds, now_unix_us};
use crate::error::{CacheError, Reason};
use crate::store::directory::{Directory, JOURNAL, KEEPER, QUARANTINE, TEMPORARY};
use crate::store::keeper::{self, Keeper};
use crate::store::options::{SMALLEST_MAX_SIZE, StoreOptions};
use crate::store::parents;
use crate::store::trace::Tracer;
use crate::store::{Store, entries};

/// Less free room than this is as good as none, in bytes.
const NO_ROOM: u64 = 16 << 20;
/// Less than this part of the disk free: nearly full.
const SCARCE: u64 = 20;
/// A store that is smaller holds a few objects and no more, in bytes.
const SMALL: u64 = 64 << 20;
/// The head of an ELF object: no object is smaller, in bytes.
const SMALLEST_OBJECT: u64 = 64;
/// Hardly anything takes longer to compile.
const LONG_COMPILATION: Duration = Duration::from_secs(3600);
/// No clock that is right shows an earlier time: µs since 1970-01-01 UTC, of 2026-01-01.
const EARLIEST: u64 = 1_767_225_600_000_000;
/// A clock may be set right by so much.
const TOLERANCE: Duration = Duration::from_secs(24 * 3600);

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A stable name in snake case, for machines: of what was found, or of what was looked at and is in order.
    pub code: &'static str,
    /// How it is.
    pub state: CheckState,
    /// What was found, in words.
    pub words: String,
    /// What to do about it; empty when there is nothing to do.
    pub advice: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckState {
    /// As it should be.
    Fine,
    /// Worth knowing, and perhaps as it was meant.
    Note,
    /// The store works, but not as well as it could.
    Warning,
    /// The store does not work.
    Broken,
}

impl Check {
    /// Something that is as it should be.
    pub fn fine(code: &'static str, words: impl Into<String>) -> Self {
        Self { code, state: CheckState::Fine, words: words.into(), advice: String::new() }
    }

    /// Something that was found.
    pub fn found(
        code: &'static str,
        state: CheckState,
        words: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { code, state, words: words.into(), advice: advice.into() }
    }
}

/// Looks at everything that a store with these options depends on. The directory is made where it is missing, as any use of
/// the store would do.
pub fn examine(options: &StoreOptions) -> Vec<Check> {
    let mut checks = switches(options);
    checks.extend(limits(options));
    checks.extend(traced(options));
    checks.extend(clock(now_unix_us()));
    if let Some(path) = &options.directory {
        checks.extend(place(path));
    }
    // Looked at also when others do without it.
    let options = StoreOptions { disabled: false, ..options.clone() };
    match Store::open(options) {
        Ok(store) => checks.extend(opened(&store)),
        Err(error) => checks.push(refused(&error)),
    }
    checks
}

fn warning(code: &'static str, words: impl Into<String>, advice: impl Into<String>) -> Check {
    Check::found(code, CheckState::Warning, words, advice)
}

/// What was switched off on purpose, perhaps by somebody else.
fn switches(options: &StoreOptions) -> Vec<Check> {
    let on = |is_on: bool, code, words: &str, setting: &str| {
        let advice = format!("if that is not meant, find `{setting}` with objcache config list --origin");
        is_on.then(|| warning(code, words, advice))
    };
    let switches = [
        on(options.disabled, "disabled", "the cache is switched off", "disable"),
        on(options.read_only, "read_only_by_choice", "the cache takes nothing in", "read_only"),
        on(options.strict, "strict", "trouble with the cache is an error: that is for tests", "strict"),
    ];
    switches.into_iter().flatten().collect()
}

fn limits(options: &StoreOptions) -> Vec<Check> {
    let mut checks = Vec::new();
    let StoreOptions { max_size, max_age, max_entries, max_object_size, min_compile_time, .. } = options;
    if *max_size < SMALL {
        let words = match *max_size < SMALLEST_MAX_SIZE {
            true => format!(
                "max_size is {max_size} bytes; {} MiB is the least, and what counts: that is a few objects",
                SMALLEST_MAX_SIZE >> 20
            ),
            false => format!("the cache may take {max_size} bytes: that is a few objects"),
        };
        checks.push(warning("small_max_size", words, "set max_size to some gigabytes"));
    }
    if max_age.is_some_and(|age| age < Duration::from_secs(3600)) {
        checks.push(warning(
            "short_max_age",
            "entries go when they are unused for less than an hour",
            "set max_age to some weeks",
        ));
    }
    if *max_entries == Some(0) || max_object_size.is_some_and(|most| most < SMALLEST_OBJECT) {
        checks.push(warning(
            "keeps_nothing",
            "the limits let the cache keep nothing",
            "raise max_entries and max_object_size",
        ));
    }
    if *min_compile_time > LONG_COMPILATION {
        let words = format!(
            "only what compiles for {} hours or longer is kept: that is hardly anything",
            min_compile_time.as_secs() / 3600
        );
        checks.push(warning("long_min_compile_ms", words, "set min_compile_ms to some milliseconds"));
    }
    checks
}

/// The trace that the options name.
fn traced(options: &StoreOptions) -> Option<Check> {
    let path = options.trace.as_ref()?;
    let error = Tracer::default().also_to(path).err()?;
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    let words = format!("no trace can be written to {}{cause}", path.display());
    Some(warning("trace_unusable", words, "name a file of your own in a folder that is there (trace)"))
}

fn clock(now_unix_us: u64) -> Option<Check> {
    let words = "the clock shows a time long ago: what was used last cannot be told";
    (now_unix_us < EARLIEST).then(|| warning("clock_wrong", words, "set the clock"))
}

/// The path to the directory, before it is opened.
fn place(path: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Ok(target) = fs::read_link(path) {
        let words = format!("{} is a link to {}", path.display(), target.display());
        checks.push(match fs::metadata(path) {
            Ok(_) => Check::found("linked", CheckState::Note, words, "fine, as long as that place is meant"),
            Err(error) => {
                let words = format!("{words}, where nothing is ({error})");
                Check::found(
                    "dangling_link",
                    CheckState::Broken,
                    words,
                    "make that directory, or remove the link",
                )
            }
        });
    }
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    checks.extend(real.ancestors().skip(1).find_map(open_to_others));
    checks
}

/// Whoever may rename things in a folder above may put another directory in the place of ours.
fn open_to_others(folder: &Path) -> Option<Check> {
    const STICKY: u32 = 0o1000;
    const OTHERS_WRITE: u32 = 0o002;
    let metadata = fs::metadata(folder).ok().filter(fs::Metadata::is_dir)?;
    let (mode, me) = (metadata.mode(), rustix::process::geteuid().as_raw());
    let is_open = |mode| parents::is_open_to_others(mode, metadata.uid(), metadata.gid(), me);
    let whom = if is_open(mode & !OTHERS_WRITE) { "go" } else { "o" };
    let words = format!("others may rename what is in {}, which is above the cache", folder.display());
    let advice = format!("chmod {whom}-w {}", folder.display());
    (mode & STICKY == 0 && is_open(mode)).then(|| warning("insecure_parent", words, advice))
}

/// Why a store does not open, and what to do.
fn refused(error: &CacheError) -> Check {
    let advice = match error.reason() {
        Reason::NoHome => "set HOME, XDG_CACHE_HOME or OBJCACHE_DIR",
        Reason::SecureExecution => "run it as yourself: a program with another user's rights has no cache",
        Reason::NotAStore => "name a directory that is empty, or that is made for the cache (OBJCACHE_DIR)",
        Reason::NotADirectory => "move away what is there, or name another directory",
        Reason::ForeignOwner => "name a directory of your own (OBJCACHE_DIR); a cache is for one user",
        Reason::InsecureMode => "chmod 700, after making sure that nobody put anything in",
        Reason::FutureFormat => {
            "a later release of objcache made it: use that one, or name another directory, or remove it"
        }
        Reason::NoDirectory => "make it, or the folder it is to be in, or name another (OBJCACHE_DIR)",
        Reason::ReadOnly => "give yourself the right to it: chmod 700, chown",
        Reason::DiskFull => "make room on the disk, or ask for a larger quota",
        Reason::OutOfResources => "raise the limit of open files (ulimit -n)",
        Reason::InsecureParent => {
            "a directory above it belongs to another user, or others may write to it: take that from them, or name a \
             directory elsewhere (OBJCACHE_DIR)"
        }
        Reason::KeyUnusable | Reason::BadSetting => "mend what the settings name (objcache config list)",
        _ => "see that the disk is in order",
    };
    Check::found(error.reason().as_str(), CheckState::Broken, error.to_string(), advice)
}

/// What only shows in a store that opens.
fn opened(store: &Store) -> Vec<Check> {
    let Some(directory) = store.shared.readable() else { return Vec::new() };
    let path = directory.path();
    let mut checks =
        vec![Check::fine("directory", format!("{} is yours, and {}", path.display(), closed(path)))];
    checks.extend(writing(store, directory));
    checks.extend(room(store, path));
    checks.extend(network(store));
    checks.extend(locks(directory));
    checks.extend(later_than_now(directory));
    checks.push(catalogue(store));
    checks.push(quarantine(directory));
    checks.extend(layers(store, path));
    checks
}

/// What others can do in the directory. One that they can write to does not open.
fn closed(path: &Path) -> &'static str {
    const OTHERS: u32 = 0o077;
    match fs::metadata(path) {
        Ok(metadata) if metadata.mode() & OTHERS == 0 => "closed to others",
        Ok(_) | Err(_) => "others cannot write to it",
    }
}

fn writing(store: &Store, directory: &Directory) -> Option<Check> {
    let path = directory.path();
    let read_only =
        |words: String, advice: String| Some(Check::found("read_only", CheckState::Broken, words, advice));
    let mount = statvfs(path).map(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY)).unwrap_or(false);
    if mount {
        let words =
            format!("{} is on a file system that is mounted read-only: nothing is kept", path.display());
        return read_only(words, "name a directory that can be written (OBJCACHE_DIR)".to_owned());
    }
    if store.degraded() == Some(Reason::ReadOnly) {
        let words = format!("{} cannot be written: nothing is kept", path.display());
        return read_only(words, format!("chmod u+rwx {}", path.display()));
    }
    // Rights may be there and room not.
    let written = store.shared.writable().map(|directory| {
        let mut file = crate::store::directory::Temporary::create(directory)?;
        io::Write::write_all(&mut file.file, &[0; 8192])
    });
    match written {
        Some(Err(error)) => {
            let reason = Reason::of(&error);
            if statvfs(path).is_ok_and(|disk| judge_inodes(&disk, path).is_some()) {
                // That is what is wrong, and told by whoever looks at the disk.
                return None;
            }
            let words = format!("a file in {} cannot be written: {error}", path.join(TEMPORARY).display());
            let advice = refused(&CacheError::new(reason, "")).advice;
            Some(Check::found(reason.as_str(), CheckState::Broken, words, advice))
        }
        Some(Ok(())) | None => None,
    }
}

fn room(store: &Store, path: &Path) -> Option<Check> {
    let disk = statvfs(path).ok()?;
    if let Some(check) = judge_inodes(&disk, path) {
        return Some(check);
    }
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    let used = store.disk_usage().map(|usage| usage.total()).unwrap_or_default();
    Some(judge_room(bytes(disk.f_bavail), bytes(disk.f_blocks), used, store.options().max_size))
}

fn network(store: &Store) -> Option<Check> {
    let name = store.network_file_system()?;
    let words =
        format!("the cache is on a network file system ({name}): no catalogue is kept, and hits are slow");
    Some(warning(
        "network_file_system",
        words,
        "name a local directory (OBJCACHE_DIR); share what you want to share as a pack",
    ))
}

/// A file system may have room and no inodes for new files. Some make inodes as they go, and count none.
fn judge_inodes(disk: &StatVfs, path: &Path) -> Option<Check> {
    let words = format!("the file system of {} has no inodes left: no file can be made", path.display());
    let advice = "remove files on it, or name a directory elsewhere (OBJCACHE_DIR)";
    let is_out = disk.f_files > 0 && disk.f_favail == 0;
    is_out.then(|| Check::found("no_inodes", CheckState::Broken, words, advice))
}

/// `used` is what the store takes already. All in bytes.
fn judge_room(free: u64, size: u64, used: u64, max_size: u64) -> Check {
    let advice = "make room, or set a smaller max_size";
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    if free < NO_ROOM {
        let words = format!("the disk is full: {} are free", mib(free));
        return Check::found("disk_full", CheckState::Broken, words, advice);
    }
    if free < size / SCARCE {
        return warning(
            "disk_nearly_full",
            format!("the disk is nearly full: {} are free", mib(free)),
            advice,
        );
    }
    let wanted = max_size.saturating_sub(used);
    if wanted > free {
        let words = format!("the cache may take {} more, and the disk has {}", mib(wanted), mib(free));
        return warning("max_size_beyond_disk", words, "set a max_size that fits");
    }
    Check::fine("room", format!("the disk has room: {} are free", mib(free)))
}

fn locks(directory: &Directory) -> Option<Check> {
    let file = directory.open_file(KEEPER).ok().flatten()?;
    let tried = flock(&file, FlockOperation::NonBlockingLockShared);
    let works = matches!(tried, Ok(()) | Err(rustix::io::Errno::WOULDBLOCK));
    let words = "the file system has no locks: several processes may compile the same";
    Some(match works {
        true => Check::fine("locks", "the file system has locks"),
        false => warning("locks_unsupported", words, "keep the cache on a local disk (OBJCACHE_DIR)"),
    })
}

/// What was written later than now shows that the clock was set back.
fn later_than_now(directory: &Directory) -> Option<Check> {
    let limit = now_unix_us().saturating_add(microseconds(TOLERANCE));
    let written = [JOURNAL, KEEPER, "VERSION"].into_iter().filter_map(|name| {
        let modified = directory.open_file(name).ok()??.metadata().ok()?.mtime();
        Some((name, u64::try_from(modified).ok()?.saturating_mul(1_000_000)))
    });
    let (name, _) = written.into_iter().find(|(_, modified)| *modified > limit)?;
    let words = format!("{name} was written later than now: the clock is, or was, wrong");
    Some(warning(
        "clock_set_back",
        words,
        "set the clock; objcache clear, if entries go that were used lately",
    ))
}

fn catalogue(store: &Store) -> Check {
    if store.network_file_system().is_some() {
        return Check::fine("catalogue", "on a network file system no catalogue is kept");
    }
    let Some(directory) = store.shared.writable() else {
        return Check::fine("catalogue", "the catalogue is not looked at in a cache that is only read");
    };
    let Some(mut keeper) = Keeper::take(&store.shared, directory, keeper::WAIT) else {
        let advice = "see which process holds the file `keeper` in the cache (fuser), and whether it hangs";
        return warning("catalogue_busy", "the catalogue is in use by another process all the time", advice);
    };
    match keeper.only_open_catalogue() {
        Some(false) => Check::fine("catalogue", "the catalogue opens"),
        Some(true) => {
            let words = "the catalogue was damaged, and is begun anew: statistics are lost, objects are not";
            warning("catalogue_rebuilt", words, "nothing, once; if it happens again, look after the disk")
        }
        None => {
            let words = "the catalogue does not open: uses are not remembered";
            let advice = format!("remove {}", directory.path().join("catalogue").display());
            warning("catalogue_unusable", words, advice)
        }
    }
}

fn quarantine(directory: &Directory) -> Check {
    let place: PathBuf = directory.path().join(QUARANTINE);
    let files = match directory.names_in(QUARANTINE) {
        Ok(names) => names.len(),
        Err(error) => {
            let words = format!("{} cannot be read: {error}", place.display());
            return warning("quarantine_unusable", words, format!("remove {}", place.display()));
        }
    };
    if fs::symlink_metadata(&place).is_ok_and(|metadata| !metadata.is_dir()) {
        let words = format!("{} is no directory", place.display());
        return warning("quarantine_unusable", words, format!("remove {}", place.display()));
    }
    match files {
        0 => Check::fine("quarantine", "no entry was found damaged"),
        _ => {
            let bytes = entries::quarantine_bytes(directory).unwrap_or_default();
            let words =
                format!("{files} damaged entries were taken out ({bytes} bytes in {})", place.display());
            let advice = "remove them after a look; if there are ever more, look after disk and memory";
            warning("quarantined", words, advice)
        }
    }
}

fn layers(store: &Store, own: &Path) -> Vec<Check> {
    let layers = store.layers().unwrap_or_default();
    let place = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
    let own = place(own);
    let check = |layer: crate::store::LayerInfo| match layer.kind {
        Ok(_) if own.is_some() && place(&layer.path) == own => {
            let words =
                format!("layer {} is the cache itself: each miss is looked up twice", layer.path.display());
            let advice = match layer.mounted {
                true => "objcache pack unmount",
                false => "take it out of `layers`",
            };
            warning("layer_is_the_cache", words, advice)
        }
        Ok(_) => Check::fine("layer", format!("layer {} answers", layer.path.display())),
        Err(error) => {
            let advice = match layer.mounted {
                true => "objcache pack unmount, or put it back",
                false => "put it back, or take it out of `layers`",
            };
            warning("layer_unusable", format!("layer {}: {error}", layer.path.display()), advice)
        }
    };
    layers.into_iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(options: &StoreOptions) -> Vec<&'static str> {
        let checks = examine(options).into_iter().filter(|check| check.state > CheckState::Fine);
        checks
            .map(|check| check.code)
            .filter(|code| !["max_size_beyond_disk", "disk_nearly_full"].contains(code))
            .collect()
    }

    #[test]
    fn a_fresh_store_is_fine() {
        let place = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(codes(&StoreOptions::at(place.path().join("store"))), [""; 0]);
    }

    #[test]
    fn room_is_judged_by_what_is_free_and_what_is_wanted() {
        const GIB: u64 = 1 << 30;
        assert_eq!(judge_room(100 * GIB, 200 * GIB, 0, 10 * GIB).code, "room");
        assert_eq!(judge_room(NO_ROOM - 1, 200 * GIB, 0, 10 * GIB).code, "disk_full");
        assert_eq!(judge_room(9 * GIB, 200 * GIB, 0, GIB).code, "disk_nearly_full");
        assert_eq!(judge_room(20 * GIB, 200 * GIB, 0, 30 * GIB).code, "max_size_beyond_disk");
        assert_eq!(judge_room(20 * GIB, 200 * GIB, 11 * GIB, 30 * GIB).code, "room");
        assert_eq!(judge_room(0, 0, u64::MAX, 0).code, "disk_full");
    }

    #[test]
    fn limits_that_keep_nothing_are_found() {
        let mut options = StoreOptions::at("/d");
        assert_eq!(limits(&options), []);
        options.max_size = SMALL - 1;
        options.max_age = Some(Duration::from_secs(5));
        options.max_entries = Some(0);
        options.min_compile_time = LONG_COMPILATION + Duration::from_secs(1);
        let found: Vec<_> = limits(&options).into_iter().map(|check| check.code).collect();
        assert_eq!(found, ["small_max_size", "short_max_age", "keeps_nothing", "long_min_compile_ms"]);
        assert!(!limits(&options)[0].words.contains("the least"));
        options.max_size = SMALLEST_MAX_SIZE - 1;
        assert!(limits(&options)[0].words.contains("4 MiB is the least"));
        let (mut small, mut enough) = (StoreOptions::at("/d"), StoreOptions::at("/d"));
        (small.max_object_size, enough.max_object_size) = (Some(SMALLEST_OBJECT - 1), Some(SMALLEST_OBJECT));
        assert_eq!((limits(&small).len(), limits(&enough).len()), (1, 0));
    }

    #[test]
    fn a_file_system_without_inodes_is_found() {
        let mut disk = statvfs("/").expect("there");
        (disk.f_files, disk.f_favail) = (100, 0);
        assert_eq!(judge_inodes(&disk, "/".as_ref()).map(|check| check.code), Some("no_inodes"));
        (disk.f_files, disk.f_favail) = (100, 1);
        assert_eq!(judge_inodes(&disk, "/".as_ref()), None);
        // It makes them as it goes.
        (disk.f_files, disk.f_favail) = (0, 0);
        assert_eq!(judge_inodes(&disk, "/".as_ref()), None);
    }

    #[test]
    fn a_clock_that_was_never_set_is_found() {
        assert_eq!(clock(0).map(|check| check.code), Some("clock_wrong"));
        assert_eq!(clock(EARLIEST), None);
        assert_eq!(clock(now_unix_us()), None);
    }

    #[test]
    fn every_reason_not_to_open_has_advice() {
        for reason in Reason::ALL {
            assert!(!refused(&CacheError::new(*reason, "store")).advice.is_empty(), "{reason:?}");
        }
    }
}
