//! One relocation a section, everything about it chosen at random, the values at and around the limits of its field:
//! `lld-link` and the loader must do the same.
//!
//! Each section of an object becomes a section of the image, on a page of its own. Symbols are absolute ones of another
//! object, at addresses chosen for the place, or in sections of the same object. The linker goes first, twice: the
//! first time to tell where sections go.
//!
//! What `lld-link` does not check, and we do, is tried apart ([`values_that_do_not_fit_are_refused`]): a relative or absolute
//! value of 32 bits that does not fit wraps round there. It does not know `ABSOLUTE` ([`crate::gnu`]). What it refuses is tried one at a time, since it names no place.

use std::collections::BTreeMap;
use std::sync::Arc;

use objcache_loader::{FixedMemory, LoadError, Loader, Placement, Segment, from_fn};

use crate::kinds;
use crate::lld::{self, Linked};
use crate::support::coff::{self, Object};
use crate::support::*;

/// What a kind's value is made from, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    /// There is no relocation.
    Nothing,
    /// Whatever the kind says.
    Any,
    /// `S + A`, of so many bits.
    Absolute(u32),
    /// `S + A - image`.
    Image,
    /// `S + A - P`, less so many bytes.
    Relative(i64),
    SectionNumber,
    SectionOffset,
    /// `S - P` in words, of so many bits, in an instruction made from this one.
    Branch(u32, u32),
    Adr,
    Adrp,
    /// The low bits of `S + A`, or of the offset in the section.
    Add {
        of_section: bool,
    },
    Load {
        of_section: bool,
    },
    SectionHigh,
}

use Shape::*;

const X86_64: &[(u16, Shape)] = &[
    (1, Absolute(64)),
    (2, Absolute(32)),
    (3, Image),
    (4, Relative(4)),
    (5, Relative(5)),
    (6, Relative(6)),
    (7, Relative(7)),
    (8, Relative(8)),
    (9, Relative(9)),
    (10, SectionNumber),
    (11, SectionOffset),
];

const I386: &[(u16, Shape)] =
    &[(6, Absolute(32)), (7, Image), (10, SectionNumber), (11, SectionOffset), (20, Relative(4))];

const ARM64: &[(u16, Shape)] = &[
    (1, Absolute(32)),
    (2, Image),
    (3, Branch(26, 0x9400_0000)),
    (4, Adrp),
    (5, Adr),
    (6, Add { of_section: false }),
    (7, Load { of_section: false }),
    (8, SectionOffset),
    (9, Add { of_section: true }),
    (10, SectionHigh),
    (11, Load { of_section: true }),
    (13, SectionNumber),
    (14, Absolute(64)),
    (15, Branch(19, 0x5400_0000)),
    (16, Branch(14, 0x3600_0000)),
    (17, Relative(4)),
];

/// Sections of a case's own, after the large one that symbols may be in.
const CASES: usize = 250;
const LARGE: u32 = 0x80_0000;

struct Case {
    kind: u16,
    shape: Shape,
    offset: usize,
    bytes: Vec<u8>,
    /// Address of an absolute symbol, or section (from 1) and offset.
    symbol: Symbol,
}

#[derive(Debug, Clone, Copy)]
enum Symbol {
    At(u64),
    In(u32, u32),
}

/// A number inside, or at a limit, of a signed field of that width.
fn inside(bits: u32, random: &mut Random) -> i64 {
    let half = 1i64 << (bits - 1);
    let any = (random.next() as i64) >> (64 - bits);
    let near = random.below(4000) as i64 - 2000;
    random.one_of(&[half - 1, -half, 0, -1, near, any, any])
}

impl Case {
    /// A case whose value fits. `place` is where its section will be.
    fn new(kinds: &[(u16, Shape)], place: u64, base: u64, random: &mut Random) -> Self {
        let (kind, shape) = random.one_of(kinds);
        loop {
            let offset = 4 * random.below(4) as usize;
            let place = place + offset as u64;
            if let Some((field, symbol)) = shape.choose(place, base, random) {
                let tail = random.one_of(&[0, 0, 4]);
                let mut bytes: Vec<u8> = (0..offset).map(|_| random.next() as u8).collect();
                if offset > 0 && random.below(2) == 0 {
                    bytes[offset - 1] = 0xe8; // a call, on some machines
                }
                bytes.extend(field);
                bytes.extend((0..tail).map(|_| random.next() as u8));
                return Case { kind, shape, offset, bytes, symbol };
            }
        }
    }

