//! `verify`: every entry is read and checked.

use std::io;

use clap::Args;
use objcache::cache::{CacheAdmin, Reason, VerifyOptions, VerifyReport};
use serde::Serialize;

use super::entry::{self, Damaged, entries};
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::progress::Bar;
use crate::output::{Report, Text};
use crate::units;

/// Read and check every entry; exit code 1 when one is damaged, or not vouched for by a trusted key
///
/// What is not vouched for is sound, and stays: others may believe it. Damaged entries are never served: a look-up treats them as missing, and the next compilation replaces them.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Take damaged entries out
    #[arg(long)]
    repair: bool,

    /// With --repair: only say what would be taken out
    #[arg(long, requires = "repair")]
    dry_run: bool,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let bar = Bar::new("verify", context.output.quiet || context.output.json);
    let repair = options.repair && !options.dry_run;
    let report = store.verify(VerifyOptions { repair }, &mut |progress| bar.show(progress))?;
    drop(bar);
    let is_fine = report.damaged.is_empty() && report.not_vouched_for.is_empty();
    let status = if is_fine { Status::Fine } else { Status::Findings };
    context.output.report(&CheckedReport { options: (options.repair, options.dry_run), report })?;
    Ok(status)
}

struct CheckedReport {
    /// Repair, and dry run.
    options: (bool, bool),
    report: VerifyReport,
}

impl Serialize for CheckedReport {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields {
            dry_run: bool,
            checked: u64,
            bytes: u64,
            damaged: Vec<Damaged>,
            repaired: u64,
            not_vouched_for: Vec<Damaged>,
        }
        let VerifyReport { checked, bytes, damaged, repaired, not_vouched_for } = &self.report;
        let (damaged, not_vouched_for) = (entry::damaged(damaged), entry::damaged(not_vouched_for));
        let (checked, bytes, repaired) = (*checked, *bytes, *repaired);
        let dry_run = self.options.1;
        Fields { dry_run, checked, bytes, damaged, repaired, not_vouched_for }.serialize(to)
    }
}

impl Report for CheckedReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let VerifyReport { checked, bytes, damaged, repaired, not_vouched_for } = &self.report;
        for entry in damaged.iter().chain(not_vouched_for) {
            text.line(format!("{}  {}", entry.signature, entry.reason))?;
        }
        let checked = format!("{} ({}) checked", entries(*checked), units::size(*bytes));
        let found = match (damaged.len() as u64, self.options) {
            (0, _) => "none is damaged".to_owned(),
            (count, (true, true)) => format!("{count} damaged, would be taken out"),
            (count, (true, false)) => format!("{count} damaged, {repaired} taken out"),
            // A false signature goes with the next offer, and not before.
            (count, _) if damaged.iter().all(|entry| entry.reason == Reason::EntrySeal) => {
                format!("{count} damaged")
            }
            (count, _) => format!("{count} damaged; take out with --repair"),
        };
        let untrusted = match not_vouched_for.len() {
            0 => String::new(),
            count => format!("; {count} not vouched for by a trusted key"),
        };
        text.line(format!("{checked}: {found}{untrusted}"))
    }
}
