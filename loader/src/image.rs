//! A loaded image: symbols to call, memory to give back.

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ops::{Deref, Range};
use std::sync::Arc;

#[cfg(feature = "symbolize")]
use crate::debug::{DebugInfoError, KeptDebugInfo, SourceFrame};
use crate::error::LookupError;
use crate::events::{EventListener, ImageId};
use crate::lifecycle::Lifecycle;
use crate::link::{Exports, ImageSymbol, Linked};
use crate::memory::{FinalizedMemory, Segment};
use crate::tls::Module;
use crate::unwind::UnwindRegistration;

/// An object in memory. Dropping it runs its finalisers if its initialisers ran and the static destructors that its code
/// registered, deregisters it everywhere and frees its memory: nothing of it may be executing or be pointed to then. A
/// [`Symbol`] borrows the image, so the compiler watches over what was got by [`get`](Self::get). If the process exits before,
/// the C library runs finalisers and static destructors, as those of shared libraries.
pub struct LoadedImage {
    /// What most images do not have, so that those are small. Dropped first: listeners are told and unwind tables
    /// deregistered while the memory is still there.
    extras: Option<Box<Extras>>,
    exports: Exports,
    executes_here: bool,
    sizes: [usize; 3],
    targets: [u64; 3],
    memory: Box<dyn FinalizedMemory>,
}

/// What some images have. Dropped in this order.
#[derive(Default)]
pub(crate) struct Extras {
    pub(crate) announced: Option<Announced>,
    pub(crate) unwind: Option<Box<dyn UnwindRegistration>>,
    pub(crate) lifecycle: Option<Arc<Lifecycle>>,
    #[cfg(feature = "symbolize")]
    pub(crate) debug_info: Option<Box<KeptDebugInfo>>,
    /// Frees the thread-local blocks. Before the memory, which has what new ones begin as.
    pub(crate) threads: Option<Module>,
}

impl Extras {
    fn is_empty(&self) -> bool {
        #[cfg(feature = "symbolize")]
        if self.debug_info.is_some() {
            return false;
        }
        self.announced.is_none()
            && self.unwind.is_none()
            && self.lifecycle.is_none()
            && self.threads.is_none()
    }
}

/// An image that listeners know of. Dropping it tells them that it goes.
pub(crate) struct Announced {
    pub(crate) image: ImageId,
    pub(crate) listeners: Arc<[Arc<dyn EventListener>]>,
}

impl Drop for Announced {
    fn drop(&mut self) {
        for listener in self.listeners.iter().rev() {
            listener.notify_freeing(self.image);
        }
    }
}

impl LoadedImage {
    pub(crate) fn new(linked: Linked, extras: Extras, executes_here: bool) -> Self {
        let Linked { memory, exports, sizes, targets, .. } = linked;
        LoadedImage {
            extras: (!extras.is_empty()).then(|| Box::new(extras)),
            exports,
            executes_here,
            sizes,
            targets,
            memory,
        }
    }

    fn lifecycle(&self) -> Option<&Arc<Lifecycle>> {
        self.extras.as_ref()?.lifecycle.as_ref()
    }

    /// Whether it may have something to run, at its beginning or its end.
    pub(crate) fn has_hooks(&self) -> bool {
        self.lifecycle().is_some()
    }

    #[cfg(feature = "symbolize")]
    fn debug_info(&self) -> Option<&KeptDebugInfo> {
        self.extras.as_ref()?.debug_info.as_deref()
    }

    /// Function, file, line and column of an instruction: first the innermost of the functions that were inlined there, last the
    /// function that has its own code. Any byte of the instruction will do: for a return address out of a backtrace ask for
    /// the byte before it, which belongs to the call. Nothing if the address is no code of this image's objects (but
    /// a stub, say).
    ///
    /// The image knows files and lines when it was loaded with
    /// [`keep_debug_info`](crate::LoaderBuilder::keep_debug_info) from an object that has them (DWARF in ELF, not
    /// compressed). Otherwise the answer is the function's name and the distance from its start, of exported functions
    /// alone when nothing was kept.
    ///
    /// # Errors
    /// The debug information cannot be used: malformed, compressed, or such that it would take time or memory out of all
    /// proportion.
    #[cfg(feature = "symbolize")]
    pub fn symbolize(&self, address: u64) -> Result<Vec<SourceFrame>, DebugInfoError> {
        if let Some(kept) = self.debug_info() {
            return kept.symbolize(address);
        }
        let found = self.exports.function_at(address);
        Ok(found.map(|(name, offset)| SourceFrame::of_symbol(&name, offset)).into_iter().collect())
    }

