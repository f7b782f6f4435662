//! Destructors of thread-local C++ objects: registered with the C library for their thread, forgotten when the image goes.
//!
//! The C library runs them in order with all others when the thread ends (Itanium C++ ABI, 3.3.6.4), but what it would
//! call may be gone by then. So it is given a function of our own, which looks whether the image still is there. An image
//! that is dropped runs what the dropping thread registered; what other threads did is forgotten, since nobody can run
//! it in their place.
#![allow(unsafe_code)] // Calls of loaded code by address.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use crate::fork::{self, ThreadNumber};
use crate::process;

type Destructor = unsafe extern "C" fn(*mut c_void);
type Register = unsafe extern "C" fn(Destructor, *mut c_void, *mut c_void) -> c_int;

/// What is registered, by addresses in the images that did.
static REGISTERED: Mutex<BTreeMap<u64, Vec<Arc<Entry>>>> = Mutex::new(BTreeMap::new());

struct Entry {
    /// The handle that it was registered with, which is `__dso_handle` or, by Rust's standard library, a variable of its own; or
    /// the destructor, if there is none.
    image: u64,
    thread: ThreadNumber,
    /// Locked while it runs. `None`: it did, or will not.
    pending: Mutex<Option<Pending>>,
}

#[derive(Clone, Copy)]
struct Pending {
    destructor: Destructor,
    object: *mut c_void,
}

// SAFETY: other threads only forget it.
unsafe impl Send for Pending {}

/// The C library's part of it.
fn register_function() -> Option<Register> {
    static FOUND: LazyLock<Option<u64>> = LazyLock::new(|| process::function(c"__cxa_thread_atexit_impl"));
    let address = fork::force(&FOUND);
    // SAFETY: that is glibc's and other C libraries' function of this type, which C++ runtimes call.
    address.map(|address| unsafe { std::mem::transmute::<usize, Register>(address as usize) })
}

/// The address of `__cxa_thread_atexit` for objects; `None` where the C library has no part in it.
pub(crate) fn function() -> Option<u64> {
    register_function()?;
    Some(thread_atexit as unsafe extern "C" fn(_, _, _) -> _ as usize as u64)
}

/// # Safety
/// As `__cxa_thread_atexit`: the destructor may be called with the object when this thread ends. `handle` is an address in the
/// image that has it, or null.
unsafe extern "C" fn thread_atexit(
    destructor: Destructor,
    object: *mut c_void,
    handle: *mut c_void,
) -> c_int {
    const FAILED: c_int = -1;
    let Some(register) = register_function() else { return FAILED };
    let pending = Mutex::new(Some(Pending { destructor, object }));
    let image = if handle.is_null() { destructor as usize as u64 } else { handle as u64 };
    let entry = Arc::new(Entry { image, thread: ThreadNumber::current(), pending });
    let argument = Arc::into_raw(Arc::clone(&entry)).cast_mut().cast();
    // An address of this library, which has to stay as long as there is something to call.
    let library = (&raw const REGISTERED).cast_mut().cast();
    fork::lock(&REGISTERED).entry(image).or_default().push(entry);
    // SAFETY: the function takes back the entry that it is called with once.
    unsafe { register(run, argument, library) }
}

/// Called by the C library when the thread ends.
unsafe extern "C" fn run(entry: *mut c_void) {
    // SAFETY: `thread_atexit` gave this entry away, and the C library calls with it once.
    let entry = unsafe { Arc::from_raw(entry.cast::<Entry>().cast_const()) };
    // Held while it runs, so that the image stays.
    let mut pending = entry.pending.lock();
    if let Some(Pending { destructor, object }) = pending.take() {
        // SAFETY: code of a live image, which waits for this lock before it goes, registered this call for now.
        unsafe { destructor(object) };
    }
    drop(pending);
    let mut registered = fork::lock(&REGISTERED);
    if let Some(entries) = registered.get_mut(&entry.image) {
        entries.retain(|other| !Arc::ptr_eq(other, &entry));
        if entries.is_empty() {
            registered.remove(&entry.image);
        }
    }
}

/// Runs what this thread registered for an image that goes, last first; what others did is forgotten, once those that are
/// at it are done.
pub(crate) fn run_and_forget(segments: &[Range<u64>]) {
    // Destructors may register further ones.
    while let Some(entries) = take(segments) {
        for entry in entries.iter().rev() {
            if let Some(Pending { destructor, object }) = entry.forget() {
                // SAFETY: the image still is there, and so is the object: this is its thread.
                unsafe { destructor(object) };
            }
        }
    }
}

/// Nothing that was registered for the image is run any more, once those that are at it are done.
pub(crate) fn forget(segments: &[Range<u64>]) {
    for entry in take(segments).iter().flatten() {
        entry.forget();
    }
}

/// Takes out what was registered for one image, in order. `None`: nothing is.
fn take(segments: &[Range<u64>]) -> Option<Vec<Arc<Entry>>> {
    let mut registered = fork::lock(&REGISTERED);
    let of_image = segments.iter().find_map(|segment| registered.range(segment.clone()).next());
    let handle = *of_image?.0;
    registered.remove(&handle)
}

impl Entry {
    /// It is not run any more by others. What this thread would have run.
    fn forget(&self) -> Option<Pending> {
        // A thread of the process that this one was forked from may have been at it; here nobody ever is.
        if self.thread.is_lost() {
            return None;
        }
        if self.thread != ThreadNumber::current() {
            self.pending.lock().take();
            return None;
        }
        // One that is locked by this thread is running, and drops the image.
        self.pending.try_lock()?.take()
    }
}
