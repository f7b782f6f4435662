//! `run` under a debugger, and with what profilers read.

use std::process::Command;

use crate::support::{Sandbox, finish, tool};

#[test]
fn gdb_stops_in_a_kernel_and_shows_its_line_and_variables() {
    if tool("gcc").is_none() || tool("gdb").is_none() {
        return;
    }
    let sandbox = Sandbox::with(&["saxpy.c"]);
    let words = [
        "run",
        "saxpy.c",
        "--compiler",
        "gcc",
        "-O",
        "0",
        "--flag",
        "-g",
        "--call",
        "length",
        "--signature",
        "i32(ptr)",
        "str[four]",
    ];
    // Once compiled and once from the cache; by option and by environment.
    for by_option in [true, false] {
        let mut objcache = sandbox.command(&words);
        if by_option {
            objcache.arg("--gdb");
        } else {
            objcache.env("OBJCACHE_GDB", "1");
        }
        let mut gdb = Command::new("gdb");
        for (name, value) in objcache.get_envs() {
            match value {
                Some(value) => gdb.env(name, value),
                None => gdb.env_remove(name),
            };
        }
        gdb.args(["-nx", "-batch", "-ex", "set debuginfod enabled off", "-ex", "set breakpoint pending on"]);
        gdb.args(["-ex", "break saxpy.c:14", "-ex", "run", "-ex", "bt 1", "-ex", "info locals", "--args"]);
        gdb.arg(objcache.get_program()).args(objcache.get_args()).current_dir(sandbox.path(""));
        let said = finish(&mut gdb).fine();
        if said.contains("Couldn't get") || said.contains("ptrace") {
            return crate::support::skip("gdb cannot run a program here");
        }
        assert!(said.contains("#0  length (text="), "{said}");
        assert!(said.contains("saxpy.c:14\n"), "{said}");
        assert!(said.contains("n = 0\n"), "{said}");
    }
}

#[test]
fn a_jitdump_has_the_functions_that_ran() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let words = ["run", "arithmetic.clif", "--call", "add", "1", "2"];
    let dumps = || {
        let files = std::fs::read_dir(sandbox.path("")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "dump")).collect::<Vec<_>>()
    };
    assert_eq!(sandbox.objcache(&words).fine(), "3\n");
    assert_eq!(dumps().len(), 0);
    assert_eq!(sandbox.objcache(&[&words[..], &["--perf", "jitdump"]].concat()).fine(), "3\n");
    assert_eq!(finish(sandbox.command(&words).env("OBJCACHE_PERF", "jitdump")).fine(), "3\n");
    let found = dumps();
    assert_eq!(found.len(), 2);
    for dump in found {
        let bytes = std::fs::read(dump).unwrap();
        assert!(bytes.starts_with(&0x4a69_5444u32.to_ne_bytes()));
        assert!(bytes.windows(5).any(|window| window == b"\0add\0"));
    }
    // Where it cannot be written, the program runs all the same and says so.
    let nowhere =
        finish(sandbox.command(&words).env("OBJCACHE_PERF", "jitdump").env("JITDUMPDIR", "/nowhere"));
    assert!(nowhere.stderr.contains("/nowhere"), "{}", nowhere.stderr);
    assert_eq!(nowhere.fine(), "3\n");
}
