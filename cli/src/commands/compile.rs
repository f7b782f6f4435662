//! `compile`: an object file, through the cache.

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use objcache::cache::{HostFeatures, Outcome};
use objcache::loader::Loader;
use objcache::{Engine, Obtained, Timings};
use serde::Serialize;

use crate::compile_options::CompileOptions;
use crate::context::{Context, short};
use crate::failure::{Failure, Status};
use crate::files;
use crate::output::{Report, Text};
use crate::units::{self, micros};

/// Compile a file into an object, or take the object from the cache
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Source or IR; - for standard input, with --kind
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,

    /// Where the object goes; - for standard output [default: the file's name with .o, here]
    #[arg(short, long, value_name = "OUT", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,

    #[command(flatten)]
    compile: CompileOptions,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let output = match &options.output {
        Some(output) => output.clone(),
        None => beside(&options.file)?,
    };
    files::check_output(&output, context)?;
    files::check_apart(&options.file, &output)?;
    let request = options.compile.request(&options.file)?;
    // Nothing runs here, and the object may be for another host than this one.
    let host = HostFeatures::unknown();
    let obtain = |engine: &Engine| engine.obtain(&request);
    let (obtained, engine) = options.compile.with_engine(&request, context, Loader::new, host, obtain)?;
    let obtained = obtained.map_err(|error| Failure::from(error).about(&options.file))?;
    files::write(&output, &obtained.object, context)?;
    context.output.remark(|| remark(&obtained, &output));
    if context.output.json {
        context.output.report(&CompileReport::new(&obtained, &output, engine.compiler().name()))?;
    }
    Ok(Status::Fine)
}

/// `x.o` in the working directory for `some/x.c`, as `cc -c` does it.
fn beside(file: &Path) -> Result<PathBuf, Failure> {
    let name = if files::is_standard(file) { None } else { file.file_name() };
    let unnamed = || Failure::usage("no_output", "where does the object go? Name it with -o OUT");
    Ok(Path::new(name.ok_or_else(unnamed)?).with_extension("o"))
}

/// `hit` or `miss`.
pub(crate) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Hit => "hit",
        Outcome::Miss => "miss",
    }
}

/// How the object was come by, in a few words.
pub(crate) fn history(timings: &Timings, uncacheable: Option<&str>) -> String {
    let lookup = units::duration(timings.lookup);
    match (timings.compile.map(units::duration), uncacheable) {
        (Some(compile), Some(why)) => format!("compiled in {compile}, not cached because {why}"),
        (Some(compile), None) => format!("looked up in {lookup}, compiled in {compile}"),
        (None, _) => format!("looked up in {lookup}"),
    }
}

fn remark(obtained: &Obtained, output: &Path) -> String {
    let Obtained { object, signature, outcome: found, timings, uncacheable, .. } = obtained;
    let size = units::size(object.len() as u64);
    format!(
        "{} {}: {}; {size} written to {}",
        outcome(*found),
        short(signature),
        history(timings, uncacheable.as_deref()),
        output.display()
    )
}

#[derive(Serialize)]
struct CompileReport<'a> {
    outcome: &'static str,
    signature: String,
    output: String,
    object_bytes: u64,
    compiler: &'a str,
    uncacheable: Option<&'a str>,
    prepare_us: f64,
    lookup_us: f64,
    compile_us: f64,
}

impl<'a> CompileReport<'a> {
    fn new(obtained: &'a Obtained, output: &Path, compiler: &'a str) -> Self {
        let Obtained { object, signature, outcome: found, uncacheable, timings, .. } = obtained;
        Self {
            outcome: outcome(*found),
            signature: signature.to_string(),
            output: output.display().to_string(),
            object_bytes: object.len() as u64,
            compiler,
            uncacheable: uncacheable.as_deref(),
            prepare_us: micros(timings.prepare),
            lookup_us: micros(timings.lookup),
            compile_us: micros(timings.compile.unwrap_or_default()),
        }
    }
}

impl Report for CompileReport<'_> {
    /// The object is the result; there is nothing more to say to people.
    fn write_text(&self, _text: &mut Text<'_>) -> std::io::Result<()> {
        Ok(())
    }
}
