//! What a command says: one result on stdout, everything else on stderr.
//!
//! A result is a [`Report`]: one value that is shown to people as text and to programs as one JSON object, so
//! that neither can tell what the other does not. Field names are documented in `JSON.md`.

pub(crate) mod progress;
pub(crate) mod table;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write, stderr, stdout};

use clap::builder::styling::{AnsiColor, Style};
use serde::Serialize;

use crate::args::{ColorChoice, GlobalOptions};
use crate::failure::{Failure, FailureKind};

/// A result, for people and for programs.
pub(crate) trait Report: Serialize {
    /// Writes it as text.
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()>;
}

/// Where text for people goes.
pub(crate) struct Text<'a> {
    pub(crate) out: &'a mut dyn Write,
    /// Whether letters may be bold and coloured.
    pub(crate) styled: bool,
    /// Columns of the terminal, if it is one.
    pub(crate) width: Option<usize>,
}

impl Text<'_> {
    /// One line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> io::Result<()> {
        writeln!(self.out, "{}", printable(line.as_ref()))
    }

    /// A line above a part of its own.
    pub(crate) fn heading(&mut self, heading: &str) -> io::Result<()> {
        let style = if self.styled { Style::new().bold() } else { Style::new() };
        writeln!(self.out, "\n{style}{heading}{style:#}")
    }

    /// Lines that were laid out by [`table`].
    pub(crate) fn laid_out(&mut self, lines: &str) -> io::Result<()> {
        writeln!(self.out, "{lines}")
    }
}

/// How results and messages are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    /// No progress and no remarks.
    pub(crate) quiet: bool,
    verbose: bool,
    color: ColorChoice,
}

impl Output {
    pub(crate) fn new(options: &GlobalOptions) -> Self {
        let GlobalOptions { json, quiet, verbose, color, .. } = *options;
        Self { json, quiet, verbose: verbose > 0, color }
    }

    /// Writes the result. A reader that has gone away (`objcache ls | head`) has seen enough: no failure.
    pub(crate) fn report(&self, report: &impl Report) -> Result<(), Failure> {
        // All of it before any is written: behind half a result the words about a failure would make no JSON.
        let mut result = Vec::new();
        let made = match self.json {
            true => write_json(&mut result, report),
            false => {
                let (styled, width) = (self.styled(stdout().is_terminal()), table::terminal_width());
                report.write_text(&mut Text { out: &mut result, styled, width })
            }
        };
        made.map_err(|error| Failure::io("stdout".as_ref(), &error))?;
        self.bytes(&result)
    }

    /// Writes a file's content to stdout.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = stdout().lock();
        unless_broken_pipe(out.write_all(bytes).and_then(|()| out.flush()))
    }

    /// A remark beside the result: on stderr, when somebody watches or asked for it.
    pub(crate) fn remark(&self, remark: impl FnOnce() -> String) {
        if !self.quiet && !self.json && (self.verbose || stderr().is_terminal()) {
            let style = self.style(Style::new().dimmed(), stderr().is_terminal());
            // Nobody is left to be told that stderr cannot be written.
            let _ = writeln!(stderr(), "{style}{}{style:#}", remark());
        }
    }

    /// Says why a command failed: as text on stderr, or as the one JSON object on stdout.
    pub(crate) fn failure(&self, failure: &Failure) {
        let _ = match self.json {
            true => write_json(&mut stdout(), &ErrorReport::from(failure)),
            false => self.write_failure(&mut stderr(), failure),
        };
    }

    fn write_failure(&self, out: &mut dyn Write, failure: &Failure) -> io::Result<()> {
        let terminal = stderr().is_terminal();
        let error = self.style(AnsiColor::Red.on_default().bold(), terminal);
        let hint = self.style(AnsiColor::Cyan.on_default().bold(), terminal);
        // Compilers quote source, with its tabs, in several lines.
        let message = escaped(&failure.message, &['\n', '\t']);
        writeln!(out, "{error}error:{error:#} {message}")?;
        match &failure.hint {
            Some(words) => writeln!(out, "{hint}hint:{hint:#} {}", printable(words)),
            None => Ok(()),
        }
    }

    fn style(&self, style: Style, terminal: bool) -> Style {
        if self.styled(terminal) { style } else { Style::new() }
    }

    /// `NO_COLOR` is honoured as <https://no-color.org> asks: set and not empty.
    pub(crate) fn styled(&self, terminal: bool) -> bool {
        match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                terminal && draws() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        }
    }
}

/// Whether terminals here know escape sequences. Editors' and build tools' own ones say that they do not.
pub(crate) fn draws() -> bool {
    std::env::var_os("TERM").is_some_and(|kind| !kind.is_empty() && kind != "dumb")
}

/// The text with its control characters escaped: a name out of a file must not draw on the terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, &[])
}

/// The same, less the characters in `kept`.
fn escaped<'t>(text: &'t str, kept: &[char]) -> Cow<'t, str> {
    let draws = |c: char| c.is_control() && !kept.contains(&c);
    if !text.contains(draws) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if draws(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

fn write_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

fn unless_broken_pipe(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("stdout".as_ref(), &error))
        }
        _ => Ok(()),
    }
}

/// A failure, for programs.
#[derive(Serialize)]
struct ErrorReport<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    kind: FailureKind,
    code: &'a str,
    message: &'a str,
    hint: Option<&'a str>,
    exit_code: u8,
}

impl<'a> From<&'a Failure> for ErrorReport<'a> {
    fn from(failure: &'a Failure) -> Self {
        let Failure { kind, code, message, hint } = failure;
        Self {
            error: ErrorFields {
                kind: *kind,
                code,
                message,
                hint: hint.as_deref(),
                exit_code: kind.exit_code(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_draw() {
        assert_eq!(printable("plain, ünïcode"), "plain, ünïcode");
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(escaped("a\tb\n\u{7}", &['\n', '\t']), "a\tb\n\\u{7}");
    }
}
