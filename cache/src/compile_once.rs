//! Compile once: look, keep others out, look again, compile, offer.
//!
//! The second look is what makes it *once*: whoever waited finds what the one before them left. The offer is
//! made while the permit is held, so that nobody slips in between.

use std::time::{Duration, Instant};

use objcache_signature::{Provenance, Signature};

use crate::error::CacheError;
use crate::object::{CompileFailure, CompiledObject, ObjectBuffer};
use crate::object_cache::ObjectCache;

/// For every [`ObjectCache`]: the call that engines should use.
pub trait CompileOnce {
    /// The object of `signature`: from the cache, or else from `compile`, whose result is offered to the cache.
    ///
    /// When the cache excludes ([`ObjectCache::exclude_others`]), `compile` runs once among all threads and
    /// processes that ask at the same time. If the one who compiles fails or dies, the next compiles.
    ///
    /// # Errors
    /// [`GetOrCompileError::Compile`] is the error of `compile`. [`GetOrCompileError::Cache`] comes from
    /// strict caches only.
    fn get_or_compile<E>(
        &self,
        signature: &Signature,
        compile: impl FnOnce() -> Result<Offer, E>,
    ) -> Result<Fetched, GetOrCompileError<E>>;

    /// The same, and failures are remembered where the cache does that: who asks again soon, in this process or
    /// another, gets what the compiler said without compiling.
    ///
    /// `diagnose` tells of an error what to remember; `None`, not to: what failed was not the source but its
    /// compiler, which was missing, was killed, or had no memory or disk left.
    ///
    /// # Errors
    /// As [`get_or_compile`](Self::get_or_compile), and [`GetOrCompileError::Remembered`].
    fn get_or_compile_or_remember<E>(
        &self,
        signature: &Signature,
        compile: impl FnOnce() -> Result<Offer, E>,
        diagnose: impl FnOnce(&E) -> Option<CompileFailure>,
    ) -> Result<Fetched, GetOrCompileError<E>>;
}

/// What `compile` hands over: the object and what is kept beside it. The compile time is measured here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// The object file.
    pub object: Vec<u8>,
    /// The key document of the signature; may be empty.
    pub key_document: Vec<u8>,
    /// Where the object came from.
    pub provenance: Provenance,
    /// The namespace the entry is listed under; may be empty.
    pub namespace: String,
    /// The CPU features that the object's code may use, each as `machine/name`; may be empty.
    pub cpu_features: Vec<String>,
}

/// An object, and how it was come by.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The object file.
    pub object: ObjectBuffer,
    /// Whether the cache had it.
    pub outcome: Outcome,
    /// Time spent asking the cache and waiting for others who compile the same.
    pub lookup: Duration,
    /// Time spent in `compile`; `None` for a hit.
    pub compile: Option<Duration>,
}

/// Whether the cache had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The object came from the cache; `compile` did not run here.
    Hit,
    /// `compile` ran.
    Miss,
}

/// Why there is no object.
#[derive(Debug, thiserror::Error)]
pub enum GetOrCompileError<E> {
    /// The compilation failed.
    #[error("{0}")]
    Compile(E),
    /// The same compilation failed not long ago.
    #[error("{}", .0.diagnostics())]
    Remembered(CompileFailure),
    /// A strict cache is in trouble.
    #[error(transparent)]
    Cache(CacheError),
}

impl<C: ObjectCache + ?Sized> CompileOnce for C {
    fn get_or_compile<E>(
        &self,
        signature: &Signature,
        compile: impl FnOnce() -> Result<Offer, E>,
    ) -> Result<Fetched, GetOrCompileError<E>> {
        let look = || self.get_object(signature).map_err(GetOrCompileError::Cache);
        fetch(self, signature, look, compile, |_| Ok(()))
    }

    fn get_or_compile_or_remember<E>(
        &self,
        signature: &Signature,
        compile: impl FnOnce() -> Result<Offer, E>,
        diagnose: impl FnOnce(&E) -> Option<CompileFailure>,
    ) -> Result<Fetched, GetOrCompileError<E>> {
        let look = || {
            if let Some(object) = self.get_object(signature).map_err(GetOrCompileError::Cache)? {
                return Ok(Some(object));
            }
            match self.get_failure(signature).map_err(GetOrCompileError::Cache)? {
                Some(failure) => Err(GetOrCompileError::Remembered(failure)),
                None => Ok(None),
            }
        };
        let failed = |error: &E| match diagnose(error) {
            Some(failure) => self.notify_compile_failed(signature, &failure),
            None => Ok(()),
        };
        fetch(self, signature, look, compile, failed)
    }
}

/// Looks, waits, looks again, compiles, offers. A failure is told of while others still wait.
fn fetch<C: ObjectCache + ?Sized, E>(
    cache: &C,
    signature: &Signature,
    look: impl Fn() -> Result<Option<ObjectBuffer>, GetOrCompileError<E>>,
    compile: impl FnOnce() -> Result<Offer, E>,
    failed: impl FnOnce(&E) -> Result<(), CacheError>,
) -> Result<Fetched, GetOrCompileError<E>> {
    let started = Instant::now();
    let hit = |object| Fetched { object, outcome: Outcome::Hit, lookup: started.elapsed(), compile: None };
    if let Some(object) = look()? {
        return Ok(hit(object));
    }
    let permit = cache.exclude_others(signature);
    // Also without a permit: a wait that ran out is long, and the object may be there by now.
    if let Some(object) = look()? {
        return Ok(hit(object));
    }
    let lookup = started.elapsed();

    let started = Instant::now();
    let offer = match compile() {
        Ok(offer) => offer,
        Err(error) => {
            // The compiler's error is what counts, whatever the cache makes of it.
            let _ = failed(&error);
            return Err(GetOrCompileError::Compile(error));
        }
    };
    let compile_time = started.elapsed();
    cache
        .notify_object_compiled(&CompiledObject {
            signature: *signature,
            object: &offer.object,
            key_document: &offer.key_document,
            provenance: &offer.provenance,
            namespace: &offer.namespace,
            compile_time,
            cpu_features: &offer.cpu_features,
        })
        .map_err(GetOrCompileError::Cache)?;
    drop(permit);
    let object = ObjectBuffer::from(offer.object);
    Ok(Fetched { object, outcome: Outcome::Miss, lookup, compile: Some(compile_time) })
}
