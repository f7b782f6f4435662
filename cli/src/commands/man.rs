//! `man`: the manual pages.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory, ValueHint};
use serde::Serialize;

use crate::args::Cli;
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::{Report, Text};

/// Write the manual pages, one for each command, or print that of the program
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The folder for them, such as ~/.local/share/man/man1
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let command = Cli::command().disable_help_subcommand(true);
    let Some(folder) = &options.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(|error| Failure::io("stdout".as_ref(), &error))?;
        let page = String::from_utf8_lossy(&page).into_owned();
        context.output.report(&ManReport { page: Some(page), files: Vec::new() })?;
        return Ok(Status::Fine);
    };
    let failed = |error: &io::Error| Failure::io(folder, error);
    fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    clap_mangen::generate_to(command, folder).map_err(|error| failed(&error))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| failed(&error))? {
        let name = entry.map_err(|error| failed(&error))?.file_name().to_string_lossy().into_owned();
        if name.starts_with("objcache") && name.ends_with(".1") {
            files.push(folder.join(name).display().to_string());
        }
    }
    files.sort_unstable();
    context.output.report(&ManReport { page: None, files })?;
    Ok(Status::Fine)
}

#[derive(Serialize)]
struct ManReport {
    page: Option<String>,
    files: Vec<String>,
}

impl Report for ManReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        match &self.page {
            Some(page) => text.laid_out(page.trim_end()),
            None => self.files.iter().try_for_each(|file| text.line(file)),
        }
    }
}
