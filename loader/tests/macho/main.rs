//! Mach-O objects: called in process on Linux, held against `ld64.lld`, mutated.

#[path = "../support/mod.rs"]
mod support;

mod hostile;
mod lld;
mod run;
mod single;
mod together;
mod whole;
