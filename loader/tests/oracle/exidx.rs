//! Arm's unwind tables ("Exception Handling ABI for the Arm Architecture", section 6), which lld makes anew: sorted, and
//! without entries that say what the one before says. So they are compared by what they say of each function.

use objcache_loader::{LinkMap, LoadedImage};

use crate::case::sign_extend;
use crate::lld::LinkedFile;

/// What an entry says: one of the words that stand for themselves, or the address of the function's own table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unwinding {
    Word(u32),
    Table(u32),
}

/// Compares all entries of an object, and returns how many there are.
pub fn compare(image: &LoadedImage, map: &LinkMap, linked: &LinkedFile, what: &str) -> usize {
    let sections = map.files[0].sections.iter().filter(|section| section.name.starts_with(".ARM.exidx"));
    let mut ours = Vec::new();
    for section in sections {
        let segment = image.linked_bytes(section.segment).unwrap();
        ours.extend(entries(section.address, &segment[section.offset..][..section.size as usize]));
    }
    if ours.is_empty() {
        return 0;
    }
    let tables = linked.sections.iter().filter(|(name, _)| name.starts_with(".ARM.exidx"));
    let mut theirs: Vec<_> = tables.flat_map(|(_, (address, bytes))| entries(*address, bytes)).collect();
    theirs.sort_by_key(|(function, _)| *function);
    for (function, unwinding) in &ours {
        let after = theirs.partition_point(|(start, _)| start <= function);
        let covering = after.checked_sub(1).map(|last| theirs[last].1);
        assert_eq!(covering, Some(*unwinding), "{what}: the unwind table's entry for {function:#x}");
    }
    ours.len()
}

fn entries(address: u64, bytes: &[u8]) -> impl Iterator<Item = (u32, Unwinding)> + '_ {
    const CANNOT_UNWIND: u32 = 1;
    bytes.chunks_exact(8).enumerate().map(move |(number, entry)| {
        let place = address + 8 * number as u64;
        let [function, word] = [0, 4].map(|at| u32::from_le_bytes(entry[at..][..4].try_into().unwrap()));
        let leads = |place: u64, word: u32| place.wrapping_add_signed(sign_extend(word.into(), 31)) as u32;
        let unwinding = match word {
            CANNOT_UNWIND | 0x8000_0000.. => Unwinding::Word(word),
            _ => Unwinding::Table(leads(place + 4, word)),
        };
        (leads(place, function), unwinding)
    })
}
