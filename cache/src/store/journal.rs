//! The journal: puts and hits that the catalogue has not yet taken in, and the account of what the store takes.
//!
//! One small file that every process appends to, under a lock held for a few microseconds. Whoever is keeper
//! moves the events on into the catalogue. What is lost with a journal is statistics, never an object.
//!
//! The head is the account: what entries take, those being written included, and what all else may take until
//! it is looked at again. A put has its bytes charged here *before* it writes them, a removal is credited
//! *after* it, so the account is never below what is on the disk. It may be above: who is killed in between
//! leaves a charge behind, which the next tidying takes back.
//!
//! A header of 112 bytes, then events of 64. Each carries a checksum, so that a torn or damaged one is passed
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

use crate::clock::now_unix_us;
use crate::store::counters::Counter;
use crate::store::directory::{Directory, JOURNAL, Temporary, is_in_the_way};
use crate::store::lock_file::still_named;
use crate::store::patience::Patience;

/// The journal a keeper is working off. Left over when it dies; the next one begins with it.
pub(crate) const FOLDING: &str = "journal.folding";

const MAGIC: [u8; 8] = *b"objcjrn2";
const HEADER: usize = 112;
const HEADER_CHECKED: usize = HEADER - 8;
const EVENT: usize = 64;
const CHECKED: usize = 56;

/// The longest journal, in bytes: this part of what the store may take, within bounds. Beyond it nothing is
/// appended: nobody seems to be able to work it off.
const LONGEST_SHARE: u64 = 64;
const LONGEST: std::ops::RangeInclusive<u64> = 16 * 1024..=1024 * 1024;
/// A journal is due to be worked off at this part of its longest.
const DUE_SHARE: u64 = 4;

/// The longest that the journal of a store of `max_size` gets, in bytes.
pub(crate) fn longest(max_size: u64) -> u64 {
    (max_size / LONGEST_SHARE).clamp(*LONGEST.start(), *LONGEST.end())
}

/// How long a journal is due to be worked off, in bytes of events.
pub(crate) fn due(max_size: u64) -> u64 {
    longest(max_size) / DUE_SHARE
}

/// How long a keeper waits for the lock of the journal.
const KEEPERS_PATIENCE: Duration = Duration::from_millis(100);
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

/// Entries, and the bytes they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

impl Size {
    /// One entry.
    pub(crate) fn one(bytes: u64) -> Self {
        Self { bytes, entries: 1 }
    }

    pub(crate) fn is_zero(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            entries: self.entries.saturating_add(other.entries),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            entries: self.entries.saturating_sub(other.entries),
        }
    }

    fn clamp(self, lower: Self, upper: Self) -> Self {
        let within = |value: u64, lower: u64, upper: u64| value.max(lower).min(upper.max(lower));
        Self {
            bytes: within(self.bytes, lower.bytes, upper.bytes),
            entries: within(self.entries, lower.entries, upper.entries),
        }
    }
}

/// What the head of the journal tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Which account this is: one that is lost is begun anew, and knows nothing of what was charged before.
    pub(crate) account: u64,
    /// What entries take, those being written included.
    pub(crate) entries: Size,
    /// What all else may take, in bytes.
    pub(crate) overhead: u64,
    /// All that was ever charged, and credited: what happens during a measurement is the difference.
    pub(crate) charged: Size,
    pub(crate) credited: Size,
    /// When the store was last measured; 0: never.
    pub(crate) tidied_unix_us: u64,
    /// Which list of victims is in use, how long it is, and which of them is the next.
    pub(crate) victims: Position,
}

/// A place in a list of victims.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) list: u64,
    pub(crate) length: u64,
    pub(crate) next: u64,
}

impl Header {
    /// Nobody knows what the store takes: above any limit, so that it is measured.
    const UNKNOWN_BYTES: u64 = 1 << 62;

    fn unknown() -> Self {
        let entries = Size { bytes: Self::UNKNOWN_BYTES, entries: 0 };
        Self { account: now_unix_us(), entries, ..Self::default() }
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.entries.bytes >= Self::UNKNOWN_BYTES / 2
    }

