//! Whole objects of real compilers: every section's bytes are what `lld-link` makes of them.
//!
//! The linker goes first and our loader follows its map: sections, GOT entries of imports, common symbols and externals
//! are where the linker had them. Externals are absolute symbols of a second object.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::sync::Arc;

use objcache_loader::{Archive, FixedMemory, InputObject, Loader, NoSymbols, Placement, Segment, from_fn};
use object::LittleEndian as LE;
use object::pe;
use object::pod;

use crate::lld::{self, Linked};
use crate::support::coff;
use crate::support::*;

const BASE: u64 = 0x1000_0000;

/// A compiler with the target it is asked for, and what it makes.
struct Target {
    compiler: &'static str,
    cpp: &'static str,
    triple: &'static str,
    machine: u16,
}

const TARGETS: [Target; 7] = [
    Target { compiler: CLANG, cpp: CLANGXX, triple: "x86_64-pc-windows-msvc", machine: coff::X86_64 },
    Target { compiler: CLANG, cpp: CLANGXX, triple: "x86_64-pc-windows-gnu", machine: coff::X86_64 },
    Target { compiler: CLANG, cpp: CLANGXX, triple: "aarch64-pc-windows-msvc", machine: coff::ARM64 },
    Target { compiler: CLANG, cpp: CLANGXX, triple: "i686-pc-windows-msvc", machine: coff::I386 },
    Target { compiler: CLANG, cpp: CLANGXX, triple: "i686-pc-windows-gnu", machine: coff::I386 },
    Target { compiler: "x86_64-w64-mingw32-gcc", cpp: MINGW64, triple: "", machine: coff::X86_64 },
    Target { compiler: "i686-w64-mingw32-gcc", cpp: MINGW32, triple: "", machine: coff::I386 },
];

/// The machines that the loader has.
const MACHINES: [u16; 3] = [coff::X86_64, coff::I386, coff::ARM64];

/// Flags that make a difference to the object.
const VARIANTS: [&[&str]; 4] =
    [&["-O0"], &["-O2"], &["-Os", "-ffunction-sections", "-fdata-sections"], &["-O2", "-g"]];

/// The linker puts common symbols behind the data, which here ends where any of them could begin.
const COMMONS: &str = "
#ifdef __MINGW32__ // which has a directive for it
    __attribute__((aligned(64)))
#endif
    int five;
    int one; char two; long long three[5]; char four[3]; short six;
    __attribute__((aligned(64))) int data[16] = {1};
    int *const all[] = {&one, (int *)&two, (int *)three, (int *)four, &five, (int *)&six};
    int use(int x) { return one + two + three[x] + four[x] + five + six + data[x] + *all[x]; }";

#[test]
fn whole_objects_are_linked_as_lld_does() {
    if !has(LLD_LINK) {
        return;
    }
    let mut totals = Totals::default();
    for target in TARGETS.iter().filter(|target| MACHINES.contains(&target.machine)) {
        if !has(target.compiler) || !has(target.cpp) {
            continue;
        }
        for variant in VARIANTS {
            for source in ["windows.c", "windows.cpp"] {
                let cpp = source.ends_with("pp");
                let mut flags = variant.to_vec();
                flags.push("-w");
                let triple = format!("--target={}", target.triple);
                if !target.triple.is_empty() {
                    flags.push(&triple);
                }
                // On i386 gcc raises by DWARF and clang by tables of its own; both are only data here.
                if cpp {
                    flags.extend(["-DTHROWS", "-fexceptions"]);
                    if target.triple.ends_with("msvc") {
                        flags.push("-fcxx-exceptions");
                    }
                }
                let object =
                    compile(if cpp { target.cpp } else { target.compiler }, &flags, &fixture(source));
                compare(
                    &object,
                    target.machine,
                    &format!("{} {flags:?} {source}", target.compiler),
                    &mut totals,
                );
            }
        }
    }
    for (name, machine) in [
        ("cranelift/coff-x86_64", coff::X86_64),
        ("cranelift/coff-x86_64-gnu", coff::X86_64),
        ("rust/coff-x86_64", coff::X86_64),
        ("rust/coff-x86_64-gnu", coff::X86_64),
        ("rust/coff-i386", coff::I386),
        ("rust/coff-aarch64", coff::ARM64),
    ] {
        let object = std::fs::read(fixture(&format!("{name}.o"))).unwrap();
        compare(&object, machine, name, &mut totals);
    }
    for target in TARGETS.iter().filter(|target| MACHINES.contains(&target.machine) && has(target.compiler)) {
        let triple = format!("--target={}", target.triple);
        let flags = ["-O1", "-fcommon", if target.triple.is_empty() { "-w" } else { &triple }];
        let object = compile_text(target.compiler, &flags, "c", COMMONS);
        compare(&object, target.machine, &format!("{} {flags:?} commons", target.compiler), &mut totals);
    }
    totals.print();
    assert!(totals.objects >= 20 && totals.sections > totals.objects * 8);
}

