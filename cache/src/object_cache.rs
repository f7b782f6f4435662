//! The trait a cache implements: ask by signature, offer after a compilation. Two methods decide everything;
//! the third lets a cache keep others from compiling the same thing at the same time, and the rest tell of what
//! failed, and of uses.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use objcache_signature::{Provenance, Signature};

use crate::error::CacheError;
use crate::object::{CompileFailure, CompiledObject, ObjectBuffer};

/// Compiled objects by signature.
///
/// Promises, each a test of the conformance suite:
/// - All methods may be called from many threads at once.
/// - What was accepted by [`notify_object_compiled`](Self::notify_object_compiled) comes back byte for byte
///   or not at all: a cache may forget at any time, and never serves other bytes.
/// - After an error the cache is as usable as before.
pub trait ObjectCache: Send + Sync {
    /// The object of `signature`, or `None`: compile it.
    ///
    /// # Errors
    /// A cache in trouble answers `None`. It returns an error only when its user asked for that (`strict`).
    fn get_object(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError>;

    /// Offers a compiled object. The cache may decline it silently. Offering a signature again is harmless.
    ///
    /// # Errors
    /// As [`get_object`](Self::get_object).
    fn notify_object_compiled(&self, compiled: &CompiledObject<'_>) -> Result<(), CacheError>;

    /// Tells of uses of an object that a cache before this one answered (see [`Tiered`](crate::Tiered)), so that its entry is
    /// not taken for unused. Its compilation took `compile_time_us`, as far as that is known.
    fn notify_used(&self, signature: &Signature, times: u64, compile_time_us: u64) {
        let _ = (signature, times, compile_time_us);
    }

    /// How the compilation of `signature` failed, if that is remembered. Asked after a miss.
    ///
    /// # Errors
    /// As [`get_object`](Self::get_object).
    fn get_failure(&self, signature: &Signature) -> Result<Option<CompileFailure>, CacheError> {
        let _ = signature;
        Ok(None)
    }

    /// Tells of a compilation that failed because of what was compiled. A cache remembers it for a while, or
    /// not at all, which is the default.
    ///
    /// # Errors
    /// As [`get_object`](Self::get_object).
    fn notify_compile_failed(
        &self,
        signature: &Signature,
        failure: &CompileFailure,
    ) -> Result<(), CacheError> {
        let _ = (signature, failure);
        Ok(())
    }

    /// Tells of an object of this cache that does not load, and is about to be compiled afresh.
    ///
    /// # Errors
    /// As [`get_object`](Self::get_object).
    fn notify_does_not_load(&self, signature: &Signature, why: &dyn fmt::Display) -> Result<(), CacheError> {
        let _ = (signature, why);
        Ok(())
    }

    /// Tells of a compilation that gave no object, for whatever reason, and of what was compiled. A cache may note it, to say
    /// later what was compiled last and why it was not found.
    fn notify_no_object(&self, failed: &FailedCompile<'_>) {
        let _ = failed;
    }

    /// Waits until nobody else compiles `signature`, then keeps others out until the permit is dropped or its
    /// holder dies.
    ///
    /// `None`: this cache does not exclude, or its bound on waiting ran out; compile anyway.
    fn exclude_others(&self, signature: &Signature) -> Option<CompilePermit> {
        let _ = signature;
        None
    }

    /// Says that the code of `signature` is about to run, until the mark is dropped. A cache that keeps count
    /// sees by it whose code kills its processes, and takes that out: so ask before the look-up.
    ///
    /// `None`: this cache does not keep count.
    fn mark_running(&self, signature: &Signature) -> Option<RunMark> {
        let _ = signature;
        None
    }
}

/// A compilation that gave no object.
#[derive(Debug, Clone, Copy)]
pub struct FailedCompile<'a> {
    /// Names the compilation.
    pub signature: Signature,
    /// The key document the signature was made of. Opaque here; may be empty.
    pub key_document: &'a [u8],
    /// Where it was to be compiled.
    pub provenance: &'a Provenance,
}

/// While it lives, others who ask for the same signature through [`ObjectCache::exclude_others`] wait.
pub struct CompilePermit {
    // Dropped for its effect.
    _held: Box<dyn Any + Send>,
}

impl CompilePermit {
    /// A permit that ends when `held` is dropped.
    pub fn holding(held: impl Any + Send) -> Self {
        Self { _held: Box::new(held) }
    }
}

impl fmt::Debug for CompilePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompilePermit")
    }
}

