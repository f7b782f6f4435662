//! Instructions of the A32 set: where the bits of a relocation's value go (aaelf32, "Static Arm relocations").
//!
//! Every instruction is one little-endian word. A function that ends in `_addend` reads what the field holds, the one
//! without it puts a value there.

use crate::arch::{insert, sign_extend, signed, unsigned};
use crate::error::FixupProblem;

/// `b`, `bl`, `blx`: 24 bits that count words.
pub(super) fn branch_addend(word: u32) -> i64 {
    sign_extend(u64::from(word) << 2, 26)
}

/// Puts a distance into a branch that stays in its state.
pub(super) fn branch(word: u32, distance: i64) -> Result<u32, FixupProblem> {
    Ok(insert(word, 0, 24, signed(distance, 26)? as u64 >> 2))
}

/// Whether the word is `blx` with an immediate: the condition is "never", and bit 24 counts as part of the distance.
pub(super) fn is_blx(word: u32) -> bool {
    word >> 25 == 0x7d
}

/// Puts a distance into a call, and makes it the instruction that arrives in the state asked for. `blx` has no condition,
/// and neither has the `bl` that replaces it or a plain one.
pub(super) fn call(distance: i64, to_thumb: bool) -> Result<u32, FixupProblem> {
    if to_thumb {
        let distance = signed(distance, 26)? as u64;
        let half = (distance as u32 & 2) << 23;
        Ok(insert(0xfa00_0000 | half, 0, 24, distance >> 2))
    } else {
        branch(0xeb00_0000, distance)
    }
}

/// `movw`, `movt`: 16 bits as imm4:imm12.
pub(super) fn move_addend(word: u32) -> i64 {
    sign_extend(u64::from((word >> 4 & 0xf000) | (word & 0xfff)), 16)
}

/// Puts 16 bits into `movw` or `movt`.
pub(super) fn move_16(word: u32, value: i64) -> u32 {
    let value = value as u64;
    insert(insert(word, 0, 12, value), 16, 4, value >> 12)
}

/// `add` and `sub` with a constant: eight bits, rotated right by twice a number of four bits.
pub(super) fn alu_addend(word: u32) -> i64 {
    let value = i64::from((word & 0xff).rotate_right((word >> 8 & 0xf) * 2));
    if word & ALU_SUB == 0 { value } else { -value }
}

const ALU_ADD: u32 = 1 << 23;
const ALU_SUB: u32 = 1 << 22;

/// Puts one group of a distance into `add` or `sub`. The last instruction of a sequence is `checked`: nothing may be left
/// below its eight bits.
pub(super) fn alu_group(word: u32, distance: i64, group: u8, checked: bool) -> Result<u32, FixupProblem> {
    let operation = if distance < 0 { ALU_SUB } else { ALU_ADD };
    let (rest, shift) = group_of(distance, group);
    let constant = rest >> shift;
    if checked && constant << shift != rest {
        return Err(FixupProblem::OutOfRange { value: i64::from(rest), bits: 8 });
    }
    let rotation = (32 - shift) / 2 % 16;
    let word = (word & !(ALU_ADD | ALU_SUB)) | operation;
    Ok(insert(insert(word, 0, 8, u64::from(constant)), 8, 4, u64::from(rotation)))
}

/// What is left of a distance for the instruction of that group, and where that group's eight bits begin: they are the
/// topmost that are not zero, counted in pairs of bits (aaelf32, "Group relocations").
fn group_of(distance: i64, group: u8) -> (u32, u32) {
    let mut rest = distance.unsigned_abs() as u32;
    for _ in 0..group {
        rest &= !(0xff << shift_of(rest));
    }
    (rest, shift_of(rest))
}

fn shift_of(rest: u32) -> u32 {
    (24 - (rest.leading_zeros() as i32 & !1)).max(0) as u32
}

/// The bit that says whether a load's offset is added.
const LOAD_ADD: u32 = 1 << 23;

/// `ldr`, `str`, `ldrb`, `strb`: twelve bits and a sign.
pub(super) fn load_addend(word: u32) -> i64 {
    with_sign(word, i64::from(word & 0xfff))
}

/// Puts what the groups before leave of a distance into `ldr` and the like.
pub(super) fn load_group(word: u32, distance: i64, group: u8) -> Result<u32, FixupProblem> {
    let (rest, _) = group_of(distance, group);
    let rest = unsigned(u64::from(rest), 12)?;
    Ok(insert(sign(word, distance), 0, 12, rest))
}

/// `ldrd`, `ldrh`, `ldrsb`, `ldrsh` and their stores: twice four bits and a sign.
pub(super) fn small_load_addend(word: u32) -> i64 {
    with_sign(word, i64::from((word >> 4 & 0xf0) | (word & 0xf)))
}

/// Puts what the groups before leave of a distance into `ldrd` and the like.
pub(super) fn small_load_group(word: u32, distance: i64, group: u8) -> Result<u32, FixupProblem> {
    let (rest, _) = group_of(distance, group);
    let rest = unsigned(u64::from(rest), 8)?;
    Ok(insert(insert(sign(word, distance), 0, 4, rest), 8, 4, rest >> 4))
}

fn with_sign(word: u32, value: i64) -> i64 {
    if word & LOAD_ADD == 0 { -value } else { value }
}

fn sign(word: u32, distance: i64) -> u32 {
    if distance < 0 { word & !LOAD_ADD } else { word | LOAD_ADD }
}
