//! What the protocols here are made of: locks that no child is born with, and waiting that a fork does not wait for. The
//! model checker's tests compile [`switch`](super::switch) with its own.

use std::ops::{Deref, DerefMut};
use std::sync::{self, Arc, PoisonError};

use crate::fork;

/// A lock as [`fork::lock`] takes it.
pub(super) struct Mutex<T>(parking_lot::Mutex<T>);

pub(super) struct MutexGuard<'m, T> {
    mutex: &'m Mutex<T>,
    /// There but while it waits.
    locked: Option<fork::Locked<'m, T>>,
}

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Mutex(parking_lot::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: self, locked: Some(fork::lock(&self.0)) }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.locked.as_ref().expect("whoever waits looks at nothing")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.locked.as_mut().expect("whoever waits changes nothing")
    }
}

/// Who waits for a change. Each waits at a bell of its own, outside of forks' gate: that may take as long as a compiler.
pub(super) struct Condvar {
    waiting: parking_lot::Mutex<Vec<Waiter>>,
}

struct Waiter {
    /// A child has no such thread, and must not touch its bell, which it may have been at.
    process: u64,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Bell {
    rung: sync::Mutex<bool>,
    changed: sync::Condvar,
}

impl Condvar {
    pub(super) fn new() -> Self {
        Condvar { waiting: parking_lot::Mutex::new(Vec::new()) }
    }

    /// Waits until somebody has notified, who did so under the same lock.
    pub(super) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let bell = Arc::new(Bell::default());
        let waiter = Waiter { process: fork::process(), bell: Arc::clone(&bell) };
        fork::lock(&self.waiting).push(waiter);
        guard.locked = None;
        bell.wait();
        guard.locked = Some(fork::lock(&guard.mutex.0));
    }

    pub(super) fn notify_all(&self) {
        let waiting = std::mem::take(&mut *fork::lock(&self.waiting));
        for waiter in waiting.iter().filter(|waiter| waiter.process == fork::process()) {
            waiter.bell.ring();
        }
    }
}

impl Bell {
    fn wait(&self) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(rung, |rung| !*rung));
    }

    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}
