//! The symbols an image shows to others: a copy of the string table and one record each, found by scanning when they
//! are few or the lookups are, and through a hash table, built when it begins to pay, when both are many.

use std::borrow::Cow;
use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;

use crate::graph::{SymbolKind, SymbolLabel};

/// An exported symbol of a loaded image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageSymbol<'a> {
    /// The name; bytes that are not UTF-8 are replaced.
    pub name: Cow<'a, str>,
    /// Target address.
    pub address: u64,
    /// Bytes, or 0 when the object does not say.
    pub size: u64,
    /// Function or data.
    pub kind: SymbolKind,
    /// The definition is weak: it gives way to another of the same name.
    pub weak: bool,
}

/// All exported symbols of an image, in one piece of memory: a small image has little else on the heap.
pub(crate) struct Exports {
    /// Records, and behind them the strings; every string is followed by a NUL.
    bytes: Box<[u8]>,
    count: u32,
    /// How often a name was looked for without the index.
    scans: AtomicU32,
    /// Boxed: most images never have one.
    index: OnceLock<Box<HashIndex>>,
}

#[derive(Clone, Copy)]
struct Record {
    address: u64,
    size: u64,
    /// Where the name begins in all the bytes.
    name: u32,
    kind: SymbolKind,
    weak: bool,
}

impl Record {
    const BYTES: usize = 24;

    const KINDS: [SymbolKind; 7] = [
        SymbolKind::Function,
        SymbolKind::Data,
        SymbolKind::Unknown,
        SymbolKind::Section,
        SymbolKind::File,
        SymbolKind::ThreadLocal,
        SymbolKind::IndirectFunction,
    ];

    // Kinds are written as their numbers and read by their places here.
    const KINDS_ARE_IN_ORDER: () = {
        let mut number = 0;
        while number < Self::KINDS.len() {
            assert!(Self::KINDS[number] as usize == number);
            number += 1;
        }
    };

    fn encode(self) -> [u8; Self::BYTES] {
        let () = Self::KINDS_ARE_IN_ORDER;
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.address.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.size.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.name.to_ne_bytes());
        bytes[20] = self.kind as u8;
        bytes[21] = self.weak.into();
        bytes
    }

    fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let [a0, a1, a2, a3, a4, a5, a6, a7, s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, kind, weak, ..] =
            *bytes;
        Record {
            address: u64::from_ne_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            size: u64::from_ne_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            name: u32::from_ne_bytes([n0, n1, n2, n3]),
            kind: *Self::KINDS.get(usize::from(kind)).unwrap_or(&SymbolKind::Unknown),
            weak: weak != 0,
        }
    }
}

/// Puts [`Exports`] together whose names are offsets into one string table, which is taken as it is.
pub(super) struct ExportBuilder<'a> {
    /// Room for as many records as there may be.
    bytes: Vec<u8>,
    count: u32,
    strings: &'a [u8],
}

impl<'a> ExportBuilder<'a> {
    pub(super) fn new(count: usize, strings: &'a [u8]) -> Self {
        let room = count * Record::BYTES;
        let mut bytes = Vec::with_capacity(room + strings.len());
        bytes.resize(room, 0);
        ExportBuilder { bytes, count: 0, strings }
    }

    #[inline]
    pub(super) fn add(&mut self, label: SymbolLabel, weak: bool, address: u64) {
        let SymbolLabel { name, size, kind } = label;
        let Ok(name) = u32::try_from(self.bytes.len() + name as usize) else { return };
        let at = self.count as usize * Record::BYTES;
        let record = Record { address, size, name, kind, weak }.encode();
        self.bytes[at..at + Record::BYTES].copy_from_slice(&record);
        self.count += 1;
    }

    pub(super) fn finish(mut self) -> Exports {
        match self.count {
            0 => self.bytes = Vec::new(),
            _ => self.bytes.extend_from_slice(self.strings),
        }
        Exports::of(self.bytes, self.count)
    }
}

