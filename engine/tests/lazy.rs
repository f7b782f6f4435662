//! Functions that are compiled through the cache when they are first called.

#![cfg(feature = "cranelift")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use objcache::cache::{ObjectCache, Store, StoreOptions};
use objcache::loader::{Implementation, Library, ProcessSymbols, pin};
use objcache::signature::{CompileInputs, IrKind};
use objcache::{
    CompileError, CompileRequest, Compiler, CraneliftCompiler, DumpDirectory, Engine, EngineError, Outcome,
    Prepared, Source,
};

/// Counts compilations.
struct Counting(CraneliftCompiler, Arc<AtomicUsize>);

impl Compiler for Counting {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn prepare(&self, request: &CompileRequest) -> Result<Prepared, CompileError> {
        self.0.prepare(request)
    }
    fn verify(&self, inputs: &CompileInputs) -> Result<(), CompileError> {
        self.0.verify(inputs)
    }
    fn compile(&self, inputs: &CompileInputs, dump: Option<&DumpDirectory>) -> Result<Vec<u8>, CompileError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.compile(inputs, dump)
    }
}

fn engine(folder: &std::path::Path) -> (Arc<Engine>, Arc<AtomicUsize>) {
    let compilations = Arc::new(AtomicUsize::new(0));
    let compiler = Counting(CraneliftCompiler::new().unwrap(), Arc::clone(&compilations));
    let store = Store::open_or_degrade(StoreOptions::at(folder));
    (Arc::new(Engine::builder(store, compiler).build()), compilations)
}

fn request(text: &str) -> CompileRequest {
    CompileRequest::new(Source::new(IrKind::Clif, text))
}

const SUM: &str = "function %sum(i32) -> i32 {\n    fn0 = %step(i32) -> i32\nblock0(v0: i32):\n    v1 = call fn0(v0)\n    \
    v2 = iadd v1, v0\n    return v2\n}\n";
const STEP: &str = "function %step(i32) -> i32 {\nblock0(v0: i32):\n    v1 = iconst.i32 1\n    v2 = iadd v0, v1\n    return v2\n}\n";

type Function = extern "C" fn(i32) -> i32;

#[test]
fn a_first_call_compiles_or_fetches_once_for_all_threads() {
    let folder = tempfile::tempdir().unwrap();
    // The second engine stands for a second process: it shares nothing but the folder.
    for expected in [2, 0] {
        let (engine, compilations) = engine(folder.path());
        let library = Library::new("app");
        for (name, text) in [("sum", SUM), ("step", STEP)] {
            // SAFETY: it is the text above, without initialisers.
            unsafe { engine.define_lazy(&library, name, request(text)) }.unwrap();
        }
        assert_eq!(compilations.load(Ordering::SeqCst), 0, "nothing was called");
        // SAFETY: that is its type.
        let sum = unsafe { library.get::<Function>("sum") }.unwrap();
        std::thread::scope(|scope| {
            for number in 0..4 {
                let sum = &sum;
                scope.spawn(move || {
                    let _guard = pin();
                    assert_eq!(sum(number), 2 * number + 1);
                });
            }
        });
        assert_eq!(compilations.load(Ordering::SeqCst), expected);
    }
}

#[test]
fn what_does_not_compile_comes_to_the_handler() {
    extern "C" fn instead(number: i32) -> i32 {
        -number
    }
    let folder = tempfile::tempdir().unwrap();
    let (engine, _) = engine(folder.path());
    let notes = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&notes);
    let library = Library::builder("app")
        .on_failure(move |error| {
            log.lock().unwrap().push(error.to_string());
            instead as Function as usize as u64
        })
        .build();
    // SAFETY: nothing of it will run.
    unsafe { engine.define_lazy(&library, "broken", request("function %broken(i32) -> i32 {")) }.unwrap();
    // SAFETY: as above: nobody defines `step`.
    unsafe { engine.define_lazy(&library, "sum", request(SUM)) }.unwrap();
    for name in ["broken", "sum"] {
        // SAFETY: what runs instead is of this type.
        assert_eq!(unsafe { library.get::<Function>(name) }.unwrap()(5), -5);
    }
    let notes = notes.lock().unwrap();
    assert!(
        notes[0].starts_with(
            "function `broken` of library `app`: it could not be made: cannot verify the CLIF text"
        ),
        "{notes:?}"
    );
    assert!(notes[1].contains("unresolved symbols: `step`"), "{notes:?}");
    // SAFETY: nothing is defined.
    let twice = unsafe { engine.define_lazy(&library, "sum", request(SUM)) }.unwrap_err();
    assert!(matches!(twice, EngineError::Library(_)), "{twice}");
}

/// Only tests of a cache do that: the entry is whole, and what it holds is no object.
#[test]
fn an_entry_that_does_not_load_is_compiled_afresh() {
    use objcache::cache::{CompiledObject, MemoryCache};
    let cache = Arc::new(MemoryCache::new(1 << 20));
    let compiler = CraneliftCompiler::new().unwrap();
    let engine = Engine::builder(Arc::clone(&cache), compiler).build();
    let text = "function %two() -> i32 {\nblock0:\n    v0 = iconst.i32 2\n    return v0\n}\n";
    let obtained = engine.obtain(&request(text)).unwrap();
    cache
        .notify_object_compiled(&CompiledObject {
            signature: obtained.signature,
            object: b"\x7fELF nonsense",
            key_document: &[],
            provenance: &Default::default(),
            namespace: "",
            compile_time: Default::default(),
            cpu_features: &[],
        })
        .unwrap();
    let library = Library::new("app");
    library.add_generator(ProcessSymbols);
    let (image, obtained) = engine.link_into(&library, &request(text)).unwrap();
    assert_eq!(obtained.outcome, Outcome::Miss);
    library.define_function("two", Implementation::from(&image)).unwrap();
    // SAFETY: that is its type.
    assert_eq!(unsafe { library.get::<extern "C" fn() -> i32>("two") }.unwrap()(), 2);
}
