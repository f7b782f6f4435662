//! `relocs`: the places of an object that change when it is loaded.

use std::io;

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::inspected::ObjectOptions;
use crate::output::table::{Column, table};
use crate::output::{Report, Text};

/// List the relocations of an entry's object, or of an object file: those of sections that are loaded
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    object: ObjectOptions,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let inspected = options.object.read(context)?;
    let contents = inspected.contents;
    let mut relocations = Vec::new();
    for section in contents.sections {
        for relocation in section.relocations {
            let (offset, kind, symbol, addend) =
                (relocation.offset, relocation.kind, relocation.symbol, relocation.addend);
            relocations.push(Fields { section: section.name.clone(), offset, kind, symbol, addend });
        }
    }
    let (object, format, machine) = (inspected.name, contents.format, contents.machine);
    context.output.report(&RelocationsReport { object, format, machine, relocations })?;
    Ok(Status::Fine)
}

#[derive(Serialize)]
struct RelocationsReport {
    object: String,
    format: &'static str,
    machine: &'static str,
    relocations: Vec<Fields>,
}

#[derive(Serialize)]
struct Fields {
    section: String,
    offset: u64,
    kind: String,
    symbol: String,
    addend: Option<i64>,
}

/// `memcpy-0x4`: what a place refers to.
pub(crate) fn target(symbol: &str, addend: Option<i64>) -> String {
    match addend {
        None | Some(0) => symbol.to_owned(),
        Some(addend) if addend < 0 => format!("{symbol}-{:#x}", addend.unsigned_abs()),
        Some(addend) => format!("{symbol}+{addend:#x}"),
    }
}

impl Report for RelocationsReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let columns = [
            Column::Left("SECTION"),
            Column::Right("OFFSET"),
            Column::Left("KIND"),
            Column::Left("REFERS TO"),
        ];
        let rows = self.relocations.iter().map(|it| {
            vec![
                it.section.clone(),
                format!("{:#x}", it.offset),
                it.kind.clone(),
                target(&it.symbol, it.addend),
            ]
        });
        text.laid_out(&table(&columns, rows, text.styled))
    }
}
