//! Objects looked into without loading them: what compilers made, and damaged bytes.

mod support;

use objcache_loader::{Segment, SymbolKind, inspect};
use support::*;

const SOURCE: &str = "extern int f(int); int table[] = {1, 2}; int *pointer = table; int zero[9];
    __attribute__((weak)) int g(int n) { return f(n) + *pointer + zero[n]; }";

#[test]
fn what_a_compiler_made_is_seen() {
    if !has(GCC) {
        return;
    }
    let object = compile_text(GCC, &["-O1", "-fPIC"], "c", SOURCE);
    let seen = inspect(&object).unwrap();
    assert_eq!(seen.format, "elf");
    let symbol = |name: &str| seen.symbols.iter().find(|symbol| symbol.name == name).unwrap();
    let section =
        |number: Option<usize>| seen.sections.iter().find(|section| Some(section.number) == number).unwrap();
    let g = symbol("g");
    assert_eq!((g.kind, g.binding, g.place), (SymbolKind::Function, "weak", "section"));
    let code = section(g.section);
    assert_eq!(code.segment, Segment::Code);
    assert!(code.relocations.iter().any(|it| it.symbol == "f" && it.kind.starts_with("R_")));
    assert!(code.relocations.is_sorted_by_key(|it| it.offset));
    assert_eq!((symbol("f").place, symbol("table").size), ("undefined", 8));
    let zero = section(symbol("zero").section);
    assert!(zero.bytes.is_empty() && zero.size >= 36);
    let pointer = section(symbol("pointer").section);
    assert!(pointer.relocations.iter().any(|it| it.symbol == "table" && it.addend == Some(0)));
}

#[test]
fn damaged_objects_end_in_an_answer() {
    if !has(GCC) {
        return;
    }
    let object = compile_text(GCC, &["-O1", "-fPIC", "-g"], "c", SOURCE);
    let mut refused = 0;
    for at in 0..object.len() {
        let mut damaged = object.clone();
        damaged[at] ^= 1 << (at % 8);
        refused += usize::from(inspect(&damaged).is_err());
    }
    for length in (0..object.len()).step_by(7) {
        refused += usize::from(inspect(&object[..length]).is_err());
    }
    assert!(refused > 100, "{refused}");
}
