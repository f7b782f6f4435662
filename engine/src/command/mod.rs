//! Compilers that are programs: clang and gcc for C, C++ and assembly, clang and `llc` for LLVM IR.
//!
//! The one idea: the compiler is given what was hashed, and nothing else. The preprocessor runs first and its
//! text is the IR, so headers, macros and search paths count by what came of them; that text then goes to the
//! compiler through standard input. Files that flags name count by content, the programs by build-id, and a
//! child sees no environment variable that the request does not declare. Whatever cannot be named is either
//! refused or makes an object that is not cached, with the reason.
//!
//! Rules: the GCC manual, "Invoking GCC"; clang's "Clang command line argument reference"; `llc(1)`.

mod arguments;
mod bitcode;
mod dry_run;
mod features;
mod files;
mod flags;
mod hidden_input;
mod identity;
mod language;
mod line_markers;
mod native;
mod prepare;
mod program;
mod run;
mod workplace;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use objcache_signature::{CompileInputs, CompilerIdentity, IrKind, ObjectFormat};

use crate::compiler::{Compiler, Prepared};
use crate::dump::DumpDirectory;
use crate::error::{CompileError, Stage};
use crate::request::CompileRequest;

use files::NamedFiles;
use identity::Identities;
use language::Language;
use native::Host;
use program::{Family, Program};
use run::Run;
use workplace::Workplace;

/// Compiles with a program: clang, gcc or `llc`.
///
/// - Flags are the program's own. Those that would make something else than one object are refused; with
///   those that read what cannot be known, the object is not cached. Objects are position-independent unless a
///   flag says otherwise (`-fno-pic`, `-fpie`, `-mcmodel=…`).
/// - Relative names in flags, and headers, are found from the working directory, as by the program itself.
///   It is part of the key only where the object names it (`-g`).
/// - LLVM IR is compiled for the triple it names, unless the request names one.
/// - `__DATE__` and `__TIME__` are in the preprocessed text, so such sources miss whenever the time has changed.
/// - Warnings of a compilation are passed on, through `tracing`; a hit has none.
/// - Since preprocessed text is compiled, warnings that depend on what came from a macro may differ; it matters
///   with `-Werror` only.
#[derive(Debug, Clone)]
pub struct CommandCompiler {
    program: Arc<Program>,
    known: Arc<Known>,
}

/// What was found out about the program, kept for the process. All of it is checked against the program's files
/// before it is used.
#[derive(Debug, Default)]
struct Known {
    identities: Identities,
    hosts: Mutex<Answers<Host>>,
    features: Mutex<Answers<Vec<String>>>,
}

/// What a compiler said, by how it was called.
type Answers<T> = HashMap<Vec<String>, (CompilerIdentity, T)>;

impl CommandCompiler {
    /// The compiler at a path, or of this name on `PATH`. Where `clang` only exists with a version, as in
    /// `clang-22`, the newest.
    ///
    /// # Errors
    /// When there is none, it does not run, or it is neither clang, gcc nor `llc`.
    pub fn new(path_or_name: impl AsRef<Path>) -> Result<Self, CompileError> {
        let name = path_or_name.as_ref();
        let located = program::locate(name).or_else(|| program::newest(name.to_str()?));
        let path = located.ok_or_else(|| {
            CompileError::new(Stage::Identify, name.display().to_string(), "there is no such program")
        })?;
        Self::at(path)
    }

    /// A compiler for sources of this kind: for LLVM IR clang or else `llc`, for C, C++ and assembly clang or
    /// else gcc. Of programs that only exist with a version (`clang-22`) the newest.
    ///
    /// # Errors
    /// When none is installed, or no program compiles this kind.
    pub fn find(kind: &IrKind) -> Result<Self, CompileError> {
        let candidates: &[&str] = match Language::of(kind) {
            None => {
                return Err(CompileError::new(
                    Stage::Identify,
                    kind.as_str(),
                    "no program is known to compile it",
                ));
            }
            Some(language) if language.is_llvm() => &["clang", "llc"],
            Some(_) => &["clang", "gcc", "cc"],
        };
        match candidates.iter().find_map(|name| program::newest(name)) {
            Some(path) => Self::at(path),
            None => {
                let why = format!("none of {} is installed", candidates.join(", "));
                Err(CompileError::new(Stage::Identify, kind.as_str(), why))
            }
        }
    }

