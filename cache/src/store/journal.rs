//! The journal: puts and hits that the catalogue has not yet taken in, and about how much the store takes.
//!
//! One small file that every process appends to, under a lock held for a few microseconds. Nobody waits for
//! it: when it is locked, the events stay in the memory of their process until the next time. Whoever is
//! keeper moves the events on into the catalogue. What is lost with a journal is statistics, never an object.
//!
//! A header of 32 bytes, then events of 64. Each carries a checksum, so that a torn or damaged one is passed
//! over. Integers are little-endian.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use objcache_signature::Signature;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::store::counters::Counter;
use crate::store::directory::{Directory, JOURNAL, Temporary};
use crate::store::lock_file::leads_to;

/// The journal a keeper is working off. Left over when it dies; the next one begins with it.
pub(crate) const FOLDING: &str = "journal.folding";

const MAGIC: [u8; 8] = *b"objcjrn1";
const HEADER: usize = 32;
const EVENT: usize = 64;
const CHECKED: usize = 56;

/// A journal that long is due to be worked off, in bytes.
pub(crate) const DUE: u64 = 256 * 1024;
/// Beyond this nothing is appended: nobody seems to be able to work it off.
const LONGEST: u64 = 1024 * 1024;
/// How often a keeper tries to lock the journal, and how long it pauses in between.
const PATIENCE: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);
/// So many times in a row the journal may be removed between opening and locking it.
const MOST_REMOVALS: u32 = 100;

/// Something that happened to an entry or a counter. Times are µs since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Put { signature: Signature, at: u64 },
    Hits { signature: Signature, count: u64, at: u64 },
    Count { counter: Counter, by: u64 },
}

impl Event {
    fn encode(&self) -> [u8; EVENT] {
        let (kind, number, value, at, signature) = match self {
            Self::Put { signature, at } => (1, 0, 0, *at, *signature.as_bytes()),
            Self::Hits { signature, count, at } => (2, 0, *count, *at, *signature.as_bytes()),
            Self::Count { counter, by } => (3, counter.number(), *by, 0, [0; 32]),
        };
        let mut bytes = [0; EVENT];
        bytes[0] = kind;
        bytes[1] = number;
        bytes[8..16].copy_from_slice(&u64::to_le_bytes(value));
        bytes[16..24].copy_from_slice(&u64::to_le_bytes(at));
        bytes[24..CHECKED].copy_from_slice(&signature);
        let check = checksum(&bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&check);
        bytes
    }

    fn decode(bytes: &[u8; EVENT]) -> Option<Self> {
        if bytes[CHECKED..] != checksum(&bytes[..CHECKED]) {
            return None;
        }
        let signature: [u8; 32] = bytes[24..CHECKED].try_into().ok()?;
        let signature = Signature::from_bytes(signature);
        let (value, at) = (number(bytes, 8), number(bytes, 16));
        match bytes[0] {
            1 => Some(Self::Put { signature, at }),
            2 => Some(Self::Hits { signature, count: value, at }),
            3 => Some(Self::Count { counter: Counter::from_number(bytes[1])?, by: value }),
            _ => None,
        }
    }
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let mut check = [0; 8];
    check.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    check
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|field| field.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// What the head of the journal tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// About what the store takes, in bytes: exact after each tidying, puts added since.
    pub(crate) total_bytes: u64,
    /// When the store was last tidied; 0: never.
    pub(crate) tidied_unix_us: u64,
}

impl Header {
    /// Nobody knows what the store takes: above any limit, so that it is measured. Puts are added even to
    /// this, so that those during the measurement can be told.
    const UNKNOWN: Self = Self { total_bytes: 1 << 62, tidied_unix_us: 0 };
    const EMPTY: Self = Self { total_bytes: 0, tidied_unix_us: 0 };

    fn read(file: &File) -> Self {
        let mut bytes = [0; HEADER];
        if file.read_exact_at(&mut bytes, 0).is_err() || !is_header(&bytes) {
            return Self::UNKNOWN;
        }
        Self { total_bytes: number(&bytes, 8), tidied_unix_us: number(&bytes, 16) }
    }

    fn write(&self, file: &File) -> io::Result<()> {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.total_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.tidied_unix_us.to_le_bytes());
        let check = checksum(&bytes[..24]);
        bytes[24..].copy_from_slice(&check);
        file.write_all_at(&bytes, 0)
    }
}

fn is_header(bytes: &[u8; HEADER]) -> bool {
    bytes[..8] == MAGIC && bytes[24..] == checksum(&bytes[..24])
}

/// The journal after an append.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    pub(crate) header: Header,
    /// Bytes of events.
    pub(crate) length: u64,
}

/// Appends `events`, and adds `put_bytes` to what the store takes. `None`: another process has it locked.
pub(crate) fn append(directory: &Directory, events: &[Event], put_bytes: u64) -> io::Result<Option<State>> {
    let Some(file) = lock(directory)? else { return Ok(None) };
    let mut header = Header::read(&file);
    let mut length = events_length(&file)?;
    if length < LONGEST && !events.is_empty() {
        let bytes: Vec<u8> = events.iter().flat_map(Event::encode).collect();
        file.write_all_at(&bytes, HEADER as u64 + length)?;
        length += bytes.len() as u64;
    }
    if put_bytes != 0 || header == Header::UNKNOWN {
        header.total_bytes = header.total_bytes.saturating_add(put_bytes);
        header.write(&file)?;
    }
    Ok(Some(State { header, length }))
}

