//! One relocation, everything about it chosen at random, at the edges of its range above all: the loader accepts it when
//! `ld64.lld` does, and makes the same bytes of it.
//!
//! The linker does a thousand at a time, each in 32 bytes of its own of one section; what it refuses is left out in a
//! second run. The loader is given each alone, where the linker put it. Targets are absolute symbols, so that they can be
//! anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use objcache_loader::{FixedMemory, LoadError, Loader, Segment, from_fn};

use crate::lld::{self, LD64, Linked};
use crate::support::macho::{self, ARM64, Object, Relocation, X86_64};
use crate::support::*;
use crate::whole;

/// Bytes of a case.
const CELL: usize = 32;
const CASES: usize = 1000;
/// Where the section of data is in the object.
const DATA: u64 = 0x10_0000;
const DATA_SIZE: usize = 64;
/// Where the stubs go, from the place.
const STUBS: u64 = 0x10_0000;

/// What a relocation refers to.
#[derive(Clone, Copy, PartialEq)]
enum To {
    Absolute,
    /// The section of data, by a symbol of none.
    Data,
    /// A symbol that nobody defines, through the GOT.
    Slot,
}

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    /// Offsets count from the case.
    relocations: Vec<Relocation>,
    to: To,
    target: u64,
    subtrahend: u64,
}

/// Numbers of the symbols of a case: its target and what is subtracted, if there is anything.
impl Case {
    fn add_to(&self, object: &mut Object, section: usize, offset: u32, suffix: &str) {
        let absolute = macho::EXTERNAL | macho::ABSOLUTE;
        let number = match self.to {
            To::Absolute => object.symbol(&format!("_s{suffix}"), absolute, 0, self.target),
            To::Data => 2,
            To::Slot => object.symbol("_slot", macho::EXTERNAL, 0, 0),
        };
        let has_subtrahend = self.name.starts_with("SUBTRACTOR");
        let subtrahend = match has_subtrahend {
            true => object.symbol(&format!("_m{suffix}"), absolute, 0, self.subtrahend),
            false => 0,
        };
        for (index, relocation) in self.relocations.iter().enumerate() {
            let is_first_of_two = self.relocations.len() == 2 && index == 0;
            let mut relocation = *relocation;
            relocation.offset += offset;
            if is_first_of_two && has_subtrahend {
                relocation.number = subtrahend;
            } else if !is_first_of_two {
                relocation.number = number;
            }
            object.sections[section].relocations.push(relocation);
        }
    }
}

/// A value at, before or behind a limit of a field, inside of it, or far away.
fn edge(bits: u32, random: &mut Random) -> i64 {
    let half = 1i64 << (bits - 1);
    let limits = [
        half - 1,
        half,
        -half,
        -half - 1,
        2 * half - 1,
        2 * half,
        0,
        -1,
        half - 4,
        half + 4,
        -half + 4,
        -half - 4,
    ];
    let inside = random.next() as i64 >> (65 - bits);
    let far = random.next() as i64 >> random.below(30);
    let limit = random.one_of(&limits);
    random.one_of(&[limit, limit, limit, inside, inside, far])
}

fn small(random: &mut Random) -> i64 {
    let far = random.next() as i32;
    random.one_of(&[0, 0, 1, -1, 8, 100, -100, i64::from(far >> 8), i64::from(far)])
}

