//! `gc`: what is worth least goes, until the limits hold.

use std::io;
use std::time::Duration;

use clap::Args;
use objcache::cache::{CacheAdmin, GcLimits, GcReport};
use serde::Serialize;

use super::entry::{COLUMNS, EntryFields, cells, entries};
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::table::table;
use crate::output::{Report, Text};
use crate::units;

/// Remove entries until the cache keeps to limits
///
/// Without limits given, to its own (OBJCACHE_MAX_SIZE and others). What goes first is what was not used for
/// long, compiles fast and is large.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The most that all entries together may take, such as 500M
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    max_size: Option<u64>,

    /// How long ago an entry may have been used last, such as 30d or 12h
    #[arg(long, value_name = "TIME", value_parser = units::parse_span)]
    max_age: Option<Duration>,

    /// How many entries there may be
    #[arg(long, value_name = "NUMBER")]
    max_entries: Option<u64>,

    /// The most that the entries of a namespace may take, such as debug=500M; may be repeated
    #[arg(long, value_name = "NAME=SIZE", value_parser = parse_namespace)]
    namespace_max_size: Vec<(String, u64)>,

    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let mut limits = GcLimits {
        max_size: options.max_size,
        max_age: options.max_age,
        max_entries: options.max_entries,
        namespace_max_size: options.namespace_max_size.iter().cloned().collect(),
    };
    if limits == GcLimits::default() {
        limits = store.options().limits();
    }
    let report = store.collect_garbage(&limits, options.dry_run)?;
    context.output.report(&CollectReport { dry_run: options.dry_run, report })?;
    Ok(Status::Fine)
}

fn parse_namespace(text: &str) -> Result<(String, u64), String> {
    // A name may have one of its own, a size has none.
    let (name, size) =
        text.rsplit_once('=').ok_or("a limit of a namespace is its name, = and a size".to_owned())?;
    Ok((name.to_owned(), units::parse_size(size)?))
}

struct CollectReport {
    dry_run: bool,
    report: GcReport,
}

impl Serialize for CollectReport {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields {
            dry_run: bool,
            removed: Vec<EntryFields>,
            removed_bytes: u64,
            kept: u64,
            kept_bytes: u64,
        }
        let GcReport { removed, removed_bytes, kept, kept_bytes } = &self.report;
        let removed = removed.iter().map(EntryFields::from).collect();
        let (removed_bytes, kept, kept_bytes) = (*removed_bytes, *kept, *kept_bytes);
        Fields { dry_run: self.dry_run, removed, removed_bytes, kept, kept_bytes }.serialize(to)
    }
}

impl Report for CollectReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let GcReport { removed, removed_bytes, kept, kept_bytes } = &self.report;
        if self.dry_run && !removed.is_empty() {
            text.laid_out(&table(&COLUMNS, removed.iter().map(cells), text.styled))?;
        }
        let (verb, stays) = if self.dry_run { ("would remove", "would stay") } else { ("removed", "left") };
        text.line(format!(
            "{verb} {} ({}); {} ({}) {stays}",
            entries(removed.len() as u64),
            units::size(*removed_bytes),
            entries(*kept),
            units::size(*kept_bytes)
        ))
    }
}
