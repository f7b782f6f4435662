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

mod account;
mod correct;
mod event;
mod summary;

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use self::account::{HEADER, is_header};
pub(crate) use self::account::{Header, Position, Size};
pub(crate) use self::correct::{Measured, correct};
use self::event::EVENT;
pub(crate) use self::event::Event;
pub(crate) use self::summary::{Summary, Use};
use crate::clock::now_unix_us;
use crate::store::directory::{Directory, JOURNAL, Temporary, is_in_the_way};
use crate::store::lock_file::still_named;
use crate::store::patience::Patience;

/// The journal a keeper is working off. Left over when it dies; the next one begins with it.
pub(crate) const FOLDING: &str = "journal.folding";

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
    Ok(is_header(&head) && bytes.as_chunks::<EVENT>().0.iter().all(event::is_whole))
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
    directory.make_way(JOURNAL)?;
    directory.make_way(FOLDING)?;
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
