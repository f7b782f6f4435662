//! Who keeps what in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use objcache_loader::{
    EventListener, Implementation, InFlightMemory, Library, Loader, MemoryError, MemoryManager,
    MemoryRequest, PageMemory, pin,
};

use crate::code::{Alive, Functions, call, calling, returning};

#[test]
fn an_image_goes_when_it_is_removed_and_nobody_uses_it() {
    let alive = Arc::new(Alive::default());
    let library = alive.library("app");
    let image = library.load("a.o", &returning("f", 1)).unwrap();
    assert_eq!(alive.count(), 1);
    drop(library.remove(&image));
    assert!(!library.defines("f"));
    assert!(library.remove(&image).is_empty(), "it is removed already");
    assert_eq!(image.address("f").map(|address| address != 0), Some(true));
    alive.falls_to(1);
    drop(image);
    alive.falls_to(0);
    library.load("a.o", &returning("f", 2)).unwrap();
    assert_eq!(call(&library, "f"), 2, "the name is free again");
}

#[test]
fn users_keep_what_they_use() {
    let alive = Arc::new(Alive::default());
    let [library, other] = ["app", "other"].map(|name| alive.library(name));
    library.search(&other);
    let base = other.load("base.o", &returning("base", 7)).unwrap();
    let middle = library.load("middle.o", &calling("middle", "base")).unwrap();
    let top = library.load("top.o", &calling("top", "middle")).unwrap();
    for image in [base, middle] {
        drop(library.remove(&image));
        drop(other.remove(&image));
    }
    assert!(library.address("base").is_none() && library.address("middle").is_none());
    alive.falls_to(3);
    assert_eq!(call(&library, "top"), 7);
    drop(library.remove(&top));
    drop(top);
    alive.falls_to(0);
}

#[test]
fn a_symbol_keeps_its_image_and_a_guard_what_it_may_be_in() {
    let alive = Arc::new(Alive::default());
    let library = alive.library("app");
    let image = library.load("a.o", &returning("f", 9)).unwrap();
    // SAFETY: that is the function's type.
    let symbol = unsafe { library.get::<extern "C" fn() -> i32>("f") }.unwrap();
    let guard = pin();
    drop(library.clear());
    drop(image);
    assert_eq!(symbol(), 9);
    drop(symbol);
    objcache_loader::collect();
    assert_eq!(alive.count(), 1, "this thread's guard was there before");
    drop(guard);
    alive.falls_to(0);
}

#[test]
fn what_was_removed_can_be_freed_at_once_by_who_knows_better() {
    let alive = Arc::new(Alive::default());
    let library = alive.library("app");
    let _guard = pin();
    library.load("a.o", &returning("f", 9)).unwrap();
    let retired = library.clear();
    assert_eq!(alive.count(), 1);
    // SAFETY: nobody calls anything.
    unsafe { retired.free() };
    assert_eq!(alive.count(), 0);
}

#[test]
fn a_library_goes_with_its_last_clone() {
    let alive = Arc::new(Alive::default());
    let library = alive.library("app");
    library.load("a.o", &returning("f", 1)).unwrap();
    library.load_redirectable("b.o", &calling("g", "f")).unwrap();
    library.define_function("h", &library.link("h.o", &returning("h", 3)).unwrap()).unwrap();
    let clone = library.clone();
    drop(library);
    assert_eq!((call(&clone, "g"), call(&clone, "h")), (1, 3));
    assert_eq!(alive.count(), 3);
    drop(clone);
    alive.falls_to(0);
}

/// `f` calls `g` and that `f`, each in an image of its own, through stubs.
#[test]
fn functions_that_refer_to_each_other_do_not_keep_each_other() {
    let alive = Arc::new(Alive::default());
    let library = alive.library("app");
    for (name, callee) in [("f", "g"), ("g", "f")] {
        library
            .define_lazy(name, move |library| {
                Ok(Implementation::from(&library.link(name, &calling("x", callee))?))
            })
            .unwrap();
    }
    for name in ["f", "g"] {
        let object = Functions::default().calling(name, if name == "f" { "g" } else { "f" }).build();
        let image = library.link(name, &object).unwrap();
        // SAFETY: nobody calls them.
        drop(unsafe { library.redefine(name, &image) }.unwrap());
    }
    assert_eq!(alive.count(), 2);
    drop(library);
    alive.falls_to(0);
}

