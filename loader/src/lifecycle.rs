//! What an image runs of its own: indirect functions' resolvers and initialisers at its beginning, finalisers and destructors
//! at its end, or at that of the process if that comes first.
#![allow(unsafe_code)] // Runs loaded code.

use std::ffi::{c_char, c_int};
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;

use crate::exit;
use crate::fork::ThreadNumber;
use crate::link::{FunctionArray, Hooks, IndirectFunction};
use crate::memory::Segment;
use crate::tls;

/// An image's hooks, and which of them ran.
pub(crate) struct Lifecycle {
    hooks: Hooks,
    /// Target addresses of the image.
    segments: [Range<u64>; 3],
    /// One of the below.
    phase: AtomicU8,
    /// What [`exit`] knows it by, if it has finalisers and its initialisers ran. Otherwise zero.
    number: AtomicU64,
}

/// Phases: nothing ran; initialisers did, or are running; finalisers run at the end of the process; they need not run any more.
const LOADED: u8 = 0;
const INITIALIZED: u8 = 1;
const ENDING: u8 = 2;
const FINALIZED: u8 = 3;

impl Lifecycle {
    pub(crate) fn new(hooks: Hooks, segments: [Range<u64>; 3]) -> Arc<Self> {
        if let Some(handle) = hooks.dso_handle.filter(|_| hooks.calls_atexit) {
            exit::add_caller(&segments[Segment::Code.index()], handle);
        }
        Arc::new(Lifecycle { hooks, segments, phase: AtomicU8::new(LOADED), number: AtomicU64::new(0) })
    }

    /// Goes on from one phase to the next, if it is in that. One thread does.
    fn advance(&self, from: u8, to: u8) -> bool {
        self.phase.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    pub(crate) fn needs_initializers(&self) -> bool {
        let has_some = !self.hooks.initializers.is_empty() || !self.hooks.indirect.is_empty();
        has_some && self.phase.load(Ordering::Acquire) == LOADED
    }

    /// Binds indirect functions and runs initialisers, once.
    ///
    /// # Safety
    /// The image must be in memory and its code trusted, and nobody may use it until this returns.
    pub(crate) unsafe fn begin(self: &Arc<Self>) {
        if !self.advance(LOADED, INITIALIZED) {
            return;
        }
        // Before initialisers register what is to be destroyed before.
        if !self.hooks.finalizers.is_empty() {
            self.number.store(exit::finalize_at_exit(self), Ordering::Release);
        }
        for function in &self.hooks.indirect {
            // SAFETY: the addresses are those of this live image; that its code may run is what the caller vouches for.
            unsafe { bind(function) };
        }
        for array in &self.hooks.initializers {
            // SAFETY: the array is a section of this live image, its entries relocated by the loader; that the code
            // may run is what the caller vouches for.
            unsafe { run(array, self.hooks.windows) };
        }
    }

    /// Runs finalisers at the end of the process, unless somebody else ends the image. Static destructors are the C library's
    /// to run then.
    pub(crate) fn end_with_the_process(&self) {
        if !self.advance(INITIALIZED, ENDING) {
            return;
        }
        // SAFETY: initialisers ran, so whoever ran them vouched for the code. `end` and `give_up_arrays`, one of which is called
        // before the image goes, wait while the phase is this one.
        unsafe { self.finalize(&self.hooks.finalizers, || ()) };
        self.phase.store(FINALIZED, Ordering::Release);
    }

    /// Runs what is to be run before the image goes: thread-local objects of this thread first ([basic.start.term] of C++),
    /// then finalisers, if initialisers ran, and static destructors.
    ///
    /// # Safety
    /// The image must be in memory, its code and that of registered destructors trusted.
    pub(crate) unsafe fn end(&self) {
        if self.hooks.dso_handle.is_some() {
            tls::run_and_forget(&self.segments);
        }
        let arrays = if self.advance(INITIALIZED, FINALIZED) { &self.hooks.finalizers[..] } else { &[] };
        let registered = || {
            if let Some(handle) = self.hooks.dso_handle {
                // SAFETY: as the caller vouches.
                unsafe { exit::run_registered(handle) };
            }
        };
        // SAFETY: as the caller vouches.
        unsafe { self.finalize(arrays, registered) };
        self.forget_arrays();
        self.remove_caller();
    }

    /// The order of `dlclose`, where the C++ runtime's own finaliser is the first entry of `.fini_array`, and entries run
    /// from the last to the first: finalisers without a priority, static destructors in the reverse of their registration,
    /// finalisers with a priority.
    ///
    /// # Safety
    /// As [`end`](Self::end).
    unsafe fn finalize(&self, arrays: &[FunctionArray], static_destructors: impl FnOnce()) {
        let (before, after) = arrays.split_at(arrays.partition_point(FunctionArray::has_no_priority));
        for array in before {
            // SAFETY: as the caller vouches.
            unsafe { run(array, self.hooks.windows) };
        }
        static_destructors();
        for array in after {
            // SAFETY: as the caller vouches.
            unsafe { run(array, self.hooks.windows) };
        }
    }

    /// Initialisers and finalisers are not run any more; what code of the image registers is.
    pub(crate) fn give_up_arrays(&self) {
        self.phase
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |phase| (phase != ENDING).then_some(FINALIZED))
            .ok();
        self.forget_arrays();
    }

