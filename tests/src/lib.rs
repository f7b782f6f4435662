//! What the cross-crate tests share: a compiler that keeps a log, and processes that use the engine.

#![forbid(unsafe_code)]

mod logging;
mod process;

pub use logging::LoggingCompiler;
pub use process::{Answer, KernelProcess, Running};
