//! What a person asks of a store. Here trouble is an error.

use std::io;
use std::sync::Arc;

use objcache_signature::Signature;

use crate::admin::{
    CacheAdmin, CacheStats, ClearReport, DamagedEntry, EntryInfo, EntryRecord, GcLimits, GcReport, Progress,
    VerifyOptions, VerifyReport,
};
use crate::buffer::Buffer;
use crate::clock::now_unix_us;
use crate::entry::Trailer;
use crate::error::{CacheError, Reason};
use crate::object::ObjectBuffer;
use crate::store::catalogue::Catalogue;
use crate::store::directory::{Directory, FAILURES, MISSES, PINS, QUARANTINE};
use crate::store::entries::{self, Found};
use crate::store::keeper::{self, Keeper, View};
use crate::store::recorder::Extent;
use crate::store::room::Measurement;
use crate::store::totals::Totals;
use crate::store::{Shared, Store, journal, tidy};

impl Store {
    pub(super) fn directory_or_why(&self) -> Result<&Arc<Directory>, CacheError> {
        let off = || CacheError::new(self.degraded().unwrap_or(Reason::DirectoryGone), "store");
        self.shared.readable().ok_or_else(off)
    }

    pub(super) fn writable_or_why(&self) -> Result<&Arc<Directory>, CacheError> {
        let why = || CacheError::new(self.degraded().unwrap_or(Reason::ReadOnly), "store");
        let directory = self.shared.writable().ok_or_else(why)?;
        self.shared.sweep_once(directory);
        Ok(directory)
    }

    /// Whether this store itself has a file of this entry, whatever is in it. Layers are not asked.
    ///
    /// # Errors
    /// When the store is off, or cannot be looked into.
    pub fn holds(&self, signature: &Signature) -> Result<bool, CacheError> {
        let facts = entries::facts(self.directory_or_why()?, signature);
        Ok(facts.map_err(|error| CacheError::io(format!("entry {signature}"), error))?.is_some())
    }

    /// What an entry of a layer says of itself; `None` when no layer has it. Nothing is written down of it: it has no
    /// uses, and takes no room here.
    pub fn stat_in_layers(&self, signature: &Signature) -> Option<EntryInfo> {
        self.peek_layers(signature).map(|entry| layer_entry(signature, &entry))
    }

    /// Runs `work` with the keeper's role, catalogue open, when that can be had.
    pub(super) fn with_keeper<T>(
        &self,
        work: impl FnOnce(&Directory, Option<&mut Keeper<'_>>) -> io::Result<T>,
    ) -> Result<T, CacheError> {
        let directory = self.directory_or_why()?;
        let mut keeper = self.shared.writable().and_then(|directory| {
            self.write_down(Extent::All);
            Keeper::take(&self.shared, directory, keeper::WAIT)
        });
        if let Some(keeper) = &mut keeper {
            keeper.open_catalogue();
        }
        let done = work(directory, keeper.as_mut()).map_err(|error| failed(directory, error));
        if keeper.take().is_some() {
            self.tidy_if_due();
        }
        done
    }

    /// For whoever gives the keeper's role back: those who wanted it meanwhile do not come again.
    pub(crate) fn tidy_if_due(&self) {
        if let Some(directory) = self.shared.writable()
            && tidy::is_due_in(directory, self.options())
        {
            self.tidier.start(&self.shared);
        }
    }

    /// Reads and checks an entry, and leaves everything as it is, damage included.
    fn sound_entry(&self, signature: &Signature) -> Result<Option<(Buffer, Trailer)>, CacheError> {
        let directory = self.directory_or_why()?;
        match entries::read(directory, signature, &self.shared.gate) {
            Ok(Found::Whole(entry)) => Ok(Some(entry)),
            Ok(Found::Absent | Found::Damaged(_) | Found::Refused(_)) => Ok(None),
            Err(error) => Err(CacheError::io(format!("entry {signature}"), error)),
        }
    }

    fn view(&self) -> Result<View, CacheError> {
        self.with_keeper(keeper::view)
    }
}

/// What an entry of a layer says of itself.
fn layer_entry(signature: &Signature, (bytes, trailer): &(Buffer, Trailer)) -> EntryInfo {
    EntryInfo {
        signature: *signature,
        object_bytes: trailer.object as u64,
        stored_bytes: trailer.stored as u64,
        codec: trailer.codec,
        disk_bytes: 0,
        created_unix_us: trailer.created_unix_us,
        last_used_unix_us: trailer.created_unix_us,
        hits: 0,
        compile_time_us: trailer.compile_time_us,
        namespace: trailer.namespace(bytes).unwrap_or_default(),
        pinned: false,
    }
}

pub(crate) fn failed(directory: &Directory, error: io::Error) -> CacheError {
    CacheError::io(directory.path().display().to_string(), error)
}

impl CacheAdmin for Store {
    fn list(&self) -> Result<Vec<EntryInfo>, CacheError> {
        Ok(self.view()?.entries)
    }

