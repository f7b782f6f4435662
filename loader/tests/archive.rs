//! Archives of every dialect: which member defines a name, told from the index or, without one, from the members.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use objcache_loader::{Archive, FixedMemory, LoadError, Loader, from_fn};
use support::*;

const LLVM_AR: &str = "llvm-ar-22";
const LLVM_LIB: &str = "llvm-lib-22";
const LONG: &str = "a_member_with_a_name_that_no_header_has_room_for.o";

/// A directory of its own with two objects for a target: `f` and the data `shared` in one, `g` and `f_too` in the other.
fn objects(name: &str, target: &str) -> std::path::PathBuf {
    let directory = scratch(name);
    std::fs::create_dir_all(&directory).unwrap();
    let target = format!("--target={target}");
    let flags = ["-O1", "-ffreestanding", &target];
    let first = "int f(int x) { return x + 1; } int shared = 5; static int hidden(int x) { return x; }";
    let second = "extern int f(int); int g(int x) { return f(x) * 2; } int f_too; int unknown(void);";
    for (file, text) in [("short.o", first), (LONG, second)] {
        std::fs::write(directory.join(file), compile_text(CLANG, &flags, "c", text)).unwrap();
    }
    directory
}

fn tool(directory: &Path, tool: &str, arguments: &[&str], variable: Option<(&str, &str)>) -> Vec<u8> {
    let mut command = Command::new(tool);
    command.current_dir(directory).args(arguments).envs(variable);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{tool} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let archive = directory.join("lib.a");
    let bytes = std::fs::read(&archive).unwrap();
    std::fs::remove_file(archive).unwrap();
    bytes
}

/// Checks who defines what; `prefix` is what the platform puts in front of names.
fn check(archive: &[u8], directory: &Path, prefix: &str) {
    let archive = Archive::parse(archive).unwrap_or_else(|error| panic!("{error}"));
    let mut names: Vec<_> = archive.members().map(|member| member.name().into_owned()).collect();
    names.sort();
    assert_eq!(names, [LONG, "short.o"]);
    for member in archive.members() {
        // Darwin's are filled up with line feeds to a multiple of eight.
        let file = std::fs::read(directory.join(&*member.name())).unwrap();
        let filling = member.bytes().strip_prefix(&file[..]).unwrap();
        assert!(filling.len() < 8 && filling.iter().all(|byte| *byte == b'\n'));
    }
    let defining = |name: &str| {
        let member = archive.member_defining(&format!("{prefix}{name}"))?;
        Some(member.name().into_owned())
    };
    assert_eq!(defining("f").as_deref(), Some("short.o"));
    assert_eq!(defining("shared").as_deref(), Some("short.o"));
    assert_eq!(defining("g").as_deref(), Some(LONG));
    assert_eq!(defining("f_too").as_deref(), Some(LONG));
    for name in ["hidden", "unknown", "", "fo", "F"] {
        assert_eq!(defining(name), None, "{name}");
    }
    assert_eq!(archive.symbols().count(), 4);
}

#[test]
fn archives_of_every_dialect() {
    if !has(CLANG) || !has(LLVM_AR) {
        return;
    }
    let elf = objects("archive-elf", "x86_64-linux-gnu");
    let coff = objects("archive-coff", "x86_64-pc-windows-msvc");
    let decorated = objects("archive-decorated", "i686-pc-windows-gnu");
    let files = ["lib.a", "short.o", LONG];
    let with = |arguments: &[&'static str]| [arguments, &files].concat();
    for (directory, prefix) in [(&elf, ""), (&coff, ""), (&decorated, "_")] {
        for format in ["gnu", "bsd", "darwin"] {
            let format = format!("--format={format}");
            let mut arguments: Vec<&str> = vec![&format];
            arguments.extend(with(&["rc"]));
            check(&tool(directory, LLVM_AR, &arguments, None), directory, prefix);
            // With offsets of 64 bits.
            let threshold = Some(("SYM64_THRESHOLD", "1"));
            check(&tool(directory, LLVM_AR, &arguments, threshold), directory, prefix);
            // Without an index: the members' own symbol tables tell.
            arguments[1] = "rcS";
            check(&tool(directory, LLVM_AR, &arguments, None), directory, prefix);
        }
    }
    // Microsoft's, with two indices.
    for (directory, prefix) in [(&coff, ""), (&decorated, "_")] {
        let bytes = tool(directory, LLVM_LIB, &["/out:lib.a", "short.o", LONG], None);
        check(&bytes, directory, prefix);
    }
    let thin = tool(&elf, LLVM_AR, &with(&["rc", "--thin"]), None);
    let error = Archive::parse(&thin).unwrap_err().to_string();
    assert!(error.contains("a thin archive: its members are other files"), "{error}");
}

#[test]
fn an_import_library_defines_nothing() {
    if !has(LLVM_LIB) {
        return;
    }
    let directory = scratch("archive-imports");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("a.def"), "LIBRARY a.dll\nEXPORTS\n  f\n  g DATA\n").unwrap();
    let bytes = tool(&directory, LLVM_LIB, &["/def:a.def", "/machine:x64", "/out:lib.a"], None);
    let archive = Archive::parse(&bytes).unwrap();
    // They are the DLL's, and so a resolver's business.
    for name in ["f", "__imp_f", "__imp_g"] {
        assert!(archive.member_defining(name).is_none(), "{name}");
    }
    assert!(archive.members().len() >= 4);
}

