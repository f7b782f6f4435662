//! `pack ls`: the entries of a pack.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use objcache::cache::PackEntry;
use serde::Serialize;

use super::{digest, open};
use crate::context::{Context, short};
use crate::failure::{Failure, Status};
use crate::output::table::{Column, table};
use crate::output::{Report, Text};
use crate::units;

/// List the entries of a pack, by signature
///
/// Only what entries say of themselves is read; `pack verify` checks them.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The pack
    #[arg(value_name = "PACK", value_hint = ValueHint::FilePath)]
    pack: PathBuf,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let pack = open(&options.pack)?;
    let entries = pack.entries()?;
    context.output.report(&ListReport {
        pack: options.pack.display().to_string(),
        digest: digest(&pack),
        pack_bytes: pack.summary().bytes,
        entries: entries.into_iter().map(Entry::from).collect(),
    })?;
    Ok(Status::Fine)
}

#[derive(Serialize)]
struct ListReport {
    pack: String,
    digest: String,
    pack_bytes: u64,
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    signature: String,
    object_bytes: u64,
    entry_bytes: u64,
    created_unix_us: u64,
    compile_time_us: u64,
    namespace: String,
    #[serde(skip)]
    short: String,
}

impl From<PackEntry> for Entry {
    fn from(entry: PackEntry) -> Self {
        Self {
            signature: entry.signature.to_string(),
            short: short(&entry.signature),
            object_bytes: entry.object_bytes,
            entry_bytes: entry.pack_bytes,
            created_unix_us: entry.created_unix_us,
            compile_time_us: entry.compile_time_us,
            namespace: entry.namespace,
        }
    }
}

const COLUMNS: [Column; 5] = [
    Column::Left("SIGNATURE"),
    Column::Right("SIZE"),
    Column::Right("MADE"),
    Column::Right("COMPILED IN"),
    Column::Left("NAMESPACE"),
];

impl Report for ListReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let rows = self.entries.iter().map(|entry| {
            vec![
                entry.short.clone(),
                units::size(entry.object_bytes),
                units::ago(entry.created_unix_us),
                units::duration(Duration::from_micros(entry.compile_time_us)),
                if entry.namespace.is_empty() { "-".to_owned() } else { entry.namespace.clone() },
            ]
        });
        text.laid_out(&table(&COLUMNS, rows, text.styled))
    }
}
