//! The protocol of functions that are made at their first call and redefined, under a model checker: loom runs the
//! library's own source, with its own locks, through every order in which threads can interleave. It also finds
//! deadlocks.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use switch::{Claims, Entered, Party, Slot, Switch};

/// The library's locks have another signature than loom's.
mod sync {
    use std::ops::{Deref, DerefMut};

    pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

    pub(super) struct MutexGuard<'m, T>(Option<loom::sync::MutexGuard<'m, T>>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap()))
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().unwrap()
        }
    }

    pub(super) struct Condvar(loom::sync::Condvar);

    impl Condvar {
        pub(super) fn new() -> Self {
            Condvar(loom::sync::Condvar::new())
        }

        pub(super) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            guard.0 = Some(self.0.wait(guard.0.take().unwrap()).unwrap());
        }

        pub(super) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

#[path = "../src/library/switch.rs"]
#[allow(unreachable_pub, dead_code)]
mod switch;

/// A word in memory, as that of a stub.
struct Word(AtomicUsize);

impl Slot for Word {
    fn store(&self, address: usize) {
        self.0.swap(address, Ordering::SeqCst);
    }
}

/// No model forks.
impl Party for usize {
    fn is_lost(self) -> bool {
        false
    }
}

/// What the slot leads to while nothing is there: the trampoline.
const NOWHERE: usize = 0;

struct Function {
    word: Word,
    switch: Switch<usize, usize>,
}

impl Function {
    fn lazy(makes: usize) -> Self {
        Function { word: Word(AtomicUsize::new(NOWHERE)), switch: Switch::pending(makes) }
    }

    fn now(&self) -> usize {
        self.word.0.load(Ordering::Relaxed)
    }

    /// A call, as the stub and the trampoline do it: where it ends up. `make` is what the client does.
    fn call(&self, claims: &Claims<usize>, thread: usize, make: impl FnOnce()) -> Option<usize> {
        let seen = self.now();
        if seen != NOWHERE {
            return Some(seen);
        }
        match self.switch.enter(claims, thread) {
            Entered::Set => {}
            Entered::Cycle => return None,
            Entered::Lost => unreachable!(),
            Entered::Claimed(address) => {
                make();
                let unused = self.switch.finish(claims, &self.word, address, address);
                assert!(unused.is_none_or(|unused| unused == address));
            }
        }
        let seen = self.now();
        assert_ne!(seen, NOWHERE, "a function that is there leads somewhere");
        Some(seen)
    }

    fn redefine(&self, claims: &Claims<usize>, address: usize) -> Option<usize> {
        self.switch.replace(claims, &self.word, address, address, |_| true).unwrap()
    }
}

/// Three threads have many orders: these are all with at most so many preemptions, of which bugs need few.
fn bounded_model(check: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(if std::env::var_os("OBJCACHE_SOAK").is_some() { 4 } else { 2 });
    model.check(check);
}

#[test]
fn one_thread_makes_a_function_and_all_get_it() {
    bounded_model(|| {
        let shared = Arc::new((Function::lazy(7), Claims::new(), AtomicUsize::new(0)));
        let call = |thread: usize| {
            let shared = Arc::clone(&shared);
            move || {
                let (function, claims, made) = &*shared;
                let made_it = || assert_eq!(made.fetch_add(1, Ordering::Relaxed), 0);
                assert_eq!(function.call(claims, thread, made_it), Some(7));
            }
        };
        let others = [1, 2].map(|thread| thread::spawn(call(thread)));
        call(0)();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(shared.2.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_redefinition_stands_whenever_it_comes() {
    loom::model(|| {
        let shared = Arc::new((Function::lazy(7), Claims::new()));
        let caller = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let first = shared.0.call(&shared.1, 1, || ());
                let second = shared.0.call(&shared.1, 1, || ());
                assert!(matches!((first, second), (Some(7), Some(7 | 8)) | (Some(8), Some(8))));
            }
        });
        let before = shared.0.redefine(&shared.1, 8);
        // No stale result after it returned.
        assert_eq!(shared.0.call(&shared.1, 0, || unreachable!()), Some(8));
        assert!(matches!(before, None | Some(7)));
        caller.join().unwrap();
        assert_eq!(shared.0.now(), 8);
    });
}

#[test]
fn what_two_redefinitions_replace_is_given_back_once() {
    loom::model(|| {
        let shared = Arc::new((Function::lazy(7), Claims::new()));
        let other = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.0.redefine(&shared.1, 9)
        });
        let maker = thread::spawn({
            let shared = Arc::clone(&shared);
            move || assert!(shared.0.call(&shared.1, 1, || ()).is_some())
        });
        let one = shared.0.redefine(&shared.1, 8);
        let other = other.join().unwrap();
        maker.join().unwrap();
        let last = shared.0.now();
        assert!(
            matches!((one, other, last), (Some(9), None | Some(7), 8) | (None | Some(7), Some(8), 9)),
            "{one:?} {other:?} {last}"
        );
        assert_eq!(shared.0.switch.with(|target| *target), Some(last), "the slot says what the record says");
    });
}

