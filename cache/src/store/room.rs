//! Room for what is put. The bound on what a store takes is true at every instant because a put has its bytes
//! charged to the account, under the journal's lock of microseconds, before it writes them.
//!
//! A put that finds no room makes some: it removes what the last tidying said goes next, just enough of it. If
//! there is none to be had (all is pinned, or others take the room at once), the offer is not taken and counted.
//! It never waits for the keeper. It waits for whoever has the journal locked as long as that process does
//! something; when it is stopped, the offer is not taken, which has a reason of its own.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use objcache_signature::Signature;

use crate::entry::Encoded;
use crate::error::{CacheError, Reason};
use crate::store::counters::Counter;
use crate::store::directory::Directory;
use crate::store::entries::Published;
use crate::store::journal::{self, Header, Measured, Size, State};
use crate::store::victims::{self, Victim};
use crate::store::{Shared, Store, StoreOptions, entries, keeper, tidy};

/// How often a put that finds no room makes some: another may be faster to use it.
const TRIES: u32 = 16;
/// How long a put waits for the lock of the journal while its holder does nothing: it is stopped.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a put is told that asks for room.
enum Answer {
    Granted,
    /// When these are gone, ask again.
    Remove(Vec<Victim>),
    /// When there is room for so much more, ask again.
    NoList(Size),
}

impl Store {
    /// Publishes an entry, if there is room for it. Returns whether it did.
    pub(super) fn publish(
        &self,
        directory: &Directory,
        signature: &Signature,
        entry: &Encoded<'_>,
        object_bytes: u64,
    ) -> io::Result<bool> {
        match self.place(directory, signature, entry)? {
            Some(published) => {
                self.published(directory, signature, object_bytes, &published);
                published.synced.map(|()| true)
            }
            None => {
                self.found_no_room();
                Ok(false)
            }
        }
    }

    /// Gives an entry its name, if there is room for it.
    pub(super) fn place(
        &self,
        directory: &Directory,
        signature: &Signature,
        entry: &Encoded<'_>,
    ) -> io::Result<Option<Published>> {
        let shared = &self.shared;
        let want = Size::one(entries::disk_bytes(entry.length()));
        let mut reserved = Ok(false);
        let reserve = || {
            reserved = self.reserve(directory, want);
            matches!(reserved, Ok(true))
        };
        let published = entries::publish(directory, signature, entry, shared.options.durable, reserve);
        match &published {
            Err(_) if matches!(reserved, Ok(true)) => shared.recorder.credit(want),
            // That the account cannot be read or written is no lack of room.
            Ok(None) => drop(reserved?),
            _ => {}
        }
        published
    }

    /// Notes an entry that has its name.
    pub(super) fn published(
        &self,
        directory: &Directory,
        signature: &Signature,
        object_bytes: u64,
        published: &Published,
    ) {
        let shared = &self.shared;
        shared.look_for_a_trace(directory);
        shared.recorder.put(signature, object_bytes);
        shared.recorder.replaced(published.replaced, published.made);
    }

    pub(super) fn found_no_room(&self) {
        if self.shared.journal_is_stuck.load(Ordering::Relaxed) {
            return self.shared.degrade_quietly(CacheError::new(Reason::JournalStuck, "offer"));
        }
        self.shared.recorder.counters.add(Counter::Full, 1);
        self.shared.health.owe(CacheError::new(Reason::NoRoom, "offer"));
        // Perhaps there is some to be made all the same.
        self.tidier.start(&self.shared);
    }

    /// Charges `want` to the account, or says no.
    pub(super) fn reserve(&self, directory: &Directory, want: Size) -> io::Result<bool> {
        let shared = &self.shared;
        for _ in 0..TRIES {
            // One that has waited in vain knows better the next time.
            let patience = match shared.journal_is_stuck.load(Ordering::Relaxed) {
                true => Duration::ZERO,
                false => PATIENCE,
            };
            let answer = shared.recorder.append(directory, &shared.options, patience, |header| {
                answer(directory, &shared.options, header, want)
            })?;
            shared.journal_is_stuck.store(answer.is_none(), Ordering::Relaxed);
            // Nobody can tell whether there is room.
            let Some((state, answer)) = answer else { return Ok(false) };
            self.tidy_if(directory, &state);
            match answer {
                Answer::Granted => return Ok(true),
                Answer::Remove(victims) => shared.remove_victims(directory, &victims),
                Answer::NoList(lacking) => {
                    let victims = victims::sample(directory, lacking);
                    if victims.is_empty() && !self.measure(directory) {
                        return Ok(false);
                    }
                    shared.remove_victims(directory, &victims);
                }
            }
        }
        Ok(false)
    }

