//! `completions`: a script that teaches a shell our words.

use std::io;

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use serde::Serialize;

use crate::args::Cli;
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::{Report, Text};

/// Print the completion script of a shell
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// bash, elvish, fish, powershell or zsh
    #[arg(hide_possible_values = true)]
    shell: Shell,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "objcache", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    context.output.report(&ScriptReport { shell: options.shell.to_string(), script })?;
    Ok(Status::Fine)
}

#[derive(Serialize)]
struct ScriptReport {
    shell: String,
    script: String,
}

impl Report for ScriptReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        text.laid_out(self.script.trim_end())
    }
}
