//! An image that belongs to a library, and everything that it refers to.

use std::collections::HashSet;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::function::{Function, claims};
use super::names::Keep;
use super::switch::{Entered, Slot, Switch};
use crate::error::LookupError;
use crate::fork::ThreadNumber;
use crate::image::{LoadedImage, Symbol};

/// An image with what keeps its references valid: each image owns the images that its symbols were resolved to. An image
/// only refers to what was there before it, so there are no cycles; references through a stub own the stub, not what it
/// leads to.
pub(super) struct Resident {
    name: Box<str>,
    /// Higher than those of all that it uses.
    number: u64,
    /// Of an image that a generator made, which nobody but the library knows of: whether its initialisers were run.
    generated: Option<Box<Switch<(), ()>>>,
    /// There until this is dropped.
    image: Option<LoadedImage>,
    uses: Vec<Keep>,
    /// Functions of a library that were made for symbols of this image.
    pub(super) functions: Mutex<Vec<Weak<Function>>>,
}

impl Resident {
    pub(super) fn new(name: &str, image: LoadedImage, mut uses: Vec<Keep>, origin: Origin) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        uses.sort_unstable_by_key(|keep| (keep.number(), keep.identity()));
        uses.dedup_by_key(|keep| keep.identity());
        uses.shrink_to_fit();
        let generated = match origin {
            Origin::Client => None,
            Origin::Generator => Some(Box::new(Switch::pending(()))),
        };
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Resident {
            name: name.into(),
            number,
            generated,
            image: Some(image),
            uses,
            functions: Mutex::default(),
        }
    }

    /// Later images have higher ones.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The images that were generated for this one, directly or for one of those, in the order of their making.
    fn generated_for(&self) -> Vec<&Resident> {
        let mut found = Vec::new();
        let mut known = HashSet::new();
        let mut pending = vec![self];
        while let Some(user) = pending.pop() {
            for keep in &user.uses {
                let Keep::Image(used) = keep else { continue };
                if used.generated.is_some() && known.insert(used.number) {
                    found.push(&**used);
                    pending.push(used);
                }
            }
        }
        found.sort_unstable_by_key(|resident| resident.number);
        found
    }

    /// # Safety
    /// As [`LoadedImage::run_initializers`], also of the images that were generated for this one.
    #[allow(unsafe_code)] // Forwards what the caller promises.
    pub(super) unsafe fn run_initializers(&self) {
        for resident in self.generated_for().into_iter().chain([self]) {
            // SAFETY: what the caller vouches for.
            unsafe { resident.run_own_initializers() }
        }
    }

    /// Others may want those of a generated image at the same time: they wait, except for whoever is called by them.
    ///
    /// # Safety
    /// As [`LoadedImage::run_initializers`].
    #[allow(unsafe_code)] // Forwards what the caller promises.
    unsafe fn run_own_initializers(&self) {
        let Some(once) = self.generated.as_ref().filter(|_| self.image().has_hooks()) else {
            // SAFETY: what the caller vouches for.
            return unsafe { self.image().run_initializers() };
        };
        if let Entered::Claimed(()) = once.enter(claims(), ThreadNumber::current()) {
            // SAFETY: what the caller vouches for.
            unsafe { self.image().run_initializers() };
            once.finish(claims(), &NoSlot, 0, ());
        }
    }

    pub(super) fn image(&self) -> &LoadedImage {
        self.image.as_ref().expect("an image is there until it is dropped")
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn describe(&self) -> String {
        format!("image `{}`", self.name)
    }
}

/// Whose an image is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    Client,
    Generator,
}

/// Nothing leads to what runs once.
struct NoSlot;

impl Slot for NoSlot {
    fn store(&self, _address: usize) {}
}

/// First the image, whose finalisers may call what it uses, then that, the latest first. A chain of images may be long, so it is taken apart
/// here, and not by recursion.
impl Drop for Resident {
    fn drop(&mut self) {
        self.image = None;
        let mut pending = mem::take(&mut self.uses);
        while let Some(keep) = pending.pop() {
            let Keep::Image(image) = keep else { continue };
            if let Some(mut last) = Arc::into_inner(image) {
                last.image = None;
                pending.append(&mut last.uses);
            }
        }
    }
}

/// An image in a library. It stays in memory while it is in the library, while others refer to it, and while there is a
/// clone of this.
#[derive(Clone)]
pub struct LibraryImage {
    pub(super) resident: Arc<Resident>,
}

impl LibraryImage {
    /// The name it was given.
    pub fn name(&self) -> &str {
        self.resident.name()
    }

    /// The image itself: its symbols, its sizes.
    pub fn loaded(&self) -> &LoadedImage {
        self.resident.image()
    }

    /// Target address of a symbol that the image exports, whatever the library has under that name.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.loaded().address(name)
    }

    /// A symbol that the image exports, whatever the library has under that name.
    ///
    /// # Safety
    /// As [`LoadedImage::get`].
    ///
    /// # Errors
    /// As [`LoadedImage::get`].
    #[allow(unsafe_code)] // Forwards what the caller promises.
    pub unsafe fn get<F: Copy>(&self, name: &str) -> Result<Symbol<'_, F>, LookupError> {
        // SAFETY: what the caller vouches for.
        unsafe { self.loaded().get(name) }
    }

    /// Runs the image's initialisers, as [`LoadedImage::run_initializers`] does. Before these it runs those of the images
    /// that [generators](super::Generator) made for it, and for these in turn, in the order of their making, as far as
    /// they did not run yet: nobody else does. Of other images that it uses it runs none. In a child of `fork` what a thread
    /// of the parent was running stays as it is.
    ///
    /// Finalisers run when an image goes: before those of the images that it uses.
    ///
    /// # Safety
    /// As there, for all these images. Other threads may know the image's symbols once it is in a library: run them before
    /// [`Library::add`](super::Library::add), or while nobody uses them.
    #[allow(unsafe_code)] // Forwards what the caller promises.
    pub unsafe fn run_initializers(&self) {
        // SAFETY: what the caller vouches for.
        unsafe { self.resident.run_initializers() }
    }
}

impl fmt::Debug for LibraryImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibraryImage").field("name", &self.name()).finish_non_exhaustive()
    }
}