/// A compiler's own libraries, some members of each: the last code that we would have thought of.
#[test]
fn members_of_libraries_are_linked_as_lld_does() {
    if !has(LLD_LINK) {
        return;
    }
    let mut totals = Totals::default();
    for (compiler, machine) in
        [("x86_64-w64-mingw32-gcc", coff::X86_64), ("i686-w64-mingw32-gcc", coff::I386)]
    {
        if !has(compiler) {
            continue;
        }
        for (library, stride) in [("libgcc.a", 20), ("libmingwex.a", 60), ("libstdc++.a", 25)] {
            let path = Command::new(compiler).arg(format!("-print-file-name={library}")).output().unwrap();
            let bytes = std::fs::read(String::from_utf8(path.stdout).unwrap().trim()).unwrap();
            for member in Archive::parse(&bytes).unwrap().members().step_by(stride) {
                compare(
                    member.bytes(),
                    machine,
                    &format!("{compiler} {library} {}", member.name()),
                    &mut totals,
                );
            }
        }
    }
    totals.print();
}

#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) objects: usize,
    sections: usize,
    slots: usize,
    kinds: BTreeMap<(u16, u16), usize>,
}

impl Totals {
    pub(crate) fn print(&self) {
        let relocations: usize = self.kinds.values().sum();
        let Totals { objects, sections, slots, kinds } = self;
        eprintln!(
            "{objects} objects, {sections} sections, {slots} GOT entries, {relocations} relocations, all equal"
        );
        eprintln!("by machine and kind: {kinds:x?}");
    }
}

/// What of an object the test itself has to know.
struct Parsed {
    /// Undefined names; weak ones with a default apart.
    undefined: Vec<String>,
    weak: Vec<String>,
    defined: Vec<String>,
    commons: Vec<String>,
    /// Names by section number, from 1, and the kinds of relocations.
    sections: Vec<(String, Vec<u16>)>,
    /// Section numbers in the order in which the linker takes them in.
    order: Vec<usize>,
}

impl Parsed {
    /// GNU tools leave it to the linker to find out which function unwind tables belong to.
    fn flags(&self) -> &'static [&'static str] {
        let gnu =
            |name: &String| [".xdata$", ".pdata$", ".eh_frame"].iter().any(|stem| name.starts_with(stem));
        let gnu = self.sections.iter().any(|(name, _)| gnu(name));
        if gnu { &["/lldmingw", "/auto-import:no"] } else { &[] }
    }
}

