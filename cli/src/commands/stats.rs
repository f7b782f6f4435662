//! `stats`: what the cache holds, and what it was good for.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use clap::Args;
use objcache::cache::{CacheAdmin, CacheStats, Latencies};
use serde::Serialize;

use super::entry::entries;
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::table::{Column, pairs, table};
use crate::output::{Report, Text};
use crate::units;

/// Show whether the cache was worth it, what it holds and what it does
///
/// Processes write down what they did when they end, and every hour.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long look-ups took, as histograms
    #[arg(long, conflicts_with = "openmetrics")]
    latency: bool,

    /// In the text format of OpenMetrics, for Prometheus and its kin
    #[arg(long, conflicts_with = "json")]
    openmetrics: bool,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let stats = store.stats()?;
    if options.openmetrics {
        context.output.bytes(stats.to_openmetrics().as_bytes())?;
        return Ok(Status::Fine);
    }
    let directory = store.directory().map(|path| path.display().to_string()).unwrap_or_default();
    let report = StatsReport { with_latency: options.latency, ..StatsReport::new(directory, stats) };
    context.output.report(&report)?;
    Ok(Status::Fine)
}

/// How long look-ups of one outcome took.
#[derive(Serialize)]
struct LatencyFields {
    count: u64,
    total_us: f64,
    median_us: Option<f64>,
    p99_us: Option<f64>,
    buckets: Vec<BucketFields>,
}

#[derive(Serialize)]
struct BucketFields {
    below_us: Option<f64>,
    count: u64,
}

impl From<&Latencies> for LatencyFields {
    fn from(latencies: &Latencies) -> Self {
        let buckets = latencies.buckets();
        Self {
            count: latencies.count(),
            total_us: units::micros(latencies.total()),
            median_us: latencies.quantile(0.5).map(units::micros),
            p99_us: latencies.quantile(0.99).map(units::micros),
            buckets: buckets
                .map(|(bound, count)| BucketFields { below_us: bound.map(units::micros), count })
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct StatsReport {
    directory: String,
    entries: u64,
    object_bytes: u64,
    disk_bytes: u64,
    max_size: u64,
    hits: u64,
    misses: u64,
    puts: u64,
    put_bytes: u64,
    evicted: u64,
    quarantined: u64,
    saved_compile_time_us: u64,
    declined: u64,
    full: u64,
    failures: u64,
    failure_hits: u64,
    lookup_us: f64,
    put_us: f64,
    net_us: f64,
    hit_latency: LatencyFields,
    miss_latency: LatencyFields,
    reasons: BTreeMap<&'static str, u64>,
    #[serde(skip)]
    latencies: [Latencies; 2],
    #[serde(skip)]
    with_latency: bool,
}

impl StatsReport {
    fn new(directory: String, stats: CacheStats) -> Self {
        let spent = units::micros(stats.spent());
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
        let reasons = reasons.into_iter().map(|(reason, count)| (reason.as_str(), count)).collect();
        Self {
            directory,
            entries,
            object_bytes,
            disk_bytes,
            max_size,
            hits,
            misses,
            puts,
            put_bytes,
            evicted,
            quarantined,
            saved_compile_time_us,
            declined,
            full,
            failures,
            failure_hits,
            lookup_us: units::micros(hit_latency.total().saturating_add(miss_latency.total())),
            put_us: units::micros(put_time),
            net_us: saved_compile_time_us as f64 - spent,
            hit_latency: (&hit_latency).into(),
            miss_latency: (&miss_latency).into(),
            reasons,
            latencies: [hit_latency, miss_latency],
            with_latency: false,
        }
    }

    /// What people ask first: was it worth it?
    fn balance(&self) -> String {
        let time = |us: f64| units::duration(Duration::from_secs_f64(us.abs() / 1e6));
        let verdict = match self.net_us {
            net if net > 0.0 => format!("{} won", time(net)),
            _ if self.hits == 0 => "nothing yet".to_owned(),
            net => format!("{} lost", time(net)),
        };
        let saved = time(self.saved_compile_time_us as f64);
        let (lookups, puts) = (time(self.lookup_us), time(self.put_us));
        format!(
            "{verdict}: {saved} of compilation saved, {lookups} spent on look-ups, {puts} on keeping objects"
        )
    }

    fn lookups(&self) -> String {
        let hits = units::count(self.hits, "hit");
        match self.hits + self.misses {
            0 => "none".to_owned(),
            lookups => format!("{lookups}, {hits} ({:.1} %)", 100.0 * self.hits as f64 / lookups as f64),
        }
    }
}

impl Report for StatsReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let size = units::size;
        let mut lines = vec![
            ("worth it?", self.balance()),
            ("directory", self.directory.clone()),
            ("entries", self.entries.to_string()),
            ("objects", size(self.object_bytes)),
            ("on disk", format!("{} of at most {}", size(self.disk_bytes), size(self.max_size))),
            ("look-ups", self.lookups()),
            ("taken in", format!("{} ({})", entries(self.puts), size(self.put_bytes))),
            ("evicted", entries(self.evicted)),
            ("quarantined", entries(self.quarantined)),
        ];
        for (name, latencies) in ["hits took", "misses took"].into_iter().zip(&self.latencies) {
            if let (Some(median), Some(most)) = (latencies.quantile(0.5), latencies.quantile(0.99)) {
                let (median, most) = (units::duration(median), units::duration(most));
                lines.push((name, format!("half of them at most {median}, 99 % at most {most}")));
            }
        }
        if self.declined + self.full > 0 {
            let declined =
                format!("{} too short or too large, {} for want of room", self.declined, self.full);
            lines.push(("not taken in", declined));
        }
        if self.failures + self.failure_hits > 0 {
            let used = format!("{} remembered, {} answered with", self.failures, self.failure_hits);
            lines.push(("failed compilations", used));
        }
        if !self.reasons.is_empty() {
            let counts: Vec<_> =
                self.reasons.iter().map(|(reason, count)| format!("{reason} {count}×")).collect();
            lines.push(("trouble", counts.join(", ")));
        }
        text.laid_out(&pairs(lines, text.width))?;
        if self.with_latency {
            for (heading, latencies) in ["Hits", "Misses"].into_iter().zip(&self.latencies) {
                text.heading(heading)?;
                text.laid_out(&histogram(latencies, text.styled))?;
            }
        }
        Ok(())
    }
}

/// A row per bucket, from the first that has something in it to the last.
fn histogram(latencies: &Latencies, styled: bool) -> String {
    const WIDEST: f64 = 40.0;
    let buckets: Vec<_> = latencies.buckets().collect();
    let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or_default().max(1) as f64;
    let is_used = |(_, count): &(Option<Duration>, u64)| *count > 0;
    let first = buckets.iter().position(is_used).unwrap_or_default();
    let end = buckets.iter().rposition(is_used).map_or(0, |last| last + 1);
    let rows = buckets.get(first..end).unwrap_or_default().iter().map(|(bound, count)| {
        let bound = bound.map_or("longer".to_owned(), |bound| format!("≤ {}", units::duration(bound)));
        // What there is must be seen, however little.
        let length = (WIDEST * *count as f64 / most).ceil() as usize;
        vec![bound, count.to_string(), "█".repeat(length)]
    });
    table(&[Column::Right("TOOK"), Column::Right("LOOK-UPS"), Column::Left("")], rows, styled)
}
