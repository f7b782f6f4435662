//! GDB's JIT compilation interface (GDB manual, "JIT Compilation Interface"), which LLDB understands as well: a list of
//! symbol files in this process, and a function on which the debugger has a breakpoint.
//!
//! Both are symbols of the process. A library that is loaded already may have them (libLLVM does), and older debuggers
//! look at the first they find, so such a pair is used; ours is weak, so that it gives way to another in a static link.

#![allow(unsafe_code)] // A list that another process reads, and two symbols known by their names.

use std::collections::HashMap;
use std::mem;
use std::ptr;
use std::sync::LazyLock;

use parking_lot::Mutex;

use super::{EventListener, ImageId, LoadedObject};
use crate::error::LoadError;
use crate::fork;
use crate::process;

/// `struct jit_code_entry`.
#[repr(C)]
struct CodeEntry {
    next: *mut CodeEntry,
    previous: *mut CodeEntry,
    symbol_file: *const u8,
    symbol_file_size: u64,
}

/// `struct jit_descriptor`.
#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant_entry: *mut CodeEntry,
    first_entry: *mut CodeEntry,
}

const VERSION: u32 = 1;
const NO_ACTION: u32 = 0;
const REGISTER: u32 = 1;
const UNREGISTER: u32 = 2;

type RegisterCode = unsafe extern "C" fn();

#[cfg(target_pointer_width = "64")]
macro_rules! pointer_directive {
    () => {
        ".quad 0, 0"
    };
}
#[cfg(not(target_pointer_width = "64"))]
macro_rules! pointer_directive {
    () => {
        ".long 0, 0"
    };
}
#[cfg(target_arch = "arm")]
macro_rules! return_instruction {
    () => {
        "bx lr"
    };
}
#[cfg(not(target_arch = "arm"))]
macro_rules! return_instruction {
    () => {
        "ret"
    };
}

#[cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm", target_arch = "riscv64")
))]
mod ours {
    // Rust has no stable way to define a weak symbol.
    std::arch::global_asm!(
        ".pushsection .text.__jit_debug_register_code,\"ax\",%progbits",
        ".p2align 4",
        ".weak __jit_debug_register_code",
        ".type __jit_debug_register_code,%function",
        "__jit_debug_register_code:",
        return_instruction!(),
        ".size __jit_debug_register_code, .-__jit_debug_register_code",
        ".popsection",
        ".pushsection .data.__jit_debug_descriptor,\"aw\",%progbits",
        ".p2align 3",
        ".weak __jit_debug_descriptor",
        ".type __jit_debug_descriptor,%object",
        "__jit_debug_descriptor:",
        ".long 1, 0",
        pointer_directive!(),
        ".size __jit_debug_descriptor, .-__jit_debug_descriptor",
        ".popsection",
    );

    unsafe extern "C" {
        fn __jit_debug_register_code();
        static mut __jit_debug_descriptor: super::Descriptor;
    }

    pub(super) fn interface() -> Option<super::Interface> {
        let register_code: super::RegisterCode = __jit_debug_register_code;
        Some(super::Interface { descriptor: &raw mut __jit_debug_descriptor as usize, register_code })
    }
}
#[cfg(not(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm", target_arch = "riscv64")
)))]
mod ours {
    pub(super) fn interface() -> Option<super::Interface> {
        None
    }
}

/// Where the interface of this process is.
#[derive(Clone, Copy)]
struct Interface {
    /// Address of the [`Descriptor`].
    descriptor: usize,
    register_code: RegisterCode,
}

fn interface() -> Option<Interface> {
    static FOUND: LazyLock<Option<Interface>> = LazyLock::new(|| {
        let theirs = process::function(c"__jit_debug_descriptor")
            .zip(process::function(c"__jit_debug_register_code"))
            .map(|(descriptor, function)| {
                // SAFETY: the symbol of that name is `void __jit_debug_register_code(void)` (GDB manual).
                let register_code = unsafe { mem::transmute::<usize, RegisterCode>(function as usize) };
                Interface { descriptor: descriptor as usize, register_code }
            });
        theirs.or_else(ours::interface)
    });
    *fork::force(&FOUND)
}

/// The list belongs to the process, not to a listener.
static LIST: Mutex<()> = Mutex::new(());

/// Tells GDB (and LLDB) about loaded objects, so that breakpoints by function and by line, backtraces and variables
/// work in them.
///
/// Each object is registered when it is loaded, with a copy of its debug information, and deregistered when its image
/// goes. That costs memory and time in proportion to the debug information, and a debugger that is attached stops the process
/// for each object: add this listener when somebody debugs, not always. It also works for a debugger that attaches later.
///
/// A loader with this listener puts code into [`PageMemory`](crate::PageMemory) unless it is given a memory manager: Linux
/// refuses to write breakpoints into memory that is mapped twice, as that of `SlabMemory` is. Backtraces and variables work
/// there, and breakpoints of the processor's own (`hbreak`).
///
/// The debugger finds the interface by the symbols `__jit_debug_register_code` and `__jit_debug_descriptor`: a program
/// that is stripped of its symbols cannot be debugged this way unless it exports them. If another library's pair is
/// used (LLVM's), its own lock is out of our reach: do not register with it from other threads at the same time.
#[derive(Default)]
pub struct GdbListener {
    registered: Mutex<HashMap<ImageId, Vec<Registration>>>,
    problem: Mutex<Option<LoadError>>,
}

