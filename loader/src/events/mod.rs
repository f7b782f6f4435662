//! Events: who wants to know what was loaded (debuggers, profilers, tests) listens here.
//!
//! For each image, in this order: its memory is complete, its unwind tables are registered,
//! [`notify_loaded`](EventListener::notify_loaded) is called once per object, in the order of the link and for each object
//! in the order in which listeners were added; then the image is given to the client. When it is dropped: finalisers and
//! static destructors run, [`notify_freeing`](EventListener::notify_freeing) is called once, on listeners in the reverse
//! order, then unwind tables are deregistered, and at last memory is freed. A load that fails tells nobody: the last thing
//! that can fail comes before the first call. Without listeners none of this costs anything.

mod files;
mod gdb;
mod jitdump;
mod marker;
mod perf_map;

use std::borrow::Cow;

pub use gdb::GdbListener;
pub use jitdump::JitDump;
pub use perf_map::PerfMap;

use crate::arch::with_architecture;
use crate::debug::{self, DebugSections};
use crate::error::LoadError;
use crate::graph::{Binding, SymbolKind};
use crate::limits::Limits;
use crate::link::{Exports, ImageSymbol, Link, SymbolRecord};
use crate::memory::Segment;

/// Number of a loaded image, unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(pub(crate) u64);

impl ImageId {
    /// Of an image that no listener hears of.
    #[cfg(feature = "symbolize")]
    pub(crate) const UNANNOUNCED: Self = ImageId(0);
}

/// Is told about images. Called from the thread that loads or drops, from many threads at once. A listener cannot
/// fail a load, must not unwind, and may itself load and drop images as long as it knows where to stop.
pub trait EventListener: Send + Sync {
    /// An image is complete and can be called. Its initialisers have not run. Of an image made of several objects each
    /// is announced.
    fn notify_loaded(&self, loaded: &LoadedObject<'_>);

    /// An image that was announced is about to go: its memory is freed after this returns.
    fn notify_freeing(&self, image: ImageId);

    /// A debugger will write breakpoints into the code. Linux lets it do so in private mappings only, so that a loader with
    /// such a listener uses [`PageMemory`](crate::PageMemory) unless told otherwise.
    fn sets_breakpoints(&self) -> bool {
        false
    }
}

/// An object that was loaded, as a listener sees it. What is not a mere look at it is worked out when asked for.
pub struct LoadedObject<'a> {
    pub(crate) image: ImageId,
    pub(crate) bytes: &'a [u8],
    pub(crate) link: Link<'a, 'a>,
    pub(crate) exports: &'a Exports,
    pub(crate) limits: &'a Limits,
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

/// A function of a loaded object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadedFunction<'a> {
    /// Its name, as in the object; bytes that are not UTF-8 are replaced.
    pub name: Cow<'a, str>,
    /// Target address of its first byte.
    pub address: u64,
    /// Bytes: what the object says, else up to the next function or the end of the section.
    pub size: u64,
    /// Number of its section in the object.
    pub section: usize,
}

impl<'a> LoadedObject<'a> {
    /// The image's number; the same is given to [`EventListener::notify_freeing`].
    pub fn image(&self) -> ImageId {
        self.image
    }

