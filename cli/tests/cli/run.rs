//! `run`, `compile` and `signature`: what comes out.

use std::io::Write;
use std::process::Stdio;

use crate::support::{Sandbox, finished, tool};

#[test]
fn a_second_process_hits_and_gives_the_same_result() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let words = ["run", "arithmetic.clif", "--call", "half", "5"];
    let first = sandbox.json(&words);
    let second = sandbox.json(&words);
    assert_eq!((&first["outcome"], &second["outcome"]), (&"miss".into(), &"hit".into()));
    assert!(first["compile_us"].as_f64().unwrap() > 0.0);
    assert_eq!(second["compile_us"], 0.0);
    for field in ["signature", "result", "object_bytes", "function", "prototype", "compiler"] {
        assert_eq!(first[field], second[field], "{field}");
    }
    assert_eq!(first["result"], 2.5);
    assert_eq!(first["prototype"], "f64(f64)");
    assert_eq!(first["compiler"], "cranelift");
    assert!(first["uncacheable"].is_null());
}

#[test]
fn stdout_carries_the_result_and_nothing_else() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let run = |words: &[&str]| sandbox.objcache(&[&["run", "arithmetic.clif", "--call"], words].concat());
    assert_eq!(run(&["add", "40", "2"]).fine(), "42\n");
    assert_eq!(run(&["nothing"]).fine(), "");
    let silent = run(&["half", "1"]);
    assert_eq!((silent.stdout.as_str(), silent.stderr.as_str()), ("0.5\n", ""));
    let verbose = run(&["half", "1", "-v"]);
    assert_eq!(verbose.stdout, "0.5\n");
    assert!(verbose.stderr.starts_with("hit "), "{}", verbose.stderr);
}

#[test]
fn values_that_json_cannot_write_are_strings() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let ratio = |a, b| sandbox.json(&["run", "arithmetic.clif", "--call", "ratio", a, b])["result"].clone();
    assert_eq!(ratio("0", "0"), "NaN");
    assert_eq!(ratio("1", "0"), "inf");
    assert_eq!(ratio("-1", "0"), "-inf");
    assert_eq!(ratio("1", "4"), 0.25);
    let nothing = sandbox.json(&["run", "arithmetic.clif", "--call", "nothing"]);
    assert!(nothing["result"].is_null());
    let address = ["run", "arithmetic.clif", "--call", "same", "--signature", "ptr(ptr)", "0x1f00"];
    assert_eq!(sandbox.json(&address)["result"], "0x1f00");
    assert_eq!(sandbox.objcache(&address).fine(), "0x1f00\n");
}

#[test]
fn the_only_function_and_the_one_called_like_the_file_need_no_name() {
    let sandbox = Sandbox::with(&["saxpy.clif", "arithmetic.clif"]);
    sandbox.objcache(&["run", "saxpy.clif", "0", "1", "null", "null"]).fine();
    std::fs::rename(sandbox.path("arithmetic.clif"), sandbox.path("add.clif")).unwrap();
    assert_eq!(sandbox.objcache(&["run", "add.clif", "1", "2"]).fine(), "3\n");
    std::fs::rename(sandbox.path("add.clif"), sandbox.path("other.clif")).unwrap();
    let said = sandbox.objcache(&["run", "other.clif", "1", "2"]).fails(2);
    assert!(said.contains("--call NAME") && said.contains("add: i32(i32,i32)"), "{said}");
}

#[test]
fn arguments_that_do_not_fit_the_function_we_chose_suggest_others() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    std::fs::rename(sandbox.path("arithmetic.clif"), sandbox.path("add.clif")).unwrap();
    let said = sandbox.objcache(&["run", "add.clif", "1"]).fails(2);
    assert!(said.contains("takes 2 arguments") && said.contains("half: f64(f64)"), "{said}");
    let said = sandbox.objcache(&["run", "add.clif", "--call", "add", "1"]).fails(2);
    assert!(!said.contains("half"), "{said}");
}

#[test]
fn a_file_that_is_not_there_is_named_once() {
    let sandbox = Sandbox::new();
    let said = sandbox.objcache(&["run", "absent.clif"]).fails(3);
    assert_eq!(said.matches("absent.clif").count(), 1, "{said}");
}

#[test]
fn an_unknown_function_is_answered_with_those_there_are() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let said = sandbox.objcache(&["run", "arithmetic.clif", "--call", "twice", "1"]).fails(1);
    assert!(said.contains("`twice`") && said.contains("half: f64(f64)"), "{said}");
}

