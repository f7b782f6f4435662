//! Loads one object again and again with our loader, for profilers: `repeat OBJECT [TIMES [MEGABYTES]]`. In between it writes
//! so many megabytes, as a program with other work does, so that nothing is in the caches.
//!
//! `perf record -e cpu-clock target/release/repeat target/workloads/program420.o 5000`, or
//! `valgrind --tool=callgrind` for the number of instructions, which does not depend on who else uses the machine.

#![deny(unsafe_code)]

use objcache_loader::{Loader, ProcessSymbols};
use objcache_peers::measure::{median, show, timed};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let object = arguments.next().expect("repeat OBJECT [TIMES [MEGABYTES]]");
    let object = std::fs::read(object).expect("an object");
    let times: usize = arguments.next().map_or(1000, |times| times.parse().expect("a number"));
    let megabytes: usize = arguments.next().map_or(0, |megabytes| megabytes.parse().expect("a number"));
    let mut other_work = vec![1u8; megabytes << 20];
    let loader = Loader::new();
    let (mut loads, mut unloads) = (Vec::with_capacity(times), Vec::with_capacity(times));
    for _ in 0..times {
        other_work.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
        std::hint::black_box(object.iter().step_by(64).fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
        let (image, load) = timed(|| loader.load(&object, &ProcessSymbols).expect("it loads"));
        let ((), unload) = timed(|| drop(image));
        loads.push(load);
        unloads.push(unload);
    }
    let first = loads.first().copied().unwrap_or_default();
    let [load, unload] = [&mut loads, &mut unloads].map(|times| median(times).unwrap_or_default());
    println!("first load {}, median {}, unload {}", show(first), show(load), show(unload));
}
