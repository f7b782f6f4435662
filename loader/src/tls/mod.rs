//! Thread-local variables of loaded images in this process.
//!
//! The dynamic linker gives every thread a block per shared library, and knows nothing of our images. So objects get
//! their own `__tls_get_addr` and descriptor resolver ("ELF Handling For Thread-Local Storage"; for descriptors "TLS
//! Descriptors for IA32 and AMD64/EM64T" and the AArch64 one): a *module* is an image with such variables, its number
//! is never used again, and each thread gets a copy of the module's template when it first asks. A thread's blocks go
//! with the thread, all blocks of a module with the image.
//!
//! Code of the initial-exec and local-exec models knows a variable only by a distance from the thread pointer that is the
//! same in every thread. As long as variables begin as zero and there is room, they live in a *reserve* that the loader sets
//! aside in every thread from its birth; a part that was given away is never used again. Running threads cannot be
//! reached to write there, so for all others the code gets detours that ask for this thread's block (`link/detours.rs`).
//! Variables of the process itself are reached as the code says, if they have such a distance.
//!
//! Limits: threads other than the one that drops an image do not run its thread-local destructors
//! ([`destructors`]); and a child of `fork` in a process with other threads must not ask for a block that its thread
//! did not have before.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod blocks;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod descriptor;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod destructors;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod modules;
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod nowhere;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod pointer;

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod here {
    pub(crate) use super::blocks::function as get_addr;
    #[cfg(target_arch = "x86_64")]
    pub(crate) use super::descriptor::SAVED_STATE;
    pub(crate) use super::descriptor::{of_offset as descriptor_of, prepare as prepare_to_save_registers};
    pub(crate) use super::destructors::{forget, function as thread_atexit, run_and_forget};
    pub(crate) use super::modules::Module;
    pub(crate) use super::pointer::{Reserved, set_aside, thread_offsets};
}
#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
use nowhere as here;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) use here::SAVED_STATE;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use here::prepare_to_save_registers;
pub(crate) use here::{
    Module, Reserved, descriptor_of, forget, get_addr, run_and_forget, set_aside, thread_atexit,
    thread_offsets,
};

/// What the blocks of a module begin as.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Template {
    /// Target address of the content.
    pub(crate) address: u64,
    /// Bytes of content; the rest of the block is zero.
    pub(crate) content: u64,
    /// Bytes of a block.
    pub(crate) size: u64,
    /// A power of two; 0 if there is no block.
    pub(crate) align: u64,
}

/// A thread-local variable of the process, with its address in this thread.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code)
)]
pub(crate) struct Variable<'v> {
    pub(crate) name: &'v str,
    pub(crate) address: u64,
}

/// In place of a module's number: the offset beside it is from the thread pointer.
pub(crate) const IN_EVERY_THREAD: u64 = 0;

/// The names that objects call and that mean functions of this module instead of the process's.
pub(crate) fn function(name: &[u8]) -> Option<u64> {
    match name {
        b"__tls_get_addr" => get_addr(),
        b"__cxa_thread_atexit" | b"__cxa_thread_atexit_impl" => thread_atexit(),
        _ => None,
    }
}
