//! Numbers as people read them: `12.3 KiB`, `3 min`, `1.24 ms`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes, in binary units.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut scaled = bytes as f64 / 1024.0;
    let mut unit = 0;
    // One decimal is shown, so 1023.95 would be shown as 1024.0 of the smaller unit.
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    format!("{scaled:.1} {}", UNITS[unit])
}

/// A short time, to three digits.
pub(crate) fn duration(duration: Duration) -> String {
    let microseconds = micros(duration);
    match microseconds {
        _ if microseconds < 1.0 => format!("{} ns", duration.as_nanos()),
        _ if microseconds < 999.5 => three_digits(microseconds, "µs"),
        _ if microseconds < 999_500.0 => three_digits(microseconds / 1e3, "ms"),
        _ if microseconds < 100e6 => three_digits(microseconds / 1e6, "s"),
        _ => span(duration),
    }
}

fn three_digits(value: f64, unit: &str) -> String {
    let decimals = match value {
        _ if value < 9.995 => 2,
        _ if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// A duration in µs, with its fraction.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e3
}

/// Reads a long time as the library does.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let span = objcache::cache::parse_span(text);
    span.ok_or_else(|| "a time is a number and its unit, such as 30d, 12h or 90min".to_owned())
}

/// Reads a size as the library does.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let size = objcache::cache::parse_size(text);
    size.ok_or_else(|| "a size is a number of bytes, or one with K, M, G or T, such as 500M".to_owned())
}

/// The time since a point in µs since 1970-01-01 UTC; none since the future.
pub(crate) fn since(unix_us: u64) -> Duration {
    let then = UNIX_EPOCH.checked_add(Duration::from_micros(unix_us));
    then.and_then(|then| SystemTime::now().duration_since(then).ok()).unwrap_or_default()
}

/// How long ago a point in µs since 1970-01-01 UTC is. The future, of a clock that was set back, is now.
pub(crate) fn ago(unix_us: u64) -> String {
    let since = since(unix_us);
    match since.as_secs() {
        0 => "just now".to_owned(),
        _ => format!("{} ago", span(since)),
    }
}

/// `1 hit`, `2 hits`: a number of things whose plural ends in s.
pub(crate) fn count(count: u64, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        _ => format!("{count} {thing}s"),
    }
}

/// A long time, in its largest unit.
pub(crate) fn span(duration: Duration) -> String {
    const UNITS: [(u64, &str); 6] = [
        (365 * 86_400, "years"),
        (7 * 86_400, "weeks"),
        (86_400, "days"),
        (3_600, "h"),
        (60, "min"),
        (1, "s"),
    ];
    let seconds = duration.as_secs();
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| seconds >= 2 * unit).unwrap_or((1, "s"));
    format!("{} {name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(12_595), "12.3 KiB");
        assert_eq!(size(1024 * 1024 - 1), "1.0 MiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn durations() {
        assert_eq!(duration(Duration::ZERO), "0 ns");
        assert_eq!(duration(Duration::from_nanos(999)), "999 ns");
        assert_eq!(duration(Duration::from_nanos(1_234)), "1.23 µs");
        assert_eq!(duration(Duration::from_nanos(9_996)), "10.0 µs");
        assert_eq!(duration(Duration::from_micros(999)), "999 µs");
        assert_eq!(duration(Duration::from_nanos(999_900)), "1.00 ms");
        assert_eq!(duration(Duration::from_millis(45)), "45.0 ms");
        assert_eq!(duration(Duration::from_secs(2)), "2.00 s");
        assert_eq!(duration(Duration::from_secs(600)), "10 min");
    }

    #[test]
    fn spans() {
        assert_eq!(span(Duration::ZERO), "0 s");
        assert_eq!(span(Duration::from_secs(119)), "119 s");
        assert_eq!(span(Duration::from_secs(180)), "3 min");
        assert_eq!(span(Duration::from_secs(3 * 3_600)), "3 h");
        assert_eq!(span(Duration::from_secs(3 * 86_400)), "3 days");
        assert_eq!(span(Duration::from_secs(1_000 * 86_400)), "2 years");
    }

    #[test]
    fn spans_are_read() {
        let read = |text| parse_span(text).ok().map(|span| span.as_secs());
        assert_eq!(read("90s"), Some(90));
        assert_eq!(read("5 min"), Some(300));
        assert_eq!(read("2h"), Some(7_200));
        assert_eq!(read("30d"), Some(30 * 86_400));
        assert_eq!(read("0d"), Some(0));
        for text in ["", "30", "d", "1.5h", "-1d", "3 lightyears", "999999999999999999y"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn the_past_is_long_ago() {
        assert!(ago(0).ends_with(" years ago"));
    }

    #[test]
    fn the_future_is_now() {
        assert_eq!(ago(u64::MAX), "just now");
    }
}
