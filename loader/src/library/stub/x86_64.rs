//! `endbr64; lea pair(%rip), %r11; jmp *(%r11)`: r11 is nobody's at a call (System V ABI, x86-64, 3.2.1; the same in
//! Microsoft's convention).

/// Bytes of a stub.
pub(super) const SIZE: usize = 16;

/// The stub at `place` that jumps through the first word at `pair`.
pub(super) fn stub(place: u64, pair: u64) -> Option<[u8; SIZE]> {
    const END_OF_LEA: u64 = 11;
    let distance = pair.wrapping_sub(place + END_OF_LEA) as i64;
    let [a, b, c, d] = i32::try_from(distance).ok()?.to_le_bytes();
    Some([0xf3, 0x0f, 0x1e, 0xfa, 0x4c, 0x8d, 0x1d, a, b, c, d, 0x41, 0xff, 0x23, 0xcc, 0xcc])
}

#[cfg(test)]
mod tests {
    use super::stub;

    #[test]
    fn the_distance_is_from_the_next_instruction_and_within_reach() {
        assert_eq!(stub(0x1000, 0x100b).unwrap()[7..11], [0; 4]);
        assert_eq!(stub(0x1000, 0x1000).unwrap()[7..11], (-11i32).to_le_bytes());
        assert!(stub(0, 0x8000_000a).is_some());
        assert!(stub(0, 0x8000_000b).is_none());
        assert!(stub(0x8000_0000 - 11, 0).is_some());
        assert!(stub(0x8000_0001 - 11, 0).is_none());
    }
}
