//! Tidying in the background: fold the journal in, evict when the store is nearly full, and leave a list of what
//! goes next.
//!
//! It is started by a put (or a batch of hits) that finds it due, and runs on a thread of its own; an unlink
//! can take milliseconds, and opening the catalogue does. A process that puts one object and ends leaves its
//! line in the journal and does none of this, unless the store is full.
//!
//! Puts go on meanwhile, here and elsewhere, and none of them waits or comes back. So nobody may stop while it
//! is due: a thread of ours that finds a tidying going on leaves word, a process that does not get the
//! keeper's role relies on the one that has it, and whoever gives the role back looks once more.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::admin::{EntryInfo, GcLimits, GcReport, total};
use crate::clock::{microseconds, now_unix_us};
use crate::error::{CacheError, Reason};
use crate::evict;
use crate::store::directory::{CATALOGUE, Directory, JOURNAL, TEMPORARY, is_fan};
use crate::store::journal::{self, FOLDING, Header, Size};
use crate::store::keeper::{self, Keeper};
use crate::store::recorder::Extent;
use crate::store::room::Measurement;
use crate::store::victims::{self, Victim};
use crate::store::{Shared, StoreOptions, entries, failures};

/// With an age limit the store is tidied at least this often while it is used.
const AGE_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// After a tidying that could do nothing though it was due: do not try again for so long.
const PAUSE: Duration = Duration::from_secs(30);
/// Rounds of one tidying while others fill the store as fast. Each evicts a part of it.
const ROUNDS: u32 = 16;
/// Once in so long every file is looked at, whatever was added up: somebody else may have changed them, and who was
/// killed has left charges behind.
const MEASURE_EACH: Duration = Duration::from_secs(24 * 3600);
/// So far may the clocks of those who use one store be apart.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);
/// How long closing the store waits for a tidying. Longer means that something hangs; the thread is left.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What may be taken before somebody makes room in the background, and what is left then: the room between
/// lets puts go on meanwhile, and without making room by themselves.
struct Marks {
    high: u64,
    low: u64,
}

impl Marks {
    fn of(max: u64) -> Self {
        // Of a few entries a 32nd is none: one and two then, of ten and twenty at least.
        let part = |divisor: u64, least: u64| (max / divisor).max(least.min(max / 10));
        Self { high: max - part(32, 1), low: max - part(16, 2) }
    }
}

/// Where namespaces have limits, so much may happen before the store is tidied, in bytes of the journal: some dozen events. Which
/// namespace they are of is known to the catalogue alone.
const NAMESPACES_DUE: u64 = 16 * 64;

/// Whether the store should be tidied.
pub(crate) fn is_due(state: &journal::State, options: &StoreOptions, now_unix_us: u64) -> bool {
    let header = &state.header;
    header.total_bytes() > Marks::of(options.max_size).high
        || options.max_entries.is_some_and(|max| header.entries.entries > Marks::of(max).high)
        || state.length >= journal::due(options.max_size)
        || (!options.namespace_max_size.is_empty() && state.length >= NAMESPACES_DUE)
        || clock_was_set_back(header, now_unix_us)
        || options.max_age.is_some_and(|max_age| {
            let since = Duration::from_micros(now_unix_us.saturating_sub(header.tidied_unix_us));
            since > AGE_INTERVAL.min(max_age / 2)
        })
}

/// Whether the store was last tidied in the future, by more than clocks of several machines differ. Then it is
/// due whatever the journal says, and notes the time anew.
pub(crate) fn clock_was_set_back(header: &Header, now_unix_us: u64) -> bool {
    header.tidied_unix_us > now_unix_us.saturating_add(microseconds(CLOCK_TOLERANCE))
}

/// At most one tidying at a time in this process.
#[derive(Default)]
pub(crate) struct Tidier(Arc<Progress>);

#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    running: bool,
    // It was found due while it ran: perhaps after it had looked.
    once_more: bool,
    not_before: Option<Instant>,
}

impl Tidier {
    /// Starts a tidying, unless one is going on.
    pub(crate) fn start(&self, shared: &Arc<Shared>) {
        let mut state = self.0.state.lock();
        if state.running {
            state.once_more = true;
            return;
        }
        if state.not_before.is_some_and(|time| Instant::now() < time) {
            return;
        }
        let (progress, its) = (Arc::clone(&self.0), Arc::clone(shared));
        let thread = std::thread::Builder::new().name("objcache-tidy".to_owned()).spawn(move || {
            let ended = Ended(progress);
            while ended.0.goes_on_after(tidy(&its)) {}
        });
        state.running = thread.is_ok();
        if let Err(error) = thread {
            // No thread to be had: another put will try again.
            shared.health.owe(CacheError::new(Reason::OutOfResources, "thread to tidy").with_source(error));
        }
    }

