//! A cache that cannot be used costs a warning and a compilation: never the result, never the exit code.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Finished, Sandbox, finish, tool};

/// Some user who is not us.
const NOBODY: u32 = 65_534;

/// `run` and `compile` give the right result, and one line of warning with `word` in it.
fn check(sandbox: &Sandbox, word: &str, adjust: &dyn Fn(&mut Command)) {
    let run = |words: &[&str]| {
        let mut command = sandbox.command(words);
        adjust(&mut command);
        finish(&mut command)
    };
    let ran = run(&["run", "arithmetic.clif", "--call", "add", "40", "2"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "42\n"), "{word}: {}", ran.stderr);
    warned_once(&ran, word);

    let compiled = run(&["compile", "arithmetic.clif", "-o", "out.o", "--json"]);
    assert_eq!(
        (compiled.code, &compiled.json()["outcome"]),
        (0, &"miss".into()),
        "{word}: {}",
        compiled.stderr
    );
    warned_once(&compiled, word);
    assert!(sandbox.path("out.o").is_file());

    let quiet = run(&["run", "arithmetic.clif", "--call", "add", "40", "2", "-q"]);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("42\n", ""), "{word}");
}

fn warned_once(finished: &Finished, word: &str) {
    assert_eq!(finished.stderr.lines().count(), 1, "{word}: {}", finished.stderr);
    assert!(finished.stderr.starts_with("warning: "), "{}", finished.stderr);
    assert!(finished.stderr.contains(word), "{word}: {}", finished.stderr);
}

fn sandbox() -> Sandbox {
    Sandbox::with(&["arithmetic.clif"])
}

fn make_cache(sandbox: &Sandbox, mode: u32) {
    fs::create_dir(sandbox.cache()).unwrap();
    fs::set_permissions(sandbox.cache(), fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root(sandbox: &Sandbox) -> bool {
    fs::metadata(sandbox.path("")).unwrap().uid() == 0
}

#[test]
fn switched_off() {
    let sandbox = sandbox();
    check(&sandbox, "switched off", &|command| {
        command.env("OBJCACHE_DISABLE", "1");
    });
    assert!(!sandbox.cache().exists());
}

#[test]
fn a_file_in_place_of_the_directory() {
    let sandbox = sandbox();
    fs::write(sandbox.cache(), "in the way").unwrap();
    check(&sandbox, "not a directory", &|_| ());
    let error = sandbox.json_error(&["ls"], 3);
    assert_eq!(error["code"], "cache");
}

#[test]
fn others_may_write_into_it() {
    let sandbox = sandbox();
    make_cache(&sandbox, 0o777);
    check(&sandbox, "others may write", &|_| ());
}

#[test]
fn another_users() {
    let sandbox = sandbox();
    if is_root(&sandbox) {
        make_cache(&sandbox, 0o700);
        std::os::unix::fs::chown(sandbox.cache(), Some(NOBODY), None).unwrap();
        check(&sandbox, "another user", &|_| ());
    } else {
        check(&sandbox, "another user", &|command| {
            command.env("OBJCACHE_DIR", "/");
        });
    }
}

#[test]
fn read_only_by_mode() {
    let sandbox = sandbox();
    make_cache(&sandbox, 0o500);
    if is_root(&sandbox) {
        // Root may write everywhere, so the program runs as somebody else, from where that one can reach it.
        sandbox.give_to(NOBODY);
    }
    check(&sandbox, "cannot be written", &|_| ());
}

#[test]
fn no_home() {
    let sandbox = sandbox();
    check(&sandbox, "home", &|command| {
        command.env_remove("OBJCACHE_DIR").env_remove("XDG_CACHE_HOME").env_remove("HOME");
    });
}

#[test]
fn a_setting_that_is_not_understood() {
    let sandbox = sandbox();
    let mut command = sandbox.command(&["run", "arithmetic.clif", "--call", "add", "1", "2"]);
    let ran = finish(command.env("OBJCACHE_MAX_SIZE", "lots"));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "3\n"));
    warned_once(&ran, "OBJCACHE_MAX_SIZE");
    assert_eq!(sandbox.json(&["stats"])["entries"], 1);
}

