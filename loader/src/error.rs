//! What can go wrong between an object's bytes and a callable address, in words a person can act on.
//!
//! The lowest layer knows the number that did not fit; the layer above knows the section, the symbol and the
//! kind. Each says its part, so a message reads
//! ``.text+0x40: cannot relocate R_X86_64_PLT32 against `memcpy`: 0x7efffff00000 does not fit in 32 bits``.

use std::fmt;

use crate::memory::MemoryError;

/// Why an object was not loaded. Nothing of it stays behind: memory is given back, registrations are undone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are no relocatable object of a format this loader reads.
    #[error("not a relocatable object this loader reads: {0}")]
    UnknownFormat(String),
    /// The object is valid as far as read, but needs something this loader does not do.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The object contradicts itself or its format.
    #[error("malformed object: {place}: {why}")]
    Malformed {
        /// Where in the object: a section, a table entry, a header.
        place: String,
        /// What is wrong there.
        why: String,
    },
    /// The object asks for more than the loader's [`Limits`](crate::Limits) allow.
    #[error("{what} is {value}, more than the limit of {limit}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// What the object asks for.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Strong symbols that no resolver knows.
    #[error(transparent)]
    Unresolved(#[from] UnresolvedSymbols),
    /// A relocation that cannot be expressed where it stands.
    #[error(transparent)]
    Fixup(#[from] Box<FixupError>),
    /// The memory manager refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// One of several objects that were to be linked together is the cause.
    #[error("{object}: {cause}")]
    InObject {
        /// The object's name, as it was given.
        object: String,
        /// What is wrong with it.
        #[source]
        cause: Box<LoadError>,
    },
    /// The unwinder's registration refused.
    #[error("unwind information: {0}")]
    Unwind(String),
}

// Errors are made out of line: `cold` keeps what leads to them out of the way of what is executed.
impl LoadError {
    #[cold]
    #[inline(never)]
    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        LoadError::Unsupported(what.into())
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn malformed(place: impl Into<String>, why: impl Into<String>) -> Self {
        LoadError::Malformed { place: place.into(), why: why.into() }
    }

    /// Says which object is meant, if objects have names.
    #[cold]
    #[inline(never)]
    pub(crate) fn of_object(self, name: &str) -> Self {
        match name {
            "" => self,
            _ => LoadError::InObject { object: name.to_owned(), cause: Box::new(self) },
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn limit(what: &'static str, value: u64, limit: u64) -> Self {
        LoadError::Limit { what, value, limit }
    }
}

/// Strong symbols without a definition, each with the first place that needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnresolvedSymbols {
    /// At most [`UnresolvedSymbols::SHOWN`] of them, in the order of the symbol table.
    pub shown: Vec<UnresolvedSymbol>,
    /// How many there are in all.
    pub total: usize,
}

/// One symbol without a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnresolvedSymbol {
    /// The name; bytes that are not UTF-8 are escaped.
    pub name: String,
    /// The first relocation against it, as `section+offset`.
    pub needed_at: String,
}

impl UnresolvedSymbols {
    /// How many symbols an error names before it only counts.
    pub const SHOWN: usize = 16;
}

impl std::error::Error for UnresolvedSymbols {}

impl fmt::Display for UnresolvedSymbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unresolved symbols: ")?;
        for (number, symbol) in self.shown.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}`{}` (needed at {})", symbol.name, symbol.needed_at)?;
        }
        match self.total - self.shown.len() {
            0 => {}
            more => write!(f, " and {more} more")?,
        }
        match self.shown.iter().find(|symbol| NOT_SHARED.contains(&&*symbol.name)) {
            Some(UnresolvedSymbol { name, .. }) => write!(
                f,
                "; `{name}` is in no shared library: glibc has linkers put it into each program, so define it in the object"
            ),
            None => Ok(()),
        }
    }
}

/// Functions of glibc that linkers put into each program and library; `stat` and its like up to 2.32.
const NOT_SHARED: [&str; 8] =
    ["at_quick_exit", "fstat", "fstatat", "lstat", "mknod", "mknodat", "pthread_atfork", "stat"];