/// Where the compilers keep their own libraries.
fn library(compiler: &str, name: &str) -> Option<Vec<u8>> {
    let output = Command::new(compiler).arg(format!("-print-file-name={name}")).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    std::fs::read(path.trim()).ok().filter(|_| path.starts_with('/'))
}

/// The same archive with its index made unknown.
fn without_index(archive: &[u8]) -> Vec<u8> {
    let mut archive = archive.to_vec();
    assert_eq!(&archive[8..10], b"/ ");
    archive[8..24].copy_from_slice(b"/<NOT_AN_INDEX>/");
    archive
}

type Definitions = BTreeSet<(String, String)>;

fn definitions(archive: &[u8]) -> Definitions {
    let archive = Archive::parse(archive).unwrap_or_else(|error| panic!("{error}"));
    archive.symbols().map(|(name, member)| (name.into_owned(), member.name().into_owned())).collect()
}

/// Members with thread-local variables.
fn refused_members(archive: &[u8]) -> BTreeSet<String> {
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x1000_0000))).build();
    let archive = Archive::parse(archive).unwrap();
    let refused = archive.members().filter(|member| {
        let result = loader.load(member.bytes(), &from_fn(|_| Some(0x2000_0000)));
        matches!(result, Err(LoadError::Unsupported(what)) if what.contains("thread-local"))
    });
    refused.map(|member| member.name().into_owned()).collect()
}

#[test]
fn our_index_is_that_of_the_compilers_libraries() {
    let mut compared = 0;
    for (compiler, names) in [
        (GCC, &["libgcc.a", "libgcc_eh.a", "libc.a", "libm-2.36.a", "libstdc++.a"][..]),
        ("x86_64-w64-mingw32-gcc", &["libgcc.a", "libmingw32.a", "libmingwex.a", "libstdc++.a"]),
        ("i686-w64-mingw32-gcc", &["libgcc.a", "libmingw32.a", "libmingwex.a", "libstdc++.a"]),
    ] {
        if !has(compiler) {
            continue;
        }
        for name in names {
            let Some(archive) = library(compiler, name).filter(|bytes| bytes.starts_with(b"!<arch>")) else {
                eprintln!("{compiler} has no {name}");
                continue;
            };
            let mut theirs = definitions(&archive);
            // What the loader does not read defines nothing.
            let refused = refused_members(&archive);
            theirs.retain(|(_, member)| !refused.contains(member));
            let mut ours = definitions(&without_index(&archive));
            ours.retain(|(_, member)| !refused.contains(member));
            let missing: Vec<_> = theirs.difference(&ours).take(5).collect();
            assert!(missing.is_empty(), "{compiler} {name}: {missing:?}");
            // GNU tools leave out weak externals of COFF, even with a definition as default.
            let more: Vec<_> = ours.difference(&theirs).take(5).collect();
            assert!(more.is_empty() || compiler != GCC, "{compiler} {name}: {more:?}");
            assert!(!theirs.is_empty());
            compared += theirs.len();
        }
    }
    eprintln!("{compared} definitions, the same in both");
}

