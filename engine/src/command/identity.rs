//! Who compiles: the programs and libraries that decide the code, each by its build-id or content.
//!
//! A distribution's clang is a thin program over `libclang-cpp.so` and `libLLVM.so`, and gcc is a driver of
//! `cc1` and `as`: a version text alone stays the same when one of them is replaced. They are looked at once;
//! afterwards their stamps (size, times, inode) tell whether that still holds.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use objcache_signature::{CompilerIdentity, Component, Digest};
use object::read::ReadCache;
use object::{Object, ObjectSection};

use super::dry_run;
use super::program::{Family, Program, locate};
use super::run::{Environment, Run};
use super::workplace::Workplace;
use crate::error::{CompileError, Stage};

/// The programs that take part, beside the driver.
pub(super) type Tools = Vec<&'static str>;

/// Libraries that have no say in what code is made: the run-time of C and C++, terminals, text formats.
/// `libm` is not among them, compilers fold constants with it.
const BYSTANDERS: [&str; 16] = [
    "ld-linux",
    "linux-vdso",
    "libc.",
    "libstdc++",
    "libgcc_s",
    "libpthread",
    "libdl",
    "librt",
    "libtinfo",
    "libncurses",
    "libedit",
    "libbsd",
    "libmd",
    "libicu",
    "liblzma",
    "libxml2",
];

/// Identities found so far, by the tools they include.
#[derive(Debug, Default)]
pub(super) struct Identities {
    known: Mutex<HashMap<Tools, Arc<Known>>>,
}

#[derive(Debug)]
struct Known {
    identity: CompilerIdentity,
    stamps: Vec<(PathBuf, Option<Stamp>)>,
}

