//! What the oracle knows of an architecture: how its objects look, and one line per relocation kind.
//!
//! To add a kind: one line in the architecture's file in `machines/`, in the table of the linker and of the output that
//! it is to be shown to: lld's programs, unless lld relaxes it there or does not know it. The line says what stands at the place (data, or an
//! instruction with its registers and its field), what the value is measured from, at how many bits the limits are, and
//! whether a branch may go through a stub. To add an architecture: a file with its table, a line in `machines/mod.rs`.
//!
//! A table says nothing of how a value is encoded, nor of what a GOT entry holds: that is for the linker to show.

use crate::case::Case;
use crate::support::elf::{Object, Target};

/// An architecture under test.
pub struct Machine {
    /// As the loader's link map calls it, with `-rela` for a second table of an architecture, whose addends are in the tables.
    pub name: &'static str,
    /// What names of relocations begin with.
    pub prefix: &'static str,
    pub target: Target,
    pub kinds: &'static [Kind],
    /// Those that lld would relax in a program, and takes as they are in a shared library.
    pub library_kinds: &'static [Kind],
    /// Those that lld does not know, for GNU ld.
    pub gnu_kinds: &'static [Kind],
    /// Those that GNU ld, which knows them alone, takes as they are in a shared library.
    pub gnu_library_kinds: &'static [Kind],
    /// GNU ld for the machine, and what else it is to be told.
    pub gnu_ld: &'static [&'static str],
    /// A kind that makes GOT entries, for GNU ld: without addends, only a large GOT has entries at the limits.
    pub gnu_filler: Option<u32>,
    /// The dynamic linker's relocations, by which GOT entries are found in a library.
    pub dynamic: Dynamic,
    /// Where images are put.
    pub bases: &'static [u64],
    /// Alignment of code.
    pub code_align: u64,
    /// Where `_GLOBAL_OFFSET_TABLE_`, `.TOC.` and the like point: a section of lld's, and how far into it.
    pub got: (&'static str, u64),
    /// Where the thread-local block starts, counted from the thread pointer (ELF Handling For Thread-Local Storage).
    pub thread_block: i64,
    /// What offsets in the block (`@dtprel`) are made smaller by.
    pub block_bias: u64,
    /// For the local-dynamic model the linker of a library may make the entry of a variable where the ABI has that of the
    /// module, or the other way round.
    pub swaps_local_dynamic: bool,
    /// Words that lld keeps for itself at the start of `.got`.
    pub got_header: u64,
    /// The lowest bit of a function's address says which instruction set it is in.
    pub has_thumb: bool,
    /// Sections that the linker wants to see in an object.
    pub adorn: fn(&mut Object),
    /// Parts of warnings that do not mean that a relocation was refused.
    pub harmless: &'static [&'static str],
    /// What the bytes are to be, given those that lld makes of a branch to the stub's address.
    pub through_stub: fn(&Case, &mut [u8]),
    /// Whether a branch goes through a stub even where it need not for lld, to which the target is part of the program.
    pub always_stub: fn(&Case) -> bool,
    pub known: &'static [Known],
    /// Number and name of kinds that only whole objects can show: alignment, hints and the like.
    pub whole_only: &'static [(u32, &'static str)],
    /// Blanks the parts of a section of a whole object that are meant to differ: object, name, lld's bytes and ours.
    pub mask: fn(&[u8], &str, [&mut Vec<u8>; 2]),
    /// Whole objects are linked with relaxation, too.
    pub relaxes: bool,
    /// As `mask`, of what lld relaxes and we do not.
    pub relaxed_mask: fn(&[u8], &str, [&mut Vec<u8>; 2]),
    /// lld relaxes accesses through the GOT whatever one says.
    pub always_relaxed: bool,
}

