//! Stretches of a file replaced by others of another length, and where everything else is then.
//!
//! In Mach-O and COFF the section headers follow the file header and cannot be elsewhere, so one header more
//! moves what stands behind it. All that changes is file offsets; which fields hold one is told by the format.

use std::ops::Range;

use super::RecordError;
use super::numbers::malformed;

/// `range` of a file is replaced by `bytes`; an empty range stands for an insertion.
pub(super) struct Splice {
    pub(super) range: Range<usize>,
    pub(super) bytes: Vec<u8>,
}

/// Splices of one file that do not overlap, ascending.
pub(super) struct Splices(pub(super) Vec<Splice>);

impl Splices {
    /// Where the `length` bytes at `offset` are afterwards. Nothing is at offset 0: it stands for "none".
    pub(super) fn moved(&self, offset: u64, length: u64) -> Result<u64, RecordError> {
        let cut = || malformed(format!("the {length:#x} bytes at {offset:#x} overlap headers or a record"));
        let end = offset.checked_add(length).ok_or_else(cut)?;
        let mut moved = offset;
        for Splice { range, bytes } in &self.0 {
            if offset != 0 && offset >= range.end as u64 {
                moved = (moved - range.len() as u64).checked_add(bytes.len() as u64).ok_or_else(cut)?;
            } else if length != 0 && end > range.start as u64 {
                return Err(cut());
            }
        }
        Ok(moved)
    }

    /// The file with the splices done.
    pub(super) fn apply(&self, file: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(file.len() + self.0.iter().map(|it| it.bytes.len()).sum::<usize>());
        let mut done = 0;
        for Splice { range, bytes } in &self.0 {
            out.extend(&file[done..range.start]);
            out.extend(bytes);
            done = range.end;
        }
        out.extend(&file[done..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splices() -> Splices {
        let insert = Splice { range: 4..4, bytes: b"++".to_vec() };
        let replace = Splice { range: 8..11, bytes: b"-".to_vec() };
        Splices(vec![insert, replace])
    }

    #[test]
    fn what_is_behind_a_splice_moves() {
        let file = b"0123456789abcdef";
        let after = splices().apply(file);
        assert_eq!(after, b"0123++4567-bcdef");
        for (offset, length) in [(1, 3), (4, 4), (5, 2), (11, 5), (15, 1)] {
            let moved = splices().moved(offset as u64, length as u64).unwrap() as usize;
            assert_eq!(after[moved..moved + length], file[offset..offset + length], "{offset}");
        }
    }

    #[test]
    fn what_a_splice_would_cut_is_refused() {
        for (offset, length) in [(1, 4), (3, 2), (4, 5), (7, 4), (8, 1), (10, 1), (10, 6), (2, u64::MAX)] {
            assert!(splices().moved(offset, length).is_err(), "{offset}");
        }
    }

    #[test]
    fn nothing_is_nowhere() {
        assert_eq!(splices().moved(0, 0), Ok(0));
        assert_eq!(splices().moved(9, 0), Ok(11), "of no length: anywhere will do");
    }
}
