//! objcache's loader behind the C interface that all peers have (`peer.h`). Built from another state of the sources it
//! stands beside this one in the same run, which is how changes are measured: `run --plugin OTHER.so`.

#![allow(unsafe_code)] // A C interface.

pub mod earlier;

use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::slice;
use std::sync::LazyLock;

use objcache_loader::{LoadedImage, Loader, ProcessSymbols};

/// `Peer` of `peer.h`.
#[repr(C)]
pub struct Peer {
    name: *const c_char,
    prepare: Option<extern "C" fn()>,
    load: Option<unsafe extern "C" fn(*const c_void, usize, *const c_char, *mut *mut c_void) -> *mut c_void>,
    unload: Option<unsafe extern "C" fn(*mut c_void)>,
    lookup: Option<unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void>,
}

// SAFETY: the pointers are to constants.
unsafe impl Sync for Peer {}

#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)] // The name that the C header gives it.
pub static peers: [Peer; 2] = [
    Peer {
        name: c"objcache".as_ptr(),
        prepare: None,
        load: Some(load),
        unload: Some(unload),
        lookup: Some(lookup),
    },
    Peer { name: ptr::null(), prepare: None, load: None, unload: None, lookup: None },
];

static LOADER: LazyLock<Loader> = LazyLock::new(Loader::new);

/// # Safety
/// As the header says.
unsafe extern "C" fn load(
    object: *const c_void,
    size: usize,
    symbol: *const c_char,
    handle: *mut *mut c_void,
) -> *mut c_void {
    // SAFETY: the harness gives the bytes of a file.
    let object = unsafe { slice::from_raw_parts(object.cast(), size) };
    let image = match LOADER.load(object, &ProcessSymbols) {
        Ok(image) => Box::new(image),
        Err(error) => {
            eprintln!("objcache: {error}");
            return ptr::null_mut();
        }
    };
    // SAFETY: the harness gives a C string.
    let address = unsafe { address(&image, symbol) };
    // SAFETY: the harness gives a place for the handle.
    unsafe { handle.write(Box::into_raw(image).cast()) };
    address
}

/// # Safety
/// As the header says.
unsafe extern "C" fn unload(handle: *mut c_void) {
    // SAFETY: `load` made the handle, and the harness gives it back once.
    drop(unsafe { Box::<LoadedImage>::from_raw(handle.cast()) });
}

/// # Safety
/// As the header says.
unsafe extern "C" fn lookup(handle: *mut c_void, symbol: *const c_char) -> *mut c_void {
    // SAFETY: `load` made the handle, and it was not given back.
    let image = unsafe { &*handle.cast::<LoadedImage>() };
    // SAFETY: the harness gives a C string.
    unsafe { address(image, symbol) }
}

/// # Safety
/// `symbol` is a C string.
unsafe fn address(image: &LoadedImage, symbol: *const c_char) -> *mut c_void {
    // SAFETY: as the caller says.
    let symbol = unsafe { CStr::from_ptr(symbol) }.to_str().unwrap_or_default();
    image.address(symbol).map_or(ptr::null_mut(), |address| address as usize as *mut c_void)
}
