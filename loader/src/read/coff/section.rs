//! Section headers ("Section Table"): what is loaded, where to, and which sections have a meaning of their own.

use object::LittleEndian as LE;
use object::pe::{self, ImageRelocation, ImageSectionHeader};

use super::{Relocations, Strings, padded, table};
use crate::error::{LoadError, printable};
use crate::graph::{RelocationTable, Role, Section};
use crate::limits::Limits;
use crate::memory::Segment;

/// The section of arguments to the linker.
pub(super) const DIRECTIVES: &[u8] = b".drectve";

fn has(header: &ImageSectionHeader, flag: pe::SectionFlags) -> bool {
    header.characteristics.get(LE).0 & flag.0 != 0
}

/// Whether its symbol table entries say which of several copies is kept.
pub(super) fn is_comdat(header: &ImageSectionHeader) -> bool {
    has(header, pe::IMAGE_SCN_LNK_COMDAT)
}

/// Fills in one section, in place. Those that are not loaded are hardly looked at: debug information may be as strange
/// as it likes.
pub(super) fn read<'a>(
    section: &mut Section<'a>,
    object: &'a [u8],
    header: &'a ImageSectionHeader,
    number: usize,
    strings: Strings<'a>,
    limits: &Limits,
) -> Result<(), LoadError> {
    let name = name(header, strings).ok_or_else(|| {
        LoadError::malformed(
            format!("section {number}"),
            "its name is no name, outside of the string table, or too long",
        )
    })?;
    section.name = name;
    if name == DIRECTIVES {
        section.bytes = content(object, header, name)?;
        return Ok(());
    }
    section.segment = segment(header, name)?;
    if section.segment.is_some() {
        section.size = header.size_of_raw_data.get(LE).into();
        section.align = alignment(header, name, limits)?;
        section.zero_fill = has(header, pe::IMAGE_SCN_CNT_UNINITIALIZED_DATA);
        if !section.zero_fill {
            section.bytes = content(object, header, name)?;
        }
        // What is among the code is code: tables need zeros behind them, not traps.
        if section.segment != Some(Segment::Code) {
            section.role = role(name)?;
        }
    }
    Ok(())
}

/// Eight bytes, or where in the string table: `/` and a decimal number, or `//` and six digits in base 64.
fn name<'a>(header: &'a ImageSectionHeader, strings: Strings<'a>) -> Option<&'a [u8]> {
    match padded(&header.name) {
        [b'/', b'/', digits @ ..] => strings.get(base_64(digits)?),
        [b'/', digits @ ..] => strings.get(decimal(digits)?),
        short => Some(short),
    }
}

