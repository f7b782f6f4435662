//! `native` made out: which CPU with which features the compiler would take on this host.
//!
//! Only the compiler itself knows, and each tells in its own way: clang and gcc show the command they would
//! run, `llc` writes its choice into the IR.

use std::collections::{BTreeMap, BTreeSet};

use objcache_signature::Target;

use super::dry_run;
use super::program::Family;
use super::run::Run;
use crate::error::CompileError;

/// What the compiler resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) cpu: Option<String>,
    pub(super) tune_cpu: Option<String>,
    /// Features, each with its sign.
    pub(super) features: BTreeSet<String>,
    /// Further parameters that tune, as gcc's cache sizes.
    pub(super) tuning: BTreeSet<String>,
}

impl Host {
    /// Asks the compiler what `flags`, of which some are `native`, come to for sources of `language`, as `-x`
    /// names it.
    pub(super) fn ask(
        family: Family,
        run: &Run<'_>,
        flags: &[String],
        language: &str,
    ) -> Result<Self, CompileError> {
        let host = match family {
            Family::Clang | Family::Gcc => {
                let dry = ["-###", "-x", language, "-c", "-o", "object.o", "-"].map(str::to_owned);
                let output = run.output(&[flags, &dry].concat(), None)?;
                let commands = dry_run::commands(&String::from_utf8_lossy(&output.stderr));
                commands.iter().find_map(|words| match family {
                    Family::Clang => Self::of_clang(words),
                    _ => Self::of_gcc(words),
                })
            }
            Family::Llc => {
                let stop = ["-stop-after=pre-isel-intrinsic-lowering", "-o", "-"].map(str::to_owned);
                let output = run.output(&[flags, &stop].concat(), Some(b"define void @f() { ret void }"))?;
                Self::of_llvm_attributes(&String::from_utf8_lossy(&output.stdout))
            }
        };
        host.ok_or_else(|| run.error("the compiler does not tell what `native` is on this host".to_owned()))
    }

    /// Puts what was resolved in its place.
    pub(super) fn apply(self, target: &mut Target) {
        if let Some(cpu) = self.cpu {
            target.cpu = cpu;
        }
        if self.tune_cpu.as_ref() != Some(&target.cpu) {
            target.tune_cpu = self.tune_cpu;
        }
        target.features = self.features;
        target.tuning = self.tuning;
    }

    fn of_clang(words: &[String]) -> Option<Self> {
        if !matches!(words.get(1)?.as_str(), "-cc1" | "-cc1as") {
            return None;
        }
        let mut host = Self::default();
        let mut features = BTreeMap::new();
        for pair in words.windows(2) {
            let [option, value] = pair else { continue };
            match option.as_str() {
                "-target-cpu" => host.cpu = Some(value.clone()),
                "-tune-cpu" => host.tune_cpu = Some(value.clone()),
                "-target-feature" => set_feature(&mut features, value),
                _ => {}
            }
        }
        host.features = features.into_iter().map(|(name, sign)| format!("{sign}{name}")).collect();
        Some(host)
    }

    fn of_gcc(words: &[String]) -> Option<Self> {
        let program = words.first()?.rsplit('/').next()?;
        if !program.starts_with("cc1") {
            return None;
        }
        let mut host = Self::default();
        let mut features = BTreeMap::new();
        for (index, word) in words.iter().enumerate() {
            if word == "--param" {
                host.tuning.extend(words.get(index + 1).cloned());
            } else if let Some(cpu) = word.strip_prefix("-march=").or(word.strip_prefix("-mcpu=")) {
                host.cpu = Some(cpu.to_owned());
            } else if let Some(cpu) = word.strip_prefix("-mtune=") {
                host.tune_cpu = Some(cpu.to_owned());
            } else if let Some(name) = word.strip_prefix("-mno-") {
                set_feature(&mut features, &format!("-{name}"));
            } else if let Some(name) = word.strip_prefix("-m").filter(|name| !name.contains('=')) {
                set_feature(&mut features, &format!("+{name}"));
            }
        }
        host.features = features.into_iter().map(|(name, sign)| format!("{sign}{name}")).collect();
        Some(host)
    }

    fn of_llvm_attributes(ir: &str) -> Option<Self> {
        let attribute = |name: &str| {
            let (_, rest) = ir.split_once(&format!("\"{name}\"=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let features = attribute("target-features").unwrap_or_default();
        let features = features.split(',').filter(|feature| !feature.is_empty()).map(str::to_owned).collect();
        Some(Self { cpu: Some(attribute("target-cpu")?), features, ..Self::default() })
    }
}

/// The last word on a feature counts.
fn set_feature(features: &mut BTreeMap<String, char>, feature: &str) {
    let mut characters = feature.chars();
    if let Some(sign @ ('+' | '-')) = characters.next() {
        features.insert(characters.as_str().to_owned(), sign);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn set(items: &[&str]) -> BTreeSet<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    #[test]
    fn each_compiler_is_understood() {
        let clang = "/bin/clang -cc1 -target-cpu znver4 -target-feature +avx2 -target-feature +sse4a -target-feature -avx2";
        let host = Host::of_clang(&words(clang)).unwrap();
        assert_eq!(host.cpu.as_deref(), Some("znver4"));
        assert_eq!(host.features, set(&["-avx2", "+sse4a"]));

        let gcc =
            "/lib/cc1 -quiet - -march=znver4 -mavx2 -mno-xop -msse4.1 --param l1-cache-size=32 -mtune=znver4";
        let host = Host::of_gcc(&words(gcc)).unwrap();
        assert_eq!((host.cpu.as_deref(), host.tune_cpu.as_deref()), (Some("znver4"), Some("znver4")));
        assert_eq!(host.features, set(&["+avx2", "-xop", "+sse4.1"]));
        assert_eq!(host.tuning, set(&["l1-cache-size=32"]));
        assert_eq!(Host::of_gcc(&words("as --64 -o x")), None);

        let llc = "attributes #0 = { \"target-cpu\"=\"znver4\" \"target-features\"=\"+avx2,-xop\" }";
        assert_eq!(Host::of_llvm_attributes(llc).unwrap().features, set(&["+avx2", "-xop"]));
    }
}
