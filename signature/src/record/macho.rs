//! The section `__LLVM,__objcache` of a Mach-O relocatable object, read and replaced.
//!
//! It stands where clang puts `__LLVM,__cmdline` and swiftc `__LLVM,__swift_modhash`: linkers do not take part of
//! a `__LLVM` segment into what they link, and the debug attribute says the same once more. An `LC_NOTE` would
//! take less rewriting, but llvm-objcopy and llvm-strip refuse an object with one; `LC_IDENT`, which was made for
//! this, is refused by all of LLVM as obsolete; and strings that no symbol names do not survive a copy.
//!
//! The header goes to the end of the one segment's load command, the contents to the end of the segment. What
//! stands behind them moves, so every file offset in the load commands is rewritten, and an object with a load
//! command that we do not know is left alone. Addresses, section numbers and all contents stay as they are. The
//! layouts are those of `<mach-o/loader.h>`, the rules of "OS X ABI Mach-O File Format Reference".

use super::RecordError;
use super::numbers::{self, extent, malformed};
use super::splice::{Splice, Splices};

const SEGMENT: &[u8] = b"__LLVM\0\0\0\0\0\0\0\0\0\0";
const SECTION: &[u8] = b"__objcache\0\0\0\0\0\0";

/// Contents take a multiple of that, so that what stands behind them stays aligned.
const ALIGN: usize = 16;

const MH_OBJECT: u64 = 1;
const S_ATTR_DEBUG: u64 = 0x0200_0000;

const MH_MAGIC: [u8; 4] = [0xce, 0xfa, 0xed, 0xfe];
const MH_MAGIC_64: [u8; 4] = [0xcf, 0xfa, 0xed, 0xfe];

/// Whether this is a little-endian Mach-O file for one architecture. Big-endian ones are of PowerPC, which no
/// compiler we know of serves any more.
pub(super) fn is_mach_o(object: &[u8]) -> bool {
    object.starts_with(&MH_MAGIC) || object.starts_with(&MH_MAGIC_64)
}

/// The contents of every section that holds records.
pub(super) fn comments(object: &[u8]) -> Result<Vec<&[u8]>, RecordError> {
    let file = MachO::read(object)?;
    let mut comments = Vec::new();
    for segment in file.segments()? {
        for section in file.sections(segment)? {
            if file.is_comment(section)? {
                comments.push(&object[extent(object, file.offset(section)?, file.size(section)?)?]);
            }
        }
    }
    Ok(comments)
}

/// `object` with the contents of its (first) section for records replaced.
pub(super) fn with_comment(
    object: &[u8],
    replace: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Result<Vec<u8>, RecordError> {
    let file = MachO::read(object)?;
    for segment in file.segments()? {
        for section in file.sections(segment)? {
            if file.is_comment(section)? {
                return file.with_contents(segment, section, replace);
            }
        }
    }
    file.with_section(padded(replace(&[])))
}

/// With NUL to the end, which is nothing to those who read strings.
fn padded(mut contents: Vec<u8>) -> Vec<u8> {
    contents.resize(contents.len().next_multiple_of(ALIGN), 0);
    contents
}

/// Where fields stand in `segment_command`, `section` and their 64-bit forms.
struct Fields {
    word: usize,
    header: usize,
    lc_segment: u64,
    vmaddr: usize,
    vmsize: usize,
    fileoff: usize,
    filesize: usize,
    nsects: usize,
    sections: usize,
    addr: usize,
    size: usize,
    offset: usize,
    reloff: usize,
    nreloc: usize,
    flags: usize,
    section: usize,
    nlist: u64,
}

const FIELDS_32: Fields = Fields {
    word: 4,
    header: 28,
    lc_segment: 0x1,
    vmaddr: 24,
    vmsize: 28,
    fileoff: 32,
    filesize: 36,
    nsects: 48,
    sections: 56,
    addr: 32,
    size: 36,
    offset: 40,
    reloff: 48,
    nreloc: 52,
    flags: 56,
    section: 68,
    nlist: 12,
};

const FIELDS_64: Fields = Fields {
    word: 8,
    header: 32,
    lc_segment: 0x19,
    vmaddr: 24,
    vmsize: 32,
    fileoff: 40,
    filesize: 48,
    nsects: 64,
    sections: 72,
    addr: 32,
    size: 40,
    offset: 48,
    reloff: 56,
    nreloc: 60,
    flags: 64,
    section: 80,
    nlist: 16,
};

const SEGNAME_OF_SECTION: usize = 16;
const FILETYPE: usize = 12;
const NCMDS: usize = 16;
const SIZEOFCMDS: usize = 20;
const CMDSIZE: usize = 4;

/// A load command, by file offset.
#[derive(Debug, Clone, Copy)]
struct Command {
    at: usize,
    kind: u64,
    size: usize,
}

/// A section header, by file offset.
#[derive(Debug, Clone, Copy)]
struct Section(usize);

struct MachO<'a> {
    object: &'a [u8],
    fields: &'static Fields,
    commands: Vec<Command>,
    /// File offset of what follows the load commands.
    headers_end: usize,
}

