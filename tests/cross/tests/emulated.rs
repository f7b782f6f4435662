//! The loader itself on other machines: built for them, run under qemu, it loads real compilers' objects and calls their
//! functions. What these return is what the same source returns when the machine's own compiler and linker make a
//! program of it.
//!
//! Needs `qemu-user`, cross compilers, and rustc 1.85 with its library for the machines (`tests/cross/rust-1.85
//! target/rust-1.85`); `./test` sees to all of them. As a matter of course this shows that the crates build with 1.85.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A machine, and what its objects are made with.
struct Machine {
    target: &'static str,
    /// Prefix of the GNU tools, and where the machine's libraries are.
    gnu: &'static str,
    qemu: &'static str,
    /// There is no compiled standard library for it.
    build_std: bool,
    clang: &'static [&'static str],
    models: &'static [&'static str],
    clang_models: &'static [&'static str],
    /// Exceptions are found by `.eh_frame`.
    throws: bool,
    /// Ways to thread-local variables that are served in a process; the last ones only by the GNU compiler.
    threads: &'static [&'static str],
    gnu_threads: &'static [&'static str],
    /// Images share slabs, unless something says otherwise.
    slabs: bool,
    /// The loader is compiled as users would have it.
    is_optimized: bool,
}

impl Machine {
    /// What code of that model is put into. The tiny model reaches 1 MiB: a slab's stripes are farther apart.
    fn memories(&self, model: &str, level: &str) -> &'static [&'static str] {
        let in_slabs = self.slabs && level == "-O2" && !model.contains("tiny");
        if in_slabs { &["pages", "slabs"] } else { &["pages"] }
    }

    /// Compilers and flags for a source.
    fn models<'g>(&self, source: &str, gnu: &'g str) -> impl Iterator<Item = (&'g str, &'static str)> {
        let (both, clang, gnu_only) = match source {
            "thread-locals.c" => (self.threads, &[][..], self.gnu_threads),
            _ => (self.models, self.clang_models, &[][..]),
        };
        let both = both.iter().flat_map(move |model| [(CLANG, *model), (gnu, *model)]);
        let clang = clang.iter().map(|model| (CLANG, *model));
        both.chain(clang).chain(gnu_only.iter().map(move |model| (gnu, *model)))
    }
}

const CLANG: &str = "clang-22";
const LEVELS: [&str; 3] = ["-O0", "-O2", "-Os"];

/// Non-PIC code is that of a program, and reaches the data of others only where these are near.
const NEAR: &str = "-fno-pic -DNO_FAR_DATA";

const AARCH64: Machine = Machine {
    target: "aarch64-unknown-linux-gnu",
    gnu: "aarch64-linux-gnu",
    qemu: "qemu-aarch64",
    build_std: false,
    clang: &["--target=aarch64-linux-gnu"],
    models: &[
        "-fPIC",
        "-fPIE",
        "-fPIC -ffunction-sections -fdata-sections",
        NEAR,
        "-fno-pic -mcmodel=large",
        "-fPIC -mcmodel=tiny",
        "-fno-pic -mcmodel=tiny -DNO_FAR_DATA",
    ],
    clang_models: &["-fPIC -mbranch-protection=standard"],
    throws: true,
    threads: &[
        "-fPIC",
        "-fPIC -ftls-model=local-dynamic",
        "-fPIC -ftls-model=initial-exec",
        "-fPIE -ftls-model=local-exec",
        "-fno-pic",
        "-fno-pic -mtls-size=12",
        "-fno-pic -mtls-size=32",
        "-fno-pic -mtls-size=48",
        "-fPIC -mcmodel=tiny -ftls-model=initial-exec",
    ],
    gnu_threads: &["-fPIC -mtls-dialect=trad", "-fPIC -mtls-dialect=trad -ftls-model=local-dynamic"],
    slabs: true,
    is_optimized: true,
};

#[test]
fn aarch64() {
    run(&AARCH64);
}