#[test]
fn switched_off_it_can_still_be_looked_into() {
    let sandbox = sandbox();
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    let ran = finish(sandbox.command(&["ls", "--json"]).env("OBJCACHE_DISABLE", "1"));
    assert_eq!((ran.code, &*ran.stderr), (0, ""));
}

#[test]
fn a_place_where_nothing_can_be_made() {
    let sandbox = sandbox();
    let nowhere = |command: &mut Command| {
        command.env("OBJCACHE_DIR", "/proc/objcache");
    };
    check(&sandbox, "cannot be made", &nowhere);
    let mut command = sandbox.command(&["ls"]);
    nowhere(&mut command);
    let ran = finish(&mut command);
    assert_eq!(ran.code, 3);
    assert!(
        ran.stderr.contains("/proc/objcache: there is no such directory, and it cannot be made"),
        "{}",
        ran.stderr
    );
}

#[test]
fn read_only_by_choice_still_hits() {
    let sandbox = sandbox();
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    let run = |words: &[&str]| {
        let mut command = sandbox.command(words);
        finish(command.env("OBJCACHE_READONLY", "1").arg("--json"))
    };
    let ran = run(&["run", "arithmetic.clif", "--call", "add", "1", "2"]);
    assert_eq!((ran.code, &ran.json()["outcome"], &*ran.stderr), (0, &"hit".into(), ""));
    let ran = run(&["run", "arithmetic.clif", "--call", "add", "1", "2", "-O0"]);
    assert_eq!((ran.code, &ran.json()["outcome"], &*ran.stderr), (0, &"miss".into(), ""));
    for words in [&["ls"][..], &["stats"], &["verify"]] {
        let finished = run(words);
        assert_eq!((finished.code, &*finished.stderr), (0, ""), "{words:?}");
    }
    assert_eq!(sandbox.json(&["stats"])["entries"], 1);
    for words in [&["clear"][..], &["rm", "0"], &["gc", "--max-size", "0"]] {
        let finished = run(words);
        assert_ne!(finished.code, 0, "{words:?}");
        assert!(!finished.stderr.contains("warning"), "{words:?}: {}", finished.stderr);
    }
    assert_eq!(sandbox.json(&["stats"])["entries"], 1);
}

#[test]
fn a_damaged_entry_is_compiled_afresh() {
    let sandbox = sandbox();
    let words = ["run", "arithmetic.clif", "--call", "add", "40", "2"];
    let signature = sandbox.json(&words)["signature"].as_str().unwrap().to_owned();
    let file = sandbox.entry_file(&signature);
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[100] ^= 0x10;
    for (what, content) in
        [("flipped", &flipped[..]), ("cut short", &whole[..whole.len() / 2]), ("empty", &[])]
    {
        fs::write(&file, content).unwrap();
        let ran = finish(sandbox.command(&words).arg("--json"));
        assert_eq!(
            (ran.code, &ran.json()["outcome"], &ran.json()["result"]),
            (0, &"miss".into(), &42.into()),
            "{what}"
        );
        assert!(ran.stderr.starts_with("warning: "), "{what}: {}", ran.stderr);
        assert_eq!(sandbox.json(&words)["outcome"], "hit", "{what}: healed");
    }
}

/// A library that, loaded before others, sets the clock to a day in 1969.
fn clock_of_1969(sandbox: &Sandbox) -> Option<PathBuf> {
    let gcc = tool("gcc")?;
    let text = "
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec = -1000000;
    return result;
}";
    sandbox.write("clock.c", text);
    let library = sandbox.path("clock.so");
    let made = Command::new(gcc)
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &sandbox.path("clock.c")])
        .status();
    assert!(made.unwrap().success());
    Some(library)
}

