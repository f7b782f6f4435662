//! Which entries to keep: the compile time that is spent again, by policy and by room.
//!
//! Three traces: one made up (popularity by Zipf, costs and sizes log-normal), two recorded; `traces/README.md` tells
//! how. A line is a request: for which object, what its compilation took in µs of CPU time, and its size in bytes.
//!
//! The policy was tuned on the first halves of Zipf's and of the releases. So the second halves are told apart: there
//! the first half has filled the cache.

use std::collections::HashMap;

use objcache::cache::{Codec, EntryInfo, GcLimits, choose_victims};
use objcache::signature::Signature;

const RELEASES: &str = include_str!("../traces/releases.txt");
const EDITS: &str = include_str!("../traces/edits.txt");
/// Time between two requests, in µs.
const STEP_US: u64 = 60_000_000;

#[derive(Clone, Copy)]
struct Request {
    object: u32,
    cost_us: u64,
    bytes: u64,
}

pub(crate) fn bench() {
    let traces =
        [("Zipf", zipf()), ("releases, recorded", recorded(RELEASES)), ("edits, recorded", recorded(EDITS))];
    for (name, trace) in traces {
        table(name, &trace);
    }
}

fn recorded(text: &str) -> Vec<Request> {
    let request = |line: &str| {
        let mut fields = line.split(' ').map(|field| field.parse::<u64>().ok());
        let (object, cost_us, bytes) = (fields.next()??, fields.next()??, fields.next()??);
        Some(Request { object: u32::try_from(object).ok()?, cost_us, bytes })
    };
    text.lines().map(|line| request(line).expect("object, cost and size")).collect()
}

fn zipf() -> Vec<Request> {
    const OBJECTS: usize = 1000;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut unit = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    // Sums of twelve are as good as normal.
    let mut log_normal = |median: f64, sigma: f64| {
        let normal: f64 = (0..12).map(|_| unit()).sum::<f64>() - 6.0;
        median * (sigma * normal).exp()
    };
    let objects: Vec<(u64, u64)> = (0..OBJECTS)
        .map(|_| (log_normal(20_000.0, 1.2) as u64 + 1, log_normal(12_000.0, 1.0) as u64 + 1))
        .collect();
    let weights: Vec<f64> = (1..=OBJECTS).map(|rank| (rank as f64).powf(-0.9)).collect();
    let sum: f64 = weights.iter().sum();
    let mut pick = 0x1234_5678_9abc_def1_u64;
    (0..20_000)
        .map(|_| {
            pick ^= pick << 13;
            pick ^= pick >> 7;
            pick ^= pick << 17;
            let mut left = (pick >> 11) as f64 / (1u64 << 53) as f64 * sum;
            let object = weights.iter().position(|weight| {
                left -= weight;
                left <= 0.0
            });
            let object = object.unwrap_or(OBJECTS - 1);
            let (cost_us, bytes) = objects[object];
            Request { object: object as u32, cost_us, bytes }
        })
        .collect()
}

fn table(name: &str, trace: &[Request]) {
    let objects: HashMap<u32, u64> = trace.iter().map(|request| (request.object, request.bytes)).collect();
    let all: u64 = objects.values().map(|bytes| on_disk(*bytes)).sum();
    let policies: [(&str, Policy); 4] =
        [("objcache", Policy::Ours), ("GDSF", Policy::Gdsf), ("LRU", Policy::Lru), ("FIFO", Policy::Fifo)];
    println!("\n{name}: {} requests of {} objects, {all} bytes on disk", trace.len(), objects.len());
    println!("  room      compile time of all, and of the second half; of LRU's");
    for percent in [10, 25, 50] {
        let spent = |policy| replay(trace, policy, all * percent / 100);
        let lru = spent(Policy::Lru);
        let row: Vec<String> = policies
            .iter()
            .map(|(name, policy)| {
                let spent = spent(*policy);
                let of_lrus = |half: fn(&Spent) -> u64| half(&spent) as f64 / half(&lru) as f64;
                let (all, second) = (of_lrus(|spent| spent.all), of_lrus(|spent| spent.second_half));
                format!("{name} {:.1} s, {all:.3}x and {second:.3}x", spent.all as f64 / 1e6)
            })
            .collect();
        println!("  {percent:>3} %     {}", row.join("   "));
    }
}

