//! The frame of `.eh_frame`: records, and what each record points at (LSB Core, "Exception Frames").
//!
//! Unwinders trust these tables and read on from what a record says. Checked here is what keeps them inside of the
//! table: lengths, the reference from each FDE to its CIE, and the ends of the strings and numbers before a CIE's
//! initial instructions. And what keeps the table from speaking of others: each FDE's range is code of this image, so
//! that no object decides how the program's own functions are unwound.

use std::ops::Range;

use smallvec::SmallVec;

/// Checks that the table, which is at `address`, is a sequence of well-formed records about `code`.
pub(crate) fn check(table: &[u8], address: u64, code: &Range<u64>) -> Result<(), String> {
    walk(table, |at, entry, body| check_range(entry.functions, body, address.wrapping_add(at as u64), code))
}

/// Whether the table consists of whole records, and has no terminator: more may follow it.
pub(crate) fn is_open(table: &[u8]) -> bool {
    let mut at = 0;
    while at < table.len() {
        match word(table, at) {
            None | Some(0 | 0xffff_ffff) => return false,
            Some(length) => at += 4 + length as usize,
        }
    }
    at == table.len()
}

/// The addresses of the functions that a table at `address` is about, from the lowest to the highest, if it is about any.
pub(crate) fn extent(table: &[u8], address: u64) -> Option<Range<u64>> {
    let mut extent: Option<Range<u64>> = None;
    let _ = walk(table, |at, entry, body| {
        if let Some(range) = range(entry.functions, body, address.wrapping_add(at as u64))? {
            let known = extent.clone().unwrap_or(range.clone());
            extent = Some(known.start.min(range.start)..known.end.max(range.end));
        }
        Ok(())
    });
    extent
}

/// Calls `each` for the pointers in FDEs that count from where they are: to the function and to what its language says of
/// it. With the offset in the table, the bytes the pointer takes, and its value. Stops where the table is malformed.
pub(crate) fn relative_pointers(table: &[u8], mut each: impl FnMut(usize, usize, u64)) {
    let _ = walk(table, |at, entry, body| {
        let mut pointer = |encoding: Encoding, offset: usize| {
            let size = encoding.size()?;
            let value = encoding.read(body.get(offset..)?)?;
            if encoding.is_relative() == Some(true) {
                each(at + offset, size, value);
            }
            Some(size)
        };
        let Some(size) = pointer(entry.functions, 0) else { return Ok(()) };
        if let Some(encoding) = entry.language_data {
            let augmentation = body.get(2 * size..).and_then(skip_leb128);
            if let Some(data) = augmentation {
                pointer(encoding, body.len() - data.len());
            }
        }
        Ok(())
    });
}

/// Calls `each` for the FDEs with the offset of what is behind the reference to the CIE, the CIE, and the bytes from that
/// offset on.
fn walk(
    table: &[u8],
    mut each: impl FnMut(usize, CommonEntry, &[u8]) -> Result<(), &'static str>,
) -> Result<(), String> {
    // Offsets of the common entries so far, ascending. There are few.
    let mut common_entries: SmallVec<[(usize, CommonEntry); 2]> = SmallVec::new();
    let mut at = 0;
    while at < table.len() {
        let length = word(table, at).ok_or_else(|| wrong(at, "it is cut short"))?;
        match length {
            0 => return Ok(()),
            0xffff_ffff => return Err(wrong(at, "64-bit records are not supported")),
            _ => {}
        }
        let end = at + 4 + length as usize;
        let record = table.get(at + 4..end).ok_or_else(|| wrong(at, "it is longer than the table"))?;
        let (reference, body) =
            record.split_first_chunk().ok_or_else(|| wrong(at, "it has no room for its identifier"))?;
        match u32::from_le_bytes(*reference) {
            0 => {
                let entry = check_cie(body)
                    .ok_or_else(|| wrong(at, "a common information entry that is cut short or unknown"))?;
                common_entries.push((at, entry));
            }
            back => {
                let entry = common_entry(&common_entries, at, back)?;
                each(at + 8, entry, body).map_err(|why| wrong(at, why))?;
            }
        }
        at = end;
    }
    Ok(())
}

fn wrong(at: usize, why: &str) -> String {
    format!(".eh_frame+{at:#x}: the record is malformed: {why}")
}

fn word(table: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*table.get(at..)?.first_chunk()?))
}

/// What a CIE says of its FDEs.
#[derive(Clone, Copy)]
struct CommonEntry {
    /// How the addresses of functions are written.
    functions: Encoding,
    /// How the address of language-specific data is, if there is any.
    language_data: Option<Encoding>,
}

/// How addresses are written (`DW_EH_PE_…`).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Encoding(u8);

impl Encoding {
    const ABSOLUTE: Encoding = Encoding(0);
    /// What compilers write: `DW_EH_PE_pcrel | DW_EH_PE_sdata4`.
    const RELATIVE_32: Encoding = Encoding(0x1b);

