//! Facts about compilers that are programs: what their keys distinguish, what reaches them, what is refused.
//!
//! Each fact is checked with every compiler that is installed. Facts about the process (its environment, its
//! working directory) are checked in a child process, since those belong to the whole of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use objcache::signature::{
    CompileInputs, Component, Digest, IrKind, ObjectFormat, OptLevel, RelocationModel, Signature,
};
use objcache::{
    CommandCompiler, CompileError, CompileRequest, Compiler, DumpDirectory, Prepared, Source, Stage,
};
use object::{Object, ObjectSection, ObjectSymbol};

const SQUARE: &str = "int square(int x) { return x * x; }\n";

/// Skips what cannot be checked here. With `OBJCACHE_REQUIRE_ALL=1` that is a failure.
fn skip(why: &str) {
    assert!(std::env::var("OBJCACHE_REQUIRE_ALL").as_deref() != Ok("1"), "{why}");
    println!("skipped: {why}");
}

fn found(kind: IrKind) -> Option<CommandCompiler> {
    CommandCompiler::find(&kind).map_err(|error| skip(&error.to_string())).ok()
}

fn gcc() -> Option<CommandCompiler> {
    CommandCompiler::new("gcc").map_err(|error| skip(&error.to_string())).ok()
}

fn clang() -> Option<CommandCompiler> {
    let compiler = found(IrKind::LlvmText)?;
    if compiler.name() != "clang" {
        skip("clang is not installed");
        return None;
    }
    Some(compiler)
}

fn llc() -> Option<CommandCompiler> {
    let named = ["llc-22", "llc"].into_iter().find_map(|name| CommandCompiler::new(name).ok());
    if named.is_none() {
        skip("llc is not installed");
    }
    named
}

/// Every compiler of C there is.
fn for_c() -> Vec<CommandCompiler> {
    [gcc(), clang()].into_iter().flatten().collect()
}

fn c(text: &str) -> CompileRequest {
    CompileRequest::new(Source::new(IrKind::C, text))
}

fn with_flags(request: &CompileRequest, flags: &[&str]) -> CompileRequest {
    CompileRequest { flags: flags.iter().map(|&flag| flag.to_owned()).collect(), ..request.clone() }
}

fn prepare(compiler: &CommandCompiler, request: &CompileRequest) -> Prepared {
    compiler.prepare(request).unwrap_or_else(|error| panic!("{}: {error}", compiler.name()))
}

fn inputs(compiler: &CommandCompiler, request: &CompileRequest) -> CompileInputs {
    let prepared = prepare(compiler, request);
    assert_eq!(prepared.uncacheable, None, "{}", compiler.name());
    prepared.inputs
}

fn signature(compiler: &CommandCompiler, request: &CompileRequest) -> Signature {
    Signature::of(&inputs(compiler, request)).unwrap()
}

fn compile(compiler: &CommandCompiler, request: &CompileRequest) -> Vec<u8> {
    let inputs = prepare(compiler, request).inputs;
    compiler.compile(&inputs, None).unwrap_or_else(|error| panic!("{}: {error}", compiler.name()))
}

fn uncacheable(compiler: &CommandCompiler, request: &CompileRequest) -> String {
    prepare(compiler, request).uncacheable.unwrap_or_else(|| panic!("{}: it is cached", compiler.name()))
}

fn defined(object: &[u8]) -> Vec<String> {
    let file = object::File::parse(object).unwrap();
    let symbols = file.symbols().filter(|symbol| symbol.is_global() && symbol.is_definition());
    let mut names: Vec<_> = symbols.map(|symbol| symbol.name().unwrap().to_owned()).collect();
    names.sort_unstable();
    names
}

#[test]
fn c_and_cxx_compile_to_objects() {
    for compiler in for_c() {
        assert_eq!(defined(&compile(&compiler, &c(SQUARE))), ["square"]);
        let cxx = CompileRequest::new(Source::new(
            IrKind::Cxx,
            "template <class T> T twice(T x) { return x + x; }\nint f(int x) { return twice(x); }\n",
        ));
        assert_eq!(defined(&compile(&compiler, &cxx)), ["_Z1fi"]);
        let inputs = inputs(&compiler, &c(SQUARE));
        assert_eq!(inputs.ir.kind, IrKind::CPreprocessed);
        assert_eq!(inputs.target.relocation_model, Some(RelocationModel::Pic));
        assert_eq!(compiler.compile(&inputs, None).unwrap(), compiler.compile(&inputs, None).unwrap());
    }
}

