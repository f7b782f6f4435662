//! What is different when somebody watches: remarks, colours, wrapped lines, questions.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Finished, Sandbox, finished, tool};

/// The program on a terminal of its own, made by `script`, with an answer to what it asks. Both streams end up
/// in stdout.
fn on_terminal(sandbox: &Sandbox, words: &str, answer: &str) -> Option<Finished> {
    on_terminal_of_kind("xterm", sandbox, words, answer)
}

fn on_terminal_of_kind(kind: &str, sandbox: &Sandbox, words: &str, answer: &str) -> Option<Finished> {
    let script = tool("script")?;
    let line = format!("stty cols 100 && exec '{}' {words}", env!("CARGO_BIN_EXE_objcache"));
    let mut command = Command::new(script);
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.current_dir(sandbox.path("")).env("OBJCACHE_DIR", sandbox.cache()).env("TERM", kind);
    command.env_remove("NO_COLOR").env_remove("OBJCACHE_LOG");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    Some(finished(child.wait_with_output().unwrap()))
}

#[test]
fn run_remarks_how_the_result_was_come_by() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let words = "run arithmetic.clif --call add 40 2";
    let Some(first) = on_terminal(&sandbox, words, "") else { return };
    assert!(
        first.code == 0 && first.stdout.contains("42") && first.stdout.contains("miss "),
        "{}",
        first.stdout
    );
    let second = on_terminal(&sandbox, words, "").unwrap();
    assert!(second.stdout.contains("hit "), "{}", second.stdout);
    let quiet = on_terminal(&sandbox, &format!("{words} -q"), "").unwrap();
    assert_eq!(quiet.stdout.trim(), "42");
    let json = on_terminal(&sandbox, &format!("{words} --json"), "").unwrap();
    assert_eq!(json.json()["result"], 42);
}

#[test]
fn long_lines_are_wrapped_and_headings_stand_out() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let words = "signature arithmetic.clif --document --flag enable_alias_analysis=false --flag regalloc_checker=true";
    let Some(shown) = on_terminal(&sandbox, &format!("{words} --features -avx2,-avx"), "") else { return };
    assert_eq!(shown.code, 0, "{}", shown.stdout);
    for line in shown.stdout.lines() {
        assert!(line.trim_end().chars().count() <= 100, "{line}");
    }
    on_terminal(&sandbox, "compile arithmetic.clif", "").unwrap().fine();
    let list = on_terminal(&sandbox, "ls", "").unwrap().fine();
    assert!(list.contains("\u{1b}[1mSIGNATURE"), "{list:?}");
    let plain = on_terminal(&sandbox, "ls --color never", "").unwrap().fine();
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
}

#[test]
fn warnings_and_errors_are_coloured() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    std::fs::write(sandbox.cache(), "in the way").unwrap();
    let Some(warned) = on_terminal(&sandbox, "run arithmetic.clif --call add 1 2", "") else { return };
    assert!(warned.code == 0 && warned.stdout.contains("warning:\u{1b}[0m "), "{:?}", warned.stdout);
    let failed = on_terminal(&sandbox, "ls", "").unwrap();
    assert!(failed.code == 3 && failed.stdout.contains("error:\u{1b}[0m "), "{:?}", failed.stdout);
}

#[test]
fn a_terminal_that_knows_no_escape_sequences_gets_none() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    for words in ["ls", "top", "run arithmetic.clif --call add 40 2"] {
        let Some(shown) = on_terminal_of_kind("dumb", &sandbox, words, "") else { return };
        assert!(!shown.fine().contains('\u{1b}'), "{words}");
    }
}

#[test]
fn clear_asks_and_takes_only_yes_for_yes() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    let count = || sandbox.json(&["stats"])["entries"].clone();
    let Some(kept) = on_terminal(&sandbox, "clear", "no\n") else { return };
    assert!(kept.code == 1 && kept.stdout.contains("Remove 1 entry"), "{}", kept.stdout);
    assert_eq!(count(), 1);
    assert_eq!(on_terminal(&sandbox, "clear", "\n").unwrap().code, 1);
    assert_eq!(count(), 1);
    let cleared = on_terminal(&sandbox, "clear", "y\n").unwrap();
    assert!(cleared.code == 0 && cleared.stdout.contains("removed 1 entry"), "{}", cleared.stdout);
    assert_eq!(count(), 0);
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    let told = on_terminal(&sandbox, "clear --yes", "").unwrap();
    assert!(!told.stdout.contains("[y/N]"), "{}", told.stdout);
    assert_eq!(count(), 0);
}

#[test]
fn top_redraws_on_a_screen_of_its_own_until_it_is_told_to_end() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    // `h` and `v` sort anew, which is another look each.
    let Some(watched) = on_terminal(&sandbox, "top --interval 1h", "hvq") else { return };
    assert_eq!(watched.code, 0, "{:?}", watched.stdout);
    assert_eq!(watched.stdout.matches("1 entry in ").count(), 3, "{:?}", watched.stdout);
    let (enter, leave) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
    let (enter, leave) = (watched.stdout.find(enter), watched.stdout.rfind(leave));
    assert!(enter < leave && enter.is_some(), "{:?}", watched.stdout);
    assert!(watched.stdout.contains("arithmetic.clif"), "{:?}", watched.stdout);
}

#[test]
fn an_object_is_not_spilt_on_a_terminal() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let Some(refused) = on_terminal(&sandbox, "compile arithmetic.clif -o -", "") else { return };
    assert!(refused.code == 2 && refused.stdout.contains("terminal"), "{}", refused.stdout);
}