#[test]
fn a_prototype_given_by_hand_is_checked() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let run = |prototype, argument| {
        sandbox.objcache(&["run", "arithmetic.clif", "--call", "half", "--signature", prototype, argument])
    };
    assert_eq!(run("f64(f64)", "3").fine(), "1.5\n");
    let said = run("i32(f64)", "3").fails(2);
    assert!(said.contains("f64(f64)") && said.contains("i32(f64)"), "{said}");
    run("f64(f64", "3").fails(2);
}

#[test]
fn repeat_calls_again() {
    let sandbox = Sandbox::with(&["saxpy.clif"]);
    let ran = sandbox.json(&["run", "saxpy.clif", "--repeat", "3", "1", "2", "f32[1]", "f32[10]"]);
    assert_eq!(ran["buffers"][1]["values"], serde_json::json!([16.0]));
    sandbox.objcache(&["run", "saxpy.clif", "--repeat", "0", "0", "2", "null", "null"]).fails(2);
}

#[test]
fn source_may_come_from_standard_input() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let mut command = sandbox.command(&["run", "-", "--kind", "clif", "--call", "add", "1", "2"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&sandbox.read("arithmetic.clif")).unwrap();
    assert_eq!(finished(child.wait_with_output().unwrap()).fine(), "3\n");
    let said = sandbox.objcache(&["run", "-"]).fails(2);
    assert!(said.contains("--kind"), "{said}");
}

#[test]
fn kind_overrides_the_name() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    std::fs::rename(sandbox.path("arithmetic.clif"), sandbox.path("kernel.txt")).unwrap();
    let said = sandbox.objcache(&["run", "kernel.txt"]).fails(2);
    assert!(said.contains("kernel.txt") && said.contains("--kind"), "{said}");
    let words = ["run", "kernel.txt", "--kind", "clif", "--call", "add", "1", "2"];
    assert_eq!(sandbox.objcache(&words).fine(), "3\n");
}

#[test]
fn errors_of_compiler_and_loader_name_the_file() {
    let sandbox = Sandbox::with(&["broken.clif", "unresolved.clif"]);
    let said = sandbox.objcache(&["run", "broken.clif", "1"]).fails(1);
    assert!(said.contains("broken.clif") && said.contains("verify"), "{said}");
    let said = sandbox.objcache(&["run", "unresolved.clif"]).fails(1);
    assert!(said.contains("unresolved.clif") && said.contains("objcache_test_nobody_defines_this"), "{said}");
    assert_eq!(sandbox.json_error(&["run", "broken.clif", "1"], 1)["code"], "compile");
    assert_eq!(sandbox.json_error(&["run", "unresolved.clif"], 1)["code"], "load");
}

#[test]
fn compile_writes_what_run_runs() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let compiled = sandbox.json(&["compile", "arithmetic.clif", "-o", "out.o"]);
    assert_eq!(compiled["outcome"], "miss");
    assert_eq!(compiled["object_bytes"], sandbox.read("out.o").len());
    let words = ["run", "out.o", "--call", "half", "--signature", "f64(f64)", "3"];
    let ran = sandbox.json(&words);
    assert_eq!((&ran["outcome"], &ran["result"]), (&"none".into(), &1.5.into()));
    assert_eq!(ran["signature"], compiled["signature"]);
    assert!(ran["compiler"].is_null());
    assert_eq!(sandbox.json(&["run", "arithmetic.clif", "--call", "nothing"])["outcome"], "hit");
}

#[test]
fn compile_names_its_output_like_a_compiler_does() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    std::fs::create_dir(sandbox.path("folder")).unwrap();
    std::fs::rename(sandbox.path("arithmetic.clif"), sandbox.path("folder/arithmetic.clif")).unwrap();
    assert_eq!(sandbox.objcache(&["compile", "folder/arithmetic.clif"]).fine(), "");
    assert!(sandbox.path("arithmetic.o").is_file());
}

#[test]
fn compile_writes_to_standard_output_and_through_special_files() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif", "-o", "out.o"]).fine();
    let output = sandbox.command(&["compile", "arithmetic.clif", "-o", "-"]).output().unwrap();
    assert_eq!(output.stdout, sandbox.read("out.o"));
    assert_eq!(sandbox.json_error(&["compile", "arithmetic.clif", "-o", "-"], 2)["code"], "stdout_taken");
    std::os::unix::fs::symlink("target.o", sandbox.path("link.o")).unwrap();
    sandbox.objcache(&["compile", "arithmetic.clif", "-o", "link.o"]).fine();
    assert!(sandbox.path("link.o").is_symlink());
    assert_eq!(sandbox.read("target.o"), sandbox.read("out.o"));
}

