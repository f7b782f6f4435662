//! Whole objects of real compilers. The linker goes first, with a script that puts every section at a random address with
//! random gaps; the loader then places sections, GOT and external symbols where the linker had them. Then every section's
//! bytes are the same, and so is the GOT.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

use objcache_loader::{FixedMemory, InputObject, LinkMap, LoadedImage, Loader, Segment, from_fn};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags, RelocationTarget, SymbolIndex,
};

use crate::corpus::{self, Model, TOOLCHAINS};
use crate::lld::{self, LinkedFile};
use crate::machine::Machine;
use crate::support::{LLD, Random, has};
use crate::{exidx, frames};

/// Names that linkers define.
const OF_LINKERS: [&str; 3] = ["_GLOBAL_OFFSET_TABLE_", ".TOC.", "_TLS_MODULE_BASE_"];

#[derive(Default)]
struct Counts {
    objects: usize,
    links: usize,
    sections: usize,
    /// Functions in unwind tables.
    functions: usize,
    /// By number.
    relocations: BTreeMap<u32, usize>,
}

/// Links every object of a machine's compilers both ways.
pub fn compare(machine: &'static Machine) {
    if !has(LLD) {
        return;
    }
    let mut random = Random(machine.name.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte)));
    let mut counts = Counts::default();
    let toolchains = TOOLCHAINS.iter().filter(|toolchain| toolchain.machine == machine.name);
    let mut check = |what: &str, model: &Model, object: &[u8]| {
        counts.objects += 1;
        count_relocations(object, &mut counts);
        for relax in [false, false, true] {
            if !relax || machine.relaxes {
                counts.add(compare_objects(machine, what, model, &[object], relax, &mut random));
            }
        }
    };
    for toolchain in toolchains {
        corpus::each(toolchain, &mut check);
    }
    corpus::each_of_cranelift(machine.name, &mut check);
    corpus::each_of_rust_elsewhere(machine.name, &mut check);
    corpus::each_of_yours(machine.name, &mut check);
    if machine.is_host() {
        corpus::each_of_rust(&mut check);
    }
    counts.check(machine);
}

/// What of a link was compared.
pub struct Compared {
    pub sections: usize,
    pub functions: usize,
    /// What the loader says of it.
    pub map: LinkMap,
    /// The linker made no GOT entry.
    pub without_got: bool,
}

impl Counts {
    fn add(&mut self, compared: Compared) {
        self.links += 1;
        self.sections += compared.sections;
        self.functions += compared.functions;
    }

    /// Every kind that compilers emit has its generated cases.
    fn check(&self, machine: &Machine) {
        let Counts { objects, links, sections, functions, relocations } = self;
        let total: usize = relocations.values().sum();
        eprintln!(
            "{}: {objects} objects, {links} links, {sections} sections and {functions} unwinding functions compared, {total} relocations of {} kinds",
            machine.name,
            relocations.len()
        );
        let known: BTreeSet<u32> = machine.numbers().map(|(number, _)| number).collect();
        let missing: Vec<_> = relocations.keys().filter(|number| !known.contains(number)).collect();
        assert!(
            missing.is_empty(),
            "{}: compilers emit relocation kinds that the table lacks: {missing:?}",
            machine.name
        );
        for (number, name) in machine.whole_only {
            let seen = *objects == 0 || relocations.contains_key(number);
            assert!(seen, "{}: no object has {name}", machine.name);
        }
        assert!(*objects == 0 || *sections >= links * 3 && functions > links);
    }
}

fn count_relocations(object: &[u8], counts: &mut Counts) {
    let file = object::File::parse(object).unwrap();
    for section in file.sections().filter(lld::is_allocated) {
        for (_, relocation) in section.relocations() {
            if let RelocationFlags::Elf { r_type } = relocation.flags() {
                *counts.relocations.entry(r_type.0).or_default() += 1;
            }
        }
    }
}

