//! What objcache is held against, in the system's own calls: `dlopen`, and the least that any loader must do.

#![allow(unsafe_code)] // System calls have no safe form here.

use std::ffi::{CString, c_void};
use std::path::Path;

use objcache::loader::SharedLibrary;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

/// A shared object opened with `dlopen`, closed when dropped.
pub(crate) struct Shared(*mut c_void);

impl Shared {
    /// Opens it and looks `symbol` up.
    pub(crate) fn open(path: &CString, symbol: &CString) -> (Self, usize) {
        // SAFETY: the path is a C string; the workloads have no initialisers that could do harm.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!handle.is_null(), "dlopen of {path:?}");
        // SAFETY: the handle was just opened, the name is a C string.
        let address = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
        assert!(!address.is_null(), "dlsym of {symbol:?}");
        (Self(handle), address as usize)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: the handle is ours, and nobody kept an address of it.
        unsafe { libc::dlclose(self.0) };
    }
}

/// What C++ objects need of their runtime.
pub(crate) fn cpp_runtime() -> Option<SharedLibrary> {
    // SAFETY: the library's initialisers only set up its own streams and locales.
    unsafe { SharedLibrary::open(c"libstdc++.so.6") }.ok()
}

/// Calls `long entry(long)` of a workload.
pub(crate) fn call_entry(address: usize, argument: i64) -> i64 {
    // SAFETY: the address is that of `entry` in code that is loaded, and this is its signature in `c_code`.
    let entry = unsafe { std::mem::transmute::<usize, extern "C" fn(i64) -> i64>(address) };
    entry(argument)
}

/// Calls `long entry(long, long (*)(long (*)(long), long))` of a workload with a function of this program that calls what
/// it is given.
pub(crate) fn call_entry_through_here(address: usize, argument: i64) -> i64 {
    type Function = extern "C-unwind" fn(i64) -> i64;
    extern "C-unwind" fn through(function: Function, argument: i64) -> i64 {
        std::hint::black_box(function(argument))
    }
    type Entry = extern "C" fn(i64, extern "C-unwind" fn(Function, i64) -> i64) -> i64;
    // SAFETY: the address is that of `entry` in code that is loaded, and this is its signature there.
    let entry = unsafe { std::mem::transmute::<usize, Entry>(address) };
    entry(argument, through)
}

/// `path` as a C string.
pub(crate) fn c_string(path: &Path) -> CString {
    CString::new(path.to_str().expect("a path in UTF-8")).expect("a path without NUL")
}

/// Fresh pages with a copy of some bytes, executable: the floor under any loader that maps per object.
pub(crate) struct Pages {
    address: *mut c_void,
    length: usize,
}

impl Pages {
    /// mmap, memcpy, mprotect.
    pub(crate) fn with(bytes: &[u8]) -> Self {
        let (length, writable) = (bytes.len(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: the kernel chooses the place, so no mapping in use is replaced.
        let address =
            unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, writable, MapFlags::PRIVATE) };
        let address = address.expect("pages");
        // SAFETY: the pages are as long as `bytes`, writable and nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address.cast(), length) };
        let executable = MprotectFlags::READ | MprotectFlags::EXEC;
        // SAFETY: the pages are ours, and no reference into them exists.
        unsafe { rustix::mm::mprotect(address, length, executable) }.expect("executable pages");
        Self { address, length }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the pages are ours, and no reference into them exists.
        let _ = unsafe { rustix::mm::munmap(self.address, self.length) };
    }
}
