//! `doctor`: every misconfiguration that a test can make is found, and something is said about what to do.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

use crate::support::{Sandbox, finish, skip, tool};

const NOBODY: u32 = 65_534;

/// What is found with the command changed so: codes, states and advice of all but what is in order.
fn examined(sandbox: &Sandbox, adjust: &dyn Fn(&mut Command)) -> (i32, Vec<Value>) {
    let mut command = sandbox.command(&["doctor", "--json"]);
    // Of the machine the tests run on nothing is expected, but that it has a disk.
    command.env("OBJCACHE_MAX_SIZE", "100M");
    adjust(&mut command);
    let finished = finish(&mut command);
    let report = finished.json();
    let checks = report["checks"].as_array().unwrap().clone();
    let found: Vec<_> = checks.into_iter().filter(|check| check["state"] != "ok").collect();
    let counted = found.iter().filter(|check| check["state"] != "note").count();
    assert_eq!(report["findings"], counted);
    assert_eq!(finished.code, i32::from(counted > 0), "{report}");
    assert!(
        found.iter().all(|check| check["advice"].as_str().is_some_and(|advice| !advice.is_empty())),
        "{found:?}"
    );
    (finished.code, found)
}

/// It finds just this; gives its message and its advice.
#[track_caller]
fn finds(sandbox: &Sandbox, code: &str, state: &str, adjust: &dyn Fn(&mut Command)) -> (String, String) {
    let (_, found) = examined(sandbox, adjust);
    // What this machine lacks is not what is looked for.
    let found: Vec<_> = found
        .iter()
        .filter(|check| {
            !["no_compiler", "disk_nearly_full", "insecure_parent"].contains(&check["code"].as_str().unwrap())
                || check["code"] == code
        })
        .collect();
    let codes: Vec<_> = found.iter().map(|check| check["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&code), "{code}: {found:?}");
    assert!(codes.iter().all(|it| *it == code), "only {code}: {found:?}");
    assert_eq!(found[0]["state"], state, "{found:?}");
    (found[0]["message"].as_str().unwrap().to_owned(), found[0]["advice"].as_str().unwrap().to_owned())
}

fn make_cache(sandbox: &Sandbox, mode: u32) {
    fs::create_dir(sandbox.cache()).unwrap();
    fs::set_permissions(sandbox.cache(), fs::Permissions::from_mode(mode)).unwrap();
}

fn is_root(sandbox: &Sandbox) -> bool {
    fs::metadata(sandbox.path("")).unwrap().uid() == 0
}

#[test]
fn a_sound_cache_has_nothing_to_mend() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    let (_, found) = examined(&sandbox, &|_| ());
    let ours = |check: &&Value| {
        !["no_compiler", "disk_nearly_full", "insecure_parent"].contains(&check["code"].as_str().unwrap())
    };
    assert_eq!(found.iter().filter(ours).count(), 0, "{found:?}");
    let said = sandbox.objcache(&["doctor"]);
    assert!(said.stdout.contains("ok      ") && said.stdout.contains("code is loaded"), "{}", said.stdout);
}

#[test]
fn no_home() {
    let sandbox = Sandbox::new();
    finds(&sandbox, "no_home", "error", &|command| {
        command.env_remove("OBJCACHE_DIR").env_remove("XDG_CACHE_HOME").env_remove("HOME");
    });
}

#[test]
fn owner_and_mode() {
    let sandbox = Sandbox::new();
    make_cache(&sandbox, 0o777);
    finds(&sandbox, "insecure_mode", "error", &|_| ());
    if is_root(&sandbox) {
        chown(sandbox.cache(), Some(NOBODY), None).unwrap();
        finds(&sandbox, "foreign_owner", "error", &|_| ());
    }
}

#[test]
fn read_only() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    make_cache(&sandbox, 0o500);
    if is_root(&sandbox) {
        sandbox.give_to(NOBODY);
    }
    finds(&sandbox, "read_only", "error", &|_| ());
}

