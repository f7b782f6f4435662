//! `lld-link`, whose layout our loader follows: a link, its maps and its bytes.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::coff::{self, Object};
use crate::support::*;

/// What the linker made of the first of the objects.
pub(crate) struct Linked {
    /// Where its sections went, in the order of the map: name, address, size.
    pub(crate) rows: Vec<(String, u64, u64)>,
    /// Addresses of global symbols.
    pub(crate) publics: BTreeMap<String, u64>,
    /// Sections of the image: address, bytes.
    pub(crate) image: Vec<(u64, Vec<u8>)>,
    /// Warnings and errors. With errors there is no image.
    pub(crate) messages: String,
}

pub(crate) fn link(machine: u16, base: u64, objects: &[&[u8]], extra: &[&str]) -> Linked {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let directory = scratch(&format!("lld{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir_all(&directory).unwrap();
    for (number, object) in objects.iter().enumerate() {
        std::fs::write(directory.join(format!("{number}.o")), object).unwrap();
    }
    let mut command = Command::new(LLD_LINK);
    command.current_dir(&directory).arg(format!("/base:{base:#x}"));
    command.args("/dll /noentry /nodefaultlib /opt:noref /opt:noicf /opt:nolldtailmerge".split(' '));
    command.args("/lldmap:rows /map:symbols /out:a.dll /errorlimit:0 /ignore:4217".split(' ')).args(extra);
    if machine != coff::ARM64 {
        command.arg("/fixed");
    }
    if machine == coff::I386 {
        command.arg("/safeseh:no");
    }
    command.args((0..objects.len()).map(|number| format!("{number}.o")));
    let result = command.output().unwrap();
    let text = |file: &str| std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    let linked = Linked {
        rows: text("rows").lines().filter_map(|line| row(line, base)).collect(),
        publics: text("symbols").lines().filter_map(public).collect(),
        image: std::fs::read(directory.join("a.dll"))
            .map(|file| image_sections(&file, base))
            .unwrap_or_default(),
        messages: String::from_utf8_lossy(&result.stderr).into_owned(),
    };
    std::fs::remove_dir_all(&directory).unwrap();
    linked
}

/// `00001000 00000284    16         0.o:(.text)`; the address counts from the base.
fn row(line: &str, base: u64) -> Option<(String, u64, u64)> {
    let name = line.split_once(" 0.o:(")?.1.strip_suffix(')')?;
    let mut numbers = line.split_whitespace().map(|number| u64::from_str_radix(number, 16));
    let (address, size) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((name.to_owned(), base + address, size))
}

/// ` 0002:00000008       __imp_aa                   0000000010002008`.
fn public(line: &str) -> Option<(String, u64)> {
    let mut words = line.split_whitespace();
    let (place, name, address) = (words.next()?, words.next()?, words.next()?);
    (place.len() == 13 && place.as_bytes()[4] == b':' && address.len() == 16)
        .then(|| Some((name.to_owned(), u64::from_str_radix(address, 16).ok()?)))?
}

/// The sections of a PE image, as they are in memory.
pub(crate) fn image_sections(file: &[u8], base: u64) -> Vec<(u64, Vec<u8>)> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let half = |at: usize| usize::from(u16::from_le_bytes(file[at..at + 2].try_into().unwrap()));
    let header = word(0x3c) + 4;
    let first = header + 20 + half(header + 16);
    let sections = (0..half(header + 2)).map(|number| first + 40 * number).map(|section| {
        let (size, address, stored, at) =
            (word(section + 8), word(section + 12), word(section + 16), word(section + 20));
        let mut bytes = file[at..at + stored.min(size)].to_vec();
        // What is beyond the file is zero; nobody looks at more than a little of it.
        bytes.resize(size.min(bytes.len() + (1 << 20)), 0);
        (base + address as u64, bytes)
    });
    sections.collect()
}

impl Linked {
    pub(crate) fn bytes(&self, address: u64, size: usize) -> Option<&[u8]> {
        let (start, bytes) = self.image.iter().find(|(start, bytes)| {
            *start <= address && address + size as u64 <= start + bytes.len() as u64
        })?;
        bytes.get((address - start) as usize..)?.get(..size)
    }

    /// The row of a section, by its name and how many of that name come before it.
    pub(crate) fn row(&self, name: &str, before: usize) -> Option<(u64, u64)> {
        let mut rows = self.rows.iter().filter(|(other, ..)| other == name);
        rows.nth(before).map(|(_, address, size)| (*address, *size))
    }
}

/// An object that defines names as absolute addresses, and aligns what comes after its zeros.
pub(crate) fn externals(machine: u16, names: &BTreeMap<String, u64>) -> Vec<u8> {
    let mut object = Object::new(machine);
    for (name, address) in names {
        object.symbol(name, coff::EXTERNAL, coff::ABSOLUTE, u32::try_from(*address).unwrap());
    }
    object.section(".bss", coff::BSS | 0x0070_0000, &[]).size = Some(64);
    object.build()
}
