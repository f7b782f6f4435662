//! `du`: what the cache's room on disk is used for.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use clap::{Args, ValueEnum};
use objcache::cache::{CacheAdmin, DiskUsage, EntryInfo, Store};
use objcache::signature::{KeyDocument, Value};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::table::{Column, table};
use crate::output::{Report, Text};
use crate::units;

/// Show what takes the room: entries by target, compiler, namespace or age, and what stands beside them
///
/// Sizes are in allocated blocks. `catalogue` is what is known of entries (sled and the journal), `quarantine` damaged
/// entries kept for a look.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to group entries by; age is the time since their last use
    #[arg(long, value_name = "KEY", default_value = "namespace")]
    by: Key,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Key {
    Triple,
    Compiler,
    Namespace,
    Age,
}

/// Bounds of the groups by age, and their names.
const AGES: [(Duration, &str); 5] = [
    (Duration::from_secs(3600), "within an hour"),
    (Duration::from_secs(86_400), "within a day"),
    (Duration::from_secs(7 * 86_400), "within a week"),
    (Duration::from_secs(30 * 86_400), "within a month"),
    (Duration::MAX, "longer ago"),
];

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let mut groups: BTreeMap<(usize, String), Group> = BTreeMap::new();
    for entry in store.list()? {
        let (rank, name) = group_of(options.by, &store, &entry)?;
        let group = groups.entry((rank, name.clone())).or_insert_with(|| Group::named(name));
        group.entries += 1;
        group.object_bytes = group.object_bytes.saturating_add(entry.object_bytes);
        group.disk_bytes = group.disk_bytes.saturating_add(entry.disk_bytes);
        group.pinned += u64::from(entry.pinned);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    // Ages stay in their order.
    if options.by != Key::Age {
        groups.sort_by_key(|group| Reverse(group.disk_bytes));
    }
    let by = options.by.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let max_size = store.options().max_size;
    context.output.report(&UsageReport { by, groups, usage: store.disk_usage()?, max_size })?;
    Ok(Status::Fine)
}

/// The group of an entry, with what to sort by before its name.
fn group_of(key: Key, store: &Store, entry: &EntryInfo) -> Result<(usize, String), Failure> {
    Ok(match key {
        Key::Namespace => (0, entry.namespace.clone()),
        Key::Age => {
            let since = units::since(entry.last_used_unix_us);
            let rank = AGES.iter().position(|(bound, _)| since <= *bound).unwrap_or(AGES.len() - 1);
            (rank, AGES[rank].1.to_owned())
        }
        Key::Triple | Key::Compiler => {
            let record = store.record(&entry.signature)?;
            let document = record.and_then(|record| KeyDocument::parse(&record.key_document).ok());
            // Nothing is known of an object that was put without a record.
            (0, document.map(|document| ingredient_group(key, &document)).unwrap_or_default())
        }
    })
}

fn ingredient_group(key: Key, document: &KeyDocument) -> String {
    let text = |name: &str| {
        document.ingredients().find(|it| it.name == name).and_then(|it| match it.value {
            Value::Text(text) => Some(text.to_owned()),
            _ => None,
        })
    };
    match key {
        Key::Compiler => {
            [text("compiler_name"), text("compiler_version")].map(Option::unwrap_or_default).join(" ")
        }
        _ => text("target_triple").unwrap_or_default(),
    }
}

#[derive(Serialize)]
struct Group {
    name: String,
    entries: u64,
    pinned: u64,
    object_bytes: u64,
    disk_bytes: u64,
}

impl Group {
    fn named(name: String) -> Self {
        Self { name, entries: 0, pinned: 0, object_bytes: 0, disk_bytes: 0 }
    }
}

struct UsageReport {
    by: String,
    groups: Vec<Group>,
    usage: DiskUsage,
    max_size: u64,
}

impl Serialize for UsageReport {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            by: &'a str,
            groups: &'a [Group],
            entries_bytes: u64,
            catalogue_bytes: u64,
            quarantine_bytes: u64,
            other_bytes: u64,
            total_bytes: u64,
            max_size: u64,
        }
        let DiskUsage { entries, catalogue, quarantine, other } = self.usage;
        Fields {
            by: &self.by,
            groups: &self.groups,
            entries_bytes: entries,
            catalogue_bytes: catalogue,
            quarantine_bytes: quarantine,
            other_bytes: other,
            total_bytes: self.usage.total(),
            max_size: self.max_size,
        }
        .serialize(to)
    }
}

impl Report for UsageReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let columns = [
            Column::Right("ON DISK"),
            Column::Right("SHARE"),
            Column::Right("ENTRIES"),
            Column::Right("PINNED"),
            Column::Left(self.heading()),
        ];
        let total = self.usage.total().max(1);
        let row = |bytes: u64, entries: Option<(u64, u64)>, name: &str| {
            let (entries, pinned) = match entries {
                Some((entries, pinned)) => (entries.to_string(), pinned.to_string()),
                None => Default::default(),
            };
            let share = format!("{:.1} %", 100.0 * bytes as f64 / total as f64);
            vec![units::size(bytes), share, entries, pinned, name.to_owned()]
        };
        let mut rows: Vec<_> = self
            .groups
            .iter()
            .map(|group| {
                let name = if group.name.is_empty() { "-" } else { &group.name };
                row(group.disk_bytes, Some((group.entries, group.pinned)), name)
            })
            .collect();
        let DiskUsage { catalogue, quarantine, other, .. } = self.usage;
        for (bytes, name) in
            [(catalogue, "(catalogue)"), (quarantine, "(quarantine)"), (other, "(other files)")]
        {
            if bytes > 0 {
                rows.push(row(bytes, None, name));
            }
        }
        text.laid_out(&table(&columns, rows, text.styled))?;
        text.line(format!("{} of at most {}", units::size(self.usage.total()), units::size(self.max_size)))
    }
}

impl UsageReport {
    fn heading(&self) -> &'static str {
        match self.by.as_str() {
            "triple" => "TARGET",
            "compiler" => "COMPILER",
            "age" => "LAST USED",
            _ => "NAMESPACE",
        }
    }
}
