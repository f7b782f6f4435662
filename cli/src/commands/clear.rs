//! `clear`: everything goes.

use std::io::{self, BufRead, IsTerminal, Write, stderr, stdin};

use clap::Args;
use objcache::cache::{CacheAdmin, ClearReport, Store};
use serde::Serialize;

use super::entry::entries;
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::{Report, Text};
use crate::units;

/// Remove everything from the cache, pinned entries and statistics included
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Do not ask, on a terminal
    #[arg(short, long)]
    yes: bool,

    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let (entries, disk_bytes) = match options.dry_run {
        true => extent(&store)?,
        false => {
            if !options.yes && stdin().is_terminal() && stderr().is_terminal() && !confirmed(&store)? {
                return Err(Failure::finding("not_confirmed", "nothing was removed"));
            }
            let ClearReport { entries, disk_bytes } = store.clear()?;
            (entries, disk_bytes)
        }
    };
    context.output.report(&ClearedReport {
        dry_run: options.dry_run,
        removed: entries,
        removed_bytes: disk_bytes,
    })?;
    Ok(Status::Fine)
}

fn extent(store: &Store) -> Result<(u64, u64), Failure> {
    let entries = store.list()?;
    Ok((entries.len() as u64, entries.iter().map(|entry| entry.disk_bytes).sum()))
}

/// Asks on the terminal. Anything but a clear yes is a no.
fn confirmed(store: &Store) -> Result<bool, Failure> {
    let (count, bytes) = extent(store)?;
    let place = store.directory().map(|path| path.display().to_string()).unwrap_or_default();
    let question = format!("Remove {} ({}) from {place}? [y/N] ", entries(count), units::size(bytes));
    let mut answer = String::new();
    let asked = write!(stderr(), "{question}").and_then(|()| stdin().lock().read_line(&mut answer));
    asked.map_err(|error| Failure::io("terminal".as_ref(), &error))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[derive(Serialize)]
struct ClearedReport {
    dry_run: bool,
    removed: u64,
    removed_bytes: u64,
}

impl Report for ClearedReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let verb = if self.dry_run { "would remove" } else { "removed" };
        text.line(format!("{verb} {} ({})", entries(self.removed), units::size(self.removed_bytes)))
    }
}
