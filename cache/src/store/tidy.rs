//! Tidying in the background: fold the journal in, and evict when the store is above its size.
//!
//! It is started by a put (or a batch of hits) that finds it due, and runs on a thread of its own; an unlink
//! can take milliseconds, and opening the catalogue does. A process that puts one object and ends leaves its
//! line in the journal and does none of this, unless the store is full.
//!
//! Puts go on meanwhile, here and elsewhere, and none of them waits or comes back. So nobody may stop while it
//! is due: a thread of ours that finds a tidying going on leaves word, a process that does not get the
//! keeper's role relies on the one that has it, and whoever gives the role back looks once more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::admin::{GcLimits, GcReport, total};
use crate::clock::{microseconds, now_unix_us};
use crate::error::CacheError;
use crate::store::directory::{CATALOGUE, Directory};
use crate::store::journal::{self, Header};
use crate::store::keeper::{self, Keeper};
use crate::store::recorder::Extent;
use crate::store::{Shared, StoreOptions, entries};

/// With an age limit the store is tidied at least this often while it is used.
const AGE_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// After a tidying that could do nothing though it was due: do not try again for so long.
const PAUSE: Duration = Duration::from_secs(30);
/// Rounds of one tidying while others fill the store as fast. Each evicts a tenth of it.
const ROUNDS: u32 = 16;
/// After so many days what the store takes is measured, whatever was added up: a process killed between
/// publishing an entry and noting it has added nothing.
const MEASURE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// So far may the clocks of those who use one store be apart.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3600);
/// How long closing the store waits for a tidying. Longer means that something hangs; the thread is left.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Whether the store should be tidied.
pub(crate) fn is_due(state: &journal::State, options: &StoreOptions, now_unix_us: u64) -> bool {
    state.header.total_bytes > options.max_size
        || state.length >= journal::DUE
        || clock_was_set_back(&state.header, now_unix_us)
        || options.max_age.is_some_and(|max_age| {
            let since = Duration::from_micros(now_unix_us.saturating_sub(state.header.tidied_unix_us));
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
        let (progress, shared) = (Arc::clone(&self.0), Arc::clone(shared));
        let thread = std::thread::Builder::new().name("objcache-tidy".to_owned()).spawn(move || {
            let ended = Ended(progress);
            while ended.0.goes_on_after(tidy(&shared)) {}
        });
        // No thread to be had: another put will try again.
        state.running = thread.is_ok();
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
    let limits = shared.options.limits();
    let changed = make_room(&mut keeper, &limits).unwrap_or_else(|error| {
        shared.degrade_quietly(CacheError::io("eviction", error));
        false
    });
    if changed || folded { Round::Busy } else { Round::Idle }
}

/// Whether the store should be tidied, by its journal.
pub(crate) fn is_due_in(directory: &Directory, options: &StoreOptions) -> bool {
    journal::state(directory).is_ok_and(|state| is_due(&state, options, now_unix_us()))
}

/// Evicts when the store, everything counted, is above its size. Returns whether it did, or found that the
/// store takes less than was thought.
fn make_room(keeper: &mut Keeper<'_>, limits: &GcLimits) -> std::io::Result<bool> {
    let directory = Arc::clone(keeper.directory);
    let found = journal::header(&directory)?;
    let max_size = limits.max_size.unwrap_or(u64::MAX);
    let measured = Duration::from_micros(now_unix_us().saturating_sub(found.tidied_unix_us));
    let set_back = clock_was_set_back(&found, now_unix_us());
    if !set_back && found.total_bytes <= max_size && limits.max_age.is_none() && measured < MEASURE_AFTER {
        return Ok(false);
    }
    let view = keeper::view(&directory, Some(keeper))?;
    for signature in &view.unsound {
        // It takes room and is not counted, unless somebody asks for it.
        keeper.take_out_if_damaged(signature)?;
    }
    let overhead = overhead(&directory)?;
    let all = overhead.saturating_add(total(view.entries.iter().map(|entry| entry.disk_bytes)));
    // A tenth below, so that not every put has to make room.
    let goal = (max_size - max_size / 10).saturating_sub(overhead);
    let limits = GcLimits { max_size: (all > max_size).then_some(goal), ..limits.clone() };
    let report = GcReport::of(view.entries, &limits, now_unix_us());
    keeper.evict(&report.removed)?;
    let total_bytes = note_size(&directory, found, report.kept_bytes)?;
    Ok(!report.removed.is_empty() || total_bytes < found.total_bytes)
}

/// Writes down what the store takes, entries and all. `found` is the header as it was before the entries
/// were looked at; puts of others since then stay counted. Returns the figure.
pub(crate) fn note_size(directory: &Directory, found: Header, entry_bytes: u64) -> std::io::Result<u64> {
    let total_bytes = overhead(directory)?.saturating_add(entry_bytes);
    journal::tidied(directory, found, Header { total_bytes, tidied_unix_us: now_unix_us() })?;
    Ok(total_bytes)
}

/// What the store takes beside its entries, in bytes.
pub(crate) fn overhead(directory: &Directory) -> std::io::Result<u64> {
    let parts = [
        entries::directory_bytes(directory, CATALOGUE)?,
        entries::directory_bytes(directory, &format!("{CATALOGUE}/blobs"))?,
        entries::directory_bytes(directory, &format!("{CATALOGUE}.damaged"))?,
        entries::directory_bytes(directory, ".")?,
        entries::quarantine_bytes(directory)?,
    ];
    Ok(total(parts.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn state(total_bytes: u64, length: u64, tidied: Duration) -> journal::State {
        let tidied_unix_us = microseconds(tidied);
        journal::State { header: Header { total_bytes, tidied_unix_us }, length }
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
        assert!(!is_due(&state(1000, 0, Duration::ZERO), &options, now));
        assert!(is_due(&state(1001, 0, Duration::ZERO), &options, now));
        assert!(!is_due(&state(0, journal::DUE - 1, Duration::ZERO), &options, now));
        assert!(is_due(&state(0, journal::DUE, Duration::ZERO), &options, now));
        assert!(!is_due(&state(0, 0, DAY * 100 + CLOCK_TOLERANCE), &options, now));
        assert!(is_due(&state(0, 0, DAY * 101), &options, now), "tidied tomorrow");
        options.max_age = Some(DAY * 30);
        assert!(is_due(&state(0, 0, DAY * 98), &options, now));
        assert!(!is_due(&state(0, 0, DAY * 99), &options, now));
        options.max_age = Some(DAY);
        assert!(is_due(&state(0, 0, DAY * 99), &options, now));
    }
}
