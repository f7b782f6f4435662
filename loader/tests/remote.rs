//! Code that is loaded here and runs in another process: a real one, the program `objcache-executor`.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod support;

use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use objcache_loader::{
    AbsoluteSymbols, Executor, InputObject, LoadError, Loader, MemoryManager, MemoryRequest, NoSymbols,
    RemoteError, RemoteMemory, Segment, SegmentRequest, chain, conformance,
};
use support::elf::tiny;
use support::*;

fn executor() -> Executor {
    Executor::start(&mut Command::new(env!("CARGO_BIN_EXE_objcache-executor"))).unwrap()
}

fn loader(executor: &Executor) -> Loader {
    Loader::builder().memory(Arc::new(RemoteMemory::new(executor.clone()))).build()
}

/// Calls a function of our own fixtures, or of libc by its prototype.
fn call(executor: &Executor, address: u64, arguments: &[u64]) -> Result<u64, RemoteError> {
    // SAFETY: the tests name functions of integers and addresses, of the executor's.
    unsafe { executor.call(address, arguments) }
}

/// The number of the process, which is asked of it.
fn process(executor: &Executor) -> u32 {
    let getpid = executor.address("getpid").unwrap().unwrap();
    call(executor, getpid, &[]).unwrap() as u32
}

fn mappings(process: u32) -> Vec<String> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    maps.lines().map(str::to_owned).collect()
}