    fn stat(&self, signature: &Signature) -> Result<Option<EntryInfo>, CacheError> {
        self.with_keeper(|directory, keeper| keeper::view_one(directory, signature, keeper))
    }

    fn peek(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        let sound = self.sound_entry(signature)?.or_else(|| self.peek_layers(signature));
        Ok(sound.and_then(|(bytes, trailer)| trailer.into_object(bytes).ok()))
    }

    fn record(&self, signature: &Signature) -> Result<Option<EntryRecord>, CacheError> {
        let sound = self.sound_entry(signature)?.or_else(|| self.peek_layers(signature));
        Ok(sound.and_then(|(bytes, trailer)| trailer.entry_record(&bytes)))
    }

    fn resolve_prefix(&self, prefix: &str) -> Result<Vec<Signature>, CacheError> {
        let directory = self.directory_or_why()?;
        let prefix = prefix.to_ascii_lowercase();
        let candidates = match prefix.get(..2) {
            // Without this, "." and ".." would be looked into.
            Some(fan) if fan.bytes().all(|digit| digit.is_ascii_hexdigit()) => {
                entries::signatures_in(directory, fan)
            }
            _ => entries::signatures(directory),
        };
        let mut found = candidates.map_err(|error| failed(directory, error))?;
        found.retain(|signature| signature.to_string().starts_with(&prefix));
        found.sort_unstable();
        // Layers are not listed, but who has the whole of a signature can ask them.
        if found.is_empty()
            && let Ok(signature) = prefix.parse()
            && self.peek_layers(&signature).is_some()
        {
            found.push(signature);
        }
        Ok(found)
    }

    fn remove(&self, signature: &Signature) -> Result<bool, CacheError> {
        let directory = self.writable_or_why()?;
        let unpin = || directory.remove_file(keeper::pin_name(signature).as_bytes());
        let removed =
            self.shared.remove_entry(directory, signature).and_then(|removed| unpin().map(|_| removed));
        self.shared.recorder.gone(signature);
        // Its room is there for others at once.
        self.write_down(Extent::Due);
        removed.map_err(|error| CacheError::io(format!("entry {signature}"), error))
    }

    fn set_pinned(&self, signature: &Signature, pinned: bool) -> Result<bool, CacheError> {
        let directory = self.writable_or_why()?;
        let name = keeper::pin_name(signature);
        let change = || {
            let is_there = || Ok::<_, io::Error>(entries::facts(directory, signature)?.is_some());
            if !is_there()? {
                return Ok(false);
            }
            if pinned {
                directory.make_directory(PINS)?;
                drop(directory.open_or_create(&name)?);
            }
            // Whoever evicts looks for a pin when the entry has lost its name. One that came too late is none.
            let is_late = pinned && !is_there()?;
            if !pinned || is_late {
                directory.remove_file(name.as_bytes())?;
            }
            if is_late {
                return Ok(false);
            }
            if self.options().durable {
                directory.sync_names_in(PINS)?;
            }
            Ok(true)
        };
        change().map_err(|error| CacheError::io(format!("pin of entry {signature}"), error))
    }