#[test]
fn the_compiler_is_known_by_what_it_is_made_of() {
    for compiler in for_c() {
        let identity = inputs(&compiler, &c(SQUARE)).compiler;
        assert_eq!(identity.name, compiler.name());
        assert!(!identity.version.is_empty());
        let part = if compiler.name() == "gcc" { "cc1" } else { "driver: libLLVM" };
        let found = identity.components.iter().find(|(name, _)| name.starts_with(part));
        assert!(
            matches!(found, Some((_, Component::BuildId(_) | Component::Content(_)))),
            "{part}: {:?}",
            identity.components
        );
        let failed = identity.components.iter().find(|(_, part)| matches!(part, Component::ProbeFailed(_)));
        assert_eq!(failed, None);
    }
}

#[test]
fn the_key_follows_headers_macros_flags_and_level() {
    for compiler in for_c() {
        let folder = tempfile::tempdir().unwrap();
        let header = folder.path().join("k.h");
        let source = folder.path().join("x.c");
        fs::write(&header, "#define K 3\n").unwrap();
        fs::write(
            &source,
            "#include \"k.h\"\n#ifndef M\n#define M 1\n#endif\nint f(int x) { return x * K * M; }\n",
        )
        .unwrap();
        let request = || CompileRequest::new(Source::read(&source).unwrap());
        let key = |flags: &[&str]| signature(&compiler, &with_flags(&request(), flags));
        let before = key(&[]);
        assert_eq!(before, key(&[]));
        assert_eq!(before, key(&["-DUNUSED=1"]), "a macro that nobody uses decides nothing");
        assert_eq!(before, key(&["-O2"]), "the level is one ingredient, however it is given");
        assert_eq!(
            before,
            key(&["-DM=1"]).min(before),
            "the macro is written elsewhere, its text is the same"
        );
        for flags in [
            &["-DM=2"][..],
            &["-D", "M=2"],
            &["-O1"],
            &["-ffast-math"],
            &["-fno-pic"],
            &["-mavx2"],
            &["-std=c99"],
            &["-Og"],
        ] {
            assert_ne!(before, key(flags), "{} {flags:?}", compiler.name());
        }
        let level = CompileRequest { optimization: OptLevel::O3, ..request() };
        assert_ne!(before, signature(&compiler, &level));
        assert_eq!(key(&["-O3"]), signature(&compiler, &level));

        fs::File::open(&header).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(before, key(&[]), "a time stamp decides nothing");
        fs::write(&header, "#define K 4\n").unwrap();
        assert_ne!(before, key(&[]), "a header does");
    }
}

#[test]
fn declared_variables_are_part_of_the_key_and_reach_the_compiler() {
    for compiler in for_c() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("declared.h"), "int declared;\n").unwrap();
        let request = c("#include \"declared.h\"\n");
        assert!(compiler.prepare(&request).is_err());
        let path = folder.path().to_str().unwrap().as_bytes().to_vec();
        let environment = BTreeMap::from([("CPATH".to_owned(), Some(path))]);
        let declared = CompileRequest { environment, ..request };
        assert_eq!(defined(&compile(&compiler, &declared)), ["declared"]);

        let plain = signature(&compiler, &c(SQUARE));
        let with = |value: Option<&[u8]>| {
            let environment = BTreeMap::from([("SOURCE_DATE_EPOCH".to_owned(), value.map(<[u8]>::to_vec))]);
            signature(&compiler, &CompileRequest { environment, ..c(SQUARE) })
        };
        assert_ne!(plain, with(Some(b"1")));
        assert_ne!(with(Some(b"1")), with(Some(b"2")));
        assert_ne!(plain, with(None), "declared as unset is more than not declared");
        for name in ["LD_PRELOAD", "COMPILER_PATH", "PATH", "CCC_OVERRIDE_OPTIONS"] {
            let path = std::env::var("PATH").unwrap().into_bytes();
            let value = if name == "PATH" { path } else { Vec::new() };
            let environment = BTreeMap::from([(name.to_owned(), Some(value))]);
            let why = uncacheable(&compiler, &CompileRequest { environment, ..c(SQUARE) });
            assert!(why.contains(name), "{why}");
        }
    }
}

