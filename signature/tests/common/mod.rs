//! Inputs that the tests share, and the tools that some of them need.

#![allow(dead_code)] // Each test program uses a part.

use std::path::{Path, PathBuf};
use std::process::Command;

use objcache_signature::*;

/// Inputs with every field set.
pub(crate) fn full() -> CompileInputs {
    let mut target = Target::new("x86_64-unknown-linux-gnu", "znver4");
    target.data_layout = Some("e-m:e-i64:64".to_owned());
    target.code_model = Some(CodeModel::Small);
    target.relocation_model = Some(RelocationModel::Pic);
    target.tls_model = Some(TlsModel::InitialExec);
    target.features = ["+avx2", "+fma", "-avx512f"].map(str::to_owned).into();
    target.tune_cpu = Some("znver3".to_owned());
    target.tuning = ["+fast-gather"].map(str::to_owned).into();

    let mut compiler = CompilerIdentity::new("clang", "clang version 22.1.8");
    compiler.components.insert("libLLVM.so".to_owned(), Component::BuildId(vec![0xab, 0x01]));
    compiler.components.insert("driver".to_owned(), Component::Content(Digest::of(b"driver")));
    compiler.components.insert("as".to_owned(), Component::ProbeFailed("not found".to_owned()));

    let mut inputs = minimal();
    inputs.namespace = "tenant".to_owned();
    inputs.salt = vec![0, 1, 2];
    inputs.linked = vec![LinkedInput { name: "libm.bc".to_owned(), digest: Digest::of(b"libm") }];
    inputs.target = target;
    inputs.optimization = OptLevel::O3;
    inputs.pass_pipeline = Some("default<O3>".to_owned());
    inputs.flags = vec!["-ffast-math".to_owned(), "-DN=1".to_owned()];
    inputs.compiler = compiler;
    inputs.environment.insert("CFLAGS".to_owned(), Some(b"-g".to_vec()));
    inputs.environment.insert("LDFLAGS".to_owned(), None);
    inputs.external_inputs.insert("a.h".to_owned(), Digest::of(b"header"));
    inputs.specialization.insert("WIDTH".to_owned(), vec![8, 0, 0, 0]);
    inputs.extension = Some(Extension { label: "mydb.plan/3".to_owned(), bytes: vec![0xff, 0x00] });
    inputs
}

/// Inputs with nothing set that need not be.
pub(crate) fn minimal() -> CompileInputs {
    let ir = Ir::new(IrKind::Clif, b"function %f() { block0: return }\n".to_vec());
    CompileInputs::new(ir, Target::new("x86_64-unknown-linux-gnu", "x86-64"), CompilerIdentity::new("c", "1"))
}

/// Runs a tool and returns its output; `None`, with a word on standard error, when it is not installed.
pub(crate) fn tool(name: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    match Command::new(name).args(arguments).output() {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{name} {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            Some(output.stdout)
        }
        Err(error) => {
            let required = std::env::var("OBJCACHE_REQUIRE_ALL").is_ok_and(|value| value == "1");
            assert!(!required, "{name} is required: {error}");
            eprintln!("skipped: {name} cannot be run: {error}");
            None
        }
    }
}

/// Compiles `source` with the first of `compilers` that is there, and hands the object to `check`.
pub(crate) fn with_object(
    compiler: &str,
    arguments: &[&str],
    name: &str,
    source: &str,
    check: impl FnOnce(&Path, Vec<u8>),
) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (from, to) = (
        folder.join(name),
        folder.join(format!("{name}.{compiler}.{}.o", arguments.join("_").replace('/', "_"))),
    );
    std::fs::write(&from, source).unwrap();
    let mut all = arguments.to_vec();
    all.extend(["-c", "-o", to.to_str().unwrap(), from.to_str().unwrap()]);
    if tool(compiler, &all).is_some() {
        let object = std::fs::read(&to).unwrap();
        check(&to, object);
    }
}
