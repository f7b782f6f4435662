//! `key`: keys by which entries are vouched for.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use objcache::cache::{KeyError, MacKey, SigningKey};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::{Report, Text};

/// Make keys by which entries are vouched for
///
/// OBJCACHE_MAC_KEY=FILE lets only those use and fill a cache who have the same key. OBJCACHE_SIGNING_KEY=FILE signs
/// what is put; OBJCACHE_TRUSTED_KEYS=FILE believes only what was signed by one of the public keys in it, one a line.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new key, in a file that only you can read
    Generate {
        /// What it is for
        kind: Kind,
        /// The file, which must not be there yet
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Show the public key of a signing key, for the list of those who trust it
    Public {
        /// File with a signing key
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A secret that all share who use the cache.
    Mac,
    /// A secret that signs, and a public key for those who trust it.
    Ed25519,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let report = match &options.command {
        Command::Generate { kind, file } => {
            let (text, public) = generated(*kind).map_err(|error| failed(file, &error))?;
            write_new(file, &text).map_err(|error| Failure::io(file, &error))?;
            KeyReport { file: file.display().to_string(), public }
        }
        Command::Public { file } => {
            let key = SigningKey::read(file).map_err(|error| failed(file, &error))?;
            KeyReport { file: file.display().to_string(), public: Some(key.public().to_string()) }
        }
    };
    context.output.report(&report)?;
    Ok(Status::Fine)
}

/// The line with the secret, and the public key where there is one.
fn generated(kind: Kind) -> Result<(String, Option<String>), KeyError> {
    Ok(match kind {
        Kind::Mac => (MacKey::generate()?.to_secret_text(), None),
        Kind::Ed25519 => {
            let key = SigningKey::generate()?;
            (key.to_secret_text(), Some(key.public().to_string()))
        }
    })
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

fn failed(file: &Path, error: &KeyError) -> Failure {
    Failure::unreadable(&format!("{}: {error}", file.display()))
}

#[derive(Serialize)]
struct KeyReport {
    file: String,
    public: Option<String>,
}

impl Report for KeyReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        text.line(self.public.as_ref().unwrap_or(&self.file))
    }
}
