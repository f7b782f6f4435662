//! `objcache-cross OBJECT CALL…` loads an object file into this process, runs its initialisers, makes the calls, and
//! prints what they return. A call is `name` or `name,1,2`: a function of `int` parameters that returns an `int`; with an
//! `@` before it, it is made in a thread of its own.
//! `objcache-cross --library OBJECT…` does what [`library`] says.
//! `objcache-cross --conformance` checks what the memory manager promises.
//!
//! Built for other machines it runs under an emulator: see `tests/cross/tests/emulated.rs`. The last line says how many bytes of
//! code were made visible to the instruction cache, which no emulator would notice the want of.

mod library;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use objcache_loader::{
    AbsoluteSymbols, HostCache, InstructionCache, LoadedImage, Loader, MemoryError, MemoryManager,
    PageMemory, ProcessSymbols, SharedLibrary, SymbolResolver, conformance,
};

static NOTES: AtomicI32 = AtomicI32::new(0);
static HOST_COUNTER: AtomicI32 = AtomicI32::new(7);
static FINALIZED: AtomicI32 = AtomicI32::new(0);

extern "C" fn host_add(a: i32, b: i32) -> i32 {
    a.wrapping_add(b)
}

/// Keeps what was noted, and in which order.
extern "C" fn host_note(what: i32) {
    let before = NOTES.load(Ordering::Relaxed);
    NOTES.store(before.wrapping_mul(31).wrapping_add(what), Ordering::Relaxed);
}

/// Does what the host's cache asks for, and counts it.
#[derive(Debug, Default)]
struct Counting(AtomicUsize);

impl InstructionCache for Counting {
    fn synchronize(&self, code: &[u8]) -> Result<(), MemoryError> {
        self.0.fetch_add(code.len(), Ordering::Relaxed);
        HostCache.synchronize(code)
    }
}

/// What objects may refer to: this program's part, and the libraries'.
struct Host {
    own: AbsoluteSymbols,
    libraries: Vec<SharedLibrary>,
}

impl Host {
    fn new() -> Self {
        let own = [
            ("host_add", host_add as *const () as u64),
            ("host_note", host_note as *const () as u64),
            ("host_counter", HOST_COUNTER.as_ptr() as u64),
            ("finalized_flag", FINALIZED.as_ptr() as u64),
        ];
        // SAFETY: the initialisers of these libraries prepare themselves only.
        let open = |name| unsafe { SharedLibrary::open(name) }.ok();
        Host {
            own: own.into_iter().map(|(name, address)| (name.to_owned(), address)).collect(),
            libraries: [c"libstdc++.so.6", c"libgcc_s.so.1"].into_iter().filter_map(open).collect(),
        }
    }
}

impl SymbolResolver for Host {
    fn resolve(&self, name: &str) -> Option<u64> {
        let library = || self.libraries.iter().find_map(|library| library.resolve(name));
        self.own.resolve(name).or_else(|| ProcessSymbols.resolve(name)).or_else(library)
    }
}

fn call(image: &LoadedImage, call: &str) -> Result<i32, String> {
    let mut parts = call.split(',');
    let name = parts.next().unwrap_or_default();
    let arguments: Vec<i32> =
        parts.map(str::parse).collect::<Result<_, _>>().map_err(|error| format!("{call}: {error}"))?;
    let at = |number: usize| arguments.get(number).copied().unwrap_or_default();
    // SAFETY: the caller names functions of `int` parameters, of objects it compiled; spare arguments are passed in
    // registers and ignored.
    let function = unsafe { image.get::<extern "C" fn(i32, i32) -> i32>(name) };
    Ok(function.map_err(|error| error.to_string())?(at(0), at(1)))
}

/// As `OBJCACHE_CROSS_MEMORY` says: pages of each image's own, or slabs, where there are any.
fn memory(cache: Arc<Counting>) -> Arc<dyn MemoryManager> {
    let wanted = std::env::var("OBJCACHE_CROSS_MEMORY").unwrap_or_default();
    match wanted.as_str() {
        #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
        "slabs" => Arc::new(objcache_loader::SlabMemory::with_cache(cache)),
        _ => Arc::new(PageMemory::with_cache(cache)),
    }
}

/// All but the protections: what the emulator says of mappings is not right where one follows another.
fn conforms(manager: &dyn MemoryManager) {
    conformance::working_memory_is_as_long_as_asked_and_zero_where_it_says_so(manager);
    conformance::targets_are_aligned_near_each_other_and_low_when_asked(manager);
    conformance::targets_show_what_was_written_until_they_are_freed(manager);
    conformance::live_targets_do_not_overlap(manager);
    conformance::what_cannot_be_had_is_an_error_that_changes_nothing(manager);
    conformance::arenas_hold_code_alone(manager);
    conformance::code_runs_from_many_threads(manager);
}

fn run(object: &str, calls: &[String]) -> Result<(), String> {
    let bytes = std::fs::read(object).map_err(|error| format!("{object}: {error}"))?;
    let cache = Arc::new(Counting::default());
    let loader = Loader::builder().memory(memory(cache.clone())).build();
    let image = loader.load(&bytes, &Host::new()).map_err(|error| format!("{object}: {error}"))?;
    // SAFETY: the object is the caller's own; no other thread has the image.
    unsafe { image.run_initializers() };
    for name in calls {
        let result = match name.strip_prefix('@') {
            None => call(&image, name),
            Some(name) => std::thread::scope(|scope| {
                let thread = scope.spawn(|| call(&image, name));
                thread.join().map_err(|_| format!("{name}: the thread panicked"))?
            }),
        };
        println!("{name} = {}", result?);
    }
    drop(image);
    println!("notes = {}", NOTES.load(Ordering::Relaxed));
    println!("finalized = {}", FINALIZED.load(Ordering::Relaxed));
    eprintln!("{} bytes of code made visible", cache.0.load(Ordering::Relaxed));
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((object, calls)) = arguments.split_first() else {
        eprintln!("usage: objcache-cross OBJECT CALL…");
        return ExitCode::from(2);
    };
    let result = match &**object {
        "--library" => library::run(calls).map_err(|error| error.to_string()),
        "--conformance" => {
            conforms(&*memory(Arc::default()));
            Ok(())
        }
        object => run(object, calls),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("objcache-cross: {error}");
            ExitCode::FAILURE
        }
    }
}
