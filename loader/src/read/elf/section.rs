//! Section headers (gABI, "Sections"): what is loaded, where to, and which sections have a meaning of their own.

use object::elf;
use object::read::elf::SectionHeader as _;

use super::{Header, Shape, are_short, content, order, string};
use crate::error::{LoadError, printable};
use crate::graph::{Role, Section};
use crate::limits::Limits;
use crate::memory::Segment;

/// The section name string table.
pub(crate) struct SectionNames<'a> {
    strings: &'a [u8],
    limit: u64,
}

impl<'a> SectionNames<'a> {
    pub(crate) fn of<F: Shape>(
        object: &'a [u8],
        file: &F,
        headers: &'a [Header<F>],
        limits: &Limits,
    ) -> Result<Self, LoadError> {
        const WHAT: &str = "section name table";
        let number = match file.e_shstrndx(order::<F>()) {
            elf::SHN_XINDEX => headers.first().map_or(0, |first| first.sh_link(order::<F>())),
            number => u32::from(number.0),
        };
        let header = headers
            .get(number as usize)
            .filter(|header| header.sh_type(order::<F>()) == elf::SHT_STRTAB)
            .ok_or_else(|| LoadError::malformed(WHAT, format!("section {number} is no string table")))?;
        let strings = content::<F>(object, header, WHAT)?;
        Ok(SectionNames { strings, limit: limits.name_bytes })
    }

    /// All of them, if none is longer than is looked at and each ends in a NUL.
    pub(crate) fn short(&self) -> Option<&'a [u8]> {
        are_short(self.strings, self.limit).then_some(self.strings)
    }

    pub(super) fn get<F: Shape>(&self, number: usize, header: &Header<F>) -> Result<&'a [u8], LoadError> {
        string(self.strings, header.sh_name(order::<F>()), self.limit).ok_or_else(|| {
            LoadError::malformed(format!("section {number}"), "its name is outside of the table or too long")
        })
    }
}

/// Whether a section may take memory in the image. Others stay [`Section::NOT_LOADED`] and are not looked at: debug
/// information may be as strange as it likes.
#[inline]
pub(super) fn is_loaded<F: Shape>(header: &Header<F>) -> bool {
    header.sh_flags(order::<F>()).0 & elf::SHF_ALLOC.0 != 0
}

/// Fills in one section, in place: to copy what was just written costs more than to read it.
pub(super) fn read<'a, F: Shape>(
    section: &mut Section<'a>,
    object: &'a [u8],
    header: &Header<F>,
    number: usize,
    names: &SectionNames<'a>,
    limits: &Limits,
) -> Result<(), LoadError> {
    let name = names.get::<F>(number, header)?;
    section.name = name;
    section.segment = segment::<F>(header, name)?;
    if section.segment.is_some() {
        section.size = header.sh_size(order::<F>()).into();
        section.align = alignment(header.sh_addralign(order::<F>()).into(), name, limits)?;
        // What is among the code is code: tables need zeros behind them, not traps.
        if header.sh_flags(order::<F>()).0 & elf::SHF_TLS.0 != 0 {
            section.role = Role::ThreadLocal;
        } else if section.segment != Some(Segment::Code) {
            section.role = role(header.sh_type(order::<F>()), name);
        }
        section.zero_fill = header.sh_type(order::<F>()) == elf::SHT_NOBITS;
        if !section.zero_fill {
            section.bytes = content::<F>(object, header, "").map_err(|_| {
                LoadError::malformed(printable(name), "its bytes reach past the end of the file")
            })?;
        }
    }
    Ok(())
}

