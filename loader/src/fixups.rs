//! Single fix-ups, for objcache's own tests: these hold each kind against linkers, with the numbers that the linker chose
//! and no pass of ours between. No part of the interface.

use crate::arch::{Architecture, Fixup, Machine, Operand, with_architecture};
use crate::error::FixupProblem;
use crate::graph::Format;

/// One relocation of an ELF object.
#[derive(Debug, Clone, Copy)]
pub struct Reference<'r> {
    /// As in a link map.
    pub machine: &'r str,
    pub kind: u32,
    /// Address of the place.
    pub place: u64,
    /// In the field, if there is none.
    pub addend: Option<i64>,
    /// Address of `_GLOBAL_OFFSET_TABLE_`, `.TOC.` and the like.
    pub got: u64,
    /// The symbol is a thread-local variable.
    pub thread_local: bool,
}

/// Does the relocation at `offset` of `section`. `target` is asked, by the name of the
/// operand, for what the value is made from.
pub fn fix_up(
    reference: Reference<'_>,
    section: &mut [u8],
    offset: u64,
    target: impl Fn(&str) -> u64,
) -> Result<(), FixupProblem> {
    let Some(machine) = Machine::find(|identity| identity.name == reference.machine) else {
        return Err(FixupProblem::Unsupported("a machine of this name"));
    };
    with_architecture!(machine, A => fix_up_for::<A>(reference, section, offset, target))
}

fn fix_up_for<A: Architecture>(
    reference: Reference<'_>,
    section: &mut [u8],
    offset: u64,
    target: impl Fn(&str) -> u64,
) -> Result<(), FixupProblem> {
    let kind = A::kind(Format::Elf, reference.kind).map_err(FixupProblem::Unsupported)?;
    let operand = if reference.thread_local { A::thread_local_operand(kind) } else { A::operand(kind) };
    let mut target = target(&format!("{operand:?}"));
    if operand == Operand::BlockOffset {
        target = target.wrapping_sub(A::BLOCK_BIAS);
    }
    let addend = match reference.addend {
        Some(addend) => addend,
        None => A::implicit_addend(kind, section, offset)?,
    };
    let Reference { place, got, .. } = reference;
    A::apply(kind, section, offset, Fixup { place, target, addend, got, ..Fixup::default() })
}
