//! What every memory manager promises, one test function a promise, run over all managers.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use objcache_loader::{
    EventListener, FinalizedMemory, FixedMemory, ImageId, InFlightMemory, InputObject, InstructionCache,
    LibgccFrames, LoadedObject, Loader, MemoryError, MemoryManager, MemoryRequest, NoSymbols, PageMemory,
    ProcessSymbols, Segment, SegmentRequest, SharedLibrary, SlabMemory, SymbolResolver, UnwindInfo,
    UnwindRegistrar, UnwindRegistration, WorkingMemory, conformance, from_fn,
};
use support::elf::{self, Object, tiny};
use support::*;

fn managers() -> Vec<(&'static str, Arc<dyn MemoryManager>)> {
    vec![
        ("PageMemory", Arc::new(PageMemory::new())),
        ("SlabMemory", Arc::new(SlabMemory::new())),
        ("FixedMemory", Arc::new(FixedMemory::at(0x1000))),
        ("PageMemory at an address", Arc::new(PageMemory::new().at(0x2000_0000))),
        ("OwnPages", Arc::new(OwnPages)),
        ("forwarded", Arc::new(Box::new(Arc::new(SlabMemory::new())))),
    ]
}

fn request(sizes: [usize; 3], align: usize, low_2gib: bool) -> MemoryRequest {
    MemoryRequest { segments: sizes.map(|size| SegmentRequest { size, align }), low_2gib }
}

/// A manager of somebody's own, made with the public interface alone: one mapping of the system's allocator for each image,
/// written, then protected.
struct OwnPages;

struct OwnMemory {
    /// Address, length and layout.
    start: usize,
    layout: std::alloc::Layout,
    offsets: [usize; 3],
    sizes: [usize; 3],
}

const PAGE: usize = 4096;

// SAFETY: each image has an allocation of its own, which is protected when it is finalized and freed with the image.
unsafe impl MemoryManager for OwnPages {
    fn allocate(&self, request: &MemoryRequest) -> Result<Box<dyn InFlightMemory>, MemoryError> {
        let refused = |why: &str| MemoryError::new("own pages", why);
        if request.low_2gib {
            // What cannot be done is left to another; the rest is done here.
            return PageMemory::new().allocate(request);
        }
        let align = request.segments.iter().map(|segment| segment.align).fold(PAGE, usize::max);
        let (mut offsets, mut end) = ([0; 3], 0usize);
        for (offset, segment) in offsets.iter_mut().zip(request.segments) {
            *offset = end;
            let size = segment.size.checked_next_multiple_of(align).ok_or_else(|| refused("too big"))?;
            end = end.checked_add(size).filter(|end| *end < 1 << 31).ok_or_else(|| refused("too big"))?;
        }
        let layout =
            std::alloc::Layout::from_size_align(end.max(PAGE), align).map_err(|_| refused("too big"))?;
        // SAFETY: the layout is not of size zero.
        let start = unsafe { std::alloc::alloc_zeroed(layout) } as usize;
        if start == 0 {
            return Err(refused("no memory"));
        }
        Ok(Box::new(OwnMemory {
            start,
            layout,
            offsets,
            sizes: request.segments.map(|segment| segment.size),
        }))
    }
}

impl OwnMemory {
    fn protect(&self, from: usize, to: usize, protection: libc::c_int) {
        // SAFETY: whole pages of this image's own allocation.
        assert_eq!(unsafe { libc::mprotect((self.start + from) as *mut _, to - from, protection) }, 0);
    }
}

impl InFlightMemory for OwnMemory {
    fn target(&self, segment: Segment) -> u64 {
        (self.start + self.offsets[segment.index()]) as u64
    }
    fn working(&mut self) -> Result<[WorkingMemory<'_>; 3], MemoryError> {
        // SAFETY: the whole of the allocation, zeroed and borrowed.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start as *mut u8, self.layout.size()) };
        let (code, rest) = bytes.split_at_mut(self.offsets[1]);
        let (read_only, data) = rest.split_at_mut(self.offsets[2] - self.offsets[1]);
        let [a, b, c] = self.sizes;
        Ok([&mut code[..a], &mut read_only[..b], &mut data[..c]]
            .map(|bytes| WorkingMemory { bytes, zeroed: false }))
    }
    fn finalize(self: Box<Self>) -> Result<Box<dyn FinalizedMemory>, MemoryError> {
        self.protect(0, self.offsets[1], libc::PROT_READ | libc::PROT_EXEC);
        self.protect(self.offsets[1], self.offsets[2], libc::PROT_READ);
        Ok(self)
    }
}

