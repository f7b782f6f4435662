//! `du`, `pin` and `unpin`: what takes the room, and what keeps it.

use serde_json::{Value, json};

use crate::support::Sandbox;

fn sandbox() -> (Sandbox, String) {
    let sandbox = Sandbox::with(&["arithmetic.clif", "saxpy.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif", "-O0"]).fine();
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    let compiled = sandbox.json(&["compile", "saxpy.clif", "--namespace", "blas"]);
    let signature = compiled["signature"].as_str().unwrap().to_owned();
    (sandbox, signature)
}

fn groups(usage: &Value) -> Vec<(String, u64)> {
    let groups = usage["groups"].as_array().unwrap();
    groups
        .iter()
        .map(|it| (it["name"].as_str().unwrap().to_owned(), it["entries"].as_u64().unwrap()))
        .collect()
}

#[test]
fn pinned_entries_survive_a_collection() {
    let (sandbox, signature) = sandbox();
    assert_eq!(sandbox.objcache(&["pin", &signature[..20]]).fine(), format!("pinned {signature}\n"));
    let list = sandbox.objcache(&["ls"]).fine();
    assert_eq!(list.lines().filter(|line| line.contains("pinned")).count(), 1, "{list}");
    let pinned = sandbox.json(&["ls", "--pinned"])["entries"].clone();
    assert_eq!((pinned.as_array().unwrap().len(), &pinned[0]["signature"]), (1, &json!(signature)));
    assert_eq!(sandbox.json(&["gc", "--max-size", "0"])["kept"], 1);
    assert_eq!(sandbox.objcache(&["unpin", &signature]).fine(), format!("unpinned {signature}\n"));
    assert_eq!(sandbox.json(&["ls", "--pinned"])["entries"], json!([]));
    assert_eq!(sandbox.json(&["gc", "--max-size", "0"])["kept"], 0);
}

#[test]
fn nothing_is_pinned_when_one_is_unknown() {
    let (sandbox, signature) = sandbox();
    assert_eq!(sandbox.json_error(&["pin", &signature, &"0".repeat(64)], 1)["code"], "unknown_signature");
    assert_eq!(sandbox.json(&["ls", "--pinned"])["entries"], json!([]));
    sandbox.objcache(&["pin"]).fails(2);
}

#[test]
fn usage_is_grouped_and_adds_up() {
    let (sandbox, _) = sandbox();
    let by = |key: &str| groups(&sandbox.json(&["du", "--by", key]));
    assert_eq!(by("namespace"), [(String::new(), 2), ("blas".to_owned(), 1)]);
    assert_eq!(by("age"), [("within an hour".to_owned(), 3)]);
    let compilers = by("compiler");
    assert!(compilers.len() == 1 && compilers[0].0.starts_with("cranelift "), "{compilers:?}");
    let triples = by("triple");
    assert!(triples.len() == 1 && triples[0].0.contains('-'), "{triples:?}");

    let usage = sandbox.json(&["du"]);
    let figure = |name: &str| usage[name].as_u64().unwrap();
    let parts = ["entries_bytes", "catalogue_bytes", "quarantine_bytes", "other_bytes"].map(figure);
    assert_eq!(parts.iter().sum::<u64>(), figure("total_bytes"));
    let grouped: u64 =
        usage["groups"].as_array().unwrap().iter().map(|it| it["disk_bytes"].as_u64().unwrap()).sum();
    assert_eq!(grouped, figure("entries_bytes"));
    assert!(figure("catalogue_bytes") > 0 && figure("quarantine_bytes") == 0);
    let text = sandbox.objcache(&["du", "--by", "compiler"]).fine();
    assert!(
        text.contains("cranelift") && text.contains("(catalogue)") && text.contains("of at most"),
        "{text}"
    );
    sandbox.objcache(&["du", "--by", "weight"]).fails(2);
}

#[test]
fn an_object_without_a_record_is_in_a_group_without_a_name() {
    let (sandbox, _) = sandbox();
    sandbox.write("foreign.o", b"an object of another world");
    sandbox.objcache(&["put", "foreign.o", "--signature", &"6".repeat(64)]).fine();
    let groups = groups(&sandbox.json(&["du", "--by", "triple"]));
    assert!(groups.contains(&(String::new(), 1)), "{groups:?}");
}
