//! A JIT linker we did not write must agree: fixtures in assembly carry expectations in `# jitlink-check:` comments, and
//! both `llvm-jitlink -check` and this loader, its image looked at by [`check`], find all of them true.
//!
//! The head of a fixture says how it is assembled and linked:
//! `# triple: T`, `# features: F` (for the disassembler), `# assembler: FLAGS`, `# base: ADDR`, `# define: NAME=ADDR …`.

#[path = "../support/mod.rs"]
mod support;

mod check;
mod disassemble;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use check::Linked;
use objcache_loader::{AbsoluteSymbols, FixedMemory, InputObject, Loader};
use support::*;

const JITLINK: &str = "llvm-jitlink-22";

/// A fixture and what its head says.
struct Fixture {
    name: String,
    text: String,
    triple: String,
    features: String,
    assembler: Vec<String>,
    base: u64,
    definitions: Vec<(String, u64)>,
}

impl Fixture {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let value = |key: &str| {
            let line =
                text.lines().find_map(|line| line.strip_prefix("# ")?.strip_prefix(key)?.strip_prefix(": "));
            line.unwrap_or_default().trim().to_owned()
        };
        let definitions = value("define");
        let definitions = definitions.split_whitespace().map(|definition| {
            let (name, address) = definition.split_once('=').unwrap();
            (name.to_owned(), number(address))
        });
        Fixture {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            triple: value("triple"),
            features: value("features"),
            assembler: value("assembler").split_whitespace().map(str::to_owned).collect(),
            base: number(&value("base")),
            definitions: definitions.collect(),
            text,
        }
    }

    /// The object; JITLink's checks know it by this name.
    fn assemble(&self, source: &Path) -> std::path::PathBuf {
        let folder = scratch(&format!("jitlink-{}", self.name));
        std::fs::create_dir_all(&folder).unwrap();
        let object = folder.join("t.o");
        let triple = format!("-triple={}", self.triple);
        let mut words = vec![triple.as_str(), "-filetype=obj", "-o", object.to_str().unwrap()];
        let features = format!("-mattr={}", self.features);
        if !self.features.is_empty() {
            words.push(&features);
        }
        words.extend(self.assembler.iter().map(String::as_str));
        words.push(source.to_str().unwrap());
        run(LLVM_MC, &words);
        object
    }

    fn checks(&self) -> Vec<String> {
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("# jitlink-check:"));
        lines.map(|line| line.trim().to_owned()).collect()
    }
}

fn number(text: &str) -> u64 {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|error| panic!("`{text}`: {error}"))
}

/// What `llvm-jitlink` says of its own link.
fn jitlink_agrees(fixture: &Fixture, source: &Path, object: &Path) {
    let mut command = Command::new(JITLINK);
    command.args(["-noexec", "-slab-allocate", "1Mb", "-slab-page-size", "4096", "-slab-address"]);
    command.arg(format!("{:#x}", fixture.base));
    for (name, address) in &fixture.definitions {
        command.args(["-abs", &format!("{name}={address:#x}")]);
    }
    let output = command.arg("-check").args([source, object]).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: llvm-jitlink does not agree: {messages}", fixture.name);
}

/// What this loader makes of it: the checks that do not hold.
fn loader_differs(fixture: &Fixture, object: &Path) -> Vec<String> {
    let bytes = std::fs::read(object).unwrap();
    let mut definitions = AbsoluteSymbols::new();
    for (name, address) in &fixture.definitions {
        definitions.define(name, *address);
    }
    let memory = Arc::new(FixedMemory::at(fixture.base));
    let loader = Loader::builder().memory(memory).relax(true).build();
    let linked = loader.load_all(&[InputObject { name: "t.o", bytes: &bytes }], &definitions);
    let (image, map) = match linked {
        Ok(linked) => linked,
        Err(error) => return vec![format!("{}: {error}", fixture.name)],
    };
    let linked = Linked {
        image: &image,
        map: &map,
        definitions: &fixture.definitions,
        triple: &fixture.triple,
        features: &fixture.features,
    };
    let differences = fixture.checks().into_iter().filter_map(|check| match linked.holds(&check) {
        Ok(Ok(())) => None,
        Ok(Err((left, right))) => Some(format!("{}: {check}: {left:#x} is not {right:#x}", fixture.name)),
        Err(why) => Some(format!("{}: {check}: {why}", fixture.name)),
    });
    differences.collect()
}

#[test]
fn llvm_jitlink_and_the_loader_agree() {
    if !has(JITLINK) || !has(LLVM_MC) {
        return;
    }
    let folder = fixture("jitlink");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let (mut checks, mut differences) = (0, Vec::new());
    for path in &paths {
        let fixture = Fixture::read(path);
        assert!(!fixture.checks().is_empty(), "{} checks nothing", fixture.name);
        let object = fixture.assemble(path);
        jitlink_agrees(&fixture, path, &object);
        differences.extend(loader_differs(&fixture, &object));
        checks += fixture.checks().len();
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    eprintln!("{} fixtures, {checks} checks: llvm-jitlink and the loader agree", paths.len());
}
