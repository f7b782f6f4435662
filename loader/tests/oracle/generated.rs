//! Generated cases: hundreds of sections with one relocation each are linked once by `ld.lld`, then loaded one by one. We
//! accept a relocation exactly when lld accepts it, and then the bytes are equal.
//!
//! A branch that does not reach is a matter of taste: lld gives it a thunk or refuses it, we have a stub. Then lld is
//! asked once more, with the stub's address in place of the symbol's, and makes the very same branch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use objcache_loader::{FixedMemory, InputObject, LinkMap, LoadError, Loader, from_fn};

use crate::case::{Case, Places, THREAD_SECTION, Target};
use crate::lld::{self, LinkedFile};
use crate::machine::{Difference, Form, Known, Machine};
use crate::machines::MACHINES;
use crate::support::{LLD, Random, coverage, has};

const CASES_OF_A_LINK: usize = 300;
/// Of all machines together, unless `OBJCACHE_ORACLE_CASES` says otherwise.
const CASES: usize = 44_000;
/// Of every line of a table, at the least.
const CASES_OF_A_KIND: usize = 18;
/// Where sections begin, behind the linker's tables.
const TABLES: u64 = 0x4000;
/// Where the thread-local block is among them.
const THREADS: u64 = 0x3800;

#[derive(Default)]
struct Report {
    equal: usize,
    both_refuse: usize,
    by_stub: usize,
    known: BTreeMap<&'static str, usize>,
    /// Names of kinds that gave equal bytes, with how often.
    compared: BTreeMap<String, usize>,
    /// By kind, and how many there are.
    problems: BTreeMap<String, Vec<String>>,
}

/// Compares all kinds of a machine.
pub fn compare(machine: &'static Machine) {
    if !has(LLD) {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<usize>().ok());
    let total = number("OBJCACHE_ORACLE_CASES").unwrap_or(CASES);
    let cases = (total / MACHINES.len()).max(CASES_OF_A_KIND * machine.kinds.len());
    let seed = number("OBJCACHE_ORACLE_SEED").unwrap_or(1) as u64;
    let mut random = Random(machine.name.bytes().fold(seed, |seed, byte| seed * 31 + u64::from(byte)));
    let mut report = Report::default();
    let mut done = 0;
    while done < cases {
        Batch::new(machine, done, &mut random).compare(&mut report);
        done += CASES_OF_A_LINK;
    }
    report.print(machine, done);
    let all: BTreeSet<String> = machine.kinds.iter().flat_map(|kind| machine.kind_names(kind)).collect();
    for name in all.iter().filter(|name| !report.compared.contains_key(*name)) {
        report.problems.entry(name.clone()).or_default().push(format!("{name} never gave equal bytes"));
    }
    assert!(report.problems.is_empty(), "{} differs from lld:\n{}", machine.name, report.problems());
    let all = machine.numbers().map(|(_, name)| format!("{}{name}", machine.prefix)).collect();
    coverage::keep("compared", "elf", machine.architecture(), &all);
}

impl Report {
    fn print(&self, machine: &Machine, cases: usize) {
        let Report { equal, both_refuse, by_stub, known, compared, problems } = self;
        let mut text = format!(
            "{}: {cases} cases of {} kinds: {equal} equal, {both_refuse} refused by both, {by_stub} through a stub, {} unexplained",
            machine.name,
            compared.len(),
            problems.values().map(Vec::len).sum::<usize>()
        );
        for (why, count) in known {
            write!(text, "\n  {count} differ, and are to: {why}").unwrap();
        }
        if std::env::var_os("OBJCACHE_ORACLE_KINDS").is_some() {
            for (name, count) in compared {
                write!(text, "\n  {name}: {count} equal").unwrap();
            }
        }
        eprintln!("{text}");
    }

    /// Some of the differences of every kind.
    fn problems(&self) -> String {
        let mut text = String::new();
        for (name, problems) in &self.problems {
            writeln!(text, "{name}: {} differences, such as", problems.len()).unwrap();
            for problem in problems.iter().take(3) {
                writeln!(text, "  {problem}").unwrap();
            }
        }
        text
    }
}

/// Cases that are linked together.
struct Batch {
    machine: &'static Machine,
    base: u64,
    places: Places,
    cases: Vec<Case>,
    name: String,
}

/// What became of a case in the linker's hands.
struct Linked {
    file: LinkedFile,
    /// Warnings by the number of the case.
    refused: HashMap<usize, String>,
}

/// What became of a case in the loader's.
struct Loaded {
    map: LinkMap,
    bytes: Vec<u8>,
}

