//! Modules: which images have thread-local variables, and who holds blocks of theirs.
//!
//! A module's number has an index, which is used again, and a generation, which makes the number one that never was
//! before: a thread's table may remember the block of a module that is gone, and finds out by the generation.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::blocks::{Block, Table};
use super::{Template, descriptor};
use crate::fork;

static MODULES: Mutex<Modules> = Mutex::new(Modules { slots: Vec::new(), free: Vec::new() });

struct Modules {
    slots: Vec<Slot>,
    /// Indices of the empty slots that may be used again.
    free: Vec<u32>,
}

struct Slot {
    generation: u32,
    live: Option<Live>,
}

struct Live {
    template: Template,
    /// The blocks by the thread that has them.
    blocks: HashMap<Table, Block>,
}

/// A module's number. Never [`IN_EVERY_THREAD`](super::IN_EVERY_THREAD), since generations begin with 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl Number {
    pub(super) fn of(word: u64) -> Self {
        Number { index: word as u32, generation: (word >> 32) as u32 }
    }

    pub(super) fn word(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }
}

/// A module for as long as its image lives. Dropping it frees the blocks of all threads.
#[derive(Debug)]
pub(crate) struct Module {
    number: Number,
    descriptors: descriptor::Arguments,
}

impl Module {
    /// The template is read when a thread first asks, not before.
    pub(crate) fn new(template: Template) -> Result<Self, &'static str> {
        let live = Some(Live { template, blocks: HashMap::new() });
        let modules = &mut *fork::lock(&MODULES);
        let number = match modules.free.pop() {
            Some(index) => {
                let slot = &mut modules.slots[index as usize];
                slot.live = live;
                Number { index, generation: slot.generation }
            }
            None => {
                let index = u32::try_from(modules.slots.len())
                    .map_err(|_| "one more image with thread-local variables")?;
                modules.slots.push(Slot { generation: 1, live });
                Number { index, generation: 1 }
            }
        };
        Ok(Module { number, descriptors: descriptor::Arguments::default() })
    }

    /// What `__tls_get_addr` knows the module by.
    pub(crate) fn word(&self) -> u64 {
        self.number.word()
    }

    /// Both words of a descriptor for the variable at an offset in the block.
    pub(crate) fn descriptor(&self, offset: u64) -> [u64; 2] {
        self.descriptors.of_variable(self.word(), offset)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let mut modules = fork::lock(&MODULES);
        let slot = &mut modules.slots[self.number.index as usize];
        let gone = slot.live.take();
        // An index whose generations are used up stays empty.
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            modules.free.push(self.number.index);
        }
        drop(modules);
        drop(gone);
    }
}

/// A block for a thread that has none of this module. `None`: there is no such module any more.
pub(super) fn new_block(number: Number, thread: Table) -> Option<*mut u8> {
    let template = with_live(number, |live| live.template)?;
    let block = Block::of(&template);
    let pointer = block.pointer();
    with_live(number, |live| live.blocks.insert(thread, block))?;
    Some(pointer)
}

/// Gives back the block of a thread that ends, unless the module went first and took it along.
pub(super) fn free_block(number: Number, thread: Table) {
    let block = with_live(number, |live| live.blocks.remove(&thread));
    drop(block);
}

fn with_live<T>(number: Number, then: impl FnOnce(&mut Live) -> T) -> Option<T> {
    let mut modules = fork::lock(&MODULES);
    let slot = modules.slots.get_mut(number.index as usize)?;
    slot.live.as_mut().filter(|_| slot.generation == number.generation).map(then)
}
