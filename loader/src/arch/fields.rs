//! Fields: checked access to the bytes of a place, and the range checks that ABIs ask for.

use crate::error::FixupProblem;

/// The field of `N` bytes at `offset`.
#[inline]
pub(crate) fn field<const N: usize>(section: &mut [u8], offset: u64) -> Result<&mut [u8; N], FixupProblem> {
    usize::try_from(offset)
        .ok()
        .and_then(|offset| section.get_mut(offset..offset.checked_add(N)?)?.first_chunk_mut())
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

/// Replaces the little-endian word of 16 bits at `offset` by the low half of what `change` makes of it, unless that fails.
#[inline]
pub(crate) fn change_u16(
    section: &mut [u8],
    offset: u64,
    change: impl FnOnce(u32) -> Result<u32, FixupProblem>,
) -> Result<(), FixupProblem> {
    let field = field(section, offset)?;
    *field = (change(u32::from(u16::from_le_bytes(*field)))? as u16).to_le_bytes();
    Ok(())
}

/// The bits of the number of `width` bits (1 to 64) at `offset`, in as many bytes as it takes, little-endian, replaced by
/// what `change` makes of them. Bits beside it stay.
#[inline]
pub(crate) fn change_bits(
    section: &mut [u8],
    offset: u64,
    width: u8,
    change: impl FnOnce(u64) -> u64,
) -> Result<(), FixupProblem> {
    let bytes = usize::from(width).div_ceil(8);
    let field = usize::try_from(offset).ok().and_then(|offset| section.get_mut(offset..)?.get_mut(..bytes));
    let field = field.ok_or(FixupProblem::OutsideSection)?;
    let mut word = [0; 8];
    word[..bytes].copy_from_slice(field);
    let (old, mask) = (u64::from_le_bytes(word), u64::MAX >> (64 - width));
    let new = old & !mask | change(old) & mask;
    field.copy_from_slice(&new.to_le_bytes()[..bytes]);
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

/// A ULEB128 number (DWARF 5, 7.6), which keeps its length when it is replaced.
pub(crate) struct Uleb128<'s>(&'s mut [u8]);

/// The ULEB128 number at `offset`.
pub(crate) fn uleb128(section: &mut [u8], offset: u64) -> Result<Uleb128<'_>, FixupProblem> {
    const LONGEST: usize = 10;
    let bytes = usize::try_from(offset).ok().and_then(|offset| section.get_mut(offset..));
    let bytes = bytes.ok_or(FixupProblem::OutsideSection)?;
    match bytes.iter().take(LONGEST).position(|byte| byte & 0x80 == 0) {
        Some(last) => Ok(Uleb128(&mut bytes[..=last])),
        None if bytes.len() < LONGEST => Err(FixupProblem::OutsideSection),
        None => Err(FixupProblem::Unsupported("a ULEB128 number of more than 10 bytes")),
    }
}

impl Uleb128<'_> {
    /// How many bits there is room for.
    pub(crate) fn bits(&self) -> u32 {
        (7 * self.0.len() as u32).min(64)
    }

    /// The number, but for bits above 64.
    pub(crate) fn get(&self) -> u64 {
        let digits = self.0.iter().rev();
        digits.fold(0, |number, digit| number << 7 | u64::from(digit & 0x7f))
    }

    /// Replaces it by one that fits.
    pub(crate) fn set(self, number: u64) -> Result<(), FixupProblem> {
        let bits = self.bits();
        if bits < 64 {
            unsigned(number, bits)?;
        }
        let (mut rest, last) = (number, self.0.len() - 1);
        for (position, digit) in self.0.iter_mut().enumerate() {
            let more = if position < last { 0x80 } else { 0 };
            *digit = more | (rest & 0x7f) as u8;
            rest >>= 7;
        }
        Ok(())
    }
}
