//! What the request, the file and the host come to: a target with every ISA flag spelled out, and back.
//!
//! Settings are applied in this order, later ones win: the defaults of our lowering, the request's
//! optimisation level, the file's `set` lines, CPU and features, the file's `target` line, the request's
//! features, the request's flags.

use std::str::FromStr;

use cranelift_codegen::isa::{self, LookupError, OwnedTargetIsa};
use cranelift_codegen::settings::{
    self as shared, Configurable, Flags, OptLevel as CraneliftLevel, SetError, SettingKind, Value,
};
use objcache_signature::{CompileInputs, OptLevel, Target};
use target_lexicon::{BinaryFormat, Triple};

use super::preamble::{Preamble, TargetLine};
use crate::cpu::cranelift_spelling;
use crate::error::{CompileError, Stage};
use crate::request::CompileRequest;

/// The CPU of every target here: a CPU's name is only a preset of features to Cranelift, and those are named.
const NO_PRESET: &str = "generic";

/// What decides the code beside the IR.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) target: Target,
    pub(super) optimization: OptLevel,
    /// Shared settings other than the defaults of our lowering, as `name=value`, sorted.
    pub(super) flags: Vec<String>,
}

/// Everything that is open in the request is decided here, from the file and the host.
pub(super) fn resolve(request: &CompileRequest, preamble: &Preamble<'_>) -> Result<Settings, String> {
    let (triple, target_line) = choose_target(request.target.as_deref(), preamble)?;
    let mut shared = defaults(triple.binary_format);
    let mut isa = lookup(&triple)?;
    set(&mut shared, "opt_level", level_name(request.optimization))?;
    for word in &preamble.settings {
        apply_word(&mut shared, word)?;
    }
    let in_line = target_line.map_or(&[][..], |line| &line.settings);
    apply_cpu(&mut isa, &triple, request.cpu.as_deref(), in_line.is_empty())?;
    for word in in_line {
        apply_word(&mut isa, word)?;
    }
    for feature in request.features.iter().flat_map(|list| list.split(',')) {
        apply_feature(&mut isa, feature.trim())?;
    }
    for flag in &request.flags {
        match apply_word(&mut shared, flag) {
            Err(_) if apply_word(&mut isa, flag).is_ok() => {}
            applied => applied?,
        }
    }
    let default_flags = Flags::new(defaults(triple.binary_format));
    let isa = isa.finish(Flags::new(shared)).map_err(|error| error.to_string())?;

    let mut target = Target::new(triple.to_string(), NO_PRESET);
    target.features = isa.isa_flags().iter().map(feature_name).collect();
    Ok(Settings {
        target,
        optimization: level_of(isa.flags(), request.optimization),
        flags: non_default(isa.flags(), &default_flags),
    })
}

/// The code generator for exactly these inputs.
pub(super) fn isa(inputs: &CompileInputs) -> Result<OwnedTargetIsa, CompileError> {
    let build = || {
        let triple = triple(&inputs.target.triple)?;
        let mut shared = defaults(triple.binary_format);
        let mut isa = lookup(&triple)?;
        set(&mut shared, "opt_level", level_name(inputs.optimization))?;
        inputs.flags.iter().try_for_each(|flag| apply_word(&mut shared, flag))?;
        inputs.target.features.iter().try_for_each(|feature| apply_feature(&mut isa, feature))?;
        isa.finish(Flags::new(shared)).map_err(|error| error.to_string())
    };
    build().map_err(|why| CompileError::new(Stage::Prepare, inputs.target.triple.clone(), why))
}

pub(super) fn triple(text: &str) -> Result<Triple, String> {
    let parsed =
        Triple::from_str(text).map_err(|error| format!("`{text}` is not a target triple: {error}"))?;
    if parsed.binary_format != BinaryFormat::Unknown {
        return Ok(parsed);
    }
    // CLIF files often name the architecture alone: the rest is as on the host.
    Ok(Triple { architecture: parsed.architecture, ..Triple::host() })
}

