//! The loader beside LLVM's, `dlopen` and the floors: in one process and one run, taking turns.
//!
//! Everything is measured in CPU time of the thread that works, which other processes on the machine disturb least, and told
//! as medians. `README.md` says what is compared and how to run it.

#![deny(unsafe_code)]

pub mod cases;
pub mod foreign;
pub mod measure;
pub mod peers;
pub mod table;
pub mod workloads;

#[path = "../../src/c_code.rs"]
#[allow(dead_code)] // That crate's benches use all of it.
mod c_code;
