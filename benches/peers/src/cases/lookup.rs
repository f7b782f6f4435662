//! A further symbol of an object that is loaded.

use std::ffi::CString;

use crate::measure::{median, timed, turns};
use crate::peers::{Code, Peer};

/// Nanoseconds per lookup among the `functions` functions of a program.
pub fn compare(peers: &[&dyn Peer], code: &Code, functions: usize) -> Vec<Option<f64>> {
    const ROUNDS: usize = 41;
    let peers: Vec<_> = peers.iter().map(|peer| (peer, load(*peer, code))).collect();
    // Names far from each other, none twice in a row.
    let names: Vec<CString> =
        (0..1000).map(|n| CString::new(format!("f{}", n * 7919 % functions)).expect("no NUL")).collect();
    let mut times = vec![Vec::new(); peers.len()];
    for round in 0..=ROUNDS {
        for number in turns(round, peers.len()) {
            let (peer, Some(loaded)) = &peers[number] else { continue };
            let all = || names.iter().filter(|name| peer.lookup(loaded, name).is_some()).count();
            // The first time brings back what the one before drove out of the caches.
            assert_eq!(all(), names.len(), "{} knows all functions", peer.name());
            let (_, time) = timed(all);
            if round != 0 {
                times[number].push(time / names.len() as f64);
            }
        }
    }
    for (peer, loaded) in peers {
        loaded.into_iter().for_each(|loaded| peer.unload(loaded));
    }
    times.iter_mut().map(|times| median(times)).collect()
}

fn load(peer: &dyn Peer, code: &Code) -> Option<crate::peers::Loaded> {
    if !peer.has_lookup() {
        return None;
    }
    peer.prepare(1);
    peer.load(code, c"entry")
}
