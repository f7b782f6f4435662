//! Ask, compile, offer, load: in that order, whatever the store and the compiler are.
//!
//! The cache is asked before anything is optimised, on what the compiler's front end makes of the request.
//! (LLVM asks its `ObjectCache` after the optimiser ran; such a hit saves almost nothing.) Trouble with the
//! cache costs a compilation, never a result: an entry that does not load is compiled afresh.

use std::cell::Cell;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use objcache_cache::{
    CacheError, CompileFailure, CompileOnce, CompiledObject, FailedCompile, GetOrCompileError, ObjectBuffer,
    ObjectCache, Offer, Outcome, RunMark,
};
use objcache_loader::{LibraryError, LoadError, LoadedImage, Loader, ProcessSymbols, SymbolResolver};
use objcache_signature::{
    CompileInputs, InputError, KeyDocument, Provenance, Record, RecordError, Signature, embed,
};

use crate::compiler::{Compiler, Prepared};
use crate::dump::DumpDirectory;
use crate::error::{CompileError, Stage};
use crate::request::{CompileRequest, Source, unix_us};

/// Compiles or fetches, and loads. All methods may be called from many threads at once; threads that compile
/// different things share no lock here.
pub struct Engine {
    cache: Arc<dyn ObjectCache>,
    compiler: Arc<dyn Compiler>,
    loader: Loader,
    resolver: Arc<dyn SymbolResolver>,
    verify_ir: bool,
    dump_root: Option<PathBuf>,
    guard_crashes: bool,
}

/// An object, and how it was come by.
#[derive(Debug, Clone)]
pub struct Obtained {
    /// The relocatable object.
    pub object: ObjectBuffer,
    /// Names the compilation.
    pub signature: Signature,
    /// What was compiled.
    pub inputs: CompileInputs,
    /// Whether the cache had it.
    pub outcome: Outcome,
    /// Why the cache was not asked, where something decides the object that the inputs cannot name.
    pub uncacheable: Option<String>,
    /// What it took.
    pub timings: Timings,
}

/// Code that is ready to be called, and how it was come by.
#[derive(Debug)]
pub struct Loaded {
    /// The code. Dropping it frees the code.
    pub image: LoadedImage,
    /// The object it was loaded from.
    pub object: ObjectBuffer,
    /// Names the compilation.
    pub signature: Signature,
    /// What was compiled.
    pub inputs: CompileInputs,
    /// Whether the cache had it.
    pub outcome: Outcome,
    /// Why the cache was not asked, where something decides the object that the inputs cannot name.
    pub uncacheable: Option<String>,
    /// What it took.
    pub timings: Timings,
    /// Tells the cache that this code runs, until it is dropped; see [`EngineBuilder::guard_crashes`].
    pub running: Option<RunMark>,
}

/// What the steps took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// The compiler's front end: from the request to the inputs.
    pub prepare: Duration,
    /// Hashing, asking the cache, and waiting for others who compile the same.
    pub lookup: Duration,
    /// Verifying, compiling and embedding the record; `None` on a hit.
    pub compile: Option<Duration>,
    /// From the object to a callable address.
    pub load: Duration,
}

impl Engine {
    /// Starts from a cache and a compiler; everything else has a default.
    pub fn builder<C: ObjectCache + 'static, K: Compiler + 'static>(cache: C, compiler: K) -> EngineBuilder {
        EngineBuilder {
            cache: Arc::new(cache),
            compiler: Arc::new(compiler),
            loader: None,
            resolver: None,
            verify_ir: true,
            dump_root: None,
            guard_crashes: false,
        }
    }

    /// The compiler that misses go to.
    pub fn compiler(&self) -> &dyn Compiler {
        &*self.compiler
    }

    /// The object of a request, from the cache or from the compiler. It is not loaded.
    ///
    /// # Errors
    /// When the request does not compile. The engine stays usable.
    pub fn obtain(&self, request: &CompileRequest) -> Result<Obtained, EngineError> {
        Ok(self.obtain_marked(request, false)?.0)
    }

