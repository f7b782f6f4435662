//! `link`: what is written about objects that were linked, and that a real linker agrees where things are.

use serde_json::{Value, json};

use crate::support::{Sandbox, finish, tool};

const CALLER: &str = "extern int ext(int); static const int table[4] = {1, 2, 3, 4};
    const int *pointer = &table[2]; int counter; int common_one;
    int f(int n) { counter++; return ext(n) + *pointer + common_one; }";
const USER: &str = "int f(int); int g(int n) { return f(n) * 2; }";

/// Compiles C for a target into the sandbox; `None` without clang.
fn compile(sandbox: &Sandbox, name: &str, source: &str, flags: &[&str]) -> Option<()> {
    let clang = tool("clang-22")?;
    sandbox.write("source.c", source);
    let mut command = std::process::Command::new(clang);
    command.args(["-O1", "-fcommon", "-c", "-o"]).arg(sandbox.path(name)).arg(sandbox.path("source.c"));
    assert_eq!(finish(command.args(flags)).code, 0);
    Some(())
}

fn sandbox() -> Option<Sandbox> {
    let sandbox = Sandbox::new();
    compile(&sandbox, "caller.o", CALLER, &["-fPIC"])?;
    compile(&sandbox, "user.o", USER, &["-fPIC"])?;
    Some(sandbox)
}

/// A link that has something of everything that a layout tells of.
pub(crate) fn everything(sandbox: &Sandbox) -> Option<Value> {
    compile(sandbox, "caller.o", CALLER, &["-fPIC"])?;
    Some(sandbox.json(&["link", "caller.o", "--define", "ext=0x1000"]))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no address"))
}

fn named<'v>(list: &'v Value, field: &str, name: &str) -> &'v Value {
    let found = list.as_array().unwrap().iter().find(|element| element[field] == name);
    found.unwrap_or_else(|| panic!("no {name} in {list}"))
}