impl FinalizedMemory for OwnMemory {}

impl Drop for OwnMemory {
    fn drop(&mut self) {
        self.protect(0, self.layout.size(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: allocated with this layout, writable again.
        unsafe { std::alloc::dealloc(self.start as *mut u8, self.layout) };
    }
}

/// Every promise of the trait, for every manager and for one that a user wrote.
#[test]
fn managers_keep_what_the_trait_promises() {
    for (name, manager) in managers() {
        eprintln!("{name}");
        conformance::check(&*manager);
    }
}

/// The checks are not for nothing: what breaks a promise is noticed.
#[test]
fn a_manager_that_breaks_a_promise_is_noticed() {
    struct Broken(fn(&mut MemoryRequest));
    // SAFETY: what it gives is a slab's, only not what was asked for.
    unsafe impl MemoryManager for Broken {
        fn allocate(&self, request: &MemoryRequest) -> Result<Box<dyn InFlightMemory>, MemoryError> {
            let mut request = *request;
            self.0(&mut request);
            SlabMemory::new().allocate(&request)
        }
    }
    let breaks: [fn(&mut MemoryRequest); 3] = [
        |request| request.low_2gib = false,
        |request| request.segments.iter_mut().for_each(|segment| segment.align = 1),
        |request| request.segments[1].size = request.segments[1].size.min(1 << 20) / 2,
    ];
    for broken in breaks {
        let noticed = std::panic::catch_unwind(|| conformance::check(&Broken(broken)));
        assert!(noticed.is_err());
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
    inner: Arc<dyn MemoryManager>,
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

// SAFETY: the memory is that of the manager inside.
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

/// Counts what is registered and announced, and fails where it is told to; looks at the process's memory meanwhile.
#[derive(Default)]
struct Witness {
    registered: Arc<AtomicUsize>,
    announced: AtomicUsize,
    steps: Arc<AtomicUsize>,
    fail_at: usize,
}

struct Registered {
    registered: Arc<AtomicUsize>,
    _inner: Option<Box<dyn UnwindRegistration>>,
}

impl UnwindRegistration for Registered {}

impl Drop for Registered {
    fn drop(&mut self) {
        conformance::no_mapping_is_both();
        self.registered.fetch_sub(1, Ordering::SeqCst);
    }
}

impl UnwindRegistrar for Witness {
    unsafe fn register(&self, info: &UnwindInfo) -> Result<Option<Box<dyn UnwindRegistration>>, String> {
        conformance::no_mapping_is_both();
        step(&self.steps, self.fail_at).map_err(|error| error.to_string())?;
        // SAFETY: the caller vouches for the same.
        let inner = unsafe { LibgccFrames::new().register(info) }?;
        self.registered.fetch_add(1, Ordering::SeqCst);
        Ok(Some(Box::new(Registered { registered: Arc::clone(&self.registered), _inner: inner })))
    }
}

impl EventListener for Witness {
    fn notify_loaded(&self, _loaded: &LoadedObject<'_>) {
        conformance::no_mapping_is_both();
        self.announced.fetch_add(1, Ordering::SeqCst);
    }
    fn notify_freeing(&self, _image: ImageId) {
        conformance::no_mapping_is_both();
        // Two objects in each image.
        self.announced.fetch_sub(2, Ordering::SeqCst);
    }
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// Allocation, working memory, protection and registration fail one after the other in a load of several objects: all is as
/// before each time, counted.
#[test]
fn a_failure_at_any_step_leaves_everything_as_it_was() {
    alone("a_failure_at_any_step_leaves_everything_as_it_was", || {
        if !has(GXX) {
            return;
        }
        let flags = ["-O1", "-fPIC"];
        let objects = [
            "int thrown; extern \"C\" int throws(int n) { if (n > 0) throw ++thrown; return 0; }",
            "extern \"C\" int throws(int); extern \"C\" int catches(int n) {
                try { return throws(n); } catch (int caught) { return caught; } }",
        ]
        .map(|text| compile_text(GXX, &flags, "cpp", text));
        let objects = objects.each_ref().map(|bytes| InputObject { name: "an object", bytes });
        // SAFETY: the library's initialisers only set up its own streams and locales.
        let libstdcxx = unsafe { SharedLibrary::open(c"libstdc++.so.6") }.unwrap();
        let resolver = from_fn(|name| {
            conformance::no_mapping_is_both();
            libstdcxx.resolve(name).or_else(|| ProcessSymbols.resolve(name))
        });
        for (name, memory) in [
            ("slabs", Arc::new(SlabMemory::new()) as Arc<dyn MemoryManager>),
            ("pages", Arc::new(PageMemory::new())),
        ] {
            // An image that is there already, and stays.
            let (before, _) =
                Loader::builder().memory(memory.clone()).build().load_all(&objects, &resolver).unwrap();
            let mut failures = 0;
            loop {
                let (steps, live): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
                let fail_at = failures;
                let faulty =
                    Faulty { inner: memory.clone(), fail_at, steps: steps.clone(), live: live.clone() };
                let witness = Arc::new(Witness { steps: steps.clone(), fail_at, ..Witness::default() });
                let loader = Loader::builder()
                    .memory(Arc::new(faulty))
                    .unwind(witness.clone())
                    .listener(witness.clone())
                    .build();
                let counted = || {
                    let [registered, live] =
                        [&witness.registered, &live].map(|count| count.load(Ordering::SeqCst));
                    (registered, live, witness.announced.load(Ordering::SeqCst), mappings())
                };
                let mapped = mappings();
                let loaded = loader.load_all(&objects, &resolver);
                let failed = loaded.is_err();
                if let Ok((image, _)) = loaded {
                    assert_eq!([1, 1].map(|n| call_int(&image, "catches", &[n])), [1, 2]);
                    assert_eq!(counted().0, 1);
                }
                assert_eq!(counted(), (0, 0, 0, mapped), "{name}: step {failures}");
                if !failed {
                    break;
                }
                // The same loader can be used again, and what was there is as it was.
                let (again, map) = loader.load_all(&objects, &resolver).unwrap();
                assert!(map.files.len() == 2 && again.address("throws").is_some());
                assert_eq!(call_int(&again, "catches", &[1]), 1);
                drop(again);
                assert_eq!(counted(), (0, 0, 0, mapped), "{name}: after step {failures}");
                assert_eq!(call_int(&before, "catches", &[1]), failures as i32 + 1);
                failures += 1;
            }
            assert_eq!(failures, 4, "{name}: allocate, write, finalize, register");
        }
    });
}

#[test]
fn an_object_that_fails_late_leaves_no_memory_behind() {
    let live = Arc::new(AtomicUsize::new(0));
    let memory = Faulty {
        inner: Arc::new(SlabMemory::new()),
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

#[test]
fn images_are_where_the_caller_wants_them_and_replace_nothing() {
    const BASE: usize = 0x6000_0000;
    let manager = PageMemory::new().at(BASE);
    let loader = Loader::builder().memory(Arc::new(manager.clone())).build();
    let images: Vec<_> = (0..5).map(|number| loader.load(&tiny(number), &NoSymbols).unwrap()).collect();
    let places: Vec<u64> = images.iter().map(|image| image.address("number").unwrap() & !0xfff).collect();
    assert_eq!(places[0], BASE as u64);
    assert!(places.is_sorted() && places[4] <= BASE as u64 + 0x1_0000, "{places:x?}");
    assert!(images.iter().zip(0..).all(|(image, number)| call_int(image, "number", &[]) == number));
    let mut images = images;
    drop(images.remove(1));
    let again = loader.load(&tiny(77), &NoSymbols).unwrap();
    assert_eq!(again.address("number").unwrap() & !0xfff, places[1], "the place is free again");

    // Another manager finds the place taken, and so does an image whose place somebody else has.
    let other = Loader::builder().memory(Arc::new(PageMemory::new().at(BASE))).build();
    let error = other.load(&tiny(1), &NoSymbols).unwrap_err().to_string();
    assert!(error.starts_with("memory: mapping ") && error.contains("from 0x60000000 up"), "{error}");
    assert_eq!(call_int(&images[0], "number", &[]), 0);
    drop((images, again));
    assert!(other.load(&tiny(1), &NoSymbols).is_ok());
    let high = PageMemory::new().at(1 << 40);
    let mut low = request([10; 3], 16, true);
    assert!(high.allocate(&low).is_err());
    low.low_2gib = false;
    assert_eq!(high.allocate(&low).unwrap().target(Segment::Code), 1 << 40);
}

#[test]
fn a_sealed_image_cannot_be_changed_or_unmapped() {
    let loader = Loader::builder().memory(Arc::new(PageMemory::new().sealed())).build();
    let image = match loader.load(&tiny(6), &NoSymbols) {
        Ok(image) => image,
        Err(error) if error.to_string().contains("sealing") => {
            return skip(&format!("this kernel has no mseal: {error}"));
        }
        Err(error) => panic!("{error}"),
    };
    let address = image.address("number").unwrap();
    let page = (address & !0xfff) as *mut libc::c_void;
    for sealed in [true, false] {
        let open = Loader::builder().memory(Arc::new(PageMemory::new())).build();
        let open = open.load(&tiny(6), &NoSymbols).unwrap();
        let page = if sealed { page } else { (open.address("number").unwrap() & !0xfff) as *mut _ };
        // SAFETY: of an image of ours; made executable again at once where it succeeds.
        let changed = unsafe { libc::mprotect(page, 4096, libc::PROT_READ) };
        // SAFETY: as above.
        unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) };
        assert_eq!(changed == 0, !sealed);
    }
    // SAFETY: it is refused.
    assert_ne!(unsafe { libc::munmap(page, 4096) }, 0);
    assert_eq!(call_int(&image, "number", &[]), 6);
    drop(image);
    // SAFETY: the code is still there: that is what sealing means.
    let function = unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(address as usize) };
    assert_eq!(function(), 6);
}

#[test]
fn memory_can_be_taken_over_and_freed_or_kept_by_the_client() {
    let log = Arc::new(Witness { fail_at: usize::MAX, ..Witness::default() });
    let live = Arc::new(AtomicUsize::new(0));
    for inner in [Arc::new(SlabMemory::new()) as Arc<dyn MemoryManager>, Arc::new(PageMemory::new())] {
        let steps = Arc::default();
        let faulty = Faulty { inner, fail_at: usize::MAX, steps, live: Arc::clone(&live) };
        let loader = Loader::builder().memory(Arc::new(faulty)).listener(log.clone()).build();
        let object = tiny(8);
        let objects =
            [InputObject { name: "one", bytes: &object }, InputObject { name: "none", bytes: &object }];
        let load = || loader.load(&object, &NoSymbols).unwrap();
        assert!(loader.load_all(&objects, &NoSymbols).is_err(), "twice the same symbol");

        let image = load();
        let address = image.address("number").unwrap();
        let range = image.segment_range(Segment::Code);
        assert!(
            range.contains(&address) && range.end - range.start == image.segment_size(Segment::Code) as u64
        );
        let memory = image.into_memory();
        assert_eq!(memory.segment_range(Segment::Code), range);
        // SAFETY: the code is there as long as `memory` is.
        let function = unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(address as usize) };
        assert_eq!((function(), live.load(Ordering::SeqCst)), (8, 1));
        // The witness counts two objects in each image that goes.
        assert_eq!(log.announced.fetch_add(1, Ordering::SeqCst), 1);
        drop(memory);
        assert_eq!((log.announced.load(Ordering::SeqCst), live.load(Ordering::SeqCst)), (0, 0));

        let image = load();
        let address = image.address("number").unwrap();
        let [code, ..] = image.into_memory().leak();
        assert!(code.contains(&address));
        drop(loader.clone());
        // SAFETY: the code is there for ever.
        let function = unsafe { std::mem::transmute::<usize, extern "C" fn() -> i32>(address as usize) };
        assert_eq!((function(), live.swap(0, Ordering::SeqCst)), (8, 1));
        log.announced.store(0, Ordering::SeqCst);
    }
}

/// The room at fixed distances from the thread pointer is little, and what an image got of it is gone for ever.
#[test]
fn a_load_that_fails_late_uses_up_no_room_of_threads() {
    alone("a_load_that_fails_late_uses_up_no_room_of_threads", || {
        if !has(CLANG) {
            return;
        }
        let source = "__thread int here; int *where(void) { return &here; }";
        let object = compile_text(CLANG, &["-O1", "-fPIC", "-ftls-model=initial-exec"], "c", source);
        let place = || {
            let image = Loader::new().load(&object, &ProcessSymbols).unwrap();
            call_int(&image, "where", &[])
        };
        let (first, second) = (place(), place());
        for fail_at in [1, 2] {
            for _ in 0..2000 {
                let inner = Arc::new(SlabMemory::new());
                let memory = Faulty { inner, fail_at, steps: Arc::default(), live: Arc::default() };
                let loader = Loader::builder().memory(Arc::new(memory)).build();
                loader.load(&object, &ProcessSymbols).unwrap_err();
            }
        }
        assert_eq!(place().wrapping_sub(second), second.wrapping_sub(first));
    });
}
