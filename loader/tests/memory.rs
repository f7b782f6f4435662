//! What every memory manager promises, one test function a promise, run over all managers.

mod support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use objcache_loader::{
    FinalizedMemory, FixedMemory, InFlightMemory, InstructionCache, Loader, MemoryError, MemoryManager,
    MemoryRequest, NoSymbols, PageMemory, Segment, SegmentRequest, SlabMemory, WorkingMemory,
};
use support::elf::{self, Object, tiny};
use support::*;

fn managers() -> Vec<(&'static str, Arc<dyn MemoryManager>)> {
    vec![
        ("PageMemory", Arc::new(PageMemory::new())),
        ("SlabMemory", Arc::new(SlabMemory::new())),
        ("FixedMemory", Arc::new(FixedMemory::at(0x1000))),
        ("forwarded", Arc::new(Box::new(Arc::new(SlabMemory::new())))),
    ]
}

fn request(sizes: [usize; 3], align: usize, low_2gib: bool) -> MemoryRequest {
    MemoryRequest { segments: sizes.map(|size| SegmentRequest { size, align }), low_2gib }
}

/// Requests of all sizes that matter: nothing, tiny, odd, pages, larger than what shares a slab.
fn requests() -> Vec<MemoryRequest> {
    let mut requests = vec![
        request([0, 0, 0], 1, false),
        request([1, 0, 0], 1, false),
        request([0, 1, 0], 16, false),
        request([0, 0, 1], 16, false),
        request([63, 64, 65], 64, false),
        request([4095, 4096, 4097], 32, false),
        request([100_000, 10, 300_000], 4096, false),
        request([10, 10, 10], 2 << 20, false),
        request([10, 10, 40 << 20], 65536, false),
    ];
    let low: Vec<_> = requests.iter().map(|request| MemoryRequest { low_2gib: true, ..*request }).collect();
    requests.extend(low);
    requests
}

/// Bytes of this process at an address.
///
/// # Safety
/// They must be mapped, readable, and not change while the slice is used.
unsafe fn at<'a>(address: u64, len: usize) -> &'a [u8] {
    // SAFETY: as the caller vouches.
    unsafe { std::slice::from_raw_parts(address as *const u8, len) }
}

/// Whether all bytes are the same. By the page: a debug build compares single bytes slowly.
fn is_all(bytes: &[u8], byte: u8) -> bool {
    let page = [byte; 4096];
    bytes.chunks(page.len()).all(|chunk| chunk == &page[..chunk.len()])
}

fn targets(memory: &dyn InFlightMemory, request: &MemoryRequest) -> [Range<u64>; 3] {
    Segment::ALL.map(|segment| {
        let start = memory.target(segment);
        start..start + request.segments[segment.index()].size as u64
    })
}

#[test]
fn working_memory_is_as_long_as_asked_and_zero_where_it_says_so() {
    for (name, manager) in managers() {
        for request in requests() {
            for round in 0..3 {
                let mut memory = manager.allocate(&request).unwrap_or_else(|error| panic!("{name}: {error}"));
                for (working, wanted) in memory.working().unwrap().into_iter().zip(request.segments) {
                    assert_eq!(working.bytes.len(), wanted.size, "{name}");
                    let is_zero = is_all(working.bytes, 0);
                    assert!(!working.zeroed || is_zero, "{name} {request:?} round {round}");
                    working.bytes.fill(0xee);
                }
            }
        }
    }
}

#[test]
fn targets_are_aligned_near_each_other_and_low_when_asked() {
    for (name, manager) in managers() {
        for request in requests() {
            let memory = manager.allocate(&request).unwrap();
            let targets = targets(&*memory, &request);
            for (target, wanted) in targets.iter().zip(request.segments) {
                assert_eq!(target.start % wanted.align as u64, 0, "{name} {request:?}");
                assert!(!request.low_2gib || target.end <= 1 << 31, "{name} {request:?}");
            }
            let first = targets.iter().map(|target| target.start).min().unwrap();
            let last = targets.iter().map(|target| target.end).max().unwrap();
            assert!(last - first < 1 << 31, "{name} {request:?}");
        }
    }
}