impl Identities {
    /// The identity of `program` with `tools`, looked at again when one of its files changed.
    pub(super) fn get(
        &self,
        program: &Program,
        tools: Tools,
        workplace: &Workplace,
    ) -> Result<CompilerIdentity, CompileError> {
        let known = self.lock().get(&tools).cloned();
        if let Some(known) = known.filter(|known| known.is_fresh()) {
            return Ok(known.identity.clone());
        }
        let probed = Arc::new(probe(program, &tools, workplace.path()?)?);
        self.lock().insert(tools, Arc::clone(&probed));
        Ok(probed.identity.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Tools, Arc<Known>>> {
        // Each entry is put in whole, so a panic elsewhere leaves the map as good as it was.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_fresh(&self) -> bool {
        self.stamps.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
    }
}

/// What changes when a file is replaced. It only decides whether to look again, never what is hashed.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    inode: (u64, u64, i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { length: metadata.len(), modified: metadata.modified().ok(), inode: inode(&metadata) })
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> (u64, u64, i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn inode(_metadata: &Metadata) -> (u64, u64, i64, i64) {
    (0, 0, 0, 0)
}

/// The components of an identity, as they are collected.
struct Probe<'a> {
    program: &'a Program,
    temporary: &'a Path,
    components: BTreeMap<String, Component>,
    stamps: Vec<(PathBuf, Option<Stamp>)>,
}

fn probe(program: &Program, tools: &Tools, temporary: &Path) -> Result<Known, CompileError> {
    // Asked again: the program may have been replaced since it was found.
    let driver_stamp = (program.path.clone(), Stamp::of(&program.path));
    let now = Program::ask(program.path.clone(), temporary)?;
    if (now.family, &now.triple) != (program.family, &program.triple) {
        let why = "it is another compiler than when it was chosen";
        return Err(CompileError::new(Stage::Identify, program.path.display().to_string(), why));
    }
    let mut probe = Probe { program, temporary, components: BTreeMap::new(), stamps: vec![driver_stamp] };
    probe.add_program("driver", &program.path);
    if program.family == Family::Clang && !probe.driver_is_clang_itself() {
        match probe.find_clang_behind() {
            Ok(path) => probe.add_program("clang", &path),
            Err(why) => probe.add("clang", Component::ProbeFailed(why)),
        }
    }
    if program.family == Family::Gcc {
        probe.add_specs();
    }
    for tool in tools {
        match probe.find_tool(tool) {
            Ok(path) => probe.add_program(tool, &path),
            Err(why) => probe.add(tool, Component::ProbeFailed(why)),
        }
    }
    let identity = CompilerIdentity {
        components: probe.components,
        ..CompilerIdentity::new(program.family.name(), now.version)
    };
    Ok(Known { identity, stamps: probe.stamps })
}

impl Probe<'_> {
    fn add(&mut self, name: &str, component: Component) {
        self.components.insert(name.to_owned(), component);
    }

    /// A program and the libraries that it loads.
    fn add_program(&mut self, name: &str, path: &Path) {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        self.add_file(name, &path);
        if !cfg!(target_os = "linux") || !is_dynamic(&path) {
            return;
        }
        match self.libraries(&path) {
            Err(why) => self.add(&format!("{name}: libraries"), Component::ProbeFailed(why)),
            Ok(libraries) => {
                for (library, found) in libraries {
                    let label = format!("{name}: {library}");
                    match found {
                        Some(path) => self.add_file(&label, &path),
                        None => self.add(&label, Component::ProbeFailed("not found".to_owned())),
                    }
                }
            }
        }
    }

    fn add_file(&mut self, name: &str, path: &Path) {
        // Before the content: a file that is replaced in between is then looked at again.
        self.stamps.push((path.to_owned(), Stamp::of(path)));
        self.add(name, component(path));
    }

    /// The libraries of `program` that may take part in making code. The dynamic loader itself says which it
    /// would load (`ld.so(8)`); nothing is run.
    fn libraries(&self, program: &Path) -> Result<Vec<(String, Option<PathBuf>)>, String> {
        let environment = Environment::from([("LD_TRACE_LOADED_OBJECTS".to_owned(), Some(b"1".to_vec()))]);
        let output = self.run(program, &environment).output(&[], None).map_err(|error| error.why)?;
        Ok(parse_libraries(&String::from_utf8_lossy(&output.stdout)))
    }

    fn find_tool(&self, tool: &str) -> Result<PathBuf, String> {
        let named = self.ask(&format!("-print-prog-name={tool}"))?;
        locate(&named).ok_or_else(|| format!("`{}` is not there", named.display()))
    }

    /// gcc reads how to call its parts from a file `specs` among its own files, where there is one. (GCC manual,
    /// "Spec Files".)
    fn add_specs(&mut self) {
        match self.ask("-print-file-name=specs") {
            Ok(path) if path.is_absolute() => self.add_file("specs", &path),
            // Where it would appear.
            Ok(_) => {
                if let Ok(library) = self.ask("-print-libgcc-file-name") {
                    let path = library.with_file_name("specs");
                    self.stamps.push((path.clone(), Stamp::of(&path)));
                }
            }
            Err(why) => self.add("specs", Component::ProbeFailed(why)),
        }
    }

    /// A question that gcc answers with a file's name.
    fn ask(&self, question: &str) -> Result<PathBuf, String> {
        let none = Environment::new();
        let run = self.run(&self.program.path, &none);
        let output = run.output(&[question.to_owned()], None).map_err(|error| error.why)?;
        Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    }

    /// Whether the driver holds the compiler, in its libraries or in itself. Anything else may be a wrapper,
    /// compiled ones included.
    fn driver_is_clang_itself(&self) -> bool {
        const SMALLEST_CLANG: u64 = 16 << 20;
        let holds = |label: &String| label.contains(": libclang-cpp") || label.contains(": libLLVM");
        let path = &self.program.path;
        let is_large = || fs::metadata(path).is_ok_and(|metadata| metadata.len() >= SMALLEST_CLANG);
        self.components.keys().any(holds) || is_dynamic(path) && is_large()
    }

    /// The clang that a wrapper (a script, ccache) starts: the program it would run for `-cc1`.
    fn find_clang_behind(&self) -> Result<PathBuf, String> {
        let none = Environment::new();
        let arguments = ["-###", "-x", "c", "-c", "-o", "object.o", "-"].map(str::to_owned);
        let output =
            self.run(&self.program.path, &none).output(&arguments, None).map_err(|error| error.why)?;
        let commands = dry_run::commands(&String::from_utf8_lossy(&output.stderr));
        let compiler = commands.into_iter().find(|words| words.iter().any(|word| word == "-cc1"));
        let program = compiler.and_then(|words| words.into_iter().next());
        program.map(PathBuf::from).ok_or_else(|| "it does not tell which program it runs".to_owned())
    }

    fn run<'r>(&'r self, program: &'r Path, environment: &'r Environment) -> Run<'r> {
        let what = program.display().to_string();
        Run { program, environment, temporary: self.temporary, stage: Stage::Identify, what }
    }
}

