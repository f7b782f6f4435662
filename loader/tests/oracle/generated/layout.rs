//! Where a linker is to put everything, as its script says: the tables first, then the cases' sections, each at the address
//! that was chosen for it.

use std::fmt::Write;

use super::{Batch, TABLES, THREADS};
use crate::case::THREAD_SECTION;
use crate::support::elf::{self, Object};

/// Words that fill a GOT, and the room it needs then.
const FILLER: u64 = 12_000;
pub(super) const FILLED_GOT: u64 = 0x2_0000;
/// What the dynamic linker reads is so far before them.
const DYNAMIC_TABLES: u64 = 0x10_0000;

impl Batch {
    /// Where everything is to be.
    pub(super) fn script(&self) -> String {
        let mut script = String::from("SECTIONS {\n");
        let Batch { base, tables, plt, .. } = *self;
        if let Some(number) = self.cases.iter().position(|case| case.section == 0) {
            writeln!(script, ".t.{number} 0 : {{ *(.t.{number}) }}").unwrap();
        }
        if self.linker.is_library() {
            writeln!(script, ". = {:#x};", base - DYNAMIC_TABLES).unwrap();
            let relocations =
                if self.linker.is_gnu() { " *(.rela.got .rel.got .rela.plt .rel.plt)" } else { "" };
            writeln!(script, ".rela.dyn : {{ *(.rela.dyn .rel.dyn){relocations} }}").unwrap();
            for table in ["dynsym", "gnu.version", "gnu.version_r", "gnu.hash", "hash", "dynstr", "dynamic"] {
                writeln!(script, ".{table} : {{ *(.{table}) }}").unwrap();
            }
        }
        writeln!(script, ".got {base:#x} : {{ *(.got) }}").unwrap();
        writeln!(script, ".got.plt {:#x} : {{ *(.got.plt) }}", tables + TABLES / 2).unwrap();
        writeln!(script, ".plt {plt:#x} : {{ *(.plt) }}").unwrap();
        writeln!(script, "{THREAD_SECTION} {:#x} : {{ *({THREAD_SECTION}) }}", tables + THREADS).unwrap();
        for (number, case) in self.cases.iter().enumerate() {
            if case.section != 0 {
                writeln!(script, ".t.{number} {:#x} : {{ *(.t.{number}) }}", case.section).unwrap();
            }
            for (name, value) in case.externals(number) {
                writeln!(script, "{name} = {value:#x};").unwrap();
            }
        }
        script + "}\n"
    }
}

/// Makes GOT entries of as many symbols.
pub(super) fn fill_got(object: &mut Object, kind: u32) {
    const HIDDEN: u8 = 2;
    let symbols: Vec<u32> = (0..FILLER)
        .map(|number| {
            let symbol = object.symbol(&format!("f{number}"), elf::GLOBAL, elf::ABS, number);
            object.symbols.last_mut().unwrap().other = HIDDEN;
            symbol
        })
        .collect();
    let section = object.section(".filler", elf::EXEC, &[0; 4]);
    for symbol in symbols {
        section.relocate(0, kind, symbol, 0);
    }
}
