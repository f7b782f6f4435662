//! What every memory manager promises, as checks for those who write one of their own: a test calls [`check`] and is done.
//!
//! A check that fails panics and says what was promised. Protections are read from `/proc/self/maps`, and code is run,
//! where there is such a file and where the machine is known; the other checks work everywhere.

#![allow(unsafe_code)] // Looks at target memory, and runs what was put there: both are promised.

use std::collections::BTreeMap;
use std::ops::Range;
use std::thread;

use super::{FinalizedMemory, InFlightMemory, MemoryManager, MemoryRequest, Segment, SegmentRequest};

/// All of the checks below.
pub fn check(manager: &dyn MemoryManager) {
    working_memory_is_as_long_as_asked_and_zero_where_it_says_so(manager);
    targets_are_aligned_near_each_other_and_low_when_asked(manager);
    targets_show_what_was_written_until_they_are_freed(manager);
    live_targets_do_not_overlap(manager);
    what_cannot_be_had_is_an_error_that_changes_nothing(manager);
    nothing_is_writable_and_executable(manager);
    arenas_hold_code_alone(manager);
    code_runs_from_many_threads(manager);
}

fn request(sizes: [usize; 3], align: usize, low_2gib: bool) -> MemoryRequest {
    MemoryRequest { segments: sizes.map(|size| SegmentRequest { size, align }), low_2gib }
}

/// Requests of all sizes that matter: nothing, tiny, odd, pages, megabytes.
fn requests() -> impl Iterator<Item = MemoryRequest> + Clone {
    let sizes = [
        ([0, 0, 0], 1),
        ([1, 0, 0], 1),
        ([0, 1, 0], 16),
        ([0, 0, 1], 16),
        ([63, 64, 65], 64),
        ([4095, 4096, 4097], 32),
        ([100_000, 10, 300_000], 4096),
        ([10, 10, 10], 2 << 20),
        ([10, 10, 40 << 20], 65536),
    ];
    let of = move |low| sizes.into_iter().map(move |(sizes, align)| request(sizes, align, low));
    of(false).chain(of(true))
}

#[track_caller]
fn allocate(manager: &dyn MemoryManager, request: &MemoryRequest) -> Box<dyn InFlightMemory> {
    manager.allocate(request).unwrap_or_else(|error| panic!("{request:?} is not to be had: {error}"))
}

#[track_caller]
fn finalize(memory: Box<dyn InFlightMemory>) -> Box<dyn FinalizedMemory> {
    memory.finalize().unwrap_or_else(|error| panic!("memory cannot be finalized: {error}"))
}

#[track_caller]
fn fill(memory: &mut dyn InFlightMemory, byte: u8) {
    let working = memory.working().unwrap_or_else(|error| panic!("memory cannot be written: {error}"));
    working.into_iter().for_each(|working| working.bytes.fill(byte));
}

fn targets(memory: &dyn InFlightMemory, request: &MemoryRequest) -> [Range<u64>; 3] {
    Segment::ALL.map(|segment| {
        let start = memory.target(segment);
        start..start + request.segments[segment.index()].size as u64
    })
}

/// Whether all bytes are the same. By the page: a debug build compares single bytes slowly.
fn is_all(bytes: &[u8], byte: u8) -> bool {
    let page = [byte; 4096];
    bytes.chunks(page.len()).all(|chunk| chunk == &page[..chunk.len()])
}

/// Working memory has the length that was asked for. Where it says that it is zero, it is, also when others used it before;
/// asked for again it is as it was left; and memory that is not finalized is simply abandoned.
pub fn working_memory_is_as_long_as_asked_and_zero_where_it_says_so(manager: &dyn MemoryManager) {
    for request in requests() {
        for _ in 0..3 {
            let mut memory = allocate(manager, &request);
            for (working, wanted) in
                memory.working().expect("it can be written").into_iter().zip(request.segments)
            {
                assert_eq!(working.bytes.len(), wanted.size, "the length of working memory, {request:?}");
                let is_zero = is_all(working.bytes, 0);
                assert!(!working.zeroed || is_zero, "working memory says that it is zero, {request:?}");
                working.bytes.fill(0xee);
            }
            for working in memory.working().expect("it can be written") {
                assert!(is_all(working.bytes, 0xee), "working memory is as it was left, {request:?}");
            }
        }
    }
}

