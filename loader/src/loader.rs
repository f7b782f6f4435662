//! The loader: where the parts meet.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::arch::{Machine, with_architecture};
#[cfg(feature = "symbolize")]
use crate::debug::KeptDebugInfo;
use crate::error::LoadError;
use crate::events::{EventListener, ImageId, LoadedObject};
use crate::graph::LinkGraph;
use crate::image::{Announced, Extras, LoadedImage};
use crate::lifecycle::Lifecycle;
use crate::limits::Limits;
use crate::link::{self, Environment, Link, LinkMap, Linked, Object};
use crate::made;
use crate::memory::{MemoryManager, PageMemory};
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
    relax: bool,
    #[cfg(feature = "symbolize")]
    keep_debug_info: bool,
}

/// Puts a [`Loader`] together.
#[derive(Default)]
#[must_use]
pub struct LoaderBuilder {
    memory: Option<Arc<dyn MemoryManager>>,
    unwind: Option<Arc<dyn UnwindRegistrar>>,
    listeners: Vec<Arc<dyn EventListener>>,
    limits: Limits,
    relax: Option<bool>,
    #[cfg(feature = "symbolize")]
    keep_debug_info: bool,
}

impl LoaderBuilder {
    /// Where images live. Default: `SlabMemory` on Linux (x86-64, AArch64), elsewhere and for debuggers
    /// ([`EventListener::sets_breakpoints`]) [`PageMemory`].
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

    /// Whether accesses through the GOT become direct where the target is in reach, as the ABIs let a linker do. Default:
    /// in images that run in this process; others are linked as the compiler wrote them.
    pub fn relax(mut self, relax: bool) -> Self {
        self.relax = Some(relax);
        self
    }

    /// Whether images keep a copy of their objects' debug sections, for [`LoadedImage::symbolize`]. Default: no. That takes
    /// the memory, and the time to copy and relocate them; they are read when first asked.
    #[cfg(feature = "symbolize")]
    pub fn keep_debug_info(mut self, keep: bool) -> Self {
        self.keep_debug_info = keep;
        self
    }

