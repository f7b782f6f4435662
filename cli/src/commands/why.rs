//! `why`: what made a compilation a miss.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use objcache::cache::{CacheAdmin, Miss, MissEnd, Store};
use objcache::signature::{Difference, KeyDocument, Signature};
use objcache::{Nearest, Sought, nearest};
use serde::{Serialize, Serializer};

use crate::compile_options::CompileOptions;
use crate::context::{Context, find, known, short};
use crate::differences;
use crate::failure::{Failure, Status};
use crate::inspected::signature_prefix;
use crate::output::{Report, Text};
use crate::units;

/// Tell why a compilation was not in the cache: what differs from the entry that is most like it
///
/// Of an entry: from those that were there before it. Of a file with its options: whether it would be found, and
/// otherwise from all that are there. Without anything: of the last miss, whatever became of it.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The beginning of a signature, or a file that is to be compiled
    #[arg(value_name = "SIG|FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["last", "diff"])]
    what: Option<PathBuf>,

    /// The last miss: what was compiled last, also when that failed or was not kept
    #[arg(long)]
    last: bool,

    /// What differs between two entries
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "last")]
    diff: Option<Vec<String>>,

    #[command(flatten)]
    compile: CompileOptions,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let report = match (&options.what, options.diff.as_deref()) {
        (_, Some([a, b])) => between(&store, a, b)?,
        (Some(what), _) => match signature_prefix(what) {
            Some(prefix) => of_entry(&store, prefix)?,
            None => of_file(&store, what, options)?,
        },
        (None, _) => of_last(&store)?,
    };
    context.output.report(&report)?;
    Ok(Status::Fine)
}

fn between(store: &Store, a: &str, b: &str) -> Result<WhyReport, Failure> {
    let (a, b) = (Compiled::entry(store, a)?, Compiled::entry(store, b)?);
    let before = a.document.ingredients().count();
    let differences = a.document.differences(&b.document);
    let ingredients = before.max(b.document.ingredients().count());
    let same =
        a.document.ingredients().filter(|one| b.document.ingredients().any(|other| *one == other)).count();
    Ok(WhyReport {
        outcome: Outcome::Diff,
        uncacheable: None,
        nearest: Some(Nearest {
            entry: known(store, &a.signature)?.ok_or_else(|| gone(&a.signature))?.0,
            same_source: a.source_path == b.source_path,
            source_path: a.source_path,
            same,
            ingredients,
            differences,
        }),
        compiled: b,
    })
}

fn of_entry(store: &Store, prefix: &str) -> Result<WhyReport, Failure> {
    Compiled::entry(store, prefix)?.explained(store)
}

fn of_last(store: &Store) -> Result<WhyReport, Failure> {
    let misses = store.last_misses(1)?;
    let Some(miss) = misses.into_iter().next() else {
        return Err(Failure::finding(
            "no_miss",
            "nothing was compiled through this cache, as far as it remembers",
        ));
    };
    Compiled::of(miss)?.explained(store)
}

fn of_file(store: &Store, file: &Path, options: &Options) -> Result<WhyReport, Failure> {
    let request = options.compile.request(file)?;
    let prepared = options.compile.compiler(&request.source.kind)?.prepare(&request)?;
    let document = KeyDocument::of(&prepared.inputs);
    let document = document.map_err(|error| Failure::finding("inputs", error.to_string()))?;
    let signature = document.signature();
    let source_path = request.source.path.as_ref().map(|path| path.to_string_lossy().into_owned());
    let compiled = Compiled { signature, document, source_path, at_unix_us: None, end: None };
    if prepared.uncacheable.is_some() {
        let uncacheable = prepared.uncacheable;
        return Ok(WhyReport { outcome: Outcome::Uncacheable, uncacheable, nearest: None, compiled });
    }
    match store.peek(&signature)? {
        Some(_) => Ok(WhyReport { outcome: Outcome::Hit, uncacheable: None, nearest: None, compiled }),
        None => compiled.explained(store),
    }
}

/// The compilation that is asked about.
struct Compiled {
    signature: Signature,
    document: KeyDocument,
    source_path: Option<String>,
    /// When it ended; `None` for one that is only considered.
    at_unix_us: Option<u64>,
    end: Option<MissEnd>,
}

impl Compiled {
    fn entry(store: &Store, prefix: &str) -> Result<Self, Failure> {
        let signature = find(store, prefix)?;
        let record = store.record(&signature)?.ok_or_else(|| gone(&signature))?;
        let (entry, _) = known(store, &signature)?.ok_or_else(|| gone(&signature))?;
        Self::of(Miss {
            signature,
            at_unix_us: entry.created_unix_us,
            end: MissEnd::Kept,
            key_document: record.key_document,
            source_path: record.provenance.source_path,
        })
    }

    fn of(miss: Miss) -> Result<Self, Failure> {
        let Miss { signature, at_unix_us, end, key_document, source_path } = miss;
        let document = KeyDocument::parse(&key_document).map_err(|_| {
            let message = format!("{signature} has no key document: what it was compiled from is not known");
            Failure::finding("record", message)
        })?;
        Ok(Self { signature, document, source_path, at_unix_us: Some(at_unix_us), end: Some(end) })
    }