/// Segments are aligned, in reach of each other, and in the lowest 2 GiB if that is asked for. Unless sections are
/// [placed](MemoryManager::placement) one by one.
pub fn targets_are_aligned_near_each_other_and_low_when_asked(manager: &dyn MemoryManager) {
    for request in requests() {
        let memory = allocate(manager, &request);
        let targets = targets(&*memory, &request);
        for (target, wanted) in targets.iter().zip(request.segments) {
            assert_eq!(target.start % wanted.align as u64, 0, "the alignment of a target, {request:?}");
            assert!(!request.low_2gib || target.end <= 1 << 31, "low targets, {request:?}");
        }
        let first = targets.iter().map(|target| target.start).min().unwrap_or(0);
        let last = targets.iter().map(|target| target.end).max().unwrap_or(0);
        assert!(last - first < 1 << 31, "targets are in reach of each other, {request:?}");
    }
}

/// Memory that executes here shows at its target what was written, as long as it lives, whatever comes and goes meanwhile.
/// Other memory shows it if it keeps [linked bytes](FinalizedMemory::linked_bytes).
pub fn targets_show_what_was_written_until_they_are_freed(manager: &dyn MemoryManager) {
    struct Live {
        memory: Box<dyn FinalizedMemory>,
        targets: [Range<u64>; 3],
        mark: u8,
    }
    let mut live: Vec<Live> = Vec::new();
    for (number, request) in requests().cycle().take(60).enumerate() {
        let mut memory = allocate(manager, &request);
        let mark = number as u8 + 1;
        fill(&mut *memory, mark);
        let targets = targets(&*memory, &request);
        live.push(Live { memory: finalize(memory), targets, mark });
        if number % 3 == 2 {
            live.swap_remove(number % live.len());
        }
        for Live { memory, targets, mark } in &live {
            for (segment, target) in Segment::ALL.into_iter().zip(targets) {
                let len = (target.end - target.start) as usize;
                let bytes = match manager.executes_here() {
                    // SAFETY: the manager promises that live memory is readable and does not change.
                    true => Some(unsafe { at(target.start, len.min(5000)) }),
                    false => memory.linked_bytes(segment),
                };
                assert!(bytes.is_none_or(|bytes| is_all(bytes, *mark)), "{segment:?} shows what was written");
            }
        }
    }
}

/// # Safety
/// The bytes must be mapped, readable, and not change while the slice is used.
unsafe fn at<'a>(address: u64, len: usize) -> &'a [u8] {
    // SAFETY: as the caller vouches; an empty segment may have any address but zero.
    if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(address as *const u8, len) } }
}

/// No two images have a byte in common, if they execute here.
pub fn live_targets_do_not_overlap(manager: &dyn MemoryManager) {
    if !manager.executes_here() {
        return;
    }
    let mut ranges: BTreeMap<u64, u64> = BTreeMap::new();
    let mut live = Vec::new();
    for number in 0..200usize {
        let sizes = [number * 7919 % 9001, number * 104_729 % 9001, number * 1_299_709 % 9001];
        let request = request(sizes, [1, 64, 4096][number % 3], number % 2 == 0);
        let memory = allocate(manager, &request);
        for target in targets(&*memory, &request).into_iter().filter(|target| !target.is_empty()) {
            let before = ranges.range(..target.end).next_back();
            assert!(before.is_none_or(|(_, end)| *end <= target.start), "targets do not overlap");
            ranges.insert(target.start, target.end);
        }
        live.push(finalize(memory));
    }
}

/// More than there is cannot be had, and the manager is as it was: what is had otherwise is had afterwards.
pub fn what_cannot_be_had_is_an_error_that_changes_nothing(manager: &dyn MemoryManager) {
    // Half of a 32-bit address space is out of the reach of displacements; less may well be had.
    let sizes = [usize::MAX, usize::MAX / 2, usize::MAX / 16, usize::MAX >> 17];
    let sizes = if usize::BITS == 64 { &sizes[..] } else { &sizes[..2] };
    for low in [false, true] {
        for size in sizes.iter().copied() {
            for segment in 0..3 {
                let mut sizes = [10; 3];
                sizes[segment] = size;
                // Memory that is not of this process may be larger.
                let refused = manager.allocate(&request(sizes, 4096, low)).is_err();
                assert!(refused || !manager.executes_here(), "{size} bytes were given");
            }
        }
        drop(finalize(allocate(manager, &request([10; 3], 16, low))));
    }
}

