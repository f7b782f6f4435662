//! Whole objects of a compiler: every section's bytes are those that `ld64.lld` makes.
//!
//! The linker gets a copy in which nothing is left to its taste: no pieces to reorder, no literals to merge, no weak
//! definitions to call through stubs. A second object defines what is external, at random addresses, and refers to the
//! GOT entries, so that there are some and accesses through them stay. The loader gets the object as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use objcache_loader::{FixedMemory, Loader, from_fn};
use object::read::macho::{MachOFile64, Nlist as _};
use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags, RelocationTarget,
};

use crate::lld::{self, LD64, Linked};
use crate::support::macho::{self, ARM64, Object, Relocation, X86_64};
use crate::support::*;

type File<'a> = MachOFile64<'a, LittleEndian>;

/// The object without what gives linkers a choice.
fn settled(object: &[u8]) -> Vec<u8> {
    const PIECES: u32 = 0x2000;
    let mut copy = object.to_vec();
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..][..4].try_into().unwrap());
    let flags = word(object, 24) & !PIECES;
    copy[24..28].copy_from_slice(&flags.to_le_bytes());
    let (mut at, count) = (32, word(object, 16));
    for _ in 0..count {
        match word(object, at) {
            0x19 => {
                for section in 0..word(object, at + 64) as usize {
                    let flags = at + 72 + 80 * section + 64;
                    if matches!(object[flags], 2 | 3 | 4 | 14) {
                        copy[flags] = 0;
                    }
                }
            }
            2 => {
                let (symbols, count) = (word(object, at + 8) as usize, word(object, at + 12) as usize);
                for symbol in (symbols..).step_by(16).take(count) {
                    if object[symbol + 4] & 0xe == macho::IN_SECTION {
                        copy[symbol + 6] &= !0xc0;
                    }
                }
            }
            _ => {}
        }
        at += word(object, at + 4) as usize;
    }
    copy
}

/// What the linker is told of the world: addresses of external symbols, and which GOT entries there are, in the loader's
/// order.
fn world(cpu: u32, file: &File<'_>, random: &mut Random) -> (Object, BTreeMap<String, u64>) {
    let mut object = Object::of(cpu);
    let mut externals = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.is_undefined()) {
        let name = symbol.name().unwrap();
        if !name.starts_with("section$") && name != "___dso_handle" {
            let address = 0x100_0000 + 16 * random.below(0x10_0000);
            object.symbol(name, macho::EXTERNAL | macho::ABSOLUTE, 0, address);
            externals.insert(name.to_owned(), address);
        }
    }
    let slots = slots(cpu, file);
    object.section("__DATA", "__world", 0, &vec![0; 4 * slots.len()]);
    let kind = if cpu == ARM64 { 7 } else { 4 };
    for (place, number) in slots.iter().enumerate() {
        let name = file.symbol_by_index(object::SymbolIndex(*number)).unwrap().name().unwrap();
        let known = object.symbols.iter().position(|symbol| symbol.name == name);
        let number = known.map_or_else(|| object.symbol(name, macho::EXTERNAL, 0, 0), |known| known as u32);
        let offset = 4 * place as u32;
        let relocation = Relocation { offset, number, external: true, kind, length: 2, relative: true };
        object.sections[0].relocations.push(relocation);
    }
    (object, externals)
}

/// Numbers of the symbols that relocations of loaded sections reach through the GOT.
fn slots(cpu: u32, file: &File<'_>) -> BTreeSet<usize> {
    let mut slots = BTreeSet::new();
    for (_, relocation) in relocations(file) {
        let RelocationFlags::MachO { r_type, .. } = relocation.flags() else { panic!() };
        let is_got = match cpu {
            ARM64 => (5..=7).contains(&r_type.0),
            _ => matches!(r_type.0, 3 | 4),
        };
        if let (true, RelocationTarget::Symbol(symbol)) = (is_got, relocation.target()) {
            slots.insert(symbol.0);
        }
    }
    slots
}

/// Names of the kinds of relocation in loaded sections.
pub(crate) fn kinds(cpu: u32, object: &[u8]) -> BTreeSet<String> {
    const X86: [&str; 9] =
        ["UNSIGNED", "SIGNED", "BRANCH", "GOT_LOAD", "GOT", "SUBTRACTOR", "SIGNED_1", "SIGNED_2", "SIGNED_4"];
    const ARM: [&str; 11] = [
        "UNSIGNED",
        "SUBTRACTOR",
        "BRANCH26",
        "PAGE21",
        "PAGEOFF12",
        "GOT_LOAD_PAGE21",
        "GOT_LOAD_PAGEOFF12",
        "POINTER_TO_GOT",
        "TLVP_LOAD_PAGE21",
        "TLVP_LOAD_PAGEOFF12",
        "ADDEND",
    ];
    let names: &[&str] = if cpu == ARM64 { &ARM } else { &X86 };
    let file = File::parse(object).unwrap();
    let numbers = relocations(&file).map(|(_, relocation)| match relocation.flags() {
        RelocationFlags::MachO { r_type, .. } => usize::from(r_type.0),
        _ => panic!("not Mach-O"),
    });
    numbers.map(|number| kind_name(cpu, names[number])).collect()
}

