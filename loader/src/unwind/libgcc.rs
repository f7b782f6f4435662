//! The system's own unwinder: `__register_frame` of libgcc, found at run time so that nothing is linked for it.
//!
//! Only images that catch are registered: libgcc before version 13 looks through its registrations one by one at each
//! throw, so ten thousand of them make throwing a hundred times slower.

#![allow(unsafe_code)] // libgcc is foreign functions and addresses.

use std::mem;
use std::sync::OnceLock;

use super::{FrameTable, UnwindInfo, UnwindRegistrar, UnwindRegistration, eh_frame};
use crate::process;

/// Registers the images that catch exceptions with libgcc, if it is in the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct LibgccFrames;

type FrameFunction = unsafe extern "C" fn(*const u8);

#[derive(Clone, Copy)]
struct Libgcc {
    register: FrameFunction,
    deregister: FrameFunction,
}

fn libgcc() -> Option<Libgcc> {
    static FOUND: OnceLock<Option<Libgcc>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let register = process::function(c"__register_frame")?;
        let deregister = process::function(c"__deregister_frame")?;
        // SAFETY: the symbol of that name is libgcc's `void __register_frame (void *)` (LSB; unwind-dw2-fde.c).
        let register = unsafe { mem::transmute::<usize, FrameFunction>(register as usize) };
        // SAFETY: likewise `void __deregister_frame (void *)`; that it also returns a value is of no matter.
        let deregister = unsafe { mem::transmute::<usize, FrameFunction>(deregister as usize) };
        Some(Libgcc { register, deregister })
    })
}

impl UnwindRegistrar for LibgccFrames {
    unsafe fn register(&self, info: &UnwindInfo) -> Result<Option<Box<dyn UnwindRegistration>>, String> {
        let Some(libgcc) = libgcc().filter(|_| info.catches) else { return Ok(None) };
        let mut registered = Registered { tables: Vec::with_capacity(info.eh_frames.len()) };
        for table in &info.eh_frames {
            // SAFETY: the caller vouches for the range.
            let bytes =
                unsafe { std::slice::from_raw_parts(table.address as *const u8, table.size as usize) };
            eh_frame::check(bytes, table.address, &info.code)?;
            if is_empty(bytes) {
                continue;
            }
            // SAFETY: the table is well-formed, as just checked, ends in a terminator, and stays where it is until
            // `Registered` is dropped, as the caller vouches.
            unsafe { (libgcc.register)(table.address as *const u8) };
            registered.tables.push(*table);
        }
        Ok(Some(Box::new(registered)))
    }
}

/// libgcc ignores tables that begin with the terminator, when registering and when deregistering.
fn is_empty(table: &[u8]) -> bool {
    table.first_chunk().is_none_or(|length| *length == [0; 4])
}

struct Registered {
    tables: Vec<FrameTable>,
}

impl UnwindRegistration for Registered {}

impl Drop for Registered {
    fn drop(&mut self) {
        let Some(libgcc) = libgcc() else { return };
        for table in self.tables.iter().rev() {
            // SAFETY: this very address was registered, once, and is deregistered here, once.
            unsafe { (libgcc.deregister)(table.address as *const u8) };
        }
    }
}
