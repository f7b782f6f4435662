//! Relaxation: a load of an address from the GOT becomes the address itself. The conditions are those of `ld.lld`.

use super::{Field, page};
use crate::arch::{Fixup, bytes_at, field};

const NOP: u32 = 0xd503_201f;
const ADR: u32 = 0x1000_0000;
const ADRP: u32 = 0x9000_0000;
const ADD_64: u32 = 0x9100_0000;
const LDR_64: u32 = 0xf940_0000;

/// Rewrites the ADRP and LDR at `offset`, if they are that, use one register, and the symbol is in reach.
pub(super) fn got_access(section: &mut [u8], offset: u64, fixup: &Fixup) -> Option<()> {
    let second = offset.checked_add(4)?;
    let adrp = u32::from_le_bytes(bytes_at(section, offset).ok()?);
    let load = u32::from_le_bytes(bytes_at(section, second).ok()?);
    let register = adrp & 0x1f;
    let is_adrp = adrp & 0x9f00_0000 == ADRP;
    let is_load = load & 0xffc0_0000 == LDR_64;
    if !is_adrp || !is_load || load & 0x1f != register || (load >> 5) & 0x1f != register {
        return None;
    }
    let pages = page(fixup.target).wrapping_sub(page(fixup.place)) as i64;
    let bytes = fixup.target.wrapping_sub(fixup.place.wrapping_add(4)) as i64;
    let (first, last) = match Field::Adr.insert(ADR | register, bytes) {
        Ok(adr) => (NOP, adr),
        Err(_) => {
            let add = ADD_64 | register << 5 | register;
            let adrp = Field::Adrp.insert(ADRP | register, pages).ok()?;
            (adrp, Field::Low12 { scale: 0 }.insert(add, fixup.target as i64).ok()?)
        }
    };
    *field(section, offset).ok()? = first.to_le_bytes();
    *field(section, second).ok()? = last.to_le_bytes();
    Some(())
}