impl<'a> MachO<'a> {
    fn read(object: &'a [u8]) -> Result<Self, RecordError> {
        let fields = if object.starts_with(&MH_MAGIC_64) { &FIELDS_64 } else { &FIELDS_32 };
        let mut file = Self { object, fields, commands: Vec::new(), headers_end: 0 };
        if file.number(FILETYPE, 4)? != MH_OBJECT {
            return Err(RecordError::UnsupportedFormat("a linked Mach-O file"));
        }
        let headers = extent(object, fields.header as u64, file.number(SIZEOFCMDS, 4)?)?;
        file.headers_end = headers.end;
        file.commands = file.load_commands(headers.start)?;
        Ok(file)
    }

    fn load_commands(&self, mut at: usize) -> Result<Vec<Command>, RecordError> {
        let mut commands = Vec::new();
        for index in 0..self.number(NCMDS, 4)? {
            let size = self.number(at + CMDSIZE, 4)? as usize;
            if size < 8 || size > self.headers_end - at {
                return Err(malformed(format!("load command {index} is {size} bytes long")));
            }
            commands.push(Command { at, kind: self.number(at, 4)?, size });
            at += size;
        }
        Ok(commands)
    }

    fn number(&self, at: usize, width: usize) -> Result<u64, RecordError> {
        numbers::number(self.object, at, width)
    }

    fn word(&self, at: usize) -> Result<u64, RecordError> {
        self.number(at, self.fields.word)
    }

    fn segments(&self) -> Result<Vec<Command>, RecordError> {
        let is_segment = |command: &&Command| command.kind == self.fields.lc_segment;
        let segments: Vec<Command> = self.commands.iter().filter(is_segment).copied().collect();
        if segments.iter().any(|segment| segment.size < self.fields.sections) {
            return Err(malformed("a segment's load command is too short"));
        }
        Ok(segments)
    }

    fn sections(&self, segment: Command) -> Result<impl Iterator<Item = Section> + use<>, RecordError> {
        let count = self.number(segment.at + self.fields.nsects, 4)? as usize;
        let (first, length) = (segment.at + self.fields.sections, self.fields.section);
        if count > (segment.size - self.fields.sections) / length {
            return Err(malformed(format!("a segment's load command cannot hold {count} sections")));
        }
        Ok((0..count).map(move |index| Section(first + index * length)))
    }

    fn offset(&self, section: Section) -> Result<u64, RecordError> {
        self.number(section.0 + self.fields.offset, 4)
    }

    fn size(&self, section: Section) -> Result<u64, RecordError> {
        self.word(section.0 + self.fields.size)
    }

    fn is_comment(&self, section: Section) -> Result<bool, RecordError> {
        let names = self.object.get(section.0..section.0 + SECTION.len() + SEGMENT.len());
        let is_named = names.is_some_and(|it| it.strip_prefix(SECTION) == Some(SEGMENT));
        Ok(is_named && !self.is_zero_fill(section)?)
    }

    fn is_zero_fill(&self, section: Section) -> Result<bool, RecordError> {
        const S_ZEROFILL: u64 = 1;
        const S_GB_ZEROFILL: u64 = 12;
        const S_THREAD_LOCAL_ZEROFILL: u64 = 18;
        let kind = self.number(section.0 + self.fields.flags, 4)? & 0xff;
        Ok(matches!(kind, S_ZEROFILL | S_GB_ZEROFILL | S_THREAD_LOCAL_ZEROFILL))
    }

    /// The end of a segment in memory, where its next section may stand.
    fn end_address(&self, segment: Command) -> Result<u64, RecordError> {
        let end = self
            .word(segment.at + self.fields.vmaddr)?
            .checked_add(self.word(segment.at + self.fields.vmsize)?);
        end.ok_or_else(|| malformed("a segment ends beyond the address space"))
    }

