//! What the processor of this host can do, and whether that is enough for an entry.
//!
//! A signature names the CPU that an object was compiled for, not the one that runs it: the same command line
//! (`-march=x86-64-v4`) is the same signature everywhere, and on an older host its code ends in an illegal
//! instruction. So an entry carries the features its code may use, and they are held against the host's before
//! it is handed over.
//!
//! To a cache a feature is an opaque string, `machine/name`. Names are LLVM's: `x86/avx2`, `aarch64/sve`.

use std::sync::{Arc, OnceLock};

/// The longest encoding of an entry's features, in bytes.
pub(crate) const LIMIT: usize = 16 * 1024;

macro_rules! features {
    ($machine:literal, $known:ident, $detected:ident, $detect:ident, [$($architecture:literal),*],
        $($name:literal = $asked:tt,)*) => {
        const $known: &[&str] = &[$(concat!($machine, "/", $name),)*];

        #[cfg(any($(target_arch = $architecture),*))]
        fn $detected() -> Vec<&'static str> {
            let mut found = Vec::new();
            $(if std::arch::$detect!($asked) {
                found.push(concat!($machine, "/", $name));
            })*
            found
        }
    };
}

// Left is LLVM's name, right the name by which Rust asks. What only the operating system uses, or what cannot be
// asked for, is left out: it would make misses of entries that run.
features! {
    "x86", X86, detected_x86, is_x86_feature_detected, ["x86", "x86_64"],
    "adx" = "adx", "aes" = "aes", "avx" = "avx", "avx2" = "avx2", "avx512bf16" = "avx512bf16",
    "avx512bitalg" = "avx512bitalg", "avx512bw" = "avx512bw", "avx512cd" = "avx512cd",
    "avx512dq" = "avx512dq", "avx512f" = "avx512f", "avx512fp16" = "avx512fp16",
    "avx512ifma" = "avx512ifma", "avx512vbmi" = "avx512vbmi", "avx512vbmi2" = "avx512vbmi2",
    "avx512vl" = "avx512vl", "avx512vnni" = "avx512vnni",
    "avx512vp2intersect" = "avx512vp2intersect", "avx512vpopcntdq" = "avx512vpopcntdq",
    "avxifma" = "avxifma", "avxneconvert" = "avxneconvert", "avxvnni" = "avxvnni",
    "avxvnniint16" = "avxvnniint16", "avxvnniint8" = "avxvnniint8", "bmi" = "bmi1", "bmi2" = "bmi2",
    "cx16" = "cmpxchg16b", "f16c" = "f16c", "fma" = "fma", "gfni" = "gfni", "lzcnt" = "lzcnt",
    "movbe" = "movbe", "pclmul" = "pclmulqdq", "popcnt" = "popcnt", "rdrnd" = "rdrand",
    "rdseed" = "rdseed", "rtm" = "rtm", "sha" = "sha", "sha512" = "sha512", "sm3" = "sm3",
    "sm4" = "sm4", "sse" = "sse", "sse2" = "sse2", "sse3" = "sse3", "sse4.1" = "sse4.1",
    "sse4.2" = "sse4.2", "sse4a" = "sse4a", "ssse3" = "ssse3", "tbm" = "tbm", "vaes" = "vaes",
    "vpclmulqdq" = "vpclmulqdq",
}

features! {
    "aarch64", AARCH64, detected_aarch64, is_aarch64_feature_detected, ["aarch64"],
    "aes" = "aes", "bf16" = "bf16", "complxnum" = "fcma", "crc" = "crc", "dotprod" = "dotprod",
    "f32mm" = "f32mm", "f64mm" = "f64mm", "fp16fml" = "fhm", "fptoint" = "frintts",
    "fullfp16" = "fp16", "i8mm" = "i8mm", "jsconv" = "jsconv", "lse" = "lse", "neon" = "neon",
    "rcpc" = "rcpc", "rcpc-immo" = "rcpc2", "rdm" = "rdm", "sha2" = "sha2", "sha3" = "sha3",
    "sm4" = "sm4", "sve" = "sve", "sve2" = "sve2",
}

/// What can be said of hosts with processors of an architecture, as target triples name it, each as
/// `machine/name` and in ascending order. None: nothing can be found out about them.
pub fn detectable_features(architecture: &str) -> &'static [&'static str] {
    match architecture {
        "x86_64" | "amd64" | "x86_64h" | "i386" | "i486" | "i586" | "i686" | "x86" => X86,
        "aarch64" | "arm64" | "arm64e" => AARCH64,
        _ => &[],
    }
}

/// The features of the processor that is to run what a cache holds.
#[derive(Debug, Clone, Default)]
pub struct HostFeatures(Kind);

#[derive(Debug, Clone, Default)]
enum Kind {
    /// Asked of the processor when the first entry wants to know.
    #[default]
    Detected,
    // Ascending.
    Given(Arc<[String]>),
    Unknown,
}

impl HostFeatures {
    /// Those of the processor this process runs on, as far as its operating system allows their use. This is
    /// the default.
    pub fn detected() -> Self {
        Self::default()
    }

