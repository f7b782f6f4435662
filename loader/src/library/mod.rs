//! Libraries: named sets of images with one symbol table, whose functions can be made when they are first called and
//! replaced while they run.
//!
//! ```
//! use objcache_loader::{Implementation, Library, ProcessSymbols, filtered, pin};
//!
//! extern "C" fn one() -> i32 { 1 }
//! extern "C" fn two() -> i32 { 2 }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let library = Library::new("app");
//! library.add_generator(filtered(ProcessSymbols, |name| name != "system"));
//! // In place of an address: an image with code of that name, from `library.link(name, object)`.
//! library.define_lazy("answer", |_library| Ok(Implementation::address(one as *const () as u64)))?;
//!
//! // SAFETY: that is the type of whatever `answer` leads to, and calls are made under a guard.
//! let answer = unsafe { library.get::<extern "C" fn() -> i32>("answer") }?;
//! let guard = pin();
//! assert_eq!(answer(), 1);
//! // SAFETY: the type is the same.
//! let old = unsafe { library.redefine("answer", Implementation::address(two as *const () as u64)) }?;
//! assert_eq!(answer(), 2);
//! drop((old, guard)); // Now the old code is freed: it was replaced, and this thread was the last that could be in it.
//! # Ok(())
//! # }
//! ```
//!
//! # Names
//! A library *defines* what its images export, what the client [defines](Library::define), and functions with stubs. It
//! finds names there first, then in what it [searches](Library::search), in order: other libraries (their own symbols and
//! what their generators make, not what they search), and [generators](Generator).
//!
//! - Two strong definitions are an error that names both, and nothing of the second is there.
//! - A weak definition gives way to one that is there, strong or weak; in ELF also within its own image, so that C++'s
//!   inline variables are one. (Not to a function with a stub: the image may be what that is to lead to.) `STB_GNU_UNIQUE` counts as weak, common symbols as strong: compile with `-fno-common`, or
//!   link what shares them [as one image](Library::link_all).
//! - A strong definition takes the name from a weak one, and does not give it back when it is removed. Images that were
//!   linked to the weak one go on using it.
//! - Hidden symbols are seen within their image only, also where images are in the same library. Thread-local variables and
//!   names that are no UTF-8 are not in the table.
//! - So thread-local variables that C++ has once in a program (`inline thread_local`, and those that are static in an inline
//!   function or member of a template) exist once in each *image* that has them, and nothing says so: link the objects that
//!   share them [as one image](Library::link_all).
//!
//! # Initialisers
//! Loading runs no code of an object, and neither does a generator that brings in a member of an archive. Whoever
//! [runs the initialisers](LibraryImage::run_initializers) of an image runs first those of the images that were generated for
//! it; after a lookup that may have brought one in, [`Library::run_initializers`] does it.
//!
//! # Who keeps what
//! An image owns the images that its symbols were resolved to, and these were there before it, so there are no circles. A
//! name disappears at once when an image is removed, or the library; memory, GOT and registrations go with the last user:
//! an image, a [`LibraryImage`], a [`LibrarySymbol`], a [`Guard`] that was there at the time. A reference to a function
//! through a stub owns the stub and not what it leads to, as functions may well refer to each other; a call of one that was
//! removed comes to the [handler](LibraryBuilder::on_failure).
//!
//! # Threads
//! Everything may be called from many threads at once. Lookups of a library's own names take no lock and do not allocate;
//! keeping what was found counts a reference, in the image that was found. A load takes the library's lock only to enter
//! names into the table, and its search order's to copy a pointer; parsing and linking hold nothing. Shared by all
//! libraries of a process: the epochs of [`pin`], of which each thread writes its own; the list of code that may be freed,
//! when code is removed; the table of who makes which function, at first calls; and the list of what runs when the process
//! exits, of images with finalisers. Generators, materialisers, handlers and finalisers run without any of these locks.
//!
//! After a `fork` the child may call what was there, load, redefine, remove and search elsewhere: forks wait until no thread
//! has one of these locks.
//! Guards of threads that the child does not have stay active there, so what it removes is freed by [`Retired::free`] only.
//! A lazy function that such a thread was making at that moment is not made in the child: a call of it comes to the
//! [handler](LibraryBuilder::on_failure) ([`FunctionErrorKind::Lost`]), until the function is redefined. Forks do not wait for
//! threads that begin or end, which take locks of Rust's standard library and of the table's (papaya's) at that moment: a
//! *new* thread of the child, or one that uses a library for the first time there, may wait for such a lock for ever.

