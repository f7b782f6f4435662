//! Which relocation kinds a suite has shown to work: lists in `tests/coverage/`, one per column of the table
//! `docs/RELOCATIONS.md`, format and machine. A suite that finds its list to be another than the committed one fails;
//! `OBJCACHE_BLESS=1` writes it anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/coverage")
}

pub fn is_blessing() -> bool {
    std::env::var_os("OBJCACHE_BLESS").is_some_and(|value| value == "1")
}

/// For suites that see the same kinds wherever they run. `column` is one of `compared` and `executed`, and may go on with
/// a hyphen and the suite's name when several suites fill it; kinds are called as their psABI does.
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
        let lines: Vec<&str> = kinds.iter().map(String::as_str).collect();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
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