    fn add_to(&self, object: &mut Object, number: usize) {
        let name = format!("s{number}");
        let symbol = match self.symbol {
            Symbol::At(_) => object.symbol(&name, coff::EXTERNAL, 0, 0),
            Symbol::In(section, value) => object.symbol(&name, coff::STATIC, section as i32, value),
        };
        let section = object.section(&format!(".t{number}"), coff::CODE | coff::ALIGN_16, &self.bytes);
        if self.shape != Nothing {
            section.relocate(self.offset as u32, self.kind, symbol);
        }
    }

    fn what(&self) -> String {
        let Case { kind, shape, offset, bytes, symbol } = self;
        format!("kind {kind} ({shape:?}) at +{offset:#x} of {bytes:02x?} against {symbol:x?}")
    }
}

impl Shape {
    /// What is in the field before, and a symbol, so that the value fits; `None` if the choice was bad.
    fn choose(self, place: u64, base: u64, random: &mut Random) -> Option<(Vec<u8>, Symbol)> {
        let near = Symbol::In(2 + random.below(CASES as u64) as u32, random.below(3) as u32);
        let large = Symbol::In(1, random.below(LARGE.into()) as u32 & !15);
        let local = random.one_of(&[near, near, large]);
        let (small, large_addend) = (inside(7, random), inside(20, random));
        let addend = random.one_of(&[0, 0, small, large_addend]);
        let at = |address: i64| u32::try_from(address).ok().map(|address| Symbol::At(address.into()));
        let word = |word: u32| word.to_le_bytes().to_vec();
        let data = |addend: i64| (addend as i32).to_le_bytes().to_vec();
        let low = |imm: u64| (imm as u32 & 0xfff) << 10;
        let is_local = random.below(4) == 0;
        Some(match self {
            Nothing | Any => (word(random.next() as u32), local),
            Absolute(64) => (
                random.next().to_le_bytes().to_vec(),
                if is_local { local } else { at(random.next() as i64 >> 32 & 0xffff_ffff)? },
            ),
            Absolute(_) if is_local => (data(addend), local),
            Absolute(_) => {
                let value = inside(32, random) & 0xffff_ffff;
                (data(addend), at(value - addend)?)
            }
            Image if is_local => (data(0), local),
            Image => {
                let value = inside(32, random) & 0xffff_ffff;
                (data(addend), at(value + base as i64 - addend)?)
            }
            Relative(_) if is_local => (data(addend), local),
            Relative(behind) => {
                let value = inside(32, random);
                (data(addend), at(value + place as i64 + behind - addend)?)
            }
            SectionNumber => ((random.below(50) as u16).to_le_bytes().to_vec(), local),
            SectionOffset => (data(addend), local),
            Branch(bits, opcode) => {
                let variant = random.next() as u32 & if bits == 26 { 0x8000_0000 } else { 0x8100_001f };
                // The limits are tried one at a time: near one the linker makes stubs for all.
                let value = inside(bits, random) / 2 * 4;
                let start = Symbol::In(2 + random.below(CASES as u64) as u32, 0);
                let symbol = if is_local && bits == 26 { start } else { at(value + place as i64)? };
                // `b.cond` has a zero where its likes have an opcode.
                let instruction = if bits == 19 { opcode | variant & 0xf } else { opcode ^ variant };
                (word(instruction), symbol)
            }
            Adr => {
                let addend = random.one_of(&[0, large_addend]);
                let value = inside(21, random);
                (word(adr(0x1000_0000, addend, random)), at(value + place as i64 - addend)?)
            }
            Adrp => {
                let symbol = if is_local { local } else { Symbol::At(random.next() >> 32) };
                (word(adr(0x9000_0000, addend, random)), symbol)
            }
            Add { of_section } => {
                let instruction = 0x9100_0000 | random.next() as u32 & 0x3ff | low(random.next());
                (word(instruction), if of_section { local } else { Symbol::At(random.next() >> 32) })
            }
            Load { of_section } => {
                let (opcode, size) = random.one_of(&[
                    (0x3940_0000u32, 0),
                    (0x7940_0000, 1),
                    (0xb940_0000, 2),
                    (0xf940_0000, 3),
                    (0xf900_0000, 3),
                    (0x3dc0_0000, 4),
                    (0xfd40_0000, 3),
                ]);
                let instruction = opcode | random.next() as u32 & 0x3ff | low(random.next());
                let aligned = Symbol::At(random.next() >> 32 & !((1 << size) - 1));
                (word(instruction), if of_section { large } else { aligned })
            }
            SectionHigh => {
                let addend = small as u64 & 0x1f;
                (word(0x9140_0000 | random.next() as u32 & 0x3ff | low(addend)), local)
            }
        })
    }
}

