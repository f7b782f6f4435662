//! Numbers in the headers of Mach-O and COFF objects, read and written by file offset. The offsets come from the
//! object itself, so every access is checked.

use std::ops::Range;

use super::RecordError;

/// The little-endian number in the `width` bytes at `at`.
pub(super) fn number(bytes: &[u8], at: usize, width: usize) -> Result<u64, RecordError> {
    let field = at.checked_add(width).and_then(|end| bytes.get(at..end));
    let field = field.ok_or_else(|| malformed(format!("it ends within the header at {at:#x}")))?;
    Ok(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Writes a number over the `width` bytes at `at`, the lowest byte first.
pub(super) fn set(bytes: &mut [u8], at: usize, width: usize, value: u64) -> Result<(), RecordError> {
    if width < 8 && value >> (8 * width) != 0 {
        return Err(malformed(format!("with its record, {value:#x} would not fit {width} bytes at {at:#x}")));
    }
    let field = at.checked_add(width).and_then(|end| bytes.get_mut(at..end));
    let field = field.ok_or_else(|| malformed(format!("it ends within the header at {at:#x}")))?;
    field.copy_from_slice(&value.to_le_bytes()[..width]);
    Ok(())
}

/// The file offsets of `size` bytes at `offset`, which must be in the object.
pub(super) fn extent(object: &[u8], offset: u64, size: u64) -> Result<Range<usize>, RecordError> {
    let start = usize::try_from(offset).ok();
    let end = offset.checked_add(size).and_then(|end| usize::try_from(end).ok());
    match (start, end) {
        (Some(start), Some(end)) if end <= object.len() => Ok(start..end),
        _ => Err(malformed(format!("{size:#x} bytes at {offset:#x} are not in the file"))),
    }
}

pub(super) fn malformed(what: impl Into<String>) -> RecordError {
    RecordError::Malformed(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_written_lowest_byte_first() {
        let mut bytes = [0, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(number(&bytes, 1, 2), Ok(0x0201));
        assert_eq!(number(&bytes, 0, 8), Ok(0x0706_0504_0302_0100));
        set(&mut bytes, 0, 4, 0xffff_fffe).unwrap();
        assert_eq!(bytes, [0xfe, 0xff, 0xff, 0xff, 4, 5, 6, 7]);
    }

    #[test]
    fn what_is_not_there_or_does_not_fit_is_refused() {
        let mut bytes = [0; 4];
        assert!(number(&bytes, 1, 4).is_err() && number(&bytes, usize::MAX, 2).is_err());
        assert!(set(&mut bytes, 3, 2, 0).is_err() && set(&mut bytes, 0, 4, 1 << 32).is_err());
        assert_eq!(extent(&bytes, 4, 0), Ok(4..4));
        assert!(extent(&bytes, 3, 2).is_err() && extent(&bytes, u64::MAX, 1).is_err());
    }
}