#[test]
fn the_target_shows_what_was_written_until_it_is_freed() {
    for (name, manager) in managers() {
        let mut live = Vec::new();
        for (number, request) in requests().iter().cycle().take(60).enumerate() {
            let mut memory = manager.allocate(request).unwrap();
            let mark = number as u8 + 1;
            memory.working().unwrap().into_iter().for_each(|working| working.bytes.fill(mark));
            let targets = targets(&*memory, request);
            live.push((memory.finalize().unwrap(), targets, mark));
            if number % 3 == 2 {
                live.swap_remove(number % live.len());
            }
            for (finalized, targets, mark) in &live {
                for (segment, target) in Segment::ALL.into_iter().zip(targets) {
                    let len = (target.end - target.start) as usize;
                    let bytes = match manager.executes_here() {
                        // SAFETY: the manager promises as much for memory that is alive.
                        true => unsafe { at(target.start, len.min(5000)) },
                        false => finalized.linked_bytes(segment).unwrap(),
                    };
                    assert!(is_all(bytes, *mark), "{name}");
                }
            }
        }
    }
}

#[test]
fn live_targets_do_not_overlap() {
    for (name, manager) in managers().into_iter().filter(|(_, manager)| manager.executes_here()) {
        let mut random = Random(7);
        let mut ranges: BTreeMap<u64, u64> = BTreeMap::new();
        let mut live = Vec::new();
        for _ in 0..200 {
            let size = |random: &mut Random| random.below(9000) as usize;
            let sizes = [size(&mut random), size(&mut random), size(&mut random)];
            let request = request(sizes, random.one_of(&[1, 64, 4096]), random.below(2) == 0);
            let memory = manager.allocate(&request).unwrap();
            for target in targets(&*memory, &request).into_iter().filter(|target| !target.is_empty()) {
                let before = ranges.range(..target.end).next_back();
                assert!(before.is_none_or(|(_, end)| *end <= target.start), "{name}");
                ranges.insert(target.start, target.end);
            }
            live.push(memory.finalize().unwrap());
        }
    }
}

#[test]
fn what_cannot_be_had_is_an_error_that_changes_nothing() {
    for (name, manager) in managers().into_iter().filter(|(_, manager)| manager.executes_here()) {
        for low in [false, true] {
            for size in [usize::MAX, usize::MAX / 2, 1 << 60, 1 << 46] {
                for segment in 0..3 {
                    let mut sizes = [10; 3];
                    sizes[segment] = size;
                    let error = manager.allocate(&request(sizes, 4096, low)).err();
                    let error = error.unwrap_or_else(|| panic!("{name} gave {size} bytes"));
                    assert!(error.to_string().starts_with("memory: "), "{error}");
                }
            }
            assert!(manager.allocate(&request([10; 3], 16, low)).unwrap().finalize().is_ok());
        }
    }
}

fn assert_nothing_is_writable_and_executable() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let both = maps.lines().find(|line| line.split(' ').nth(1).is_some_and(|flags| flags.contains("wx")));
    assert_eq!(both, None);
}

#[test]
fn segments_have_their_permissions_and_never_both() {
    for (name, manager) in managers().into_iter().filter(|(_, manager)| manager.executes_here()) {
        for request in requests().into_iter().filter(|request| request.segments[0].size > 0) {
            let mut memory = manager.allocate(&request).unwrap();
            assert_nothing_is_writable_and_executable();
            memory.working().unwrap().into_iter().for_each(|working| working.bytes.fill(0));
            assert_nothing_is_writable_and_executable();
            let targets = targets(&*memory, &request);
            let finalized = memory.finalize().unwrap();
            assert_nothing_is_writable_and_executable();
            for (target, expected) in targets.iter().zip(["r-x", "r--", "rw-"]) {
                if !target.is_empty() {
                    assert_eq!(permissions(target.start)[..3], *expected, "{name}");
                    assert_eq!(permissions(target.end - 1)[..3], *expected, "{name}");
                }
            }
            drop(finalized);
            assert_nothing_is_writable_and_executable();
        }
    }
}

