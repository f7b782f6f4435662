//! Architectures: what a relocation computes, and what a stub looks like.
//!
//! An architecture is one file here and one arm where [`Machine`] is matched (`link/mod.rs`). It holds pure functions
//! over numbers and byte slices: nothing unsafe, nothing tied to the host, so any of them can be tested anywhere.
//! GOT entries and stubs are made by a pass ([`crate::link::tables`]); a fix-up only sees place, target and addend.

pub(crate) mod x86_64;

use crate::error::FixupProblem;
use crate::graph::Format;

/// Instruction set of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    X86_64,
}

impl Machine {
    /// Whether this process executes such code.
    pub(crate) fn is_host(self) -> bool {
        match self {
            Machine::X86_64 => cfg!(target_arch = "x86_64"),
        }
    }
}

/// What the passes need to know of an architecture.
pub(crate) trait Architecture {
    /// A relocation kind, the same for all formats.
    type Kind: Copy;

    /// Bytes of a GOT entry.
    const SLOT_SIZE: u64;
    /// Bytes of a stub; also its alignment.
    const STUB_SIZE: u64;
    /// What a gap between code sections is filled with: an instruction that traps.
    const TRAP: u8;

    /// Whether the relocation is `S + A - P: word32`, from a place to a symbol or a stub for it. Nearly all are, so the
    /// passes deal with them before they look any further; [`kind`](Self::kind), [`operand`](Self::operand) and
    /// [`apply`](Self::apply) say the same of them.
    fn is_relative_32(format: Format, raw: u32) -> bool;

    /// The kind behind a format's number, or what it would need that is not supported.
    fn kind(format: Format, raw: u32) -> Result<Self::Kind, &'static str>;

    /// The format's own name for a relocation.
    fn name(format: Format, raw: u32) -> String;

    /// What the relocation's value is made from.
    fn operand(kind: Self::Kind) -> Operand;

    /// Whether a relative reference at `offset` of `section` is the operand of a call or a jump, so that it may go
    /// through a stub.
    fn is_branch(section: &[u8], offset: u64, addend: i64) -> bool;

    /// Writes the value into the field.
    fn apply(kind: Self::Kind, section: &mut [u8], offset: u64, fixup: Fixup) -> Result<(), FixupProblem>;

    /// Writes a jump through the GOT entry at `slot` into a stub that runs at `place`.
    fn write_stub(stub: &mut [u8], place: u64, slot: u64) -> Result<(), FixupProblem>;
}

/// What a relocation refers to by its symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
    /// Nothing: the relocation does nothing.
    None,
    /// The symbol's address.
    Symbol,
    /// The symbol's address, in a field that only reaches the lowest 2 GiB.
    LowSymbol,
    /// The symbol's address, relative to the place and in reach of it; a stub may take its place when the reference
    /// is a branch.
    NearSymbol,
    /// The symbol's address or that of a stub for it.
    Branch,
    /// The address of the symbol's entry in the GOT.
    Slot,
    /// The address of the GOT; the symbol does not matter.
    Got,
    /// The symbol's size.
    Size,
}

/// The numbers of one fix-up, in the psABI's letters: `target` is S, G + GOT, L, GOT or Z by the kind's
/// [`Operand`], `place` is P.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixup {
    pub(crate) place: u64,
    pub(crate) target: u64,
    pub(crate) addend: i64,
    /// Address of the GOT (`_GLOBAL_OFFSET_TABLE_`).
    pub(crate) got: u64,
}

impl Fixup {
    /// `target + addend`; addresses wrap round, as in the ABI's arithmetic.
    #[inline]
    pub(crate) fn absolute(&self) -> u64 {
        self.target.wrapping_add_signed(self.addend)
    }

    /// `target + addend - place`.
    #[inline]
    pub(crate) fn relative(&self) -> i64 {
        self.absolute().wrapping_sub(self.place) as i64
    }

    /// `target + addend - GOT`.
    #[inline]
    pub(crate) fn got_relative(&self) -> i64 {
        self.absolute().wrapping_sub(self.got) as i64
    }
}

/// The field of `N` bytes at `offset`.
#[inline]
pub(crate) fn field<const N: usize>(section: &mut [u8], offset: u64) -> Result<&mut [u8; N], FixupProblem> {
    usize::try_from(offset)
        .ok()
        .and_then(|offset| section.get_mut(offset..)?.first_chunk_mut())
        .ok_or(FixupProblem::OutsideSection)
}

/// The value, if it is a signed number of that width.
#[inline]
pub(crate) fn signed(value: i64, bits: u32) -> Result<i64, FixupProblem> {
    let spare = 64 - bits;
    if (value << spare) >> spare == value { Ok(value) } else { Err(FixupProblem::OutOfRange { value, bits }) }
}

/// The value, if it is an unsigned number of that width.
#[inline]
pub(crate) fn unsigned(value: u64, bits: u32) -> Result<u64, FixupProblem> {
    if value >> bits == 0 { Ok(value) } else { Err(FixupProblem::OutOfRange { value: value as i64, bits }) }
}

/// The value, if it is a number of that width in either reading: the fields of 8 and 16 bits carry no sign.
#[inline]
pub(crate) fn either(value: u64, bits: u32) -> Result<u64, FixupProblem> {
    unsigned(value, bits).or_else(|_| signed(value as i64, bits).map(|value| value as u64))
}
