//! What a name means to a library: its own symbols first, then those of what it searches, in order.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::LibraryError;
use super::generator::{Generated, Generator, GeneratorRequest};
use super::names::Keep;
use super::resident::{LibraryImage, Origin};
use super::{Inner, Library};
use crate::fork;
use crate::loader::InputObject;
use crate::resolver::SymbolResolver;

/// A place to look for names that a library does not have.
#[derive(Clone)]
pub(super) enum Source {
    /// Its symbols, and what its generators make of the name. Not what it searches itself.
    Library(Library),
    Generator(Arc<dyn Generator>),
}

/// Something found, and what keeps it.
type Found = Option<(u64, Keep)>;

impl Library {
    /// Looks everywhere.
    pub(super) fn search_all(&self, name: &str, weak: bool) -> Result<Found, LibraryError> {
        if let Some(found) = self.inner.names.find(name) {
            return Ok(Some(found));
        }
        for source in self.inner.sources().iter() {
            let found = match source {
                Source::Library(other) => other.search_own(name, weak)?,
                Source::Generator(generator) => self.generate(&**generator, name, weak)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn search_own(&self, name: &str, weak: bool) -> Result<Found, LibraryError> {
        if let Some(found) = self.inner.names.find(name) {
            return Ok(Some(found));
        }
        for source in self.inner.sources().iter() {
            if let Source::Generator(generator) = source {
                let found = self.generate(&**generator, name, weak)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    fn generate(&self, generator: &dyn Generator, name: &str, weak: bool) -> Result<Found, LibraryError> {
        /// Others may load the same at the same time; whoever is first wins, and there is less left to make.
        const ATTEMPTS: usize = 8;
        let Some(_asking) = Asking::of(generator, name) else { return Ok(None) };
        let request = GeneratorRequest { library: self, name, weak };
        let mut refused = None;
        for _ in 0..ATTEMPTS {
            let generated = generator.generate(&request);
            let generated =
                generated.map_err(|cause| LibraryError::Generator { name: name.to_owned(), cause })?;
            let objects = match generated {
                None => return Ok(None),
                Some(Generated::Address(address)) => return Ok(Some((address, Keep::Absolute))),
                Some(Generated::Objects(objects)) => objects,
            };
            let inputs: Vec<_> = objects.iter().map(|(name, bytes)| InputObject { name, bytes }).collect();
            let image_name = inputs.first().map_or("", |first| first.name);
            let added = self.link_as(Origin::Generator, image_name, &inputs);
            let added = added.and_then(|image| self.add_generated(&image, name));
            let found = self.inner.names.find(name);
            match (added, found) {
                (Ok(()) | Err(LibraryError::Duplicate { .. }), Some(found)) => return Ok(Some(found)),
                // It was removed by somebody else.
                (Ok(()), None) => return Ok(None),
                (Err(error @ LibraryError::Duplicate { .. }), None) => refused = Some(error),
                (Err(error), _) => return Err(error),
            }
        }
        match refused {
            None => Ok(None),
            Some(error) => Err(error),
        }
    }
}

impl Library {
    /// Enters what an image exports that was made for a name, if that is among it.
    fn add_generated(&self, image: &LibraryImage, name: &str) -> Result<(), LibraryError> {
        if image.address(name).is_none() {
            let (image, symbol) = (image.resident.describe(), name.to_owned());
            return Err(LibraryError::NotDefined { image, symbol });
        }
        self.add(image)
    }
}

impl Inner {
    /// The order may be changed at any time; a load goes by what it was when a name was looked for.
    fn sources(&self) -> Arc<[Source]> {
        Arc::clone(&fork::lock(&self.order))
    }
}

/// A generator being asked for a name by this thread. It is not asked for the same one meanwhile: a member of an archive
/// that needs itself by way of another archive would be loaded for ever.
struct Asking;

thread_local! {
    static ASKED: RefCell<Vec<(*const (), Box<str>)>> = const { RefCell::new(Vec::new()) };
}

impl Asking {
    /// How deep loads may nest that ask for loads: each takes stack.
    const DEEPEST: usize = 64;

    fn of(generator: &dyn Generator, name: &str) -> Option<Self> {
        let generator = (&raw const *generator).cast::<()>();
        ASKED.with_borrow_mut(|asked| {
            let nested = asked.iter().any(|(other, asked)| *other == generator && **asked == *name);
            if nested || asked.len() >= Self::DEEPEST {
                return None;
            }
            asked.push((generator, name.into()));
            Some(Asking)
        })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        ASKED.with_borrow_mut(Vec::pop);
    }
}

/// The resolver of one load. It remembers what keeps what was found.
pub(super) struct Session<'l> {
    library: &'l Library,
    found: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    keeps: Vec<Keep>,
    /// Answers given to [`SymbolResolver::preempts`], which stand.
    preempted: HashMap<Box<str>, u64>,
    error: Option<LibraryError>,
}

impl<'l> Session<'l> {
    pub(super) fn of(library: &'l Library) -> Self {
        Session { library, found: Mutex::default() }
    }

    /// What the image uses, or why a definition that it needs could not be made.
    pub(super) fn finish(self) -> (Vec<Keep>, Option<LibraryError>) {
        let Log { keeps, error, .. } = self.found.into_inner();
        (keeps, error)
    }

    fn search(&self, name: &str, weak: bool) -> Option<u64> {
        let known = self.found.lock().preempted.get(name).copied();
        if known.is_some() {
            return known;
        }
        // No lock is held here: a generator may load.
        let found = self.library.search_all(name, weak);
        let mut log = self.found.lock();
        match found {
            Ok(found) => {
                let (address, keep) = found?;
                log.keep(keep);
                Some(address)
            }
            Err(error) => {
                log.error.get_or_insert(error);
                None
            }
        }
    }
}

impl Log {
    /// Symbols of one image often come in a row.
    fn keep(&mut self, keep: Keep) {
        let is_known = self.keeps.last().is_some_and(|last| last.identity() == keep.identity());
        if !is_known && keep.identity() != 0 {
            self.keeps.push(keep);
        }
    }
}

impl SymbolResolver for Session<'_> {
    fn resolve(&self, name: &str) -> Option<u64> {
        self.search(name, false)
    }

    fn resolve_weak(&self, name: &str) -> Option<u64> {
        self.search(name, true)
    }

    fn preempts(&self, name: &str) -> bool {
        let Some((address, keep)) = self.library.inner.names.find(name) else { return false };
        // The image may be what the stub is to lead to.
        if matches!(keep, Keep::Function(_)) {
            return false;
        }
        let mut log = self.found.lock();
        log.keep(keep);
        log.preempted.insert(name.into(), address);
        true
    }
}