    /// What the whole store takes at most, in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.entries.bytes.saturating_add(self.overhead)
    }

    pub(crate) fn charge(&mut self, size: Size) {
        self.entries = self.entries.plus(size);
        self.charged = self.charged.plus(size);
    }

    fn credit(&mut self, size: Size) {
        self.entries = self.entries.minus(size);
        self.credited = self.credited.plus(size);
    }

    fn read(file: &File) -> Self {
        let mut bytes = [0; HEADER];
        if file.read_exact_at(&mut bytes, 0).is_err() || !is_header(&bytes) {
            return Self::unknown();
        }
        let fields = std::array::from_fn(|field| number(&bytes, 8 + 8 * field));
        let [
            taken,
            entries,
            overhead,
            charged,
            charges,
            credited,
            credits,
            tidied,
            list,
            length,
            next,
            account,
        ] = fields;
        Self {
            account,
            entries: Size { bytes: taken, entries },
            overhead,
            charged: Size { bytes: charged, entries: charges },
            credited: Size { bytes: credited, entries: credits },
            tidied_unix_us: tidied,
            victims: Position { list, length, next },
        }
    }

    fn write(&self, file: &File) -> io::Result<()> {
        let Self { account, entries, overhead, charged, credited, tidied_unix_us, victims } = *self;
        let fields = [
            entries.bytes,
            entries.entries,
            overhead,
            charged.bytes,
            charged.entries,
            credited.bytes,
            credited.entries,
            tidied_unix_us,
            victims.list,
            victims.length,
            victims.next,
            account,
        ];
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        for (place, field) in bytes[8..HEADER_CHECKED].as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *place = field.to_le_bytes();
        }
        let check = checksum(&bytes[..HEADER_CHECKED]);
        bytes[HEADER_CHECKED..].copy_from_slice(&check);
        file.write_all_at(&bytes, 0)
    }
}

fn is_header(bytes: &[u8; HEADER]) -> bool {
    bytes[..8] == MAGIC && bytes[HEADER_CHECKED..] == checksum(&bytes[..HEADER_CHECKED])
}

/// The journal after an append.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    pub(crate) header: Header,
    /// Bytes of events.
    pub(crate) length: u64,
}

/// What a process has to say.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) events: Vec<Event>,
    /// Which account the rest is about; 0: the one there is.
    pub(crate) account: u64,
    /// What was removed.
    pub(crate) credit: Size,
    /// Bytes that were made beside entries: directories.
    pub(crate) overhead: u64,
}

impl News {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.credit.is_zero() && self.overhead == 0
    }
}

/// Writes down `news`, then lets `change` see the head and change it. The journal gets no longer than
/// `longest`. `None`: another has it locked, for longer than `patience`.
pub(crate) fn append<T>(
    directory: &Directory,
    news: &News,
    longest: u64,
    patience: Duration,
    change: impl FnOnce(&mut Header) -> T,
) -> io::Result<Option<(State, T)>> {
    let Some(file) = lock_within(directory, patience)? else { return Ok(None) };
    let found = Header::read(&file);
    let mut length = whole_events(file.length);
    if length < longest && !news.events.is_empty() {
        let bytes: Vec<u8> = news.events.iter().flat_map(Event::encode).collect();
        file.write_all_at(&bytes, HEADER as u64 + length)?;
        length += bytes.len() as u64;
    }
    let mut header = found;
    if [0, header.account].contains(&news.account) {
        header.credit(news.credit);
        header.overhead = header.overhead.saturating_add(news.overhead);
    }
    let changed = change(&mut header);
    if header != found || header.is_unknown() {
        header.write(&file)?;
    }
    Ok(Some((State { header, length }, changed)))
}

