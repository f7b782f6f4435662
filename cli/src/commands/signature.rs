//! `signature`: what a compilation would be called, without compiling.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use objcache::Compiler;
use objcache::signature::{KeyDocument, read_record};
use serde::{Serialize, Serializer};

use crate::compile_options::CompileOptions;
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::files;
use crate::ingredients::{self, Ingredients};
use crate::output::{Report, Text};

/// Print the signature of a compilation, or the one an object file was compiled under
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Source, IR or object; - for standard input, with --kind
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,

    /// Print all that the signature is made of
    #[arg(long)]
    document: bool,

    #[command(flatten)]
    compile: CompileOptions,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let (document, uncacheable) = match options.compile.is_object(&options.file) {
        true => (recorded(options)?, None),
        false => prepared(options)?,
    };
    context.output.report(&SignatureReport { document, uncacheable, with_document: options.document })?;
    Ok(Status::Fine)
}

fn recorded(options: &Options) -> Result<KeyDocument, Failure> {
    let record = read_record(&files::read(&options.file)?);
    let named = |error| Failure::finding("record", format!("{}: {error}", options.file.display()));
    Ok(record.map_err(named)?.key_document)
}

fn prepared(options: &Options) -> Result<(KeyDocument, Option<String>), Failure> {
    let request = options.compile.request(&options.file)?;
    let prepared = options.compile.compiler(&request.source.kind)?.prepare(&request)?;
    let document = KeyDocument::of(&prepared.inputs);
    let document = document.map_err(|error| Failure::finding("inputs", error.to_string()))?;
    Ok((document, prepared.uncacheable))
}

struct SignatureReport {
    document: KeyDocument,
    uncacheable: Option<String>,
    with_document: bool,
}

impl Serialize for SignatureReport {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            signature: String,
            uncacheable: Option<&'a str>,
            ingredients: Option<Ingredients<'a>>,
        }
        let ingredients = self.with_document.then_some(Ingredients(&self.document));
        let signature = self.document.signature().to_string();
        Fields { signature, uncacheable: self.uncacheable.as_deref(), ingredients }.serialize(to)
    }
}

impl Report for SignatureReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        text.line(self.document.signature().to_string())?;
        match self.with_document {
            true => text.laid_out(&ingredients::lines(&self.document, text.width)),
            false => Ok(()),
        }
    }
}