    /// Waits for the one that is going on.
    pub(crate) fn wait(&self) {
        let mut state = self.0.state.lock();
        let deadline = Instant::now() + LONGEST_WAIT;
        while state.running && !self.0.ended.wait_until(&mut state, deadline).timed_out() {}
    }
}

impl Progress {
    /// In one step with the decision to end, so that no word left is overlooked.
    fn goes_on_after(&self, tidied: Tidied) -> bool {
        let mut state = self.state.lock();
        state.not_before = (tidied == Tidied::InVain).then(|| Instant::now() + PAUSE);
        let goes_on = std::mem::take(&mut state.once_more) && tidied != Tidied::InVain;
        state.running = goes_on;
        goes_on
    }
}

/// Tells those who wait, also when tidying panicked.
struct Ended(Arc<Progress>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.state.lock().running = false;
        self.0.ended.notify_all();
    }
}

/// What came of a tidying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tidied {
    /// Nothing is due any more, or whoever is keeper sees to it.
    Done,
    /// It is still due, and nothing could be done about it.
    InVain,
}

fn tidy(shared: &Shared) -> Tidied {
    for _ in 0..ROUNDS {
        let Some(directory) = shared.writable() else { return Tidied::InVain };
        let round = match Keeper::take(shared, directory, Duration::ZERO) {
            Some(keeper) => tidy_as(keeper, shared),
            None => return Tidied::Done,
        };
        // Noted while another thread or process had the journal locked.
        let noted = shared.write_down(directory, Extent::Due);
        if !noted && !is_due_in(directory, &shared.options) {
            return Tidied::Done;
        }
        if round == Round::Idle {
            return Tidied::InVain;
        }
    }
    Tidied::Done
}

/// Whether one round of a tidying changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Busy,
    Idle,
}

fn tidy_as(mut keeper: Keeper<'_>, shared: &Shared) -> Round {
    let events = |directory: &Directory| journal::state(directory).map_or(0, |state| state.length);
    let before = events(keeper.directory);
    keeper.open_catalogue();
    let folded = events(keeper.directory) < before;
    let changed = make_room(&mut keeper, &shared.options).unwrap_or_else(|error| {
        shared.degrade_quietly(CacheError::io("eviction", error));
        false
    });
    if changed || folded { Round::Busy } else { Round::Idle }
}

/// Whether the store should be tidied, by its journal.
pub(crate) fn is_due_in(directory: &Directory, options: &StoreOptions) -> bool {
    journal::state(directory).is_ok_and(|state| is_due(&state, options, now_unix_us()))
}

/// Evicts when a limit is passed or nearly so, and measures what the store takes. Returns whether that changed
/// anything.
fn make_room(keeper: &mut Keeper<'_>, options: &StoreOptions) -> io::Result<bool> {
    let directory = Arc::clone(keeper.directory);
    let measurement = Measurement::begin(&directory)?;
    let found = *measurement.found();
    if !is_needed(&found, options) {
        return Ok(false);
    }
    if let Some(ttl) = options.failure_ttl {
        failures::expire(&directory, ttl)?;
    }
    let view = match is_old(&found) {
        true => keeper::thorough_view(&directory, keeper)?,
        false => keeper::view(&directory, Some(keeper))?,
    };
    for signature in &view.unsound {
        // It takes room and is not counted, unless somebody asks for it.
        keeper.take_out_if_damaged(signature)?;
    }
    let header = measurement.end(&directory, options, size_of(&view.entries))?;

    let limits = goals(&header, options);
    let (report, rest) = GcReport::and_rest(view.entries, &limits, now_unix_us());
    keeper.evict(&report.removed)?;
    leave_a_list(&directory, &rest)?;
    Ok(!report.removed.is_empty() || header.total_bytes() < found.total_bytes())
}

fn is_needed(found: &Header, options: &StoreOptions) -> bool {
    found.total_bytes() > Marks::of(options.max_size).high
        || options.max_entries.is_some_and(|max| found.entries.entries > Marks::of(max).high)
        || options.max_age.is_some()
        || !options.namespace_max_size.is_empty()
        || is_old(found)
        || clock_was_set_back(found, now_unix_us())
}

fn is_old(found: &Header) -> bool {
    let day = |unix_us: u64| unix_us / microseconds(MEASURE_EACH);
    day(now_unix_us()) != day(found.tidied_unix_us)
}

/// What is to be left of entries. Only what is above its high mark is brought down to the low one.
fn goals(header: &Header, options: &StoreOptions) -> GcLimits {
    let goal = |max: u64, taken: u64| {
        let marks = Marks::of(max);
        (taken > marks.high).then_some(marks.low)
    };
    let max_size = goal(options.max_size, header.total_bytes());
    // What was charged by those who were killed, or is being written, is no entry to be evicted.
    let max_size = max_size.map(|goal| goal.saturating_sub(header.overhead));
    let max_entries = options.max_entries.and_then(|max| goal(max, header.entries.entries));
    GcLimits { max_size, max_entries, ..options.limits() }
}