fn bytes(section: &Value) -> Vec<u8> {
    let digits = section["bytes"].as_str().unwrap();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[test]
fn objects_are_linked_where_they_are_told() {
    let Some(sandbox) = sandbox() else { return };
    let words = ["link", "caller.o", "user.o", "--base", "0x50000000", "--define", "ext=0x7fff00000000"];
    let layout = sandbox.json(&words);
    assert_eq!(layout["version"], 1);
    assert_eq!(layout["triple"], "x86_64-unknown-linux-gnu");
    assert_eq!(layout["base"], 0x5000_0000);
    assert_eq!(layout["absolute"], json!([{"name": "ext", "addr": 0x7fff_0000_0000u64}]));
    let caller = &layout["files"][0];
    assert_eq!(caller["name"], "caller.o");

    let (data, rodata) =
        (named(&caller["sections"], "name", ".data"), named(&caller["symbols"], "name", "table"));
    let pointer = u64::from_le_bytes(bytes(data)[..8].try_into().unwrap());
    assert_eq!(pointer, number(&rodata["addr"]) + 8, "&table[2]");
    let got = named(&caller["got"], "target", "counter");
    let slots = named(&caller["sections"], "name", "$__GOT");
    let offset = (number(&got["addr"]) - number(&slots["addr"])) as usize;
    let slot = u64::from_le_bytes(bytes(slots)[offset..offset + 8].try_into().unwrap());
    assert_eq!(slot, number(&named(&caller["symbols"], "name", "counter")["addr"]));
    let stub = named(&caller["stubs"], "target", "ext");
    assert_eq!(stub["kind"], "branch");
    assert!(named(&caller["sections"], "name", "COMMON").get("bytes").is_none());

    // The call of f in user.o: `e8`, and the distance from the next instruction.
    let text = named(&layout["files"][1]["sections"], "name", ".text");
    let code = bytes(text);
    let call = code.iter().position(|byte| *byte == 0xe8).unwrap();
    let distance = i32::from_le_bytes(code[call + 1..call + 5].try_into().unwrap());
    let target = number(&text["addr"]).wrapping_add(call as u64 + 5).wrapping_add_signed(distance.into());
    assert_eq!(target, number(&named(&caller["symbols"], "name", "f")["addr"]));
}

#[test]
fn sections_go_where_they_are_mapped() {
    let Some(sandbox) = sandbox() else { return };
    let map = |section, address| format!("caller.o,{section}={address}");
    let (text, got) = (map(".text", "0x401000"), map(".got", "4263936"));
    let words = ["link", "caller.o", "--map-section", &text, "--map-section", &got, "--phony-externals"];
    let layout = sandbox.json(&words);
    let sections = &layout["files"][0]["sections"];
    assert_eq!(named(sections, "name", ".text")["addr"], 0x40_1000);
    assert_eq!(named(sections, "name", "$__GOT")["addr"], 4_263_936);
    let ext = number(&named(&layout["absolute"], "name", "ext")["addr"]);
    assert!(ext.abs_diff(0x40_1000) < 1 << 24, "in reach: {ext:#x}");
    // Loads through the GOT stay what they were, unless relaxing is asked for.
    let code = bytes(named(sections, "name", ".text"));
    let loads = |code: &[u8]| code.windows(2).filter(|window| *window == [0x8b, 0x05]).count();
    assert!(loads(&code) > 0);
    let error = sandbox.json_error(&["link", "caller.o", "--map-section", "other.o,.text=1"], 2);
    assert_eq!(error["code"], "unknown_file");
}

#[test]
fn archives_give_the_members_that_are_needed() {
    let Some(sandbox) = sandbox() else { return };
    let Some(()) =
        compile(&sandbox, "ext.o", "int more(void); int ext(int n) { return n + more(); }", &["-fPIC"])
    else {
        return;
    };
    let Some(()) = compile(&sandbox, "more.o", "int more(void) { return 1; }", &["-fPIC"]) else { return };
    let Some(()) = compile(&sandbox, "idle.o", "int idle(void) { return 2; }", &["-fPIC"]) else { return };
    let Some(ar) = tool("ar") else { return };
    for index in ["s", "S"] {
        let mut command = std::process::Command::new(&ar);
        command.arg(format!("rc{index}")).arg(sandbox.path("lib.a"));
        let members = ["idle.o", "more.o", "ext.o"].map(|name| sandbox.path(name));
        assert_eq!(finish(command.args(members)).code, 0);
        let layout = sandbox.json(&["link", "user.o", "caller.o", "--archive", "lib.a"]);
        let names: Vec<_> =
            layout["files"].as_array().unwrap().iter().map(|file| file["name"].clone()).collect();
        assert_eq!(names, ["user.o", "caller.o", "ext.o", "more.o"]);
        assert_eq!(layout["absolute"], json!([]));
        // What is defined by hand needs no member.
        let words = ["link", "caller.o", "--archive", "lib.a", "--define", "ext=0x1000"];
        assert_eq!(sandbox.json(&words)["files"].as_array().unwrap().len(), 1);
        std::fs::remove_file(sandbox.path("lib.a")).unwrap();
    }
    sandbox.write("lib.a", "!<arch>\nthis is no header of a member of an archive, which has sixty bytes");
    let broken = sandbox.objcache(&["link", "caller.o", "--archive", "lib.a"]).fails(1);
    assert!(broken.contains("lib.a"), "{broken}");
}

/// A branch of AArch64 reaches 128 MiB; each of two sections that are further apart has stubs beside it.
#[test]
fn branches_between_distant_sections_go_by_stubs_beside_each() {
    let sandbox = Sandbox::new();
    let source = "__attribute__((noinline)) int g(int n); int ext(int);
        __attribute__((noinline)) int f(int n) { return n ? g(n - 1) + 1 : 0; }
        __attribute__((noinline)) int g(int n) { return n ? f(n - 1) + ext(n) : 0; }";
    let flags = ["--target=aarch64-linux-gnu", "-ffunction-sections", "-ffreestanding"];
    if compile(&sandbox, "far.o", source, &flags).is_none() {
        return;
    }
    let homes = [(".text.f", 0x1000_0000u64), (".text.g", 0x3000_0000)];
    let maps = homes.map(|(section, address)| format!("far.o,{section}={address}"));
    let words = [
        "link",
        "far.o",
        "--define",
        "ext=0x7fff00000000",
        "--map-section",
        &maps[0],
        "--map-section",
        &maps[1],
    ];
    let layout = sandbox.json(&words);
    let file = &layout["files"][0];
    for (name, home) in homes {
        let code = bytes(named(&file["sections"], "name", name));
        let words = code.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
        let calls = (0u64..).zip(words).filter(|(_, word)| word >> 26 == 0b100101);
        let mut count = 0;
        for (number, word) in calls {
            let distance = i64::from((word << 6) as i32 >> 6) * 4;
            let target = (home + 4 * number).wrapping_add_signed(distance);
            let stubs = file["stubs"].as_array().unwrap();
            assert!(stubs.iter().any(|stub| stub["addr"] == target), "{name}: a call to {target:#x}");
            count += 1;
        }
        assert!(count > 0, "{name} calls");
    }
}

#[test]
fn layout_and_image_go_to_files() {
    let Some(sandbox) = sandbox() else { return };
    let words = [
        "link",
        "caller.o",
        "--phony-externals",
        "--base",
        "0x10000",
        "--layout",
        "l.json",
        "--image",
        "i.bin",
    ];
    assert_eq!(sandbox.objcache(&words).fine(), "");
    let layout: Value = serde_json::from_slice(&sandbox.read("l.json")).unwrap();
    let image = sandbox.read("i.bin");
    for section in layout["files"][0]["sections"].as_array().unwrap() {
        if section.get("bytes").is_some() {
            let content = bytes(section);
            let offset = (number(&section["addr"]) - 0x10000) as usize;
            assert_eq!(&image[offset..offset + content.len()], content, "{}", section["name"]);
        }
    }
    let printed = sandbox
        .objcache(&["link", "caller.o", "--phony-externals", "--base", "65536", "--layout", "-"])
        .fine();
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), layout);
    let table = sandbox.objcache(&["link", "caller.o", "--phony-externals"]).fine();
    assert!(table.starts_with("FILE") && table.contains("caller.o  .text"), "{table}");
}

