//! What a signal leaves that ends the program.

use std::cell::RefCell;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Sandbox, tool};

const ENDLESS: &str =
    "function %spin() -> i32 system_v {\nblock0:\n    jump block1\nblock1:\n    jump block1\n}\n";

fn send(signal: &str, process: impl ToString) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

/// The same, in a process that ignores none of the signals, whoever started the tests: shells start what runs in the
/// background with some of them ignored.
fn ignoring_none(command: &Command) -> Command {
    let mut env = Command::new("env");
    env.arg(DEFAULT_SIGNALS).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => env.env(name, value),
            None => env.env_remove(name),
        };
    }
    env.current_dir(command.get_current_dir().unwrap());
    env
}

const DEFAULT_SIGNALS: &str = "--default-signal=HUP,INT,QUIT,TERM";

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn marks(sandbox: &Sandbox) -> usize {
    std::fs::read_dir(sandbox.cache().join("running")).map_or(0, Iterator::count)
}

/// Runs the endless kernel, ends it by `signal` once it is known to run, and gives what it ended by.
fn end_by(sandbox: &Sandbox, signal: &str) -> Option<i32> {
    let before = marks(sandbox);
    let mut running = ignoring_none(&sandbox.command(&["run", "spin.clif"])).spawn().unwrap();
    wait_until("it runs", || marks(sandbox) > before);
    send(signal, running.id());
    running.wait().unwrap().signal()
}

#[test]
fn code_that_its_user_ends_has_not_crashed() {
    let sandbox = Sandbox::new();
    sandbox.write("spin.clif", ENDLESS);
    sandbox.objcache(&["compile", "spin.clif"]).fine();
    for (signal, number) in [("-INT", 2), ("-INT", 2), ("-INT", 2), ("-TERM", 15), ("-HUP", 1), ("-QUIT", 3)]
    {
        assert_eq!(end_by(&sandbox, signal), Some(number), "whoever started it is to see that");
        assert_eq!(marks(&sandbox), 0, "{signal}");
    }
    let stats = sandbox.json(&["stats"]);
    assert_eq!((&stats["quarantined"], &stats["entries"]), (&0.into(), &1.into()), "{stats}");
    assert_eq!(end_by(&sandbox, "-KILL"), Some(9));
    assert_eq!(marks(&sandbox), 1, "nobody can tell who that was");
}

