//! The system's own unwinder: `__register_frame` of libgcc, found at run time so that nothing is linked for it.
//!
//! libgcc before version 13 looks through its registrations one by one at each step of each throw, so ten thousand of
//! them make throwing a hundred times slower: there, images of one arena are registered together ([`pool`](super::pool)).
//! Since version 13 it keeps registrations in a tree by their ranges of addresses, reads all of a table when it is
//! registered, and each image is registered for itself.
//!
//! One lock is shared by the threads that load or drop images with exceptions. libgcc has one for its registrations
//! anyway, and takes it at each throw.

#![allow(unsafe_code)] // libgcc is foreign functions and addresses.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::pool::{Pool, Registry};
use super::{FrameTable, UnwindInfo, UnwindRegistrar, UnwindRegistration, eh_frame};
use crate::{fork, process};

/// Registers images with libgcc, if it is in the process: those that exceptions and backtraces may meet, or all that have
/// unwind tables.
///
/// Where libgcc is older than version 13, images of one [arena](UnwindInfo::arena) share registrations, so that throws cost
/// the same however many there are. Images that have no arena, as those of [`PageMemory`](crate::PageMemory), are
/// registered one by one there, and each makes every throw in the process some nanoseconds slower.
///
/// Such a libgcc takes a lock at each throw once anything is registered, whoever registered it, and a child that was forked while
/// another thread held it waits for ever when it throws, or loads or drops an image that is registered. Fork while no other
/// thread throws, or `exec` in the child.
#[derive(Debug, Clone, Copy, Default)]
pub struct LibgccFrames {
    every_image: bool,
}

impl LibgccFrames {
    /// Registers the images that [catch](UnwindInfo::catches) exceptions or clean up when one passes, and those that
    /// [call](UnwindInfo::calls) something that is not in them, whatever it is: an exception may come out of it, and a
    /// backtrace out of that. The default: code that computes and returns costs nothing. What looks at it while it runs, a signal
    /// handler for instance, gets no further by libgcc.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers all images with unwind tables. Checking and registering a small table costs half a microsecond a load.
    pub fn of_every_image() -> Self {
        LibgccFrames { every_image: true }
    }
}

type FrameFunction = unsafe extern "C" fn(*const u8);
type RegisterArray = unsafe extern "C" fn(*const u8, *mut Object);
type DeregisterArray = unsafe extern "C" fn(*const u8) -> *mut Object;
type FindFunction = unsafe extern "C" fn(*const u8, *mut [usize; 3]) -> *const u8;

#[derive(Clone, Copy)]
struct Libgcc {
    register: FrameFunction,
    deregister: FrameFunction,
    /// Registers arrays of tables. Only where that is better than one by one.
    arrays: Option<Arrays>,
}

/// `void __register_frame_info_table (void *begin, struct object *ob)` and `void *__deregister_frame_info (const void *begin)`,
/// which gives back what was registered with.
#[derive(Clone, Copy)]
struct Arrays {
    register: RegisterArray,
    deregister: DeregisterArray,
}

impl Arrays {
    fn find() -> Option<Self> {
        let register = process::function(c"__register_frame_info_table")? as usize;
        let deregister = process::function(c"__deregister_frame_info")? as usize;
        // SAFETY: libgcc's functions of these names (unwind-dw2-fde.c) are of these types.
        let register = unsafe { mem::transmute::<usize, RegisterArray>(register) };
        // SAFETY: likewise.
        let deregister = unsafe { mem::transmute::<usize, DeregisterArray>(deregister) };
        Some(Arrays { register, deregister })
    }
}

/// libgcc's `struct object` (unwind-dw2-fde.h), of six words: what it knows of a registration.
#[repr(C)]
struct Object([usize; 8]);

/// What was taken out of libgcc and is not used again yet.
///
/// A throw finds the object of its table under libgcc's lock, and reads three of its fields when it has given that back.
/// Registrations here are replaced while threads throw through images that stay, so an object must stay as it is until such a
/// thread is past that. None can be waited for; but each has a few instructions to go, while so many registrations are replaced.
struct Objects(VecDeque<Box<Object>>);

