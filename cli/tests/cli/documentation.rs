//! `JSON.md` tells of every field and every error that the program prints, and of no other.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::{Sandbox, finish};

const DOCUMENT: &str = include_str!("../../JSON.md");

/// The first cells of the tables under each heading.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = None;
    for line in DOCUMENT.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = Some(sections.entry(heading.to_owned()).or_default());
        }
        let cell = line.strip_prefix("| `").and_then(|rest| rest.split_once('`')).map(|(cell, _)| cell);
        if let (Some(section), Some(cell)) = (&mut section, cell) {
            section.insert(cell.to_owned());
        }
    }
    sections
}

/// The paths of all fields: objects by name, or `*` where `names_are_data`; arrays as `[]`.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = if ["ingredients", "reasons"].contains(&path) { "*" } else { name };
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                found.insert(path.clone());
                // What is inside of an ingredient is data, too.
                if name != "*" {
                    paths(value, &path, found);
                }
            }
        }
        Value::Array(elements) => {
            let path = format!("{path}[]");
            for element in elements {
                found.insert(path.clone());
                paths(element, &path, found);
            }
        }
        _ => {}
    }
}

/// Whether a documented path covers `path`: itself, or as a whole that is told of in words.
fn covers(documented: &str, path: &str) -> bool {
    let rest = path.strip_prefix(documented);
    rest.is_some_and(|rest| rest.is_empty() || (documented.ends_with("[]") && rest.starts_with('.')))
}

/// Compares what a command printed with its section.
fn check(section: &str, printed: &[Value]) {
    let documented = documented();
    let documented = documented.get(section).unwrap_or_else(|| panic!("no section {section}"));
    let mut found = BTreeSet::new();
    printed.iter().for_each(|value| paths(value, "", &mut found));
    for path in &found {
        // An array or object whose members are told of need no row of its own.
        let inner =
            |row: &String| row.starts_with(&format!("{path}.")) || row.starts_with(&format!("{path}[]"));
        let told = documented.iter().any(|row| covers(row, path) || inner(row));
        // An array of plain values is told of as one field.
        let plain = path.strip_suffix("[]").is_some_and(|whole| documented.contains(whole));
        assert!(told || plain, "{section}: `{path}` is not documented");
    }
    for row in documented {
        assert!(
            found.iter().any(|path| covers(row, path)),
            "{section}: `{row}` is documented and not printed"
        );
    }
}

