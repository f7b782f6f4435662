//! A folder with a cache and files of its own, and the program run in it.

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_objcache");

/// A working directory with a cache beside it, which vanish when the test ends.
pub(crate) struct Sandbox {
    folder: TempDir,
    /// Who runs the program, when that is not us.
    user: Cell<Option<u32>>,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("work")).unwrap();
        Self { folder, user: Cell::new(None) }
    }

    /// One with these fixtures in its working directory.
    pub(crate) fn with(fixtures: &[&str]) -> Self {
        let sandbox = Self::new();
        for name in fixtures {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
            sandbox.write(name, std::fs::read(from).unwrap());
        }
        sandbox
    }

    /// Makes another user the owner of everything, who from now on runs a copy of the program. For root only.
    pub(crate) fn give_to(&self, user: u32) {
        copy_program(Path::new(PROGRAM), &self.folder.path().join("objcache"));
        let inside = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let deeper = std::fs::read_dir(self.path("")).unwrap().map(|entry| entry.unwrap().path());
        for path in inside.chain(deeper).chain([self.folder.path().to_owned()]) {
            chown(path, Some(user), Some(user)).unwrap();
        }
        self.user.set(Some(user));
    }

    /// Where the cache is.
    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// A path in the working directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("work").join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// The program with these words. It sees no setting of ours from outside.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = match self.user.get() {
            None => Command::new(PROGRAM),
            Some(user) => {
                let mut command = Command::new(self.folder.path().join("objcache"));
                command.uid(user).gid(user);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OBJCACHE_") {
                command.env_remove(name);
            }
        }
        command.env("XDG_CONFIG_HOME", self.folder.path().join("config"));
        command.env("OBJCACHE_DIR", self.cache()).current_dir(self.path("")).args(words).stdin(Stdio::null());
        command
    }

    pub(crate) fn objcache(&self, words: &[&str]) -> Finished {
        finish(&mut self.command(words))
    }

    /// The same with `--json`; the result as a value.
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let finished = finish(self.command(words).arg("--json"));
        assert_eq!(finished.code, 0, "{words:?}: {} {}", finished.stdout, finished.stderr);
        finished.json()
    }

    /// The same, of a command that fails.
    pub(crate) fn json_error(&self, words: &[&str], code: i32) -> Value {
        let finished = finish(self.command(words).arg("--json"));
        assert_eq!(finished.code, code, "{words:?}: {} {}", finished.stdout, finished.stderr);
        assert_eq!(finished.stderr, "", "{words:?}");
        finished.json()["error"].clone()
    }

    /// The file of an entry: `ab/cdef…` in the cache.
    pub(crate) fn entry_file(&self, signature: &str) -> PathBuf {
        let (fan, rest) = signature.split_at(2);
        self.cache().join(fan).join(rest)
    }
}

/// What a process left behind.
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Asserts that it went well; gives its standard output.
    #[track_caller]
    pub(crate) fn fine(self) -> String {
        assert_eq!(self.code, 0, "stdout: {} stderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Asserts that it failed with this exit code and said so on standard error only; gives what it said.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!(self.code, code, "stdout: {} stderr: {}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "");
        self.stderr
    }

    /// Standard output as the one JSON object in one line that it must be.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.stdout);
        let value: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout));
        assert!(value.is_object());
        value
    }
}

/// Copies an executable file. Another process writes it: a file that this one had open for writing is `busy`
/// while any child that another test forked meanwhile still holds it.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("--").arg(from).arg(to).status().unwrap().success());
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Finished {
    // A program just written is busy while a child that another test just forked still has it open for writing.
    for _ in 0..200 {
        match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            output => return finished(output.unwrap()),
        }
    }
    finished(command.output().unwrap())
}

pub(crate) fn finished(Output { status, stdout, stderr }: Output) -> Finished {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    // A process that a signal ended has no exit code; no test expects that.
    let code = status.code().unwrap_or_else(|| panic!("{status}: {}", text(stderr.clone())));
    Finished { code, stdout: text(stdout), stderr: text(stderr) }
}

/// The program `name` on `PATH`. Without it the test is skipped, which is a failure where all must run.
pub(crate) fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Says that a test cannot run here.
pub(crate) fn skip(why: &str) {
    println!("skipped: {why}");
    let required = std::env::var_os("OBJCACHE_REQUIRE_ALL").as_deref() == Some(OsStr::new("1"));
    assert!(!required, "a test that must run cannot: {why}");
}
