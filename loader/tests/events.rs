//! What listeners are promised: what they are told, when, on which thread, and that trouble of theirs costs no load.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use objcache_loader::{
    AbsoluteSymbols, EventListener, FinalizedMemory, GdbListener, ImageId, InFlightMemory, InputObject,
    JitDump, LoadedObject, Loader, MemoryError, MemoryManager, MemoryRequest, NoSymbols, PageMemory, PerfMap,
    ProcessSymbols, Segment, UnwindInfo, UnwindRegistrar, UnwindRegistration, WorkingMemory,
};
use parking_lot::Mutex;
use support::*;

/// What happened, in order.
type Log = Arc<Mutex<Vec<String>>>;

struct Logging {
    log: Log,
    name: &'static str,
}

impl EventListener for Logging {
    fn notify_loaded(&self, loaded: &LoadedObject<'_>) {
        let Self { log, name } = self;
        log.lock().push(format!("{name}: loaded {}", loaded.name()));
    }

    fn notify_freeing(&self, _image: ImageId) {
        let Self { log, name } = self;
        log.lock().push(format!("{name}: freeing"));
    }
}

/// Pages that say when they are complete and when they go.
struct LoggingMemory(Log);

struct LoggingPages {
    log: Log,
    pages: Option<Box<dyn InFlightMemory>>,
}

struct LoggingImage {
    log: Log,
    _pages: Box<dyn FinalizedMemory>,
}

// SAFETY: all is done by `PageMemory`.
unsafe impl MemoryManager for LoggingMemory {
    fn allocate(&self, request: &MemoryRequest) -> Result<Box<dyn InFlightMemory>, MemoryError> {
        let pages = PageMemory::new().allocate(request)?;
        Ok(Box::new(LoggingPages { log: Arc::clone(&self.0), pages: Some(pages) }))
    }
}

impl InFlightMemory for LoggingPages {
    fn target(&self, segment: Segment) -> u64 {
        self.pages.as_ref().unwrap().target(segment)
    }

    fn working(&mut self) -> Result<[WorkingMemory<'_>; 3], MemoryError> {
        self.pages.as_mut().unwrap().working()
    }

    fn finalize(mut self: Box<Self>) -> Result<Box<dyn FinalizedMemory>, MemoryError> {
        let pages = self.pages.take().unwrap().finalize()?;
        self.log.lock().push("memory: complete".to_owned());
        Ok(Box::new(LoggingImage { log: Arc::clone(&self.log), _pages: pages }))
    }
}

impl FinalizedMemory for LoggingImage {}

impl Drop for LoggingImage {
    fn drop(&mut self) {
        self.log.lock().push("memory: freed".to_owned());
    }
}

/// Says when tables are registered; refuses if it is told to.
struct LoggingUnwinder {
    log: Log,
    refuses: bool,
}

struct Registered(Log);

impl UnwindRegistrar for LoggingUnwinder {
    unsafe fn register(&self, _info: &UnwindInfo) -> Result<Option<Box<dyn UnwindRegistration>>, String> {
        if self.refuses {
            return Err("not today".to_owned());
        }
        self.log.lock().push("unwind: registered".to_owned());
        Ok(Some(Box::new(Registered(Arc::clone(&self.log)))))
    }
}

impl UnwindRegistration for Registered {}

impl Drop for Registered {
    fn drop(&mut self) {
        self.0.lock().push("unwind: deregistered".to_owned());
    }
}

fn logging_loader(log: &Log, refuses: bool) -> Loader {
    let listener = |name| Arc::new(Logging { log: Arc::clone(log), name }) as Arc<dyn EventListener>;
    Loader::builder()
        .memory(Arc::new(LoggingMemory(Arc::clone(log))))
        .unwind(Arc::new(LoggingUnwinder { log: Arc::clone(log), refuses }))
        .listener(listener("first"))
        .listener(listener("second"))
        .build()
}

const SIMPLE: &str = "int add(int a, int b) { return a + b; }";