#[test]
fn signature_says_what_run_will_say() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let said = sandbox.objcache(&["signature", "arithmetic.clif", "-O3", "--salt", "x"]).fine();
    assert!(sandbox.json(&["ls"])["entries"].as_array().unwrap().is_empty(), "nothing is compiled");
    let compiled = sandbox.json(&["compile", "arithmetic.clif", "-O3", "--salt", "x", "-o", "out.o"]);
    assert_eq!(said.trim(), compiled["signature"]);
    assert_eq!(sandbox.objcache(&["signature", "out.o"]).fine(), said);
}

#[test]
fn the_document_lists_the_ingredients() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let words = ["signature", "arithmetic.clif", "--document", "--env", "A=1", "--env", "B_IS_NOT_SET"];
    let said = sandbox.objcache(&words).fine();
    assert!(said.contains("environment.A") && said.contains("(unset)") && said.contains("clif"), "{said}");
    let ingredients = &sandbox.json(&words)["ingredients"];
    assert_eq!(ingredients["environment"], serde_json::json!({"A": "1", "B_IS_NOT_SET": null}));
    assert_eq!(ingredients["ir_kind"], "clif");
    assert_eq!(ingredients["schema"], 1);
    assert!(ingredients["cpu_features"].is_array());
}

#[test]
fn dumps_go_where_they_should() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let compiled = sandbox.json(&["compile", "arithmetic.clif", "-o", "out.o", "--dump", "dumps"]);
    let folder = format!("dumps/{}", compiled["signature"].as_str().unwrap());
    assert!(std::fs::read_dir(sandbox.path(&folder)).unwrap().count() > 0);
}

#[test]
fn without_cache_nothing_is_kept() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    for _ in 0..2 {
        let finished =
            sandbox.objcache(&["run", "arithmetic.clif", "--call", "add", "1", "2", "--no-cache", "--json"]);
        assert_eq!(finished.json()["outcome"], "miss");
        assert_eq!(finished.stderr, "");
    }
    assert!(!sandbox.cache().exists());
}

#[test]
fn the_compiler_is_found_by_the_kind_of_source() {
    if tool("gcc").is_none() {
        return;
    }
    let sandbox = Sandbox::with(&["saxpy.c"]);
    let ran = sandbox.json(&["run", "saxpy.c", "--call", "length", "--signature", "i32(ptr)", "str[four]"]);
    assert_eq!(ran["result"], 4);
    // clang where there is one, in whatever version; and under that name it can be asked for, too.
    let compiler = ran["compiler"].as_str().unwrap();
    let asked = sandbox.json(&["compile", "saxpy.c", "--compiler", compiler]);
    assert_eq!((&asked["outcome"], &asked["compiler"]), (&"hit".into(), &compiler.into()));
    let said = sandbox.objcache(&["compile", "saxpy.c", "--compiler", "cranelift"]).fails(1);
    assert!(said.contains("saxpy.c"), "{said}");
    let said = sandbox.objcache(&["compile", "saxpy.c", "--compiler", "no-such-compiler"]).fails(1);
    assert!(said.contains("no-such-compiler"), "{said}");
}

#[test]
fn what_cannot_be_cached_runs_all_the_same_and_says_why() {
    if tool("gcc").is_none() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("included", "A");
    sandbox.write(
        "letter.s",
        ".globl letter\nletter: movsbl text(%rip), %eax\n ret\ntext: .incbin \"included\"\n",
    );
    let words = ["run", "letter.s", "--signature", "i32()"];
    for _ in 0..2 {
        let ran = sandbox.json(&words);
        assert_eq!((&ran["outcome"], &ran["result"]), (&"miss".into(), &65.into()));
        assert!(ran["uncacheable"].as_str().unwrap().contains("incbin"), "{ran}");
    }
    let said = sandbox.objcache(&[&words[..], &["-v"]].concat());
    assert!(said.stderr.contains("not cached because"), "{}", said.stderr);
    assert_eq!(sandbox.json(&["stats"])["entries"], 0);
}

#[test]
fn c_through_gcc_with_buffers_and_initialisers() {
    if tool("gcc").is_none() {
        return;
    }
    let sandbox = Sandbox::with(&["saxpy.c"]);
    let run = |words: &[&str]| sandbox.json(&[&["run", "saxpy.c", "--compiler", "gcc"], words].concat());
    let saxpy = ["--signature", "void(i64,f32,ptr,ptr)", "3", "2", "f32[1,2,3]", "f32[10,20,30]"];
    let ran = run(&saxpy);
    assert_eq!(ran["buffers"][1]["values"], serde_json::json!([12.0, 24.0, 36.0]));
    assert_eq!((&ran["function"], &ran["compiler"]), (&"saxpy".into(), &"gcc".into()));
    let length = run(&["--call", "length", "--signature", "i32(ptr)", "str[five!]"]);
    assert_eq!((&length["outcome"], &length["result"]), (&"hit".into(), &5.into()));
    assert_eq!(run(&["--call", "is_ready", "--signature", "i32()"])["result"], 7);
    let said = sandbox.objcache(&["run", "saxpy.c"]).fails(2);
    assert!(said.contains("--signature"), "{said}");
}