#[test]
fn a_clock_before_1970() {
    let sandbox = sandbox();
    let Some(clock) = clock_of_1969(&sandbox) else { return };
    let early = |words: &[&str]| {
        let finished = finish(sandbox.command(words).env("LD_PRELOAD", &clock));
        assert_eq!((finished.code, &*finished.stderr), (0, ""), "{words:?}");
        finished.stdout
    };
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    assert_eq!(sandbox.json(&["stats"])["misses"], 1, "the catalogue knows it");
    let run = early(&["run", "arithmetic.clif", "--call", "add", "40", "2", "--json"]);
    assert!(run.contains("\"outcome\":\"hit\""), "{run}");
    assert_eq!(early(&["run", "arithmetic.clif", "--call", "add", "40", "2", "-O0"]), "42\n");
    for words in [&["stats"][..], &["ls"], &["gc"], &["fsck", "--rebuild"]] {
        early(words);
    }
    // Neither taken for damaged nor forgotten.
    assert!(!sandbox.cache().join("catalogue.damaged").exists());
    let stats = sandbox.json(&["stats"]);
    assert_eq!((&stats["entries"], &stats["hits"], &stats["misses"]), (&2.into(), &1.into(), &2.into()));
}

/// The same command, with no more file descriptors than these.
fn with_descriptors(limit: u32, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -n {limit}; exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

/// Where there are enough for one compiler and the store, many files are compiled all the same.
#[test]
fn warm_and_the_engine_try_again_with_fewer_file_descriptors_open() {
    let Some(gcc) = tool("gcc") else { return };
    let sandbox = Sandbox::new();
    let files: Vec<String> = (0..4).map(|number| format!("f{number}.c")).collect();
    for (number, file) in files.iter().enumerate() {
        sandbox.write(file, format!("int f{number}(void) {{ return {number}; }}\n"));
    }
    let mut fewest = None;
    for limit in 6..24 {
        for jobs in ["1", "4"] {
            let mut words = vec!["warm", "--json", "--jobs", jobs, "--compiler", gcc.to_str().unwrap()];
            words.extend(files.iter().map(String::as_str));
            let _ = std::fs::remove_dir_all(sandbox.cache());
            let warmed = finish(&mut with_descriptors(limit, &sandbox.command(&words))).json();
            if warmed["compiled"] == 4 {
                fewest.get_or_insert(limit);
            }
            assert!(fewest.is_none() || warmed["compiled"] == 4, "{limit} with {jobs} jobs: {warmed}");
        }
    }
    let fewest = fewest.expect("a compiler runs");
    let words = ["compile", "f0.c", "--no-cache", "-o", "out.o", "--compiler", gcc.to_str().unwrap()];
    let alone = |limit| finish(&mut with_descriptors(limit, &sandbox.command(&words))).code == 0;
    let for_the_store = (1..).find(|fewer| !alone(fewest - fewer)).expect("none is too few");
    assert!(for_the_store <= 3, "{for_the_store} of {fewest} descriptors are not the compiler's");
}

#[test]
fn a_cache_takes_no_file_descriptor_that_the_compiler_needs() {
    let Some(gcc) = tool("gcc") else { return };
    let sandbox = Sandbox::new();
    sandbox.write("square.c", "int square(int x) { return x * x; }\n");
    let compile = ["compile", "square.c", "-o", "out.o", "--compiler", gcc.to_str().unwrap()];
    let run = ["run", "square.c", "--call", "square", "--signature", "i32(i32)", "7"];
    let limited = |limit: u32, words: &[&str]| finish(&mut with_descriptors(limit, &sandbox.command(words)));
    let mut without = 0;
    for limit in 6..24 {
        for words in [&compile[..], &[&run[..], &compile[4..]].concat()] {
            if limited(limit, &[words, &["--no-cache"]].concat()).code == 0 {
                let finished = limited(limit, words);
                assert_eq!(finished.code, 0, "{limit} {words:?}: {}", finished.stderr);
                let lacked = finished.stderr.contains("no file descriptor is left");
                without += u32::from(lacked);
                if lacked {
                    let mut strict = with_descriptors(limit, &sandbox.command(words));
                    assert_ne!(finish(strict.env("OBJCACHE_STRICT", "1")).code, 0, "{limit} {words:?}");
                }
            }
        }
    }
    assert_ne!(without, 0, "the cache has some open");
}
