//! A linker we did not write must agree: what this loader links is compared, byte for byte, with what `ld.lld` makes
//! of the same object at the same addresses.
//!
//! The linker goes first, with a script that puts every section at a random address with random gaps; the loader then
//! places the sections, the GOT and the external symbols where the linker had them. `-O0` keeps mergeable strings in
//! place, `--no-relax` keeps loads through the GOT.

mod support;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::process::Command;
use std::sync::Arc;

use objcache_loader::{FixedMemory, LoadError, LoadedImage, Loader, Segment, from_fn};
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionFlags, SymbolIndex};
use support::elf::{self, Object};
use support::*;

/// What the linker made.
struct LinkedFile {
    /// Address and bytes of each section.
    sections: HashMap<String, (u64, Vec<u8>)>,
    /// The linker's warnings, one per relocation that does not fit.
    messages: String,
}

/// Links an object by a script. Ranges that do not fit are warnings.
fn lld(object: &[u8], script: &str, what: &str) -> LinkedFile {
    let [input, commands, output] = ["o", "ld", "elf"].map(|suffix| scratch(&format!("{what}.{suffix}")));
    std::fs::write(&input, object).unwrap();
    std::fs::write(&commands, script).unwrap();
    let flags = "-static -O0 --no-relax --no-gc-sections --build-id=none -z norelro --noinhibit-exec -e 0 --error-limit=0";
    let result = Command::new(LLD)
        .args(flags.split(' '))
        .arg("-T")
        .args([&commands, &input])
        .arg("-o")
        .arg(&output)
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&result.stderr).into_owned();
    assert!(result.status.success(), "{what}: {messages}");
    let bytes = std::fs::read(&output).unwrap();
    let file: ElfFile64<'_> = ElfFile64::parse(&bytes[..]).unwrap();
    let sections = file.sections().filter(is_allocated).map(|section| {
        let content = section.uncompressed_data_or_zeros();
        (section.name().unwrap().to_owned(), (section.address(), content))
    });
    let sections = sections.collect();
    for path in [input, commands, output] {
        std::fs::remove_file(path).unwrap();
    }
    LinkedFile { sections, messages }
}

fn is_allocated<'a>(section: &impl object::ObjectSection<'a>) -> bool {
    matches!(section.flags(), SectionFlags::Elf { sh_flags, .. } if sh_flags.0 & elf::ALLOC != 0)
}

trait DataOrZeros {
    fn uncompressed_data_or_zeros(&self) -> Vec<u8>;
}

impl<'a, S: object::ObjectSection<'a>> DataOrZeros for S {
    fn uncompressed_data_or_zeros(&self) -> Vec<u8> {
        let mut bytes = self.data().unwrap().to_vec();
        bytes.resize(self.size() as usize, 0);
        bytes
    }
}

/// Loads an object where the linker put it, and returns the bytes of each section as the loader made them.
fn load_like(
    linked: &LinkedFile,
    object: &[u8],
    base: u64,
    externals: &BTreeMap<String, u64>,
    got: Option<u64>,
) -> Result<(LoadedImage, HashMap<String, Vec<u8>>), LoadError> {
    let mut addresses: HashMap<Vec<u8>, u64> =
        linked.sections.iter().map(|(name, (address, _))| (name.clone().into_bytes(), *address)).collect();
    if let Some(got) = got {
        addresses.insert(b".got".to_vec(), got);
    }
    let log = Arc::new(SectionLog::default());
    let memory = FixedMemory::placed(base, move |name: &[u8], _| addresses.get(name).copied());
    let loader = Loader::builder().memory(Arc::new(memory)).listener(log.clone()).build();
    let image = loader.load(object, &from_fn(|name| externals.get(name).copied()))?;
    let log = log.0.lock();
    let bytes = log.iter().map(|section| {
        let bytes = &image.linked_bytes(section.segment).unwrap()[section.offset..][..section.size];
        (section.name.clone(), bytes.to_vec())
    });
    let bytes = bytes.collect();
    Ok((image, bytes))
}

