//! `disasm`, `symbols` and `relocs`: what is in an object.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Sandbox, finish, tool};

/// A sandbox with `f.o`, of C that calls, compiled by `compiler` with these flags. `None`: it is not installed.
fn compiled(compiler: &str, flags: &[&str]) -> Option<Sandbox> {
    let compiler = tool(compiler)?;
    let sandbox = Sandbox::new();
    sandbox.write("f.c", "int callee(int); static int kept = 3; int *where(void) { return &kept; }\nint caller(int n) { return callee(n + 1) + 2; }\n");
    let mut command = Command::new(compiler);
    command.args(["-O1", "-fPIC", "-c", "f.c", "-o", "f.o"]).args(flags).current_dir(sandbox.path(""));
    assert!(command.status().unwrap().success());
    Some(sandbox)
}

/// A report of relocations with something in it, if there is a compiler.
pub(crate) fn relocations() -> Option<Value> {
    Some(compiled("gcc", &[])?.json(&["relocs", "f.o"]))
}

fn find<'v>(values: &'v Value, key: &str, wanted: &str) -> &'v Value {
    let found = values.as_array().unwrap().iter().find(|value| value[key] == wanted);
    found.unwrap_or_else(|| panic!("{wanted}: {values}"))
}

#[test]
fn an_entry_is_looked_into_by_its_signature() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let signature = sandbox.json(&["compile", "arithmetic.clif"])["signature"].as_str().unwrap().to_owned();
    let symbols = sandbox.json(&["symbols", &signature[..16]]);
    assert_eq!(symbols["object"], signature);
    let add = find(&symbols["symbols"], "name", "add");
    assert_eq!(
        (&add["kind"], &add["binding"], &add["place"]),
        (&json!("function"), &json!("global"), &json!("section"))
    );
    assert!(sandbox.objcache(&["disasm", &signature]).fine().contains("\nadd:\n"));
    sandbox.objcache(&["relocs", &signature]).fine();
    assert_eq!(sandbox.json(&["stats"])["hits"], 0, "looking is not using");
    assert_eq!(sandbox.json_error(&["disasm", &"0".repeat(64)], 1)["code"], "unknown_signature");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn instructions_have_their_symbols_and_relocations() {
    let Some(sandbox) = compiled("gcc", &[]) else { return };
    let said = sandbox.objcache(&["disasm", "f.o"]).fine();
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("{text}: {said}"));
    assert!(at("\nwhere:\n") < at("\ncaller:\n"), "{said}");
    let call = said.lines().find(|line| line.contains("call ")).unwrap();
    assert!(call.contains("; R_X86_64_PLT32 callee-0x4"), "{call}");
    let one = sandbox.json(&["disasm", "f.o", "--symbol", "caller"]);
    assert_eq!((&one["machine"], &one["disassembler"]), (&json!("x86_64"), &json!("iced-x86")));
    let lines = one["lines"].as_array().unwrap();
    assert_eq!(lines[0]["symbols"], json!(["caller"]));
    assert!(lines.iter().all(|line| line["symbols"] != json!(["where"])), "{one}");
    assert!(lines.last().unwrap()["instruction"].as_str().unwrap().starts_with("ret"), "{one}");
    let att = sandbox.objcache(&["disasm", "f.o", "--syntax", "att"]).fine();
    assert!(att.contains("%eax") && !said.contains("%eax"), "{att}");
    assert_eq!(sandbox.json_error(&["disasm", "f.o", "--symbol", "nobody"], 1)["code"], "unknown_function");

    // The same instructions as another disassembler finds.
    let Some(objdump) = tool("objdump") else { return };
    let output = Command::new(objdump)
        .args(["-d", "--no-show-raw-insn", "f.o"])
        .current_dir(sandbox.path(""))
        .output()
        .unwrap();
    let listing = String::from_utf8(output.stdout).unwrap();
    let theirs: Vec<_> = listing
        .lines()
        .filter_map(|line| line.split_once(":\t").map(|(at, _)| at.trim().to_owned()))
        .collect();
    let all = sandbox.json(&["disasm", "f.o"]);
    let ours: Vec<_> = all["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| format!("{:x}", it["offset"].as_u64().unwrap()))
        .collect();
    assert_eq!(ours, theirs, "{listing}");
}

#[test]
fn relocations_and_undefined_symbols_are_listed() {
    let Some(sandbox) = compiled("gcc", &[]) else { return };
    let relocs = sandbox.json(&["relocs", "f.o"]);
    let call = find(&relocs["relocations"], "symbol", "callee");
    assert!(
        call["section"].as_str().unwrap().starts_with(".text")
            && call["kind"].as_str().unwrap().starts_with("R_"),
        "{call}"
    );
    let undefined = sandbox.json(&["symbols", "f.o", "--undefined"]);
    let names: Vec<_> =
        undefined["symbols"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert!(names.contains(&json!("callee")) && !names.contains(&json!("caller")), "{names:?}");
    let text = sandbox.objcache(&["symbols", "f.o"]).fine();
    assert!(text.contains("(undefined)") && text.contains("kept"), "{text}");
    assert!(sandbox.objcache(&["relocs", "f.o"]).fine().contains("REFERS TO"));
}

#[test]
fn other_machines_are_left_to_llvm() {
    let Some(sandbox) = compiled("aarch64-linux-gnu-gcc", &[]) else { return };
    let mut without = sandbox.command(&["disasm", "f.o", "--json"]);
    let without = finish(without.env("PATH", "/nowhere"));
    let error = without.json()["error"].clone();
    assert_eq!((without.code, &error["code"]), (1, &json!("no_disassembler")));
    assert!(
        error["message"].as_str().unwrap().contains("aarch64 code is disassembled by llvm-objdump"),
        "{error}"
    );
    let listed = sandbox.json(&["relocs", "f.o"]);
    assert_eq!((&listed["machine"], &listed["format"]), (&json!("aarch64"), &json!("elf")));
    assert_eq!(find(&listed["relocations"], "symbol", "callee")["kind"], "R_AARCH64_CALL26");
    let said = sandbox.objcache(&["disasm", "f.o", "--symbol", "caller"]);
    if said.stderr.contains("not installed") {
        return crate::support::skip("llvm-objdump is not installed");
    }
    let said = said.fine();
    assert!(said.contains("R_AARCH64_CALL26") && said.contains("ret") && said.contains("f.o"), "{said}");
}

#[test]
fn what_is_no_object_is_said_to_be_none() {
    let sandbox = Sandbox::new();
    sandbox.write("text.o", "no object");
    for command in ["disasm", "symbols", "relocs"] {
        let error = sandbox.json_error(&[command, "text.o"], 1);
        assert!(error["code"] == "load" && error["message"].as_str().unwrap().contains("text.o"), "{error}");
        assert_eq!(sandbox.json_error(&[command, "nowhere.o"], 3)["code"], "io");
    }
}