    /// Exactly these, each as `machine/name`.
    pub fn of(features: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut features: Vec<String> = features.into_iter().map(Into::into).collect();
        features.sort_unstable();
        features.dedup();
        Self(Kind::Given(features.into()))
    }

    /// Nobody knows, or nobody here is going to run it: entries are handed over whatever they need.
    pub fn unknown() -> Self {
        Self(Kind::Unknown)
    }

    /// Whether an object that needs `features` runs here, as far as can be told.
    ///
    /// What is for another machine (the part before the slash) than any feature of the host does not run here
    /// anyway, and is there to be linked or copied: nothing is asked of it.
    pub fn suffice_for<'a>(&self, features: impl IntoIterator<Item = &'a str>) -> bool {
        let mut features = features.into_iter().peekable();
        if features.peek().is_none() {
            return true;
        }
        match &self.0 {
            Kind::Unknown => true,
            Kind::Given(given) => suffice(given, features),
            Kind::Detected => suffice(detected(), features),
        }
    }
}

fn suffice<'a>(host: &[impl AsRef<str>], mut needed: impl Iterator<Item = &'a str>) -> bool {
    let machine = |feature: &str| feature.split_once('/').map_or("", |(machine, _)| machine).to_owned();
    let has = |feature: &str| host.binary_search_by(|it| it.as_ref().cmp(feature)).is_ok();
    needed.all(|feature| {
        has(feature) || {
            let of = machine(feature);
            host.iter().all(|it| machine(it.as_ref()) != of)
        }
    })
}

fn detected() -> &'static [&'static str] {
    static DETECTED: OnceLock<Vec<&'static str>> = OnceLock::new();
    DETECTED.get_or_init(|| {
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        return detected_x86();
        #[cfg(target_arch = "aarch64")]
        return detected_aarch64();
        #[allow(unreachable_code)]
        Vec::new()
    })
}

/// Features as an entry keeps them: sorted, without repetitions, each with its length before it.
///
/// `None`: too many, or one that is empty or longer than a length says.
pub(crate) fn encode(features: &[String]) -> Option<Vec<u8>> {
    let mut sorted: Vec<&str> = features.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut bytes = Vec::new();
    for feature in sorted {
        bytes.push(u8::try_from(feature.len()).ok().filter(|length| *length > 0)?);
        bytes.extend_from_slice(feature.as_bytes());
    }
    (bytes.len() <= LIMIT).then_some(bytes)
}

/// Reads what [`encode`] wrote; `None` when it is nothing of the kind.
pub(crate) fn decode(mut bytes: &[u8]) -> Option<Vec<&str>> {
    let mut features = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (feature, rest) = rest.split_at_checked(usize::from(length))?;
        features.push(std::str::from_utf8(feature).ok().filter(|feature| !feature.is_empty())?);
        bytes = rest;
    }
    Some(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(features: &[&str]) -> Vec<String> {
        features.iter().map(|&feature| feature.to_owned()).collect()
    }

    #[test]
    fn an_object_runs_where_all_it_needs_is_there() {
        let host = HostFeatures::of(["x86/sse2", "x86/avx"]);
        assert!(host.suffice_for([]));
        assert!(host.suffice_for(["x86/avx", "x86/sse2"]));
        assert!(!host.suffice_for(["x86/avx", "x86/avx2"]));
        assert!(!host.suffice_for(["x86/av"]));
        assert!(host.suffice_for(["aarch64/sve"]), "it cannot run here whatever the host has");
        assert!(HostFeatures::unknown().suffice_for(["x86/avx2"]));
        assert!(HostFeatures::of([""; 0]).suffice_for(["x86/avx2"]), "nothing is known of such a host");
    }

    #[test]
    fn this_host_has_what_its_architecture_promises() {
        let here = detectable_features(std::env::consts::ARCH);
        assert!(here.is_sorted(), "looked up by bisection");
        assert!(detected().is_sorted());
        assert!(detected().iter().all(|feature| here.contains(feature)));
        if cfg!(target_arch = "x86_64") {
            assert!(HostFeatures::detected().suffice_for(["x86/sse2"]));
            assert!(!HostFeatures::detected().suffice_for(["x86/no-such-thing"]));
        }
    }

    #[test]
    fn features_come_back_sorted_and_hostile_ones_do_not() {
        let bytes = encode(&owned(&["x86/b", "x86/a", "x86/b"])).expect("short");
        assert_eq!(decode(&bytes), Some(vec!["x86/a", "x86/b"]));
        assert_eq!(decode(b""), Some(vec![]));
        for hostile in [&b"\x05abc"[..], b"\x00", b"\x01\xff", b"\x01a\x02"] {
            assert_eq!(decode(hostile), None, "{hostile:?}");
        }
        assert_eq!(encode(&owned(&[""])), None);
        assert_eq!(encode(&["x".repeat(256)]), None);
        let many: Vec<String> = (0..LIMIT).map(|number| number.to_string()).collect();
        assert_eq!(encode(&many), None);
    }
}