/// Reads an ordinary object: only the compiler's, so this may trust it.
fn parse(object: &[u8]) -> Parsed {
    let (header, _) = pod::from_bytes::<pe::ImageFileHeader>(object).unwrap();
    let count = usize::from(header.number_of_sections.get(LE));
    let (sections, _) = pod::slice_from_bytes::<pe::ImageSectionHeader>(&object[20..], count).unwrap();
    let at = header.pointer_to_symbol_table.get(LE) as usize;
    let count = header.number_of_symbols.get(LE) as usize;
    let (symbols, strings) = pod::slice_from_bytes::<pe::ImageSymbol>(&object[at..], count).unwrap();
    let string = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    };
    let mut parsed = Parsed {
        undefined: vec![],
        weak: vec![],
        defined: vec![],
        commons: vec![],
        sections: vec![],
        order: vec![],
    };
    let mut number = 0;
    while let Some(symbol) = symbols.get(number) {
        let name = match symbol.name {
            [0, 0, 0, 0, offset @ ..] => string(&strings[u32::from_le_bytes(offset) as usize..]),
            short => string(&short),
        };
        let list = match (symbol.storage_class.0, symbol.section_number.get(LE)) {
            (coff::WEAK, _) => Some(&mut parsed.weak),
            (coff::EXTERNAL, 0) if symbol.value.get(LE) != 0 => Some(&mut parsed.commons),
            (coff::EXTERNAL, 0) => Some(&mut parsed.undefined),
            (coff::EXTERNAL, _) => Some(&mut parsed.defined),
            _ => None,
        };
        list.into_iter().for_each(|list| list.push(name.clone()));
        number += 1 + usize::from(symbol.number_of_aux_symbols);
    }
    for section in sections {
        let name = match section.name {
            [b'/', digits @ ..] => string(&strings[string(&digits).parse::<usize>().unwrap()..]),
            short => string(&short),
        };
        let at = section.pointer_to_relocations.get(LE) as usize;
        let count = usize::from(section.number_of_relocations.get(LE));
        let (relocations, _) = pod::slice_from_bytes::<pe::ImageRelocation>(&object[at..], count).unwrap();
        parsed.sections.push((name, relocations.iter().map(|relocation| relocation.typ.get(LE).0).collect()));
    }
    parsed.order = order(sections, symbols);
    parsed
}

/// The kinds of relocations in the code and data of an object, without what only unwinders and debuggers look at.
pub(crate) fn used_kinds(object: &[u8]) -> Vec<u16> {
    const UNUSED: [&str; 4] = [".debug", ".llvm", ".pdata", ".xdata"];
    let sections = parse(object).sections;
    let used = sections.into_iter().filter(|(name, _)| !UNUSED.iter().any(|unused| name.starts_with(unused)));
    used.flat_map(|(_, kinds)| kinds).collect()
}

/// The linker takes in COMDAT sections when it comes to their second symbol, and those that are associated with others in
/// the end. It writes sections of one name in that order.
fn order(sections: &[pe::ImageSectionHeader], symbols: &[pe::ImageSymbol]) -> Vec<usize> {
    let is_comdat = |number: usize| sections[number - 1].characteristics.get(LE).0 & coff::COMDAT != 0;
    let mut order: Vec<usize> = (1..=sections.len()).filter(|number| !is_comdat(*number)).collect();
    let mut defined = vec![false; sections.len() + 1];
    let mut pending = Vec::new();
    let mut number = 0;
    while let Some(symbol) = symbols.get(number) {
        let section = usize::from(symbol.section_number.get(LE));
        if section != 0 && section <= sections.len() && !order.contains(&section) {
            if defined[section] {
                order.push(section);
            } else if symbol.storage_class.0 == coff::STATIC && symbol.number_of_aux_symbols != 0 {
                let record = pod::bytes_of(&symbols[number + 1]);
                match record[14] {
                    coff::ASSOCIATIVE => pending.push(section),
                    _ => defined[section] = true,
                }
            }
        }
        number += 1 + usize::from(symbol.number_of_aux_symbols);
    }
    order.extend(pending);
    // GNU tools' unwind tables have no second symbol.
    order.extend(
        (1..=sections.len()).filter(|number| defined[*number] && !order.contains(number)).collect::<Vec<_>>(),
    );
    order
}