    /// Bytes of a pointer, for the encodings that have a fixed size.
    fn size(self) -> Option<usize> {
        match self.0 & 0x0f {
            0x00 | 0x04 | 0x0c => Some(8),
            0x02 | 0x0a => Some(2),
            0x03 | 0x0b => Some(4),
            _ => None,
        }
    }

    /// The number at the start of `bytes`, extended to 64 bits.
    fn read(self, bytes: &[u8]) -> Option<u64> {
        const SIGNED: u8 = 0x08;
        let signed = self.0 & SIGNED != 0;
        Some(match self.size()? {
            8 => u64::from_le_bytes(*bytes.first_chunk()?),
            4 => {
                let number = u32::from_le_bytes(*bytes.first_chunk()?);
                if signed { number as i32 as u64 } else { number.into() }
            }
            _ => {
                let number = u16::from_le_bytes(*bytes.first_chunk()?);
                if signed { number as i16 as u64 } else { number.into() }
            }
        })
    }

    /// A pointer to a function, perhaps through memory (`DW_EH_PE_indirect`), that takes a fixed number of bytes wherever it is:
    /// one that is aligned where it stands does not.
    fn size_of_pointer(self) -> Option<usize> {
        Encoding(self.0 & !0x80).is_relative().and(self.size())
    }

    /// Whether numbers count from the place they are at. `None`: neither that nor from zero.
    fn is_relative(self) -> Option<bool> {
        match self.0 & 0xf0 {
            0x00 => Some(false),
            0x10 => Some(true),
            _ => None,
        }
    }
}

/// Version, augmentation string, alignment factors, return register, and with `z` the augmentation data. Later versions
/// have more fields, which no compiler uses here and unwinders give up on.
fn check_cie(body: &[u8]) -> Option<CommonEntry> {
    let (version, rest) = body.split_first().filter(|(version, _)| matches!(version, 1 | 3))?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let (augmentation, rest) = (&rest[..end], &rest[end + 1..]);
    let rest = skip_leb128(rest)?;
    let rest = skip_leb128(rest)?;
    let rest = if *version == 1 { rest.get(1..)? } else { skip_leb128(rest)? };
    match augmentation {
        [] => Some(CommonEntry { functions: Encoding::ABSOLUTE, language_data: None }),
        [b'z', letters @ ..] => check_augmentation(letters, rest),
        _ => None,
    }
}

fn check_augmentation(letters: &[u8], rest: &[u8]) -> Option<CommonEntry> {
    const OMIT: u8 = 0xff;
    let mut data = skip_leb128(rest)?;
    let mut entry = CommonEntry { functions: Encoding::ABSOLUTE, language_data: None };
    for letter in letters {
        data = match letter {
            b'R' => {
                let (first, rest) = data.split_first()?;
                entry.functions = Encoding(*first);
                rest
            }
            b'L' => {
                let (first, rest) = data.split_first()?;
                entry.language_data = (*first != OMIT).then_some(Encoding(*first));
                rest
            }
            b'P' => {
                let (encoding, pointer) = data.split_first()?;
                pointer.get(Encoding(*encoding).size_of_pointer()?..)?
            }
            b'S' | b'B' => data,
            _ => return None,
        };
    }
    Some(entry)
}

/// The CIE of an FDE, which names it by the distance from its own identifier field.
fn common_entry(
    common_entries: &[(usize, CommonEntry)],
    at: usize,
    back: u32,
) -> Result<CommonEntry, String> {
    let entry = (at + 4).checked_sub(back as usize);
    // Nearly always the last one.
    if let Some((_, last)) = common_entries.last().filter(|(last, _)| Some(*last) == entry) {
        return Ok(*last);
    }
    let found = entry.and_then(|entry| common_entries.binary_search_by_key(&entry, |known| known.0).ok());
    found
        .map(|found| common_entries[found].1)
        .ok_or_else(|| wrong(at, "it refers to no common information entry"))
}

fn check_range(encoding: Encoding, body: &[u8], place: u64, code: &Range<u64>) -> Result<(), &'static str> {
    match range(encoding, body, place)? {
        Some(range) if range.start < code.start || code.end < range.end => Err(NOT_IN_CODE),
        _ => Ok(()),
    }
}

/// What the FDE is about: the first address, which is at `place`, and the length of the range. An address that is
/// written as zero stands for a function that was left out.
#[inline(always)]
fn range(encoding: Encoding, body: &[u8], place: u64) -> Result<Option<Range<u64>>, &'static str> {
    if let (Encoding::RELATIVE_32, Some(&[a, b, c, d, e, f, g, h])) = (encoding, body.first_chunk()) {
        let written = i32::from_le_bytes([a, b, c, d]);
        // A length below zero would be one that no range of code has.
        let length = i32::from_le_bytes([e, f, g, h]) as u64;
        let first = place.wrapping_add_signed(written.into());
        return match first.checked_add(length) {
            _ if written == 0 => Ok(None),
            Some(end) => Ok(Some(first..end)),
            None => Err(NOT_IN_CODE),
        };
    }
    let (Some(size), Some(relative)) = (encoding.size(), encoding.is_relative()) else {
        return Err("its range has an encoding that is not supported");
    };
    let written = encoding.read(body).ok_or("its range is cut short")?;
    let length = body.get(size..).and_then(|rest| encoding.read(rest)).ok_or("its range is cut short")?;
    if written == 0 {
        return Ok(None);
    }
    let first = if relative { place.wrapping_add(written) } else { written };
    first.checked_add(length).map(|end| Some(first..end)).ok_or(NOT_IN_CODE)
}

