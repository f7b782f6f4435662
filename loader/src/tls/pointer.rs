//! The thread pointer, and what is at the same distance from it in every thread.
#![allow(unsafe_code)] // One instruction.

use std::arch::asm;
use std::cell::UnsafeCell;
use std::sync::LazyLock;

use parking_lot::Mutex;

use super::Variable;
use crate::error::LoadError;
use crate::fork;
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

/// Bytes of the reserve that are given away.
static TAKEN: Mutex<u64> = Mutex::new(0);

/// A part of the reserve: zero in every thread. Dropping it gives it back, which must be before any code knows of it.
#[derive(Debug)]
pub(crate) struct Reserved {
    /// From the thread pointer.
    offset: u64,
    start: u64,
    end: u64,
}

/// A part of the reserve, if there is one of such a size and alignment.
pub(crate) fn set_aside(size: u64, align: u64) -> Option<Reserved> {
    static OFFSET: LazyLock<Option<u64>> = LazyLock::new(|| if_in_every_thread(reserve_offset));
    if align > RESERVE_ALIGN || size > RESERVE as u64 {
        return None;
    }
    // None: this library came late into the process itself.
    let offset = (*fork::force(&OFFSET))?;
    let mut taken = fork::lock(&TAKEN);
    let start = taken.next_multiple_of(align.max(1));
    let end = start.checked_add(size).filter(|end| *end <= RESERVE as u64)?;
    *taken = end;
    Some(Reserved { offset: offset.wrapping_add(start), start, end })
}

impl Reserved {
    /// Its offset from the thread pointer. There must be room for `size` bytes.
    pub(crate) fn offset(&self, size: u64) -> Result<u64, LoadError> {
        let room = self.end - self.start;
        match size > room {
            true => Err(LoadError::limit("the size of the thread-local block", size, room)),
            false => Ok(self.offset),
        }
    }

    /// Gives it away for ever: to an image that is complete.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut taken = fork::lock(&TAKEN);
        if *taken == self.end {
            *taken = self.start;
        }
    }
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
        _ => Err("a thread-local variable of a library that was loaded late (link the program with it, or preload it)"),
    })
    .collect()
}

/// A distance from the thread pointer, if it is the same here and in another thread, for which a fork may be waiting.
pub(super) fn if_in_every_thread(offset: impl Fn() -> u64 + Sync) -> Option<u64> {
    let here = offset();
    in_another_thread(|| Some(offset())).filter(|there| *there == here)
}

fn in_another_thread<T: Send>(ask: impl FnOnce() -> Option<T> + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, ask);
        thread.ok()?.join().ok()?
    })
}
