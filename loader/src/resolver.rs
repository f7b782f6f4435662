//! What names mean: where the symbols an object does not define itself come from.
//!
//! A name is `&str`: symbols that compilers make are UTF-8. An object that asks for a name that is not gets the answer
//! "unresolved" without any resolver being asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Finds the address of a symbol. Called from many threads at once, also for the same name, at most once per symbol
/// and load. `None` means "not mine": the next resolver of a [`chain`] is asked, and in the end the load fails,
/// unless the reference is weak.
pub trait SymbolResolver: Send + Sync {
    /// Target address of the symbol with that name.
    fn resolve(&self, name: &str) -> Option<u64>;

    /// The same for a weak reference, which may stay undefined: a resolver that would have to make a definition first
    /// does not.
    fn resolve_weak(&self, name: &str) -> Option<u64> {
        self.resolve(name)
    }

    /// Whether a definition known here is used in place of a weak one that an ELF object has itself.
    /// [`resolve`](Self::resolve) is asked for it then. [`Library`](crate::Library) says so of the names it has; other
    /// resolvers leave objects what they define. This may be asked more than once per symbol and load.
    fn preempts(&self, name: &str) -> bool {
        let _ = name;
        false
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<R: SymbolResolver + ?Sized> SymbolResolver for $pointer {
            fn resolve(&self, name: &str) -> Option<u64> {
                (**self).resolve(name)
            }
            fn resolve_weak(&self, name: &str) -> Option<u64> {
                (**self).resolve_weak(name)
            }
            fn preempts(&self, name: &str) -> bool {
                (**self).preempts(name)
            }
        }
    )*};
}
forward!(&R, Box<R>, Arc<R>);

/// Knows no symbol: for objects that need none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSymbols;

impl SymbolResolver for NoSymbols {
    fn resolve(&self, _name: &str) -> Option<u64> {
        None
    }
}

/// Gives every name an address of its own where nothing is: for links that are only looked at. Made addresses are 16 bytes
/// apart and go down from a start.
#[derive(Debug)]
pub struct PhonySymbols {
    below: u64,
    known: Mutex<BTreeMap<String, u64>>,
}

impl PhonySymbols {
    /// All addresses are below this one.
    pub fn below(address: u64) -> Self {
        PhonySymbols { below: address & !15, known: Mutex::default() }
    }
}

impl SymbolResolver for PhonySymbols {
    fn resolve(&self, name: &str) -> Option<u64> {
        let mut known = self.known.lock();
        let next = self.below.checked_sub(16 * (known.len() as u64 + 1))?;
        Some(*known.entry(name.to_owned()).or_insert(next))
    }
}

/// Symbols with addresses given by the program.
#[derive(Debug, Clone, Default)]
pub struct AbsoluteSymbols {
    addresses: BTreeMap<String, u64>,
}

impl AbsoluteSymbols {
    /// No symbols yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Defines a symbol, or gives it another address.
    pub fn define(&mut self, name: impl Into<String>, address: u64) -> &mut Self {
        self.addresses.insert(name.into(), address);
        self
    }

    /// Defines a symbol, in a chain of calls.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, address: u64) -> Self {
        self.define(name, address);
        self
    }
}

impl<N: Into<String>> FromIterator<(N, u64)> for AbsoluteSymbols {
    fn from_iter<I: IntoIterator<Item = (N, u64)>>(symbols: I) -> Self {
        AbsoluteSymbols {
            addresses: symbols.into_iter().map(|(name, address)| (name.into(), address)).collect(),
        }
    }
}

impl SymbolResolver for AbsoluteSymbols {
    fn resolve(&self, name: &str) -> Option<u64> {
        self.addresses.get(name).copied()
    }
}

/// A closure as a resolver.
pub fn from_fn<F>(resolve: F) -> FromFn<F>
where
    F: Fn(&str) -> Option<u64> + Send + Sync,
{
    FromFn(resolve)
}

/// What [`from_fn`] makes.
#[derive(Debug, Clone, Copy)]
pub struct FromFn<F>(F);

impl<F: Fn(&str) -> Option<u64> + Send + Sync> SymbolResolver for FromFn<F> {
    fn resolve(&self, name: &str) -> Option<u64> {
        (self.0)(name)
    }
}

/// Asks `first`, then `second`.
pub fn chain<A: SymbolResolver, B: SymbolResolver>(first: A, second: B) -> Chain<A, B> {
    Chain(first, second)
}

/// What [`chain`] makes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chain<A, B>(A, B);

impl<A: SymbolResolver, B: SymbolResolver> SymbolResolver for Chain<A, B> {
    fn resolve(&self, name: &str) -> Option<u64> {
        self.0.resolve(name).or_else(|| self.1.resolve(name))
    }

    fn resolve_weak(&self, name: &str) -> Option<u64> {
        self.0.resolve_weak(name).or_else(|| self.1.resolve_weak(name))
    }

    fn preempts(&self, name: &str) -> bool {
        self.0.preempts(name) || self.1.preempts(name)
    }
}

/// Asks for names without the prefix that an object format puts before those of C, as Mach-O does with an underscore:
/// `strip_prefix("_", ProcessSymbols)` finds `printf` for code compiled for macOS, which asks for `_printf`. Names that do
/// not begin with the prefix are unknown.
pub fn strip_prefix<R: SymbolResolver>(prefix: &'static str, resolver: R) -> StripPrefix<R> {
    StripPrefix { prefix, resolver }
}

/// What [`strip_prefix`] makes.
#[derive(Debug, Clone, Copy)]
pub struct StripPrefix<R> {
    prefix: &'static str,
    resolver: R,
}

impl<R: SymbolResolver> SymbolResolver for StripPrefix<R> {
    fn resolve(&self, name: &str) -> Option<u64> {
        self.resolver.resolve(name.strip_prefix(self.prefix)?)
    }

    fn resolve_weak(&self, name: &str) -> Option<u64> {
        self.resolver.resolve_weak(name.strip_prefix(self.prefix)?)
    }

    fn preempts(&self, name: &str) -> bool {
        name.strip_prefix(self.prefix).is_some_and(|name| self.resolver.preempts(name))
    }
}