/// Links objects whose sections have names of their own, except for empty ones. `relax`: both linkers make accesses
/// through the GOT direct ones.
pub fn compare_objects(
    machine: &Machine,
    what: &str,
    model: &Model,
    objects: &[&[u8]],
    relax: bool,
    random: &mut Random,
) -> Compared {
    let what = if relax { &format!("{what}, relaxed") } else { what };
    let base = if model.is_low || machine.target.class == 32 {
        0x20_0000
    } else {
        0x10_0000_0000 + (random.below(1 << 40) & !0xfff)
    };
    let plan = Plan::new(objects, base, model.is_tiny, random);
    let linked = lld::link(objects, &plan.script, relax, &format!("whole-{}", machine.name));
    assert_eq!(linked.complaints(machine).next(), None, "{what}");
    let (image, map) = load_like(machine, &linked, objects, base, &plan.externals, relax, what);
    let ours = bytes_by_section(&image, &map, objects.len());
    let mut compared = 0;
    for (object, name, bytes) in &ours {
        let object = objects[*object];
        let is_rewritten = name == ".eh_frame" || name.starts_with(".ARM.exidx");
        if bytes.is_empty() || is_rewritten {
            continue;
        }
        let mut theirs = linked.sections[name].1.clone();
        let mut bytes = bytes.clone();
        (machine.mask)(object, name, [&mut theirs, &mut bytes]);
        if relax {
            (machine.relaxed_mask)(object, name, [&mut theirs, &mut bytes]);
        }
        if let Some(at) = (0..bytes.len()).find(|at| theirs.get(*at) != bytes.get(*at)) {
            let start = at & !7;
            let window = |bytes: &[u8]| bytes[start.min(bytes.len())..(start + 16).min(bytes.len())].to_vec();
            panic!(
                "{what}: {name} of {} (lld: {}) bytes differs at {at:#x}: lld {:02x?}, we {:02x?}",
                bytes.len(),
                theirs.len(),
                window(&theirs),
                window(&bytes)
            );
        }
        assert_eq!(theirs.len(), bytes.len(), "{what}: {name}");
        compared += 1;
    }
    let functions =
        frames::compare(machine, &image, &map, &linked, what) + exidx::compare(&image, &map, &linked, what);
    let got = linked.sections.get(".got").map_or(&[][..], |(_, got)| got);
    let got = &got[(machine.got_header as usize * machine.target.word()).min(got.len())..];
    if !relax {
        let read_only = image.linked_bytes(Segment::ReadOnly).unwrap();
        let found = got.is_empty() || read_only.windows(got.len()).any(|window| window == got);
        assert!(found, "{what}: the GOT differs: lld {got:02x?}");
    }
    Compared { sections: compared, functions, without_got: got.is_empty(), map }
}

/// Blanks the four bytes at each place of a section whose relocation is of one of these kinds: all, or those against
/// symbols that the object does not define.
pub fn blank(object: &[u8], section: &str, sections: [&mut Vec<u8>; 2], kinds: &[u32], only_undefined: bool) {
    let file = object::File::parse(object).unwrap();
    let relocations = file.section_by_name(section).into_iter().flat_map(|section| section.relocations());
    let is_meant = |relocation: &object::Relocation| {
        let RelocationFlags::Elf { r_type } = relocation.flags() else { return false };
        let RelocationTarget::Symbol(symbol) = relocation.target() else { return false };
        let symbol = file.symbol_by_index(symbol).unwrap();
        kinds.contains(&r_type.0) && (!only_undefined || symbol.is_undefined())
    };
    let places =
        relocations.filter(|(_, relocation)| is_meant(relocation)).map(|(offset, _)| offset as usize);
    let places: Vec<usize> = places.collect();
    for bytes in sections {
        for place in &places {
            bytes[*place..place + 4].fill(0);
        }
    }
}

/// The position of a section in the thread-local block.
fn thread_part(section: &str) -> Option<usize> {
    [".tdata", ".tbss"].iter().position(|part| section.starts_with(part))
}

/// Where the linker is told to put things.
struct Plan {
    script: String,
    externals: BTreeMap<String, u64>,
}

