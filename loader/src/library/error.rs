//! What can go wrong with libraries, and with functions that are made when they are called.

use std::error::Error;
use std::fmt;

use crate::error::LoadError;
use crate::memory::MemoryError;

/// Why a library did not do what it was asked for. Its symbol table is as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// An object does not load.
    #[error("image `{image}`: {cause}")]
    Load {
        /// The name the image was to have.
        image: String,
        /// What is wrong.
        #[source]
        cause: LoadError,
    },
    /// Two strong definitions.
    #[error("symbol `{symbol}`: it is defined by {first} and by {second}")]
    Duplicate {
        /// The name.
        symbol: String,
        /// What defined it before.
        first: String,
        /// What was to define it.
        second: String,
    },
    /// The library has no function of that name that calls go to through a stub.
    #[error("library `{library}` has no function `{name}` that can be redefined")]
    NoFunction {
        /// The library.
        library: String,
        /// The name.
        name: String,
    },
    /// An image lacks the symbol it was to provide.
    #[error("{image} defines no `{symbol}`")]
    NotDefined {
        /// The image.
        image: String,
        /// The name.
        symbol: String,
    },
    /// A generator failed to make a definition.
    #[error("cannot make a definition of `{name}`: {cause}")]
    Generator {
        /// The name asked for.
        name: String,
        /// The generator's own words.
        cause: Box<dyn Error + Send + Sync>,
    },
    /// No memory for stubs.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// There are no stubs for this machine, or not in this kind of memory.
    #[error("unsupported: {0}")]
    Unsupported(String),
}

/// Why a call of a library's function had nothing to call.
#[derive(Debug, thiserror::Error)]
#[error("function `{function}` of library `{library}`: {kind}")]
#[non_exhaustive]
pub struct FunctionError {
    /// The function that was called.
    pub function: String,
    /// Its library.
    pub library: String,
    /// What happened.
    pub kind: FunctionErrorKind,
}

/// What kept a function from being there.
#[derive(Debug)]
#[non_exhaustive]
pub enum FunctionErrorKind {
    /// The client's materialiser failed.
    Failed(Box<dyn Error + Send + Sync>),
    /// The client's materialiser panicked, with this message.
    Panicked(String),
    /// Making the function waits for a thread that waits for the function.
    Cycle,
    /// This process is a fork, and a thread that it does not have was making the function at that moment, or something
    /// that its making waits for. It can be redefined.
    Lost,
    /// The function was removed from its library, or the library is gone.
    Removed,
}

impl fmt::Display for FunctionErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FunctionErrorKind::Failed(why) => write!(f, "it could not be made: {why}"),
            FunctionErrorKind::Panicked(message) => write!(f, "making it panicked: {message}"),
            FunctionErrorKind::Cycle => f.write_str("making it needs its own result"),
            FunctionErrorKind::Lost => {
                f.write_str("a thread was making it when this process was forked, which has no such thread")
            }
            FunctionErrorKind::Removed => f.write_str("it was removed, and is called"),
        }
    }
}