#[test]
fn listeners_are_told_between_memory_and_unwinder() {
    if !has(GCC) {
        return;
    }
    let log = Log::default();
    let loader = logging_loader(&log, false);
    let one = compile_text(GCC, &["-O1", "-fPIC"], "c", SIMPLE);
    let other =
        compile_text(GCC, &["-O1", "-fPIC"], "c", "int add(int, int); int five(void) { return add(2, 3); }");
    let inputs = [InputObject { name: "one.o", bytes: &one }, InputObject { name: "other.o", bytes: &other }];
    let (image, _) = loader.load_all(&inputs, &NoSymbols).unwrap();
    let loaded = [
        "memory: complete",
        "unwind: registered",
        "first: loaded one.o",
        "second: loaded one.o",
        "first: loaded other.o",
        "second: loaded other.o",
    ];
    assert_eq!(*log.lock(), loaded);
    assert_eq!(call_int(&image, "five", &[]), 5);
    drop(image);
    let gone = ["second: freeing", "first: freeing", "unwind: deregistered", "memory: freed"];
    assert_eq!(log.lock()[loaded.len()..], gone);
}

#[test]
fn finalisers_run_before_listeners_are_told_that_an_image_goes() {
    extern "C" fn say_finalized(log: *const Mutex<Vec<String>>) {
        // SAFETY: the log outlives the image.
        unsafe { &*log }.lock().push("finaliser".to_owned());
    }
    if !has(GCC) {
        return;
    }
    let log = Log::default();
    let host = AbsoluteSymbols::new()
        .with("say_finalized", say_finalized as *const () as u64)
        .with("the_log", Arc::as_ptr(&log) as u64);
    let source = "void say_finalized(void *); extern char the_log[]; \
                  __attribute__((destructor)) static void gone(void) { say_finalized(the_log); }";
    let object = compile_text(GCC, &["-O1", "-fPIC"], "c", source);
    let image = logging_loader(&log, false).load(&object, &host).unwrap();
    initialize(&image);
    let before = log.lock().len();
    drop(image);
    let expected =
        ["finaliser", "second: freeing", "first: freeing", "unwind: deregistered", "memory: freed"];
    assert_eq!(log.lock()[before..], expected);
}

#[test]
fn nobody_is_told_of_loads_that_fail() {
    if !has(GCC) {
        return;
    }
    let object =
        compile_text(GCC, &["-O1", "-fPIC"], "c", "int away(void); int here(void) { return away(); }");
    let log = Log::default();
    logging_loader(&log, false).load(&object, &NoSymbols).unwrap_err();
    logging_loader(&log, false).load(&object[..object.len() / 2], &ProcessSymbols).unwrap_err();
    assert!(log.lock().is_empty(), "{:?}", log.lock());
    // The last thing that can fail.
    let fine = compile_text(GCC, &["-O1", "-fPIC"], "c", SIMPLE);
    logging_loader(&log, true).load(&fine, &NoSymbols).unwrap_err();
    assert_eq!(*log.lock(), ["memory: complete", "memory: freed"]);
}

/// Checks that it may look at the image until it is told that it goes.
#[derive(Default)]
struct Looking {
    alive: Mutex<std::collections::BTreeMap<ImageId, (u64, u8)>>,
    loads: std::sync::atomic::AtomicUsize,
}

fn byte_at(address: u64) -> u8 {
    // SAFETY: asked for addresses of live images.
    unsafe { (address as *const u8).read() }
}

impl EventListener for Looking {
    fn notify_loaded(&self, loaded: &LoadedObject<'_>) {
        let function =
            loaded.functions().unwrap().into_iter().find(|function| function.name == "add").unwrap();
        let before = self.alive.lock().insert(loaded.image(), (function.address, byte_at(function.address)));
        assert!(before.is_none(), "numbers of images are unique");
        self.loads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn notify_freeing(&self, image: ImageId) {
        let (address, byte) = self.alive.lock().remove(&image).expect("an image goes once, after it came");
        assert_eq!(byte_at(address), byte);
    }
}

#[test]
fn many_threads_load_and_drop() {
    if !has(GCC) {
        return;
    }
    let object = compile_text(GCC, &["-O1", "-g", "-fPIC"], "c", SIMPLE);
    let looking = Arc::new(Looking::default());
    let loader =
        Loader::builder().listener(Arc::clone(&looking) as _).listener(Arc::new(GdbListener::new())).build();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut kept = std::collections::VecDeque::new();
                for number in 0..100 {
                    let image = loader.load(&object, &NoSymbols).unwrap();
                    assert_eq!(call_int(&image, "add", &[number, 1]), number + 1);
                    kept.push_back(image);
                    if kept.len() > 5 {
                        kept.pop_front();
                    }
                }
            });
        }
    });
    assert_eq!(looking.loads.load(std::sync::atomic::Ordering::Relaxed), 400);
    assert!(looking.alive.lock().is_empty());
}

