//! An image that belongs to a library, and everything that it refers to.

use std::fmt;
use std::mem;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::function::Function;
use super::names::Keep;
use crate::error::LookupError;
use crate::image::{LoadedImage, Symbol};

/// An image with what keeps its references valid: each image owns the images that its symbols were resolved to. An image
/// only refers to what was there before it, so there are no cycles; references through a stub own the stub, not what it
/// leads to.
pub(super) struct Resident {
    name: Box<str>,
    /// There until this is dropped.
    image: Option<LoadedImage>,
    uses: Vec<Keep>,
    /// Functions of a library that were made for symbols of this image.
    pub(super) functions: Mutex<Vec<Weak<Function>>>,
}

impl Resident {
    pub(super) fn new(name: &str, image: LoadedImage, mut uses: Vec<Keep>) -> Self {
        uses.sort_unstable_by_key(Keep::identity);
        uses.dedup_by_key(|keep| keep.identity());
        uses.shrink_to_fit();
        Resident { name: name.into(), image: Some(image), uses, functions: Mutex::default() }
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

/// First the image, whose finalisers may call what it uses, then that. A chain of images may be long, so it is taken apart
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

    /// Runs the image's initialisers, as [`LoadedImage::run_initializers`] does.
    ///
    /// # Safety
    /// As there. Other threads may know the image's symbols once it is in a library: run them before
    /// [`Library::add`](super::Library::add), or while nobody uses them.
    #[allow(unsafe_code)] // Forwards what the caller promises.
    pub unsafe fn run_initializers(&self) {
        // SAFETY: what the caller vouches for.
        unsafe { self.loaded().run_initializers() }
    }
}

impl fmt::Debug for LibraryImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibraryImage").field("name", &self.name()).finish_non_exhaustive()
    }
}
