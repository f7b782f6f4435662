//! `pin` and `unpin`: entries that eviction passes over.

use std::collections::BTreeSet;
use std::io;

use clap::Args;
use objcache::cache::CacheAdmin;
use objcache::signature::Signature;
use serde::Serialize;

use crate::context::{Context, find_own};
use crate::failure::{Failure, Status};
use crate::output::{Report, Text};

/// Keep entries whatever happens: eviction, gc and limits pass over what is pinned
///
/// Only `rm` and `clear` still remove it. All signatures are looked up first: if one is unknown or ambiguous,
/// nothing is pinned. `ls --pinned` shows what is.
#[derive(Debug, Args)]
pub(crate) struct PinOptions {
    #[command(flatten)]
    entries: Entries,
}

/// Let eviction take entries again that were pinned
///
/// All signatures are looked up first: if one is unknown or ambiguous, nothing changes.
#[derive(Debug, Args)]
pub(crate) struct UnpinOptions {
    #[command(flatten)]
    entries: Entries,
}

#[derive(Debug, Args)]
struct Entries {
    /// The beginnings of their signatures
    #[arg(value_name = "SIG", required = true)]
    signatures: Vec<String>,
}

pub(crate) fn pin(options: &PinOptions, context: &Context) -> Result<Status, Failure> {
    set(&options.entries, true, context)
}

pub(crate) fn unpin(options: &UnpinOptions, context: &Context) -> Result<Status, Failure> {
    set(&options.entries, false, context)
}

fn set(entries: &Entries, pinned: bool, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let found: BTreeSet<Signature> =
        entries.signatures.iter().map(|prefix| find_own(&store, prefix)).collect::<Result<_, _>>()?;
    let mut changed = Vec::new();
    for signature in found {
        // One that was evicted meanwhile is not there to be pinned.
        if store.set_pinned(&signature, pinned)? {
            changed.push(signature.to_string());
        }
    }
    context.output.report(&PinReport { pinned, signatures: changed })?;
    Ok(Status::Fine)
}

#[derive(Serialize)]
struct PinReport {
    pinned: bool,
    signatures: Vec<String>,
}

impl Report for PinReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let verb = if self.pinned { "pinned" } else { "unpinned" };
        self.signatures.iter().try_for_each(|signature| text.line(format!("{verb} {signature}")))
    }
}