    /// Target address of an exported symbol. Hidden and local symbols are not exported.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.exports.address(name)
    }

    /// An exported symbol as a function pointer or a raw pointer, which cannot outlive the image.
    ///
    /// # Safety
    /// `F` must be what the symbol is: a function pointer with its exact signature and calling convention, or a
    /// pointer to its type. The object's code must be trusted, and its initialisers have been run if it needs them.
    /// A copy taken out of the [`Symbol`] must not be used after the image is dropped.
    ///
    /// # Errors
    /// [`LookupError`]: no such symbol, none in this process, or `F` is no pointer.
    #[allow(unsafe_code)] // An address becomes what the caller says it is.
    pub unsafe fn get<F: Copy>(&self, name: &str) -> Result<Symbol<'_, F>, LookupError> {
        let address = self.address(name).ok_or_else(|| LookupError::not_found(name))?;
        if !self.executes_here {
            return Err(LookupError::elsewhere(name));
        }
        // SAFETY: what the caller vouches for.
        let pointer = unsafe { pointer_to(name, address) }?;
        Ok(Symbol { pointer, image: PhantomData })
    }

    /// The exported symbols, in the order of the object's symbol table.
    pub fn symbols(&self) -> impl Iterator<Item = ImageSymbol<'_>> {
        self.exports.iter()
    }

    /// Whether the object has initialisers (`.init_array`, `.ctors`, `.CRT$XCU`) that did not run yet, or indirect
    /// functions, which are bound before them.
    pub fn needs_initializers(&self) -> bool {
        self.lifecycle().is_some_and(|lifecycle| lifecycle.needs_initializers())
    }

    /// Binds the image's indirect functions (`STT_GNU_IFUNC`) to what their resolvers choose and runs its initialisers in
    /// order of priority, on this thread, the first time it is called; later calls do nothing. When the image is dropped, its finalisers run, and the static destructors it registered.
    ///
    /// # Safety
    /// The object's code must be trusted; an initialiser must not unwind. Nobody may use the image until this
    /// returns.
    #[allow(unsafe_code)] // Runs loaded code.
    pub unsafe fn run_initializers(&self) {
        if let Some(lifecycle) = self.lifecycle().filter(|_| self.executes_here) {
            // SAFETY: what the caller vouches for; the image is alive.
            unsafe { lifecycle.begin() };
        }
    }

    /// Bytes of the image in one kind of memory, without what the manager adds.
    pub fn segment_size(&self, segment: Segment) -> usize {
        self.sizes[segment.index()]
    }

    /// Target addresses of the image's bytes in one kind of memory.
    pub fn segment_range(&self, segment: Segment) -> Range<u64> {
        let start = self.targets[segment.index()];
        start..start.wrapping_add(self.segment_size(segment) as u64)
    }

    /// Gives the image's memory to the caller, who has to free it from here on, by dropping what is returned, and may keep it
    /// for ever ([`ImageMemory::leak`]). Symbols are forgotten, and with them finalisers: these are not run. Nor are static and
    /// thread-local destructors once the memory is freed; if it is kept they run when the process or the thread ends. Take the
    /// addresses that are needed before.
    pub fn into_memory(mut self) -> ImageMemory {
        /// In the place of what is taken away.
        struct Nothing;
        impl FinalizedMemory for Nothing {}
        let extras = self.extras.take().map(|extras| *extras).unwrap_or_default();
        let lifecycle = extras.lifecycle.filter(|_| self.executes_here);
        if let Some(lifecycle) = &lifecycle {
            lifecycle.give_up_arrays();
        }
        ImageMemory {
            segments: Segment::ALL.map(|segment| self.segment_range(segment)),
            announced: extras.announced,
            lifecycle,
            unwind: extras.unwind,
            threads: extras.threads,
            memory: Some(mem::replace(&mut self.memory, Box::new(Nothing))),
        }
    }

    /// Bytes of the image in memory, all kinds together.
    pub fn memory_size(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// Bytes on the heap for the image's symbols and for the debug information that it keeps.
    pub fn bookkeeping_size(&self) -> usize {
        let debug_info = 0;
        #[cfg(feature = "symbolize")]
        let debug_info = debug_info + self.debug_info().map_or(0, |kept| kept.heap_bytes());
        size_of::<Self>() + self.exports.heap_bytes() + debug_info
    }

    /// The linked bytes of a segment, if the memory manager keeps them for reading
    /// ([`FixedMemory`](crate::FixedMemory) does).
    pub fn linked_bytes(&self, segment: Segment) -> Option<&[u8]> {
        self.memory.linked_bytes(segment)
    }
}

