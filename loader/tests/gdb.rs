//! A real gdb debugs loaded code: breakpoints by function and by line, backtraces through it into the host, local
//! variables, and nothing of it left when it is unloaded.
//!
//! The debugged program is this test's own: gdb starts it again with the objects to load in its environment. One session
//! goes through all objects, each of which has names and a file of its own.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use objcache_loader::{AbsoluteSymbols, GdbListener, InputObject, Loader, SlabMemory};
use support::*;

const OBJECTS: &str = "OBJCACHE_TEST_DEBUGGED";

/// The program waits, once it has loaded the first objects.
const WAITS: &str = "OBJCACHE_TEST_WAITS";

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn host_callback(value: i32) -> i32 {
    std::hint::black_box(value) + 1
}

/// gdb stops here when the objects are loaded, and when they are gone.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn host_reached(what: i32) {
    std::hint::black_box(what);
}

struct Case {
    name: String,
    source: PathBuf,
    object: PathBuf,
    /// Arguments are where the code of `-O0` has them.
    exact: bool,
}

/// Compiles the fixture with names of its own.
fn case(compiler: &str, flags: &[&str], number: usize) -> Case {
    let suffix = if compiler.contains("++") { "cpp" } else { "c" };
    let name = format!("case{number:02}");
    let source = scratch(&format!("debugged{number}.{suffix}"));
    std::fs::copy(fixture("debugged.c"), &source).unwrap();
    let object = scratch(&format!("debugged{number}.o"));
    let define = format!("-DNAME(x)=x##_{name}");
    let flags = [flags, &["-fPIC", &define]].concat();
    std::fs::write(&object, compile(compiler, &flags, &source)).unwrap();
    Case { name, source, object, exact: flags.contains(&"-O0") }
}

fn line_of(mark: &str) -> usize {
    let text = std::fs::read_to_string(fixture("debugged.c")).unwrap();
    text.lines().position(|line| line.contains(mark)).unwrap() + 1
}

/// What gdb runs. Does nothing otherwise.
#[test]
fn debugged_program() {
    let Ok(objects) = std::env::var(OBJECTS) else { return };
    let host = AbsoluteSymbols::new().with("host_callback", host_callback as *const () as u64);
    for (number, pair) in objects.split(';').enumerate() {
        let listener = Arc::new(GdbListener::new());
        let mut loader = Loader::builder().listener(Arc::clone(&listener) as _);
        if number == 0 {
            loader = loader.memory(Arc::new(SlabMemory::new()));
        }
        let loader = loader.build();
        let files: Vec<_> = pair.split(',').map(|file| (file, std::fs::read(file).unwrap())).collect();
        let inputs: Vec<_> = files.iter().map(|(name, bytes)| InputObject { name, bytes }).collect();
        let (image, _) = loader.load_all(&inputs, &host).unwrap();
        assert!(listener.take_problem().is_none());
        host_reached(1);
        if std::env::var_os(WAITS).is_some() {
            println!("loaded");
            std::io::stdin().read_line(&mut String::new()).unwrap();
            return;
        }
        for symbol in image.symbols().filter(|symbol| symbol.name.starts_with("entry_")) {
            assert_eq!(call_int(&image, &symbol.name, &[1]), 20 + 41 + 40);
        }
        drop(image);
        host_reached(2);
    }
}

/// The output of gdb between two marks.
fn part<'t>(output: &'t str, mark: &str) -> &'t str {
    let (_, after) =
        output.split_once(&format!("[{mark}]")).unwrap_or_else(|| panic!("no {mark} in\n{output}"));
    after.split_once("[end]").map_or(after, |(part, _)| part)
}

