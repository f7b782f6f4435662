//! Every broken state there is a name for: the program prints what it would have printed, ends with 0, and says in
//! one line for each reason why it did without the cache. The library's user sees the same (`cache/tests/matrix.rs`).

use std::process::Command;

use objcache::cache::Reason;

use crate::states::{STATES, Scene, State};
use crate::support::{Finished, Sandbox, finish, skip};

const WORDS: [&str; 5] = ["run", "arithmetic.clif", "--call", "add", "40"];

/// `None`: the state cannot be had here.
fn run(state: &State, strict: bool) -> Option<Finished> {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let words = [&WORDS[..], &["2"]].concat();
    let signature = sandbox.json(&words)["signature"].as_str().unwrap().to_owned();
    sandbox.objcache(&["ls"]).fine();
    let root = sandbox.cache();
    let scene = Scene { root: &root, signature: &signature };
    let _guard = match (state.prepare)(&scene) {
        Ok(guard) => guard,
        Err(error) => {
            skip(&format!("{}: {error}", state.name));
            return None;
        }
    };
    let plain = sandbox.command(&words);
    let runner = state.runner(&scene);
    let mut command = match runner.split_first() {
        None => plain,
        Some((first, rest)) => run_by(first, rest, &plain),
    };
    command.env("OBJCACHE_STRICT", if strict { "1" } else { "0" });
    state.adjust(&mut command, &scene);
    Some(finish(&mut command))
}

/// The same command, run by another program.
fn run_by(first: &str, rest: &[String], plain: &Command) -> Command {
    let mut command = Command::new(first);
    command.args(rest).arg(plain.get_program()).args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(plain.get_current_dir().unwrap()).stdin(std::process::Stdio::null());
    command
}

/// Those that can be had here.
fn states() -> impl Iterator<Item = &'static State> {
    let has_strace = Command::new("strace").arg("-V").output().is_ok();
    if !has_strace {
        skip("there is no strace");
    }
    STATES.iter().filter(move |state| has_strace || state.under.first() != Some(&"strace"))
}

#[test]
fn strict_mode_makes_errors_of_them() {
    for state in states() {
        let Some(ran) = run(state, true) else { continue };
        let damaged = state.reasons.iter().any(|reason| reason.starts_with("entry_"));
        let expected = match state.strict {
            true if damaged => (1, ""),
            true => (3, ""),
            false => (0, "42\n"),
        };
        assert_eq!((ran.code, ran.stdout.as_str()), expected, "{}: {}", state.name, ran.stderr);
        assert_eq!(ran.stderr.contains("error: "), state.strict, "{}: {}", state.name, ran.stderr);
    }
}

#[test]
fn every_state_costs_a_warning_at_most() {
    for state in states() {
        let Some(ran) = run(state, false) else { continue };
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "42\n"), "{}: {}", state.name, ran.stderr);
        let known: Vec<String> = Reason::ALL
            .iter()
            .filter(|reason| state.reasons.contains(&reason.as_str()))
            .map(Reason::to_string)
            .collect();
        let lines: Vec<&str> = ran.stderr.lines().collect();
        assert_eq!(lines.is_empty(), known.is_empty(), "{}: {lines:?}", state.name);
        assert!(lines.len() <= known.len(), "{}: {lines:?}", state.name);
        for line in lines {
            let explained = known.iter().any(|words| line.contains(words));
            assert!(line.starts_with("warning: ") && explained, "{}: {line}", state.name);
        }
    }
}

/// The kernel itself removes the directory, so that it is gone while the program has it open.
#[test]
fn the_directory_is_deleted_underneath() {
    if crate::support::tool("clang-22").is_none() {
        return;
    }
    let sandbox = Sandbox::new();
    let code = "int system(const char *); int answer(void) { return 42 + system(\"rm -rf $OBJCACHE_DIR\"); }";
    sandbox.write("answer.c", code);
    let words = ["run", "answer.c", "--signature", "i32()", "--call", "answer", "--compiler", "clang-22"];
    for round in ["cold", "again"] {
        let ran = sandbox.objcache(&words);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, "42\n"), "{round}: {}", ran.stderr);
        assert!(!sandbox.cache().exists());
        let lines: Vec<&str> = ran.stderr.lines().collect();
        assert!(lines.len() <= 1, "{round}: {lines:?}");
        assert!(lines.iter().all(|line| line.contains("the directory is gone")), "{round}: {lines:?}");
    }
}