#[test]
fn every_field_is_documented() {
    let sandbox = Sandbox::with(&["saxpy.clif", "arithmetic.clif"]);
    let run = sandbox.json(&["run", "saxpy.clif", "1", "2", "f32[1]", "f32[2]"]);
    let signature = run["signature"].as_str().unwrap().to_owned();
    check("run", &[run]);
    check("compile", &[sandbox.json(&["compile", "saxpy.clif", "-o", "out.o"])]);
    check("signature", &[sandbox.json(&["signature", "saxpy.clif", "--document"])]);
    check("get", &[sandbox.json(&["get", &signature, "-o", "got.o"])]);
    check("put", &[sandbox.json(&["put", "got.o"])]);
    check("show", &[sandbox.json(&["show", &signature])]);

    if let Some(link) = crate::link::everything(&sandbox) {
        check("link", &[link]);
    }

    check("pin", &[sandbox.json(&["pin", &signature])]);
    check("unpin", &[sandbox.json(&["unpin", &signature])]);
    sandbox.objcache(&["compile", "saxpy.clif", "-O0"]).fine();
    check("why", &[sandbox.json(&["why"])]);
    check("du", &[sandbox.json(&["du"])]);

    sandbox.objcache(&["trace", "start"]).fine();
    check("trace start", &[sandbox.json(&["trace", "start"])]);
    sandbox.objcache(&["compile", "saxpy.clif"]).fine();
    check("trace show", &[sandbox.json(&["trace", "show"])]);
    check("trace stop", &[sandbox.json(&["trace", "stop", "-o", "used.trace"])]);
    check("pack create", &[sandbox.json(&["pack", "create", "it.pack"])]);
    check("pack add", &[sandbox.json(&["pack", "add", "it.pack"])]);
    check("pack ls", &[sandbox.json(&["pack", "ls", "it.pack"])]);
    check("pack verify", &[sandbox.json(&["pack", "verify", "it.pack"])]);
    check("pack import", &[sandbox.json(&["pack", "import", "it.pack"])]);
    check("pack mount", &[sandbox.json(&["pack", "mount", "it.pack"])]);
    check("pack layers", &[sandbox.json(&["pack", "layers"])]);
    check("pack unmount", &[sandbox.json(&["pack", "unmount", "it.pack"])]);

    check("warm", &[sandbox.json(&["warm", "saxpy.clif"])]);
    check("disasm", &[sandbox.json(&["disasm", &signature])]);
    check("symbols", &[sandbox.json(&["symbols", &signature])]);
    // Code of Cranelift that calls nothing has none.
    if let Some(relocations) = crate::inspection::relocations() {
        check("relocs", &[relocations]);
    }

    let list = sandbox.json(&["ls"]);
    let collected = sandbox.json(&["gc", "--max-size", "0", "--dry-run"]);
    let names = |entry: &Value| entry.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let mut expected = names(&list["entries"][0]);
    expected.remove("source_path");
    assert_eq!(names(&collected["removed"][0]), expected, "gc tells of entries as ls does");
    check("ls", &[list]);
    let key = sandbox.json(&["key", "generate", "ed25519", "signing.key"]);
    check("key public", &[sandbox.json(&["key", "public", "signing.key"])]);
    check("key generate", &[key, sandbox.json(&["key", "generate", "mac", "mac.key"])]);
    // Large enough to take fewer blocks of the disk.
    let digits: String = (0..20_000u64).map(|it| (it * it % 9973).to_string()).collect();
    sandbox.write("large", &digits);
    sandbox.objcache(&["put", "large", "--signature", &"ab".repeat(32)]).fine();
    let cold = sandbox.json(&["recompress", "--cold-after", "0s"]);
    assert!(!cold["changed"].as_array().unwrap().is_empty(), "{cold}");
    check("recompress", &[cold]);
    sandbox.objcache(&["rm", "ab"]).fine();
    check("gc", &[collected]);

    std::fs::write(sandbox.entry_file(&signature), "damaged").unwrap();
    let damaged = finish(sandbox.command(&["verify"]).arg("--json"));
    assert_eq!(damaged.code, 1);
    check("verify", &[damaged.json()]);
    check("fsck", &[finish(sandbox.command(&["fsck"]).arg("--json")).json()]);
    // Served as a miss, which leaves a reason in the statistics.
    let healed = finish(&mut sandbox.command(&["compile", "saxpy.clif"]));
    assert_eq!(healed.code, 0);
    check("stats", &[sandbox.json(&["stats"])]);
    check("top", &[sandbox.json(&["top"])]);
    check("rm", &[sandbox.json(&["rm", &signature])]);
    check("clear", &[sandbox.json(&["clear"])]);
    check("doctor", &[finish(sandbox.command(&["doctor"]).arg("--json")).json()]);
    let mut strange = sandbox.command(&["config", "get", "max_size", "--json"]);
    check("config get", &[finish(strange.env("OBJCACHE_MAX_SIZE", "lots")).json()]);
    check("config list", &[sandbox.json(&["config", "list"])]);
    check("config set", &[sandbox.json(&["config", "set", "max_size", "1G"])]);
    check("config unset", &[sandbox.json(&["config", "unset", "max_size"])]);
    check("man", &[sandbox.json(&["man", "--out", "man1"])]);
    check("completions", &[sandbox.json(&["completions", "bash"])]);
}

#[test]
fn errors_are_documented() {
    let sandbox = Sandbox::new();
    let error = finish(sandbox.command(&["show", "abc"]).arg("--json")).json();
    let fields = error["error"].as_object().unwrap().keys().map(|name| format!("error.{name}"));
    let rows = &documented()["errors"];
    for field in fields.collect::<Vec<_>>() {
        assert!(rows.contains(&field), "{field}");
    }
    assert_eq!(rows.iter().filter(|row| row.starts_with("error.") && *row != "error.code").count(), 4);
}

/// The codes in the document are those in the source. (Some, such as of a full disk, no test here can cause.)
#[test]
fn error_codes_are_documented() {
    let mut codes = BTreeSet::new();
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => codes.extend(codes_in(&std::fs::read_to_string(path).unwrap())),
            }
        }
    }
    let rows = documented()["errors"].iter().filter(|row| !row.starts_with("error.")).cloned().collect();
    assert_eq!(codes, rows);
}

/// The first arguments of `finding("…` and `usage("…`.
fn codes_in(source: &str) -> BTreeSet<String> {
    let calls = ["finding(", "usage("].into_iter().flat_map(|call| source.split(call).skip(1));
    let texts = calls.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split_once('"'));
    texts.map(|(code, _)| code.to_owned()).collect()
}