/// Where a section that has `SHF_ALLOC` is loaded. Data that only relocation writes to (`.data.rel.ro`, `.init_array`) needs no
/// writable memory: it is complete before it is protected.
fn segment<F: Shape>(header: &Header<F>, name: &[u8]) -> Result<Option<Segment>, LoadError> {
    let flags = header.sh_flags(order::<F>());
    let has = |flag: elf::SectionFlags| flags.0 & flag.0 != 0;
    let unsupported = |what: &str| Err(LoadError::unsupported(format!("{}: {what}", printable(name))));
    let is_note = header.sh_type(order::<F>()) == elf::SHT_NOTE;
    if has(elf::SHF_EXCLUDE) || is_note && name == b".note.gnu.property" {
        return Ok(None);
    }
    if matches!(
        header.sh_type(order::<F>()),
        elf::SHT_NULL | elf::SHT_SYMTAB | elf::SHT_STRTAB | elf::SHT_RELA | elf::SHT_REL | elf::SHT_GROUP
    ) {
        return Ok(None);
    }
    if has(elf::SHF_COMPRESSED) {
        return unsupported("a compressed section (SHF_COMPRESSED) that is to be loaded");
    }
    if has(elf::SHF_TLS) {
        // What threads begin with; nobody writes to it.
        return Ok(Some(Segment::ReadOnly));
    }
    match (has(elf::SHF_EXECINSTR), has(elf::SHF_WRITE)) {
        (true, true) => unsupported("a section that is both writable and executable"),
        (true, false) => Ok(Some(Segment::Code)),
        (false, true) if !relocation_read_only(header.sh_type(order::<F>()), name) => Ok(Some(Segment::Data)),
        (false, _) => Ok(Some(Segment::ReadOnly)),
    }
}

fn relocation_read_only(kind: elf::SectionType, name: &[u8]) -> bool {
    matches!(kind, elf::SHT_INIT_ARRAY | elf::SHT_FINI_ARRAY | elf::SHT_PREINIT_ARRAY)
        || is_or_extends(name, b".data.rel.ro")
        || is_or_extends(name, b".ctors")
        || is_or_extends(name, b".dtors")
}

fn alignment(align: u64, name: &[u8], limits: &Limits) -> Result<u64, LoadError> {
    let limit = limits.alignment.min(Limits::MAX_ALIGNMENT);
    match align {
        0 => Ok(1),
        align if !align.is_power_of_two() => {
            Err(LoadError::malformed(printable(name), format!("its alignment {align:#x} is no power of two")))
        }
        align if align > limit => Err(LoadError::limit("the alignment of a section", align, limit)),
        align => Ok(align),
    }
}

/// `.init_array.N` runs by ascending N, plain `.init_array` last; `.ctors.N` counts the other way round, and runs
/// from its end (the order that GNU ld's default script makes of them).
fn role(kind: elf::SectionType, name: &[u8]) -> Role {
    const LAST: u32 = u16::MAX as u32;
    let suffix = || {
        let dot = name.iter().rposition(|byte| *byte == b'.')?;
        std::str::from_utf8(&name[dot + 1..]).ok()?.parse::<u16>().ok().map(u32::from)
    };
    match kind {
        elf::SHT_PREINIT_ARRAY => Role::Initializers { priority: 0 },
        elf::SHT_INIT_ARRAY => Role::Initializers { priority: suffix().unwrap_or(LAST) },
        elf::SHT_FINI_ARRAY => Role::Finalizers { priority: suffix().unwrap_or(LAST) },
        // On Arm the same number means tables of another form (`SHT_ARM_EXIDX`).
        elf::SHT_X86_64_UNWIND if !is_or_extends(name, b".ARM.exidx") => Role::EhFrame,
        _ if name == b".eh_frame" => Role::EhFrame,
        _ if is_or_extends(name, b".gcc_except_table") => Role::ExceptTable,
        _ if is_or_extends(name, b".init_array") => Role::Initializers { priority: suffix().unwrap_or(LAST) },
        _ if is_or_extends(name, b".fini_array") => Role::Finalizers { priority: suffix().unwrap_or(LAST) },
        _ if is_or_extends(name, b".ctors") => {
            Role::InitializersBackwards { priority: suffix().map_or(LAST, |number| LAST - number) }
        }
        _ if is_or_extends(name, b".dtors") => {
            Role::FinalizersForwards { priority: suffix().map_or(LAST, |number| LAST - number) }
        }
        _ => Role::Plain,
    }
}

/// `name` is `stem`, or `stem.something`.
fn is_or_extends(name: &[u8], stem: &[u8]) -> bool {
    matches!(name.strip_prefix(stem), Some([] | [b'.', ..]))
}
