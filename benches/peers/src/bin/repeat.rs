//! Loads one object again and again with our loader, for profilers: `repeat OBJECT [TIMES [MEGABYTES]]`. In between it writes
//! so many megabytes, as a program with other work does, so that nothing is in the caches.
//!
//! `perf record -e cpu-clock target/release/repeat target/workloads/program420.o 5000`

#![deny(unsafe_code)]

use objcache_loader::{Loader, ProcessSymbols};
use objcache_peers::measure::{median, show, timed};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let object = arguments.next().expect("repeat OBJECT [TIMES [MEGABYTES]]");
    let object = std::fs::read(object).expect("an object");
    let mut number = |otherwise| arguments.next().map_or(otherwise, |text| text.parse().expect("a number"));
    let (times, megabytes): (usize, usize) = (number(1000), number(0));
    let mut other_work = vec![1u8; megabytes << 20];
    let loader = Loader::new();
    // Reading the clock takes as long as loading a small object.
    let together = if object.len() < 10_000 { 50 } else { 1 };
    let (mut loads, mut unloads) = (Vec::with_capacity(times), Vec::with_capacity(times));
    for _ in 0..times.div_ceil(together) {
        other_work.iter_mut().step_by(64).for_each(|byte| *byte = byte.wrapping_add(1));
        std::hint::black_box(object.iter().step_by(64).fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
        let mut images = Vec::with_capacity(together);
        let load = || images.push(loader.load(&object, &ProcessSymbols).expect("it loads"));
        let ((), load) = timed(|| std::iter::repeat_with(load).take(together).for_each(drop));
        let ((), unload) = timed(|| drop(images));
        loads.push(load / together as f64);
        unloads.push(unload / together as f64);
    }
    let first = loads.first().copied().unwrap_or_default();
    let [load, unload] = [&mut loads, &mut unloads].map(|times| median(times).unwrap_or_default());
    println!("first load {}, median {}, unload {}", show(first), show(load), show(unload));
}
