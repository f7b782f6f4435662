//! The languages of sources, what they become before they are hashed, and who compiles them.

use objcache_signature::IrKind;

use super::identity::Tools;
use super::program::Family;

/// A language that a compiler is told by `-x`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    C,
    Cxx,
    CPreprocessed,
    CxxPreprocessed,
    Assembly,
    AssemblyWithCpp,
    LlvmText,
    LlvmBitcode,
}

impl Language {
    pub(super) fn of(kind: &IrKind) -> Option<Self> {
        Some(match kind {
            IrKind::C => Self::C,
            IrKind::Cxx => Self::Cxx,
            IrKind::CPreprocessed => Self::CPreprocessed,
            IrKind::CxxPreprocessed => Self::CxxPreprocessed,
            IrKind::Assembly => Self::Assembly,
            IrKind::AssemblyWithCpp => Self::AssemblyWithCpp,
            IrKind::LlvmText => Self::LlvmText,
            IrKind::LlvmBitcode => Self::LlvmBitcode,
            _ => return None,
        })
    }

    /// Its name for `-x`.
    pub(super) fn option(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cxx => "c++",
            Self::CPreprocessed => "cpp-output",
            Self::CxxPreprocessed => "c++-cpp-output",
            Self::Assembly => "assembler",
            Self::AssemblyWithCpp => "assembler-with-cpp",
            Self::LlvmText | Self::LlvmBitcode => "ir",
        }
    }

    /// What the preprocessor makes of it, where it has to run.
    pub(super) fn preprocessed(self) -> Option<IrKind> {
        match self {
            Self::C => Some(IrKind::CPreprocessed),
            Self::Cxx => Some(IrKind::CxxPreprocessed),
            Self::AssemblyWithCpp => Some(IrKind::Assembly),
            _ => None,
        }
    }

    pub(super) fn is_llvm(self) -> bool {
        matches!(self, Self::LlvmText | Self::LlvmBitcode)
    }

    fn is_assembly(self) -> bool {
        matches!(self, Self::Assembly | Self::AssemblyWithCpp)
    }

    pub(super) fn is_compiled_by(self, family: Family) -> bool {
        match family {
            Family::Clang => true,
            Family::Gcc => !self.is_llvm(),
            Family::Llc => self.is_llvm(),
        }
    }

    /// The programs beside the driver that make code of it.
    pub(super) fn tools(self, family: Family, flags: &[String]) -> Tools {
        let external_assembler =
            flags.iter().any(|flag| matches!(flag.as_str(), "-fno-integrated-as" | "-no-integrated-as"));
        match family {
            Family::Llc => vec![],
            Family::Clang if external_assembler => vec!["as"],
            Family::Clang => vec![],
            Family::Gcc if self.is_assembly() => vec!["as"],
            Family::Gcc if matches!(self, Self::Cxx | Self::CxxPreprocessed) => vec!["cc1plus", "as"],
            Family::Gcc => vec!["cc1", "as"],
        }
    }

    /// What a file of it is called.
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cxx => "cpp",
            Self::CPreprocessed => "i",
            Self::CxxPreprocessed => "ii",
            Self::Assembly => "s",
            Self::AssemblyWithCpp => "S",
            Self::LlvmText => "ll",
            Self::LlvmBitcode => "bc",
        }
    }
}
