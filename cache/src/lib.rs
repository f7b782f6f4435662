//! Compiled objects by signature.
//!
//! A cache is asked for an object by the [`Signature`](objcache_signature::Signature) of its compilation, and
//! offered the object after a miss ([`ObjectCache`]). Engines call [`CompileOnce::get_or_compile`], which
//! compiles once even when many threads and processes ask at the same time. What administration needs is in
//! [`CacheAdmin`].
//!
//! | cache | kept | shared by | for |
//! |---|---|---|---|
//! | [`Store`] | one file per entry in a directory | all processes of a user | the default |
//! | [`SledCache`] | in one sled database | the threads of one process | embedders |
//! | [`Tiered`] | in memory, before another cache | the threads of one process | what is used again and again |
//! | [`MemoryCache`] | in memory | the threads of one process | tests, short lives |
//!
//! The one idea: a broken cache costs a compilation, never a result and never the program. Every entry is
//! verified on every look-up, bound to its own signature, and anything doubtful is a miss.
//!
//! This crate knows nothing of objects' insides, of IR, or of compilers.
//!
//! ```
//! use objcache_cache::{CompileOnce, Offer, Outcome, Store, StoreOptions};
//! use objcache_signature::Signature;
//!
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path().join("objcache");
//! let store = Store::open(StoreOptions::at(directory))?;
//! let signature = Signature::from_bytes([7; 32]); // `Signature::of(&inputs)` in earnest
//! let compile = || Ok::<_, std::io::Error>(Offer { object: b"\x7fELF...".to_vec(), ..Offer::default() });
//!
//! let first = store.get_or_compile(&signature, compile)?;
//! assert_eq!(first.outcome, Outcome::Miss);
//! let second = store.get_or_compile(&signature, compile)?;
//! assert_eq!(second.outcome, Outcome::Hit);
//! assert_eq!(second.object, first.object);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod admin;
mod buffer;
mod clock;
mod codec;
mod compile_once;
mod compression;
mod cpu;
mod digest;
mod document;
mod entry;
mod error;
mod evict;
mod failures;
mod index;
mod keyed_lock;
mod known;
mod latency;
mod memory;
mod object;
mod object_cache;
mod openmetrics;
mod pack;
mod parallel;
mod shelf;
mod signature_hash;
mod sled_cache;
mod sled_guard;
mod store;
mod tiered;
mod trust;
mod warning;

pub use admin::{
    CacheAdmin, CacheStats, ClearReport, DamagedEntry, EntryInfo, EntryRecord, GcLimits, GcReport, Progress,
    VerifyOptions, VerifyReport,
};
pub use compile_once::{CompileOnce, Fetched, GetOrCompileError, Offer, Outcome};
pub use compression::{Codec, Compression};
pub use cpu::{HostFeatures, detectable_features};
pub use error::{CacheError, Reason};
pub use evict::choose_victims;
pub use latency::Latencies;
pub use memory::MemoryCache;
pub use object::{CompileFailure, CompiledObject, ObjectBuffer};
pub use object_cache::{CompilePermit, FailedCompile, FromFn, ObjectCache, RunMark, from_fn};
pub use pack::{Pack, PackEntry, PackSummary};
pub use sled_cache::SledCache;
pub use store::{
    CatalogueCheck, Check, CheckState, Configuration, DEFAULT_MAX_SIZE, DiskUsage, Fault, Finding,
    FsckReport, ImportReport, LayerInfo, LayerKind, LeftAside, Miss, MissEnd, Origin, PROJECT_FILE, PackMode,
    PackReport, PackSelection, RecompressPolicy, RecompressReport, Recompressed, SETTINGS, SMALLEST_MAX_SIZE,
    Setting, Store, StoreOptions, Trace, TraceState, Untold, closest, examine, parse_size, parse_span,
    unmark_running,
};
pub use tiered::Tiered;
pub use trust::{KeyError, MacKey, PublicKey, SigningKey, Trust, read_trusted_keys};