    fn at(path: PathBuf) -> Result<Self, CompileError> {
        let workplace = Workplace::default();
        let path = std::path::absolute(&path).unwrap_or(path);
        let program = Program::ask(path, workplace.path()?)?;
        Ok(Self { program: Arc::new(program), known: Arc::default() })
    }

    /// Where the program is.
    pub fn program(&self) -> &Path {
        &self.program.path
    }

    /// What the program says it is.
    pub fn version(&self) -> &str {
        &self.program.version
    }

    fn family(&self) -> Family {
        self.program.family
    }

    fn language(&self, kind: &IrKind, stage: Stage, what: &str) -> Result<Language, CompileError> {
        match Language::of(kind) {
            Some(language) if language.is_compiled_by(self.family()) => Ok(language),
            _ => Err(CompileError::new(
                stage,
                what,
                format!("{} does not compile {kind}", self.family().name()),
            )),
        }
    }

    fn run<'r>(
        &'r self,
        workplace: &'r Workplace,
        inputs: &'r CompileInputs,
        stage: Stage,
        what: &str,
    ) -> Result<Run<'r>, CompileError> {
        Ok(Run {
            program: &self.program.path,
            environment: &inputs.environment,
            temporary: workplace.path()?,
            stage,
            what: what.to_owned(),
        })
    }

    /// Compiler and named files must still be those whose identity and content were hashed: else the object
    /// would be kept under a key that is not its own.
    fn check_unchanged(
        &self,
        inputs: &CompileInputs,
        language: Language,
        workplace: &Workplace,
    ) -> Result<(), String> {
        let tools = language.tools(self.family(), &inputs.flags);
        let identity =
            self.known.identities.get(&self.program, tools, workplace).map_err(|error| error.why)?;
        if identity != inputs.compiler {
            return Err(
                "the compiler is not the one that the inputs name; it may have been replaced".to_owned()
            );
        }
        let directory = prepare::directory(&inputs.environment).map_err(|error| error.to_string())?;
        let named = NamedFiles::of(&inputs.flags, &directory)?;
        for (name, digest) in named.digests {
            if inputs.external_inputs.get(&prepare::flag_file(&name)) != Some(&digest) {
                return Err(format!(
                    "`{name}` is not the file that the inputs name; it may have been changed"
                ));
            }
        }
        Ok(())
    }

    /// Asks the compiler once in a process for each way it is called.
    fn ask_for_features(&self, inputs: &CompileInputs) -> Result<Vec<String>, CompileError> {
        let way = arguments::of(self.family(), inputs);
        let known = self.known.features.lock().unwrap_or_else(PoisonError::into_inner).get(&way).cloned();
        if let Some((_, features)) = known.filter(|(identity, _)| *identity == inputs.compiler) {
            return Ok(features);
        }
        let workplace = Workplace::default();
        let run = self.run(&workplace, inputs, Stage::Compile, "the CPU's features")?;
        let features = features::ask(self.family(), &run, inputs)?;
        let entry = (inputs.compiler.clone(), features.clone());
        self.known.features.lock().unwrap_or_else(PoisonError::into_inner).insert(way, entry);
        Ok(features)
    }

    /// Bitcode keeps its strings packed, so it is searched for files that its assembly reads only here, as
    /// text, before it is compiled for the first time. What is refused here never gets into a cache.
    fn refuse_hidden_input(&self, run: &Run<'_>, inputs: &CompileInputs) -> Result<(), CompileError> {
        let mut arguments = arguments::of(self.family(), inputs);
        let as_text: &[&str] = match self.family() {
            Family::Llc => &["-stop-after=pre-isel-intrinsic-lowering", "-o", "-"],
            _ => &["-S", "-emit-llvm", "-Xclang", "-disable-llvm-passes", "-x", "ir", "-o", "-", "-"],
        };
        arguments.extend(as_text.iter().map(|&argument| argument.to_owned()));
        let text = run.output(&arguments, Some(&inputs.ir.bytes))?.stdout;
        match hidden_input::find(&text) {
            Some(why) => Err(run.error(format!("{why}; compile it from text, which then is not cached"))),
            None => Ok(()),
        }
    }

    /// Runs once more for each intermediate result. They are for people; what fails here is only told.
    fn dump(&self, dump: &DumpDirectory, run: &Run<'_>, inputs: &CompileInputs, language: Language) {
        dump.write(&format!("input.{}", language.extension()), &inputs.ir.bytes);
        let results: &[(&str, &[&str])] = match self.family() {
            Family::Clang if matches!(language, Language::Assembly) => &[],
            Family::Clang => &[("code.s", &["-S"]), ("optimized.ll", &["-S", "-emit-llvm"])],
            Family::Gcc if matches!(language, Language::Assembly) => &[],
            Family::Gcc => &[("code.s", &["-S"])],
            Family::Llc => &[("code.s", &["-filetype=asm"])],
        };
        for (name, options) in results {
            let mut arguments = arguments::of(self.family(), inputs);
            arguments.extend(options.iter().map(|&option| option.to_owned()));
            arguments.extend(self.source_and_output(language, "-"));
            match run.output(&arguments, Some(&inputs.ir.bytes)) {
                Ok(output) => dump.write(name, &output.stdout),
                Err(error) => tracing::warn!("cannot dump {name}: {error}"),
            }
        }
    }

    /// Standard input is the source: its name is the same every time, wherever the text came from.
    fn source_and_output(&self, language: Language, output: &str) -> Vec<String> {
        let arguments: &[&str] = match self.family() {
            Family::Llc => &["-o", output, "-"],
            Family::Clang | Family::Gcc => &["-x", language.option(), "-o", output, "-"],
        };
        arguments.iter().map(|&argument| argument.to_owned()).collect()
    }
}

