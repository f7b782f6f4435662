//! What the object is compiled for.
//!
//! A CPU's name stands for features that depend on the compiler's version, and hosts mask features. So the
//! resolved feature list is an ingredient beside the name.

use std::collections::BTreeSet;

use super::{CodeModel, InputError, RelocationModel, TlsModel, names_native};

/// The machine and the code conventions that the object is compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Target triple, e.g. `x86_64-unknown-linux-gnu`.
    pub triple: String,
    /// Data layout, where the IR does not say it itself.
    pub data_layout: Option<String>,
    /// Code model, where it is not the compiler's default.
    pub code_model: Option<CodeModel>,
    /// Relocation model, where it is not the compiler's default.
    pub relocation_model: Option<RelocationModel>,
    /// Model of thread-local storage, where it is not the compiler's default.
    pub tls_model: Option<TlsModel>,
    /// CPU name, never `native`.
    pub cpu: String,
    /// Resolved features that decide which instructions may appear: `+avx2`, `-sse4a`.
    pub features: BTreeSet<String>,
    /// CPU that is tuned for, where it is another one than [`cpu`](Self::cpu).
    pub tune_cpu: Option<String>,
    /// Features that only decide the choice among instructions that are allowed.
    pub tuning: BTreeSet<String>,
}

impl Target {
    /// A triple and a CPU, with no features named and the compiler's default models.
    pub fn new(triple: impl Into<String>, cpu: impl Into<String>) -> Self {
        Self {
            triple: triple.into(),
            data_layout: None,
            code_model: None,
            relocation_model: None,
            tls_model: None,
            cpu: cpu.into(),
            features: BTreeSet::new(),
            tune_cpu: None,
            tuning: BTreeSet::new(),
        }
    }

    pub(super) fn check(&self) -> Result<(), InputError> {
        named("target_triple", &self.triple)?;
        named("cpu", &self.cpu)?;
        if let Some(cpu) = &self.tune_cpu {
            named("tune_cpu", cpu)?;
        }
        consistent("cpu_features", &self.features)?;
        consistent("tuning_features", &self.tuning)
    }
}

fn named(place: &'static str, value: &str) -> Result<(), InputError> {
    if value.is_empty() {
        return Err(InputError::Unnamed { place });
    }
    if names_native(value) {
        return Err(InputError::UnresolvedNative { place, value: value.to_owned() });
    }
    Ok(())
}

/// Every feature is named and none is both on and off. This runs for each signature: no allocation per feature.
fn consistent(place: &'static str, features: &BTreeSet<String>) -> Result<(), InputError> {
    let off: Vec<&str> = features.iter().filter_map(|feature| feature.strip_prefix('-')).collect();
    for feature in features {
        named(place, feature)?;
        // The set is sorted, and so is what is left of it.
        if let Some(name) = feature.strip_prefix('+').filter(|name| off.binary_search(name).is_ok()) {
            return Err(InputError::ContradictoryFeature { place, feature: name.to_owned() });
        }
    }
    Ok(())
}