/// Prints what a child process finds: the signature of `x.c` in its working directory.
#[test]
fn in_a_child_process() {
    let Ok(name) = std::env::var("OBJCACHE_TEST_COMPILER") else { return };
    let compiler = CommandCompiler::new(name).unwrap();
    let flags = std::env::var("OBJCACHE_TEST_FLAGS").unwrap_or_default();
    let flags: Vec<_> = flags.split_whitespace().collect();
    let request = with_flags(&CompileRequest::new(Source::read("x.c").unwrap()), &flags);
    let object = compile(&compiler, &request);
    println!("found {} {}", signature(&compiler, &request), Digest::of(&object));
}

/// Signature and digest of the object of `x.c`, as a process in `directory` with these variables finds them.
fn in_child(compiler: &CommandCompiler, directory: &Path, flags: &str, variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_a_child_process", "--nocapture"])
        .env("OBJCACHE_TEST_COMPILER", compiler.program())
        .env("OBJCACHE_TEST_FLAGS", flags)
        .envs(variables.iter().copied())
        .current_dir(directory)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("found "));
    line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))).to_owned()
}

fn folder_with(source: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("x.c"), source).unwrap();
    folder
}

#[test]
fn undeclared_variables_do_not_reach_the_compiler() {
    for compiler in for_c() {
        let folder = folder_with(
            "#if __has_include(\"trap.h\")\n#include \"trap.h\"\n#endif\nint f(void) { return __OPTIMIZE__; }\n",
        );
        let traps = tempfile::tempdir().unwrap();
        fs::write(traps.path().join("trap.h"), "int trap;\n").unwrap();
        let trap = traps.path().to_str().unwrap();
        let plain = in_child(&compiler, folder.path(), "", &[]);
        for (name, value) in [
            ("CPATH", trap),
            ("C_INCLUDE_PATH", trap),
            ("GCC_EXEC_PREFIX", trap),
            ("COMPILER_PATH", trap),
            ("CCC_OVERRIDE_OPTIONS", "# +-O0 +-DX=1"),
            ("SOURCE_DATE_EPOCH", "1"),
            ("LC_ALL", "de_DE.UTF-8"),
            ("DEPENDENCIES_OUTPUT", "/dev/full"),
            ("PWD", "/"),
        ] {
            assert_eq!(
                plain,
                in_child(&compiler, folder.path(), "", &[(name, value)]),
                "{} {name}",
                compiler.name()
            );
        }
    }
}

#[test]
fn the_working_directory_counts_only_where_the_object_names_it() {
    for compiler in for_c() {
        let (one, other) = (folder_with(SQUARE), folder_with(SQUARE));
        let at = |folder: &tempfile::TempDir, flags| in_child(&compiler, folder.path(), flags, &[]);
        assert_eq!(at(&one, ""), at(&other, ""));
        assert_eq!(at(&one, "-g0"), at(&other, "-g0"));
        assert_ne!(at(&one, "-g"), at(&other, "-g"));
        assert_eq!(at(&one, "-g"), at(&one, "-g"));
    }
}

#[test]
fn the_folder_of_the_source_counts_only_where_the_object_names_it() {
    let put = |number: u32| {
        let folder = folder_with("#include \"n.h\"\nint f(void) { return N; }\n");
        fs::write(folder.path().join("n.h"), format!("#define N {number}\n")).unwrap();
        folder
    };
    let folders = [put(1), put(1), put(2)];
    for compiler in for_c() {
        let [one, same, other] = folders
            .each_ref()
            .map(|folder| CompileRequest::new(Source::read(folder.path().join("x.c")).unwrap()));
        assert_eq!(signature(&compiler, &one), signature(&compiler, &same), "{}", compiler.name());
        assert_ne!(signature(&compiler, &one), signature(&compiler, &other), "{}", compiler.name());
        let debug = |request| signature(&compiler, &with_flags(request, &["-g"]));
        assert_ne!(debug(&one), debug(&same), "{}", compiler.name());
    }
}

