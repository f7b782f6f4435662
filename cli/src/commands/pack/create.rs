//! `pack create` and `pack add`: entries of the cache go into a pack.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueHint};
use objcache::cache::{Compression, EntryInfo, PackMode, PackReport, PackSelection, Store, Trace};
use objcache::signature::Signature;
use serde::Serialize;

use super::{hexadecimal, status, write_not_vouched_for};
use crate::commands::entry::{Damaged, by_trust, entries, write_damaged};
use crate::context::{Context, find};
use crate::failure::{Failure, Status};
use crate::output::progress::Bar;
use crate::output::{Report, Text};
use crate::units;

/// Make a pack of the cache's entries: of all, or of those that are chosen
///
/// Entries of mounted packs and other layers go into it when they are chosen by --trace or by their whole
/// signature. Exit code 1 when an entry had to be left out that is
/// damaged, or that no trusted key vouches for.
#[derive(Debug, Args)]
pub(crate) struct CreateOptions {
    /// The pack to make, over the file that has that name or that a link of that name leads to
    #[arg(value_name = "OUT", value_hint = ValueHint::FilePath)]
    out: PathBuf,

    #[command(flatten)]
    choice: Choice,
}

/// Add entries of the cache to a pack
///
/// What is in it stays; of an entry that both have, the cache's is taken. The pack is made anew beside the old
/// one and then takes its name, so whoever has it mounted goes on with the old one. Others that add to it or
/// make it anew at the same time wait.
#[derive(Debug, Args)]
pub(crate) struct AddOptions {
    /// The pack to add to
    #[arg(value_name = "PACK", value_hint = ValueHint::FilePath)]
    pack: PathBuf,

    #[command(flatten)]
    choice: Choice,
}

#[derive(Debug, Args)]
struct Choice {
    /// Only these entries: the beginnings of their signatures
    #[arg(value_name = "SIG")]
    signatures: Vec<String>,

    /// Only entries in this trace; see `objcache trace`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    trace: Option<PathBuf>,

    /// Only entries used within this time, such as 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = units::parse_span)]
    used_since: Option<Duration>,

    /// Only entries of this namespace; may be given more than once
    #[arg(long, value_name = "NAME")]
    namespace: Vec<String>,

    /// Only entries whose compilation took at least this many milliseconds
    #[arg(long, value_name = "MS")]
    min_compile_ms: Option<u64>,

    /// Only entries whose object is at most this large, such as 5M
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    max_object_size: Option<u64>,

    /// How the pack stores all its objects: as zstd or lz4 frames where that saves anything, with none, or keep
    /// each as it is stored now
    #[arg(long, value_name = "CODEC", default_value = "zstd", value_parser = stored_as())]
    compression: StoredAs,

    /// Only say what would go into it
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy)]
struct StoredAs(Option<Compression>);

fn stored_as() -> impl TypedValueParser<Value = StoredAs> {
    // `keep` is the one that is no policy of its own.
    PossibleValuesParser::new(["zstd", "lz4", "none", "keep"]).map(|word| StoredAs(word.parse().ok()))
}

pub(crate) fn create(options: &CreateOptions, context: &Context) -> Result<Status, Failure> {
    pack(&options.out, &options.choice, false, context)
}

pub(crate) fn add(options: &AddOptions, context: &Context) -> Result<Status, Failure> {
    pack(&options.pack, &options.choice, true, context)
}

fn pack(out: &Path, choice: &Choice, add: bool, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let signatures = choice.signatures(&store)?;
    let filter = |entry: &EntryInfo| choice.wants(entry);
    let selection = PackSelection {
        signatures: signatures.as_deref(),
        filter: choice.filters().then_some(&filter as &dyn Fn(&EntryInfo) -> bool),
    };
    let bar = Bar::new("pack", context.output.quiet || context.output.json);
    let mode = PackMode { add, dry_run: choice.dry_run, compression: choice.compression.0 };
    let report = store.create_pack(out, &selection, mode, &mut |progress| bar.show(progress))?;
    drop(bar);
    context.output.report(&PackedReport::of(out, &report, choice.dry_run))?;
    Ok(status(&report.damaged))
}

impl Choice {
    /// `None`: no signatures are named, in one way or the other.
    fn signatures(&self, store: &Store) -> Result<Option<Vec<Signature>>, Failure> {
        if self.signatures.is_empty() && self.trace.is_none() {
            return Ok(None);
        }
        let named: Result<Vec<_>, _> = self.signatures.iter().map(|prefix| find(store, prefix)).collect();
        let mut signatures = named?;
        if let Some(path) = &self.trace {
            signatures.extend(Trace::read(path)?.signatures);
        }
        Ok(Some(signatures))
    }

    fn filters(&self) -> bool {
        let Self { used_since, namespace, min_compile_ms, max_object_size, .. } = self;
        used_since.is_some() || !namespace.is_empty() || min_compile_ms.is_some() || max_object_size.is_some()
    }

    fn wants(&self, entry: &EntryInfo) -> bool {
        self.used_since.is_none_or(|span| units::since(entry.last_used_unix_us) <= span)
            && (self.namespace.is_empty() || self.namespace.contains(&entry.namespace))
            && self.min_compile_ms.is_none_or(|least| entry.compile_time_us / 1000 >= least)
            && self.max_object_size.is_none_or(|most| entry.object_bytes <= most)
    }
}

#[derive(Serialize)]
struct PackedReport {
    pack: String,
    dry_run: bool,
    packed: u64,
    packed_bytes: u64,
    kept: u64,
    missing: Vec<String>,
    damaged: Vec<Damaged>,
    not_vouched_for: Vec<Damaged>,
    pack_bytes: Option<u64>,
    digest: Option<String>,
}

impl PackedReport {
    fn of(path: &Path, report: &PackReport, dry_run: bool) -> Self {
        let PackReport { packed, packed_bytes, kept, missing, damaged: unsound, pack } = report;
        let (damaged, not_vouched_for) = by_trust(unsound);
        Self {
            pack: path.display().to_string(),
            dry_run,
            packed: *packed,
            packed_bytes: *packed_bytes,
            kept: *kept,
            missing: missing.iter().map(Signature::to_string).collect(),
            damaged,
            not_vouched_for,
            pack_bytes: pack.map(|pack| pack.bytes),
            digest: pack.map(|pack| hexadecimal(&pack.digest)),
        }
    }
}

impl Report for PackedReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        write_damaged(&self.damaged, text)?;
        write_damaged(&self.not_vouched_for, text)?;
        let verb = if self.dry_run { "would pack" } else { "packed" };
        let mut line = format!("{verb} {} ({})", entries(self.packed), units::size(self.packed_bytes));
        if self.kept > 0 {
            line += &format!(" to {} that were there", self.kept);
        }
        if let (Some(bytes), Some(digest)) = (self.pack_bytes, &self.digest) {
            line += &format!("; {} has {}, digest {digest}", self.pack, units::size(bytes));
        }
        text.line(line)?;
        write_not_vouched_for(&self.not_vouched_for, text)?;
        match self.missing.len() as u64 {
            0 => Ok(()),
            missing => text.line(format!("{} not in the cache any more", entries(missing))),
        }
    }
}
