//! Loads each object some hundred times with our loader, for a profile: `train OBJECT…`. Nothing is called, so whatever the process
//! does not define may be anywhere.

#![deny(unsafe_code)]

use objcache_loader::{Loader, ProcessSymbols, SymbolResolver};

/// The process's symbols, and one address for all others.
struct Anything;

impl SymbolResolver for Anything {
    fn resolve(&self, name: &str) -> Option<u64> {
        ProcessSymbols.resolve(name).or(Some(0x1000))
    }
}

fn main() {
    let loader = Loader::new();
    for path in std::env::args().skip(1) {
        let object = std::fs::read(&path).expect("an object");
        for _ in 0..300 {
            if let Err(error) = loader.load(&object, &Anything) {
                panic!("{path}: {error}");
            }
        }
    }
}
