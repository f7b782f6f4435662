//! The one place where the program runs code that it loaded.

#![allow(unsafe_code)] // Running loaded code is unsafe by nature; everything around it is not.

use std::time::{Duration, Instant};

use objcache::call::{self, CallError, Prototype, Value};
use objcache::loader::{LoadedImage, SharedLibrary};

/// Runs the image's initialisers (`.init_array`), as a C program's start does before `main`.
pub(crate) fn initialize(image: &LoadedImage) {
    // SAFETY: the user asked for this file to be run. Its initialisers take no arguments, all that they refer
    // to is resolved, and they have not run yet: the image was loaded for this one call.
    unsafe { image.run_initializers() }
}

/// Calls the function `repeat` times, once at least. Gives the last result and the median time of a call.
pub(crate) fn call(
    address: u64,
    prototype: &Prototype,
    values: &[Value],
    repeat: u32,
) -> Result<(Value, Duration), CallError> {
    let mut times = Vec::new();
    loop {
        let started = Instant::now();
        // SAFETY: the address is that of a function of an image that our caller keeps loaded. That it has this
        // prototype, and may be given these arguments, is what the user vouches for by asking for the call.
        let result = unsafe { call::call(address, prototype, values) }?;
        times.push(started.elapsed());
        if times.len() >= repeat as usize {
            times.sort_unstable();
            return Ok((result, times[times.len() / 2]));
        }
    }
}

/// The C++ run-time library, where it is installed.
pub(crate) fn open_cxx_library() -> Option<SharedLibrary> {
    let name = if cfg!(target_os = "macos") { c"libc++.1.dylib" } else { c"libstdc++.so.6" };
    // SAFETY: its initialisers set up the standard streams and locales, once for the process.
    let library = unsafe { SharedLibrary::open(name) };
    library.inspect_err(|why| tracing::warn!("C++ goes without its run-time library: {why}")).ok()
}