#[test]
fn debug_information_names_the_working_directory() {
    for compiler in for_c() {
        let object = compile(&compiler, &with_flags(&c(SQUARE), &["-g"]));
        let file = object::File::parse(&*object).unwrap();
        let directory = std::env::current_dir().unwrap();
        let named = file.sections().filter_map(|section| section.uncompressed_data().ok()).any(|data| {
            data.windows(directory.as_os_str().len())
                .any(|window| window == directory.as_os_str().as_encoded_bytes())
        });
        assert!(named, "{}", compiler.name());
    }
}

#[test]
fn native_is_resolved_before_it_is_hashed() {
    for compiler in for_c() {
        let by_flag = inputs(&compiler, &with_flags(&c(SQUARE), &["-march=native"]));
        let by_cpu = inputs(&compiler, &CompileRequest { cpu: Some("native".to_owned()), ..c(SQUARE) });
        assert_eq!(by_flag, by_cpu);
        assert_ne!(by_flag.target.cpu, "native");
        assert_ne!(by_flag.target.cpu, "generic");
        assert!(!by_flag.target.features.is_empty(), "{:?}", by_flag.target);
        assert!(!by_flag.flags.iter().any(|flag| flag.contains("native")));
        compiler.compile(&by_flag, None).unwrap();
        let tuned = inputs(&compiler, &with_flags(&c(SQUARE), &["-mtune=native"]));
        assert_ne!(Signature::of(&tuned), Signature::of(&inputs(&compiler, &c(SQUARE))));
        compiler.compile(&tuned, None).unwrap();
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn features_taken_away_stay_away() {
    for compiler in for_c() {
        let text = "#ifdef __AVX2__\nint has_avx2;\n#else\nint has_none;\n#endif\n";
        let made = |request: CompileRequest| defined(&compile(&compiler, &request));
        let request = c(text);
        assert_eq!(made(with_flags(&request, &["-march=haswell"])), ["has_avx2"]);
        assert_eq!(made(CompileRequest { cpu: Some("haswell".to_owned()), ..c(text) }), ["has_avx2"]);
        assert_eq!(made(with_flags(&request, &["-march=native", "-mno-avx2"])), ["has_none"]);
        assert_eq!(made(CompileRequest { features: vec!["+avx2".to_owned()], ..c(text) }), ["has_avx2"]);
        let less = CompileRequest {
            features: vec!["-avx2".to_owned()],
            ..with_flags(&request, &["-march=haswell"])
        };
        assert_eq!(made(less), ["has_none"], "a feature says more than the CPU that has it");
        let both =
            CompileRequest { cpu: Some("haswell".to_owned()), ..with_flags(&request, &["-march=skylake"]) };
        assert!(compiler.prepare(&both).unwrap_err().why.contains("two CPUs"));
    }
}

#[test]
fn assembly_that_reads_files_is_not_cached() {
    for compiler in for_c() {
        let folder = tempfile::tempdir().unwrap();
        let blob = folder.path().join("blob.bin");
        fs::write(&blob, "blob").unwrap();
        let blob = blob.display().to_string();
        let texts = [
            (IrKind::C, format!("__asm__(\".data\\n.incbin \\\"{blob}\\\"\\n.text\");\nint x;\n")),
            (IrKind::C, format!("__asm__(\".data\\n.inc\"\n \"bin \\\"{blob}\\\"\\n.text\");\nint x;\n")),
            (IrKind::Assembly, format!(".data\n.incbin \"{blob}\"\n")),
            (IrKind::AssemblyWithCpp, format!("#define READ .incbin\n.data\nREAD \"{blob}\"\n")),
        ];
        for (kind, text) in texts {
            let request = CompileRequest::new(Source::new(kind, text));
            let why = uncacheable(&compiler, &request);
            assert!(why.contains("incbin"), "{why}");
            compile(&compiler, &request);
        }
    }
}

#[test]
fn files_that_flags_name_count_by_content() {
    for compiler in for_c() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("some.list");
        // Read by clang; by gcc any flag with a file's name stands for all, here one for the linker.
        let flag = match compiler.name() {
            "clang" => format!("-fsanitize-ignorelist={}", list.display()),
            _ => format!("-Wl,--version-script={}", list.display()),
        };
        let request = with_flags(&c(SQUARE), &["-fsanitize=undefined", &flag]);
        fs::write(&list, "fun:square\n").unwrap();
        let before = inputs(&compiler, &request);
        assert_eq!(
            before.external_inputs.get(&format!("flag:{}", list.display())),
            Some(&Digest::of(b"fun:square\n"))
        );
        fs::write(&list, "fun:other\n").unwrap();
        assert_ne!(Signature::of(&before), Ok(signature(&compiler, &request)));
        let error = compiler.compile(&before, None).unwrap_err();
        assert!(error.why.contains("some.list"), "an object of other files than were hashed: {error}");
    }
}

#[test]
fn clangs_own_lists_count_too() {
    let Some(compiler) = clang() else { return };
    let external = inputs(&compiler, &with_flags(&c(SQUARE), &["-fsanitize=address"])).external_inputs;
    // Packages of clang without its run-time library have no list to read.
    for name in external.keys() {
        assert!(Path::new(name).is_absolute() && name.contains("ignorelist"), "{name}");
    }
}

#[test]
fn flags_that_cannot_be_kept_are_refused_with_a_reason() {
    for compiler in for_c() {
        for flags in
            [&["-c"][..], &["-o", "x.o"], &["-MD"], &["-flto"], &["-E"], &["@response"], &["other.c"]]
        {
            let error = compiler.prepare(&with_flags(&c(SQUARE), flags)).unwrap_err();
            assert_eq!(error.stage, Stage::Prepare);
            assert!(error.why.contains(flags[0]), "{error}");
        }
        // gcc would look for the profile of an object of another name, and silently go without.
        if compiler.name() == "gcc" {
            let error = compiler.prepare(&with_flags(&c(SQUARE), &["-fprofile-use=profiles"])).unwrap_err();
            assert!(error.why.contains("profile"), "{error}");
        }
    }
}

#[test]
fn errors_are_in_the_compilers_own_words() {
    for compiler in for_c() {
        let inputs = inputs(&compiler, &c("int f(void) { return undeclared_thing; }\n"));
        let error = compiler.compile(&inputs, None).unwrap_err();
        assert_eq!(error.stage, Stage::Compile);
        assert!(error.why.contains("undeclared_thing"), "{error}");
        let error = compiler.prepare(&c("#include \"no-such-header.h\"\n")).unwrap_err();
        assert!(error.stage == Stage::Prepare && error.why.contains("no-such-header.h"), "{error}");
        let error = compiler.prepare(&CompileRequest::new(Source::new(IrKind::Clif, ""))).unwrap_err();
        assert!(error.why.contains("does not compile clif"), "{error}");
        let target = Some("sparc-sun-solaris".to_owned());
        if compiler.name() == "gcc" {
            let error = compiler.prepare(&CompileRequest { target, ..c(SQUARE) }).unwrap_err();
            assert!(error.why.contains("sparc"), "{error}");
        }
    }
}

#[test]
fn a_text_in_no_file_is_compiled_too() {
    for compiler in for_c() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.c");
        fs::write(folder.path().join("beside.h"), "int beside;\n").unwrap();
        fs::write(&path, "int on_disk;\n").unwrap();
        let source = Source {
            path: Some(path.clone()),
            ..Source::new(IrKind::C, "#include \"beside.h\"\nconst char *name = __FILE__;\n")
        };
        let prepared = prepare(&compiler, &CompileRequest::new(source));
        let text = String::from_utf8(prepared.inputs.ir.bytes.clone()).unwrap();
        assert!(text.contains(&format!("name = \"{}\"", path.display())), "{text}");
        assert_eq!(defined(&compiler.compile(&prepared.inputs, None).unwrap()), ["beside", "name"]);
    }
}

