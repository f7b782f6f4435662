//! The options that decide a compilation, shared by `run`, `compile` and `signature`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use objcache::cache::{HostFeatures, ObjectCache, from_fn};
use objcache::loader::Loader;
use objcache::signature::{Digest, IrKind, OptLevel, UnknownIrKind};
use objcache::{
    CommandCompiler, CompileError, CompileRequest, Compiler, CraneliftCompiler, Engine, EngineBuilder,
    EngineError, Source,
};

use crate::call::symbols;
use crate::context::Context;
use crate::failure::Failure;
use crate::files;

/// What is compiled, for what and how. All of it is part of the signature, but for `--no-verify-ir`, `--dump`
/// and `--no-cache`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Compilation")]
pub(crate) struct CompileOptions {
    /// Optimisation level: 0, 1, 2, 3, s or z
    #[arg(short = 'O', long = "opt-level", value_name = "LEVEL", default_value = "2")]
    #[arg(value_parser = |text: &str| text.parse::<OptLevel>())]
    optimization: OptLevel,

    /// Target triple [default: the host's]
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,

    /// CPU to compile for; `native` is this machine's
    #[arg(long, value_name = "NAME")]
    cpu: Option<String>,

    /// CPU features to add or leave out, such as +avx2,-fma
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    features: Vec<String>,

    /// A further flag, in the compiler's own language; may be repeated
    #[arg(long = "flag", value_name = "FLAG", allow_hyphen_values = true)]
    flags: Vec<String>,

    /// An environment variable that the compiler may see: NAME as it is here, or NAME=VALUE; may be repeated
    #[arg(long = "env", value_name = "NAME[=VALUE]", value_parser = variable)]
    environment: Vec<(String, Option<Vec<u8>>)>,

    /// Keep apart from the objects of other namespaces
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    namespace: String,

    /// Any text to keep apart from objects without it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    salt: String,

    /// A further file that decides the object, by its content; may be repeated
    #[arg(long = "input", value_name = "FILE")]
    inputs: Vec<PathBuf>,

    /// cranelift, clang, gcc, llc, or a path of one of the last three [default: by the file's kind]
    #[arg(long, value_name = "COMPILER")]
    compiler: Option<String>,

    /// The file's language, by name (clif, c, c++, llvm-ir …) or by extension [default: by the file's name]
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Option<IrKind>,

    /// Do not check the IR before it is compiled
    #[arg(long)]
    no_verify_ir: bool,

    /// Leave intermediate results in a folder below DIR that is named after the signature
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,

    /// Neither ask the cache nor offer the object to it
    #[arg(long)]
    no_cache: bool,
}

impl CompileOptions {
    /// Whether the file is compiled already, as its name has it.
    pub(crate) fn is_object(&self, file: &Path) -> bool {
        let extension = file.extension().and_then(|extension| extension.to_str());
        self.kind.is_none() && matches!(extension, Some("o" | "obj"))
    }

    /// What is to be compiled.
    pub(crate) fn request(&self, file: &Path) -> Result<CompileRequest, Failure> {
        Ok(CompileRequest {
            target: self.target.clone(),
            cpu: self.cpu.clone(),
            features: self.features.iter().filter(|feature| !feature.is_empty()).cloned().collect(),
            optimization: self.optimization,
            flags: self.flags.clone(),
            environment: self.environment.iter().cloned().collect(),
            namespace: self.namespace.clone(),
            salt: self.salt.clone().into_bytes(),
            external_inputs: digests(&self.inputs)?,
            ..CompileRequest::new(self.source(file)?)
        })
    }

    fn source(&self, file: &Path) -> Result<Source, Failure> {
        let kind = self.kind.clone();
        if files::is_standard(file) {
            let unknown =
                || Failure::usage("unknown_kind", "the language of standard input must be named: --kind");
            return Ok(Source::new(kind.ok_or_else(unknown)?, files::read_stdin()?));
        }
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let kind = kind.or_else(|| IrKind::from_extension(extension)).ok_or_else(|| {
            let message = format!("{}: its name does not tell its language", file.display());
            Failure::usage("unknown_kind", message).hint(format!(
                "name it with --kind: {}",
                IrKind::KNOWN.map(|kind| kind.to_string()).join(", ")
            ))
        })?;
        // The library's message names the file.
        Source::read_as(file, kind).map_err(|error| Failure::unreadable(&error))
    }