impl Compiler for CommandCompiler {
    fn name(&self) -> &str {
        self.family().name()
    }

    fn prepare(&self, request: &CompileRequest) -> Result<Prepared, CompileError> {
        prepare::prepare(self, request)
    }

    // `verify` is left empty: clang and llc check LLVM IR when they read it, and the other languages have
    // nothing to check but by compiling.

    fn compile(&self, inputs: &CompileInputs, dump: Option<&DumpDirectory>) -> Result<Vec<u8>, CompileError> {
        let what = format!("the {} text", inputs.ir.kind);
        let language = self.language(&inputs.ir.kind, Stage::Compile, &what)?;
        let workplace = Workplace::default();
        let run = self.run(&workplace, inputs, Stage::Compile, &what)?;
        if language == Language::LlvmBitcode {
            self.refuse_hidden_input(&run, inputs)?;
        }
        let object = workplace.path()?.join("object.o");
        let mut arguments = arguments::of(self.family(), inputs);
        arguments.push(if self.family() == Family::Llc { "-filetype=obj" } else { "-c" }.to_owned());
        arguments.extend(self.source_and_output(language, &object.to_string_lossy()));
        let output = run.output(&arguments, Some(&inputs.ir.bytes))?;
        run.pass_on_warnings(&output);

        let emitted = |why: String| CompileError::new(Stage::Emit, what.clone(), why);
        let bytes = std::fs::read(&object)
            .map_err(|error| emitted(format!("`{}` left no object: {error}", self.program.path.display())))?;
        if inputs.object_format == ObjectFormat::Elf && !bytes.starts_with(b"\x7fELF") {
            return Err(emitted(format!("`{}` left no ELF object", self.program.path.display())));
        }
        self.check_unchanged(inputs, language, &workplace).map_err(emitted)?;
        if let Some(dump) = dump {
            self.dump(dump, &run, inputs, language);
            dump.write("object.o", &bytes);
        }
        Ok(bytes)
    }

    fn cpu_features(&self, inputs: &CompileInputs) -> Vec<String> {
        if features::is_baseline(inputs) {
            return Vec::new();
        }
        self.ask_for_features(inputs).unwrap_or_else(|error| {
            tracing::warn!("which CPU features an object needs is not checked: {error}");
            Vec::new()
        })
    }
}
