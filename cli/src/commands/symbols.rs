//! `symbols`: what an object defines and what it needs.

use std::io;

use clap::Args;
use objcache::loader::{InspectedSymbol, SymbolKind};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::inspected::{Inspected, ObjectOptions};
use crate::output::table::{Column, table};
use crate::output::{Report, Text};

/// List the symbols of an entry's object, or of an object file, as the loader sees them
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    object: ObjectOptions,

    /// Only those that the object does not define
    #[arg(short, long)]
    undefined: bool,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let inspected = options.object.read(context)?;
    let is_wanted = |symbol: &&InspectedSymbol| {
        let is_named =
            !symbol.name.is_empty() && !matches!(symbol.kind, SymbolKind::File | SymbolKind::Section);
        is_named && (!options.undefined || symbol.place == "undefined")
    };
    let symbols =
        inspected.contents.symbols.iter().filter(is_wanted).map(|it| Fields::of(&inspected, it)).collect();
    let contents = &inspected.contents;
    let (object, format, machine) = (inspected.name.clone(), contents.format, contents.machine);
    context.output.report(&SymbolsReport { object, format, machine, symbols })?;
    Ok(Status::Fine)
}

#[derive(Serialize)]
struct SymbolsReport {
    object: String,
    format: &'static str,
    machine: &'static str,
    symbols: Vec<Fields>,
}

#[derive(Serialize)]
struct Fields {
    name: String,
    kind: &'static str,
    binding: &'static str,
    hidden: bool,
    place: &'static str,
    section: Option<String>,
    value: u64,
    bytes: u64,
}

impl Fields {
    fn of(inspected: &Inspected, symbol: &InspectedSymbol) -> Self {
        let sections = &inspected.contents.sections;
        let section =
            symbol.section.and_then(|number| sections.iter().find(|section| section.number == number));
        Self {
            name: symbol.name.clone(),
            kind: kind(symbol.kind),
            binding: symbol.binding,
            hidden: symbol.hidden,
            place: symbol.place,
            section: section.map(|section| section.name.clone()),
            value: symbol.value,
            bytes: symbol.size,
        }
    }
}

fn kind(kind: SymbolKind) -> &'static str {
    match kind {
        SymbolKind::Function => "function",
        SymbolKind::Data => "data",
        SymbolKind::ThreadLocal => "thread-local",
        SymbolKind::IndirectFunction => "indirect-function",
        _ => "unknown",
    }
}

impl Report for SymbolsReport {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let columns = [
            Column::Right("OFFSET"),
            Column::Right("BYTES"),
            Column::Left("KIND"),
            Column::Left("BINDING"),
            Column::Left("WHERE"),
            Column::Left("SYMBOL"),
        ];
        let rows = self.symbols.iter().map(|symbol| {
            let place = symbol.section.clone().unwrap_or_else(|| format!("({})", symbol.place));
            let is_defined = symbol.place != "undefined";
            vec![
                if is_defined { format!("{:#x}", symbol.value) } else { "-".to_owned() },
                symbol.bytes.to_string(),
                symbol.kind.to_owned(),
                if symbol.hidden { format!("{}, hidden", symbol.binding) } else { symbol.binding.to_owned() },
                place,
                symbol.name.clone(),
            ]
        });
        text.laid_out(&table(&columns, rows, text.styled))
    }
}