#[derive(Clone, Copy)]
enum Policy {
    Ours,
    Gdsf,
    Lru,
    Fifo,
}

/// What an entry of so many bytes takes.
fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(4096) + 512
}

struct Kept {
    info: EntryInfo,
    priority: f64,
}

/// Compile time, in µs.
#[derive(Default)]
struct Spent {
    all: u64,
    second_half: u64,
}

/// Compile time spent on a trace by a cache of `room` bytes.
fn replay(trace: &[Request], policy: Policy, room: u64) -> Spent {
    let mut kept: HashMap<u32, Kept> = HashMap::new();
    let mut spent = Spent::default();
    let (mut taken, mut inflation) = (0, 0.0);
    // The store makes room in the background, some at a time; the others use all there is, one victim at a time.
    let (high, low) = match policy {
        Policy::Ours => (room - room / 32, room - room / 16),
        _ => (room, room),
    };
    let half = trace.len() as u64 / 2 * STEP_US;
    for (now, request) in (1u64..).map(|step| step * STEP_US).zip(trace) {
        let worth = |hits: u64| (hits + 1) as f64 * request.cost_us as f64 / on_disk(request.bytes) as f64;
        if let Some(kept) = kept.get_mut(&request.object) {
            kept.info.hits += 1;
            kept.info.last_used_unix_us = now;
            match policy {
                Policy::Lru => kept.priority = now as f64,
                Policy::Gdsf => kept.priority = inflation + worth(kept.info.hits),
                Policy::Ours | Policy::Fifo => {}
            }
            continue;
        }
        spent.all += request.cost_us;
        spent.second_half += if now > half { request.cost_us } else { 0 };
        let info = entry(request, now);
        if info.disk_bytes > low {
            continue;
        }
        let priority = match policy {
            Policy::Gdsf => inflation + worth(0),
            _ => now as f64,
        };
        while taken + info.disk_bytes > high {
            for victim in victims(&kept, policy, low.saturating_sub(info.disk_bytes), now) {
                let gone = kept.remove(&victim).expect("it is kept");
                taken -= gone.info.disk_bytes;
                inflation = gone.priority;
            }
        }
        taken += info.disk_bytes;
        kept.insert(request.object, Kept { info, priority });
    }
    spent
}

fn entry(request: &Request, now: u64) -> EntryInfo {
    let mut signature = [0; 32];
    signature[..4].copy_from_slice(&request.object.to_le_bytes());
    EntryInfo {
        signature: Signature::from_bytes(signature),
        object_bytes: request.bytes,
        stored_bytes: request.bytes,
        codec: Codec::Plain,
        disk_bytes: on_disk(request.bytes),
        created_unix_us: now,
        last_used_unix_us: now,
        hits: 0,
        compile_time_us: request.cost_us,
        namespace: String::new(),
        pinned: false,
    }
}

fn victims(kept: &HashMap<u32, Kept>, policy: Policy, goal: u64, now: u64) -> Vec<u32> {
    if let Policy::Ours = policy {
        let (objects, infos): (Vec<u32>, Vec<EntryInfo>) =
            kept.iter().map(|(object, kept)| (*object, kept.info.clone())).unzip();
        let limits = GcLimits { max_size: Some(goal), ..GcLimits::default() };
        return choose_victims(&infos, &limits, now).into_iter().map(|at| objects[at]).collect();
    }
    let least = kept.iter().min_by(|one, other| one.1.priority.total_cmp(&other.1.priority));
    least.map(|(object, _)| *object).into_iter().collect()
}
