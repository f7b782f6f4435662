//! `run`: compile or fetch, load, call, print.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, ValueHint};
use objcache::cache::{HostFeatures, RunMark, unmark_running};
use objcache::call::Prototype;
use objcache::loader::{LoadedImage, SymbolKind};
use objcache::signature::{IrKind, Signature, read_record};
use objcache::{Engine, EngineError, Loaded, Timings};

use super::run_report::RunReport;
use crate::call::arguments::Arguments;
use crate::call::function::{self, Candidate};
use crate::call::{invoke, symbols};
use crate::compile_options::CompileOptions;
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::observers::{ObserverOptions, Observers};
use crate::{files, negative, signals};

/// Compile a file or take its object from the cache, load it, call a function, print what it returns
///
/// The code runs in this process with your rights, and with the prototype you give: a wrong one crashes.
/// An object file (.o) is loaded as it is.
#[derive(Debug, Args)]
#[command(after_long_help = ARGUMENTS_HELP)]
pub(crate) struct Options {
    /// Source, IR or object; - for standard input, with --kind
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,

    /// Arguments of the function, as words.
    #[arg(value_name = "ARGS", help = "Arguments: numbers, 0x…, null, or buffers such as f32[1,2,3]")]
    arguments: Vec<String>,

    /// The function [default: the only one, else the one called like the file, main or run]
    #[arg(long, value_name = "NAME")]
    call: Option<String>,

    /// Its prototype, result first, such as 'f64(i32,ptr)'; CLIF files tell it themselves
    #[arg(long, value_name = "PROTOTYPE")]
    signature: Option<Prototype>,

    /// Call it N times; the last result counts, and the median time
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,

    #[command(flatten)]
    observers: ObserverOptions,

    #[command(flatten)]
    compile: CompileOptions,
}

const ARGUMENTS_HELP: &str = "\
Types in prototypes: void, i8, i16, i32, i64, f32, f64, ptr.

Arguments:
  -1  255  0xff            integers, signed or unsigned within their width
  -0.5  1e-3  inf  nan     floating-point numbers
  null  0x7f00             addresses
  f32[1,2,3]               the address of a buffer with these elements; also f64, i8, i16, i32, i64
  f32[0.5;1000]            the address of 1000 elements
  zero[4096]               the address of so many zero bytes
  str[text]                the address of a text that ends in a zero byte

Buffers are aligned to 64 bytes and are printed after the call, with what the function wrote into them.";

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    // Who ends it by hand has had enough of it; that is no crash of the code.
    signals::before_ending(unmark_running);
    let observers = options.observers.observers();
    let mut program = match options.compile.is_object(&options.file) {
        true => Program::from_object(&options.file, &observers)?,
        false => Program::from_source(options, &observers, context)?,
    };
    // The code may not return.
    context.check()?;
    observers.report_problems();
    let (name, prototype) = program.choose(options)?;
    let words: Vec<_> = options.arguments.iter().map(|word| negative::restore(word)).collect();
    let arguments = Arguments::parse(&name, &prototype, &words);
    let arguments = arguments.map_err(|failure| program.suggest_others(failure, options))?;
    let address = program.image.address(&name).ok_or_else(|| not_exported(&name))?;

    invoke::initialize(&program.image);
    let (result, call) = invoke::call(address, &prototype, &arguments.values, options.repeat)?;
    // The code has not killed us.
    drop(program.running.take());
    let report =
        RunReport { program: &program, function: &name, prototype, result, arguments: &arguments, call };
    context.output.report(&report)?;
    context.output.remark(|| report.remark());
    Ok(Status::Fine)
}

/// Code that is loaded, and how it was come by.
pub(crate) struct Program {
    image: LoadedImage,
    candidates: Vec<Candidate>,
    /// `hit`, `miss`, or `none` for an object that was given.
    pub(crate) outcome: &'static str,
    pub(crate) signature: Option<Signature>,
    pub(crate) object_bytes: u64,
    pub(crate) compiler: Option<String>,
    pub(crate) uncacheable: Option<String>,
    pub(crate) timings: Timings,
    running: Option<RunMark>,
}

impl Program {
    fn from_source(options: &Options, observers: &Observers, context: &Context) -> Result<Self, Failure> {
        let request = options.compile.request(&options.file)?;
        let tells_prototypes = request.source.kind == IrKind::Clif;
        if !tells_prototypes && options.signature.is_none() {
            // Said before a compilation that would be for nothing.
            let name =
                options.call.as_ref().map_or("the function to call".to_owned(), |name| format!("`{name}`"));
            return Err(function::unknown_prototype(&name));
        }
        let (host, loader) = (HostFeatures::detected(), || observers.loader());
        let load = |engine: &Engine| engine.load(&request);
        let (loaded, engine) = options.compile.with_engine(&request, context, loader, host, load)?;
        let loaded = loaded.map_err(|error| Failure::from(error).about(&options.file))?;
        let Loaded { image, object, signature, inputs, outcome, uncacheable, timings, running } = loaded;
        let candidates = match tells_prototypes {
            true => {
                let known = engine.compiler().prototypes(&inputs)?;
                known.into_iter().map(|(name, prototype)| (name, Some(prototype))).collect()
            }
            false => exported(&image),
        };
        Ok(Self {
            image,
            candidates,
            outcome: super::compile::outcome(outcome),
            signature: Some(signature),
            object_bytes: object.len() as u64,
            compiler: Some(engine.compiler().name().to_owned()),
            uncacheable,
            timings,
            running,
        })
    }

    fn from_object(file: &Path, observers: &Observers) -> Result<Self, Failure> {
        let object = files::read(file)?;
        let started = Instant::now();
        let image = observers.loader().load(&object, &symbols::resolver());
        let image = image.map_err(|error| Failure::from(EngineError::from(error)).about(file))?;
        let timings = Timings { load: started.elapsed(), ..Timings::default() };
        Ok(Self {
            candidates: exported(&image),
            image,
            outcome: "none",
            signature: read_record(&object).ok().map(|record| record.key_document.signature()),
            object_bytes: object.len() as u64,
            compiler: None,
            uncacheable: None,
            timings,
            running: None,
        })
    }

    fn choose(&self, options: &Options) -> Result<(String, Prototype), Failure> {
        let stem = options.file.file_stem().and_then(|stem| stem.to_str());
        let chosen = function::choose(&self.candidates, options.call.as_deref(), stem)?;
        let prototype = function::prototype(chosen, options.signature.as_ref())?;
        Ok((chosen.0.clone(), prototype))
    }

    /// Arguments that are wrong for the function we chose may be right for another.
    fn suggest_others(&self, failure: Failure, options: &Options) -> Failure {
        match options.call {
            None if self.candidates.len() > 1 => failure
                .hint(format!("name another function with --call: {}", function::listed(&self.candidates))),
            _ => failure,
        }
    }
}

/// What may be functions: assembly need not say which symbols are.
fn exported(image: &LoadedImage) -> Vec<Candidate> {
    let callable = |kind| matches!(kind, SymbolKind::Function | SymbolKind::Unknown);
    let functions = image.symbols().filter(|symbol| callable(symbol.kind));
    functions.map(|symbol| (symbol.name.into_owned(), None)).collect()
}

fn not_exported(name: &str) -> Failure {
    Failure::finding("unknown_function", format!("the object does not export `{name}`"))
}