/// Code, constants and variables have the protections of their kind, and no mapping of the process is writable and executable
/// at any step.
pub fn nothing_is_writable_and_executable(manager: &dyn MemoryManager) {
    if !manager.executes_here() {
        return;
    }
    for request in requests().filter(|request| request.segments[0].size > 0) {
        let mut memory = allocate(manager, &request);
        no_mapping_is_both();
        fill(&mut *memory, 0);
        no_mapping_is_both();
        let targets = targets(&*memory, &request);
        let finalized = finalize(memory);
        no_mapping_is_both();
        for (target, expected) in targets.iter().zip(["r-x", "r--", "rw-"]) {
            for place in [target.start, target.end.saturating_sub(1)] {
                let found = if target.is_empty() { None } else { protection(place) };
                assert!(
                    found.as_ref().is_none_or(|found| found.starts_with(expected)),
                    "{place:#x} is {found:?}"
                );
            }
        }
        drop(finalized);
        no_mapping_is_both();
    }
}

fn mappings() -> String {
    std::fs::read_to_string("/proc/self/maps").unwrap_or_default()
}

/// That of the mapping at an address, where this system says.
fn protection(address: u64) -> Option<String> {
    mappings().lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap_or(0));
        (start..end).contains(&address).then(|| rest.get(..4).unwrap_or_default().to_owned())
    })
}

/// No mapping of this process is writable and executable, as far as this system says.
#[track_caller]
pub fn no_mapping_is_both() {
    let mappings = mappings();
    let is_both = |line: &&str| line.split(' ').nth(1).is_some_and(|flags| flags.contains("wx"));
    assert_eq!(mappings.lines().find(is_both), None, "a mapping that is writable and executable");
}

/// An arena is around the code of its images, not of others' or of anything else of theirs.
pub fn arenas_hold_code_alone(manager: &dyn MemoryManager) {
    let mut live = Vec::new();
    for request in requests().cycle().take(60) {
        let memory = allocate(manager, &request);
        let targets = targets(&*memory, &request);
        live.push((finalize(memory), targets));
    }
    let arenas: Vec<_> = live.iter().map(|(memory, _)| memory.arena()).collect();
    for (arena, (_, [code, ..])) in arenas.iter().zip(&live) {
        let Some(arena) = arena else { continue };
        assert!(arena.start <= code.start && code.end < arena.end, "{arena:x?} is around {code:x?}");
        for (other, (_, [code, read_only, data])) in arenas.iter().zip(&live) {
            let same = other.as_ref() == Some(arena);
            let is_outside = |range: &Range<u64>| {
                range.is_empty() || range.end <= arena.start || arena.end - 1 <= range.start
            };
            assert!(same || is_outside(code), "{arena:x?} is one manager's alone");
            assert!(is_outside(read_only) && is_outside(data), "{arena:x?} holds nothing but code");
        }
    }
}

/// What a function returns is what was written, in every thread, however often memory is used again.
pub fn code_runs_from_many_threads(manager: &dyn MemoryManager) {
    if !manager.executes_here() || function_returning(0).is_none() {
        return;
    }
    thread::scope(|scope| {
        for thread in 0..4u16 {
            scope.spawn(move || {
                let mut live = Vec::new();
                for round in 0..300u16 {
                    let number = thread * 1000 + round;
                    let code = function_returning(number).unwrap_or_default();
                    let request = request([code.len(), 8, 8], 16, round % 8 == 0);
                    let mut memory = allocate(manager, &request);
                    let [text, ..] = memory.working().expect("it can be written");
                    text.bytes.copy_from_slice(&code);
                    let target = memory.target(Segment::Code);
                    live.push((finalize(memory), target, number));
                    if live.len() > 20 {
                        live.swap_remove(usize::from(round) % 20);
                    }
                    for (_, target, number) in &live {
                        // SAFETY: a function of that type was written there, the manager promises that it is there and
                        // can be run, and the memory is alive.
                        let function =
                            unsafe { std::mem::transmute::<usize, extern "C" fn() -> u32>(*target as usize) };
                        assert_eq!(function(), u32::from(*number), "what a function returns");
                    }
                }
            });
        }
    });
}

/// The code of `uint32_t f(void) { return number; }` for this machine, if it is known here.
fn function_returning(number: u16) -> Option<Vec<u8>> {
    let [low, high] = number.to_le_bytes();
    if cfg!(target_arch = "x86_64") {
        // mov $number, %eax; ret
        Some(vec![0xb8, low, high, 0, 0, 0xc3])
    } else if cfg!(target_arch = "aarch64") {
        // movz w0, #number; ret
        let move_it = 0x5280_0000u32 | u32::from(number) << 5;
        Some([move_it.to_le_bytes(), 0xd65f_03c0u32.to_le_bytes()].concat())
    } else {
        None
    }
}
