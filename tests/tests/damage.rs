//! Whatever happens to an entry costs a compilation, never a result: and afterwards the entry is whole again.

use std::fs;
use std::path::{Path, PathBuf};

use objcache_tests::{Answer, KernelProcess};

fn kernel() -> (tempfile::TempDir, KernelProcess) {
    let folder = tempfile::tempdir().unwrap();
    let kernel = KernelProcess::new(env!("CARGO_BIN_EXE_kernel-process"), folder.path());
    kernel.write_kernel(7);
    (folder, kernel)
}

fn said(answer: &Answer) -> (&str, &str) {
    (&answer.outcome, &answer.result)
}

/// Does `harm` to the kernel's entry; the next process must miss and answer right, the one after it hit.
fn check(what: &str, harm: impl FnOnce(&Path)) {
    let (_folder, kernel) = kernel();
    assert_eq!(said(&kernel.run()), ("miss", "7"), "{what}");
    let entry: [PathBuf; 1] = kernel.entries().try_into().unwrap();
    harm(&entry[0]);
    let (after, healed) = (kernel.run(), kernel.run());
    assert_eq!(said(&after), ("miss", "7"), "{what}: {after:?}");
    assert_eq!(said(&healed), ("hit", "7"), "{what}: {healed:?}");
}

fn rewrite(entry: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(entry).unwrap();
    change(&mut bytes);
    fs::write(entry, bytes).unwrap();
}

#[test]
fn a_flipped_bit_anywhere() {
    let length = {
        let (_folder, kernel) = kernel();
        kernel.run();
        fs::metadata(&kernel.entries()[0]).unwrap().len() as usize
    };
    // Spread over the object, the record and the trailer; every bit of an entry is flipped in the cache's tests.
    for part in 0..16 {
        let at = (length - 1) * part / 15;
        check(&format!("byte {at} of {length}"), |entry| {
            rewrite(entry, |bytes| bytes[at] ^= 1 << (part % 8))
        });
    }
}

#[test]
fn a_truncated_an_empty_and_a_longer_file() {
    check("half", |entry| rewrite(entry, |bytes| bytes.truncate(bytes.len() / 2)));
    check("one byte less", |entry| rewrite(entry, |bytes| bytes.truncate(bytes.len() - 1)));
    check("empty", |entry| rewrite(entry, Vec::clear));
    check("one byte more", |entry| rewrite(entry, |bytes| bytes.push(0)));
    check("twice itself", |entry| rewrite(entry, |bytes| bytes.extend_from_within(..)));
}

#[test]
fn a_valid_entry_under_another_name() {
    let (_folder, kernel) = kernel();
    kernel.run();
    let seven = kernel.entries().remove(0);
    kernel.write_kernel(8);
    assert_eq!(said(&kernel.run()), ("miss", "8"));
    let eight = kernel.entries().into_iter().find(|entry| *entry != seven).unwrap();

    fs::copy(&seven, &eight).unwrap();
    assert_eq!(said(&kernel.run()), ("miss", "8"), "the entry of 7 must not answer for 8");
    assert_eq!(said(&kernel.run()), ("hit", "8"), "healed");
    kernel.write_kernel(7);
    assert_eq!(said(&kernel.run()), ("hit", "7"), "the original is untouched");
}

#[test]
fn a_cache_that_cannot_be_used_costs_a_warning() {
    let (folder, kernel) = kernel();
    fs::write(kernel.store(), "a file where the directory should be").unwrap();
    let blocked = kernel.run();
    assert_eq!(said(&blocked), ("miss", "7"));
    let off = kernel.start(0, &[("OBJCACHE_DISABLE", "1")]).answer();
    assert_eq!(said(&off), ("miss", "7"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "kernel, log, and the file in the way");
}
