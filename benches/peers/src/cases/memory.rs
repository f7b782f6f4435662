//! What live objects cost in memory and mappings, and how many there can be.

use std::ffi::CString;
use std::fs;
use std::time::Instant;

use super::in_new_process;
use crate::peers::{Code, Peer};
use crate::workloads::{find_renamed, numbered};

/// Per tiny object, of a thousand that are alive.
pub struct Memory {
    pub resident: f64,
    pub mappings: f64,
}

/// Asks for it in a new process.
pub fn of_peer(peer: &dyn Peer) -> Option<Memory> {
    match in_new_process("memory", peer.name())?[..] {
        [resident, mappings] => Some(Memory { resident, mappings }),
        _ => None,
    }
}

/// Measures it in this one.
pub fn measure(peer: &dyn Peer, codes: &[Code]) -> Option<Memory> {
    let names: Vec<CString> =
        (0..codes.len()).map(|k| CString::new(format!("k{k}")).expect("no NUL")).collect();
    codes.iter().for_each(Code::touch);
    let mut loaded = Vec::with_capacity(codes.len());
    // What the first one takes is for all.
    peer.prepare(1);
    loaded.push(peer.load(&codes[0], &names[0])?);
    let before = (resident(), mappings());
    for (code, name) in codes.iter().zip(&names).skip(1) {
        peer.prepare(1);
        loaded.push(peer.load(code, name)?);
    }
    let each = |before, after| (after - before) / (codes.len() - 1) as f64;
    Some(Memory { resident: each(before.0, resident()), mappings: each(before.1, mappings()) })
}

/// How many objects of one kernel were alive when there was no room for more, or enough; nanoseconds and bytes for each.
pub struct Alive {
    pub count: usize,
    pub time: f64,
    pub resident: f64,
}

pub fn alive_in_peer(peer: &dyn Peer) -> Option<Alive> {
    match in_new_process("alive", peer.name())?[..] {
        [count, time, resident] => Some(Alive { count: count as usize, time, resident }),
        _ => None,
    }
}

pub fn count_alive(peer: &dyn Peer, mut code: Code, most: usize) -> Alive {
    let at = find_renamed(&code);
    let (started, before) = (Instant::now(), resident());
    let mut count = 0;
    while count < most {
        let name = numbered(count);
        code.object[at..at + name.len()].copy_from_slice(name.as_bytes());
        if peer.load(&code, &CString::new(name).expect("no NUL")).is_none() {
            break;
        }
        count += 1;
    }
    let each = count.max(1) as f64;
    Alive { count, time: started.elapsed().as_nanos() as f64 / each, resident: (resident() - before) / each }
}

/// Bytes.
fn resident() -> f64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).expect("its first line");
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kilobytes * 1024.0
}

fn mappings() -> f64 {
    fs::read_to_string("/proc/self/maps").expect("Linux").lines().count() as f64
}

/// A table's cell.
pub fn show(bytes: f64) -> String {
    format!("{:.2} KB", bytes / 1024.0)
}
