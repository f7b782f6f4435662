//! Looking over a whole store: everything in its directory is either what it should be or a [`Finding`].
//!
//! Nothing here is needed for a store to work. What dead processes left is swept by the next that writes, what
//! is damaged is a miss and is healed, a catalogue that cannot be opened is begun anew. This is for whoever
//! wants to know.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use objcache_signature::Signature;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, Stat, chmodat, flock, statat};
use rustix::io::Errno;

use crate::admin::Progress;
use crate::error::{CacheError, Reason};
use crate::store::administration::failed;
use crate::store::directory::{
    CATALOGUE, Directory, EntryName, LOCKS, QUARANTINE, RUNNING, TEMPORARY, file_type, is_fan,
    is_name_of_ours,
};
use crate::store::entries::{self, Found};
use crate::store::journal::{self, FOLDING, Summary};
use crate::store::keeper::{self, Keeper};
use crate::store::recorder::Extent;
use crate::store::room::Measurement;
use crate::store::{Shared, Store, StoreOptions, running, tidy};

/// What is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// A file that a process which is dead by now was writing.
    OrphanedTemporary,
    /// The lock file of a process that is dead by now. It keeps nobody out.
    StaleLock,
    /// Something that no store makes. It is left alone, whatever is asked for.
    ForeignFile,
    /// Others may write to it.
    WrongMode,
    /// It belongs to another user.
    WrongOwner,
    /// An entry that would be a miss, and why.
    DamagedEntry(Reason),
    /// A sound entry that would be a miss, because nobody who is believed vouches for it. It is left alone: others
    /// may believe it.
    NotVouchedFor(Reason),
    /// Events or the head of the journal cannot be read; statistics are lost, objects are not.
    DamagedJournal,
    /// Left by a process that died while it ran an entry's code. After some more the entry is compiled afresh.
    UnfinishedRun,
    /// A keeper died while it folded the journal in. The next one folds it in again.
    UnfinishedFold,
    /// The catalogue could not be opened or read, and was begun anew.
    DamagedCatalogue,
    /// An entry that neither catalogue nor journal knows of: a process that lives has not noted it yet, or one died
    /// before it could. It is served all the same. A [note](Self::is_note).
    Uncatalogued,
    /// A record in the catalogue of an entry that is gone or was replaced, likewise. A [note](Self::is_note).
    StaleRecord,
}

impl Fault {
    /// A stable name in snake case, for machines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrphanedTemporary => "orphaned_temporary",
            Self::StaleLock => "stale_lock",
            Self::ForeignFile => "foreign_file",
            Self::WrongMode => "wrong_mode",
            Self::WrongOwner => "wrong_owner",
            Self::DamagedEntry(_) => "damaged_entry",
            Self::NotVouchedFor(_) => "not_vouched_for",
            Self::DamagedJournal => "damaged_journal",
            Self::UnfinishedFold => "unfinished_fold",
            Self::UnfinishedRun => "unfinished_run",
            Self::DamagedCatalogue => "damaged_catalogue",
            Self::Uncatalogued => "uncatalogued",
            Self::StaleRecord => "stale_record",
        }
    }

    /// Whether nothing is wrong with it: it is so beside every process that uses the store, which notes what it did later,
    /// and whoever lists the store next puts it right.
    pub const fn is_note(self) -> bool {
        matches!(self, Self::Uncatalogued | Self::StaleRecord)
    }

    /// The reason that goes with it: why an entry is damaged, or not believed.
    pub const fn reason(self) -> Option<Reason> {
        match self {
            Self::DamagedEntry(reason) | Self::NotVouchedFor(reason) => Some(reason),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OrphanedTemporary => "left half written by a process that died",
            Self::StaleLock => "left locked by a process that died",
            Self::ForeignFile => "not made by objcache",
            Self::WrongMode => "others may write to it",
            Self::WrongOwner => "belongs to another user",
            Self::DamagedEntry(reason) => return write!(f, "damaged: {reason}"),
            Self::NotVouchedFor(reason) => {
                return write!(f, "not vouched for by a trusted key: {reason}");
            }
            Self::DamagedJournal => "part of the journal cannot be read",
            Self::UnfinishedFold => "left by a keeper that died",
            Self::UnfinishedRun => "left by a process that died while it ran an entry's code",
            Self::DamagedCatalogue => "the catalogue cannot be read",
            Self::Uncatalogued => "an entry that the catalogue does not know of yet",
            Self::StaleRecord => "a record of an entry that is gone or was replaced, and not yet noted",
        })
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where, from the store's directory.
    pub path: PathBuf,
    /// What.
    pub fault: Fault,
    /// It is as it should be now.
    pub mended: bool,
}

