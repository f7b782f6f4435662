//! A function that others call through a stub: made at its first call if it is lazy, redefined while it is called.

#![allow(unsafe_code)] // The trampoline hands over the address of a record.

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Weak};

use super::error::{FunctionError, FunctionErrorKind, LibraryError};
use super::names::Keep;
use super::resident::{LibraryImage, Resident};
use super::stub::{Pair, Stub};
use super::switch::{Claims, Entered, Party, Slot, Switch};
use super::{Inner, Library, trampoline};
use crate::fork::{self, ThreadNumber};

/// Who makes which function, and runs which initialisers: one for the process, as threads that wait for each other may do so
/// across libraries.
static CLAIMS: LazyLock<Claims<ThreadNumber>> = LazyLock::new(Claims::new);

pub(super) fn claims() -> &'static Claims<ThreadNumber> {
    fork::force(&CLAIMS)
}

impl Party for ThreadNumber {
    fn is_lost(self) -> bool {
        ThreadNumber::is_lost(self)
    }
}

/// Makes a function when it is first called.
pub(super) type Materializer =
    Box<dyn FnOnce(&Library) -> Result<Implementation, Box<dyn Error + Send + Sync>> + Send>;

/// Gives an address to run in place of a function that is not there.
pub(super) type FailureHandler = dyn Fn(&FunctionError) -> u64 + Send + Sync;

/// What runs when a function is called.
#[derive(Debug, Clone)]
pub struct Implementation {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Address(u64),
    Symbol { image: LibraryImage, name: Option<Box<str>> },
}

impl Implementation {
    /// A function of the program's own, which stays where it is.
    pub fn address(address: u64) -> Self {
        Implementation { place: Place::Address(address) }
    }

    /// A symbol of an image, which is kept as long as the function leads there.
    pub fn symbol(image: &LibraryImage, name: &str) -> Self {
        Implementation { place: Place::Symbol { image: image.clone(), name: Some(name.into()) } }
    }

    pub(super) fn find(&self, function: &str) -> Result<(usize, Keep), LibraryError> {
        match &self.place {
            Place::Address(address) => Ok((*address as usize, Keep::Absolute)),
            Place::Symbol { image, name } => {
                let symbol = name.as_deref().unwrap_or(function);
                let not_defined = || LibraryError::NotDefined {
                    image: image.resident.describe(),
                    symbol: symbol.to_owned(),
                };
                let address = image.address(symbol).ok_or_else(not_defined)?;
                Ok((address as usize, Keep::Image(Arc::clone(&image.resident))))
            }
        }
    }
}

/// The symbol of the same name as the function.
impl From<&LibraryImage> for Implementation {
    fn from(image: &LibraryImage) -> Self {
        Implementation { place: Place::Symbol { image: image.clone(), name: None } }
    }
}

/// What a function leads to that is not waiting to be made.
pub(super) enum Target {
    /// Its slot does; this keeps what is there.
    Code(Keep),
    /// It was removed: its slot leads to the trampoline for good.
    Removed,
}

impl Target {
    fn is_there(&self) -> bool {
        matches!(self, Target::Code(_))
    }

    fn is_in(&self, image: &Arc<Resident>) -> bool {
        matches!(self, Target::Code(Keep::Image(own)) if Arc::ptr_eq(own, image))
    }

    fn into_keep(self) -> Option<Keep> {
        match self {
            Target::Code(keep) => Some(keep),
            Target::Removed => None,
        }
    }
}

/// A function and its stub.
pub(super) struct Function {
    name: Box<str>,
    library: Weak<Inner>,
    library_name: Arc<str>,
    stub: Stub,
    switch: Switch<Materializer, Target>,
    on_failure: Option<Arc<FailureHandler>>,
}

impl Function {
    /// A function that is there.
    pub(super) fn leading_to(library: &Arc<Inner>, name: &str, address: usize, keep: Keep) -> NewFunction {
        let switch = Switch::set_to(Target::Code(keep));
        let function = Self::new(library, name, switch)?;
        function.stub.store(address);
        Ok(function)
    }

    /// A function to be made at its first call.
    pub(super) fn lazy(library: &Arc<Inner>, name: &str, make: Materializer) -> NewFunction {
        Self::new(library, name, Switch::pending(make))
    }