/// The journal, locked.
struct Locked(File);

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // By hand, because a child forked meanwhile would hold the lock on with its copy of the descriptor.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Opened for each use, so that it may be removed at any time. `None`: another has it locked.
fn lock(directory: &Directory) -> io::Result<Option<Locked>> {
    for _ in 0..MOST_REMOVALS {
        let file = directory.open_or_create(JOURNAL)?;
        // Other errors come from file systems without locks: there two processes may lose each other's events.
        if let Err(Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            return Ok(None);
        }
        // It may have been removed before it was locked.
        let file = Locked(file);
        if leads_to(directory, JOURNAL, &file)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// For the keeper, who can wait a little.
fn lock_patiently(directory: &Directory) -> io::Result<Option<Locked>> {
    for _ in 0..PATIENCE {
        if let Some(file) = lock(directory)? {
            return Ok(Some(file));
        }
        std::thread::sleep(PAUSE);
    }
    lock(directory)
}

/// Bytes of whole events. What a torn append left at the end is written over.
fn events_length(file: &File) -> io::Result<u64> {
    let length = file.metadata()?.len().saturating_sub(HEADER as u64);
    Ok(length - length % EVENT as u64)
}

/// Everything not yet in the catalogue, without taking it away.
pub(crate) fn read(directory: &Directory) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    for name in [FOLDING, JOURNAL] {
        if let Some(file) = directory.open_file(name)? {
            events.extend(read_events(&file)?);
        }
    }
    Ok(events)
}

fn read_events(file: &File) -> io::Result<Vec<Event>> {
    let length = events_length(file)?.min(2 * LONGEST) as usize;
    let mut bytes = vec![0; length];
    match file.read_exact_at(&mut bytes, HEADER as u64) {
        Ok(()) => {}
        // Emptied while we looked: its events are in the catalogue now.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    Ok(bytes.as_chunks::<EVENT>().0.iter().filter_map(Event::decode).collect())
}

/// Which of the journal's files cannot be read as a whole. A torn end is none of that: it is written over.
pub(crate) fn damaged(directory: &Directory) -> io::Result<Vec<&'static str>> {
    // Held, because a header that is being written looks damaged.
    let _locked = lock_patiently(directory)?;
    let mut damaged = Vec::new();
    for name in [FOLDING, JOURNAL] {
        let Some(file) = directory.open_file(name)? else { continue };
        if !file.metadata()?.is_file() || file.metadata()?.len() > 0 && !is_whole(&file)? {
            damaged.push(name);
        }
    }
    Ok(damaged)
}

fn is_whole(file: &File) -> io::Result<bool> {
    let mut head = [0; HEADER];
    match file.read_exact_at(&mut head, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    let mut bytes = vec![0; events_length(file)?.min(2 * LONGEST) as usize];
    file.read_exact_at(&mut bytes, HEADER as u64)?;
    let sealed = |event: &[u8; EVENT]| event[CHECKED..] == checksum(&event[..CHECKED]);
    Ok(is_header(&head) && bytes.as_chunks::<EVENT>().0.iter().all(sealed))
}

/// For the keeper: hands all events to `fold`, then takes them away.
///
/// If the keeper dies in between, the next one folds the same events again: counts may then be too high, but
/// nothing is lost.
pub(crate) fn work_off<E: From<io::Error>>(
    directory: &Directory,
    mut fold: impl FnMut(Vec<Event>) -> Result<(), E>,
) -> Result<(), E> {
    if let Some(left_over) = directory.open_file(FOLDING)? {
        fold(read_events(&left_over)?)?;
        directory.remove_file(FOLDING.as_bytes())?;
    }
    if set_aside(directory)?
        && let Some(file) = directory.open_file(FOLDING)?
    {
        fold(read_events(&file)?)?;
        directory.remove_file(FOLDING.as_bytes())?;
    }
    Ok(())
}

/// Moves the events into the file that is worked off. `false`: there are none, or the journal is locked.
fn set_aside(directory: &Directory) -> io::Result<bool> {
    let Some(journal) = lock_patiently(directory)? else { return Ok(false) };
    let length = events_length(&journal)?.min(2 * LONGEST);
    if length == 0 {
        return Ok(false);
    }
    let mut bytes = vec![0; HEADER + length as usize];
    journal.read_exact_at(&mut bytes, 0)?;
    let mut copy = Temporary::create(directory)?;
    io::Write::write_all(&mut copy.file, &bytes)?;
    copy.rename_to(FOLDING.as_bytes())?;
    journal.set_len(HEADER as u64)?;
    Ok(true)
}

/// For the keeper of a store without a catalogue: adds up what there is of each entry. When that is too much,
/// the uses longest ago are forgotten.
pub(crate) fn compact(directory: &Directory) -> io::Result<()> {
    let Some(journal) = lock_patiently(directory)? else { return Ok(()) };
    if events_length(&journal)? < DUE {
        return Ok(());
    }
    let header = Header::read(&journal);
    let events = Summary::of(read_events(&journal)?).into_events(DUE as usize / EVENT / 2);
    let mut copy = Temporary::create(directory)?;
    header.write(&copy.file)?;
    let bytes: Vec<u8> = events.iter().flat_map(Event::encode).collect();
    copy.file.write_all_at(&bytes, HEADER as u64)?;
    // Whoever waits for the lock of the old one sees that it has lost its name.
    Ok(copy.rename_to(JOURNAL.as_bytes())?)
}

/// For a fresh store: begins a journal, unless there is one.
pub(crate) fn begin(directory: &Directory) -> io::Result<()> {
    match lock(directory)? {
        Some(file) if file.metadata()?.len() == 0 => Header::EMPTY.write(&file),
        _ => Ok(()),
    }
}

/// For a store that is being emptied: forgets everything. What the store takes is unknown then.
pub(crate) fn restart(directory: &Directory) -> io::Result<()> {
    directory.remove_file(JOURNAL.as_bytes())?;
    directory.remove_file(FOLDING.as_bytes())?;
    Ok(())
}

/// The journal as it is now; one that is not there tells nothing.
pub(crate) fn state(directory: &Directory) -> io::Result<State> {
    let Some(file) = directory.open_file(JOURNAL)? else {
        return Ok(State { header: Header::UNKNOWN, length: 0 });
    };
    // Read without the lock, so it may be half written just now.
    let header = (0..3).map(|_| Header::read(&file)).find(|header| *header != Header::UNKNOWN);
    Ok(State { header: header.unwrap_or(Header::UNKNOWN), length: events_length(&file)? })
}

/// What the store was last known to take.
pub(crate) fn header(directory: &Directory) -> io::Result<Header> {
    Ok(state(directory)?.header)
}

/// For the keeper: corrects the header after a tidying that found `found` in it at its beginning.
///
/// Puts of others meanwhile stay added.
pub(crate) fn tidied(directory: &Directory, found: Header, now: Header) -> io::Result<()> {
    let Some(file) = lock_patiently(directory)? else { return Ok(()) };
    let meanwhile = Header::read(&file).total_bytes.saturating_sub(found.total_bytes);
    Header { total_bytes: now.total_bytes.saturating_add(meanwhile), ..now }.write(&file)
}

/// What the events say of one entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) hits: u64,
    pub(crate) last_used_unix_us: u64,
    /// It was put: what the catalogue knows of its file may be out of date.
    pub(crate) put: bool,
}

/// Events, added up.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) uses: HashMap<Signature, Use>,
    pub(crate) counts: HashMap<Counter, u64>,
}

