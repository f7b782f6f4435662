//! The parts of `link`: what it is given, where things go, and how the result is written down.

pub(crate) mod image;
pub(crate) mod inputs;
pub(crate) mod layout;
pub(crate) mod options;
pub(crate) mod placement;
pub(crate) mod target;
