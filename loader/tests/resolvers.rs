//! What every resolver promises, run over all of them.

mod support;

use std::sync::Arc;

use objcache_loader::{
    AbsoluteSymbols, NoSymbols, ProcessSymbols, SharedLibrary, SymbolResolver, chain, filtered, from_fn,
    strip_prefix,
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

/// Has a name that objects may have to ask for, and is not there for weak references to it.
#[derive(Clone, Copy)]
struct Particular;

impl SymbolResolver for Particular {
    fn resolve(&self, _name: &str) -> Option<u64> {
        Some(7)
    }

    fn resolve_weak(&self, name: &str) -> Option<u64> {
        (name == "strong_only").then_some(8)
    }

    fn preempts(&self, name: &str) -> bool {
        name == "first"
    }
}

#[test]
fn what_asks_another_asks_it_everything() {
    let around: [Box<dyn SymbolResolver>; 5] = [
        Box::new(chain(Particular, NoSymbols)),
        Box::new(chain(NoSymbols, Particular)),
        Box::new(strip_prefix("", Particular)),
        Box::new(filtered(Particular, |_| true)),
        Box::new(Box::new(Particular)),
    ];
    for resolver in &around {
        assert_eq!((resolver.resolve("a"), resolver.resolve_weak("a")), (Some(7), None));
        assert_eq!(resolver.resolve_weak("strong_only"), Some(8));
        assert_eq!((resolver.preempts("first"), resolver.preempts("a")), (true, false));
    }
    let none = filtered(Particular, |_| false);
    assert_eq!((none.resolve("first"), none.preempts("first")), (None, false));
    assert_eq!(strip_prefix("_", Particular).resolve_weak("strong_only"), None);
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

/// `memcpy` of programs from before glibc 2.14 is another function than today's.
#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
#[test]
fn a_version_of_a_symbol_is_found_by_name_and_version() {
    if !support::has(support::GCC) {
        return;
    }
    let source = "__asm__(\".symver old, memcpy@GLIBC_2.2.5\");
        void *old(void *, const void *, unsigned long);
        void *get(void) { return old; }";
    let object = support::compile_text(support::GCC, &["-O1", "-fPIC"], "c", source);
    let image = objcache_loader::Loader::new().load(&object, &ProcessSymbols).unwrap();
    // SAFETY: a function without arguments that gives a pointer, as its source shows.
    let get = unsafe { image.get::<extern "C" fn() -> u64>("get") }.unwrap();
    // SAFETY: the handle is valid; both are C strings.
    let old = unsafe { libc::dlvsym(libc::RTLD_DEFAULT, c"memcpy".as_ptr(), c"GLIBC_2.2.5".as_ptr()) };
    assert_eq!((get(), old.is_null()), (old as u64, false));
    for unknown in ["memcpy@GLIBC_0", "memcpy@", "@GLIBC_2.2.5", "@"] {
        assert_eq!(ProcessSymbols.resolve(unknown), None, "{unknown}");
    }
}