#[test]
fn what_is_missing_or_wrong_is_said() {
    let Some(sandbox) = sandbox() else { return };
    let missing = sandbox.objcache(&["link", "user.o"]).fails(1);
    assert!(missing.contains("user.o: unresolved symbols: `f` (needed at .text+0x"), "{missing}");
    let far = [
        "link",
        "caller.o",
        "--map-section",
        "caller.o,.got=0x10",
        "--map-section",
        "caller.o,.text=0x900000000000",
    ];
    let far = sandbox.objcache(&[&far[..], &["--phony-externals"]].concat()).fails(1);
    assert!(far.contains("does not fit in 32 bits"), "{far}");
    assert!(sandbox.objcache(&["link"]).fails(2).contains("<OBJ>"));
    assert!(sandbox.objcache(&["link", "user.o", "--base", "here"]).fails(2).contains("no address"));
    sandbox.objcache(&["link", "nothing.o"]).fails(3);
}

#[test]
fn code_that_must_be_low_is_put_low() {
    let sandbox = Sandbox::new();
    if compile(
        &sandbox,
        "low.o",
        "int ext(int); int v; int *f(void) { return ext(1) ? &v : 0; }",
        &["-fno-pic"],
    )
    .is_none()
    {
        return;
    }
    let layout = sandbox.json(&["link", "low.o", "--phony-externals"]);
    assert!(number(&layout["base"]) < 1 << 31);
    let text = named(&layout["files"][0]["sections"], "name", ".text");
    assert!(number(&text["addr"]) < 1 << 31);
}
