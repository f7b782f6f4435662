//! What every resolver promises, run over all of them.

use std::sync::Arc;

use objcache_loader::{
    AbsoluteSymbols, NoSymbols, ProcessSymbols, SharedLibrary, SymbolResolver, chain, from_fn,
};

/// Resolvers with a name each of them knows.
fn resolvers() -> Vec<(&'static str, Box<dyn SymbolResolver>)> {
    let absolute = || AbsoluteSymbols::new().with("strlen", 0x1000).with("π", 3);
    static STATIC: ProcessSymbols = ProcessSymbols;
    vec![
        ("strlen", Box::new(absolute())),
        ("π", Box::new(absolute())),
        ("strlen", Box::new(ProcessSymbols)),
        ("cos", Box::new(SharedLibrary::math().expect("there is a libm"))),
        ("strlen", Box::new(from_fn(|name| (name == "strlen").then_some(7)))),
        ("strlen", Box::new(chain(NoSymbols, absolute()))),
        ("π", Box::new(chain(ProcessSymbols, absolute()))),
        ("strlen", Box::new(&STATIC)),
        ("strlen", Box::new(Box::new(ProcessSymbols))),
        ("strlen", Box::new(Arc::new(absolute()))),
        ("strlen", Box::new(Arc::new(absolute()) as Arc<dyn SymbolResolver>)),
    ]
}

#[test]
fn a_known_name_has_one_address() {
    for (name, resolver) in resolvers() {
        let address = resolver.resolve(name);
        assert!(address.is_some(), "{name}");
        assert_eq!(resolver.resolve(name), address);
    }
}

#[test]
fn an_unknown_name_is_none() {
    let long = "x".repeat(100_000);
    for (name, resolver) in resolvers() {
        let extended = format!("{name}_");
        for unknown in ["", "no_such_symbol_anywhere", "with\0nul", "strlen\0", &long, &extended, "ø"] {
            assert_eq!(resolver.resolve(unknown), None, "{unknown:?}");
        }
    }
}

#[test]
fn many_threads_get_the_same_answer() {
    for (name, resolver) in resolvers() {
        let expected = resolver.resolve(name);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..200).for_each(|_| assert_eq!(resolver.resolve(name), expected)));
            }
        });
    }
}

#[test]
fn the_first_of_a_chain_wins() {
    let first = AbsoluteSymbols::new().with("a", 1);
    let second = AbsoluteSymbols::from_iter([("a", 2), ("b", 3)]);
    let both = chain(&first, &second);
    assert_eq!(["a", "b", "c"].map(|name| both.resolve(name)), [Some(1), Some(3), None]);
}

#[test]
fn a_definition_can_be_replaced_and_may_be_zero() {
    let mut symbols = AbsoluteSymbols::new();
    symbols.define("a", 1).define("a", 0);
    assert_eq!(symbols.resolve("a"), Some(0));
}

#[test]
fn no_symbols_knows_nothing() {
    assert_eq!(NoSymbols.resolve("strlen"), None);
}

#[test]
fn a_library_that_is_not_there_is_an_error_with_its_name() {
    // SAFETY: there is no such library, so none of its initialisers runs.
    let error = unsafe { SharedLibrary::open(c"libno-such-library.so.99") }.unwrap_err();
    assert!(error.contains("libno-such-library.so.99"), "{error}");
}
