//! Packs: many entries in one file that is never changed, to be shipped, used in place or taken in.
//!
//! [`format`] says what the bytes mean, [`writer`] makes a pack in one pass, [`reader`] finds entries in one
//! without reading it all. An entry in a pack is an entry file byte for byte, so taking one in is a copy, and
//! both are verified by the same code.

mod format;
mod reader;
mod writer;

pub(crate) use reader::Found;
pub use reader::{Pack, PackEntry, PackSummary};
pub(crate) use writer::PackWriter;