impl Plan {
    /// Every section of the objects at an address of its own, in random order.
    fn new(objects: &[&[u8]], base: u64, is_tiny: bool, random: &mut Random) -> Self {
        let (gap, reach) = if is_tiny { (500, 0x4_0000) } else { (40_000, 0x80_0000) };
        let files: Vec<_> = objects.iter().map(|object| object::File::parse(*object).unwrap()).collect();
        let mut sections: Vec<(String, u64, u64)> = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let of_file = file
                .sections()
                .filter(lld::is_allocated)
                .filter(|section| number == 0 || section.size() != 0)
                .map(|section| (section.name().unwrap().to_owned(), section.align().max(1), section.size()))
                .filter(|(name, ..)| !name.starts_with(".note"));
            sections.extend(of_file);
        }
        let unique: HashSet<_> = sections.iter().map(|(name, ..)| name).collect();
        assert_eq!(unique.len(), sections.len(), "section names must be unique for this");
        for special in ["COMMON", ".got", ".got.plt"] {
            sections.push((special.to_owned(), 64, 8192));
        }
        for last in (1..sections.len()).rev() {
            sections.swap(last, random.below(last as u64 + 1) as usize);
        }
        // PowerPC's small code model has 16 bits from `.TOC.`.
        if let Some(toc) = sections.iter().position(|(name, ..)| name == ".toc") {
            let toc = sections.remove(toc);
            let got = sections.iter().position(|(name, ..)| name == ".got").unwrap();
            sections.insert(got + 1, toc);
        }
        // The parts of the thread-local block stand together, first what has content.
        sections.sort_by_key(|(name, ..)| thread_part(name));
        let mut script = String::from("SECTIONS {\n");
        let mut next = base;
        for (name, align, size) in &sections {
            let gap = match name.as_str() {
                ".toc" => 500,
                name if thread_part(name).is_some() => 1,
                _ => gap,
            };
            next = (next + random.below(gap)).next_multiple_of(*align);
            // lld has an opinion of its own of where the zero part of the block is, and does not align what is given.
            let address = if thread_part(name) == Some(1) { String::new() } else { format!(" {next:#x}") };
            writeln!(script, "\"{name}\"{address} : {{ *({name}) }}").unwrap();
            next += size;
        }
        script += "/DISCARD/ : { *(.comment) *(.note*) }\n";
        // Empty ones of other objects would still align the sections of that name.
        for (number, file) in files.iter().enumerate().skip(1) {
            for section in file.sections().filter(|section| lld::is_allocated(section) && section.size() == 0)
            {
                let name = section.name().unwrap();
                script.insert_str("SECTIONS {\n".len(), &format!("/DISCARD/ : {{ *.{number}.o({name}) }}\n"));
            }
        }
        let defined: HashSet<&str> = files
            .iter()
            .flat_map(|file| file.symbols())
            .filter(|symbol| symbol.is_global() && !symbol.is_undefined())
            .map(|symbol| symbol.name().unwrap())
            .collect();
        let names = files
            .iter()
            .flat_map(|file| file.symbols())
            .filter(|symbol| symbol.is_undefined() && symbol.index() != SymbolIndex(0))
            // From where zero is in reach, weak symbols may stay undefined.
            .filter(|symbol| !symbol.is_weak() || base >> 32 != 0)
            .map(|symbol| symbol.name().unwrap().to_owned())
            .filter(|name| !name.is_empty() && !OF_LINKERS.contains(&name.as_str()))
            .filter(|name| !defined.contains(name.as_str()));
        let externals: BTreeMap<String, u64> = names
            .map(|name| match name.as_str() {
                "__dso_handle" => (name, base), // the loader's own: the image's first byte
                _ => (name, (base + random.below(reach)) & !0xf),
            })
            .collect();
        for (name, address) in &externals {
            writeln!(script, "\"{name}\" = {address:#x};").unwrap();
        }
        Plan { script: script + "}\n", externals }
    }
}

/// Loads objects where the linker put them.
fn load_like(
    machine: &Machine,
    linked: &LinkedFile,
    objects: &[&[u8]],
    base: u64,
    externals: &BTreeMap<String, u64>,
    relax: bool,
    what: &str,
) -> (LoadedImage, LinkMap) {
    let mut addresses: HashMap<Vec<u8>, u64> =
        linked.sections.iter().map(|(name, (address, _))| (name.clone().into_bytes(), *address)).collect();
    if let Some((got, _)) = linked.sections.get(".got") {
        let header = machine.got_header * machine.target.word() as u64;
        addresses.insert(b".got".to_vec(), got + header);
    }
    let (table, bias) = machine.got;
    if let Some((table, _)) = linked.sections.get(table) {
        addresses.insert(b".got.plt".to_vec(), table + bias);
    }
    let memory = FixedMemory::placed(base, move |name: &[u8], _| addresses.get(name).copied());
    let loader = Loader::builder().memory(Arc::new(memory)).relax(relax || machine.always_relaxed).build();
    let resolver = from_fn(|name: &str| externals.get(name).copied());
    let inputs: Vec<_> =
        objects.iter().zip(["object", "other"]).map(|(bytes, name)| InputObject { name, bytes }).collect();
    let loaded = loader.load_all(&inputs, &resolver);
    loaded.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Number of the object, name and bytes. Functions that the loader made are another object's.
fn bytes_by_section(image: &LoadedImage, map: &LinkMap, objects: usize) -> Vec<(usize, String, Vec<u8>)> {
    let sections = map.files.iter().enumerate().take(objects).flat_map(|(number, file)| {
        file.sections.iter().filter(|section| section.number.is_some()).map(move |section| (number, section))
    });
    let bytes = sections.map(|(number, section)| {
        let segment = image.linked_bytes(section.segment).unwrap();
        (number, section.name.clone(), segment[section.offset..][..section.size as usize].to_vec())
    });
    bytes.collect()
}
