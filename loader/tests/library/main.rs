//! Libraries: names and their rules, who keeps what, functions that are made late and replaced while they run.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))] // What the objects are made for.

#[path = "../support/mod.rs"]
mod support;

mod code;
mod forks;
mod functions;
mod initializers;
mod lifetime;
mod names;
mod stress;
