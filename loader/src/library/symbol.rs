//! A symbol of a library that keeps its image in memory.

use std::fmt;
use std::ops::Deref;

use super::names::Keep;

/// A symbol got from a library: dereferences to the pointer, and keeps the image that it points into, or the stub, as long
/// as it lives. What a stub leads to it does not keep: see [`pin`](super::pin).
#[derive(Clone)]
pub struct LibrarySymbol<F> {
    pub(super) pointer: F,
    pub(super) keep: Keep,
}

impl<F> LibrarySymbol<F> {
    /// Whether it points to a stub, so that what it leads to may change.
    pub fn is_redirectable(&self) -> bool {
        matches!(self.keep, Keep::Function(_))
    }
}

impl<F> Deref for LibrarySymbol<F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.pointer
    }
}

impl<F: fmt::Debug> fmt::Debug for LibrarySymbol<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pointer.fmt(f)
    }
}
