//! Packs: many entries in one file that is never changed, to be shipped, used in place or taken in.
//!
//! [`format`] says what the bytes mean, [`writer`] makes a pack in one pass, as a [`draft`] that takes its name when it
//! is done, where [`destination`] says and when it is its [`turn`]. [`reader`] finds entries in one without reading it
//! all. An entry in a pack has the format of an entry file, so both are verified by the same code, and taking one in is
//! a copy but for how its object is compressed.

mod destination;
mod draft;
mod format;
mod reader;
mod turn;
mod writer;

pub(crate) use destination::destination;
pub(crate) use reader::{CheckedEntry, Found};
pub use reader::{Pack, PackEntry, PackSummary};
pub(crate) use turn::Turn;
pub(crate) use writer::PackWriter;
