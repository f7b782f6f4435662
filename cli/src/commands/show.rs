//! `show`: all that is known of one entry.

use std::io;
use std::time::Duration;

use clap::Args;
use objcache::cache::{CacheAdmin, EntryInfo, EntryRecord, Store};
use objcache::signature::{KeyDocument, Provenance, Signature};
use serde::{Serialize, Serializer};

use super::entry::{EntryFields, stored};
use crate::context::{Context, find, known};
use crate::failure::{Failure, Status};
use crate::ingredients::{self, Ingredients};
use crate::object_summary::Summary;
use crate::output::table::pairs;
use crate::output::{Report, Text};
use crate::units;

/// Show an entry: what it was compiled from, where and when, and what is in its object
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The beginning of its signature
    #[arg(value_name = "SIG")]
    signature: String,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let signature = find(&store, &options.signature)?;
    context.output.report(&EntryReport::read(&store, &signature)?)?;
    Ok(Status::Fine)
}

struct EntryReport {
    entry: EntryInfo,
    /// It is read where a pack or another layer has it.
    in_layer: bool,
    record: EntryRecord,
    /// `None` for an object that was put without one.
    document: Option<KeyDocument>,
    summary: Summary,
}

impl EntryReport {
    fn read(store: &Store, signature: &Signature) -> Result<Self, Failure> {
        let damaged = || {
            let message = format!("entry {signature} is gone, or is damaged");
            Failure::finding("unknown_signature", message).hint("objcache verify tells which")
        };
        let (entry, in_layer) = known(store, signature)?.ok_or_else(damaged)?;
        let record = store.record(signature)?.ok_or_else(damaged)?;
        let object = store.peek(signature)?.ok_or_else(damaged)?;
        let summary = Summary::of(&object).unwrap_or_else(|why| {
            tracing::warn!("the object of entry {signature} does not read: {why}");
            Summary::default()
        });
        let document = KeyDocument::parse(&record.key_document).ok();
        Ok(Self { entry, in_layer, record, document, summary })
    }
}

#[derive(Serialize)]
struct Fields<'a> {
    #[serde(flatten)]
    entry: EntryFields,
    in_layer: bool,
    cpu_features: &'a [String],
    signed_by: Vec<String>,
    has_mac: bool,
    provenance: ProvenanceFields<'a>,
    ingredients: Option<Ingredients<'a>>,
    #[serde(flatten)]
    summary: &'a Summary,
}

#[derive(Serialize)]
struct ProvenanceFields<'a> {
    source_path: Option<&'a str>,
    source_modified_unix_us: Option<u64>,
    working_directory: Option<&'a str>,
    host: Option<&'a str>,
    compile_time_us: Option<u64>,
    compiled_at_unix_us: Option<u64>,
}

impl<'a> From<&'a Provenance> for ProvenanceFields<'a> {
    fn from(provenance: &'a Provenance) -> Self {
        let Provenance {
            source_path,
            source_modified_unix_us,
            working_directory,
            host,
            compile_time_us,
            compiled_at_unix_us,
        } = provenance;
        Self {
            source_path: source_path.as_deref(),
            source_modified_unix_us: *source_modified_unix_us,
            working_directory: working_directory.as_deref(),
            host: host.as_deref(),
            compile_time_us: *compile_time_us,
            compiled_at_unix_us: *compiled_at_unix_us,
        }
    }
}

impl Serialize for EntryReport {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let ingredients = self.document.as_ref().map(Ingredients);
        let EntryRecord { provenance, cpu_features, signed_by, has_mac, .. } = &self.record;
        Fields {
            entry: (&self.entry).into(),
            in_layer: self.in_layer,
            cpu_features,
            signed_by: signed_by.iter().map(ToString::to_string).collect(),
            has_mac: *has_mac,
            provenance: provenance.into(),
            ingredients,
            summary: &self.summary,
        }
        .serialize(to)
    }
}

impl Report for EntryReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let styled = text.styled;
        text.laid_out(&pairs(self.facts(), text.width))?;
        if let Some(document) = &self.document {
            text.heading("Compiled from")?;
            text.laid_out(&ingredients::lines(document, text.width))?;
        }
        text.heading("Sections")?;
        text.laid_out(&self.summary.section_table(styled))?;
        text.heading("Symbols")?;
        text.laid_out(&self.summary.symbol_table(styled))
    }
}

impl EntryReport {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let EntryInfo { signature, object_bytes, disk_bytes, hits, last_used_unix_us, pinned, .. } =
            &self.entry;
        let mut facts = vec![("signature", signature.to_string())];
        let Provenance { source_path, source_modified_unix_us, working_directory, host, .. } =
            &self.record.provenance;
        if let Some(path) = source_path {
            let modified = source_modified_unix_us.map(|at| format!(" (modified {})", units::ago(at)));
            facts.push(("source", format!("{path}{}", modified.unwrap_or_default())));
        }
        if let Some(directory) = working_directory {
            facts.push(("working directory", directory.clone()));
        }
        if let Some(host) = host {
            facts.push(("host", host.clone()));
        }
        let time = units::duration(Duration::from_micros(self.entry.compile_time_us));
        facts.push(("compile time", time));
        facts.push(("made", units::ago(self.entry.created_unix_us)));
        let used = match *hits {
            0 => "never".to_owned(),
            hits => format!("{}, last {}", units::count(hits, "time"), units::ago(*last_used_unix_us)),
        };
        facts.push(("used", used));
        let size = units::size(*object_bytes);
        let place = match self.in_layer {
            true => "in a pack or another layer".to_owned(),
            false => format!("{} on disk", units::size(*disk_bytes)),
        };
        facts.push(("size", format!("{size}, stored {}, {place}", stored(&self.entry))));
        let EntryRecord { cpu_features, signed_by, has_mac, .. } = &self.record;
        if !cpu_features.is_empty() {
            facts.push(("needs", cpu_features.join(" ")));
        }
        facts.extend(signed_by.iter().map(|key| ("signed by", key.to_string())));
        if *has_mac {
            facts.push(("MAC", "yes".to_owned()));
        }
        if *pinned {
            facts.push(("pinned", "yes".to_owned()));
        }
        facts
    }
}
