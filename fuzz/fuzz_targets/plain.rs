//! Any bytes as an object for this process, linked in one go as far as it is plain, and in phases: both come to the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../loader/tests/support"]
mod support {
    pub mod apart;
    pub mod twice;
}

fuzz_target!(|bytes: &[u8]| {
    support::twice::link_damaged_twice(bytes);
});