    fn explained(self, store: &Store) -> Result<WhyReport, Failure> {
        let sought = Sought {
            document: &self.document,
            source_path: self.source_path.as_deref(),
            before_unix_us: self.at_unix_us,
        };
        let nearest = nearest(store, &sought)?;
        Ok(WhyReport { outcome: Outcome::Miss, uncacheable: None, nearest, compiled: self })
    }
}

fn gone(signature: &Signature) -> Failure {
    let failure = Failure::finding("unknown_signature", format!("entry {signature} is gone, or is damaged"));
    failure.hint("objcache verify tells which")
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Hit,
    Miss,
    Uncacheable,
    Diff,
}

struct WhyReport {
    outcome: Outcome,
    uncacheable: Option<String>,
    nearest: Option<Nearest>,
    compiled: Compiled,
}

impl Serialize for WhyReport {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            outcome: Outcome,
            signature: String,
            source_path: Option<&'a str>,
            compiled_at_unix_us: Option<u64>,
            end: Option<&'static str>,
            reason: Option<&'static str>,
            uncacheable: Option<&'a str>,
            nearest: Option<NearestFields<'a>>,
            differences: Vec<DifferenceFields<'a>>,
        }
        #[derive(Serialize)]
        struct NearestFields<'a> {
            signature: String,
            source_path: Option<&'a str>,
            created_unix_us: u64,
            same_source: bool,
            same: usize,
            ingredients: usize,
        }
        #[derive(Serialize)]
        struct DifferenceFields<'a> {
            ingredient: &'a str,
            before: Option<&'a str>,
            after: Option<&'a str>,
        }
        let (end, reason) = match self.compiled.end {
            None => (None, None),
            Some(MissEnd::Kept) => (Some("kept"), None),
            Some(MissEnd::Failed) => (Some("failed"), None),
            Some(MissEnd::Declined) => (Some("declined"), None),
            Some(MissEnd::Refused(reason)) => (Some("refused"), Some(reason.as_str())),
        };
        let nearest = self.nearest.as_ref();
        let differences = nearest.map(|nearest| nearest.differences.as_slice()).unwrap_or_default();
        Fields {
            outcome: self.outcome,
            signature: self.compiled.signature.to_string(),
            source_path: self.compiled.source_path.as_deref(),
            compiled_at_unix_us: self.compiled.at_unix_us,
            end,
            reason,
            uncacheable: self.uncacheable.as_deref(),
            nearest: nearest.map(|nearest| NearestFields {
                signature: nearest.entry.signature.to_string(),
                source_path: nearest.source_path.as_deref(),
                created_unix_us: nearest.entry.created_unix_us,
                same_source: nearest.same_source,
                same: nearest.same,
                ingredients: nearest.ingredients,
            }),
            differences: differences
                .iter()
                .map(|Difference { ingredient, before, after }| DifferenceFields {
                    ingredient,
                    before: before.as_deref(),
                    after: after.as_deref(),
                })
                .collect(),
        }
        .serialize(to)
    }
}

impl Report for WhyReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        if self.outcome != Outcome::Diff {
            text.line(self.subject())?;
        }
        match (self.outcome, &self.nearest) {
            (Outcome::Uncacheable, _) => {
                let why = self.uncacheable.as_deref().unwrap_or_default();
                text.line(format!("never in the cache: {why}"))
            }
            (Outcome::Hit, _) => text.line("hit: the cache has it"),
            (_, None) => text.line("miss: there was nothing to compare it with"),
            (Outcome::Diff, Some(nearest)) if nearest.differences.is_empty() => {
                text.line("nothing differs: it is one entry")
            }
            (_, Some(nearest)) => {
                let word = if self.outcome == Outcome::Diff { "diff" } else { "miss" };
                if !nearest.same_source && self.outcome == Outcome::Miss {
                    text.line("miss: nothing was there that was compiled from this source")?;
                    text.line(compared(nearest))?;
                    return differences::write("diff", &nearest.differences, text);
                }
                differences::write(word, &nearest.differences, text)?;
                text.line(compared(nearest))
            }
        }
    }
}

impl WhyReport {
    /// Which compilation this is about.
    fn subject(&self) -> String {
        let Compiled { signature, source_path, at_unix_us, end, .. } = &self.compiled;
        let source = source_path.as_ref().map(|path| format!(" of {path}")).unwrap_or_default();
        let when = at_unix_us.map(|at| format!(", {}", units::ago(at))).unwrap_or_default();
        let end = match end {
            Some(MissEnd::Failed) => ", which failed to compile".to_owned(),
            Some(MissEnd::Declined) => ", which was not worth keeping".to_owned(),
            Some(MissEnd::Refused(reason)) => format!(", which was not kept: {reason}"),
            Some(MissEnd::Kept) | None => String::new(),
        };
        format!("{}{source}{when}{end}", short(signature))
    }
}

fn compared(nearest: &Nearest) -> String {
    let Nearest { entry, source_path, same, ingredients, .. } = nearest;
    let source = source_path.as_ref().map(|path| format!(" of {path}")).unwrap_or_default();
    let made = units::ago(entry.created_unix_us);
    format!(
        "compared with {}{source}, made {made}: {same} of {ingredients} ingredients are the same",
        short(&entry.signature)
    )
}
