//! Jitdump: a binary file of what was loaded when, with the code itself and its line table, for `perf inject --jit`
//! (linux/tools/perf/Documentation/jitdump-specification.txt, version 1). Words are in the byte order of the machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;

use parking_lot::Mutex;

use super::marker::Marker;
use super::perf_map::one_line;
use super::{EventListener, ImageId, LoadedFunction, LoadedObject, files};
use crate::arch::with_architecture;
use crate::debug::lines::{LineTable, Row};
use crate::fork;

const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
const HEADER_BYTES: u32 = 40;
const CODE_LOAD: u32 = 0;
const CODE_DEBUG_INFO: u32 = 2;
const CODE_CLOSE: u32 = 3;

/// Writes every loaded function to `jit-PID.dump`, with its code and its source lines.
///
/// `perf record -k 1 PROGRAM`, `perf inject --jit -i perf.data -o perf.jit.data`, then `perf report` or `perf annotate`
/// of that. `-k 1` has perf use the clock that the dump uses (`CLOCK_MONOTONIC`). Functions whose memory was used again
/// are told apart by time.
///
/// The file is made at the first load, without following links; what an earlier process of the same number and user left
/// there is removed. perf knows the file by an executable mapping of it (never a writable one), which lives as long as the
/// listener. Trouble costs the profile, never a load: see [`take_problem`](Self::take_problem). A child process after `fork`
/// has a dump of its own, with what it loads itself.
pub struct JitDump {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// With the process that made it; `None`: that failed, and is not tried again.
    dump: Option<(u32, Option<Dump>)>,
    problem: Option<io::Error>,
}

struct Dump {
    /// Whose it is.
    process: u32,
    file: File,
    /// By this mapping perf knows the file.
    _marker: Marker,
    /// Number of the next function.
    next: u64,
}

impl JitDump {
    /// A listener that makes its file in this directory, which must exist.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        JitDump { directory: directory.into(), state: Mutex::default() }
    }

    /// A listener that makes its file in `$JITDUMPDIR`, else in the working directory.
    pub fn from_environment() -> Self {
        Self::in_directory(
            std::env::var_os("JITDUMPDIR")
                .filter(|directory| !directory.is_empty())
                .unwrap_or_else(|| ".".into()),
        )
    }

    /// Where the file of this process is, or will be.
    pub fn path(&self) -> PathBuf {
        self.directory.join(format!("jit-{}.dump", std::process::id()))
    }

    /// What went wrong since this was last asked: the latest case. When the file cannot be made, nothing more is written;
    /// when debug information cannot be used, functions are written without source lines.
    pub fn take_problem(&self) -> Option<io::Error> {
        fork::lock(&self.state).problem.take()
    }

    fn write(&self, loaded: &LoadedObject<'_>) -> io::Result<()> {
        let functions = loaded.functions().map_err(io::Error::other)?;
        let lines = LineTable::of(loaded).unwrap_or_else(|problem| {
            fork::lock(&self.state).problem = Some(io::Error::other(problem));
            LineTable::default()
        });
        let mut sections = BTreeMap::new();
        let mut records = Vec::new();
        for function in functions.iter().filter(|function| function.size != 0) {
            let content = match sections.entry(function.section) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(loaded.section_content(function.section).map_err(io::Error::other)?)
                }
            };
            let home = loaded.link.object.graph.sections[function.section].address;
            let start = function.address.wrapping_sub(home) as usize;
            let code = content.get(start..).and_then(|code| code.get(..function.size as usize));
            if let Some(code) = code {
                records.push((function, code.to_vec(), lines.within(function.address, function.size)));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let machine = with_architecture!(loaded.link.object.graph.machine, A => e_machine::<A>());
        let mut state = fork::lock(&self.state);
        let Some(dump) = state.dump(machine, || files::create_new(&self.path()))? else { return Ok(()) };
        records.iter().try_for_each(|(function, code, lines)| dump.write(function, code, lines))
    }
}

fn e_machine<A: crate::arch::Architecture>() -> u16 {
    A::IDENTITY.elf.map_or(0, |identity| identity.e_machine)
}

impl State {
    /// The dump of this process, made if there is none yet.
    fn dump(
        &mut self,
        machine: u16,
        create: impl FnOnce() -> io::Result<File>,
    ) -> io::Result<Option<&mut Dump>> {
        let process = std::process::id();
        if self.dump.as_ref().is_none_or(|(made_by, _)| *made_by != process) {
            self.dump = Some((process, None));
            self.dump = Some((process, Some(Dump::new(create()?, machine)?)));
        }
        Ok(self.dump.as_mut().and_then(|(_, dump)| dump.as_mut()))
    }
}

impl Dump {
    fn new(mut file: File, machine: u16) -> io::Result<Self> {
        let mut header = Record::default();
        for word in [MAGIC, VERSION, HEADER_BYTES, machine.into(), 0, std::process::id()] {
            header.word(word);
        }
        header.long(now());
        header.long(0);
        file.write_all(&header.bytes)?;
        let marker = Marker::new(&file)?;
        Ok(Dump { process: std::process::id(), file, _marker: marker, next: 0 })
    }

    fn write(&mut self, function: &LoadedFunction<'_>, code: &[u8], lines: &[Row]) -> io::Result<()> {
        let mut records = Record::default();
        // perf wants to know the lines of code before the code.
        if !lines.is_empty() {
            let mut record = Record::default();
            record.long(function.address);
            record.long(lines.len() as u64);
            for row in lines {
                record.long(row.address.max(function.address));
                record.word(row.line);
                record.word(row.column);
                record.text(&row.file);
            }
            records.add(CODE_DEBUG_INFO, &record);
        }
        let mut record = Record::default();
        record.word(std::process::id());
        record.word(rustix::thread::gettid().as_raw_nonzero().get() as u32);
        record.long(function.address);
        record.long(function.address);
        record.long(code.len() as u64);
        record.long(self.next);
        record.text(&function.name);
        record.bytes.extend(code);
        records.add(CODE_LOAD, &record);
        self.next += 1;
        self.file.write_all(&records.bytes)
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // A child's copy: its parent goes on.
            return;
        }
        let mut record = Record::default();
        record.add(CODE_CLOSE, &Record::default());
        // Readers do without it.
        let _ = self.file.write_all(&record.bytes);
    }
}

impl EventListener for JitDump {
    fn notify_loaded(&self, loaded: &LoadedObject<'_>) {
        if let Err(problem) = self.write(loaded) {
            fork::lock(&self.state).problem = Some(problem);
        }
    }

    fn notify_freeing(&self, _image: ImageId) {}
}

/// A record in the making.
#[derive(Default)]
struct Record {
    bytes: Vec<u8>,
}

impl Record {
    fn word(&mut self, value: u32) {
        self.bytes.extend(value.to_ne_bytes());
    }

    fn long(&mut self, value: u64) {
        self.bytes.extend(value.to_ne_bytes());
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend(one_line(text).replace('\0', "?").bytes());
        self.bytes.push(0);
    }

    /// A whole record, with its prefix.
    fn add(&mut self, kind: u32, record: &Record) {
        const PREFIX_BYTES: usize = 16;
        self.word(kind);
        self.word((PREFIX_BYTES + record.bytes.len()) as u32);
        self.long(now());
        self.bytes.extend(&record.bytes);
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
