//! What unwinding in the host costs when ten thousand objects with unwind tables are loaded.
//!
//! The host is this program, at a low address as programs are: libgcc before version 13 looks through all registrations
//! above the address in question first. What it throws is a Rust panic that calls no hook, which is an exception to the unwinder as
//! any other.

use std::ffi::CString;
use std::panic;

use super::in_new_process;
use crate::foreign;
use crate::measure::{median, timed};
use crate::peers::{Code, Peer};
use crate::workloads::{find_renamed, numbered};

const OBJECTS: usize = 10_000;

/// Nanoseconds of a throw and its catch.
pub struct Throw {
    /// Before anything was loaded.
    pub before: f64,
    pub after: f64,
}

pub fn of_peer(peer: &dyn Peer) -> Option<Throw> {
    match in_new_process("throw", peer.name())?[..] {
        [before, after] => Some(Throw { before, after }),
        _ => None,
    }
}

/// The objects throw and catch themselves, so all peers register their tables.
pub fn measure(peer: &dyn Peer, mut code: Code) -> Option<Throw> {
    foreign::for_all(c"libstdc++.so.6")?;
    let before = throws();
    let at = find_renamed(&code);
    let mut last = None;
    for number in 0..OBJECTS {
        let name = numbered(number);
        code.object[at..at + name.len()].copy_from_slice(name.as_bytes());
        last = Some(peer.load(&code, &CString::new(name).expect("no NUL"))?);
    }
    let throws_inside = foreign::call_entry(last?.address, 1);
    assert_eq!(throws_inside, 42, "exceptions are caught in what {} loaded", peer.name());
    Some(Throw { before, after: throws() })
}

fn throws() -> f64 {
    const TOGETHER: usize = 20;
    const ROUNDS: usize = 31;
    let once = || panic::catch_unwind(|| panic::resume_unwind(Box::new(42))).is_err();
    let some = || assert!((0..TOGETHER).all(|_| once()), "it is caught");
    // The first sorts what was registered since the last.
    some();
    let mut times: Vec<f64> = (0..ROUNDS).map(|_| timed(some).1 / TOGETHER as f64).collect();
    median(&mut times).expect("there are rounds")
}