fn run_gdb(cases: &[&[Case]]) -> String {
    let line = line_of("LINE");
    let mut script = "set pagination off\nset confirm off\nset width 0\nset breakpoint pending on\n\
                      set debuginfod enabled off\nset print thread-events off\nbreak host_reached\nrun\n"
        .to_owned();
    let mut say = |text: String| writeln!(script, "{text}").unwrap();
    for (number, group) in cases.iter().enumerate() {
        for case in *group {
            if number == 0 {
                say(format!(
                    "tbreak host_callback\ncontinue\necho [{} slab]\\n\nbacktrace 8\necho [end]\\n",
                    case.name
                ));
                continue;
            }
            let (name, file) = (&case.name, case.source.file_name().unwrap().to_str().unwrap());
            // By function before one, by line before the other: both kinds are set while the code is there.
            say(format!(
                "tbreak inner_{name}\ncontinue\necho [{name} function]\\n\nbacktrace 8\necho [end]\\n"
            ));
            say(format!(
                "tbreak {file}:{line}\ncontinue\necho [{name} line]\\n\nbacktrace 8\ninfo locals\necho [end]\\n"
            ));
            say(format!("echo [{name} known]\\n\ninfo functions inner_{name}\necho [end]\\n"));
        }
        say("continue".to_owned());
        for Case { name, .. } in *group {
            say(format!(
                "echo [{name} gone]\\n\ninfo functions inner_{name}\ninfo breakpoints\necho [end]\\n"
            ));
        }
        say("continue".to_owned());
    }
    let file = scratch("gdb-script");
    std::fs::write(&file, script).unwrap();
    let objects: Vec<String> = cases
        .iter()
        .map(|group| group.iter().map(|case| case.object.to_str().unwrap()).collect::<Vec<_>>().join(","))
        .collect();
    let program = std::env::current_exe().unwrap();
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-x", file.to_str().unwrap(), "--args", program.to_str().unwrap()])
        .args(["--exact", "debugged_program", "--nocapture", "--test-threads=1"])
        .env(OBJECTS, objects.join(";"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    format!("{text}\n{}", String::from_utf8_lossy(&output.stderr))
}

/// Whether gdb can start a program here: some containers forbid `ptrace`.
fn gdb_runs() -> bool {
    if !has("gdb") {
        return false;
    }
    let output = Command::new("gdb").args(["-nx", "-batch", "-ex", "run", "/bin/true"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let runs = text.contains("exited normally");
    if !runs {
        skip(&format!("gdb cannot run a program here: {text}{}", String::from_utf8_lossy(&output.stderr)));
    }
    runs
}

fn check(output: &str, case: &Case) {
    let (name, line) = (&case.name, line_of("LINE"));
    let file = case.source.file_name().unwrap().to_str().unwrap();
    let expect = |part: &str, wanted: &str| {
        assert!(part.contains(wanted), "{name}: no `{wanted}` in\n{part}\nof\n{output}")
    };
    let function = part(output, &format!("{name} function"));
    expect(function, &format!("#0  inner_{name} (value="));
    if case.exact {
        expect(function, "(value=20) at ");
        expect(function, "(count=1) at ");
    }
    let stopped = part(output, &format!("{name} line"));
    expect(stopped, &format!("inner_{name} (value="));
    expect(stopped, &format!("{file}:{line}\n"));
    for backtrace in [function, stopped] {
        // Through the object into the host.
        expect(backtrace, &format!(" in entry_{name} (count="));
        expect(backtrace, &format!("{file}:"));
        expect(backtrace, "debugged_program");
    }
    expect(stopped, "doubled = 40\n");
    expect(part(output, &format!("{name} known")), &format!("inner_{name}"));
    let gone = part(output, &format!("{name} gone"));
    assert!(
        !gone.contains(&format!("inner_{name}(")) && !gone.contains(&format!(" inner_{name}\n")),
        "{gone}"
    );
}

/// Called from code in memory that is mapped twice, where gdb cannot write.
fn check_slab(output: &str, case: &Case) {
    let (name, line) = (&case.name, line_of("LINE"));
    let file = case.source.file_name().unwrap().to_str().unwrap();
    let backtrace = part(output, &format!("{name} slab"));
    for wanted in [
        format!(" in inner_{name} (value=20) at "),
        format!("{file}:{line}\n"),
        format!("entry_{name} (count=1) at "),
        "debugged_program".to_owned(),
    ] {
        assert!(backtrace.contains(&wanted), "{name}: no `{wanted}` in\n{backtrace}\nof\n{output}");
    }
}

#[test]
fn gdb_that_attaches_later_knows_loaded_code() {
    if !gdb_runs() || !has(GCC) {
        return;
    }
    let case = case(GCC, &["-O1", "-g"], 99);
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "debugged_program", "--nocapture", "--test-threads=1"])
        .env(OBJECTS, case.object.to_str().unwrap())
        .env(WAITS, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with("loaded")));
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "set debuginfod enabled off", "-p", &program.id().to_string()])
        .args(["-ex", "info line inner_case99", "-ex", "detach"])
        .output()
        .unwrap();
    program.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    assert!(lines.any(|line| line.starts_with("test result: ok")));
    assert!(program.wait().unwrap().success());
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if errors.contains("ptrace") {
        return skip(&format!("gdb cannot attach here: {errors}"));
    }
    let line = std::fs::read_to_string(&case.source).unwrap();
    let line = line.lines().position(|line| line.contains("NAME(inner)(int value)")).unwrap() + 1;
    assert!(said.contains(&format!("Line {line} of \"{}\"", case.source.display())), "{said}\n{errors}");
}

#[test]
fn gdb_debugs_loaded_code() {
    if !gdb_runs() {
        return;
    }
    let mut cases = Vec::new();
    for compiler in [CLANG, GCC, CLANGXX, GXX].into_iter().filter(|compiler| has(compiler)) {
        for flags in [
            &["-O0", "-gdwarf-4"][..],
            &["-O0", "-gdwarf-5", "-ffunction-sections"],
            &["-O2", "-gdwarf-4", "-ffunction-sections"],
            &["-O2", "-gdwarf-5"],
        ] {
            cases.push(case(compiler, flags, cases.len()));
        }
    }
    // Of several objects in one image each is registered.
    let (together, alone) = cases.split_at(2.min(cases.len()));
    let (pair, others) = alone.split_at(2.min(alone.len()));
    let groups: Vec<&[Case]> = [together, pair].into_iter().chain(others.chunks(1)).collect();
    let output = run_gdb(&groups);
    if std::env::var_os("OBJCACHE_TEST_VERBOSE").is_some() {
        eprintln!("{output}");
    }
    together.iter().for_each(|case| check_slab(&output, case));
    alone.iter().for_each(|case| check(&output, case));
    assert!(output.contains("exited normally"), "{output}");
}
