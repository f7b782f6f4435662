//! Time and memory that a load takes are bounded by the object's size and by [`Limits`], whatever overlaps in the object.

mod support;

use std::sync::Arc;

use objcache_loader::{FixedMemory, Limits, LoadError, Loader, NoSymbols, from_fn};
use support::elf::{self, Object};

/// Building the index must not take time in proportion to the square of their number: 36 thousand million steps here.
#[test]
fn symbols_of_one_name_are_indexed_in_linear_time() {
    const COUNT: usize = 1 << 18;
    let mut object = Object::default();
    object.section(".text", elf::EXEC, &[0xc3; 16]);
    object.symbol("same", elf::GLOBAL | elf::FUNC, 1, 3);
    object.symbol("other", elf::GLOBAL | elf::FUNC, 1, 5);
    let mut bytes = object.build();
    // Repeats the entry of `same` behind the file.
    let sections = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    let table = sections + 2 * 64;
    let offset = u64::from_le_bytes(bytes[table + 24..][..8].try_into().unwrap()) as usize;
    let symbols = bytes[offset..offset + 3 * 24].to_vec();
    let (end, size) = (bytes.len() as u64, (symbols.len() + COUNT * 24) as u64);
    bytes.extend(&symbols);
    bytes.extend(symbols[24..48].repeat(COUNT));
    bytes[table + 24..table + 32].copy_from_slice(&end.to_le_bytes());
    bytes[table + 32..table + 40].copy_from_slice(&size.to_le_bytes());
    let image = Loader::new().load(&bytes, &NoSymbols).unwrap();
    assert_eq!(image.symbols().count(), COUNT + 2);
    let [same, other] = ["same", "other"].map(|name| image.address(name).unwrap());
    assert_eq!(other - same, 2);
    assert_eq!(image.address("missing"), None);
}

/// Names that overlap can together be far longer than the object.
#[test]
fn the_length_of_all_names_together_is_limited() {
    let refused = |object: &Object| {
        let mut limits = Limits::default();
        limits.all_name_bytes = 100;
        let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0))).limits(limits).build();
        let error = loader.load(&object.build(), &from_fn(|_| Some(1))).unwrap_err();
        assert!(error.to_string().contains("the length of all names together is"), "{error}");
    };
    let long = "n".repeat(60);
    let mut sections = Object::default();
    sections.section(&long, 0, &[0]);
    sections.section(&long, 0, &[0]);
    refused(&sections);
    let mut symbols = Object::default();
    symbols.section(".data", elf::WRITE, &[0; 16]);
    for offset in [0, 8] {
        let symbol = symbols.symbol(&long, elf::GLOBAL, 0, 0);
        symbols.sections[0].relocate(offset, 1, symbol, 0);
    }
    refused(&symbols);
}

/// A limit that lets everything through is no reason for sums to overflow.
#[test]
fn without_limits_sizes_still_do_not_overflow() {
    let mut limits = Limits::default();
    limits.image_bytes = u64::MAX;
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0))).limits(limits).build();
    let mut object = Object::default();
    object.symbol("c", elf::GLOBAL, elf::COMMON, 64);
    for size in [u64::MAX - 8, u64::MAX / 2, 1 << 47] {
        object.sections.clear();
        for _ in 0..2 {
            let section = object.section(".bss", elf::WRITE, &[]);
            (section.kind, section.size, section.align) = (elf::NOBITS, Some(size), 64);
        }
        let error = loader.load(&object.build(), &NoSymbols).unwrap_err();
        assert!(matches!(error, LoadError::Limit { .. }), "{error}");
    }
}

/// An object with nothing but section headers: as many as the limit allows are read, in memory and time in proportion; one
/// more is refused before anything is allocated for them.
#[test]
fn a_million_sections_are_read_or_refused() {
    const HEADER: usize = 64;
    let object = |count: u64| {
        let mut bytes = vec![0; HEADER + HEADER * count as usize];
        bytes[..20].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0");
        bytes[40] = HEADER as u8; // e_shoff
        bytes[58] = HEADER as u8; // e_shentsize
        bytes[62] = 1; // e_shstrndx; e_shnum is 0: the first header's sh_size counts
        bytes[HEADER + 32..][..8].copy_from_slice(&count.to_le_bytes());
        // The names: one NUL, in the file's header.
        bytes[2 * HEADER + 4] = 3;
        bytes[2 * HEADER + 24] = 7;
        bytes[2 * HEADER + 32] = 1;
        for section in bytes[3 * HEADER..].chunks_exact_mut(HEADER) {
            section[4] = 8; // SHT_NOBITS
            section[8] = 3; // SHF_ALLOC | SHF_WRITE
            section[32] = 16; // sh_size
            section[48] = 16; // sh_addralign
        }
        bytes
    };
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0x1_0000_0000))).build();
    let most = Limits::default().sections;
    let image = loader.load(&object(most), &NoSymbols).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(image.memory_size() as u64, (most - 2) * 16);
    let error = loader.load(&object(most + 1), &NoSymbols).err().map(|error| error.to_string());
    let expected = format!("the number of sections is {}, more than the limit of {most}", most + 1);
    assert_eq!(error, Some(expected));
}
