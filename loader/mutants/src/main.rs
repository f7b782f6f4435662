//! Mutation score of the relocation code: plants small mistakes, one at a time, and sees whether a test fails.
//!
//! A build per mutant would take days. So all mutants are planted at once into a copy of the tree, each behind a question
//! at run time ([`plant`]), which is built once. Every test is run once to see which mutants it comes by; then, for each
//! mutant of the sample, the tests that come by it run with that mutant alive, quickest first, until one fails.
//! See `MUTANTS.md` beside the loader for what came out.

mod plant;
mod suites;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use plant::{Mutant, Planter, Survey};
use quote::ToTokens;
use suites::{Outcome, Test};
use syn::visit::Visit;

const USAGE: &str = "\
Usage: loader/mutants/run [OPTION]...

  --every N        Take every Nth mutant (1).
  --from N         Start at the Nth mutant (0).
  --only TEXT      Only mutants whose file has TEXT in its path.
  --again FILE     Only those that survived in an earlier output, by line and words.
  --suites A,B     These test binaries only, objcache_loader for the unit tests.
  --all-tests      Every test binary of the loader, not just those that are about relocations.
  --jobs N         Mutants at a time (2).
  --work DIR       Where the copy and its build go (/tmp/objcache-mutants).
  --no-build       The copy is built already.
  --list           Print the mutants and stop.

OBJCACHE_ORACLE_CASES sets how many cases the oracle generates, as in the tests themselves.";

/// Where the question is asked.
const LIBRARY: &str = "loader/src/lib.rs";

struct Options {
    every: usize,
    from: usize,
    only: String,
    again: Option<PathBuf>,
    suites: Vec<String>,
    all_tests: bool,
    jobs: usize,
    work: PathBuf,
    build: bool,
    list: bool,
}

fn options() -> Options {
    let mut options = Options {
        every: 1,
        from: 0,
        only: String::new(),
        again: None,
        suites: suites::SUITES.map(str::to_owned).to_vec(),
        all_tests: false,
        jobs: 2,
        work: "/tmp/objcache-mutants".into(),
        build: true,
        list: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--every" => options.every = value().parse().expect("a number"),
            "--from" => options.from = value().parse().expect("a number"),
            "--only" => options.only = value(),
            "--again" => options.again = Some(value().into()),
            "--suites" => options.suites = value().split(',').map(str::to_owned).collect(),
            "--all-tests" => options.all_tests = true,
            "--jobs" => options.jobs = value().parse().expect("a number"),
            "--work" => options.work = value().into(),
            "--no-build" => options.build = false,
            "--list" => options.list = true,
            _ => {
                eprintln!("{USAGE}");
                std::process::exit(2);
            }
        }
    }
    options
}

fn main() {
    let options = options();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let tree = options.work.join("tree");
    if options.build {
        let planted: Vec<String> = sources(&root).into_values().flatten().collect();
        copy(&root, &tree, &planted);
    }
    let mutants = plant_all(&root, &tree, options.build);
    let survivors = options.again.as_ref().map(|path| survivors(&std::fs::read_to_string(path).unwrap()));
    let sample: Vec<usize> = (options.from..mutants.len())
        .step_by(options.every)
        .filter(|number| mutants[*number].file.contains(&options.only))
        .filter(|number| {
            survivors.as_ref().is_none_or(|survivors| survivors.contains(&words(&mutants, *number)))
        })
        .collect();
    println!("{} mutants, {} in the sample", mutants.len(), sample.len());
    if options.list {
        for number in sample {
            println!("{}", describe(&mutants, number));
        }
        return;
    }
    let tests = suites::build(&tree, &options.work, &options.suites, options.all_tests);
    run(&mutants, &sample, &tests, &options);
}

/// Those that an earlier run did not kill.
fn survivors(output: &str) -> HashSet<String> {
    let lines = output.lines().filter(|line| line.starts_with("survived") || line.starts_with("unreached"));
    lines.filter_map(|line| Some(line[9..].trim_start().rsplit_once(" [")?.0.to_owned())).collect()
}

/// A mutant, but for its number, which changes with every line of the sources.
fn words(mutants: &[Mutant], number: usize) -> String {
    let Mutant { file, line, what } = &mutants[number];
    format!("{file}:{line}: {what}")
}

fn describe(mutants: &[Mutant], number: usize) -> String {
    format!("{} [{number}]", words(mutants, number))
}

/// Copies what git knows and is not `planted`, so that no mistake is ever in the tree itself. Unchanged files keep their
/// times, so that a second build has less to do.
fn copy(root: &Path, tree: &Path, planted: &[String]) {
    let listed = Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).output().expect("git");
    for name in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        let (from, to) = (root.join(name), tree.join(name));
        let Ok(bytes) = std::fs::read(&from) else { continue };
        let is_ours = name == LIBRARY || planted.iter().any(|planted| planted == name);
        if is_ours && to.exists() || std::fs::read(&to).is_ok_and(|old| old == bytes) {
            continue;
        }
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    }
}

