//! Fields: checked access to the bytes of a place, and the range checks that ABIs ask for.

use crate::error::FixupProblem;

/// The field of `N` bytes at `offset`.
#[inline]
pub(crate) fn field<const N: usize>(section: &mut [u8], offset: u64) -> Result<&mut [u8; N], FixupProblem> {
    usize::try_from(offset)
        .ok()
        .and_then(|offset| section.get_mut(offset..)?.first_chunk_mut())
        .ok_or(FixupProblem::OutsideSection)
}

/// The bytes of the field at `offset`.
#[inline]
pub(crate) fn bytes_at<const N: usize>(section: &[u8], offset: u64) -> Result<[u8; N], FixupProblem> {
    usize::try_from(offset)
        .ok()
        .and_then(|offset| section.get(offset..)?.first_chunk().copied())
        .ok_or(FixupProblem::OutsideSection)
}

/// Replaces the little-endian word of 32 bits at `offset` by what `change` makes of it, unless that fails.
#[inline]
pub(crate) fn change_u32(
    section: &mut [u8],
    offset: u64,
    change: impl FnOnce(u32) -> Result<u32, FixupProblem>,
) -> Result<(), FixupProblem> {
    let field = field(section, offset)?;
    *field = change(u32::from_le_bytes(*field))?.to_le_bytes();
    Ok(())
}

/// `word` with the bits `low .. low + width` replaced by the lowest bits of `value`.
#[inline]
pub(crate) const fn insert(word: u32, low: u32, width: u32, value: u64) -> u32 {
    let mask = ((1u64 << width) - 1) as u32;
    (word & !(mask << low)) | ((value as u32 & mask) << low)
}

/// The value, if it is a signed number of that width (1 to 64 bits).
#[inline]
pub(crate) fn signed(value: i64, bits: u32) -> Result<i64, FixupProblem> {
    let spare = 64 - bits;
    if (value << spare) >> spare == value { Ok(value) } else { Err(FixupProblem::OutOfRange { value, bits }) }
}

/// The value, if it is an unsigned number of that width (1 to 63 bits).
#[inline]
pub(crate) fn unsigned(value: u64, bits: u32) -> Result<u64, FixupProblem> {
    if value >> bits == 0 { Ok(value) } else { Err(FixupProblem::OutOfRange { value: value as i64, bits }) }
}

/// The value, if it is a number of that width in either reading.
#[inline]
pub(crate) fn either(value: u64, bits: u32) -> Result<u64, FixupProblem> {
    unsigned(value, bits).or_else(|_| signed(value as i64, bits).map(|value| value as u64))
}

/// The value, if it is a multiple of `align`, a power of two.
#[inline]
pub(crate) fn aligned(value: i64, align: u64) -> Result<i64, FixupProblem> {
    if value as u64 & (align - 1) == 0 { Ok(value) } else { Err(FixupProblem::Misaligned { value, align }) }
}

/// The number of `bits` bits in two's complement at the low end of `value`.
#[inline]
pub(crate) const fn sign_extend(value: u64, bits: u32) -> i64 {
    let spare = 64 - bits;
    ((value << spare) as i64) >> spare
}
