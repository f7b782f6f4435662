//! The keeper: whoever holds the keeper lock, and only as long as it has the catalogue open.
//!
//! It is a role for a moment, not for life: a process takes it to fold the journal in, to look at the
//! catalogue or to tidy, and gives it back. So every process can see all that is known, and none is in the
//! way of another for long. Whoever does not get the role in time (its holder may be stopped) works from
//! entry files and journal alone; that costs the use counts, and nothing else.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use objcache_signature::Signature;

use crate::admin::EntryInfo;
use crate::clock;
use crate::error::{CacheError, Reason};
use crate::sled_guard::DatabaseError;
use crate::store::Shared;
use crate::store::catalogue::{Catalogue, EntryKnowledge};
use crate::store::counters::Counter;
use crate::store::directory::{Directory, KEEPER, PINS};
use crate::store::entries::{self, Found};
use crate::store::journal::{self, Summary};
use crate::store::lock_file::LockFile;
use crate::store::recorder::Extent;
use crate::store::totals::Totals;

/// How long to wait for the role when somebody wants to know something.
pub(crate) const WAIT: Duration = Duration::from_secs(2);
/// How long to wait when nothing can be done without the role.
pub(crate) const LONG_WAIT: Duration = Duration::from_secs(10);

/// So many entries are removed before their room is given back.
const EVICTED_AT_ONCE: usize = 64;

pub(crate) struct Keeper<'a> {
    shared: &'a Shared,
    pub(crate) directory: &'a Arc<Directory>,
    // Closed before the lock is released. `None`: not opened, or it failed.
    catalogue: Option<Catalogue>,
    _lock: LockFile,
}

/// All that is known.
pub(crate) struct View {
    pub(crate) entries: Vec<EntryInfo>,
    /// What is filed as an entry and cannot be told of: damaged, most likely.
    pub(crate) unsound: Vec<Signature>,
    pub(crate) counts: Vec<(Counter, u64)>,
}

impl<'a> Keeper<'a> {
    /// Takes the role. `None`: another has it all the time.
    pub(crate) fn take(shared: &'a Shared, directory: &'a Arc<Directory>, wait: Duration) -> Option<Self> {
        match LockFile::acquire_until(directory, KEEPER, Instant::now() + wait) {
            Ok(Some(lock)) => {
                shared.sweep(directory);
                Some(Self { shared, directory, catalogue: None, _lock: lock.keep_file() })
            }
            Ok(None) => None,
            Err(error) => {
                shared.degrade_quietly(CacheError::io("lock of the keeper", error));
                None
            }
        }
    }

    /// Opens the catalogue and folds the journal into it.
    pub(crate) fn open_catalogue(&mut self) {
        self.only_open_catalogue();
        self.fold_journal();
    }

    /// Opens the catalogue. Tells whether it was damaged and is begun anew; `None` when it cannot be opened.
    pub(crate) fn only_open_catalogue(&mut self) -> Option<bool> {
        if !self.has_catalogue() {
            return None;
        }
        match Catalogue::open(self.directory) {
            Ok((catalogue, rebuilt)) => {
                self.catalogue = Some(catalogue);
                if rebuilt {
                    self.shared.degrade_quietly(CacheError::new(Reason::CatalogueRebuilt, "catalogue"));
                }
                Some(rebuilt)
            }
            Err(error) => {
                self.catalogue_failed(error);
                None
            }
        }
    }

    /// On a network file system there is none, and by a clock before 1970 it does not open.
    pub(crate) fn has_catalogue(&self) -> bool {
        self.shared.network.is_none() && !clock::is_before_1970()
    }

    /// Folds the journal into the catalogue; where there is none, into itself.
    pub(crate) fn fold_journal(&mut self) {
        if !self.has_catalogue() {
            if let Err(error) = journal::compact(self.directory, self.shared.options.max_size) {
                self.shared.degrade_quietly(CacheError::io("journal", error));
            }
            return;
        }
        let directory = Arc::clone(self.directory);
        self.use_catalogue(|catalogue| {
            journal::work_off(&directory, |events| catalogue.fold(&directory, events))
        });
    }

