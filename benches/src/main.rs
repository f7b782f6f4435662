//! Figures of objcache, each beside what it is held against, measured in one run.
//!
//! `cargo run --release -p objcache-benches [signature|store|administration|policy|memory|packs|load|throw|whole]…`
//!
//! Contenders of one table take turns (A B C A B C …), so that a noisy neighbour hurts all alike, and the
//! medians of thread CPU time are compared. Ratios hold from machine to machine; absolute times do not.

#![deny(unsafe_code)]

mod administration;
mod c_code;
mod load;
mod measure;
mod memory;
mod native;
mod packs;
mod policy;
mod signature;
mod store;
mod throw;
mod whole;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let benches: [(&str, fn()); 9] = [
        ("signature", signature::bench),
        ("store", store::bench),
        ("administration", administration::bench),
        ("policy", policy::bench),
        ("memory", memory::bench),
        ("packs", packs::bench),
        ("load", load::bench),
        ("throw", throw::bench),
        ("whole", whole::bench),
    ];
    let known = |name: &String| benches.iter().any(|(known, _)| known == name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        eprintln!(
            "there is no bench `{unknown}`: signature, store, administration, policy, memory, packs, load, throw and whole are"
        );
        std::process::exit(2);
    }
    for (name, bench) in benches {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            bench();
        }
    }
}
