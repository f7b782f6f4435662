//! COFF objects: held against `lld-link`, called in process, mutated.

#[path = "../support/mod.rs"]
mod support;

mod lld;
mod single;
mod whole;