    fn verify(
        &self,
        options: VerifyOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<VerifyReport, CacheError> {
        let directory = if options.repair { self.writable_or_why()? } else { self.directory_or_why()? };
        let signatures = entries::signatures(directory).map_err(|error| failed(directory, error))?;
        let mut report = VerifyReport::default();
        for signature in &signatures {
            let reason = match entries::verify(directory, signature, &self.shared.gate) {
                Ok(Found::Whole(bytes)) => {
                    report.bytes += bytes;
                    None
                }
                // It stays, whatever is asked for: whom others believe is theirs to say.
                Ok(Found::Refused(reason)) => Some(reason),
                Ok(Found::Damaged(damage)) => {
                    if options.repair {
                        self.shared.recorder.gone(signature);
                        let moved = entries::quarantine(
                            directory,
                            signature,
                            &damage,
                            self.shared.quarantine_bytes(),
                        );
                        report.repaired += u64::from(moved.map_err(|error| failed(directory, error))?);
                    }
                    Some(damage.reason)
                }
                // Evicted meanwhile.
                Ok(Found::Absent) => None,
                Err(error) => Some(Reason::of(&error)),
            };
            if let Some(reason) = reason {
                report.find(DamagedEntry { signature: *signature, reason });
            }
            report.checked += 1;
            progress(Progress { done: report.checked, total: signatures.len() as u64, bytes: report.bytes });
        }
        Ok(report)
    }

    fn clear(&self) -> Result<ClearReport, CacheError> {
        let directory = self.writable_or_why()?;
        self.write_down(Extent::All);
        self.settle();
        // Held while the catalogue's files are removed; it is not opened for that.
        let busy = || CacheError::new(Reason::CatalogueBusy, directory.path().display().to_string());
        let keeper = Keeper::take(&self.shared, directory, keeper::LONG_WAIT).ok_or_else(busy)?;
        let report = clear(&self.shared, directory).map_err(|error| failed(directory, error));
        drop(keeper);
        self.tidy_if_due();
        report
    }

    fn collect_garbage(&self, limits: &GcLimits, dry_run: bool) -> Result<GcReport, CacheError> {
        if !dry_run {
            self.writable_or_why()?;
        }
        // The first for the tidying that may have the journal locked, the second for what is due after all.
        self.settle();
        self.write_down(Extent::All);
        self.settle();
        self.with_keeper(|directory, mut keeper| {
            let measurement = Measurement::begin(directory)?;
            let view = keeper::view(directory, keeper.as_deref_mut())?;
            if dry_run {
                return Ok(GcReport::of(view.entries, limits, now_unix_us()));
            }
            tidy::note_size(directory, self.options(), measurement, &view.entries)?;
            let report = GcReport::of(view.entries, limits, now_unix_us());
            match keeper {
                Some(keeper) => keeper.evict(&report.removed)?,
                None => {
                    for entry in &report.removed {
                        self.shared.remove_entry(directory, &entry.signature)?;
                    }
                }
            }
            Ok(report)
        })
    }

    fn stats(&self) -> Result<CacheStats, CacheError> {
        let (totals, counts) = self.with_keeper(keeper::totals)?;
        let Totals { entries, object_bytes, disk_bytes } = totals;
        let max_size = self.options().max_size;
        let mut stats = CacheStats { entries, object_bytes, disk_bytes, max_size, ..CacheStats::default() };
        for (counter, by) in counts {
            counter.add_to(&mut stats, by);
        }
        Ok(stats)
    }
}

/// Puts go on meanwhile. What a process noted before the journal is begun anew was published before, and
/// goes; what is published later is noted in the new one, and may stay.
fn clear(shared: &Shared, directory: &Directory) -> io::Result<ClearReport> {
    journal::restart(directory)?;
    directory.make_way(MISSES)?;
    let signatures = entries::signatures(directory)?;
    let size = entries::size_of(directory, &signatures);
    let report = ClearReport { entries: size.entries, disk_bytes: size.bytes };
    for signature in &signatures {
        // Nothing is credited: the account that knew of it is gone.
        entries::remove(directory, signature)?;
    }
    for subdirectory in [PINS, QUARANTINE, FAILURES] {
        for name in directory.names_in(subdirectory)? {
            let _ = directory.remove_file(format!("{subdirectory}/{}", name.to_string_lossy()).as_bytes());
        }
    }
    Catalogue::remove(directory)?;
    shared.write_down(directory, Extent::All);
    let measurement = Measurement::begin(directory)?;
    measurement.end(directory, &shared.options, entries::size(directory)?)?;
    Ok(report)
}