    /// The same, and the mark of what is about to run.
    fn obtain_marked(
        &self,
        request: &CompileRequest,
        mark: bool,
    ) -> Result<(Obtained, Option<RunMark>), EngineError> {
        let started = Instant::now();
        let Prepared { inputs, uncacheable } = self.compiler.prepare(request)?;
        let prepare = started.elapsed();

        let started = Instant::now();
        let document = KeyDocument::of(&inputs)?;
        let job = Job {
            engine: self,
            signature: document.signature(),
            document,
            inputs: &inputs,
            source: &request.source,
        };
        let hashing = started.elapsed();

        let signature = job.signature;
        // Before the look-up, which may have to pass over what killed its processes.
        let mark = (mark && uncacheable.is_none()).then(|| self.cache.mark_running(&signature)).flatten();
        let mark = Cell::new(mark);
        let (object, outcome, lookup, compile) = match &uncacheable {
            None => {
                let diagnose = |error: &CompileError| {
                    error.is_source_at_fault.then(|| CompileFailure::new(error.why.as_str()))
                };
                let compile = || {
                    // A process that dies while it compiles has run nothing.
                    drop(mark.take());
                    job.compile_or_tell()
                };
                let fetched = self.cache.get_or_compile_or_remember(&signature, compile, diagnose);
                match fetched {
                    // What the cache held open for this compilation is closed by now.
                    Err(GetOrCompileError::Compile(error)) if error.is_out_of_descriptors => {
                        let (object, compile) = job.compile_and_offer()?;
                        (object, Outcome::Miss, Duration::ZERO, Some(compile))
                    }
                    Err(error) => return Err(job.error(error)),
                    Ok(fetched) => (fetched.object, fetched.outcome, fetched.lookup, fetched.compile),
                }
            }
            Some(why) => {
                tracing::info!("{} is compiled without the cache: {why}", request.source.name());
                let started = Instant::now();
                let offer = job.compile()?;
                (offer.object.into(), Outcome::Miss, Duration::ZERO, Some(started.elapsed()))
            }
        };
        let timings = Timings { prepare, lookup: hashing + lookup, compile, load: Duration::ZERO };
        let mark = mark.into_inner();
        let mut obtained = Obtained { object, signature, inputs, outcome, uncacheable, timings };
        if outcome == Outcome::Hit && mark.as_ref().is_some_and(RunMark::is_suspect) {
            // It came from where the cache cannot take it out.
            self.replace(&mut obtained, &request.source)?;
        }
        // What was compiled just now has killed nobody.
        let mark = mark.filter(|_| obtained.outcome == Outcome::Hit);
        Ok((obtained, mark))
    }

    /// The code of a request, ready to be called.
    ///
    /// # Errors
    /// When the request does not compile, or the object does not load. The engine stays usable.
    pub fn load(&self, request: &CompileRequest) -> Result<Loaded, EngineError> {
        let load = |object: &[u8]| Ok(self.load_object(object)?);
        let (image, obtained, running) = self.obtain_marked_and(request, self.guard_crashes, load)?;
        let Obtained { object, signature, inputs, outcome, uncacheable, timings } = obtained;
        Ok(Loaded { image, object, signature, inputs, outcome, uncacheable, timings, running })
    }

    /// Loads what a request gives; an entry of the cache that does not load is compiled afresh.
    pub(crate) fn obtain_and<T>(
        &self,
        request: &CompileRequest,
        load: impl Fn(&[u8]) -> Result<T, EngineError>,
    ) -> Result<(T, Obtained), EngineError> {
        let (loaded, obtained, _) = self.obtain_marked_and(request, false, load)?;
        Ok((loaded, obtained))
    }

    fn obtain_marked_and<T>(
        &self,
        request: &CompileRequest,
        mark: bool,
        load: impl Fn(&[u8]) -> Result<T, EngineError>,
    ) -> Result<(T, Obtained, Option<RunMark>), EngineError> {
        let (mut obtained, mark) = self.obtain_marked(request, mark)?;
        let mut started = Instant::now();
        let loaded = match load(&obtained.object) {
            Err(error) if obtained.outcome == Outcome::Hit && blames_the_object(&error) => {
                self.cache.notify_does_not_load(&obtained.signature, &error)?;
                tracing::warn!("entry {} does not load and is compiled afresh: {error}", obtained.signature);
                self.replace(&mut obtained, &request.source)?;
                started = Instant::now();
                load(&obtained.object)?
            }
            result => result?,
        };
        obtained.timings.load = started.elapsed();
        let mark = mark.filter(|_| obtained.outcome == Outcome::Hit);
        Ok((loaded, obtained, mark))
    }