#[test]
fn a_guard_page_follows_an_image_of_pages() {
    let request = request([10, 10, 10], 16, false);
    let memory = PageMemory::new().allocate(&request).unwrap();
    let data = memory.target(Segment::Data);
    let _finalized = memory.finalize().unwrap();
    assert_eq!(permissions(data + 4096)[..3], *"---");
}

/// A cache that counts, and notes whether what it is told of can be run yet.
#[derive(Debug, Default)]
struct CountingCache {
    told: parking_lot::Mutex<Vec<(Vec<u8>, String)>>,
    fails: bool,
}

impl InstructionCache for CountingCache {
    fn synchronize(&self, code: &[u8]) -> Result<(), MemoryError> {
        let address = code.as_ptr() as u64;
        self.told.lock().push((code.to_vec(), permissions(address)[..3].to_owned()));
        if self.fails { Err(MemoryError::new("telling the cache", "it does not listen")) } else { Ok(()) }
    }
}

#[test]
fn the_instruction_cache_is_told_of_all_code_before_it_can_run() {
    for low_2gib in [false, true] {
        let cache = Arc::new(CountingCache::default());
        let memory = PageMemory::with_cache(cache.clone());
        let mut memory = memory.allocate(&request([5000, 10, 10], 16, low_2gib)).unwrap();
        let [code, ..] = memory.working().unwrap();
        code.bytes.fill(0xcc);
        assert!(cache.told.lock().is_empty());
        let code = memory.target(Segment::Code);
        let _finalized = memory.finalize().unwrap();
        let told = cache.told.lock();
        assert!(matches!(&**told, [(bytes, permissions)] if *bytes == [0xcc; 5000] && permissions == "rw-"));
        assert_eq!(permissions(code)[..3], *"r-x");
    }
}

#[test]
fn code_that_the_cores_cannot_be_told_of_is_not_loaded() {
    let cache = CountingCache { fails: true, ..CountingCache::default() };
    let loader = Loader::builder().memory(Arc::new(PageMemory::with_cache(Arc::new(cache)))).build();
    let error = loader.load(&tiny(1), &NoSymbols).unwrap_err();
    assert_eq!(error.to_string(), "memory: telling the cache: it does not listen");
}

fn executing() -> impl Iterator<Item = (&'static str, Arc<dyn MemoryManager>)> {
    managers().into_iter().filter(|(_, manager)| manager.executes_here())
}

#[test]
fn many_threads_load_call_and_drop() {
    for (_, manager) in executing() {
        let loader = Loader::builder().memory(manager).build();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let loader = loader.clone();
                scope.spawn(move || {
                    let mut kept = Vec::new();
                    for round in 0..400 {
                        let number = thread * 1000 + round;
                        let image = loader.load(&tiny(number), &NoSymbols).unwrap();
                        assert_eq!(call_int(&image, "number", &[]), number);
                        kept.push((image, number));
                        if kept.len() > 20 {
                            let (image, number) = kept.swap_remove(round as usize % 20);
                            assert_eq!(call_int(&image, "number", &[]), number);
                        }
                    }
                });
            }
        });
    }
}

#[test]
fn images_move_between_threads() {
    let loader = Loader::new();
    let image = Arc::new(loader.load(&tiny(99), &NoSymbols).unwrap());
    let there = Arc::clone(&image);
    let called = std::thread::spawn(move || call_int(&there, "number", &[])).join().unwrap();
    assert_eq!((called, call_int(&image, "number", &[])), (99, 99));
}

/// Fails at a chosen step, and counts what is alive.
struct Faulty {
    inner: SlabMemory,
    fail_at: usize,
    steps: Arc<AtomicUsize>,
    live: Arc<AtomicUsize>,
}

struct FaultyMemory<M: ?Sized> {
    fail_at: usize,
    steps: Arc<AtomicUsize>,
    live: Arc<AtomicUsize>,
    inner: Option<Box<M>>,
}

fn step(steps: &AtomicUsize, fail_at: usize) -> Result<(), MemoryError> {
    match steps.fetch_add(1, Ordering::SeqCst) {
        step if step == fail_at => Err(MemoryError::new("a step", "injected")),
        _ => Ok(()),
    }
}

