//! `get`: an object out of the cache.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use objcache::cache::ObjectCache;
use serde::Serialize;

use crate::context::{Context, find, short};
use crate::failure::{Failure, Status};
use crate::files;
use crate::output::{Report, Text};
use crate::units;

/// Write an object of the cache to a file
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The beginning of its signature
    #[arg(value_name = "SIG")]
    signature: String,

    /// Where the object goes; - for standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: PathBuf,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    files::check_output(&options.output, context)?;
    let store = context.store()?;
    let signature = find(&store, &options.signature)?;
    let object = store.get_object(&signature)?.ok_or_else(|| {
        let message = format!("entry {signature} is gone, or was damaged and has been taken out");
        Failure::finding("unknown_signature", message)
    })?;
    files::write(&options.output, &object, context)?;
    let object_bytes = object.len() as u64;
    context.output.remark(|| {
        let size = units::size(object_bytes);
        format!("{}: {size} written to {}", short(&signature), options.output.display())
    });
    if context.output.json {
        let output = options.output.display().to_string();
        context.output.report(&GetReport { signature: signature.to_string(), output, object_bytes })?;
    }
    Ok(Status::Fine)
}

#[derive(Serialize)]
struct GetReport {
    signature: String,
    output: String,
    object_bytes: u64,
}

impl Report for GetReport {
    /// The object is the result; there is nothing more to say to people.
    fn write_text(&self, _text: &mut Text<'_>) -> std::io::Result<()> {
        Ok(())
    }
}
