//! An object that a build made long ago, here by gcc, loaded without cache or compiler: library calls, static
//! data and a constructor.
//!
//! `gcc -O2 -c kernels/primes.c -o primes.o && cargo run --release --example load_object primes.o`

use std::error::Error;
use std::ffi::{CStr, c_char};

use objcache::loader::{Loader, ProcessSymbols};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: load_object primes.o")?;
    let image = Loader::new().load(&std::fs::read(path)?, &ProcessSymbols)?;
    // SAFETY: the object's only constructor sets a static of its own.
    unsafe { image.run_initializers() };

    // SAFETY: the three signatures are those in primes.c.
    let primes = unsafe { image.get::<extern "C" fn(i64) -> i64>("primes") }?;
    // SAFETY: as above.
    let call_count = unsafe { image.get::<extern "C" fn() -> i32>("call_count") }?;
    // SAFETY: as above.
    let status = unsafe { image.get::<extern "C" fn() -> *const c_char>("status") }?;

    assert_eq!(call_count(), 100, "the constructor has run");
    let count = primes(1_000_000);
    assert_eq!((count, call_count()), (78_498, 101));
    // SAFETY: primes.c returns string literals.
    let status = unsafe { CStr::from_ptr(status()) };
    println!("{count} primes below a million; status: {}", status.to_str()?);
    Ok(())
}