/// A relocation that cannot be done, with everything needed to find it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{section}+{offset:#x}: cannot relocate {kind} against `{symbol}`: {problem}")]
pub struct FixupError {
    /// Section that holds the place.
    pub section: String,
    /// Offset of the place in its section.
    pub offset: u64,
    /// The relocation's name in its ABI.
    pub kind: String,
    /// The symbol it refers to, or its section's name.
    pub symbol: String,
    /// What is wrong.
    pub problem: FixupProblem,
}

/// What keeps a fix-up from being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FixupProblem {
    /// The value does not fit in the field.
    OutOfRange {
        /// The value, as a signed 64-bit number.
        value: i64,
        /// Width of the field.
        bits: u32,
    },
    /// The value is no multiple of what the field counts in.
    Misaligned {
        /// The value, as a signed 64-bit number.
        value: i64,
        /// What it must be a multiple of.
        align: u64,
    },
    /// The relocation that holds the high part of the value is not there.
    NoHighPart,
    /// The place holds an instruction that this relocation does not go with.
    WrongInstruction,
    /// The field reaches past the end of its section, or the section has no bytes.
    OutsideSection,
    /// The symbol's section is not loaded (debug information, a discarded group).
    TargetNotLoaded,
    /// This loader does not do this kind of relocation.
    Unsupported(&'static str),
}

impl fmt::Display for FixupProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FixupProblem::OutOfRange { value, bits } => {
                let sign = if *value < 0 { "-" } else { "" };
                write!(f, "{sign}{:#x} does not fit in {bits} bits", value.unsigned_abs())
            }
            FixupProblem::Misaligned { value, align } => {
                let sign = if *value < 0 { "-" } else { "" };
                write!(f, "{sign}{:#x} is no multiple of {align}", value.unsigned_abs())
            }
            FixupProblem::NoHighPart => f.write_str("no relocation there has the high part of the value"),
            FixupProblem::WrongInstruction => {
                f.write_str("the instruction there is none that this relocation goes with")
            }
            FixupProblem::OutsideSection => f.write_str("the place is outside of its section"),
            FixupProblem::TargetNotLoaded => f.write_str("the symbol's section is not loaded"),
            FixupProblem::Unsupported(what) => write!(f, "{what} is not supported"),
        }
    }
}

/// Why [`LoadedImage::get`](crate::LoadedImage::get) has no symbol to give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// The image exports no symbol of that name.
    #[error("the image exports no symbol `{0}`")]
    NotFound(String),
    /// Neither the library nor what it searches defines the name.
    #[error("library `{library}` has no symbol `{name}`, and what it searches has none")]
    NotInLibrary {
        /// The library's name.
        library: String,
        /// The symbol asked for.
        name: String,
    },
    /// There is such a symbol, but not in this process: the image is linked for elsewhere.
    #[error(
        "`{0}` is not in this process, for which its image is not linked; its address there can be asked for"
    )]
    Elsewhere(String),
    /// A definition was to be made when it was asked for, and could not be.
    #[error("cannot make a definition of `{name}`: {why}")]
    NotMade {
        /// The symbol asked for.
        name: String,
        /// What went wrong.
        why: String,
    },
    /// The requested type is no pointer: its size is not that of an address.
    #[error("`{name}`: a symbol is {address} bytes, the requested type has {requested}")]
    NotAPointer {
        /// The symbol asked for.
        name: String,
        /// Size of the requested type.
        requested: usize,
        /// Size of an address.
        address: usize,
    },
}

impl LookupError {
    pub(crate) fn elsewhere(name: &str) -> Self {
        LookupError::Elsewhere(printable(name.as_bytes()))
    }

    pub(crate) fn not_found(name: &str) -> Self {
        LookupError::NotFound(printable(name.as_bytes()))
    }
}

/// A name out of an object as text: what is not UTF-8 or not printable is escaped, so that a hostile name cannot
/// draw on a terminal.
#[cold]
pub(crate) fn printable(name: &[u8]) -> String {
    const SHOWN: usize = 256;
    let cut = &name[..name.len().min(SHOWN)];
    let mut text: String = match std::str::from_utf8(cut) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => cut.escape_ascii().to_string(),
    };
    if cut.len() < name.len() {
        text.push('…');
    }
    text
}