    fn with_section(&self, contents: Vec<u8>) -> Result<Vec<u8>, RecordError> {
        let Some(&segment) = self.segments()?.first() else {
            return Err(RecordError::UnsupportedFormat("a Mach-O object without a segment"));
        };
        let fields = self.fields;
        let (start, size) =
            (self.word(segment.at + fields.fileoff)?, self.word(segment.at + fields.filesize)?);
        // An empty segment may say that it is anywhere.
        let start = if size == 0 { self.headers_end as u64 } else { start };
        let end = extent(self.object, start, size)?.end;
        if start < self.headers_end as u64 {
            return Err(RecordError::UnsupportedFormat("a Mach-O object whose segment holds its headers"));
        }

        let header_at = segment.at + segment.size;
        let header = vec![0; fields.section];
        let length = contents.len() as u64;
        let insert = |at, bytes| Splice { range: at..at, bytes };
        let mut draft = Draft {
            file: self,
            out: self.object.to_vec(),
            splices: Splices(vec![insert(header_at, header), insert(end, contents)]),
        };
        draft.move_all()?;
        let growth = fields.section as u64;
        draft.set_word(segment.at + fields.fileoff, start + growth)?;
        draft.grow_segment(segment, size + length, self.end_address(segment)?, length)?;
        draft.add(NCMDS + 4, growth)?;
        draft.add(segment.at + CMDSIZE, growth)?;
        draft.add(segment.at + fields.nsects, 1)?;

        let mut out = draft.splices.apply(&draft.out);
        let header = out.get_mut(header_at..header_at + fields.section);
        let header = header.ok_or_else(|| malformed("a load command ends beyond the file"))?;
        header[..SECTION.len()].copy_from_slice(SECTION);
        header[SEGNAME_OF_SECTION..SEGNAME_OF_SECTION + SEGMENT.len()].copy_from_slice(SEGMENT);
        numbers::set(header, fields.addr, fields.word, self.end_address(segment)?)?;
        numbers::set(header, fields.size, fields.word, length)?;
        numbers::set(header, fields.offset, 4, end as u64 + growth)?;
        numbers::set(header, fields.flags, 4, S_ATTR_DEBUG)?;
        Ok(out)
    }

    fn with_contents(
        &self,
        segment: Command,
        section: Section,
        replace: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<Vec<u8>, RecordError> {
        let fields = self.fields;
        let range = extent(self.object, self.offset(section)?, self.size(section)?)?;
        let old = &self.object[range.clone()];
        let trimmed = old.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 2).min(old.len());
        let contents = padded(replace(&old[..trimmed]));
        let (old_length, length) = (range.len() as u64, contents.len() as u64);

        let start = self.word(segment.at + fields.fileoff)?;
        let size = self.word(segment.at + fields.filesize)?;
        let in_segment = extent(self.object, start, size)?;
        if range.start < in_segment.start.max(self.headers_end) || range.end > in_segment.end {
            return Err(malformed("the section of the record is not in its segment"));
        }
        // The last section grows and shrinks where it is; another moves behind all others.
        let end_address = self.end_address(segment)?;
        let address = self.word(section.0 + fields.addr)?;
        let is_last = address.checked_add(old_length) == Some(end_address);
        let address = if is_last { address } else { end_address };

        let splices = Splices(vec![Splice { range, bytes: contents }]);
        let mut draft = Draft { file: self, out: self.object.to_vec(), splices };
        draft.move_all_but(section)?;
        draft.set_word(section.0 + fields.addr, address)?;
        draft.set_word(section.0 + fields.size, length)?;
        draft.set_word(segment.at + fields.fileoff, start)?;
        draft.grow_segment(segment, size - old_length + length, address, length)?;
        Ok(draft.splices.apply(&draft.out))
    }
}

/// A copy of the object whose headers are rewritten where they are, before the splices are done.
struct Draft<'f, 'a> {
    file: &'f MachO<'a>,
    out: Vec<u8>,
    splices: Splices,
}

/// Load commands that hold pairs of a file offset and a size in bytes, and where these stand.
const LC_SYMSEG: u64 = 0x3;
const LC_SYMTAB: u64 = 0x2;
const LC_DYSYMTAB: u64 = 0xb;
const LC_TWOLEVEL_HINTS: u64 = 0x16;
const LC_NOTE: u64 = 0x31;

/// `linkedit_data_command`: code signature, segment split info, function starts, data in code, signing
/// information of libraries, linker optimisation hints, atom information, exports trie, chained fix-ups,
/// function variants and their fix-ups.
const LINKEDIT_DATA: [u64; 11] =
    [0x1d, 0x1e, 0x26, 0x29, 0x2b, 0x2e, 0x36, 0x8000_0033, 0x8000_0034, 0x37, 0x38];

/// Load commands without file offsets that an object may have: threads, UUID, least versions of systems, source
/// version, linker options, build version, target triple.
const WITHOUT_OFFSETS: [u64; 11] = [0x4, 0x5, 0x1b, 0x24, 0x25, 0x2a, 0x2d, 0x2f, 0x30, 0x32, 0x39];