fn x86_64_case(place: u64, in_object: u64, random: &mut Random) -> Case {
    let kinds: &[(&str, u32, u32, bool)] = &[
        ("UNSIGNED", 0, 3, false),
        ("UNSIGNED", 0, 2, false),
        ("UNSIGNED", 0, 0, false),
        ("SIGNED", 1, 2, true),
        ("SIGNED_1", 6, 2, true),
        ("SIGNED_2", 7, 2, true),
        ("SIGNED_4", 8, 2, true),
        ("BRANCH", 2, 2, true),
        ("BRANCH of a byte", 2, 0, true),
        ("GOT_LOAD", 3, 2, true),
        ("GOT", 4, 2, true),
        ("SUBTRACTOR", 5, 2, false),
        ("SUBTRACTOR", 5, 3, false),
    ];
    let (name, kind, length, relative) = random.one_of(kinds);
    let mut bytes: Vec<u8> = (0..CELL).map(|_| random.next() as u8).collect();
    let offset = 4 + random.below(12) as usize;
    let place = place + offset as u64;
    let mut to = match name {
        "GOT" | "GOT_LOAD" => To::Slot,
        "UNSIGNED" | "SIGNED" | "SIGNED_1" | "SIGNED_2" | "SIGNED_4" | "BRANCH" if random.below(4) == 0 => {
            To::Data
        }
        _ => To::Absolute,
    };
    if length == 0 {
        to = To::Absolute;
    }
    let width = 1usize << length;
    let mut addend = if length == 3 { random.next() as i64 >> random.below(64) } else { small(random) };
    if length == 0 {
        addend = i64::from(addend as i8);
    }
    if to == To::Slot {
        addend = addend as i8 as i64;
    }
    let bits = 8 * width as u32;
    let subtrahend = random.next() >> random.below(40);
    let goal = if bits == 64 { random.next() as i64 } else { edge(bits, random) };
    let target = match (name, relative) {
        ("SUBTRACTOR", _) => subtrahend.wrapping_add_signed(goal),
        (_, true) => place.wrapping_add(1 << length).wrapping_add_signed(goal),
        _ => goal as u64,
    };
    let target = target.wrapping_add_signed(addend.wrapping_neg());
    let field = match to {
        To::Data => {
            let inside = DATA.wrapping_add(random.below(DATA_SIZE as u64 + 1));
            if relative { inside.wrapping_sub(in_object + offset as u64 + 4) as i64 } else { inside as i64 }
        }
        _ => addend,
    };
    bytes[offset..][..width].copy_from_slice(&field.to_le_bytes()[..width]);
    if name.starts_with("SIGNED") {
        bytes[offset - 1] = 0x05; // no opcode of a call or a jump
    }
    if name == "GOT_LOAD" {
        bytes[offset - 3..offset].copy_from_slice(&[0x48, 0x8b, 0x05 | (random.below(8) as u8) << 3]);
    }
    let external = to != To::Data;
    let relocation = Relocation { offset: offset as u32, number: 0, external, kind, length, relative };
    let relocations = match name {
        "SUBTRACTOR" => vec![relocation, Relocation { kind: 0, ..relocation }],
        _ => vec![relocation],
    };
    Case { name, bytes, relocations, to, target, subtrahend }
}

