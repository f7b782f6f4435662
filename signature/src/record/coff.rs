//! The section `.comment` of a COFF object, read and replaced; both of the usual form and of `/bigobj`.
//!
//! As `.llvm_addrsig` it is `IMAGE_SCN_LNK_REMOVE`, "will not become part of the image" (Microsoft, "PE Format",
//! Section Flags), so no linker takes it, and the tools that copy objects keep it. With `IMAGE_SCN_LNK_INFO`,
//! "comments or other information", GNU binutils would take it for debug information and strip it as such.
//!
//! The header goes behind the other section headers, the contents to the end of the file. What stands behind the
//! headers moves by the length of one, so the file offsets in the headers are rewritten. Symbols name sections by
//! number and strings by their place in the string table: all contents stay as they are.

use super::RecordError;
use super::numbers::{self, extent, malformed};
use super::splice::{Splice, Splices};

const NAME: &[u8; 8] = b".comment";

const IMAGE_SCN_CNT_UNINITIALIZED_DATA: u64 = 0x80;
const IMAGE_SCN_LNK_REMOVE: u64 = 0x800;
const IMAGE_SCN_LNK_COMDAT: u64 = 0x1000;
const IMAGE_SCN_ALIGN_1BYTES: u64 = 0x0010_0000;
const IMAGE_SCN_LNK_NRELOC_OVFL: u64 = 0x0100_0000;

/// Machines of COFF objects that have a meaning today: i386, ARM, Thumb, ARMNT, x86-64, ARM64 and its two mixed
/// forms. The number stands first in the file, where other formats have their magic.
const MACHINES: [[u8; 2]; 8] = [
    [0x4c, 0x01],
    [0xc0, 0x01],
    [0xc2, 0x01],
    [0xc4, 0x01],
    [0x64, 0x86],
    [0x64, 0xaa],
    [0x41, 0xa6],
    [0x4e, 0xa6],
];

/// `ANON_OBJECT_HEADER_BIGOBJ`: its class identifier.
const BIGOBJ: [u8; 16] =
    [0xc7, 0xa1, 0xba, 0xd1, 0xee, 0xba, 0xa9, 0x4b, 0xaf, 0x20, 0xfa, 0xf6, 0x6a, 0xa4, 0xdc, 0xb8];

/// The fields of `IMAGE_FILE_HEADER` or of the header of `/bigobj`.
struct Fields {
    sections: usize,
    sections_width: usize,
    most_sections: u64,
    symbols: usize,
    optional_header: Option<usize>,
    metadata: Option<usize>,
    header: usize,
    symbol: u64,
}

const USUAL: Fields = Fields {
    sections: 2,
    sections_width: 2,
    // From `IMAGE_SYM_SECTION_MAX` on, numbers of sections in symbols have other meanings.
    most_sections: 0xfeff,
    symbols: 8,
    optional_header: Some(16),
    metadata: None,
    header: 20,
    symbol: 18,
};

const BIG: Fields = Fields {
    sections: 44,
    sections_width: 4,
    most_sections: 0x7fff_ffff,
    symbols: 48,
    optional_header: None,
    metadata: Some(36),
    header: 56,
    symbol: 20,
};

/// Fields of `IMAGE_SECTION_HEADER`.
const SIZE_OF_RAW_DATA: usize = 16;
const POINTER_TO_RAW_DATA: usize = 20;
const POINTER_TO_RELOCATIONS: usize = 24;
const POINTER_TO_LINE_NUMBERS: usize = 28;
const NUMBER_OF_RELOCATIONS: usize = 32;
const NUMBER_OF_LINE_NUMBERS: usize = 34;
const CHARACTERISTICS: usize = 36;
const SECTION_HEADER: usize = 40;
const RELOCATION: u64 = 10;

/// Whether this is a COFF object at all.
pub(super) fn is_coff(object: &[u8]) -> bool {
    is_big(object) || object.get(..2).is_some_and(|machine| MACHINES.iter().any(|it| it == machine))
}

fn is_big(object: &[u8]) -> bool {
    // Version 2 and above; import library members begin alike, and have version 0 or 1.
    object.starts_with(&[0, 0, 0xff, 0xff])
        && object.get(4..6).is_some_and(|version| u16::from_le_bytes([version[0], version[1]]) >= 2)
        && object.get(12..28) == Some(&BIGOBJ)
}

