//! One warning per reason and process: whoever compiles a thousand files must not read it a thousand times.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::CacheError;

pub(crate) fn warn_once(error: &CacheError) {
    static WARNED: AtomicU64 = AtomicU64::new(0);
    let bit = 1 << (error.reason() as u8);
    if WARNED.fetch_or(bit, Ordering::Relaxed) & bit == 0 {
        let reason = error.reason().as_str();
        tracing::warn!(target: "objcache", reason, "{error}; going on without");
    }
}
