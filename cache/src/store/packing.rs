//! A pack being made. Entries are read, checked and compressed by all processors, a batch at a time, and written in
//! their order: how many processors there are changes nothing about the file.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use objcache_signature::Signature;

use crate::admin::{DamagedEntry, Progress};
use crate::buffer::Buffer;
use crate::compression::Compression;
use crate::entry::{Encoded, Trailer};
use crate::error::{CacheError, Reason};
use crate::pack::{CheckedEntry, PackWriter};
use crate::parallel;
use crate::store::packs::PackReport;
use crate::store::{Store, layers};

/// Entries that each processor has in memory at once, about.
const BATCH: usize = 16;

/// A pack being made, or only counted.
pub(super) struct Packing<'a> {
    store: &'a Store,
    out: &'a Path,
    compression: Option<Compression>,
    writer: Option<PackWriter>,
    total: u64,
    done: u64,
    bytes: u64,
    progress: &'a mut dyn FnMut(Progress),
    report: PackReport,
}

/// A checked entry, and how it is to be in the pack if that is otherwise. Or why it is damaged.
type Ready = Result<(Buffer, Option<Encoded<'static>>), Reason>;

impl<'a> Packing<'a> {
    /// One that is only counted.
    pub(super) fn of(
        store: &'a Store,
        out: &'a Path,
        compression: Option<Compression>,
        progress: &'a mut dyn FnMut(Progress),
    ) -> Self {
        let report = PackReport::default();
        Self { store, out, compression, writer: None, total: 0, done: 0, bytes: 0, progress, report }
    }

    /// From now on it is written, to take the place of the `destination`.
    pub(super) fn begin_file(&mut self, destination: &Path) -> Result<(), CacheError> {
        let writer = PackWriter::create(destination, self.store.options().durable);
        self.writer = Some(writer.map_err(|error| self.failed(error))?);
        Ok(())
    }

    /// How many entries there are to look at, for those who watch.
    pub(super) fn expect(&mut self, total: u64) {
        self.total = total;
    }

    pub(super) fn failed(&self, error: io::Error) -> CacheError {
        CacheError::io(format!("pack {}", self.out.display()), error)
    }

    /// The `chosen` of the store, and what is in an `old` pack. Both are ascending, and so is what comes of it.
    pub(super) fn merge(
        &mut self,
        chosen: &BTreeSet<Signature>,
        old: impl Iterator<Item = Result<(Signature, CheckedEntry), CacheError>>,
    ) -> Result<(), CacheError> {
        let mut old = old.peekable();
        let chosen: Vec<Signature> = chosen.iter().copied().collect();
        let (store, compression) = (self.store, self.compression);
        for batch in chosen.chunks(BATCH * parallel::threads()) {
            let found = parallel::map(batch, |signature| from_store(store, compression, signature));
            for (signature, found) in batch.iter().zip(found) {
                while let Some(entry) = old.next_if(|it| it.as_ref().map_or(true, |(old, _)| old < signature))
                {
                    self.keep(entry?)?;
                }
                let same = old.next_if(|it| it.as_ref().is_ok_and(|(old, _)| old == signature));
                // What the store has not whole (any more) is kept as it was.
                if !self.take(signature, found?)?
                    && let Some(entry) = same
                {
                    self.keep(entry?)?;
                }
            }
        }
        old.try_for_each(|entry| self.keep(entry?))
    }

    /// Takes what the store has, if it has it (`false`: nothing sound).
    fn take(&mut self, signature: &Signature, found: Option<Ready>) -> Result<bool, CacheError> {
        let added = match found {
            Some(ready) => self.add(signature, ready)?,
            None => {
                self.report.missing.push(*signature);
                None
            }
        };
        if let Some(bytes) = added {
            self.report.packed += 1;
            self.report.packed_bytes += bytes;
        }
        self.step();
        Ok(added.is_some())
    }

    fn keep(&mut self, (signature, entry): (Signature, CheckedEntry)) -> Result<(), CacheError> {
        let ready = entry.and_then(|(bytes, trailer)| ready(self.store, self.compression, bytes, &trailer));
        if self.add(&signature, ready)?.is_some() {
            self.report.kept += 1;
        }
        self.step();
        Ok(())
    }

    /// Adds an entry and tells its length; `None`: it is damaged.
    fn add(&mut self, signature: &Signature, ready: Ready) -> Result<Option<u64>, CacheError> {
        let (bytes, recoded) = match ready {
            Ok(ready) => ready,
            Err(reason) => {
                self.report.damaged.push(DamagedEntry { signature: *signature, reason });
                return Ok(None);
            }
        };
        let encoded = recoded.unwrap_or_else(|| Encoded::as_is(&bytes));
        self.bytes += encoded.length();
        let added = self.writer.as_mut().map_or(Ok(()), |writer| writer.add(signature, &encoded));
        added.map_err(|error| self.failed(error))?;
        Ok(Some(encoded.length()))
    }

    fn step(&mut self) {
        self.done += 1;
        (self.progress)(Progress { done: self.done, total: self.total.max(self.done), bytes: self.bytes });
    }

    pub(super) fn finish(mut self) -> Result<PackReport, CacheError> {
        if let Some(writer) = self.writer.take() {
            let written = writer.finish(self.store.options().trust.sign_with.as_ref());
            self.report.pack = Some(written.map_err(|error| self.failed(error))?);
        }
        Ok(self.report)
    }
}

/// What the store has; `None`: nothing of that signature.
fn from_store(
    store: &Store,
    compression: Option<Compression>,
    signature: &Signature,
) -> Result<Option<Ready>, CacheError> {
    Ok(match store.whole_entry(signature)? {
        layers::Found::Whole(bytes, trailer) => Some(ready(store, compression, bytes, &trailer)),
        layers::Found::Damaged(reason) => Some(Err(reason)),
        layers::Found::Absent => None,
    })
}

fn ready(store: &Store, compression: Option<Compression>, bytes: Buffer, trailer: &Trailer) -> Ready {
    let recoded = match compression {
        Some(compression) => Encoded::recoded(&bytes, trailer, compression, &store.options().trust)?,
        None => None,
    };
    Ok((bytes, recoded))
}