/// A linker script with every section of the object at an address of its own, in random order.
fn script(object: &[u8], base: u64, random: &mut Random) -> (String, BTreeMap<String, u64>) {
    let file: ElfFile64<'_> = ElfFile64::parse(object).unwrap();
    let mut sections: Vec<(String, u64, u64)> = file
        .sections()
        .filter(is_allocated)
        .map(|section| (section.name().unwrap().to_owned(), section.align().max(1), section.size()))
        .filter(|(name, ..)| !name.starts_with(".note"))
        .collect();
    let unique: HashSet<_> = sections.iter().map(|(name, ..)| name).collect();
    assert_eq!(unique.len(), sections.len(), "section names must be unique for this");
    for special in ["COMMON", ".got", ".got.plt"] {
        sections.push((special.to_owned(), 64, 8192));
    }
    for last in (1..sections.len()).rev() {
        sections.swap(last, random.below(last as u64 + 1) as usize);
    }
    let mut text = String::from("SECTIONS {\n");
    let mut next = base;
    for (name, align, size) in &sections {
        next = (next + random.below(40_000)).next_multiple_of(*align);
        writeln!(text, "\"{name}\" {next:#x} : {{ *({name}) }}").unwrap();
        next += size;
    }
    text += "/DISCARD/ : { *(.comment) *(.note*) }\n";
    let externals: BTreeMap<String, u64> = file
        .symbols()
        .filter(|symbol| symbol.is_undefined() && symbol.index() != SymbolIndex(0))
        .map(|symbol| symbol.name().unwrap().to_owned())
        .filter(|name| !name.is_empty() && name != "_GLOBAL_OFFSET_TABLE_")
        .map(|name| match name.as_str() {
            "__dso_handle" => (name, base), // the loader's own: the image's first byte
            _ => (name, base + random.below(0x1000_0000)),
        })
        .collect();
    for (name, address) in &externals {
        writeln!(text, "\"{name}\" = {address:#x};").unwrap();
    }
    (text + "}\n", externals)
}

#[test]
fn whole_objects_are_linked_as_lld_does() {
    const MODELS: [&[&str]; 5] = [
        &["-fPIC"],
        &["-fPIE", "-ffunction-sections", "-fdata-sections"],
        &["-fno-pic"],
        &["-fno-pic", "-mcmodel=large"],
        &["-fPIC", "-mcmodel=large"],
    ];
    if !has(LLD) {
        return;
    }
    let mut random = Random(0x1234_5678_9abc_def1);
    let (mut links, mut sections) = (0, 0);
    for (compiler, source) in
        [(GCC, "kernel.c"), (CLANG, "kernel.c"), (GXX, "kernel.cpp"), (CLANGXX, "kernel.cpp")]
    {
        if !has(compiler) {
            continue;
        }
        for model in MODELS {
            for level in ["-O0", "-O2"] {
                let mut flags = vec![level, "-w"];
                flags.extend(model);
                if source.ends_with(".c") {
                    flags.extend(["-fcommon", "-DCOMMON", "-fno-asynchronous-unwind-tables"]);
                }
                let object = compile(compiler, &flags, &fixture(source));
                for seed in 0..2 {
                    let what = format!("{compiler} {flags:?} {seed}");
                    let low = flags.contains(&"-fno-pic");
                    let base = if low { 0x20_0000 } else { 0x10_0000_0000 + random.below(1 << 40) };
                    let base = base & !0xfff;
                    let (script, externals) = script(&object, base, &mut random);
                    let linked = lld(&object, &script, "whole");
                    assert_eq!(linked.messages, "", "{what}");
                    let (image, ours) = load_like(&linked, &object, base, &externals, None).expect(&what);
                    for (name, bytes) in &ours {
                        // lld writes unwind tables anew, record by record.
                        if name != ".eh_frame" && !bytes.is_empty() {
                            assert!(linked.sections[name].1 == *bytes, "{what}: {name} differs");
                            sections += 1;
                        }
                    }
                    if let Some((_, got)) = linked.sections.get(".got") {
                        let read_only = image.linked_bytes(Segment::ReadOnly).unwrap();
                        let found = read_only.windows(got.len()).any(|window| window == got);
                        assert!(found, "{what}: the GOT differs");
                    }
                    links += 1;
                }
            }
        }
    }
    eprintln!("{links} links, {sections} sections, all equal");
    assert!(sections >= links * 5);
}

/// One relocation, everything about it chosen at random.
struct Case {
    kind: u32,
    name: &'static str,
    place: u64,
    symbol: u64,
    size: u64,
    addend: i64,
    /// The symbol is defined in the object, as an absolute one.
    absolute: bool,
    offset: usize,
    bytes: Vec<u8>,
}

