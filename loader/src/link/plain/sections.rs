//! Sections: which are loaded, and where to. They get their offsets as they are read.

use std::ops::Range;

use object::elf;
use object::read::elf::SectionHeader as _;
use smallvec::{SmallVec, smallvec};

use super::{FileHeader, Header, ORDER, Tables};
use crate::arch::Architecture;
use crate::limits::Limits;
use crate::link::layout::{Cursor, EH_FRAME_TERMINATOR};
use crate::memory::{MemoryRequest, Segment};
use crate::read::elf::{SectionNames, content, section_headers};
use crate::unwind::FrameTable;

/// The sections of an object.
pub(super) struct Sections<'a> {
    pub(super) headers: &'a [Header],
    pub(super) places: SmallVec<[Place; 16]>,
    pub(super) names: SectionNames<'a>,
    /// Number of the symbol table; 0 if there is none.
    pub(super) symbol_table: usize,
    /// All groups are among these numbers.
    pub(super) groups: Range<usize>,
    /// Numbers of those with call frame information.
    frames: SmallVec<[u32; 1]>,
    /// Some section has language-specific unwind data.
    catches: bool,
    cursor: Cursor,
}

/// Where a section is in the image. Small: objects may have a section for each function.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// `None`: it is not loaded.
    pub(super) segment: Option<Segment>,
    /// There is nothing to fix up, or it is done.
    pub(super) is_fixed_up: bool,
    /// In the segment.
    pub(super) offset: u32,
    pub(super) size: u32,
}

impl Place {
    const NOT_LOADED: Place = Place { segment: None, is_fixed_up: true, offset: 0, size: 0 };

    /// Target address, if the section is loaded.
    #[inline(always)]
    pub(super) fn address(&self, bases: [u64; 3]) -> Option<u64> {
        Some(bases[self.segment?.index()].wrapping_add(self.offset.into()))
    }
}

/// What a section's name and flags make of it.
enum Meaning {
    NotLoaded,
    Plain(Segment),
    Frames(Segment),
    ExceptTable(Segment),
}

impl<'a> Sections<'a> {
    /// Reads all of them. Thread-local variables and initialisers are not plain.
    pub(super) fn read<A: Architecture>(
        object: &'a [u8],
        file: &'a FileHeader,
        limits: &Limits,
    ) -> Option<Self> {
        let headers = section_headers(object, file, limits).ok()?;
        let names = SectionNames::of(object, file, headers, limits).ok()?;
        let strings = names.short()?;
        let mut sections = Sections {
            headers,
            places: smallvec![Place::NOT_LOADED; headers.len()],
            names,
            symbol_table: 0,
            groups: 0..0,
            frames: SmallVec::new(),
            catches: false,
            cursor: Cursor::new(limits),
        };
        // Nothing overlaps in the file, so all together take no more bytes than there are.
        let mut bytes_left = object.len() as u64;
        let (mut reach, mut any_zero_filled) = (0u64, false);
        for (number, header) in headers.iter().enumerate() {
            let kind = header.sh_type(ORDER);
            if header.sh_flags(ORDER).0 & elf::SHF_ALLOC.0 == 0 {
                sections.note_table(number, kind)?;
                continue;
            }
            let align = alignment(header.sh_addralign(ORDER), limits)?;
            let size = header.sh_size(ORDER);
            let (segment, tail) = match meaning(header, kind, strings)? {
                Meaning::NotLoaded => continue,
                Meaning::Plain(segment) => (segment, 0),
                Meaning::Frames(segment) => {
                    sections.frames.push(number as u32);
                    (segment, EH_FRAME_TERMINATOR)
                }
                Meaning::ExceptTable(segment) => {
                    sections.catches |= size != 0;
                    (segment, 0)
                }
            };
            reach = reach.checked_add(size)?.checked_add(align)?;
            let place = &mut sections.places[number];
            place.segment = Some(segment);
            place.size = u32::try_from(size).ok()?;
            if kind == elf::SHT_NOBITS {
                any_zero_filled = true;
                continue;
            }
            place.is_fixed_up = false;
            content::<FileHeader>(object, header, "").ok()?;
            bytes_left = bytes_left.checked_sub(size)?;
            place.offset = sections.cursor.place(segment, size + tail, align).ok()? as u32;
        }
        // As the phases decide that branches reach all of an image.
        if reach.checked_mul(2)? >= A::BRANCH_REACH {
            return None;
        }
        if any_zero_filled {
            sections.place_zero_filled(limits)?;
        }
        Some(sections)
    }

    /// A section that is not loaded.
    fn note_table(&mut self, number: usize, kind: elf::SectionType) -> Option<()> {
        match kind {
            elf::SHT_SYMTAB if self.symbol_table == 0 && number != 0 => self.symbol_table = number,
            elf::SHT_SYMTAB | elf::SHT_SYMTAB_SHNDX | elf::SHT_REL | elf::SHT_CREL => return None,
            elf::SHT_GROUP if self.groups.is_empty() => self.groups = number..number + 1,
            elf::SHT_GROUP => self.groups.end = number + 1,
            _ => {}
        }
        Some(())
    }