/// The journal, locked.
struct Locked {
    file: File,
    // In bytes, when it was locked: nobody else changes it.
    length: u64,
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // By hand, because a child forked meanwhile would hold the lock on with its copy of the descriptor.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Opened for each use, so that it may be removed at any time. `None`: another has it locked.
fn lock(directory: &Directory) -> io::Result<Option<Locked>> {
    lock_within(directory, Duration::ZERO)
}

/// Waits for it, but not for long when nothing happens: whoever holds it may be stopped.
fn lock_within(directory: &Directory, patience: Duration) -> io::Result<Option<Locked>> {
    let mut patience = Patience::of(patience);
    for _ in 0..MOST_REMOVALS {
        let (file, identity) = match directory.open_or_create(JOURNAL) {
            Err(error) if is_in_the_way(&error) => {
                directory.move_away(JOURNAL)?;
                continue;
            }
            opened => opened?,
        };
        // Polled, because a wait in the kernel has no bound.
        // Other errors come from file systems without locks: there two processes may lose each other's events.
        while let Err(Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if !patience.pause(&file) {
                return Ok(None);
            }
        }
        let mut locked = Locked { file, length: 0 };
        // It may have been removed before it was locked.
        if let Some(stat) = still_named(directory, JOURNAL, identity)? {
            locked.length = stat.st_size as u64;
            return Ok(Some(locked));
        }
    }
    Ok(None)
}

/// For the keeper, who can wait a little.
fn lock_patiently(directory: &Directory) -> io::Result<Option<Locked>> {
    lock_within(directory, KEEPERS_PATIENCE)
}

/// Bytes of whole events in a journal of `length` bytes. What a torn append left at the end is written over.
fn whole_events(length: u64) -> u64 {
    let length = length.saturating_sub(HEADER as u64);
    length - length % EVENT as u64
}

fn events_length(file: &File) -> io::Result<u64> {
    Ok(whole_events(file.metadata()?.len()))
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
    let length = events_length(file)?.min(2 * LONGEST.end()) as usize;
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
    let mut bytes = vec![0; events_length(file)?.min(2 * LONGEST.end()) as usize];
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
    let length = whole_events(journal.length).min(2 * LONGEST.end());
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
pub(crate) fn compact(directory: &Directory, max_size: u64) -> io::Result<()> {
    let due = due(max_size);
    let Some(journal) = lock_patiently(directory)? else { return Ok(()) };
    if whole_events(journal.length) < due {
        return Ok(());
    }
    let header = Header::read(&journal);
    let events = Summary::of(read_events(&journal)?).into_events(due as usize / EVENT / 2);
    let mut copy = Temporary::create(directory)?;
    header.write(&copy.file)?;
    let bytes: Vec<u8> = events.iter().flat_map(Event::encode).collect();
    copy.file.write_all_at(&bytes, HEADER as u64)?;
    // Whoever waits for the lock of the old one sees that it has lost its name.
    Ok(copy.rename_to(JOURNAL.as_bytes())?)
}

/// For a fresh store: begins a journal, unless there is one.
pub(crate) fn begin(directory: &Directory, overhead: u64) -> io::Result<()> {
    match lock(directory)? {
        Some(file) if file.length == 0 => {
            Header { account: now_unix_us(), overhead, ..Header::default() }.write(&file)
        }
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
        return Ok(State { header: Header::unknown(), length: 0 });
    };
    // Read without the lock, so it may be half written just now.
    let header = (0..3).map(|_| Header::read(&file)).find(|header| !header.is_unknown());
    Ok(State { header: header.unwrap_or_else(Header::unknown), length: events_length(&file)? })
}

/// The account as it is now.
pub(crate) fn header(directory: &Directory) -> io::Result<Header> {
    Ok(state(directory)?.header)
}

/// An account that is too high by less than this part of what the store may take is left alone.
const TOLERATED_SHARE: u64 = 64;

/// What was found when the store was looked at.
pub(crate) struct Measured {
    /// The account before that began.
    pub(crate) found: Header,
    /// Files being written, seen before the entries were.
    pub(crate) in_flight: Size,
    pub(crate) entries: Size,
    pub(crate) overhead: u64,
    /// What the store may take, in bytes.
    pub(crate) max_size: u64,
    pub(crate) now_unix_us: u64,
}

/// For the keeper: corrects the account by what was measured. Returns it.
///
/// Others go on meanwhile. What they charged may have been seen or not, and so with what they credited: that
/// gives bounds, and the account is put within them.
pub(crate) fn correct(directory: &Directory, measured: &Measured) -> io::Result<Header> {
    let Some(file) = lock_patiently(directory)? else { return header(directory) };
    let mut header = Header::read(&file);
    let since = |now: Size, then: Size| match header.account == measured.found.account {
        true => now.minus(then),
        // Begun anew meanwhile.
        false => now,
    };
    let (charged, credited) =
        (since(header.charged, measured.found.charged), since(header.credited, measured.found.credited));
    let upper = measured.entries.plus(measured.in_flight).plus(charged);
    let lower = measured.entries.minus(credited);
    let share = |of: u64| of / TOLERATED_SHARE;
    let tolerated = Size { bytes: share(measured.max_size), entries: share(upper.entries) };
    let before = header.entries;
    header.entries = match header.is_unknown() {
        true => upper,
        false => before.clamp(lower, upper.plus(tolerated)),
    };
    if header.entries.minus(before).is_zero() && header.entries != before {
        // What was taken back may have been removed by somebody who has not said so yet, and must not be credited
        // again: to say it in time, it must be said of this account.
        header.account = header.account.wrapping_add(1);
    }
    header.overhead = measured.overhead;
    header.tidied_unix_us = measured.now_unix_us;
    header.write(&file)?;
    Ok(header)
}

/// For the keeper: puts `list` to use.
pub(crate) fn use_victims(
    directory: &Directory,
    length: u64,
    install: impl FnOnce(u64) -> io::Result<()>,
) -> io::Result<()> {
    let Some(file) = lock_patiently(directory)? else { return Ok(()) };
    let mut header = Header::read(&file);
    let list = header.victims.list.wrapping_add(1);
    install(list)?;
    header.victims = Position { list, length, next: 0 };
    header.write(&file)
}

/// What the events say of one entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) hits: u64,
    pub(crate) last_used_unix_us: u64,
    /// It was put: what the catalogue knows of its file may be out of date.
    pub(crate) put: bool,
}

impl Use {
    /// The entry was put, or is only named: it was removed.
    pub(crate) fn may_have_changed(&self) -> bool {
        self.put || self.hits == 0
    }
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

