//! `config`: which setting holds, where it comes from, and how files are edited.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Finished, Sandbox, finish, tool};

fn with_environment(sandbox: &Sandbox, words: &[&str], variables: &[(&str, &str)]) -> Finished {
    finish(sandbox.command(words).envs(variables.iter().copied()))
}

fn setting(sandbox: &Sandbox, key: &str) -> Value {
    let list = sandbox.json(&["config", "list"]);
    let settings = list["settings"].as_array().unwrap().clone();
    settings.into_iter().find(|setting| setting["key"] == key).unwrap()
}

fn user_file(sandbox: &Sandbox) -> std::path::PathBuf {
    sandbox.path("../config/objcache/config.toml")
}

#[test]
fn the_user_the_project_the_environment_and_the_command_line_decide_in_turn() {
    let sandbox = Sandbox::new();
    let get = |variables: &[(&str, &str)]| {
        let got = with_environment(&sandbox, &["config", "get", "min_compile_ms", "--json"], variables);
        let got = got.json();
        (got["value"].as_str().unwrap().to_owned(), got["origin"].as_str().unwrap().to_owned())
    };
    let expect = |value: &str, origin: &str| (value.to_owned(), origin.to_owned());
    assert_eq!(get(&[]), expect("0", "default"));
    sandbox.objcache(&["config", "set", "min_compile_ms", "5"]).fine();
    assert_eq!(get(&[]), expect("5", "user"));
    sandbox.objcache(&["config", "set", "min_compile_ms", "6", "--project"]).fine();
    assert_eq!(get(&[]), expect("6", "project"));
    assert_eq!(get(&[("OBJCACHE_MIN_COMPILE_MS", "7")]), expect("7", "environment"));
    assert_eq!(setting(&sandbox, "dir")["origin"], "environment");
    let flag = sandbox.json(&["config", "get", "dir", "--dir", "/elsewhere"]);
    assert_eq!((&flag["value"], &flag["origin"]), (&json!("/elsewhere"), &json!("flag")));

    // Both are what other commands go by.
    sandbox.objcache(&["config", "set", "max_size", "123M"]).fine();
    assert_eq!(sandbox.json(&["stats"])["max_size"], 123 << 20);
    let words = ["stats", "--json"];
    assert_eq!(
        with_environment(&sandbox, &words, &[("OBJCACHE_MAX_SIZE", "99M")]).json()["max_size"],
        99 << 20
    );
    sandbox.objcache(&["config", "unset", "min_compile_ms", "--project"]).fine();
    assert_eq!(get(&[]), expect("5", "user"));
}

#[test]
fn the_project_is_found_from_below() {
    let sandbox = Sandbox::new();
    sandbox.write("objcache.toml", "min_compile_ms = 11\n");
    std::fs::create_dir_all(sandbox.path("deep/down")).unwrap();
    let mut command = sandbox.command(&["config", "list", "--origin"]);
    let listed = finish(command.current_dir(sandbox.path("deep/down"))).fine();
    let line = listed.lines().find(|line| line.starts_with("min_compile_ms")).unwrap();
    assert!(line.contains("11") && line.contains("project: ") && line.contains("objcache.toml"), "{listed}");
}

#[test]
fn a_project_cannot_redirect_or_shrink_the_cache() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    sandbox.write("objcache.toml", "dir = \"/tmp/planted\"\nmax_size = \"4M\"\nmax_age = \"1s\"\n");
    let listed = sandbox.objcache(&["config", "list"]);
    assert_eq!(listed.code, 0);
    assert_eq!(listed.stderr.matches("is not for projects to set").count(), 3, "{}", listed.stderr);
    let finished = with_environment(&sandbox, &["stats", "--json"], &[]);
    assert_eq!((&finished.json()["entries"], &finished.json()["max_size"]), (&json!(1), &json!(10u64 << 30)));
    let refused = sandbox.json_error(&["config", "set", "max_size", "1G", "--project"], 2);
    assert_eq!(refused["code"], "not_for_projects");
}

