//! COFF objects: held against `lld-link` (and GNU ld), called in process, mutated.

#[path = "../support/mod.rs"]
mod support;

mod gnu;
mod hostile;
mod kinds;
mod lld;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod run;
mod single;
mod symbols;
mod whole;
