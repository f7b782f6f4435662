//! Stubs: code that jumps through a word in data memory, so that what a function leads to changes without anyone writing
//! to code.
//!
//! A *pool* takes memory for many from the loader's [`MemoryManager`], as for an image: a segment of code, which is
//! written before anybody runs it and never again, and one of data with a [`Pair`] for each. A stub leaves the address of
//! its pair in a register that calls leave to such code (r11 on x86-64, x16 on AArch64), by which the
//! [trampoline](super::trampoline) knows the function it was called for. An unwinder never finds a frame in a stub: it
//! pushes nothing and calls nothing.

#![allow(unsafe_code)] // Words in the data of a pool are used by address.

#[cfg_attr(target_arch = "x86_64", path = "x86_64.rs")]
#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), path = "elsewhere.rs")]
mod code;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::error::LibraryError;
use super::switch::Slot;
use super::trampoline;
use crate::fork;
use crate::loader::Loader;
use crate::memory::{FinalizedMemory, InFlightMemory, MemoryRequest, Segment, SegmentRequest};

/// Stubs in one piece of memory.
const COUNT: usize = 128;

/// What a stub leads to: the slot it jumps through, and the address of the function's record, or zero.
#[repr(C)]
pub(super) struct Pair {
    slot: AtomicUsize,
    function: AtomicUsize,
}

/// Stubs to be had. A piece of memory goes with the last stub in it.
#[derive(Default)]
pub(super) struct StubPool {
    pieces: Mutex<Vec<Weak<Piece>>>,
}

/// Memory for [`COUNT`] stubs.
struct Piece {
    _memory: Box<dyn FinalizedMemory>,
    code: u64,
    data: u64,
    free: Mutex<Vec<usize>>,
}

/// A stub of one's own. Its address is the function's, as far as anyone can see.
pub(super) struct Stub {
    piece: Arc<Piece>,
    number: usize,
}

impl StubPool {
    /// A stub that leads to the trampoline.
    pub(super) fn take(&self, loader: &Loader) -> Result<Stub, LibraryError> {
        let known = {
            let mut pieces = fork::lock(&self.pieces);
            let found = pieces.iter().rev().filter_map(Weak::upgrade).find_map(|piece| piece.take());
            if found.is_none() {
                pieces.retain(|piece| piece.strong_count() != 0);
            }
            found
        };
        if let Some(stub) = known {
            return Ok(stub);
        }
        let piece = Arc::new(Piece::new(loader)?);
        let stub = piece.take().ok_or_else(|| LibraryError::Unsupported("a pool of no stubs".to_owned()))?;
        fork::lock(&self.pieces).push(Arc::downgrade(&piece));
        Ok(stub)
    }
}

impl Piece {
    fn new(loader: &Loader) -> Result<Self, LibraryError> {
        let unsupported = |what: &str| Err(LibraryError::Unsupported(what.to_owned()));
        if !loader.memory().executes_here() {
            return unsupported("functions through stubs in memory that another process executes, or none");
        }
        let Some(entry) = trampoline::address() else {
            return unsupported("functions through stubs on this machine");
        };
        let mut segments = [SegmentRequest { size: 0, align: 1 }; 3];
        segments[Segment::Code.index()] = SegmentRequest { size: COUNT * code::SIZE, align: code::SIZE };
        segments[Segment::Data.index()] = SegmentRequest { size: COUNT * size_of::<Pair>(), align: 16 };
        let mut memory = loader.memory().allocate(&MemoryRequest { segments, low_2gib: false })?;
        let [code, data] = [Segment::Code, Segment::Data].map(|segment| memory.target(segment));
        write(&mut *memory, code, data, entry)?;
        let free = Mutex::new((0..COUNT).rev().collect());
        Ok(Piece { _memory: memory.finalize()?, code, data, free })
    }

    fn take(self: &Arc<Self>) -> Option<Stub> {
        let number = fork::lock(&self.free).pop()?;
        Some(Stub { piece: Arc::clone(self), number })
    }
}

/// Writes the stubs, and for each a pair that leads to the trampoline.
fn write(memory: &mut dyn InFlightMemory, code: u64, data: u64, entry: u64) -> Result<(), LibraryError> {
    let mut working = memory.working()?;
    let [stubs, _, pairs] = &mut working;
    for (number, stub) in stubs.bytes.chunks_exact_mut(code::SIZE).enumerate() {
        let place = code + (number * code::SIZE) as u64;
        let pair = data + (number * size_of::<Pair>()) as u64;
        stub.copy_from_slice(&code::stub(place, pair).ok_or_else(|| {
            LibraryError::Unsupported("memory whose data is out of its code's reach".to_owned())
        })?);
    }
    for pair in pairs.bytes.chunks_exact_mut(size_of::<Pair>()) {
        pair.fill(0);
        pair[..size_of::<usize>()].copy_from_slice(&(entry as usize).to_ne_bytes());
    }
    Ok(())
}

impl Stub {
    /// Address of the stub.
    pub(super) fn address(&self) -> u64 {
        self.piece.code + (self.number * code::SIZE) as u64
    }

    fn pair(&self) -> &Pair {
        let address = self.piece.data as usize + self.number * size_of::<Pair>();
        // SAFETY: the pair is in the data segment of memory that this stub keeps, aligned to 16 bytes, and used as
        // atomics by everyone once that memory was finalized. Any content is valid.
        unsafe { &*(address as *const Pair) }
    }

    /// What the trampoline finds of the function that the stub belongs to.
    pub(super) fn belongs_to(&self, function: usize) {
        self.pair().function.store(function, Ordering::Release);
    }

    /// Where calls go now.
    pub(super) fn target(&self) -> usize {
        self.pair().slot.load(Ordering::Acquire)
    }
}

impl Pair {
    /// The record of the function that was called.
    pub(super) fn function(&self) -> usize {
        self.function.load(Ordering::Acquire)
    }
}

impl Slot for Stub {
    fn store(&self, address: usize) {
        // An exchange, and sequentially consistent: the processor has made it visible before it goes on.
        self.pair().slot.swap(address, Ordering::SeqCst);
    }
}

/// Whoever calls the stub after this finds a message instead of what was there.
impl Drop for Stub {
    fn drop(&mut self) {
        self.belongs_to(0);
        self.store(trampoline::address().unwrap_or_default() as usize);
        fork::lock(&self.piece.free).push(self.number);
    }
}
