//! A request to inputs: nothing is left open that could decide the object.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use objcache_signature::{CompileInputs, Digest, Ir, ObjectFormat, RelocationModel, Target};
use target_lexicon::{BinaryFormat, Triple};

use super::CommandCompiler;
use super::arguments::{self, DEFAULT_CPU, cpu_option};
use super::bitcode;
use super::dry_run;
use super::files::NamedFiles;
use super::flags::{self, Flags, names_cpu};
use super::hidden_input;
use super::language::Language;
use super::line_markers;
use super::native::Host;
use super::program::Family;
use super::run::{Environment, os_string};
use super::workplace::Workplace;
use crate::compiler::Prepared;
use crate::error::{CompileError, Stage};
use crate::request::{CompileRequest, Source};

/// Variables that choose programs or files. Declared, their value is in the key, but not what they point at.
const CHOOSING_VARIABLES: [&str; 11] = [
    "PATH",
    "LD_",
    "DYLD_",
    "GCC_EXEC_PREFIX",
    "COMPILER_PATH",
    "COLLECT_",
    "CCC_",
    "CCACHE_",
    "GCC_SPECS",
    "DEPENDENCIES_OUTPUT",
    "SUNPRO_DEPENDENCIES",
];

pub(super) fn prepare(
    compiler: &CommandCompiler,
    request: &CompileRequest,
) -> Result<Prepared, CompileError> {
    let what = request.source.name();
    let failed = |why: String| CompileError::new(Stage::Prepare, what.clone(), why);
    let workplace = Workplace::default();
    let family = compiler.family();
    let language = compiler.language(&request.source.kind, Stage::Prepare, &what)?;
    let flags = Flags::parse(family, &request.flags).map_err(failed)?;
    let target = target(compiler, request, &flags, language).map_err(failed)?;
    let tools = language.tools(family, &flags.code_words());
    let identity = compiler.known.identities.get(&compiler.program, tools, &workplace)?;

    let kind = language.preprocessed().unwrap_or_else(|| request.source.kind.clone());
    let mut inputs = request.inputs(Ir::new(kind, Vec::new()), target, identity);
    inputs.object_format = object_format(&inputs.target.triple).map_err(failed)?;
    inputs.optimization = arguments::level(family, flags.optimization.unwrap_or(request.optimization));
    inputs.flags = flags.code_words();
    add_working_directory(&mut inputs).map_err(|error| failed(error.to_string()))?;
    let mut uncacheable = flags.uncacheable.clone();
    uncacheable.extend(choosing_variables(&inputs.environment));

    let preparation = Preparation { compiler, workplace: &workplace, language, what: &what };
    preparation.resolve_native(&mut inputs, request, &flags)?;
    uncacheable.extend(preparation.add_named_files(&mut inputs)?);
    inputs.ir.bytes = match language.preprocessed() {
        Some(_) => preparation.preprocessed_text(&inputs, &flags, &request.source)?,
        None => request.source.bytes.clone(),
    };
    if language != Language::LlvmBitcode {
        uncacheable.extend(hidden_input::find(&inputs.ir.bytes));
    }
    Ok(Prepared { inputs, uncacheable: (!uncacheable.is_empty()).then(|| uncacheable.join("; ")) })
}

/// Triple, CPU and features as requested; `native` is still open.
fn target(
    compiler: &CommandCompiler,
    request: &CompileRequest,
    flags: &Flags,
    language: Language,
) -> Result<Target, String> {
    let triple = triple(compiler, request, flags, language)?;
    let in_flags = flags.code_words().iter().rev().find_map(|flag| names_cpu(flag).map(str::to_owned));
    let requested = request.cpu.clone().filter(|cpu| cpu != "native");
    let cpu = match (requested, in_flags) {
        (Some(requested), Some(flag)) if requested != flag => {
            return Err(format!("two CPUs: `{requested}` and, in the flags, `{flag}`"));
        }
        (requested, in_flags) => requested.or(in_flags).unwrap_or_else(|| DEFAULT_CPU.to_owned()),
    };
    let mut target = Target::new(triple, cpu);
    for feature in request.features.iter().flat_map(|list| list.split(',')).map(str::trim) {
        if !feature.starts_with(['+', '-']) {
            return Err(format!("feature `{feature}` must begin with + or -"));
        }
        target.features.insert(feature.to_owned());
    }
    if compiler.family() == Family::Gcc && !target.features.is_empty() && !is_x86(&target.triple) {
        return Err("gcc takes features of this architecture as part of `-march` only: use flags".to_owned());
    }
    // On Windows all code can be moved, and `-fPIC` is an error.
    let movable = object_format(&target.triple)? != ObjectFormat::Coff;
    if movable && !flags.code_words().iter().any(|flag| flags::names_relocation_model(flag)) {
        target.relocation_model = Some(RelocationModel::Pic);
    }
    Ok(target)
}