/// What [`Store::fsck`] found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FsckReport {
    /// Entries read and checked.
    pub checked: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What is not as it should be, by path.
    pub findings: Vec<Finding>,
    /// Whether the catalogue was looked at, or why not.
    pub catalogue: CatalogueCheck,
    /// Entries in the catalogue that was made anew; `None` when that was not asked for, or there is none, as on
    /// network file systems.
    pub rebuilt: Option<u64>,
}

/// What became of the catalogue in [`Store::fsck`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogueCheck {
    /// It was compared with the entries.
    Checked,
    /// There is none: on a network file system, or by a clock before 1970.
    NotKept,
    /// Another process had it in use all the time.
    InUse,
    /// The store is read-only, and to open the catalogue is to write.
    #[default]
    ReadOnly,
    /// It could not be opened or read.
    Failed,
}

impl CatalogueCheck {
    /// A stable name in snake case, for machines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Checked => "checked",
            Self::NotKept => "not_kept",
            Self::InUse => "in_use",
            Self::ReadOnly => "read_only",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for CatalogueCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checked => "the catalogue was looked at",
            Self::NotKept => "no catalogue is kept here, as on every network file system",
            Self::InUse => "the catalogue was not looked at: it is in use",
            Self::ReadOnly => "the catalogue was not looked at: the cache cannot be written",
            Self::Failed => "the catalogue was not looked at: it does not open",
        })
    }
}

impl FsckReport {
    /// Whether everything is as it should be now. [Notes](Fault::is_note) do not count.
    pub fn is_sound(&self) -> bool {
        self.problems().all(|finding| finding.mended)
    }

    /// The findings that are not only [notes](Fault::is_note).
    pub fn problems(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| !finding.fault.is_note())
    }

    fn find(&mut self, path: impl Into<PathBuf>, fault: Fault, mended: bool) {
        self.findings.push(Finding { path: path.into(), fault, mended });
    }
}

impl Store {
    /// Looks over the whole directory: reads and checks every entry, and compares the catalogue and the journal
    /// with them. `progress` is called after each entry.
    ///
    /// Without `rebuild` entries, modes and records stay as they are. What dead processes left is removed and a
    /// catalogue that cannot be opened is begun anew all the same, as any use of the store would do.
    ///
    /// With `rebuild` damaged entries go to quarantine, what others may write to is closed to them, and the
    /// catalogue is made anew from the entry files. Use counts and statistics are kept as far as the old
    /// catalogue still tells them. Only [`Fault::ForeignFile`], [`Fault::WrongOwner`] and
    /// [`Fault::NotVouchedFor`] are left to the user.
    ///
    /// Others may use the store meanwhile.
    ///
    /// # Errors
    /// When the store is off or cannot be listed. With `rebuild` also when it cannot be written
    /// ([`Reason::ReadOnly`], [`Reason::OpenedReadOnly`]), or the catalogue stays in use
    /// ([`Reason::CatalogueBusy`]). What is found is no error.
    pub fn fsck(&self, rebuild: bool, progress: &mut dyn FnMut(Progress)) -> Result<FsckReport, CacheError> {
        let left = std::mem::take(&mut *self.shared.left_by_the_dead.lock());
        let directory = if rebuild { self.writable_or_why()? } else { self.directory_or_why()? };
        // What a tidying does meanwhile is to be in the journal as well.
        self.settle();
        self.write_down(Extent::All);
        self.settle();
        let writable = self.shared.writable().is_some();
        let mut report = FsckReport::default();
        for (path, fault) in left {
            report.find(path, fault, true);
        }
        let damaged = check_leftovers(directory, writable, &mut report)
            .and_then(|()| check_marks(directory, rebuild, &mut report))
            .and_then(|()| check_files(directory, rebuild, &mut report))
            .and_then(|()| check_entries(&self.shared, directory, rebuild, &mut report, progress))
            .map_err(|error| failed(directory, error))?;
        if writable {
            let wait = if rebuild { keeper::LONG_WAIT } else { keeper::WAIT };
            match Keeper::take(&self.shared, directory, wait) {
                Some(keeper) => check_catalogue(keeper, self.options(), rebuild, damaged, &mut report)
                    .map_err(|error| failed(directory, error))?,
                None if rebuild => {
                    let path = directory.path().display().to_string();
                    return Err(CacheError::new(Reason::CatalogueBusy, path));
                }
                None => report.catalogue = CatalogueCheck::InUse,
            }
            self.tidy_if_due();
        }
        report.findings.sort();
        Ok(report)
    }
}