impl Machine {
    /// Most of them.
    pub const DEFAULT: Machine = Machine {
        name: "",
        prefix: "",
        target: Target { machine: 0, class: 64, big_endian: false, explicit_addends: true, flags: 0 },
        kinds: &[],
        library_kinds: &[],
        gnu_kinds: &[],
        gnu_library_kinds: &[],
        gnu_ld: &[],
        gnu_filler: None,
        dynamic: Dynamic { module: 0, block_offset: 0, thread_offset: 0, descriptor: 0, jump_slot: 0 },
        bases: &[0x20_0000, 0x5555_5000_0000, 0x7ffe_ffc0_0000],
        code_align: 4,
        got: (".got", 0),
        thread_block: 0,
        block_bias: 0,
        swaps_local_dynamic: false,
        got_header: 0,
        has_thumb: false,
        adorn: |_| {},
        harmless: &[],
        through_stub: |_, _| {},
        always_stub: |_| false,
        known: &[],
        whole_only: &[],
        mask: |_, _, _| {},
        relaxes: false,
        relaxed_mask: |_, _, _| {},
        always_relaxed: false,
    };

    /// The kinds to show to a linker.
    pub fn kinds_for(&self, linker: Linker) -> &'static [Kind] {
        match linker {
            Linker::Lld => self.kinds,
            Linker::LldLibrary => self.library_kinds,
            Linker::Gnu => self.gnu_kinds,
            Linker::GnuLibrary => self.gnu_library_kinds,
        }
    }

    /// Numbers and names of all kinds that lld sees in programs.
    pub fn numbers(&self) -> impl Iterator<Item = (u32, &'static str)> {
        self.kinds.iter().flat_map(Kind::relocations).chain(self.whole_only.iter().copied())
    }

    /// The psABI's names for a line of the table.
    pub fn kind_names(&self, kind: &Kind) -> impl Iterator<Item = String> {
        kind.relocations().map(|(_, name)| format!("{}{name}", self.prefix))
    }

    pub fn architecture(&self) -> &'static str {
        self.name.strip_suffix("-rela").unwrap_or(self.name)
    }

    pub fn kind_name(&self, kind: &Kind) -> String {
        self.kind_names(kind).collect::<Vec<_>>().join(" with ")
    }

    /// rustc makes objects for it.
    pub fn is_host(&self) -> bool {
        self.name == std::env::consts::ARCH
    }

    /// The address as the machine has it.
    pub fn address(&self, value: u64) -> u64 {
        if self.target.class == 32 { value & 0xffff_ffff } else { value }
    }
}

/// Numbers of the dynamic linker's relocations for thread-local variables.
#[derive(Clone, Copy)]
pub struct Dynamic {
    pub module: u32,
    pub block_offset: u32,
    pub thread_offset: u32,
    pub descriptor: u32,
    pub jump_slot: u32,
}

/// The linkers, and what they are to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linker {
    Lld,
    LldLibrary,
    Gnu,
    GnuLibrary,
}

impl Linker {
    pub fn is_gnu(self) -> bool {
        matches!(self, Linker::Gnu | Linker::GnuLibrary)
    }

    pub fn is_library(self) -> bool {
        matches!(self, Linker::LldLibrary | Linker::GnuLibrary)
    }
}

/// A difference from the linker that is meant.
pub struct Known {
    /// Names of the kinds, without the prefix; all if there are none.
    pub kinds: &'static [&'static str],
    pub what: Difference,
    pub when: fn(&Case) -> bool,
    pub why: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    OnlyWeRefuse,
    OnlyTheyRefuse,
    Bytes,
}

