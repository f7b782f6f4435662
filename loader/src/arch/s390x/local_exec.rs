//! Accesses to a program's own thread-local variables, made local-exec ("ELF Handling For Thread-Local Storage", section
//! 5, "s390x Linker Optimizations"): the literals are offsets from the thread pointer, and nothing is called.
//!
//! Initial-exec accesses stay, as `ld.lld` has it.

use super::Field::Word64;
use super::Value::*;
use super::{INDEX, Kind, MODULE};
use crate::arch::{
    CallRole, Fixup, LocalExec, LocalExecForm, LocalExecOperand, ThreadModel, bytes_at, field,
};
use crate::error::FixupProblem;

/// `brcl 0,.`: six bytes that do nothing.
const NO_BRANCH: [u8; 6] = [0xc0, 0x04, 0, 0, 0, 0];

pub(super) fn of(kind: Kind) -> Option<LocalExec> {
    use CallRole::{Call, Needed};
    use LocalExecOperand::Nothing;
    use ThreadModel::{GeneralDynamic, LocalDynamic};
    Some(match (kind.value, kind.field) {
        (GdCall, _) => LocalExec::part(GeneralDynamic).of(Nothing).with(Call),
        (Slot(INDEX), Word64) => LocalExec::part(GeneralDynamic).with(Needed),
        (Slot(INDEX), _) => LocalExec::stays(GeneralDynamic),
        (LdCall, _) => LocalExec::part(LocalDynamic).of(Nothing).with(Call),
        (Slot(MODULE), Word64) => LocalExec::part(LocalDynamic).of(Nothing).with(Needed),
        (BlockOffset, Word64) => LocalExec::part(LocalDynamic),
        (Slot(MODULE) | BlockOffset, _) => LocalExec::stays(LocalDynamic),
        _ => return None,
    })
}

pub(super) fn form(kind: Kind, section: &[u8], offset: u64) -> LocalExecForm {
    match kind.value {
        // brasl %r14,__tls_get_offset@plt.
        GdCall | LdCall => match (bytes_at::<6>(section, offset), offset.checked_add(2)) {
            (Ok([0xc0, 0xe5, ..]), Some(field)) => LocalExecForm::WithCall(field),
            _ => LocalExecForm::Foreign,
        },
        _ => LocalExecForm::Alone,
    }
}

pub(super) fn rewrite(
    kind: Kind,
    section: &mut [u8],
    offset: u64,
    fixup: &Fixup,
) -> Result<(), FixupProblem> {
    match kind.value {
        GdCall | LdCall => *field(section, offset)? = NO_BRANCH,
        // The offset of the block is part of those of the variables.
        Slot(MODULE) => {}
        _ => *field(section, offset)? = fixup.absolute().to_be_bytes(),
    }
    Ok(())
}