/// Temporary files and lock files that nobody holds. The keeper, or the next that writes, sweeps them.
fn check_leftovers(directory: &Directory, swept: bool, report: &mut FsckReport) -> io::Result<()> {
    for (place, fault) in [(TEMPORARY, Fault::OrphanedTemporary), (LOCKS, Fault::StaleLock)] {
        for name in directory.names_in(place)? {
            let path = Path::new(place).join(name);
            match directory.open_file(&path.to_string_lossy()) {
                Ok(Some(file)) if is_held(&file) => {}
                // Let go of while we looked.
                Ok(None) => {}
                Err(error) if error.raw_os_error() == Some(Errno::ISDIR.raw_os_error()) => {
                    report.find(path, Fault::ForeignFile, false);
                }
                _ => report.find(path, fault, swept),
            }
        }
    }
    Ok(())
}

/// Marks of processes that died while they ran an entry's code.
fn check_marks(directory: &Directory, mend: bool, report: &mut FsckReport) -> io::Result<()> {
    for name in directory.names_in(RUNNING)? {
        let is_mark = name.to_str().is_some_and(running::is_mark);
        let path = Path::new(RUNNING).join(name);
        if !is_mark {
            report.find(&path, Fault::ForeignFile, false);
            continue;
        }
        let text = path.to_string_lossy();
        if running::is_dead(directory, &text) {
            let mended = mend && directory.remove_file(text.as_bytes())?;
            report.find(&path, Fault::UnfinishedRun, mended);
        }
    }
    Ok(())
}

fn is_held(file: &std::fs::File) -> bool {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            let _ = flock(file, FlockOperation::Unlock);
            false
        }
        Err(_) => true,
    }
}

/// Owner and mode of everything, and what does not belong here.
fn check_files(directory: &Directory, mend: bool, report: &mut FsckReport) -> io::Result<()> {
    for name in directory.names_in(".")? {
        let path = Path::new(&name);
        let Ok(stat) = stat_of(directory, path) else { continue };
        let known = name.to_str().is_some_and(is_name_of_ours);
        if !known {
            report.find(path, Fault::ForeignFile, false);
            continue;
        }
        check_file(directory, path, &stat, mend, report);
        // What was taken out is as it was found.
        if file_type(&stat) == FileType::Directory && name != QUARANTINE {
            check_directory(directory, &name, mend, report)?;
        }
    }
    Ok(())
}

fn check_directory(
    directory: &Directory,
    parent: &OsStr,
    mend: bool,
    report: &mut FsckReport,
) -> io::Result<()> {
    let fan = parent.to_str().filter(|name| is_fan(name));
    for name in directory.names_in(&parent.to_string_lossy())? {
        let path = Path::new(parent).join(&name);
        match (fan, stat_of(directory, &path)) {
            (Some(fan), _) if entries::signature_named(fan, &name).is_none() => {
                report.find(path, Fault::ForeignFile, false);
            }
            // Whoever could write to an entry may have done so: it is looked at as a look-up would.
            (Some(_), _) | (None, Err(_)) => {}
            (None, Ok(stat)) => check_file(directory, &path, &stat, mend, report),
        }
    }
    Ok(())
}

fn stat_of(directory: &Directory, path: &Path) -> rustix::io::Result<Stat> {
    statat(directory.root(), path, AtFlags::SYMLINK_NOFOLLOW)
}

