//! What a function leads to, and who is making it: each call of a function goes through a word in memory, its *slot*, and
//! this says what is in it. One of all threads that call a function which is not there yet makes it, the others wait;
//! a redefinition replaces it, whatever state it is in.
//!
//! The slot is written under the function's own lock and read without any, by a jump. No lock is held while a function is
//! being made. Threads that would wait for each other are told so: [`Claims`] knows who makes what and who waits for what.

use std::collections::HashMap;
use std::hash::Hash;

use super::sync::{Condvar, Mutex};

/// Where calls go. Written with one aligned store, which other threads see whole.
pub(super) trait Slot {
    /// Everything written before is seen by whoever goes where this leads, and when it returns no thread that looks
    /// then sees what was there before.
    fn store(&self, address: usize);
}

/// Who makes functions and waits for them.
pub(super) trait Party: Copy + Eq + Hash {
    /// It was a thread of the process that this one is a fork of, and is not here: nothing that it began is ever done.
    fn is_lost(self) -> bool;
}

/// What a function leads to.
pub(super) struct Switch<W, T> {
    state: Mutex<State<W, T>>,
    changed: Condvar,
}

enum State<W, T> {
    /// What is to be done to make it.
    Pending(W),
    /// Somebody is at it.
    Claimed,
    /// The slot leads to it.
    Set(T),
}

/// What a thread finds that calls a function.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered<W> {
    /// It is this thread's to make it, and to [`finish`](Switch::finish).
    Claimed(W),
    /// It is there.
    Set,
    /// Waiting for it would be waiting for this thread itself.
    Cycle,
    /// Waiting for it would be waiting for ever: its maker is [lost](Party::is_lost).
    Lost,
}

impl<W, T> Switch<W, T> {
    pub(super) fn pending(work: W) -> Self {
        Self::of(State::Pending(work))
    }

    pub(super) fn set_to(target: T) -> Self {
        Self::of(State::Set(target))
    }

    fn of(state: State<W, T>) -> Self {
        Switch { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Something of its own to be known by.
    fn key(&self) -> usize {
        (&raw const *self) as usize
    }

    /// Claims the work, or waits for whoever did.
    pub(super) fn enter<Thread: Party>(&self, claims: &Claims<Thread>, thread: Thread) -> Entered<W> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Claimed) {
            State::Pending(work) => {
                claims.claim(self.key(), thread);
                return Entered::Claimed(work);
            }
            other => *state = other,
        }
        if matches!(*state, State::Claimed) {
            match claims.wait(thread, self.key()) {
                Wait::Cycle => return Entered::Cycle,
                Wait::Lost => return Entered::Lost,
                Wait::Ends => {}
            }
            while matches!(*state, State::Claimed) {
                self.changed.wait(&mut state);
            }
            claims.stop_waiting(thread);
        }
        Entered::Set
    }

    /// What a thread made that had claimed the work. If the function was set meanwhile, that stands, and what was made is
    /// given back.
    pub(super) fn finish<Thread: Party>(
        &self,
        claims: &Claims<Thread>,
        slot: &impl Slot,
        address: usize,
        target: T,
    ) -> Option<T> {
        let mut state = self.state.lock();
        claims.release(self.key());
        if !matches!(*state, State::Claimed) {
            return Some(target);
        }
        *state = State::Set(target);
        slot.store(address);
        self.changed.notify_all();
        None
    }

    /// Leads to something else from now on, unless what it leads to forbids that. Gives back what was there before, if
    /// anything was. Nobody waits any more for a thread that is making it.
    ///
    /// # Errors
    /// It is forbidden: `target` comes back.
    pub(super) fn replace<Thread: Party>(
        &self,
        claims: &Claims<Thread>,
        slot: &impl Slot,
        address: usize,
        target: T,
        allowed: impl FnOnce(&T) -> bool,
    ) -> Result<Option<T>, T> {
        let mut state = self.state.lock();
        if matches!(&*state, State::Set(before) if !allowed(before)) {
            return Err(target);
        }
        let before = std::mem::replace(&mut *state, State::Set(target));
        if matches!(before, State::Claimed) {
            claims.release(self.key());
        }
        slot.store(address);
        self.changed.notify_all();
        // Work that nobody began is dropped without the lock: it is the client's.
        drop(state);
        match before {
            State::Pending(_) | State::Claimed => Ok(None),
            State::Set(before) => Ok(Some(before)),
        }
    }

    /// Looks at what it leads to, if it leads to something.
    pub(super) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        match &*self.state.lock() {
            State::Set(target) => Some(look(target)),
            State::Pending(_) | State::Claimed => None,
        }
    }
}

/// Who makes what, and who waits for what. Shared by all functions, since a circle of threads may go through any; only
/// looked at when a function is being made.
pub(super) struct Claims<Thread> {
    known: Mutex<Known<Thread>>,
}

/// What comes of waiting.
enum Wait {
    Ends,
    Cycle,
    Lost,
}

struct Known<Thread> {
    /// Who makes the function with that key, which is not there yet.
    makers: HashMap<usize, Thread>,
    /// The key of the function that a thread waits for, or waited for and has not noticed yet that it is there.
    waiting: HashMap<Thread, usize>,
}

impl<Thread: Party> Claims<Thread> {
    pub(super) fn new() -> Self {
        Claims { known: Mutex::new(Known { makers: HashMap::new(), waiting: HashMap::new() }) }
    }

    fn claim(&self, key: usize, thread: Thread) {
        self.known.lock().makers.insert(key, thread);
    }

    fn release(&self, key: usize) {
        self.known.lock().makers.remove(&key);
    }

    /// Notes that a thread waits for a function, unless its maker, or whoever that waits for, waits for the thread or is
    /// lost. There are no circles among those who wait already, so this ends.
    fn wait(&self, thread: Thread, key: usize) -> Wait {
        let mut known = self.known.lock();
        let mut next = Some(key);
        while let Some(maker) = next.and_then(|key| known.makers.get(&key)) {
            if *maker == thread {
                return Wait::Cycle;
            }
            if maker.is_lost() {
                return Wait::Lost;
            }
            next = known.waiting.get(maker).copied();
        }
        known.waiting.insert(thread, key);
        Wait::Ends
    }

    fn stop_waiting(&self, thread: Thread) {
        self.known.lock().waiting.remove(&thread);
    }
}
