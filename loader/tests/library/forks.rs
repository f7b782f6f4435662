//! What a child process may do with libraries, while threads of its parent change them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use objcache_loader::{
    AbsoluteSymbols, FunctionErrorKind, Implementation, Library, Loader, NoSymbols, ProcessSymbols, chain,
    pin,
};

use crate::code::{call, returning};
use crate::support::{GCC, GXX, alone, compile_text, fork, has};

/// A child that hangs is ended by a signal.
fn end_if_it_hangs() {
    // SAFETY: takes a number of seconds.
    unsafe { libc::alarm(60) };
}

#[test]
fn a_child_loads_calls_redefines_and_removes_while_its_parent_does() {
    alone("forks::a_child_loads_calls_redefines_and_removes_while_its_parent_does", || {
        let library = Library::new("app");
        library.define_function("f", &library.link("0", &returning("f", 7)).unwrap()).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (library, done) = (&library, &done);
                scope.spawn(move || {
                    let name = format!("g{thread}");
                    while !done.load(Ordering::Relaxed) {
                        let image = library.load(&name, &returning(&name, thread)).unwrap();
                        assert_eq!(call(library, &name), thread);
                        drop(library.remove(&image));
                    }
                });
            }
            for round in 0..60 {
                let child = fork(|| {
                    end_if_it_hangs();
                    let inherited = call(&library, "f") == 7;
                    library.load("own", &returning("own", round)).unwrap();
                    let newer = library.link("newer", &returning("f", 8)).unwrap();
                    // SAFETY: it is of the same type; nobody else is in this process.
                    drop(unsafe { library.redefine("f", &newer) }.unwrap());
                    let guard = pin();
                    let changed = call(&library, "f") == 8 && call(&library, "own") == round;
                    drop(guard);
                    drop(library.undefine("own"));
                    inherited && changed && !library.defines("own")
                });
                assert!(child.succeeded(), "round {round}");
                assert_eq!(call(&library, "f"), 7, "what a child redefines its parent does not see");
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

extern "C" fn seven() -> i32 {
    7
}

extern "C" fn minus_one() -> i32 {
    -1
}

fn at(function: extern "C" fn() -> i32) -> Implementation {
    Implementation::address(function as usize as u64)
}

/// Repeats something in threads of its own while the body runs.
fn meanwhile(threads: usize, repeat: impl Fn(usize) + Sync, body: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (done, repeat) = (&done, &repeat);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    repeat(thread);
                }
            });
        }
        let outcome = catch_unwind(AssertUnwindSafe(body));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// Threads make functions, wait for each other's, and redefine them, whenever a child is born.
#[test]
fn a_child_makes_lazy_functions_while_its_parent_does() {
    alone("forks::a_child_makes_lazy_functions_while_its_parent_does", || {
        let own = Library::new("own");
        let make_in_pairs = |_thread: usize| {
            let library = Library::new("theirs");
            for round in 0..20 {
                let name = format!("f{round}");
                library.define_lazy(&name, |_| Ok(at(seven))).unwrap();
                std::thread::scope(|scope| {
                    scope.spawn(|| assert_eq!(call(&library, &name), 7));
                    assert_eq!(call(&library, &name), 7);
                });
                for single in 0..20 {
                    let name = format!("{name}_{single}");
                    library.define_lazy(&name, |_| Ok(at(seven))).unwrap();
                    assert_eq!(call(&library, &name), 7);
                    drop(library.undefine(&name));
                }
            }
        };
        meanwhile(3, make_in_pairs, || {
            for round in 0..600 {
                let name = format!("f{round}");
                own.define_lazy(&name, |_| Ok(at(seven))).unwrap();
                let child = fork(|| {
                    end_if_it_hangs();
                    call(&own, &name) == 7
                });
                assert!(child.succeeded(), "round {round}");
            }
        });
    });
}

#[test]
fn a_child_searches_elsewhere_while_its_parent_does() {
    alone("forks::a_child_searches_elsewhere_while_its_parent_does", || {
        let library = Library::new("app");
        let search = |_thread: usize| {
            library.stop_searching();
            library.add_generator(ProcessSymbols);
            assert!(library.address("no such symbol").is_none());
        };
        meanwhile(2, search, || {
            for round in 0..1000 {
                let child = fork(|| {
                    end_if_it_hangs();
                    library.add_generator(ProcessSymbols);
                    library.address("getpid").is_some()
                });
                assert!(child.succeeded(), "round {round}");
            }
        });
    });
}

/// Threads ask an image for lines that its children ask for, too.
#[test]
#[cfg(feature = "symbolize")]
fn a_child_symbolizes_while_its_parent_does() {
    alone("forks::a_child_symbolizes_while_its_parent_does", || {
        if !has(GCC) {
            return;
        }
        let object = compile_text(GCC, &["-g", "-O1", "-fPIC"], "c", "int f(int n) { return n * 7; }");
        for _ in 0..30 {
            let loader = Loader::builder().keep_debug_info(true).build();
            let image = loader.load(&object, &NoSymbols).unwrap();
            let address = image.address("f").unwrap();
            let lines = || image.symbolize(address).unwrap()[0].line == Some(1);
            meanwhile(
                2,
                |_thread| assert!(lines()),
                || {
                    for round in 0..30 {
                        let child = fork(|| {
                            end_if_it_hangs();
                            lines()
                        });
                        assert!(child.succeeded(), "round {round}");
                    }
                },
            );
        }
    });
}

