//! The arrows between crates never turn round, `unsafe` stays in its rooms, and two dependencies behind their
//! doors. ARCHITECTURE.md says why; this says whether.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate, and the crates of ours that it may know.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("signature", &[]),
    ("loader", &[]),
    ("cache", &["objcache-signature"]),
    ("engine", &["objcache-signature", "objcache-cache", "objcache-loader"]),
    ("cli", &["objcache"]),
    ("tests", &["objcache"]),
    ("tests/cross", &["objcache-loader"]),
    ("benches", &["objcache"]),
];

/// The only files that may say `unsafe`, with what they need it for. Tests and examples, which call what was
/// loaded, are not counted.
const UNSAFE: &[(&str, &str)] = &[
    ("benches/peers/plugin/src/earlier.rs", "an interface of C"),
    ("benches/peers/plugin/src/lib.rs", "the C interface of peers"),
    ("benches/peers/src/cases/cold.rs", "a child's times"),
    ("benches/peers/src/foreign.rs", "shared objects, calls of loaded code"),
    ("benches/peers/src/peers/dlopen.rs", "dlopen, to compare with"),
    ("benches/peers/src/peers/floors.rs", "raw memory, to compare with"),
    ("benches/peers/src/peers/orc.rs", "LLVM's C interface, to compare with"),
    ("benches/peers/src/peers/plugin.rs", "the C interface of peers"),
    ("benches/stores/src/peers/lmdb.rs", "LMDB, to compare with"),
    ("benches/src/native.rs", "dlopen and raw pages, to compare with"),
    ("cli/src/call/invoke.rs", "calls of loaded code by the prototype that the user vouches for"),
    ("cli/src/signals.rs", "an action in a signal's handler, for children of a process"),
    ("engine/src/call.rs", "calls of an address by its prototype"),
    ("engine/src/lazy.rs", "initialisers of what was compiled, on the caller's word"),
    ("loader/src/events/gdb.rs", "the list of symbol files that a debugger reads"),
    ("loader/src/events/marker.rs", "an executable mapping of the jitdump, by which perf knows it"),
    ("loader/src/bin/objcache-executor.rs", "runs what another process loads into it"),
    ("loader/src/exit/destructors.rs", "destructors of static objects, kept by and called for the C library"),
    ("loader/src/exit/finalizers.rs", "a function for the end of the process"),
    ("loader/src/fork.rs", "the hook that freezes slabs when the process forks"),
    ("loader/src/image.rs", "addresses as function pointers, initialisers on the caller's word"),
    ("loader/src/library/epoch.rs", "code freed on the word of a caller who knows who runs what"),
    ("loader/src/library/function.rs", "the record of a function, whose address its stub has"),
    ("loader/src/library/mod.rs", "addresses as function pointers"),
    ("loader/src/library/resident.rs", "forwards what callers of an image promise"),
    ("loader/src/library/stub/mod.rs", "words that stubs jump through"),
    ("loader/src/library/trampoline.rs", "assembly: a function that keeps all argument registers"),
    ("loader/src/lifecycle.rs", "initialisers and finalisers of images"),
    ("loader/src/loader.rs", "unwind tables given as addresses"),
    ("loader/src/memory/coherence.rs", "instructions and system calls about instruction caches"),
    ("loader/src/memory/conformance.rs", "looks at target memory and runs it, as managers promise"),
    ("loader/src/memory/fixed.rs", "the promise of the memory manager trait"),
    ("loader/src/memory/mod.rs", "the memory manager trait, whose implementors owe a promise"),
    ("loader/src/memory/page.rs", "pages of an image"),
    ("loader/src/memory/slab/area.rs", "two views of the same pages"),
    ("loader/src/memory/slab/mod.rs", "the promise of the memory manager trait"),
    ("loader/src/memory/sys.rs", "system calls on memory"),
    ("loader/src/process.rs", "dlsym"),
    ("loader/src/registered.rs", "calls that the C library is to make into loaded code"),
    ("loader/src/remote/client.rs", "calls of code in another process"),
    ("loader/src/remote/executor.rs", "memory at given addresses, calls of loaded code"),
    ("loader/src/remote/memory.rs", "a file in memory, the promise of the memory manager trait"),
    ("loader/src/tls/blocks.rs", "thread-local blocks, which loaded code uses by address"),
    ("loader/src/tls/descriptor.rs", "assembly: a function that keeps all registers"),
    ("loader/src/tls/destructors.rs", "calls of loaded code when a thread ends"),
    ("loader/src/tls/pointer.rs", "one instruction: the thread pointer"),
    ("loader/src/unwind/libgcc.rs", "__register_frame"),
    ("loader/src/unwind/mod.rs", "unwind tables given as addresses"),
    ("tests/cross/src/library.rs", "calls of loaded code"),
    ("tests/cross/src/main.rs", "calls of loaded code"),
    ("tests/src/bin/kernel-process.rs", "calls of loaded code"),
];

/// Names that may stand in these folders or files only.
const BEHIND_DOORS: &[(&str, &str)] = &[("sled::", "cache/src/sled"), ("bincode::", "cache/src/codec.rs")];

#[test]
fn dependencies_point_one_way() {
    let members = toml(&root().join("Cargo.toml"));
    let members: Vec<_> = members["workspace"]["members"].as_array().unwrap().iter().collect();
    assert_eq!(members.len(), MAY_KNOW.len(), "a new crate needs a line in MAY_KNOW");
    for (folder, allowed) in MAY_KNOW {
        let manifest = toml(&root().join(folder).join("Cargo.toml"));
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(table).and_then(|table| table.as_table()) else { continue };
            for name in table.keys().filter(|name| name.starts_with("objcache")) {
                assert!(allowed.contains(&name.as_str()), "{folder} must not know {name}");
            }
        }
    }
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let calls_what_was_loaded = |name: &str| name.contains("/tests/") || name.contains("/examples/");
    let found: BTreeSet<String> = sources()
        .filter(|(name, text)| !calls_what_was_loaded(name) && code_words(text).any(|word| word == "unsafe"))
        .map(|(name, _)| name)
        .collect();
    let allowed: BTreeSet<String> = UNSAFE.iter().map(|(name, _)| (*name).to_owned()).collect();
    let new: Vec<_> = found.difference(&allowed).collect();
    let gone: Vec<_> = allowed.difference(&found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "unsafe where it is not allowed: {new:?}; no longer there: {gone:?}"
    );
}

#[test]
fn sled_and_bincode_stay_behind_their_doors() {
    // What is compared with may be called.
    for (name, text) in sources().filter(|(name, _)| !name.starts_with("benches/stores/")) {
        for (word, door) in BEHIND_DOORS {
            let used = text.lines().map(code_of).any(|line| line.contains(word));
            assert!(!used || name.starts_with(door), "{name} says `{word}`, which is for {door}");
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn toml(path: &Path) -> toml::Table {
    fs::read_to_string(path).unwrap().parse().unwrap()
}

/// Every Rust file of the workspace but this one, by its path from the root.
fn sources() -> impl Iterator<Item = (String, String)> {
    let mut files = Vec::new();
    for (folder, _) in MAY_KNOW {
        rust_files(&root().join(folder), &mut files);
    }
    assert!(files.len() > 50, "the sources are found");
    files.into_iter().filter(|path| !path.ends_with("architecture.rs")).map(|path| {
        let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(path).unwrap())
    })
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The part of a line before a comment.
fn code_of(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

fn code_words(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(code_of).flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
}