/// Number, name, width in bytes, and what its range is measured from.
const KINDS: [(u32, &str, usize, Range); 19] = [
    (1, "64", 8, Range::None),
    (2, "PC32", 4, Range::Place),
    (4, "PLT32", 4, Range::Place),
    (9, "GOTPCREL", 4, Range::Slot),
    (10, "32", 4, Range::Zero),
    (11, "32S", 4, Range::Zero),
    (12, "16", 2, Range::Zero),
    (13, "PC16", 2, Range::Place),
    (14, "8", 1, Range::Zero),
    (15, "PC8", 1, Range::Place),
    (24, "PC64", 8, Range::None),
    (25, "GOTOFF64", 8, Range::None),
    (26, "GOTPC32", 4, Range::Slot),
    (27, "GOT64", 8, Range::None),
    (29, "GOTPC64", 8, Range::None),
    (31, "PLTOFF64", 8, Range::None),
    (32, "SIZE32", 4, Range::Size),
    (33, "SIZE64", 8, Range::None),
    (41, "GOTPCRELX", 4, Range::Slot),
];

#[derive(Clone, Copy, PartialEq)]
enum Range {
    None,
    Zero,
    Place,
    Slot,
    Size,
}

impl Case {
    fn new(place: u64, random: &mut Random) -> Self {
        let (kind, name, width, range) = random.one_of(&KINDS);
        let offset = random.below(12) as usize;
        let tail = random.one_of(&[0, 0, 0, 5]);
        let mut bytes: Vec<u8> = (0..offset + width + tail).map(|_| random.next() as u8).collect();
        if offset > 0 {
            bytes[offset - 1] = 0x48; // no opcode of a call or a jump
        }
        let addend = match random.below(4) {
            0 => 0,
            1 => -(random.below(200) as i64),
            2 => random.below(200) as i64,
            _ => (random.next() as i64) >> random.one_of(&[8, 32, 33, 40, 48, 56]),
        };
        let place_of_field = place + offset as u64;
        let edge = Self::edge(width * 8, random);
        let target = match range {
            Range::Zero => edge,
            Range::Place => place_of_field.wrapping_add(edge),
            _ => random.next() >> random.one_of(&[0, 16, 33]),
        };
        let size = if range == Range::Size { edge.wrapping_sub(addend as u64) } else { random.next() >> 20 };
        let symbol = if matches!(range, Range::Zero | Range::Place) {
            target.wrapping_sub(addend as u64)
        } else {
            target
        };
        let absolute = range == Range::Size || name.starts_with("SIZE") || random.below(2) == 0;
        Case { kind, name, place, symbol, size, addend, absolute, offset, bytes }
    }

    /// A value inside, at, or just past one of the limits of a field, or far away.
    fn edge(bits: usize, random: &mut Random) -> u64 {
        if bits == 64 {
            return random.next();
        }
        let half = 1i64 << (bits - 1);
        let limit = random.one_of(&[
            half - 1,
            half,
            half + 1,
            -half,
            -half - 1,
            -half + 1,
            2 * half - 1,
            2 * half,
            0,
            -1,
        ]);
        let inside = (random.next() as i64) >> (65 - bits);
        let far = (random.next() as i64) >> 17;
        random.one_of(&[limit, limit, limit, inside, inside, far]) as u64
    }

    fn add_to(&self, object: &mut Object, section: &str, name: &str) {
        let place = if self.absolute { elf::ABS } else { 0 };
        let value = if self.absolute { self.symbol } else { 0 };
        let symbol = object.symbol(name, elf::GLOBAL, place, value);
        object.symbols.last_mut().unwrap().size = if self.absolute { self.size } else { 0 };
        let section = object.section(section, elf::EXEC, &self.bytes);
        section.relocate(self.offset as u64, self.kind, symbol, self.addend);
    }
}

