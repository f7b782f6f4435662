//! Cranelift, built in: textual CLIF to an ELF object, with no program to install.
//!
//! The one idea: [`settings`] makes of a request, and of the file's own `set` and `target` lines, a target
//! with every ISA flag spelled out; from there on only the inputs speak. [`compile`](Compiler::compile) builds
//! its code generator from them alone and never asks the host anything.
//!
//! CLIF is described in Cranelift's `docs/ir.md`. Its text is not stable between versions, so the version is
//! an ingredient, and so is [`LOWERING`], the revision of what this module itself decides.

mod definitions;
mod link;
mod preamble;
mod prototypes;
mod settings;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cranelift_codegen::isa::CallConv;
use cranelift_codegen::verify_function;
use objcache_signature::{CompileInputs, CompilerIdentity, Ir, IrKind, ObjectFormat};
use target_lexicon::BinaryFormat;

use crate::call::Prototype;
use crate::compiler::{Compiler, Prepared};
use crate::dump::DumpDirectory;
use crate::error::{CompileError, Stage};
use crate::request::CompileRequest;

use definitions::Definition;
use link::Linker;
use preamble::Preamble;

/// Revision of our own part in the object: names, linkage, defaults. It rises when their meaning changes, so
/// that objects of the older meaning are not found any more.
const LOWERING: u32 = 1;

/// Compiles textual CLIF: all functions of a file into one object, which exports each under its name.
///
/// - `%name` becomes the symbol `name`, and `u0:7` the symbol `u0:7`. Calls among the functions of a file are
///   bound within it; whatever else is called, or named by `gvN = symbol %name`, is undefined in the object
///   and resolved by the loader. Unless declared `colocated`, it is reached through the GOT, however far it is.
/// - Lines `set` and `target` at the head of a file count as settings. Of several targets the host's is
///   taken, or the one that the request names. Flags of the request (`name=value`, Cranelift's shared and ISA
///   settings) override them. `set opt_level` overrides the request's level.
/// - Without a CPU, or with `native`, the features are the host's; `generic` stands for none beyond the
///   architecture's; other names are Cranelift's presets (`x86-64-v3`, `haswell`). Features are written in
///   Cranelift's way (`+has_avx2`) or in LLVM's (`-avx512f`).
/// - Position-independent code with unwind tables (`.eh_frame`), unless settings say otherwise.
#[derive(Debug, Clone, Default)]
pub struct CraneliftCompiler {
    _private: (),
}

impl CraneliftCompiler {
    /// The code generator for this host, and for whatever else it was built with.
    ///
    /// # Errors
    /// When Cranelift does not generate code for the host's architecture.
    pub fn new() -> Result<Self, CompileError> {
        match cranelift_native::builder() {
            Ok(_) => Ok(Self { _private: () }),
            Err(why) => Err(CompileError::new(Stage::Identify, "cranelift", why)),
        }
    }

    fn identity() -> CompilerIdentity {
        CompilerIdentity::new("cranelift", format!("{} lowering {LOWERING}", cranelift_codegen::VERSION))
    }
}

impl Compiler for CraneliftCompiler {
    fn name(&self) -> &str {
        "cranelift"
    }

    fn prepare(&self, request: &CompileRequest) -> Result<Prepared, CompileError> {
        let failed = |why: String| CompileError::new(Stage::Prepare, request.source.name(), why);
        if request.source.kind != IrKind::Clif {
            return Err(failed(format!("Cranelift compiles clif, this is {}", request.source.kind)));
        }
        let text = std::str::from_utf8(&request.source.bytes).map_err(|error| failed(error.to_string()))?;
        let settings = settings::resolve(request, &Preamble::read(text)).map_err(failed)?;
        let object_format = object_format(&settings.target.triple).map_err(failed)?;
        let ir = Ir::new(IrKind::Clif, request.source.bytes.clone());
        Ok(Prepared::cacheable(CompileInputs {
            object_format,
            optimization: settings.optimization,
            flags: settings.flags,
            ..request.inputs(ir, settings.target, Self::identity())
        }))
    }

    fn verify(&self, inputs: &CompileInputs) -> Result<(), CompileError> {
        let isa = settings::isa(inputs)?;
        let definitions = read(inputs, Stage::Verify)?;
        link::check_signatures(&definitions, Stage::Verify)?;
        for definition in &definitions {
            guarded(Stage::Verify, &definition.what(), || {
                verify_function(&definition.function, &*isa).map_err(|errors| definition.describe(&errors))
            })?;
        }
        Ok(())
    }

    fn compile(&self, inputs: &CompileInputs, dump: Option<&DumpDirectory>) -> Result<Vec<u8>, CompileError> {
        let isa = settings::isa(inputs)?;
        let definitions = read(inputs, Stage::Compile)?;
        link::check_signatures(&definitions, Stage::Compile)?;
        let mut linker = Linker::new(isa, dump.is_some())?;
        linker.declare(&definitions)?;
        for definition in definitions {
            let what = definition.what();
            guarded(Stage::Compile, &what, || linker.define(definition))?;
        }
        let listing = linker.take_listing();
        let object = guarded(Stage::Emit, "the object", || linker.finish())?;
        if let Some(dump) = dump {
            dump.write("input.clif", &inputs.ir.bytes);
            dump.write("optimized.clif", listing.optimized.as_bytes());
            dump.write("code.asm", listing.code.as_bytes());
            dump.write("object.o", &object);
        }
        Ok(object)
    }

    fn prototypes(&self, inputs: &CompileInputs) -> Result<Vec<(String, Prototype)>, CompileError> {
        let convention = call_conv(inputs)?;
        let definitions = read(inputs, Stage::Prepare)?;
        Ok(definitions.iter().filter_map(|definition| prototypes::of(definition, convention)).collect())
    }
}

fn object_format(triple: &str) -> Result<ObjectFormat, String> {
    match settings::triple(triple)?.binary_format {
        BinaryFormat::Elf => Ok(ObjectFormat::Elf),
        BinaryFormat::Macho => Ok(ObjectFormat::MachO),
        BinaryFormat::Coff => Ok(ObjectFormat::Coff),
        other => {
            Err(format!("`{triple}` stands for the object format {other}, which Cranelift does not write"))
        }
    }
}

/// The functions of the file. A convention that the text leaves open is the target's C convention.
fn read(inputs: &CompileInputs, stage: Stage) -> Result<Vec<Definition>, CompileError> {
    let convention = call_conv(inputs)?;
    guarded(stage, "the CLIF text", || definitions::parse(&inputs.ir.bytes, convention))
}

fn call_conv(inputs: &CompileInputs) -> Result<CallConv, CompileError> {
    let what = &inputs.target.triple;
    guarded(Stage::Prepare, what, || settings::triple(what).map(|triple| CallConv::triple_default(&triple)))
}

/// Runs a part of Cranelift, which answers some input with a panic: that is an error like any other. What it
/// was working on is dropped with the panic, so nothing half-done is seen afterwards.
fn guarded<T>(stage: Stage, what: &str, work: impl FnOnce() -> Result<T, String>) -> Result<T, CompileError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(why)) => Err(CompileError::new(stage, what, why).blame_the_source()),
        Err(panic) => {
            let why = format!("Cranelift gave up (it panicked): {}", panic_text(&*panic));
            Err(CompileError::new(stage, what, why))
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
