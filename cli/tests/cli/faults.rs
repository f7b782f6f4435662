//! Errors of the system at each call that the program makes for its cache (with strace), once and from then on: it
//! prints what it would have printed, and ends with 0.
//!
//! Each call gets one of the errors; all of them with `OBJCACHE_SOAK=1`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::{Sandbox, finish, skip};

const WORDS: [&str; 6] = ["run", "arithmetic.clif", "--call", "add", "40", "2"];
const ERRORS: [&str; 6] = ["ENOSPC", "EIO", "EMFILE", "EROFS", "EDQUOT", "EACCES"];

fn under_strace(sandbox: &Sandbox, options: &[&str]) -> Command {
    let plain = sandbox.command(&WORDS);
    let mut command = Command::new("strace");
    command.args(["-f", "-qq"]).args(options).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(plain.get_current_dir().unwrap()).stdin(std::process::Stdio::null());
    command
}

/// Which calls of the first thread have to do with the cache: by name, the places among all of that name.
fn calls(log: &str, cache: &Path) -> BTreeMap<String, Vec<usize>> {
    let cache = cache.display().to_string();
    let thread_of = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let first = log.lines().next().map(thread_of).unwrap();
    let (mut counts, mut calls) = (BTreeMap::<&str, usize>::new(), BTreeMap::<String, Vec<usize>>::new());
    for line in log.lines().filter(|line| thread_of(line) == first) {
        let call = line[first.len()..].trim_start();
        let Some((name, _)) = call.split_once('(') else { continue };
        let count = counts.entry(name).or_default();
        *count += 1;
        // `close` has no error that says anything, and executing comes before everything.
        if call.contains(&cache) && !["close", "execve", "fcntl"].contains(&name) {
            calls.entry(name.to_owned()).or_default().push(*count);
        }
    }
    calls
}

/// A cache as it is made by the program itself, or one that has the entry.
fn sandbox(filled: bool) -> Sandbox {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    if filled {
        sandbox.objcache(&WORDS).fine();
    }
    sandbox
}

fn fail_at_each_call(filled: bool, for_ever: bool) {
    if Command::new("strace").arg("-V").output().is_err() {
        return skip("there is no strace");
    }
    let traced = sandbox(filled);
    let log = traced.path("trace");
    finish(&mut under_strace(&traced, &["-y", "-o", log.to_str().unwrap()])).fine();
    let calls = calls(&std::fs::read_to_string(log).unwrap(), &traced.cache());
    let mut points = 0;
    // From then on nothing could be printed either.
    for (name, places) in calls.iter().filter(|(name, _)| !for_ever || *name != "write") {
        for place in places {
            let soak = std::env::var_os("OBJCACHE_SOAK").is_some();
            let errors = ERRORS.iter().cycle().skip(points).take(if soak { ERRORS.len() } else { 1 });
            for error in errors {
                let sandbox = sandbox(filled);
                let plus = if for_ever { "+" } else { "" };
                let inject = format!("inject={name}:error={error}:when={place}{plus}");
                let trace = format!("trace={name}");
                let options = ["-o", "/dev/null", "-e", &trace, "-e", &inject];
                let ran = finish(&mut under_strace(&sandbox, &options));
                assert_eq!((ran.code, ran.stdout.as_str()), (0, "42\n"), "{inject}: {}", ran.stderr);
                let after = sandbox.json(&WORDS);
                assert_eq!(after["result"], 42, "{inject}");
                assert_eq!(sandbox.json(&WORDS)["outcome"], "hit", "{inject}: it recovers");
            }
            points += 1;
        }
    }
    assert!(points > 5, "{calls:?}");
    eprintln!("{points} points");
}

#[test]
fn an_error_at_each_call_of_a_miss() {
    fail_at_each_call(false, false);
}

#[test]
fn an_error_at_each_call_of_a_hit() {
    fail_at_each_call(true, false);
}

#[test]
fn errors_from_each_call_of_a_miss_on() {
    fail_at_each_call(false, true);
}

#[test]
fn errors_from_each_call_of_a_hit_on() {
    fail_at_each_call(true, true);
}
