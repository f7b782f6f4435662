//! `warm`: many files into the cache, before they are needed.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Sandbox, finish, finished};

fn counts(report: &Value) -> [u64; 3] {
    ["hits", "compiled", "failed"].map(|name| report[name].as_u64().unwrap())
}

#[test]
fn what_was_warmed_is_a_hit_later() {
    let sandbox = Sandbox::with(&["arithmetic.clif", "saxpy.clif"]);
    let warmed = sandbox.json(&["warm", "arithmetic.clif", "saxpy.clif", "-j", "2", "-O", "s"]);
    assert_eq!(counts(&warmed), [0, 2, 0]);
    assert_eq!(warmed["files"][0]["file"], "arithmetic.clif", "in the order given");
    let compiled = sandbox.json(&["compile", "saxpy.clif", "-O", "s", "-o", "out.o"]);
    assert_eq!(
        (&compiled["outcome"], &compiled["signature"]),
        (&json!("hit"), &warmed["files"][1]["signature"])
    );
    assert_eq!(counts(&sandbox.json(&["warm", "arithmetic.clif", "saxpy.clif", "-O", "s"])), [2, 0, 0]);
    let said = sandbox.objcache(&["warm", "arithmetic.clif"]).fine();
    assert!(said.starts_with("0 hits, 1 compiled, 0 failed; "), "{said}");
}

#[test]
fn the_same_file_many_times_is_compiled_once() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let words: Vec<_> = ["warm", "-j", "8"].into_iter().chain(["arithmetic.clif"; 24]).collect();
    assert_eq!(counts(&sandbox.json(&words)), [23, 1, 0]);
}

#[test]
fn failures_are_told_and_keep_nothing_else_back() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.write("bad.clif", "nonsense");
    sandbox.write("odd.unknown", "");
    let warmed = finish(&mut sandbox.command(&[
        "warm",
        "bad.clif",
        "odd.unknown",
        "missing.clif",
        "arithmetic.clif",
        "--json",
    ]));
    let report = warmed.json();
    assert_eq!((warmed.code, counts(&report)), (1, [0, 1, 3]));
    assert!(report["files"][0]["error"].as_str().unwrap().contains("bad.clif"), "{report}");
    let said = sandbox.objcache(&["warm", "bad.clif", "arithmetic.clif"]);
    assert!(said.code == 1 && said.stdout.contains("failed   bad.clif"), "{}", said.stdout);
}

#[test]
fn manifests_list_files_with_their_options() {
    let sandbox = Sandbox::with(&["arithmetic.clif", "saxpy.clif"]);
    std::fs::create_dir(sandbox.path("lists")).unwrap();
    let toml = "[[compile]]\nfile = \"../arithmetic.clif\"\noptions = [\"-O0\", \"--namespace\", \"n\"]\n\n[[compile]]\nfile = \"../saxpy.clif\"\n";
    sandbox.write("lists/all.toml", toml);
    assert_eq!(counts(&sandbox.json(&["warm", "--manifest", "lists/all.toml"])), [0, 2, 0]);
    let words = ["compile", "arithmetic.clif", "-O0", "--namespace", "n", "-o", "out.o"];
    assert_eq!(sandbox.json(&words)["outcome"], "hit");

    let lines = "{\"file\": \"saxpy.clif\"}\n\n{\"file\": \"saxpy.clif\", \"options\": [\"-O3\"]}\n";
    sandbox.write("all.jsonl", lines);
    assert_eq!(counts(&sandbox.json(&["warm", "--manifest", "all.jsonl", "arithmetic.clif"])), [1, 2, 0]);
    let mut command = sandbox.command(&["warm", "--manifest", "-", "--json"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert_eq!(counts(&finished(child.wait_with_output().unwrap()).json()), [2, 0, 0]);
}

#[test]
fn a_manifest_that_is_wrong_is_a_usage_error_that_says_where() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    for (name, text, why) in [
        ("a.toml", "[[compile]]\nfiles = \"x\"\n", "files"),
        ("a.toml", "[[compile]\n", ""),
        ("a.jsonl", "{\"file\": \"a.c\"}\n{\"flie\": 1}\n", "line 2"),
        ("a.jsonl", "{\"file\": \"a.c\", \"options\": [\"--optimise\"]}\n", "--optimise"),
        ("a.jsonl", "{\"file\": \"a.c\", \"options\": [\"--help\"]}\n", "--help"),
    ] {
        sandbox.write(name, text);
        let error = sandbox.json_error(&["warm", "--manifest", name], 2);
        assert_eq!(error["code"], "bad_manifest", "{text}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(name) && message.contains(why), "{message}");
    }
    sandbox.objcache(&["warm"]).fails(2);
    assert_eq!(sandbox.json_error(&["warm", "--manifest", "none.toml"], 3)["code"], "io");
}
