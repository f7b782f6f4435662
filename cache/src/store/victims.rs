//! The list of what goes next, which every tidying leaves behind: so a put that finds no room can make some by
//! itself, without looking at all entries and without waiting for anybody.
//!
//! Places in it are given out by the head of the journal, so that no two get the same. A number ties the two
//! together; a list of another number is none. Integers are little-endian: the number, then for each victim
//! its signature and about what it takes.
//!
//! Where there is no list yet, a put looks at a few entries and removes the least worth of them.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use objcache_signature::Signature;

use crate::admin::{EntryInfo, GcLimits};
use crate::clock::now_unix_us;
use crate::evict;
use crate::store::catalogue::EntryKnowledge;
use crate::store::directory::{Directory, Temporary, VICTIMS};
use crate::store::journal::{Header, Size};
use crate::store::{entries, keeper};

const HEAD: usize = 8;
const RECORD: usize = 40;

/// The longest list: a tidying is due long before it is used up.
pub(crate) const LONGEST: usize = 4096;

/// How many a put takes at once: to remove them takes a few milliseconds at most.
const BATCH: u64 = 64;

/// Without a list so many times what is needed is looked at.
const SAMPLED: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Victim {
    pub(crate) signature: Signature,
    pub(crate) disk_bytes: u64,
}

/// Writes the list of this number. Nobody uses it before the head of the journal says so.
pub(crate) fn write(directory: &Directory, number: u64, victims: &[Victim]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(HEAD + victims.len() * RECORD);
    bytes.extend_from_slice(&number.to_le_bytes());
    for victim in victims {
        bytes.extend_from_slice(victim.signature.as_bytes());
        bytes.extend_from_slice(&victim.disk_bytes.to_le_bytes());
    }
    let mut temporary = Temporary::create(directory)?;
    temporary.file.write_all(&bytes)?;
    temporary.rename_to(VICTIMS.as_bytes())?;
    Ok(())
}

/// Takes so many of the next victims as are needed to make room for `lacking`, or a batch; none when there is
/// no list, or it is used up. The head of the journal, which is locked, is moved on.
pub(crate) fn take(directory: &Directory, header: &mut Header, lacking: Size) -> Vec<Victim> {
    let position = &mut header.victims;
    let left = position.length.saturating_sub(position.next).min(BATCH);
    let mut victims = read(directory, position.list, position.next, left as usize).unwrap_or_default();
    let mut freed = Size::default();
    let enough = victims.iter().position(|victim| {
        freed = freed.plus(Size::one(victim.disk_bytes));
        freed.bytes >= lacking.bytes && freed.entries >= lacking.entries
    });
    victims.truncate(enough.map_or(usize::MAX, |at| at + 1));
    // One that cannot be read is not asked for again.
    position.next = if victims.is_empty() { position.length } else { position.next + victims.len() as u64 };
    victims
}

/// For when there is no list: the least worth of some entries that are looked at here and now.
///
/// The one look costs about a hundred microseconds. What it knows of recency is when entries were put.
pub(crate) fn sample(directory: &Directory, lacking: Size) -> Vec<Victim> {
    let now = now_unix_us();
    let mut entries: Vec<EntryInfo> = Vec::new();
    let mut seen = Size::default();
    for step in 0..=u8::MAX {
        // From another place each time.
        let fan = format!("{:02x}", (now as u8).wrapping_add(step));
        for signature in entries::signatures_in(directory, &fan).unwrap_or_default() {
            if let Ok(Some(description)) = entries::describe(directory, &signature)
                && matches!(directory.open_file(&keeper::pin_name(&signature)), Ok(None))
            {
                let disk_bytes = description.facts.disk_bytes;
                entries.push(EntryKnowledge::of(description).info(signature, disk_bytes, false));
                seen = seen.plus(Size::one(disk_bytes));
            }
        }
        let enough =
            seen.bytes / SAMPLED >= lacking.bytes && seen.entries / SAMPLED >= lacking.entries.max(1);
        if enough || seen.entries >= BATCH {
            break;
        }
    }
    let limits = GcLimits {
        max_size: Some(seen.bytes.saturating_sub(lacking.bytes)),
        max_entries: Some(seen.entries.saturating_sub(lacking.entries)),
        ..GcLimits::default()
    };
    let victims = evict::choose_victims(&entries, &limits, now);
    let victim = |at: usize| Victim { signature: entries[at].signature, disk_bytes: entries[at].disk_bytes };
    victims.into_iter().map(victim).collect()
}

fn read(directory: &Directory, number: u64, from: u64, count: usize) -> io::Result<Vec<Victim>> {
    let Some(file) = directory.open_file(VICTIMS)?.filter(|_| count > 0) else { return Ok(Vec::new()) };
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, 0)?;
    if u64::from_le_bytes(head) != number {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; count * RECORD];
    let at = from.saturating_mul(RECORD as u64).saturating_add(HEAD as u64);
    file.read_exact_at(&mut bytes, at)?;
    let victim = |record: &[u8; RECORD]| {
        let (signature, disk_bytes) = record.split_first_chunk::<32>()?;
        let disk_bytes = u64::from_le_bytes(disk_bytes.try_into().ok()?);
        Some(Victim { signature: Signature::from_bytes(*signature), disk_bytes })
    };
    Ok(bytes.as_chunks::<RECORD>().0.iter().filter_map(victim).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal::Position;

    fn victim(number: u8, disk_bytes: u64) -> Victim {
        Victim { signature: Signature::from_bytes([number; 32]), disk_bytes }
    }

    #[test]
    fn each_goes_once_and_no_more_than_are_needed() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        let list: Vec<Victim> = (0..200).map(|number| victim(number, 10)).collect();
        write(&directory, 7, &list).expect("written");
        let mut header = Header { victims: Position { list: 7, length: 200, next: 0 }, ..Header::default() };
        let mut take = |bytes, entries| take(&directory, &mut header, Size { bytes, entries });
        assert_eq!(take(25, 0), list[..3]);
        assert_eq!(take(1, 2), list[3..5]);
        assert_eq!(take(u64::MAX, 0), list[5..69], "a batch");
        assert_eq!(take(u64::MAX, 0).len(), 64);
        assert_eq!(take(u64::MAX, 0).len(), 64);
        assert_eq!(take(u64::MAX, 0), list[197..]);
        assert_eq!(take(1, 0), [], "used up");
    }

    #[test]
    fn a_list_of_another_number_is_none() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        let position = Position { list: 7, length: 1, next: 0 };
        let mut header = Header { victims: position, ..Header::default() };
        assert_eq!(take(&directory, &mut header, Size::one(1)), [], "no file");
        write(&directory, 8, &[victim(1, 10)]).expect("written");
        header.victims = position;
        assert_eq!(take(&directory, &mut header, Size::one(1)), []);
        assert_eq!(header.victims.next, 1, "and not asked for again");
    }
}
