//! Generated cases: hundreds of sections with one relocation each are linked once by `ld.lld`, then loaded one by one. We
//! accept a relocation exactly when lld accepts it, and then the bytes are equal. GNU ld is asked for kinds that lld
//! does not know.
//!
//! Linkers turn accesses to thread-local variables into others when they make a program. So they make a shared library
//! of those, where its dynamic relocations tell what its GOT entries hold; from there on it is the fix-ups alone that are
//! compared, without the passes that we have for the same purpose.
//!
//! A branch that does not reach is a matter of taste: lld gives it a thunk or refuses it, we have a stub. Then lld is
//! asked once more, with the stub's address in place of the symbol's, and makes the very same branch.

mod layout;
mod library;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use objcache_loader::{FixedMemory, InputObject, LinkMap, LoadError, Loader, MappedStub, from_fn};

use crate::case::{Case, Places, THREAD_SECTION, Target};
use crate::gnu;
use crate::lld::{self, LinkedFile};
use crate::machine::{Difference, Form, Known, Linker, Machine};
use crate::machines::MACHINES;
use crate::support::{LLD, Random, coverage, has};

const CASES_OF_A_LINK: usize = 300;
/// Of all machines together, unless `OBJCACHE_ORACLE_CASES` says otherwise.
const CASES: usize = 44_000;
/// Of every line of a table, at the least.
const CASES_OF_A_KIND: usize = 18;
/// Of every line of the other tables.
const CASES_OF_ANOTHER_KIND: usize = 240;
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

/// Compares all kinds of a machine that lld has in programs.
pub fn compare(machine: &'static Machine) {
    if !has(LLD) {
        return;
    }
    let total = setting("OBJCACHE_ORACLE_CASES").unwrap_or(CASES);
    let cases = (total / MACHINES.len()).max(CASES_OF_A_KIND * machine.kinds.len());
    compare_with(machine, Linker::Lld, cases);
    let all = machine.numbers().map(|(_, name)| format!("{}{name}", machine.prefix)).collect();
    coverage::keep("compared", "elf", machine.architecture(), &all);
}

/// Those that lld has in shared libraries only.
pub fn compare_in_libraries(machine: &'static Machine) {
    if !has(LLD) {
        return;
    }
    let all = compare_others(machine, Linker::LldLibrary);
    coverage::keep("compared-library", "elf", machine.architecture(), &all);
}

/// Those that GNU ld has, and lld has not.
pub fn compare_with_gnu(machine: &'static Machine) {
    if !has(machine.gnu_ld[0]) {
        return;
    }
    let mut all = compare_others(machine, Linker::Gnu);
    all.extend(compare_others(machine, Linker::GnuLibrary));
    coverage::keep("compared-gnu", "elf", machine.architecture(), &all);
}

/// A number of cases that is the same for every kind; returns the kinds.
fn compare_others(machine: &'static Machine, linker: Linker) -> BTreeSet<String> {
    let kinds = machine.kinds_for(linker);
    if kinds.is_empty() {
        return BTreeSet::new();
    }
    let more = setting("OBJCACHE_ORACLE_CASES").map_or(1, |total| (total / CASES).max(1));
    compare_with(machine, linker, CASES_OF_ANOTHER_KIND * kinds.len() * more)
}

fn setting(name: &str) -> Option<usize> {
    std::env::var(name).ok().and_then(|number| number.parse::<usize>().ok())
}

/// Returns the names of the kinds.
fn compare_with(machine: &'static Machine, linker: Linker, cases: usize) -> BTreeSet<String> {
    let seed = setting("OBJCACHE_ORACLE_SEED").unwrap_or(1) as u64;
    let mut random = Random(machine.name.bytes().fold(seed, |seed, byte| seed * 31 + u64::from(byte)));
    let mut report = Report::default();
    let mut done = 0;
    while done < cases {
        Batch::new(machine, linker, done, &mut random).compare(&mut report);
        done += CASES_OF_A_LINK;
    }
    report.print(machine, linker, done);
    let kinds = machine.kinds_for(linker);
    let all: BTreeSet<String> = kinds.iter().flat_map(|kind| machine.kind_names(kind)).collect();
    for name in all.iter().filter(|name| !report.compared.contains_key(*name)) {
        report.problems.entry(name.clone()).or_default().push(format!("{name} never gave equal bytes"));
    }
    let name = machine.name;
    assert!(report.problems.is_empty(), "{name} differs from {linker:?}:\n{}", report.problems());
    all
}

