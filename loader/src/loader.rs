//! The loader: where the parts meet.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::arch::{Machine, x86_64::X86_64};
use crate::error::LoadError;
use crate::events::{EventListener, ImageId, LoadedObject};
use crate::graph::LinkGraph;
use crate::image::{Announced, LoadedImage};
use crate::limits::Limits;
use crate::link::{self, Environment, Linked};
use crate::memory::MemoryManager;
use crate::read;
use crate::resolver::SymbolResolver;
use crate::unwind::{LibgccFrames, UnwindInfo, UnwindRegistrar, UnwindRegistration};

/// Loads relocatable objects. Cheap to clone; usable from many threads at once.
#[derive(Clone)]
pub struct Loader {
    memory: Arc<dyn MemoryManager>,
    unwind: Arc<dyn UnwindRegistrar>,
    listeners: Arc<[Arc<dyn EventListener>]>,
    limits: Limits,
}

/// Puts a [`Loader`] together.
#[derive(Default)]
#[must_use]
pub struct LoaderBuilder {
    memory: Option<Arc<dyn MemoryManager>>,
    unwind: Option<Arc<dyn UnwindRegistrar>>,
    listeners: Vec<Arc<dyn EventListener>>,
    limits: Limits,
}

impl LoaderBuilder {
    /// Where images live. Default: `SlabMemory` on Linux x86-64, elsewhere
    /// [`PageMemory`](crate::PageMemory).
    pub fn memory(mut self, memory: Arc<dyn MemoryManager>) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Who is told of unwind information. Default: [`LibgccFrames`].
    pub fn unwind(mut self, unwind: Arc<dyn UnwindRegistrar>) -> Self {
        self.unwind = Some(unwind);
        self
    }

    /// Adds a listener. Listeners are told in the order they were added.
    pub fn listener(mut self, listener: Arc<dyn EventListener>) -> Self {
        self.listeners.push(listener);
        self
    }

    /// What an object may ask for.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The loader.
    pub fn build(self) -> Loader {
        Loader {
            memory: self.memory.unwrap_or_else(default_memory),
            unwind: self.unwind.unwrap_or_else(|| Arc::new(LibgccFrames)),
            listeners: self.listeners.into(),
            limits: self.limits,
        }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn default_memory() -> Arc<dyn MemoryManager> {
    Arc::new(crate::memory::SlabMemory::new())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn default_memory() -> Arc<dyn MemoryManager> {
    Arc::new(crate::memory::PageMemory::new())
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Default for Loader {
    fn default() -> Self {
        Self::new()
    }
}

impl Loader {
    /// A loader with the defaults of this platform. Takes no memory before the first load.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A loader put together by hand.
    pub fn builder() -> LoaderBuilder {
        LoaderBuilder::default()
    }

    /// Loads an object: parses and links it into memory of its own, ready to be called. The bytes are not needed
    /// afterwards. Initialisers are not run; see [`LoadedImage::run_initializers`].
    ///
    /// # Errors
    /// Whatever is wrong with the object, its symbols or the memory; see [`LoadError`]. Nothing stays behind.
    pub fn load(&self, object: &[u8], resolver: &dyn SymbolResolver) -> Result<LoadedImage, LoadError> {
        let mut graph = read::parse(object, &self.limits)?;
        if self.memory.executes_here() && !graph.machine.is_host() {
            return Err(LoadError::Unsupported(format!("{:?} code in this process", graph.machine)));
        }
        let environment = Environment { memory: &*self.memory, resolver, limits: &self.limits };
        let linked = match graph.machine {
            Machine::X86_64 => link::link::<X86_64>(&mut graph, &environment)?,
        };
        let unwind = self.register_unwind_info(&linked.unwind)?;
        let announced = self.notify_listeners(object, &graph, &linked);
        Ok(LoadedImage::new(linked, unwind, announced, self.memory.executes_here()))
    }

    #[allow(unsafe_code)] // The tables are given as addresses.
    fn register_unwind_info(
        &self,
        info: &UnwindInfo,
    ) -> Result<Option<Box<dyn UnwindRegistration>>, LoadError> {
        if info.eh_frames.is_empty() || !self.memory.executes_here() {
            return Ok(None);
        }
        // SAFETY: the tables are sections of the image just linked, written with their terminators. The memory manager
        // promises (it is an unsafe trait) that they are readable there while the image lives, and the image drops the
        // registration first.
        let registration = unsafe { self.unwind.register(info) };
        registration.map_err(LoadError::Unwind)
    }

    fn notify_listeners(&self, object: &[u8], graph: &LinkGraph<'_>, linked: &Linked) -> Option<Announced> {
        if self.listeners.is_empty() {
            return None;
        }
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let image = ImageId(NEXT.fetch_add(1, Ordering::Relaxed));
        let announced = Announced { image, listeners: Arc::clone(&self.listeners) };
        let loaded = LoadedObject { image, object, graph, exports: &linked.exports };
        for listener in self.listeners.iter() {
            listener.notify_loaded(&loaded);
        }
        Some(announced)
    }
}