    /// Makes the catalogue anew from the entry files. What the old one still tells of uses is kept.
    pub(crate) fn rebuild_catalogue(&mut self) -> io::Result<Vec<EntryInfo>> {
        // What cannot be made anew is better kept.
        if !clock::is_before_1970() {
            let history = self.use_catalogue(Catalogue::history).unwrap_or_default();
            // Closed before its files go.
            self.catalogue = None;
            Catalogue::remove(self.directory)?;
            self.only_open_catalogue();
            let _ = self.use_catalogue(|catalogue| catalogue.begin_with(history));
        }
        Ok(thorough_view(&Arc::clone(self.directory), self)?.entries)
    }

    /// Removes entries, and what is known of them.
    pub(crate) fn evict(&mut self, victims: &[EntryInfo]) -> io::Result<()> {
        for batch in victims.chunks(EVICTED_AT_ONCE) {
            for victim in batch {
                let gone = self.shared.remove_victim(self.directory, &victim.signature)?;
                self.shared.recorder.counters.add(Counter::Evicted, u64::from(gone));
            }
            // Puts may be waiting for the room.
            self.shared.write_down(self.directory, Extent::Due);
        }
        self.use_catalogue(|catalogue| catalogue.forget(victims.iter().map(|victim| &victim.signature)));
        Ok(())
    }

    /// Looks at an entry as a look-up would, and puts it into quarantine if it is damaged.
    pub(crate) fn take_out_if_damaged(&self, signature: &Signature) -> io::Result<()> {
        if let Found::Damaged(damage) = entries::read(self.directory, signature, &self.shared.gate)? {
            self.shared.health.quietly(self.shared.damaged(signature, &damage));
        }
        Ok(())
    }

    /// A catalogue that fails is not used again in this round.
    pub(crate) fn use_catalogue<T>(
        &mut self,
        work: impl FnOnce(&Catalogue) -> Result<T, DatabaseError>,
    ) -> Option<T> {
        match work(self.catalogue.as_ref()?) {
            Ok(done) => Some(done),
            Err(error) => {
                self.catalogue_failed(error);
                self.catalogue = None;
                None
            }
        }
    }

    fn catalogue_failed(&self, error: DatabaseError) {
        let reason = match &error {
            DatabaseError::Busy => Reason::CatalogueBusy,
            DatabaseError::Io(error) => Reason::of(error),
            DatabaseError::Failed(_) => Reason::CatalogueRebuilt,
            // Nothing is wrong with the catalogue.
            DatabaseError::ClockBefore1970 => return,
        };
        self.shared.degrade_quietly(CacheError::new(reason, "catalogue").with_source(error));
    }
}

/// Everything there is to know, with the keeper's help when there is one.
pub(crate) fn view(directory: &Directory, keeper: Option<&mut Keeper<'_>>) -> io::Result<View> {
    view_of(directory, keeper, false)
}

/// What all entries come to, and the statistics.
pub(crate) fn totals(
    directory: &Directory,
    keeper: Option<&mut Keeper<'_>>,
) -> io::Result<(Totals, Vec<(Counter, u64)>)> {
    let known = keeper.and_then(|keeper| {
        keeper.use_catalogue(|catalogue| Ok((catalogue.totals(directory)?, catalogue.counts()?)))
    });
    let Some((totals, mut counts)) = known else {
        let view = view(directory, None)?;
        return Ok((Totals::of(&view.entries), view.counts));
    };
    counts.extend(Summary::of(journal::read(directory)?).counts);
    Ok((totals, counts))
}

/// The same, and every file is looked at, also where the catalogue knows it.
pub(crate) fn thorough_view(directory: &Directory, keeper: &mut Keeper<'_>) -> io::Result<View> {
    view_of(directory, Some(keeper), true)
}

