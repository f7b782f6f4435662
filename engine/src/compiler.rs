//! What the engine asks of a compiler. Which one it is, the engine never learns.

use std::sync::Arc;

use objcache_signature::CompileInputs;

use crate::call::Prototype;
use crate::cpu::needed_cpu_features;
use crate::dump::DumpDirectory;
use crate::error::CompileError;
use crate::request::CompileRequest;

/// Inputs that are ready to be hashed.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Everything that decides the object.
    pub inputs: CompileInputs,
    /// Why the object must not be cached, where something decides it that the inputs cannot name.
    pub uncacheable: Option<String>,
}

impl Prepared {
    /// Inputs that decide the object wholly.
    pub fn cacheable(inputs: CompileInputs) -> Self {
        Self { inputs, uncacheable: None }
    }
}

/// Turns source into relocatable objects.
///
/// All methods may be called from many threads at once, and again after an error.
pub trait Compiler: Send + Sync {
    /// Its name, for messages.
    fn name(&self) -> &str;

    /// What is compiled, for what, by whom: everything that decides the object, with `native` resolved and
    /// flags in normal form. No optimisation and no code generation happens here, since it runs on hits too.
    ///
    /// # Errors
    /// When the source does not read, or the request cannot be met.
    fn prepare(&self, request: &CompileRequest) -> Result<Prepared, CompileError>;

    /// Checks the IR before it is compiled. Runs on misses only.
    ///
    /// # Errors
    /// When the IR is wrong.
    fn verify(&self, inputs: &CompileInputs) -> Result<(), CompileError> {
        let _ = inputs;
        Ok(())
    }

    /// A relocatable object from exactly these inputs, and from nothing else. Intermediate results go to
    /// `dump`, where there is one.
    ///
    /// # Errors
    /// When it does not compile.
    fn compile(&self, inputs: &CompileInputs, dump: Option<&DumpDirectory>) -> Result<Vec<u8>, CompileError>;

    /// The CPU features that the object of these inputs may use, for the cache to hold against a host's; see
    /// [`needed_cpu_features`]. Runs on misses only. What the compiler cannot tell is left out.
    fn cpu_features(&self, inputs: &CompileInputs) -> Vec<String> {
        let target = &inputs.target;
        needed_cpu_features(&target.triple, target.features.iter().map(String::as_str))
    }

    /// Functions that the source defines, with their prototypes, where its language tells them.
    ///
    /// # Errors
    /// When the source does not read.
    fn prototypes(&self, inputs: &CompileInputs) -> Result<Vec<(String, Prototype)>, CompileError> {
        let _ = inputs;
        Ok(Vec::new())
    }
}

/// Forwards to the compiler behind a pointer.
macro_rules! forward {
    ($($pointer:ty),+) => {$(
        impl<C: Compiler + ?Sized> Compiler for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }

            fn prepare(&self, request: &CompileRequest) -> Result<Prepared, CompileError> {
                (**self).prepare(request)
            }

            fn verify(&self, inputs: &CompileInputs) -> Result<(), CompileError> {
                (**self).verify(inputs)
            }

            fn compile(
                &self,
                inputs: &CompileInputs,
                dump: Option<&DumpDirectory>,
            ) -> Result<Vec<u8>, CompileError> {
                (**self).compile(inputs, dump)
            }

            fn cpu_features(&self, inputs: &CompileInputs) -> Vec<String> {
                (**self).cpu_features(inputs)
            }

            fn prototypes(&self, inputs: &CompileInputs) -> Result<Vec<(String, Prototype)>, CompileError> {
                (**self).prototypes(inputs)
            }
        }
    )+};
}

forward!(&C, Box<C>, Arc<C>);
