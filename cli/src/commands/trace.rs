//! `trace`: what is used, written down, so that just that can be packed.

use std::io;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use objcache::cache::{Store, TraceState};
use serde::Serialize;

use super::entry::entries;
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::files;
use crate::output::{Report, Text};

/// Write down which entries are used, to pack just those
///
/// While it is on, every process that uses this cache adds the signatures of what it hits or puts; processes that
/// run already notice when they next put something. For one tree of processes OBJCACHE_TRACE=FILE does the
/// same. A trace is text, a signature a line.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Begin, and forget the last trace
    Start,
    /// End; the trace goes to FILE or standard output, and stays until the next one begins
    Stop(Out),
    /// Show the trace that is being written, or else the last one
    Show(Out),
}

#[derive(Debug, Args)]
struct Out {
    /// Write the trace into this file, for `objcache pack create --trace FILE`
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    match &options.command {
        Command::Start => {
            let changed = store.start_trace()?;
            context.output.report(&StartReport { changed })?;
        }
        Command::Stop(out) => {
            if !store.stop_trace()? {
                return Err(Failure::finding("no_trace", "no trace is being written")
                    .hint("`objcache trace start` begins one"));
            }
            show(&store, out, context)?;
        }
        Command::Show(out) => show(&store, out, context)?,
    }
    Ok(Status::Fine)
}

#[derive(Serialize)]
struct StartReport {
    changed: bool,
}

impl Report for StartReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        text.line(if self.changed { "tracing" } else { "tracing already" })
    }
}

fn show(store: &Store, out: &Out, context: &Context) -> Result<(), Failure> {
    let Some(TraceState { running, trace }) = store.trace()? else {
        return Err(
            Failure::finding("no_trace", "there is no trace").hint("`objcache trace start` begins one")
        );
    };
    if let Some(path) = &out.output {
        files::write(path, trace.to_text().as_bytes(), context)?;
    }
    let signatures = trace.signatures.iter().map(ToString::to_string).collect();
    let output = out.output.as_ref().map(|path| path.display().to_string());
    context.output.report(&TraceReport { running, full: trace.full, output, signatures })
}

#[derive(Serialize)]
struct TraceReport {
    running: bool,
    full: bool,
    output: Option<String>,
    signatures: Vec<String>,
}

impl Report for TraceReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        match &self.output {
            Some(path) => {
                let full = if self.full { ", as many as a trace can have" } else { "" };
                let count = entries(self.signatures.len() as u64);
                text.line(format!("{count} used{full}: {path}"))
            }
            None => self.signatures.iter().try_for_each(|signature| text.line(signature)),
        }
    }
}