    fn place() -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        (place, directory)
    }

    fn size(bytes: u64) -> Size {
        Size { bytes, entries: bytes / 100 }
    }

    fn change(directory: &Directory, charge: u64, credit: u64) {
        let news = News { credit: size(credit), ..News::default() };
        let charge = |header: &mut Header| header.charge(size(charge));
        append(directory, &news, 1024, Duration::ZERO, charge).expect("written").expect("free");
    }

    fn measure(directory: &Directory, found: Header, seen: u64) -> u64 {
        let measured = Measured {
            found,
            in_flight: Size::default(),
            entries: size(seen),
            overhead: 7,
            max_size: 0,
            now_unix_us: 9,
        };
        let header = correct(directory, &measured).expect("noted");
        assert_eq!((header.overhead, header.tidied_unix_us), (7, 9));
        assert_eq!(header.entries.entries, header.entries.bytes / 100);
        header.entries.bytes
    }

    #[test]
    fn what_happens_during_a_measurement_gives_bounds() {
        let (_place, directory) = place();
        begin(&directory, 0).expect("begun");
        change(&directory, 5000, 0);
        let found = || header(&directory).expect("read");
        let account = found().account;
        // Somebody was killed: 3000 are there. 1000 more were charged meanwhile, seen or not.
        let before = found();
        change(&directory, 1000, 0);
        assert_eq!(measure(&directory, before, 3000), 4000);
        assert_ne!(
            found().account,
            account,
            "who removed what is missing has not said so, and need not any more"
        );
        let late = News { account, credit: size(1000), ..News::default() };
        append(&directory, &late, 1024, Duration::ZERO, |_| ()).expect("written").expect("free");
        assert_eq!(found().entries, size(4000));
        // Of the 4000 in the account 500 are removed meanwhile, seen or not.
        let before = found();
        change(&directory, 0, 500);
        assert_eq!(measure(&directory, before, 4000), 3500);
        assert_eq!(measure(&directory, found(), 3500), 3500);
        // Somebody else put things there.
        assert_eq!(measure(&directory, found(), 9000), 9000);
    }

    #[test]
    fn what_nobody_knows_is_what_was_seen_and_charged_since() {
        let (_place, directory) = place();
        begin(&directory, 0).expect("begun");
        restart(&directory).expect("forgotten");
        let before = header(&directory).expect("read");
        assert!(before.is_unknown());
        change(&directory, 1000, 0);
        assert!(header(&directory).expect("read").is_unknown());
        assert_eq!(measure(&directory, before, 5000), 6000);
    }
}
