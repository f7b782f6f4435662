//! Which CPU features an object needs, in the words in which a cache keeps and checks them.
//!
//! Compilers spell features each in its own way; here all become LLVM's names behind the name of the machine, as
//! in `x86/avx2`. Only what can be asked of a host counts ([`detectable_features`]): a feature that no host
//! could be found to have would make a miss of every look-up.

use objcache_cache::detectable_features;

/// The features that code for `triple` may use, out of a resolved list such as that of
/// [`Target::features`](objcache_signature::Target::features), in LLVM's, gcc's or Cranelift's spelling.
pub fn needed_cpu_features<'a>(triple: &str, features: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let on: Vec<&str> = features.into_iter().filter_map(|feature| feature.strip_prefix('+')).collect();
    needed(triple, |name| {
        on.contains(&name) || on.iter().any(|it| it.strip_prefix("has_") == Some(&*cranelift_spelling(name)))
    })
}

/// Those that code for `triple` may use, when of a feature by LLVM's name can be told whether it is on.
pub(crate) fn needed(triple: &str, is_on: impl Fn(&str) -> bool) -> Vec<String> {
    let architecture = triple.split('-').next().unwrap_or_default();
    let known = detectable_features(architecture).iter();
    let on = known.filter(|feature| feature.split_once('/').is_some_and(|(_, name)| is_on(name)));
    on.map(|&feature| feature.to_owned()).collect()
}

/// Where LLVM's name, less its punctuation, is not Cranelift's.
pub(crate) fn cranelift_spelling(name: &str) -> String {
    match name {
        "cx16" => "cmpxchg16b".to_owned(),
        "bmi" => "bmi1".to_owned(),
        "avxvnni" => "avx_vnni".to_owned(),
        "fullfp16" => "fp16".to_owned(),
        "pauth" | "paca" => "pauth".to_owned(),
        other => other.replace('.', "").to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_becomes_llvms() {
        let needed = |features: &[&str]| needed_cpu_features("x86_64-pc-linux-gnu", features.iter().copied());
        assert_eq!(needed(&["+avx2", "-bmi", "+sse4.1"]), ["x86/avx2", "x86/sse4.1"]);
        let cranelift = ["+has_avx2", "+has_bmi1", "-has_fma", "+has_cmpxchg16b", "+has_sse41"];
        assert_eq!(needed(&cranelift), ["x86/avx2", "x86/bmi", "x86/cx16", "x86/sse4.1"]);
        assert_eq!(needed(&["+x87", "+no-such-thing", "avx"]), [""; 0]);
        assert_eq!(
            needed_cpu_features("aarch64-unknown-linux-gnu", ["+lse", "+has_fp16"]),
            ["aarch64/fullfp16", "aarch64/lse"]
        );
        assert_eq!(
            needed_cpu_features("riscv64gc-unknown-linux-gnu", ["+m"]),
            [""; 0],
            "cannot be asked for"
        );
    }
}