#[test]
fn editing_keeps_everything_else() {
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(user_file(&sandbox).parent().unwrap()).unwrap();
    let before = "# mine\n\nmax_size = \"1G\"   # the disk is small\nstrict = true\n\n[namespace_max_size]\ndebug = \"5M\"\n";
    std::fs::write(user_file(&sandbox), before).unwrap();
    let said = sandbox.objcache(&["config", "set", "max_size", "2G"]).fine();
    assert!(said.starts_with("max_size = 2G in ") && said.contains("config.toml"), "{said}");
    assert_eq!(std::fs::read_to_string(user_file(&sandbox)).unwrap(), before.replace("1G", "2G"));
    sandbox.objcache(&["config", "set", "durable", "true"]).fine();
    sandbox.objcache(&["config", "unset", "strict"]).fine();
    let after = std::fs::read_to_string(user_file(&sandbox)).unwrap();
    assert!(after.starts_with("# mine\n\nmax_size = \"2G\"   # the disk is small\n"), "{after}");
    assert!(after.contains("\ndurable = true\n") && !after.contains("strict"), "{after}");
    assert_eq!(sandbox.objcache(&["config", "get", "namespace_max_size"]).fine(), "debug=5M\n");
    assert_eq!(setting(&sandbox, "durable")["value"], "true");
}

#[test]
fn what_decides_instead_is_told() {
    let sandbox = Sandbox::new();
    let set = ["config", "set", "max_size", "2G"];
    let said = with_environment(&sandbox, &set, &[("OBJCACHE_MAX_SIZE", "1G")]).fine();
    assert!(said.contains("but OBJCACHE_MAX_SIZE sets it, and decides"), "{said}");
    sandbox.write("objcache.toml", "durable = true\n");
    let report = sandbox.json(&["config", "set", "durable", "false"]);
    assert!(report["overridden_by"].as_str().unwrap().ends_with("objcache.toml"), "{report}");
}

#[test]
fn wrong_words_are_usage_errors() {
    let sandbox = Sandbox::new();
    let unknown = sandbox.json_error(&["config", "get", "max_sise"], 2);
    assert_eq!(
        (&unknown["code"], &unknown["hint"]),
        (&json!("unknown_setting"), &json!("is `max_size` meant?"))
    );
    for (key, value) in
        [("max_size", "lots"), ("dir", "relative"), ("durable", "perhaps"), ("max_age", "7"), ("strict", "")]
    {
        assert_eq!(sandbox.json_error(&["config", "set", key, value], 2)["code"], "bad_value", "{key}");
    }
    assert!(!user_file(&sandbox).exists());
    std::fs::create_dir_all(user_file(&sandbox).parent().unwrap()).unwrap();
    std::fs::write(user_file(&sandbox), "# so far so good\nmax_size = = 3\n").unwrap();
    let error = sandbox.json_error(&["config", "set", "max_size", "1G"], 1);
    assert!(
        error["code"] == "bad_config" && error["message"].as_str().unwrap().contains("line 2"),
        "{error}"
    );
    let mut homeless = sandbox.command(&["config", "set", "max_size", "1G", "--json"]);
    let homeless = finish(homeless.env_remove("HOME").env_remove("XDG_CONFIG_HOME"));
    assert_eq!((homeless.code, &homeless.json()["error"]["code"]), (1, &json!("no_home")));
}

#[test]
fn a_file_that_does_not_read_costs_a_warning_and_nothing_else() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.write("objcache.toml", "\u{0}\u{1b}[31m = [[[\n");
    let ran = sandbox.objcache(&["run", "arithmetic.clif", "--call", "add", "40", "2"]);
    assert_eq!((ran.code, &*ran.stdout), (0, "42\n"));
    assert!(
        ran.stderr.starts_with("warning: ") && ran.stderr.contains("objcache.toml: line 1"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);
}

#[test]
fn a_size_below_the_least_is_told_of() {
    let sandbox = Sandbox::new();
    for words in [&["config", "get", "max_size"][..], &["config", "list"]] {
        let told = with_environment(&sandbox, words, &[("OBJCACHE_MAX_SIZE", "1M")]);
        assert!(told.stderr.contains("4 MiB is the least"), "{words:?}: {}", told.stderr);
        let silent = with_environment(&sandbox, words, &[("OBJCACHE_MAX_SIZE", "4M")]);
        assert_eq!((silent.code, &*silent.stderr), (0, ""), "{words:?}");
    }
}