fn triple(
    compiler: &CommandCompiler,
    request: &CompileRequest,
    flags: &Flags,
    language: Language,
) -> Result<String, String> {
    let requested = match (&request.target, &flags.target) {
        (Some(one), Some(other)) if one != other => {
            return Err(format!("two targets: `{one}` and, in the flags, `{other}`"));
        }
        (one, other) => one.clone().or_else(|| other.clone()),
    };
    let own = &compiler.program.triple;
    match requested {
        Some(requested) if compiler.family() == Family::Gcc => {
            if same_target(&requested, own) {
                Ok(own.clone())
            } else {
                Err(format!("this gcc compiles for `{own}`, not for `{requested}`"))
            }
        }
        Some(requested) => Ok(requested),
        None => Ok(match language {
            Language::LlvmText => triple_of_ir(&request.source.bytes),
            Language::LlvmBitcode => bitcode::triple(&request.source.bytes),
            _ => None,
        }
        .unwrap_or_else(|| own.clone())),
    }
}

/// `target triple = "…"`
fn triple_of_ir(text: &[u8]) -> Option<String> {
    let lines = text.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let value = lines.map(str::trim).find_map(|line| line.strip_prefix("target triple"))?;
    let value = value.trim_start().strip_prefix('=')?.trim().strip_prefix('"')?;
    value.split('"').next().filter(|triple| !triple.is_empty()).map(str::to_owned)
}

/// The same but for the vendor, which decides nothing.
fn same_target(one: &str, other: &str) -> bool {
    let parts = |text: &str| {
        let triple: Triple = text.parse().ok()?;
        Some((triple.architecture, triple.operating_system, triple.environment))
    };
    one == other || parts(one).is_some_and(|parts_of_one| Some(parts_of_one) == parts(other))
}

fn is_x86(triple: &str) -> bool {
    ["x86_64", "amd64", "i386", "i486", "i586", "i686"].iter().any(|name| triple.starts_with(name))
}

fn object_format(triple: &str) -> Result<ObjectFormat, String> {
    // LLVM knows more triples than we do; those are of systems that use ELF.
    let Ok(parsed) = triple.parse::<Triple>() else { return Ok(ObjectFormat::Elf) };
    match parsed.binary_format {
        BinaryFormat::Elf | BinaryFormat::Unknown => Ok(ObjectFormat::Elf),
        BinaryFormat::Macho => Ok(ObjectFormat::MachO),
        BinaryFormat::Coff => Ok(ObjectFormat::Coff),
        other => {
            Err(format!("`{triple}` stands for the object format {other}, which has no place in the cache"))
        }
    }
}

/// The directory that relative names start from.
pub(super) fn directory(environment: &Environment) -> io::Result<PathBuf> {
    match environment.get("PWD") {
        Some(Some(declared)) => os_string(declared).map(PathBuf::from),
        _ => std::env::current_dir(),
    }
}

/// Objects that name the working directory have it in their key.
fn add_working_directory(inputs: &mut CompileInputs) -> io::Result<()> {
    if inputs.flags.iter().any(|flag| flags::names_working_directory(flag)) {
        let directory = directory(&inputs.environment)?;
        let bytes = directory.into_os_string().into_encoded_bytes();
        inputs.environment.insert("PWD".to_owned(), Some(bytes));
    }
    Ok(())
}

