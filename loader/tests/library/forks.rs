//! What a child process may do with libraries, while threads of its parent change them.

use std::sync::atomic::{AtomicBool, Ordering};

use objcache_loader::{Library, pin};

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