#[test]
fn single_relocations_are_done_as_lld_does() {
    const BATCHES: u64 = 14;
    const CASES: usize = 300;
    if !has(LLD) {
        return;
    }
    let mut random = Random(0x0ddc_0ffe_e0dd_f00d);
    let mut outcomes = [0; 3];
    let mut seen = HashSet::new();
    for batch in 0..BATCHES {
        let base = random.one_of(&[0x20_0000, 0x5555_5000_0000, 0x7fff_0000_0000 - 0x40_0000]);
        let mut next: u64 = base + 0x2000;
        let mut object = Object::default();
        let mut text = String::from("SECTIONS {\n");
        writeln!(text, ".got {base:#x} : {{ *(.got) }}\n.got.plt {:#x} : {{ *(.got.plt) }}", base + 0x1f00)
            .unwrap();
        let mut cases = Vec::new();
        for number in 0..CASES {
            next += random.below(4000);
            let case = Case::new(next, &mut random);
            case.add_to(&mut object, &format!(".t.{number}"), &format!("s{number}"));
            writeln!(text, ".t.{number} {next:#x} : {{ *(.t.{number}) }}").unwrap();
            if !case.absolute {
                writeln!(text, "s{number} = {:#x};", case.symbol).unwrap();
            }
            next += case.bytes.len() as u64;
            cases.push(case);
        }
        let linked = lld(&object.build(), &(text + "}\n"), &format!("batch{batch}"));
        for (number, case) in cases.iter().enumerate() {
            let place = format!("(.t.{number}+{:#x})", case.offset);
            let refused =
                linked.messages.lines().any(|line| line.contains(&place) && line.contains("out of range"));
            outcomes[compare(case, &format!(".t.{number}"), &linked, refused)] += 1;
            seen.insert(case.name);
        }
    }
    let [equal, both_refuse, by_stub] = outcomes;
    eprintln!("{equal} equal, {both_refuse} refused by both, {by_stub} branches that need a stub");
    assert_eq!(seen.len(), KINDS.len());
    assert!(equal > 1000 && both_refuse > 200 && by_stub > 20);
}

/// Loads the case alone, in an object of its own. Returns the number of the outcome.
fn compare(case: &Case, section: &str, linked: &LinkedFile, refused: bool) -> usize {
    let mut object = Object::default();
    case.add_to(&mut object, section, "symbol");
    let what = format!(
        "R_X86_64_{} at {:#x}+{:#x} of {} bytes against {:#x} (size {:#x}) {:+#x}",
        case.name,
        case.place,
        case.offset,
        case.bytes.len(),
        case.symbol,
        case.size,
        case.addend
    );
    let slot = case.name.starts_with("GOT").then(|| slot_of(linked, case.symbol)).flatten();
    let externals = BTreeMap::from([("symbol".to_owned(), case.symbol)]);
    match load_like(linked, &object.build(), case.place, &externals, slot) {
        Ok((image, ours)) if refused => {
            assert_eq!(case.name, "PLT32", "{what}: lld refuses, the loader does not");
            assert_goes_through_a_stub(case, &image, linked, &ours[section], &what);
            2
        }
        Ok((_, ours)) => {
            assert_eq!(ours[section], linked.sections[section].1, "{what}");
            0
        }
        Err(LoadError::Fixup(_)) if refused => 1,
        Err(error) => panic!("{what}: lld accepts, the loader says {error}"),
    }
}

/// Where the linker keeps a value in its GOT.
fn slot_of(linked: &LinkedFile, value: u64) -> Option<u64> {
    let (address, got) = linked.sections.get(".got")?;
    let number = got.chunks_exact(8).position(|slot| slot == value.to_le_bytes())?;
    Some(address + number as u64 * 8)
}

/// The field leads to a stub, the stub to a GOT entry, the entry to the symbol.
fn assert_goes_through_a_stub(
    case: &Case,
    image: &LoadedImage,
    linked: &LinkedFile,
    bytes: &[u8],
    what: &str,
) {
    let word = |bytes: &[u8], at: usize| i64::from(i32::from_le_bytes(bytes[at..][..4].try_into().unwrap()));
    let code = image.linked_bytes(Segment::Code).unwrap();
    // The image's code begins on the page of the base it was given; its only stub is the last thing in it.
    let stub_offset = code.len() - 8;
    let stub = case.place.next_multiple_of(4096) + stub_offset as u64;
    let place = case.place + case.offset as u64;
    let target = place.wrapping_add_signed(word(bytes, case.offset)).wrapping_add_signed(-case.addend);
    assert_eq!(target, stub, "{what}");
    assert_eq!(code[stub_offset..][..2], [0xff, 0x25], "{what}");
    let slot = (stub + 6).wrapping_add_signed(word(code, stub_offset + 2));
    assert_eq!(slot, linked.sections[".got"].0, "{what}");
    assert_eq!(image.linked_bytes(Segment::ReadOnly).unwrap(), case.symbol.to_le_bytes(), "{what}");
}
