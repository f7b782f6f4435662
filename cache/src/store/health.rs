//! How well a store is: which of its services still work, what went wrong, and how often.
//!
//! Each reason is warned of once per process and counted always. A dying disk must cost no time: after three
//! I/O errors in a row the store is off.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::error::{CacheError, Reason};
use crate::store::StoreOptions;
use crate::store::counters::{Counter, Counters};
use crate::store::untold::Untold;
use crate::warning::warn_once;

/// So many I/O errors in a row switch the store off.
const ERRORS_IN_A_ROW: u32 = 3;

/// What still works. Ordered: it only ever gets worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Service {
    ReadWrite,
    ReadOnly,
    Off,
}

pub(crate) struct Health {
    service: AtomicU8,
    // Why the service is not the best one: an index into `Reason::ALL`.
    because: AtomicU8,
    errors_in_a_row: AtomicU32,
    // Calls return the errors that they meet.
    own_errors: bool,
    strict: bool,
    untold: Untold,
    // How often each reason came up, by its number.
    counts: [AtomicU64; Reason::ALL.len()],
}

impl Health {
    pub(crate) fn new(options: &StoreOptions) -> Self {
        Self {
            service: AtomicU8::new(0),
            because: AtomicU8::new(0),
            errors_in_a_row: AtomicU32::new(0),
            own_errors: options.own_errors || options.strict,
            strict: options.strict,
            untold: Untold::default(),
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(crate) fn service(&self) -> Service {
        match self.service.load(Ordering::Relaxed) {
            0 => Service::ReadWrite,
            1 => Service::ReadOnly,
            _ => Service::Off,
        }
    }

    /// Why the store is off or read-only.
    pub(crate) fn because(&self) -> Option<Reason> {
        match self.service() {
            Service::ReadWrite => None,
            _ => Reason::ALL.get(usize::from(self.because.load(Ordering::Relaxed))).copied(),
        }
    }

    /// Lowers the service. The first reason for the lowest service stays.
    pub(crate) fn lower_to(&self, service: Service, reason: Reason) {
        if self.service.fetch_max(service as u8, Ordering::Relaxed) < service as u8 {
            self.because.store(reason as u8, Ordering::Relaxed);
        }
    }

    /// Something works less well than it could: count it, warn of it once, and go on, unless errors are asked for.
    pub(crate) fn degrade(&self, counters: &Counters, error: CacheError) -> Result<(), CacheError> {
        self.count(counters, &error);
        if self.own_errors { Err(error) } else { Ok(()) }
    }

    /// The same where no caller is there to be told of it.
    pub(crate) fn degrade_quietly(&self, counters: &Counters, error: CacheError) {
        self.count(counters, &error);
        self.owe(error);
    }

    /// What came of something whose caller is not told of errors.
    pub(crate) fn quietly(&self, result: Result<(), CacheError>) {
        if let Err(error) = result {
            self.owe(error);
        }
    }

    /// Trouble that costs so little that it is an error in strict mode and nothing otherwise.
    pub(crate) fn owe(&self, error: CacheError) {
        if self.strict {
            self.untold.keep(error);
        }
    }

    /// Whether all trouble is to become an error.
    pub(crate) fn is_strict(&self) -> bool {
        self.strict
    }

    /// What nobody was told of yet.
    pub(crate) fn untold(&self) -> &Untold {
        &self.untold
    }

    fn count(&self, counters: &Counters, error: &CacheError) {
        self.counts[error.reason() as usize].fetch_add(1, Ordering::Relaxed);
        counters.add(Counter::Reason(error.reason()), 1);
        warn_once(error);
    }

    /// How often each reason came up; only those that did.
    pub(crate) fn counts(&self) -> Vec<(Reason, u64)> {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Reason::ALL.iter().copied().zip(counts).filter(|(_, count)| *count > 0).collect()
    }

    /// An answer to a call that a store which is off or read-only does not serve.
    pub(crate) fn declined(&self, what: &str) -> Result<(), CacheError> {
        match self.because() {
            // That is what was asked for.
            None | Some(Reason::Disabled | Reason::OpenedReadOnly) => Ok(()),
            Some(reason) if self.own_errors => Err(CacheError::new(reason, what)),
            Some(_) => Ok(()),
        }
    }

    /// The operating system failed us.
    pub(crate) fn io_failed(&self, counters: &Counters, error: CacheError) -> Result<(), CacheError> {
        match error.reason() {
            Reason::ReadOnly => self.lower_to(Service::ReadOnly, Reason::ReadOnly),
            Reason::DirectoryGone => self.lower_to(Service::Off, Reason::DirectoryGone),
            // These pass, and say nothing about the disk.
            Reason::DiskFull | Reason::OutOfResources => {}
            _ => {
                if self.errors_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 == ERRORS_IN_A_ROW {
                    self.lower_to(Service::Off, Reason::CircuitBreaker);
                    let what = CacheError::new(Reason::CircuitBreaker, "store");
                    self.count(counters, &what);
                }
            }
        }
        self.degrade(counters, error)
    }

    pub(crate) fn io_worked(&self) {
        // Read first: a store to memory that all threads share is dear, and needless nearly always.
        if self.errors_in_a_row.load(Ordering::Relaxed) != 0 {
            self.errors_in_a_row.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(strict: bool) -> Health {
        let mut options = StoreOptions::at("");
        options.strict = strict;
        Health::new(&options)
    }

    fn failed(health: &Health, reason: Reason) {
        let _ = health.io_failed(&Counters::default(), CacheError::new(reason, "test"));
    }

    #[test]
    fn three_errors_in_a_row_switch_it_off_and_two_do_not() {
        let health = health(false);
        for _ in 0..4 {
            failed(&health, Reason::Io);
            failed(&health, Reason::Io);
            health.io_worked();
        }
        assert_eq!(health.service(), Service::ReadWrite);
        (0..3).for_each(|_| failed(&health, Reason::Io));
        assert_eq!((health.service(), health.because()), (Service::Off, Some(Reason::CircuitBreaker)));
    }

    #[test]
    fn what_passes_does_not_count_as_a_dying_disk() {
        let health = health(false);
        (0..9).for_each(|_| failed(&health, Reason::DiskFull));
        (0..9).for_each(|_| failed(&health, Reason::OutOfResources));
        assert_eq!(health.service(), Service::ReadWrite);
    }

    #[test]
    fn service_only_gets_worse_and_the_first_reason_stays() {
        let health = health(false);
        health.lower_to(Service::Off, Reason::NoHome);
        health.lower_to(Service::ReadOnly, Reason::ReadOnly);
        health.lower_to(Service::Off, Reason::Io);
        assert_eq!((health.service(), health.because()), (Service::Off, Some(Reason::NoHome)));
    }

    #[test]
    fn strict_makes_errors_of_it() {
        let counters = Counters::default();
        let trouble = || CacheError::new(Reason::Io, "test");
        assert!(health(false).degrade(&counters, trouble()).is_ok());
        assert!(health(true).degrade(&counters, trouble()).is_err());
        let disabled = health(true);
        disabled.lower_to(Service::Off, Reason::Disabled);
        assert!(disabled.declined("get").is_ok());
        let read_only = health(true);
        read_only.lower_to(Service::ReadOnly, Reason::OpenedReadOnly);
        assert!(read_only.declined("offer").is_ok());
    }

    #[test]
    fn only_strict_keeps_what_no_caller_is_told() {
        let counters = Counters::default();
        let trouble = || CacheError::new(Reason::Io, "test");
        let mut options = StoreOptions::at("");
        options.own_errors = true;
        let own_errors = Health::new(&options);
        assert!(own_errors.degrade(&counters, trouble()).is_err());
        for lenient in [health(false), own_errors] {
            lenient.degrade_quietly(&counters, trouble());
            lenient.quietly(Err(trouble()));
            assert!(lenient.untold().take().is_none());
        }
        let strict = health(true);
        strict.degrade_quietly(&counters, trouble());
        assert!(strict.untold().take().is_some());
    }

    #[test]
    fn every_reason_has_its_own_bit() {
        assert!(Reason::ALL.len() <= 64);
    }
}