fn decimal(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn base_64(digits: &[u8]) -> Option<u32> {
    let number = digits.iter().try_fold(0u64, |number, digit| {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        Some(number << 6 | u64::from(value))
    });
    u32::try_from(number?).ok().filter(|_| !digits.is_empty())
}

/// Where a section is loaded. Arrays of constructors are written to by relocation only, so they need no writable memory:
/// they are complete before they are protected.
fn segment(header: &ImageSectionHeader, name: &[u8]) -> Result<Option<Segment>, LoadError> {
    let unsupported = |what: &str| Err(LoadError::unsupported(format!("{}: {what}", printable(name))));
    let for_the_linker = has(header, pe::IMAGE_SCN_LNK_REMOVE) || has(header, pe::IMAGE_SCN_LNK_INFO);
    if for_the_linker || has(header, pe::IMAGE_SCN_MEM_DISCARDABLE) || is_left_out(name) {
        return Ok(None);
    }
    if is_or_extends(name, b".tls") && header.size_of_raw_data.get(LE) != 0 {
        return unsupported("thread-local storage");
    }
    let executable = has(header, pe::IMAGE_SCN_MEM_EXECUTE) || has(header, pe::IMAGE_SCN_CNT_CODE);
    match (executable, has(header, pe::IMAGE_SCN_MEM_WRITE)) {
        (true, true) => unsupported("a section that is both writable and executable"),
        (true, false) => Ok(Some(Segment::Code)),
        (false, true) if !is_or_extends(name, b".ctors") && !is_or_extends(name, b".dtors") => {
            Ok(Some(Segment::Data))
        }
        (false, _) => Ok(Some(Segment::ReadOnly)),
    }
}

/// Debug information, and tables that a linker makes others from: of control flow guard, whose entries are symbol
/// numbers.
fn is_left_out(name: &[u8]) -> bool {
    const LEFT_OUT: [&[u8]; 6] = [b".debug", b".gfids", b".giats", b".gljmp", b".gehcont", b".sxdata"];
    LEFT_OUT.iter().any(|stem| is_or_extends(name, stem)) || name.starts_with(b".debug_")
}

/// `name` is `stem`, or goes on with what sorts sections of one name (`$`) or tells them apart (`.`).
fn is_or_extends(name: &[u8], stem: &[u8]) -> bool {
    matches!(name.strip_prefix(stem), Some([] | [b'$' | b'.', ..]))
}

fn alignment(header: &ImageSectionHeader, name: &[u8], limits: &Limits) -> Result<u64, LoadError> {
    /// Of sections that do not say.
    const DEFAULT: u64 = 16;
    const SHIFT: u32 = pe::IMAGE_SCN_ALIGN_1BYTES.0.trailing_zeros();
    let align = match (header.characteristics.get(LE).0 & pe::IMAGE_SCN_ALIGN_MASK) >> SHIFT {
        0 if has(header, pe::IMAGE_SCN_TYPE_NO_PAD) => 1,
        0 => DEFAULT,
        15 => return Err(LoadError::malformed(printable(name), "its alignment is none that there is")),
        exponent => 1 << (exponent - 1),
    };
    let limit = limits.alignment.min(Limits::MAX_ALIGNMENT);
    if align > limit {
        return Err(LoadError::limit("the alignment of a section", align, limit));
    }
    Ok(align)
}

/// The bytes of a section in the file.
fn content<'a>(object: &'a [u8], header: &ImageSectionHeader, name: &[u8]) -> Result<&'a [u8], LoadError> {
    let start = header.pointer_to_raw_data.get(LE) as usize;
    let size = header.size_of_raw_data.get(LE) as usize;
    if size == 0 {
        return Ok(&[]);
    }
    let end = start.checked_add(size).filter(|_| start != 0);
    end.and_then(|end| object.get(start..end)).ok_or_else(|| {
        LoadError::malformed(printable(name), "its bytes are not in the file, or reach past its end")
    })
}

/// The relocations of a section. More than 65,534 are counted in the first entry (`IMAGE_SCN_LNK_NRELOC_OVFL`), itself
/// included.
pub(super) fn relocations<'a>(
    name: &[u8],
    object: &'a [u8],
    header: &'a ImageSectionHeader,
) -> Result<RelocationTable<'a>, LoadError> {
    const OVERFLOWN: u16 = u16::MAX;
    let what = || format!("relocations of {}", printable(name));
    let start = header.pointer_to_relocations.get(LE);
    let counted = header.number_of_relocations.get(LE);
    let entries = |count| table::<ImageRelocation>(object, start, count, &what());
    let entries = if counted == OVERFLOWN && has(header, pe::IMAGE_SCN_LNK_NRELOC_OVFL) {
        let count = entries(1)?[0].virtual_address.get(LE);
        match entries(count)?.split_first() {
            Some((_, entries)) => entries,
            None => return Err(LoadError::malformed(what(), "there are none, where there must be one")),
        }
    } else if counted == 0 {
        return Ok(RelocationTable::None);
    } else {
        entries(counted.into())?
    };
    Ok(RelocationTable::Coff(Relocations::new(entries, header.virtual_address.get(LE))))
}

/// Arrays of functions and unwind tables of the GNU kind.
fn role(name: &[u8]) -> Result<Role, LoadError> {
    if let Some(suffix) = name.strip_prefix(b".CRT$X") {
        return runtime_array(name, suffix);
    }
    let count = |stem: &[u8]| number_behind(name, stem).map(|number| u16::MAX - number).unwrap_or(u16::MAX);
    Ok(if is_or_extends(name, b".ctors") {
        // GNU start-up code runs these when the arrays of the C runtime have been run.
        Role::InitializersBackwards { priority: order::AFTER_RUNTIME + u32::from(count(b".ctors")) }
    } else if is_or_extends(name, b".dtors") {
        Role::FinalizersForwards { priority: order::AFTER_RUNTIME + u32::from(count(b".dtors")) }
    } else if is_or_extends(name, b".eh_frame") {
        Role::EhFrame
    } else if is_or_extends(name, b".gcc_except_table") {
        Role::ExceptTable
    } else {
        Role::Plain
    })
}