fn arm64_case(place: u64, _in_object: u64, random: &mut Random) -> Case {
    let kinds: &[(&str, u32, u32, bool)] = &[
        ("UNSIGNED", 0, 3, false),
        ("UNSIGNED", 0, 2, false),
        ("SUBTRACTOR", 1, 2, false),
        ("SUBTRACTOR", 1, 3, false),
        ("BRANCH26", 2, 2, true),
        ("PAGE21", 3, 2, true),
        ("PAGEOFF12", 4, 2, false),
        ("PAGEOFF12", 4, 2, false),
        ("GOT_LOAD_PAGE21", 5, 2, true),
        ("GOT_LOAD_PAGEOFF12", 6, 2, false),
        ("POINTER_TO_GOT", 7, 2, true),
    ];
    let (name, kind, length, relative) = random.one_of(kinds);
    let mut bytes: Vec<u8> = (0..CELL).map(|_| random.next() as u8).collect();
    let offset = 4 * random.below(4) as usize;
    let place = place + offset as u64;
    let to = match name {
        "GOT_LOAD_PAGE21" | "GOT_LOAD_PAGEOFF12" | "POINTER_TO_GOT" => To::Slot,
        "UNSIGNED" if random.below(3) == 0 => To::Data,
        _ => To::Absolute,
    };
    let is_data = matches!(name, "UNSIGNED" | "SUBTRACTOR");
    let width = 1usize << length;
    let has_entry = matches!(name, "BRANCH26" | "PAGE21" | "PAGEOFF12") && random.below(2) == 0;
    let addend = match is_data {
        true if length == 3 => random.next() as i64 >> random.below(64),
        true => small(random),
        false if has_entry => random.one_of(&[0, 4, -4, 8, 0x7f_ffff, -0x80_0000, 0x7f_fffc, 16, -48, 1]),
        false => 0,
    };
    let subtrahend = random.next() >> random.below(40);
    let aligned = random.one_of(&[0, 0, 0, 1, 4, 8]);
    let goal = match name {
        "BRANCH26" => (edge(28, random) & !3).wrapping_add(aligned & 1),
        "PAGE21" => edge(33, random),
        "PAGEOFF12" => (random.next() as i64 & !15).wrapping_add(random.one_of(&[0, 0, 0, 8, 4, 2, 1])),
        _ if length == 3 => random.next() as i64,
        _ => edge(32, random),
    };
    let target = match name {
        "SUBTRACTOR" => subtrahend.wrapping_add_signed(goal),
        "BRANCH26" => place.wrapping_add_signed(goal),
        "PAGE21" => (place & !0xfff).wrapping_add_signed(goal),
        _ => goal as u64,
    };
    let target = target.wrapping_add_signed(addend.wrapping_neg());
    let registers = random.next() as u32 & 0x3ff;
    let word = match name {
        "BRANCH26" => random.one_of(&[0x1400_0000, 0x9400_0000]),
        "PAGE21" | "GOT_LOAD_PAGE21" => 0x9000_0000 | registers & 0x1f,
        "GOT_LOAD_PAGEOFF12" => 0xf940_0000 | registers,
        _ => {
            // ADD; LDR and STR of 1 to 8 bytes; LDRSW; LDR and STR of vector registers from 1 to 16 bytes.
            let opcodes = [
                0x9100_0000,
                0x1100_0000,
                0x3940_0000,
                0x3900_0000,
                0x7940_0000,
                0x7900_0000,
                0xb940_0000,
                0xb900_0000,
                0xf940_0000,
                0xf900_0000,
                0xb980_0000,
                0x3d40_0000,
                0x7d40_0000,
                0xbd40_0000,
                0xfd40_0000,
                0x3dc0_0000,
                0x3d80_0000,
            ];
            random.one_of(&opcodes) | registers
        }
    };
    match (is_data, name) {
        (true, _) => {
            let inside = DATA + random.below(DATA_SIZE as u64 + 1);
            let field = if to == To::Data { inside as i64 } else { addend };
            bytes[offset..][..width].copy_from_slice(&field.to_le_bytes()[..width]);
        }
        (false, "POINTER_TO_GOT") => bytes[offset..][..4].fill(0),
        _ => bytes[offset..][..4].copy_from_slice(&u32::to_le_bytes(word)),
    }
    let external = to != To::Data;
    let relocation = Relocation { offset: offset as u32, number: 0, external, kind, length, relative };
    let relocations = match name {
        "SUBTRACTOR" => vec![relocation, Relocation { kind: 0, ..relocation }],
        _ if has_entry => {
            let (number, external, relative) = (addend as u32 & 0xff_ffff, false, false);
            vec![Relocation { kind: 10, number, external, relative, ..relocation }, relocation]
        }
        _ => vec![relocation],
    };
    Case { name, bytes, relocations, to, target, subtrahend }
}

/// An object of all cases, without the relocations of some.
fn object_of(cpu: u32, cases: &[Case], without: &BTreeSet<usize>) -> Vec<u8> {
    let mut object = Object::of(cpu);
    let mut bytes: Vec<u8> = cases.iter().flat_map(|case| case.bytes.clone()).collect();
    // A reference that makes a GOT, so that all runs have the same sections.
    let slot = object.symbol("_slot", macho::EXTERNAL, 0, 0);
    let kind = if cpu == ARM64 { 7 } else { 4 };
    let offset = bytes.len() as u32;
    let reference = Relocation { offset, number: slot, external: true, kind, length: 2, relative: true };
    bytes.extend([0; 4]);
    let section = object.section("__TEXT", "__t", macho::CODE, &bytes);
    section.align = 5;
    section.relocations.push(reference);
    let data = object.section("__DATA", "__d", 0, &[0; DATA_SIZE]);
    (data.address, data.align) = (DATA, 4);
    for (number, case) in cases.iter().enumerate().filter(|(number, _)| !without.contains(number)) {
        case.add_to(&mut object, 0, (number * CELL) as u32, &number.to_string());
    }
    object.build()
}

/// The cases that a message of the linker names.
fn refused(messages: &str) -> BTreeSet<usize> {
    let number = |line: &str| {
        let (_, rest) = line.split_once("(__t+0x").or_else(|| line.split_once("(symbol __t+0x"))?;
        let end = rest.find(')')?;
        Some(usize::from_str_radix(&rest[..end], 16).ok()? / CELL)
    };
    messages.lines().filter(|line| line.contains("error:")).map(|line| number(line).expect(line)).collect()
}

