//! A role run again and again under strace, with a fault at one of its system calls after the other.

#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::child::{self, finish};
use crate::support::{place, skip};

/// Opening these names marks where a role begins and ends in a trace.
const BEGIN: &str = "/objcache-test-begins";
const END: &str = "/objcache-test-ends";

/// For the child: does `work` so that its system calls can be told from the others.
pub fn traced(work: impl FnOnce()) {
    get_ahead();
    let _ = fs::File::open(BEGIN);
    work();
    let _ = fs::File::open(END);
}

/// strace counts calls per thread, and injects into the n-th of *each*. So the thread of the role first makes
/// more of the usual calls than the main thread ever does; later ones are then the role's alone.
fn get_ahead() {
    for _ in 0..60 {
        let mut file = fs::File::options().read(true).write(true).open("/dev/null").expect("there");
        let _ = (file.metadata(), rustix::fs::fstat(&file), file.read_at(&mut [0], 0), file.write(&[0]));
        let _ = rustix::fs::statat(rustix::fs::CWD, "/", rustix::fs::AtFlags::empty());
    }
}

/// Per system call: how often the role's thread made it before the role began, and until it ended; and how
/// often the thread among the others that made it most.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    pub before: usize,
    pub until: usize,
    pub elsewhere: usize,
}

pub type Calls = BTreeMap<String, Count>;

/// The calls of a role. `None`: there is no strace here.
pub fn trace(role: &str, prepare: &dyn Fn(&Path)) -> Option<Calls> {
    if Command::new("strace").arg("-V").output().is_err() {
        return None;
    }
    let (directory, root) = place();
    prepare(&root);
    let log = directory.path().join("trace");
    let strace = ["strace", "-f", "-o", log.to_str()?];
    let output = child::command(&strace, &[&role, &root]).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(count(&fs::read_to_string(log).ok()?))
}

fn count(log: &str) -> Calls {
    let thread_of = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let ours = log.lines().find(|line| line.contains(BEGIN)).map(thread_of).expect("the role begins");
    let (mut calls, mut begun, mut ended) = (Calls::new(), false, false);
    let mut others = BTreeMap::<(String, String), usize>::new();
    for line in log.lines() {
        let thread = thread_of(line);
        let call = line[thread.len()..].trim_start();
        let name = call.split('(').next().unwrap_or_default();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            // The second half of a call that was interrupted by others, or the end of a thread.
            continue;
        }
        let counts = calls.entry(name.to_owned()).or_default();
        if thread == ours {
            counts.before += usize::from(!begun);
            counts.until += usize::from(!ended);
            begun |= line.contains(BEGIN);
            ended |= line.contains(END);
        } else {
            let count = others.entry((thread, name.to_owned())).or_default();
            *count += 1;
            counts.elsewhere = counts.elsewhere.max(*count);
        }
    }
    assert!(ended, "the role ends");
    calls
}

/// How often a role is run until it makes a call that it made when it was traced: how many it makes depends a little
/// on what other threads have done by then.
const TRIES: usize = 5;

/// What to run, and where to let it fail.
pub struct Plan<'a> {
    pub role: &'a str,
    pub prepare: &'a dyn Fn(&Path),
    /// The system calls.
    pub kinds: &'a [&'a str],
    /// So many of a kind at most, evenly chosen. All with `OBJCACHE_SOAK`.
    pub limit: usize,
    /// What strace is to inject, with `@` for the number of the call: `signal=KILL:when=@`.
    pub fault: &'a str,
}

impl Plan<'_> {
    /// Runs the role once for each of its own calls, with the fault there. Returns how many that were.
    pub fn for_each_call(&self, check: impl Fn(&str, &Path, Output)) -> usize {
        let Some(calls) = trace(self.role, self.prepare) else {
            skip("there is no strace");
            return 0;
        };
        let points = self.run(&calls, |count| (count.before + 1, count.until), TRIES, check);
        assert!(points > 5, "{}: only {points} points", self.role);
        eprintln!("{}, {}: {points} points", self.role, self.fault);
        points
    }

    /// The same for the calls of all threads but the role's own: sled's, and the one that tidies. In whichever
    /// of them is the first to make so many.
    pub fn for_each_call_elsewhere(&self, check: impl Fn(&str, &Path, Output)) {
        let Some(calls) = trace(self.role, self.prepare) else { return skip("there is no strace") };
        let points = self.run(&calls, |count| (1, count.elsewhere), 1, check);
        eprintln!("{}, {}, elsewhere: {points} points", self.role, self.fault);
    }

    fn run(
        &self,
        calls: &Calls,
        range: impl Fn(&Count) -> (usize, usize),
        tries: usize,
        check: impl Fn(&str, &Path, Output),
    ) -> usize {
        let soak = std::env::var_os("OBJCACHE_SOAK").is_some();
        let mut points = 0;
        for (kind, count) in calls.iter().filter(|(kind, _)| self.kinds.contains(&kind.as_str())) {
            let (first, last) = range(count);
            let limit = if soak { usize::MAX } else { self.limit };
            let step = (last + 1).saturating_sub(first).div_ceil(limit).max(1);
            // Another part of them for another fault.
            let offset = self.fault.bytes().map(usize::from).sum::<usize>() % step;
            for at in (first + offset..=last).step_by(step) {
                let run = || self.run_with_fault(kind, at, last, &check);
                let _ = (0..tries).any(|_| run());
                points += 1;
            }
        }
        points
    }

    /// Returns whether it got as far as the fault: one that is to be killed must not end well.
    fn run_with_fault(
        &self,
        kind: &str,
        at: usize,
        last: usize,
        check: &impl Fn(&str, &Path, Output),
    ) -> bool {
        let (_directory, root) = place();
        (self.prepare)(&root);
        let trace = format!("trace={kind}");
        let inject = format!("inject={kind}:{}", self.fault.replace('@', &at.to_string()));
        let strace = ["strace", "-f", "-o", "/dev/null", "-e", &trace, "-e", &inject];
        let child = child::command(&strace, &[&self.role, &root]).spawn().expect("started before");
        let output = finish(child);
        let was_reached = !(self.fault.starts_with("signal=KILL") && output.status.success());
        check(&format!("{}: {kind} {at} of {last}, {}", self.role, self.fault), &root, output);
        was_reached
    }
}