    /// Loads an object that came from elsewhere.
    ///
    /// # Errors
    /// When it is malformed, refers to symbols that nobody defines, or does not fit the host.
    pub fn load_object(&self, object: &[u8]) -> Result<LoadedImage, LoadError> {
        self.loader.load(object, &*self.resolver)
    }

    /// Compiles what the cache had wrong, and offers it in its place.
    fn replace(&self, obtained: &mut Obtained, source: &Source) -> Result<(), EngineError> {
        let document = KeyDocument::of(&obtained.inputs)?;
        let signature = obtained.signature;
        let job = Job { engine: self, signature, document, inputs: &obtained.inputs, source };
        let (object, compile_time) = job.compile_and_offer()?;
        obtained.outcome = Outcome::Miss;
        obtained.timings.compile = Some(compile_time);
        obtained.object = object;
        Ok(())
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({})", self.compiler.name())
    }
}

/// Whether another object of the same compilation could load where this one did not. What the host lacks
/// (memory, symbols) it lacks for every object.
fn blames_the_object(error: &EngineError) -> bool {
    use LoadError::{Limit, Malformed, UnknownFormat, Unsupported};
    let (EngineError::Load(cause) | EngineError::Library(LibraryError::Load { cause, .. })) = error else {
        return false;
    };
    matches!(cause, UnknownFormat(..) | Unsupported(..) | Malformed { .. } | Limit { .. })
}

/// One compilation that the cache could not spare us.
struct Job<'a> {
    engine: &'a Engine,
    signature: Signature,
    document: KeyDocument,
    inputs: &'a CompileInputs,
    source: &'a Source,
}

impl Job<'_> {
    fn error(&self, error: GetOrCompileError<CompileError>) -> EngineError {
        match error {
            GetOrCompileError::Compile(error) => error.into(),
            GetOrCompileError::Cache(error) => error.into(),
            // In the compiler's words of then; how the source is named may be another.
            GetOrCompileError::Remembered(failure) => {
                let name = self.source.name();
                CompileError::new(Stage::Compile, name, failure.diagnostics()).blame_the_source().into()
            }
        }
    }

    /// Compiles whatever the cache has, and offers what comes of it.
    fn compile_and_offer(&self) -> Result<(ObjectBuffer, Duration), EngineError> {
        let started = Instant::now();
        let offer = self.compile()?;
        let compile_time = started.elapsed();
        self.engine.cache.notify_object_compiled(&CompiledObject {
            signature: self.signature,
            object: &offer.object,
            key_document: &offer.key_document,
            provenance: &offer.provenance,
            namespace: &offer.namespace,
            compile_time,
            cpu_features: &offer.cpu_features,
        })?;
        Ok((offer.object.into(), compile_time))
    }

    /// Compiles; the cache hears of a failure, unless it is tried again.
    fn compile_or_tell(&self) -> Result<Offer, CompileError> {
        let started = Instant::now();
        self.compile().inspect_err(|error| {
            if error.is_out_of_descriptors {
                return;
            }
            self.engine.cache.notify_no_object(&FailedCompile {
                signature: self.signature,
                key_document: self.document.as_bytes(),
                provenance: &self.provenance(started.elapsed()),
            });
        })
    }

    fn compile(&self) -> Result<Offer, CompileError> {
        self.offer().map_err(|error| error.of_source(&self.source.name()))
    }

    fn offer(&self) -> Result<Offer, CompileError> {
        let compiler = self.engine.compiler();
        let dump = self.engine.dump_root.as_deref().map(|root| DumpDirectory::of(root, &self.signature));
        let started = Instant::now();
        if self.engine.verify_ir {
            compiler.verify(self.inputs)?;
        }
        let object = compiler.compile(self.inputs, dump.as_ref())?;
        let record =
            Record { key_document: self.document.clone(), provenance: self.provenance(started.elapsed()) };
        Ok(Offer {
            object: self.with_record(object, &record)?,
            key_document: record.key_document.as_bytes().to_vec(),
            provenance: record.provenance,
            namespace: self.inputs.namespace.clone(),
            cpu_features: compiler.cpu_features(self.inputs),
        })
    }

    fn with_record(&self, object: Vec<u8>, record: &Record) -> Result<Vec<u8>, CompileError> {
        match embed(&object, record) {
            Ok(object) => Ok(object),
            // What has no place for a record is cached all the same.
            Err(RecordError::UnsupportedFormat(_)) => Ok(object),
            Err(error) => Err(CompileError::new(Stage::Emit, self.source.name(), error)),
        }
    }

    fn provenance(&self, compile_time: Duration) -> Provenance {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let directory = std::env::current_dir().ok();
        Provenance {
            source_path: self.source.path.as_ref().map(|path| path.to_string_lossy().into_owned()),
            source_modified_unix_us: self.source.modified_unix_us(),
            working_directory: directory.map(|path| path.to_string_lossy().into_owned()),
            host: Some(host),
            compile_time_us: u64::try_from(compile_time.as_micros()).ok(),
            compiled_at_unix_us: unix_us(SystemTime::now()),
        }
    }
}