/// A relocation kind, and cases to make of it.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub number: u32,
    pub name: &'static str,
    /// What stands at the place; nothing for data of `width` bytes.
    pub code: &'static [Word],
    pub width: usize,
    /// Offset of the place in `code`.
    pub at: usize,
    pub value: Value,
    /// Widths at whose limits, signed and unsigned, cases are to be.
    pub bits: &'static [u32],
    /// What the value has to be a multiple of.
    pub step: u64,
    /// Limits are also tried at this distance: where a value is rounded first.
    pub round: i64,
    /// A branch that may go through a stub.
    pub stub: bool,
    /// A stub leads to where the addend points, so that the branch to the stub has the usual one.
    pub leads: bool,
    /// Addend of a branch to its target, or what `code` has in its field.
    pub addend: i64,
    /// Only the addend 0 (or `addend`) occurs.
    pub plain: bool,
    /// Not against weak symbols that nobody defines: lld has no rule for it.
    pub defined: bool,
    /// The GOT entry is for a thread-local variable.
    pub thread: bool,
    /// The symbol is another library's function, which has a PLT entry.
    pub imported: bool,
    /// Only right in lld's hands when the place is at address 0.
    pub at_zero: bool,
    /// lld keeps the GOT entry in `.got.plt`, where it does not hold the symbol's address before the program runs.
    pub in_got_plt: bool,
    pub second: Second,
    /// What `st_other` may be of the symbol.
    pub others: &'static [u8],
}

/// What a value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// `S + A`.
    Absolute,
    /// `S + A - P`.
    Relative,
    /// `Page(S + A) - Page(P)`.
    Page,
    /// `S + A - GOT`.
    GotOffset,
    /// `GOT + A - P`.
    Got,
    /// The symbol's GOT entry, `G + A`.
    Slot,
    /// `G + A - P`.
    SlotRelative,
    /// `Page(G + A) - Page(P)`.
    SlotPage,
    /// `G + A - GOT`.
    SlotOffset,
    /// `Z + A`.
    Size,
    /// `S + A - tp`, of a thread-local symbol.
    ThreadOffset,
    /// `S + A - block`, of a thread-local symbol.
    BlockOffset,
}

impl Value {
    pub fn is_slot(self) -> bool {
        matches!(self, Value::Slot | Value::SlotRelative | Value::SlotPage | Value::SlotOffset)
    }
}

/// A relocation that goes with the first one.
#[derive(Debug, Clone, Copy)]
pub enum Second {
    None,
    /// At the end of `code` stands an instruction with the low part, which names the place of the first by a label.
    Low {
        number: u32,
        name: &'static str,
        word: Word,
    },
    /// At the end of `code` stands an instruction with another part of the value, against the same symbol.
    Next {
        number: u32,
        name: &'static str,
        word: Word,
    },
    /// At the same place, against another symbol.
    Same {
        number: u32,
        name: &'static str,
    },
    /// At that offset in `code`, against the same symbol.
    Mark {
        number: u32,
        name: &'static str,
        at: usize,
    },
    /// The same, against a function that is not there: a call that both linkers remove.
    Call {
        number: u32,
        at: usize,
    },
}

/// How a symbol is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Elsewhere.
    External,
    /// In the object, as a number.
    Absolute,
    /// In the section itself.
    Own,
    /// Nowhere.
    UndefinedWeak,
    /// In the thread-local block.
    Thread,
}

/// A part of an instruction.
#[derive(Debug, Clone, Copy)]
pub struct Word {
    pub width: usize,
    pub bits: u64,
    /// Bits that may be anything: registers and such.
    pub random: u64,
    /// Bits that the relocation replaces, and that may be anything before, if that does not make an addend.
    pub field: u64,
}

pub const fn word(bits: u64, random: u64, field: u64) -> Word {
    Word { width: 4, bits, random, field }
}

pub const fn half(bits: u64, random: u64, field: u64) -> Word {
    Word { width: 2, bits, random, field }
}

/// A byte of which some bits may be anything.
pub const fn byte_with(bits: u64, random: u64) -> Word {
    Word { width: 1, bits, random, field: 0 }
}

pub const fn byte(bits: u64) -> Word {
    Word { width: 1, bits, random: 0, field: 0 }
}

