//! Tests of several processes run themselves again: a test binary starts a copy of itself in which only the
//! test `child` does anything, and that plays the role it is given.

#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part")]

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

const ROLE: &str = "OBJCACHE_TEST_ROLE";

/// The words of the role this process is to play; `None` in the process the user started.
pub fn role() -> Option<Vec<String>> {
    let role = std::env::var(ROLE).ok()?;
    Some(role.split('\u{1f}').map(str::to_owned).collect())
}

/// A command that runs this test binary in a role. With `runner` that program runs it (`strace …`).
pub fn command(runner: &[&str], role: &[&dyn AsRef<OsStr>]) -> Command {
    let this = std::env::current_exe().expect("known");
    let mut command = match runner {
        [] => Command::new(this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
    };
    let words: Vec<_> = role.iter().map(|word| word.as_ref().to_string_lossy().into_owned()).collect();
    command
        // On the main thread, and nothing printed but what the role prints.
        .args(["child", "--exact", "--nocapture", "--quiet", "--test-threads=1"])
        .env(ROLE, words.join("\u{1f}"))
        .env("RUST_BACKTRACE", "0")
        // Cargo's; with it the dynamic linker makes a great many system calls.
        .env_remove("LD_LIBRARY_PATH")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub fn start(role: &[&dyn AsRef<OsStr>]) -> Child {
    command(&[], role).spawn().expect("starts")
}

/// What a role says first of all.
const ALIVE: &str = "begun";

/// For the child: says that the role begins. Before that its process may take any time to start.
pub fn begin() {
    println!("\n{ALIVE}");
}

/// Waits for a role to begin. What it says after that is left to be read.
pub fn wait_until_begun(child: &mut Child) {
    let output = child.stdout.as_mut().expect("piped");
    let mut line = Vec::new();
    while line != ALIVE.as_bytes() {
        line = read_line(output);
    }
}

/// Not a byte further.
fn read_line(output: &mut impl Read) -> Vec<u8> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        output.read_exact(&mut byte).expect("it lives, and says so first");
        match byte {
            [b'\n'] => return line,
            [byte] => line.push(byte),
        }
    }
}

pub fn finish(child: Child) -> Output {
    child.wait_with_output().expect("runs")
}

/// Like [`finish`], and it must have succeeded. Returns what the role printed.
pub fn succeed(child: Child) -> String {
    let output = finish(child);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Waits until `condition` holds; ten minutes at most, which only a hanging test needs.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal to a process we started. Not by the program `kill`, which a small system lacks.
pub fn signal(child: &Child, signal: Signal) {
    let process = Pid::from_child(child);
    rustix::process::kill_process(process, signal).expect("the process is there");
}