/// Settings of an [`Engine`].
pub struct EngineBuilder {
    cache: Arc<dyn ObjectCache>,
    compiler: Arc<dyn Compiler>,
    loader: Option<Loader>,
    resolver: Option<Arc<dyn SymbolResolver>>,
    verify_ir: bool,
    dump_root: Option<PathBuf>,
    guard_crashes: bool,
}

impl EngineBuilder {
    /// How objects are loaded; the default is [`Loader::new`].
    pub fn loader(mut self, loader: Loader) -> Self {
        self.loader = Some(loader);
        self
    }

    /// What undefined symbols mean; the default is the symbols of this process.
    pub fn resolver<R: SymbolResolver + 'static>(mut self, resolver: R) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// Whether IR is verified before it is compiled; the default is yes. Hits are not verified again.
    pub fn verify_ir(mut self, verify: bool) -> Self {
        self.verify_ir = verify;
        self
    }

    /// A folder for intermediate results, one folder below it per signature; the default is none.
    pub fn dump_directory(mut self, root: impl Into<PathBuf>) -> Self {
        self.dump_root = Some(root.into());
        self
    }

    /// Whether the cache is told what runs, so that an entry whose code kills its process again and again is
    /// compiled afresh; the default is no. [`Loaded::running`] is the mark: drop it when the code has run.
    ///
    /// It is for programs that load and run something at a time, and costs each [`Engine::load`] some 50 µs. One that
    /// a signal of its user may end calls [`unmark_running`](objcache_cache::unmark_running) before, on the thread on
    /// which it takes signals: that was no crash of the code.
    pub fn guard_crashes(mut self, guard: bool) -> Self {
        self.guard_crashes = guard;
        self
    }

    /// The engine.
    pub fn build(self) -> Engine {
        let Self { cache, compiler, loader, resolver, verify_ir, dump_root, guard_crashes } = self;
        Engine {
            cache,
            compiler,
            loader: loader.unwrap_or_default(),
            resolver: resolver.unwrap_or_else(|| Arc::new(ProcessSymbols)),
            verify_ir,
            dump_root,
            guard_crashes,
        }
    }
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EngineBuilder({})", self.compiler.name())
    }
}

/// Why a request gave no code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The compiler refused it.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The compiler left open what decides the object.
    #[error("cannot sign the compilation: {0}")]
    Inputs(#[from] InputError),
    /// The object does not load.
    #[error("cannot load the object: {0}")]
    Load(#[from] LoadError),
    /// The library refuses it, or the object does not load into it.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The cache is in trouble, and was asked to be strict about it.
    #[error(transparent)]
    Cache(#[from] CacheError),
}
