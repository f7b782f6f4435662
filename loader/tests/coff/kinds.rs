//! Names of relocation kinds, for the lists of what was shown to work.

use std::collections::BTreeSet;

use crate::support::coff;

const AMD64: &[(u16, &str)] = &[
    (0, "ABSOLUTE"),
    (1, "ADDR64"),
    (2, "ADDR32"),
    (3, "ADDR32NB"),
    (4, "REL32"),
    (5, "REL32_1"),
    (6, "REL32_2"),
    (7, "REL32_3"),
    (8, "REL32_4"),
    (9, "REL32_5"),
    (10, "SECTION"),
    (11, "SECREL"),
];

const I386: &[(u16, &str)] =
    &[(0, "ABSOLUTE"), (6, "DIR32"), (7, "DIR32NB"), (10, "SECTION"), (11, "SECREL"), (20, "REL32")];

const ARM64: &[(u16, &str)] = &[
    (0, "ABSOLUTE"),
    (1, "ADDR32"),
    (2, "ADDR32NB"),
    (3, "BRANCH26"),
    (4, "PAGEBASE_REL21"),
    (5, "REL21"),
    (6, "PAGEOFFSET_12A"),
    (7, "PAGEOFFSET_12L"),
    (8, "SECREL"),
    (9, "SECREL_LOW12A"),
    (10, "SECREL_HIGH12A"),
    (11, "SECREL_LOW12L"),
    (13, "SECTION"),
    (14, "ADDR64"),
    (15, "BRANCH19"),
    (16, "BRANCH14"),
    (17, "REL32"),
];

/// The machine's name in target triples, and that in relocations, with these.
fn names(machine: u16) -> (&'static str, &'static str, &'static [(u16, &'static str)]) {
    match machine {
        coff::X86_64 => ("x86_64", "AMD64", AMD64),
        coff::I386 => ("i386", "I386", I386),
        _ => ("aarch64", "ARM64", ARM64),
    }
}

pub(crate) fn machine_name(machine: u16) -> &'static str {
    names(machine).0
}

/// The names of a machine's kinds among all that were seen.
pub(crate) fn of_machine<'k>(machine: u16, seen: impl Iterator<Item = &'k (u16, u16)>) -> BTreeSet<String> {
    let (_, prefix, names) = names(machine);
    let numbers = seen.filter(|(other, _)| *other == machine).map(|(_, kind)| *kind);
    let name = |kind: u16| names.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name);
    numbers.map(|kind| format!("IMAGE_REL_{prefix}_{}", name(kind).unwrap_or("unknown"))).collect()
}
