//! What compilers say an object needs, and what the host is found to have, go by the same names: what was compiled
//! for this host is a hit on it, and what was compiled for a newer one is not run on an older.

use std::sync::Arc;

use objcache::cache::{CacheAdmin, HostFeatures, Store, StoreOptions, detectable_features};
use objcache::signature::IrKind;
use objcache::{CommandCompiler, CompileRequest, Compiler, Engine, Outcome, Source};

/// Skips what cannot be checked here. With `OBJCACHE_REQUIRE_ALL=1` that is a failure.
fn skip(why: &str) {
    assert!(std::env::var("OBJCACHE_REQUIRE_ALL").as_deref() != Ok("1"), "{why}");
    println!("skipped: {why}");
}

/// Every compiler there is, with a source for it.
fn compilers() -> Vec<(Arc<dyn Compiler>, CompileRequest)> {
    let c = CompileRequest::new(Source::new(IrKind::C, "int square(int x) { return x * x; }\n"));
    let mut compilers: Vec<(Arc<dyn Compiler>, CompileRequest)> = Vec::new();
    for name in ["clang", "gcc"] {
        match CommandCompiler::new(name) {
            Ok(compiler) => compilers.push((Arc::new(compiler), c.clone())),
            Err(error) => skip(&error.to_string()),
        }
    }
    #[cfg(feature = "cranelift")]
    {
        let text =
            "function %square(i32) -> i32 {\nblock0(v0: i32):\n    v1 = imul v0, v0\n    return v1\n}\n";
        let compiler = objcache::CraneliftCompiler::new().expect("there is one for this host");
        compilers.push((Arc::new(compiler), CompileRequest::new(Source::new(IrKind::Clif, text))));
    }
    compilers
}

fn store(root: &std::path::Path, host: HostFeatures) -> Arc<Store> {
    let mut options = StoreOptions::at(root);
    options.host_features = host;
    Arc::new(Store::open(options).expect("opens"))
}

#[test]
fn what_is_compiled_for_this_host_is_a_hit_on_it() {
    for (compiler, mut request) in compilers() {
        let name = compiler.name().to_owned();
        request.cpu = Some("native".to_owned());
        let needed = compiler.cpu_features(&compiler.prepare(&request).expect("prepared").inputs);
        if cfg!(target_arch = "x86_64") && is_x86_feature_detected("avx2") {
            assert!(needed.contains(&"x86/avx2".to_owned()), "{name}: {needed:?}");
        }
        let host = HostFeatures::detected();
        assert!(host.suffice_for(needed.iter().map(String::as_str)), "{name}: {needed:?}");

        let place = tempfile::tempdir().expect("a temporary directory");
        let store = store(&place.path().join("store"), HostFeatures::detected());
        let engine = Engine::builder(Arc::clone(&store), compiler).build();
        let outcome = || engine.obtain(&request).expect("compiles").outcome;
        assert_eq!([outcome(), outcome()], [Outcome::Miss, Outcome::Hit], "{name}");
        let entry = &store.list().expect("lists")[0];
        let record = store.record(&entry.signature).expect("reads").expect("there");
        assert_eq!(record.cpu_features, needed, "{name}");
    }
}

#[cfg(target_arch = "x86_64")]
fn is_x86_feature_detected(name: &str) -> bool {
    HostFeatures::detected().suffice_for([format!("x86/{name}").as_str()])
}

#[cfg(not(target_arch = "x86_64"))]
fn is_x86_feature_detected(_name: &str) -> bool {
    false
}

#[test]
fn what_is_compiled_for_a_newer_cpu_is_a_miss_on_an_older() {
    if !cfg!(target_arch = "x86_64") {
        return skip("levels of the architecture are of x86-64");
    }
    let features = detectable_features("x86_64").iter();
    let older: Vec<&str> = features.copied().filter(|it| !it.contains("avx")).collect();
    for (compiler, mut request) in compilers() {
        let name = compiler.name().to_owned();
        request.cpu = Some("x86-64-v3".to_owned());
        let place = tempfile::tempdir().expect("a temporary directory");
        let outcome = |host: HostFeatures| {
            let store = store(&place.path().join("store"), host);
            let engine = Engine::builder(store, Arc::clone(&compiler)).build();
            engine.obtain(&request).expect("compiles").outcome
        };
        let newer = || HostFeatures::of(detectable_features("x86_64").iter().copied());
        assert_eq!(outcome(newer()), Outcome::Miss, "{name}: the first");
        assert_eq!(outcome(newer()), Outcome::Hit, "{name}: the same host");
        assert_eq!(outcome(HostFeatures::of(older.iter().copied())), Outcome::Miss, "{name}: no AVX there");
        assert_eq!(outcome(HostFeatures::unknown()), Outcome::Hit, "{name}: it is only to be linked");

        request.cpu = None;
        request.features = Vec::new();
        if name != "cranelift" {
            let inputs = compiler.prepare(&request).expect("prepared").inputs;
            assert_eq!(compiler.cpu_features(&inputs), [""; 0], "{name}: what every CPU has");
        }
        request.flags = vec!["-mavx2".to_owned()];
        if name != "cranelift" {
            let inputs = compiler.prepare(&request).expect("prepared").inputs;
            let needed = compiler.cpu_features(&inputs);
            assert!(["x86/avx", "x86/avx2"].iter().all(|it| needed.contains(&(*it).to_owned())), "{name}");
            assert!(!needed.iter().any(|it| it.contains("avx512")), "{name}: {needed:?}");
        }
    }
}
