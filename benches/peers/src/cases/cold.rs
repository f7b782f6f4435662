//! A whole process: it starts, gets one object, loads it, calls it and ends. Another program (`bin/cold.rs`), as small as
//! each way allows.

use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::Command;

use crate::measure::{median, turns};

/// What a process does: its name in the table, and the argument of `cold`.
pub const WAYS: [(&str, &str); 6] = [
    ("nothing", "nothing"),
    ("objcache: load", "objcache"),
    ("objcache: hit in the store, load", "hit"),
    ("dlopen", "dlopen"),
    ("LLVM 22 LLJIT", "LLVM 22 LLJIT (JITLink)"),
    ("LLVM 22 raw jitlink::link", "LLVM 22 raw"),
];

/// Nanoseconds of CPU time of the whole process, by [`WAYS`].
pub fn compare(folder: &Path, object: &Path, shared: &Path) -> Vec<Option<f64>> {
    const ROUNDS: usize = 150;
    let store = folder.join("store");
    let _ = fs::remove_dir_all(&store);
    let process = |way: &str| {
        let mut command = Command::new(folder.join("cold"));
        command.arg(way).arg(object).arg(shared).env("OBJCACHE_DIR", &store);
        command
    };
    assert!(process("fill").status().is_ok_and(|status| status.success()), "the store is filled");
    let mut times = vec![Vec::new(); WAYS.len()];
    for round in 0..ROUNDS {
        for way in turns(round, WAYS.len()) {
            times[way].extend(cpu_time(process(WAYS[way].1)));
        }
    }
    times.iter_mut().map(|times| median(times)).collect()
}

/// Of a child that succeeds.
fn cpu_time(mut command: Command) -> Option<f64> {
    let before = time_of_children();
    let status = command.status().expect("it starts");
    status.success().then(|| time_of_children() - before)
}

/// Nanoseconds that the kernel counts for children which ended.
#[allow(unsafe_code)] // The standard library does not tell.
fn time_of_children() -> f64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the place can be written.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    // SAFETY: filled in by the call, and zero before, which is a value of it.
    let usage = unsafe { usage.assume_init() };
    let nanoseconds = |time: libc::timeval| time.tv_sec as f64 * 1e9 + time.tv_usec as f64 * 1e3;
    nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime)
}
