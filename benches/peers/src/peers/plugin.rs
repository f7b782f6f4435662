//! Peers in shared objects, by the C interface in `peer.h`: objcache itself, and what of LLVM only has a C++ interface.

#![allow(unsafe_code)] // Foreign functions.

use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::ptr;

use super::{Code, Loaded, Peer};
use crate::foreign;

/// `Peer` of `peer.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Table {
    name: *const c_char,
    prepare: Option<unsafe extern "C" fn()>,
    load: Option<unsafe extern "C" fn(*const c_void, usize, *const c_char, *mut *mut c_void) -> *mut c_void>,
    unload: Option<unsafe extern "C" fn(*mut c_void)>,
    lookup: Option<unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void>,
}

struct Plugin {
    name: String,
    table: Table,
}

// SAFETY: the table is constant, and its functions may be called from any thread: those that may not are not for the case
// with threads (`is_for_threads`).
unsafe impl Sync for Plugin {}

/// The peers in a shared object. `name` replaces what it calls the first of them.
pub(super) fn peers(path: &Path, name: Option<&str>) -> Vec<Box<dyn Peer>> {
    let path = foreign::c_string(path);
    let Some(table) = foreign::library(&path).and_then(|library| foreign::symbol(library, c"peers")) else {
        eprintln!("{path:?} has no peers, and is left out");
        return Vec::new();
    };
    let mut peers: Vec<Box<dyn Peer>> = Vec::new();
    for index in 0.. {
        let entry = (table as *const Table).wrapping_add(index);
        // SAFETY: the header says that the array ends with an entry without a name, which was not met yet.
        let table = unsafe { *entry };
        if table.name.is_null() {
            break;
        }
        // SAFETY: the header says that the name is a C string.
        let own = unsafe { CStr::from_ptr(table.name) }.to_string_lossy().into_owned();
        peers.push(Box::new(Plugin { name: name.map_or(own, str::to_owned), table }));
    }
    peers
}

impl Peer for Plugin {
    fn name(&self) -> &str {
        &self.name
    }

    fn prepare(&self, loads: usize) {
        if let Some(prepare) = self.table.prepare {
            for _ in 0..loads {
                // SAFETY: the plugin's own function, which takes nothing.
                unsafe { prepare() };
            }
        }
    }

    fn load(&self, code: &Code, symbol: &CStr) -> Option<Loaded> {
        let Code { object, .. } = code;
        let (load, mut handle) = (self.table.load?, ptr::null_mut());
        // SAFETY: all arguments are what the header says.
        let address = unsafe { load(object.as_ptr().cast(), object.len(), symbol.as_ptr(), &mut handle) };
        (!address.is_null()).then_some(Loaded { address: address as usize, handle: handle as usize })
    }

    fn unload(&self, loaded: Loaded) {
        if let Some(unload) = self.table.unload {
            // SAFETY: `load` gave the handle, and it is given back once.
            unsafe { unload(loaded.handle as *mut c_void) };
        }
    }

    fn lookup(&self, loaded: &Loaded, symbol: &CStr) -> Option<usize> {
        let lookup = self.table.lookup?;
        // SAFETY: `load` gave the handle, and it was not given back.
        let address = unsafe { lookup(loaded.handle as *mut c_void, symbol.as_ptr()) };
        (!address.is_null()).then_some(address as usize)
    }

    fn has_lookup(&self) -> bool {
        self.table.lookup.is_some()
    }

    /// What needs preparing keeps it for one thread.
    fn is_for_threads(&self) -> bool {
        self.table.prepare.is_none()
    }
}