    /// The loader.
    pub fn build(self) -> Loader {
        let memory = self.memory.unwrap_or_else(|| {
            let sets_breakpoints = self.listeners.iter().any(|listener| listener.sets_breakpoints());
            if sets_breakpoints { Arc::new(PageMemory::new()) } else { default_memory() }
        });
        Loader {
            relax: self.relax.unwrap_or_else(|| memory.executes_here()),
            memory,
            unwind: self.unwind.unwrap_or_else(|| Arc::new(LibgccFrames::new())),
            listeners: self.listeners.into(),
            limits: self.limits,
            #[cfg(feature = "symbolize")]
            keep_debug_info: self.keep_debug_info,
        }
    }
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
fn default_memory() -> Arc<dyn MemoryManager> {
    Arc::new(crate::memory::SlabMemory::new())
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn default_memory() -> Arc<dyn MemoryManager> {
    Arc::new(PageMemory::new())
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
        if self.loads_plain_objects() {
            if let Some(linked) = link::plain::link(object, &self.environment(resolver))? {
                let unwind = self.register_unwind_info(&linked.unwind)?;
                return Ok(LoadedImage::new(linked, Extras { unwind, ..Extras::default() }, true));
            }
        }
        self.load_any(object, resolver)
    }

    /// Whether nobody is interested in more than what comes out.
    fn loads_plain_objects(&self) -> bool {
        #[cfg(feature = "symbolize")]
        if self.keep_debug_info {
            return false;
        }
        let memory = &self.memory;
        self.relax && self.listeners.is_empty() && memory.executes_here() && memory.placement().is_none()
    }

    fn load_any(&self, object: &[u8], resolver: &dyn SymbolResolver) -> Result<LoadedImage, LoadError> {
        let storage = read::Storage::default();
        let graph = read::parse(object, &storage, &self.limits)?;
        let machine = graph.machine;
        // Where it stays: an object on its way is not small.
        let mut parsed = [Object::of(graph)];
        let made = made::of(machine, &parsed, &self.limits)?;
        let Some(made) = &made else {
            let (image, _) = self.link(machine, &[object], &mut parsed, resolver)?;
            return Ok(image);
        };
        let [parsed] = parsed;
        let more = Object::of(read::parse(made, &storage, &self.limits)?);
        let (image, _) = self.link(machine, &[object], &mut [parsed, more], resolver)?;
        Ok(image)
    }

    /// Loads several objects as one image: names that one defines are known to the others, before the resolver is
    /// asked. Rules are those of static linkers: a strong definition wins over a weak one, two strong ones are an
    /// error, of COMDAT groups with one name one is kept, common symbols become one. The map says where everything is.
    ///
    /// # Errors
    /// As [`load`](Self::load); objects of different machines are an error as well. Nothing stays behind.
    pub fn load_all(
        &self,
        objects: &[InputObject<'_>],
        resolver: &dyn SymbolResolver,
    ) -> Result<(LoadedImage, LinkMap), LoadError> {
        let storage: Vec<_> = objects.iter().map(|_| read::Storage::default()).collect();
        let (made, made_storage);
        let mut parsed = Vec::with_capacity(objects.len());
        for (InputObject { name, bytes }, storage) in objects.iter().zip(&storage) {
            let graph = read::parse(bytes, storage, &self.limits).map_err(|error| error.of_object(name))?;
            parsed.push(Object::of(LinkGraph { name, ..graph }));
        }
        let machine = common_machine(&parsed)?;
        made = made::of(machine, &parsed, &self.limits)?;
        made_storage = read::Storage::default();
        if let Some(made) = &made {
            let graph = read::parse(made, &made_storage, &self.limits)?;
            parsed.push(Object::of(LinkGraph { name: made::NAME, ..graph }));
        }
        let bytes: Vec<_> = objects.iter().map(|object| object.bytes).collect();
        let (image, start) = self.link(machine, &bytes, &mut parsed, resolver)?;
        let map = with_architecture!(machine, A => link::map::<A>(&parsed, start))?;
        Ok((image, map))
    }

    pub(crate) fn memory(&self) -> &Arc<dyn MemoryManager> {
        &self.memory
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn environment<'e>(&'e self, resolver: &'e dyn SymbolResolver) -> Environment<'e> {
        Environment { memory: &*self.memory, resolver, limits: &self.limits, relax: self.relax }
    }

    /// Gives the image and the target address of its first byte.
    fn link(
        &self,
        machine: Machine,
        bytes: &[&[u8]],
        objects: &mut [Object<'_>],
        resolver: &dyn SymbolResolver,
    ) -> Result<(LoadedImage, u64), LoadError> {
        let executes_here = self.memory.executes_here();
        if executes_here && !machine.is_host() {
            return Err(LoadError::unsupported(format!("{} code in this process", machine.name())));
        }
        let environment = self.environment(resolver);
        let mut linked = with_architecture!(machine, A => link::link::<A>(objects, &environment))?;
        let unwind = self.register_unwind_info(&linked.unwind)?;
        let extras = Extras {
            announced: self.notify_listeners(bytes, objects, &linked),
            unwind,
            #[cfg(feature = "symbolize")]
            debug_info: self.keep_debug_info.then(|| {
                let loaded = self.loaded_objects(ImageId::UNANNOUNCED, bytes, objects, &linked);
                Box::new(KeptDebugInfo::of(loaded))
            }),
            lifecycle: linked.hooks.take().map(|hooks| Lifecycle::new(hooks, linked.segments())),
            threads: linked.threads.take_module(),
        };
        let start = linked.image.image;
        let image = LoadedImage::new(linked, extras, executes_here);
        Ok((image, start))
    }

    #[allow(unsafe_code)] // The tables are given as addresses.
    fn register_unwind_info(
        &self,
        info: &UnwindInfo,
    ) -> Result<Option<Box<dyn UnwindRegistration>>, LoadError> {
        if info.is_empty() || !self.memory.executes_here() {
            return Ok(None);
        }
        // SAFETY: the tables are sections of the image just linked, written with their terminators. The memory manager
        // promises (it is an unsafe trait) that they are readable there while the image lives, and the image drops the
        // registration first.
        let registration = unsafe { self.unwind.register(info) };
        registration.map_err(LoadError::Unwind)
    }

    fn notify_listeners(
        &self,
        bytes: &[&[u8]],
        objects: &[Object<'_>],
        linked: &Linked,
    ) -> Option<Announced> {
        if self.listeners.is_empty() {
            return None;
        }
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let image = ImageId(NEXT.fetch_add(1, Ordering::Relaxed));
        let announced = Announced { image, listeners: Arc::clone(&self.listeners) };
        for loaded in self.loaded_objects(image, bytes, objects, linked) {
            for listener in self.listeners.iter() {
                listener.notify_loaded(&loaded);
            }
        }
        Some(announced)
    }

    /// The objects as listeners see them.
    fn loaded_objects<'l>(
        &'l self,
        image: ImageId,
        bytes: &'l [&'l [u8]],
        objects: &'l [Object<'l>],
        linked: &'l Linked,
    ) -> impl Iterator<Item = LoadedObject<'l>> {
        bytes.iter().zip(objects).map(move |(bytes, object)| LoadedObject {
            image,
            bytes,
            link: Link { object, image: &linked.image, threads: &linked.threads, relax: self.relax },
            exports: &linked.exports,
            limits: &self.limits,
        })
    }
}

/// An object to be linked together with others.
#[derive(Debug, Clone, Copy)]
pub struct InputObject<'a> {
    /// What to call it in messages and in the link map.
    pub name: &'a str,
    /// The object file.
    pub bytes: &'a [u8],
}

fn common_machine(objects: &[Object<'_>]) -> Result<Machine, LoadError> {
    let [first, others @ ..] = objects else {
        return Err(LoadError::unsupported("a link of no objects"));
    };
    let (machine, format) = (first.graph.machine, first.graph.format);
    match others.iter().find(|other| other.graph.machine != machine || other.graph.format != format) {
        None => Ok(machine),
        Some(other) => Err(LoadError::unsupported(format!(
            "{} is for {} ({:?}), {} for {} ({:?})",
            first.graph.name,
            machine.name(),
            format,
            other.graph.name,
            other.graph.machine.name(),
            other.graph.format
        ))),
    }
}