/// The request's target, else the file's for the host's architecture, else the file's first that this build
/// can make, else the host's. With it comes the file's line for that architecture.
fn choose_target<'p>(
    requested: Option<&str>,
    preamble: &'p Preamble<'_>,
) -> Result<(Triple, Option<&'p TargetLine<'p>>), String> {
    let lines = preamble
        .targets
        .iter()
        .map(|line| Ok((triple(line.triple)?, line)))
        .collect::<Result<Vec<_>, String>>()?;
    let line_for = |wanted: &Triple| {
        lines.iter().find(|(triple, _)| triple.architecture == wanted.architecture).map(|(_, line)| *line)
    };
    if let Some(requested) = requested {
        let requested = triple(requested)?;
        let line = line_for(&requested);
        return Ok((requested, line));
    }
    let host = Triple::host();
    let ours = lines.iter().find(|(triple, _)| triple.architecture == host.architecture);
    let made = || lines.iter().find(|(triple, _)| isa::lookup(triple.clone()).is_ok());
    match ours.or_else(made).or(lines.first()) {
        Some((triple, line)) => Ok((triple.clone(), Some(*line))),
        None => Ok((host, None)),
    }
}

fn lookup(triple: &Triple) -> Result<isa::Builder, String> {
    isa::lookup(triple.clone()).map_err(|error| {
        let known = isa::ALL_ARCHITECTURES;
        match error {
            LookupError::Unsupported => {
                format!("Cranelift generates no code for `{triple}`; it knows {}", known.join(", "))
            }
            LookupError::SupportDisabled => {
                let enabled: Vec<_> =
                    known.iter().copied().filter(|name| isa::lookup_by_name(name).is_ok()).collect();
                format!("this build generates no code for `{triple}`, only for {}", enabled.join(", "))
            }
        }
    })
}

/// Our own defaults where they are not Cranelift's.
fn defaults(format: BinaryFormat) -> shared::Builder {
    let tls_model = match format {
        BinaryFormat::Macho => "macho",
        BinaryFormat::Coff => "coff",
        _ => "elf_gd",
    };
    let ours = [
        // Objects are loaded wherever there is room, and the host may be further away than a call reaches.
        ("is_pic", "true"),
        // The engine verifies once, before it compiles.
        ("enable_verifier", "false"),
        ("unwind_info", "true"),
        ("tls_model", tls_model),
        // Probes, where asked for, must not call a symbol that nobody defines.
        ("probestack_strategy", "inline"),
    ];
    let mut builder = shared::builder();
    for (name, value) in ours {
        set(&mut builder, name, value).expect("these settings exist in the Cranelift version we pin");
    }
    builder
}

/// The starting point for features. A `target` line with settings of its own starts from the baseline, as
/// it does in Cranelift.
fn apply_cpu(
    isa: &mut isa::Builder,
    triple: &Triple,
    cpu: Option<&str>,
    line_is_bare: bool,
) -> Result<(), String> {
    let host = Triple::host();
    match cpu {
        Some("generic" | "baseline") => Ok(()),
        Some("native" | "host") if triple.architecture != host.architecture => {
            Err(format!("the CPU cannot be `native` for `{triple}`: the host is `{host}`"))
        }
        Some("native" | "host") => infer_host(isa),
        None if line_is_bare && triple.architecture == host.architecture => infer_host(isa),
        None => Ok(()),
        Some(preset) => match isa.iter().find(|setting| setting.name == preset) {
            Some(setting) if setting.kind == SettingKind::Preset => enable(isa, preset),
            _ => Err(format!("Cranelift knows no CPU `{preset}` for `{triple}`; it knows {}", presets(isa))),
        },
    }
}

fn infer_host(isa: &mut isa::Builder) -> Result<(), String> {
    cranelift_native::infer_native_flags(isa).map_err(str::to_owned)
}

