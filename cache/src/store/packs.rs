//! Packs and layers, as a person or a build asks for them. Here trouble is an error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use objcache_signature::Signature;

use crate::admin::{CacheAdmin, DamagedEntry, EntryInfo, Progress};
use crate::buffer::Buffer;
use crate::compression::{Codec, Compression};
use crate::entry::{Encoded, Trailer};
use crate::error::{CacheError, Reason};
use crate::pack::{self, CheckedEntry, Pack, PackSummary};
use crate::store::Store;
use crate::store::directory::Directory;
use crate::store::entries::{self, Found};
use crate::store::layers::{self, LayerInfo, LayerKind};
use crate::store::packing::Packing;
use crate::store::recorder::Extent;
use crate::store::trace::{self, TraceState};

/// Entries taken in before they are written down.
const BATCH: u64 = 256;

/// What goes into a pack.
#[derive(Default)]
pub struct PackSelection<'a> {
    /// Exactly these, wherever the store finds them, in layers as well. `None`: all entries of the store.
    pub signatures: Option<&'a [Signature]>,
    /// Of the store's entries, only those this is true of. Entries of layers are not asked about.
    pub filter: Option<&'a dyn Fn(&EntryInfo) -> bool>,
}

impl std::fmt::Debug for PackSelection<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackSelection").field("signatures", &self.signatures).finish_non_exhaustive()
    }
}

/// How a pack is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackMode {
    /// Keep what is in the pack of that name. An entry that both have comes from the store.
    pub add: bool,
    /// Only say what would go into it.
    pub dry_run: bool,
    /// How all objects in it are stored; `None`: each as it is where it comes from. By default as Zstandard
    /// frames where that saves anything: a pack is made once, and shipped. An entry with a MAC stays as it is
    /// when the store does not have the key.
    pub compression: Option<Compression>,
}

impl Default for PackMode {
    fn default() -> Self {
        Self { add: false, dry_run: false, compression: Some(Compression::Always(Codec::Zstd)) }
    }
}

/// What went into a pack, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackReport {
    /// Entries taken from the store or its layers.
    pub packed: u64,
    /// Bytes they take.
    pub packed_bytes: u64,
    /// Entries kept of the pack that was there before.
    pub kept: u64,
    /// What was asked for by signature and is nowhere; ascending.
    pub missing: Vec<Signature>,
    /// Damaged entries, which were left out.
    pub damaged: Vec<DamagedEntry>,
    /// The pack as it is now; `None` after a dry run.
    pub pack: Option<PackSummary>,
}

/// What was taken in from a pack, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Entries taken in.
    pub imported: u64,
    /// Bytes they have.
    pub imported_bytes: u64,
    /// Entries that the store has already.
    pub present: u64,
    /// Entries for which the store had no room.
    pub no_room: u64,
    /// Damaged entries of the pack, and those too large for this store; they were left out.
    pub damaged: Vec<DamagedEntry>,
}