/// In a thread's first access, which makes its variables, and in a later one.
#[test]
fn aarch64_registers_are_kept_round_thread_locals() {
    let machine = AARCH64;
    let Some(runner) = aarch64_runner() else { return };
    let folder = scratch("aarch64-registers");
    let names = [
        "local_exec",
        "other_register",
        "register_1",
        "register_30",
        "small",
        "groups",
        "initial_exec",
        "literal",
    ];
    let calls: Vec<String> = names.iter().flat_map(|name| [format!("@{name}"), (*name).to_owned()]).collect();
    for (cpu, sve) in [("max", "SVE=1"), ("max,sve512=on", "SVE=1"), ("cortex-a57", "PLAIN=1")] {
        let object = folder.join("registers.o");
        let mut assembler = Command::new(CLANG);
        assembler.args(machine.clang).arg("-c").arg(fixture("thread-locals-aarch64.s"));
        tool_runs(assembler.arg(format!("-Wa,-defsym,{sve}")).arg("-o").arg(&object));
        let mut command = Command::new(machine.qemu);
        command.args(["-cpu", cpu, "-L", &format!("/usr/{}", machine.gnu)]).arg(&runner);
        let output = command.arg(&object).args(&calls).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let expected: String = calls.iter().map(|call| format!("{call} = 1234\n")).collect();
        assert!(text.starts_with(&expected), "{cpu}: {text} {}", String::from_utf8_lossy(&output.stderr));
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn armv7() {
    run(&Machine {
        target: "armv7-unknown-linux-gnueabihf",
        gnu: "arm-linux-gnueabihf",
        qemu: "qemu-arm",
        build_std: false,
        clang: &["--target=armv7-linux-gnueabihf"],
        models: &["-marm -fPIC", "-marm -fno-pic", "-mthumb -fPIC", "-mthumb -fno-pic"],
        clang_models: &["-marm -fno-pic -mno-movt", "-mthumb -fPIE -ffunction-sections"],
        throws: false,
        threads: &[],
        gnu_threads: &[],
        slabs: false,
        is_optimized: false,
    });
}

#[test]
fn riscv64() {
    run(&Machine {
        target: "riscv64gc-unknown-linux-gnu",
        gnu: "riscv64-linux-gnu",
        qemu: "qemu-riscv64",
        build_std: true,
        clang: &["--target=riscv64-linux-gnu", "-march=rv64gc", "-mabi=lp64d"],
        models: &[
            "-fPIC",
            "-fPIC -mno-relax",
            "-fno-pic -mcmodel=medlow -DNO_FAR_DATA",
            "-fno-pic -mcmodel=medany -DNO_FAR_DATA",
        ],
        clang_models: &["-fPIE -ffunction-sections -fdata-sections"],
        throws: true,
        threads: &[],
        gnu_threads: &[],
        slabs: false,
        is_optimized: false,
    });
}

const C_CALLS: [&str; 29] = [
    "initialized",
    "add,-3,5",
    "call_internal,4",
    "call_host,20,21",
    "switch_table,-1",
    "switch_table,0",
    "switch_table,1",
    "switch_table,2",
    "switch_table,3",
    "switch_table,4",
    "switch_table,5",
    "switch_table,6",
    "switch_table,7",
    "through_tables,0",
    "through_tables,1",
    "word_length,0",
    "word_length,1",
    "word_length,2",
    "word_length,3",
    "sorted_digits",
    "count",
    "count",
    "sum_zeros",
    "write_through_pointers",
    "use_common",
    "call_weak",
    "call_hidden",
    "aligned",
    "call_elsewhere,5",
];

const CPP_CALLS: [&str; 11] = [
    "is_started",
    "boxes,3",
    "boxes,4",
    "count_up",
    "count_up",
    "areas,4",
    "static_local,6",
    "static_local,9",
    "throw_and_catch,0",
    "throw_and_catch,1",
    "throw_and_catch,2",
];

const THREAD_CALLS: [&str; 21] = [
    "next",
    "next",
    "add,3",
    "@next",
    "@add,3",
    "@through",
    "@mix,3,5",
    "add,4",
    "through",
    "is_aligned",
    "mix,3,5",
    "mix,7,-2",
    "called",
    "jumped",
    "pushed,9",
    "computed,1",
    "@next",
    "@mix,3,5",
    "@called",
    "@is_aligned",
    "computed,0",
];

/// Everything of one machine.
fn run(machine: &Machine) {
    let gcc = format!("{}-gcc", machine.gnu);
    let gxx = format!("{}-g++", machine.gnu);
    let Some(compiler) = oldest_rustc() else { return };
    if ![machine.qemu, CLANG, &gcc, &gxx].iter().all(|tool| has(tool)) {
        return;
    }
    let runner = build_runner(machine, &compiler);
    let folder = scratch(machine.gnu);
    for memory in machine.memories("", "-O2") {
        let mut command = emulated(machine, &runner);
        tool_runs(command.arg("--conformance").env("OBJCACHE_CROSS_MEMORY", memory));
    }
    let mut objects = 0;
    let mut expected: HashMap<(&str, Vec<&str>), String> = HashMap::new();
    for (source, calls) in
        [("kernel.c", &C_CALLS[..]), ("kernel.cpp", &CPP_CALLS), ("thread-locals.c", &THREAD_CALLS)]
    {
        let calls: Vec<&str> = calls
            .iter()
            .copied()
            .filter(|call| machine.throws || !matches!(*call, "throw_and_catch,1" | "throw_and_catch,2"))
            .collect();
        let gnu = if source.ends_with(".c") { &gcc } else { &gxx };
        for (tool, model) in machine.models(source, gnu) {
            for level in LEVELS {
                let mut flags: Vec<&str> = vec![level, "-w"];
                flags.extend(model.split(' '));
                if source == "kernel.c" {
                    flags.extend(["-fcommon", "-DCOMMON"]);
                }
                let what = format!("{tool} {flags:?} {source}");
                let program = program_flags(&flags);
                let expected = expected
                    .entry((source, program.clone()))
                    .or_insert_with(|| as_program(machine, gnu, source, &program, &calls, &folder));
                if tool == CLANG {
                    flags.extend(machine.clang);
                }
                let object = folder.join("kernel.o");
                tool_runs(
                    Command::new(tool).args(&flags).arg("-c").arg(fixture(source)).arg("-o").arg(&object),
                );
                for memory in machine.memories(model, level) {
                    let mut command = emulated(machine, &runner);
                    command.env("OBJCACHE_CROSS_MEMORY", memory).arg(&object).args(&calls);
                    let output = command.output().unwrap();
                    let complaints = String::from_utf8_lossy(&output.stderr);
                    assert!(output.status.success(), "{what} {memory}: {} {complaints}", output.status);
                    assert_eq!(String::from_utf8_lossy(&output.stdout), *expected, "{what} {memory}");
                    let visible =
                        complaints.split(' ').next().and_then(|number| number.parse::<usize>().ok());
                    assert!(visible.is_some_and(|bytes| bytes > 100), "{what}: {complaints}");
                }
                objects += 1;
            }
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
    eprintln!("{}: {objects} objects loaded and called under {}", machine.target, machine.qemu);
}

/// A library, with functions that are made at their first call and redefined while threads call them.
#[test]
fn aarch64_library() {
    let machine = &AARCH64;
    let gcc = format!("{}-gcc", machine.gnu);
    let Some(compiler) = oldest_rustc() else { return };
    if ![machine.qemu, &gcc].iter().all(|tool| has(tool)) {
        return;
    }
    let runner = build_runner(machine, &compiler);
    let folder = scratch("library");
    let mut command = emulated(machine, &runner);
    command.arg("--library");
    for define in ["-DARGUMENTS", "-DCALLER", "-DVERSION=1", "-DVERSION=2"] {
        let object = folder.join(format!("{define}.o"));
        let mut compile = Command::new(&gcc);
        compile.args(["-O2", "-fPIC", define, "-c"]).arg(fixture("library.c")).arg("-o").arg(&object);
        tool_runs(&mut compile);
        command.arg(object);
    }
    let output = command.output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {complaints}", output.status);
    let expected = "arguments = Big { a: 14, b: 148, c: 125, d: 57.0 }, again: true\n\
        function `broken` of library `app`: it could not be made: no luck\n\
        broken = 3\n\
        caller = 1121\n\
        caller = 1122, called meanwhile: true\n\
        made visible = true\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{complaints}");
    std::fs::remove_dir_all(folder).unwrap();
}

/// How code is addressed differs between the objects; what the source computes is asked for here.
fn program_flags<'f>(flags: &[&'f str]) -> Vec<&'f str> {
    let kept = |flag: &&&str| flag.starts_with("-D") || flag.starts_with("-O") || **flag == "-fcommon";
    flags.iter().filter(kept).copied().collect()
}

