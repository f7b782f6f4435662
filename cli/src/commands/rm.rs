//! `rm`: entries out of the cache.

use std::collections::BTreeSet;
use std::io;

use clap::Args;
use objcache::cache::CacheAdmin;
use objcache::signature::Signature;
use serde::Serialize;

use crate::context::{Context, find_own};
use crate::failure::{Failure, Status};
use crate::output::{Report, Text};

/// Remove entries from the cache
///
/// All signatures are looked up first: if one is unknown or ambiguous, nothing is removed.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The beginnings of their signatures
    #[arg(value_name = "SIG", required = true)]
    signatures: Vec<String>,

    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let found: BTreeSet<Signature> =
        options.signatures.iter().map(|prefix| find_own(&store, prefix)).collect::<Result<_, _>>()?;
    let mut removed = Vec::new();
    for signature in found {
        // Somebody else may have removed it meanwhile; then it was not us.
        if options.dry_run || store.remove(&signature)? {
            removed.push(signature.to_string());
        }
    }
    context.output.report(&RemoveReport { dry_run: options.dry_run, removed })?;
    Ok(Status::Fine)
}

#[derive(Serialize)]
struct RemoveReport {
    dry_run: bool,
    removed: Vec<String>,
}

impl Report for RemoveReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let verb = if self.dry_run { "would remove" } else { "removed" };
        self.removed.iter().try_for_each(|signature| text.line(format!("{verb} {signature}")))
    }
}
