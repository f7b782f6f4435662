//! Work in processes of their own: this program, started again.

use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::entries::{Key, key_of};
use crate::measure::{median, thread_time};
use crate::peers::{KINDS, Kind, Peer};

/// The argument that makes the program a child.
pub(crate) const CHILD: &str = "--child";
const REFUSED: &str = "refused";
const OPEN: &str = "open";

/// What opening takes a new process, and its first hit, by the clock: medians.
pub(crate) fn first_hits(folder: &Path, key: &Key) -> Vec<(Duration, Duration)> {
    const ROUNDS: usize = 21;
    std::fs::write(folder.join("keys"), key).expect("keys");
    let mut times = vec![(Vec::new(), Vec::new()); KINDS.len()];
    for round in 0..ROUNDS {
        for place in 0..KINDS.len() {
            let chosen = (round + place) % KINDS.len();
            let child = Running::start("first", folder, &KINDS[chosen]);
            assert!(child.is_open(), "{} is open elsewhere", KINDS[chosen].name);
            let (opening, hit) = child.go();
            times[chosen].0.push(opening);
            times[chosen].1.push(hit);
        }
    }
    times.iter_mut().map(|(opening, hit)| (median(opening), median(hit))).collect()
}

/// What two processes do, as a multiple of what one does: by the clock, and by CPU time.
pub(crate) struct Scaling {
    pub(crate) clock: f64,
    pub(crate) cpu: f64,
}

/// Checked hits of all values. `None`: a second process is refused, however it asks.
pub(crate) fn two_processes(folder: &Path, keys: &[Key]) -> Vec<Option<Scaling>> {
    std::fs::write(folder.join("keys"), keys.concat()).expect("keys");
    KINDS.iter().map(|kind| scaling(folder, kind)).collect()
}

fn scaling(folder: &Path, kind: &Kind) -> Option<Scaling> {
    const ROUNDS: usize = 9;
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(Running::start("many", folder, kind).go());
        let (mut first, mut second) =
            (Running::start("many", folder, kind), Running::start("many", folder, kind));
        if !(first.is_open() && second.is_open()) {
            return None;
        }
        first.tell();
        second.tell();
        let (first, second) = (first.times(), second.times());
        // As long as the slower one takes.
        together.push((first.0.max(second.0), (first.1 + second.1) / 2));
    }
    // By the clock the best: the others were disturbed.
    let best = |times: &[(Duration, Duration)]| times.iter().map(|(clock, _)| *clock).min().expect("rounds");
    let middle =
        |times: &[(Duration, Duration)]| median(&mut times.iter().map(|it| it.1).collect::<Vec<_>>());
    let twice = |one: Duration, two: Duration| 2.0 * one.as_secs_f64() / two.as_secs_f64();
    Some(Scaling {
        clock: twice(best(&alone), best(&together)),
        cpu: twice(middle(&alone), middle(&together)),
    })
}

struct Running {
    child: Child,
    answers: BufReader<ChildStdout>,
    greeting: String,
}

impl Running {
    /// Started, and about to work: with its store open or refused.
    fn start(work: &str, folder: &Path, kind: &Kind) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args([CHILD, work, kind.name])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut answers = BufReader::new(child.stdout.take().expect("piped"));
        let greeting = line(&mut answers);
        Self { child, answers, greeting }
    }

    fn is_open(&self) -> bool {
        self.greeting == OPEN
    }

    fn tell(&mut self) {
        self.child.stdin.as_mut().expect("piped").write_all(b"\n").expect("the child listens");
    }

    fn times(mut self) -> (Duration, Duration) {
        let answer = line(&mut self.answers);
        let mut numbers = answer.split(' ').map(|it| Duration::from_nanos(it.parse().expect("a number")));
        let times = (numbers.next().expect("two"), numbers.next().expect("two"));
        assert!(self.child.wait().expect("it ends").success(), "a child failed");
        times
    }

    fn go(mut self) -> (Duration, Duration) {
        self.tell();
        self.times()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its standard input ends, and with it the child.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line");
    line.trim_end().to_owned()
}

/// What a child does: says whether its store opens, waits for a line, works, and says two times in ns.
pub(crate) fn run(arguments: &[String]) {
    let [work, name, folder] = arguments else { panic!("a child has three arguments") };
    let kind = KINDS.iter().find(|kind| kind.name == name.as_str()).expect("a store of that name");
    let path = Path::new(folder).join(kind.name);
    let keys = std::fs::read(Path::new(folder).join("keys")).expect("keys");
    let keys: Vec<Key> = keys.chunks_exact(32).map(|key| key.try_into().expect("32 bytes")).collect();
    let started = Instant::now();
    let is_alone = work == "first";
    let open = if is_alone { kind.open } else { kind.open_shared };
    let Ok(peer) = open(&path) else { return println!("{REFUSED}") };
    let opening = started.elapsed();
    let (one, two) = match is_alone {
        true => {
            let started = Instant::now();
            hit(&*peer, &keys[0], kind);
            let time = started.elapsed();
            println!("{OPEN}");
            wait();
            (opening, time)
        }
        false => {
            // Once round, so that each has its memory and its file's pages.
            keys.iter().for_each(|key| checked(&*peer, key));
            println!("{OPEN}");
            wait();
            let (started, spent) = (Instant::now(), thread_time());
            keys.iter().for_each(|key| hit(&*peer, key, kind));
            (started.elapsed(), thread_time() - spent)
        }
    };
    checked(&*peer, &keys[0]);
    println!("{} {}", one.as_nanos(), two.as_nanos());
}

fn wait() {
    std::io::stdin().read_line(&mut String::new()).expect("a line");
}

/// A hit whose value is checked once, by the store or by us.
pub(crate) fn hit(peer: &dyn Peer, key: &Key, kind: &Kind) {
    let found = match kind.verifies {
        true => peer.get(key, &mut |value| {
            black_box(value);
        }),
        false => peer.get(key, &mut |value| assert_eq!(key_of(value), *key, "other bytes")),
    };
    assert!(found, "{} has lost a value", kind.name);
}

/// Looks up a value, which must be right, whoever else has checked it.
pub(crate) fn checked(peer: &dyn Peer, key: &Key) {
    assert!(peer.get(key, &mut |value| assert_eq!(key_of(value), *key, "other bytes")), "a value is lost");
}
