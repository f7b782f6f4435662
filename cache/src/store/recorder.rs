//! What a process remembers of its own puts and hits until it writes them to the journal.
//!
//! A hit costs a few dozen nanoseconds here and no system call. An entry's use is written at most once an
//! hour, and when the store is closed.

use std::array;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use objcache_signature::Signature;
use parking_lot::Mutex;

use crate::clock::now_unix_us;
use crate::latency::Latencies;
use crate::signature_hash::SignatureMap;
use crate::store::StoreOptions;
use crate::store::counters::{Counter, Counters};
use crate::store::directory::Directory;
use crate::store::journal::{self, Event, Header, News, Size, State};
use crate::store::misses::{Noted, Ring};

/// How often the use of one entry is written: µs.
const RECENCY_INTERVAL_US: u64 = 3600 * 1_000_000;
/// So many entries whose use is worth writing are written at once.
const BATCH: u32 = 256;
/// Entries remembered in one shard before all are written and forgotten.
const SHARD_LIMIT: usize = 4096;
/// Events kept while nobody can write them.
const BACKLOG_LIMIT: usize = 16 * 1024;

/// After waiting for the lock of the journal in vain, nobody here waits for it for so long at least, and at most.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// In shards by signature, so that threads rarely meet.
type Shard = Mutex<SignatureMap<Seen>>;

#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) counters: Counters,
    shards: Shards,
    // Entries whose use became worth writing since the last time.
    news: AtomicU32,
    backlog: Mutex<News>,
    misses: Mutex<Ring>,
    hopeless: Mutex<Hopeless>,
}

/// Waiting for the lock of the journal was in vain, because its holder is stopped: for a while nobody here waits
/// again, and longer each time.
#[derive(Default)]
struct Hopeless {
    until: Option<Instant>,
    pause: Duration,
}

impl Hopeless {
    fn is_so(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    fn waited_in_vain(&mut self) {
        self.pause = (self.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        self.until = Some(Instant::now() + self.pause);
    }
}

struct Shards([Shard; 16]);

impl Default for Shards {
    fn default() -> Self {
        Self(array::from_fn(|_| Shard::default()))
    }
}

#[derive(Default)]
struct Seen {
    hits: u64,
    last_used_unix_us: u64,
    written_unix_us: u64,
}

impl Seen {
    fn is_due(&self) -> bool {
        self.hits > 0 && self.last_used_unix_us >= self.written_unix_us.saturating_add(RECENCY_INTERVAL_US)
    }
}

/// What a write to the journal did.
#[derive(Clone, Copy)]
pub(crate) enum Written {
    /// There was nothing to write.
    Nothing,
    /// Another process has the journal locked. All is kept for the next time.
    Busy,
    /// All of it was written.
    All(State),
}

/// Which uses are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Those not written for an hour.
    Due,
    /// All.
    All,
}

impl Recorder {
    /// Notes hits. `true`: it is time to [`write`](Self::write).
    pub(crate) fn hit(&self, signature: &Signature, times: u64, compile_time_us: u64) -> bool {
        self.counters.add(Counter::Hits, times);
        self.counters.add(Counter::SavedCompileTimeUs, compile_time_us.saturating_mul(times));
        let mut shard = self.shards.0[usize::from(signature.as_bytes()[0] % 16)].lock();
        let full = shard.len() >= SHARD_LIMIT;
        let seen = shard.entry(*signature).or_default();
        let was_due = seen.is_due();
        seen.hits = seen.hits.saturating_add(times);
        seen.last_used_unix_us = now_unix_us();
        let news = !was_due && seen.is_due();
        drop(shard);
        full || (news && self.news.fetch_add(1, Ordering::Relaxed) + 1 >= BATCH)
    }

    /// Notes a hit of something that is not an entry of this store.
    pub(crate) fn hit_elsewhere(&self, compile_time_us: u64) {
        self.counters.add(Counter::Hits, 1);
        self.counters.add(Counter::SavedCompileTimeUs, compile_time_us);
    }