mod epoch;
mod error;
mod function;
mod generator;
mod names;
mod publish;
mod resident;
mod search;
mod stub;
mod switch;
mod symbol;
mod sync;
mod trampoline;

pub use epoch::{Guard, Retired, collect, pin};
pub use error::{FunctionError, FunctionErrorKind, LibraryError};
pub use function::Implementation;
pub use generator::{ArchiveGenerator, Filtered, Generated, Generator, GeneratorRequest, filtered};
pub use resident::LibraryImage;
pub use symbol::LibrarySymbol;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use self::function::{FailureHandler, Function};
use self::names::{Binding, Keep, Names, Provider};
use self::publish::{Entry, Owned};
use self::resident::{Origin, Resident};
use self::search::{Session, Source};
use self::stub::StubPool;
use crate::error::{LookupError, printable};
use crate::fork;
use crate::image::pointer_to;
use crate::loader::{InputObject, Loader};

/// A named set of images with one symbol table. Clones are the same library; with the last one its symbols are removed.
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

/// Puts a [`Library`] together.
#[must_use]
pub struct LibraryBuilder {
    name: Arc<str>,
    loader: Option<Loader>,
    on_failure: Option<Arc<FailureHandler>>,
}

/// What the clones of a library share.
struct Inner {
    name: Arc<str>,
    loader: Loader,
    names: Names,
    /// What the names refer to. Held while names are entered or removed, which is what makes that one step for others
    /// who do the same.
    owned: Mutex<Owned>,
    order: Mutex<Arc<[Source]>>,
    stubs: StubPool,
    on_failure: Option<Arc<FailureHandler>>,
}

impl LibraryBuilder {
    /// How images are loaded. Default: [`Loader::new`]. Stubs take their memory from its manager.
    pub fn loader(mut self, loader: Loader) -> Self {
        self.loader = Some(loader);
        self
    }

    /// What to run when a function is called that cannot be made, or was removed: the handler gives the address of a
    /// function of the same type, which may report the error in its result. It is called by the thread that makes the call,
    /// and must not panic. A function that could not be made leads there from now on, until it is redefined.
    ///
    /// Without a handler the reason is printed, and the process aborted.
    pub fn on_failure(mut self, handler: impl Fn(&FunctionError) -> u64 + Send + Sync + 'static) -> Self {
        self.on_failure = Some(Arc::new(handler));
        self
    }

    /// The library.
    pub fn build(self) -> Library {
        Library {
            inner: Arc::new(Inner {
                name: self.name,
                loader: self.loader.unwrap_or_default(),
                names: Names::default(),
                owned: Mutex::default(),
                order: Mutex::new(Arc::new([])),
                stubs: StubPool::default(),
                on_failure: self.on_failure,
            }),
        }
    }
}

impl fmt::Debug for LibraryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LibraryBuilder({})", self.name)
    }
}

/// Sets up.
impl Library {
    /// A library with a loader of its own. Takes no memory before it is asked for some.
    pub fn new(name: &str) -> Self {
        Self::builder(name).build()
    }

