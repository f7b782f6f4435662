//! A *symbol file*: the ELF file that a debugger is given for an object in memory (GDB manual, "JIT Compilation
//! Interface"). It is written anew, whatever format the object has: loaded sections as addresses without content
//! (`SHT_NOBITS`), call frame information and debug sections with theirs, and the symbols with their final addresses.

use std::borrow::Cow;

use super::DebugSections;
use crate::arch::{Architecture, with_architecture};
use crate::error::LoadError;
use crate::events::LoadedObject;
use crate::graph::{Binding, Format, Section, SymbolKind};
use crate::link::SymbolRecord;
use crate::memory::Segment;
use crate::read::elf::header_flags;
use object::elf;

/// The symbol file of an object, with the debug sections that are given.
pub(crate) fn symbol_file(loaded: &LoadedObject<'_>, debug: DebugSections<'_>) -> Result<Vec<u8>, LoadError> {
    with_architecture!(loaded.link.object.graph.machine, A => of::<A>(loaded, debug))
}

fn of<A: Architecture>(loaded: &LoadedObject<'_>, debug: DebugSections<'_>) -> Result<Vec<u8>, LoadError> {
    let identity = A::IDENTITY.elf;
    let identity = identity.ok_or_else(|| LoadError::unsupported("a symbol file for this machine"))?;
    let graph = &loaded.link.object.graph;
    let mut file = Writer { bytes: Vec::new(), wide: identity.class == 64, big_endian: identity.big_endian };
    let mut headers = vec![Header::default()];
    let mut names = Strings::new();
    file.reserve_header();

    // By section number: its number in the file.
    let mut numbers = vec![elf::SHN_ABS.0; graph.sections.len()];
    for (number, section) in
        graph.sections.iter().enumerate().filter(|(_, section)| section.segment.is_some())
    {
        numbers[number] = u16::try_from(headers.len())
            .ok()
            .filter(|number| *number < elf::SHN_LORESERVE)
            .unwrap_or(elf::SHN_ABS.0);
        let name = if section.name.is_empty() { Cow::Borrowed(&b".text"[..]) } else { section.name.into() };
        headers.push(Header { name: names.add(&name), ..Header::loaded(section) });
    }
    for number in loaded.link.frame_sections() {
        let content = loaded.link.section_content::<A>(number)?;
        // Their headers are known: they are loaded as well. A number that did not fit has none to change.
        let Some(header) = headers.get_mut(usize::from(numbers[number])) else { continue };
        header.kind = elf::SHT_PROGBITS.0;
        header.offset = file.append(&content, 8);
    }
    for section in &debug.sections {
        let offset = file.append(&section.bytes, 1);
        let name = names.add(section.name);
        let size = section.bytes.len() as u64;
        headers.push(Header { name, kind: elf::SHT_PROGBITS.0, offset, size, align: 1, ..Header::default() });
    }
    let mut symbols = loaded.symbol_records()?;
    // Labels of the assembler's, which would hide the function that they are in; linkers leave them out as well.
    symbols.retain(|record| !record.name.starts_with(b".L"));
    symbols.sort_by_key(|record| record.binding != Binding::Local);
    let mut strings = Strings::new();
    let start = file.append(&[], 8);
    file.symbol(0, 0, 0, 0, 0);
    for record in &symbols {
        let name = strings.add(record.name);
        let home = record.section.map_or(elf::SHN_ABS.0, |section| numbers[section as usize]);
        file.symbol(name, record.address, record.size, info(record), home);
    }
    let locals = symbols.iter().filter(|record| record.binding == Binding::Local).count();
    let strings_number = headers.len() as u32 + 1;
    headers.push(Header {
        name: names.add(b".symtab"),
        kind: elf::SHT_SYMTAB.0,
        offset: start,
        size: file.bytes.len() as u64 - start,
        link: strings_number,
        info: locals as u32 + 1,
        align: 8,
        entry_size: if file.wide { 24 } else { 16 },
        ..Header::default()
    });
    let name = names.add(b".strtab");
    headers.push(Header::strings(name, file.append(&strings.bytes, 1), strings.bytes.len()));
    let name = names.add(b".shstrtab");
    headers.push(Header::strings(name, file.append(&names.bytes, 1), names.bytes.len()));

    let table = file.append(&[], 8);
    // More sections than the header can count are counted in the first one (gABI, "e_shnum").
    let (count, names_number) = (headers.len(), headers.len() - 1);
    let many = count >= usize::from(elf::SHN_LORESERVE);
    if many {
        headers[0].size = count as u64;
        headers[0].link = names_number as u32;
    }
    headers.iter().for_each(|header| file.section_header(header));
    let flags = if graph.format == Format::Elf { header_flags(loaded.bytes) } else { 0 };
    let counts = if many { (0, elf::SHN_XINDEX.0) } else { (count as u16, names_number as u16) };
    file.fill_in_header(identity.e_machine, flags, table, counts);
    Ok(file.bytes)
}

