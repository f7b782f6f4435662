//! `fsck`: the whole directory of the cache, looked over and mended.

use std::io;

use clap::Args;
use objcache::cache::{CatalogueCheck, Fault, Finding, FsckReport};
use serde::{Serialize, Serializer};

use super::entry::entries;
use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::progress::Bar;
use crate::output::table::{Column, table};
use crate::output::{Report, Text};
use crate::units;

/// Look over everything in the cache's directory; exit code 1 when something is not as it should be
///
/// Entries, catalogue, journal, leftovers of processes that died, owners and modes. Nothing that it finds can make the cache
/// serve wrong code: damage is a miss, and leftovers are swept by whoever writes next. Notes are no findings: what a process
/// that lives has not noted yet.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Mend what can be mended, and make the catalogue anew from the entries
    #[arg(long)]
    rebuild: bool,
}

pub(crate) fn run(options: &Options, context: &Context) -> Result<Status, Failure> {
    let store = context.store()?;
    let bar = Bar::new("fsck", context.output.quiet || context.output.json);
    let report = store.fsck(options.rebuild, &mut |progress| bar.show(progress))?;
    drop(bar);
    let status = if report.problems().next().is_none() { Status::Fine } else { Status::Findings };
    context.output.report(&LookedOver(report))?;
    Ok(status)
}

struct LookedOver(FsckReport);

impl Serialize for LookedOver {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields {
            checked: u64,
            bytes: u64,
            findings: Vec<FindingFields>,
            sound: bool,
            catalogue: &'static str,
            rebuilt: Option<u64>,
        }
        #[derive(Serialize)]
        struct FindingFields {
            path: String,
            fault: &'static str,
            reason: Option<&'static str>,
            note: bool,
            mended: bool,
        }
        let report = &self.0;
        let fields = |Finding { path, fault, mended }: &Finding| FindingFields {
            path: path.display().to_string(),
            fault: fault.as_str(),
            reason: fault.reason().map(|reason| reason.as_str()),
            note: fault.is_note(),
            mended: *mended,
        };
        Fields {
            checked: report.checked,
            bytes: report.bytes,
            findings: report.findings.iter().map(fields).collect(),
            sound: report.is_sound(),
            catalogue: report.catalogue.as_str(),
            rebuilt: report.rebuilt,
        }
        .serialize(to)
    }
}

impl Report for LookedOver {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        let report = &self.0;
        if !report.findings.is_empty() {
            let columns = [Column::Left("FILE"), Column::Left("STATE"), Column::Left("WHAT")];
            let rows = report.findings.iter().map(|Finding { path, fault, mended }| {
                let state = match mended {
                    true => "mended",
                    false if fault.is_note() => "note",
                    false => "as it was",
                };
                vec![path.display().to_string(), state.to_owned(), fault.to_string()]
            });
            text.laid_out(&table(&columns, rows, text.styled))?;
        }
        if let Some(rebuilt) = report.rebuilt {
            text.line(format!("the catalogue was made anew: {}", entries(rebuilt)))?;
        }
        if report.catalogue != CatalogueCheck::Checked {
            text.line(report.catalogue.to_string())?;
        }
        let mended = report.problems().filter(|finding| finding.mended).count();
        let untrusted = report.problems().filter(|it| matches!(it.fault, Fault::NotVouchedFor(_))).count();
        let left = report.problems().count() - mended - untrusted;
        let outcome = match (mended, left) {
            (0, 0) if untrusted == 0 => "all is as it should be".to_owned(),
            (0, 0) => "nothing is damaged".to_owned(),
            (mended, 0) => format!("{mended} mended"),
            (0, left) => {
                format!("{} not as it should be; mend with --rebuild", units::count(left as u64, "thing"))
            }
            (mended, left) => format!("{mended} mended, {left} left as it was"),
        };
        let untrusted = match untrusted {
            0 => String::new(),
            count => format!("; {count} not vouched for by a trusted key"),
        };
        let checked = format!("{} ({}) checked", entries(report.checked), units::size(report.bytes));
        text.line(format!("{checked}: {outcome}{untrusted}"))
    }
}