impl Objects {
    /// They are kept for that many registrations: some 20 ms of nothing else.
    const KEPT: usize = 16 * 1024;

    fn take(&mut self) -> Box<Object> {
        let oldest = if self.0.len() > Self::KEPT { self.0.pop_front() } else { None };
        oldest.unwrap_or_else(|| Box::new(Object([0; 8])))
    }
}

static OBJECTS: Mutex<Objects> = Mutex::new(Objects(VecDeque::new()));

fn libgcc() -> Option<Libgcc> {
    static FOUND: OnceLock<Option<Libgcc>> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return *found;
    }
    // No child finds it half made.
    let _gate = gate();
    *FOUND.get_or_init(|| {
        let function = |name| -> Option<FrameFunction> {
            let address = process::function(name)? as usize;
            // SAFETY: the symbols of these names are libgcc's `void __register_frame (void *)` and `__deregister_frame` (LSB;
            // unwind-dw2-fde.c), both of that type.
            Some(unsafe { mem::transmute::<usize, FrameFunction>(address) })
        };
        let (register, deregister) = (function(c"__register_frame")?, function(c"__deregister_frame")?);
        let libgcc = Libgcc { register, deregister, arrays: None };
        Some(Libgcc { arrays: Arrays::find().filter(|_| libgcc.looks_at_tables_late()), ..libgcc })
    })
}

impl Libgcc {
    /// Whether tables are looked at when something is thrown, as before version 13, not when they are registered. A
    /// frame that moves after its registration is found only then.
    fn looks_at_tables_late(self) -> bool {
        let Some(find) = process::function(c"_Unwind_Find_FDE") else { return false };
        // SAFETY: libgcc's `const fde *_Unwind_Find_FDE (void *pc, struct dwarf_eh_bases *)`, of which the latter is
        // three addresses.
        let find = unsafe { mem::transmute::<usize, FindFunction>(find as usize) };
        // Addresses at which there is no code.
        let places = [0u8; 2];
        let [here, there] = [&places[0], &places[1]].map(|place| &raw const *place as u64);
        let probe = Box::new(OneFrame::at(here));
        let table = (&raw const *probe).cast::<u8>();
        // SAFETY: the table is well-formed, ends in a terminator, and stays until it is deregistered below.
        unsafe { (self.register)(table) };
        probe.first.store(there, Ordering::SeqCst);
        // SAFETY: takes any address, and writes to the three words.
        let found = unsafe { find(there as *const u8, &mut [0; 3]) };
        probe.first.store(here, Ordering::SeqCst);
        // SAFETY: the table registered above, with the range that it had then.
        unsafe { (self.deregister)(table) };
        !found.is_null()
    }
}

/// A table about one byte, whose address can be changed while libgcc may be reading it.
#[repr(C, align(8))]
struct OneFrame {
    common_length: u32,
    /// Identifier 0, version 1, no augmentation: addresses are absolute.
    common: [u8; 12],
    frame_length: u32,
    back_to_common: u32,
    first: AtomicU64,
    length: u64,
    end: u32,
}

impl OneFrame {
    fn at(address: u64) -> Self {
        OneFrame {
            common_length: 12,
            // Code and data alignment factors 1 and -8, return address in column 16.
            common: [0, 0, 0, 0, 1, 0, 1, 0x78, 16, 0, 0, 0],
            frame_length: 20,
            back_to_common: 20,
            first: AtomicU64::new(address),
            length: 1,
            end: 0,
        }
    }
}