    /// Charges bytes that are no entry's. Nothing is removed for them: `false` when there is no room.
    pub(super) fn reserve_beside(&self, directory: &Directory, bytes: u64) -> bool {
        let options = &self.shared.options;
        let appended = self.shared.recorder.append(directory, options, PATIENCE, |header| {
            let fits = header.is_unknown() || lacking(header, options, Size { bytes, entries: 0 }).bytes == 0;
            if fits {
                header.overhead = header.overhead.saturating_add(bytes);
            }
            fits
        });
        let owe = |error| self.shared.health.owe(error);
        match appended {
            Ok(Some((state, fits))) => {
                self.tidy_if(directory, &state);
                if !fits {
                    owe(CacheError::new(Reason::NoRoom, "offer"));
                }
                fits
            }
            Ok(None) => {
                owe(CacheError::new(Reason::JournalStuck, "offer"));
                false
            }
            Err(error) => {
                owe(CacheError::io("journal", error));
                false
            }
        }
    }

    /// For an account that says full when there is nothing to remove: few entries, or all of them pinned.
    /// Returns whether it was wrong.
    fn measure(&self, directory: &Directory) -> bool {
        let measure = || {
            let measurement = Measurement::begin(directory)?;
            let before = measurement.found().total_bytes();
            let entries = entries::size(directory)?;
            Ok::<_, io::Error>(
                measurement.end(directory, &self.shared.options, entries)?.total_bytes() < before,
            )
        };
        measure().unwrap_or(false)
    }

    pub(super) fn tidy_if(&self, directory: &Directory, state: &State) {
        if self.shared.is_due(directory, state) {
            self.tidier.start(&self.shared);
        }
    }
}

fn answer(directory: &Directory, options: &StoreOptions, header: &mut Header, want: Size) -> Answer {
    let lacking = lacking(header, options, want);
    // While nobody knows what the store takes, puts go on: a tidying is on its way that measures it.
    if header.is_unknown() || lacking.is_zero() {
        header.charge(want);
        return Answer::Granted;
    }
    let victims = victims::take(directory, header, lacking);
    if victims.is_empty() { Answer::NoList(lacking) } else { Answer::Remove(victims) }
}

/// What is lacking for `want` more.
fn lacking(header: &Header, options: &StoreOptions, want: Size) -> Size {
    let after = header.entries.plus(want);
    Size {
        bytes: after.bytes.saturating_add(header.overhead).saturating_sub(options.max_size),
        entries: after.entries.saturating_sub(options.max_entries.unwrap_or(u64::MAX)),
    }
}

impl Shared {
    /// Removes victims; those that were pinned meanwhile stay. What was removed is credited with what this
    /// process writes down next.
    pub(super) fn remove_victims(&self, directory: &Directory, victims: &[Victim]) {
        for victim in victims {
            if let Ok(true) = self.remove_victim(directory, &victim.signature) {
                self.recorder.evicted(&victim.signature);
            }
        }
    }

    /// Removes an entry, unless it is pinned by now.
    pub(super) fn remove_victim(&self, directory: &Directory, signature: &Signature) -> io::Result<bool> {
        let is_pinned = || keeper::is_pinned(directory, signature);
        if is_pinned() {
            return Ok(false);
        }
        self.removed(entries::remove_unless(directory, signature, is_pinned)?)
    }

    /// Removes an entry. What it took is credited with what this process writes down next.
    pub(super) fn remove_entry(&self, directory: &Directory, signature: &Signature) -> io::Result<bool> {
        self.removed(entries::remove(directory, signature)?)
    }

    fn removed(&self, freed: Option<u64>) -> io::Result<bool> {
        if let Some(bytes) = freed {
            self.recorder.credit(Size::one(bytes));
        }
        Ok(freed.is_some())
    }
}

/// A look at the whole store, to correct the account by. It begins before the entries are listed.
pub(super) struct Measurement {
    found: Header,
    in_flight: Size,
}

impl Measurement {
    pub(super) fn begin(directory: &Directory) -> io::Result<Self> {
        let found = journal::header(directory)?;
        Ok(Self { found, in_flight: entries::in_flight(directory)? })
    }

    pub(super) fn found(&self) -> &Header {
        &self.found
    }

    /// Writes down what entries take and all else may take.
    pub(super) fn end(
        self,
        directory: &Directory,
        options: &StoreOptions,
        entries: Size,
    ) -> io::Result<Header> {
        let measured = Measured {
            found: self.found,
            in_flight: self.in_flight,
            entries,
            overhead: tidy::overhead(directory, options)?,
            max_size: options.max_size,
            now_unix_us: crate::clock::now_unix_us(),
        };
        journal::correct(directory, &measured)
    }
}