    /// A library put together by hand. Those that share a [`Loader`] share its memory.
    pub fn builder(name: &str) -> LibraryBuilder {
        LibraryBuilder { name: name.into(), loader: None, on_failure: None }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// From now on names that this library does not define are looked for in another as well, after what it searches
    /// already. It keeps the other: two that search each other stay until one
    /// [stops](Self::stop_searching).
    pub fn search(&self, other: &Library) {
        self.add_source(Source::Library(other.clone()));
    }

    /// From now on a generator is asked as well for names that this library does not define, after what it searches
    /// already. Any [`SymbolResolver`](crate::SymbolResolver) is one.
    pub fn add_generator(&self, generator: impl Generator + 'static) {
        self.add_source(Source::Generator(Arc::new(generator)));
    }

    /// Forgets all libraries and generators that are searched. What was found there stays valid.
    pub fn stop_searching(&self) {
        let before = std::mem::replace(&mut *fork::lock(&self.inner.order), Arc::new([]));
        // With the last reference to a library its images go, and their finalisers are the client's code.
        drop(before);
    }

    fn add_source(&self, source: Source) {
        let mut order = fork::lock(&self.inner.order);
        *order = order.iter().cloned().chain([source]).collect();
    }

    /// Defines a symbol as an address of the client's.
    ///
    /// # Errors
    /// [`LibraryError::Duplicate`].
    pub fn define(&self, name: &str, address: u64) -> Result<(), LibraryError> {
        let binding = Binding { address, weak: false, provider: Provider::Absolute };
        self.enter(vec![Entry::of(name, binding)], &|| "an absolute definition".to_owned(), None)
    }
}

/// Images.
impl Library {
    /// Loads an object and enters what it exports: [`link`](Self::link) and [`add`](Self::add). Initialisers are
    /// [not run](LibraryImage::run_initializers).
    ///
    /// # Errors
    /// As these two. Nothing of the object stays behind. Images that generators made for it do, as those that a lookup asks
    /// for: each is whole, its names are entered, and others may use it already. They are among
    /// [`images`](Self::images), and can be removed.
    pub fn load(&self, name: &str, object: &[u8]) -> Result<LibraryImage, LibraryError> {
        let image = self.link(name, object)?;
        self.add(&image).map(|()| image)
    }

    /// The same with a stub for each function that the object exports: [`link`](Self::link) and
    /// [`add_redirectable`](Self::add_redirectable).
    ///
    /// The stubs are for others: the object itself is linked to its own definitions, also where the compiler left a call open
    /// to be interposed (`-fPIC`), as a shared library linked with `-Bsymbolic`. So its own calls of its functions go where
    /// they went before a redefinition; and a function's address, which is the stub's for all others, is another one inside of
    /// the object: such addresses must not be compared. To have it otherwise, put the callers into an object of their own.
    ///
    /// # Errors
    /// As these two. What stays behind is as with [`load`](Self::load).
    pub fn load_redirectable(&self, name: &str, object: &[u8]) -> Result<LibraryImage, LibraryError> {
        let image = self.link(name, object)?;
        self.add_redirectable(&image).map(|()| image)
    }

    /// Loads an object with the library's symbols, without entering its own: what [`redefine`](Self::redefine) and lazy
    /// functions lead to. `name` is for messages.
    ///
    /// # Errors
    /// [`LibraryError::Load`]; [`LibraryError::Generator`] when a definition that the object needs cannot be made.
    pub fn link(&self, name: &str, object: &[u8]) -> Result<LibraryImage, LibraryError> {
        self.link_as(Origin::Client, name, &[InputObject { name, bytes: object }])
    }