/// The contents of every `.comment`.
pub(super) fn comments(object: &[u8]) -> Result<Vec<&[u8]>, RecordError> {
    let file = Coff::read(object)?;
    let mut comments = Vec::new();
    for section in file.sections() {
        if file.is_comment(section)? {
            comments.push(&object[file.raw_data(section)?]);
        }
    }
    Ok(comments)
}

/// `object` with the contents of its (first) `.comment` replaced.
pub(super) fn with_comment(
    object: &[u8],
    replace: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Result<Vec<u8>, RecordError> {
    let file = Coff::read(object)?;
    for section in file.sections() {
        if file.is_comment(section)? {
            let contents = replace(&object[file.raw_data(section)?]);
            return file.with_contents(section, contents);
        }
    }
    file.with_section(replace(&[]))
}

/// A section header, by file offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Section(usize);

struct Coff<'a> {
    object: &'a [u8],
    fields: &'static Fields,
    section_table: std::ops::Range<usize>,
}

impl<'a> Coff<'a> {
    fn read(object: &'a [u8]) -> Result<Self, RecordError> {
        let fields = if is_big(object) { &BIG } else { &USUAL };
        let mut file = Self { object, fields, section_table: 0..0 };
        let optional_header = fields.optional_header.map_or(Ok(0), |at| file.number(at, 2))?;
        let start = fields.header as u64 + optional_header;
        let count = file.number(fields.sections, fields.sections_width)?;
        if count > fields.most_sections {
            return Err(malformed(format!("{count} sections are more than there can be")));
        }
        file.section_table = extent(object, start, count * SECTION_HEADER as u64)?;
        Ok(file)
    }

    fn number(&self, at: usize, width: usize) -> Result<u64, RecordError> {
        numbers::number(self.object, at, width)
    }

    fn sections(&self) -> impl Iterator<Item = Section> + use<> {
        self.section_table.clone().step_by(SECTION_HEADER).map(Section)
    }

    fn is_comment(&self, section: Section) -> Result<bool, RecordError> {
        let is_named = self.object.get(section.0..section.0 + NAME.len()) == Some(NAME);
        let characteristics = self.number(section.0 + CHARACTERISTICS, 4)?;
        // One that becomes part of the image is none of ours.
        let is_information = characteristics & IMAGE_SCN_LNK_REMOVE != 0;
        let is_other = characteristics & (IMAGE_SCN_CNT_UNINITIALIZED_DATA | IMAGE_SCN_LNK_COMDAT) != 0;
        Ok(is_named && is_information && !is_other)
    }

    fn raw_data(&self, section: Section) -> Result<std::ops::Range<usize>, RecordError> {
        let offset = self.number(section.0 + POINTER_TO_RAW_DATA, 4)?;
        extent(self.object, offset, self.number(section.0 + SIZE_OF_RAW_DATA, 4)?)
    }

    fn with_section(&self, contents: Vec<u8>) -> Result<Vec<u8>, RecordError> {
        let count = self.section_table.len() / SECTION_HEADER;
        if count as u64 >= self.fields.most_sections {
            return Err(RecordError::UnsupportedFormat(
                "a COFF object with as many sections as there can be",
            ));
        }
        let (at, end) = (self.section_table.end, self.object.len());
        let mut header = [0; SECTION_HEADER];
        let set = |header: &mut [u8], at, value| numbers::set(header, at, 4, value);
        header[..NAME.len()].copy_from_slice(NAME);
        set(&mut header, SIZE_OF_RAW_DATA, contents.len() as u64)?;
        set(&mut header, POINTER_TO_RAW_DATA, (end + SECTION_HEADER) as u64)?;
        set(&mut header, CHARACTERISTICS, IMAGE_SCN_LNK_REMOVE | IMAGE_SCN_ALIGN_1BYTES)?;

        let header = Splice { range: at..at, bytes: header.to_vec() };
        let splices = Splices(vec![header, Splice { range: end..end, bytes: contents }]);
        let mut draft = Draft { file: self, out: self.object.to_vec(), splices };
        draft.move_all(None)?;
        draft.set(self.fields.sections, self.fields.sections_width, count as u64 + 1)?;
        Ok(draft.splices.apply(&draft.out))
    }