#[test]
fn clang_compiles_for_other_machines() {
    let Some(compiler) = clang() else { return };
    for (target, format, start) in [
        ("aarch64-unknown-linux-gnu", ObjectFormat::Elf, &b"\x7fELF"[..]),
        ("x86_64-pc-windows-msvc", ObjectFormat::Coff, &[0x64, 0x86]),
        ("arm64-apple-macosx", ObjectFormat::MachO, &[0xcf, 0xfa, 0xed, 0xfe]),
    ] {
        let by_field = inputs(&compiler, &CompileRequest { target: Some(target.to_owned()), ..c(SQUARE) });
        let by_flag = inputs(&compiler, &with_flags(&c(SQUARE), &[&format!("--target={target}")]));
        assert_eq!(by_field, by_flag);
        assert_eq!(by_field.object_format, format);
        assert!(compiler.compile(&by_field, None).unwrap().starts_with(start), "{target}");
    }
}

const IR: &str = "define i32 @square(i32 %x) {\n  %y = mul i32 %x, %x\n  ret i32 %y\n}\n";

#[test]
fn llvm_ir_compiles_with_clang_and_llc() {
    for compiler in [clang(), llc()].into_iter().flatten() {
        let ir = |text: &str| CompileRequest::new(Source::new(IrKind::LlvmText, text));
        assert_eq!(defined(&compile(&compiler, &ir(IR))), ["square"]);
        let native = inputs(&compiler, &CompileRequest { cpu: Some("native".to_owned()), ..ir(IR) });
        assert!(native.target.cpu != "native" && !native.target.features.is_empty(), "{:?}", native.target);
        compiler.compile(&native, None).unwrap();
        let elsewhere = ir(&format!("target triple = \"riscv64-unknown-linux-gnu\"\n{IR}"));
        let object = compile(&compiler, &elsewhere);
        assert_eq!(object::File::parse(&*object).unwrap().architecture(), object::Architecture::Riscv64);
        let wrong = inputs(&compiler, &ir("define i32 @f() { ret i64 0 }\n"));
        let error = compiler.compile(&wrong, None).unwrap_err();
        assert!(error.why.contains("value doesn't match function result type"), "{error}");
        let reads = ir(&format!("module asm \".data\\0A.incbin \\22/dev/null\\22\"\n{IR}"));
        assert!(uncacheable(&compiler, &reads).contains("incbin"));
        let why = compiler.prepare(&CompileRequest { flags: vec!["-o=x".to_owned()], ..ir(IR) });
        assert!(why.is_err());
    }
}

