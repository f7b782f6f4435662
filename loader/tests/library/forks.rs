//! What a child process may do with libraries, while threads of its parent change them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use objcache_loader::{FunctionErrorKind, Implementation, Library, pin};

use crate::code::{call, returning};
use crate::support::{alone, fork};

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
        body();
        done.store(true, Ordering::Relaxed);
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
            assert_eq!(call(&library, "forks"), 7);
            assert_eq!(*outcome.lock().unwrap(), Some(true));
            forked.wait();
            assert_eq!(maker.join().unwrap(), 7, "the parent goes on");
        });
        assert!(notes.lock().unwrap().is_empty());
    });
}
