//! All functions of a file into one object: names are bound to definitions or imports, then code is made.
//!
//! `cranelift-object` wants each name inside a function as the number of a declaration, while CLIF text has
//! `%name` and `u0:7`. So every reference is rewritten once all names of the file are declared.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{ExternalName, FuncRef, Function, GlobalValueData, Signature, UserExternalName};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_module::{
    DataId, FuncId, Linkage, Module, ModuleError, ModuleRelocTarget, default_libcall_names,
};
use cranelift_object::{ObjectBuilder, ObjectModule};

use super::definitions::{Definition, referenced_symbol};
use super::guarded;
use crate::error::{CompileError, Stage};

/// What is printed of a compilation, when a dump is asked for.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) optimized: String,
    pub(super) code: String,
}

/// Every call must agree with the definition it is bound to, since nothing checks it at run time. No two
/// functions may have one name, and none a name that Cranelift takes for one of its own library calls.
pub(super) fn check_signatures(definitions: &[Definition], stage: Stage) -> Result<(), CompileError> {
    let mut known: HashMap<&str, &Definition> = HashMap::new();
    for definition in definitions {
        let failed = |why: String| CompileError::new(stage, definition.what(), why).blame_the_source();
        if !matches!(definition.symbol.parse(), Ok(ExternalName::TestCase(_))) {
            return Err(failed("calls of this name are Cranelift's own: choose another".to_owned()));
        }
        if let Some(first) = known.insert(&definition.symbol, definition) {
            return Err(failed(format!("it is defined twice; the first is {}", first.what())));
        }
    }
    for caller in definitions {
        let function = &caller.function;
        for (reference, callee) in function.dfg.ext_funcs.iter() {
            let Some(symbol) = referenced_symbol(function, &callee.name) else { continue };
            let Some(definition) = known.get(symbol.as_str()) else { continue };
            let declared = &function.dfg.signatures[callee.signature];
            let defined = &definition.function.signature;
            if declared != defined {
                let why = format!(
                    "it declares {reference} as `{symbol}{declared}`, but {} is `{symbol}{defined}`",
                    definition.what()
                );
                return Err(CompileError::new(stage, caller.what(), why).blame_the_source());
            }
        }
    }
    Ok(())
}

/// What a name of the file stands for in the object.
#[derive(Clone, Copy)]
enum Declaration {
    Defined(FuncId),
    ImportedFunction(FuncId),
    ImportedData { id: DataId, thread_local: bool },
}

pub(super) struct Linker {
    module: ObjectModule,
    names: HashMap<String, Declaration>,
    listing: Option<Listing>,
}

impl Linker {
    pub(super) fn new(isa: OwnedTargetIsa, list: bool) -> Result<Self, CompileError> {
        let unwind_info =
            isa.flags().unwind_info() && isa.triple().binary_format == target_lexicon::BinaryFormat::Elf;
        let mut builder = ObjectBuilder::new(isa, "clif", default_libcall_names())
            .map_err(|error| CompileError::new(Stage::Compile, "the object", in_full(error)))?;
        builder.unwind_info(unwind_info);
        Ok(Self {
            module: ObjectModule::new(builder),
            names: HashMap::new(),
            listing: list.then(Listing::default),
        })
    }

    /// Declares all names: definitions first, so that calls in any order find them; then what is called; then
    /// what only has its address taken.
    pub(super) fn declare(&mut self, definitions: &[Definition]) -> Result<(), CompileError> {
        fn step(on: &Definition, work: impl FnOnce() -> Result<(), String>) -> Result<(), CompileError> {
            guarded(Stage::Compile, &on.what(), work)
        }
        for definition in definitions {
            step(definition, || self.declare_definition(definition))?;
        }
        for definition in definitions {
            step(definition, || self.declare_callees(&definition.function))?;
        }
        for definition in definitions {
            step(definition, || self.declare_data(&definition.function))?;
        }
        Ok(())
    }

    fn declare_definition(&mut self, definition: &Definition) -> Result<(), String> {
        let signature = &definition.function.signature;
        let id =
            self.module.declare_function(&definition.symbol, Linkage::Export, signature).map_err(in_full)?;
        self.names.insert(definition.symbol.clone(), Declaration::Defined(id));
        Ok(())
    }

    /// The host's functions may be declared with several signatures, as C's variadic ones need.
    fn declare_callees(&mut self, function: &Function) -> Result<(), String> {
        for callee in function.dfg.ext_funcs.values() {
            let Some(symbol) = referenced_symbol(function, &callee.name) else { continue };
            let signature: &Signature = &function.dfg.signatures[callee.signature];
            if let Entry::Vacant(entry) = self.names.entry(symbol) {
                let id =
                    self.module.declare_function(entry.key(), Linkage::Import, signature).map_err(in_full)?;
                entry.insert(Declaration::ImportedFunction(id));
            }
        }
        Ok(())
    }

