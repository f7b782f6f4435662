//! What makes a hit and what a miss: every ingredient counts, nothing else does.

use std::fs;
use std::path::PathBuf;

use crate::support::{Sandbox, copy_program, finish, tool};

/// The outcome of `compile` with these words.
fn outcome(sandbox: &Sandbox, words: &[&str]) -> String {
    sandbox.json(&[&["compile", "-o", "out.o"], words].concat())["outcome"].as_str().unwrap().to_owned()
}

/// A miss the first time, and a hit in the next process.
#[track_caller]
fn new_to(sandbox: &Sandbox, words: &[&str]) {
    assert_eq!(outcome(sandbox, words), "miss", "{words:?}");
    assert_eq!(outcome(sandbox, words), "hit", "{words:?}");
}

#[test]
fn every_ingredient_counts() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.write("profile", "one");
    let base: &[&str] = &["arithmetic.clif"];
    new_to(&sandbox, base);
    for option in [
        &["-O0"][..],
        &["-Os"],
        &["--flag", "regalloc_checker=true"],
        &["--features", "-avx2,-avx"],
        &["--cpu", "generic"],
        &["--env", "MODE=1"],
        &["--env", "MODE=2"],
        &["--env", "MODE="],
        &["--env", "MODE_IS_NOT_SET"],
        &["--namespace", "a"],
        &["--salt", "a"],
        &["--input", "profile"],
    ] {
        new_to(&sandbox, &[base, option].concat());
    }
    assert_eq!(outcome(&sandbox, base), "hit");
}

#[test]
fn an_edited_file_is_another() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let words = ["run", "arithmetic.clif", "--call", "half", "8"];
    assert_eq!(sandbox.json(&words)["result"], 4.0);
    let text = String::from_utf8(sandbox.read("arithmetic.clif")).unwrap();
    sandbox.write("arithmetic.clif", text.replace("0x1.0p-1", "0x1.0p-2"));
    let edited = sandbox.json(&words);
    assert_eq!((&edited["outcome"], &edited["result"]), (&"miss".into(), &2.0.into()));
    sandbox.write("arithmetic.clif", text);
    let back = sandbox.json(&words);
    assert_eq!((&back["outcome"], &back["result"]), (&"hit".into(), &4.0.into()));
}

#[test]
fn an_external_input_counts_by_content() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let words = ["arithmetic.clif", "--input", "profile"];
    sandbox.write("profile", "one");
    new_to(&sandbox, &words);
    sandbox.write("profile", "two");
    new_to(&sandbox, &words);
    sandbox.write("profile", "one");
    assert_eq!(outcome(&sandbox, &words), "hit");
}

#[test]
fn a_declared_variable_counts_and_no_other() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let with = |value: &str, words: &[&str]| {
        let mut command = sandbox.command(&[&["compile", "arithmetic.clif", "--json"], words].concat());
        finish(command.env("MODE", value)).json()["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(with("1", &[]), "miss");
    assert_eq!(with("2", &[]), "hit", "not declared");
    assert_eq!(with("1", &["--env", "MODE"]), "miss");
    assert_eq!(with("1", &["--env", "MODE"]), "hit");
    assert_eq!(with("2", &["--env", "MODE"]), "miss");
    assert_eq!(with("3", &["--env", "MODE=2"]), "hit", "given by hand");
}

#[test]
fn name_place_and_age_of_the_file_do_not_count() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    new_to(&sandbox, &["arithmetic.clif"]);
    fs::create_dir(sandbox.path("folder")).unwrap();
    fs::copy(sandbox.path("arithmetic.clif"), sandbox.path("folder/other.clif")).unwrap();
    assert_eq!(outcome(&sandbox, &["folder/other.clif"]), "hit");
}

/// A compiler that writes down every compilation, and leaves it to gcc.
fn logging_compiler(sandbox: &Sandbox) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let gcc = tool("gcc")?;
    let path = sandbox.path("logging-gcc");
    let log = sandbox.path("log");
    let script = format!(
        "#!/bin/sh\nfor word; do [ \"$word\" = -c ] && echo compiled >> '{}'; done\nexec '{}' \"$@\"\n",
        log.display(),
        gcc.display()
    );
    let draft = sandbox.path("logging-gcc.draft");
    fs::write(&draft, script).unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&draft, &path);
    Some(path)
}

fn compilations(sandbox: &Sandbox) -> usize {
    fs::read_to_string(sandbox.path("log")).unwrap_or_default().lines().count()
}

#[test]
fn a_hit_does_not_call_the_compiler() {
    let sandbox = Sandbox::with(&["saxpy.c"]);
    let Some(compiler) = logging_compiler(&sandbox) else { return };
    let run = |flags: &[&str]| {
        let words = [
            "run",
            "saxpy.c",
            "--compiler",
            compiler.to_str().unwrap(),
            "--signature",
            "void(i64,f32,ptr,ptr)",
        ];
        let ran = sandbox.json(&[&words, flags, &["1", "2", "f32[3]", "f32[10]"]].concat());
        (ran["outcome"].as_str().unwrap().to_owned(), ran["buffers"][1]["values"][0].clone())
    };
    assert_eq!((run(&[]), compilations(&sandbox)), (("miss".to_owned(), 16.0.into()), 1));
    assert_eq!((run(&[]), compilations(&sandbox)), (("hit".to_owned(), 16.0.into()), 1));
    let flag = ["--flag", "-DFACTOR=3"];
    assert_eq!((run(&flag), compilations(&sandbox)), (("miss".to_owned(), 28.0.into()), 2));
    assert_eq!((run(&["--flag=-DFACTOR=3"]), compilations(&sandbox)), (("hit".to_owned(), 28.0.into()), 2));
    assert_eq!((run(&["-O3"]), compilations(&sandbox)), (("miss".to_owned(), 16.0.into()), 3));
    assert_eq!(
        (run(&["--features", "-avx512f"]), compilations(&sandbox)),
        (("miss".to_owned(), 16.0.into()), 4)
    );
}
