//! The blocks of thread-local variables, each thread's table of them, and the function that objects ask for an address.
#![allow(unsafe_code)] // Memory that loaded code uses by address; a destructor for threads in terms of the C library.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::LazyLock;

use super::modules::{self, Number};
use super::{IN_EVERY_THREAD, Template, pointer};
use crate::fork;

/// The variables of one module in one thread.
pub(super) struct Block {
    memory: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the block is reached by its owner only; the thread whose variables it holds no longer is one, or does not run
// the module's code any more, when it is dropped.
unsafe impl Send for Block {}

impl Block {
    /// A copy of the template, which must be that of an image that is still there.
    pub(super) fn of(template: &Template) -> Self {
        let size = (template.size as usize).max(1);
        let layout = Layout::from_size_align(size, template.align as usize);
        // The template is a part of an image, so that a block is no larger than what is in memory already.
        let layout = layout.expect("the size and alignment of memory that exists");
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        // SAFETY: the template's content is memory of a live image, as the caller says, and not more than the block.
        unsafe {
            let content = (template.content as usize).min(size);
            ptr::copy_nonoverlapping(template.address as *const u8, memory.as_ptr(), content);
        }
        Block { memory, layout }
    }

    pub(super) fn pointer(&self) -> *mut u8 {
        self.memory.as_ptr()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout by `of`, and given back once.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// A thread's blocks by the index of their module; names the thread as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Table(usize);

/// What a table has. [`descriptor`](super::descriptor) reads it in assembly.
#[repr(C)]
struct Entries {
    start: *const Entry,
    len: usize,
    /// Owns them.
    list: Vec<Entry>,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    /// [`Number::word`]; 0: none.
    module: u64,
    block: *mut u8,
}

impl Entries {
    fn new() -> Self {
        Entries { start: ptr::null(), len: 0, list: Vec::new() }
    }

    fn set(&mut self, number: Number, block: *mut u8) {
        let index = number.index as usize;
        if self.list.len() <= index {
            self.list.resize(index + 1, Entry { module: 0, block: ptr::null_mut() });
        }
        self.list[index] = Entry { module: number.word(), block };
        (self.start, self.len) = (self.list.as_ptr(), self.list.len());
    }
}

thread_local! {
    /// Needs no destructor, so that it can be read until the thread's very end.
    static TABLE: Cell<*mut Entries> = const { Cell::new(ptr::null_mut()) };
}

/// The argument of `__tls_get_addr`.
#[repr(C)]
pub(super) struct Index {
    pub(super) module: u64,
    pub(super) offset: u64,
}

/// The address of `__tls_get_addr` for objects.
#[allow(clippy::unnecessary_wraps)] // On other systems there is none.
pub(crate) fn function() -> Option<u64> {
    Some(get_addr as unsafe extern "C" fn(*const Index) -> *mut u8 as usize as u64)
}

/// The address of a variable in this thread.
///
/// # Safety
/// The argument must be a GOT entry that the loader made, or the like, of an image that is still there.
pub(super) unsafe extern "C" fn get_addr(argument: *const Index) -> *mut u8 {
    // SAFETY: as the caller says.
    let Index { module, offset } = unsafe { argument.read() };
    let start = if module == IN_EVERY_THREAD {
        ptr::with_exposed_provenance_mut(pointer::get() as usize)
    } else {
        block(Number::of(module))
    };
    start.wrapping_add(offset as usize)
}

/// Where a thread has the address of its table: the distance from the thread pointer, if that is the same in every thread.
pub(super) fn table_offset() -> Option<u64> {
    let offset = || TABLE.with(|table| ptr::from_ref(table) as usize as u64).wrapping_sub(pointer::get());
    pointer::if_in_every_thread(offset)
}

#[inline]
fn block(number: Number) -> *mut u8 {
    // SAFETY: the table is this thread's own; it is changed only below, and by the destructor that takes it away.
    let entries = unsafe { TABLE.get().as_ref() };
    match entries.and_then(|entries| entries.list.get(number.index as usize)) {
        Some(entry) if entry.module == number.word() => entry.block,
        _ => first_time(number),
    }
}

#[cold]
#[inline(never)]
fn first_time(number: Number) -> *mut u8 {
    if TABLE.get().is_null() {
        let table = Box::into_raw(Box::new(Entries::new()));
        TABLE.set(table);
        call_at_thread_exit(table);
    }
    let table = TABLE.get();
    let Some(block) = modules::new_block(number, Table(table as usize)) else {
        // There is no way to refuse, and no address to give.
        eprintln!("objcache: a thread-local variable of an image that is gone");
        std::process::abort();
    };
    // SAFETY: as in `block`; nothing else refers to the table now.
    let entries = unsafe { &mut *table };
    entries.set(number, block);
    block
}

/// A thread that ends calls [`free`] with the table. That is after all destructors of C++ and Rust objects have run
/// (POSIX, `pthread_key_create`); should another key's destructor ask for a variable again, there is a new table, and
/// another round.
fn call_at_thread_exit(table: *mut Entries) {
    static KEY: LazyLock<Option<libc::pthread_key_t>> = LazyLock::new(|| {
        let mut key = 0;
        // SAFETY: the key is written to a variable, the destructor is a function of the right type.
        let failed = unsafe { libc::pthread_key_create(&mut key, Some(free)) };
        (failed == 0).then_some(key)
    });
    if let Some(key) = fork::force(&KEY) {
        // SAFETY: the key was created and is never deleted. If this fails for want of memory, the blocks stay.
        unsafe { libc::pthread_setspecific(*key, table.cast()) };
    }
}

/// Gives back all blocks of this thread.
unsafe extern "C" fn free(table: *mut c_void) {
    if TABLE.get().cast() == table {
        TABLE.set(ptr::null_mut());
    }
    // SAFETY: made by `first_time`; the C library calls this once for it, and the thread has no other way to it now.
    let entries = unsafe { Box::from_raw(table.cast::<Entries>()) };
    for entry in entries.list.iter().filter(|entry| entry.module != 0) {
        modules::free_block(Number::of(entry.module), Table(table as usize));
    }
}