impl Store {
    /// Makes a pack of the store's entries, called `out`, over the file that has that name. A link is followed to
    /// the file it names. Processes that replace the same pack do so one after the other.
    ///
    /// A store that signs its entries signs the pack as well ([`Pack::signed_by`]).
    ///
    /// The same entries make the same file, whatever their order and the time; and unless they are kept as they
    /// are stored, whatever codec they had. `progress` is called after each.
    ///
    /// # Errors
    /// When entries cannot be listed or read, or the pack cannot be read or written, or what is called `out` is
    /// no regular file, or another process has been at it for ten minutes. Damaged entries are findings.
    pub fn create_pack(
        &self,
        out: &Path,
        selection: &PackSelection<'_>,
        mode: PackMode,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<PackReport, CacheError> {
        let mut packing = Packing::of(self, out, mode.compression, progress);
        let destination = pack::destination(out).map_err(|error| packing.failed(error))?;
        // Until the new pack has the name.
        let turn = if mode.dry_run { Ok(None) } else { pack::Turn::wait(&destination) };
        let in_use = |error| CacheError::new(Reason::InUse, out.display().to_string()).with_source(error);
        let _turn = turn.map_err(in_use)?;
        let before = if mode.add { Some(Pack::open(out)?) } else { None };
        let chosen = self.chosen(selection)?;
        if !mode.dry_run {
            packing.begin_file(&destination)?;
        }
        packing.expect(chosen.len() as u64 + before.as_ref().map_or(0, |pack| pack.summary().entries));
        let old = before.iter().flat_map(|pack| pack.each_entry(&self.shared.gate));
        packing.merge(&chosen, old)?;
        packing.finish()
    }

    /// Ascending.
    fn chosen(&self, selection: &PackSelection<'_>) -> Result<BTreeSet<Signature>, CacheError> {
        if selection.filter.is_none() {
            return match selection.signatures {
                Some(signatures) => Ok(signatures.iter().copied().collect()),
                None => self.all_signatures(),
            };
        }
        let listed = self.list()?;
        let wanted = |entry: &&EntryInfo| selection.filter.is_none_or(|filter| filter(entry));
        let filtered: BTreeSet<Signature> =
            listed.iter().filter(wanted).map(|entry| entry.signature).collect();
        let Some(signatures) = selection.signatures else { return Ok(filtered) };
        let own = |signature: &Signature| listed.binary_search_by_key(signature, |it| it.signature).is_ok();
        let chosen = signatures.iter().filter(|signature| filtered.contains(signature) || !own(signature));
        Ok(chosen.copied().collect())
    }

    /// Of damaged entries too, which are to be told of.
    fn all_signatures(&self) -> Result<BTreeSet<Signature>, CacheError> {
        let directory = self.directory_or_why()?;
        let signatures = entries::signatures(directory);
        let failed = |error| CacheError::io(directory.path().display().to_string(), error);
        Ok(signatures.map_err(failed)?.into_iter().collect())
    }

    /// A whole entry of the store or of a layer, checked.
    pub(super) fn whole_entry(&self, signature: &Signature) -> Result<layers::Found, CacheError> {
        let mut damaged = match entries::read(self.directory_or_why()?, signature, &self.shared.gate) {
            Ok(Found::Whole((bytes, trailer))) => return Ok(layers::Found::Whole(bytes, trailer)),
            Ok(Found::Refused(reason)) => Some(reason),
            Ok(Found::Damaged(damage)) => Some(damage.reason),
            Ok(Found::Absent) => None,
            Err(error) => return Err(CacheError::io(format!("entry {signature}"), error)),
        };
        let found = self.shared.find_in_layers(signature, &mut |error| damaged = Some(error.reason()));
        Ok(match (found, damaged) {
            (Some((bytes, trailer)), _) => layers::Found::Whole(bytes, trailer),
            (None, Some(reason)) => layers::Found::Damaged(reason),
            (None, None) => layers::Found::Absent,
        })
    }

    /// Takes in the entries of a pack that the store does not have; with `dry_run` only says which.
    ///
    /// Each is verified first, and stored as [`StoreOptions::compression`](crate::StoreOptions::compression)
    /// would have it. `progress` is called after each.
    ///
    /// # Errors
    /// When the index of the pack is damaged, or entries cannot be read or written. Damaged entries are
    /// findings.
    pub fn import_pack(
        &self,
        pack: &Pack,
        dry_run: bool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImportReport, CacheError> {
        let directory = self.writable_or_why()?;
        let total = pack.summary().entries;
        let mut report = ImportReport::default();
        let mut bytes = 0;
        for (done, entry) in (1..).zip(pack.each_entry(&self.shared.gate)) {
            let (signature, entry) = entry?;
            bytes += entry.as_ref().map_or(0, |(entry, _)| entry.len() as u64);
            self.import(directory, &signature, entry, dry_run, &mut report)?;
            if done % BATCH == 0 {
                self.write_down(Extent::Due);
            }
            progress(Progress { done, total, bytes });
        }
        self.write_down(Extent::Due);
        Ok(report)
    }

    fn import(
        &self,
        directory: &Directory,
        signature: &Signature,
        entry: CheckedEntry,
        dry_run: bool,
        report: &mut ImportReport,
    ) -> Result<(), CacheError> {
        let failed = |error| CacheError::io(format!("entry {signature}"), error);
        let mut left_out = |reason| report.damaged.push(DamagedEntry { signature: *signature, reason });
        let (bytes, trailer) = match entry {
            Ok(entry) => entry,
            Err(reason) => {
                left_out(reason);
                return Ok(());
            }
        };
        // One that is damaged, or that nobody here believes, is as good as none.
        if matches!(entries::read(directory, signature, &self.shared.gate), Ok(Found::Whole(_))) {
            report.present += 1;
            return Ok(());
        }
        let fits = |entry: &Encoded<'_>| self.fits(entry.length());
        let admitted = self.admitted(&bytes, &trailer);
        let entry = match admitted.and_then(|it| if fits(&it) { Ok(it) } else { Err(Reason::TooLarge) }) {
            Ok(entry) => entry,
            Err(reason) => {
                left_out(reason);
                return Ok(());
            }
        };
        let object_bytes = trailer.object as u64;
        if dry_run || self.publish(directory, signature, &entry, object_bytes).map_err(failed)? {
            report.imported += 1;
            report.imported_bytes += entry.length();
        } else {
            report.no_room += 1;
        }
        Ok(())
    }

    /// Uses a pack, or the directory of another store, in place from now on: every store opened in this
    /// directory asks it after its own entries. `false`: it was mounted already.
    ///
    /// Whom the store believes is asked about each entry, so nobody need have signed the pack as a whole: that only tells
    /// that no entry was left out.
    ///
    /// # Errors
    /// When it cannot be used as a layer, is a pack with a false signature, or that cannot be written down.
    pub fn mount(&self, path: &Path) -> Result<bool, CacheError> {
        let directory = self.writable_or_why()?;
        let failed = |error| CacheError::io(path.display().to_string(), error);
        let path = path.canonicalize().map_err(failed)?;
        if path.as_os_str().as_encoded_bytes().contains(&b'\n') {
            let what = format!("a path with a line break: {}", path.display());
            return Err(CacheError::new(Reason::BadSetting, what));
        }
        if let LayerKind::Pack(_) = layers::kind(&path)? {
            Pack::open(&path)?.signed_by()?;
        }
        let add = |paths: &mut Vec<PathBuf>| {
            let is_new = !paths.contains(&path);
            paths.extend(is_new.then(|| path.clone()));
            is_new
        };
        layers::change_mounted(directory, add).map_err(failed)
    }

    /// Undoes [`mount`](Self::mount); the pack may be gone by now. `false`: it was not mounted.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn unmount(&self, path: &Path) -> Result<bool, CacheError> {
        let directory = self.writable_or_why()?;
        let failed = |error| CacheError::io(path.display().to_string(), error);
        let absolute = std::path::absolute(path).map_err(failed)?;
        let canonical = path.canonicalize().unwrap_or_else(|_| absolute.clone());
        let remove = |paths: &mut Vec<PathBuf>| {
            let before = paths.len();
            paths.retain(|path| *path != absolute && *path != canonical);
            paths.len() != before
        };
        layers::change_mounted(directory, remove).map_err(failed)
    }

    /// The layers that are asked, in their order, and those that would be if they could be used.
    ///
    /// # Errors
    /// When the list of mounted ones cannot be read.
    pub fn layers(&self) -> Result<Vec<LayerInfo>, CacheError> {
        let info = |mounted| {
            move |path: PathBuf| {
                let kind: Result<LayerKind, CacheError> = layers::kind(&path);
                LayerInfo { path, mounted, kind }
            }
        };
        let mut layers: Vec<LayerInfo> = self.options().layers.iter().cloned().map(info(false)).collect();
        if let Some(directory) = self.shared.readable() {
            let mounted = layers::mounted(directory)
                .map_err(|error| CacheError::io(directory.path().display().to_string(), error))?;
            layers.extend(mounted.into_iter().map(info(true)));
        }
        Ok(layers)
    }

    /// Switches tracing on: from now on every process that opens this store writes down what it uses, and those
    /// that have it open do so after their next put. `false`: it was on.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn start_trace(&self) -> Result<bool, CacheError> {
        let directory = self.writable_or_why()?;
        trace::start(directory).map_err(|error| trace_failed(directory, error))
    }

    /// Switches tracing off. The trace can be read until the next one is started. `false`: it was not on.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn stop_trace(&self) -> Result<bool, CacheError> {
        let directory = self.writable_or_why()?;
        trace::stop(directory).map_err(|error| trace_failed(directory, error))
    }

    /// The trace that is being written, or else the last one; `None` when there is neither.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn trace(&self) -> Result<Option<TraceState>, CacheError> {
        let directory = self.directory_or_why()?;
        let running = trace::is_on(directory);
        let trace = trace::read(directory).map_err(|error| trace_failed(directory, error))?;
        Ok(trace.map(|trace| TraceState { running, trace }))
    }

    /// The object of an entry that a layer has, for somebody who only looks.
    pub(super) fn peek_layers(&self, signature: &Signature) -> Option<(Buffer, Trailer)> {
        self.shared.find_in_layers(signature, &mut |error| self.shared.degrade_quietly(error))
    }
}

fn trace_failed(directory: &Directory, error: std::io::Error) -> CacheError {
    CacheError::io(trace::path(directory).display().to_string(), error)
}