#[test]
fn single_relocations_are_done_as_lld_does() {
    if !has(LD64) {
        return;
    }
    for (cpu, make) in [(X86_64, x86_64_case as fn(u64, u64, &mut Random) -> Case), (ARM64, arm64_case)] {
        let mut random = Random(0x0ddc_0ffe_e0dd_f00d);
        let mut outcomes: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
        for _ in 0..batches() {
            batch(cpu, make, &mut random, &mut outcomes);
        }
        let total = |index: usize| outcomes.values().map(|counts| counts[index]).sum::<usize>();
        eprintln!(
            "{}: {} equal, {} refused by both, {} branches that need a stub, {} let through by lld; {outcomes:?}",
            lld::architecture(cpu),
            total(0),
            total(1),
            total(2),
            total(3)
        );
        assert!(outcomes.values().all(|counts| counts[0] > 20), "{outcomes:?}");
        assert!(total(1) > 100 && total(2) > 10);
        let names = outcomes.keys().filter_map(|name| name.split(' ').next());
        let more = (cpu == ARM64).then_some("ADDEND");
        let seen = names.chain(more).map(|name| whole::kind_name(cpu, name)).collect();
        let machine = if cpu == ARM64 { "aarch64" } else { "x86_64" };
        coverage::keep("compared", "macho", machine, &seen);
    }
}

fn batches() -> usize {
    std::env::var("OBJCACHE_ORACLE_BATCHES").ok().and_then(|count| count.parse().ok()).unwrap_or(4)
}

fn batch(
    cpu: u32,
    make: fn(u64, u64, &mut Random) -> Case,
    random: &mut Random,
    outcomes: &mut BTreeMap<&'static str, [usize; 4]>,
) {
    // Where the section will be depends on nothing but how many symbols there are: a first run tells.
    let empty: Vec<Case> = (0..CASES).map(|_| make(0, 0, &mut Random(1))).collect();
    let all: BTreeSet<usize> = (0..CASES).collect();
    let first = lld::link(cpu, &[&object_of(cpu, &empty, &all)], "first").unwrap();
    let start = first.sections["__TEXT,__t"].0;
    let cases: Vec<Case> = (0..CASES as u64)
        .map(|number| make(start + number * CELL as u64, number * CELL as u64, random))
        .collect();
    let out = match lld::link(cpu, &[&object_of(cpu, &cases, &BTreeSet::new())], "all") {
        Ok(_) => BTreeSet::new(),
        Err(messages) => refused(&messages),
    };
    let linked = lld::link(cpu, &[&object_of(cpu, &cases, &out)], "rest").unwrap();
    assert_eq!(linked.sections["__TEXT,__t"].0, start);
    for (number, case) in cases.iter().enumerate() {
        let outcome = compare(cpu, case, number, &linked, out.contains(&number));
        outcomes.entry(case.name).or_default()[outcome] += 1;
    }
}

/// Loads the case alone. Returns the number of the outcome.
fn compare(cpu: u32, case: &Case, number: usize, linked: &Linked, refused: bool) -> usize {
    let (start, bytes) = &linked.sections["__TEXT,__t"];
    let place = start + (number * CELL) as u64;
    let data = linked.sections["__DATA,__d"].0;
    let got = linked.sections.get("__DATA_CONST,__got").map_or(0, |section| section.0);
    let mut object = Object::of(cpu);
    object.section("__TEXT", "__t", macho::CODE, &case.bytes).address = (number * CELL) as u64;
    object.section("__DATA", "__d", 0, &[0; DATA_SIZE]).address = DATA;
    case.add_to(&mut object, 0, 0, "");
    let stubs = place + STUBS;
    let memory = FixedMemory::placed(0, move |name: &[u8], _| match name {
        b"__TEXT,__t" => Some(place),
        b"__DATA,__d" => Some(data),
        b".got" => Some(got),
        b".plt" => Some(stubs),
        _ => None,
    });
    let loader = Loader::builder().memory(Arc::new(memory)).build();
    let what = format!(
        "case {number}: {} {:?} {:02x?} at {place:#x}, target {:#x}, subtrahend {:#x}",
        case.name, case.relocations, case.bytes, case.target, case.subtrahend
    );
    match loader.load(&object.build(), &from_fn(|_| Some(0x1234_5678))) {
        Ok(image) => {
            let code = image.linked_bytes(Segment::Code).unwrap();
            if refused {
                assert!(
                    matches!(case.name, "BRANCH" | "BRANCH26"),
                    "{what}: lld refuses, the loader does not"
                );
                assert_goes_to(cpu, case, place, &code[..CELL], stubs, &what);
                return 2;
            }
            assert_eq!(code[..CELL], bytes[number * CELL..][..CELL], "{what}");
            0
        }
        Err(LoadError::Fixup(_)) if refused => 1,
        Err(LoadError::Fixup(_)) if is_let_through(case, place) => 3,
        Err(error) => panic!("{what}: lld accepts, the loader says {error}"),
    }
}