    /// What `work` makes with the engine around the compiler for this source, and the engine. `host` is where the
    /// code is going to run.
    ///
    /// Where no file descriptor is left to run the compiler with, `work` is tried once more without the cache, which
    /// has some open.
    pub(crate) fn with_engine<T>(
        &self,
        request: &CompileRequest,
        context: &Context,
        loader: impl Fn() -> Loader,
        host: HostFeatures,
        work: impl Fn(&Engine) -> Result<T, EngineError>,
    ) -> Result<(Result<T, EngineError>, Engine), Failure> {
        if !self.no_cache {
            let engine = self.engine(request, Arc::new(context.cache(host)), loader())?;
            match work(&engine) {
                Err(EngineError::Compile(error)) if error.is_out_of_descriptors && !context.is_strict() => {
                    tracing::warn!(
                        "no file descriptor is left beside those of the cache; going on without it"
                    );
                }
                made => return Ok((made, engine)),
            }
        }
        let engine = self.engine(request, Arc::new(from_fn(|_| Ok(None), |_| Ok(()))), loader())?;
        Ok((work(&engine), engine))
    }

    fn engine(
        &self,
        request: &CompileRequest,
        cache: Arc<dyn ObjectCache>,
        loader: Loader,
    ) -> Result<Engine, Failure> {
        Ok(self.settled(Engine::builder(cache, self.compiler(&request.source.kind)?), loader))
    }

    /// The engine, with what these options say of it.
    pub(crate) fn settled(&self, engine: EngineBuilder, loader: Loader) -> Engine {
        let engine = engine.guard_crashes(true).verify_ir(!self.no_verify_ir);
        let engine = engine.resolver(symbols::resolver()).loader(loader);
        match &self.dump {
            Some(root) => engine.dump_directory(root).build(),
            None => engine.build(),
        }
    }

    /// Whether the cache is to be left alone.
    pub(crate) fn no_cache(&self) -> bool {
        self.no_cache
    }

    /// The compiler that was asked for.
    pub(crate) fn compiler_name(&self) -> Option<&str> {
        self.compiler.as_deref()
    }

    /// The compiler that was asked for, else the one for this kind of source.
    pub(crate) fn compiler(&self, kind: &IrKind) -> Result<Box<dyn Compiler>, CompileError> {
        match self.compiler.as_deref() {
            Some("cranelift") => Ok(Box::new(CraneliftCompiler::new()?)),
            Some(program) => Ok(Box::new(CommandCompiler::new(program)?)),
            None if *kind == IrKind::Clif => Ok(Box::new(CraneliftCompiler::new()?)),
            None => Ok(Box::new(CommandCompiler::find(kind)?)),
        }
    }
}

/// A declared variable: its value here, unless one is given.
fn variable(declared: &str) -> Result<(String, Option<Vec<u8>>), String> {
    let (name, value) = match declared.split_once('=') {
        Some((name, value)) => (name, Some(value.as_bytes().to_vec())),
        None => (declared, std::env::var_os(declared).map(OsString::into_encoded_bytes)),
    };
    match name.is_empty() {
        true => Err("a variable has a name".to_owned()),
        false => Ok((name.to_owned(), value)),
    }
}

fn digests(inputs: &[PathBuf]) -> Result<BTreeMap<String, Digest>, Failure> {
    // What is no text is written with escapes: two such names must not become one.
    let name = |path: &Path| path.to_str().map_or_else(|| format!("{path:?}"), str::to_owned);
    let digest = |path: &PathBuf| Ok((name(path), Digest::of(&files::read(path)?)));
    inputs.iter().map(digest).collect()
}

fn kind(text: &str) -> Result<IrKind, UnknownIrKind> {
    text.parse().or_else(|unknown| IrKind::from_extension(text).ok_or(unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names_and_extensions() {
        for text in ["c", "clif", "llvm-ir", "ll", "bc", "c++", "cpp", "assembly", "s"] {
            assert!(kind(text).is_ok(), "{text}");
        }
        assert!(kind("fortran").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn inputs_whose_names_are_no_text_are_kept_apart() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [b"a\xfe", b"a\xff"].map(|name| {
            let path =
                folder.path().join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
            std::fs::write(&path, name).unwrap();
            path
        });
        assert_eq!(digests(&paths).unwrap().len(), 2);
    }

    #[test]
    fn variables_may_be_given_or_unset() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), Some(b"b=c".to_vec()))));
        assert_eq!(variable("A="), Ok(("A".to_owned(), Some(Vec::new()))));
        let unset = "OBJCACHE_TEST_NOBODY_SETS_THIS";
        assert_eq!(variable(unset), Ok((unset.to_owned(), None)));
        assert!(variable("=b").is_err() && variable("").is_err());
    }
}
