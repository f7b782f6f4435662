//! Code for another process: linked in this one, run there.
//!
//! An *executor* is a process at the other end of a socket that maps memory, calls functions and says what they returned
//! ([`serve_executor`]; the program `objcache-executor` does nothing else). [`Executor`] is this process's end: it starts one, asks
//! it for the addresses of its symbols, has it call what was loaded. [`RemoteMemory`] is the memory manager: bytes are
//! written here, to shared memory, and sealed; the executor maps them where it said they would be, code never writable.
//!
//! A crash of loaded code ends the executor, not this process: whatever was asked of it, then and later, is an error.

mod client;
mod executor;
mod memory;
mod protocol;

pub use client::{Executor, RemoteError};
pub use executor::serve_executor;
pub use memory::RemoteMemory;
