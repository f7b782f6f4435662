//! `ls`: the entries of the cache.

use std::cmp::Reverse;
use std::io;

use clap::{Args, ValueEnum};
use objcache::cache::{CacheAdmin, EntryInfo, Store};
use serde::Serialize;

use super::entry::{COLUMNS, EntryFields, cells};
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::table::{Column, table};
use crate::output::{Report, Text};

/// List the entries of the cache, most recently used first
#[derive(Debug, Args)]
#[command(visible_alias = "list")]
pub(crate) struct Options {
    /// What to sort by
    #[arg(long, value_name = "KEY", default_value = "used")]
    sort: SortKey,

    /// The other way round
    #[arg(short, long)]
    reverse: bool,

    /// Only entries of this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,

    /// Only pinned entries, which eviction passes over
    #[arg(long)]
    pinned: bool,

    /// Only the first N
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,

    /// Do not read every entry for the name of its source
    #[arg(long)]
    brief: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SortKey {
    /// Last use, latest first.
    Used,
    /// When it was made, latest first.
    Created,
    /// Size of the object, largest first.
    Size,
    /// Number of uses, most first.
    Hits,
    /// Compile time, longest first.
    CompileTime,
    /// Signature.
    Signature,
    /// Namespace, then last use.
    Namespace,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let mut entries = store.list()?;
    if let Some(namespace) = &options.namespace {
        entries.retain(|entry| entry.namespace == *namespace);
    }
    entries.retain(|entry| entry.pinned || !options.pinned);
    sort(&mut entries, options.sort);
    if options.reverse {
        entries.reverse();
    }
    entries.truncate(options.limit.unwrap_or(usize::MAX));
    let sources = match options.brief {
        true => vec![None; entries.len()],
        false => entries.iter().map(|entry| source(&store, entry)).collect::<Result<_, _>>()?,
    };
    context.output.report(&ListReport { entries: entries.into_iter().zip(sources).collect() })?;
    Ok(Status::Fine)
}

/// Ties stay in the order of signatures, in which they were listed.
fn sort(entries: &mut [EntryInfo], key: SortKey) {
    match key {
        SortKey::Used => entries.sort_by_key(|entry| Reverse(entry.last_used_unix_us)),
        SortKey::Created => entries.sort_by_key(|entry| Reverse(entry.created_unix_us)),
        SortKey::Size => entries.sort_by_key(|entry| Reverse(entry.object_bytes)),
        SortKey::Hits => entries.sort_by_key(|entry| Reverse(entry.hits)),
        SortKey::CompileTime => entries.sort_by_key(|entry| Reverse(entry.compile_time_us)),
        SortKey::Signature => {}
        SortKey::Namespace => {
            entries.sort_by(|a, b| {
                a.namespace.cmp(&b.namespace).then(b.last_used_unix_us.cmp(&a.last_used_unix_us))
            });
        }
    }
}

/// The source an entry was compiled from; `None` for an entry that vanished or is damaged meanwhile.
fn source(store: &Store, entry: &EntryInfo) -> Result<Option<String>, Failure> {
    Ok(store.record(&entry.signature)?.and_then(|record| record.provenance.source_path))
}

struct ListReport {
    entries: Vec<(EntryInfo, Option<String>)>,
}

#[derive(Serialize)]
struct ListedEntry<'a> {
    #[serde(flatten)]
    fields: EntryFields,
    source_path: Option<&'a str>,
}

impl Serialize for ListReport {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            entries: Vec<ListedEntry<'a>>,
        }
        let entries = self
            .entries
            .iter()
            .map(|(entry, source)| ListedEntry { fields: entry.into(), source_path: source.as_deref() })
            .collect();
        Fields { entries }.serialize(to)
    }
}

impl Report for ListReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let mut columns = COLUMNS.to_vec();
        columns.push(Column::Left("SOURCE"));
        let rows = self.entries.iter().map(|(entry, source)| {
            let mut cells = cells(entry);
            cells.push(source.clone().unwrap_or_else(|| "-".to_owned()));
            cells
        });
        text.laid_out(&table(&columns, rows, text.styled))
    }
}
