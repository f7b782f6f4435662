//! A real perf names loaded functions in its samples: through the perf map, and through the jitdump with its source lines.
//!
//! The program that perf records is this test's own, started again with what to load in its environment.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use objcache_loader::{EventListener, JitDump, Loader, PageMemory, PerfMap, ProcessSymbols};
use support::counting::processor_time;
use support::*;

const OBJECTS: &str = "OBJCACHE_TEST_PROFILED";
const LISTENER: &str = "OBJCACHE_TEST_LISTENER";
const PAGES: &str = "OBJCACHE_TEST_PAGES";

/// What perf records. Does nothing otherwise.
#[test]
fn profiled_program() {
    let Ok(objects) = std::env::var(OBJECTS) else { return };
    let jitdump = Arc::new(JitDump::from_environment());
    let map = Arc::new(PerfMap::new());
    let listener: Arc<dyn EventListener> = match std::env::var(LISTENER).unwrap().as_str() {
        "map" => Arc::clone(&map) as _,
        _ => Arc::clone(&jitdump) as _,
    };
    let mut loader = Loader::builder().listener(listener);
    if std::env::var_os(PAGES).is_some() {
        loader = loader.memory(Arc::new(PageMemory::new()));
    }
    let loader = loader.build();
    // A jitdump tells what was where when; a map knows no time, so that its images must not take each other's place.
    let mut kept = Vec::new();
    for path in objects.split(';') {
        let object = std::fs::read(path).unwrap();
        let image = loader.load(&object, &ProcessSymbols).unwrap();
        let spin = image.symbols().find(|symbol| symbol.name.starts_with("spin_case")).unwrap();
        let end = processor_time() + Duration::from_millis(200);
        while processor_time() < end {
            assert_eq!(call_int(&image, &spin.name, &[20_000]), 1);
        }
        if std::env::var(LISTENER).unwrap() == "map" {
            kept.push(image);
        }
    }
    assert!(map.take_problem().is_none() && jitdump.take_problem().is_none());
    println!("process {}", std::process::id());
}

/// Objects with functions `spin_caseN`, `spin_inner_caseN` and, local, `spin_local_caseN`.
fn objects() -> Vec<(PathBuf, PathBuf)> {
    let mut objects = Vec::new();
    for (compiler, flags) in [(CLANG, ["-O1", "-gdwarf-5"]), (GCC, ["-O2", "-gdwarf-4"])] {
        if !has(compiler) {
            continue;
        }
        let number = objects.len();
        let source = scratch(&format!("profiled{number}.c"));
        std::fs::copy(fixture("profiled.c"), &source).unwrap();
        let define = format!("-DNAME(x)=x##_case{number}");
        let object = scratch(&format!("profiled{number}.o"));
        std::fs::write(&object, compile(compiler, &[flags[0], flags[1], "-fPIC", &define], &source)).unwrap();
        objects.push((source, object));
    }
    objects
}

