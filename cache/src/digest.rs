//! The digest of an entry's content: BLAKE3, at the width of the processor.
//!
//! BLAKE3 takes chunks of 1 KB, as many at once as the processor has lanes, 16 at most. What does not fill the lanes
//! takes nearly as long as what does: 13 chunks take a pass over 8, one over 4 and one over 1. So the content is
//! filled up to a number of chunks that takes one pass less, which makes a hit of 12 KB a tenth faster. Its length
//! stands at the very end, so that no two contents are filled up to the same. A hit fills up where the entry was read to.

use blake3::Hasher;

const CHUNK: usize = 1024;
/// What is taken at once at most.
const WIDTH: usize = 16 * CHUNK;
/// So many bytes are few.
const SHORT: usize = 4 * CHUNK;
/// The length at the end.
const END: usize = 8;

/// How long content of this length is with what fills it up: whole widths, and then as many chunks as a power of
/// two.
fn filled(length: usize) -> usize {
    let needed = length + END;
    let whole = needed / WIDTH * WIDTH;
    let chunks = (needed - whole).div_ceil(CHUNK);
    match chunks {
        0 => whole,
        chunks => whole + chunks.next_power_of_two() * CHUNK,
    }
}

/// What to make room for so that the content of an entry of this length is [filled up where it is](of_front), if that
/// takes no more than a third.
pub(crate) fn room(length: usize) -> usize {
    let room = filled(length);
    if room - length <= length / 3 { room } else { length }
}

/// The digest of all but the last bytes, which are few. They are left as they are.
pub(crate) fn of_front<const LAST: usize>(bytes: &mut Vec<u8>) -> Option<blake3::Hash> {
    let content = bytes.len().checked_sub(LAST)?;
    let length = filled(content);
    if bytes.capacity() < length {
        return Some(of(&bytes[..content]));
    }
    let last: [u8; LAST] = *bytes.last_chunk()?;
    bytes.truncate(content);
    bytes.resize(length - END, 0);
    bytes.extend_from_slice(&(content as u64).to_le_bytes());
    let digest = blake3::hash(bytes);
    bytes.truncate(content);
    bytes.extend_from_slice(&last);
    Some(digest)
}

/// The digest of content that is in one piece.
pub(crate) fn of(content: &[u8]) -> blake3::Hash {
    // Less is zeroed for what is short, and less memory touched that a new process has not touched yet.
    match filled(content.len()) {
        ..=SHORT => of_filled_up::<SHORT>(content),
        // With the length it may be a little more than a width.
        _ => of_filled_up::<{ WIDTH + CHUNK }>(content),
    }
}

/// `ROOM`: for what comes after whole widths.
#[inline(never)]
fn of_filled_up<const ROOM: usize>(content: &[u8]) -> blake3::Hash {
    let whole = content.len() / WIDTH * WIDTH;
    let (whole, rest) = content.split_at(whole);
    let mut filled_up = [0; ROOM];
    let length = filled(content.len()) - whole.len();
    let last = &mut filled_up[..length];
    last[..rest.len()].copy_from_slice(rest);
    last[length - END..].copy_from_slice(&(content.len() as u64).to_le_bytes());
    match whole.is_empty() {
        true => blake3::hash(last),
        false => Hasher::new().update(whole).update(last).finalize(),
    }
}

/// The digest of content that is in two pieces.
pub(crate) fn of_both(first: &[u8], second: &[u8]) -> blake3::Hash {
    let content = first.len() + second.len();
    let zeros = filled(content) - END - content;
    let mut hasher = Hasher::new();
    hasher.update(first).update(second);
    hasher.update(&[0; WIDTH][..zeros]).update(&(content as u64).to_le_bytes());
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn in_one_piece_or_two_it_is_the_same_and_every_length_counts() {
        let content = [0; 3 * WIDTH];
        let near = |at: usize| at.saturating_sub(9)..at + 3;
        let lengths: HashSet<usize> = (0..=40).flat_map(|chunks| near(chunks * CHUNK)).collect();
        let digests: HashSet<_> = lengths.iter().map(|&length| *of(&content[..length]).as_bytes()).collect();
        assert_eq!(digests.len(), lengths.len(), "zeros differ by their number alone");
        for &length in &lengths {
            let whole = of(&content[..length]);
            for at in [0, 1, length / 2, length] {
                let (first, second) = content[..length].split_at(at.min(length));
                assert_eq!(of_both(first, second), whole, "{length}");
            }
        }
    }

    #[test]
    fn where_it_stands_it_is_the_same_and_nothing_is_changed() {
        let bytes: Vec<u8> = (0..3 * WIDTH).map(|at| (at % 251) as u8).collect();
        for length in (0..3 * WIDTH).step_by(53).chain(WIDTH - 70..WIDTH + 70) {
            for room in [length, room(length)] {
                let mut entry = Vec::with_capacity(room);
                entry.extend_from_slice(&bytes[..length]);
                let content = length.checked_sub(64).map(|content| of(&bytes[..content]));
                assert_eq!(of_front::<64>(&mut entry), content, "{length} in {room}");
                assert_eq!(entry, &bytes[..length]);
                assert!(entry.capacity() == room, "{length} in {room}: nothing was moved");
            }
        }
    }

    #[test]
    fn little_is_added() {
        for length in 0..200_000 {
            let filled = filled(length);
            assert!(filled >= length + END && filled.is_multiple_of(CHUNK));
            assert!(filled - length < WIDTH / 2 + CHUNK, "{length}");
        }
        assert_eq!((filled(13_400), filled(0), filled(WIDTH - END)), (WIDTH, CHUNK, WIDTH));
    }
}