/// Hands out what a loaded object knows of its functions.
#[derive(Default)]
struct Functions(Mutex<Vec<(String, u64, u64)>>);

impl EventListener for Functions {
    fn notify_loaded(&self, loaded: &LoadedObject<'_>) {
        let functions = loaded.functions().unwrap().into_iter();
        self.0.lock().extend(functions.map(|it| (it.name.into_owned(), it.address, it.size)));
    }

    fn notify_freeing(&self, _image: ImageId) {}
}

#[test]
fn functions_without_a_size_reach_to_the_next_or_the_end() {
    if !has(GCC) {
        return;
    }
    let source = ".text\n.globl first\nfirst: nop\nnop\n.globl second\n.weak alias\nalias:\nsecond: nop\n.Llocal: nop\nret\n\
                  .globl third\n.type third,@function\nthird: ret\n.size third, 1\n.data\n.globl datum\ndatum: .long 1\n";
    let object = compile_text(GCC, &[], "s", source);
    let functions = Arc::new(Functions::default());
    let image =
        Loader::builder().listener(Arc::clone(&functions) as _).build().load(&object, &NoSymbols).unwrap();
    let start = image.address("first").unwrap();
    let found = functions
        .0
        .lock()
        .iter()
        .map(|(name, at, size)| (name.clone(), at - start, *size))
        .collect::<Vec<_>>();
    let expected = [("first", 0, 2), ("second", 2, 3), ("third", 5, 1)];
    assert_eq!(found, expected.map(|(name, at, size)| (name.to_owned(), at, size)));
}

#[test]
fn debug_information_that_cannot_be_used_costs_nothing_else() {
    if !has(GCC) {
        return;
    }
    let compressed = compile_text(GCC, &["-O1", "-g", "-gz=zlib", "-fPIC"], "c", SIMPLE);
    // A plain load does not look at it.
    Loader::new().load(&compressed, &NoSymbols).unwrap();
    let gdb = Arc::new(GdbListener::new());
    let directory = scratch("compressed");
    std::fs::create_dir_all(&directory).unwrap();
    let jitdump = Arc::new(JitDump::in_directory(&directory));
    let loader =
        Loader::builder().listener(Arc::clone(&gdb) as _).listener(Arc::clone(&jitdump) as _).build();
    let image = loader.load(&compressed, &NoSymbols).unwrap();
    assert_eq!(call_int(&image, "add", &[1, 2]), 3);
    let problem = gdb.take_problem().unwrap().to_string();
    assert!(problem.contains("compressed debug information"), "{problem}");
    let problem = jitdump.take_problem().unwrap().to_string();
    assert!(problem.contains("compressed debug information"), "{problem}");
    assert!(std::fs::metadata(jitdump.path()).unwrap().len() > 100, "the function is there all the same");
}

/// The records of a jitdump, parsed by the specification: kind and content.
fn records(dump: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let word = |at: usize| u32::from_ne_bytes(dump[at..at + 4].try_into().unwrap());
    let long = |at: usize| u64::from_ne_bytes(dump[at..at + 8].try_into().unwrap());
    assert_eq!([word(0), word(4), word(8), word(12)], [0x4a69_5444, 1, 40, 62]);
    assert_eq!(word(20), std::process::id());
    let (mut at, mut time, mut records) = (40, long(24), Vec::new());
    while at < dump.len() {
        let size = word(at + 4) as usize;
        assert!(long(at + 8) >= time, "records are in order of time");
        time = long(at + 8);
        records.push((word(at), dump[at + 16..at + size].to_vec()));
        at += size;
    }
    records
}

