//! Other people's objects: each member of the static libraries that come with the C compiler either loads or is refused
//! for one of the reasons we know.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use objcache_loader::{LoadError, Loader, from_fn};
use support::*;

/// Objects in an archive (`ar(5)`): a header of 60 bytes, in it the size in decimal at 48; each member begins at an
/// even offset.
fn members(archive: &[u8]) -> Vec<&[u8]> {
    let mut members = Vec::new();
    let mut rest = archive.strip_prefix(b"!<arch>\n").unwrap_or_default();
    while let Some((header, tail)) = rest.split_at_checked(60) {
        let size = std::str::from_utf8(&header[48..58]).unwrap().trim().parse::<usize>().unwrap();
        let (member, tail) = tail.split_at(size);
        members.push(member);
        rest = tail.get(size % 2..).unwrap_or_default();
    }
    members.retain(|member| member.starts_with(b"\x7fELF"));
    members
}

/// Where the compiler finds a library; the name alone when it does not.
fn library(name: &str) -> Option<PathBuf> {
    let output = Command::new(GCC).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_absolute().then_some(path)
}

/// What later versions will do, and code that is made for a program of its own: data of others without the GOT.
fn is_known(error: &LoadError) -> bool {
    match error {
        LoadError::Unsupported(what) => what.contains("thread-local variable"),
        LoadError::Fixup(fixup) => {
            let problem = fixup.problem.to_string();
            problem.contains("thread-local variable at a fixed distance")
                || problem.ends_with("does not fit in 32 bits") && fixup.kind != "R_X86_64_PLT32"
        }
        _ => false,
    }
}

#[test]
fn members_of_the_compilers_libraries_load_or_are_refused_for_a_known_reason() {
    if !has(GCC) {
        return;
    }
    let loader = Loader::new();
    // Far away from any image.
    let elsewhere = from_fn(|_| Some(0x0000_1234_5678_9000));
    let (mut loaded, mut refused) = (0, BTreeMap::<String, usize>::new());
    for name in ["libgcc.a", "libgcc_eh.a", "libc.a", "libc_nonshared.a", "libstdc++.a", "libatomic.a"] {
        let Some(archive) = library(name).and_then(|path| std::fs::read(path).ok()) else {
            eprintln!("{name} is not installed");
            continue;
        };
        for member in members(&archive) {
            match loader.load(member, &elsewhere) {
                Ok(_) => loaded += 1,
                Err(error) => {
                    assert!(is_known(&error), "{name}: {error}");
                    *refused.entry(error.to_string()).or_default() += 1;
                }
            }
        }
    }
    eprintln!("{loaded} loaded, {} refused", refused.values().sum::<usize>());
    assert!(loaded > 100, "libgcc.a alone has more");
}
