//! The intermediate representation that is compiled, and digests of content.

use std::fmt;
use std::str::FromStr;

/// BLAKE3-256 of some content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(blake3::hash(content).into())
    }

    /// A digest that was made elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The language of the IR.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IrKind {
    /// Cranelift's textual IR.
    Clif,
    /// LLVM's textual IR.
    LlvmText,
    /// LLVM bitcode.
    LlvmBitcode,
    /// C, before the preprocessor.
    C,
    /// C++, before the preprocessor.
    Cxx,
    /// C after the preprocessor: nothing outside the text decides it any more.
    CPreprocessed,
    /// C++ after the preprocessor.
    CxxPreprocessed,
    /// Assembly.
    Assembly,
    /// Assembly that wants the C preprocessor.
    AssemblyWithCpp,
    /// Any other, under the client's own name.
    Other(String),
}

impl IrKind {
    /// All kinds that have a name of ours.
    pub const KNOWN: [Self; 9] = [
        Self::Clif,
        Self::LlvmText,
        Self::LlvmBitcode,
        Self::C,
        Self::Cxx,
        Self::CPreprocessed,
        Self::CxxPreprocessed,
        Self::Assembly,
        Self::AssemblyWithCpp,
    ];

    /// The name that is hashed and shown. Names of kinds we know never change.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Clif => "clif",
            Self::LlvmText => "llvm-ir",
            Self::LlvmBitcode => "llvm-bitcode",
            Self::C => "c",
            Self::Cxx => "c++",
            Self::CPreprocessed => "c-preprocessed",
            Self::CxxPreprocessed => "c++-preprocessed",
            Self::Assembly => "assembly",
            Self::AssemblyWithCpp => "assembly-with-cpp",
            Self::Other(name) => name,
        }
    }

    /// Keeps `Other("clif")` apart from `Clif`.
    pub(crate) fn is_ours(&self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// The kind a file name's extension stands for.
    pub fn from_extension(extension: &str) -> Option<Self> {
        Some(match extension {
            "clif" => Self::Clif,
            "ll" => Self::LlvmText,
            "bc" => Self::LlvmBitcode,
            "c" => Self::C,
            "cc" | "cpp" | "cxx" | "C" | "c++" => Self::Cxx,
            "i" => Self::CPreprocessed,
            "ii" => Self::CxxPreprocessed,
            "s" => Self::Assembly,
            "S" | "sx" => Self::AssemblyWithCpp,
            _ => return None,
        })
    }
}

impl fmt::Display for IrKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The kind of this name. A client's own name is no name of ours: say [`IrKind::Other`].
impl FromStr for IrKind {
    type Err = UnknownIrKind;

    fn from_str(name: &str) -> Result<Self, UnknownIrKind> {
        let unknown = || UnknownIrKind { name: name.to_owned() };
        Self::KNOWN.into_iter().find(|kind| kind.as_str() == name).ok_or_else(unknown)
    }
}

/// No kind of IR has this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownIrKind {
    /// What was given for a name.
    pub name: String,
}

impl fmt::Display for UnknownIrKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = IrKind::KNOWN.map(|kind| kind.to_string()).join(", ");
        write!(f, "`{}` is none of {known}", self.name)
    }
}

impl std::error::Error for UnknownIrKind {}

/// What is compiled, byte for byte. It is hashed as it stands: white space counts.
#[derive(Clone, PartialEq, Eq)]
pub struct Ir {
    /// Its language.
    pub kind: IrKind,
    /// Its text or bitcode.
    pub bytes: Vec<u8>,
}

impl Ir {
    /// IR of this kind.
    pub fn new(kind: IrKind, bytes: Vec<u8>) -> Self {
        Self { kind, bytes }
    }
}

impl fmt::Debug for Ir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ir({}, {} bytes)", self.kind, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for kind in IrKind::KNOWN {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        let unknown = "C".parse::<IrKind>().unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "`C` is none of clif, llvm-ir, llvm-bitcode, c, c++, c-preprocessed, c++-preprocessed, assembly, assembly-with-cpp"
        );
    }
}