    fn with_contents(&self, section: Section, contents: Vec<u8>) -> Result<Vec<u8>, RecordError> {
        let range = self.raw_data(section)?;
        if range.start < self.section_table.end {
            return Err(malformed("the section of the record overlaps the headers"));
        }
        let length = contents.len() as u64;
        let splices = Splices(vec![Splice { range, bytes: contents }]);
        let mut draft = Draft { file: self, out: self.object.to_vec(), splices };
        draft.move_all(Some(section))?;
        draft.set(section.0 + SIZE_OF_RAW_DATA, 4, length)?;
        Ok(draft.splices.apply(&draft.out))
    }

    /// Bytes of the symbol table and of the string table right behind it.
    fn symbols_length(&self, offset: u64) -> Result<u64, RecordError> {
        let symbols = self.number(self.fields.symbols + 4, 4)? * self.fields.symbol;
        let strings = usize::try_from(offset.saturating_add(symbols)).ok();
        // There need be none when no name is long.
        let strings = strings.and_then(|at| self.number(at, 4).ok()).unwrap_or(0);
        Ok(symbols + strings)
    }

    /// Bytes of the relocations of a section. With more than fit the header, the first one tells how many.
    fn relocations_length(&self, section: Section, offset: u64) -> Result<u64, RecordError> {
        let count = self.number(section.0 + NUMBER_OF_RELOCATIONS, 2)?;
        let overflows = self.number(section.0 + CHARACTERISTICS, 4)? & IMAGE_SCN_LNK_NRELOC_OVFL != 0;
        match overflows && count == 0xffff {
            true => Ok(self.number(extent(self.object, offset, 4)?.start, 4)? * RELOCATION),
            false => Ok(count * RELOCATION),
        }
    }
}

/// A copy of the object whose headers are rewritten where they are, before the splices are done.
struct Draft<'f, 'a> {
    file: &'f Coff<'a>,
    out: Vec<u8>,
    splices: Splices,
}

impl Draft<'_, '_> {
    /// Rewrites all file offsets but that of the contents of the section that `stays`.
    fn move_all(&mut self, stays: Option<Section>) -> Result<(), RecordError> {
        let (file, fields) = (self.file, self.file.fields);
        let symbols = file.number(fields.symbols, 4)?;
        if symbols != 0 {
            self.move_offset(fields.symbols, file.symbols_length(symbols)?)?;
        }
        if let Some(at) = fields.metadata {
            // The size stands in front of the offset.
            self.move_offset(at + 4, file.number(at, 4)?)?;
        }
        for section in file.sections() {
            self.move_section(section, stays == Some(section))?;
        }
        Ok(())
    }

    fn move_section(&mut self, section: Section, stays: bool) -> Result<(), RecordError> {
        let (file, at) = (self.file, section.0);
        if file.number(at + NUMBER_OF_LINE_NUMBERS, 2)? != 0 {
            // They have not been written for decades, and symbols point to them by file offset as well.
            return Err(RecordError::UnsupportedFormat("a COFF object with COFF line numbers"));
        }
        let is_zero_fill = file.number(at + CHARACTERISTICS, 4)? & IMAGE_SCN_CNT_UNINITIALIZED_DATA != 0;
        let in_file = if is_zero_fill { 0 } else { file.number(at + SIZE_OF_RAW_DATA, 4)? };
        if !stays {
            self.move_offset(at + POINTER_TO_RAW_DATA, in_file)?;
        }
        self.move_offset(at + POINTER_TO_LINE_NUMBERS, 0)?;
        let relocations = file.number(at + POINTER_TO_RELOCATIONS, 4)?;
        self.move_offset(at + POINTER_TO_RELOCATIONS, file.relocations_length(section, relocations)?)
    }

    /// Rewrites the file offset at `at` of something that takes `length` bytes.
    fn move_offset(&mut self, at: usize, length: u64) -> Result<(), RecordError> {
        let moved = self.splices.moved(self.file.number(at, 4)?, length)?;
        self.set(at, 4, moved)
    }

    fn set(&mut self, at: usize, width: usize, value: u64) -> Result<(), RecordError> {
        numbers::set(&mut self.out, at, width, value)
    }
}
