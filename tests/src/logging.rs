//! A compiler that writes a line for each compilation, so that a test can count them over processes.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use objcache::call::Prototype;
use objcache::signature::CompileInputs;
use objcache::{CompileError, CompileRequest, Compiler, DumpDirectory, Prepared};

/// Forwards to a real compiler, and takes note of it.
#[derive(Debug)]
pub struct LoggingCompiler<C> {
    /// The compiler that does the work.
    pub inner: C,
    /// A line is appended here when a compilation begins.
    pub log: PathBuf,
    /// How long each compilation is held up.
    pub delay: Duration,
    /// Dies by signal 9 half way through the first compilation that finds this file, and removes it.
    pub kill_marker: Option<PathBuf>,
}

impl<C> LoggingCompiler<C> {
    fn begin(&self) {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let line = format!("{}\n", std::process::id());
        log.and_then(|mut log| log.write_all(line.as_bytes())).expect("the log takes a line");
        std::thread::sleep(self.delay);
        if self.kill_marker.as_ref().is_some_and(|marker| std::fs::remove_file(marker).is_ok()) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

impl<C: Compiler> Compiler for LoggingCompiler<C> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn prepare(&self, request: &CompileRequest) -> Result<Prepared, CompileError> {
        self.inner.prepare(request)
    }

    fn verify(&self, inputs: &CompileInputs) -> Result<(), CompileError> {
        self.inner.verify(inputs)
    }

    fn compile(&self, inputs: &CompileInputs, dump: Option<&DumpDirectory>) -> Result<Vec<u8>, CompileError> {
        self.begin();
        self.inner.compile(inputs, dump)
    }

    fn prototypes(&self, inputs: &CompileInputs) -> Result<Vec<(String, Prototype)>, CompileError> {
        self.inner.prototypes(inputs)
    }
}
