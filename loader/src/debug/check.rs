//! What keeps hostile debug information from taking all time and memory. A reader of DWARF follows references: many units
//! may share one table of abbreviations or line numbers, many entries one list of ranges or one long name, and entries
//! nest. Here all is looked at once, with what later work it makes counted against the size of the sections. Compilers
//! stay below by far; what does not is refused.

use std::collections::BTreeSet;

use gimli::{AbbreviationsCacheStrategy, AttributeValue, Reader as _, Section as _, UnitRef};

use super::dwarf::{Bytes, Sections};

type Error = gimli::Error;

/// Readers recurse into functions inlined into each other.
const DEEPEST_INLINING: usize = 200;

/// Compilers write some twenty.
const MOST_ATTRIBUTES: usize = 100;

/// What is counted, with what is left of it.
struct Budgets {
    /// Elements that are kept in memory: ranges, rows of line tables, files.
    elements: Budget,
    /// Things that are looked at.
    steps: Budget,
    /// Bytes of strings that are looked at.
    string_bytes: Budget,
    /// Bytes of paths that are put together.
    path_bytes: Budget,
}

struct Budget {
    left: u64,
    what: &'static str,
}

impl Budget {
    fn spend(&mut self, count: usize) -> Result<(), Problem> {
        self.left = self.left.checked_sub(count as u64).ok_or(Problem::TooMuch(self.what))?;
        Ok(())
    }
}

/// Why debug information is not used.
pub(super) enum Problem {
    Malformed(Error),
    TooMuch(&'static str),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::Malformed(error)
    }
}

/// Checks everything that symbolising looks at, and has the sections keep their abbreviations. `total`: bytes of all
/// debug sections; `longest_string`: of those in them.
pub(super) fn check(sections: &mut Sections, total: usize, longest_string: usize) -> Result<(), Problem> {
    let total = total as u64;
    let budget = |factor: u64, least: u64, what| Budget { left: total.saturating_mul(factor) + least, what };
    let mut budgets = Budgets {
        elements: budget(2, 1 << 16, "ranges, lines and files"),
        steps: budget(16, 1 << 20, "entries and attributes"),
        string_bytes: budget(4096, 1 << 24, "names"),
        path_bytes: budget(16, 1 << 20, "paths"),
    };
    check_abbreviations(sections)?;
    sections.populate_abbreviations_cache(AbbreviationsCacheStrategy::All);
    let mut headers = sections.units();
    while let Some(header) = headers.next()? {
        if matches!(header.type_(), gimli::UnitType::Type { .. } | gimli::UnitType::SplitType { .. }) {
            // Types are not looked at.
            continue;
        }
        budgets.string_bytes.spend(2 * longest_string)?;
        let unit = sections.unit(header)?;
        let unit = UnitRef::new(sections, &unit);
        check_lines(unit, &mut budgets)?;
        check_entries(unit, longest_string, &mut budgets)?;
    }
    Ok(())
}

/// Tables of abbreviations that units refer to must not overlap, much.
fn check_abbreviations(sections: &Sections) -> Result<(), Problem> {
    let mut offsets = BTreeSet::new();
    let mut headers = sections.units();
    while let Some(header) = headers.next()? {
        offsets.insert(header.debug_abbrev_offset().0);
    }
    let all = sections.debug_abbrev.reader();
    let mut bytes = Budget { left: 2 * all.len() as u64 + 4096, what: "abbreviations" };
    for offset in offsets {
        let mut table = all.clone();
        table.skip(offset)?;
        let before = table.len();
        skip_abbreviations(&mut table)?;
        bytes.spend(before - table.len())?;
    }
    Ok(())
}

/// DWARF 5, section 7.5.3.
fn skip_abbreviations(table: &mut Bytes) -> Result<(), Problem> {
    while table.read_uleb128()? != 0 {
        let _tag = table.read_uleb128()?;
        let _has_children = table.read_u8()?;
        for attributes in 0.. {
            if attributes > MOST_ATTRIBUTES {
                return Err(Problem::TooMuch("attributes of an abbreviation"));
            }
            let (name, form) = (table.read_uleb128()?, table.read_uleb128()?);
            if (name, form) == (0, 0) {
                break;
            }
            if form == u64::from(gimli::DW_FORM_implicit_const.0) {
                table.read_sleb128()?;
            }
        }
    }
    Ok(())
}

/// The line table of a unit: how many rows and files it may have, and how long the files' paths are.
fn check_lines(unit: UnitRef<'_, Bytes>, budgets: &mut Budgets) -> Result<(), Problem> {
    let Some(program) = &unit.line_program else { return Ok(()) };
    let header = program.header();
    let instructions = header.raw_program_buf().len();
    let files = header.file_names().len();
    // Each instruction is a byte at least, and makes a row at most.
    budgets
        .elements
        .spend(instructions.saturating_add(files).saturating_add(header.include_directories().len()))?;
    let directory = unit.comp_dir.as_ref().map_or(0, |directory| directory.len());
    // An instruction that adds a file (`DW_LNE_define_file`) takes seven.
    budgets.path_bytes.spend((instructions / 7 + files).saturating_mul(directory + 1))?;
    for file in header.file_names() {
        let directory = file.directory(header).map_or(Ok(0), |directory| string_length(unit, directory))?;
        let bytes = directory + string_length(unit, file.path_name())?;
        budgets.string_bytes.spend(bytes)?;
        budgets.path_bytes.spend(bytes)?;
    }
    Ok(())
}

fn string_length(unit: UnitRef<'_, Bytes>, value: AttributeValue<Bytes>) -> Result<usize, Problem> {
    Ok(unit.attr_string(value)?.len())
}

/// The entries of a unit.
fn check_entries(
    unit: UnitRef<'_, Bytes>,
    longest_string: usize,
    budgets: &mut Budgets,
) -> Result<(), Problem> {
    // Depths of the inlined functions that the entry is inside of.
    let mut inlined: Vec<isize> = Vec::new();
    let mut entries = unit.entries_raw(None)?;
    while !entries.is_empty() {
        budgets.steps.spend(1)?;
        let depth = entries.next_depth();
        let Some(abbreviation) = entries.read_abbreviation()? else { continue };
        while inlined.last().is_some_and(|outer| *outer >= depth) {
            inlined.pop();
        }
        let tag = abbreviation.tag();
        if tag == gimli::DW_TAG_inlined_subroutine {
            inlined.push(depth);
            if inlined.len() > DEEPEST_INLINING {
                return Err(Problem::TooMuch("functions inlined into each other"));
            }
        }
        if tag == gimli::DW_TAG_inlined_subroutine || tag == gimli::DW_TAG_subprogram {
            budgets.string_bytes.spend(longest_string)?;
        }
        for specification in abbreviation.attributes() {
            budgets.steps.spend(1)?;
            let attribute = entries.read_attribute(*specification)?;
            if attribute.name() == gimli::DW_AT_ranges {
                check_ranges(unit, attribute.value(), budgets)?;
            }
        }
    }
    Ok(())
}

fn check_ranges(
    unit: UnitRef<'_, Bytes>,
    value: AttributeValue<Bytes>,
    budgets: &mut Budgets,
) -> Result<(), Problem> {
    let Some(offset) = unit.attr_ranges_offset(value)? else { return Ok(()) };
    let mut ranges = unit.raw_ranges(offset)?;
    while ranges.next()?.is_some() {
        budgets.elements.spend(1)?;
    }
    Ok(())
}