#[test]
fn links() {
    let sandbox = Sandbox::new();
    let elsewhere = sandbox.path("elsewhere");
    symlink(&elsewhere, sandbox.cache()).unwrap();
    let (_, found) = examined(&sandbox, &|_| ());
    assert!(found.iter().any(|check| check["code"] == "dangling_link"), "{found:?}");
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o700)).unwrap();
    let (message, _) = finds(&sandbox, "linked", "note", &|_| ());
    assert!(message.contains("elsewhere"), "{message}");
}

#[test]
fn a_folder_above_that_everybody_may_write() {
    let sandbox = Sandbox::new();
    let folder = sandbox.path("open");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let (_, advice) = finds(&sandbox, "insecure_parent", "warning", &|command| {
        command.env("OBJCACHE_DIR", folder.join("cache"));
    });
    assert!(advice.contains("chmod o-w"), "{advice}");
}

#[test]
fn what_is_in_the_way() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.cache(), "in the way").unwrap();
    finds(&sandbox, "not_a_directory", "error", &|_| ());
    finds(&sandbox, "no_directory", "error", &|command| {
        command.env("OBJCACHE_DIR", "/proc/objcache");
    });
}

#[test]
fn the_format_of_a_later_release() {
    let sandbox = Sandbox::new();
    sandbox.objcache(&["stats"]).fine();
    fs::write(sandbox.cache().join("VERSION"), "objcache store 99\n").unwrap();
    let (_, advice) = finds(&sandbox, "future_format", "error", &|_| ());
    assert!(advice.contains("later release"), "{advice}");
}

#[test]
fn switches_that_are_on() {
    let sandbox = Sandbox::new();
    for (variable, code) in [
        ("OBJCACHE_DISABLE", "disabled"),
        ("OBJCACHE_READONLY", "read_only_by_choice"),
        ("OBJCACHE_STRICT", "strict"),
    ] {
        sandbox.objcache(&["stats"]).fine();
        let (_, advice) = finds(&sandbox, code, "warning", &|command| {
            command.env(variable, "1");
        });
        assert!(advice.contains("config list --origin"), "{advice}");
    }
}

#[test]
fn limits() {
    let sandbox = Sandbox::new();
    let set = |name: &'static str, value: &'static str| {
        move |command: &mut Command| {
            command.env(name, value);
        }
    };
    finds(&sandbox, "small_max_size", "warning", &set("OBJCACHE_MAX_SIZE", "5M"));
    finds(&sandbox, "max_size_beyond_disk", "warning", &set("OBJCACHE_MAX_SIZE", "1000000T"));
    finds(&sandbox, "short_max_age", "warning", &set("OBJCACHE_MAX_AGE", "10s"));
    finds(&sandbox, "keeps_nothing", "warning", &set("OBJCACHE_MAX_ENTRIES", "0"));
    finds(&sandbox, "keeps_nothing", "warning", &set("OBJCACHE_MAX_OBJECT_SIZE", "1"));
    finds(&sandbox, "long_min_compile_ms", "warning", &set("OBJCACHE_MIN_COMPILE_MS", "99999999"));
    let (message, _) = finds(&sandbox, "small_max_size", "warning", &set("OBJCACHE_MAX_SIZE", "1M"));
    assert!(message.contains("4 MiB is the least"), "{message}");
}

#[test]
fn a_trace_that_cannot_be_written() {
    let sandbox = Sandbox::new();
    let (message, _) = finds(&sandbox, "trace_unusable", "warning", &|command| {
        command.env("OBJCACHE_TRACE", sandbox.path("missing/trace"));
    });
    assert!(message.contains("missing/trace: ") && message.contains("No such file"), "{message}");
}

#[test]
fn who_else_can_read_it_is_told() {
    for (mode, words) in [(0o700, "closed to others"), (0o755, "others cannot write to it")] {
        let sandbox = Sandbox::new();
        make_cache(&sandbox, mode);
        let said = sandbox.objcache(&["doctor"]).stdout;
        assert!(said.contains(words), "{mode:o}: {said}");
    }
}