#[test]
fn cxx_has_its_run_time_library() {
    let Some(_) = tool("g++") else { return };
    let sandbox = Sandbox::new();
    sandbox.write("k.cpp", CXX);
    for (function, argument, expected) in
        [("caught", "1", "4"), ("caught", "0", "0"), ("sum", "10", "45"), ("made", "0", "5")]
    {
        let words = ["run", "k.cpp", "--call", function, "--signature", "i32(i32)", argument];
        assert_eq!(sandbox.objcache(&words).fine(), format!("{expected}\n"), "{function}");
    }
    let printed =
        sandbox.objcache(&["run", "k.cpp", "--call", "print", "--signature", "i32(i32)", "7"]).fine();
    assert_eq!(printed, "seven is 7\n0\n");
}

const CXX: &str = r#"
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>
static std::string global = "hello";
extern "C" int made(int) { return (int)global.size(); }
extern "C" int caught(int x) {
    try { if (x) throw std::runtime_error("boom"); return 0; }
    catch (const std::exception &error) { return (int)std::string(error.what()).size(); }
}
extern "C" int sum(int n) {
    std::vector<int> all;
    for (int i = 0; i < n; i++) all.push_back(i);
    int sum = 0;
    for (int i : all) sum += i;
    return sum;
}
extern "C" int print(int x) { std::cout << "seven is " << x << std::endl; return 0; }
"#;

#[test]
fn code_that_expects_its_data_nearby_says_what_to_do() {
    let Some(gcc) = tool("gcc") else { return };
    let sandbox = Sandbox::new();
    // Indexed without position independence: the address stands in 32 bits of the instruction.
    sandbox.write("k.c", "extern int stdout[]; int f(int i) { return stdout[i]; }\n");
    let compiled = std::process::Command::new(gcc)
        .args(["-O2", "-fno-pic", "-c", "k.c"])
        .current_dir(sandbox.path(""))
        .status();
    assert!(compiled.unwrap().success());
    let said = sandbox.objcache(&["run", "k.o", "--signature", "i32(i32)", "0"]).fails(1);
    assert!(said.contains("-fPIC") && said.contains("k.o"), "{said}");
}

#[test]
fn warnings_of_the_compiler_reach_the_user_once() {
    if tool("gcc").is_none() {
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.write("w.c", "int f(int a) { int idle; return a; }\n");
    let words = ["run", "w.c", "--compiler", "gcc", "--flag=-Wall", "--signature", "i32(i32)", "7"];
    let (miss, hit) = (sandbox.objcache(&words), sandbox.objcache(&words));
    assert!(miss.stdout == "7\n" && miss.stderr.contains("unused variable"), "{}", miss.stderr);
    assert!(hit.stdout == "7\n" && hit.stderr.is_empty(), "{}", hit.stderr);
}

#[test]
fn errors_of_the_compiler_name_the_file() {
    let sandbox = Sandbox::new();
    sandbox.write("wrong.clif", "function %f(i64) -> i32 {\nblock0(v0: i64):\n    return v0\n}\n");
    let said = sandbox.objcache(&["run", "wrong.clif", "1"]).fails(1);
    assert!(said.contains("cannot verify function %f (line 1) of wrong.clif: line 3"), "{said}");
}

#[test]
fn an_output_that_cannot_be_made_is_named_as_the_user_did() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let said = sandbox.objcache(&["compile", "arithmetic.clif", "-o", "absent/k.o"]).fails(3);
    assert!(said.contains("absent/k.o: No such file") && !said.contains(".tmp"), "{said}");
}

#[test]
fn sources_that_can_be_read_once_are_sources() {
    let Some(_) = tool("gcc") else { return };
    let sandbox = Sandbox::new();
    sandbox.write("k.c", "int f(void) { return 5; }\n");
    let words = ["run", "/dev/stdin", "--kind", "c", "--signature", "i32()"];
    let mut command = sandbox.command(&words);
    command.stdin(std::fs::File::open(sandbox.path("k.c")).unwrap());
    assert_eq!(crate::support::finish(&mut command).fine(), "5\n");

    let made = std::process::Command::new("mkfifo").arg(sandbox.path("pipe")).status().unwrap();
    assert!(made.success());
    let pipe = sandbox.path("pipe");
    let writer = std::thread::spawn(move || std::fs::write(pipe, "int f(void) { return 6; }\n").unwrap());
    assert_eq!(sandbox.objcache(&["run", "pipe", "--kind", "c", "--signature", "i32()"]).fine(), "6\n");
    writer.join().unwrap();
}