/// Making either needs the other.
#[test]
fn threads_in_a_circle_are_told_and_none_waits_for_ever() {
    loom::model(|| {
        let shared = Arc::new((Function::lazy(7), Function::lazy(8), Claims::new()));
        let call = |thread: usize| {
            let shared = Arc::clone(&shared);
            move || {
                let (one, other, claims) = &*shared;
                let [first, second] = if thread == 0 { [one, other] } else { [other, one] };
                let mut inner = Some(0);
                let outer = first.call(claims, thread, || {
                    let mut innermost = Some(0);
                    inner = second
                        .call(claims, thread, || innermost = first.call(claims, thread, || unreachable!()));
                    assert!(matches!(innermost, Some(0) | None), "it waits for itself");
                });
                assert!(outer.is_some(), "nobody waited for this thread while it waited");
            }
        };
        let other = thread::spawn(call(1));
        call(0)();
        other.join().unwrap();
        assert_eq!((shared.0.now(), shared.1.now()), (7, 8));
    });
}

/// One waits for a function while it makes another, which the maker of the first calls next: when that asks, the first is
/// made, whether or not its waiter has noticed.
#[test]
fn who_waited_for_what_is_made_is_in_no_circle() {
    loom::model(|| {
        let shared = Arc::new((Function::lazy(7), Function::lazy(8), Claims::new()));
        let other = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let (first, second, claims) = &*shared;
                let needs_first = || assert_eq!(first.call(claims, 1, || ()), Some(7));
                assert_eq!(second.call(claims, 1, needs_first), Some(8));
            }
        });
        let (first, second, claims) = &*shared;
        assert_eq!(first.call(claims, 0, || ()), Some(7));
        let needs_first = || assert_eq!(first.call(claims, 0, || unreachable!()), Some(7));
        assert_eq!(second.call(claims, 0, needs_first), Some(8));
        other.join().unwrap();
    });
}

/// One waits for a function that another makes, and has not noticed yet that it was redefined: that is no circle either.
#[test]
fn who_waited_for_what_is_redefined_is_in_no_circle() {
    bounded_model(|| {
        let shared = Arc::new((Function::lazy(7), Function::lazy(8), Claims::new()));
        let other = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let (first, second, claims) = &*shared;
                let needs_first = || assert!(matches!(first.call(claims, 1, || ()), Some(7 | 9)));
                assert_eq!(second.call(claims, 1, needs_first), Some(8));
            }
        });
        let (first, second, claims) = &*shared;
        let needs_second = || {
            first.redefine(claims, 9);
            assert_eq!(second.call(claims, 0, || ()), Some(8));
        };
        assert!(matches!(first.call(claims, 0, needs_second), Some(7 | 9)));
        other.join().unwrap();
    });
}

#[test]
fn who_waits_is_woken_by_a_redefinition() {
    bounded_model(|| {
        let shared = Arc::new((Function::lazy(7), Claims::new()));
        let call = |thread: usize| {
            let shared = Arc::clone(&shared);
            move || assert!(matches!(shared.0.call(&shared.1, thread, || ()), Some(7 | 8)))
        };
        let callers = [1, 2].map(|thread| thread::spawn(call(thread)));
        shared.0.redefine(&shared.1, 8);
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        assert_eq!(shared.0.now(), 8);
    });
}