impl UnwindRegistrar for LibgccFrames {
    unsafe fn register(&self, info: &UnwindInfo) -> Result<Option<Box<dyn UnwindRegistration>>, String> {
        // Those of code that has to do with exceptions as far as its own tables and the names it uses tell.
        let must_do = info.catches || info.throws || self.every_image;
        let Some(libgcc) = (must_do || info.calls).then(libgcc).flatten() else { return Ok(None) };
        let mut tables = Vec::with_capacity(info.eh_frames.len());
        let mut extents: Vec<Range<u64>> = Vec::new();
        for FrameTable { address, size } in &*info.eh_frames {
            // SAFETY: the caller vouches for the range.
            let bytes = unsafe { std::slice::from_raw_parts(*address as *const u8, *size as usize) };
            match eh_frame::check(bytes, *address, &info.code) {
                // Code of a language that knows no exceptions does without.
                Err(_) if !must_do => return Ok(None),
                checked => checked?,
            }
            // libgcc ignores tables that begin with the terminator, when registering and when deregistering.
            if bytes.first_chunk().is_some_and(|length| *length != [0; 4]) {
                tables.push(*address as usize);
                if info.eh_frames.len() > 1 {
                    extents.extend(eh_frame::extent(bytes, *address));
                }
            }
        }
        if libgcc.arrays.is_none() && overlap(&mut extents) {
            return match must_do {
                true => {
                    Err("tables are about code that interleaves, of which this libgcc knows one".to_owned())
                }
                false => Ok(None),
            };
        }
        // About no code there is nothing to say.
        if tables.is_empty() || info.code.is_empty() {
            return Ok(None);
        }
        // The tables are well-formed, as just checked, end in terminators, are about this image's own code, and stay
        // where they are until the registration is dropped, as the caller vouches.
        Ok(Some(match libgcc.arrays.and(shared_arena(info)) {
            Some(arena) => {
                let start = info.code.start;
                change_pool(|pool| pool.insert(&libgcc, arena, start, &tables));
                Box::new(Pooled { libgcc, start })
            }
            // Their code may interleave, and of several registrations libgcc looks into one.
            None if libgcc.arrays.is_some() && tables.len() > 1 => {
                let ends = [libgcc.empty_table(), 0];
                let array = [&ends[..1], &tables, &ends[1..]].concat();
                let _gate = gate();
                Registry::register(&libgcc, &array);
                Box::new(Together { libgcc, array })
            }
            None => {
                let _gate = gate();
                for table in &tables {
                    // SAFETY: as said above.
                    unsafe { (libgcc.register)(*table as *const u8) };
                }
                Box::new(Registered { libgcc, tables })
            }
        }))
    }
}

/// Whether there are addresses in two of the ranges.
fn overlap(ranges: &mut [Range<u64>]) -> bool {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.windows(2).any(|pair| pair[1].start < pair[0].end)
}

/// The arena, if it really is around the image's code, and its last byte is not code.
fn shared_arena(info: &UnwindInfo) -> Option<&Range<u64>> {
    let is_around = |arena: &&Range<u64>| arena.start <= info.code.start && info.code.end < arena.end;
    info.arena.as_ref().filter(is_around)
}

/// Neither the lock of the pool nor, by loads, libgcc's own for registrations is held by somebody else in a child process:
/// forks wait. Throws take libgcc's as well, before version 13, and no fork can be made to wait for them.
fn gate() -> fork::Gate {
    fork::watch();
    fork::enter()
}

fn change_pool(change: impl FnOnce(&mut Pool<Fence>)) {
    static POOL: Mutex<Pool<Fence>> = Mutex::new(Pool::new());
    let _gate = gate();
    change(&mut POOL.lock());
}

/// Tables without frames: the terminator alone.
static EMPTY: [u32; 2] = [0; 2];

impl Registry for Libgcc {
    type Fence = Fence;

    fn fence(&self, address: u64) -> Fence {
        let table = Box::new(OneFrame::at(address));
        // SAFETY: the table is well-formed, ends in a terminator, and stays until the fence is dropped.
        unsafe { (self.register)((&raw const *table).cast()) };
        Fence { libgcc: *self, table }
    }

