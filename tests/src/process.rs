//! Starting processes that use the engine, and reading what they answer.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A folder with a store, a kernel and a log, and the program that uses them: `kernel-process`.
#[derive(Debug)]
pub struct KernelProcess {
    program: PathBuf,
    folder: PathBuf,
}

/// What a process answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `hit` or `miss`.
    pub outcome: String,
    /// What the kernel returned.
    pub result: String,
    /// Whatever it had to say on standard error.
    pub complaints: String,
}

/// A process that was started.
#[derive(Debug)]
pub struct Running(Child);

impl KernelProcess {
    /// Uses `program` on what is in `folder`.
    pub fn new(program: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), folder: folder.into() }
    }

    /// The kernel's source file.
    pub fn source(&self) -> PathBuf {
        self.folder.join("kernel.clif")
    }

    /// The store's directory.
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// While this file is there, the next process that compiles dies half way, and takes it along.
    pub fn kill_marker(&self) -> PathBuf {
        self.folder.join("kill")
    }

    /// Writes a kernel that returns `value`.
    pub fn write_kernel(&self, value: i32) {
        let text = format!(
            "function %answer() -> i32 system_v {{\nblock0:\n    v0 = iconst.i32 {value}\n    return v0\n}}\n"
        );
        std::fs::write(self.source(), text).expect("the kernel is written");
    }

    /// How many compilations have begun so far.
    pub fn compilations(&self) -> usize {
        std::fs::read_to_string(self.folder.join("log")).map_or(0, |log| log.lines().count())
    }

    /// Starts a process; each compilation in it is held up by `delay_ms`.
    pub fn start(&self, delay_ms: u64, variables: &[(&str, &str)]) -> Running {
        let mut command = Command::new(&self.program);
        command.arg(&self.folder).arg(delay_ms.to_string()).env("OBJCACHE_DIR", self.store());
        command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(command.spawn().expect("the process starts"))
    }

    /// Runs a process to its end.
    pub fn run(&self) -> Answer {
        self.start(0, &[]).answer()
    }

    /// The entry files of the store: those that hold an object.
    pub fn entries(&self) -> Vec<PathBuf> {
        let mut entries = Vec::new();
        collect(&self.store(), &mut entries);
        entries.sort();
        entries
    }
}

impl Running {
    /// Waits for it, which must end well.
    pub fn answer(self) -> Answer {
        let (status, answer) = self.finish();
        assert!(status.success(), "{status}: {answer:?}");
        answer
    }

    /// Waits for it, however it ends.
    pub fn finish(self) -> (ExitStatus, Answer) {
        let output = self.0.wait_with_output().expect("the process ends");
        let text = String::from_utf8_lossy(&output.stdout);
        let mut words = text.split_whitespace().map(str::to_owned);
        let answer = Answer {
            outcome: words.next().unwrap_or_default(),
            result: words.next().unwrap_or_default(),
            complaints: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        (output.status, answer)
    }
}

/// Entry files are those that begin like an object.
fn collect(folder: &Path, entries: &mut Vec<PathBuf>) {
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = file.path();
        let named_quarantine = path.file_name().is_some_and(|name| name == "quarantine");
        match path.is_dir() {
            true if named_quarantine => {}
            true => collect(&path, entries),
            false => {
                entries.extend(std::fs::read(&path).is_ok_and(|b| b.starts_with(b"\x7fELF")).then_some(path))
            }
        }
    }
}