    /// What the object was called in [`Loader::load_all`](crate::Loader::load_all); empty for a single one.
    pub fn name(&self) -> &'a str {
        self.link.object.graph.name
    }

    /// The object file.
    pub fn object(&self) -> &'a [u8] {
        self.bytes
    }

    /// The sections that were loaded.
    pub fn sections(&self) -> impl Iterator<Item = LoadedSection<'a>> {
        self.link.object.graph.sections.iter().enumerate().filter_map(|(number, section)| {
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
        let sections = self.link.object.graph.sections.iter();
        sections.filter(|section| section.name == b".drectve").map(|section| section.bytes)
    }

    /// Compact unwind entries (`__LD,__compact_unwind` of Mach-O objects), as they stand in the object: linkers of programs make
    /// `__unwind_info` of them, no unwinder uses them, and so they are not loaded. Addresses in them are the object's own.
    pub fn compact_unwind(&self) -> impl Iterator<Item = &'a [u8]> {
        let sections = self.link.object.graph.sections.iter();
        sections.filter(|section| section.name == b"__LD,__compact_unwind").map(|section| section.bytes)
    }

    /// The exported symbols of the image, those of all its objects.
    pub fn symbols(&self) -> impl Iterator<Item = ImageSymbol<'a>> {
        self.exports.iter()
    }

    /// The functions that this object brought into the image, by address; local ones and labels of assembly code
    /// included. Of several names for one address a global one is taken.
    ///
    /// # Errors
    /// A name cannot be read, or all together are longer than [`Limits`] allow.
    pub fn functions(&self) -> Result<Vec<LoadedFunction<'a>>, LoadError> {
        let mut functions: Vec<_> = self.symbol_records()?;
        functions.retain(|record| self.is_function(record));
        let rank = |binding| match binding {
            Binding::Global => 0,
            Binding::Weak => 1,
            Binding::Local => 2,
        };
        functions.sort_by_key(|record| (record.address, record.size == 0, rank(record.binding)));
        functions.dedup_by_key(|record| record.address);
        let ends: Vec<u64> = functions.iter().skip(1).map(|next| next.address).chain([u64::MAX]).collect();
        let functions = functions.into_iter().zip(ends).filter_map(|(record, next)| {
            let section = record.section? as usize;
            let home = &self.link.object.graph.sections[section];
            let room = home.address.wrapping_add(home.size).min(next).saturating_sub(record.address);
            let size = if record.size == 0 { room } else { record.size };
            let name = String::from_utf8_lossy(record.name);
            Some(LoadedFunction { name, address: record.address, size, section })
        });
        Ok(functions.collect())
    }

    /// Assembly code need not say what is a function; its labels beginning with `.L` are for the assembler, those
    /// beginning with `$` tell instruction sets apart.
    fn is_function(&self, record: &SymbolRecord<'_>) -> bool {
        let section = record.section.map(|section| &self.link.object.graph.sections[section as usize]);
        let is_code = section.is_some_and(|section| section.segment == Some(Segment::Code));
        let is_label = record.name.starts_with(b".L") || record.name.starts_with(b"$");
        match record.kind {
            SymbolKind::Function | SymbolKind::IndirectFunction => is_code,
            SymbolKind::Unknown => is_code && !is_label,
            _ => false,
        }
    }

    /// The object as a debugger wants it: an ELF file with the addresses of the sections that were loaded, the symbols, the
    /// call frame information, and the debug information with its relocations applied. The loaded sections themselves
    /// are in memory and not in the file.
    ///
    /// # Errors
    /// The debug information cannot be used: it is compressed, or malformed.
    /// [`symbol_file_without_debug_info`](Self::symbol_file_without_debug_info) has the rest.
    pub fn symbol_file(&self) -> Result<Vec<u8>, LoadError> {
        let debug = self.debug_sections()?;
        debug::symbol_file(self, debug)
    }

    /// The same without debug information.
    ///
    /// # Errors
    /// The symbols cannot be read.
    pub fn symbol_file_without_debug_info(&self) -> Result<Vec<u8>, LoadError> {
        debug::symbol_file(self, DebugSections::default())
    }

    pub(crate) fn symbol_records(&self) -> Result<Vec<SymbolRecord<'a>>, LoadError> {
        with_architecture!(self.link.object.graph.machine, A => self.link.symbol_records::<A>(self.limits))
    }

    pub(crate) fn debug_sections(&self) -> Result<DebugSections<'a>, LoadError> {
        debug::sections(&self.link, self.bytes, self.limits)
    }

    /// The bytes of a loaded section, as they are in memory.
    pub(crate) fn section_content(&self, number: usize) -> Result<Vec<u8>, LoadError> {
        with_architecture!(self.link.object.graph.machine, A => self.link.section_content::<A>(number))
    }
}
