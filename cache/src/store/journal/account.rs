//! The head of the journal: the account of what the store takes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::event::{checksum, number};
use crate::clock::now_unix_us;

const MAGIC: [u8; 8] = *b"objcjrn2";
pub(super) const HEADER: usize = 112;
const HEADER_CHECKED: usize = HEADER - 8;

/// Entries, and the bytes they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

impl Size {
    /// One entry.
    pub(crate) fn one(bytes: u64) -> Self {
        Self { bytes, entries: 1 }
    }

    pub(crate) fn is_zero(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            entries: self.entries.saturating_add(other.entries),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            entries: self.entries.saturating_sub(other.entries),
        }
    }

    pub(super) fn clamp(self, lower: Self, upper: Self) -> Self {
        let within = |value: u64, lower: u64, upper: u64| value.max(lower).min(upper.max(lower));
        Self {
            bytes: within(self.bytes, lower.bytes, upper.bytes),
            entries: within(self.entries, lower.entries, upper.entries),
        }
    }
}

/// What the head of the journal tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// Which account this is: one that is lost is begun anew, and knows nothing of what was charged before.
    pub(crate) account: u64,
    /// What entries take, those being written included.
    pub(crate) entries: Size,
    /// What all else may take, in bytes.
    pub(crate) overhead: u64,
    /// All that was ever charged, and credited: what happens during a measurement is the difference.
    pub(crate) charged: Size,
    pub(crate) credited: Size,
    /// When the store was last measured; 0: never.
    pub(crate) tidied_unix_us: u64,
    /// Which list of victims is in use, how long it is, and which of them is the next.
    pub(crate) victims: Position,
}

/// A place in a list of victims.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) list: u64,
    pub(crate) length: u64,
    pub(crate) next: u64,
}

impl Header {
    /// Nobody knows what the store takes: above any limit, so that it is measured.
    const UNKNOWN_BYTES: u64 = 1 << 62;

    pub(super) fn unknown() -> Self {
        let entries = Size { bytes: Self::UNKNOWN_BYTES, entries: 0 };
        Self { account: now_unix_us(), entries, ..Self::default() }
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.entries.bytes >= Self::UNKNOWN_BYTES / 2
    }

    /// What the whole store takes at most, in bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.entries.bytes.saturating_add(self.overhead)
    }

    pub(crate) fn charge(&mut self, size: Size) {
        self.entries = self.entries.plus(size);
        self.charged = self.charged.plus(size);
    }

    pub(super) fn credit(&mut self, size: Size) {
        self.entries = self.entries.minus(size);
        self.credited = self.credited.plus(size);
    }

    pub(super) fn read(file: &File) -> Self {
        let mut bytes = [0; HEADER];
        if file.read_exact_at(&mut bytes, 0).is_err() || !is_header(&bytes) {
            return Self::unknown();
        }
        let fields = std::array::from_fn(|field| number(&bytes, 8 + 8 * field));
        let [
            taken,
            entries,
            overhead,
            charged,
            charges,
            credited,
            credits,
            tidied,
            list,
            length,
            next,
            account,
        ] = fields;
        Self {
            account,
            entries: Size { bytes: taken, entries },
            overhead,
            charged: Size { bytes: charged, entries: charges },
            credited: Size { bytes: credited, entries: credits },
            tidied_unix_us: tidied,
            victims: Position { list, length, next },
        }
    }

    pub(super) fn write(&self, file: &File) -> io::Result<()> {
        let Self { account, entries, overhead, charged, credited, tidied_unix_us, victims } = *self;
        let fields = [
            entries.bytes,
            entries.entries,
            overhead,
            charged.bytes,
            charged.entries,
            credited.bytes,
            credited.entries,
            tidied_unix_us,
            victims.list,
            victims.length,
            victims.next,
            account,
        ];
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        for (place, field) in bytes[8..HEADER_CHECKED].as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *place = field.to_le_bytes();
        }
        let check = checksum(&bytes[..HEADER_CHECKED]);
        bytes[HEADER_CHECKED..].copy_from_slice(&check);
        file.write_all_at(&bytes, 0)
    }
}

pub(super) fn is_header(bytes: &[u8; HEADER]) -> bool {
    bytes[..8] == MAGIC && bytes[HEADER_CHECKED..] == checksum(&bytes[..HEADER_CHECKED])
}
