//! What undefined symbols of loaded code mean: what this process has, and the C++ run-time library.
//!
//! A program in Rust is not linked with the C++ run-time library, and code in C++ cannot do without. It is
//! opened when the first symbol is asked for that looks like its own, and stays.

use std::sync::OnceLock;

use objcache::loader::{ProcessSymbols, SharedLibrary, SymbolResolver, chain, from_fn};

use super::invoke;

/// The resolver for code that the user asked to be run.
pub(crate) fn resolver() -> impl SymbolResolver {
    static CXX: OnceLock<Option<SharedLibrary>> = OnceLock::new();
    let of_cxx = |name: &str| match is_cxx(name) {
        true => CXX.get_or_init(invoke::open_cxx_library).as_ref()?.resolve(name),
        false => None,
    };
    chain(ProcessSymbols, from_fn(of_cxx))
}

/// Whether this is a name of the Itanium C++ ABI: a mangled one, or one of its support library.
pub(crate) fn is_cxx(name: &str) -> bool {
    ["_Z", "__cxa_", "__gxx_"].iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cxx_are_told_from_others() {
        for name in ["_Znwm", "_ZSt4cout", "__cxa_throw", "__gxx_personality_v0"] {
            assert!(is_cxx(name), "{name}");
        }
        for name in ["malloc", "sin", "_exit", "__cxx", "Z"] {
            assert!(!is_cxx(name), "{name}");
        }
    }

    #[test]
    fn symbols_of_the_process_need_no_library() {
        assert!(resolver().resolve("malloc").is_some());
        assert_eq!(resolver().resolve("nobody_defines_this"), None);
    }
}
