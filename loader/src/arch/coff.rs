//! What COFF's relocations have in common on all machines (PE format, "Type Indicators"): values that count from the image
//! or from a section, and addends that are in the fields.

use super::{Fixup, bytes_at, either, field, unsigned};
use crate::error::FixupProblem;

/// A kind of relocation that has nothing of the machine in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Common {
    /// `ADDR32NB`, `DIR32NB`: distance from the image's first byte, unsigned.
    ImageRelative,
    /// `SECTION`: number of the symbol's section, 16 bits.
    SectionNumber,
    /// `SECREL`: offset in the section, 32 bits.
    SectionOffset,
    /// `SECREL7`: the same in seven bits.
    SectionOffset7,
}

impl Common {
    pub(crate) fn operand(self) -> super::Operand {
        match self {
            Common::ImageRelative => super::Operand::ImageOffset,
            Common::SectionNumber => super::Operand::SectionNumber,
            Common::SectionOffset | Common::SectionOffset7 => super::Operand::SectionOffset,
        }
    }

    pub(crate) fn implicit_addend(self, section: &[u8], offset: u64) -> Result<i64, FixupProblem> {
        match self {
            Common::ImageRelative | Common::SectionOffset => word(section, offset),
            Common::SectionNumber => bytes_at(section, offset).map(|bytes| u16::from_le_bytes(bytes).into()),
            Common::SectionOffset7 => bytes_at(section, offset).map(|[byte]| i64::from(byte & 0x7f)),
        }
    }

    pub(crate) fn apply(self, section: &mut [u8], offset: u64, fixup: Fixup) -> Result<(), FixupProblem> {
        match self {
            Common::ImageRelative => {
                let value = fixup.absolute().wrapping_sub(fixup.image);
                *field(section, offset)? = (unsigned(value, 32)? as u32).to_le_bytes();
            }
            Common::SectionNumber => {
                let number = unsigned(fixup.target, 16)? as u16;
                *field(section, offset)? = number.wrapping_add(fixup.addend as u16).to_le_bytes();
            }
            Common::SectionOffset => {
                *field(section, offset)? = (either(fixup.absolute(), 32)? as u32).to_le_bytes();
            }
            Common::SectionOffset7 => {
                let value = unsigned(fixup.absolute(), 7)? as u8;
                let [byte] = field(section, offset)?;
                *byte = *byte & 0x80 | value;
            }
        }
        Ok(())
    }
}

/// An addend of 32 bits.
pub(crate) fn word(section: &[u8], offset: u64) -> Result<i64, FixupProblem> {
    bytes_at(section, offset).map(|bytes| i32::from_le_bytes(bytes).into())
}
