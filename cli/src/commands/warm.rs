//! `warm`: many files into the cache, before they are needed.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Parser, ValueHint};
use objcache::cache::{CacheAdmin, HostFeatures, Outcome, Progress, Reason, Store};
use objcache::loader::Loader;
use objcache::signature::IrKind;
use objcache::{CompileError, Compiler, Engine, EngineError, Obtained};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::compile_options::CompileOptions;
use crate::context::{Context, why_not_kept};
use crate::failure::{Failure, FailureKind, Status};
use crate::files;
use crate::output::progress::Bar;
use crate::output::table::{Column, table};
use crate::output::{Report, Text};
use crate::units;

/// Compile many files into the cache, in parallel, before they are needed; exit code 1 when one fails
///
/// The same files and options as with `compile` or `run` later give hits. An object that the cache does not keep is told
/// of with the reason, and is no failure; nor is it one that there is nothing to warm, because the cache is switched off or
/// with --no-cache: nothing is compiled then.
#[derive(Debug, Args)]
#[command(after_long_help = MANIFEST_HELP)]
pub(crate) struct Options {
    /// Source or IR
    #[arg(required_unless_present = "manifest", value_hint = ValueHint::FilePath)]
    files: Vec<PathBuf>,

    /// A list of files with options: TOML, or a JSON object per line; - for JSON on standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    manifest: Option<PathBuf>,

    /// How many to compile at once [default: one for each processor]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,

    #[command(flatten)]
    compile: CompileOptions,
}

const MANIFEST_HELP: &str = "\
A manifest in TOML (its name ends in .toml):
  [[compile]]
  file = \"kernels/saxpy.c\"            relative to the manifest
  options = [\"-O3\", \"--cpu\", \"native\"]   as on the command line of `compile`; those of `warm` do not count

The same as JSON lines:
  {\"file\": \"kernels/saxpy.c\", \"options\": [\"-O3\"]}";

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let started = Instant::now();
    let mut jobs = Vec::new();
    let shared = Arc::new(options.compile.clone());
    jobs.extend(options.files.iter().map(|file| Job { file: file.clone(), options: Arc::clone(&shared) }));
    if let Some(manifest) = &options.manifest {
        jobs.extend(listed(manifest)?);
    }
    let store = Arc::new(context.cache(HostFeatures::unknown()));
    let threads = options.jobs.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let bar = Bar::new("warm", context.output.quiet || context.output.json);
    let compilers = Compilers::default();
    let mut results = work(&jobs, &store, &compilers, threads.min(jobs.len()), &bar);
    // Where many at once lacked file descriptors or memory, one may have enough.
    for (job, warmed) in jobs.iter().zip(&mut results).filter(|(_, warmed)| warmed.may_pass) {
        *warmed = job.warm(&store, &compilers);
    }
    drop(bar);
    let report = WarmReport::new(results, started.elapsed());
    let status = if report.failed == 0 { Status::Fine } else { Status::Findings };
    context.output.report(&report)?;
    Ok(status)
}

/// One file and how it is compiled.
struct Job {
    file: PathBuf,
    options: Arc<CompileOptions>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    file: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[serde(default)]
    compile: Vec<Listed>,
}

fn listed(manifest: &Path) -> Result<Vec<Job>, Failure> {
    let wrong = |why: String| Failure::usage("bad_manifest", format!("{}: {why}", manifest.display()));
    let bytes = files::read(manifest)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| wrong(error.to_string()))?;
    let entries = match manifest.extension().is_some_and(|extension| extension == "toml") {
        true => toml::from_str::<Manifest>(text).map_err(|error| wrong(error.message().to_owned()))?.compile,
        false => {
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let entry = |(number, line)| {
                serde_json::from_str::<Listed>(line)
                    .map_err(|error| wrong(format!("line {}: {error}", number + 1)))
            };
            lines.map(entry).collect::<Result<_, _>>()?
        }
    };
    let folder = manifest.parent().unwrap_or(Path::new(""));
    let job = |entry: Listed| {
        let words = ["objcache".into()].into_iter().chain(entry.options.into_iter().map(OsString::from));
        let parsed = Words::try_parse_from(words).map_err(|error| {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            wrong(format!("{}: {line}", entry.file.display()))
        })?;
        Ok(Job { file: folder.join(entry.file), options: Arc::new(parsed.compile) })
    };
    entries.into_iter().map(job).collect()
}

