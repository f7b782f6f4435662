//! Signatures are for ever: a store written by one release is asked by the next. These documents and
//! signatures are committed; when one changes, the schema and the hash's context must change with it.
//!
//! A first line with the signature, then the document in hexadecimal. A new vector is written by
//! `OBJCACHE_WRITE_VECTORS=1 cargo test -p objcache-signature --test vectors`.

mod common;

use objcache_signature::{CompileInputs, KeyDocument, Signature};

fn check(name: &str, inputs: &CompileInputs) {
    let document = KeyDocument::of(inputs).unwrap();
    let hex: String = document.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<_> = hex.as_bytes().chunks(96).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let found = format!("{}\n{}\n", document.signature(), lines.join("\n"));
    let path = format!("{}/tests/vectors/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("OBJCACHE_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert_eq!(found, committed, "{name}");
    assert_eq!(Signature::of(inputs).unwrap(), document.signature());
}

#[test]
fn minimal() {
    check("minimal", &common::minimal());
}

#[test]
fn full() {
    check("full", &common::full());
}

#[test]
fn c_for_a_native_cpu_that_was_resolved() {
    let mut inputs = common::minimal();
    inputs.ir = objcache_signature::Ir::new(
        objcache_signature::IrKind::CPreprocessed,
        b"int f(void) { return 1; }\n".to_vec(),
    );
    inputs.target.cpu = "skylake".to_owned();
    inputs.target.features = ["+avx2".to_owned(), "-sse4a".to_owned()].into();
    check("c", &inputs);
}