    /// Afterwards nobody is at the arrays, but for this thread.
    fn forget_arrays(&self) {
        let number = self.number.swap(0, Ordering::AcqRel);
        if number == 0 {
            return;
        }
        exit::finalize_no_more(number);
        while self.phase.load(Ordering::Acquire) == ENDING
            && exit::is_ended_by_another(ThreadNumber::current())
        {
            thread::yield_now();
        }
    }

    /// Nothing that the image registered is run any more: its memory goes.
    pub(crate) fn forget_registered(&self) {
        if let Some(handle) = self.hooks.dso_handle {
            tls::forget(&self.segments);
            exit::forget_registered(handle);
        }
        self.remove_caller();
    }

    fn remove_caller(&self) {
        if self.hooks.calls_atexit {
            exit::remove_caller(&self.segments[Segment::Code.index()]);
        }
    }
}

/// What an indirect function does that nobody bound.
pub(crate) fn unbound_function() -> u64 {
    extern "C" fn unbound() {
        eprintln!(
            "objcache: an indirect function (STT_GNU_IFUNC) is called before the image's initialisers were run"
        );
        std::process::abort();
    }
    unbound as extern "C" fn() as usize as u64
}

/// Asks a resolver and writes down what it chose. On AArch64 it is told of the processor ("System V ABI for AArch64",
/// `__ifunc_arg_t`); elsewhere it finds out for itself.
///
/// # Safety
/// The addresses must be those of a live image that nobody else uses yet, the resolver's code trusted.
unsafe fn bind(function: &IndirectFunction) {
    #[repr(C)]
    struct Argument {
        size: u64,
        hwcap: u64,
        hwcap2: u64,
    }
    type Resolver = unsafe extern "C" fn(u64, *const Argument) -> usize;
    const HAS_ARGUMENT: u64 = 1 << 62;
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    // SAFETY: takes a number and gives one.
    let [hwcap, hwcap2] = [libc::AT_HWCAP, libc::AT_HWCAP2].map(|kind| unsafe { libc::getauxval(kind) });
    #[cfg(not(all(target_os = "linux", target_arch = "aarch64")))]
    let [hwcap, hwcap2] = [0; 2];
    let argument = Argument { size: size_of::<Argument>() as u64, hwcap, hwcap2 };
    // SAFETY: the symbol says that it is such a function; arguments it does not take are in registers.
    let resolver = unsafe { mem::transmute::<usize, Resolver>(function.resolver as usize) };
    // SAFETY: it may be called, as the caller vouches.
    let chosen = unsafe { resolver(hwcap | HAS_ARGUMENT, &argument) };
    // SAFETY: the word is in the image's data, which is writable, and aligned.
    unsafe { (function.slot as usize as *mut usize).write(chosen) };
}

/// Calls each function of an array. Zero and -1 mark places without one, as in `.ctors`.
///
/// # Safety
/// The array must be in memory, its entries functions that may be called, with the calling convention of Windows or not.
unsafe fn run(array: &FunctionArray, windows: bool) {
    let count = array.size as usize / size_of::<usize>();
    for step in 0..count {
        let number = if array.backwards { count - 1 - step } else { step };
        let entry = (array.address as usize + number * size_of::<usize>()) as *const usize;
        // SAFETY: the entry is inside of the array, which is readable; an array of a strange object may be unaligned.
        let function = unsafe { entry.read_unaligned() };
        if function == 0 || function == usize::MAX {
            continue;
        }
        // SAFETY: the entry is a function that may be called, as the caller vouches.
        unsafe { call(function, windows) };
    }
}

/// Calls a function without arguments, or, as ELF has it, with those of an empty command line. What a function of the C
/// runtime's `.CRT$XI` array returns, to report an error, is not looked at.
///
/// # Safety
/// It must be such a function.
unsafe fn call(function: usize, windows: bool) {
    #[cfg(target_arch = "x86_64")]
    type Windows = unsafe extern "win64" fn();
    #[cfg(not(target_arch = "x86_64"))]
    type Windows = unsafe extern "C" fn();
    type Initializer = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char);
    if windows {
        // SAFETY: the entry is a function, as the caller vouches.
        let function = unsafe { mem::transmute::<usize, Windows>(function) };
        // SAFETY: it may be called, as the caller vouches.
        unsafe { function() };
    } else {
        // SAFETY: the entry is a function, as the caller vouches.
        let function = unsafe { mem::transmute::<usize, Initializer>(function) };
        let nothing = [std::ptr::null::<c_char>()];
        let environment = environment().unwrap_or(nothing.as_ptr());
        // SAFETY: it may be called, as the caller vouches; the arguments are those of an empty command line, and the
        // environment as the C library gives it to constructors of its own libraries.
        unsafe { function(0, nothing.as_ptr(), environment) };
    }
}

/// The C library's `environ`, if it has one.
fn environment() -> Option<*const *const c_char> {
    let variable = crate::process::function(c"environ")? as *const *const *const c_char;
    // SAFETY: the variable of this name is `char **environ` (POSIX, XBD 8.1), which is there as long as the C library.
    let environment = unsafe { variable.read() };
    (!environment.is_null()).then_some(environment)
}