fn view_of(directory: &Directory, mut keeper: Option<&mut Keeper<'_>>, thorough: bool) -> io::Result<View> {
    let listed = entries::list(directory)?;
    let pins = pins(directory)?;
    let is_pinned = |signature: &Signature| pins.contains(signature);
    let mut use_catalogue = |work: &dyn Fn(&Catalogue) -> Result<View, DatabaseError>| {
        keeper.as_mut().and_then(|keeper| keeper.use_catalogue(work))
    };
    let known = use_catalogue(&|catalogue| {
        let entries = catalogue.survey(directory, &listed, thorough, is_pinned)?;
        Ok(View { entries, counts: catalogue.counts()?, unsound: Vec::new() })
    });
    let signatures: Vec<Signature> = listed.iter().map(|listed| listed.signature).collect();
    let mut view = match known {
        Some(view) => view,
        None => View::of(described(directory, &signatures, is_pinned)),
    };
    if view.entries.len() < signatures.len() {
        let told = |signature: &Signature| view.entries.binary_search_by_key(signature, |it| it.signature);
        view.unsound = signatures.into_iter().filter(|signature| told(signature).is_err()).collect();
    }
    view.add(&Summary::of(journal::read(directory)?));
    Ok(view)
}

impl View {
    fn of(entries: Vec<EntryInfo>) -> Self {
        Self { entries, unsound: Vec::new(), counts: Vec::new() }
    }

    /// Adds what is still in the journal.
    fn add(&mut self, summary: &Summary) {
        for entry in &mut self.entries {
            if let Some(used) = summary.uses.get(&entry.signature) {
                entry.hits = entry.hits.saturating_add(used.hits);
                entry.last_used_unix_us = entry.last_used_unix_us.max(used.last_used_unix_us);
            }
        }
        self.counts.extend(summary.counts.iter().map(|(counter, by)| (*counter, *by)));
    }
}

/// What the entry files alone tell.
fn described(
    directory: &Directory,
    signatures: &[Signature],
    is_pinned: impl Fn(&Signature) -> bool,
) -> Vec<EntryInfo> {
    let info = |signature: &Signature| {
        // One that cannot be read must not hide the others.
        let description = entries::describe(directory, signature).ok().flatten()?;
        let disk_bytes = description.facts.disk_bytes;
        Some(EntryKnowledge::of(description).info(*signature, disk_bytes, is_pinned(signature)))
    };
    signatures.iter().filter_map(info).collect()
}

/// What is known of one entry.
pub(crate) fn view_one(
    directory: &Directory,
    signature: &Signature,
    keeper: Option<&mut Keeper<'_>>,
) -> io::Result<Option<EntryInfo>> {
    let is_pinned = directory.open_file(&pin_name(signature))?.is_some();
    let mut entries = described(directory, &[*signature], |_| is_pinned);
    let known =
        keeper.and_then(|keeper| keeper.use_catalogue(|catalogue| catalogue.known(signature))).flatten();
    if let (Some(entry), Some(known)) = (entries.first_mut(), known) {
        let known = known.info(*signature, 0, is_pinned);
        entry.hits = known.hits;
        entry.last_used_unix_us = entry.last_used_unix_us.max(known.last_used_unix_us);
    }
    let mut view = View::of(entries);
    view.add(&Summary::of(journal::read(directory)?));
    Ok(view.entries.pop())
}

/// The signatures that are pinned. A pin is a file of its own, because it cannot be derived from anything.
fn pins(directory: &Directory) -> io::Result<HashSet<Signature>> {
    let names = directory.names_in(PINS)?;
    Ok(names.iter().filter_map(|name| name.to_str()?.parse().ok()).collect())
}

/// Whether an entry is to stay. One of which that cannot be told stays.
pub(crate) fn is_pinned(directory: &Directory, signature: &Signature) -> bool {
    !matches!(directory.open_file(&pin_name(signature)), Ok(None))
}

pub(crate) fn pin_name(signature: &Signature) -> String {
    format!("{PINS}/{signature}")
}
