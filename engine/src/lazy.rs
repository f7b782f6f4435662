//! Functions of a library that are compiled, or fetched from the cache, when they are first called.

#![allow(unsafe_code)] // Initialisers of what was compiled are run on the caller's word.

use std::sync::Arc;

use objcache_loader::{Implementation, Library, LibraryImage};

use crate::engine::{Engine, EngineError, Obtained};
use crate::request::CompileRequest;

impl Engine {
    /// The code of a request as an image linked with a library's symbols, not yet entered into it: for
    /// [`Library::add`], [`Library::redefine`], or a lazy function of the client's own. Names mean what they mean to the
    /// library; this engine's loader and resolver are not asked.
    ///
    /// # Errors
    /// When the request does not compile, or the object does not load. The engine stays usable, the library as it was.
    pub fn link_into(
        &self,
        library: &Library,
        request: &CompileRequest,
    ) -> Result<(LibraryImage, Obtained), EngineError> {
        self.obtain_and(request, |object| Ok(library.link(&request.source.name(), object)?))
    }

    /// Defines a function of a library that is compiled when it is first called: through the cache, once among all threads
    /// and processes. The source must define a function of that name. Initialisers are run, if there are any; what else
    /// the source defines is entered nowhere.
    ///
    /// When it does not compile or load, the call comes to the library's
    /// [handler](objcache_loader::LibraryBuilder::on_failure).
    ///
    /// # Safety
    /// The code that the request is compiled to must be trusted, its initialisers not unwind.
    ///
    /// # Errors
    /// As [`Library::define_lazy`].
    pub unsafe fn define_lazy(
        self: &Arc<Self>,
        library: &Library,
        name: &str,
        request: CompileRequest,
    ) -> Result<(), EngineError> {
        let engine = Arc::clone(self);
        Ok(library.define_lazy(name, move |library| {
            let (image, _) = engine.link_into(library, &request)?;
            // SAFETY: the caller vouched for the code; nobody has the image yet.
            unsafe { image.run_initializers() };
            Ok(Implementation::from(&image))
        })?)
    }
}
