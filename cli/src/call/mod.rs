//! From words on the command line to a call: which function, with which arguments, and what came of it.

pub(crate) mod arguments;
pub(crate) mod buffer;
pub(crate) mod function;
pub(crate) mod invoke;
pub(crate) mod number;
pub(crate) mod symbols;
