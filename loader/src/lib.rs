//! Relocatable object files to running code.
//!
//! [`Loader::load`] takes the bytes of an object file, as a compiler wrote them, and gives back a [`LoadedImage`] whose
//! functions can be called, some microseconds later. It does not know where objects come from: no cache, no compiler,
//! no signature appears here.
//!
//! ```
//! use objcache_loader::{Loader, ProcessSymbols};
//!
//! # fn compile(source: &str) -> Option<Vec<u8>> {
//! #     use std::{io::Write, process::{Command, Stdio}};
//! #     let object = std::env::temp_dir().join(format!("objcache-loader-doc-{}.o", std::process::id()));
//! #     let mut compiler = Command::new("cc");
//! #     compiler.args(["-O1", "-fPIC", "-xc", "-", "-c", "-o"]).arg(&object).stdin(Stdio::piped());
//! #     let Ok(mut compiler) = compiler.spawn() else {
//! #         assert!(std::env::var_os("OBJCACHE_REQUIRE_ALL").is_none_or(|value| value != "1"), "no `cc` here");
//! #         eprintln!("skipped: there is no `cc` here");
//! #         return None;
//! #     };
//! #     compiler.stdin.take()?.write_all(source.as_bytes()).ok()?;
//! #     assert!(compiler.wait().ok()?.success());
//! #     let bytes = std::fs::read(&object).ok();
//! #     std::fs::remove_file(object).ok()?;
//! #     bytes
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let source = "#include <stdlib.h>\nint distance(int a, int b) { return abs(a - b); }";
//! # let Some(object) = compile(source) else { return Ok(()) };
//! // int distance(int a, int b) { return abs(a - b); }, compiled
//! let object: &[u8] = &object;
//!
//! let loader = Loader::new();
//! let image = loader.load(object, &ProcessSymbols)?;
//! // SAFETY: the object defines `int distance(int, int)`, and needs no initialisers.
//! let distance = unsafe { image.get::<extern "C" fn(i32, i32) -> i32>("distance")? };
//! assert_eq!(distance(3, 10), 7);
//! # Ok(())
//! # }
//! ```
//!
//! # What happens in a load
//! Parse → link graph → prune → GOT and stubs → layout → allocate → resolve → fix up → finalize → register unwind
//! information → notify listeners; and, when asked for, [run the initialisers](LoadedImage::run_initializers). An
//! error at any point leaves nothing behind. Dropping the image undoes it all in reverse. What compilers mostly make for
//! x86-64 Linux (ELF without thread-local variables, initialisers or common symbols) goes through fewer and faster steps to the
//! same result, unless listeners want to know of it or debug information is kept.
//!
//! # Parts that can be exchanged
//! None of them knows another.
//!
//! | part | decides | here |
//! |---|---|---|
//! | [`MemoryManager`] | where bytes live | `SlabMemory` (default on Linux, x86-64 and AArch64: two views, no system call per load), [`PageMemory`] (own pages for each image), [`FixedMemory`] (linked, not run), `RemoteMemory` (run in another process) |
//! | [`SymbolResolver`] | what names mean | [`ProcessSymbols`], [`SharedLibrary`], [`AbsoluteSymbols`], [`from_fn`], [`chain`], [`strip_prefix`] |
//! | [`UnwindRegistrar`] | who can unwind | [`LibgccFrames`] (default), [`NoUnwind`] |
//! | [`EventListener`] | who wants to know | [`GdbListener`], [`PerfMap`], [`JitDump`], and yours |
//!
//! Cargo features, both on unless `default-features = false`: `all-arch` links for all architectures below, not only for
//! the one that the loader is built for, which is all that a program needs that runs what it links, and half a megabyte
//! less of code. `symbolize` takes in `gimli` and `addr2line`, for `LoadedImage::symbolize` and for the source lines in a
//! [`JitDump`].
//!
//! On top of them, [`Library`] keeps a set of images with one symbol table, whose functions can be made late and replaced.
//!
//! # What is loaded
//! Relocatable objects as gcc, clang, rustc and Cranelift emit them: ELF for x86-64, i386, AArch64, Arm and Thumb, RISC-V,
//! PowerPC64 (little-endian), LoongArch64 and s390x, Mach-O for x86-64 and arm64, COFF for x86-64, arm64 and i386. What the
//! process can execute is loaded into it; all of it is linked for elsewhere ([`FixedMemory`]). PIC, non-PIC and large code
//! models, COMDAT groups, weak and common symbols, zero-filled sections, alignment up to
//! [2 MiB](Limits::MAX_ALIGNMENT), initialisers and finalisers, static destructors, C++ exceptions thrown and caught
//! inside of an object, between objects, and out into the program and back. Several objects become one image, by the rules of static linkers ([`Loader::load_all`]), with what
//! they need out of archives ([`needed_members`]).
//!
//! Thread-local variables are served in this process on Linux (x86-64, aarch64), whatever they begin as and however code
//! reaches them (general-, local-dynamic, initial-, local-exec, descriptors), in each thread that asks, those that ran before
//! the image was there included, with the destructors of C++ objects. A thread's variables are made at its first access,
//! with the allocator: not for signal handlers. Code that counts on one distance from the thread pointer in all threads
//! (what compilers write for programs) is changed when it is loaded: detours stand for the instructions that have
//! the distance, except where variables begin as zero and find room in what is kept free in every thread (4 KiB for all
//! images). Instructions that no compiler writes for it are refused by name. Linked for elsewhere, an image is the program:
//! its variables are where a static linker has a program's, and dynamic accesses to them become local-exec as `ld.lld` makes
//! them, so that neither `__tls_get_addr` nor descriptors are needed. Accesses that the ABI does not know stay as they are;
//! then descriptors are refused.
//!
//! An image's thread-local variables are its own. Those that C++ has once in a program, wherever they are defined (`inline
//! thread_local`, `thread_local` statics of inline functions and of templates), exist once in each image instead: load
//! objects that share one as one image ([`Loader::load_all`]). Of libraries that the process opened late (`dlopen`) objects
//! cannot use thread-local variables at fixed distances, which `std::call_once` does with those of libstdc++: link the
//! program with such a library, or have it there from the beginning (`LD_PRELOAD`).
//!
//! Indirect functions (`STT_GNU_IFUNC`) are bound when the image's initialisers are run: loading itself never runs code of
//! an object. Linked for elsewhere they are refused.
//!
//! Functions that an ABI leaves to the linker, those that save and restore registers for code compiled for size on PowerPC,
//! are made when no object defines them; in a link map they are the last file.
//!
//! Refused with an error that says so: compressed sections, thread-local variables in Mach-O and COFF, other machines and
//! formats.
//!
//! Code may be anywhere in the address space, so references to things outside of the image must be able to reach
//! anywhere: calls always do (through a stub), and so does data accessed through the GOT, as in PIC. Code compiled to be
//! part of the program itself (`-fno-pic`, `-fPIE` with gcc) accesses external *data* directly, and such a reference is
//! an error unless the data happens to be near; compile with `-fPIC`, or `-mcmodel=large`.
//!
//! ## Mach-O
//! Objects for macOS (x86-64, arm64), of clang, Cranelift and rustc, are linked on any host, and x86-64 ones run in a
//! process of Linux: the calling convention is the same. Names are as in the object, with the underscore that C names have
//! there: ask for `_main`, and give [`strip_prefix`]`("_", …)` as the resolver for what the code calls. Sections are called
//! `__TEXT,__text`. They stay whole, with dead and duplicate functions; of weak definitions in several objects one is
//! used. `section$start$SEG$SECT` and `section$end$SEG$SECT` are known, `___dso_handle` is the image's first byte; a Mach header
//! (`__mh_execute_header`) is not in memory, so only a resolver can define one, and segments have no bounds of their own. Distances
//! that x86-64 assemblers leave without relocations in `__eh_frame` are adapted. `__compact_unwind` is for linkers and not
//! loaded: code that has no other unwind tables (arm64, unless compiled with `-femit-dwarf-unwind=always`) cannot be unwound
//! through. Objective-C's and Swift's metadata is loaded, and registered with nobody. Thread-local variables, aliases of
//! undefined symbols (`N_INDR`), indirect symbol tables, scattered relocations and arm64e are refused by name.
//!
//! ## COFF
//! Objects for Windows, of clang (`-msvc` and `-gnu` targets), gcc and Cranelift, are linked on any host, and x86-64 ones
//! run in process: their functions have the calling convention of Windows, so call them, and give them functions, as
//! `extern "win64"`. Initialisers (`.CRT$X…`, `.ctors`) are called that way by
//! [`run_initializers`](LoadedImage::run_initializers). Names are as in the object: on i386 with an underscore in front.
//! `__imp_NAME` is a pointer to NAME that the loader makes, unless a resolver has it; `__ImageBase` is the image's first
//! byte. A weak external is used, as weak definitions are elsewhere, with its default if that is in the object; otherwise the
//! resolver is asked first. Sections stand in the order of what follows the `$` in their names. Unwind tables (`.pdata`,
//! `.xdata`) are loaded, and registered with nobody. What the compiler has to tell the linker is handed to listeners
//! ([`LoadedObject::directives`]). Thread-local variables (`.tls$`) are refused.
//!
//! # Trust
//! The bytes of an object are not trusted to be well-formed: whatever they are, loading ends in an image or in an error
//! that names section, offset and reason, within [`Limits`]. The *code* in an object is trusted, since it is to be run:
//! that is what `unsafe` in [`LoadedImage::get`] and [`LoadedImage::run_initializers`] is about. A parser is no
//! sandbox.
//!
//! Memory is never writable and executable through one mapping, at no time.

