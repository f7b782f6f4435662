//! Detours round the instructions that know a thread-local variable by one distance from the thread pointer (initial-exec,
//! local-exec: aaelf64, "Relocations for thread-local storage"), where each thread has the variable's block elsewhere.
//!
//! The image is linked as if its block began at the thread pointer. Of the instructions that make up a distance, one is
//! in all of them: the ADD of the high part, the load from the GOT, the lowest group of a MOV sequence. A branch
//! replaces it; the detour runs it, asks for the distance from the thread pointer to this thread's block and adds
//! that to the result. All other registers and the flags are kept.

use super::{AArch64, Field, Kind, SlotKind, Value, change_u32, extract, sign_extend};
use crate::arch::{Architecture, Detour, DetourPlaces, Fixup, Refused, bytes_at, field};
use crate::error::FixupProblem;

const INSTRUCTION: u64 = 4;
const LENGTH: usize = 16;
const BRANCH: u32 = 0x1400_0000;
const NOP: u32 = 0xd503_201f;

pub(super) fn plan(code: &[u8], accesses: &[(Kind, u64)]) -> Result<Vec<Option<Detour>>, Refused> {
    let plan = |(access, (kind, offset)): (usize, &(Kind, u64))| {
        plan_one(code, *kind, *offset).map_err(|what| Refused { access, what })
    };
    accesses.iter().enumerate().map(plan).collect()
}

fn plan_one(code: &[u8], kind: Kind, offset: u64) -> Result<Option<Detour>, &'static str> {
    const NO_FORM: &str = "a thread-local access in an instruction of this form, to a variable that each thread has \
                           elsewhere,";
    const SLOT: SlotKind = SlotKind::ThreadOffset;
    let word = bytes_at(code, offset).map(u32::from_le_bytes).map_err(|_| NO_FORM)?;
    let is_detoured = match (kind.value, kind.field) {
        // The page of the GOT entry; the rest of the distance, after the high part or another group.
        (Value::SlotPage(SLOT), Field::Adrp) => return Ok(None),
        (
            Value::ThreadOffset,
            Field::Low12 { .. } | Field::MovSigned { group: 1 | 2 } | Field::MovSignedNoCheck { group: 1 },
        ) => return Ok(None),
        (Value::Slot(SLOT), Field::Low12 { scale: 3 }) => is_load(word),
        (Value::SlotRelative(SLOT), Field::Branch19) => is_literal_load(word),
        (Value::ThreadOffset, Field::High12 | Field::All12 { scale: 0 }) => is_add(word),
        (Value::ThreadOffset, Field::MovSigned { group: 0 } | Field::MovSignedNoCheck { group: 0 }) => {
            is_mov(word)
        }
        _ => false,
    };
    // The stack pointer, or a result that nobody wants.
    let result_is_31 = word & 0x1f == 31;
    match is_detoured && !result_is_31 && offset % INSTRUCTION == 0 {
        true => {
            let size = LENGTH as u64 * INSTRUCTION;
            Ok(Some(Detour { instruction: offset, length: INSTRUCTION, size }))
        }
        false => Err(NO_FORM),
    }
}

/// LDR of 64 bits, unsigned immediate.
fn is_load(word: u32) -> bool {
    word & 0xffc0_0000 == 0xf940_0000
}

/// LDR of 64 bits, literal.
fn is_literal_load(word: u32) -> bool {
    word & 0xff00_0000 == 0x5800_0000
}

/// ADD (immediate) of 64 bits.
fn is_add(word: u32) -> bool {
    word & 0xff80_0000 == 0x9100_0000
}

/// MOVN, MOVZ, MOVK of 64 bits.
fn is_mov(word: u32) -> bool {
    matches!(word & 0xff80_0000, 0x9280_0000 | 0xd280_0000 | 0xf280_0000)
}

pub(super) fn write(
    detour: &Detour,
    code: &mut [u8],
    places: DetourPlaces,
    bytes: &mut [u8],
) -> Result<(), FixupProblem> {
    let offset = detour.instruction;
    let word = u32::from_le_bytes(bytes_at(code, offset)?);
    let place = places.section.wrapping_add(offset);
    for (number, instruction) in instructions(word).into_iter().enumerate() {
        *field(bytes, number as u64 * INSTRUCTION)? = instruction.to_le_bytes();
    }
    if is_literal_load(word) {
        let target = place.wrapping_add_signed(sign_extend(extract(word, 5, 19) << 2, 21));
        change_u32(bytes, 0, |word| Field::Branch19.insert(word, target.wrapping_sub(places.detour) as i64))?;
    }
    let at = |number: u64| places.detour.wrapping_add(number * INSTRUCTION);
    let of_descriptor = |number| Fixup { place: at(number), target: places.descriptor, ..Fixup::default() };
    AArch64::apply(Kind::PAGE21, bytes, DESCRIPTOR_PAGE * INSTRUCTION, of_descriptor(DESCRIPTOR_PAGE))?;
    let low = DESCRIPTOR_PAGE + 1;
    AArch64::apply(Kind::PAGE_OFFSET12, bytes, low * INSTRUCTION, of_descriptor(low))?;
    let last = LENGTH as u64 - 1;
    let back = place.wrapping_add(INSTRUCTION).wrapping_sub(at(last)) as i64;
    change_u32(bytes, last * INSTRUCTION, |word| Field::Branch26.insert(word, back))?;
    let there = places.detour.wrapping_sub(place) as i64;
    change_u32(code, offset, |_| Field::Branch26.insert(BRANCH, there))
}

/// Number of the ADRP.
const DESCRIPTOR_PAGE: u64 = 4;

/// The detour round an instruction whose result is in its lowest five bits. X0, X1 and X30 are on the stack meanwhile,
/// and the flags.
fn instructions(instruction: u32) -> [u32; LENGTH] {
    let result = instruction & 0x1f;
    let sum = match result {
        // ldr x1, [sp]; add x0, x0, x1; ldr x1, [sp, #8]; add sp, sp, #32
        0 => [0xf940_03e1, 0x8b01_0000, 0xf940_07e1, 0x9100_83ff],
        // add result, result, x0; ldr x0, [sp], #32
        _ => [0x8b00_0000 | result << 5 | result, 0xf842_07e0, NOP, NOP],
    };
    [
        instruction,
        0xa9be_07e0, // stp x0, x1, [sp, #-32]!
        0xd53b_4201, // mrs x1, nzcv
        0xa901_07fe, // stp x30, x1, [sp, #16]
        0x9000_0000, // adrp x0, descriptor
        0x9100_0000, // add x0, x0, :lo12:descriptor
        0xf940_0001, // ldr x1, [x0]
        0xd63f_0020, // blr x1
        0xa941_07fe, // ldp x30, x1, [sp, #16]
        0xd51b_4201, // msr nzcv, x1
        0xf940_07e1, // ldr x1, [sp, #8]
        sum[0],
        sum[1],
        sum[2],
        sum[3],
        BRANCH,
    ]
}
