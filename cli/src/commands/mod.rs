//! The commands, and how the process begins and ends round them.

pub(crate) mod clear;
pub(crate) mod compile;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod disasm;
pub(crate) mod doctor;
pub(crate) mod du;
pub(crate) mod fsck;
pub(crate) mod gc;
pub(crate) mod get;
pub(crate) mod key;
pub(crate) mod link;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod pack;
pub(crate) mod pin;
pub(crate) mod put;
pub(crate) mod recompress;
pub(crate) mod relocs;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod signature;
pub(crate) mod stats;
pub(crate) mod symbols;
pub(crate) mod top;
pub(crate) mod trace;
pub(crate) mod verify;
pub(crate) mod warm;
pub(crate) mod why;

mod entry;
mod run_report;

use std::ffi::OsString;
use std::io::IsTerminal;

use clap::Parser;

use crate::args::{Cli, ColorChoice, Command, GlobalOptions};
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::Output;
use crate::{log, negative};

/// Runs the command line; gives the exit code.
pub(crate) fn main(words: Vec<OsString>) -> u8 {
    let json = words.iter().any(|word| word == "--json");
    let cli = match Cli::try_parse_from(negative::protect(words)) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error, json),
    };
    let context = Context::new(&cli.global);
    log::init(&cli.global, context.output.styled(std::io::stderr().is_terminal()));
    let ended = dispatch(cli.command, &context).and_then(|status| match status {
        Status::Fine => context.check().map(|()| status),
        Status::Findings => Ok(status),
    });
    match ended {
        Ok(status) => status.exit_code(),
        Err(failure) => {
            context.output.failure(&failure);
            failure.kind.exit_code()
        }
    }
}

fn dispatch(command: Command, context: &Context) -> Result<Status, Failure> {
    match command {
        Command::Run(options) => run::run(&options, context),
        Command::Compile(options) => compile::run(&options, context),
        Command::Warm(options) => warm::run(&options, context),
        Command::Signature(options) => signature::run(&options, context),
        Command::Link(options) => link::run(&options, context),
        Command::Why(options) => why::run(&options, context),
        Command::Ls(options) => ls::run(&options, context),
        Command::Show(options) => show::run(&options, context),
        Command::Disasm(options) => disasm::run(&options, context),
        Command::Symbols(options) => symbols::run(&options, context),
        Command::Relocs(options) => relocs::run(&options, context),
        Command::Get(options) => get::run(&options, context),
        Command::Put(options) => put::run(&options, context),
        Command::Rm(options) => rm::run(&options, context),
        Command::Du(options) => du::run(&options, context),
        Command::Pin(options) => pin::pin(&options, context),
        Command::Unpin(options) => pin::unpin(&options, context),
        Command::Gc(options) => gc::run(&options, context),
        Command::Recompress(options) => recompress::run(&options, context),
        Command::Stats(options) => stats::run(&options, context),
        Command::Top(options) => top::run(&options, context),
        Command::Verify(options) => verify::run(&options, context),
        Command::Fsck(options) => fsck::run(&options, context),
        Command::Clear(options) => clear::run(&options, context),
        Command::Doctor(options) => doctor::run(&options, context),
        Command::Config(options) => config::run(&options, context),
        Command::Pack(options) => pack::run(&options, context),
        Command::Trace(options) => trace::run(&options, context),
        Command::Key(options) => key::run(&options, context),
        Command::Man(options) => man::run(&options, context),
        Command::Completions(options) => completions::run(&options, context),
    }
}

/// Help and version are no failures; everything else clap has to say is one of usage.
fn not_parsed(error: &clap::Error, json: bool) -> u8 {
    if !error.use_stderr() || !json {
        // Nobody is left to be told that this cannot be written.
        let _ = error.print();
        return if error.use_stderr() { 2 } else { 0 };
    }
    let text = error.render().to_string();
    let message = negative::restore_all(text.trim().trim_start_matches("error: "));
    let failure = Failure::usage("usage", message);
    let options = GlobalOptions { dir: None, json, color: ColorChoice::Never, verbose: 0, quiet: false };
    Output::new(&options).failure(&failure);
    failure.kind.exit_code()
}