    fn new(library: &Arc<Inner>, name: &str, switch: Switch<Materializer, Target>) -> NewFunction {
        let function = Arc::new(Function {
            name: name.into(),
            library: Arc::downgrade(library),
            library_name: Arc::clone(&library.name),
            stub: library.stubs.take(&library.loader)?,
            switch,
            on_failure: library.on_failure.clone(),
        });
        function.stub.belongs_to(Arc::as_ptr(&function) as usize);
        Ok(function)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_of(&self, library: &Arc<Inner>) -> bool {
        self.library.as_ptr() == Arc::as_ptr(library)
    }

    /// Address of the stub.
    pub(super) fn address(&self) -> u64 {
        self.stub.address()
    }

    pub(super) fn describe(&self) -> String {
        let image = self.switch.with(|target| match target {
            Target::Code(Keep::Image(image)) => Some(image.describe()),
            _ => None,
        });
        match image.flatten() {
            Some(image) => image,
            None => format!("the function of library `{}`", self.library_name),
        }
    }

    /// Leads to something else from now on. Gives back what it led to.
    pub(super) fn redefine(&self, address: usize, keep: Keep) -> Result<Option<Keep>, LibraryError> {
        let replaced =
            self.switch.replace(claims(), &self.stub, address, Target::Code(keep), Target::is_there);
        match replaced {
            Ok(before) => Ok(before.and_then(Target::into_keep)),
            Err(_) => Err(LibraryError::NoFunction {
                library: self.library_name.to_string(),
                name: self.name.to_string(),
            }),
        }
    }

    /// Leads nowhere from now on, whatever it led to.
    pub(super) fn remove(&self) -> Option<Keep> {
        self.remove_if(|_| true)?
    }

    /// The same if it leads to an image. Gives back what it led to if so.
    pub(super) fn remove_from(&self, image: &Arc<Resident>) -> Option<Option<Keep>> {
        self.remove_if(|target| target.is_in(image))
    }

    fn remove_if(&self, allowed: impl FnOnce(&Target) -> bool) -> Option<Option<Keep>> {
        let nowhere = trampoline::address().unwrap_or_default() as usize;
        let before = self.switch.replace(claims(), &self.stub, nowhere, Target::Removed, allowed).ok()?;
        Some(before.and_then(Target::into_keep))
    }

    /// Where a call goes that came to the trampoline.
    fn call(&self) -> usize {
        match self.switch.enter(claims(), ThreadNumber::current()) {
            Entered::Set => {}
            Entered::Cycle => return self.fail(FunctionErrorKind::Cycle),
            Entered::Lost => return self.fail(FunctionErrorKind::Lost),
            Entered::Claimed(make) => {
                let (address, target) = match self.make(make) {
                    Ok((address, keep)) => (address, Target::Code(keep)),
                    Err(why) => (self.fail(why), Target::Code(Keep::Absolute)),
                };
                // What somebody else defined meanwhile stands; nobody was led to what was made here.
                drop(self.switch.finish(claims(), &self.stub, address, target));
            }
        }
        // Asked for under the lock: a removal puts the trampoline back.
        match self.switch.with(|target| target.is_there().then(|| self.stub.target())) {
            Some(Some(address)) => address,
            _ => self.fail(FunctionErrorKind::Removed),
        }
    }

    fn make(&self, make: Materializer) -> Result<(usize, Keep), FunctionErrorKind> {
        let inner = self.library.upgrade().ok_or(FunctionErrorKind::Removed)?;
        let library = Library { inner };
        let made = catch_unwind(AssertUnwindSafe(|| make(&library)?.find(&self.name).map_err(Into::into)));
        match made {
            Ok(Ok(made)) => Ok(made),
            Ok(Err(why)) => Err(FunctionErrorKind::Failed(why)),
            Err(panic) => Err(FunctionErrorKind::Panicked(message_of(&*panic))),
        }
    }

    /// What the client has to run instead.
    fn fail(&self, kind: FunctionErrorKind) -> usize {
        let error =
            FunctionError { function: self.name.to_string(), library: self.library_name.to_string(), kind };
        match &self.on_failure {
            Some(handler) => handler(&error) as usize,
            None => {
                eprintln!("objcache: {error}");
                std::process::abort();
            }
        }
    }
}

type NewFunction = Result<Arc<Function>, LibraryError>;

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Function({})", self.name)
    }
}

/// Called by the trampoline: where the call goes that a stub led there. Nothing unwinds out of it, since the frames below
/// are those of a call that has not begun.
#[cfg_attr(
    not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))),
    allow(dead_code)
)]
pub(super) extern "C" fn call_of(pair: &Pair) -> usize {
    let record = pair.function() as *const Function;
    if record.is_null() {
        eprintln!("objcache: a function is called that was freed with its library");
        std::process::abort();
    }
    let error_number = ErrorNumber::now();
    // SAFETY: the record is in an `Arc`, which is there as long as the stub that was called; whoever calls keeps that, by
    // the contract of `Library::get`.
    unsafe { Arc::increment_strong_count(record) };
    // SAFETY: the count was raised for this.
    let function = unsafe { Arc::from_raw(record) };
    let address = catch_unwind(AssertUnwindSafe(|| function.call())).unwrap_or_else(|_| {
        eprintln!("objcache: the handler for functions that are not there panicked");
        std::process::abort();
    });
    drop(function);
    error_number.restore();
    address
}

/// The C library's `errno`, which belongs to whoever calls: a call changes it no more than a jump does.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
struct ErrorNumber(i32);

impl ErrorNumber {
    fn now() -> Self {
        ErrorNumber(std::io::Error::last_os_error().raw_os_error().unwrap_or_default())
    }

    fn restore(self) {
        #[cfg(target_os = "linux")]
        {
            // SAFETY: takes nothing, and gives the address of this thread's own variable.
            let place = unsafe { libc::__errno_location() };
            // SAFETY: as just said.
            unsafe { *place = self.0 };
        }
    }
}
