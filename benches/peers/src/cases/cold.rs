//! A whole process: it starts, gets one object, loads it, calls it and ends. Another program (`bin/cold.rs`), as small as
//! each way allows. Other builds of objcache have their own.

use std::fs;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure::{median, turns};

/// What a process does.
pub struct Way {
    /// Its name in the table.
    pub name: String,
    program: PathBuf,
    argument: &'static str,
    /// Which way is the same program doing nothing.
    pub nothing: usize,
}

/// All ways: those of the programs in `folder`, and in the folders of other builds, which have names.
pub fn ways(folder: &Path, others: &[(String, PathBuf)]) -> Vec<Way> {
    let ours = [
        ("nothing", "nothing"),
        ("objcache: load", "objcache"),
        ("objcache: hit in the store, load", "hit"),
        ("dlopen", "dlopen"),
        ("LLVM 22 LLJIT", "LLVM 22 LLJIT (JITLink)"),
        ("LLVM 22 raw jitlink::link", "LLVM 22 raw"),
    ];
    let way = |name: String, program, argument, nothing| Way { name, program, argument, nothing };
    let mut ways: Vec<Way> = ours
        .into_iter()
        .map(|(name, argument)| way(name.to_owned(), folder.join("cold"), argument, 0))
        .collect();
    for (build, folder) in others {
        let nothing = ways.len();
        for (what, argument) in [("nothing", "nothing"), ("load", "objcache"), ("hit, load", "hit")] {
            ways.push(way(format!("{build}: {what}"), folder.join("cold"), argument, nothing));
        }
    }
    ways
}

/// Nanoseconds of CPU time of the whole process, by ways.
pub fn compare(folder: &Path, ways: &[Way], object: &Path, shared: &Path) -> Vec<Option<f64>> {
    const ROUNDS: usize = 150;
    let store = folder.join("store");
    let _ = fs::remove_dir_all(&store);
    let process = |program: &Path, argument: &str| {
        let mut command = Command::new(program);
        command.arg(argument).arg(object).arg(shared).env("OBJCACHE_DIR", &store);
        command
    };
    let filled = process(&folder.join("cold"), "fill").status();
    assert!(filled.is_ok_and(|status| status.success()), "the store is filled");
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..ROUNDS {
        for way in turns(round, ways.len()) {
            times[way].extend(cpu_time(process(&ways[way].program, ways[way].argument)));
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