/// Puts [`Exports`] together symbol by symbol, each with its name. Memory is taken at the end, for what there is then: a small
/// image gets what it needs in one go.
#[derive(Default)]
pub(super) struct NamedExports<'a> {
    symbols: SmallVec<[(Record, &'a [u8]); Exports::SCANNED]>,
    /// Bytes of all names, and of the NUL behind each.
    names: usize,
}

impl<'a> NamedExports<'a> {
    pub(super) fn add(&mut self, label: SymbolLabel, weak: bool, address: u64, name: &'a [u8]) {
        let SymbolLabel { size, kind, .. } = label;
        // Where its name is follows from how many there are.
        self.symbols.push((Record { address, size, name: 0, kind, weak }, name));
        self.names += name.len() + 1;
    }

    pub(super) fn finish(self) -> Exports {
        let room = self.symbols.len() * Record::BYTES;
        let mut bytes = Vec::with_capacity(room + self.names);
        let (mut name, mut count) = (room, 0);
        for (record, text) in &self.symbols {
            let Ok(place) = u32::try_from(name) else { break };
            bytes.extend_from_slice(&Record { name: place, ..*record }.encode());
            name += text.len() + 1;
            count += 1;
        }
        for (_, text) in &self.symbols {
            bytes.extend_from_slice(text);
            bytes.push(0);
        }
        Exports::of(bytes, count)
    }
}

impl Exports {
    /// Up to this many symbols are found faster by looking at each. Their names take less memory than all of the object's
    /// string table.
    pub(super) const SCANNED: usize = 8;

    /// Building the index takes as long as looking at each symbol about this often. Most images are asked for a name or
    /// two, and never need it.
    const SCANS: u32 = 4;

    /// Of longer names the first bytes are shown.
    const LONGEST_NAME: usize = 64 << 10;

    fn of(bytes: Vec<u8>, count: u32) -> Self {
        Exports { bytes: bytes.into(), count, scans: AtomicU32::new(0), index: OnceLock::new() }
    }

    /// The address of the symbol with that name.
    pub(crate) fn address(&self, name: &str) -> Option<u64> {
        let name = name.as_bytes();
        let few = self.count as usize <= Self::SCANNED;
        if few || self.index.get().is_none() && self.scans.fetch_add(1, Ordering::Relaxed) < Self::SCANS {
            let found = self.records().find(|record| self.is_named(record, name));
            return found.map(|record| record.address);
        }
        let index = self.index.get_or_init(|| Box::new(HashIndex::of(self)));
        let candidates = index.candidates(hash(name));
        candidates
            .filter_map(|number| self.record(number))
            .find(|record| self.is_named(record, name))
            .map(|record| record.address)
    }

    fn records(&self) -> impl Iterator<Item = Record> {
        (0..self.count as usize).filter_map(|number| self.record(number))
    }

    fn record(&self, number: usize) -> Option<Record> {
        self.bytes.get(number * Record::BYTES..)?.first_chunk().map(Record::decode)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = ImageSymbol<'_>> {
        self.records().map(|record| ImageSymbol {
            name: String::from_utf8_lossy(self.name(&record, Self::LONGEST_NAME)),
            address: record.address,
            size: record.size,
            kind: record.kind,
            weak: record.weak,
        })
    }

    /// The function that has the byte at an address, and the byte's offset in it.
    #[cfg(feature = "symbolize")]
    pub(crate) fn function_at(&self, address: u64) -> Option<(Cow<'_, str>, u64)> {
        let is_function = |kind| matches!(kind, SymbolKind::Function | SymbolKind::IndirectFunction);
        let found = self.records().find(|record| {
            is_function(record.kind)
                && address.checked_sub(record.address).is_some_and(|offset| offset < record.size)
        })?;
        Some((String::from_utf8_lossy(self.name(&found, Self::LONGEST_NAME)), address - found.address))
    }

    /// Bytes of heap these take.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.len() + self.index.get().map_or(0, |index| index.heap_bytes())
    }

    fn is_named(&self, record: &Record, name: &[u8]) -> bool {
        let tail = self.bytes.get(record.name as usize..).unwrap_or_default();
        tail.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&0)) && !name.contains(&0)
    }

    /// The name, or its first `longest` bytes. Names may overlap in the string table, so that the length of all together
    /// is not bounded by the table's.
    fn name(&self, record: &Record, longest: usize) -> &[u8] {
        let tail = self.bytes.get(record.name as usize..).unwrap_or_default();
        let tail = &tail[..tail.len().min(longest)];
        CStr::from_bytes_until_nul(tail).map_or(tail, CStr::to_bytes)
    }
}

/// Numbers of the records, sorted by the bucket their name's hash falls in, with the upper half of the hash beside each
/// so that strangers are rarely compared. Sorting by counting takes the same time whatever the names are; names that
/// collide, or are the same, only slow down the search for themselves.
struct HashIndex {
    /// Where each bucket begins in `entries`, and the end of the last.
    starts: Box<[u32]>,
    entries: Box<[(u32, u32)]>,
}

impl HashIndex {
    fn of(exports: &Exports) -> Self {
        let buckets = (exports.count as usize).next_power_of_two();
        let hashes: Vec<u64> =
            exports.records().map(|record| hash(exports.name(&record, HASHED_BYTES))).collect();
        let mut starts = vec![0u32; buckets + 1];
        for hash in &hashes {
            starts[bucket(*hash, buckets)] += 1;
        }
        let mut end = 0;
        for start in &mut starts {
            end += *start;
            *start = end;
        }
        // Filled from the last to the first, so that each bucket ends up in order, its start where its end was.
        let mut entries = vec![(0, 0); hashes.len()];
        for (number, hash) in hashes.iter().enumerate().rev() {
            let start = &mut starts[bucket(*hash, buckets)];
            *start -= 1;
            entries[*start as usize] = (number as u32, (hash >> 32) as u32);
        }
        HashIndex { starts: starts.into(), entries: entries.into() }
    }

    /// Numbers of the records that may have that hash, in the order they were added.
    fn candidates(&self, hash: u64) -> impl Iterator<Item = usize> {
        let bucket = bucket(hash, self.starts.len() - 1);
        let entries = &self.entries[self.starts[bucket] as usize..self.starts[bucket + 1] as usize];
        let upper = (hash >> 32) as u32;
        entries.iter().filter(move |entry| entry.1 == upper).map(|entry| entry.0 as usize)
    }

    fn heap_bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.entries) + size_of_val(&*self.starts)
    }
}

/// `buckets` is a power of two.
#[inline]
fn bucket(hash: u64, buckets: usize) -> usize {
    hash as usize & (buckets - 1)
}

/// How much of a name is hashed.
const HASHED_BYTES: usize = 512;

/// FNV-1a over eight bytes at a time, with a final mix.
fn hash(name: &[u8]) -> u64 {
    let name = &name[..name.len().min(HASHED_BYTES)];
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ name.len() as u64;
    let mut rest = name;
    while let Some((chunk, tail)) = rest.split_first_chunk() {
        hash = (hash ^ u64::from_le_bytes(*chunk)).wrapping_mul(PRIME);
        hash ^= hash >> 29;
        rest = tail;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ (hash >> 29)
}