#[test]
fn signals_that_are_ignored_stay_so() {
    let sandbox = Sandbox::new();
    sandbox.write("spin.clif", ENDLESS);
    sandbox.objcache(&["compile", "spin.clif"]).fine();
    let plain = sandbox.command(&["run", "spin.clif"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.env("OBJCACHE_DIR", sandbox.cache()).current_dir(sandbox.path(""));
    let mut running = ignoring_none(&command).spawn().unwrap();
    wait_until("it runs", || marks(&sandbox) > 0);
    send("-HUP", running.id());
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(running.try_wait().unwrap(), None, "as under nohup");
    send("-TERM", running.id());
    assert_eq!(running.wait().unwrap().signal(), Some(15));
}

#[test]
fn top_gives_the_terminal_back() {
    let sandbox = Sandbox::with(&["arithmetic.clif"]);
    sandbox.objcache(&["compile", "arithmetic.clif"]).fine();
    let Some(script) = tool("script") else { return };
    for (signal, code) in [("-TERM", 143), ("-HUP", 129), ("-INT", 130)] {
        let program = env!("CARGO_BIN_EXE_objcache");
        let top = format!("echo $$ >pid; exec env {DEFAULT_SIGNALS} \"{program}\" top --interval 1h");
        let line = format!("stty -g >before; sh -c '{top}'; echo ended by $?; stty -g >after");
        let mut command = Command::new(&script);
        command.args(["--quiet", "--command", &line, "/dev/null"]).current_dir(sandbox.path(""));
        command.env("OBJCACHE_DIR", sandbox.cache()).env("TERM", "xterm").env_remove("OBJCACHE_LOG");
        let mut watched = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut screen, mut out) = (Vec::new(), watched.stdout.take().unwrap());
        let mut more = |screen: &mut Vec<u8>| {
            let mut bytes = [0; 4096];
            let length = out.read(&mut bytes).unwrap();
            screen.extend_from_slice(&bytes[..length]);
            length > 0
        };
        while !String::from_utf8_lossy(&screen).contains("arithmetic.clif") {
            assert!(more(&mut screen), "{:?}", String::from_utf8_lossy(&screen));
        }
        send(signal, String::from_utf8(sandbox.read("pid")).unwrap().trim());
        while more(&mut screen) {}
        watched.wait().unwrap();
        let screen = String::from_utf8_lossy(&screen).into_owned();
        let at =
            |text: &str| screen.rfind(text).unwrap_or_else(|| panic!("{signal}: no {text:?} in {screen:?}"));
        assert!(at("\u{1b}[?1049h") < at("\u{1b}[?1049l"), "{signal}: {screen:?}");
        assert!(at("\u{1b}[?1049l") < at(&format!("ended by {code}")), "{signal}: {screen:?}");
        at("\u{1b}[?25h");
        assert_eq!(sandbox.read("before"), sandbox.read("after"), "{signal}");
    }
}

#[test]
fn a_child_of_the_code_ends_by_signals_as_ever() {
    let Some(clang) = tool("clang-22") else { return };
    let sandbox = Sandbox::new();
    // The alarm ends the child if the signal does not.
    let code = "#include <signal.h>\n#include <sys/wait.h>\n#include <unistd.h>\nint f(int signal) {\n \
                int child = fork(), status;\n if (!child) for (alarm(30);;) pause();\n kill(child, signal);\n \
                waitpid(child, &status, 0);\n return WTERMSIG(status);\n}\n";
    sandbox.write("fork.c", code);
    for signal in ["15", "2"] {
        let words = ["run", "fork.c", "--call", "f", "--signature", "i32(i32)", signal, "--compiler"];
        let ran = crate::support::finish(&mut ignoring_none(sandbox.command(&words).arg(&clang)));
        assert_eq!((ran.code, ran.stdout.trim()), (0, signal), "{}", ran.stderr);
    }
}

/// The preprocessor reads a pipe that nobody writes into: there the program is killed.
#[test]
fn what_a_killed_compilation_left_the_next_one_removes() {
    let Some(clang) = tool("clang-22") else { return };
    let sandbox = Sandbox::new();
    sandbox.write("slow.c", "#include \"pipe.h\"\n");
    sandbox.write("quick.c", "int f(void) { return 1; }\n");
    assert!(Command::new("mkfifo").arg(sandbox.path("pipe.h")).status().unwrap().success());
    let temporary = sandbox.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let left = || std::fs::read_dir(&temporary).unwrap().count();
    let compile = |file: &str| {
        let mut command = sandbox.command(&["compile", file, "--compiler", clang.to_str().unwrap()]);
        command.env("TMPDIR", &temporary);
        command
    };
    let mut killed = compile("slow.c").spawn().unwrap();
    // Whoever opens the other end without waiting is refused until the compiler has opened its own.
    let pipe = || {
        let mut options = std::fs::OpenOptions::new();
        options.write(true);
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, 0o4000);
        options.open(sandbox.path("pipe.h"))
    };
    // Held, so that it goes on reading.
    let writer = RefCell::new(None);
    wait_until("the compiler reads", || {
        *writer.borrow_mut() = pipe().ok();
        writer.borrow().is_some()
    });
    send("-KILL", killed.id());
    killed.wait().unwrap();
    assert!(left() > 0, "it had no time to remove anything");
    crate::support::finish(&mut compile("quick.c")).fine();
    assert_eq!(left(), 0);
}