/// What is refused on purpose: thread-local variables, and what belongs to a DLL.
fn is_known(error: &LoadError) -> bool {
    let error = error.to_string();
    ["thread-local", "does not fit in 32 bits"].iter().any(|known| error.contains(known))
}

#[test]
fn members_of_windows_compilers_libraries_load_or_are_refused_for_a_known_reason() {
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x1000_0000))).build();
    let (mut loaded, mut refused) = (0, BTreeMap::<String, usize>::new());
    for compiler in ["x86_64-w64-mingw32-gcc", "i686-w64-mingw32-gcc"] {
        if !has(compiler) {
            continue;
        }
        for name in ["libgcc.a", "libmingw32.a", "libmingwex.a", "libmsvcrt.a", "libstdc++.a", "libsupc++.a"]
        {
            let Some(archive) = library(compiler, name) else { continue };
            for member in Archive::parse(&archive).unwrap().members() {
                match loader.load(member.bytes(), &from_fn(|_| Some(0x2000_0000))) {
                    Ok(_) => loaded += 1,
                    Err(error) => {
                        assert!(is_known(&error), "{compiler} {name} {}: {error}", member.name());
                        *refused.entry(error.to_string()).or_default() += 1;
                    }
                }
            }
        }
    }
    eprintln!("{loaded} loaded, {} refused: {refused:?}", refused.values().sum::<usize>());
}

/// Whatever is done to an archive, it is read or refused.
#[test]
fn damaged_archives_are_read_or_refused() {
    if !has(CLANG) || !has(LLVM_AR) {
        return;
    }
    let directory = objects("archive-damaged", "x86_64-linux-gnu");
    let (mut read, mut refused) = (0, 0);
    for arguments in [&["--format=gnu", "rc"][..], &["--format=darwin", "rc"], &["--format=gnu", "rcS"]] {
        let arguments = [arguments, &["lib.a", "short.o", LONG]].concat();
        let archive = tool(&directory, LLVM_AR, &arguments, None);
        let mut damaged = archive.clone();
        let mut attempt = |bytes: &[u8]| {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                let archive = Archive::parse(bytes).ok()?;
                Some(archive.member_defining("f").map(|member| member.bytes().len()))
            }));
            *if outcome.unwrap().is_some() { &mut read } else { &mut refused } += 1;
        };
        for at in 0..archive.len() {
            for damage in
                (0..8).map(|bit| archive[at] ^ 1 << bit).chain([0, 0xff, archive[at].wrapping_add(1)])
            {
                damaged[at] = damage;
                attempt(&damaged);
            }
            damaged[at] = archive[at];
            attempt(&archive[..at]);
        }
    }
    eprintln!("{read} read, {refused} refused");
    assert!(read > 1000 && refused > 1000);
}

#[test]
fn liars_are_named() {
    let header = |name: &str, size: &str| format!("{name:<16}{:<32}{size:<10}`\n", "0");
    let refused = |text: &str| Archive::parse(text.as_bytes()).unwrap_err().to_string();
    let archive = |rest: String| refused(&format!("!<arch>\n{rest}"));
    assert!(refused("!<arch>").contains("it is no archive"));
    assert!(archive("short".into()).contains("archive at 0x8: it ends within a header"));
    assert!(archive(header("a/", "99")).contains("archive at 0x8: the member reaches past the end"));
    assert!(archive(header("a/", "x")).contains("archive at 0x8: the size is no number"));
    assert!(archive(header("a/", "0").replace('`', "'")).contains("archive at 0x8: no header is there"));
    assert!(archive(header("/7", "0")).contains("the member's name is not where it says"));
    assert!(archive(header("#1/9", "4") + "abcd").contains("the member's name is not where it says"));
    let index = |bytes: &[u8]| {
        let mut archive = b"!<arch>\n".to_vec();
        archive.extend(header("/", &bytes.len().to_string()).into_bytes());
        archive.extend(bytes);
        Archive::parse(&archive).unwrap_err().to_string()
    };
    assert!(index(&[0xff; 4]).contains("index of the archive: its counts and sizes do not fit"));
    assert!(index(&[0, 0, 0, 1, 0, 0, 0, 8, b'f']).contains("a name reaches past its end"));
    assert!(index(&[0, 0, 0, 1, 0, 0, 0, 9, b'f', 0]).contains("`f` is at 0x9, where no member begins"));
}
