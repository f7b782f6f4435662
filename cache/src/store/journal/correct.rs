//! The account set right, by looking at what there is.

use std::io;

use super::account::{Header, Size};
use super::{header, lock_patiently};
use crate::store::directory::Directory;

/// An account that is too high by less than this part of what the store may take is left alone.
const TOLERATED_SHARE: u64 = 64;

/// What was found when the store was looked at.
pub(crate) struct Measured {
    /// The account before that began.
    pub(crate) found: Header,
    /// Files being written, seen before the entries were.
    pub(crate) in_flight: Size,
    pub(crate) entries: Size,
    pub(crate) overhead: u64,
    /// What the store may take, in bytes.
    pub(crate) max_size: u64,
    pub(crate) now_unix_us: u64,
}

/// For the keeper: corrects the account by what was measured. Returns it.
///
/// Others go on meanwhile. What they charged may have been seen or not, and so with what they credited: that
/// gives bounds, and the account is put within them.
pub(crate) fn correct(directory: &Directory, measured: &Measured) -> io::Result<Header> {
    let Some(file) = lock_patiently(directory)? else { return header(directory) };
    let mut header = Header::read(&file);
    let since = |now: Size, then: Size| match header.account == measured.found.account {
        true => now.minus(then),
        // Begun anew meanwhile.
        false => now,
    };
    let (charged, credited) =
        (since(header.charged, measured.found.charged), since(header.credited, measured.found.credited));
    let upper = measured.entries.plus(measured.in_flight).plus(charged);
    let lower = measured.entries.minus(credited);
    let share = |of: u64| of / TOLERATED_SHARE;
    let tolerated = Size { bytes: share(measured.max_size), entries: share(upper.entries) };
    let before = header.entries;
    header.entries = match header.is_unknown() {
        true => upper,
        false => before.clamp(lower, upper.plus(tolerated)),
    };
    if header.entries.minus(before).is_zero() && header.entries != before {
        // What was taken back may have been removed by somebody who has not said so yet, and must not be credited
        // again: to say it in time, it must be said of this account.
        header.account = header.account.wrapping_add(1);
    }
    header.overhead = measured.overhead;
    header.tidied_unix_us = measured.now_unix_us;
    header.write(&file)?;
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{News, append, begin, restart};
    use super::*;

    fn place() -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().expect("a temporary directory");
        let (directory, _) = Directory::open(&place.path().join("store"), false).expect("fresh");
        (place, directory)
    }

    fn size(bytes: u64) -> Size {
        Size { bytes, entries: bytes / 100 }
    }

    fn change(directory: &Directory, charge: u64, credit: u64) {
        let news = News { credit: size(credit), ..News::default() };
        let charge = |header: &mut Header| header.charge(size(charge));
        append(directory, &news, 1024, Duration::ZERO, charge).expect("written").expect("free");
    }

    fn measure(directory: &Directory, found: Header, seen: u64) -> u64 {
        let measured = Measured {
            found,
            in_flight: Size::default(),
            entries: size(seen),
            overhead: 7,
            max_size: 0,
            now_unix_us: 9,
        };
        let header = correct(directory, &measured).expect("noted");
        assert_eq!((header.overhead, header.tidied_unix_us), (7, 9));
        assert_eq!(header.entries.entries, header.entries.bytes / 100);
        header.entries.bytes
    }

    #[test]
    fn what_happens_during_a_measurement_gives_bounds() {
        let (_place, directory) = place();
        begin(&directory, 0).expect("begun");
        change(&directory, 5000, 0);
        let found = || header(&directory).expect("read");
        let account = found().account;
        // Somebody was killed: 3000 are there. 1000 more were charged meanwhile, seen or not.
        let before = found();
        change(&directory, 1000, 0);
        assert_eq!(measure(&directory, before, 3000), 4000);
        assert_ne!(
            found().account,
            account,
            "who removed what is missing has not said so, and need not any more"
        );
        let late = News { account, credit: size(1000), ..News::default() };
        append(&directory, &late, 1024, Duration::ZERO, |_| ()).expect("written").expect("free");
        assert_eq!(found().entries, size(4000));
        // Of the 4000 in the account 500 are removed meanwhile, seen or not.
        let before = found();
        change(&directory, 0, 500);
        assert_eq!(measure(&directory, before, 4000), 3500);
        assert_eq!(measure(&directory, found(), 3500), 3500);
        // Somebody else put things there.
        assert_eq!(measure(&directory, found(), 9000), 9000);
    }

    #[test]
    fn what_nobody_knows_is_what_was_seen_and_charged_since() {
        let (_place, directory) = place();
        begin(&directory, 0).expect("begun");
        restart(&directory).expect("forgotten");
        let before = header(&directory).expect("read");
        assert!(before.is_unknown());
        change(&directory, 1000, 0);
        assert!(header(&directory).expect("read").is_unknown());
        assert_eq!(measure(&directory, before, 5000), 6000);
    }
}
