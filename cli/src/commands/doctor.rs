//! `doctor`: what keeps the cache from working as well as it could, and what to do about it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use clap::builder::styling::{AnsiColor, Style};
use objcache::cache::{Check, CheckState, Configuration, SETTINGS, closest, examine, from_fn};
use objcache::loader::{Loader, PageMemory};
use objcache::signature::IrKind;
use objcache::{CommandCompiler, CompileRequest, CraneliftCompiler, Engine, Source};
use serde::{Serialize, Serializer};

use crate::context::Context;
use crate::failure::{Failure, Status};
use crate::output::{Report, Text, printable};
use crate::units;

/// Find what keeps the cache from working well, and say what to do; exit code 1 when there is something
///
/// Settings and variables, the directory with its owner, mode and disk, clock, locks, catalogue, quarantine, layers,
/// compilers, and whether code can be loaded. Notes are no findings.
#[derive(Debug, Args)]
pub(crate) struct Options {}

/// Variables of ours that are no settings of the cache.
const OTHER_VARIABLES: [&str; 5] =
    ["OBJCACHE_LOG", "OBJCACHE_GDB", "OBJCACHE_PERF", "OBJCACHE_SOAK", "OBJCACHE_REQUIRE_ALL"];

pub(crate) fn run(_options: &Options, context: &Context) -> Result<Status, Failure> {
    let mut checks = settings();
    checks.extend(variables());
    checks.extend(examine(&context.store_options()));
    checks.extend(compilers());
    checks.push(code_loads());
    let findings = checks.iter().filter(|check| check.state > CheckState::Note).count();
    let status = if findings == 0 { Status::Fine } else { Status::Findings };
    context.output.report(&Examined { checks, findings })?;
    Ok(status)
}

fn settings() -> Vec<Check> {
    let problems = Configuration::load().problems();
    if problems.is_empty() {
        return vec![Check::fine("settings", "all settings are understood")];
    }
    let advice = "correct it, or take it out: objcache config list shows what holds";
    let found = |problem| Check::found("bad_setting", CheckState::Warning, problem, advice);
    problems.into_iter().map(found).collect()
}

/// Variables that look like ours, and that nobody reads.
fn variables() -> Vec<Check> {
    let known = || SETTINGS.iter().map(|setting| setting.variable).chain(OTHER_VARIABLES);
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = names.filter(|name| name.starts_with("OBJCACHE_") && !known().any(|it| it == name));
    unknown
        .map(|name| {
            let advice = match closest(&name, known()) {
                Some(meant) => format!("is {meant} meant?"),
                None => "unset it; objcache config list --json names all variables".to_owned(),
            };
            Check::found("unknown_variable", CheckState::Warning, format!("nothing reads {name}"), advice)
        })
        .collect()
}

fn compilers() -> Vec<Check> {
    let mut checks = vec![match CraneliftCompiler::new() {
        Ok(_) => Check::fine("compiler", "CLIF is compiled by the embedded Cranelift"),
        Err(error) => {
            let advice = "name another target with --target: Cranelift has none for this machine";
            Check::found("no_compiler", CheckState::Warning, error.to_string(), advice)
        }
    }];
    for (kind, language, advice) in [
        (IrKind::C, "C", "install clang or gcc, or name one with --compiler"),
        (IrKind::LlvmText, "LLVM IR", "install clang or llc, or name one with --compiler"),
    ] {
        checks.push(match CommandCompiler::find(&kind) {
            Ok(compiler) => {
                let name = objcache::Compiler::name(&compiler).to_owned();
                Check::fine("compiler", format!("{language} is compiled by {name}"))
            }
            Err(error) => Check::found(
                "no_compiler",
                CheckState::Warning,
                format!("{language} cannot be compiled: {error}"),
                advice,
            ),
        });
    }
    checks
}

/// Makes a function and loads it, as `run` would, and as it would under gdb.
fn code_loads() -> Check {
    let advice = "allow memory to become executable: MemoryDenyWriteExecute= of systemd, PR_SET_MDWE, seccomp, SELinux's execmem";
    match (load_with(Loader::new()), load_with(Loader::builder().memory(Arc::new(PageMemory::new())).build()))
    {
        (Ok(time), Ok(_)) => Check::fine("code", format!("code is loaded ({})", units::duration(time))),
        (Ok(_), Err(error)) => {
            let words = format!("code cannot be loaded under gdb (PageMemory), otherwise it can: {error}");
            Check::found("executable_memory_limited", CheckState::Warning, words, advice)
        }
        (Err(error), _) => {
            let words = format!("code cannot be loaded: {error}");
            Check::found("code_not_loaded", CheckState::Broken, words, advice)
        }
    }
}

fn load_with(loader: Loader) -> Result<Duration, String> {
    let text = "function %seven() -> i32 {\nblock0:\n    v0 = iconst.i32 7\n    return v0\n}\n";
    let request = CompileRequest::new(Source::new(IrKind::Clif, text));
    let without_cache = Arc::new(from_fn(|_| Ok(None), |_| Ok(())));
    let compiler = CraneliftCompiler::new().map_err(|error| error.to_string())?;
    let engine = Engine::builder(without_cache, compiler).loader(loader).build();
    Ok(engine.load(&request).map_err(|error| error.to_string())?.timings.load)
}

struct Examined {
    checks: Vec<Check>,
    findings: usize,
}

impl Serialize for Examined {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            findings: usize,
            checks: Vec<CheckFields<'a>>,
        }
        #[derive(Serialize)]
        struct CheckFields<'a> {
            code: &'a str,
            state: &'static str,
            message: &'a str,
            advice: Option<&'a str>,
        }
        let checks = self.checks.iter().map(|Check { code, state, words, advice }| CheckFields {
            code,
            state: word(*state),
            message: words,
            advice: (!advice.is_empty()).then_some(advice),
        });
        Fields { findings: self.findings, checks: checks.collect() }.serialize(to)
    }
}

fn word(state: CheckState) -> &'static str {
    match state {
        CheckState::Fine => "ok",
        CheckState::Note => "note",
        CheckState::Warning => "warning",
        CheckState::Broken => "error",
    }
}

impl Report for Examined {
    fn write_text(&self, text: &mut Text<'_>) -> io::Result<()> {
        for Check { state, words, advice, .. } in &self.checks {
            let color = match state {
                CheckState::Fine => AnsiColor::Green,
                CheckState::Note => AnsiColor::Cyan,
                CheckState::Warning => AnsiColor::Yellow,
                CheckState::Broken => AnsiColor::Red,
            };
            let style = if text.styled { color.on_default().bold() } else { Style::new() };
            writeln!(text.out, "{style}{:<8}{style:#}{}", word(*state), printable(words))?;
            if !advice.is_empty() {
                text.line(format!("        → {advice}"))?;
            }
        }
        text.line(match self.findings {
            0 => "nothing to mend".to_owned(),
            findings => units::count(findings as u64, "finding"),
        })
    }
}