const KERNEL: &str = "
    #include <stdlib.h>
    #include <string.h>
    #include <unistd.h>
    static int counter = 40;
    static const char *const words[] = { \"zero\", \"one\", \"seventeen\" };
    int next(void) { return ++counter; }
    int word_length(int n) { return (int)strlen(words[n]); }
    int process(void) { return (int)getpid(); }
    long six(long a, long b, long c, long d, long e, long f) { return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f; }
    int crashes(void) { __builtin_trap(); }
    int ends(int n) { _exit(n); }
    void waits(void) { for (;;) pause(); }";

#[test]
fn functions_run_in_the_other_process() {
    if !has(GCC) {
        return;
    }
    let executor = executor();
    let loader = loader(&executor);
    for flags in
        [&["-O2", "-fPIC"][..], &["-O0", "-fPIE", "-fno-plt"], &["-O1", "-fno-pic", "-mcmodel=large"]]
    {
        let object = compile_text(GCC, flags, "c", KERNEL);
        let image = loader.load(&object, &executor).unwrap();
        let call = |name: &str, arguments: &[u64]| {
            call(&executor, image.address(name).unwrap(), arguments).unwrap() as i32
        };
        assert_eq!([call("next", &[]), call("next", &[])], [41, 42]);
        assert_eq!(call("word_length", &[2]), 9);
        assert_eq!(call("process", &[]) as u32, process(&executor));
        assert_ne!(process(&executor), std::process::id());
        assert_eq!(call("six", &[1, 2, 3, 4, 5, 6]), 91);
        // SAFETY: never called: it is not in this process.
        assert!(unsafe { image.get::<extern "C" fn() -> i32>("next") }.is_err());
    }
}

#[test]
fn images_of_several_objects_refer_to_each_other_and_to_earlier_ones() {
    let executor = executor();
    let loader = loader(&executor);
    let flags = ["-O1", "-fPIC"];
    let first = compile_text(GCC, &flags, "c", "int number = 5; int first(void) { return number; }");
    let objects = [
        "int first(void); extern int number; int second(void) { number++; return first() + 100; }",
        "int second(void); int third(int n) { return second() * n; }",
    ]
    .map(|text| compile_text(GCC, &flags, "c", text));
    let first = loader.load(&first, &NoSymbols).unwrap();
    let known = AbsoluteSymbols::new()
        .with("first", first.address("first").unwrap())
        .with("number", first.address("number").unwrap());
    let objects = objects.each_ref().map(|bytes| InputObject { name: "an object", bytes });
    let (others, _) = loader.load_all(&objects, &chain(known, executor.clone())).unwrap();
    assert_eq!(call(&executor, others.address("third").unwrap(), &[2]).unwrap(), 212);
    assert_eq!(call(&executor, first.address("first").unwrap(), &[]).unwrap(), 6);
}

#[test]
fn memory_there_is_protected_and_given_back() {
    alone("memory_there_is_protected_and_given_back", || {
        let executor = executor();
        let loader = loader(&executor);
        let object = compile_text(GCC, &["-O1", "-fPIC"], "c", KERNEL);
        let process = process(&executor);
        let before = mappings(process);
        let image = loader.load(&object, &executor).unwrap();
        let during = mappings(process);
        let new: Vec<_> = during.iter().filter(|line| line.contains("objcache-image")).collect();
        let permissions: Vec<_> = new.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
        assert_eq!(permissions, ["r-xp", "r--p", "rw-p"], "{new:?}");
        // Once sealed, no bytes of this process are the code.
        assert!(!mappings(std::process::id()).iter().any(|line| line.contains("objcache-image")));
        drop(image);
        assert_eq!(mappings(process), before);

        for number in 0..500 {
            let image = loader.load(&tiny(number), &NoSymbols).unwrap();
            assert_eq!(call(&executor, image.address("number").unwrap(), &[]).unwrap(), number as u64);
        }
        assert_eq!(mappings(process), before);
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
        assert!(files < 10, "{files}");
    });
}

#[test]
fn targets_are_aligned_near_each_other_and_low_when_asked() {
    let executor = executor();
    let memory = RemoteMemory::new(executor.clone());
    for align in [1, 64, 4096, 2 << 20] {
        for low_2gib in [false, true] {
            let segments = [100, 0, 5000].map(|size| SegmentRequest { size, align });
            let mut memory = memory.allocate(&MemoryRequest { segments, low_2gib }).unwrap();
            let working = memory.working().unwrap().map(|working| working.bytes.len());
            assert_eq!(working, [100, 0, 5000]);
            let targets = Segment::ALL.map(|segment| memory.target(segment));
            assert!(targets.iter().all(|target| target % align as u64 == 0), "{targets:x?} {align}");
            assert!(!low_2gib || targets[2] + 5000 <= 1 << 31);
            memory.finalize().unwrap();
        }
    }
    conformance::check(&memory);
    let segments = [SegmentRequest { size: usize::MAX, align: 1 }; 3];
    assert!(memory.allocate(&MemoryRequest { segments, low_2gib: false }).is_err());
    assert!(loader(&executor).load(&tiny(1), &NoSymbols).is_ok());
}

#[test]
fn a_process_that_dies_is_an_error_now_and_later() {
    let object = compile_text(GCC, &["-O1", "-fPIC"], "c", KERNEL);
    for (name, arguments, status) in [("crashes", &[][..], "signal: 4"), ("ends", &[3], "exit status: 3")] {
        let executor = executor();
        let loader = loader(&executor);
        let image = loader.load(&object, &executor).unwrap();
        let error = call(&executor, image.address(name).unwrap(), arguments).unwrap_err();
        assert!(matches!(&error, RemoteError::Gone(why) if why.contains(status)), "{error}");
        let again = call(&executor, image.address("next").unwrap(), &[]).unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
        assert!(executor.address("getpid").is_err());
        let error = loader.load(&object, &NoSymbols).unwrap_err();
        assert!(matches!(&error, LoadError::Memory(error) if error.why.contains("gone")), "{error}");
        drop(image);
    }
}

#[test]
fn a_process_that_does_not_answer_is_given_up() {
    let object = compile_text(GCC, &["-O1", "-fPIC"], "c", KERNEL);
    let executor = executor();
    let image = loader(&executor).load(&object, &executor).unwrap();
    let process = process(&executor);
    executor.set_timeout(Some(Duration::from_millis(300))).unwrap();
    let started = Instant::now();
    let error = call(&executor, image.address("waits").unwrap(), &[]).unwrap_err();
    assert!(matches!(&error, RemoteError::Gone(why) if why.contains("in time")), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(!std::path::Path::new(&format!("/proc/{process}")).exists());
    drop(image);
}

#[test]
fn an_executor_that_talks_nonsense_is_an_error() {
    let replies: [&[u8]; 5] = [
        b"",
        &[255, 255, 255, 255],
        // An answer of four bytes, one to another question, and an address that is none.
        &[5, 0, 0, 0, 0, 1, 2, 3, 4],
        &[1, 0, 0, 0, 9],
        &[9, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255],
    ];
    for reply in replies {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut &theirs, reply).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        let error = loader(&Executor::connected(ours)).load(&tiny(1), &NoSymbols).unwrap_err();
        assert!(matches!(error, LoadError::Memory(_)), "{error}");
    }
}

#[test]
fn several_threads_load_and_call() {
    let executor = executor();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let executor = &executor;
            scope.spawn(move || {
                let loader = loader(executor);
                for number in thread * 100..thread * 100 + 50 {
                    let image = loader.load(&tiny(number), &NoSymbols).unwrap();
                    let address = image.address("number").unwrap();
                    assert_eq!(call(executor, address, &[]).unwrap(), number as u64);
                }
            });
        }
    });
}

#[test]
fn more_arguments_than_registers_are_refused() {
    let executor = executor();
    let abs = executor.address("labs").unwrap().unwrap();
    assert_eq!(call(&executor, abs, &[-5i64 as u64]).unwrap(), 5);
    assert!(matches!(call(&executor, abs, &[0; 7]), Err(RemoteError::Refused(_))));
    assert_eq!(executor.address("no such symbol").unwrap(), None);
}

#[test]
fn thread_local_variables_are_refused() {
    let executor = executor();
    let object = compile_text(GCC, &["-O1", "-fPIC"], "c", "__thread int n; int next(void) { return ++n; }");
    let error = loader(&executor).load(&object, &executor).unwrap_err();
    assert!(error.to_string().contains("thread-local variable"), "{error}");
}

#[test]
fn a_child_that_drops_its_copy_leaves_the_executor_alone() {
    let executor = executor();
    let image = loader(&executor).load(&tiny(7), &NoSymbols).unwrap();
    let number = process(&executor);
    let child = fork(|| {
        let refused = executor.address("getpid").is_err();
        drop(image);
        drop(executor.clone());
        refused
    });
    assert!(child.succeeded());
    assert_eq!(process(&executor), number);
}