#[test]
fn llvm_finds_broken_ir_itself() {
    // What a parser lets through: a phi that names a block which is no predecessor.
    let broken = "define i32 @f(i32 %x) {\n  br label %a\na:\n  %p = phi i32 [0, %a]\n  ret i32 %p\n}\n";
    for compiler in [clang(), llc()].into_iter().flatten() {
        let inputs = inputs(&compiler, &CompileRequest::new(Source::new(IrKind::LlvmText, broken)));
        let error = compiler.compile(&inputs, None).unwrap_err();
        assert!(error.why.contains("PHI node entries do not match predecessors"), "{error}");
    }
}

#[test]
fn bitcode_is_compiled_and_searched() {
    let Some(maker) = clang() else { return };
    let bitcode = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.ll");
        fs::write(&path, text).unwrap();
        let made = folder.path().join("x.bc");
        let status = Command::new(maker.program())
            .args(["-x", "ir", "-emit-llvm", "-c", "-Xclang", "-disable-llvm-passes", "-o"])
            .args([&made, &path])
            .status();
        assert!(status.unwrap().success());
        CompileRequest::new(Source::new(IrKind::LlvmBitcode, fs::read(made).unwrap()))
    };
    let plain = bitcode(IR);
    let reads = bitcode(&format!("module asm \".data\\0A.incbin \\22/dev/null\\22\"\n{IR}"));
    for compiler in [clang(), llc()].into_iter().flatten() {
        assert_eq!(defined(&compile(&compiler, &plain)), ["square"]);
        let error = compiler.compile(&inputs(&compiler, &reads), None).unwrap_err();
        assert!(error.why.contains("incbin"), "{error}");
    }
}

#[test]
fn only_the_inputs_compiler_compiles_them() {
    for compiler in for_c() {
        let mut inputs = inputs(&compiler, &c(SQUARE));
        inputs.compiler.version.push_str(" of tomorrow");
        let error = compiler.compile(&inputs, None).unwrap_err();
        assert!(error.why.contains("replaced"), "{error}");
    }
}

/// Makes an executable script. Another process writes it: a file that this one had open for writing is `busy`
/// while any child that another test forked meanwhile still holds it.
#[cfg(unix)]
fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let draft = path.with_extension("draft");
    fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(Command::new("cp").arg("--").arg(&draft).arg(path).status().unwrap().success());
}

#[cfg(unix)]
mod fake {
    use super::*;

    fn program(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("fake-gcc");
        script(&path, text);
        path
    }