impl Summary {
    pub(crate) fn of(events: impl IntoIterator<Item = Event>) -> Self {
        let mut summary = Self::default();
        for event in events {
            summary.add(event);
        }
        summary
    }

    /// The other way round: one event per entry and counter, `limit` entries at most.
    fn into_events(self, limit: usize) -> Vec<Event> {
        let mut uses: Vec<(Signature, Use)> = self.uses.into_iter().collect();
        uses.sort_unstable_by_key(|(signature, used)| {
            (std::cmp::Reverse(used.last_used_unix_us), *signature)
        });
        uses.truncate(limit);
        let uses = uses.into_iter().map(|(signature, used)| Event::Hits {
            signature,
            count: used.hits,
            at: used.last_used_unix_us,
        });
        let counts = self.counts.into_iter().map(|(counter, by)| Event::Count { counter, by });
        uses.chain(counts).collect()
    }

    fn add(&mut self, event: Event) {
        match event {
            Event::Put { signature, at } => {
                let entry = self.uses.entry(signature).or_default();
                entry.put = true;
                entry.last_used_unix_us = entry.last_used_unix_us.max(at);
            }
            Event::Hits { signature, count, at } => {
                let entry = self.uses.entry(signature).or_default();
                entry.hits = entry.hits.saturating_add(count);
                entry.last_used_unix_us = entry.last_used_unix_us.max(at);
            }
            Event::Count { counter, by } => {
                let count = self.counts.entry(counter).or_default();
                *count = count.saturating_add(by);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_during_a_measurement_stay_added_to_what_was_measured() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        let put = |bytes| append(&directory, &[], bytes).expect("written").expect("free").header.total_bytes;
        for known in [true, false] {
            match known {
                true => begin(&directory).expect("begun"),
                false => restart(&directory).expect("forgotten"),
            }
            put(1000);
            let found = header(&directory).expect("read");
            assert_eq!(put(200), found.total_bytes + 200);
            tidied(&directory, found, Header { total_bytes: 5000, tidied_unix_us: 7 }).expect("noted");
            let now = Header { total_bytes: 5200, tidied_unix_us: 7 };
            assert_eq!(header(&directory).expect("read"), now, "known before: {known}");
        }
    }
}
