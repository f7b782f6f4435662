//! LLVM's LLJIT through its C interface, of whichever release: the library is opened at run time, and since its symbols have
//! versions, two releases fit into one process.

#![allow(unsafe_code)] // Foreign functions.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem;
use std::ptr;
use std::sync::OnceLock;

use super::{Code, Loaded, Peer};
use crate::foreign;

type Reference = *mut c_void;
/// An error, or null.
type Error = *mut c_char;
type MakeLayer = extern "C" fn(*mut c_void, Reference, *const c_char) -> Reference;

/// The functions of `llvm-c/LLJIT.h`, `llvm-c/Orc.h` and `llvm-c/OrcEE.h` that it takes.
pub(super) struct Llvm {
    new_builder: unsafe extern "C" fn() -> Reference,
    set_layer: unsafe extern "C" fn(Reference, MakeLayer, *mut c_void),
    rtdyld_layer: unsafe extern "C" fn(Reference) -> Reference,
    new_jit: unsafe extern "C" fn(*mut Reference, Reference) -> Error,
    main_library: unsafe extern "C" fn(Reference) -> Reference,
    new_tracker: unsafe extern "C" fn(Reference) -> Reference,
    buffer: unsafe extern "C" fn(*const c_char, usize, *const c_char, c_int) -> Reference,
    add: unsafe extern "C" fn(Reference, Reference, Reference) -> Error,
    lookup: unsafe extern "C" fn(Reference, *mut u64, *const c_char) -> Error,
    remove: unsafe extern "C" fn(Reference) -> Error,
    release: unsafe extern "C" fn(Reference),
    message: unsafe extern "C" fn(Error) -> *const c_char,
}

/// A function of a library as the type that its header gives it.
///
/// # Safety
/// `F` is that type.
unsafe fn function<F>(library: usize, name: &str) -> Option<F> {
    let name = CString::new(name).ok()?;
    let address = foreign::symbol(library, &name)?;
    assert_eq!(size_of::<F>(), size_of::<usize>());
    // SAFETY: as the caller says; the sizes are equal.
    Some(unsafe { mem::transmute_copy(&address) })
}

impl Llvm {
    /// Opens a release of LLVM, for the rest of the process.
    pub(super) fn open(library: &CStr) -> Option<&'static Self> {
        let library = foreign::library(library)?;
        for part in ["TargetInfo", "Target", "TargetMC", "AsmPrinter", "AsmParser"] {
            // SAFETY: that is `void LLVMInitializeX86…(void)`.
            let initialize: extern "C" fn() =
                unsafe { function(library, &format!("LLVMInitializeX86{part}")) }?;
            initialize();
        }
        macro_rules! find {
            ($($field:ident: $name:literal),* $(,)?) => {
                Llvm { $(
                    // SAFETY: the field has the type of LLVM's header.
                    $field: unsafe { function(library, $name) }?,
                )* }
            };
        }
        let llvm = find! {
            new_builder: "LLVMOrcCreateLLJITBuilder",
            set_layer: "LLVMOrcLLJITBuilderSetObjectLinkingLayerCreator",
            rtdyld_layer: "LLVMOrcCreateRTDyldObjectLinkingLayerWithSectionMemoryManager",
            new_jit: "LLVMOrcCreateLLJIT",
            main_library: "LLVMOrcLLJITGetMainJITDylib",
            new_tracker: "LLVMOrcJITDylibCreateResourceTracker",
            buffer: "LLVMCreateMemoryBufferWithMemoryRange",
            add: "LLVMOrcLLJITAddObjectFileWithRT",
            lookup: "LLVMOrcLLJITLookup",
            remove: "LLVMOrcResourceTrackerRemove",
            release: "LLVMOrcReleaseResourceTracker",
            message: "LLVMGetErrorMessage",
        };
        Some(Box::leak(Box::new(llvm)))
    }

    /// Whether there is no error; one is told.
    fn is_fine(&self, error: Error) -> bool {
        if !error.is_null() {
            // SAFETY: the error was just returned, and is consumed here.
            let message = unsafe { (self.message)(error) };
            // SAFETY: messages are C strings.
            eprintln!("LLVM: {}", unsafe { CStr::from_ptr(message) }.to_string_lossy());
        }
        error.is_null()
    }
}