#[test]
fn settings_and_variables() {
    let sandbox = Sandbox::new();
    let (message, advice) = finds(&sandbox, "unknown_variable", "warning", &|command| {
        command.env("OBJCACHE_MAXSIZE", "1G");
    });
    assert!(
        message.contains("OBJCACHE_MAXSIZE") && advice.contains("OBJCACHE_MAX_SIZE"),
        "{message} {advice}"
    );
    let (message, _) = finds(&sandbox, "bad_setting", "warning", &|command| {
        command.env("OBJCACHE_MAX_AGE", "old");
    });
    assert!(message.contains("OBJCACHE_MAX_AGE=old"), "{message}");
    sandbox.write("objcache.toml", "dir = \"/tmp/planted\"\n");
    let (message, _) = finds(&sandbox, "bad_setting", "warning", &|_| ());
    assert!(message.contains("objcache.toml"), "{message}");
    sandbox.write("objcache.toml", "= nonsense");
    finds(&sandbox, "bad_setting", "warning", &|_| ());
}

#[test]
fn a_clock_that_was_set_back() {
    let sandbox = Sandbox::new();
    sandbox.objcache(&["stats"]).fine();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(10 * 86_400);
    let version = fs::File::options().append(true).open(sandbox.cache().join("VERSION")).unwrap();
    version.set_modified(later).unwrap();
    finds(&sandbox, "clock_set_back", "warning", &|_| ());
}

#[test]
fn a_network_file_system() {
    let sandbox = Sandbox::new();
    let (_, advice) = finds(&sandbox, "network_file_system", "warning", &|command| {
        command.env("OBJCACHE_NETWORK", "1");
    });
    assert!(advice.contains("local directory"), "{advice}");
}

#[test]
fn the_catalogue() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    sandbox.objcache(&["ls"]).fine();
    fs::write(sandbox.cache().join("catalogue/conf"), [0xa5; 100]).unwrap();
    finds(&sandbox, "catalogue_rebuilt", "warning", &|_| ());
    finds_nothing(&sandbox);
    if !is_root(&sandbox) {
        fs::set_permissions(sandbox.cache().join("catalogue"), fs::Permissions::from_mode(0o0)).unwrap();
        finds(&sandbox, "catalogue_unusable", "warning", &|_| ());
        fs::set_permissions(sandbox.cache().join("catalogue"), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[track_caller]
fn finds_nothing(sandbox: &Sandbox) {
    let (_, found) = examined(sandbox, &|_| ());
    let ours = |check: &&Value| {
        !["no_compiler", "disk_nearly_full", "insecure_parent"].contains(&check["code"].as_str().unwrap())
    };
    assert_eq!(found.iter().filter(ours).count(), 0, "{found:?}");
}

#[test]
fn the_quarantine() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    let signature = sandbox.json(&["compile", "arithmetic.clif"])["signature"].as_str().unwrap().to_owned();
    fs::write(sandbox.entry_file(&signature), "damaged").unwrap();
    assert_eq!(sandbox.objcache(&["compile", "arithmetic.clif"]).code, 0);
    let (message, _) = finds(&sandbox, "quarantined", "warning", &|_| ());
    assert!(message.starts_with("1 damaged"), "{message}");
    fs::remove_dir_all(sandbox.cache().join("quarantine")).unwrap();
    symlink("/nowhere", sandbox.cache().join("quarantine")).unwrap();
    // Found, unless opening the store has taken it away already.
    let (_, found) = examined(&sandbox, &|_| ());
    let is_healed = !fs::symlink_metadata(sandbox.cache().join("quarantine")).is_ok_and(|it| it.is_symlink());
    assert!(is_healed || found.iter().any(|check| check["code"] == "quarantine_unusable"), "{found:?}");
}

#[test]
fn a_keeper_that_never_gives_its_role_back() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    let path = sandbox.cache().join("keeper");
    let keeper = fs::File::options().write(true).create(true).truncate(false).open(path).unwrap();
    keeper.try_lock().unwrap();
    let (_, advice) = finds(&sandbox, "catalogue_busy", "warning", &|_| ());
    assert!(advice.contains("fuser"), "{advice}");
    drop(keeper);
    finds_nothing(&sandbox);
}

