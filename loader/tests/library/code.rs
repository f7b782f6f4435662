//! Small objects, made without a compiler, and what is done with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use objcache_loader::{EventListener, ImageId, Library, LoadedObject, Loader, MemoryManager, SlabMemory};

use crate::support::elf::{ALLOC, EXEC, FUNC, GLOBAL, Object, PROGBITS, WEAK};

/// R_X86_64_PLT32.
const PLT32: u32 = 4;

/// An object of functions, each named, weak or not, that return a number or what another function returns.
#[derive(Default)]
pub(crate) struct Functions {
    object: Object,
    undefined: BTreeMap<String, u32>,
}

impl Functions {
    pub(crate) fn returning(mut self, name: &str, number: i32) -> Self {
        let mut code = vec![0xb8, 0, 0, 0, 0, 0xc3];
        code[1..5].copy_from_slice(&number.to_le_bytes());
        self.function(name, GLOBAL, &code);
        self
    }

    pub(crate) fn weakly_returning(mut self, name: &str, number: i32) -> Self {
        self = self.returning(name, number);
        self.object.symbols.last_mut().unwrap().info = WEAK | FUNC;
        self
    }

    /// `sub $8, %rsp; call callee; add $8, %rsp; ret`
    pub(crate) fn calling(mut self, name: &str, callee: &str) -> Self {
        let code = [0x48, 0x83, 0xec, 8, 0xe8, 0, 0, 0, 0, 0x48, 0x83, 0xc4, 8, 0xc3];
        self.function(name, GLOBAL, &code);
        let symbol = self.symbol(callee);
        self.object.sections.last_mut().unwrap().relocate(5, PLT32, symbol, -4);
        self
    }

    /// The last symbol is not seen outside of its image.
    pub(crate) fn hidden(mut self) -> Self {
        self.object.symbols.last_mut().unwrap().other = 2;
        self
    }

    fn function(&mut self, name: &str, binding: u8, code: &[u8]) {
        let section = self.object.sections.len() as u16 + 1;
        self.object.section(&format!(".text.{section}"), EXEC, code).align = 16;
        self.object.symbol(name, binding | FUNC, section, 0);
    }

    /// The number of a symbol, defined or not.
    fn symbol(&mut self, name: &str) -> u32 {
        if let Some(number) = self.object.symbols.iter().position(|symbol| symbol.name == name) {
            return number as u32 + 1;
        }
        let object = &mut self.object;
        *self.undefined.entry(name.to_owned()).or_insert_with(|| object.symbol(name, GLOBAL, 0, 0))
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        debug_assert!(
            self.object.sections.iter().all(|section| section.kind == PROGBITS && section.flags & ALLOC != 0)
        );
        self.object.build()
    }
}

/// An object with one function that returns a number.
pub(crate) fn returning(name: &str, number: i32) -> Vec<u8> {
    Functions::default().returning(name, number).build()
}

/// An object with one function that calls another.
pub(crate) fn calling(name: &str, callee: &str) -> Vec<u8> {
    Functions::default().calling(name, callee).build()
}

/// What a function without arguments returns.
#[track_caller]
pub(crate) fn call(library: &Library, name: &str) -> i32 {
    let _guard = objcache_loader::pin();
    // SAFETY: the functions of these tests are `int name(void)`.
    let function = unsafe { library.get::<extern "C" fn() -> i32>(name) };
    function.unwrap_or_else(|error| panic!("{error}"))()
}

/// Counts images that are in memory.
#[derive(Default)]
pub(crate) struct Alive(AtomicUsize);

impl Alive {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// A library whose images it counts.
    pub(crate) fn library(self: &Arc<Self>, name: &str) -> Library {
        self.library_in(Arc::new(SlabMemory::new()), name)
    }

    /// The same, with images in that memory.
    pub(crate) fn library_in(self: &Arc<Self>, memory: Arc<dyn MemoryManager>, name: &str) -> Library {
        let listener = Arc::clone(self) as Arc<dyn EventListener>;
        let loader = Loader::builder().memory(memory).listener(listener).build();
        Library::builder(name).loader(loader).build()
    }

    /// Waits until so many are left: other tests hold guards of their own.
    #[track_caller]
    pub(crate) fn falls_to(&self, count: usize) {
        for _ in 0..100_000 {
            objcache_loader::collect();
            if self.count() == count {
                return;
            }
            std::thread::yield_now();
        }
        panic!("{} images are in memory, not {count}", self.count());
    }
}

impl EventListener for Alive {
    fn notify_loaded(&self, _loaded: &LoadedObject<'_>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn notify_freeing(&self, _image: ImageId) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
