//! `put`: an object that was compiled elsewhere, into the cache.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use objcache::cache::{CompiledObject, ObjectCache};
use objcache::signature::{Provenance, Record, RecordError, Signature, Value, is_untouched, read_record};
use serde::Serialize;

use crate::context::{Context, why_not_kept};
use crate::failure::{Failure, Status};
use crate::files;
use crate::output::{Report, Text};

/// Put an object into the cache, under the signature in its record
///
/// Objects that objcache compiled carry a record of what they were compiled from. One that was changed since is
/// refused; otherwise the object is believed: put only what you would run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The object; - for standard input
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,

    /// For an object without a record, or one that was changed: the signature to put it under, all 64 digits
    #[arg(long, value_name = "SIG")]
    signature: Option<Signature>,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let object = files::read(&options.file)?;
    let record = match read_record(&object) {
        Ok(record) => Some(record),
        // No record can be expected in what is no relocatable object.
        Err(RecordError::Absent | RecordError::UnsupportedFormat(_)) if options.signature.is_some() => None,
        Err(error) => return Err(no_record(options, &error)),
    };
    if record.is_some() && options.signature.is_none() && !is_untouched(&object).unwrap_or(false) {
        return Err(changed(options));
    }
    let signature = signature(options, record.as_ref())?;
    let store = context.store()?;
    store.notify_object_compiled(&CompiledObject {
        signature,
        object: &object,
        key_document: record.as_ref().map_or(&[], |record| record.key_document.as_bytes()),
        provenance: record.as_ref().map_or(&Provenance::default(), |record| &record.provenance),
        namespace: &record.as_ref().map(namespace).unwrap_or_default(),
        compile_time: compile_time(record.as_ref()),
        cpu_features: &record.as_ref().map(cpu_features).unwrap_or_default(),
    })?;
    if !store.holds(&signature)? {
        let why = why_not_kept(&store, &object, Some(compile_time(record.as_ref())));
        return Err(Failure::finding("not_kept", format!("{}: {why}", options.file.display())));
    }
    context
        .output
        .report(&PutReport { signature: signature.to_string(), object_bytes: object.len() as u64 })?;
    Ok(Status::Fine)
}

/// The record's signature; one given by hand must not contradict it.
fn signature(options: &Options, record: Option<&Record>) -> Result<Signature, Failure> {
    let recorded = record.map(|record| record.key_document.signature());
    match (recorded, options.signature) {
        (Some(recorded), Some(given)) if recorded != given => {
            let message = format!("{} was compiled as {recorded}, not as {given}", options.file.display());
            Err(Failure::finding("wrong_signature", message))
        }
        (recorded, given) => recorded.or(given).ok_or_else(|| no_record(options, &RecordError::Absent)),
    }
}

/// A record speaks for the object that was compiled, not for what somebody made of it.
fn changed(options: &Options) -> Failure {
    let message = format!("{}: the object was changed after it was compiled", options.file.display());
    Failure::finding("record", message).hint("to vouch for it, name its signature with --signature SIG")
}

fn no_record(options: &Options, error: &RecordError) -> Failure {
    let failure = Failure::finding("record", format!("{}: {error}", options.file.display()));
    match error {
        RecordError::Absent => {
            failure.hint("compile it with `objcache compile`, or name its signature with --signature SIG")
        }
        _ => failure,
    }
}

fn namespace(record: &Record) -> String {
    let value = record.key_document.ingredients().find(|ingredient| ingredient.name == "namespace");
    match value.map(|ingredient| ingredient.value) {
        Some(Value::Text(namespace)) => namespace.to_owned(),
        _ => String::new(),
    }
}

/// As far as the record names them: a CPU's name is known to its compiler alone.
fn cpu_features(record: &Record) -> Vec<String> {
    let ingredient = |name: &str| record.key_document.ingredients().find(|it| it.name == name);
    let triple = ingredient("target_triple").map(|it| it.value);
    let features = ingredient("cpu_features").map(|it| it.value);
    match (triple, features) {
        (Some(Value::Text(triple)), Some(Value::Set(features))) => {
            objcache::needed_cpu_features(triple, features)
        }
        _ => Vec::new(),
    }
}

fn compile_time(record: Option<&Record>) -> Duration {
    let known = record.and_then(|record| record.provenance.compile_time_us);
    Duration::from_micros(known.unwrap_or_default())
}

#[derive(Serialize)]
struct PutReport {
    signature: String,
    object_bytes: u64,
}

impl Report for PutReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        text.line(&self.signature)
    }
}
