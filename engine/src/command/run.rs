//! Running a compiler so that only what is declared can reach it.
//!
//! Compilers read dozens of environment variables (`CPATH`, `GCC_EXEC_PREFIX`, `CCC_OVERRIDE_OPTIONS`, …). A
//! child therefore starts from an empty environment: `PATH` and `HOME` of ours, a private `TMPDIR`, the C
//! locale, and what the request declares, which is an ingredient of the key.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use rustix::io::Errno;

use crate::error::{CompileError, Stage};

/// Declared variables: the value, or `None` for unset.
pub(super) type Environment = BTreeMap<String, Option<Vec<u8>>>;

/// As much of a compiler's diagnostics as an error carries, in bytes. The first ones matter most.
const DIAGNOSTICS_LIMIT: usize = 4096;

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
        let output = self.finish(arguments, input).map_err(|error| self.did_not_run(&error))?;
        if output.status.success() {
            return Ok(output);
        }
        let error = self.error(format!(
            "`{}` {}: {}",
            self.program.display(),
            how_it_ended(output.status),
            bounded(&output.stderr)
        ));
        Err(if blames_the_source(&output) { error.blame_the_source() } else { error })
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

    fn did_not_run(&self, error: &io::Error) -> CompileError {
        let is_out_of_descriptors =
            Errno::from_io_error(error).is_some_and(|it| matches!(it, Errno::MFILE | Errno::NFILE));
        let why = format!("`{}` did not run: {error}", self.program.display());
        CompileError { is_out_of_descriptors, ..self.error(why) }
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

/// Whether the compiler found an error in what it was given: it ended by itself, said so, and mentions no trouble
/// of its own or of the machine's.
fn blames_the_source(output: &Output) -> bool {
    const TROUBLE: [&str; 16] = [
        "internal compiler error",
        "bug report",
        "stack dump",
        "out of memory",
        "memory exhausted",
        "cannot allocate",
        "no space left",
        "quota exceeded",
        "input/output error",
        "i/o error",
        "too many open files",
        "permission denied",
        "read-only file system",
        "killed",
        "unable to execute",
        "cannot execute",
    ];
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    output.status.code() == Some(1) && said.contains("error:") && !TROUBLE.iter().any(|it| said.contains(it))
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

    #[cfg(unix)]
    #[test]
    fn only_errors_in_the_source_are_blamed_on_it() {
        use std::os::unix::process::ExitStatusExt;
        let ended = |wait_status: i32, stderr: &str| {
            let status = ExitStatus::from_raw(wait_status);
            blames_the_source(&Output { status, stdout: Vec::new(), stderr: stderr.into() })
        };
        let exit = |code: i32, stderr: &str| ended(code << 8, stderr);
        assert!(exit(1, "k.c:1:5: error: expected identifier"));
        assert!(!exit(0, "error:") && !exit(4, "error:") && !exit(1, "what?"));
        assert!(!ended(9, "k.c:1:5: error: expected identifier"), "killed");
        for trouble in [
            "k.c:1: internal compiler error: in f, at g.c:1",
            "cc1: error: out of memory allocating 7 bytes",
            "fatal error: error writing to -: No space left on device",
            "fatal error: Killed signal terminated program cc1",
        ] {
            assert!(!exit(1, trouble), "{trouble}");
        }
    }

    #[test]
    fn diagnostics_are_bounded() {
        assert_eq!(bounded(b" error: x \n"), "error: x");
        assert_eq!(bounded(b""), "it said nothing");
        let long = bounded(&vec![b'x'; DIAGNOSTICS_LIMIT + 7]);
        assert!(long.len() < DIAGNOSTICS_LIMIT + 50 && long.ends_with("… (7 bytes more)"), "{long}");
    }
}