/// A kind's name as in Apple's headers.
pub(crate) fn kind_name(cpu: u32, name: &str) -> String {
    format!("{}_RELOC_{name}", if cpu == ARM64 { "ARM64" } else { "X86_64" })
}

fn relocations<'a>(file: &'a File<'_>) -> impl Iterator<Item = (u64, object::Relocation)> + 'a {
    let loaded = |name: &str| !matches!(name, "__LD" | "__DWARF" | "__LLVM");
    let sections = file.sections();
    let sections = sections.filter(move |section| loaded(section.segment_name().unwrap().unwrap()));
    sections.flat_map(|section| section.relocations().collect::<Vec<_>>())
}

/// Where the linker put a section: told by a symbol in it, or by its name if there is none.
fn address(file: &File<'_>, linked: &Linked, number: usize, name: &str) -> Option<u64> {
    let endian = LittleEndian;
    let symbols =
        file.symbols().filter(|symbol| symbol.section_index().is_some_and(|section| section.0 == number));
    let start = file.section_by_index(object::SectionIndex(number)).unwrap().address();
    for symbol in symbols {
        let is_debugging = symbol.macho_symbol().is_stab();
        let found: Vec<_> = linked.rows.iter().filter(|row| row.3 == symbol.name().unwrap()).collect();
        if let (false, [(address, ..)]) = (is_debugging, &found[..]) {
            return Some(address - (symbol.macho_symbol().n_value(endian) - start));
        }
    }
    let moved = name.replacen("__DATA,", "__DATA_CONST,", 1);
    linked.sections.get(name).or_else(|| linked.sections.get(&moved)).map(|(address, _)| *address)
}

/// The bytes that the linker has at an address.
fn bytes_at(linked: &Linked, address: u64, size: usize) -> &[u8] {
    let mut sections = linked.sections.values();
    let found = sections.find_map(|(start, bytes)| {
        let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
        bytes.get(offset..offset + size)
    });
    found.unwrap_or_else(|| panic!("nothing at {address:#x}"))
}

/// Returns how many sections and how many relocations were compared.
fn compare(cpu: u32, object: &[u8], random: &mut Random, what: &str) -> (usize, usize) {
    let file = File::parse(object).unwrap();
    let (world, externals) = world(cpu, &file, random);
    let linked = lld::link(cpu, &[&world.build(), &settled(object)], "whole")
        .unwrap_or_else(|error| panic!("{what}: {error}"));

    let mut addresses = BTreeMap::new();
    for section in file.sections() {
        let name = format!("{},{}", section.segment_name().unwrap().unwrap(), section.name().unwrap());
        if let Some(address) = address(&file, &linked, section.index().0, &name) {
            addresses.insert(section.index().0, address);
        }
    }
    let got =
        linked.sections.iter().find(|(name, _)| name.ends_with(",__got")).map(|(_, (address, _))| *address);
    let memory = FixedMemory::placed(0, move |name: &[u8], number| match name {
        b".got" => got,
        _ => addresses.get(&number).copied(),
    });
    let log = Arc::new(SectionLog::default());
    let loader = Loader::builder().memory(Arc::new(memory)).listener(log.clone()).build();
    let image = loader.load(object, &from_fn(|name| externals.get(name).copied()));
    let image = image.unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut sections = 0;
    for section in log.0.lock().iter() {
        let zero_fill = section.name.ends_with("__bss") || section.name.ends_with("__common");
        // lld writes unwind tables anew, record by record.
        if section.name == "__TEXT,__eh_frame" || zero_fill || section.size == 0 {
            continue;
        }
        let ours = &image.linked_bytes(section.segment).unwrap()[section.offset..][..section.size];
        let theirs = bytes_at(&linked, section.address, section.size);
        let differs = ours.iter().zip(theirs).position(|(one, other)| one != other);
        assert_eq!(differs, None, "{what}: {} at {:#x} differs", section.name, section.address);
        sections += 1;
    }
    (sections, relocations(&file).count())
}

#[test]
fn whole_objects_are_linked_as_lld_does() {
    if !has(LD64) || !has(CLANG) {
        return;
    }
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut objects, mut sections, mut relocations) = (0, 0, 0);
    for cpu in [X86_64, ARM64] {
        let target = format!("--target={}-apple-macosx13", lld::architecture(cpu));
        for compiler in ["cranelift", "rust"] {
            let object = fixture(&format!("{compiler}/macho-{}.o", lld::architecture(cpu)));
            let bytes = std::fs::read(&object).unwrap();
            compare(cpu, &bytes, &mut random, &object.display().to_string());
        }
        for (compiler, source) in [(CLANG, "mac.c"), (CLANGXX, "mac.cpp")] {
            const VARIANTS: [&[&str]; 5] =
                [&["-O0"], &["-O1", "-g"], &["-O2"], &["-O2", "-fvisibility=hidden"], &["-Os"]];
            for more in VARIANTS {
                let mut flags = vec![target.as_str(), "-w", "-fno-common"];
                flags.extend(more);
                let object = compile(compiler, &flags, &fixture(source));
                let counts = compare(cpu, &object, &mut random, &format!("{source} {flags:?}"));
                objects += 1;
                sections += counts.0;
                relocations += counts.1;
            }
        }
    }
    eprintln!("{objects} objects, {sections} sections, {relocations} relocations: all bytes equal");
    assert!(sections >= objects * 5 && relocations > objects * 50);
}
