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

- *compared*: the bytes are those that a linker we did not write makes of it, `ld.lld`, `lld-link` or `ld64.lld`, for
  values at, around and beyond every limit. Where that linker does not know a kind there is nothing to compare with.
- *executed*: code with such relocations has run, in this process or under qemu, with the right results.

A kind that is not here is refused by name.
";

/// The kinds of one format and machine.
struct Kinds {
    implemented: Vec<(u32, String)>,
    compared: BTreeSet<String>,
    executed: BTreeSet<String>,
}

#[test]
fn the_table_is_what_the_tests_saw() {
    let table = table(&all_kinds());
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
            let kinds = Kinds { implemented, compared: BTreeSet::new(), executed: BTreeSet::new() };
            all.insert((format, machine), kinds);
        }
    }
    for path in &files {
        let (column, format, machine) = parts(path);
        let kinds: &mut Kinds =
            all.get_mut(&(format, machine)).unwrap_or_else(|| panic!("{}", path.display()));
        let seen = match column.split('-').next() {
            Some("implemented") => continue,
            Some("compared") => &mut kinds.compared,
            Some("executed") => &mut kinds.executed,
            _ => panic!("{}", path.display()),
        };
        for name in coverage::read(path) {
            let is_done = kinds.implemented.iter().any(|(_, kind)| *kind == name);
            assert!(is_done, "{}: the loader does not do {name}", path.display());
            seen.insert(name);
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
        let names = implemented.iter().map(|(_, name)| name);
        let neither = names.filter(|name| !compared.contains(*name) && !executed.contains(*name)).count();
        let counts =
            [implemented.len(), compared.len(), executed.len(), neither].map(|count| count.to_string());
        writeln!(text, "| {} | {machine} | {} |", title(format), counts.join(" | ")).unwrap();
    }
    for ((format, machine), kinds) in all {
        writeln!(text, "\n## {}, {machine}\n\n| number | kind | compared | executed |", title(format))
            .unwrap();
        text += "|---:|---|:---:|:---:|\n";
        let mark = |seen: &BTreeSet<String>, name: &String| if seen.contains(name) { "yes" } else { "" };
        for (number, name) in &kinds.implemented {
            let marks = [mark(&kinds.compared, name), mark(&kinds.executed, name)];
            writeln!(text, "| {number} | {name} | {} | {} |", marks[0], marks[1]).unwrap();
        }
    }
    text
}