    /// What was put or used and has not been written down yet.
    pub(crate) fn pending(&self) -> Vec<Signature> {
        let puts = self
            .backlog
            .lock()
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Put { signature, .. } => Some(*signature),
                _ => None,
            })
            .collect::<Vec<_>>();
        let hits = self.shards.0.iter().flat_map(|shard| {
            let shard = shard.lock();
            let used = shard.iter().filter(|(_, seen)| seen.hits > 0);
            used.map(|(signature, _)| *signature).collect::<Vec<_>>()
        });
        puts.into_iter().chain(hits).collect()
    }

    /// Notes what a look-up took that began then: in all, and in its bucket.
    pub(crate) fn took(&self, started: Instant, all: Counter, bucket: fn(u8) -> Counter) {
        let nanoseconds = nanoseconds(started.elapsed());
        self.counters.add(all, nanoseconds);
        self.counters.add(bucket(Latencies::bucket_of(nanoseconds)), 1);
    }

    /// Notes what taking an object in took, which began then.
    pub(crate) fn spent_on_put(&self, started: Instant) {
        self.counters.add(Counter::PutTimeNs, nanoseconds(started.elapsed()));
    }

    /// Notes a put.
    pub(crate) fn put(&self, signature: &Signature, object_bytes: u64) {
        self.counters.add(Counter::Puts, 1);
        self.counters.add(Counter::PutBytes, object_bytes);
        self.backlog.lock().events.push(Event::Put { signature: *signature, at: now_unix_us() });
    }

    /// Notes what a put replaced, and bytes of directories it made.
    pub(crate) fn replaced(&self, replaced: Option<u64>, made: u64) {
        let mut backlog = self.backlog.lock();
        backlog.overhead += made;
        backlog.credit = backlog.credit.plus(replaced.map_or(Size::default(), Size::one));
    }

    /// Notes what is not taken any more.
    pub(crate) fn credit(&self, size: Size) {
        let mut backlog = self.backlog.lock();
        backlog.credit = backlog.credit.plus(size);
    }

    /// Notes that an entry was removed to make room. Whoever folds the journal in looks at it, and forgets it if it is still
    /// gone.
    pub(crate) fn evicted(&self, signature: &Signature) {
        self.counters.add(Counter::Evicted, 1);
        self.gone(signature);
    }

    /// The same of one that was removed for another reason.
    pub(crate) fn gone(&self, signature: &Signature) {
        self.backlog.lock().events.push(Event::Hits { signature: *signature, count: 0, at: 0 });
    }

    /// Notes a compilation whose object is not kept.
    pub(crate) fn missed(&self, noted: Noted) {
        self.misses.lock().push(noted);
    }

    /// Writes to the journal what there is, and beside it the misses.
    pub(crate) fn write(
        &self,
        directory: &Directory,
        options: &StoreOptions,
        extent: Extent,
    ) -> io::Result<Written> {
        let mut misses = self.misses.lock();
        if !misses.is_empty() {
            misses.write(directory)?;
        }
        drop(misses);
        let backlog = match extent {
            // Hits come here too, and wait for nobody.
            Extent::Due => self.backlog.try_lock(),
            Extent::All => Some(self.backlog.lock()),
        };
        let Some(mut backlog) = backlog else { return Ok(Written::Busy) };
        self.collect(&mut backlog.events, extent);
        if backlog.is_empty() {
            return Ok(Written::Nothing);
        }
        backlog.events.truncate(BACKLOG_LIMIT);
        let longest = journal::longest(options.max_size);
        match journal::append(directory, &backlog, longest, Duration::ZERO, |_| ())? {
            Some((state, ())) => {
                *backlog = News { account: state.header.account, ..News::default() };
                Ok(Written::All(state))
            }
            None => Ok(Written::Busy),
        }
    }

    /// Writes to the journal what there is, and lets `change` see its head and change it. `None`: another has
    /// it locked for longer than `patience`.
    pub(crate) fn append<T>(
        &self,
        directory: &Directory,
        options: &StoreOptions,
        patience: Duration,
        change: impl FnOnce(&mut Header) -> T,
    ) -> io::Result<Option<(State, T)>> {
        let mut backlog = self.backlog.lock();
        self.collect(&mut backlog.events, Extent::Due);
        backlog.events.truncate(BACKLOG_LIMIT);
        let mut hopeless = self.hopeless.lock();
        let patience = if hopeless.is_so() { Duration::ZERO } else { patience };
        let longest = journal::longest(options.max_size);
        let appended = journal::append(directory, &backlog, longest, patience, change)?;
        match &appended {
            Some((state, _)) => {
                *backlog = News { account: state.header.account, ..News::default() };
                *hopeless = Hopeless::default();
            }
            None if !hopeless.is_so() => hopeless.waited_in_vain(),
            None => {}
        }
        Ok(appended)
    }

    fn collect(&self, events: &mut Vec<Event>, extent: Extent) {
        self.news.store(0, Ordering::Relaxed);
        for shard in &self.shards.0 {
            let mut shard = shard.lock();
            let full = shard.len() >= SHARD_LIMIT;
            for (signature, seen) in shard.iter_mut() {
                if seen.is_due() || ((full || extent == Extent::All) && seen.hits > 0) {
                    let (count, at) = (std::mem::take(&mut seen.hits), seen.last_used_unix_us);
                    seen.written_unix_us = at;
                    events.push(Event::Hits { signature: *signature, count, at });
                }
            }
            if full {
                shard.clear();
            }
        }
        events.extend(self.counters.take().into_iter().map(|(counter, by)| Event::Count { counter, by }));
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Signature = Signature::from_bytes([1; 32]);

    fn options() -> StoreOptions {
        StoreOptions::at("")
    }

    fn directory() -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        (place, directory)
    }

    /// How often a use of `ONE` is in the journal, and the sum of the hits.
    fn written(directory: &Directory) -> (usize, u64) {
        let events = journal::read(directory).expect("read");
        let hits = events.iter().filter_map(|event| match event {
            Event::Hits { signature: ONE, count, .. } => Some(*count),
            _ => None,
        });
        (hits.clone().count(), hits.sum())
    }

    #[test]
    fn the_use_of_an_entry_is_written_once_an_hour_and_at_the_end() {
        let (_place, directory) = directory();
        let recorder = Recorder::default();
        let hit = |times| assert_eq!((0..times).filter(|_| recorder.hit(&ONE, 1, 5)).count(), 0);
        let write = |extent| assert!(recorder.write(&directory, &options(), extent).is_ok());
        hit(3);
        write(Extent::Due);
        assert_eq!(written(&directory), (1, 3));
        hit(4);
        write(Extent::Due);
        assert_eq!(written(&directory), (1, 3), "within the hour");
        write(Extent::All);
        assert_eq!(written(&directory), (2, 7));
        write(Extent::All);
        assert_eq!(written(&directory), (2, 7));
    }

    #[test]
    fn many_entries_used_are_worth_a_write() {
        let recorder = Recorder::default();
        let signature = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            Signature::from_bytes(bytes)
        };
        let due: Vec<u32> = (0..BATCH).filter(|number| recorder.hit(&signature(*number), 1, 0)).collect();
        assert_eq!(due, [BATCH - 1]);
    }

    #[test]
    fn what_cannot_be_written_now_is_kept() {
        use rustix::fs::{FlockOperation, flock};
        let (_place, directory) = directory();
        let recorder = Recorder::default();
        recorder.put(&ONE, 10);
        let (other, _) = directory.open_or_create("journal").expect("opens");
        flock(&other, FlockOperation::NonBlockingLockExclusive).expect("free");
        assert!(matches!(recorder.write(&directory, &options(), Extent::All), Ok(Written::Busy)));
        drop(other);
        assert!(matches!(recorder.write(&directory, &options(), Extent::All), Ok(Written::All(_))));
        assert!(
            journal::read(&directory)
                .expect("read")
                .contains(&Event::Count { counter: Counter::Puts, by: 1 })
        );
        assert!(matches!(recorder.write(&directory, &options(), Extent::All), Ok(Written::Nothing)));
    }
}
