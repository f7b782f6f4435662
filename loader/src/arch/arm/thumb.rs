//! Instructions of the T32 (Thumb) set: where the bits of a relocation's value go (aaelf32, "Static Thumb16 relocations"
//! and "Static Thumb32 relocations").
//!
//! An instruction is one halfword or two, each little-endian, the first the upper one: as the manuals draw them, and as the
//! `pair`s here are. A function that ends in `_addend` reads what the field holds, the one without it puts a value there.

use crate::arch::{aligned, bytes_at, field, insert, sign_extend, signed, unsigned};
use crate::error::FixupProblem;

/// The halfword at `offset`.
pub(super) fn half_at(section: &[u8], offset: u64) -> Result<u32, FixupProblem> {
    bytes_at(section, offset).map(|bytes| u32::from(u16::from_le_bytes(bytes)))
}

/// Replaces the halfword at `offset` by what `change` makes of it, unless that fails.
pub(super) fn change_half(
    section: &mut [u8],
    offset: u64,
    change: impl FnOnce(u32) -> Result<u32, FixupProblem>,
) -> Result<(), FixupProblem> {
    let field = field(section, offset)?;
    *field = (change(u32::from(u16::from_le_bytes(*field)))? as u16).to_le_bytes();
    Ok(())
}

/// The two halfwords at `offset`.
pub(super) fn pair_at(section: &[u8], offset: u64) -> Result<u32, FixupProblem> {
    bytes_at(section, offset).map(|bytes| u32::from_le_bytes(bytes).rotate_left(16))
}

/// Replaces the two halfwords at `offset` by what `change` makes of them, unless that fails.
pub(super) fn change_pair(
    section: &mut [u8],
    offset: u64,
    change: impl FnOnce(u32) -> Result<u32, FixupProblem>,
) -> Result<(), FixupProblem> {
    let field = field(section, offset)?;
    let pair = u32::from_le_bytes(*field).rotate_left(16);
    *field = change(pair)?.rotate_left(16).to_le_bytes();
    Ok(())
}

/// Bits `low .. low + width` of an instruction or a value.
fn bits(of: u64, low: u32, width: u32) -> u64 {
    of >> low & ((1 << width) - 1)
}

/// `b<cond>` of one halfword: 8 bits that count halfwords.
pub(super) fn jump_8_addend(half: u32) -> i64 {
    sign_extend(u64::from(half) << 1, 9)
}

pub(super) fn jump_8(half: u32, distance: i64) -> Result<u32, FixupProblem> {
    Ok(insert(half, 0, 8, signed(distance, 9)? as u64 >> 1))
}

/// `b` of one halfword: 11 bits that count halfwords.
pub(super) fn jump_11_addend(half: u32) -> i64 {
    sign_extend(u64::from(half) << 1, 12)
}

pub(super) fn jump_11(half: u32, distance: i64) -> Result<u32, FixupProblem> {
    Ok(insert(half, 0, 11, signed(distance, 12)? as u64 >> 1))
}

/// `b<cond>.w`: S:J2:J1:imm6:imm11:0.
pub(super) fn jump_19_addend(pair: u32) -> i64 {
    let pair = u64::from(pair);
    let (s, j2, j1) = (bits(pair, 26, 1), bits(pair, 11, 1), bits(pair, 13, 1));
    sign_extend(s << 20 | j2 << 19 | j1 << 18 | bits(pair, 16, 6) << 12 | bits(pair, 0, 11) << 1, 21)
}

pub(super) fn jump_19(pair: u32, distance: i64) -> Result<u32, FixupProblem> {
    let distance = signed(distance, 21)? as u64;
    let pair = insert(pair, 26, 1, distance >> 20);
    let pair = insert(pair, 16, 6, distance >> 12);
    Ok((pair & 0xffff_0000)
        | 0x8000
        | ((distance >> 18 & 1) << 13 | (distance >> 19 & 1) << 11 | bits(distance, 1, 11)) as u32)
}

/// `b.w`, `bl`, `blx`: S:I1:I2:imm10:imm11:0, with J = NOT(I) EOR S in the place of either I.
pub(super) fn branch_addend(pair: u32) -> i64 {
    let pair = u64::from(pair);
    let s = bits(pair, 26, 1);
    let (i1, i2) = (bits(pair, 13, 1) ^ s ^ 1, bits(pair, 11, 1) ^ s ^ 1);
    sign_extend(s << 24 | i1 << 23 | i2 << 22 | bits(pair, 16, 10) << 12 | bits(pair, 0, 11) << 1, 25)
}

