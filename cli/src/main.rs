//! The `objcache` program: the library from a shell.
//!
//! One file per command under `commands/`. A command turns its options into calls of the library and the
//! answer into a [`Report`](output::Report); it knows nothing that a library user could not know too.

#![deny(unsafe_code)]

mod args;
mod call;
mod commands;
mod compile_options;
mod context;
mod differences;
mod failure;
mod files;
mod ingredients;
mod inspected;
mod link;
mod log;
mod negative;
mod object_summary;
mod observers;
mod output;
mod signals;
mod units;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    ExitCode::from(commands::main(words))
}