/// The number in `.ctors.65435`.
fn number_behind(name: &[u8], stem: &[u8]) -> Option<u16> {
    std::str::from_utf8(name.strip_prefix(stem)?.strip_prefix(b".")?).ok()?.parse().ok()
}

/// The C runtime's arrays, which run in the order of their names: `XI` before `XC` at the start (C before C++), `XP` before
/// `XT` at the end.
fn runtime_array(name: &[u8], suffix: &[u8]) -> Result<Role, LoadError> {
    match suffix {
        [b'I', rest @ ..] => Ok(Role::Initializers { priority: order::of_suffix(rest) }),
        [b'C', rest @ ..] => Ok(Role::Initializers { priority: order::SECOND + order::of_suffix(rest) }),
        // Terminators run by descending priority.
        [b'P', rest @ ..] => Ok(Role::FinalizersForwards { priority: order::LAST - order::of_suffix(rest) }),
        [b'T', rest @ ..] => {
            Ok(Role::FinalizersForwards { priority: order::LAST - order::SECOND - order::of_suffix(rest) })
        }
        [b'L' | b'D', ..] => Err(LoadError::unsupported(format!(
            "{}: functions to run for each thread (thread-local storage)",
            printable(name)
        ))),
        _ => Ok(Role::Plain),
    }
}

/// Priorities that sort like section names.
mod order {
    /// Numbers for one kind of array are below this.
    pub(super) const SECOND: u32 = 1 << 24;
    pub(super) const LAST: u32 = 2 * SECOND - 1;
    pub(super) const AFTER_RUNTIME: u32 = 2 * SECOND;

    /// A number for what follows `.CRT$XC`: a letter and up to five digits. Other names that somebody thinks of sort by
    /// that much of them, and keep the object's order otherwise.
    pub(super) fn of_suffix(suffix: &[u8]) -> u32 {
        let letter = match suffix.first() {
            None => 0,
            Some(letter @ b'A'..=b'Z') => u32::from(letter - b'A') + 1,
            Some(other) if *other < b'A' => 0,
            Some(_) => 27,
        };
        (1..6).fold(letter, |number, place| {
            let digit = match suffix.get(place) {
                None => 0,
                Some(digit @ b'0'..=b'9') => u32::from(digit - b'0') + 1,
                Some(_) => 11,
            };
            number * 12 + digit
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_run_in_the_order_of_their_names() {
        let names =
            ["XIA", "XIU", "XIZ", "XCA", "XCC", "XCL", "XCT00101", "XCT00102", "XCT65000", "XCU", "XCZ"];
        let priorities = names.map(|name| match role(format!(".CRT${name}").as_bytes()) {
            Ok(Role::Initializers { priority }) => priority,
            _ => panic!("{name}"),
        });
        assert!(priorities.is_sorted_by(|first, second| first < second), "{priorities:?}");
        let ends = ["XPA", "XPX", "XTA", "XTX", "XTZ"];
        let priorities = ends.map(|name| match role(format!(".CRT${name}").as_bytes()) {
            Ok(Role::FinalizersForwards { priority }) => priority,
            _ => panic!("{name}"),
        });
        assert!(priorities.is_sorted_by(|first, second| first > second), "{priorities:?}");
    }

    #[test]
    fn numbers_in_names() {
        assert_eq!(decimal(b"1234567"), Some(1_234_567));
        assert_eq!(decimal(b""), None);
        assert_eq!(base_64(b"AAAABA"), Some(64));
        assert_eq!(base_64(b"AAmJaA"), Some(10_000_000));
        assert_eq!(base_64(b"//////"), None);
        assert_eq!(base_64(b"AAA=AA"), None);
    }
}
