//! `pack verify`: every byte of a pack is read and checked.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use objcache::cache::PublicKey;
use serde::Serialize;

use super::{digest, open, status};
use crate::commands::entry::{Damaged, damaged, entries, write_damaged};
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::progress::Bar;
use crate::output::{Report, Text};
use crate::units;

/// Read and check a pack; exit code 1 when an entry or the index is damaged
///
/// Prints its digest, which names its content, and who signed it. When public keys are configured that the cache
/// believes, and none of them signed it, that is exit code 1 as well.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The pack
    #[arg(value_name = "PACK", value_hint = ValueHint::FilePath)]
    pack: PathBuf,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let pack = open(&options.pack)?;
    let bar = Bar::new("verify", context.output.quiet || context.output.json);
    let report = pack.verify(&mut |progress| bar.show(progress))?;
    drop(bar);
    let signers = pack.signed_by()?;
    let settings = context.store_options();
    // Without the keys it would seem that nobody has to sign.
    settings.check()?;
    let trusted = settings.trust.trusts_one_of(&signers);
    context.output.report(&CheckedReport {
        pack: options.pack.display().to_string(),
        digest: digest(&pack),
        checked: report.checked,
        bytes: report.bytes,
        damaged: damaged(&report.damaged),
        signed_by: signers.iter().map(PublicKey::to_string).collect(),
        trusted,
    })?;
    Ok(if trusted == Some(false) { Status::Findings } else { status(&report.damaged) })
}

#[derive(Serialize)]
struct CheckedReport {
    pack: String,
    digest: String,
    checked: u64,
    bytes: u64,
    damaged: Vec<Damaged>,
    signed_by: Vec<String>,
    trusted: Option<bool>,
}

impl Report for CheckedReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        write_damaged(&self.damaged, text)?;
        let (checked, bytes) = (entries(self.checked), units::size(self.bytes));
        let found = match self.damaged.len() {
            0 => "none is damaged".to_owned(),
            count => format!("{count} damaged"),
        };
        text.line(format!("{checked} ({bytes}) checked: {found}; digest {}", self.digest))?;
        for key in &self.signed_by {
            text.line(format!("signed by {key}"))?;
        }
        match self.trusted {
            Some(false) => text.line("signed by nobody who is trusted"),
            Some(true) | None => Ok(()),
        }
    }
}
