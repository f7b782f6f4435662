//! Running a compiler so that only what is declared can reach it.
//!
//! Compilers read dozens of environment variables (`CPATH`, `GCC_EXEC_PREFIX`, `CCC_OVERRIDE_OPTIONS`, …). A
//! child therefore starts from an empty environment: `PATH` and `HOME` of ours, a private `TMPDIR`, the C
//! locale, and what the request declares, which is an ingredient of the key.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use tempfile::TempDir;

use crate::error::{CompileError, Stage};

/// Declared variables: the value, or `None` for unset.
pub(super) type Environment = BTreeMap<String, Option<Vec<u8>>>;

/// As much of a compiler's diagnostics as an error carries, in bytes. The first ones matter most.
const DIAGNOSTICS_LIMIT: usize = 4096;

/// A private folder for temporary files, made when it is first needed and removed in the end.
#[derive(Default)]
pub(super) struct Workplace {
    folder: OnceCell<TempDir>,
}

impl Workplace {
    pub(super) fn path(&self) -> Result<&Path, CompileError> {
        if let Some(folder) = self.folder.get() {
            return Ok(folder.path());
        }
        let folder = tempfile::Builder::new()
            .prefix("objcache-")
            .tempdir()
            .map_err(|error| CompileError::new(Stage::Prepare, "a temporary folder", error))?;
        Ok(self.folder.get_or_init(|| folder).path())
    }
}

/// A program about to run.
pub(super) struct Run<'a> {
    pub(super) program: &'a Path,
    pub(super) environment: &'a Environment,
    /// Where it may leave temporary files. They go when we remove it, even after a kill.
    pub(super) temporary: &'a Path,
    /// What an error says it was working on, and in which stage.
    pub(super) stage: Stage,
    pub(super) what: String,
}

impl Run<'_> {
    /// Runs to the end with `input` as standard input (none: an empty one), and expects success.
    pub(super) fn output(&self, arguments: &[String], input: Option<&[u8]>) -> Result<Output, CompileError> {
        let output = self
            .finish(arguments, input)
            .map_err(|error| self.error(format!("`{}` did not run: {error}", self.program.display())))?;
        if output.status.success() {
            return Ok(output);
        }
        Err(self.error(format!(
            "`{}` {}: {}",
            self.program.display(),
            how_it_ended(output.status),
            bounded(&output.stderr)
        )))
    }

    /// What a compiler says of code that compiles is for the user too.
    pub(super) fn pass_on_warnings(&self, output: &Output) {
        if !output.stderr.trim_ascii().is_empty() {
            tracing::warn!("{}: {}", self.program.display(), bounded(&output.stderr));
        }
    }

    pub(super) fn error(&self, why: String) -> CompileError {
        CompileError::new(self.stage, self.what.clone(), why)
    }

    fn finish(&self, arguments: &[String], input: Option<&[u8]>) -> io::Result<Output> {
        let mut command = Command::new(self.program);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        self.set_environment(&mut command)?;
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        std::thread::scope(|scope| {
            // Written beside the reading: a child that fills its output before it has read all of its input
            // would otherwise wait for us for ever. One that stops reading says why on its own.
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                scope.spawn(move || stdin.write_all(input));
            }
            child.wait_with_output()
        })
    }

    fn set_environment(&self, command: &mut Command) -> io::Result<()> {
        command.env_clear();
        for name in ["PATH", "HOME"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("TMPDIR", self.temporary).env("LANG", "C").env("LC_ALL", "C");
        for (name, value) in self.environment {
            match value {
                Some(value) => command.env(name, os_string(value)?),
                None => command.env_remove(name),
            };
        }
        // Where the working directory is an ingredient (debug information), it stands in `PWD`.
        if let Some(Some(directory)) = self.environment.get("PWD") {
            command.current_dir(os_string(directory)?);
        }
        Ok(())
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("was killed by signal {signal}");
    }
    match status.code() {
        Some(code) => format!("failed with exit code {code}"),
        None => "failed".to_owned(),
    }
}

/// The beginning of what a compiler said.
fn bounded(diagnostics: &[u8]) -> String {
    let shown = &diagnostics[..diagnostics.len().min(DIAGNOSTICS_LIMIT)];
    let mut text = String::from_utf8_lossy(shown).trim().to_owned();
    if text.is_empty() {
        text.push_str("it said nothing");
    }
    if shown.len() < diagnostics.len() {
        text.push_str(&format!(" … ({} bytes more)", diagnostics.len() - shown.len()));
    }
    text
}

#[cfg(unix)]
pub(super) fn os_string(bytes: &[u8]) -> io::Result<OsString> {
    Ok(std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec()))
}

#[cfg(not(unix))]
pub(super) fn os_string(bytes: &[u8]) -> io::Result<OsString> {
    let text =
        std::str::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(OsString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagnostics_are_bounded() {
        assert_eq!(bounded(b" error: x \n"), "error: x");
        assert_eq!(bounded(b""), "it said nothing");
        let long = bounded(&vec![b'x'; DIAGNOSTICS_LIMIT + 7]);
        assert!(long.len() < DIAGNOSTICS_LIMIT + 50 && long.ends_with("… (7 bytes more)"), "{long}");
    }
}