#[test]
fn jitdumps_keep_to_the_specification() {
    if !has(GCC) {
        return;
    }
    let directory = scratch("dump");
    std::fs::create_dir_all(&directory).unwrap();
    let path = {
        let jitdump = Arc::new(JitDump::in_directory(&directory));
        // What an earlier process of this number left.
        std::fs::write(jitdump.path(), "stale").unwrap();
        let source =
            "int add(int a, int b) {\n    return a + b;\n}\nint sub(int a, int b) {\n    return a - b;\n}\n";
        let object = compile_text(GCC, &["-O1", "-g", "-fPIC"], "c", source);
        let loader = Loader::builder().listener(Arc::clone(&jitdump) as _).build();
        let image = loader.load(&object, &NoSymbols).unwrap();
        assert!(jitdump.take_problem().is_none());
        let metadata = std::fs::metadata(jitdump.path()).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let name = jitdump.path().file_name().unwrap().to_str().unwrap().to_owned();
        let marker = maps.lines().find(|line| line.ends_with(&name)).unwrap();
        assert!(marker.contains(" r-x"), "{marker}");
        check_records(&std::fs::read(jitdump.path()).unwrap(), &image);
        jitdump.path()
    };
    let dump = std::fs::read(path).unwrap();
    let (last, content) = records(&dump).pop().unwrap();
    assert_eq!((last, content.len()), (3, 0), "JIT_CODE_CLOSE");
}

fn check_records(dump: &[u8], image: &objcache_loader::LoadedImage) {
    let long = |bytes: &[u8], at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
    let records = records(dump);
    let kinds: Vec<u32> = records.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [2, 0, 2, 0], "lines before code, for each function");
    for (index, (name, line)) in [("add", 2), ("sub", 5)].into_iter().enumerate() {
        let (lines, code) = (&records[2 * index].1, &records[2 * index + 1].1);
        let address = image.address(name).unwrap();
        assert_eq!([long(lines, 0), long(code, 8), long(code, 16)], [address; 3]);
        let size = long(code, 24) as usize;
        assert_eq!(long(code, 32), index as u64);
        let rest = &code[40..];
        assert_eq!(&rest[..name.len() + 1], format!("{name}\0").as_bytes());
        let bytes: Vec<u8> = (0..size as u64).map(|offset| byte_at(address + offset)).collect();
        assert_eq!(rest[name.len() + 1..], bytes);
        assert!(long(lines, 8) >= 1);
        let found = lines[16..].windows(4).any(|word| word == u32::to_ne_bytes(line));
        assert!(found, "line {line} of {name}");
    }
}

#[test]
fn profiles_are_not_written_through_links() {
    if !has(GCC) {
        return;
    }
    let object = compile_text(GCC, &["-O1", "-fPIC"], "c", SIMPLE);
    let directory = scratch("links");
    std::fs::create_dir_all(&directory).unwrap();
    let victim = directory.join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let jitdump = Arc::new(JitDump::in_directory(&directory));
    let map = Arc::new(PerfMap::new());
    let refused = |place: &Path, listener: Arc<dyn EventListener>| {
        let _ = std::fs::remove_file(place);
        std::os::unix::fs::symlink(&victim, place).unwrap();
        let image = Loader::builder().listener(listener).build().load(&object, &NoSymbols).unwrap();
        assert_eq!(call_int(&image, "add", &[1, 2]), 3);
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        std::fs::remove_file(place).unwrap();
    };
    refused(&jitdump.path(), Arc::clone(&jitdump) as _);
    assert!(jitdump.take_problem().is_some());
    refused(&PerfMap::path(), Arc::clone(&map) as _);
    assert!(map.take_problem().is_some());
    // Nor through a second name of a file.
    std::fs::hard_link(&victim, jitdump.path()).unwrap();
    let other = Arc::new(JitDump::in_directory(&directory));
    Loader::builder().listener(Arc::clone(&other) as _).build().load(&object, &NoSymbols).unwrap();
    assert!(other.take_problem().is_some());
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    // A directory that is not there.
    let nowhere = Arc::new(JitDump::in_directory(directory.join("nowhere")));
    Loader::builder().listener(Arc::clone(&nowhere) as _).build().load(&object, &NoSymbols).unwrap();
    assert!(nowhere.take_problem().is_some());
}