/// Where `ld64.lld` 22 lets through what cannot be: it checks ADRP's distance against 35 bits, of which the instruction has
/// 33, and a branch's not at all for being a multiple of four. Both go elsewhere then.
fn is_let_through(case: &Case, place: u64) -> bool {
    let entry = case.relocations.iter().find(|relocation| relocation.kind == 10 && !relocation.external);
    let addend = entry.map_or(0, |entry| i64::from((entry.number << 8) as i32 >> 8));
    let target = case.target.wrapping_add_signed(addend);
    let place = place + u64::from(case.relocations[0].offset);
    let pages = (target & !0xfff).wrapping_sub(place & !0xfff) as i64;
    match case.name {
        "PAGE21" => !(-1 << 32..1 << 32).contains(&pages),
        "BRANCH26" => target & 3 != 0,
        _ => false,
    }
}

/// The branch leads to an address.
fn assert_goes_to(cpu: u32, case: &Case, place: u64, bytes: &[u8], target: u64, what: &str) {
    let offset = case.relocations[0].offset as usize;
    let word = i32::from_le_bytes(bytes[offset..][..4].try_into().unwrap());
    let place = place + offset as u64;
    let addend = i32::from_le_bytes(case.bytes[offset..][..4].try_into().unwrap());
    let found = match cpu {
        ARM64 => place.wrapping_add_signed(i64::from(word << 6 >> 4)),
        // The addend counts from the stub.
        _ => place.wrapping_add(4).wrapping_add_signed(word.into()).wrapping_add_signed(-i64::from(addend)),
    };
    assert_eq!(found, target, "{what}");
}

/// Every combination of type, length and flags but for pairs, and thread-local storage, which is not done.
#[test]
fn combinations_are_accepted_as_lld_does() {
    if !has(LD64) {
        return;
    }
    // An absolute pointer to a GOT entry, which `ld64` does.
    const MORE: (u32, u32, u32) = (ARM64, 7, 3);
    let mut accepted = 0;
    for (cpu, kinds) in [(X86_64, [0, 1, 2, 3, 4, 6, 7, 8]), (ARM64, [0, 2, 3, 4, 5, 6, 7, 7])] {
        for kind in kinds {
            let all = (0..16u32).map(|bits| Relocation {
                offset: 16,
                number: if bits & 8 != 0 { 0 } else { 2 },
                external: bits & 8 != 0,
                kind,
                length: bits & 3,
                relative: bits & 4 != 0,
            });
            let mut object = combination(cpu, &[0; 32]);
            let mut bytes = vec![0; 32 * 16];
            for (number, relocation) in all.clone().enumerate() {
                let offset = relocation.offset + 32 * number as u32;
                bytes[offset as usize - 3..offset as usize].copy_from_slice(&[0x48, 0x8b, 0x05]);
                object.sections[0].relocations.push(Relocation { offset, ..relocation });
            }
            object.sections[0].bytes = bytes;
            let messages = lld::link(cpu, &[&object.build()], "combinations").err().unwrap_or_default();
            for (number, relocation) in all.enumerate() {
                let place = format!("at offset {} of __TEXT,__t", 16 + 32 * number);
                let refused = messages.lines().any(|line| line.contains(&place));
                let mut object = combination(cpu, &[0; 32]);
                object.sections[0].relocations.push(relocation);
                let loader = Loader::builder().memory(Arc::new(FixedMemory::at(0))).build();
                let ours = loader.load(&object.build(), &from_fn(|_| Some(0x40)));
                let more =
                    (cpu, kind, relocation.length) == MORE && relocation.external && !relocation.relative;
                assert_eq!(ours.is_err(), refused && !more, "{cpu:#x} {relocation:?}: {:?}", ours.err());
                accepted += usize::from(!refused);
            }
        }
    }
    assert_eq!(accepted, 20 + 11);
}

fn combination(cpu: u32, bytes: &[u8]) -> Object {
    let mut object = Object::of(cpu);
    object.section("__TEXT", "__t", macho::CODE, bytes).align = 5;
    object.section("__DATA", "__d", 0, &[0; DATA_SIZE]).address = 0x1000;
    object.symbol("_near", macho::EXTERNAL | macho::ABSOLUTE, 0, 0x40);
    object
}