/// Links an object with both and compares.
pub(crate) fn compare(object: &[u8], machine: u16, what: &str, totals: &mut Totals) {
    let parsed = parse(object);
    let mut externals = BTreeMap::new();
    for (number, name) in parsed.undefined.iter().enumerate() {
        let name = name.strip_prefix("__imp_").unwrap_or(name);
        if !parsed.defined.iter().chain(&parsed.weak).any(|other| other == name)
            && !name.contains("ImageBase")
        {
            externals.insert(name.to_owned(), BASE + 0x0100_0000 + 0x110 * number as u64);
        }
    }
    compare_with(object, machine, &externals, &parsed, what, totals);
    // A definition elsewhere wins over a weak one: both linkers get the second object.
    let mut overriding = externals.clone();
    overriding.extend(
        parsed.weak.iter().zip(1..).map(|(name, number)| (name.clone(), BASE + 0x0080_0000 + number * 0x220)),
    );
    if overriding.len() > externals.len() {
        compare_with(object, machine, &overriding, &parsed, what, totals);
    }
}

fn compare_with(
    object: &[u8],
    machine: u16,
    externals: &BTreeMap<String, u64>,
    parsed: &Parsed,
    what: &str,
    totals: &mut Totals,
) {
    let others = lld::externals(machine, externals);
    let linked = lld::link(machine, BASE, &[object, &others], parsed.flags());
    assert!(!linked.image.is_empty(), "{what}: {}", linked.messages);
    let follow = Follow::of(&linked, parsed);
    let log = Arc::new(Sections::default());
    let memory = FixedMemory::placed(BASE, follow.clone());
    let loader = Loader::builder().memory(Arc::new(memory)).listener(log.clone()).build();
    // A pointer to an import is where the linker made it.
    let pointers: BTreeMap<_, _> = follow.slots.iter().cloned().collect();
    let image = if parsed.weak.iter().any(|name| externals.contains_key(name)) {
        let [one, other] =
            [("one", object), ("others", &others)].map(|(name, bytes)| InputObject { name, bytes });
        let pointer = from_fn(|name| pointers.get(name).copied());
        loader.load_all(&[one, other], &pointer).map(|(image, _)| image)
    } else {
        loader.load(object, &from_fn(|name| pointers.get(name).or(externals.get(name)).copied()))
    };
    let image = image.unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut unwind = [Vec::new(), Vec::new()];
    for section in log.0.lock().iter() {
        let LoggedSection { name, segment, offset, size, .. } = &section.what;
        let ours = &image.linked_bytes(*segment).unwrap()[*offset..][..*size];
        let Some((address, theirs_size)) = follow.rows[section.number] else {
            // The linker forgets unwind tables that have lost their symbol.
            let lost = !parsed.order.contains(&section.number);
            assert!(*size == 0 || lost, "{what}: {name} is not in the linker's map");
            continue;
        };
        assert_eq!(theirs_size, *size as u64, "{what}: {name}");
        let theirs =
            linked.bytes(address, *size).unwrap_or_else(|| panic!("{what}: {name} is not in the file"));
        // The linker sorts this table by function.
        if name.starts_with(".pdata") {
            unwind[0].extend(ours.to_vec());
            unwind[1].extend(theirs.to_vec());
        } else if ours != theirs {
            let at = ours.iter().zip(theirs).position(|(ours, theirs)| ours != theirs).unwrap();
            let [ours, theirs] = [ours, theirs].map(|bytes| &bytes[at & !7..bytes.len().min(at + 8)]);
            panic!(
                "{what}: {name} (section {}) at {address:#x}+{at:#x}: {ours:02x?}, not {theirs:02x?}",
                section.number
            );
        }
        totals.sections += 1;
        for kind in &parsed.sections[section.number - 1].1 {
            *totals.kinds.entry((machine, *kind)).or_default() += 1;
        }
    }
    let entry = if machine == coff::ARM64 { 8 } else { 12 };
    let [ours, theirs] = unwind.map(|bytes| {
        let mut entries: Vec<_> = bytes.chunks(entry).map(<[u8]>::to_vec).collect();
        entries.sort();
        entries
    });
    let different = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
    assert!(different.is_none() && ours.len() == theirs.len(), "{what}: .pdata: {different:02x?}");
    totals.slots += compare_slots(object, &others, &linked, &follow.slots, what);
    totals.objects += 1;
}