/// The options of a manifest's entry.
#[derive(Parser)]
#[command(disable_help_flag = true, disable_version_flag = true)]
struct Words {
    #[command(flatten)]
    compile: CompileOptions,
}

/// Asking a compiler who it is takes longer than many a look-up: each is asked once.
type Compilers = Mutex<HashMap<(Option<String>, IrKind), Arc<dyn Compiler>>>;

fn work(jobs: &[Job], store: &Arc<Store>, compilers: &Compilers, threads: usize, bar: &Bar) -> Vec<Warmed> {
    let next = AtomicUsize::new(0);
    let (finished, done) = std::sync::mpsc::channel();
    let mut results: Vec<(usize, Warmed)> = Vec::with_capacity(jobs.len());
    thread::scope(|scope| {
        for _ in 0..threads {
            let (finished, next) = (finished.clone(), &next);
            scope.spawn(move || {
                while let Some((number, job)) = {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    jobs.get(number).map(|job| (number, job))
                } {
                    // The receiver is there until all are done.
                    let _ = finished.send((number, job.warm(store, compilers)));
                }
            });
        }
        drop(finished);
        let mut bytes = 0;
        for result in done {
            bytes += result.1.object_bytes;
            results.push(result);
            bar.show(Progress { done: results.len() as u64, total: jobs.len() as u64, bytes });
        }
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, warmed)| warmed).collect()
}

impl Job {
    fn warm(&self, store: &Arc<Store>, compilers: &Compilers) -> Warmed {
        let started = Instant::now();
        let file = self.file.display().to_string();
        if let Some(why) = self.needless(store) {
            let error = Some(why.to_owned());
            return Warmed { file, error, ..Warmed::without("skipped") };
        }
        let obtained = self.obtain(store, compilers);
        let us = units::micros(started.elapsed());
        match obtained {
            Ok(obtained) => {
                let (outcome, error) = outcome(&obtained, store);
                let lacked = |(reason, _): &(Reason, u64)| *reason == Reason::OutOfResources;
                let may_pass = outcome == "not_kept" && store.reasons().iter().any(lacked);
                Warmed {
                    file,
                    signature: Some(obtained.signature.to_string()),
                    object_bytes: obtained.object.len() as u64,
                    us,
                    error,
                    may_pass,
                    ..Warmed::without(outcome)
                }
            }
            Err(Unobtained { failure, may_pass }) => {
                let error = Some(failure.about(&self.file).message);
                Warmed { file, us, error, may_pass, ..Warmed::without("failed") }
            }
        }
    }

    /// Why there is nothing to warm.
    fn needless(&self, store: &Store) -> Option<&'static str> {
        match (store.options().disabled, self.options.no_cache()) {
            (true, _) => Some("the cache is switched off"),
            (false, true) => Some("the cache is not asked with --no-cache"),
            (false, false) => None,
        }
    }

    fn obtain(&self, store: &Arc<Store>, compilers: &Compilers) -> Result<Obtained, Unobtained> {
        let request = self.options.request(&self.file)?;
        let key = (self.options.compiler_name().map(str::to_owned), request.source.kind.clone());
        let known = compilers.lock().get(&key).cloned();
        let compiler = match known {
            Some(compiler) => compiler,
            None => {
                let compiler: Arc<dyn Compiler> = Arc::from(self.options.compiler(&request.source.kind)?);
                compilers.lock().insert(key, Arc::clone(&compiler));
                compiler
            }
        };
        let engine = self.options.settled(Engine::builder(Arc::clone(store), compiler), Loader::new());
        Ok(engine.obtain(&request)?)
    }
}

/// Why there is no object.
struct Unobtained {
    failure: Failure,
    /// It may go better alone.
    may_pass: bool,
}

