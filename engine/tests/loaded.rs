//! What each compiler makes runs: compiled, loaded and called by the prototype.

use objcache::cache::MemoryCache;
use objcache::call::{Prototype, Value, call};
use objcache::loader::{LoadedImage, ProcessSymbols, SymbolResolver, chain, from_fn};
use objcache::signature::{IrKind, OptLevel};
use objcache::{CommandCompiler, CompileRequest, Compiler, Engine, Outcome, Source};

extern "C" fn host_add(a: i32, b: i32) -> i32 {
    a + b
}

fn resolver() -> impl SymbolResolver {
    chain(from_fn(|name| (name == "host_add").then_some(host_add as *const () as u64)), ProcessSymbols)
}

fn engine(compiler: impl Compiler + 'static) -> Engine {
    Engine::builder(MemoryCache::new(1 << 20), compiler).resolver(resolver()).build()
}

fn called(image: &LoadedImage, name: &str, prototype: &str, arguments: &[Value]) -> Value {
    let address = image.address(name).unwrap_or_else(|| panic!("no `{name}`"));
    let prototype: Prototype = prototype.parse().unwrap();
    // SAFETY: each test states the prototype of the function it calls, and keeps the image.
    unsafe { call(address, &prototype, arguments) }.unwrap()
}

#[cfg(feature = "cranelift")]
#[test]
fn clif_runs() {
    let text = "function %sum(i32) -> i32 {\n    fn0 = %add(i32, i32) -> i32\n    fn1 = %host_add(i32, i32) -> i32\nblock0(v0: i32):\n    \
        v1 = iconst.i32 0\n    jump block1(v0, v1)\nblock1(v2: i32, v3: i32):\n    brif v2, block2, block3\nblock2:\n    \
        v4 = call fn1(v3, v2)\n    v5 = iconst.i32 -1\n    v6 = call fn0(v2, v5)\n    jump block1(v6, v4)\nblock3:\n    return v3\n}\n\
        function %add(i32, i32) -> i32 {\nblock0(v0: i32, v1: i32):\n    v2 = iadd v0, v1\n    return v2\n}\n\
        function %down(f64) -> f64 {\nblock0(v0: f64):\n    v1 = floor v0\n    return v1\n}\n";
    let engine = engine(objcache::CraneliftCompiler::new().unwrap());
    // With and without the host's features: `floor` then is an instruction, or a call of libm through the GOT.
    for cpu in [None, Some("generic".to_owned())] {
        let request = CompileRequest { cpu, ..CompileRequest::new(Source::new(IrKind::Clif, text)) };
        for outcome in [Outcome::Miss, Outcome::Hit] {
            let loaded = engine.load(&request).unwrap();
            assert_eq!(loaded.outcome, outcome);
            let prototypes = engine.compiler().prototypes(&loaded.inputs).unwrap();
            let (_, prototype) = prototypes.iter().find(|(name, _)| name == "sum").unwrap();
            assert_eq!(
                called(&loaded.image, "sum", &prototype.to_string(), &[Value::I32(10)]),
                Value::I32(55)
            );
            assert_eq!(called(&loaded.image, "down", "f64(f64)", &[Value::F64(-1.5)]), Value::F64(-2.0));
        }
    }
}

#[test]
fn c_runs() {
    let text = "extern int host_add(int, int);\n\
        static const int table[] = {3, 1, 4, 1, 5, 9, 2, 6};\nint total = 100;\n\
        static int pick(unsigned i) { return table[i % 8]; }\nint (*picker)(unsigned) = pick;\n\
        int sum(int n) { for (int i = 0; i < n; i++) total = host_add(total, picker(i)); return total; }\n\
        double scaled(float a, double b) { return a * b + 0.5; }\n";
    for compiler in [CommandCompiler::new("gcc"), CommandCompiler::find(&IrKind::C)] {
        let compiler = match compiler {
            Ok(compiler) => compiler,
            Err(error) => {
                assert!(std::env::var("OBJCACHE_REQUIRE_ALL").as_deref() != Ok("1"), "{error}");
                println!("skipped: {error}");
                continue;
            }
        };
        let name = compiler.program().display().to_string();
        let engine = engine(compiler);
        for (optimization, flags) in
            [(OptLevel::O0, ""), (OptLevel::O3, "-march=native"), (OptLevel::Os, "-g")]
        {
            let flags = flags.split_whitespace().map(str::to_owned).collect();
            let source = Source::new(IrKind::C, text);
            let request = CompileRequest { optimization, flags, ..CompileRequest::new(source) };
            for outcome in [Outcome::Miss, Outcome::Hit] {
                let loaded = engine.load(&request).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(loaded.outcome, outcome, "{name}");
                assert_eq!(called(&loaded.image, "sum", "i32(i32)", &[Value::I32(5)]), Value::I32(114));
                let arguments = [Value::F32(1.5), Value::F64(4.0)];
                assert_eq!(called(&loaded.image, "scaled", "f64(f32,f64)", &arguments), Value::F64(6.5));
            }
        }
    }
}

#[cfg(feature = "cranelift")]
#[test]
fn a_source_that_does_not_compile_is_compiled_once() {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use objcache::signature::CompileInputs;
    use objcache::{CompileError, DumpDirectory, EngineError, Prepared};

    /// Counts how often the other compiles.
    struct Counted(objcache::CraneliftCompiler, std::sync::Arc<AtomicU32>);

    impl Compiler for Counted {
        fn name(&self) -> &str {
            self.0.name()
        }

        fn prepare(&self, request: &CompileRequest) -> Result<Prepared, CompileError> {
            self.0.prepare(request)
        }

        fn verify(&self, inputs: &CompileInputs) -> Result<(), CompileError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.verify(inputs)
        }

        fn compile(
            &self,
            inputs: &CompileInputs,
            dump: Option<&DumpDirectory>,
        ) -> Result<Vec<u8>, CompileError> {
            self.0.compile(inputs, dump)
        }
    }

    let compiled = std::sync::Arc::new(AtomicU32::new(0));
    let compiler = Counted(objcache::CraneliftCompiler::new().unwrap(), compiled.clone());
    let cache = MemoryCache::new(1 << 20).remember_failures(Duration::from_secs(3600));
    let engine = Engine::builder(cache, compiler).build();
    let text = "function %f() -> i32 {\nblock0:\n    v0 = iconst.i64 1\n    return v0\n}\n";
    let request = CompileRequest::new(Source::new(IrKind::Clif, text));
    let errors = [(); 3].map(|()| match engine.load(&request) {
        Err(EngineError::Compile(error)) => error,
        other => panic!("{other:?}"),
    });
    assert!(errors.iter().all(|error| error.is_source_at_fault && error.why == errors[0].why), "{errors:?}");
    assert_eq!(compiled.load(Ordering::Relaxed), 1);
}
