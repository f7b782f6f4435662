//! How well a store is: which of its services still work, what went wrong, and how often.
//!
//! Each reason is warned of once per process and counted always. A dying disk must cost no time: after three
//! I/O errors in a row the store is off.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::error::{CacheError, Reason};
use crate::store::counters::{Counter, Counters};
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
    strict: bool,
    // How often each reason came up, by its number.
    counts: [AtomicU64; Reason::ALL.len()],
}

impl Health {
    pub(crate) fn new(strict: bool) -> Self {
        let (service, because) = (AtomicU8::new(0), AtomicU8::new(0));
        let counts = std::array::from_fn(|_| AtomicU64::new(0));
        Self { service, because, errors_in_a_row: AtomicU32::new(0), strict, counts }
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

    /// Something works less well than it could: count it, warn of it once, and go on, unless strict.
    pub(crate) fn degrade(&self, counters: &Counters, error: CacheError) -> Result<(), CacheError> {
        self.count(counters, &error);
        if self.strict { Err(error) } else { Ok(()) }
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
            Some(reason) if self.strict => Err(CacheError::new(reason, what)),
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

    fn failed(health: &Health, reason: Reason) {
        let _ = health.io_failed(&Counters::default(), CacheError::new(reason, "test"));
    }

    #[test]
    fn three_errors_in_a_row_switch_it_off_and_two_do_not() {
        let health = Health::new(false);
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
        let health = Health::new(false);
        (0..9).for_each(|_| failed(&health, Reason::DiskFull));
        (0..9).for_each(|_| failed(&health, Reason::OutOfResources));
        assert_eq!(health.service(), Service::ReadWrite);
    }

    #[test]
    fn service_only_gets_worse_and_the_first_reason_stays() {
        let health = Health::new(false);
        health.lower_to(Service::Off, Reason::NoHome);
        health.lower_to(Service::ReadOnly, Reason::ReadOnly);
        health.lower_to(Service::Off, Reason::Io);
        assert_eq!((health.service(), health.because()), (Service::Off, Some(Reason::NoHome)));
    }

    #[test]
    fn strict_makes_errors_of_it() {
        let counters = Counters::default();
        let trouble = || CacheError::new(Reason::Io, "test");
        assert!(Health::new(false).degrade(&counters, trouble()).is_ok());
        assert!(Health::new(true).degrade(&counters, trouble()).is_err());
        let disabled = Health::new(true);
        disabled.lower_to(Service::Off, Reason::Disabled);
        assert!(disabled.declined("get").is_ok());
        let read_only = Health::new(true);
        read_only.lower_to(Service::ReadOnly, Reason::OpenedReadOnly);
        assert!(read_only.declined("offer").is_ok());
    }

    #[test]
    fn every_reason_has_its_own_bit() {
        assert!(Reason::ALL.len() <= 64);
    }
}
