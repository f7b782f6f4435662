//! A function that is compiled when it is first called: by the first process; the second finds it in the cache, at its
//! first call too. Then the function is replaced while a thread calls it.
//!
//! `cargo run --release --example lazy`

use std::error::Error;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use objcache::cache::{Store, StoreOptions};
use objcache::loader::{Implementation, Library, ProcessSymbols, pin};
use objcache::signature::IrKind;
use objcache::{CompileRequest, CraneliftCompiler, Engine, Source};

const SQUARE: &str =
    "function %power(i64) -> i64 {\nblock0(v0: i64):\n    v1 = imul v0, v0\n    return v1\n}\n";
const CUBE: &str = "function %power(i64) -> i64 {\nblock0(v0: i64):\n    v1 = imul v0, v0\n    v2 = imul v1, v0\n    return v2\n}\n";

/// Tells the second process that it is the second.
const SECOND: &str = "OBJCACHE_EXAMPLE_SECOND_PROCESS";

type Power = extern "C" fn(i64) -> i64;

fn main() -> Result<(), Box<dyn Error>> {
    let cache = Store::open_or_degrade(StoreOptions::from_environment());
    let engine = Arc::new(Engine::builder(cache, CraneliftCompiler::new()?).build());
    let request = |text: &str| CompileRequest::new(Source::new(IrKind::Clif, text));

    let library = Library::new("example");
    library.add_generator(ProcessSymbols);
    let first = (Arc::clone(&engine), request(SQUARE));
    // `Engine::define_lazy` is the same without the message.
    library.define_lazy("power", move |library| {
        let (engine, request) = first;
        let (image, obtained) = engine.link_into(library, &request)?;
        println!("process {}: first call, {:?}", std::process::id(), obtained.outcome);
        Ok(Implementation::from(&image))
    })?;

    // SAFETY: both versions are of this type, and are called under guards.
    let power = unsafe { library.get::<Power>("power") }?;
    println!("process {}: nothing is compiled yet", std::process::id());
    let guard = pin();
    println!("power(7) = {}", power(7));
    drop(guard);

    let (cube, _) = engine.link_into(&library, &request(CUBE))?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _guard = pin();
                assert!([49, 343].contains(&power(7)));
            }
        });
        // SAFETY: the type is the same, and every call is made under a guard.
        let old = unsafe { library.redefine("power", &cube) };
        done.store(true, Ordering::Relaxed);
        old.map(drop)
    })?;
    println!("power(7) = {} from now on", power(7));

    match std::env::var_os(SECOND) {
        Some(_) => Ok(()),
        None => match Command::new(std::env::current_exe()?).env(SECOND, "1").status()? {
            status if status.success() => Ok(()),
            _ => Err("the second process failed".into()),
        },
    }
}