/// ADR or ADRP of any register with an immediate.
fn adr(opcode: u32, immediate: i64, random: &mut Random) -> u32 {
    let (low, high) = (immediate as u32 & 3, immediate as u32 >> 2 & 0x7_ffff);
    opcode | low << 29 | high << 5 | random.below(31) as u32
}

/// Puts sections where the linker had them.
#[derive(Clone)]
struct Rows(BTreeMap<String, u64>);

impl Placement for Rows {
    fn place(&self, _file: usize, section: &[u8], _number: usize) -> Option<u64> {
        self.0.get(std::str::from_utf8(section).unwrap()).copied()
    }
}

fn object_of(machine: u16, cases: &[Case]) -> Vec<u8> {
    let mut object = Object::new(machine);
    // Also the linker puts it first.
    if cases.len() == CASES {
        object.section(".large", coff::BSS | coff::ALIGN_16, &[]).size = Some(LARGE);
    }
    for (number, case) in cases.iter().enumerate() {
        case.add_to(&mut object, number);
    }
    object.build()
}

fn externals_of(machine: u16, cases: &[Case]) -> (BTreeMap<String, u64>, Vec<u8>) {
    let names = cases.iter().enumerate().filter_map(|(number, case)| match case.symbol {
        Symbol::At(address) => Some((format!("s{number}"), address)),
        Symbol::In(..) => None,
    });
    let names: BTreeMap<_, _> = names.collect();
    let mut object = Object::new(machine);
    for (name, address) in &names {
        object.symbol(name, coff::EXTERNAL, coff::ABSOLUTE, *address as u32);
    }
    (names, object.build())
}

fn addresses(linked: &Linked) -> BTreeMap<String, u64> {
    linked.rows.iter().map(|(name, address, _)| (name.clone(), *address)).collect()
}

/// Loads an object where the linker put its sections; returns what became of each.
fn load(
    object: &[u8],
    base: u64,
    rows: &BTreeMap<String, u64>,
    externals: BTreeMap<String, u64>,
) -> Result<BTreeMap<String, Vec<u8>>, LoadError> {
    let log = Arc::new(SectionLog::default());
    let memory = FixedMemory::placed(base, Rows(rows.clone()));
    let loader = Loader::builder().memory(Arc::new(memory)).listener(log.clone()).build();
    let image = loader.load(object, &from_fn(|name| externals.get(name).copied()))?;
    let log = log.0.lock();
    let code = log.iter().filter(|section| section.segment == Segment::Code);
    Ok(code
        .map(|section| {
            let bytes = &image.linked_bytes(Segment::Code).unwrap()[section.offset..][..section.size];
            (section.name.clone(), bytes.to_vec())
        })
        .collect())
}

/// Where the linker puts sections of that number and size.
fn probe(machine: u16, base: u64, count: usize) -> BTreeMap<String, u64> {
    let mut random = Random(1);
    let nothing = [(0, Nothing)];
    let cases: Vec<_> = (0..count).map(|_| Case::new(&nothing, 0, base, &mut random)).collect();
    addresses(&lld::link(machine, base, &[&object_of(machine, &cases)], &[]))
}

