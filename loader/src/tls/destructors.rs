//! Destructors of thread-local C++ objects: registered with the C library for their thread, forgotten when the image goes.
//!
//! The C library runs them in order with all others when the thread ends (Itanium C++ ABI, 3.3.6.4). An image that is
//! dropped runs what the dropping thread registered; what other threads did is forgotten, since nobody can run it in their
//! place.
#![allow(unsafe_code)] // Calls of the C library and of loaded code by address.

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::sync::LazyLock;

use crate::fork::{self, ThreadNumber};
use crate::process;
use crate::registered::{Calls, Destructor};

type Register = unsafe extern "C" fn(Destructor, *mut c_void, *mut c_void) -> c_int;

static CALLS: Calls = Calls::new();

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
/// image that has it, as `__dso_handle` or, by Rust's standard library, a variable of its own; or null, and the destructor is
/// in the image.
unsafe extern "C" fn thread_atexit(
    destructor: Destructor,
    object: *mut c_void,
    handle: *mut c_void,
) -> c_int {
    const FAILED: c_int = -1;
    let Some(register) = register_function() else { return FAILED };
    let image = if handle.is_null() { destructor as usize as u64 } else { handle as u64 };
    let call = CALLS.add(image, destructor, object, Some(ThreadNumber::current()));
    // An address of this library, which has to stay as long as there is something to call.
    let library = (&raw const CALLS).cast_mut().cast();
    // SAFETY: the function takes back the call that it is called with once.
    unsafe { register(run, call, library) }
}

/// Called by the C library when the thread ends.
unsafe extern "C" fn run(call: *mut c_void) {
    // SAFETY: `thread_atexit` gave this call away, and the C library calls with it once.
    let call = unsafe { Calls::from_library(call) };
    // SAFETY: code of the image registered this call for now.
    unsafe { call.make() };
    CALLS.forget(&call);
}

/// Runs what this thread registered for an image that goes, last first; what others did is forgotten, once those that are
/// at it are done.
pub(crate) fn run_and_forget(segments: &[Range<u64>]) {
    // Destructors may register further ones.
    while let Some(calls) = CALLS.take(segments) {
        for call in calls.iter().rev() {
            // SAFETY: the image still is there, and so is the object: this is its thread.
            unsafe { call.make_or_cancel() };
        }
    }
}

/// Nothing that was registered for the image is run any more, once those that are at it are done.
pub(crate) fn forget(segments: &[Range<u64>]) {
    while let Some(calls) = CALLS.take(segments) {
        calls.iter().for_each(|call| call.make_no_more());
    }
}