fn choosing_variables(environment: &Environment) -> impl Iterator<Item = String> {
    let chooses = |name: &str| {
        CHOOSING_VARIABLES
            .iter()
            .any(|known| if known.ends_with('_') { name.starts_with(known) } else { name == *known })
    };
    let set = environment.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name);
    set.filter(move |name| chooses(name))
        .map(|name| format!("`{name}` chooses programs or files that are not in the key"))
}

/// The name under which the content of a file that flags name is kept, apart from those the client declares.
pub(super) fn flag_file(name: &str) -> String {
    format!("flag:{name}")
}

/// The steps that run the compiler.
struct Preparation<'a> {
    compiler: &'a CommandCompiler,
    workplace: &'a Workplace,
    language: Language,
    what: &'a str,
}

impl Preparation<'_> {
    fn resolve_native(
        &self,
        inputs: &mut CompileInputs,
        request: &CompileRequest,
        flags: &Flags,
    ) -> Result<(), CompileError> {
        let mut open = flags.native.clone();
        let family = self.compiler.family();
        if request.cpu.as_deref() == Some("native") {
            open.push(if family == Family::Llc { "-mcpu" } else { cpu_option(&inputs.target) }.to_owned());
        }
        if open.is_empty() {
            return Ok(());
        }
        let mut arguments: Vec<_> = open.iter().map(|option| format!("{option}=native")).collect();
        arguments.extend(arguments::of(family, inputs));
        self.host(inputs, arguments)?.apply(&mut inputs.target);
        Ok(())
    }

    /// What the compiler resolved for these arguments, or did before, if it is still the same compiler.
    fn host(&self, inputs: &CompileInputs, arguments: Vec<String>) -> Result<Host, CompileError> {
        let hosts = || self.compiler.known.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, host)) = hosts().get(&arguments).filter(|(identity, _)| *identity == inputs.compiler)
        {
            return Ok(host.clone());
        }
        let run = self.compiler.run(self.workplace, inputs, Stage::Prepare, self.what)?;
        let family = self.compiler.family();
        // gcc resolves nothing for the assembler, which it gives no CPU.
        let language = if family == Family::Gcc && self.language.option().starts_with("assembler") {
            Language::C
        } else {
            self.language
        };
        let host = Host::ask(family, &run, &arguments, language.option())?;
        hosts().insert(arguments, (inputs.compiler.clone(), host.clone()));
        Ok(host)
    }

    /// Adds the content of all files that flags name, and of those that the driver adds by itself. Returns why
    /// the object cannot be cached.
    fn add_named_files(&self, inputs: &mut CompileInputs) -> Result<Vec<String>, CompileError> {
        let failed = |why: String| CompileError::new(Stage::Prepare, self.what, why);
        let directory = directory(&inputs.environment).map_err(|error| failed(error.to_string()))?;
        let named = NamedFiles::of(&inputs.flags, &directory).map_err(failed)?;
        for (name, digest) in named.digests {
            let other = inputs.external_inputs.insert(flag_file(&name), digest);
            if other.is_some_and(|other| other != digest) {
                return Err(failed(format!("an external input cannot be called `{}`", flag_file(&name))));
            }
        }
        for list in self.sanitizer_lists(inputs)? {
            let content = std::fs::read(&list).map_err(|error| failed(format!("{list}: {error}")))?;
            inputs.external_inputs.insert(list, Digest::of(&content));
        }
        Ok(named.uncacheable)
    }

    /// clang's own lists of what not to sanitize, which it finds beside itself.
    fn sanitizer_lists(&self, inputs: &CompileInputs) -> Result<Vec<String>, CompileError> {
        let sanitizes = inputs.flags.iter().any(|flag| flag.starts_with("-fsanitize="));
        if self.compiler.family() != Family::Clang || !sanitizes {
            return Ok(Vec::new());
        }
        let run = self.compiler.run(self.workplace, inputs, Stage::Prepare, self.what)?;
        let mut arguments = arguments::of(Family::Clang, inputs);
        arguments
            .extend(["-###", "-x", self.language.option(), "-c", "-o", "object.o", "-"].map(str::to_owned));
        let output = run.output(&arguments, None)?;
        let commands = dry_run::commands(&String::from_utf8_lossy(&output.stderr));
        let lists =
            commands.iter().flatten().filter_map(|word| word.strip_prefix("-fsanitize-system-ignorelist="));
        Ok(lists.map(str::to_owned).collect())
    }

    /// The text that the compiler will be given in the source's place. Where the folder of the source does not
    /// get into the object it must not decide the key: kernels are often written to a temporary folder.
    fn preprocessed_text(
        &self,
        inputs: &CompileInputs,
        flags: &Flags,
        source: &Source,
    ) -> Result<Vec<u8>, CompileError> {
        let text = self.preprocess(inputs, flags, source)?;
        let folder = source.path.as_deref().and_then(Path::parent).and_then(Path::to_str);
        let in_object = inputs.flags.iter().any(|flag| flags::names_working_directory(flag));
        Ok(match folder {
            Some(folder) if !in_object => line_markers::without_folder(&text, folder),
            _ => text,
        })
    }

    fn preprocess(
        &self,
        inputs: &CompileInputs,
        flags: &Flags,
        source: &Source,
    ) -> Result<Vec<u8>, CompileError> {
        let run = self.compiler.run(self.workplace, inputs, Stage::Prepare, self.what)?;
        let mut arguments = arguments::of(self.compiler.family(), inputs);
        let language = ["-E", "-x", self.language.option()].map(str::to_owned);
        if let Some(path) = file_that_holds(source, &inputs.environment) {
            arguments.extend(flags.preprocessor_words());
            arguments.extend(language);
            arguments.push(path);
            return Ok(run.output(&arguments, None)?.stdout);
        }
        // A text that is in no file: its name and its folder, if it has any, still count.
        let mut text = Vec::new();
        if let Some(path) = &source.path {
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            arguments.extend(["-iquote".to_owned(), folder.display().to_string()]);
            let name = path.display().to_string().replace('\\', "\\\\").replace('"', "\\\"");
            text.extend_from_slice(format!("# 1 \"{name}\"\n").as_bytes());
        }
        text.extend_from_slice(&source.bytes);
        arguments.extend(flags.preprocessor_words());
        arguments.extend(language);
        arguments.push("-".to_owned());
        Ok(run.output(&arguments, Some(&text))?.stdout)
    }
}

