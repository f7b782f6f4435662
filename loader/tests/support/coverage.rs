//! Which relocation kinds a suite has shown to work: lists in `tests/coverage/`, one per column of the table
//! `RELOCATIONS.md`, format and machine. A suite that finds its list to be another than the committed one fails;
//! `OBJCACHE_BLESS=1` writes it anew, and then the table (the test `coverage`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coverage")
}

pub fn is_blessing() -> bool {
    std::env::var_os("OBJCACHE_BLESS").is_some_and(|value| value == "1")
}

/// For suites that see the same kinds wherever they run. `column` is one of `compared` and `executed`, and may go on with
/// a hyphen and the suite's name when several suites fill it; `format` is `elf`, `macho` or `coff`, `machine` as in a link
/// map; kinds are called as the loader calls them in messages. [`names`] knows them by number.
pub fn keep(column: &str, format: &str, machine: &str, kinds: &BTreeSet<String>) {
    check(column, format, machine, kinds, |listed| listed == kinds);
}

/// For suites whose kinds depend on what compilers emit: all that is listed must be seen, more may be.
pub fn keep_at_least(column: &str, format: &str, machine: &str, kinds: &BTreeSet<String>) {
    check(column, format, machine, kinds, |listed| listed.is_subset(kinds));
}

fn check(
    column: &str,
    format: &str,
    machine: &str,
    kinds: &BTreeSet<String>,
    is_right: impl Fn(&BTreeSet<String>) -> bool,
) {
    let path = directory().join(format!("{column}.{format}.{machine}.txt"));
    if is_blessing() {
        std::fs::create_dir_all(directory()).unwrap();
        let lines: String = kinds.iter().map(|kind| format!("{kind}\n")).collect();
        std::fs::write(&path, lines).unwrap();
        return;
    }
    let listed = read(&path);
    let difference: Vec<_> = listed.symmetric_difference(kinds).collect();
    assert!(
        is_right(&listed),
        "{} is not what this test saw (OBJCACHE_BLESS=1 rewrites it): {difference:?}",
        path.display()
    );
}

/// The kinds in a list; none if there is no such file.
pub fn read(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Numbers and names of the kinds that the loader does.
pub fn implemented(format: &str, machine: &str) -> Vec<(u32, String)> {
    let lines = read(&directory().join(format!("implemented.{format}.{machine}.txt")));
    let kinds = lines.iter().map(|line| line.trim().split_once(' ').unwrap());
    kinds.map(|(number, name)| (number.parse().unwrap(), name.to_owned())).collect()
}

/// What the loader calls the kinds of these numbers, of those that it does.
pub fn names(format: &str, machine: &str, numbers: impl IntoIterator<Item = u32>) -> BTreeSet<String> {
    let kinds = implemented(format, machine);
    let name = |number| Some(kinds.iter().find(|(other, _)| *other == number)?.1.clone());
    numbers.into_iter().filter_map(name).collect()
}
