//! Static destructors: registered with the C library for the end of the process, run when the image goes before that.
//!
//! The C library has a lock for them, and a child that is born while another thread has it would wait for that for ever. So
//! they are registered and run inside of forks' gate; the destructors themselves, which may do anything, outside.
#![allow(unsafe_code)] // Calls of the C library and of loaded code by address.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::fork;
use crate::process;
use crate::registered::{Calls, Destructor};

type Register = unsafe extern "C" fn(Destructor, *mut c_void, *mut c_void) -> c_int;
type Finalize = unsafe extern "C" fn(*const c_void);

/// The C library's `__cxa_atexit`, once an image asked for it.
static REGISTER: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// What this thread takes out of the C library is not run.
    static FORGETTING: Cell<bool> = const { Cell::new(false) };
}

static CALLS: Calls = Calls::new();

/// What static destructors are registered with (Itanium C++ ABI, 3.3.6.3).
pub(crate) const REGISTRAR: &[u8] = b"__cxa_atexit";

/// What a name that a resolver found means to an image in this process: `__cxa_atexit` of the C library is ours.
pub(crate) fn in_place_of(name: &[u8], found: Option<u64>) -> Option<u64> {
    // A resolver may give any number; only what is the function is called as such, and zero is none.
    let Some(address) = found.filter(|address| name == REGISTRAR && *address != 0) else { return found };
    let is_known = address == REGISTER.load(Ordering::Acquire) as u64;
    if !is_known && found != process::function(c"__cxa_atexit") {
        return found;
    }
    REGISTER.store(address as usize, Ordering::Release);
    Some(at_exit as Register as usize as u64)
}

/// # Safety
/// As `__cxa_atexit` (Itanium C++ ABI, 3.3.6.3): the destructor may be called with the object when the image goes, or the
/// process ends. `image` is its `__dso_handle`.
unsafe extern "C" fn at_exit(destructor: Destructor, object: *mut c_void, image: *mut c_void) -> c_int {
    // SAFETY: that is what is in it, since images have this function's address only after it was stored.
    let register = unsafe { mem::transmute::<usize, Register>(REGISTER.load(Ordering::Acquire)) };
    fork::watch();
    let _gate = fork::enter();
    let call = CALLS.add(image as u64, destructor, object, None);
    // SAFETY: the function takes back the call that it is called with once.
    let result = unsafe { register(run, call, image) };
    if result != 0 {
        // SAFETY: nobody will call with it.
        CALLS.forget(&unsafe { Calls::from_library(call) });
    }
    result
}

/// Images that call [`atexit`], by where they begin: where they end, and their handles.
static CALLERS: Mutex<BTreeMap<u64, (u64, u64)>> = Mutex::new(BTreeMap::new());

/// The address of an `atexit` for objects, if what they find as `__cxa_atexit` is [`at_exit`].
pub(crate) fn atexit(cxa_atexit: u64) -> Option<u64> {
    let is_ours = cxa_atexit == at_exit as Register as usize as u64;
    is_ours.then_some(at_exit_of_a_function as extern "C" fn(Destructor) -> c_int as usize as u64)
}

/// `int atexit(void (*)(void))`, where a function that is given an argument does not look at it. The image is that of the
/// function.
extern "C" fn at_exit_of_a_function(function: Destructor) -> c_int {
    let address = function as usize as u64;
    let handle = {
        let callers = fork::lock(&CALLERS);
        let before = callers.range(..=address).next_back();
        before.and_then(|(_, (end, handle))| (address < *end).then_some(*handle))
    };
    // SAFETY: it may be called when the image goes or the process ends: whoever calls this says so.
    unsafe { at_exit(function, std::ptr::null_mut(), handle.unwrap_or(0) as *mut c_void) }
}

/// What functions in this range register with [`atexit`] is the image's with that handle.
pub(crate) fn add_caller(range: &Range<u64>, handle: u64) {
    if !range.is_empty() {
        fork::lock(&CALLERS).insert(range.start, (range.end, handle));
    }
}

pub(crate) fn remove_caller(range: &Range<u64>) {
    if !range.is_empty() {
        fork::lock(&CALLERS).remove(&range.start);
    }
}

/// Called by the C library, which has no lock meanwhile.
unsafe extern "C" fn run(call: *mut c_void) {
    // SAFETY: `at_exit` gave this call away, and the C library calls with it once.
    let call = unsafe { Calls::from_library(call) };
    if FORGETTING.get() {
        call.make_no_more();
    } else {
        // SAFETY: code of the image registered this call for now.
        unsafe { call.make() };
    }
    CALLS.forget(&call);
}

/// Runs what was registered with `__cxa_atexit` under the image's handle, once. Without it the C library would run it
/// when the process exits, and the code be gone. What another thread is running, because the process exits, is waited for.
///
/// # Safety
/// The registered destructors must be in memory, their code trusted.
pub(crate) unsafe fn run_registered(handle: u64) {
    // A handle of zero means all destructors of the process. No image is at zero.
    let Some(address) = process::function(c"__cxa_finalize").filter(|_| handle != 0) else { return };
    // SAFETY: that is `void __cxa_finalize(void *d)` of the C++ ABI (Itanium C++ ABI, 3.3.6.3).
    let finalize = unsafe { mem::transmute::<usize, Finalize>(address as usize) };
    fork::watch();
    let gate = fork::enter();
    // SAFETY: the handle is the image's own; what was registered under it is in the image and still there.
    unsafe { finalize(handle as *const c_void) };
    drop(gate);
    for call in CALLS.take_of(handle) {
        call.make_no_more();
    }
}

/// Nothing that was registered with `__cxa_atexit` under the image's handle is run any more.
pub(crate) fn forget_registered(handle: u64) {
    FORGETTING.set(true);
    // SAFETY: none of the destructors is called.
    unsafe { run_registered(handle) };
    FORGETTING.set(false);
}
