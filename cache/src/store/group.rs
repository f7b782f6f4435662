//! Many puts made durable together. An fsync costs milliseconds, nearly all of it for the file system's journal,
//! so a group pays for two of them and not for two an entry: one when everything is written, before anything
//! has its name, and one for the names.

use std::io;

use objcache_signature::Signature;

use crate::entry::Encoded;
use crate::error::CacheError;
use crate::object::CompiledObject;
use crate::object_cache::ObjectCache;
use crate::store::Store;
use crate::store::directory::Directory;
use crate::store::entries::{self, Written};
use crate::store::journal::Size;

/// Entries that are made durable together, each with a file open.
const GROUP: usize = 128;

/// An entry that is written, synced or not, and has no name yet.
struct Unnamed<'a> {
    signature: Signature,
    object_bytes: u64,
    size: Size,
    written: Written<'a>,
}

impl Store {
    /// Offers many objects, as [`notify_object_compiled`](ObjectCache::notify_object_compiled) offers one.
    ///
    /// In a [durable](crate::StoreOptions::durable) store all of them survive a power cut once this returns. They are
    /// synced together, with the whole file system, which is many times cheaper than one after the other.
    ///
    /// # Errors
    /// As when one is offered; those offered before may have been taken.
    pub fn notify_objects_compiled(&self, compiled: &[CompiledObject<'_>]) -> Result<(), CacheError> {
        let taken = self.take_in_together(compiled);
        self.shared.health.untold().or(taken)
    }

    fn take_in_together(&self, compiled: &[CompiledObject<'_>]) -> Result<(), CacheError> {
        let directory = self.shared.writable().filter(|_| self.options().durable);
        let Some(directory) = directory else {
            return compiled.iter().try_for_each(|compiled| self.notify_object_compiled(compiled));
        };
        for group in compiled.chunks(GROUP) {
            let mut encoded = Vec::with_capacity(group.len());
            for compiled in group {
                let entry = self.encoded(compiled)?;
                encoded.extend(entry.map(|it| (compiled.signature, compiled.object.len() as u64, it)));
            }
            self.shared.sweep_once(directory);
            match self.publish_together(directory, &encoded) {
                Ok(()) => self.shared.health.io_worked(),
                Err(error) => {
                    self.shared.io_failed(format!("publication of {} entries", encoded.len()), error)?;
                }
            }
        }
        Ok(())
    }

    /// Publishes entries and makes them durable.
    pub(super) fn publish_together(
        &self,
        directory: &Directory,
        entries: &[(Signature, u64, Encoded<'_>)],
    ) -> io::Result<()> {
        let mut unnamed = Vec::with_capacity(entries.len());
        let written = self.write_together(directory, entries, &mut unnamed);
        if let Err(error) = written {
            let credit = |it: &Unnamed<'_>| self.shared.recorder.credit(it.size);
            unnamed.iter().for_each(credit);
            return Err(error);
        }
        let mut failed = Ok(());
        for entry in unnamed {
            match entry.written.name() {
                Ok(published) => {
                    self.published(directory, &entry.signature, entry.object_bytes, &published);
                    self.shared.trace(&entry.signature);
                }
                Err(error) => {
                    self.shared.recorder.credit(entry.size);
                    failed = Err(error);
                }
            }
        }
        directory.sync_all_names()?;
        failed
    }

    fn write_together<'a>(
        &self,
        directory: &'a Directory,
        entries: &[(Signature, u64, Encoded<'_>)],
        unnamed: &mut Vec<Unnamed<'a>>,
    ) -> io::Result<()> {
        for (signature, object_bytes, entry) in entries {
            let size = Size::one(entries::disk_bytes(entry.length()));
            let mut reserved = Ok(false);
            let reserve = || {
                reserved = self.reserve(directory, size);
                matches!(reserved, Ok(true))
            };
            match entries::write(directory, signature, entry, reserve) {
                Ok(Some(written)) => {
                    unnamed.push(Unnamed {
                        signature: *signature,
                        object_bytes: *object_bytes,
                        size,
                        written,
                    });
                }
                Ok(None) => {
                    reserved?;
                    self.found_no_room();
                }
                Err(error) => {
                    if matches!(reserved, Ok(true)) {
                        self.shared.recorder.credit(size);
                    }
                    return Err(error);
                }
            }
        }
        directory.sync_file_system()
    }
}