impl Batch {
    fn new(machine: &'static Machine, done: usize, random: &mut Random) -> Self {
        let base = random.one_of(machine.bases);
        let (table, bias) = machine.got;
        let got = if table == ".got" { base + bias } else { base + TABLES / 2 };
        let places = Places { got };
        let mut next = base + TABLES;
        let mut cases = Vec::new();
        for number in 0..CASES_OF_A_LINK {
            next = (next + random.below(3500)).next_multiple_of(machine.code_align);
            let kind = &machine.kinds[(done + number) % machine.kinds.len()];
            if kind.code.is_empty() && !machine.has_thumb {
                next += random.below(machine.code_align);
            }
            let case = Case::new(machine, kind, next, places, random);
            next += case.bytes.len() as u64 + 64; // A thunk of lld's may follow.
            cases.push(case);
        }
        Batch { machine, base, places, cases, name: format!("{}-{done}", machine.name) }
    }

    fn compare(&mut self, report: &mut Report) {
        let linked = self.link_with_slots();
        let mut detours = Vec::new();
        for (number, case) in self.cases.iter().enumerate() {
            let theirs = &linked.file.sections[&format!(".t.{number}")].1;
            let refused = linked.refused.get(&number);
            let has_thunk = theirs.len() > case.bytes.len();
            match self.load(number, case, &linked.file) {
                Ok(ours) if refused.is_none() && !has_thunk && ours.bytes == *theirs => {
                    report.equal += 1;
                    for name in self.machine.kind_names(case.kind) {
                        *report.compared.entry(name).or_default() += 1;
                    }
                }
                Ok(ours) if may_take_a_stub(case, refused.is_some() || has_thunk) && has_stub(&ours) => {
                    detours.push((number, ours));
                }
                Ok(ours) => {
                    let what = match refused {
                        Some(_) => Difference::OnlyLldRefuses,
                        None => Difference::Bytes,
                    };
                    report.differs(case, what, || {
                        let thunk = if has_thunk { " and has a thunk" } else { "" };
                        match refused {
                            Some(message) => format!("lld: {message}\n    we: {:02x?}", ours.bytes),
                            None => format!("lld: {theirs:02x?}{thunk}\n    we:  {:02x?}", ours.bytes),
                        }
                    });
                }
                Err(LoadError::InObject { cause, .. })
                    if matches!(*cause, LoadError::Fixup(_)) && refused.is_some() =>
                {
                    report.both_refuse += 1;
                }
                Err(error) => report.differs(case, Difference::OnlyWeRefuse, || match refused {
                    Some(message) => format!("lld: {message}\n    we: {error}"),
                    None => format!(
                        "lld: {theirs:02x?}{}\n    we: {error}",
                        if has_thunk { " and has a thunk" } else { "" }
                    ),
                }),
            }
        }
        if !detours.is_empty() {
            self.compare_detours(&detours, report);
        }
    }

    /// Links, and, where addends depend on GOT entries, once more with these addends.
    fn link_with_slots(&mut self) -> Linked {
        let linked = self.link(&self.name);
        if self.cases.iter().all(|case| case.wanted.is_none()) {
            return linked;
        }
        for number in 0..self.cases.len() {
            let slot = self.slot(number, &linked.file);
            let case = &mut self.cases[number];
            if let (Some(wanted), Some(slot)) = (case.wanted, slot) {
                case.addend = wanted.wrapping_sub(slot) as i64;
                if self.machine.target.class == 32 {
                    case.addend = i64::from(case.addend as i32);
                }
            }
        }
        self.link(&self.name)
    }

    fn link(&self, what: &str) -> Linked {
        let object = Case::object(self.machine, self.cases.iter().enumerate());
        let mut script = String::from("SECTIONS {\n");
        let base = self.base;
        writeln!(script, ".got {base:#x} : {{ *(.got) }}").unwrap();
        writeln!(script, ".got.plt {:#x} : {{ *(.got.plt) }}", base + TABLES / 2).unwrap();
        writeln!(script, ".plt {:#x} : {{ *(.plt) }}", base + TABLES / 4 * 3).unwrap();
        writeln!(script, "{THREAD_SECTION} {:#x} : {{ *({THREAD_SECTION}) }}", base + THREADS).unwrap();
        for (number, case) in self.cases.iter().enumerate() {
            writeln!(script, ".t.{number} {:#x} : {{ *(.t.{number}) }}", case.section).unwrap();
            for (name, value) in case.externals(number) {
                writeln!(script, "{name} = {value:#x};").unwrap();
            }
        }
        let file = lld::link(&object, &(script + "}\n"), false, what);
        let mut refused = HashMap::new();
        for line in file.complaints(self.machine) {
            // Every message names the place, or at least the symbol.
            let place = line.split_once("(.t.").or_else(|| line.split_once("references 's"));
            let (_, place) = place.unwrap_or_else(|| panic!("{what}: {line}"));
            let number = place.split(['+', '\'']).next().unwrap().parse().unwrap();
            refused.insert(number, line.to_owned());
        }
        Linked { file, refused }
    }