impl<M: ?Sized> Drop for FaultyMemory<M> {
    fn drop(&mut self) {
        if self.inner.is_some() {
            self.live.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

// SAFETY: the memory is that of `SlabMemory`.
unsafe impl MemoryManager for Faulty {
    fn allocate(&self, request: &MemoryRequest) -> Result<Box<dyn InFlightMemory>, MemoryError> {
        step(&self.steps, self.fail_at)?;
        let inner = Some(self.inner.allocate(request)?);
        self.live.fetch_add(1, Ordering::SeqCst);
        let (steps, live) = (Arc::clone(&self.steps), Arc::clone(&self.live));
        Ok(Box::new(FaultyMemory { fail_at: self.fail_at, steps, live, inner }))
    }
}

impl InFlightMemory for FaultyMemory<dyn InFlightMemory> {
    fn target(&self, segment: Segment) -> u64 {
        self.inner.as_ref().unwrap().target(segment)
    }
    fn working(&mut self) -> Result<[WorkingMemory<'_>; 3], MemoryError> {
        step(&self.steps, self.fail_at)?;
        self.inner.as_mut().unwrap().working()
    }
    fn finalize(mut self: Box<Self>) -> Result<Box<dyn FinalizedMemory>, MemoryError> {
        step(&self.steps, self.fail_at)?;
        let inner = Some(self.inner.take().unwrap().finalize()?);
        let (steps, live) = (Arc::clone(&self.steps), Arc::clone(&self.live));
        Ok(Box::new(FaultyMemory { fail_at: self.fail_at, steps, live, inner }))
    }
}

impl FinalizedMemory for FaultyMemory<dyn FinalizedMemory> {}

#[test]
fn a_failing_manager_fails_the_load_and_nothing_else() {
    const STEPS: usize = 3;
    for fail_at in 0..STEPS {
        let (steps, live) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let memory =
            Faulty { inner: SlabMemory::new(), fail_at, steps: Arc::clone(&steps), live: Arc::clone(&live) };
        let loader = Loader::builder().memory(Arc::new(memory)).build();
        let error = loader.load(&tiny(1), &NoSymbols).unwrap_err();
        assert_eq!(error.to_string(), "memory: a step: injected");
        assert_eq!(live.load(Ordering::SeqCst), 0, "step {fail_at} leaks");
        let image = loader.load(&tiny(2), &NoSymbols).unwrap();
        assert_eq!(call_int(&image, "number", &[]), 2);
    }
}

#[test]
fn an_object_that_fails_late_leaves_no_memory_behind() {
    let live = Arc::new(AtomicUsize::new(0));
    let memory = Faulty {
        inner: SlabMemory::new(),
        fail_at: usize::MAX,
        steps: Arc::default(),
        live: Arc::clone(&live),
    };
    let loader = Loader::builder().memory(Arc::new(memory)).build();
    let mut object = Object::default();
    let far = object.symbol("far", elf::GLOBAL, elf::ABS, 1 << 60);
    object.section(".data", elf::WRITE, &[0; 8]).relocate(0, 2, far, 0);
    let error = loader.load(&object.build(), &NoSymbols).unwrap_err().to_string();
    assert!(error.starts_with(".data+0x0: cannot relocate R_X86_64_PC32 against `far`: 0xf"), "{error}");
    assert_eq!(live.load(Ordering::SeqCst), 0);
}

/// Address space only: nothing of it is touched.
#[test]
fn an_image_with_far_more_variables_than_code_is_in_reach_of_itself() {
    let sizes = [4096, 100, 900 << 20];
    for (name, manager) in managers() {
        if name == "FixedMemory" {
            continue; // it holds its bytes on the heap
        }
        let memory = manager.allocate(&request(sizes, 64, false)).unwrap();
        let ends = Segment::ALL.map(|segment| {
            let start = memory.target(segment);
            [start, start + sizes[segment.index()] as u64]
        });
        let ends = ends.as_flattened();
        let span = ends.iter().max().unwrap() - ends.iter().min().unwrap();
        assert!(span < 1 << 31, "{name}: {span:#x}");
    }
}