/// What is found in a cache on a disk of its own, of `size`, on which `fill` is written first. `None`: there is no such disk
/// to be had here.
fn examined_on_a_disk(size: &str, fill: &str) -> Option<Value> {
    let sandbox = Sandbox::new();
    make_cache(&sandbox, 0o700);
    let doctor = sandbox.command(&["doctor", "--json"]);
    // Mounted where nobody else sees it, and gone with the process.
    let script = format!(
        "mount -t tmpfs -o mode=700,size={size} none \"$OBJCACHE_DIR\" 2>/dev/null || exit 77
        fallocate -l {fill} \"$OBJCACHE_DIR/filler\" && mkdir -m 700 \"$OBJCACHE_DIR/cache\" || exit 77
        export OBJCACHE_DIR=\"$OBJCACHE_DIR/cache\"
        exec \"$0\" \"$@\""
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).arg(doctor.get_program());
    command.args(doctor.get_args()).current_dir(sandbox.path("")).env("OBJCACHE_MAX_SIZE", "1M");
    command.env("OBJCACHE_DIR", sandbox.cache());
    let finished = finish(&mut command);
    (finished.code == 1).then(|| finished.json())
}

#[test]
fn a_disk_that_is_full_or_nearly_so() {
    // Less than 16 MB free count as none, and a twentieth as nearly none.
    let full = [("8m", "1m"), ("1m", "1020k")].map(|(size, fill)| (size, fill, "disk_full", "error"));
    let nearly = ("400m", "381m", "disk_nearly_full", "warning");
    for (size, fill, code, state) in full.into_iter().chain([nearly]) {
        let Some(report) = examined_on_a_disk(size, fill) else { return skip("no disk can be mounted") };
        let found = check(&report, code).unwrap_or_else(|| panic!("{size}: {report}"));
        assert_eq!(found["state"], state, "{found}");
        assert!(found["advice"].as_str().unwrap().contains("room"), "{found}");
    }
}

#[test]
fn a_file_system_without_locks() {
    let sandbox = Sandbox::new();
    sandbox.objcache(&["stats"]).fine();
    let doctor = sandbox.command(&["doctor", "--json"]);
    let mut command = Command::new("strace");
    command.args(["-f", "-o", "/dev/null", "-e", "trace=flock", "-e", "inject=flock:error=ENOLCK"]);
    command.arg(doctor.get_program()).args(doctor.get_args()).current_dir(sandbox.path(""));
    command.env("OBJCACHE_DIR", sandbox.cache());
    if tool("strace").is_none() {
        return;
    }
    let report = finish(&mut command).json();
    let found = check(&report, "locks_unsupported").unwrap_or_else(|| panic!("{report}"));
    assert_eq!(found["state"], "warning");
    assert!(found["advice"].as_str().unwrap().contains("local disk"), "{found}");
}

/// Root runs a copy of the program that belongs to another user, with that user's rights.
#[test]
fn a_program_with_another_users_rights() {
    let sandbox = Sandbox::new();
    if !is_root(&sandbox) {
        return skip("only root can make such a program");
    }
    sandbox.give_to(NOBODY);
    let mut command = sandbox.command(&["doctor", "--json"]);
    let program = command.get_program().to_owned();
    chown(&program, Some(NOBODY), None).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    command.uid(0).gid(0);
    let report = finish(&mut command).json();
    let found = check(&report, "secure_execution").unwrap_or_else(|| panic!("{report}"));
    assert_eq!(found["state"], "error");
    assert!(found["advice"].as_str().unwrap().contains("as yourself"), "{found}");
}

