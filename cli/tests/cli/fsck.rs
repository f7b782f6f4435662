//! `fsck`: what is not as it should be in the directory, and what is mended.

use serde_json::{Value, json};

use crate::support::{Sandbox, finish};

fn filled() -> (Sandbox, String) {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif", "-O0"]).fine();
    let signature = sandbox.json(&["compile", "arithmetic.clif"])["signature"].as_str().unwrap().to_owned();
    (sandbox, signature)
}

fn faults(report: &Value) -> Vec<(String, bool)> {
    let findings = report["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|it| (it["fault"].as_str().unwrap().to_owned(), it["mended"].as_bool().unwrap()))
        .collect()
}

#[test]
fn a_sound_cache_is_sound() {
    let (sandbox, _) = filled();
    sandbox.objcache(&["compile", "missing.clif"]).fails(3);
    sandbox.objcache(&["ls"]).fine();
    let report = sandbox.json(&["fsck"]);
    assert_eq!(
        (&report["findings"], &report["checked"], &report["sound"]),
        (&json!([]), &json!(2), &json!(true))
    );
    let said = sandbox.objcache(&["fsck"]).fine();
    assert!(said.starts_with("2 entries (") && said.ends_with("checked: all is as it should be\n"), "{said}");
    assert_eq!(sandbox.json(&["fsck", "--rebuild"])["rebuilt"], 2);
    assert_eq!(sandbox.json(&["stats"])["entries"], 2);
}

#[test]
fn a_note_of_misses_is_a_file_of_ours() {
    let (sandbox, _) = filled();
    sandbox.write("bad.clif", "function %bad() -> i32 {\nblock0:\n    v0 = iconst.i64 1\n    return v0\n}\n");
    sandbox.objcache(&["compile", "bad.clif"]).fails(1);
    assert!(sandbox.cache().join("misses").exists());
    assert_eq!(sandbox.json(&["fsck"])["findings"], json!([]));
}

#[test]
fn findings_are_told_and_mended() {
    let (sandbox, signature) = filled();
    sandbox.objcache(&["ls"]).fine();
    std::fs::write(sandbox.entry_file(&signature), "damaged").unwrap();
    std::fs::write(sandbox.cache().join("tmp/left"), "half").unwrap();
    std::fs::write(sandbox.cache().join("notes.txt"), "mine").unwrap();
    let found = finish(sandbox.command(&["fsck"]).arg("--json"));
    let report = found.json();
    assert_eq!((found.code, &report["sound"]), (1, &json!(false)));
    let names: Vec<_> = faults(&report).into_iter().map(|(name, _)| name).collect();
    for name in ["damaged_entry", "orphaned_temporary", "foreign_file"] {
        assert!(names.iter().any(|it| it == name), "{name}: {names:?}");
    }
    let said = sandbox.objcache(&["fsck"]);
    assert!(
        said.code == 1 && said.stdout.contains("notes.txt") && said.stdout.contains("not made by objcache"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("mend with --rebuild"), "{}", said.stdout);

    let mended = finish(sandbox.command(&["fsck", "--rebuild"]).arg("--json"));
    assert_eq!(mended.code, 1, "{}", mended.stdout);
    let left: Vec<_> = faults(&mended.json()).into_iter().filter(|(_, mended)| !mended).collect();
    assert_eq!(left, [("foreign_file".to_owned(), false)]);
    assert_eq!(std::fs::read(sandbox.cache().join("notes.txt")).unwrap(), b"mine", "left alone");
    assert_eq!(sandbox.json(&["verify"])["damaged"], json!([]));
}

#[test]
fn without_a_catalogue_nothing_is_in_use() {
    let (sandbox, _) = filled();
    let mut command = sandbox.command(&["fsck"]);
    let shared = finish(command.env("OBJCACHE_NETWORK", "1")).fine();
    assert!(shared.contains("no catalogue is kept") && !shared.contains("in use"), "{shared}");
    let report = finish(command.arg("--json")).json();
    assert_eq!(report["catalogue"], "not_kept");
    assert_eq!(sandbox.json(&["fsck"])["catalogue"], "checked");
}

#[test]
fn an_entry_that_is_not_noted_yet_is_no_finding() {
    let (sandbox, signature) = filled();
    let elsewhere = Sandbox::with(&["arithmetic.clif"]);
    let other = elsewhere.json(&["compile", "arithmetic.clif", "--flag", "regalloc_checker=true"]);
    let other = other["signature"].as_str().unwrap();
    assert_ne!(other, signature);
    sandbox.objcache(&["ls"]).fine();
    std::fs::create_dir_all(sandbox.entry_file(other).parent().unwrap()).unwrap();
    std::fs::copy(elsewhere.entry_file(other), sandbox.entry_file(other)).unwrap();
    let report = finish(sandbox.command(&["fsck"]).arg("--json"));
    assert_eq!((report.code, &report.json()["sound"]), (0, &json!(true)), "{}", report.stdout);
    let note = &report.json()["findings"][0];
    assert_eq!((&note["fault"], &note["note"]), (&json!("uncatalogued"), &json!(true)));
}
