//! The interface of the C++ harness that the goals were measured with, so that the loader can be plugged in there too
//! (`BENCH_PLUGIN=libobjcache_peer.so`), beside the prototype that the goals come from.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// `Peer` of that harness.
#[repr(C)]
pub struct Peer {
    name: *const c_char,
    /// 0: the object's bytes; others are for what links beforehand.
    needs_so: c_int,
    load: Option<Load>,
    unload: Option<unsafe extern "C" fn(*mut c_void)>,
    lookup: Option<unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void>,
}

type Load =
    unsafe extern "C" fn(*const c_void, usize, *const c_char, *const c_char, *mut *mut c_void) -> *mut c_void;

// SAFETY: the pointers are to constants.
unsafe impl Sync for Peer {}

#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)] // The name that the harness asks for.
pub static bench_plugin_peers: [Peer; 2] = [
    Peer {
        name: c"objcache".as_ptr(),
        needs_so: 0,
        load: Some(load),
        unload: Some(super::unload),
        lookup: Some(super::lookup),
    },
    Peer { name: ptr::null(), needs_so: 0, load: None, unload: None, lookup: None },
];

/// # Safety
/// The object's bytes, and a symbol and a handle as for [`load`](super::load).
unsafe extern "C" fn load(
    object: *const c_void,
    size: usize,
    _path: *const c_char,
    symbol: *const c_char,
    handle: *mut *mut c_void,
) -> *mut c_void {
    // SAFETY: as the caller says.
    unsafe { super::load(object, size, symbol, handle) }
}