#[test]
fn a_layer_that_is_not_there() {
    let sandbox = Sandbox::new();
    let (message, _) = finds(&sandbox, "layer_unusable", "warning", &|command| {
        command.env("OBJCACHE_LAYERS", "/nowhere/at/all");
    });
    assert!(message.contains("/nowhere/at/all"), "{message}");
}

#[test]
fn a_layer_that_is_the_cache_itself() {
    let sandbox = Sandbox::new();
    sandbox.objcache(&["ls"]).fine();
    finds(&sandbox, "layer_is_the_cache", "warning", &|command| {
        command.env("OBJCACHE_LAYERS", sandbox.cache());
    });
}

#[test]
fn compilers_that_are_missing() {
    let sandbox = Sandbox::new();
    let (_, found) = examined(&sandbox, &|command| {
        command.env("PATH", "");
    });
    let missing: Vec<_> = found.iter().filter(|check| check["code"] == "no_compiler").collect();
    assert_eq!(missing.len(), 2, "{found:?}");
    assert!(missing[0]["advice"].as_str().unwrap().contains("install clang"), "{missing:?}");
}

/// Runs `doctor` in a process that `python` has restricted. `None`: the kernel cannot.
fn restricted(sandbox: &Sandbox, python: &std::path::Path, restriction: &str) -> Option<Value> {
    let doctor = sandbox.command(&["doctor", "--json"]);
    let script = format!(
        "import ctypes, os, struct, sys\nlibc = ctypes.CDLL(None)\n{restriction}\nos.execv(sys.argv[1], sys.argv[1:])"
    );
    let mut command = Command::new(python);
    command
        .args(["-c", &script])
        .arg(doctor.get_program())
        .args(doctor.get_args())
        .current_dir(sandbox.path(""));
    for (name, value) in doctor.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let finished = finish(&mut command);
    (finished.code != 77).then(|| finished.json())
}

fn check(report: &Value, code: &str) -> Option<Value> {
    report["checks"].as_array().unwrap().iter().find(|check| check["code"] == code).cloned()
}

#[test]
fn a_system_that_lets_no_memory_become_executable() {
    let Some(python) = tool("python3") else { return };
    // PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: kept across exec, as systemd's MemoryDenyWriteExecute is. The loader does
    // not need what is refused.
    let mdwe = "if libc.prctl(65, 1, 0, 0, 0) != 0: sys.exit(77)";
    let Some(report) = restricted(&Sandbox::new(), &python, mdwe) else {
        return skip("the kernel has no PR_SET_MDWE");
    };
    assert!(check(&report, "code").is_some(), "{report}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_system_that_has_no_executable_memory() {
    let Some(python) = tool("python3") else { return };
    // A filter as sandboxes have it: EPERM for `mmap` of executable memory without a file, and for `mprotect` that makes
    // memory executable. (Offsets in `seccomp_data`: 0 the call's number, 16 + 8 n its arguments.)
    let seccomp = "
LD, JEQ, JSET, RET = 0x20, 0x15, 0x45, 0x06
filter = [
    (LD, 0, 0, 0), (JEQ, 0, 4, 9),
    (LD, 0, 0, 32), (JSET, 0, 5, 4), (LD, 0, 0, 48), (JEQ, 4, 3, 0xffffffff),
    (JEQ, 0, 2, 10), (LD, 0, 0, 32), (JSET, 1, 0, 4),
    (RET, 0, 0, 0x7fff0000), (RET, 0, 0, 0x00050001),
]
code = b''.join(struct.pack('HBBI', *one) for one in filter)
buffer = ctypes.create_string_buffer(code)
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(filter), ctypes.addressof(buffer)))
if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, program, 0, 0) != 0: sys.exit(77)";
    let Some(report) = restricted(&Sandbox::new(), &python, seccomp) else {
        return skip("the kernel has no filters of system calls");
    };
    let refused = check(&report, "code_not_loaded").unwrap_or_else(|| panic!("{report}"));
    assert_eq!(refused["state"], "error");
    assert!(refused["advice"].as_str().unwrap().contains("MemoryDenyWriteExecute"), "{refused}");
}