#[test]
fn single_relocations_are_done_as_lld_does() {
    if !has(LLD_LINK) {
        return;
    }
    let mut random = Random(0x00c0_ff00_c0ff_00c0);
    let mut counts: BTreeMap<(u16, u16), usize> = BTreeMap::new();
    for (machine, table, batches) in
        [(coff::X86_64, X86_64, 6), (coff::I386, I386, 4), (coff::ARM64, ARM64, 8)]
    {
        for batch in 0..batches {
            let base = [0x1000_0000, 0x9000_0000][batch % 2];
            let rows = probe(machine, base, CASES);
            let cases: Vec<_> = (0..CASES)
                .map(|number| Case::new(table, rows[&format!(".t{number}")], base, &mut random))
                .collect();
            let object = object_of(machine, &cases);
            let (externals, others) = externals_of(machine, &cases);
            let linked = lld::link(machine, base, &[&object, &others], &[]);
            assert!(!linked.image.is_empty(), "{machine:#x}: {}", linked.messages);
            assert_eq!(addresses(&linked), rows, "the probe told the truth");
            let ours = load(&object, base, &rows, externals).unwrap_or_else(|error| panic!("{error}"));
            for (number, case) in cases.iter().enumerate() {
                let name = format!(".t{number}");
                let mut theirs = linked.bytes(rows[&name], case.bytes.len()).unwrap().to_vec();
                if let (SectionNumber, Symbol::In(section, _)) = (case.shape, case.symbol) {
                    as_in_object(&mut theirs[case.offset..], section, &linked);
                }
                assert_eq!(ours[&name], theirs, "{machine:#x} at {:#x}: {}", rows[&name], case.what());
                *counts.entry((machine, case.kind)).or_default() += 1;
            }
        }
    }
    let total: usize = counts.values().sum();
    for machine in [coff::X86_64, coff::I386, coff::ARM64] {
        let seen = kinds::of_machine(machine, counts.keys());
        coverage::keep("compared", "coff", kinds::machine_name(machine), &seen);
    }
    eprintln!("{total} cases, all equal; by machine and kind: {counts:?}");
    assert_eq!(counts.len(), X86_64.len() + I386.len() + ARM64.len());
    assert!(total >= 4000 && counts.values().all(|count| *count > 50));
}

/// The linker counts sections of the image, in the order of their addresses; the loader those of the object.
fn as_in_object(field: &mut [u8], section: u32, linked: &Linked) {
    let name = if section == 1 { ".large".to_owned() } else { format!(".t{}", section - 2) };
    let address = linked.row(&name, 0).unwrap().0;
    let number = 1 + linked.rows.iter().filter(|(_, other, _)| *other < address).count();
    let value =
        u16::from_le_bytes([field[0], field[1]]).wrapping_sub(number as u16).wrapping_add(section as u16);
    field[..2].copy_from_slice(&value.to_le_bytes());
}

/// One case of a kind with a value.
fn alone(kind: u16, bytes: &[u8], symbol: Symbol) -> Case {
    Case { kind, shape: Any, offset: 0, bytes: bytes.to_vec(), symbol }
}

/// What became of a case in an object of its own with either linker: the bytes, or why not.
fn both(machine: u16, case: Case) -> (Result<Vec<u8>, String>, Result<Vec<u8>, String>) {
    const BASE: u64 = 0x9000_0000;
    let length = case.bytes.len();
    let cases = [case];
    let object = object_of(machine, &cases);
    let (externals, others) = externals_of(machine, &cases);
    let linked = lld::link(machine, BASE, &[&object, &others], &[]);
    let rows = addresses(&linked);
    let address = rows.get(".t0").copied().unwrap_or(BASE + 0x1000);
    let rows = if rows.is_empty() { BTreeMap::from([(".t0".to_owned(), address)]) } else { rows };
    let ours = load(&object, BASE, &rows, externals).map(|sections| sections[".t0"].clone());
    let theirs = match linked.image.is_empty() {
        true => Err(linked.messages.clone()),
        false => Ok(linked.bytes(address, length).unwrap().to_vec()),
    };
    (ours.map_err(|error| error.to_string()), theirs)
}

#[test]
fn what_lld_refuses_is_refused() {
    if !has(LLD_LINK) {
        return;
    }
    let far = Symbol::At(0x9000_5003);
    let mut cases = vec![
        // Loads of what is not aligned for them.
        (coff::ARM64, 7, 0xf940_0000u32, far, "is no multiple of 8"),
        (coff::ARM64, 7, 0x3dc0_0000, Symbol::At(0x9000_5008), "is no multiple of 16"),
        (coff::ARM64, 7, 0x7940_0000, far, "is no multiple of 2"),
    ];
    // Offsets in no section.
    for (machine, kinds) in
        [(coff::X86_64, &[11u16][..]), (coff::I386, &[11]), (coff::ARM64, &[8, 9, 10, 11])]
    {
        cases.extend(kinds.iter().map(|kind| (machine, *kind, 0, far, "of a symbol of another image")));
    }
    // Kinds that nobody does.
    for (machine, kinds) in [
        (coff::X86_64, &[13u16, 14, 15, 16, 17, 99][..]),
        (coff::I386, &[1, 2, 9, 12, 99]),
        (coff::ARM64, &[12, 18, 99]),
    ] {
        cases.extend(kinds.iter().map(|kind| (machine, *kind, 0, far, "is not supported")));
    }
    for (machine, kind, field, symbol, why) in &cases {
        let (ours, theirs) = both(*machine, alone(*kind, &field.to_le_bytes(), *symbol));
        let what = format!("{machine:#x} kind {kind}: {ours:?}, {theirs:?}");
        assert!(theirs.is_err() && ours.is_err_and(|error| error.contains(why)), "{what}");
    }
    eprintln!("{} refused by both", cases.len());
}

