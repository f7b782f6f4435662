//! What the protocols here are made of. The model checker's tests compile [`switch`](super::switch) with its own.

pub(super) use parking_lot::{Condvar, Mutex};