/// An address as what the caller says it is.
///
/// # Safety
/// `F` must be what is at the address: a function pointer or a raw pointer.
#[allow(unsafe_code)] // An address becomes what the caller says it is.
pub(crate) unsafe fn pointer_to<F: Copy>(name: &str, address: u64) -> Result<F, LookupError> {
    let address = address as usize;
    if size_of::<F>() != size_of::<usize>() {
        let (requested, address) = (size_of::<F>(), size_of::<usize>());
        return Err(LookupError::NotAPointer { name: name.to_owned(), requested, address });
    }
    // SAFETY: the sizes are equal, as just checked; that the bits are a valid `F` is what the caller vouches for.
    Ok(unsafe { mem::transmute_copy::<usize, F>(&address) })
}

impl Drop for LoadedImage {
    #[allow(unsafe_code)] // Runs loaded code.
    fn drop(&mut self) {
        let Some(extras) = &self.extras else { return };
        if let Some(lifecycle) = extras.lifecycle.as_ref().filter(|_| self.executes_here) {
            // SAFETY: the memory is still there. Finalisers run if initialisers ran, so whoever ran them vouched for
            // the code; destructors were registered by code that somebody called and vouched for.
            unsafe { lifecycle.end() };
        }
    }
}

/// The memory of an image whose symbols were [given up](LoadedImage::into_memory). Dropping it tells listeners and unwinders,
/// and frees it: nothing of it may be executing or be pointed to then.
pub struct ImageMemory {
    segments: [Range<u64>; 3],
    announced: Option<Announced>,
    lifecycle: Option<Arc<Lifecycle>>,
    unwind: Option<Box<dyn UnwindRegistration>>,
    threads: Option<Module>,
    memory: Option<Box<dyn FinalizedMemory>>,
}

impl ImageMemory {
    /// Target addresses of the bytes in one kind of memory.
    pub fn segment_range(&self, segment: Segment) -> Range<u64> {
        self.segments[segment.index()].clone()
    }

    /// Leaves all of it where it is for the rest of the process, known to listeners and unwinders.
    pub fn leak(self) -> [Range<u64>; 3] {
        let segments = self.segments.clone();
        mem::forget(self);
        segments
    }
}

impl Drop for ImageMemory {
    fn drop(&mut self) {
        // Explicit, because the order is what makes it sound.
        if let Some(lifecycle) = &self.lifecycle {
            lifecycle.forget_registered();
        }
        self.announced = None;
        self.unwind = None;
        self.threads = None;
        self.memory = None;
    }
}

impl fmt::Debug for ImageMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageMemory").field("segments", &self.segments).finish_non_exhaustive()
    }
}

impl fmt::Debug for LoadedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [code, read_only, data] = self.sizes;
        f.debug_struct("LoadedImage")
            .field("code", &code)
            .field("read_only", &read_only)
            .field("data", &data)
            .finish_non_exhaustive()
    }
}

/// A symbol of an image: dereferences to the pointer, and keeps the image from being dropped.
#[derive(Clone, Copy)]
pub struct Symbol<'image, F> {
    pointer: F,
    image: PhantomData<&'image LoadedImage>,
}

impl<F> Deref for Symbol<'_, F> {
    type Target = F;

    fn deref(&self) -> &F {
        &self.pointer
    }
}

impl<F: fmt::Debug> fmt::Debug for Symbol<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pointer.fmt(f)
    }
}
