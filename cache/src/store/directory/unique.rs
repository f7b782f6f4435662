//! Names that nobody else gives.

use std::sync::atomic::{AtomicU64, Ordering};

/// Digits of the time, in hexadecimal: as many as there are from 1978 to 2112.
const TIME_DIGITS: usize = 13;

/// A name no other process or thread uses now: process, start of use, number.
pub(crate) fn unique() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{}-{:0TIME_DIGITS$x}-{number}", std::process::id(), crate::clock::now_unix_us())
}

/// Whether a name is like those that [`unique`] gives.
pub(crate) fn is_unique(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit());
    let is_time = |part: &str| {
        part.len() == TIME_DIGITS && part.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    };
    let mut parts = name.split('-');
    let all = (parts.next(), parts.next(), parts.next(), parts.next());
    matches!(all, (Some(process), Some(time), Some(number), None) if is_number(process) && is_time(time) && is_number(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_others_are_none_of_ours() {
        assert!(is_unique(&unique()));
        for name in ["550e8400-e29b-41d4-a716-446655440000", "2024-01-02", "notes.txt", "1-2-3", "", "--"] {
            assert!(!is_unique(name), "{name}");
        }
    }
}
