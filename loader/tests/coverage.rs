//! The table of relocation kinds is what the lists in `tests/coverage/` say, which the tests that write them keep true.
//! `OBJCACHE_BLESS=1` rewrites it.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use support::coverage;

const HEAD: &str = "<!-- Made by the test `coverage` from the lists in tests/coverage/. OBJCACHE_BLESS=1 rewrites it. -->

# Relocation kinds

Every kind of relocation that the loader does, by object format and machine, and what shows that it does it right:

- *compared*: the bytes are those that a linker we did not write makes of it, for values at, around and beyond every limit;
  `yes`: `ld.lld`, `lld-link` or `ld64.lld`, when it links a program; `library`: `ld.lld` when it links a shared library,
  since it turns accesses to thread-local variables into others in a program. Then it is the fix-up alone that is compared,
  with the GOT entries of that library. `GNU ld`: one that lld does not know; GNU ld forgets the addend of a GOT entry, so
  that what counts from the GOT is only shown for one of 96 KiB.
- *executed*: code with such relocations has run, in this process or under qemu, with the right results.

A kind that is not here is refused by name.
";

/// Format, machine, kinds and the reason why neither column has them.
const NEITHER: &[(&str, &str, &[&str], &str)] = &[
    ("coff", "aarch64", &["IMAGE_REL_ARM64_ABSOLUTE"], "does nothing; `lld-link` refuses it"),
    ("coff", "i386", &["IMAGE_REL_I386_SECREL7"], SECREL7),
    ("coff", "x86_64", &["IMAGE_REL_AMD64_SECREL7"], SECREL7),
    (
        "elf",
        "aarch64",
        &[
            "R_AARCH64_MOVW_GOTOFF_G0",
            "R_AARCH64_MOVW_GOTOFF_G1_NC",
            "R_AARCH64_MOVW_GOTOFF_G2",
            "R_AARCH64_MOVW_GOTOFF_G2_NC",
            "R_AARCH64_MOVW_GOTOFF_G3",
            "R_AARCH64_GOTREL64",
            "R_AARCH64_GOTREL32",
            "R_AARCH64_TLSLD_MOVW_G1",
            "R_AARCH64_TLSLD_MOVW_G0_NC",
            "R_AARCH64_TLSLD_LD_PREL19",
            "R_AARCH64_TLSLE_LDST128_TPREL_LO12",
            "R_AARCH64_TLSLD_LDST128_DTPREL_LO12",
            "R_AARCH64_TLSLD_LDST128_DTPREL_LO12_NC",
        ],
        "in aaelf64 only: `ld.lld` 22, GNU ld 2.40 and gold refuse them; fields and values are those of kinds that are \
         compared, MOVW_GOTOFF_G1, TLSLD_ADR_PREL21, TLSLD_LDST64_DTPREL_LO12 and the like",
    ),
    (
        "elf",
        "aarch64",
        &["R_AARCH64_TLS_DTPREL64"],
        "linkers make it for the dynamic linker, and refuse it in objects",
    ),
    (
        "elf",
        "x86_64",
        &[
            "R_X86_64_CODE_5_GOTPCRELX",
            "R_X86_64_CODE_5_GOTTPOFF",
            "R_X86_64_CODE_5_GOTPC32_TLSDESC",
            "R_X86_64_CODE_6_GOTPCRELX",
            "R_X86_64_CODE_6_GOTPC32_TLSDESC",
        ],
        "of newer instructions (APX) than `ld.lld` 22, GNU ld 2.40 and gold know; the fix-ups are those of GOTPCREL, \
         GOTTPOFF and GOTPC32_TLSDESC",
    ),
];
const SECREL7: &str = "`lld-link` refuses it, GNU ld leaves the field as it is";

/// The kinds of one format and machine.
struct Kinds {
    implemented: Vec<(u32, String)>,
    /// With what to say of each in the table.
    compared: BTreeMap<String, Vec<&'static str>>,
    executed: BTreeSet<String>,
}

impl Kinds {
    /// Those that nothing shows.
    fn neither(&self) -> BTreeSet<&str> {
        let names = self.implemented.iter().map(|(_, name)| name.as_str());
        names.filter(|name| !self.compared.contains_key(*name) && !self.executed.contains(*name)).collect()
    }
}

