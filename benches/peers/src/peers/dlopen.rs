//! The dynamic linker, with the same code linked beforehand.

#![allow(unsafe_code)] // Foreign functions.

use std::ffi::{CStr, c_void};

use super::{Code, Loaded, Peer};
use crate::foreign;

/// It maps the file and reads what is called when it is called; all others copy.
pub(super) struct Dlopen;

impl Peer for Dlopen {
    fn name(&self) -> &str {
        "dlopen (linked before; maps, reads lazily)"
    }

    fn load(&self, code: &Code, symbol: &CStr) -> Option<Loaded> {
        let handle = foreign::library(&code.shared)?;
        let address = foreign::symbol(handle, symbol)?;
        Some(Loaded { address, handle })
    }

    fn unload(&self, loaded: Loaded) {
        // SAFETY: the handle is of a `dlopen` that is not undone yet, and nobody keeps an address of it.
        unsafe { libc::dlclose(loaded.handle as *mut c_void) };
    }

    fn lookup(&self, loaded: &Loaded, symbol: &CStr) -> Option<usize> {
        foreign::symbol(loaded.handle, symbol)
    }
}