/// `lld-link` wraps these round, or cuts off what is too much: the code would go, or look, somewhere else. An address
/// before the image is none that counts from it.
#[test]
fn values_that_do_not_fit_are_refused() {
    if !has(LLD_LINK) {
        return;
    }
    const PLACE: u64 = 0x9000_1000;
    let word = |word: u32| word.to_le_bytes();
    let cases = [
        (coff::X86_64, 4, word(0), PLACE + 4 - (1 << 31) - 1, "does not fit in 32 bits"),
        (coff::X86_64, 9, word(0), PLACE + 9 - (1 << 31) - 1, "does not fit in 32 bits"),
        (coff::X86_64, 2, word(0x7fff_ffff), 0x8000_0001, "does not fit in 32 bits"),
        (coff::ARM64, 1, word(0x7fff_ffff), 0x8000_0001, "does not fit in 32 bits"),
        (coff::ARM64, 17, word(0), PLACE + 4 - (1 << 31) - 1, "does not fit in 32 bits"),
        (coff::ARM64, 5, word(0x1000_0000), PLACE + (1 << 20), "does not fit in 21 bits"),
        (coff::ARM64, 5, word(0x1000_0000), PLACE - (1 << 20) - 1, "does not fit in 21 bits"),
    ];
    for (machine, kind, field, symbol, why) in cases {
        let (ours, theirs) = both(machine, alone(kind, &field, Symbol::At(symbol)));
        let what = format!("{machine:#x} kind {kind} against {symbol:#x}: {ours:?}, {theirs:?}");
        assert!(theirs.is_ok() && ours.is_err_and(|error| error.contains(why)), "{what}");
    }
}

/// Where a branch does not reach, both go by a stub: the linker's stands behind the section, ours where stubs are.
#[test]
fn far_branches_go_by_stubs() {
    if !has(LLD_LINK) {
        return;
    }
    const PLACE: u64 = 0x9000_1000;
    let reach = |bits: u32| 1i64 << (bits + 1);
    let mut tried = 0;
    for (kind, bits, opcode) in [(3, 26, 0x9400_0000u32), (15, 19, 0x5400_0000), (16, 14, 0x3600_0000)] {
        let low = if bits == 26 { 0 } else { 5 };
        for (distance, direct) in
            [(reach(bits) - 4, true), (-reach(bits), true), (reach(bits), false), (-reach(bits) - 4, false)]
        {
            let symbol = Symbol::At(PLACE.wrapping_add_signed(distance));
            let (ours, theirs) = both(coff::ARM64, alone(kind, &opcode.to_le_bytes(), symbol));
            let instruction = (opcode | ((distance >> 2) as u32 & ((1 << bits) - 1)) << low).to_le_bytes();
            let what = format!("kind {kind}, {distance:#x} away: {theirs:?}");
            assert_eq!(ours.unwrap() == instruction, direct, "{what}");
            // The linker leaves a margin for stubs it may yet make, and sometimes does not come to an end.
            match theirs {
                Ok(theirs) => assert_eq!(theirs == instruction, direct, "{what}"),
                Err(error) => assert!(!direct && error.contains("converged"), "{what}"),
            }
            tried += 1;
        }
    }
    assert_eq!(tried, 12);
    // On x86-64 lld makes none, and wraps round; a call must arrive. So must what unwind tables refer to, which is before
    // the image here.
    let mut call = alone(4, &[0xe8, 0, 0, 0, 0], Symbol::At(0x0fff_0000));
    call.offset = 1;
    let table = |machine, kind| (machine, alone(kind, &[0; 4], Symbol::At(0x8fff_ffff)));
    for (machine, case) in
        [(coff::X86_64, call), table(coff::X86_64, 3), table(coff::I386, 7), table(coff::ARM64, 2)]
    {
        let (ours, theirs) = both(machine, case);
        assert_ne!(ours.unwrap(), theirs.unwrap());
    }
}
