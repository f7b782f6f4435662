//! The symbols of the running process and of shared libraries, through the dynamic linker.

#![allow(unsafe_code)] // The dynamic linker is foreign functions.

use std::ffi::{CStr, CString, c_char, c_void};

use crate::resolver::SymbolResolver;

/// Everything the running process exports: the program's dynamic symbols, those of the shared libraries it is linked
/// with, and of those it loaded globally (`dlsym(RTLD_DEFAULT, …)`).
///
/// A function of the program itself is found only when the program exports it (`-rdynamic`, or
/// `-C link-args=-rdynamic` in Rust); give others with [`AbsoluteSymbols`](crate::AbsoluteSymbols).
///
/// glibc has some functions in no shared library, for linkers to put into each program: `at_quick_exit`, `pthread_atfork`, in old
/// versions `stat` and its like. Objects have to define them. (Those in glibc's `libc_nonshared.a` are of no use: they take the
/// *content* of `__dso_handle`, which is the image's first byte here.) `atexit` is one as well, and there is one here: what is
/// registered with it runs when the image goes, or the process exits.
///
/// `NAME@VERSION` is a version of a symbol that is not the default, as objects ask for it with `.symver`.
///
/// libgcc has some only in its archive, hidden: `__cpu_model` and `__cpu_indicator_init` (`__builtin_cpu_supports`,
/// `target_clones`), and on AArch64 the outline atomics (`__aarch64_ldadd4_acq_rel` and its like; `-mno-outline-atomics` does
/// without). Link an object that needs them with its [`needed_members`](crate::needed_members) of
/// `gcc -print-libgcc-file-name` as one image.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessSymbols;

impl SymbolResolver for ProcessSymbols {
    fn resolve(&self, name: &str) -> Option<u64> {
        lookup(libc::RTLD_DEFAULT, name).or_else(|| lookup_version(libc::RTLD_DEFAULT, name))
    }
}

/// The symbols of one shared library, which stays loaded for the rest of the process.
#[derive(Debug)]
pub struct SharedLibrary {
    handle: *mut c_void,
}

// SAFETY: the handle is only passed to dlsym, which may be called from any thread (POSIX).
unsafe impl Send for SharedLibrary {}
// SAFETY: as above; nothing is changed through the handle.
unsafe impl Sync for SharedLibrary {}

impl SharedLibrary {
    /// Opens a library by name or path. The error is the dynamic linker's message.
    ///
    /// # Safety
    /// The library's initialisers run: what they do is up to the caller to know.
    pub unsafe fn open(name: &CStr) -> Result<Self, String> {
        // SAFETY: `name` is a C string; running the initialisers is what the caller vouches for.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() { Err(last_error()) } else { Ok(SharedLibrary { handle }) }
    }

    /// The C library's mathematical functions (`libm`), which a Rust program is not always linked with.
    pub fn math() -> Option<Self> {
        let name = if cfg!(target_os = "macos") { c"libm.dylib" } else { c"libm.so.6" };
        // SAFETY: libm's initialisers only choose implementations for the processor.
        let library = unsafe { Self::open(name) };
        library.ok()
    }
}

impl SymbolResolver for SharedLibrary {
    fn resolve(&self, name: &str) -> Option<u64> {
        lookup(self.handle, name).or_else(|| lookup_version(self.handle, name))
    }
}

/// A function of the running process by its name, for the loader's own use.
pub(crate) fn function(name: &CStr) -> Option<u64> {
    // SAFETY: RTLD_DEFAULT is a valid handle, `name` a C string.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address as u64)
}

/// Names are short: they are turned into C strings on the stack.
fn lookup(handle: *mut c_void, name: &str) -> Option<u64> {
    const SHORT: usize = 120;
    let mut buffer = [0u8; SHORT + 1];
    let long;
    let name = if name.len() <= SHORT {
        buffer[..name.len()].copy_from_slice(name.as_bytes());
        CStr::from_bytes_with_nul(&buffer[..=name.len()]).ok()?
    } else {
        long = CString::new(name).ok()?;
        &long
    };
    let name: *const c_char = name.as_ptr();
    // SAFETY: the handle is RTLD_DEFAULT or one that dlopen returned and nobody closes; the name is a C string.
    let address = unsafe { libc::dlsym(handle, name) };
    (!address.is_null()).then_some(address as u64)
}

/// `NAME@VERSION`, as `.symver` of the assembler makes references to a version that is not the default (GNU as, "Symver").
fn lookup_version(handle: *mut c_void, name: &str) -> Option<u64> {
    let (name, version) = name.split_once('@')?;
    versioned(handle, &CString::new(name).ok()?, &CString::new(version.trim_start_matches('@')).ok()?)
}

#[cfg(target_os = "linux")]
fn versioned(handle: *mut c_void, name: &CStr, version: &CStr) -> Option<u64> {
    type Find = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void;
    // Not every C library has versions.
    let find = function(c"dlvsym")?;
    // SAFETY: glibc's `void *dlvsym(void *handle, const char *symbol, const char *version)`, and that of others.
    let find = unsafe { std::mem::transmute::<usize, Find>(find as usize) };
    // SAFETY: the handle is RTLD_DEFAULT or one that dlopen returned and nobody closes; both are C strings.
    let address = unsafe { find(handle, name.as_ptr(), version.as_ptr()) };
    (!address.is_null()).then_some(address as u64)
}

#[cfg(not(target_os = "linux"))]
fn versioned(_handle: *mut c_void, _name: &CStr, _version: &CStr) -> Option<u64> {
    None
}

fn last_error() -> String {
    // SAFETY: dlerror takes nothing; its answer belongs to this thread.
    let message = unsafe { libc::dlerror() };
    if message.is_null() {
        return "unknown error of the dynamic linker".to_owned();
    }
    // SAFETY: a non-null answer is a C string that lives until this thread's next call into the dynamic linker.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}