    /// The same with several objects as one image ([`Loader::load_all`]).
    ///
    /// # Errors
    /// As [`link`](Self::link).
    pub fn link_all(&self, name: &str, objects: &[InputObject<'_>]) -> Result<LibraryImage, LibraryError> {
        self.link_as(Origin::Client, name, objects)
    }

    fn link_as(
        &self,
        origin: Origin,
        name: &str,
        objects: &[InputObject<'_>],
    ) -> Result<LibraryImage, LibraryError> {
        let session = Session::of(self);
        let loader = &self.inner.loader;
        let loaded = match objects {
            [object] => loader.load(object.bytes, &session),
            _ => loader.load_all(objects, &session).map(|(image, _)| image),
        };
        let (uses, error) = session.finish();
        let loaded = match (loaded, error) {
            (_, Some(error)) => return Err(error),
            (loaded, None) => loaded,
        };
        let image = loaded.map_err(|cause| LibraryError::Load { image: name.to_owned(), cause })?;
        Ok(LibraryImage { resident: Arc::new(Resident::new(name, image, uses, origin)) })
    }

    /// Enters what an image exports.
    ///
    /// # Errors
    /// [`LibraryError::Duplicate`]; [`LibraryError::Load`] when the names are longer than the loader's
    /// [`Limits`](crate::Limits). The table is as before then.
    pub fn add(&self, image: &LibraryImage) -> Result<(), LibraryError> {
        self.add_image(image, false)
    }

    /// The same with a stub for each function, which can be [redefined](Self::redefine) then. Data is entered as it is.
    ///
    /// # Errors
    /// As [`add`](Self::add); [`LibraryError::Memory`] and [`LibraryError::Unsupported`] about the stubs.
    pub fn add_redirectable(&self, image: &LibraryImage) -> Result<(), LibraryError> {
        self.add_image(image, true)
    }

    /// Removes an image: its names at once, its memory when nobody uses it any more. Functions that it provided and that
    /// were redefined since stay.
    pub fn remove(&self, image: &LibraryImage) -> Retired {
        self.remove_image(&image.resident)
    }

    /// Removes everything that the library defines. What it searches stays.
    pub fn clear(&self) -> Retired {
        self.inner.clear()
    }

    /// The images in it, those that generators made included, in the order in which they were linked.
    pub fn images(&self) -> Vec<LibraryImage> {
        let owned = fork::lock(&self.inner.owned);
        let images = owned.images.values().map(|resident| LibraryImage { resident: Arc::clone(resident) });
        let mut images: Vec<_> = images.collect();
        drop(owned);
        images.sort_unstable_by_key(|image| image.resident.number());
        images
    }

    /// Runs the initialisers of all images in it that did not run yet, in the order in which images were linked: each
    /// image's as [`LibraryImage::run_initializers`] does. That is for images that a generator made because somebody
    /// looked a name up.
    ///
    /// # Safety
    /// As there.
    #[allow(unsafe_code)] // Forwards what the caller promises.
    pub unsafe fn run_initializers(&self) {
        for image in self.images() {
            // SAFETY: what the caller vouches for.
            unsafe { image.run_initializers() }
        }
    }
}

/// Functions with stubs.
impl Library {
    /// Defines a function that can be redefined. Its address is that of a stub, which stays.
    ///
    /// # Errors
    /// [`LibraryError::Duplicate`]; [`LibraryError::NotDefined`] by the image that was given; no memory for a stub, or no
    /// stubs for this machine.
    pub fn define_function(
        &self,
        name: &str,
        implementation: impl Into<Implementation>,
    ) -> Result<(), LibraryError> {
        let (address, keep) = implementation.into().find(name)?;
        self.enter_function(Function::leading_to(&self.inner, name, address, keep)?)
    }

    /// Defines a function that is made when it is first called, once, by the thread that calls first; others that call
    /// meanwhile wait. From then on a call costs a jump. `make` is given the library, may load into it and call what is in
    /// it, other lazy functions included, and says what the function leads to; it must not keep the library. It runs on the
    /// stack of whoever calls: a compiler may need more than a small thread has.
    ///
    /// An error or a panic of `make`, and a function whose making waits for itself, come to the library's
    /// [handler](LibraryBuilder::on_failure). No exception of another language may leave `make`: it runs between a call and the
    /// function that is called, where nobody can catch one, and the process is aborted ("Rust cannot catch foreign
    /// exceptions"). `errno` is to the function what it was to the caller.
    ///
    /// # Errors
    /// As [`define_function`](Self::define_function).
    pub fn define_lazy(
        &self,
        name: &str,
        make: impl FnOnce(&Library) -> Result<Implementation, Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> Result<(), LibraryError> {
        self.enter_function(Function::lazy(&self.inner, name, Box::new(make))?)
    }

    /// Leads a function to something else, while other threads may be calling it. When this returns no call that begins
    /// enters what was there before; calls that are in it finish there. A lazy function that was not called yet is not made
    /// any more. Only this name changes: whatever else the new image exports is entered by nobody.
    ///
    /// It reaches calls that go through the stub, so not those inside of the image that defines the function
    /// ([`load_redirectable`](Self::load_redirectable)).
    ///
    /// # Safety
    /// What the function leads to must be of the type that it is called by, its code trusted, its initialisers run. Whoever
    /// calls the function holds a [`Guard`] meanwhile, or the [`Retired`] code is kept until nobody is in it.
    ///
    /// # Errors
    /// [`LibraryError::NoFunction`]: the library defines no such function, or not with a stub.
    /// [`LibraryError::NotDefined`]: the image defines no such symbol.
    #[allow(unsafe_code)] // The caller vouches for the type.
    pub unsafe fn redefine(
        &self,
        name: &str,
        implementation: impl Into<Implementation>,
    ) -> Result<Retired, LibraryError> {
        let (address, keep) = implementation.into().find(name)?;
        let Some((_, Keep::Function(function))) = self.inner.names.find(name) else {
            let name = printable(name.as_bytes());
            return Err(LibraryError::NoFunction { library: self.name().to_owned(), name });
        };
        Ok(Retired::of(function.redefine(address, keep)?.into_iter().collect()))
    }

    /// Removes a name. What an image provided stays in memory with the image; a function with a stub leads nowhere from
    /// now on, and a call of it that others still make comes to the [handler](LibraryBuilder::on_failure).
    pub fn undefine(&self, name: &str) -> Retired {
        self.remove_name(name)
    }
}

/// Lookup.
impl Library {
    /// The address of a symbol, of this library or of what it searches. What is found in the library itself takes no lock
    /// and is not kept: it may be removed before the address is used, unless a [`Guard`] was taken before or the image is
    /// kept otherwise.
    pub fn address(&self, name: &str) -> Option<u64> {
        match self.inner.names.address(name) {
            Some(address) => Some(address),
            None => self.search_all(name, false).ok()?.map(|(address, _)| address),
        }
    }

    /// A symbol of this library, or of what it searches, as a function pointer or a raw pointer that keeps what it points
    /// to.
    ///
    /// # Safety
    /// As for [`LoadedImage::get`](crate::LoadedImage::get): `F` must be what the symbol is, the code trusted, its
    /// initialisers run, and a copy taken out of the symbol not be used after it is dropped. A function
    /// [with a stub](LibrarySymbol::is_redirectable) may lead somewhere else at any time: hold a [`Guard`] while it is
    /// called, or keep the [`Retired`] code until nobody is in it. That goes for functions too that it is called through.
    ///
    /// # Errors
    /// [`LookupError`]: no such symbol, none in this process, or `F` is no pointer.
    #[allow(unsafe_code)] // An address becomes what the caller says it is.
    pub unsafe fn get<F: Copy>(&self, name: &str) -> Result<LibrarySymbol<F>, LookupError> {
        let found = self
            .search_all(name, false)
            .map_err(|why| LookupError::NotMade { name: printable(name.as_bytes()), why: why.to_string() })?;
        let Some((address, keep)) = found else {
            let name = printable(name.as_bytes());
            return Err(LookupError::NotInLibrary { library: self.name().to_owned(), name });
        };
        if !self.inner.loader.memory().executes_here() {
            return Err(LookupError::elsewhere(name));
        }
        // SAFETY: what the caller vouches for.
        let pointer = unsafe { pointer_to(name, address) }?;
        Ok(LibrarySymbol { pointer, keep })
    }

    /// Whether the library itself defines a name.
    pub fn defines(&self, name: &str) -> bool {
        self.inner.names.address(name).is_some()
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.inner.names.len();
        f.debug_struct("Library").field("name", &self.name()).field("names", &names).finish_non_exhaustive()
    }
}

/// Threads may still be in its code, so that goes when no guard is left.
impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.clear());
    }
}