fn check_file(directory: &Directory, path: &Path, stat: &Stat, mend: bool, report: &mut FsckReport) {
    let (mode, open) = (Mode::from_raw_mode(stat.st_mode), Mode::WGRP | Mode::WOTH);
    if stat.st_uid != directory.owner() {
        report.find(path, Fault::WrongOwner, false);
    } else if file_type(stat) != FileType::Symlink && mode.intersects(open) {
        // Ours, in a directory of ours: nobody else can have put a link there since.
        let mended = mend && chmodat(directory.root(), path, mode - open, AtFlags::empty()).is_ok();
        report.find(path, Fault::WrongMode, mended);
    }
}

fn check_entries(
    shared: &Shared,
    directory: &Directory,
    mend: bool,
    report: &mut FsckReport,
    progress: &mut dyn FnMut(Progress),
) -> io::Result<Vec<Signature>> {
    let signatures = entries::signatures(directory)?;
    let mut damaged = Vec::new();
    for signature in &signatures {
        let fault = match entries::verify(directory, signature, &shared.gate) {
            Ok(Found::Whole(bytes)) => {
                report.bytes += bytes;
                None
            }
            // Whom others believe is theirs to say.
            Ok(Found::Refused(reason)) => Some((reason, false)),
            Ok(Found::Damaged(damage)) => {
                let mended = mend
                    && entries::quarantine(directory, signature, &damage, shared.quarantine_bytes())
                        .unwrap_or(false);
                Some((damage.reason, mended))
            }
            // Evicted meanwhile.
            Ok(Found::Absent) => None,
            Err(error) => Some((Reason::of(&error), false)),
        };
        if let Some((reason, mended)) = fault {
            let fault = match reason.is_of_trust() {
                true => Fault::NotVouchedFor(reason),
                false => Fault::DamagedEntry(reason),
            };
            report.find(path_of(signature), fault, mended);
            damaged.push(*signature);
        }
        report.checked += 1;
        progress(Progress { done: report.checked, total: signatures.len() as u64, bytes: report.bytes });
    }
    Ok(damaged)
}

fn path_of(signature: &Signature) -> PathBuf {
    OsStr::from_bytes(EntryName::of(signature).as_bytes()).into()
}

fn check_catalogue(
    mut keeper: Keeper<'_>,
    options: &StoreOptions,
    rebuild: bool,
    damaged: Vec<Signature>,
    report: &mut FsckReport,
) -> io::Result<()> {
    let directory = Arc::clone(keeper.directory);
    let left_over = directory.open_file(FOLDING)?.is_some();
    for name in journal::damaged(&directory)? {
        report.find(name, Fault::DamagedJournal, true);
    }
    let announced = Summary::of(journal::read(&directory)?);
    let mut announced: HashSet<Signature> = announced.uses.into_keys().collect();
    // What was just put into quarantine has left a record behind, which is no further news.
    announced.extend(damaged);
    let before = keeper.only_open_catalogue();
    let differences = keeper.use_catalogue(|catalogue| catalogue.differences(&directory, &announced));
    report.catalogue = match &differences {
        Some(_) => CatalogueCheck::Checked,
        None if !keeper.has_catalogue() => CatalogueCheck::NotKept,
        None => CatalogueCheck::Failed,
    };
    if keeper.has_catalogue() && (before == Some(true) || differences.is_none()) {
        report.find(CATALOGUE, Fault::DamagedCatalogue, before == Some(true));
    }
    if left_over {
        report.find(FOLDING, Fault::UnfinishedFold, true);
    }
    // One that was begun anew knows of nothing yet, which says nothing about the entries.
    let differences = differences.filter(|_| before == Some(false)).unwrap_or_default();
    for signature in &differences.uncatalogued {
        report.find(path_of(signature), Fault::Uncatalogued, rebuild);
    }
    for signature in &differences.stale {
        report.find(Path::new(CATALOGUE).join(signature.to_string()), Fault::StaleRecord, rebuild);
    }
    keeper.fold_journal();
    if rebuild {
        let measurement = Measurement::begin(&directory)?;
        let entries = keeper.rebuild_catalogue()?;
        report.rebuilt = keeper.has_catalogue().then_some(entries.len() as u64);
        tidy::note_size(&directory, options, measurement, &entries)?;
    }
    Ok(())
}