fn size_of(entries: &[EntryInfo]) -> Size {
    let bytes = total(entries.iter().map(|entry| entry.disk_bytes));
    Size { bytes, entries: entries.len() as u64 }
}

/// Leaves a list of what goes next, for puts that find no room: up to half of what there is.
fn leave_a_list(directory: &Directory, entries: &[EntryInfo]) -> io::Result<()> {
    let ranking = evict::ranking(entries, 0..entries.len(), now_unix_us());
    let longest = victims::LONGEST.min(entries.len().div_ceil(2));
    let list: Vec<Victim> = ranking
        .take(longest)
        .map(|at| Victim { signature: entries[at].signature, disk_bytes: entries[at].disk_bytes })
        .collect();
    journal::use_victims(directory, list.len() as u64, |number| victims::write(directory, number, &list))
}

/// Corrects the account by entries that were just listed.
pub(crate) fn note_size(
    directory: &Directory,
    options: &StoreOptions,
    measurement: Measurement,
    entries: &[EntryInfo],
) -> io::Result<()> {
    measurement.end(directory, options, size_of(entries)).map(drop)
}

/// What the catalogue may grow by while the journal is folded in, at least, in bytes.
const CATALOGUE_GROWTH: u64 = 256 * 1024;

/// What the store may take beside its entries until this is looked at again, in bytes: what there is, and room
/// for journal and catalogue to grow.
pub(crate) fn overhead(directory: &Directory, options: &StoreOptions) -> io::Result<u64> {
    // The journal itself, the one that is folded in, and the copy that becomes it.
    let journals = 3 * journal::longest(options.max_size);
    let catalogue = entries::directory_bytes(directory, CATALOGUE)?;
    let parts = [disk_bytes_beside_entries(directory)?, journals, catalogue.max(CATALOGUE_GROWTH)];
    Ok(total(parts.into_iter()))
}

/// What lies in the directory beside entries, files being written, and the journal, in bytes.
pub(crate) fn disk_bytes_beside_entries(directory: &Directory) -> io::Result<u64> {
    let mut bytes = entries::file_bytes(directory, ".");
    for name in directory.names_in(".")? {
        let name = name.to_string_lossy();
        if [JOURNAL, FOLDING].contains(&&*name) {
            continue;
        }
        bytes += entries::file_bytes(directory, &name);
        if !is_fan(&name) && name != TEMPORARY {
            bytes += entries::directory_bytes(directory, &name)?;
            bytes += entries::directory_bytes(directory, &format!("{name}/blobs"))?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn state(bytes: u64, length: u64, tidied: Duration) -> journal::State {
        let (entries, tidied_unix_us) = (Size { bytes, entries: 3 }, microseconds(tidied));
        journal::State { header: Header { entries, tidied_unix_us, ..Header::default() }, length }
    }

    #[test]
    fn word_left_during_a_tidying_is_another_round() {
        let progress = Progress::default();
        let found_due = || progress.state.lock().once_more = true;
        assert!(!progress.goes_on_after(Tidied::Done), "nobody asked");
        found_due();
        assert!(progress.goes_on_after(Tidied::Done));
        assert!(!progress.goes_on_after(Tidied::Done), "once");
        found_due();
        assert!(!progress.goes_on_after(Tidied::InVain), "it would be in vain again");
        assert!(progress.state.lock().not_before.is_some());
    }

    #[test]
    fn due_when_large_or_long_or_old() {
        let mut options = StoreOptions::at("/nowhere");
        options.max_size = 1000;
        let now = microseconds(DAY * 100);
        assert!(!is_due(&state(969, 0, Duration::ZERO), &options, now));
        assert!(is_due(&state(970, 0, Duration::ZERO), &options, now));
        let long = journal::due(options.max_size);
        assert!(!is_due(&state(0, long - 1, Duration::ZERO), &options, now));
        assert!(is_due(&state(0, long, Duration::ZERO), &options, now));
        options.max_entries = Some(3);
        assert!(!is_due(&state(0, 0, Duration::ZERO), &options, now));
        options.max_entries = Some(2);
        assert!(is_due(&state(0, 0, Duration::ZERO), &options, now));
        options.max_entries = None;
        assert!(!is_due(&state(0, 0, DAY * 100 + CLOCK_TOLERANCE), &options, now));
        assert!(is_due(&state(0, 0, DAY * 101), &options, now), "tidied tomorrow");
        options.max_age = Some(DAY * 30);
        assert!(is_due(&state(0, 0, DAY * 98), &options, now));
        assert!(!is_due(&state(0, 0, DAY * 99), &options, now));
        options.max_age = Some(DAY);
        assert!(is_due(&state(0, 0, DAY * 99), &options, now));
    }
}