    fn declare_data(&mut self, function: &Function) -> Result<(), String> {
        for value in function.global_values.values() {
            let GlobalValueData::Symbol { name, tls, .. } = value else { continue };
            let Some(symbol) = referenced_symbol(function, name) else { continue };
            let known = match self.names.entry(symbol) {
                Entry::Occupied(known) => known,
                Entry::Vacant(unknown) => {
                    let id = self
                        .module
                        .declare_data(unknown.key(), Linkage::Import, true, *tls)
                        .map_err(in_full)?;
                    unknown.insert_entry(Declaration::ImportedData { id, thread_local: *tls })
                }
            };
            if known.get().is_thread_local() != *tls {
                return Err(format!("`{}` is named as thread-local and as not thread-local", known.key()));
            }
        }
        Ok(())
    }

    /// Generates code for one function.
    pub(super) fn define(&mut self, definition: Definition) -> Result<(), String> {
        let Definition { symbol, mut function, .. } = definition;
        let Some(Declaration::Defined(id)) = self.names.get(&symbol).copied() else {
            return Err("it was never declared".to_owned());
        };
        let legend = self.listing.as_ref().map(|_| legend(&function));
        self.bind(&mut function);
        let mut context = Context::for_function(function);
        context.set_disasm(self.listing.is_some());
        self.module.define_function(id, &mut context).map_err(in_full)?;
        if let (Some(listing), Some(legend)) = (&mut self.listing, legend) {
            list(listing, &symbol, &legend, &context);
        }
        Ok(())
    }

    /// Puts the declaration's number in the place of each name. What this object defines is near.
    fn bind(&self, function: &mut Function) {
        let references: Vec<FuncRef> = function.dfg.ext_funcs.keys().collect();
        let symbols: Vec<_> = references
            .iter()
            .map(|reference| referenced_symbol(function, &function.dfg.ext_funcs[*reference].name))
            .collect();
        let globals: Vec<_> = function
            .global_values
            .iter()
            .filter_map(|(global, data)| match data {
                GlobalValueData::Symbol { name, .. } => Some((global, referenced_symbol(function, name)?)),
                _ => None,
            })
            .collect();
        for (reference, symbol) in references.into_iter().zip(symbols) {
            let Some(declaration) = symbol.and_then(|symbol| self.names.get(&symbol).copied()) else {
                continue;
            };
            let bound = declaration.name_in(function);
            let callee = &mut function.dfg.ext_funcs[reference];
            callee.name = bound;
            callee.colocated |= declaration.is_defined();
        }
        for (global, symbol) in globals {
            let Some(declaration) = self.names.get(&symbol).copied() else { continue };
            let bound = declaration.name_in(function);
            if let GlobalValueData::Symbol { name, colocated, .. } = &mut function.global_values[global] {
                *name = bound;
                *colocated |= declaration.is_defined();
            }
        }
    }

    pub(super) fn take_listing(&mut self) -> Listing {
        self.listing.take().unwrap_or_default()
    }

    /// The object's bytes.
    pub(super) fn finish(self) -> Result<Vec<u8>, String> {
        self.module.finish().emit().map_err(|error| error.to_string())
    }
}

impl Declaration {
    fn is_defined(self) -> bool {
        matches!(self, Self::Defined(_))
    }

    fn is_thread_local(self) -> bool {
        matches!(self, Self::ImportedData { thread_local: true, .. })
    }

    /// The name under which `cranelift-module` finds the declaration again.
    fn name_in(self, function: &mut Function) -> ExternalName {
        let target = match self {
            Self::Defined(id) | Self::ImportedFunction(id) => ModuleRelocTarget::from(id),
            Self::ImportedData { id, .. } => ModuleRelocTarget::from(id),
        };
        let ModuleRelocTarget::User { namespace, index } = target else {
            unreachable!("declarations of functions and data have user names")
        };
        ExternalName::user(function.declare_imported_user_function(UserExternalName { namespace, index }))
    }
}

/// Names in bound IR are numbers, so the listing says what each reference stands for.
fn list(listing: &mut Listing, symbol: &str, legend: &str, context: &Context) {
    let _ = writeln!(listing.optimized, "; {symbol}{legend}\n{}", context.func.display());
    let code = context.compiled_code().and_then(|code| code.vcode.as_deref()).unwrap_or_default();
    let _ = writeln!(listing.code, "{symbol}:\n{code}");
}

fn legend(function: &Function) -> String {
    let mut legend = String::new();
    for (reference, callee) in function.dfg.ext_funcs.iter() {
        if let Some(symbol) = referenced_symbol(function, &callee.name) {
            let _ = write!(legend, ", {reference} = {symbol}");
        }
    }
    legend
}

/// The error with its causes; the backend's own words come last.
fn in_full(error: ModuleError) -> String {
    match error {
        ModuleError::Compilation(cause) => cause.to_string(),
        ModuleError::Backend(cause) => format!("{cause:#}"),
        other => other.to_string(),
    }
}
