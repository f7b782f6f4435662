//! `stats`: what the cache holds, and what it was good for.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use clap::Args;
use objcache::cache::{CacheAdmin, CacheStats};
use serde::Serialize;

use super::entry::entries;
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::table::pairs;
use crate::output::{Report, Text};
use crate::units;

/// Show what the cache holds and what it has saved
#[derive(Debug, Args)]
pub(crate) struct Options {}

pub(crate) fn run(_options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let directory = store.directory().map(|path| path.display().to_string()).unwrap_or_default();
    context.output.report(&StatsReport::new(directory, store.stats()?))?;
    Ok(Status::Fine)
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
    reasons: BTreeMap<&'static str, u64>,
}

impl StatsReport {
    fn new(directory: String, stats: CacheStats) -> Self {
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
            reasons,
        }
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
            ("directory", self.directory.clone()),
            ("entries", self.entries.to_string()),
            ("objects", size(self.object_bytes)),
            ("on disk", format!("{} of at most {}", size(self.disk_bytes), size(self.max_size))),
            ("look-ups", self.lookups()),
            ("taken in", format!("{} ({})", entries(self.puts), size(self.put_bytes))),
            ("evicted", entries(self.evicted)),
            ("quarantined", entries(self.quarantined)),
            ("compile time saved", units::duration(Duration::from_micros(self.saved_compile_time_us))),
        ];
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
        text.laid_out(&pairs(lines, text.width))
    }
}
