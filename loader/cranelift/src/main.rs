//! Writes what Cranelift makes of `functions.clif` and of a table of addresses, for every machine and format it emits
//! objects for, into the folder given: `cargo run -- ../tests/fixtures/cranelift`.
//!
//! Kept apart from the tests, which compare these objects with linkers: all of Cranelift's code generators take minutes to
//! build, and tests of the loader must build with the oldest compiler that the loader promises.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::str::FromStr;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{ExternalName, Function, GlobalValueData, UserExternalName};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_module::{
    DataDescription, DataId, FuncId, Linkage, Module, ModuleRelocTarget, default_libcall_names,
};
use cranelift_object::{ObjectBuilder, ObjectModule};
use target_lexicon::Triple;

const TARGETS: [(&str, &str, bool); 9] = [
    ("elf-x86_64", "x86_64-unknown-linux-gnu", true),
    ("elf-x86_64-static", "x86_64-unknown-linux-gnu", false),
    ("elf-aarch64", "aarch64-unknown-linux-gnu", true),
    ("elf-riscv64", "riscv64gc-unknown-linux-gnu", true),
    ("elf-s390x", "s390x-unknown-linux-gnu", true),
    ("macho-x86_64", "x86_64-apple-darwin", true),
    ("macho-arm64", "aarch64-apple-darwin", true),
    ("coff-x86_64", "x86_64-pc-windows-msvc", true),
    ("coff-x86_64-gnu", "x86_64-pc-windows-gnu", true),
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("the folder to write to is missing")?;
    for (name, triple, pic) in TARGETS {
        let object = object(triple, pic)?;
        println!("{name}: {} bytes", object.len());
        std::fs::write(Path::new(&folder).join(format!("{name}.o")), object)?;
    }
    Ok(())
}

fn object(triple: &str, pic: bool) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut flags = settings::builder();
    flags.set("is_pic", if pic { "true" } else { "false" })?;
    flags.set("opt_level", "speed")?;
    let isa =
        cranelift_codegen::isa::lookup(Triple::from_str(triple)?)?.finish(settings::Flags::new(flags))?;
    let builder = ObjectBuilder::new(isa, "functions", default_libcall_names())?;
    let mut names =
        Names { module: ObjectModule::new(builder), functions: HashMap::new(), data: HashMap::new() };

    let functions = cranelift_reader::parse_functions(include_str!("functions.clif"))?;
    for function in &functions {
        let name = function.name.to_string();
        let name = name.trim_start_matches('%');
        let id = names.module.declare_function(name, Linkage::Export, &function.signature)?;
        names.functions.insert(name.to_owned(), id);
    }
    let table = names.module.declare_data("table", Linkage::Export, true, false)?;
    names.data.insert("table".to_owned(), table);
    for mut function in functions {
        let id = names.functions[function.name.to_string().trim_start_matches('%')];
        names.bind(&mut function)?;
        names.module.define_function(id, &mut Context::for_function(function))?;
    }
    names.define_table(table)?;
    Ok(names.module.finish().emit()?)
}

struct Names {
    module: ObjectModule,
    functions: HashMap<String, FuncId>,
    data: HashMap<String, DataId>,
}

impl Names {
    /// Puts declarations in the place of the names in a parsed function.
    fn bind(&mut self, function: &mut Function) -> Result<(), Box<dyn Error>> {
        for reference in function.dfg.ext_funcs.keys().collect::<Vec<_>>() {
            let callee = function.dfg.ext_funcs[reference].clone();
            let name = plain(&callee.name);
            let id = match self.functions.get(&name) {
                Some(id) => *id,
                None => {
                    let signature = &function.dfg.signatures[callee.signature];
                    self.module.declare_function(&name, Linkage::Import, signature)?
                }
            };
            function.dfg.ext_funcs[reference].name = user_name(function, ModuleRelocTarget::from(id));
        }
        for value in function.global_values.keys().collect::<Vec<_>>() {
            let GlobalValueData::Symbol { name, .. } = &function.global_values[value] else { continue };
            let plain = plain(name);
            let id = match self.data.get(&plain) {
                Some(id) => *id,
                None => self.module.declare_data(&plain, Linkage::Import, true, false)?,
            };
            let bound = user_name(function, ModuleRelocTarget::from(id));
            if let GlobalValueData::Symbol { name, .. } = &mut function.global_values[value] {
                *name = bound;
            }
        }
        Ok(())
    }

    /// Addresses of a function and of a place in the table itself.
    fn define_table(&mut self, table: DataId) -> Result<(), Box<dyn Error>> {
        let mut description = DataDescription::new();
        description.define(Box::new([0; 32]));
        description.set_align(8);
        let leaf = self.module.declare_func_in_data(self.functions["leaf"], &mut description);
        let itself = self.module.declare_data_in_data(table, &mut description);
        description.write_function_addr(8, leaf);
        description.write_data_addr(16, itself, 24);
        Ok(self.module.define_data(table, &description)?)
    }
}

fn plain(name: &ExternalName) -> String {
    match name {
        ExternalName::TestCase(name) => name.to_string().trim_start_matches('%').to_owned(),
        other => unreachable!("{other:?} is no name of a parsed function"),
    }
}

fn user_name(function: &mut Function, target: ModuleRelocTarget) -> ExternalName {
    let ModuleRelocTarget::User { namespace, index } = target else {
        unreachable!("a declaration has a number")
    };
    ExternalName::user(function.declare_imported_user_function(UserExternalName { namespace, index }))
}
