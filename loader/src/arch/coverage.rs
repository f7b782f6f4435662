//! Which relocation kinds each machine has, kept in `tests/coverage/implemented.*.txt` beside what the test suites saw of
//! them: from these lists the table `RELOCATIONS.md` is made. A line is the format's number and name of a kind.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::{Architecture, Identity, Machine, with_architecture};
use crate::graph::Format;

#[allow(dead_code, unreachable_pub)] // Test suites use it too.
#[path = "../../tests/support/coverage.rs"]
mod lists;

/// Numbers of a format's kinds. Mach-O's have lengths and flags above the type.
fn numbers(format: Format) -> std::ops::Range<u32> {
    match format {
        Format::Elf => 0..2048,
        Format::Coff => 0..256,
        Format::MachO => 0..1 << 17,
    }
}

fn kinds<A: Architecture>(format: Format) -> BTreeSet<(u32, String)> {
    let is_done = |raw: &u32| A::kind(format, *raw).is_ok();
    let type_of = |raw: u32| if format == Format::MachO { raw & 0xff } else { raw };
    numbers(format).filter(is_done).map(|raw| (type_of(raw), A::name(format, raw))).collect()
}

#[test]
fn what_is_implemented_is_listed() {
    let identities: RefCell<Vec<Identity>> = RefCell::default();
    Machine::find(|identity| {
        identities.borrow_mut().push(*identity);
        false
    });
    for Identity { name, elf, macho, coff, .. } in identities.into_inner() {
        let machine = Machine::find(|identity| identity.name == name).unwrap();
        let formats = [
            (Format::Elf, "elf", elf.is_some()),
            (Format::MachO, "macho", macho.is_some()),
            (Format::Coff, "coff", coff.is_some()),
        ];
        for (format, format_name, _) in formats.into_iter().filter(|(.., has)| *has) {
            let mut kinds = with_architecture!(machine, A => kinds::<A>(format));
            if (format_name, name) == ("macho", "aarch64") {
                // What the reader makes a part of the relocation that follows.
                const ADDEND: u32 = 10;
                kinds.insert((ADDEND, with_architecture!(machine, A => A::name(format, ADDEND))));
            }
            let lines = kinds.into_iter().map(|(number, kind)| format!("{number:>4} {kind}")).collect();
            lists::keep("implemented", format_name, name, &lines);
        }
    }
}