impl Report {
    fn print(&self, machine: &Machine, linker: Linker, cases: usize) {
        let Report { equal, both_refuse, by_stub, known, compared, problems } = self;
        let mut text = format!(
            "{}, {linker:?}: {cases} cases of {} kinds: {equal} equal, {both_refuse} refused by both, {by_stub} through a stub, {} unexplained",
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
    linker: Linker,
    /// Where the GOT is.
    base: u64,
    /// Where the other tables are.
    tables: u64,
    /// Where the PLT is.
    plt: u64,
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
    /// Of what was not fixed up alone.
    map: Option<LinkMap>,
    bytes: Vec<u8>,
}

/// Why the loader refused.
struct Refusal {
    /// The value does not fit.
    by_fixup: bool,
    why: String,
}

impl Batch {
    fn new(machine: &'static Machine, linker: Linker, done: usize, random: &mut Random) -> Self {
        let kinds = machine.kinds_for(linker);
        let base = random.one_of(machine.bases);
        let (table, bias) = machine.got;
        let tables =
            base + if linker.is_gnu() && machine.gnu_filler.is_some() { layout::FILLED_GOT } else { 0 };
        let got = if table == ".got" { base + bias } else { tables + TABLES / 2 };
        let mut plt = tables + TABLES / 4 * 3;
        if kinds.iter().any(|kind| kind.imported) {
            // Around the limits of 32 bits there.
            let far = |distance: i64| got.checked_add_signed(distance - 0x80).filter(|plt| plt >> 47 == 0);
            let distance = random.one_of(&[0x7fff_8000, 0x8000_0000, -0x8000_0000, 0]);
            plt = far(distance).filter(|_| distance != 0).unwrap_or(plt);
        }
        let places = Places { got };
        let mut next = tables + TABLES;
        let mut cases = Vec::new();
        for number in 0..CASES_OF_A_LINK {
            next = (next + random.below(3500)).next_multiple_of(machine.code_align);
            let kind = &kinds[(done + number) % kinds.len()];
            if kind.code.is_empty() && !machine.has_thumb {
                next += random.below(machine.code_align);
            }
            let mut case = Case::new(machine, kind, next, places, random);
            next += case.bytes.len() as u64 + 64; // A thunk of lld's may follow.
            if kind.thread {
                // GOT entries are told from each other by what they hold.
                case.symbol.value = 3 * number as u64 + 1;
            }
            cases.push(case);
        }
        // Sections are in the order of their addresses, so there can be one only.
        if let Some(case) = cases.iter_mut().find(|case| case.kind.at_zero && case.offset == 0) {
            case.move_to_zero();
        }
        let name = format!("{}-{linker:?}-{done}", machine.name);
        Batch { machine, linker, base, tables, plt, places, cases, name }
    }

    fn compare(&mut self, report: &mut Report) {
        let linked = self.link_with_slots();
        let mut detours = Vec::new();
        for (number, case) in self.cases.iter().enumerate() {
            let refused = linked.refused.get(&number);
            let theirs = match linked.file.sections.get(&format!(".t.{number}")) {
                Some((_, theirs)) => theirs,
                None => &refused.map(|_| Vec::new()).expect("a section for every case that is linked"),
            };
            let has_thunk = theirs.len() > case.bytes.len();
            match self.load_or_fix_up(number, case, &linked.file) {
                Ok(ours) if refused.is_none() && !has_thunk && ours.bytes == *theirs => {
                    report.equal += 1;
                    for name in self.machine.kind_names(case.kind) {
                        *report.compared.entry(name).or_default() += 1;
                    }
                }
                Ok(ours)
                    if may_take_a_stub(case, refused.is_some() || has_thunk) && ours.stub().is_some() =>
                {
                    detours.push((number, ours));
                }
                Ok(ours) => {
                    let what = match refused {
                        Some(_) => Difference::OnlyTheyRefuse,
                        None => Difference::Bytes,
                    };
                    report.differs(case, what, || {
                        let thunk = if has_thunk { " and has a thunk" } else { "" };
                        match refused {
                            Some(message) => format!("they: {message}\n    we: {:02x?}", ours.bytes),
                            None => format!("they: {theirs:02x?}{thunk}\n    we:   {:02x?}", ours.bytes),
                        }
                    });
                }
                Err(Refusal { by_fixup: true, .. }) if refused.is_some() => report.both_refuse += 1,
                Err(Refusal { why, .. }) => {
                    report.differs(case, Difference::OnlyWeRefuse, || match refused {
                        Some(message) => format!("they: {message}\n    we: {why}"),
                        None => format!(
                            "they: {theirs:02x?}{}\n    we: {why}",
                            if has_thunk { " and has a thunk" } else { "" }
                        ),
                    });
                }
            }
        }
        if !detours.is_empty() {
            self.compare_detours(&detours, report);
        }
    }

    /// Links, and, where addends depend on GOT entries, once more with these addends.
    fn link_with_slots(&mut self) -> Linked {
        let linked = self.link(&self.name);
        if self.cases.iter().all(|case| case.wanted.is_none() && case.distance.is_none()) {
            return linked;
        }
        for number in 0..self.cases.len() {
            let slot = self.slot(number, &linked.file);
            let case = &mut self.cases[number];
            case.slot = slot;
            if let (Some(distance), Some(slot)) = (case.distance, slot) {
                case.move_to(slot.wrapping_sub(distance));
            }
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
        let script = self.script();
        if self.linker.is_gnu() {
            let object = |refused: &HashMap<usize, String>| {
                let cases = self.cases.iter().enumerate();
                let cases = cases.filter(|(number, _)| !refused.contains_key(number));
                let mut object = Case::object(self.machine, cases);
                if let Some(kind) = self.machine.gnu_filler {
                    layout::fill_got(&mut object, kind);
                }
                object.build()
            };
            let (file, refused) = gnu::link(self.machine, &script, self.linker.is_library(), what, object);
            return Linked { file, refused };
        }
        let object = Case::object(self.machine, self.cases.iter().enumerate()).build();
        let file = match self.linker.is_library() {
            true => lld::link_library(&object, &script, what),
            false => lld::link(&[&object], &script, false, what),
        };
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
        if case.kind.thread || case.kind.imported {
            let find = |symbol: &str| linked.dynamic.iter().find(|slot| slot.symbol == symbol);
            let slot = find(&format!("s{number}")).or_else(|| find(""));
            return slot.map(|slot| slot.address);
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

    fn load_or_fix_up(&self, number: usize, case: &Case, linked: &LinkedFile) -> Result<Loaded, Refusal> {
        if self.linker.is_library() {
            let bytes = self.fix_up(number, case, linked)?;
            return Ok(Loaded { map: None, bytes });
        }
        self.load(number, case, linked).map_err(|error| Refusal {
            by_fixup: matches!(&error, LoadError::InObject { cause, .. } if matches!(**cause, LoadError::Fixup(_))),
            why: error.to_string(),
        })
    }

    fn load(&self, number: usize, case: &Case, linked: &LinkedFile) -> Result<Loaded, LoadError> {
        let object = Case::object(self.machine, std::iter::once((number, case))).build();
        let section = case.section;
        let slot = self.slot(number, linked).unwrap_or(self.base);
        let got = self.places.got;
        let stubs = (section & !0xff) + 0x2000;
        let threads = self.tables + THREADS;
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
        Ok(Loaded { map: Some(map), bytes })
    }

    /// Asks lld for the branches to the stubs.
    fn compare_detours(&self, detours: &[(usize, Loaded)], report: &mut Report) {
        let mut batch = Batch { cases: Vec::new(), name: format!("{}-stubs", self.name), ..*self };
        for (number, ours) in detours {
            let mut case = self.cases[*number].clone();
            let stub = ours.stub().unwrap();
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
                    let stub = ours.stub().unwrap();
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

impl Loaded {
    /// The only one.
    fn stub(&self) -> Option<&MappedStub> {
        match &self.map.as_ref()?.files[0].stubs[..] {
            [stub] => Some(stub),
            _ => None,
        }
    }
}
