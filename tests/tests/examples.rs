//! The examples, run as the README says: they are what a newcomer sees first.

use std::path::Path;
use std::process::{Command, Output};

/// Runs an example with a cache of its own.
fn example(name: &str, cache: &Path, arguments: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO"));
    // Of the whole workspace, as it was built: for one package the dependencies would be compiled anew, with less in them.
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.args(["run", "--quiet", "--example", name, "--"]).args(arguments).env("OBJCACHE_DIR", cache);
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a program is there; when not, says so, or fails where nothing may be skipped.
fn available(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    let required = std::env::var("OBJCACHE_REQUIRE_ALL").is_ok_and(|value| value == "1");
    assert!(there || !required, "{program} is required");
    if !there {
        eprintln!("skipped: {program} is not installed");
    }
    there
}

#[test]
fn mandelbrot_compiles_in_the_first_process_and_loads_in_the_second() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, picture) = (folder.path().join("cache"), folder.path().join("out.png"));
    let first = said(&example("mandelbrot", &cache, &[&picture]));
    assert_eq!(first.matches("compiled it").count(), 1, "{first}");
    assert_eq!(first.matches("found it in the cache").count(), 1, "{first}");
    let drawn = std::fs::read(&picture).unwrap();
    let again = said(&example("mandelbrot", &cache, &[&picture]));
    assert_eq!(again.matches("compiled it").count(), 0, "{again}");
    assert_eq!(std::fs::read(&picture).unwrap(), drawn);
    assert!(drawn.starts_with(b"\x89PNG") && drawn.len() > 20_000, "a picture with something in it");
}

#[test]
fn a_lazy_function_is_compiled_at_the_first_call_of_the_first_process() {
    let folder = tempfile::tempdir().unwrap();
    let output = said(&example("lazy", folder.path(), &[]));
    let told = |what: &str| {
        output.lines().position(|line| line.ends_with(what)).unwrap_or_else(|| panic!("{output}"))
    };
    assert!(told("nothing is compiled yet") < told("first call, Miss"), "{output}");
    assert!(told("first call, Miss") < told("first call, Hit"), "{output}");
    for line in ["power(7) = 49", "power(7) = 343 from now on", "nothing is compiled yet"] {
        assert_eq!(output.lines().filter(|said| said.ends_with(line)).count(), 2, "{output}");
    }
}

#[test]
fn c_kernels_give_the_right_results_cold_and_warm() {
    if !available("clang-22") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for outcome in ["Miss", "Hit"] {
        let output = said(&example("c_kernels", folder.path(), &[]));
        assert_eq!(output.matches("the result is right").count(), 2, "{output}");
        assert_eq!(output.matches(outcome).count(), 2, "{output}");
    }
}

#[test]
fn an_object_of_gcc_loads_and_runs() {
    if !available("gcc") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let object = folder.path().join("primes.o");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../kernels/primes.c");
    let status = Command::new("gcc").args(["-O2", "-c", source, "-o"]).arg(&object).status().unwrap();
    assert!(status.success());
    let output = said(&example("load_object", folder.path(), &[&object]));
    assert_eq!(output, "78498 primes below a million; status: called\n");
}
