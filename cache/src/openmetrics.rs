//! Statistics as text for Prometheus and its kin: OpenMetrics 1.0
//! (<https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>).

use std::fmt::{self, Write};
use std::time::Duration;

use crate::admin::CacheStats;
use crate::latency::Latencies;

impl CacheStats {
    /// The statistics in the OpenMetrics text format, version 1.0; its content type is
    /// `application/openmetrics-text; version=1.0.0; charset=utf-8`.
    pub fn to_openmetrics(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write_all(self, &mut text);
        text
    }
}

fn write_all(stats: &CacheStats, out: &mut String) -> fmt::Result {
    let CacheStats {
        entries,
        object_bytes,
        disk_bytes,
        max_size,
        hits,
        misses,
        puts,
        put_bytes,
        quarantined,
        evicted,
        saved_compile_time_us,
        declined,
        full,
        failures,
        failure_hits,
        put_time,
        hit_latency,
        miss_latency,
        reasons,
    } = stats;
    gauge(out, "entries", "", "Entries there are now.", *entries)?;
    gauge(out, "object_bytes", "bytes", "Size of their object files.", *object_bytes)?;
    gauge(out, "disk_bytes", "bytes", "What they take on disk.", *disk_bytes)?;
    gauge(out, "max_size_bytes", "bytes", "The size on disk that the cache keeps to.", *max_size)?;
    counter(out, "hits", "", "Look-ups that were answered.", hits)?;
    counter(out, "misses", "", "Look-ups that were not.", misses)?;
    counter(out, "puts", "", "Objects taken in.", puts)?;
    counter(out, "put_bytes", "bytes", "Size of the objects taken in.", put_bytes)?;
    counter(out, "evicted", "", "Entries removed to keep to the limits.", evicted)?;
    counter(out, "quarantined", "", "Damaged entries taken out.", quarantined)?;
    counter(out, "declined", "", "Objects that were not worth keeping.", declined)?;
    counter(out, "full", "", "Objects for which no room could be made.", full)?;
    counter(out, "failures", "", "Failed compilations remembered.", failures)?;
    counter(out, "failure_hits", "", "Look-ups answered with a failed compilation.", failure_hits)?;
    let saved = seconds(Duration::from_micros(*saved_compile_time_us));
    counter(out, "saved_compile_seconds", "seconds", "Compile time that hits saved.", &saved)?;
    counter(out, "put_seconds", "seconds", "Time spent on keeping objects.", &seconds(*put_time))?;
    histogram(out, "hit_duration_seconds", "Time that look-ups took that were answered.", hit_latency)?;
    histogram(out, "miss_duration_seconds", "Time that look-ups took that were not answered.", miss_latency)?;
    family(out, "trouble", "counter", "", "How often each reason to do less came up.")?;
    for (reason, count) in reasons {
        writeln!(out, "objcache_trouble_total{{reason=\"{}\"}} {count}", reason.as_str())?;
    }
    writeln!(out, "# EOF")
}

fn family(out: &mut String, name: &str, kind: &str, unit: &str, help: &str) -> fmt::Result {
    writeln!(out, "# TYPE objcache_{name} {kind}")?;
    if !unit.is_empty() {
        writeln!(out, "# UNIT objcache_{name} {unit}")?;
    }
    writeln!(out, "# HELP objcache_{name} {help}")
}

fn gauge(out: &mut String, name: &str, unit: &str, help: &str, value: u64) -> fmt::Result {
    family(out, name, "gauge", unit, help)?;
    writeln!(out, "objcache_{name} {value}")
}

fn counter(out: &mut String, name: &str, unit: &str, help: &str, value: &dyn fmt::Display) -> fmt::Result {
    family(out, name, "counter", unit, help)?;
    writeln!(out, "objcache_{name}_total {value}")
}

fn histogram(out: &mut String, name: &str, help: &str, latencies: &Latencies) -> fmt::Result {
    family(out, name, "histogram", "seconds", help)?;
    let mut below = 0u64;
    for (bound, count) in latencies.buckets() {
        below = below.saturating_add(count);
        let bound = bound.map_or("+Inf".to_owned(), seconds);
        writeln!(out, "objcache_{name}_bucket{{le=\"{bound}\"}} {below}")?;
    }
    writeln!(out, "objcache_{name}_count {}", latencies.count())?;
    writeln!(out, "objcache_{name}_sum {}", seconds(latencies.total()))
}

/// With a point, and without an exponent, as the format asks of bounds.
fn seconds(time: Duration) -> String {
    let text = time.as_secs_f64().to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}
