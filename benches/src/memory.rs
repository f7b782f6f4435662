//! What a hit in the memory tier costs, and whether threads are in each other's way there.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use objcache::cache::{CompiledObject, MemoryCache, ObjectCache, Tiered};
use objcache::signature::{Provenance, Signature};

use crate::measure::{Contender, compare, median, show, thread_time};

/// Objects of 12 KB; all fit.
const OBJECTS: usize = 1000;

pub(crate) fn bench() {
    let tier = Tiered::new(MemoryCache::new(1 << 30), 1 << 30);
    let object = vec![7; 12 * 1024];
    let signatures: Vec<Signature> = (0..OBJECTS).map(signature).collect();
    for signature in &signatures {
        let offered = CompiledObject {
            signature: *signature,
            object: &object,
            key_document: &[],
            provenance: &Provenance::default(),
            namespace: "",
            compile_time: Duration::from_millis(20),
            cpu_features: &[],
        };
        tier.notify_object_compiled(&offered).expect("memory takes it");
    }
    let hit = |index: usize| tier.get_object(&signatures[index * 7 % OBJECTS]).expect("memory answers");

    let locked: Mutex<HashMap<Signature, std::sync::Arc<Vec<u8>>>> =
        Mutex::new(signatures.iter().map(|it| (*it, std::sync::Arc::new(object.clone()))).collect());
    let under_lock = |index: usize| {
        let locked = locked.lock().expect("nobody panics");
        locked.get(&signatures[index * 7 % OBJECTS]).cloned()
    };
    compare(
        "hit in the memory tier, 1,000 objects of 12 KB",
        Some(Duration::from_micros(1)),
        1000,
        vec![
            Contender::new("objcache: memory tier", hit),
            Contender::new("a HashMap under a lock", under_lock),
        ],
    );
    println!("\ntwo threads, as a multiple of what one does (CPU time of each)");
    scaling("objcache: memory tier, any of the objects", &|index| drop(black_box(hit(index))));
    scaling("objcache: memory tier, all the same object", &|_| drop(black_box(hit(0))));
    scaling("a HashMap under a lock, any of the objects", &|index| drop(black_box(under_lock(index))));
}

fn signature(index: usize) -> Signature {
    Signature::from_bytes(blake3::hash(&index.to_le_bytes()).into())
}

fn scaling(name: &str, work: &(dyn Fn(usize) + Sync)) {
    const ROUNDS: usize = 21;
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(each_of(1, work));
        together.push(each_of(2, work));
    }
    let (alone, together) = (median(&mut alone), median(&mut together));
    let times = 2.0 * alone.as_secs_f64() / together.as_secs_f64();
    println!("  {name:<52} {:>10}  {:>10}  {times:>8.2}x", show(alone), show(together));
}

/// What one piece of work costs in each of so many threads at once.
fn each_of(threads: usize, work: &(dyn Fn(usize) + Sync)) -> Duration {
    const TIMES: usize = 200_000;
    let begin = Barrier::new(threads);
    let spent: Duration = std::thread::scope(|scope| {
        let run = |thread: usize| {
            begin.wait();
            let started = thread_time();
            // Not in step, as threads never are.
            (0..TIMES).for_each(|index| work(index * (thread * 2 + 1) + thread * 333));
            thread_time() - started
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        running.into_iter().map(|thread| thread.join().expect("it ends")).sum()
    });
    spent / (threads * TIMES) as u32
}