/// One LLJIT, made when it first loads.
pub(super) struct LlJit {
    llvm: &'static Llvm,
    name: String,
    rtdyld: bool,
    jit: OnceLock<Jit>,
}

struct Jit(Reference);

// SAFETY: LLJIT is made for many threads (ORCv2 design, "Multithreaded").
unsafe impl Sync for Jit {}
// SAFETY: likewise.
unsafe impl Send for Jit {}

impl LlJit {
    pub(super) fn new(llvm: &'static Llvm, release: &str, rtdyld: bool) -> Self {
        let linker = if rtdyld { "RTDyld" } else { "JITLink" };
        LlJit { llvm, name: format!("{release} LLJIT ({linker})"), rtdyld, jit: OnceLock::new() }
    }

    fn jit(&self) -> Reference {
        let Jit(jit) = self.jit.get_or_init(|| {
            let llvm = self.llvm;
            // SAFETY: takes nothing; the builder is consumed by `new_jit`.
            let builder = unsafe { (llvm.new_builder)() };
            if self.rtdyld {
                let context = ptr::from_ref(llvm).cast_mut().cast();
                // SAFETY: `llvm` lives as long as the process.
                unsafe { (llvm.set_layer)(builder, rtdyld_layer, context) };
            }
            let mut jit = ptr::null_mut();
            // SAFETY: the builder was just made.
            let error = unsafe { (llvm.new_jit)(&mut jit, builder) };
            assert!(llvm.is_fine(error), "{} can be made", self.name);
            Jit(jit)
        });
        *jit
    }
}

extern "C" fn rtdyld_layer(llvm: *mut c_void, session: Reference, _triple: *const c_char) -> Reference {
    // SAFETY: `jit` gave this reference.
    let llvm = unsafe { &*llvm.cast::<Llvm>() };
    // SAFETY: the session is the one that asks for the layer.
    unsafe { (llvm.rtdyld_layer)(session) }
}

impl Peer for LlJit {
    fn name(&self) -> &str {
        &self.name
    }

    fn load(&self, code: &Code, symbol: &CStr) -> Option<Loaded> {
        let (llvm, jit, object) = (self.llvm, self.jit(), &code.object);
        // SAFETY: the LLJIT is live.
        let library = unsafe { (llvm.main_library)(jit) };
        // SAFETY: the library is the LLJIT's.
        let tracker = unsafe { (llvm.new_tracker)(library) };
        // SAFETY: the bytes outlive the link, which ends with the lookup.
        let buffer = unsafe { (llvm.buffer)(object.as_ptr().cast(), object.len(), c"object".as_ptr(), 0) };
        // SAFETY: all three are live; the buffer is consumed.
        let error = unsafe { (llvm.add)(jit, tracker, buffer) };
        if !llvm.is_fine(error) {
            return None;
        }
        let loaded = Loaded { address: 0, handle: tracker as usize };
        let address = self.lookup(&loaded, symbol)?;
        Some(Loaded { address, ..loaded })
    }

    fn unload(&self, loaded: Loaded) {
        let tracker = loaded.handle as Reference;
        // SAFETY: `load` made the tracker, and it is given back once.
        let error = unsafe { (self.llvm.remove)(tracker) };
        self.llvm.is_fine(error);
        // SAFETY: likewise.
        unsafe { (self.llvm.release)(tracker) };
    }

    fn lookup(&self, _loaded: &Loaded, symbol: &CStr) -> Option<usize> {
        let mut address = 0;
        // SAFETY: the LLJIT is live, the name a C string.
        let error = unsafe { (self.llvm.lookup)(self.jit(), &mut address, symbol.as_ptr()) };
        self.llvm.is_fine(error).then_some(address as usize)
    }
}
