//! `pack`: many entries in one file, made, looked at, taken in, or used in place.

mod create;
mod import;
mod layers;
mod ls;
mod verify;

use std::io;
use std::path::Path;

use clap::{Args, Subcommand};
use objcache::cache::{DamagedEntry, Pack, Reason};

use crate::commands::entry::{Damaged, entries};
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::Text;

/// Put many entries into one file, to ship them, use them in place or take them in
///
/// A pack has entries as the cache does, in the order of their signatures, so the same entries make the same
/// file. Each is verified whenever it is read.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::CreateOptions),
    Add(create::AddOptions),
    Ls(ls::Options),
    Verify(verify::Options),
    Import(import::Options),
    Mount(layers::MountOptions),
    Unmount(layers::UnmountOptions),
    Layers(layers::ListOptions),
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    match &options.command {
        Command::Create(options) => create::create(options, context),
        Command::Add(options) => create::add(options, context),
        Command::Ls(options) => ls::run(options, context),
        Command::Verify(options) => verify::run(options, context),
        Command::Import(options) => import::run(options, context),
        Command::Mount(options) => layers::mount(options, context),
        Command::Unmount(options) => layers::unmount(options, context),
        Command::Layers(options) => layers::list(options, context),
    }
}

/// Opens a pack that the user named.
fn open(path: &Path) -> Result<Pack, Failure> {
    Pack::open(path).map_err(|error| match error.reason() {
        Reason::Io => Failure::unreadable(&error),
        _ => error.into(),
    })
}

/// The digest that names a pack, in hexadecimal.
fn digest(pack: &Pack) -> String {
    hexadecimal(&pack.summary().digest)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How many entries were left out because nobody who is believed vouches for them.
fn write_not_vouched_for(left_out: &[Damaged], text: &mut Text<'_>) -> io::Result<()> {
    match left_out.len() as u64 {
        0 => Ok(()),
        count => text.line(format!("{} left out: not vouched for by a trusted key", entries(count))),
    }
}

/// Damage is a finding, and so is what had to be left out.
fn status(damaged: &[DamagedEntry]) -> Status {
    if damaged.is_empty() { Status::Fine } else { Status::Findings }
}
