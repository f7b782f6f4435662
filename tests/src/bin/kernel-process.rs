//! A process as users have them: it opens the store, obtains a kernel, loads it, calls it.
//!
//! `kernel-process FOLDER DELAY_MS`: prints `hit` or `miss`, and the result.

use std::path::PathBuf;
use std::time::Duration;

use objcache::cache::{Store, StoreOptions};
use objcache::{CompileRequest, CraneliftCompiler, Engine, Outcome, Source};
use objcache_tests::LoggingCompiler;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: kernel-process FOLDER DELAY_MS")?);
    let delay = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(0);
    let compiler = LoggingCompiler {
        inner: CraneliftCompiler::new()?,
        log: folder.join("log"),
        delay: Duration::from_millis(delay),
        kill_marker: Some(folder.join("kill")),
    };
    let engine = Engine::builder(Store::open_or_degrade(StoreOptions::from_environment()), compiler).build();
    let loaded = engine.load(&CompileRequest::new(Source::read(folder.join("kernel.clif"))?))?;
    // SAFETY: every kernel of these tests is `function %answer() -> i32 system_v`.
    let answer = unsafe { loaded.image.get::<extern "C" fn() -> i32>("answer") }?;
    println!("{} {}", if loaded.outcome == Outcome::Hit { "hit" } else { "miss" }, answer());
    Ok(())
}
