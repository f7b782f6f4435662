//! `recompress`: what was not used for long takes less room.

use std::io;
use std::time::Duration;

use clap::Args;
use objcache::cache::{RecompressPolicy, RecompressReport, Recompressed};
use serde::Serialize;

use super::entry::entries;
use crate::context::{Context, short};
use crate::failure::{Failure, Status};
use crate::output::progress::Bar;
use crate::output::table::{Column, table};
use crate::output::{Report, Text};
use crate::units;

/// Store entries that were not used for long in less room
///
/// They become Zstandard frames. Others are stored as they would be if they were put now (OBJCACHE_COMPRESSION), so that
/// entries which came into use again are fast again. What they hold does not change.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Entries not used for longer than this become smaller, such as 30d or 12h
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = units::parse_span)]
    cold_after: Duration,

    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let mut policy = RecompressPolicy::default();
    policy.cold_after = options.cold_after;
    policy.hot = store.options().compression;
    let bar = Bar::new("recompress", context.output.quiet || context.output.json);
    let report = store.recompress(&policy, options.dry_run, &mut |progress| bar.show(progress))?;
    drop(bar);
    context.output.report(&ChangeReport { dry_run: options.dry_run, report })?;
    Ok(Status::Fine)
}

struct ChangeReport {
    dry_run: bool,
    report: RecompressReport,
}

impl ChangeReport {
    /// Bytes of the objects that change, before and after.
    fn bytes(&self) -> (u64, u64) {
        let changed = self.report.changed.iter();
        changed.fold((0, 0), |(before, after), it| (before + it.bytes_before, after + it.bytes_after))
    }
}

#[derive(Serialize)]
struct ChangedEntry {
    signature: String,
    from: &'static str,
    to: &'static str,
    bytes_before: u64,
    bytes_after: u64,
}

impl From<&Recompressed> for ChangedEntry {
    fn from(entry: &Recompressed) -> Self {
        let Recompressed { signature, from, to, bytes_before, bytes_after } = *entry;
        Self {
            signature: signature.to_string(),
            from: from.as_str(),
            to: to.as_str(),
            bytes_before,
            bytes_after,
        }
    }
}

impl Serialize for ChangeReport {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields {
            dry_run: bool,
            changed: Vec<ChangedEntry>,
            bytes_before: u64,
            bytes_after: u64,
            kept: u64,
            left: u64,
        }
        let RecompressReport { changed, kept, left } = &self.report;
        let (bytes_before, bytes_after) = self.bytes();
        let changed = changed.iter().map(ChangedEntry::from).collect();
        Fields { dry_run: self.dry_run, changed, bytes_before, bytes_after, kept: *kept, left: *left }
            .serialize(to)
    }
}

impl Report for ChangeReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let RecompressReport { changed, kept, left } = &self.report;
        if self.dry_run && !changed.is_empty() {
            let columns = [
                Column::Left("SIGNATURE"),
                Column::Left("FROM"),
                Column::Left("TO"),
                Column::Right("BEFORE"),
                Column::Right("AFTER"),
            ];
            let rows = changed.iter().map(|it| {
                let sizes = [units::size(it.bytes_before), units::size(it.bytes_after)];
                [vec![short(&it.signature), it.from.to_string(), it.to.to_string()], sizes.to_vec()].concat()
            });
            text.laid_out(&table(&columns, rows, text.styled))?;
        }
        let verb = if self.dry_run { "would recompress" } else { "recompressed" };
        let (before, after) = self.bytes();
        let (before, after) = (units::size(before), units::size(after));
        let left = match left {
            0 => String::new(),
            left => format!(", {left} cannot be"),
        };
        text.line(format!(
            "{verb} {} ({before} to {after}); {} stay as they are{left}",
            entries(changed.len() as u64),
            entries(*kept)
        ))
    }
}
