//! Events: who wants to know what was loaded (debuggers, profilers, tests) listens here.

use crate::graph::LinkGraph;
use crate::link::{Exports, ImageSymbol};
use crate::memory::Segment;

/// Number of a loaded image, unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(pub(crate) u64);

/// Is told about images. Called from the thread that loads or drops, from many threads at once. A listener cannot
/// fail a load.
pub trait EventListener: Send + Sync {
    /// An image is complete and can be called. Its initialisers have not run.
    fn notify_loaded(&self, loaded: &LoadedObject<'_>);

    /// An image that was announced is about to go: its memory is freed after this returns.
    fn notify_freeing(&self, image: ImageId);
}

/// An object that was loaded, as a listener sees it.
pub struct LoadedObject<'a> {
    pub(crate) image: ImageId,
    pub(crate) object: &'a [u8],
    pub(crate) graph: &'a LinkGraph<'a>,
    pub(crate) exports: &'a Exports,
}

/// One section of a loaded object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadedSection<'a> {
    /// Number of the section in the object.
    pub number: usize,
    /// Its name as in the object.
    pub name: &'a [u8],
    /// The segment it was loaded to.
    pub segment: Segment,
    /// Offset in the segment.
    pub offset: u64,
    /// Target address.
    pub address: u64,
    /// Bytes.
    pub size: u64,
}

impl<'a> LoadedObject<'a> {
    /// The image's number; the same is given to [`EventListener::notify_freeing`].
    pub fn image(&self) -> ImageId {
        self.image
    }

    /// The object file.
    pub fn object(&self) -> &'a [u8] {
        self.object
    }

    /// The sections that were loaded.
    pub fn sections(&self) -> impl Iterator<Item = LoadedSection<'a>> {
        self.graph.sections.iter().enumerate().filter_map(|(number, section)| {
            Some(LoadedSection {
                number,
                name: section.name,
                segment: section.segment?,
                offset: section.offset,
                address: section.address,
                size: section.size,
            })
        })
    }

    /// What the compiler has to say to a linker of programs (COFF `.drectve`: `/EXPORT`, `/DEFAULTLIB`, …), as it stands in
    /// the object. The loader acts on none of it but alignments of common symbols.
    pub fn directives(&self) -> impl Iterator<Item = &'a [u8]> {
        self.graph.sections.iter().filter(|section| section.name == b".drectve").map(|section| section.bytes)
    }

    /// The exported symbols.
    pub fn symbols(&self) -> impl Iterator<Item = ImageSymbol<'a>> {
        self.exports.iter()
    }
}