    /// Where the linker keeps the address of the case's symbol.
    fn slot(&self, number: usize, linked: &LinkedFile) -> Option<u64> {
        let target = &self.machine.target;
        let case = &self.cases[number];
        if !case.kind.value.is_slot() {
            return None;
        }
        if case.kind.in_got_plt {
            // Entries are in the order of the symbols.
            let before = self.cases[..number].iter().filter(|case| case.kind.in_got_plt).count();
            return Some(linked.sections[".got.plt"].0 + (before * target.word()) as u64);
        }
        let (address, got) = linked.sections.get(".got")?;
        let pointer = target.number(case.symbol.value, target.word());
        let header = self.machine.got_header as usize;
        let number = got.chunks_exact(target.word()).skip(header).position(|slot| slot == pointer)?;
        Some(address + ((header + number) * target.word()) as u64)
    }

    fn load(&self, number: usize, case: &Case, linked: &LinkedFile) -> Result<Loaded, LoadError> {
        let object = Case::object(self.machine, std::iter::once((number, case)));
        let section = case.section;
        let slot = self.slot(number, linked).unwrap_or(self.base);
        let got = self.places.got;
        let stubs = (section & !0xff) + 0x2000;
        let threads = self.base + THREADS;
        let memory = FixedMemory::placed(section & !0xfff, move |name: &[u8], _| match name {
            b".got" => Some(slot),
            b".got.plt" => Some(got),
            b".plt" => Some(stubs),
            name if name == THREAD_SECTION.as_bytes() => Some(threads),
            _ => name.starts_with(b".t.").then_some(section),
        });
        let loader = Loader::builder().memory(Arc::new(memory)).build();
        let externals: HashMap<String, u64> = case.externals(number).into_iter().collect();
        let resolver = from_fn(|name: &str| externals.get(name).copied());
        let input = InputObject { name: "case", bytes: &object };
        let (image, map) = loader.load_all(&[input], &resolver)?;
        let section = map.files[0].sections.iter().find(|section| section.name.starts_with(".t.")).unwrap();
        let bytes =
            image.linked_bytes(section.segment).unwrap()[section.offset..][..section.size as usize].to_vec();
        Ok(Loaded { map, bytes })
    }

    /// Asks lld for the branches to the stubs.
    fn compare_detours(&self, detours: &[(usize, Loaded)], report: &mut Report) {
        let mut batch = Batch { cases: Vec::new(), name: format!("{}-stubs", self.name), ..*self };
        for (number, ours) in detours {
            let mut case = self.cases[*number].clone();
            let stub = &ours.map.files[0].stubs[0];
            let thumb = u64::from(stub.kind == "thumb");
            if case.symbol.form == Form::Own || case.kind.leads {
                case.reset_addend();
            }
            case.symbol = Target {
                form: Form::Absolute,
                value: stub.address | thumb,
                size: 0,
                function: true,
                other: 0,
            };
            batch.cases.push(case);
        }
        let linked = batch.link(&batch.name);
        for (position, (number, ours)) in detours.iter().enumerate() {
            let case = &self.cases[*number];
            let mut theirs = linked.file.sections[&format!(".t.{position}")].1.clone();
            let refused = linked.refused.get(&position);
            (self.machine.through_stub)(case, &mut theirs);
            if refused.is_none() && theirs == ours.bytes {
                report.by_stub += 1;
            } else {
                report.differs(case, Difference::Bytes, || {
                    let stub = &ours.map.files[0].stubs[0];
                    format!(
                        "to the stub at {:#x}, lld: {theirs:02x?} {refused:?}\n    we:  {:02x?}",
                        stub.address, ours.bytes
                    )
                });
            }
        }
    }
}

impl Report {
    fn differs(&mut self, case: &Case, what: Difference, details: impl Fn() -> String) {
        let applies = |known: &&Known| {
            let names = known.kinds;
            known.what == what && (names.is_empty() || names.contains(&case.kind.name)) && (known.when)(case)
        };
        match case.machine.known.iter().find(applies) {
            Some(known) => *self.known.entry(known.why).or_default() += 1,
            None => {
                let problem = format!("{what:?}: {case}\n    {}", details());
                self.problems.entry(case.machine.kind_name(case.kind)).or_default().push(problem);
            }
        }
    }
}

/// Where lld does without, we do too, unless the table says otherwise.
fn may_take_a_stub(case: &Case, is_out_of_reach: bool) -> bool {
    case.kind.stub && (is_out_of_reach || (case.machine.always_stub)(case))
}

fn has_stub(loaded: &Loaded) -> bool {
    loaded.map.files[0].stubs.len() == 1
}