fn presets(isa: &isa::Builder) -> String {
    let presets = isa.iter().filter(|setting| setting.kind == SettingKind::Preset);
    let names: Vec<_> = ["native", "generic"].into_iter().chain(presets.map(|preset| preset.name)).collect();
    names.join(", ")
}

/// `name=value`, or `name` for a setting to be switched on or a preset.
fn apply_word(settings: &mut dyn Configurable, word: &str) -> Result<(), String> {
    match word.split_once('=') {
        Some((name, value)) => set(settings, name, value),
        None => enable(settings, word),
    }
}

/// `+feature` or `-feature`, by Cranelift's name or by the one that LLVM and GCC use.
fn apply_feature(isa: &mut isa::Builder, feature: &str) -> Result<(), String> {
    let (name, value) = match (feature.strip_prefix('+'), feature.strip_prefix('-')) {
        (Some(name), _) => (name, "true"),
        (_, Some(name)) => (name, "false"),
        _ => return Err(format!("feature `{feature}` must begin with + or -")),
    };
    let is_flag = |candidate: &str| {
        isa.iter().any(|setting| setting.kind == SettingKind::Bool && setting.name == candidate)
    };
    let ours = format!("has_{}", cranelift_spelling(name));
    let known = [name, ours.as_str()].into_iter().find(|candidate| is_flag(candidate));
    match known {
        Some(known) => set(isa, known, value),
        None => {
            let names: Vec<_> = isa
                .iter()
                .filter(|setting| setting.kind == SettingKind::Bool)
                .map(|setting| setting.name)
                .collect();
            Err(format!("Cranelift knows no CPU feature `{name}`; it knows {}", names.join(", ")))
        }
    }
}

fn set(settings: &mut dyn Configurable, name: &str, value: &str) -> Result<(), String> {
    settings.set(name, value).map_err(|error| explain(name, value, error))
}

fn enable(settings: &mut dyn Configurable, name: &str) -> Result<(), String> {
    settings.enable(name).map_err(|error| explain(name, "", error))
}

fn explain(name: &str, value: &str, error: SetError) -> String {
    match error {
        SetError::BadName(_) => format!("Cranelift has no setting `{name}`"),
        SetError::BadType if value.is_empty() => format!("setting `{name}` wants a value: `{name}=…`"),
        SetError::BadType => format!("setting `{name}` takes no such value as `{value}`"),
        SetError::BadValue(expected) => format!("setting `{name}` cannot be `{value}`; expected {expected}"),
    }
}

/// `+has_avx2` or `-has_avx2`. (Every ISA flag of this version is a truth value; another kind would be
/// refused when the ISA is built, never dropped.)
fn feature_name(flag: &Value) -> String {
    match flag.as_bool() {
        Some(true) => format!("+{}", flag.name),
        Some(false) => format!("-{}", flag.name),
        None => format!("+{flag}"),
    }
}

fn non_default(flags: &Flags, defaults: &Flags) -> Vec<String> {
    let changed = flags
        .iter()
        .zip(defaults.iter())
        .filter(|(flag, default)| flag.name != "opt_level" && flag.value_string() != default.value_string());
    let mut flags: Vec<_> =
        changed.map(|(flag, _)| format!("{}={}", flag.name, flag.value_string())).collect();
    flags.sort_unstable();
    flags
}

fn level_name(level: OptLevel) -> &'static str {
    match level {
        OptLevel::O0 => "none",
        OptLevel::Os | OptLevel::Oz => "speed_and_size",
        _ => "speed",
    }
}

/// The level that was asked for, unless the file or a flag chose another. Cranelift makes no difference between
/// O1, O2 and O3; the key does, since whoever asks for another level expects another compilation.
fn level_of(flags: &Flags, requested: OptLevel) -> OptLevel {
    let level = match flags.opt_level() {
        CraneliftLevel::None => OptLevel::O0,
        CraneliftLevel::Speed => OptLevel::O2,
        CraneliftLevel::SpeedAndSize => OptLevel::Os,
    };
    if level_name(level) == level_name(requested) { requested } else { level }
}
