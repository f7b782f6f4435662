//! Which CPU features a command line lets the compiler use.
//!
//! A CPU's name stands for features that only the compiler knows. clang and gcc tell by the macros they predefine,
//! the same for both (`__AVX2__`; on Arm those of the ACLE), at the price of one run of the preprocessor over
//! nothing. `llc` does not tell; of its CPUs only the levels of the x86-64 psABI are known here.

use std::collections::BTreeSet;

use objcache_signature::{CompileInputs, Target};

use super::arguments::{self, DEFAULT_CPU};
use super::program::Family;
use super::run::Run;
use crate::cpu::{needed, needed_cpu_features};
use crate::error::CompileError;

/// Where a macro is not named after the feature. Several features may have one macro.
const MACROS: &[(&str, &str)] = &[
    ("cx16", "__GCC_HAVE_SYNC_COMPARE_AND_SWAP_16"),
    ("aarch64/aes", "__ARM_FEATURE_AES"),
    ("bf16", "__ARM_FEATURE_BF16"),
    ("complxnum", "__ARM_FEATURE_COMPLEX"),
    ("crc", "__ARM_FEATURE_CRC32"),
    ("dotprod", "__ARM_FEATURE_DOTPROD"),
    ("f32mm", "__ARM_FEATURE_SVE_MATMUL_FP32"),
    ("f64mm", "__ARM_FEATURE_SVE_MATMUL_FP64"),
    ("fp16fml", "__ARM_FEATURE_FP16_FML"),
    ("fptoint", "__ARM_FEATURE_FRINT"),
    ("fullfp16", "__ARM_FEATURE_FP16_SCALAR_ARITHMETIC"),
    ("i8mm", "__ARM_FEATURE_MATMUL_INT8"),
    ("jsconv", "__ARM_FEATURE_JCVT"),
    ("lse", "__ARM_FEATURE_ATOMICS"),
    ("neon", "__ARM_NEON"),
    ("rcpc", "__ARM_FEATURE_RCPC"),
    ("rdm", "__ARM_FEATURE_QRDMX"),
    ("sha2", "__ARM_FEATURE_SHA2"),
    ("sha3", "__ARM_FEATURE_SHA3"),
    ("aarch64/sm4", "__ARM_FEATURE_SM4"),
    ("sve", "__ARM_FEATURE_SVE"),
    ("sve2", "__ARM_FEATURE_SVE2"),
];

/// Each adds to those before it.
const LEVELS: &[(&str, &[&str])] = &[
    ("x86-64-v2", &["cx16", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"]),
    ("x86-64-v3", &["avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"]),
    ("x86-64-v4", &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]),
];

/// Whether nothing beyond what every CPU of the architecture has was asked for.
pub(super) fn is_baseline(inputs: &CompileInputs) -> bool {
    let flags = inputs.flags.iter();
    inputs.target.cpu == DEFAULT_CPU
        && inputs.target.features.is_empty()
        && !flags.clone().any(|flag| flag.starts_with("-m") || flag.starts_with("-X"))
}

/// The features that the compiler may use for these inputs.
pub(super) fn ask(
    family: Family,
    run: &Run<'_>,
    inputs: &CompileInputs,
) -> Result<Vec<String>, CompileError> {
    if family == Family::Llc {
        return Ok(of_level(&inputs.target));
    }
    let mut line = arguments::of(family, inputs);
    line.extend(["-dM", "-E", "-x", "c", "-o", "-", "-"].map(str::to_owned));
    let output = run.output(&line, Some(b""))?;
    Ok(of_macros(&inputs.target.triple, &String::from_utf8_lossy(&output.stdout)))
}

fn of_macros(triple: &str, text: &str) -> Vec<String> {
    let defined: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("#define ")?.split([' ', '(']).next()).collect();
    let arm = triple.starts_with("aarch64") || triple.starts_with("arm64");
    needed(triple, |name| match macro_of(name, arm) {
        Some(known) => defined.contains(known),
        None => defined.contains(&*format!("__{}__", name.to_uppercase().replace('.', "_"))),
    })
}

fn macro_of(name: &str, arm: bool) -> Option<&'static str> {
    let of_arm = |known: &str| arm && known.strip_prefix("aarch64/") == Some(name);
    MACROS.iter().find(|(known, _)| *known == name || of_arm(known)).map(|(_, defined)| *defined)
}

fn of_level(target: &Target) -> Vec<String> {
    let known = LEVELS.iter().position(|(level, _)| *level == target.cpu).map_or(0, |at| at + 1);
    let of_levels = LEVELS[..known].iter().flat_map(|(_, names)| *names).map(|name| format!("+{name}"));
    let all: Vec<String> = of_levels.chain(target.features.iter().cloned()).collect();
    let off = |name: &str| target.features.contains(&format!("-{name}"));
    let on = all.iter().map(String::as_str).filter(|feature| !off(feature.trim_start_matches('+')));
    needed_cpu_features(&target.triple, on)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macros_tell_features() {
        let x86 = "#define __AVX2__ 1\n#define __SSE4_1__ 1\n#define __AES__ 1\n#define __x86_64__ 1\n\
            #define __GCC_HAVE_SYNC_COMPARE_AND_SWAP_16 1\n#define __FOO__(x) x\n";
        assert_eq!(of_macros("x86_64-pc-linux-gnu", x86), ["x86/aes", "x86/avx2", "x86/cx16", "x86/sse4.1"]);
        let arm = "#define __ARM_NEON 1\n#define __ARM_FEATURE_AES 1\n#define __ARM_FEATURE_SVE2 1\n";
        assert_eq!(of_macros("aarch64-linux-gnu", arm), ["aarch64/aes", "aarch64/neon", "aarch64/sve2"]);
        assert_eq!(of_macros("riscv64-linux-gnu", "#define __riscv_m 1\n"), [""; 0]);
    }

    #[test]
    fn levels_add_up() {
        let mut target = Target::new("x86_64-pc-linux-gnu", "x86-64-v3");
        target.features = ["-fma".to_owned(), "+sha".to_owned()].into();
        let features = of_level(&target);
        assert!(["x86/avx2", "x86/sse3", "x86/sha"].iter().all(|it| features.contains(&(*it).to_owned())));
        assert!(["x86/fma", "x86/avx512f"].iter().all(|it| !features.contains(&(*it).to_owned())));
        target.cpu = "haswell".to_owned();
        assert_eq!(of_level(&target), ["x86/sha"]);
    }
}
