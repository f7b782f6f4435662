//! Inputs to command line. Everything a compiler is told stands in the inputs; what is added here is the same
//! for all of them.

use objcache_signature::{CompileInputs, OptLevel, RelocationModel, Target};

use super::flags::names_cpu;
use super::program::Family;

/// The CPU of inputs that leave it to the compiler: its default is fixed by its identity and the triple.
pub(super) const DEFAULT_CPU: &str = "generic";

/// The arguments that decide the code, without source, output and language.
pub(super) fn of(family: Family, inputs: &CompileInputs) -> Vec<String> {
    match family {
        Family::Clang => clang(inputs),
        Family::Gcc => gcc(inputs),
        Family::Llc => llc(inputs),
    }
}

fn clang(inputs: &CompileInputs) -> Vec<String> {
    let target = &inputs.target;
    let mut arguments = vec![
        // A configuration file beside the program or in a home folder would be an ingredient without a name.
        "--no-default-config".to_owned(),
        // Flags for the preprocessor are idle when its output is compiled, which is no reason to complain.
        "-Qunused-arguments".to_owned(),
        format!("--target={}", target.triple),
    ];
    arguments.extend(cpu(inputs));
    for feature in &target.features {
        arguments.extend(["-Xclang", "-target-feature", "-Xclang", feature].map(str::to_owned));
    }
    finish(arguments, inputs)
}

fn gcc(inputs: &CompileInputs) -> Vec<String> {
    let target = &inputs.target;
    let mut arguments = cpu(inputs);
    for feature in &target.features {
        arguments.push(match feature.strip_prefix('-') {
            Some(name) => format!("-mno-{name}"),
            None => format!("-m{}", feature.trim_start_matches('+')),
        });
    }
    for parameter in &target.tuning {
        arguments.extend(["--param".to_owned(), parameter.clone()]);
    }
    finish(arguments, inputs)
}

fn llc(inputs: &CompileInputs) -> Vec<String> {
    let target = &inputs.target;
    let mut arguments = vec![format!("-mtriple={}", target.triple)];
    if names_one(&target.cpu) && !inputs.flags.iter().any(|flag| names_cpu(flag).is_some()) {
        arguments.push(format!("-mcpu={}", target.cpu));
    }
    if !target.features.is_empty() {
        let features: Vec<_> = target.features.iter().map(String::as_str).collect();
        arguments.push(format!("-mattr={}", features.join(",")));
    }
    arguments.push(format!("-O{}", inputs.optimization));
    if target.relocation_model == Some(RelocationModel::Pic) {
        arguments.push("-relocation-model=pic".to_owned());
    }
    arguments.extend(inputs.flags.iter().cloned());
    arguments
}

/// `-march`, or `-mcpu` where that is how an architecture's CPUs are named, and `-mtune`.
fn cpu(inputs: &CompileInputs) -> Vec<String> {
    let target = &inputs.target;
    let mut arguments = Vec::new();
    if names_one(&target.cpu) && !inputs.flags.iter().any(|flag| names_cpu(flag).is_some()) {
        arguments.push(format!("{}={}", cpu_option(target), target.cpu));
    }
    if let Some(tune) = &target.tune_cpu {
        arguments.push(format!("-mtune={tune}"));
    }
    arguments
}

/// The option by which drivers take a CPU's name for this target.
pub(super) fn cpu_option(target: &Target) -> &'static str {
    let by_architecture = ["x86_64", "amd64", "i386", "i486", "i586", "i686", "s390x", "mips", "loongarch"];
    if by_architecture.iter().any(|name| target.triple.starts_with(name)) { "-march" } else { "-mcpu" }
}

fn names_one(cpu: &str) -> bool {
    cpu != DEFAULT_CPU
}

/// Level and position independence come before the flags, which may say otherwise.
fn finish(mut arguments: Vec<String>, inputs: &CompileInputs) -> Vec<String> {
    arguments.push(format!("-O{}", inputs.optimization));
    if inputs.target.relocation_model == Some(RelocationModel::Pic) {
        arguments.push("-fPIC".to_owned());
    }
    arguments.extend(inputs.flags.iter().cloned());
    arguments
}

/// The level as this compiler distinguishes it.
pub(super) fn level(family: Family, level: OptLevel) -> OptLevel {
    match (family, level) {
        (Family::Llc, OptLevel::Os | OptLevel::Oz) => OptLevel::O2,
        (_, level) => level,
    }
}