impl From<Failure> for Unobtained {
    fn from(failure: Failure) -> Self {
        Self { may_pass: failure.kind == FailureKind::Io, failure }
    }
}

impl From<CompileError> for Unobtained {
    fn from(error: CompileError) -> Self {
        Self { may_pass: !error.is_source_at_fault, failure: error.into() }
    }
}

impl From<EngineError> for Unobtained {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Compile(error) => error.into(),
            error => Self { failure: error.into(), may_pass: false },
        }
    }
}

/// What became of an object, and why it is not in the cache.
fn outcome(obtained: &Obtained, store: &Store) -> (&'static str, Option<String>) {
    match (obtained.outcome, &obtained.uncacheable) {
        (_, Some(why)) => ("uncacheable", Some(why.clone())),
        (Outcome::Hit, None) => ("hit", None),
        // What lies there may be what was no hit before, and could not be replaced. That it cannot be looked at is as good as that
        // it is not there.
        (Outcome::Miss, None) => match store.peek(&obtained.signature) {
            Ok(Some(_)) => ("compiled", None),
            Ok(None) | Err(_) => {
                ("not_kept", Some(why_not_kept(store, &obtained.object, obtained.timings.compile)))
            }
        },
    }
}

#[derive(Serialize)]
struct Warmed {
    file: String,
    outcome: &'static str,
    signature: Option<String>,
    object_bytes: u64,
    us: f64,
    error: Option<String>,
    #[serde(skip)]
    may_pass: bool,
}

impl Warmed {
    /// Without an object.
    fn without(outcome: &'static str) -> Self {
        let file = String::new();
        Self { file, outcome, signature: None, object_bytes: 0, us: 0.0, error: None, may_pass: false }
    }
}

#[derive(Serialize)]
struct WarmReport {
    hits: usize,
    compiled: usize,
    failed: usize,
    uncacheable: usize,
    not_kept: usize,
    skipped: usize,
    us: f64,
    files: Vec<Warmed>,
    #[serde(skip)]
    took: Duration,
}

impl WarmReport {
    fn new(files: Vec<Warmed>, took: Duration) -> Self {
        let count = |outcome| files.iter().filter(|file| file.outcome == outcome).count();
        let (hits, compiled) = (count("hit"), count("compiled"));
        let (failed, uncacheable) = (count("failed"), count("uncacheable"));
        let (not_kept, skipped) = (count("not_kept"), count("skipped"));
        let us = units::micros(took);
        Self { hits, compiled, failed, uncacheable, not_kept, skipped, us, files, took }
    }

    /// Why nothing was to be done, when that is so of all files.
    fn nothing_to_warm(&self) -> Option<&str> {
        let first = self.files.first().filter(|_| self.skipped == self.files.len())?;
        Some(first.error.as_deref().unwrap_or_default())
    }
}

impl Report for WarmReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        if let Some(why) = self.nothing_to_warm() {
            return text.line(format!("there is nothing to warm: {why}"));
        }
        let told = self.files.iter().filter(|file| file.error.is_some());
        let rows: Vec<_> = told
            .map(|file| {
                let error = file.error.as_deref().unwrap_or_default();
                let first = error.lines().next().unwrap_or_default();
                vec![file.outcome.replace('_', " "), file.file.clone(), first.to_owned()]
            })
            .collect();
        if !rows.is_empty() {
            let columns = [Column::Left("OUTCOME"), Column::Left("FILE"), Column::Left("WHY")];
            text.laid_out(&table(&columns, rows, text.styled))?;
        }
        let Self { hits, compiled, failed, took, .. } = self;
        let rest = [
            (self.uncacheable, "cannot be cached"),
            (self.not_kept, "not kept"),
            (self.skipped, "not to be warmed"),
        ];
        let rest = rest.into_iter().filter(|(count, _)| *count > 0);
        let rest: String = rest.map(|(count, words)| format!(", {count} {words}")).collect();
        let hits = units::count(*hits as u64, "hit");
        text.line(format!("{hits}, {compiled} compiled, {failed} failed{rest}; {}", units::duration(*took)))
    }
}
