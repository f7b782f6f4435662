//! Wall-clock time as every record of ours has it.

use std::time::{Duration, Instant, SystemTime};

/// µs since 1970-01-01 UTC; 0 on a clock that is before that.
pub(crate) fn now_unix_us() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok().map_or(0, microseconds)
}

/// Whether the clock is before 1970, as one without a battery may be.
pub(crate) fn is_before_1970() -> bool {
    SystemTime::now() < SystemTime::UNIX_EPOCH
}

/// The moment `wait` from now; a century from now for waits that no clock can tell the end of.
pub(crate) fn deadline(wait: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(wait).unwrap_or_else(|| now + CENTURY)
}

/// A duration in µs.
pub(crate) fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