#![deny(unsafe_code)]
// What only other machines need.
#![cfg_attr(not(feature = "all-arch"), allow(dead_code))]

mod arch;
mod archive;
mod debug;
mod error;
mod events;
mod exit;
#[doc(hidden)]
pub mod fixups;
mod fork;
mod graph;
mod image;
mod inputs;
mod inspect;
mod library;
mod lifecycle;
mod limits;
mod link;
mod loader;
mod made;
mod memory;
mod process;
mod read;
mod registered;
#[cfg(target_os = "linux")]
mod remote;
mod resolver;
mod shard;
mod tls;
mod unwind;

pub use archive::{Archive, Member};
pub use debug::{DebugInfoError, SourceFrame};
pub use error::{FixupError, FixupProblem, LoadError, LookupError, UnresolvedSymbol, UnresolvedSymbols};
pub use events::{
    EventListener, GdbListener, ImageId, JitDump, LoadedFunction, LoadedObject, LoadedSection, PerfMap,
};
pub use graph::SymbolKind;
pub use image::{ImageMemory, LoadedImage, Symbol};
pub use inputs::needed_members;
pub use inspect::{InspectedRelocation, InspectedSection, InspectedSymbol, Inspection, inspect};
pub use library::{
    ArchiveGenerator, Filtered, FunctionError, FunctionErrorKind, Generated, Generator, GeneratorRequest,
    Guard, Implementation, Library, LibraryBuilder, LibraryError, LibraryImage, LibrarySymbol, Retired,
    collect, filtered, pin,
};
pub use limits::Limits;
pub use link::{FileMap, ImageSymbol, LinkMap, MappedSection, MappedSlot, MappedStub, MappedSymbol};
pub use loader::{InputObject, Loader, LoaderBuilder};
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use memory::SlabMemory;
pub use memory::conformance;
pub use memory::{
    FinalizedMemory, FixedMemory, HostCache, InFlightMemory, InstructionCache, MemoryError, MemoryManager,
    MemoryRequest, PageMemory, Placement, Segment, SegmentRequest, WorkingMemory,
};
pub use process::{ProcessSymbols, SharedLibrary};
#[cfg(target_os = "linux")]
pub use remote::{Executor, RemoteError, RemoteMemory, serve_executor};
pub use resolver::{
    AbsoluteSymbols, Chain, FromFn, NoSymbols, PhonySymbols, StripPrefix, SymbolResolver, chain, from_fn,
    strip_prefix,
};
pub use unwind::{
    FrameTable, FrameTables, LibgccFrames, NoUnwind, UnwindInfo, UnwindRegistrar, UnwindRegistration,
};