/// Lines of the form `libx.so.1 => /lib/libx.so.1 (0x…)` or `libx.so.1 => not found`.
fn parse_libraries(text: &str) -> Vec<(String, Option<PathBuf>)> {
    let lines = text.lines().filter_map(|line| line.trim().split_once(" => "));
    let deciding = lines.filter(|(name, _)| !BYSTANDERS.iter().any(|bystander| name.starts_with(bystander)));
    deciding
        .map(|(name, found)| {
            let path = found.split(" (0x").next().filter(|path| path.starts_with('/'));
            (name.to_owned(), path.map(PathBuf::from))
        })
        .collect()
}

/// The build-id where the linker left one, else the content. Of a large library only the headers and the note
/// are read.
fn component(path: &Path) -> Component {
    if let Some(id) = build_id(path) {
        return Component::BuildId(id);
    }
    match fs::read(path) {
        Ok(content) => Component::Content(Digest::of(&content)),
        Err(error) => Component::ProbeFailed(error.to_string()),
    }
}

fn build_id(path: &Path) -> Option<Vec<u8>> {
    let cache = ReadCache::new(File::open(path).ok()?);
    let file = object::File::parse(&cache).ok()?;
    let id = file.build_id().ok()??.to_vec();
    (!id.is_empty()).then_some(id)
}

/// Whether the dynamic loader starts it, which then can list its libraries. A static program would run.
fn is_dynamic(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let cache = ReadCache::new(file);
    object::File::parse(&cache)
        .is_ok_and(|file| file.section_by_name(".interp").is_some_and(|section| section.size() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_libraries_that_decide_code_count() {
        let text = "\tlinux-vdso.so.1 (0x00007fc6)\n\tlibLLVM.so.22.1 => /usr/lib/llvm-22/bin/../lib/libLLVM.so.22.1 (0x00007f)\n\
                    \tlibc.so.6 => /lib/libc.so.6 (0x0000)\n\tlibm.so.6 => /lib/libm.so.6 (0x00)\n\tlibgone.so => not found\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007fc6c80cb000)\n";
        let libraries = parse_libraries(text);
        let expected = [
            ("libLLVM.so.22.1", Some("/usr/lib/llvm-22/bin/../lib/libLLVM.so.22.1")),
            ("libm.so.6", Some("/lib/libm.so.6")),
            ("libgone.so", None),
        ];
        let expected: Vec<_> =
            expected.map(|(name, path)| (name.to_owned(), path.map(PathBuf::from))).into_iter().collect();
        assert_eq!(libraries, expected);
    }

    #[test]
    fn a_file_without_build_id_is_known_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wrapper");
        fs::write(&path, "#!/bin/sh\n").unwrap();
        assert_eq!(component(&path), Component::Content(Digest::of(b"#!/bin/sh\n")));
        assert!(!is_dynamic(&path));
        let before = Stamp::of(&path);
        fs::write(&path, "#!/bin/bash\n").unwrap();
        assert_ne!(Stamp::of(&path), before);
        assert!(matches!(component(&folder.path().join("absent")), Component::ProbeFailed(_)));
    }
}