/// While it lives, code of an entry runs; see [`ObjectCache::mark_running`]. A process that dies leaves it behind.
pub struct RunMark {
    is_suspect: bool,
    // Dropped for its effect.
    _held: Box<dyn Any + Send + Sync>,
}

impl RunMark {
    /// A mark that ends when `held` is dropped. `is_suspect`: the code has killed too many processes.
    pub fn holding(is_suspect: bool, held: impl Any + Send + Sync) -> Self {
        Self { is_suspect, _held: Box::new(held) }
    }

    /// Whether the code has killed so many processes that it should be compiled afresh, wherever it comes from.
    pub fn is_suspect(&self) -> bool {
        self.is_suspect
    }
}

impl fmt::Debug for RunMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunMark").field("is_suspect", &self.is_suspect).finish_non_exhaustive()
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<T: ObjectCache + ?Sized> ObjectCache for $pointer {
            fn get_object(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
                (**self).get_object(signature)
            }

            fn notify_object_compiled(&self, compiled: &CompiledObject<'_>) -> Result<(), CacheError> {
                (**self).notify_object_compiled(compiled)
            }

            fn notify_used(&self, signature: &Signature, times: u64, compile_time_us: u64) {
                (**self).notify_used(signature, times, compile_time_us);
            }

            fn get_failure(&self, signature: &Signature) -> Result<Option<CompileFailure>, CacheError> {
                (**self).get_failure(signature)
            }

            fn notify_compile_failed(
                &self,
                signature: &Signature,
                failure: &CompileFailure,
            ) -> Result<(), CacheError> {
                (**self).notify_compile_failed(signature, failure)
            }

            fn notify_does_not_load(
                &self,
                signature: &Signature,
                why: &dyn fmt::Display,
            ) -> Result<(), CacheError> {
                (**self).notify_does_not_load(signature, why)
            }

            fn notify_no_object(&self, failed: &FailedCompile<'_>) {
                (**self).notify_no_object(failed);
            }

            fn exclude_others(&self, signature: &Signature) -> Option<CompilePermit> {
                (**self).exclude_others(signature)
            }

            fn mark_running(&self, signature: &Signature) -> Option<RunMark> {
                (**self).mark_running(signature)
            }
        }
    )*};
}

forward!(&T, Box<T>, Arc<T>);

/// A cache made of two closures: one that is asked, one that is offered.
///
/// ```
/// use objcache_cache::{ObjectCache, from_fn};
/// use objcache_signature::Signature;
///
/// let never = from_fn(|_| Ok(None), |_| Ok(()));
/// assert!(never.get_object(&Signature::from_bytes([7; 32]))?.is_none());
/// # Ok::<(), objcache_cache::CacheError>(())
/// ```
pub fn from_fn<G, N>(get: G, notify: N) -> FromFn<G, N>
where
    G: Fn(&Signature) -> Result<Option<ObjectBuffer>, CacheError> + Send + Sync,
    N: Fn(&CompiledObject<'_>) -> Result<(), CacheError> + Send + Sync,
{
    FromFn { get, notify }
}

/// What [`from_fn`] makes.
#[derive(Clone, Copy)]
pub struct FromFn<G, N> {
    get: G,
    notify: N,
}

impl<G, N> fmt::Debug for FromFn<G, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromFn")
    }
}

impl<G, N> ObjectCache for FromFn<G, N>
where
    G: Fn(&Signature) -> Result<Option<ObjectBuffer>, CacheError> + Send + Sync,
    N: Fn(&CompiledObject<'_>) -> Result<(), CacheError> + Send + Sync,
{
    fn get_object(&self, signature: &Signature) -> Result<Option<ObjectBuffer>, CacheError> {
        (self.get)(signature)
    }

    fn notify_object_compiled(&self, compiled: &CompiledObject<'_>) -> Result<(), CacheError> {
        (self.notify)(compiled)
    }
}