/// Dropping one image after the other by recursion would take more stack than there is.
#[test]
fn a_long_chain_of_images_is_freed() {
    const LENGTH: i32 = 20_000;
    let alive = Arc::new(Alive::default());
    let library = alive.library("app");
    library.load("0", &returning("f0", 1)).unwrap();
    for number in 1..LENGTH {
        library.load("n", &calling(&format!("f{number}"), &format!("f{}", number - 1))).unwrap();
    }
    // SAFETY: nothing is called.
    let last = unsafe { library.get::<extern "C" fn() -> i32>(&format!("f{}", LENGTH - 1)) }.unwrap();
    drop(library);
    alive.falls_to(LENGTH as usize);
    drop(last);
    alive.falls_to(0);
}

#[test]
fn a_finaliser_may_use_the_library() {
    use objcache_loader::AbsoluteSymbols;
    use std::sync::Mutex;
    static LIBRARY: Mutex<Option<objcache_loader::Library>> = Mutex::new(None);
    extern "C" fn finalise() {
        let library = LIBRARY.lock().unwrap().take().unwrap();
        library.load("from_finaliser.o", &returning("g", 1)).unwrap();
        drop(library.clear());
    }
    let mut object = crate::support::elf::Object::default();
    let symbol = object.symbol("finalise", 0x10, 0, 0);
    object.section(".fini_array", 1, &[0; 8]).relocate(0, 1, symbol, 0);
    object.section(".init_array", 1, &[0; 8]);
    let alive = Arc::new(Alive::default());
    let library = alive.library("app");
    library.add_generator(AbsoluteSymbols::new().with("finalise", finalise as *const () as u64));
    let image = library.load("a.o", &object.build()).unwrap();
    // SAFETY: there are none but an empty entry.
    unsafe { image.run_initializers() };
    *LIBRARY.lock().unwrap() = Some(library.clone());
    drop(library.remove(&image));
    drop(image);
    alive.falls_to(0);
    assert!(LIBRARY.lock().unwrap().is_none());
}

/// Refuses the allocation with a number.
struct Refusing {
    memory: PageMemory,
    left: AtomicUsize,
}

// SAFETY: it is `PageMemory` that gives memory, if anybody does.
unsafe impl MemoryManager for Refusing {
    fn allocate(&self, request: &MemoryRequest) -> Result<Box<dyn InFlightMemory>, MemoryError> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            return Err(MemoryError::new("allocating", "not today"));
        }
        self.memory.allocate(request)
    }
}

#[test]
fn without_memory_everything_is_as_it_was() {
    let memory = Arc::new(Refusing { memory: PageMemory::new(), left: AtomicUsize::new(2) });
    let alive = Arc::new(Alive::default());
    let loader = Loader::builder()
        .memory(Arc::clone(&memory) as Arc<dyn MemoryManager>)
        .listener(Arc::clone(&alive) as Arc<dyn EventListener>)
        .build();
    let library = Library::builder("app").loader(loader).build();
    library.load("a.o", &returning("f", 1)).unwrap();
    let before = format!("{library:?}");
    let functions = Functions::default().returning("g", 2).calling("h", "f").build();
    // Of the image, and of its stubs.
    for left in [0, 1] {
        memory.left.store(left, Ordering::SeqCst);
        let refused = library.load_redirectable("b.o", &functions).unwrap_err().to_string();
        assert!(refused.ends_with("memory: allocating: not today"), "{refused}");
        assert_eq!((format!("{library:?}"), library.images().len(), alive.count()), (before.clone(), 1, 1));
    }
    memory.left.store(0, Ordering::SeqCst);
    library.define_lazy("g", |_| unreachable!()).unwrap_err();
    assert_eq!(format!("{library:?}"), before);
    library.load_redirectable("b.o", &functions).unwrap();
    assert_eq!((call(&library, "g"), call(&library, "h")), (2, 1));
}