/// What the source does in a program that the machine's own tools make of it.
fn as_program(
    machine: &Machine,
    compiler: &str,
    source: &str,
    flags: &[&str],
    calls: &[&str],
    folder: &Path,
) -> String {
    let [driver, program] = ["driver.c", "program"].map(|name| folder.join(name));
    std::fs::write(&driver, driver_text(calls)).unwrap();
    let mut link = Command::new(compiler);
    link.args(flags)
        .arg("-w")
        .arg(fixture(source))
        .args(["-x", "c"])
        .arg(&driver)
        .arg("-pthread")
        .arg("-o")
        .arg(&program);
    tool_runs(&mut link);
    let output = emulated(machine, &program).output().unwrap();
    assert!(output.status.success(), "{source}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The program around the kernel: it makes the calls and prints as `objcache-cross` does, those with an `@` in threads of
/// their own.
fn driver_text(calls: &[&str]) -> String {
    let mut text = String::from(
        "#include <pthread.h>\n#include <stdio.h>\n\
         static int notes; int host_counter = 7, finalized_flag;\n\
         int host_add(int a, int b) { return a + b; }\n\
         void host_note(int what) { notes = (int)((unsigned)notes * 31u + (unsigned)what); }\n\
         __attribute__((destructor(101))) static void at_last(void) {\n\
         printf(\"notes = %d\\nfinalized = %d\\n\", notes, finalized_flag); }\n\
         int main(void) {\n",
    );
    for call in calls {
        let (name, arguments) = call.split_once(',').unwrap_or((call, ""));
        text += &match name.strip_prefix('@') {
            None => format!("{{ int {name}(); printf(\"{call} = %d\\n\", {name}({arguments})); }}\n"),
            Some(name) => format!(
                "{{ int {name}(); pthread_t t; void *run(void *p) {{ printf(\"{call} = %d\\n\", {name}({arguments})); \
                 return p; }} pthread_create(&t, 0, run, 0); pthread_join(t, 0); }}\n"
            ),
        };
    }
    text + "return 0; }\n"
}

fn emulated(machine: &Machine, program: &Path) -> Command {
    let mut command = Command::new(machine.qemu);
    command.arg("-L").arg(format!("/usr/{}", machine.gnu)).arg(program);
    command
}

/// The program for AArch64; `None` where something that it takes is not there.
fn aarch64_runner() -> Option<PathBuf> {
    let compiler = oldest_rustc()?;
    let gcc = format!("{}-gcc", AARCH64.gnu);
    let is_there = [AARCH64.qemu, CLANG, &gcc].iter().all(|tool| has(tool));
    is_there.then(|| build_runner(&AARCH64, &compiler))
}

/// Builds `objcache-cross` for the machine. What is built stays in `target/cross`.
fn build_runner(machine: &Machine, rustc: &Path) -> PathBuf {
    let linker = format!("CARGO_TARGET_{}_LINKER", machine.target.to_uppercase().replace('-', "_"));
    let folder = workspace().join("target/cross");
    let mut cargo = cargo(rustc, &folder);
    cargo.args(["build", "--package", "objcache-cross", "--target", machine.target]);
    if !machine.is_optimized {
        // What optimizing them takes is longer than what they then run shorter.
        let plain = |package| format!("profile.dev.package.{package}.opt-level=0");
        cargo.args(
            ["objcache-loader", "gimli", "addr2line"].map(plain).iter().flat_map(|it| ["--config", it]),
        );
    }
    cargo.env(linker, format!("{}-gcc", machine.gnu));
    if machine.build_std {
        cargo.arg("-Zbuild-std").env("RUSTC_BOOTSTRAP", "1");
    }
    tool_runs(&mut cargo);
    folder.join(machine.target).join("debug/objcache-cross")
}

#[test]
fn what_is_below_the_engine_builds_with_rust_1_85() {
    let Some(rustc) = oldest_rustc() else { return };
    for features in [&["--package", "objcache-signature"][..], &["--no-default-features"]] {
        let mut cargo = cargo(&rustc, &workspace().join("target/oldest"));
        cargo.args(["check", "--package", "objcache-loader"]).args(features);
        tool_runs(cargo.env("RUSTFLAGS", "-D warnings"));
    }
}

/// The runner's loader is built without `all-arch`.
#[test]
fn objects_of_another_machine_are_refused_by_name() {
    let Some(runner) = aarch64_runner() else { return };
    let folder = scratch("another-machine");
    let source = folder.join("empty.c");
    std::fs::write(&source, "int zero(void) { return 0; }").unwrap();
    for (target, named) in [
        ("x86_64-linux-gnu", "ELF machine 62"),
        ("x86_64-apple-macos", "Mach-O cpu type 0x1000007"),
        ("i686-pc-windows-gnu", "COFF machine 0x014c (i386)"),
    ] {
        let object = folder.join(target);
        let mut compiler = Command::new(CLANG);
        tool_runs(compiler.arg(format!("--target={target}")).arg("-c").arg(&source).arg("-o").arg(&object));
        let mut command = Command::new(AARCH64.qemu);
        let output =
            command.args(["-L", &format!("/usr/{}", AARCH64.gnu)]).arg(&runner).arg(&object).output();
        let errors = String::from_utf8(output.unwrap().stderr).unwrap();
        assert!(errors.contains(named) && errors.contains("built without `all-arch`"), "{errors}");
    }
}

/// Cargo, with another compiler than the one that runs this test.
fn cargo(rustc: &Path, target: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace()).env("RUSTC", rustc).env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo.env_remove("RUSTC_WRAPPER").env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    // Nobody changes what was built and builds it again.
    cargo.env("CARGO_INCREMENTAL", "0");
    cargo.env("CARGO_TARGET_DIR", target).arg("--quiet").arg("--locked");
    cargo
}

fn oldest_rustc() -> Option<PathBuf> {
    let folder = workspace().join("target/rust-1.85");
    if !folder.join("complete").exists() {
        skip("there is no rustc 1.85: `tests/cross/rust-1.85 target/rust-1.85` fetches it");
        return None;
    }
    Some(folder.join("rustc"))
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn fixture(name: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    if own.exists() { own } else { workspace().join("loader/tests/fixtures").join(name) }
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cross-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a tool and panics with its messages if it fails.
fn tool_runs(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn has(tool: &str) -> bool {
    let runs = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !runs {
        skip(&format!("`{tool}` does not run here"));
    }
    runs
}

fn skip(why: &str) {
    assert!(std::env::var_os("OBJCACHE_REQUIRE_ALL").is_none_or(|value| value != "1"), "skipped: {why}");
    eprintln!("skipped: {why}");
}