impl GdbListener {
    /// A listener that knows of no image yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Why the debug information of an object was left out, if that happened since this was last asked: the latest case.
    /// Such an object is registered with its symbols alone.
    pub fn take_problem(&self) -> Option<LoadError> {
        fork::lock(&self.problem).take()
    }
}

impl EventListener for GdbListener {
    fn notify_loaded(&self, loaded: &LoadedObject<'_>) {
        let file = loaded.symbol_file().or_else(|problem| {
            *fork::lock(&self.problem) = Some(problem);
            loaded.symbol_file_without_debug_info()
        });
        match file {
            Ok(file) => {
                if let Some(registration) = Registration::new(file) {
                    fork::lock(&self.registered).entry(loaded.image()).or_default().push(registration);
                }
            }
            Err(problem) => *fork::lock(&self.problem) = Some(problem),
        }
    }

    fn sets_breakpoints(&self) -> bool {
        true
    }

    fn notify_freeing(&self, image: ImageId) {
        let registrations = fork::lock(&self.registered).remove(&image);
        drop(registrations);
    }
}

/// An entry of the list. Dropping it takes it out.
struct Registration {
    interface: Interface,
    /// Made by `Box::into_raw`; the list and the debugger refer to it.
    entry: *mut CodeEntry,
    /// What the entry refers to.
    _symbol_file: Box<[u8]>,
}

// SAFETY: the entry is only touched under the list's lock, from whichever thread.
unsafe impl Send for Registration {}

impl Registration {
    fn new(symbol_file: Vec<u8>) -> Option<Self> {
        let interface = interface()?;
        let symbol_file = symbol_file.into_boxed_slice();
        let entry = Box::into_raw(Box::new(CodeEntry {
            next: ptr::null_mut(),
            previous: ptr::null_mut(),
            symbol_file: symbol_file.as_ptr(),
            symbol_file_size: symbol_file.len() as u64,
        }));
        let _lock = fork::lock(&LIST);
        // SAFETY: the descriptor is the process's; all who keep to the interface change it one at a time. The entry is
        // ours, and new.
        unsafe { link(interface, entry) };
        Some(Registration { interface, entry, _symbol_file: symbol_file })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _lock = fork::lock(&LIST);
        // SAFETY: the entry was linked when it was made, and is unlinked here, once.
        unsafe { unlink(self.interface, self.entry) };
        // SAFETY: it came from `Box::into_raw`, and nobody refers to it any more.
        drop(unsafe { Box::from_raw(self.entry) });
    }
}

/// Puts an entry at the head of the list and tells the debugger.
///
/// # Safety
/// The interface must be the process's, the lock be held, the entry be in no list.
unsafe fn link(interface: Interface, entry: *mut CodeEntry) {
    // SAFETY: the descriptor is a static variable, which only holders of the lock touch.
    let descriptor = unsafe { &mut *(interface.descriptor as *mut Descriptor) };
    let next = descriptor.first_entry;
    // SAFETY: the entry is a live allocation that nobody else refers to yet.
    unsafe { (*entry).next = next };
    if !next.is_null() {
        // SAFETY: entries of the list are alive until they are unlinked.
        unsafe { (*next).previous = entry };
    }
    descriptor.first_entry = entry;
    // SAFETY: the list is whole again.
    unsafe { tell(interface, entry, REGISTER) };
}

/// Takes an entry out of the list and tells the debugger.
///
/// # Safety
/// As for [`link`], but the entry is in the list.
unsafe fn unlink(interface: Interface, entry: *mut CodeEntry) {
    // SAFETY: the entry is alive, and read under the lock.
    let CodeEntry { next, previous, .. } = unsafe { ptr::read(entry) };
    if !next.is_null() {
        // SAFETY: entries of the list are alive until they are unlinked.
        unsafe { (*next).previous = previous };
    }
    if previous.is_null() {
        // SAFETY: the descriptor is a static variable, which only holders of the lock touch.
        unsafe { (*(interface.descriptor as *mut Descriptor)).first_entry = next };
    } else {
        // SAFETY: as above.
        unsafe { (*previous).next = next };
    }
    // SAFETY: the list is whole again; the entry itself is still alive.
    unsafe { tell(interface, entry, UNREGISTER) };
}

/// Calls the function on which the debugger has its breakpoint.
///
/// # Safety
/// The interface must be the process's, and the lock be held.
unsafe fn tell(interface: Interface, entry: *mut CodeEntry, action: u32) {
    let descriptor = interface.descriptor as *mut Descriptor;
    let first_entry = {
        // SAFETY: the descriptor is a static variable, which only holders of the lock touch.
        unsafe { (*descriptor).first_entry }
    };
    let telling = Descriptor { version: VERSION, action, relevant_entry: entry, first_entry };
    // SAFETY: as above. Volatile, since it is another process that reads it.
    unsafe { descriptor.write_volatile(telling) };
    // SAFETY: it takes nothing and does nothing.
    unsafe { (interface.register_code)() };
    let told =
        Descriptor { version: VERSION, action: NO_ACTION, relevant_entry: ptr::null_mut(), first_entry };
    // SAFETY: as above.
    unsafe { descriptor.write_volatile(told) };
}
