//! `adrp x16, pair; ldr x17, [x16, lo12]; add x16, x16, lo12; br x17`, as in a PLT: x16 and x17 are nobody's at a call
//! (AAPCS64, 6.1.1).

/// Bytes of a stub.
pub(super) const SIZE: usize = 16;

/// The stub at `place` that jumps through the first word at `pair`, which is aligned to 8.
pub(super) fn stub(place: u64, pair: u64) -> Option<[u8; SIZE]> {
    let pages = ((pair & !0xfff).wrapping_sub(place & !0xfff) as i64) >> 12;
    if !(-(1 << 20)..1 << 20).contains(&pages) || pair % 8 != 0 {
        return None;
    }
    let (pages, low) = (pages as u32, pair as u32 & 0xfff);
    let adrp = 0x9000_0010 | (pages & 3) << 29 | (pages >> 2 & 0x7_ffff) << 5;
    let ldr = 0xf940_0211 | (low / 8) << 10;
    let add = 0x9100_0210 | low << 10;
    let mut code = [0; SIZE];
    for (bytes, instruction) in code.chunks_exact_mut(4).zip([adrp, ldr, add, 0xd61f_0220]) {
        bytes.copy_from_slice(&instruction.to_le_bytes());
    }
    Some(code)
}