    /// Answers like gcc, then does as `body` says.
    fn gcc_that(body: &str) -> String {
        format!(
            "case \"$*\" in\n--version) echo 'gcc 1'; echo 'Free Software Foundation';;\n-dumpmachine) echo x86_64-linux-gnu;;\n\
             *-print-prog-name*) echo /bin/sh;;\n*' -E '*) cat;;\n*) {body};;\nesac"
        )
    }

    fn failure(body: &str) -> CompileError {
        let folder = tempfile::tempdir().unwrap();
        let compiler = CommandCompiler::new(program(folder.path(), &gcc_that(body))).unwrap();
        compiler.compile(&inputs(&compiler, &c(SQUARE)), None).unwrap_err()
    }

    #[test]
    fn every_way_to_fail_is_told() {
        let failed = failure("echo 'x.c:1: too hard' >&2; exit 3");
        assert!(failed.why.contains("exit code 3") && failed.why.contains("too hard"), "{failed}");
        let killed = failure("kill -9 $$");
        assert!(killed.why.contains("signal 9"), "{killed}");
        let silent = failure("exit 0");
        assert!(silent.stage == Stage::Emit && silent.why.contains("no object"), "{silent}");
        let other = failure("for last; do out=$before; before=$last; done; echo text > \"$out\"");
        assert!(other.stage == Stage::Emit && other.why.contains("no ELF object"), "{other}");
        let endless = failure("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1");
        assert!(
            endless.why.len() < 10_000 && endless.why.contains("bytes more"),
            "{} bytes",
            endless.why.len()
        );
    }

    #[test]
    fn programs_that_are_no_compilers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = CommandCompiler::new(program(folder.path(), "echo tcc 0.9")).unwrap_err();
        assert!(error.stage == Stage::Identify && error.why.contains("tcc 0.9"), "{error}");
        let error = CommandCompiler::new(folder.path().join("absent")).unwrap_err();
        assert!(error.why.contains("no such program"), "{error}");
        assert!(CommandCompiler::find(&IrKind::Clif).is_err());
    }

    #[test]
    fn a_replaced_compiler_is_another_compiler() {
        let folder = tempfile::tempdir().unwrap();
        let path = program(folder.path(), &gcc_that("exit 1"));
        let compiler = CommandCompiler::new(&path).unwrap();
        let before = inputs(&compiler, &c(SQUARE)).compiler;
        assert_eq!(before, inputs(&compiler, &c(SQUARE)).compiler);
        program(folder.path(), &gcc_that("exit 2"));
        assert_ne!(before, inputs(&compiler, &c(SQUARE)).compiler);
    }
}

#[cfg(unix)]
#[test]
fn a_wrapper_does_not_hide_the_compiler() {
    let Some(compiler) = clang() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clang");
    script(&path, &format!("exec {} \"$@\"", compiler.program().display()));
    let wrapped = CommandCompiler::new(&path).unwrap();
    let components = inputs(&wrapped, &c(SQUARE)).compiler.components;
    assert!(
        matches!(components.get("clang"), Some(Component::BuildId(_) | Component::Content(_))),
        "{components:?}"
    );
    assert!(components.keys().any(|name| name.starts_with("clang: libLLVM")), "{components:?}");
}

#[test]
fn nothing_is_left_behind() {
    for compiler in for_c() {
        let folder = folder_with(SQUARE);
        let temporary = tempfile::tempdir().unwrap();
        in_child(&compiler, folder.path(), "-g", &[("TMPDIR", temporary.path().to_str().unwrap())]);
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "{}", compiler.name());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{}", compiler.name());
    }
}

#[test]
fn dumps_show_every_step() {
    for compiler in for_c() {
        let inputs = inputs(&compiler, &c(SQUARE));
        let folder = tempfile::tempdir().unwrap();
        let dump = DumpDirectory::of(folder.path(), &Signature::of(&inputs).unwrap());
        let object = compiler.compile(&inputs, Some(&dump)).unwrap();
        let read = |name: &str| fs::read(dump.path().join(name)).unwrap();
        assert_eq!(read("input.i"), inputs.ir.bytes);
        assert_eq!(read("object.o"), object);
        assert!(String::from_utf8(read("code.s")).unwrap().contains("square:"));
        assert_eq!(compiler.name() == "clang", dump.path().join("optimized.ll").exists());
    }
}
