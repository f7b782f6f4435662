//! The least that any loader must do: copy the sections that are loaded. Nothing is relocated, checked or found.

#![allow(unsafe_code)] // Raw memory.

use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Mutex;

use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, SectionHeader as _};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use super::{Code, Loaded, Peer};

const ORDER: LittleEndian = LittleEndian;
const PAGE: usize = 4096;

/// One section that is loaded: whether it can be written, its alignment, size and bytes.
struct Part<'a> {
    writable: bool,
    align: usize,
    size: usize,
    bytes: &'a [u8],
}

fn parts(object: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let header = FileHeader64::<LittleEndian>::parse(object).expect("an ELF object");
    let sections = header.section_headers(ORDER, object).expect("its sections");
    sections.iter().filter(|section| section.sh_flags(ORDER).0 & elf::SHF_ALLOC.0 != 0).map(move |section| {
        Part {
            writable: section.sh_flags(ORDER).0 & elf::SHF_WRITE.0 != 0,
            align: (section.sh_addralign(ORDER) as usize).max(1),
            size: section.sh_size(ORDER) as usize,
            bytes: section.data(ORDER, object).unwrap_or_default(),
        }
    })
}

/// Ends of what can be executed and of what can be written.
fn sizes(object: &[u8]) -> [usize; 2] {
    let mut ends = [0usize; 2];
    for part in parts(object) {
        let end = &mut ends[usize::from(part.writable)];
        *end = end.next_multiple_of(part.align) + part.size;
    }
    ends
}

/// # Safety
/// Both places are writable and nobody else's, as far as [`sizes`] says.
unsafe fn copy(object: &[u8], mut places: [*mut u8; 2]) {
    for part in parts(object) {
        let place = &mut places[usize::from(part.writable)];
        *place = place.wrapping_add(place.align_offset(part.align));
        // SAFETY: inside of the place, as the caller says.
        unsafe { ptr::copy_nonoverlapping(part.bytes.as_ptr(), *place, part.bytes.len()) };
        *place = place.wrapping_add(part.size);
    }
}

/// Fresh pages for each object.
pub(super) struct Pages;

impl Peer for Pages {
    fn name(&self) -> &str {
        "floor: mmap, memcpy, mprotect"
    }

    fn load(&self, code: &Code, _symbol: &CStr) -> Option<Loaded> {
        let [executable, writable] = sizes(&code.object).map(|size| size.next_multiple_of(PAGE));
        let length = executable + writable;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the place, so no mapping in use is replaced.
        let start = unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), length, access, MapFlags::PRIVATE) };
        let start = start.ok()?;
        let places = [0, executable].map(|offset| start.cast::<u8>().wrapping_add(offset));
        // SAFETY: the pages are new and as long as the sections together; sections have no larger alignment than a page.
        unsafe { copy(&code.object, places) };
        let access = MprotectFlags::READ | MprotectFlags::EXEC;
        // SAFETY: the pages are ours, and no reference into them exists.
        unsafe { rustix::mm::mprotect(start, executable, access) }.ok()?;
        let handle = Box::into_raw(Box::new(length)) as usize;
        Some(Loaded { address: start as usize, handle })
    }

    fn unload(&self, loaded: Loaded) {
        // SAFETY: `load` made it, and it is given back once.
        let length = unsafe { Box::from_raw(loaded.handle as *mut usize) };
        // SAFETY: the pages are ours, and no reference into them exists.
        let _ = unsafe { rustix::mm::munmap(loaded.address as *mut c_void, *length) };
    }

    fn lookup(&self, _loaded: &Loaded, _symbol: &CStr) -> Option<usize> {
        None
    }

    fn has_lookup(&self) -> bool {
        false
    }

    fn runs(&self) -> bool {
        false
    }
}

/// Memory that is mapped and was written to before.
pub(super) struct Slab(Mutex<Areas>);

/// What can be executed and what can be written, and how much of each is in use.
struct Areas {
    memory: [Vec<u8>; 2],
    ends: [usize; 2],
}

impl Slab {
    const BYTES: usize = 64 << 20;

    pub(super) fn new() -> Self {
        Slab(Mutex::new(Areas { memory: [1; 2].map(|fill| vec![fill; Self::BYTES]), ends: [0; 2] }))
    }
}

impl Peer for Slab {
    fn name(&self) -> &str {
        "floor: memcpy into a mapped slab"
    }

    fn load(&self, code: &Code, _symbol: &CStr) -> Option<Loaded> {
        let mut areas = self.0.lock().expect("not poisoned");
        let Areas { memory, ends } = &mut *areas;
        let sizes = sizes(&code.object).map(|size| size.next_multiple_of(64) + PAGE);
        let starts = *ends;
        for (end, size) in ends.iter_mut().zip(sizes) {
            *end = end.checked_add(size).filter(|end| *end <= Self::BYTES)?;
        }
        let places = [0, 1].map(|kind| memory[kind][starts[kind]..].as_mut_ptr());
        // SAFETY: both places are inside of the areas, which nobody else uses while they are locked.
        unsafe { copy(&code.object, places) };
        Some(Loaded { address: places[0] as usize, handle: starts[0] })
    }

    /// All at once, when the first is unloaded: batches come and go together.
    fn unload(&self, loaded: Loaded) {
        if loaded.handle == 0 {
            self.0.lock().expect("not poisoned").ends = [0; 2];
        }
    }

    fn lookup(&self, _loaded: &Loaded, _symbol: &CStr) -> Option<usize> {
        None
    }

    fn has_lookup(&self) -> bool {
        false
    }

    fn runs(&self) -> bool {
        false
    }
}