#[test]
fn an_edited_file_keeps_its_mode() {
    let sandbox = Sandbox::new();
    sandbox.objcache(&["config", "set", "strict", "true"]).fine();
    for mode in [0o600, 0o640] {
        std::fs::set_permissions(user_file(&sandbox), Permissions::from_mode(mode)).unwrap();
        sandbox.objcache(&["config", "set", "durable", "true"]).fine();
        assert_eq!(std::fs::metadata(user_file(&sandbox)).unwrap().mode() & 0o777, mode);
    }
}

#[test]
fn what_would_not_be_read_is_not_written() {
    let sandbox = Sandbox::new();
    let long = format!("# {}\n", "x".repeat(65_500));
    sandbox.write("objcache.toml", &long);
    let set = ["config", "set", "min_compile_ms", "5", "--project"];
    sandbox.objcache(&set).fine();
    sandbox.write("objcache.toml", long.replace("# ", "# yyyyyyyyyyyyyyyyyyyyyyyyyyyy"));
    let before = sandbox.read("objcache.toml");
    let error = sandbox.json_error(&set, 1);
    assert!(error["code"] == "bad_config" && error["message"].as_str().unwrap().contains("65536"), "{error}");
    assert_eq!(sandbox.read("objcache.toml"), before);

    std::fs::remove_file(sandbox.path("objcache.toml")).unwrap();
    let Some(mkfifo) = tool("mkfifo") else { return };
    assert!(Command::new(mkfifo).arg(sandbox.path("objcache.toml")).status().unwrap().success());
    let error = sandbox.json_error(&set, 1);
    assert!(error["message"].as_str().unwrap().contains("not a regular file"), "{error}");
}

#[test]
fn edits_at_the_same_time_all_stay() {
    let sandbox = Sandbox::new();
    let settings = [
        ("strict", "true"),
        ("durable", "true"),
        ("read_only", "true"),
        ("promote", "true"),
        ("min_compile_ms", "5"),
        ("max_entries", "6"),
        ("max_size", "7G"),
        ("max_age", "8d"),
    ];
    let start = |(key, value): (&str, &str)| {
        let mut command = sandbox.command(&["config", "set", key, value]);
        command.stdout(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> = settings.into_iter().map(start).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    for (key, value) in settings {
        assert_eq!(sandbox.objcache(&["config", "get", key]).fine(), format!("{value}\n"), "{key}");
    }
}

#[test]
fn a_value_that_is_not_understood_is_told_of_and_what_applies_instead() {
    let sandbox = Sandbox::new();
    sandbox.objcache(&["config", "set", "max_size", "1G"]).fine();
    let lots = [("OBJCACHE_MAX_SIZE", "lots")];
    let got = with_environment(&sandbox, &["config", "get", "max_size"], &lots);
    assert_eq!((got.code, &*got.stdout), (0, "1G\n"), "{}", got.stderr);
    let [said] = got.stderr.lines().collect::<Vec<_>>()[..] else { panic!("{}", got.stderr) };
    for part in ["OBJCACHE_MAX_SIZE=lots", "like 500M", "what applies is 1G", "config.toml"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let got = with_environment(&sandbox, &["config", "get", "max_size", "--json"], &lots).json();
    let left_aside = &got["left_aside"][0];
    assert_eq!((&got["value"], &got["origin"]), (&json!("1G"), &json!("user")));
    assert_eq!((&left_aside["value"], &left_aside["source"]), (&json!("lots"), &json!("OBJCACHE_MAX_SIZE")));

    let listed = with_environment(&sandbox, &["config", "list", "--origin"], &lots);
    let line = listed.stdout.lines().find(|line| line.starts_with("max_size")).unwrap();
    assert!(line.contains("1G") && line.contains("user: "), "{}", listed.stdout);
    assert_eq!(listed.stderr.matches("OBJCACHE_MAX_SIZE=lots").count(), 1, "{}", listed.stderr);
    let stats = with_environment(&sandbox, &["stats", "--json"], &lots);
    assert_eq!(stats.json()["max_size"], 1 << 30, "all commands go by it");

    let off = with_environment(&sandbox, &["config", "get", "disable"], &[("OBJCACHE_DISABLE", "perhaps")]);
    assert!(off.stdout == "true\n" && off.stderr.contains("perhaps"), "{} {}", off.stdout, off.stderr);
    assert_eq!(sandbox.json(&["config", "get", "max_size"])["left_aside"], json!([]));
}