/// A kind that has a number of so many bytes as its field.
pub const fn data(number: u32, name: &'static str, width: usize) -> Kind {
    Kind {
        number,
        name,
        code: &[],
        width,
        at: 0,
        value: Value::Absolute,
        bits: &[64],
        step: 1,
        round: 0,
        stub: false,
        leads: false,
        addend: 0,
        plain: false,
        defined: false,
        thread: false,
        imported: false,
        at_zero: false,
        in_got_plt: false,
        second: Second::None,
        others: &[0],
    }
}

/// A kind whose field is in an instruction.
pub const fn code(number: u32, name: &'static str, code: &'static [Word]) -> Kind {
    Kind { code, ..data(number, name, 0) }
}

impl Kind {
    pub const fn of(self, value: Value, bits: &'static [u32]) -> Self {
        Kind { value, bits, ..self }
    }

    pub const fn absolute(self, bits: &'static [u32]) -> Self {
        self.of(Value::Absolute, bits)
    }

    pub const fn relative(self, bits: &'static [u32]) -> Self {
        self.of(Value::Relative, bits)
    }

    pub const fn thread(self, bits: &'static [u32]) -> Self {
        self.of(Value::ThreadOffset, bits)
    }

    /// An offset in the thread-local block.
    pub const fn block(self, bits: &'static [u32]) -> Self {
        self.of(Value::BlockOffset, bits)
    }

    /// Of the GOT entry for a thread-local variable.
    pub const fn entry(self, value: Value, bits: &'static [u32]) -> Self {
        Kind { thread: true, ..self.of(value, bits) }
    }

    /// Of the PLT entry for an imported function.
    pub const fn imported(self, value: Value, bits: &'static [u32]) -> Self {
        Kind { imported: true, ..self.of(value, bits) }
    }

    pub const fn at_zero(self) -> Self {
        Kind { at_zero: true, ..self }
    }

    pub const fn step(self, step: u64) -> Self {
        Kind { step, ..self }
    }

    pub const fn round(self, round: i64) -> Self {
        Kind { round, ..self }
    }

    pub const fn stub(self) -> Self {
        Kind { stub: true, ..self }
    }

    pub const fn leads(self) -> Self {
        Kind { leads: true, ..self }
    }

    pub const fn addend(self, addend: i64) -> Self {
        Kind { addend, ..self }
    }

    pub const fn plain(self) -> Self {
        Kind { plain: true, ..self }
    }

    pub const fn defined(self) -> Self {
        Kind { defined: true, ..self }
    }

    pub const fn others(self, others: &'static [u8]) -> Self {
        Kind { others, ..self }
    }

    pub const fn at(self, at: usize) -> Self {
        Kind { at, ..self }
    }

    pub const fn in_got_plt(self) -> Self {
        Kind { in_got_plt: true, ..self }
    }

    pub const fn low(self, number: u32, name: &'static str, word: Word) -> Self {
        Kind { second: Second::Low { number, name, word }, ..self }
    }

    pub const fn next(self, number: u32, name: &'static str, word: Word) -> Self {
        Kind { second: Second::Next { number, name, word }, ..self }
    }

    pub const fn same(self, number: u32, name: &'static str) -> Self {
        Kind { second: Second::Same { number, name }, ..self }
    }

    pub const fn mark(self, number: u32, name: &'static str, at: usize) -> Self {
        Kind { second: Second::Mark { number, name, at }, ..self }
    }

    pub const fn call(self, number: u32, at: usize) -> Self {
        Kind { second: Second::Call { number, at }, ..self }
    }

    /// Numbers and names of its relocations.
    pub fn relocations(&self) -> impl Iterator<Item = (u32, &'static str)> {
        let second = match self.second {
            Second::None | Second::Call { .. } => None,
            Second::Low { number, name, .. }
            | Second::Next { number, name, .. }
            | Second::Same { number, name }
            | Second::Mark { number, name, .. } => Some((number, name)),
        };
        std::iter::once((self.number, self.name)).chain(second)
    }
}
