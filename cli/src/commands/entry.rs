//! One entry of the cache, as `ls`, `show` and `gc` tell of it.

use std::io;
use std::time::Duration;

use objcache::cache::{Codec, DamagedEntry, EntryInfo};
use serde::Serialize;

use crate::context::short;
use crate::output::Text;
use crate::output::table::Column;
use crate::units;

/// What the catalogue knows of an entry, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct EntryFields {
    signature: String,
    object_bytes: u64,
    stored_bytes: u64,
    codec: &'static str,
    disk_bytes: u64,
    created_unix_us: u64,
    last_used_unix_us: u64,
    hits: u64,
    compile_time_us: u64,
    namespace: String,
    pinned: bool,
}

impl From<&EntryInfo> for EntryFields {
    fn from(entry: &EntryInfo) -> Self {
        let EntryInfo {
            signature,
            object_bytes,
            stored_bytes,
            codec,
            disk_bytes,
            created_unix_us,
            last_used_unix_us,
            hits,
            compile_time_us,
            namespace,
            pinned,
        } = entry;
        Self {
            signature: signature.to_string(),
            object_bytes: *object_bytes,
            stored_bytes: *stored_bytes,
            codec: codec.as_str(),
            disk_bytes: *disk_bytes,
            created_unix_us: *created_unix_us,
            last_used_unix_us: *last_used_unix_us,
            hits: *hits,
            compile_time_us: *compile_time_us,
            namespace: namespace.clone(),
            pinned: *pinned,
        }
    }
}

/// The columns that tell of an entry.
pub(crate) const COLUMNS: [Column; 8] = [
    Column::Left("SIGNATURE"),
    Column::Right("SIZE"),
    Column::Right("STORED"),
    Column::Right("USED"),
    Column::Right("HITS"),
    Column::Right("COMPILED IN"),
    Column::Left("PIN"),
    Column::Left("NAMESPACE"),
];

/// The cells under [`COLUMNS`].
pub(crate) fn cells(entry: &EntryInfo) -> Vec<String> {
    vec![
        short(&entry.signature),
        units::size(entry.object_bytes),
        stored(entry),
        units::ago(entry.last_used_unix_us),
        entry.hits.to_string(),
        units::duration(Duration::from_micros(entry.compile_time_us)),
        if entry.pinned { "pinned".to_owned() } else { "-".to_owned() },
        match entry.namespace.is_empty() {
            true => "-".to_owned(),
            false => entry.namespace.clone(),
        },
    ]
}

/// A damaged entry, for programs.
#[derive(Serialize)]
pub(crate) struct Damaged {
    signature: String,
    reason: &'static str,
}

/// Those that are damaged, and those that are sound and vouched for by nobody who is believed.
pub(crate) fn by_trust(entries: &[DamagedEntry]) -> (Vec<Damaged>, Vec<Damaged>) {
    let (untrusted, unsound): (Vec<_>, Vec<_>) =
        entries.iter().copied().partition(|entry| entry.reason.is_of_trust());
    (damaged(&unsound), damaged(&untrusted))
}

pub(crate) fn damaged(entries: &[DamagedEntry]) -> Vec<Damaged> {
    let damaged =
        |it: &DamagedEntry| Damaged { signature: it.signature.to_string(), reason: it.reason.as_str() };
    entries.iter().map(damaged).collect()
}

pub(crate) fn write_damaged(entries: &[Damaged], text: &mut Text<'_>) -> io::Result<()> {
    entries.iter().try_for_each(|entry| text.line(format!("{}  {}", entry.signature, entry.reason)))
}

/// What is stored of an object: `31 KB lz4`.
pub(crate) fn stored(entry: &EntryInfo) -> String {
    match entry.codec {
        Codec::Plain => units::size(entry.stored_bytes),
        codec => format!("{} {codec}", units::size(entry.stored_bytes)),
    }
}

/// `1 entry`, `2 entries`.
pub(crate) fn entries(count: u64) -> String {
    match count {
        1 => "1 entry".to_owned(),
        _ => format!("{count} entries"),
    }
}
