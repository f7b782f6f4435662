//! Which sections go to addresses of their own.

use std::collections::BTreeMap;
use std::sync::Mutex;

use objcache::loader::Placement;

use super::options::SectionAddress;
use crate::failure::Failure;

/// Addresses of sections by file number and name. Of several sections with one name in one file the first is meant.
pub(crate) struct SectionPlacement {
    addresses: BTreeMap<(usize, Vec<u8>), u64>,
    /// The number of the section that got each address.
    taken: Mutex<BTreeMap<(usize, Vec<u8>), usize>>,
}

impl SectionPlacement {
    /// `files`: the names of the objects, in their order.
    pub(crate) fn new(files: &[&str], sections: &[SectionAddress]) -> Result<Self, Failure> {
        let mut addresses = BTreeMap::new();
        for SectionAddress { file, section, address } in sections {
            let numbers: Vec<_> = (0..files.len()).filter(|number| files[*number] == file).collect();
            if numbers.is_empty() {
                let message = format!("--map-section: no file is called `{file}`");
                return Err(Failure::usage("unknown_file", message));
            }
            for number in numbers {
                addresses.insert((number, section.clone().into_bytes()), *address);
            }
        }
        Ok(SectionPlacement { addresses, taken: Mutex::default() })
    }

    pub(crate) fn highest(&self) -> Option<u64> {
        self.addresses.values().max().copied()
    }

    pub(crate) fn lowest(&self) -> Option<u64> {
        self.addresses.values().min().copied()
    }

    /// The address asked for. A Mach-O section is also known by its name without the segment's.
    fn asked(&self, file: usize, section: &[u8]) -> Option<u64> {
        let whole = self.addresses.get(&(file, section.to_vec()));
        let short = || {
            let comma = section.iter().position(|byte| *byte == b',')?;
            self.addresses.get(&(file, section[comma + 1..].to_vec()))
        };
        whole.or_else(short).copied()
    }
}

impl Placement for SectionPlacement {
    fn place(&self, file: usize, section: &[u8], number: usize) -> Option<u64> {
        let address = self.asked(file, section)?;
        let mut taken = self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let owner = *taken.entry((file, section.to_vec())).or_insert(number);
        (owner == number).then_some(address)
    }
}
