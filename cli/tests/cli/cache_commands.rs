//! The commands about the cache, for people and for programs.

use serde_json::{Value, json};

use crate::support::Sandbox;

/// A sandbox whose cache has three entries, and their signatures: -O0 and -O2 of one file, and a namespace.
fn filled() -> (Sandbox, [String; 3]) {
    let sandbox = Sandbox::with(&["arithmetic.clif", "saxpy.clif"]);
    let compile = |words: &[&str]| {
        let compiled = sandbox.json(&[&["compile", "-o", "out.o"], words].concat());
        assert_eq!(compiled["outcome"], "miss");
        compiled["signature"].as_str().unwrap().to_owned()
    };
    let signatures = [
        compile(&["arithmetic.clif", "-O0"]),
        compile(&["arithmetic.clif"]),
        compile(&["saxpy.clif", "--namespace", "blas"]),
    ];
    (sandbox, signatures)
}

fn listed(sandbox: &Sandbox, words: &[&str]) -> Vec<String> {
    let list = sandbox.json(&[&["ls"], words].concat());
    let entries = list["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["signature"].as_str().unwrap().to_owned()).collect()
}

fn count(sandbox: &Sandbox) -> usize {
    listed(sandbox, &["--brief"]).len()
}

/// Flips a bit in the middle of an entry's file.
fn damage(sandbox: &Sandbox, signature: &str) {
    let path = sandbox.entry_file(signature);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[test]
fn an_empty_cache_has_nothing_to_say() {
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.objcache(&["ls"]).fine(), "");
    assert_eq!(sandbox.json(&["ls"]), json!({"entries": []}));
    assert_eq!(sandbox.json(&["stats"])["entries"], 0);
    assert_eq!(sandbox.objcache(&["verify"]).fine(), "0 entries (0 B) checked: none is damaged\n");
}

#[test]
fn ls_lists_sorts_and_filters() {
    let (sandbox, signatures) = filled();
    let text = sandbox.objcache(&["ls"]).fine();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(text.starts_with("SIGNATURE"), "{text}");
    for signature in &signatures {
        assert!(text.contains(&signature[..12]), "{text}");
    }
    assert!(text.contains("blas") && text.contains("saxpy.clif"), "{text}");

    let mut sorted = signatures.to_vec();
    sorted.sort();
    assert_eq!(listed(&sandbox, &["--sort", "signature"]), sorted);
    sorted.reverse();
    assert_eq!(listed(&sandbox, &["--sort", "signature", "--reverse"]), sorted);
    assert_eq!(listed(&sandbox, &["--sort", "signature", "-r", "-n", "2"]), sorted[..2]);
    assert_eq!(listed(&sandbox, &["--namespace", "blas"]), signatures[2..]);
    assert_eq!(listed(&sandbox, &["--namespace", "none"]), [""; 0]);
    for key in ["used", "created", "size", "hits", "compile-time", "namespace"] {
        assert_eq!(listed(&sandbox, &["--sort", key]).len(), 3, "{key}");
    }
    let sizes: Vec<_> = sandbox.json(&["ls", "--sort", "size"])["entries"].as_array().unwrap().clone();
    assert!(sizes.is_sorted_by_key(|entry| std::cmp::Reverse(entry["object_bytes"].as_u64())));
}

#[test]
fn hits_are_counted() {
    let (sandbox, [signature, ..]) = filled();
    for _ in 0..3 {
        sandbox.objcache(&["compile", "arithmetic.clif", "-O0"]).fine();
    }
    let list = sandbox.json(&["ls", "--sort", "hits", "-n", "1"]);
    assert_eq!(
        (&list["entries"][0]["signature"], &list["entries"][0]["hits"]),
        (&signature.into(), &3.into())
    );
    let stats = sandbox.json(&["stats"]);
    assert_eq!((&stats["hits"], &stats["misses"], &stats["puts"]), (&3.into(), &3.into(), &3.into()));
    assert!(stats["saved_compile_time_us"].as_u64().unwrap() > 0);
    let text = sandbox.objcache(&["stats"]).fine();
    assert!(text.contains("6, 3 hits (50.0 %)"), "{text}");
}

#[test]
fn show_tells_all_that_is_known() {
    let (sandbox, [_, _, signature]) = filled();
    let text = sandbox.objcache(&["show", &signature[..16]]).fine();
    for part in [&signature, "saxpy.clif", "ir_kind", "blas", ".text", "function", "compile time"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let shown = sandbox.json(&["show", &signature]);
    assert_eq!(shown["signature"], signature);
    assert_eq!(shown["provenance"]["source_path"], "saxpy.clif");
    assert_eq!(shown["ingredients"]["namespace"], "blas");
    assert_eq!(shown["hits"], 0, "looking is not using");
    assert_eq!(sandbox.json(&["stats"])["hits"], 0);
    let symbols = shown["symbols"].as_array().unwrap();
    assert!(symbols.iter().any(|symbol| symbol["name"] == "saxpy" && symbol["kind"] == "function"));
    let text_section = |section: &&Value| section["name"].as_str().unwrap().starts_with(".text");
    let section = shown["sections"].as_array().unwrap().iter().find(text_section).unwrap().clone();
    assert_eq!(section["kind"], "code");
}

#[test]
fn prefixes_name_entries_when_they_are_unique() {
    let (sandbox, signatures) = filled();
    // Sixteen more: two of so many begin with the same digit.
    for salt in 0..16 {
        sandbox.objcache(&["compile", "arithmetic.clif", "--salt", &salt.to_string()]).fine();
    }
    let all = listed(&sandbox, &[]);
    let digit = |signature: &String| signature[..1].to_owned();
    let shared =
        all.iter().find(|one| all.iter().filter(|other| digit(other) == digit(one)).count() > 1).unwrap();
    let error = sandbox.json_error(&["show", &digit(shared)], 1);
    assert_eq!(error["code"], "ambiguous_signature");
    assert!(error["hint"].as_str().unwrap().contains(shared.as_str()) || all.len() > 5);
    let upper = signatures[0].to_uppercase();
    assert_eq!(sandbox.json(&["show", &upper])["signature"], signatures[0]);
    let unknown = sandbox.json_error(&["show", &"0".repeat(64)], 1);
    assert_eq!(unknown["code"], "unknown_signature");
}

#[test]
fn get_and_put_are_inverse() {
    let (sandbox, [signature, ..]) = filled();
    sandbox.objcache(&["get", &signature, "-o", "kept.o"]).fine();
    let output = sandbox.command(&["get", &signature, "-o", "-"]).output().unwrap();
    assert_eq!(output.stdout, sandbox.read("kept.o"));
    sandbox.objcache(&["rm", &signature]).fine();
    assert_eq!(sandbox.objcache(&["put", "kept.o"]).fine().trim(), signature);
    let again = sandbox.json(&["compile", "arithmetic.clif", "-O0", "-o", "again.o"]);
    assert_eq!((&again["outcome"], &again["signature"]), (&"hit".into(), &signature.clone().into()));
    assert_eq!(sandbox.read("again.o"), sandbox.read("kept.o"));
    let shown = sandbox.json(&["show", &signature]);
    assert_eq!(shown["provenance"]["source_path"], "arithmetic.clif");
    assert_eq!(shown["compile_time_us"], shown["provenance"]["compile_time_us"]);
}

#[test]
fn put_keeps_the_namespace() {
    let (sandbox, [_, _, signature]) = filled();
    sandbox.objcache(&["get", &signature, "-o", "kept.o"]).fine();
    sandbox.objcache(&["clear"]).fine();
    sandbox.objcache(&["put", "kept.o"]).fine();
    assert_eq!(listed(&sandbox, &["--namespace", "blas"]), [signature]);
}

#[test]
fn put_wants_a_record_or_a_signature() {
    let (sandbox, [signature, other, _]) = filled();
    sandbox.write("plain.o", b"no object at all");
    let error = sandbox.json_error(&["put", "plain.o"], 1);
    assert_eq!(error["code"], "record");
    assert!(error["message"].as_str().unwrap().contains("plain.o"));

    sandbox.objcache(&["get", &signature, "-o", "kept.o"]).fine();
    let error = sandbox.json_error(&["put", "kept.o", "--signature", &other], 1);
    assert_eq!(error["code"], "wrong_signature");
    sandbox.objcache(&["put", "kept.o", "--signature", "abc"]).fails(2);
    assert_eq!(sandbox.objcache(&["put", "kept.o", "--signature", &signature]).fine().trim(), signature);
}

#[test]
fn an_object_that_was_changed_is_put_only_for_who_vouches_for_it() {
    let (sandbox, [signature, ..]) = filled();
    sandbox.objcache(&["get", &signature, "-o", "kept.o"]).fine();
    let mut patched = sandbox.read("kept.o");
    patched[0x48] ^= 1; // In the code.
    sandbox.write("patched.o", &patched);
    sandbox.objcache(&["rm", &signature]).fine();

    let error = sandbox.json_error(&["put", "patched.o"], 1);
    assert_eq!(error["code"], "record");
    assert!(error["message"].as_str().unwrap().contains("changed"));
    assert_eq!(sandbox.json(&["compile", "arithmetic.clif", "-O0", "-o", "new.o"])["outcome"], "miss");
    sandbox.objcache(&["put", "patched.o", "--signature", &signature]).fine();
}

#[test]
fn an_object_without_a_record_is_put_under_the_signature_given() {
    let sandbox = Sandbox::with(&["saxpy.c"]);
    let Some(gcc) = crate::support::tool("gcc") else { return };
    let compiled =
        std::process::Command::new(gcc).args(["-c", "saxpy.c"]).current_dir(sandbox.path("")).status();
    assert!(compiled.unwrap().success());
    let error = sandbox.json_error(&["put", "saxpy.o"], 1);
    assert_eq!(error["code"], "record");
    assert!(error["hint"].as_str().unwrap().contains("--signature"));
    let signature = "5".repeat(64);
    assert_eq!(sandbox.objcache(&["put", "saxpy.o", "--signature", &signature]).fine().trim(), signature);
    let shown = sandbox.json(&["show", "555"]);
    assert!(shown["ingredients"].is_null());
    sandbox.objcache(&["show", "555"]).fine();
    sandbox.objcache(&["get", "555", "-o", "back.o"]).fine();
    assert_eq!(sandbox.read("back.o"), sandbox.read("saxpy.o"));

    // Nor does the program insist on a format that it knows.
    sandbox.write("other.o", b"an object of another world");
    sandbox.objcache(&["put", "other.o", "--signature", &"6".repeat(64)]).fine();
    let shown = sandbox.objcache(&["show", "666", "--json"]);
    assert_eq!((shown.code, &shown.json()["sections"]), (0, &json!([])));
    assert!(shown.stderr.starts_with("warning: "), "{}", shown.stderr);
}

#[test]
fn rm_removes_all_or_nothing() {
    let (sandbox, [first, second, third]) = filled();
    let dry = sandbox.json(&["rm", &first, &second, "--dry-run"]);
    assert_eq!((&dry["dry_run"], dry["removed"].as_array().unwrap().len()), (&true.into(), 2));
    assert_eq!(count(&sandbox), 3);
    sandbox.objcache(&["rm", &first, &"0".repeat(64)]).fails(1);
    assert_eq!(count(&sandbox), 3);
    let mut expected = vec![first.clone(), second.clone()];
    expected.sort();
    // Named twice, removed once.
    assert_eq!(sandbox.json(&["rm", &first, &second, &first[..20]])["removed"], json!(expected));
    assert_eq!(sandbox.objcache(&["rm", &third]).fine(), format!("removed {third}\n"));
    assert_eq!(count(&sandbox), 0);
}

#[test]
fn gc_keeps_to_its_limits() {
    let (sandbox, _) = filled();
    let idle = sandbox.json(&["gc"]);
    assert_eq!((&idle["removed"], &idle["kept"]), (&json!([]), &3.into()));
    let dry = sandbox.json(&["gc", "--max-size", "0", "--dry-run"]);
    assert_eq!((dry["removed"].as_array().unwrap().len(), &dry["kept"]), (3, &0.into()));
    assert_eq!(count(&sandbox), 3);
    let text = sandbox.objcache(&["gc", "--max-size", "0", "--dry-run"]).fine();
    assert!(text.lines().count() == 5 && text.contains("would remove 3 entries"), "{text}");
    sandbox.objcache(&["gc", "--max-age", "1h"]).fine();
    assert_eq!(count(&sandbox), 3);
    let text = sandbox.objcache(&["gc", "--max-size", "0"]).fine();
    assert!(text.starts_with("removed 3 entries ("), "{text}");
    assert_eq!(count(&sandbox), 0);
}

#[test]
fn a_namespace_may_have_an_equals_sign_in_its_name() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif", "--namespace", "mode=debug"]).fine();
    sandbox.objcache(&["compile", "arithmetic.clif", "--namespace", "mode"]).fine();
    let report = sandbox.json(&["gc", "--namespace-max-size", "mode=debug=1"]);
    let removed = report["removed"].as_array().unwrap();
    assert_eq!((removed.len(), &removed[0]["namespace"]), (1, &json!("mode=debug")), "{report}");
}

#[test]
fn verify_finds_damage_and_takes_it_out() {
    let (sandbox, [signature, ..]) = filled();
    assert_eq!(sandbox.json(&["verify"])["checked"], 3);
    damage(&sandbox, &signature);
    let found = sandbox.objcache(&["verify"]);
    assert_eq!(found.code, 1);
    assert!(found.stdout.contains(&signature) && found.stdout.contains("1 damaged"), "{}", found.stdout);

    let dry = sandbox.objcache(&["verify", "--repair", "--dry-run", "--json"]);
    assert_eq!((dry.code, &dry.json()["repaired"], &dry.json()["dry_run"]), (1, &0.into(), &true.into()));
    let repaired = sandbox.objcache(&["verify", "--repair", "--json"]);
    assert_eq!((repaired.code, &repaired.json()["repaired"]), (1, &1.into()));
    assert_eq!(repaired.json()["damaged"][0], json!({"signature": signature, "reason": "entry_digest"}));
    assert_eq!(sandbox.json(&["verify"])["checked"], 2);
    assert_eq!(sandbox.json(&["compile", "arithmetic.clif", "-O0"])["outcome"], "miss");
    assert_eq!(sandbox.json(&["verify"])["checked"], 3);
}

#[test]
fn a_damaged_entry_is_no_result() {
    let (sandbox, [signature, ..]) = filled();
    damage(&sandbox, &signature);
    let said = sandbox.objcache(&["get", &signature, "-o", "x.o"]).fails(1);
    assert!(said.contains(&signature), "{said}");
    assert!(!sandbox.path("x.o").exists());
}

#[test]
fn clear_removes_everything() {
    let (sandbox, _) = filled();
    let dry = sandbox.json(&["clear", "--dry-run"]);
    assert_eq!((&dry["removed"], &dry["dry_run"]), (&3.into(), &true.into()));
    assert!(dry["removed_bytes"].as_u64().unwrap() > 0);
    assert_eq!(count(&sandbox), 3);
    // Nobody is asked where there is no terminal.
    let text = sandbox.objcache(&["clear"]).fine();
    assert!(text.starts_with("removed 3 entries ("), "{text}");
    assert_eq!(sandbox.json(&["clear", "--yes"])["removed"], 0);
    assert_eq!(sandbox.json(&["stats"])["hits"], 0);
}

#[test]
fn the_directory_may_be_named() {
    let (sandbox, _) = filled();
    let elsewhere = sandbox.path("elsewhere");
    let elsewhere = elsewhere.to_str().unwrap();
    assert_eq!(sandbox.json(&["--dir", elsewhere, "stats"])["entries"], 0);
    assert_eq!(sandbox.json(&["compile", "arithmetic.clif", "--dir", elsewhere])["outcome"], "miss");
    assert_eq!(sandbox.json(&["stats", "--dir", elsewhere])["entries"], 1);
    assert_eq!(sandbox.json(&["stats"])["entries"], 3);
}
