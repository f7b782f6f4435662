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

/// `warm --json` with these variables; its code, the counts and the first file's outcome and reason.
fn warm_with(sandbox: &Sandbox, words: &[&str], variables: &[(&str, &str)]) -> (i32, Value) {
    let mut command = sandbox.command(&["warm", "arithmetic.clif", "--json"]);
    let finished = finish(command.args(words).envs(variables.iter().copied()));
    (finished.code, finished.json())
}

#[test]
fn what_is_damaged_or_not_vouched_for_is_compiled_afresh() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let warmed = sandbox.json(&["warm", "arithmetic.clif"]);
    let file = sandbox.entry_file(warmed["files"][0]["signature"].as_str().unwrap());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 0x10;
    std::fs::write(&file, &bytes).unwrap();
    let (code, error) = warm_with(&sandbox, &[], &[("OBJCACHE_STRICT", "1")]);
    assert_eq!((code, counts(&error)), (1, [0, 0, 1]), "strict makes errors of it: {error}");
    std::fs::write(&file, &bytes).unwrap();
    let (code, report) = warm_with(&sandbox, &[], &[]);
    assert_eq!((code, counts(&report)), (0, [0, 1, 0]), "{report}");
    assert_eq!(counts(&sandbox.json(&["warm", "arithmetic.clif"])), [1, 0, 0], "healed");

    let public = sandbox.objcache(&["key", "generate", "ed25519", "signing.key"]).fine();
    sandbox.write("trusted", public);
    let trusted = sandbox.path("trusted");
    let (code, report) = warm_with(&sandbox, &[], &[("OBJCACHE_TRUSTED_KEYS", trusted.to_str().unwrap())]);
    assert_eq!((code, &report["files"][0]["outcome"]), (0, &json!("not_kept")), "{report}");
    let why = report["files"][0]["error"].as_str().unwrap();
    assert!(why.contains("signing_key"), "{why}");
}

#[test]
fn what_the_cache_does_not_keep_is_told_of_with_the_reason() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    for (variable, value, word) in [
        ("OBJCACHE_READONLY", "1", "opened for reading only"),
        ("OBJCACHE_MAX_OBJECT_SIZE", "1", "max_object_size"),
        ("OBJCACHE_MIN_COMPILE_MS", "3600000", "min_compile_ms"),
        ("OBJCACHE_MAX_ENTRIES", "0", "max_entries"),
        ("OBJCACHE_DIR", "/proc/objcache", "cannot be made"),
    ] {
        // A cache that is only read has to be there.
        sandbox.objcache(&["ls"]).fine();
        let (code, report) = warm_with(&sandbox, &[], &[(variable, value)]);
        assert_eq!((code, counts(&report), &report["not_kept"]), (0, [0, 0, 0], &json!(1)), "{report}");
        let why = report["files"][0]["error"].as_str().unwrap();
        assert!(why.contains(word), "{why}");
    }
    let mut command = sandbox.command(&["warm", "arithmetic.clif"]);
    let said = finish(command.env("OBJCACHE_MAX_ENTRIES", "0")).fine();
    assert!(said.contains("not kept") && said.contains("0 compiled, 0 failed, 1 not kept; "), "{said}");
}

#[test]
fn without_a_cache_there_is_nothing_to_warm() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    for (words, variables, why) in
        [(&[][..], &[("OBJCACHE_DISABLE", "1")][..], "switched off"), (&["--no-cache"], &[], "--no-cache")]
    {
        let (code, report) = warm_with(&sandbox, words, variables);
        assert_eq!((code, counts(&report), &report["skipped"]), (0, [0, 0, 0], &json!(1)), "{report}");
        let mut command = sandbox.command(&["warm", "arithmetic.clif"]);
        let said = finish(command.args(words).envs(variables.iter().copied())).fine();
        assert!(said.starts_with("there is nothing to warm: ") && said.contains(why), "{said}");
    }
    assert_eq!(sandbox.json(&["stats"])["entries"], 0);
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
