//! `pack import`: entries of a pack go into the cache.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use objcache::cache::ImportReport;
use serde::Serialize;

use super::{open, status, write_not_vouched_for};
use crate::commands::entry::{Damaged, by_trust, entries, write_damaged};
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::progress::Bar;
use crate::output::{Report, Text};
use crate::units;

/// Take the entries of a pack into the cache, but for those it has
///
/// Entries are verified, and left out when they are damaged or no trusted key vouches for them (exit code 1). What was compiled for whom is believed: import
/// only packs whose maker you would run programs of.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The pack
    #[arg(value_name = "PACK", value_hint = ValueHint::FilePath)]
    pack: PathBuf,

    /// Only say what would be taken in
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let pack = open(&options.pack)?;
    let bar = Bar::new("import", context.output.quiet || context.output.json);
    let report = store.import_pack(&pack, options.dry_run, &mut |progress| bar.show(progress))?;
    drop(bar);
    let ImportReport { imported, imported_bytes, present, no_room, damaged: unsound } = &report;
    let (damaged, not_vouched_for) = by_trust(unsound);
    context.output.report(&TakenReport {
        pack: options.pack.display().to_string(),
        dry_run: options.dry_run,
        imported: *imported,
        imported_bytes: *imported_bytes,
        no_room: *no_room,
        present: *present,
        damaged,
        not_vouched_for,
    })?;
    Ok(status(unsound))
}

#[derive(Serialize)]
struct TakenReport {
    pack: String,
    dry_run: bool,
    imported: u64,
    imported_bytes: u64,
    no_room: u64,
    present: u64,
    damaged: Vec<Damaged>,
    not_vouched_for: Vec<Damaged>,
}

impl Report for TakenReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        write_damaged(&self.damaged, text)?;
        write_damaged(&self.not_vouched_for, text)?;
        let verb = if self.dry_run { "would import" } else { "imported" };
        text.line(format!(
            "{verb} {} ({}); {} already there",
            entries(self.imported),
            units::size(self.imported_bytes),
            self.present
        ))?;
        if self.no_room > 0 {
            text.line(format!("the cache has no room for {}", entries(self.no_room)))?;
        }
        write_not_vouched_for(&self.not_vouched_for, text)
    }
}