/// The relocation code, by architecture: what belongs to none is with `common`.
fn sources(root: &Path) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let arch = Path::new("loader/src/arch");
    let mut directories = vec![arch.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(root.join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let path = directory.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                directories.push(path);
                continue;
            }
            if path.file_name().unwrap() == "tests.rs" {
                continue;
            }
            let part = path.strip_prefix(arch).unwrap().components().next().unwrap();
            let name = Path::new(&part).file_stem().unwrap().to_str().unwrap();
            let group = if ["mod", "fields", "coff"].contains(&name) { "common" } else { name };
            groups.entry(group.to_owned()).or_default().push(path.to_str().unwrap().to_owned());
        }
    }
    let link = ["align", "detours", "tables", "thread_relax", "write"]
        .map(|name| format!("loader/src/link/{name}.rs"));
    groups.insert("link".to_owned(), link.to_vec());
    groups.values_mut().for_each(|files| files.sort());
    groups
}

fn plant_all(root: &Path, tree: &Path, write: bool) -> Vec<Mutant> {
    let groups = sources(root);
    let parse = |name: &String| syn::parse_file(&std::fs::read_to_string(root.join(name)).unwrap()).unwrap();
    let mut common = Survey::default();
    groups["common"].iter().for_each(|name| common.visit_file(&parse(name)));
    let calls: Vec<Survey> = groups
        .values()
        .flatten()
        .map(|name| {
            let mut survey = Survey::default();
            survey.visit_file(&parse(name));
            survey
        })
        .collect();
    let mut mutants = Vec::new();
    for files in groups.values() {
        let mut survey = Survey::default();
        survey.variants.clone_from(&common.variants);
        files.iter().for_each(|name| survey.visit_file(&parse(name)));
        // Functions are known by name only; one that any constant calls stays constant.
        survey.constant_calls =
            calls.iter().flat_map(|survey| survey.constant_calls.iter().cloned()).collect();
        for name in files {
            let mut file = parse(name);
            let mut planter = Planter::new(&survey, name, std::mem::take(&mut mutants));
            planter.plant(&mut file);
            mutants = planter.mutants;
            if write {
                update(&tree.join(name), &file.to_token_stream().to_string());
            }
        }
    }
    if write {
        let library = std::fs::read_to_string(root.join(LIBRARY)).unwrap();
        let count = mutants.len();
        update(
            &tree.join(LIBRARY),
            &format!("{library}\nconst MUTANTS: usize = {count};\n{}", include_str!("question.rs")),
        );
    }
    mutants
}

/// Writes a file unless it is the same already.
fn update(path: &Path, text: &str) {
    if !std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        std::fs::write(path, text).unwrap();
    }
}

fn run(mutants: &[Mutant], sample: &[usize], tests: &[Test], options: &Options) {
    // In an order that tells something of every file when the run is cut short.
    const STRIDE: usize = 8;
    let order: Vec<usize> =
        (0..STRIDE).flat_map(|start| sample.iter().skip(start).step_by(STRIDE).copied()).collect();
    let next = AtomicUsize::new(0);
    let scores: Mutex<BTreeMap<String, [usize; 2]>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some(number) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let mut killer = None;
                    let mut asked = 0;
                    for test in tests.iter().filter(|test| test.reaches(*number as u32)) {
                        asked += 1;
                        if test.run_with(*number as u32) == Outcome::Fails {
                            killer = Some(test);
                            break;
                        }
                    }
                    let text = describe(mutants, *number);
                    match killer {
                        Some(test) => println!("killed    {text} by {}", test.name),
                        None if asked == 0 => println!("unreached {text}"),
                        None => println!("survived  {text} ({asked} tests)"),
                    }
                    let group = group_of(&mutants[*number].file);
                    scores.lock().unwrap().entry(group).or_default()[usize::from(killer.is_some())] += 1;
                }
            });
        }
    });
    let (mut all, mut killed) = (0, 0);
    for (group, [alive, dead]) in scores.into_inner().unwrap() {
        println!("{group}: {} mutants, {dead} killed, {alive} survived", alive + dead);
        all += alive + dead;
        killed += dead;
    }
    println!("all: {all} mutants, {killed} killed, {} survived", all - killed);
}

/// The architecture that a file belongs to, or its own name.
fn group_of(file: &str) -> String {
    let name = file.trim_start_matches("loader/src/").trim_start_matches("arch/");
    let name = if name.starts_with("link/") { name } else { name.split('/').next().unwrap() };
    name.trim_end_matches(".rs").to_owned()
}
