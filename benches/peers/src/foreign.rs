//! Shared objects, their symbols, and calls into code that was loaded.

#![allow(unsafe_code)] // Foreign functions.

use std::ffi::{CStr, CString, c_void};
use std::mem;
use std::path::Path;

/// `path` as a C string.
pub fn c_string(path: &Path) -> CString {
    CString::new(path.to_str().expect("a path in UTF-8")).expect("a path without NUL")
}

/// A shared object that stays open. Its symbols are its own: two builds of one library do not meet.
pub fn library(path: &CStr) -> Option<usize> {
    // SAFETY: the path is a C string; the libraries are known, and their initialisers do no harm.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: it takes nothing.
        let why = unsafe { libc::dlerror() };
        // SAFETY: after a failure there is a message, a C string.
        let why = unsafe { CStr::from_ptr(why) };
        eprintln!("{}", why.to_string_lossy());
        return None;
    }
    Some(handle as usize)
}

/// The address of a symbol of an open library.
pub fn symbol(library: usize, name: &CStr) -> Option<usize> {
    // SAFETY: the handle is of a library that stays open, the name a C string.
    let address = unsafe { libc::dlsym(library as *mut c_void, name.as_ptr()) };
    (!address.is_null()).then_some(address as usize)
}

/// Calls `long entry(long)` of a workload.
pub fn call_entry(address: usize, argument: i64) -> i64 {
    // SAFETY: the address is that of `entry` in code that is loaded, and that is its type in all workloads that are called.
    let entry = unsafe { mem::transmute::<usize, extern "C" fn(i64) -> i64>(address) };
    entry(argument)
}

/// Opens a library whose symbols everybody finds.
pub fn for_all(path: &CStr) -> Option<()> {
    // SAFETY: the path is a C string; the library is the system's, and its initialisers do no harm.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    (!handle.is_null()).then_some(())
}

/// Calls `void k(long n, float a, const float *x, float *y)` of a tiny object.
pub fn call_kernel(address: usize) -> f32 {
    type Kernel = extern "C" fn(i64, f32, *const f32, *mut f32);
    // SAFETY: the address is that of such a kernel, in code that is loaded.
    let kernel = unsafe { mem::transmute::<usize, Kernel>(address) };
    let (x, mut y) = ([1.0f32; 4], [1.0f32; 4]);
    kernel(4, 2.0, x.as_ptr(), y.as_mut_ptr());
    y[0]
}
