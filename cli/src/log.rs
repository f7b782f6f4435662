//! Warnings of the libraries, on stderr.
//!
//! The libraries report through `tracing`. Here they are shown like a compiler's: `warning: …`, without time
//! and place, which -vv adds. `OBJCACHE_LOG` overrides what is shown.

use std::fmt;
use std::io;

use clap::builder::styling::{AnsiColor, Style};
use tracing::subscriber::set_global_default;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::args::GlobalOptions;

/// Sets up what the process shows. Called once.
pub(crate) fn init(options: &GlobalOptions, styled: bool) {
    let default = match (options.quiet, options.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "objcache=info,warn",
        (false, _) => "objcache=debug,warn",
    };
    let directives = std::env::var("OBJCACHE_LOG").unwrap_or_default();
    let filter = match directives.trim() {
        "" => EnvFilter::new(default),
        given => EnvFilter::builder().parse_lossy(given),
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // The libraries' own formats stay plain: colours are a feature of theirs that nothing here needs.
    let subscriber = subscriber.with_ansi(false);
    // A second subscriber would be refused; there is none. `try_init` would also show what libraries say through `log`, if
    // some other crate of the build asks for that: what they report is in the errors that they return.
    let _ = match options.verbose {
        0 | 1 => set_global_default(subscriber.event_format(Short { styled }).finish()),
        _ => set_global_default(subscriber.compact().finish()),
    };
}

/// `warning: …` and nothing else.
struct Short {
    styled: bool,
}

impl<S, N> FormatEvent<S, N> for Short
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (level, color) = match *event.metadata().level() {
            Level::ERROR => ("error", AnsiColor::Red),
            Level::WARN => ("warning", AnsiColor::Yellow),
            Level::INFO => ("note", AnsiColor::Cyan),
            Level::DEBUG => ("debug", AnsiColor::Blue),
            Level::TRACE => ("trace", AnsiColor::Blue),
        };
        let style = if self.styled { color.on_default().bold() } else { Style::new() };
        write!(writer, "{style}{level}:{style:#} ")?;
        let mut message = Message(&mut writer, Ok(()));
        event.record(&mut message);
        message.1?;
        writeln!(writer)
    }
}

/// Writes an event's message; its fields are for programs, and for -vv.
struct Message<'w, 'a>(&'w mut Writer<'a>, fmt::Result);

impl tracing::field::Visit for Message<'_, '_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.1 = self.1.and_then(|()| write!(self.0, "{value:?}"));
        }
    }
}
