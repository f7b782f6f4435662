//! Section headers: what is loaded, where to, and which sections have a meaning of their own.

use std::fmt;

use object::macho::{self, SectionFlags};

use super::{Header, LE};
use crate::error::{LoadError, printable};
use crate::graph::{Role, Section};
use crate::limits::Limits;
use crate::memory::Segment;

/// Segment and section name, as in `__TEXT,__text`.
pub(super) struct SectionName {
    text: [u8; 33],
    length: usize,
}

impl SectionName {
    pub(super) fn of(header: &Header) -> Self {
        let mut name = SectionName { text: [0; 33], length: 0 };
        name.push(until_nul(&header.segname));
        name.push(b",");
        name.push(until_nul(&header.sectname));
        name
    }

    fn push(&mut self, part: &[u8]) {
        self.text[self.length..][..part.len()].copy_from_slice(part);
        self.length += part.len();
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.text[..self.length]
    }
}

impl fmt::Display for SectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(self.as_bytes()))
    }
}

/// Names are padded with zeros, and have no terminator when they fill the field.
fn until_nul(field: &[u8; 16]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    &field[..end]
}

/// Fills in one section, but for its name and its relocations. Those that are not loaded stay
/// [`Section::NOT_LOADED`] and are not looked at: debug information may be as strange as it likes.
pub(super) fn read<'a>(
    section: &mut Section<'a>,
    object: &'a [u8],
    header: &Header,
    name: &SectionName,
    limits: &Limits,
) -> Result<(), LoadError> {
    let Some(segment) = segment(header, name)? else {
        // What is not loaded and may be asked for nevertheless.
        if name.as_bytes() == b"__LD,__compact_unwind" {
            section.bytes = content(object, header).unwrap_or_default();
        }
        return Ok(());
    };
    section.segment = Some(segment);
    section.size = header.size.get(LE);
    section.align = alignment(header, name, limits)?;
    section.zero_fill = is_zero_fill(header);
    // What is among the code is code: tables need zeros behind them, not traps.
    if segment != Segment::Code {
        section.role = role(header, name);
    }
    if !section.zero_fill {
        section.bytes = content(object, header).ok_or_else(|| {
            LoadError::malformed(name.to_string(), "its bytes reach past the end of the file")
        })?;
    }
    Ok(())
}

fn content<'a>(object: &'a [u8], header: &Header) -> Option<&'a [u8]> {
    match usize::try_from(header.size.get(LE)).ok()? {
        // Of an empty section the offset means nothing.
        0 => Some(&[]),
        size => object.get(header.offset.get(LE) as usize..)?.get(..size),
    }
}

fn kind(header: &Header) -> macho::SectionType {
    header.flags.get(LE).typ()
}

fn has(header: &Header, flags: SectionFlags) -> bool {
    header.flags.get(LE).0 & flags.0 != 0
}

fn is_zero_fill(header: &Header) -> bool {
    matches!(kind(header), macho::S_ZEROFILL | macho::S_GB_ZEROFILL)
}

/// Where a section is loaded; `None` for what only debuggers and linkers read.
///
/// Only instructions are code: constants of `__TEXT` go beside it. Data that only relocation writes to needs no writable
/// memory, it is complete before it is protected: `__DATA_CONST`, and what linkers move there.
fn segment(header: &Header, name: &SectionName) -> Result<Option<Segment>, LoadError> {
    let (segment, section) = (until_nul(&header.segname), until_nul(&header.sectname));
    let is_for_linkers = matches!(segment, b"__DWARF" | b"__LD" | b"__LLVM");
    if is_for_linkers || has(header, macho::S_ATTR_DEBUG) {
        return Ok(None);
    }
    if let Some(what) = unsupported(kind(header)).filter(|_| header.size.get(LE) != 0) {
        return Err(LoadError::unsupported(format!("{name}: {what}")));
    }
    let instructions = macho::S_ATTR_PURE_INSTRUCTIONS | macho::S_ATTR_SOME_INSTRUCTIONS;
    let is_code = has(header, instructions) || (segment, section) == (b"__TEXT", b"__text");
    match (is_code, segment) {
        (true, b"__DATA" | b"__DATA_CONST" | b"__DATA_DIRTY") => {
            let what = "a section that is both writable and executable";
            Err(LoadError::unsupported(format!("{name}: {what}")))
        }
        (true, _) => Ok(Some(Segment::Code)),
        (false, b"__TEXT" | b"__DATA_CONST") => Ok(Some(Segment::ReadOnly)),
        (false, b"__DATA") if section == b"__const" => Ok(Some(Segment::ReadOnly)),
        (false, _) if role(header, name) != Role::Plain => Ok(Some(Segment::ReadOnly)),
        (false, _) => Ok(Some(Segment::Data)),
    }
}

/// What a type of section would need that is not done.
fn unsupported(kind: macho::SectionType) -> Option<&'static str> {
    Some(match kind {
        macho::S_THREAD_LOCAL_REGULAR
        | macho::S_THREAD_LOCAL_ZEROFILL
        | macho::S_THREAD_LOCAL_VARIABLES
        | macho::S_THREAD_LOCAL_VARIABLE_POINTERS
        | macho::S_THREAD_LOCAL_INIT_FUNCTION_POINTERS => "thread-local storage",
        macho::S_NON_LAZY_SYMBOL_POINTERS
        | macho::S_LAZY_SYMBOL_POINTERS
        | macho::S_LAZY_DYLIB_SYMBOL_POINTERS
        | macho::S_SYMBOL_STUBS => "pointers or stubs of an indirect symbol table",
        macho::S_INTERPOSING => "functions that take the place of others (S_INTERPOSING)",
        macho::S_INIT_FUNC_OFFSETS => "initialisers given by offset (S_INIT_FUNC_OFFSETS)",
        kind if kind.0 > macho::S_INIT_FUNC_OFFSETS.0 => "an unknown type of section",
        _ => return None,
    })
}

/// The alignment is a power of two, given by its exponent.
fn alignment(header: &Header, name: &SectionName, limits: &Limits) -> Result<u64, LoadError> {
    let limit = limits.alignment.min(Limits::MAX_ALIGNMENT);
    let exponent = header.align.get(LE);
    match 1u64.checked_shl(exponent) {
        None => Err(LoadError::malformed(
            name.to_string(),
            format!("its alignment of 2 to the power of {exponent} is no number of 64 bits"),
        )),
        Some(align) if align > limit => Err(LoadError::limit("the alignment of a section", align, limit)),
        Some(align) => Ok(align),
    }
}

/// Initialisers have no priorities: they run in the object's order. `ld64` knows them by their type alone.
fn role(header: &Header, name: &SectionName) -> Role {
    const LAST: u32 = u16::MAX as u32;
    match kind(header) {
        macho::S_MOD_INIT_FUNC_POINTERS => Role::Initializers { priority: LAST },
        macho::S_MOD_TERM_FUNC_POINTERS => Role::Finalizers { priority: LAST },
        _ => match name.as_bytes() {
            b"__TEXT,__eh_frame" => Role::EhFrame,
            b"__TEXT,__gcc_except_tab" => Role::ExceptTable,
            _ => Role::Plain,
        },
    }
}

/// Whether what is defined in the section is code.
pub(super) fn has_instructions(header: &Header) -> bool {
    has(header, macho::S_ATTR_PURE_INSTRUCTIONS | macho::S_ATTR_SOME_INSTRUCTIONS)
}

/// Address of the section in the object.
pub(super) fn address(header: &Header) -> u64 {
    header.addr.get(LE)
}
