//! `ld.lld`, run so that what it makes can be compared: `-O0` keeps mergeable strings in place, `--no-relax` keeps loads
//! through the GOT, values that do not fit are warnings.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, ObjectSymbolTable as _, RelocationFlags,
    RelocationTarget, SectionFlags,
};

use crate::machine::Machine;
use crate::support::{LLD, elf, scratch};

/// What the linker made.
pub struct LinkedFile {
    /// Address and bytes of each section.
    pub sections: HashMap<String, (u64, Vec<u8>)>,
    /// The linker's warnings, one per relocation that does not fit.
    pub messages: String,
    /// What is left for the dynamic linker.
    pub dynamic: Vec<Dynamic>,
}

/// A relocation of the dynamic linker's.
pub struct Dynamic {
    pub address: u64,
    pub kind: u32,
    /// Empty if there is none.
    pub symbol: String,
}

const FLAGS: &str = "-O0 --no-gc-sections --build-id=none -z norelro --noinhibit-exec -e 0 --error-limit=0 \
     --no-toc-optimize --no-pcrel-optimize";

/// Links objects by a script.
pub fn link(objects: &[&[u8]], script: &str, relax: bool, what: &str) -> LinkedFile {
    let flags: &[&str] = if relax { &["-static"] } else { &["-static", "--no-relax"] };
    link_with(objects, script, flags, what)
}

/// The same into a shared library, of whose thread-local variables lld knows no more than the object. What it leaves to
/// the dynamic linker it also does itself.
pub fn link_library(object: &[u8], script: &str, what: &str) -> LinkedFile {
    link_with(&[object], script, &["-shared", "--no-relax", "--apply-dynamic-relocs"], what)
}

fn link_with(objects: &[&[u8]], script: &str, flags: &[&str], what: &str) -> LinkedFile {
    let files = Files::new(objects, script, what);
    let mut command = Command::new(LLD);
    command.args(FLAGS.split(' ')).args(flags);
    let (is_done, messages) = files.run(command);
    assert!(is_done, "{what}: {messages}");
    files.read(messages)
}

/// The files of a link, which are removed when it is over.
pub struct Files {
    inputs: Vec<PathBuf>,
    commands: PathBuf,
    output: PathBuf,
}

impl Files {
    pub fn new(objects: &[&[u8]], script: &str, what: &str) -> Self {
        // Several tests of a machine run at once.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = |suffix: &str| scratch(&format!("{what}-{number}.{suffix}"));
        let [commands, output] = ["ld", "elf"].map(file);
        let inputs: Vec<_> = (0..objects.len()).map(|position| file(&format!("{position}.o"))).collect();
        for (input, object) in inputs.iter().zip(objects) {
            std::fs::write(input, object).unwrap();
        }
        std::fs::write(&commands, script).unwrap();
        Files { inputs, commands, output }
    }

    /// Runs a linker that is told everything but the files; whether there is an output, and what was said.
    pub fn run(&self, mut command: Command) -> (bool, String) {
        command.arg("-T").arg(&self.commands).args(&self.inputs).arg("-o").arg(&self.output);
        let result = command.output().unwrap();
        (result.status.success(), String::from_utf8_lossy(&result.stderr).into_owned())
    }

    pub fn read(&self, messages: String) -> LinkedFile {
        let bytes = std::fs::read(&self.output).unwrap();
        let file = object::File::parse(&bytes[..]).unwrap();
        let sections = file.sections().filter(is_allocated).map(|section| {
            (section.name().unwrap().to_owned(), (section.address(), data_or_zeros(&section)))
        });
        LinkedFile { sections: sections.collect(), messages, dynamic: dynamic_relocations(&file) }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for path in self.inputs.iter().chain([&self.commands, &self.output]) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn dynamic_relocations(file: &object::File<'_>) -> Vec<Dynamic> {
    let symbols = file.dynamic_symbol_table();
    let name = |target| match (target, &symbols) {
        (RelocationTarget::Symbol(number), Some(symbols)) => {
            symbols.symbol_by_index(number).unwrap().name().unwrap().to_owned()
        }
        _ => String::new(),
    };
    let relocations = file.dynamic_relocations().into_iter().flatten();
    let dynamic = relocations.filter_map(|(address, relocation)| match relocation.flags() {
        RelocationFlags::Elf { r_type } => {
            Some(Dynamic { address, kind: r_type.0, symbol: name(relocation.target()) })
        }
        _ => None,
    });
    dynamic.collect()
}

impl LinkedFile {
    /// The warnings that mean something.
    pub fn complaints<'l>(&'l self, machine: &'l Machine) -> impl Iterator<Item = &'l str> {
        self.messages.lines().filter(|line| {
            let is_harmless = machine.harmless.iter().any(|harmless| line.contains(harmless));
            !is_harmless && !line.is_empty() && !line.starts_with(">>>")
        })
    }
}

pub fn is_allocated<'a>(section: &impl object::ObjectSection<'a>) -> bool {
    matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & elf::ALLOC != 0)
}

fn data_or_zeros<'a>(section: &impl object::ObjectSection<'a>) -> Vec<u8> {
    let mut bytes = section.data().unwrap().to_vec();
    bytes.resize(section.size() as usize, 0);
    bytes
}
