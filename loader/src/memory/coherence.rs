//! Instruction caches: what was written as data must be what is fetched as instructions, on every core.
//!
//! On x86 the hardware sees to that. Elsewhere the rules are the architecture's own: on AArch64 the program cleans and
//! invalidates cache lines (Arm ARM, "Synchronization and coherency issues between data and instruction accesses"), on
//! Arm and RISC-V the kernel does (`cacheflush(2)`, `riscv_flush_icache`). Invalidation reaches all cores; instructions
//! that a core has fetched already are forgotten at its next context synchronization event, for which the kernel is
//! asked (`membarrier(2)`, SYNC_CORE).

#![allow(unsafe_code)] // Instructions and system calls that take addresses.

use std::fmt;

use super::MemoryError;

/// Makes written code fit to be run.
pub trait InstructionCache: Send + Sync + fmt::Debug {
    /// Called with all code of an image after it was written, before anything runs it. When it returns, every core
    /// fetches what was written.
    ///
    /// # Errors
    /// If that cannot be had. The image is not loaded then.
    fn synchronize(&self, code: &[u8]) -> Result<(), MemoryError>;
}

/// The instruction caches of the machine this process runs on.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostCache;

impl InstructionCache for HostCache {
    fn synchronize(&self, code: &[u8]) -> Result<(), MemoryError> {
        if code.is_empty() {
            return Ok(());
        }
        synchronize(code)
            .map_err(|why| MemoryError::new(format!("making {} bytes of code visible", code.len()), why))
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
fn synchronize(_code: &[u8]) -> Result<(), String> {
    Ok(())
}

#[cfg(target_arch = "aarch64")]
fn synchronize(code: &[u8]) -> Result<(), String> {
    use std::arch::asm;

    let range = code.as_ptr_range();
    let (start, end) = (range.start as usize, range.end as usize);
    let cache_type: usize;
    // SAFETY: reads a register that programs may read (Arm ARM, CTR_EL0).
    unsafe { asm!("mrs {}, ctr_el0", out(reg) cache_type, options(nomem, nostack, preserves_flags)) };
    // Logarithms of the smallest lines, in words.
    let instruction_line = 4usize << (cache_type & 0xf);
    let data_line = 4usize << ((cache_type >> 16) & 0xf);
    for line in (start & !(data_line - 1)..end).step_by(data_line) {
        // SAFETY: cleans a line of readable memory: what it holds does not change.
        unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: waits.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    for line in (start & !(instruction_line - 1)..end).step_by(instruction_line) {
        // SAFETY: invalidates a line of readable memory in instruction caches.
        unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: waits, and forgets what this core has fetched.
    unsafe { asm!("dsb ish", "isb", options(nostack, preserves_flags)) };
    // Kernels without this barrier (before 4.16) leave it to the interrupts that every core gets anyway.
    #[cfg(target_os = "linux")]
    let _ = super::sys::serialize_all_cores();
    Ok(())
}

#[cfg(all(target_arch = "arm", target_os = "linux"))]
fn synchronize(code: &[u8]) -> Result<(), String> {
    /// `__ARM_NR_cacheflush`, of `asm/unistd.h`.
    const CACHEFLUSH: libc::c_long = 0x0f_0002;
    let range = code.as_ptr_range();
    // SAFETY: the call takes two addresses and a zero, and changes no memory.
    let result = unsafe { libc::syscall(CACHEFLUSH, range.start, range.end, 0) };
    done(result)
}

#[cfg(all(any(target_arch = "riscv64", target_arch = "riscv32"), target_os = "linux"))]
fn synchronize(code: &[u8]) -> Result<(), String> {
    /// `__NR_riscv_flush_icache`, of `asm/unistd.h`.
    const FLUSH_ICACHE: libc::c_long = 259;
    /// Of all cores, not of this thread's alone.
    const ALL: libc::c_ulong = 0;
    let range = code.as_ptr_range();
    // SAFETY: the call takes two addresses and flags, and changes no memory.
    let result = unsafe { libc::syscall(FLUSH_ICACHE, range.start, range.end, ALL) };
    done(result)
}

#[cfg(all(any(target_arch = "arm", target_arch = "riscv64", target_arch = "riscv32"), target_os = "linux"))]
fn done(result: libc::c_long) -> Result<(), String> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().to_string()) }
}

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "aarch64",
    all(any(target_arch = "arm", target_arch = "riscv64", target_arch = "riscv32"), target_os = "linux"),
)))]
fn synchronize(_code: &[u8]) -> Result<(), String> {
    Err("this loader does not know the instruction caches of this machine".to_owned())
}