fn info(record: &SymbolRecord<'_>) -> u8 {
    let binding = match record.binding {
        Binding::Local => elf::STB_LOCAL.0,
        Binding::Global => elf::STB_GLOBAL.0,
        Binding::Weak => elf::STB_WEAK.0,
    };
    let kind = match record.kind {
        SymbolKind::Function | SymbolKind::IndirectFunction => elf::STT_FUNC.0,
        SymbolKind::Data => elf::STT_OBJECT.0,
        _ => elf::STT_NOTYPE.0,
    };
    binding << 4 | kind
}

/// A section header, of either class.
#[derive(Default)]
struct Header {
    name: u32,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
    link: u32,
    info: u32,
    align: u64,
    entry_size: u64,
}

impl Header {
    fn loaded(section: &Section<'_>) -> Self {
        let flags = match section.segment {
            Some(Segment::Code) => elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0,
            Some(Segment::Data) => elf::SHF_ALLOC.0 | elf::SHF_WRITE.0,
            _ => elf::SHF_ALLOC.0,
        };
        Header {
            kind: elf::SHT_NOBITS.0,
            flags,
            address: section.address,
            size: section.size,
            align: section.align,
            ..Header::default()
        }
    }

    fn strings(name: u32, offset: u64, size: usize) -> Self {
        Header { name, kind: elf::SHT_STRTAB.0, offset, size: size as u64, align: 1, ..Header::default() }
    }
}

/// A string table that is being filled.
struct Strings {
    bytes: Vec<u8>,
}

impl Strings {
    fn new() -> Self {
        Strings { bytes: vec![0] }
    }

    fn add(&mut self, name: &[u8]) -> u32 {
        let offset = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        offset
    }
}

/// Writes the structures of the gABI in either class and byte order.
struct Writer {
    bytes: Vec<u8>,
    wide: bool,
    big_endian: bool,
}

impl Writer {
    fn reserve_header(&mut self) {
        self.bytes.resize(if self.wide { 64 } else { 52 }, 0);
    }

    /// Gives the offset.
    fn append(&mut self, bytes: &[u8], align: usize) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        offset
    }

    fn half(&mut self, value: u16) {
        self.bytes.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn word(&mut self, value: u32) {
        self.bytes.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    /// As wide as an address.
    fn address(&mut self, value: u64) {
        match self.wide {
            true => {
                self.bytes.extend(if self.big_endian { value.to_be_bytes() } else { value.to_le_bytes() })
            }
            false => self.word(value as u32),
        }
    }

    fn symbol(&mut self, name: u32, value: u64, size: u64, info: u8, section: u16) {
        self.word(name);
        if self.wide {
            self.bytes.extend([info, 0]);
            self.half(section);
        }
        self.address(value);
        self.address(size);
        if !self.wide {
            self.bytes.extend([info, 0]);
            self.half(section);
        }
    }

    fn section_header(&mut self, header: &Header) {
        self.word(header.name);
        self.word(header.kind);
        self.address(header.flags);
        self.address(header.address);
        self.address(header.offset);
        self.address(header.size);
        self.word(header.link);
        self.word(header.info);
        self.address(header.align);
        self.address(header.entry_size);
    }

    /// Everything has its place already: an executable, since nothing is left to be relocated.
    fn fill_in_header(&mut self, machine: u16, flags: u32, table: u64, (count, names): (u16, u16)) {
        let rest = std::mem::take(&mut self.bytes);
        let (class, order) = (1 + u8::from(self.wide), 1 + u8::from(self.big_endian));
        self.bytes.extend([0x7f, b'E', b'L', b'F', class, order, 1, 0]);
        self.bytes.extend([0; 8]);
        self.half(elf::ET_EXEC.0);
        self.half(machine);
        self.word(1);
        self.address(0);
        self.address(0);
        self.address(table);
        self.word(flags);
        let (header, section) = if self.wide { (64, 64) } else { (52, 40) };
        self.half(header);
        self.half(0);
        self.half(0);
        self.half(section);
        self.half(count);
        self.half(names);
        self.bytes.extend(&rest[self.bytes.len()..]);
    }
}