/// Puts a distance into a branch that stays in its state, or into a call.
pub(super) fn branch(pair: u32, distance: i64) -> Result<u32, FixupProblem> {
    let distance = signed(distance, 25)? as u64;
    let s = bits(distance, 24, 1);
    let (j1, j2) = (bits(distance, 23, 1) ^ s ^ 1, bits(distance, 22, 1) ^ s ^ 1);
    let first = 0xf000 | s << 10 | bits(distance, 12, 10);
    let second = j1 << 13 | j2 << 11 | bits(distance, 1, 11);
    Ok((pair & 0xd000) | (first << 16 | second) as u32)
}

/// The bit of a call that is clear in `blx`, which arrives in ARM state.
const STAYS_IN_THUMB: u32 = 1 << 12;

pub(super) fn is_blx(pair: u32) -> bool {
    pair & STAYS_IN_THUMB == 0
}

/// Puts a distance into a call, and makes it the instruction that arrives in the state asked for. `blx` counts from its own
/// address rounded down to a word, so that the distance to a word is rounded up to one.
pub(super) fn call(pair: u32, distance: i64, to_thumb: bool) -> Result<u32, FixupProblem> {
    if to_thumb {
        branch(pair | STAYS_IN_THUMB, distance)
    } else {
        branch(pair & !STAYS_IN_THUMB, (distance + 3) & !3)
    }
}

/// `movw`, `movt`: 16 bits as imm4:i:imm3:imm8.
pub(super) fn move_addend(pair: u32) -> i64 {
    let pair = u64::from(pair);
    let value = bits(pair, 16, 4) << 12 | bits(pair, 26, 1) << 11 | bits(pair, 12, 3) << 8 | bits(pair, 0, 8);
    sign_extend(value, 16)
}

/// The first halfwords without their operands.
pub(super) const MOVW: u32 = 0xf240;
pub(super) const MOVT: u32 = 0xf2c0;

/// Puts 16 bits into `movw` or `movt`.
pub(super) fn move_16(pair: u32, first: u32, value: i64) -> u32 {
    let value = value as u64;
    let pair = insert(pair, 16, 16, u64::from(first) | bits(value, 11, 1) << 10 | bits(value, 12, 4));
    insert(insert(pair, 0, 8, value), 12, 3, value >> 8)
}

/// `adr.w`: `add` or `sub` with i:imm3:imm8.
pub(super) fn adr_addend(pair: u32) -> i64 {
    let subtracts = pair & 0x00f0_0000 != 0;
    let pair = u64::from(pair);
    let value = (bits(pair, 26, 1) << 11 | bits(pair, 12, 3) << 8 | bits(pair, 0, 8)) as i64;
    if subtracts { -value } else { value }
}

pub(super) fn adr(pair: u32, distance: i64) -> Result<u32, FixupProblem> {
    let value = unsigned(distance.unsigned_abs(), 12)?;
    let operation = if distance < 0 { 0xa } else { 0 };
    let pair = insert(insert(pair, 20, 4, operation), 26, 1, value >> 11);
    Ok(insert(insert(pair, 12, 3, value >> 8), 0, 8, value))
}

/// `ldr`, `adr` of one halfword: 8 bits that count words. All ones stand for -4, what the pc is ahead, so that the addend
/// of a plain reference can be written down.
pub(super) fn words_8_addend(half: u32) -> i64 {
    i64::from(((half & 0xff) * 4 + 4) & 0x3ff) - 4
}

pub(super) fn words_8(half: u32, distance: i64) -> Result<u32, FixupProblem> {
    let distance = unsigned(distance as u64, 10)?;
    Ok(insert(half, 0, 8, aligned(distance as i64, 4)? as u64 >> 2))
}

/// The bit that says whether a load's offset is added.
const LOAD_ADD: u32 = 1 << 23;

/// `ldr.w`: twelve bits and a sign.
pub(super) fn load_12_addend(pair: u32) -> i64 {
    let value = i64::from(pair & 0xfff);
    if pair & LOAD_ADD == 0 { -value } else { value }
}

pub(super) fn load_12(pair: u32, distance: i64) -> Result<u32, FixupProblem> {
    let value = unsigned(distance.unsigned_abs(), 12)?;
    let pair = if distance < 0 { pair & !LOAD_ADD } else { pair | LOAD_ADD };
    Ok(insert(pair, 0, 12, value))
}

/// `movs`, `adds` of one halfword: one byte of an address, counted from the lowest.
pub(super) fn byte_addend(half: u32) -> i64 {
    i64::from(half & 0xff)
}

pub(super) fn byte(half: u32, value: i64, number: u8) -> u32 {
    insert(half, 0, 8, value as u64 >> (8 * number))
}
