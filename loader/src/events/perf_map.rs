//! The perf map: a text file that `perf` reads to name functions in anonymous memory
//! (linux/tools/perf/Documentation/jit-interface.txt). One line for each function: start and size in hexadecimal, name.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use parking_lot::Mutex;

use super::{EventListener, ImageId, LoadedObject, files};
use crate::fork;

/// Appends every loaded function to `/tmp/perf-PID.map`, where `perf report` looks for them.
///
/// The file can only grow: perf takes all its lines as valid for the whole recording. When code is unloaded and
/// other code takes its place, perf may give the name of either; [`JitDump`](super::JitDump) tells them apart. A child
/// process after `fork` has a file of its own, with what it loads itself.
///
/// The file is opened at the first load, without following links, and only if it is this user's. Trouble with it costs the
/// profile, never a load: see [`take_problem`](Self::take_problem).
#[derive(Default)]
pub struct PerfMap {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With the process that opened it.
    file: Option<(u32, Option<File>)>,
    problem: Option<io::Error>,
}

impl PerfMap {
    /// A listener that has not opened its file yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where the file of this process is.
    pub fn path() -> PathBuf {
        PathBuf::from(format!("/tmp/perf-{}.map", std::process::id()))
    }

    /// What went wrong since this was last asked: the latest case. When the file cannot be opened, nothing more is written.
    pub fn take_problem(&self) -> Option<io::Error> {
        fork::lock(&self.state).problem.take()
    }
}

impl State {
    fn write(&mut self, lines: &str) -> io::Result<()> {
        let process = std::process::id();
        if self.file.as_ref().is_none_or(|(opened_by, _)| *opened_by != process) {
            self.file = Some((process, None));
            self.file = Some((process, Some(files::append_or_create(&PerfMap::path())?)));
        }
        match &mut self.file {
            Some((_, Some(file))) => file.write_all(lines.as_bytes()),
            _ => Ok(()),
        }
    }
}

impl EventListener for PerfMap {
    fn notify_loaded(&self, loaded: &LoadedObject<'_>) {
        let written = loaded.functions().map_err(io::Error::other).and_then(|functions| {
            let mut lines = String::new();
            for function in functions.iter().filter(|function| function.size != 0) {
                let name = one_line(&function.name);
                // Cannot fail: a string grows.
                let _ = writeln!(lines, "{:x} {:x} {name}", function.address, function.size);
            }
            if lines.is_empty() { Ok(()) } else { fork::lock(&self.state).write(&lines) }
        });
        if let Err(problem) = written {
            fork::lock(&self.state).problem = Some(problem);
        }
    }

    fn notify_freeing(&self, _image: ImageId) {}
}

/// A name that cannot pretend to be other lines.
pub(super) fn one_line(name: &str) -> String {
    name.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}