#[test]
fn the_table_is_what_the_tests_saw() {
    let all = all_kinds();
    let table = table(&all);
    for ((format, machine), kinds) in &all {
        let reasons = NEITHER.iter().filter(|(f, m, ..)| f == format && m == machine);
        let with_reason: BTreeSet<&str> = reasons.flat_map(|(_, _, names, _)| *names).copied().collect();
        assert_eq!(
            kinds.neither(),
            with_reason,
            "{format}, {machine}: kinds without, or with a needless reason"
        );
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("RELOCATIONS.md");
    if coverage::is_blessing() {
        std::fs::write(&path, table).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == table, "RELOCATIONS.md is not what the lists say; OBJCACHE_BLESS=1 rewrites it");
}

/// By format and machine. No list names a kind that the loader does not do.
fn all_kinds() -> BTreeMap<(String, String), Kinds> {
    let mut files: Vec<_> =
        std::fs::read_dir(coverage::directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut all = BTreeMap::new();
    let parts = |path: &Path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let [column, format, machine] = name.splitn(3, '.').collect::<Vec<_>>()[..] else { panic!("{name}") };
        (column.to_owned(), format.to_owned(), machine.to_owned())
    };
    for path in &files {
        let (column, format, machine) = parts(path);
        if column == "implemented" {
            let implemented = coverage::implemented(&format, &machine);
            let kinds = Kinds { implemented, compared: BTreeMap::new(), executed: BTreeSet::new() };
            all.insert((format, machine), kinds);
        }
    }
    for path in &files {
        let (column, format, machine) = parts(path);
        let kinds: &mut Kinds =
            all.get_mut(&(format, machine)).unwrap_or_else(|| panic!("{}", path.display()));
        let how = match column.as_str() {
            "implemented" => continue,
            "compared" => Some("yes"),
            "compared-library" => Some("library"),
            "compared-gnu" => Some("GNU ld"),
            _ if column.starts_with("compared-") => Some("yes"),
            _ if column.starts_with("executed") => None,
            _ => panic!("{}", path.display()),
        };
        for name in coverage::read(path) {
            let is_done = kinds.implemented.iter().any(|(_, kind)| *kind == name);
            assert!(is_done, "{}: the loader does not do {name}", path.display());
            let Some(how) = how else {
                kinds.executed.insert(name);
                continue;
            };
            let ways = kinds.compared.entry(name).or_default();
            match how {
                _ if ways.contains(&how) => {}
                "yes" => ways.insert(0, how),
                _ => ways.push(how),
            }
        }
    }
    all
}

fn table(all: &BTreeMap<(String, String), Kinds>) -> String {
    let mut text = HEAD.to_owned();
    let title = |format: &str| match format {
        "elf" => "ELF",
        "macho" => "Mach-O",
        _ => "COFF",
    };
    text += "\n| format | machine | implemented | compared | executed | neither |\n|---|---|---:|---:|---:|---:|\n";
    for ((format, machine), kinds) in all {
        let Kinds { implemented, compared, executed } = kinds;
        let counts = [implemented.len(), compared.len(), executed.len(), kinds.neither().len()];
        let counts = counts.map(|count| count.to_string());
        writeln!(text, "| {} | {machine} | {} |", title(format), counts.join(" | ")).unwrap();
    }
    text += "\nWhy some are in neither column, with nothing but unit tests by the ABI's words:\n\n";
    for (format, machine, names, why) in NEITHER {
        writeln!(text, "- {}, {machine}: {}: {why}.", title(format), names.join(", ")).unwrap();
    }
    for ((format, machine), kinds) in all {
        writeln!(text, "\n## {}, {machine}\n\n| number | kind | compared | executed |", title(format))
            .unwrap();
        text += "|---:|---|:---:|:---:|\n";
        for (number, name) in &kinds.implemented {
            let executed = if kinds.executed.contains(name) { "yes" } else { "" };
            let marks = [&kinds.compared.get(name).map(|ways| ways.join(", ")).unwrap_or_default(), executed];
            writeln!(text, "| {number} | {name} | {} | {} |", marks[0], marks[1]).unwrap();
        }
    }
    text
}
