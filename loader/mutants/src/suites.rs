//! The tests: how they are built, which mutants each comes by, and whether it fails.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Test binaries that are about relocations. `objcache_loader` are the unit tests.
pub const SUITES: [&str; 10] = [
    "objcache_loader",
    "oracle",
    "macho",
    "coff",
    "jitlink",
    "launch",
    "relaxation",
    "threads",
    "detours",
    "power",
];

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Passes,
    /// Or hangs.
    Fails,
}

/// A test, or a module of unit tests.
pub struct Test {
    pub name: String,
    binary: PathBuf,
    directory: PathBuf,
    arguments: Vec<String>,
    takes: Duration,
    reached: HashSet<u32>,
}

/// Builds the tests and runs each once.
pub fn build(tree: &Path, work: &Path, suites: &[String], all: bool) -> Vec<Test> {
    let mut command = Command::new("cargo");
    command.args(["test", "-p", "objcache-loader", "--no-run", "--message-format=json", "--lib"]);
    match all {
        true => command.arg("--tests"),
        false => command.args(integration_tests(suites).flat_map(|suite| ["--test", suite])),
    };
    let output = command
        .args(["--config", "profile.dev.package.objcache-loader.opt-level=1"])
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", work.join("target"))
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        // Many a mutant overflows, or makes a comparison of constants.
        .env("RUSTFLAGS", "--cap-lints allow")
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let messages = String::from_utf8(output.stdout).unwrap();
    let binaries = messages.lines().filter_map(|line| {
        let path = line.split_once("\"executable\":\"")?.1;
        Some(PathBuf::from(&path[..path.find('"')?]))
    });
    let mut tests = Vec::new();
    for binary in binaries {
        let stem = binary.file_name().unwrap().to_str().unwrap();
        let suite = stem.rsplit_once('-').map_or(stem, |(suite, _)| suite).to_owned();
        if !all && !suites.contains(&suite) {
            continue;
        }
        for name in names(&suite, &binary, tree) {
            let mut arguments = vec![name.clone()];
            if suite != "objcache_loader" {
                arguments.push("--exact".to_owned());
            }
            let mut test = Test {
                name: format!("{suite} {name}"),
                binary: binary.clone(),
                directory: tree.join("loader"),
                arguments,
                takes: Duration::ZERO,
                reached: HashSet::new(),
            };
            test.try_out(&work.join("reached"));
            eprintln!("{}: {:?}, {} mutants", test.name, test.takes, test.reached.len());
            if !test.reached.is_empty() {
                tests.push(test);
            }
        }
    }
    tests.sort_by_key(|test| test.takes);
    tests
}

fn integration_tests(suites: &[String]) -> impl Iterator<Item = &str> {
    suites.iter().map(String::as_str).filter(|suite| *suite != SUITES[0])
}

/// The tests of a binary; of the unit tests, which take no time, the modules that they are in.
fn names(suite: &str, binary: &Path, tree: &Path) -> Vec<String> {
    let output = Command::new(binary).arg("--list").current_dir(tree.join("loader")).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let tests = output.lines().filter_map(|line| line.strip_suffix(": test"));
    match suite {
        "objcache_loader" => {
            let modules: BTreeSet<&str> = tests.filter_map(|test| Some(test.rsplit_once("::")?.0)).collect();
            modules.into_iter().map(|module| format!("{module}::")).collect()
        }
        _ => tests.map(str::to_owned).collect(),
    }
}

impl Test {
    /// Runs it without a mutant, and notes what it comes by.
    fn try_out(&mut self, reached: &Path) {
        std::fs::write(reached, "").unwrap();
        let start = Instant::now();
        let output = self.command().env("OBJCACHE_MUTANTS_REACHED", reached).output().unwrap();
        self.takes = start.elapsed();
        if !output.status.success() {
            eprintln!("{} fails without a mutant, so it is left out", self.name);
            return;
        }
        let numbers = std::fs::read_to_string(reached).unwrap();
        self.reached = numbers.lines().map(|number| number.parse().unwrap()).collect();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).current_dir(&self.directory).stdin(Stdio::null());
        command
    }

    pub fn reaches(&self, mutant: u32) -> bool {
        self.reached.contains(&mutant)
    }

    pub fn run_with(&self, mutant: u32) -> Outcome {
        let limit = self.takes * 10 + Duration::from_secs(20);
        let mut child = self
            .command()
            .env("OBJCACHE_MUTANT", mutant.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return if status.success() { Outcome::Passes } else { Outcome::Fails };
            }
            if start.elapsed() > limit {
                child.kill().unwrap();
                child.wait().unwrap();
                return Outcome::Fails;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
