//! A linker we did not write must agree: what this loader links is compared, byte for byte, with what `ld.lld` makes
//! of the same object at the same addresses, for every ELF machine, and what lld does not know with GNU ld's.
//!
//! [`whole`]: real compilers' objects, with their unwind tables ([`frames`], [`exidx`]) and thread-local variables
//! ([`threads`]). [`generated`]: every relocation kind with values at and around its limits, by the tables in
//! [`machines`], in programs and in shared libraries; [`machine`] says how to add to them. `OBJCACHE_ORACLE_CASES=100000` generates more than the usual number,
//! `OBJCACHE_ORACLE_SEED=2` others, `OBJCACHE_ORACLE_KINDS=1` prints the counts by kind.

#![allow(unreachable_pub)] // A test crate has no other users.

#[path = "../support/mod.rs"]
mod support;

mod case;
mod corpus;
mod exidx;
mod frames;
mod generated;
mod gnu;
mod lld;
mod machine;
mod machines;
mod threads;
mod whole;