impl Draft<'_, '_> {
    /// Rewrites the file offset, `width` bytes at `at`, of something that takes `length` bytes.
    fn move_offset(&mut self, at: usize, width: usize, length: u64) -> Result<(), RecordError> {
        let offset = self.file.number(at, width)?;
        self.set(at, width, self.splices.moved(offset, length)?)
    }

    /// The same where the number of things, `each` bytes long, follows the offset.
    fn move_table(&mut self, at: usize, each: u64) -> Result<(), RecordError> {
        let count = self.file.number(at + 4, 4)?;
        self.move_offset(at, 4, count * each)
    }

    fn move_all(&mut self) -> Result<(), RecordError> {
        for command in &self.file.commands {
            self.move_in(*command, None)?;
        }
        Ok(())
    }

    fn move_all_but(&mut self, section: Section) -> Result<(), RecordError> {
        for command in &self.file.commands {
            self.move_in(*command, Some(section))?;
        }
        Ok(())
    }

    fn move_in(&mut self, command: Command, stays: Option<Section>) -> Result<(), RecordError> {
        let at = command.at;
        if command.kind == self.file.fields.lc_segment {
            return self.move_segment(command, stays);
        }
        let tables: &[(usize, u64)] = match command.kind {
            LC_SYMTAB => &[(8, self.file.fields.nlist), (16, 1)],
            LC_SYMSEG => &[(8, 1)],
            // Modules, the one table whose entries differ by class, are of linked files.
            LC_DYSYMTAB => &[(32, 8), (40, 56), (48, 4), (56, 4), (64, 8), (72, 8)],
            LC_TWOLEVEL_HINTS => &[(8, 4)],
            LC_NOTE => return self.move_note(command),
            kind if LINKEDIT_DATA.contains(&kind) => &[(8, 1)],
            kind if WITHOUT_OFFSETS.contains(&kind) => &[],
            _ => {
                let what = "a Mach-O object with a load command that may hold file offsets, and is not known";
                return Err(RecordError::UnsupportedFormat(what));
            }
        };
        if tables.iter().any(|(offset, _)| offset + 8 > command.size) {
            return Err(malformed(format!("the load command at {at:#x} is too short")));
        }
        tables.iter().try_for_each(|&(offset, each)| self.move_table(at + offset, each))
    }

    fn move_note(&mut self, note: Command) -> Result<(), RecordError> {
        if note.size < 40 {
            return Err(malformed(format!("the load command at {:#x} is too short", note.at)));
        }
        self.move_offset(note.at + 24, 8, self.file.number(note.at + 32, 8)?)
    }

    fn move_segment(&mut self, segment: Command, stays: Option<Section>) -> Result<(), RecordError> {
        let (file, fields) = (self.file, self.file.fields);
        // The segment that the record is in is set afterwards, so its contents may well be spliced.
        self.move_offset(segment.at + fields.fileoff, fields.word, 0)?;
        for section in file.sections(segment)? {
            let in_file = if file.is_zero_fill(section)? { 0 } else { file.size(section)? };
            if stays.is_none_or(|stays| stays.0 != section.0) {
                self.move_offset(section.0 + fields.offset, 4, in_file)?;
            }
            let relocations = file.number(section.0 + fields.nreloc, 4)? * 8;
            self.move_offset(section.0 + fields.reloff, 4, relocations)?;
        }
        Ok(())
    }

    /// The segment takes `file_size` bytes of the file, and in memory it ends with `length` bytes at `address`.
    fn grow_segment(
        &mut self,
        segment: Command,
        file_size: u64,
        address: u64,
        length: u64,
    ) -> Result<(), RecordError> {
        let fields = self.file.fields;
        let memory_size = address
            .checked_add(length)
            .and_then(|end| end.checked_sub(self.file.word(segment.at + fields.vmaddr).ok()?));
        let memory_size = memory_size.ok_or_else(|| malformed("a segment ends beyond the address space"))?;
        self.set_word(segment.at + fields.vmsize, memory_size)?;
        self.set_word(segment.at + fields.filesize, file_size)
    }

    fn add(&mut self, at: usize, increase: u64) -> Result<(), RecordError> {
        self.set(at, 4, self.file.number(at, 4)? + increase)
    }

    fn set_word(&mut self, at: usize, value: u64) -> Result<(), RecordError> {
        self.set(at, self.file.fields.word, value)
    }

    fn set(&mut self, at: usize, width: usize, value: u64) -> Result<(), RecordError> {
        numbers::set(&mut self.out, at, width, value)
    }
}
