//! Facts about what takes part in a compilation beside the program that is called: its settings files, the
//! compiler behind a wrapper, and what the source itself says about its target.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use objcache::cache::MemoryCache;
use objcache::signature::{CompileInputs, IrKind};
use objcache::{CommandCompiler, CompileRequest, Compiler, Engine, Source};

/// Skips what cannot be checked here. With `OBJCACHE_REQUIRE_ALL=1` that is a failure.
fn skip(why: &str) {
    assert!(std::env::var("OBJCACHE_REQUIRE_ALL").as_deref() != Ok("1"), "{why}");
    println!("skipped: {why}");
}

fn found(name: &str) -> Option<CommandCompiler> {
    CommandCompiler::new(name).map_err(|error| skip(&error.to_string())).ok()
}

fn request() -> CompileRequest {
    CompileRequest::new(Source::new(IrKind::C, "int f(void) { return 1; }\n"))
}

fn inputs(compiler: &CommandCompiler, request: &CompileRequest) -> CompileInputs {
    compiler.prepare(request).unwrap().inputs
}

fn script(path: &Path, text: &str) -> PathBuf {
    // Another process writes it: a file that this one had open for writing is `busy` while any child that
    // another test forked meanwhile still holds it.
    let draft = path.with_extension("draft");
    fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(Command::new("cp").arg("--").arg(&draft).arg(path).status().unwrap().success());
    path.to_owned()
}

#[test]
fn a_specs_file_among_gccs_own_counts() {
    let Some(gcc) = found("gcc") else { return };
    let folder = tempfile::tempdir().unwrap();
    let [specs, library] = ["specs", "libgcc.a"].map(|name| folder.path().join(name));
    let answers = format!(
        "case $1 in\n-print-file-name=specs) if [ -e {0} ]; then echo {0}; else echo specs; fi;;\n\
         -print-libgcc-file-name) echo {1};;\n*) exec {2} \"$@\";;\nesac",
        specs.display(),
        library.display(),
        gcc.program().display()
    );
    let gcc = CommandCompiler::new(script(&folder.path().join("gcc"), &answers)).unwrap();
    let without = inputs(&gcc, &request());
    fs::write(&specs, "*cc1_options:\n+ -O0\n").unwrap();
    let with = inputs(&gcc, &request());
    assert_ne!(without.compiler, with.compiler);
    fs::write(&specs, "*cc1_options:\n+ -O1\n").unwrap();
    assert_ne!(with.compiler, inputs(&gcc, &request()).compiler);
    fs::remove_file(&specs).unwrap();
    assert_eq!(without.compiler, inputs(&gcc, &request()).compiler);
}

#[test]
fn a_compiled_wrapper_does_not_hide_the_compiler() {
    let (Ok(clang), Some(gcc)) = (CommandCompiler::find(&IrKind::LlvmText), found("gcc")) else {
        return skip("clang or gcc is not installed");
    };
    let folder = tempfile::tempdir().unwrap();
    let [source, wrapper] = ["wrapper.c", "clang-wrapper"].map(|name| folder.path().join(name));
    let text = format!(
        "#include <unistd.h>\nint main(int n, char **words) {{ (void)n; return execv(\"{}\", words); }}\n",
        clang.program().display()
    );
    fs::write(&source, text).unwrap();
    let compiled = Command::new(gcc.program()).arg(&source).arg("-o").arg(&wrapper).status().unwrap();
    assert!(compiled.success());
    let identity = inputs(&CommandCompiler::new(&wrapper).unwrap(), &request()).compiler;
    let behind = inputs(&clang, &request()).compiler;
    assert!(!behind.components.contains_key("clang"), "it needs no second look: {:?}", behind.components);
    assert_eq!(identity.components.get("clang"), behind.components.get("driver"));
    assert_ne!(identity.components.get("driver"), behind.components.get("driver"));
}

#[test]
fn bitcode_is_compiled_for_the_triple_it_names() {
    let Ok(clang) = CommandCompiler::find(&IrKind::LlvmText) else { return skip("clang is not installed") };
    let text = "target triple = \"riscv64-unknown-linux-gnu\"\ndefine i32 @f() { ret i32 5 }\n";
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f.ll"), text).unwrap();
    let assembled = Command::new(clang.program())
        .args(["--target=riscv64-unknown-linux-gnu", "-c", "-emit-llvm", "-o", "f.bc", "f.ll"])
        .current_dir(folder.path())
        .status();
    assert!(assembled.unwrap().success());
    let bitcode = CompileRequest::new(Source::read(folder.path().join("f.bc")).unwrap());
    let inputs = inputs(&clang, &bitcode);
    assert_eq!(inputs.target.triple, "riscv64-unknown-linux-gnu");
    // EM_RISCV
    assert_eq!(clang.compile(&inputs, None).unwrap()[18], 243);
    let host = CompileRequest { target: Some("x86_64-linux-gnu".to_owned()), ..bitcode };
    assert_eq!(self::inputs(&clang, &host).target.triple, "x86_64-linux-gnu");
}

#[test]
fn an_error_names_the_source() {
    let Some(gcc) = found("gcc") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.c");
    fs::write(&path, "int f(void) { return }\n").unwrap();
    let engine = Engine::builder(MemoryCache::new(1 << 20), gcc).build();
    let error = engine.obtain(&CompileRequest::new(Source::read(&path).unwrap())).unwrap_err().to_string();
    let expected = format!("cannot compile the c-preprocessed text of {}: ", path.display());
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn an_external_input_does_not_pass_for_a_file_that_flags_name() {
    let Some(clang) = found("clang") else { return };
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("list");
    fs::write(&list, "fun:f\n").unwrap();
    let flag = format!("-fsanitize-ignorelist={}", list.display());
    let name = format!("flag:{}", list.display());
    let request = CompileRequest {
        flags: vec![flag],
        external_inputs: [(name, objcache::signature::Digest::of(b"other"))].into(),
        ..request()
    };
    let error = clang.prepare(&request).unwrap_err();
    assert!(error.to_string().contains("external input"), "{error}");
}
