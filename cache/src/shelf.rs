//! Objects in memory that readers reach without a lock.
//!
//! A reader looks into a map that is never locked (papaya), takes a share of the bytes and counts the use there. An
//! object has several shares, and threads different ones, so that they do not even write to the same memory: two
//! threads that count in one place are slower together than one alone. What is known of entries for listing and eviction lies behind a lock, which only those
//! take who put, remove or look; uses get there when they are needed.

use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use objcache_signature::Signature;
use papaya::HashMap;
use parking_lot::{Mutex, MutexGuard};

use crate::admin::{EntryInfo, EntryRecord};
use crate::clock::now_unix_us;
use crate::index::Index;
use crate::object::{ObjectBuffer, Share};
use crate::signature_hash::Words;

/// An entry that was used so often, or whose uses have been kept to itself for so long (µs), has news.
const MANY_USES: u64 = 4096;
const LONG_US: u64 = 600 * 1_000_000;
/// The last use is told this exactly: µs. A store to memory that all readers share is dear.
const EXACT_US: u64 = 1_000_000;

/// Shares of an object.
const SHARES: usize = 4;

/// What an entry takes in memory beside its bytes, in bytes.
pub(crate) const ENTRY_OVERHEAD: usize = 1024;

thread_local! {
    // Which share this thread takes.
    static SHARE: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % SHARES
    };
}

pub(crate) struct Shelf {
    held: HashMap<Signature, Held, BuildHasherDefault<Words>>,
    index: Mutex<Index>,
}

/// An object, and what is kept beside it.
pub(crate) struct Held {
    pub(crate) object: ObjectBuffer,
    pub(crate) record: Option<EntryRecord>,
    pub(crate) compile_time_us: u64,
    // With the uses that have not been told.
    shares: [Arc<Share>; SHARES],
    last_used_unix_us: AtomicU64,
    told_unix_us: AtomicU64,
}

/// Uses of an entry that are told of now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Uses {
    pub(crate) signature: Signature,
    pub(crate) times: u64,
    pub(crate) compile_time_us: u64,
}

impl Held {
    pub(crate) fn new(object: ObjectBuffer, record: Option<EntryRecord>, compile_time_us: u64) -> Self {
        let now = now_unix_us();
        Self {
            shares: std::array::from_fn(|_| object.share()),
            object,
            record,
            compile_time_us,
            last_used_unix_us: AtomicU64::new(now),
            told_unix_us: AtomicU64::new(now),
        }
    }

    /// Counts a use.
    fn hit(&self) -> Hit {
        let share = &self.shares[SHARE.with(|share| *share)];
        let now = now_unix_us();
        if now.saturating_sub(self.last_used_unix_us.load(Ordering::Relaxed)) > EXACT_US {
            self.last_used_unix_us.store(now, Ordering::Relaxed);
        }
        let uses = share.uses.fetch_add(1, Ordering::Relaxed) + 1;
        let is_long_ago = now.saturating_sub(self.told_unix_us.load(Ordering::Relaxed)) > LONG_US;
        Hit { object: self.object.through(share), has_news: uses >= MANY_USES || is_long_ago }
    }

    /// Moves the uses on into the index.
    fn tell(&self, signature: &Signature, index: &mut Index) -> Option<Uses> {
        let times = self.shares.iter().map(|share| share.uses.swap(0, Ordering::Relaxed)).sum();
        if times == 0 {
            return None;
        }
        self.told_unix_us.store(now_unix_us(), Ordering::Relaxed);
        index.used(signature, times, self.last_used_unix_us.load(Ordering::Relaxed));
        Some(Uses { signature: *signature, times, compile_time_us: self.compile_time_us })
    }
}

/// What `get` found.
pub(crate) struct Hit {
    pub(crate) object: ObjectBuffer,
    /// It is worth telling of its uses: [`Shelf::tell`].
    pub(crate) has_news: bool,
}

impl Shelf {
    pub(crate) fn new(max_size: u64) -> Self {
        Self { held: HashMap::default(), index: Mutex::new(Index::new(max_size)) }
    }

    /// Looks an object up and counts the use.
    pub(crate) fn get(&self, signature: &Signature) -> Option<Hit> {
        self.held.pin().get(signature).map(Held::hit)
    }

    /// Looks an object up, and leaves no trace.
    pub(crate) fn look<T>(&self, signature: &Signature, look: impl FnOnce(&Held) -> T) -> Option<T> {
        self.held.pin().get(signature).map(look)
    }

    /// Number of objects.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// What is known of entries, without the latest uses.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock()
    }

    /// The same with all uses told, to `told` as well.
    pub(crate) fn told(&self, told: &mut dyn FnMut(Uses)) -> MutexGuard<'_, Index> {
        let mut index = self.index.lock();
        self.tell_all(&mut index, told);
        index
    }

    fn tell_all(&self, index: &mut Index, told: &mut dyn FnMut(Uses)) {
        let all = self.held.pin();
        all.iter().filter_map(|(signature, held)| held.tell(signature, index)).for_each(told);
    }

    /// Tells of the uses of one entry. Waits for nobody: it is called by those who hit.
    pub(crate) fn tell(&self, signature: &Signature) -> Option<Uses> {
        let mut index = self.index.try_lock()?;
        self.held.pin().get(signature)?.tell(signature, &mut index)
    }

    /// Takes an object in, unless it is too large, and drops what has to go for it. `index` comes from
    /// [`index`](Self::index); uses of what goes are told.
    pub(crate) fn put(&self, index: &mut Index, info: EntryInfo, held: Held, told: &mut dyn FnMut(Uses)) {
        if !index.fits(&info) {
            // What it was to replace is out of date.
            self.remove(index, &info.signature, told);
            return;
        }
        if index.is_full_with(&info) {
            self.tell_all(index, told);
        }
        let signature = info.signature;
        self.tell_of(index, &signature, told);
        for victim in index.put(info) {
            self.drop_object(index, &victim, told);
        }
        self.held.pin().insert(signature, held);
    }

    fn tell_of(&self, index: &mut Index, signature: &Signature, told: &mut dyn FnMut(Uses)) {
        let all = self.held.pin();
        all.get(signature).and_then(|held| held.tell(signature, index)).into_iter().for_each(told);
    }

    /// Drops an object that the index has forgotten.
    fn drop_object(&self, index: &mut Index, signature: &Signature, told: &mut dyn FnMut(Uses)) -> bool {
        let all = self.held.pin();
        let Some(held) = all.remove(signature) else { return false };
        held.tell(signature, index).into_iter().for_each(told);
        true
    }

    /// Removes an object; `false` when there was none.
    pub(crate) fn remove(
        &self,
        index: &mut Index,
        signature: &Signature,
        told: &mut dyn FnMut(Uses),
    ) -> bool {
        self.tell_of(index, signature, told);
        index.remove(signature);
        self.drop_object(index, signature, told)
    }

    /// Forgets everything but the limit.
    pub(crate) fn clear(&self, index: &mut Index) {
        index.clear();
        self.held.pin().clear();
    }
}
