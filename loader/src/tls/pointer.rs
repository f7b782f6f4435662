//! The thread pointer, and what is at the same distance from it in every thread.
#![allow(unsafe_code)] // One instruction.

use std::arch::asm;
use std::cell::UnsafeCell;
use std::sync::OnceLock;

use parking_lot::Mutex;

use super::Variable;
use crate::resolver::SymbolResolver;

/// The thread pointer (x86-64 psABI, 3.4.6; AArch64 ELF ABI, "Thread local storage").
#[inline]
pub(super) fn get() -> u64 {
    let pointer: u64;
    // SAFETY: reads a word, or a register, that every thread has and keeps.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, readonly));
        #[cfg(target_arch = "aarch64")]
        asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}

/// How much of every thread is set aside for variables at fixed offsets. Threads pay for it with zeroing.
const RESERVE: usize = 4096;
const RESERVE_ALIGN: u64 = 64;

#[repr(align(64))]
struct Reserve(UnsafeCell<[u8; RESERVE]>);

thread_local! {
    /// Only its address is used here.
    static SET_ASIDE: Reserve = const { Reserve(UnsafeCell::new([0; RESERVE])) };
}

fn reserve_offset() -> u64 {
    let address = SET_ASIDE.with(|reserve| reserve.0.get() as usize as u64);
    address.wrapping_sub(get())
}

/// Gives away a part of the reserve, for ever: its offset from the thread pointer. It is zero in every thread.
pub(crate) fn set_aside(size: u64, align: u64) -> Result<u64, &'static str> {
    static OFFSET: OnceLock<Option<u64>> = OnceLock::new();
    static TAKEN: Mutex<u64> = Mutex::new(0);
    const NOT_STATIC: &str = "a thread-local variable at a fixed distance from the thread pointer, \
                              in a process that loaded this library late,";
    const TOO_LARGE: &str = "a thread-local variable at a fixed distance from the thread pointer, \
                             of which there is no more room in every thread,";
    if align > RESERVE_ALIGN {
        return Err(
            "a thread-local variable at a fixed distance from the thread pointer, with such an alignment,",
        );
    }
    let offset = OFFSET.get_or_init(|| {
        let here = reserve_offset();
        let there = in_another_thread(|| Some(reserve_offset()));
        there.filter(|there| *there == here)
    });
    let offset = offset.ok_or(NOT_STATIC)?;
    let mut taken = TAKEN.lock();
    let start = taken.next_multiple_of(align.max(1));
    let end = start.checked_add(size).filter(|end| *end <= RESERVE as u64).ok_or(TOO_LARGE)?;
    *taken = end;
    Ok(offset.wrapping_add(start))
}

/// The distances from the thread pointer of variables of the process, as far as they are the same in every thread.
///
/// A variable that a thread gets on demand is at another distance in each; so they are looked for in a second one.
pub(crate) fn thread_offsets(
    variables: &[Variable<'_>],
    resolver: &dyn SymbolResolver,
) -> Vec<Result<u64, &'static str>> {
    let there = in_another_thread(|| {
        let address = |variable: &Variable<'_>| resolver.resolve(variable.name);
        let offset = |variable| Some(address(variable)?.wrapping_sub(get()));
        Some(variables.iter().map(offset).collect::<Vec<_>>())
    });
    let there = there.unwrap_or_default().into_iter().chain(std::iter::repeat(None));
    let both = variables.iter().map(|variable| variable.address.wrapping_sub(get())).zip(there);
    both.map(|(here, there)| match there {
        Some(there) if there == here => Ok(here),
        _ => Err("a thread-local variable of a library that was loaded late"),
    })
    .collect()
}

fn in_another_thread<T: Send>(ask: impl FnOnce() -> Option<T> + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, ask);
        thread.ok()?.join().ok()?
    })
}