/// The source's file, if it holds the source. Quoted includes are looked for beside it.
fn file_that_holds(source: &Source, environment: &Environment) -> Option<String> {
    let path = source.path.as_ref()?;
    let absolute = directory(environment).ok()?.join(path);
    // A pipe can be read once, and `/dev/stdin` is another file to the compiler than to us.
    let is_ours_alone = ["/dev", "/proc"].iter().any(|folder| absolute.starts_with(folder));
    if is_ours_alone || !std::fs::metadata(&absolute).ok()?.is_file() {
        return None;
    }
    let content = std::fs::read(&absolute).ok()?;
    if content != source.bytes {
        return None;
    }
    let name = path.to_str()?;
    Some(if name.starts_with('-') { format!("./{name}") } else { name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_triple_of_ir_is_read() {
        let of = |text: &str| triple_of_ir(text.as_bytes());
        assert_eq!(of("; x\ntarget triple = \"riscv64-linux\"\n").as_deref(), Some("riscv64-linux"));
        assert_eq!(of("target triple=\"x\""), Some("x".to_owned()));
        assert_eq!(of("target triple = \"\""), None);
        assert_eq!(of("define void @f()"), None);
    }

    #[test]
    fn vendors_do_not_matter() {
        assert!(same_target("x86_64-linux-gnu", "x86_64-pc-linux-gnu"));
        assert!(same_target("x86_64-unknown-linux-gnu", "x86_64-linux-gnu"));
        assert!(!same_target("aarch64-linux-gnu", "x86_64-linux-gnu"));
        assert!(!same_target("x86_64-linux-musl", "x86_64-linux-gnu"));
    }
}
