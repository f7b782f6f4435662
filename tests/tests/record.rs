//! An object that came out of the engine tells by itself what it was made of.

use objcache::cache::{MemoryCache, ObjectCache, Reason, Store, StoreOptions};
use objcache::signature::{OptLevel, Verdict, read_record, verdict};
use objcache::{CompileRequest, CraneliftCompiler, Engine, EngineError, Outcome, Source};

const KERNEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels/mandelbrot.clif");

#[test]
fn the_object_alone_tells_whether_it_must_be_rebuilt() {
    let engine = Engine::builder(MemoryCache::new(1 << 20), CraneliftCompiler::new().unwrap()).build();
    let mut request = CompileRequest::new(Source::read(KERNEL).unwrap());
    let obtained = engine.obtain(&request).unwrap();
    assert_eq!(verdict(&obtained.object, &obtained.inputs), Ok(Verdict::Fresh));

    let record = read_record(&obtained.object).unwrap();
    assert_eq!(record.key_document.signature(), obtained.signature);
    assert_eq!(record.provenance.source_path.as_deref(), Some(KERNEL));
    assert!(
        record.provenance.source_modified_unix_us.is_some() && record.provenance.compile_time_us.is_some()
    );

    request.optimization = OptLevel::O0;
    request.source.bytes.extend(b"\n; edited\n");
    let edited = engine.compiler().prepare(&request).unwrap().inputs;
    let Ok(Verdict::Stale { differences }) = verdict(&obtained.object, &edited) else {
        panic!("must be stale")
    };
    let named: Vec<_> = differences.iter().map(|difference| &*difference.ingredient).collect();
    assert_eq!(named, ["ir_length", "ir_digest", "optimization"]);
}

#[test]
fn so_do_objects_of_other_formats() {
    let engine = Engine::builder(MemoryCache::new(1 << 20), CraneliftCompiler::new().unwrap()).build();
    let mut request = CompileRequest::new(Source::read(KERNEL).unwrap());
    for (target, magic) in
        [("x86_64-apple-darwin", &b"\xcf\xfa\xed\xfe"[..]), ("x86_64-pc-windows-msvc", b"\x64\x86")]
    {
        request.target = Some(target.to_owned());
        let obtained = match engine.obtain(&request) {
            Ok(obtained) => obtained,
            Err(error) if !cfg!(target_arch = "x86_64") => {
                eprintln!("skipped: Cranelift is built for this machine only: {error}");
                return;
            }
            Err(error) => panic!("{target}: {error}"),
        };
        assert!(obtained.object.starts_with(magic), "{target}");
        assert_eq!(verdict(&obtained.object, &obtained.inputs), Ok(Verdict::Fresh), "{target}");
    }
}

#[test]
fn a_cached_object_that_does_not_load_is_compiled_afresh() {
    let cache = std::sync::Arc::new(MemoryCache::new(1 << 20));
    let engine = Engine::builder(cache.clone(), CraneliftCompiler::new().unwrap()).build();
    let request = CompileRequest::new(Source::read(KERNEL).unwrap());
    let good = engine.obtain(&request).unwrap();
    poison(&*cache, &good);
    let loaded = engine.load(&request).unwrap();
    assert_eq!(loaded.outcome, Outcome::Miss);
    assert!(loaded.image.address("escape").is_some());
    assert_eq!(engine.load(&request).unwrap().outcome, Outcome::Hit, "healed");
}

#[test]
fn who_is_strict_is_told_that_it_does_not_load() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = StoreOptions::at(folder.path().join("cache"));
    options.strict = true;
    let cache = std::sync::Arc::new(Store::open(options).unwrap());
    let engine = Engine::builder(cache.clone(), CraneliftCompiler::new().unwrap()).build();
    let request = CompileRequest::new(Source::read(KERNEL).unwrap());
    let good = engine.obtain(&request).unwrap();
    poison(&*cache, &good);
    let Err(EngineError::Cache(error)) = engine.load(&request) else { panic!("it does not load") };
    assert_eq!(error.reason(), Reason::DoesNotLoad);
}

/// Puts an object of another machine under the signature, as a faulty compiler could.
fn poison(cache: &dyn ObjectCache, good: &objcache::Obtained) {
    use objcache::cache::CompiledObject;
    let mut object = good.object.to_vec();
    object[18] = 0x28; // e_machine: ARM
    let provenance = Default::default();
    let offered = CompiledObject {
        signature: good.signature,
        object: &object,
        key_document: &[],
        provenance: &provenance,
        namespace: "",
        compile_time: std::time::Duration::from_millis(1),
        cpu_features: &[],
    };
    cache.notify_object_compiled(&offered).unwrap();
    assert_eq!(cache.get_object(&good.signature).unwrap().unwrap()[18], 0x28);
}