fn perf(arguments: &[&str], directory: &Path) -> std::process::Output {
    Command::new("perf").args(arguments).current_dir(directory).env("HOME", directory).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Records the program. Says why not where the system does not let perf record.
fn record(directory: &Path, listener: &str, pages: bool, objects: &[(PathBuf, PathBuf)]) -> Option<u32> {
    if !has("perf") {
        return None;
    }
    std::fs::create_dir_all(directory).unwrap();
    let program = std::env::current_exe().unwrap();
    let paths: Vec<&str> = objects.iter().map(|(_, object)| object.to_str().unwrap()).collect();
    let mut command = Command::new("perf");
    // The clock that jitdumps use; samples by timer, since virtual machines need not have counters.
    command.args(["record", "-k", "1", "-e", "cpu-clock:u", "-F", "997", "-o", "perf.data"]);
    command.arg(program).args(["--exact", "profiled_program", "--nocapture", "--test-threads=1"]);
    command.current_dir(directory).env("HOME", directory).env("JITDUMPDIR", directory);
    command.env(OBJECTS, paths.join(";")).env(LISTENER, listener);
    if pages {
        command.env(PAGES, "1");
    }
    let output = command.output().unwrap();
    let messages = text(&output.stderr);
    if messages.contains("perf_event_paranoid")
        || messages.contains("Permission denied")
        || messages.contains("not supported")
    {
        skip(&format!("perf cannot record here: {messages}"));
        return None;
    }
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{printed}\n{messages}");
    let process = printed.split("process ").nth(1).and_then(|rest| rest.split_whitespace().next());
    Some(process.unwrap_or_else(|| panic!("{printed}\n{messages}")).parse().unwrap())
}

/// Samples by function, and how many there are.
fn samples(directory: &Path, file: &str) -> (std::collections::BTreeMap<String, usize>, usize) {
    let output = perf(&["script", "-i", file, "-F", "ip,sym"], directory);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (mut functions, mut total) = (std::collections::BTreeMap::new(), 0);
    for line in text(&output.stdout).lines().filter(|line| !line.trim().is_empty()) {
        let name = line.split_whitespace().nth(1).unwrap_or("");
        *functions.entry(name.to_owned()).or_default() += 1;
        total += 1;
    }
    (functions, total)
}

/// Nearly all time was spent in the two loops of each object, half of it in each.
fn check_samples(directory: &Path, file: &str, objects: usize) {
    let (functions, total) = samples(directory, file);
    assert!(total > 50, "{total} samples: {functions:?}");
    let mut named = 0;
    for number in 0..objects {
        for name in ["spin_inner", "spin_local"] {
            let found = functions.get(&format!("{name}_case{number}")).copied().unwrap_or(0);
            assert!(found > 0, "no sample of {name}_case{number}: {functions:?}");
            named += found;
        }
    }
    let unknown = functions.get("[unknown]").copied().unwrap_or(0);
    eprintln!("{total} samples, {named} in loaded functions, {unknown} unknown");
    assert!(unknown * 20 < total, "{unknown} of {total} samples are unknown: {functions:?}");
}

fn map_names_functions(name: &str, pages: bool) {
    let objects = objects();
    let directory = scratch(name);
    let Some(process) = record(&directory, "map", pages, &objects) else { return };
    let map = PathBuf::from(format!("/tmp/perf-{process}.map"));
    let lines = std::fs::read_to_string(&map).unwrap();
    check_samples(&directory, "perf.data", objects.len());
    std::fs::remove_file(map).unwrap();
    assert!(
        lines.lines().any(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [start, size, "spin_local_case0"] = fields[..] else { return false };
            u64::from_str_radix(start, 16).unwrap() > 0
                && (8..200).contains(&u64::from_str_radix(size, 16).unwrap())
        }),
        "{lines}"
    );
}

#[test]
fn perf_map_names_functions_in_slabs() {
    map_names_functions("map-slab", false);
}

#[test]
fn perf_map_names_functions_in_pages() {
    map_names_functions("map-pages", true);
}

fn jitdump_names_functions(name: &str, pages: bool) {
    let objects = objects();
    let directory = scratch(name);
    let Some(process) = record(&directory, "jitdump", pages, &objects) else { return };
    assert!(directory.join(format!("jit-{process}.dump")).exists());
    let output = perf(&["inject", "--jit", "-i", "perf.data", "-o", "perf.jit.data"], &directory);
    assert!(output.status.success(), "{}", text(&output.stderr));
    check_samples(&directory, "perf.jit.data", objects.len());
    for (number, (source, _)) in objects.iter().enumerate() {
        check_lines(&directory, number, source);
    }
}

/// perf knows the lines of the loops.
fn check_lines(directory: &Path, number: usize, source: &Path) {
    let symbols = format!("spin_inner_case{number},spin_local_case{number}");
    let output =
        perf(&["report", "-i", "perf.jit.data", "--stdio", "-s", "sym,srcline", "-S", &symbols], directory);
    let report = text(&output.stdout);
    let lines = std::fs::read_to_string(source).unwrap();
    let file = source.file_name().unwrap().to_str().unwrap();
    for mark in ["INNER", "LOCAL"] {
        let line = lines.lines().position(|line| line.contains(mark)).unwrap() + 1;
        // The loop's counter is a line above.
        let known = [line - 1, line].iter().any(|line| report.contains(&format!("{file}:{line}")));
        assert!(known, "{file}:{line} is not in\n{report}\n{}", text(&output.stderr));
    }
}

#[test]
fn jitdump_names_functions_in_slabs() {
    jitdump_names_functions("dump-slab", false);
}

#[test]
fn jitdump_names_functions_in_pages() {
    jitdump_names_functions("dump-pages", true);
}
