//! Compile once, keep the object, load it: the front door of objcache.
//!
//! An [`Engine`] asks the cache before it compiles, offers every fresh object back, and loads the result:
//!
//! ```no_run
//! use objcache::cache::{Store, StoreOptions};
//! use objcache::{CompileRequest, CraneliftCompiler, Engine, Source};
//!
//! let cache = Store::open_or_degrade(StoreOptions::from_environment());
//! let engine = Engine::builder(cache, CraneliftCompiler::new()?).build();
//! let loaded = engine.load(&CompileRequest::new(Source::read("kernels/mandelbrot.clif")?))?;
//! // SAFETY: the kernel's signature is `(f64, f64, i32) -> i32`.
//! let escape = unsafe { loaded.image.get::<extern "C" fn(f64, f64, i32) -> i32>("escape") }?;
//! println!("{} after {:?}", escape(-0.5, 0.5, 1000), loaded.outcome);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The engine knows neither which store it asks nor which compiler it drives: both are traits.

#![deny(unsafe_code)]

pub mod call;
mod command;
mod compiler;
mod cpu;
#[cfg(feature = "cranelift")]
mod cranelift;
mod dump;
mod engine;
mod error;
mod lazy;
mod request;
mod why;

pub use command::CommandCompiler;
pub use compiler::{Compiler, Prepared};
pub use cpu::needed_cpu_features;
#[cfg(feature = "cranelift")]
pub use cranelift::CraneliftCompiler;
pub use dump::DumpDirectory;
pub use engine::{Engine, EngineBuilder, EngineError, Loaded, Obtained, Timings};
pub use error::{CompileError, Stage};
pub use request::{CompileRequest, Source};
pub use why::{Nearest, Sought, nearest};

pub use objcache_cache as cache;
pub use objcache_cache::Outcome;
pub use objcache_loader as loader;
pub use objcache_signature as signature;

/// Keeps the README's code compiling.
#[cfg(all(doctest, feature = "cranelift"))]
#[doc = include_str!("../../README.md")]
struct Readme;