    /// `__deregister_frame` looks at the first four bytes of what it is given, here of an address, and does nothing if they
    /// are zero. Those of a loaded table may be; of these two not both are.
    fn empty_table(&self) -> usize {
        let [one, other] = [&EMPTY[0], &EMPTY[1]].map(|table| &raw const *table as usize);
        if one as u32 != 0 { one } else { other }
    }

    fn register(&self, tables: &[usize]) {
        if let Some(arrays) = self.arrays {
            let object = Box::into_raw(OBJECTS.lock().take());
            // SAFETY: the pool hands over arrays of tables that were checked and are live, with a zero at the end, and
            // keeps each until it was deregistered. The object is libgcc's until then, and has room for what it is to it.
            unsafe { (arrays.register)(tables.as_ptr().cast(), object) };
        }
    }

    fn deregister(&self, tables: &[usize]) {
        let Some(arrays) = self.arrays else { return };
        // SAFETY: the pool hands over each array once that was registered.
        let object = unsafe { (arrays.deregister)(tables.as_ptr().cast()) };
        if !object.is_null() {
            // SAFETY: that is what the array was registered with, and libgcc has let go of it.
            OBJECTS.lock().0.push_back(unsafe { Box::from_raw(object) });
        }
    }
}

/// A registered table of one byte.
struct Fence {
    libgcc: Libgcc,
    table: Box<OneFrame>,
}

impl Drop for Fence {
    fn drop(&mut self) {
        // SAFETY: the table was registered when this was made.
        unsafe { (self.libgcc.deregister)((&raw const *self.table).cast()) };
    }
}

/// An image that shares a registration.
struct Pooled {
    libgcc: Libgcc,
    /// Where its code begins.
    start: u64,
}

impl UnwindRegistration for Pooled {}

impl Drop for Pooled {
    fn drop(&mut self) {
        change_pool(|pool| pool.remove(&self.libgcc, self.start));
    }
}

/// An image whose tables are one registration.
struct Together {
    libgcc: Libgcc,
    array: Vec<usize>,
}

impl UnwindRegistration for Together {}

impl Drop for Together {
    fn drop(&mut self) {
        let _gate = gate();
        Registry::deregister(&self.libgcc, &self.array);
    }
}

/// An image that is registered for itself.
struct Registered {
    libgcc: Libgcc,
    tables: Vec<usize>,
}

impl UnwindRegistration for Registered {}

impl Drop for Registered {
    fn drop(&mut self) {
        let _gate = gate();
        for table in self.tables.iter().rev() {
            // SAFETY: this very address was registered, once, and is deregistered here, once.
            unsafe { (self.libgcc.deregister)(*table as *const u8) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The version of the libgcc that is in this process.
    fn version() -> Option<u32> {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let path = maps.lines().find_map(|line| {
            line.find("/").map(|at| &line[at..]).filter(|path| path.contains("libgcc_s.so"))
        })?;
        let bytes = std::fs::read(path).ok()?;
        let names = (4..30).rev().map(|version| (version, format!("\0GCC_{version}.0.0\0")));
        let has = |name: &str| bytes.windows(name.len()).any(|window| window == name.as_bytes());
        names.into_iter().find_map(|(version, name)| has(&name).then_some(version))
    }

    #[test]
    fn arrays_are_for_libgcc_before_version_13() {
        let Some(version) = version() else {
            eprintln!("skipped: no shared libgcc that says its version");
            return;
        };
        let pools = libgcc().unwrap().arrays.is_some();
        // A version adds symbols to one machine or the other; what is said is the newest with any here.
        assert_eq!(pools, version < 13, "libgcc with symbols of version {version}");
    }

    #[test]
    fn tables_of_one_frame_are_sound() {
        let probe = OneFrame::at(0x1000);
        // SAFETY: the bytes of a structure without padding before `end`.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const probe).cast::<u8>(), 44) };
        assert_eq!(eh_frame::check(bytes, 0x9000, &(0x1000..0x1001)), Ok(()));
    }
}