    /// They stand behind what has content.
    #[inline(never)]
    fn place_zero_filled(&mut self, limits: &Limits) -> Option<()> {
        for (place, header) in self.places.iter_mut().zip(self.headers) {
            let Some(segment) = place.segment else { continue };
            if header.sh_type(ORDER) != elf::SHT_NOBITS {
                continue;
            }
            let align = alignment(header.sh_addralign(ORDER), limits)?;
            if segment == Segment::Code && place.size != 0 {
                return None;
            }
            place.offset = self.cursor.place(segment, place.size.into(), align).ok()? as u32;
        }
        Some(())
    }

    /// How much memory all of it takes, with room for a stub and a GOT entry for each of so many symbols.
    pub(super) fn request<A: Architecture>(&mut self, symbols: u64) -> Option<(MemoryRequest, Tables)> {
        let stubs = self.cursor.place_table(Segment::Code, symbols * A::STUB_SIZE, A::STUB_ALIGN).ok()?;
        let slots = self.cursor.place_table(Segment::ReadOnly, symbols * A::SLOT_SIZE, A::SLOT_SIZE).ok()?;
        Some((self.cursor.request(false).ok()?, Tables { stubs, slots }))
    }

    pub(super) fn catches(&self) -> bool {
        self.catches
    }

    /// Tables of call frame information.
    pub(super) fn frames(&self, bases: [u64; 3]) -> impl Iterator<Item = FrameTable> {
        let places = self.frames.iter().map(|number| self.places[*number as usize]);
        places.filter(|place| place.size != 0).filter_map(move |place| {
            Some(FrameTable { address: place.address(bases)?, size: place.size.into() })
        })
    }

    /// The code, as it is in the object.
    pub(super) fn code(&self, object: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let code = self.headers.iter().zip(&self.places);
        let code = code.filter(|(_, place)| place.segment == Some(Segment::Code));
        code.filter_map(|(header, _)| content::<FileHeader>(object, header, "").ok())
    }
}

/// What becomes of a section that takes memory, if it is plain. `names` ends in a NUL.
#[inline(always)]
fn meaning(header: &Header, kind: elf::SectionType, names: &[u8]) -> Option<Meaning> {
    let flags = header.sh_flags(ORDER);
    let has = |flag: elf::SectionFlags| flags.0 & flag.0 != 0;
    let name = names.get(header.sh_name(ORDER) as usize..).filter(|name| !name.is_empty())?;
    if has(elf::SHF_EXCLUDE) || has(elf::SHF_COMPRESSED) || has(elf::SHF_TLS) {
        return None;
    }
    let has_content = match kind {
        elf::SHT_PROGBITS | elf::SHT_X86_64_UNWIND => true,
        elf::SHT_NOTE if name.starts_with(b".note.gnu.property\0") => return Some(Meaning::NotLoaded),
        elf::SHT_NOTE => true,
        elf::SHT_NOBITS => false,
        _ => return None,
    };
    let segment = match (has(elf::SHF_EXECINSTR), has(elf::SHF_WRITE)) {
        (true, true) => return None,
        (true, false) => return Some(Meaning::Plain(Segment::Code)),
        (false, true) => Segment::Data,
        (false, false) => Segment::ReadOnly,
    };
    let is = |stem: &[u8]| matches!(name.strip_prefix(stem), Some([0 | b'.', ..]));
    // By the letter that tells most names from all that mean something.
    let (mut segment, mut catches) = (segment, false);
    match name.get(1).unwrap_or(&0) {
        b'A' if is(b".ARM.exidx") => return None,
        b'c' if is(b".ctors") => return None,
        b'd' if is(b".dtors") => return None,
        b'd' if is(b".data.rel.ro") => segment = Segment::ReadOnly,
        b'f' if is(b".fini_array") => return None,
        b'g' => catches = is(b".gcc_except_table"),
        b'i' if is(b".init_array") => return None,
        _ => {}
    }
    let is_frames = kind == elf::SHT_X86_64_UNWIND || name.starts_with(b".eh_frame\0");
    match (is_frames, catches) {
        (false, false) => Some(Meaning::Plain(segment)),
        _ if !has_content => None,
        (true, _) => Some(Meaning::Frames(segment)),
        (false, true) => Some(Meaning::ExceptTable(segment)),
    }
}

#[inline(always)]
fn alignment(align: u64, limits: &Limits) -> Option<u64> {
    let align = align.max(1);
    (align.is_power_of_two() && align <= limits.alignment.min(Limits::MAX_ALIGNMENT)).then_some(align)
}
