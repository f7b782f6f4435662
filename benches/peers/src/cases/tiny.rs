//! A thousand tiny objects in a row, all alive at once.

use std::ffi::CString;

use super::load::Times;
use crate::measure::{median, timed, turns};
use crate::peers::{Code, Peer};

/// So many loads are timed together, since reading the clock takes as long as one; few enough for their objects to stay in
/// the cache from where they were touched.
const TOGETHER: usize = 50;

/// Per object.
pub fn compare(peers: &[&dyn Peer], codes: &[Code], rounds: usize) -> Vec<Option<Times>> {
    let names: Vec<CString> =
        (0..codes.len()).map(|k| CString::new(format!("k{k}")).expect("no NUL")).collect();
    let mut times: Vec<(Vec<f64>, Vec<f64>)> = vec![Default::default(); peers.len()];
    let mut failed = vec![false; peers.len()];
    for round in 0..=rounds {
        for number in turns(round, peers.len()) {
            if failed[number] {
                continue;
            }
            match all_in_a_row(peers[number], codes, &names) {
                // The first round warms up.
                Some(_) if round == 0 => {}
                Some((load, unload)) => {
                    times[number].0.push(load / codes.len() as f64);
                    times[number].1.push(unload / codes.len() as f64);
                }
                None => failed[number] = true,
            }
        }
    }
    let times = times.iter_mut();
    times.map(|(loads, unloads)| Some(Times { load: median(loads)?, unload: median(unloads)? })).collect()
}

fn all_in_a_row(peer: &dyn Peer, codes: &[Code], names: &[CString]) -> Option<(f64, f64)> {
    let (mut loads, mut unloads) = (0.0, 0.0);
    let mut loaded = Vec::with_capacity(codes.len());
    for (codes, names) in codes.chunks(TOGETHER).zip(names.chunks(TOGETHER)) {
        peer.prepare(codes.len());
        codes.iter().for_each(Code::touch);
        let (all, time) = timed(|| {
            codes.iter().zip(names).try_for_each(|(code, name)| {
                loaded.push(peer.load(code, name)?);
                Some(())
            })
        });
        all?;
        loads += time;
    }
    for some in loaded.chunks(TOGETHER) {
        let ((), time) = timed(|| some.iter().for_each(|loaded| peer.unload(*loaded)));
        unloads += time;
    }
    Some((loads, unloads))
}