/// Static destructors are registered with the C library, which has a lock for that.
#[test]
fn a_child_drops_images_with_static_destructors_while_its_parent_does() {
    alone("forks::a_child_drops_images_with_static_destructors_while_its_parent_does", || {
        if !has(GXX) {
            return;
        }
        let source = r#"
            static volatile int count;
            struct Counted { int n; Counted() { count++; } ~Counted() { count--; } };
            static Counted some[50];
            extern "C" int f() { return count; }
        "#;
        let object = compile_text(GXX, &["-O1", "-fPIC"], "cpp", source);
        let work = || {
            let image = Loader::new().load(&object, &ProcessSymbols).unwrap();
            crate::support::initialize(&image);
            crate::support::call_int(&image, "f", &[]) == 50
        };
        meanwhile(
            3,
            |_thread| assert!(work()),
            || {
                for round in 0..1000 {
                    let child = fork(|| {
                        end_if_it_hangs();
                        work()
                    });
                    assert!(child.succeeded(), "round {round}");
                }
            },
        );
    });
}

extern "C" fn fork_and_load() {
    let child = fork(|| {
        end_if_it_hangs();
        let library = Library::new("child");
        library.load("g", &returning("g", 3)).unwrap();
        call(&library, "g") == 3
    });
    assert!(child.succeeded());
    // Others fork as well, and are waited for.
    let other = std::thread::spawn(|| {
        let library = Library::new("other");
        library.load("g", &returning("g", 4)).unwrap();
        assert!(fork(|| call(&library, "g") == 4).succeeded());
    });
    other.join().unwrap();
    HAPPENED.store(true, Ordering::SeqCst);
}

static HAPPENED: AtomicBool = AtomicBool::new(false);

#[test]
fn a_static_destructor_may_fork_and_wait_for_who_does() {
    alone("forks::a_static_destructor_may_fork_and_wait_for_who_does", || {
        if !has(GXX) {
            return;
        }
        end_if_it_hangs();
        let source = r#"
            extern "C" void fork_and_load(void);
            struct Forks { ~Forks() { fork_and_load(); } };
            static Forks forks;
            extern "C" int f() { return 1; }
        "#;
        let object = compile_text(GXX, &["-O1", "-fPIC", "-fno-exceptions"], "cpp", source);
        let host = AbsoluteSymbols::new().with("fork_and_load", fork_and_load as *const () as u64);
        let library = Library::new("app");
        library.add_generator(chain(host, ProcessSymbols));
        let image = library.load("forks.o", &object).unwrap();
        crate::support::initialize(image.loaded());
        assert_eq!(call(&library, "f"), 1);
        // SAFETY: nobody is in it.
        unsafe { library.remove(&image).free() };
        drop(image);
        assert!(HAPPENED.load(Ordering::SeqCst));
    });
}

/// Nobody is there any more to make what a thread of the parent began. A call of it is told so; others go on.
#[test]
fn what_a_thread_of_the_parent_was_making_is_a_failure_in_the_child() {
    alone("forks::what_a_thread_of_the_parent_was_making_is_a_failure_in_the_child", || {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&notes);
        let library = Library::builder("app").on_failure(move |error| {
            assert!(matches!(error.kind, FunctionErrorKind::Lost));
            log.lock().unwrap().push(error.to_string());
            minus_one as extern "C" fn() -> i32 as usize as u64
        });
        let library = library.build();
        let [begun, forked] = [1, 2].map(|_| Arc::new(Barrier::new(2)));
        let (begins, ends) = (Arc::clone(&begun), Arc::clone(&forked));
        library
            .define_lazy("f", move |_| {
                begins.wait();
                ends.wait();
                Ok(at(seven))
            })
            .unwrap();
        std::thread::scope(|scope| {
            let maker = scope.spawn(|| call(&library, "f"));
            begun.wait();
            // This thread is making a function while it forks, and goes on with that in the child.
            let own = library.clone();
            let (outcome, told) = (Arc::new(Mutex::new(None)), Arc::clone(&notes));
            let result = Arc::clone(&outcome);
            library
                .define_lazy("forks", move |_| {
                    let child = fork(|| {
                        end_if_it_hangs();
                        let twice = [1, 2].map(|_| call(&own, "f"));
                        // SAFETY: it is of the same type.
                        drop(unsafe { own.redefine("f", at(seven)) }.unwrap());
                        let notes = told.lock().unwrap();
                        let expected = "function `f` of library `app`: a thread was making it when this process was \
                                        forked, which has no such thread";
                        twice == [-1, -1] && *notes == [expected, expected] && call(&own, "f") == 7
                    });
                    *result.lock().unwrap() = Some(child.succeeded());
                    Ok(at(seven))
                })
                .unwrap();
            let made = call(&library, "forks");
            forked.wait();
            assert_eq!(made, 7);
            assert_eq!(*outcome.lock().unwrap(), Some(true));
            assert_eq!(maker.join().unwrap(), 7, "the parent goes on");
        });
        assert!(notes.lock().unwrap().is_empty());
    });
}
