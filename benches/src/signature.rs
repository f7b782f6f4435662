//! What it costs to name a compilation.

use std::hint::black_box;
use std::time::Duration;

use objcache::signature::{CompileInputs, CompilerIdentity, Digest, Ir, IrKind, Signature, Target};

use crate::measure::{Contender, compare};

/// Inputs like those of a real compilation: a host CPU's feature list, a few flags, a variable.
pub(crate) fn inputs(ir: Vec<u8>) -> CompileInputs {
    let mut target = Target::new("x86_64-unknown-linux-gnu", "znver4");
    target.features = (0..40).map(|index| format!("+feature{index}")).collect();
    let mut inputs =
        CompileInputs::new(Ir::new(IrKind::Clif, ir), target, CompilerIdentity::new("bench", "1.0"));
    inputs.flags = ["-ffast-math", "-fno-exceptions", "-DWIDTH=8"].map(str::to_owned).into();
    inputs.environment.insert("BENCH_MODE".to_owned(), Some(b"fast".to_vec()));
    inputs
}

pub(crate) fn bench() {
    for (kilobytes, goal) in [(4, Some(Duration::from_micros(10))), (256, None)] {
        let ir: Vec<u8> = (0..kilobytes * 1024).map(|index| (index * 7 % 251) as u8).collect();
        let inputs = inputs(ir.clone());
        compare(
            &format!("signature of {kilobytes} KB of IR, 40 features, 3 flags"),
            goal,
            200,
            vec![
                Contender::new("objcache: key document and signature", |_| Signature::of(black_box(&inputs))),
                Contender::new("BLAKE3 of the IR alone", |_| Digest::of(black_box(&ir))),
            ],
        );
    }
}