/// Where the linker put what the first object has.
#[derive(Clone)]
struct Follow {
    /// By section number.
    rows: Vec<Option<(u64, u64)>>,
    slots: Vec<(String, u64)>,
    commons: Option<u64>,
}

impl Follow {
    fn of(linked: &Linked, parsed: &Parsed) -> Self {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut rows = vec![None; parsed.sections.len() + 1];
        for number in &parsed.order {
            let name = &parsed.sections[number - 1].0;
            let before = seen.entry(name).or_default();
            // Of such a table with a symbol in it the linker writes two copies, and uses the second.
            let copies = if name.starts_with(".xdata$") { linked.row(name, *before + 1) } else { None };
            rows[*number] = copies.or_else(|| linked.row(name, *before));
            *before += 1;
        }
        let imports = parsed.undefined.iter().filter(|name| name.starts_with("__imp_"));
        let slots = imports.filter_map(|name| Some((name.clone(), *linked.publics.get(name)?))).collect();
        let commons = parsed.commons.iter().filter_map(|name| linked.publics.get(name)).min().copied();
        Follow { rows, slots, commons }
    }
}

/// The pointers to imports that the loader makes itself hold what the linker's hold. The linker has them in no order that
/// could be followed.
fn compare_slots(
    object: &[u8],
    others: &[u8],
    linked: &Linked,
    slots: &[(String, u64)],
    what: &str,
) -> usize {
    let loader = Loader::builder().memory(Arc::new(FixedMemory::at(BASE))).build();
    let [one, other] = [("one", object), ("others", others)].map(|(name, bytes)| InputObject { name, bytes });
    let (image, map) =
        loader.load_all(&[one, other], &NoSymbols).unwrap_or_else(|error| panic!("{what}: {error}"));
    let read_only = image.linked_bytes(Segment::ReadOnly).unwrap();
    let constants = map.files[0].sections.iter().find(|section| section.segment == Segment::ReadOnly);
    // Without any the entries come first.
    let first = map.files.iter().flat_map(|file| &file.got).map(|slot| slot.address).min().unwrap_or(0);
    let base = constants.map_or(first, |section| section.address - section.offset as u64);
    let mut compared = 0;
    for file in &map.files {
        for slot in file.got.iter().filter(|slot| slot.target.starts_with("__imp_")) {
            let (_, theirs) = slots.iter().find(|(name, _)| *name == slot.target).unwrap();
            let width = slot.size as usize;
            let ours = &read_only[(slot.address - base) as usize..][..width];
            assert_eq!(linked.bytes(*theirs, width), Some(ours), "{what}: {}", slot.target);
            compared += 1;
        }
    }
    assert_eq!(compared, slots.len(), "{what}");
    compared
}

impl Placement for Follow {
    fn place(&self, file: usize, section: &[u8], number: usize) -> Option<u64> {
        match section {
            _ if file != 0 => None,
            // Aligned for any of them, as ours are.
            b"COMMON" => self.commons.map(|commons| commons & !63),
            _ => self.rows.get(number).copied().flatten().map(|(address, _)| address),
        }
    }
}

/// Keeps what a listener was told of the first object's sections.
#[derive(Default)]
pub(crate) struct Sections(parking_lot::Mutex<Vec<NumberedSection>>);

struct NumberedSection {
    number: usize,
    what: LoggedSection,
}

impl objcache_loader::EventListener for Sections {
    fn notify_loaded(&self, loaded: &objcache_loader::LoadedObject<'_>) {
        let mut log = self.0.lock();
        if log.is_empty() {
            *log = loaded
                .sections()
                .map(|section| NumberedSection {
                    number: section.number,
                    what: LoggedSection {
                        name: String::from_utf8_lossy(section.name).into_owned(),
                        segment: section.segment,
                        offset: section.offset as usize,
                        address: section.address,
                        size: section.size as usize,
                    },
                })
                .collect();
        }
    }

    fn notify_freeing(&self, _image: objcache_loader::ImageId) {}
}