const NOT_IN_CODE: &str = "its range is not in the code of this object";

fn skip_leb128(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    (end < 10).then(|| &bytes[end + 1..])
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    /// Where the table is, and the code it is about.
    const ADDRESS: u64 = 0x10_0000;
    const CODE: Range<u64> = 0x8_0000..0x8_0100;

    fn check(table: &[u8]) -> Result<(), String> {
        super::check(table, ADDRESS, &CODE)
    }

    /// A common information entry as gcc writes it, and one FDE for it.
    fn table_for(first: u64, length: u32) -> Vec<u8> {
        let mut cie =
            vec![1, b'z', b'P', b'L', b'R', 0, 1, 0x78, 16, 7, 0x9b, 0, 0, 0, 0, 0x1b, 0x1b, 12, 7, 8];
        cie.resize(cie.len().next_multiple_of(4), 0);
        let mut table = Vec::new();
        table.extend((cie.len() as u32 + 4).to_le_bytes());
        table.extend([0; 4]);
        table.extend(&cie);
        let fde_at = table.len() as u32;
        let place = ADDRESS + u64::from(fde_at) + 8;
        table.extend(20u32.to_le_bytes());
        table.extend((fde_at + 4).to_le_bytes());
        table.extend((first.wrapping_sub(place) as u32).to_le_bytes());
        table.extend(length.to_le_bytes());
        table.extend([4, 0, 0, 0, 0, 0, 0, 0]);
        table
    }

    fn table() -> Vec<u8> {
        table_for(CODE.start, 16)
    }

    #[track_caller]
    fn refused(table: &[u8], why: &str) {
        let error = check(table).unwrap_err();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn sound_tables_pass() {
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[0; 4]), Ok(()));
        assert_eq!(check(&table()), Ok(()));
        let mut ended = table();
        ended.extend([0, 0, 0, 0, 0xff]);
        assert_eq!(check(&ended), Ok(()), "nothing counts behind the terminator");
    }

    #[test]
    fn records_must_stay_inside() {
        let sound = table();
        refused(&sound[..sound.len() - 1], "longer than the table");
        refused(&[1, 0], "cut short");
        refused(&[2, 0, 0, 0, 0, 0], "no room for its identifier");
        refused(&[0xff; 12], "64-bit records");
        refused(&[4, 0, 0, 0, 0, 0, 0, 0], "a common information entry that is cut short");
    }

    #[test]
    fn a_frame_needs_its_common_entry() {
        let sound = table();
        let fde = sound[0] as usize + 4;
        for wrong in [1, fde as u32, fde as u32 + 5, u32::MAX] {
            let mut table = sound.clone();
            table[fde + 4..fde + 8].copy_from_slice(&wrong.to_le_bytes());
            refused(&table, "refers to no common information entry");
        }
    }

    #[test]
    fn frames_are_about_the_code_of_the_object() {
        for (first, length) in [(CODE.start, 0x100), (CODE.start + 0xff, 1), (CODE.end, 0)] {
            assert_eq!(check(&table_for(first, length)), Ok(()), "{first:#x} {length:#x}");
        }
        for (first, length) in
            [(CODE.start - 1, 1), (CODE.start, 0x101), (CODE.end, 1), (CODE.start, 0x8000_0000), (16, 16)]
        {
            refused(&table_for(first, length), "not in the code of this object");
        }
        let mut left_out = table();
        let place = left_out[0] as usize + 12;
        left_out[place..place + 4].fill(0);
        assert_eq!(check(&left_out), Ok(()), "a discarded function");
        let mut strange = table();
        strange[24] = 0x3b; // relative to the data
        refused(&strange, "encoding that is not supported");
    }

    #[test]
    fn strings_and_numbers_must_end() {
        let mut endless = table();
        endless[9..].fill(b'R');
        assert!(check(&endless).is_err());
        let mut unknown = table();
        unknown[10] = b'Q';
        refused(&unknown, "common information entry");
        let mut strange_pointer = table();
        strange_pointer[18] = 0x01; // a personality routine as LEB128
        refused(&strange_pointer, "common information entry");
        strange_pointer[18] = 0x50; // and one that is aligned
        refused(&strange_pointer, "common information entry");
        let mut new = table();
        assert_eq!(new[8], 1);
        for version in [0, 2, 4, 5, 255] {
            new[8] = version;
            refused(&new, "common information entry");
        }
        new[8] = 3; // the return address's column as LEB128, of the same length here
        assert_eq!(check(&new), Ok(()));
    }

    #[test]
    fn every_changed_byte_is_survived() {
        let sound = table();
        for at in 0..sound.len() {
            for byte in 0..=255 {
                let mut table = sound.clone();
                table[at] = byte;
                let _ = check(&table);
            }
        }
    }
}
