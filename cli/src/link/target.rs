//! What a disassembler would have to be told of an object: triple, CPU and features.

use object::{Architecture, BinaryFormat, FileFlags, Object, ObjectSection};
use serde::Serialize;

/// The target of an object, in LLVM's terms.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Target {
    pub(crate) triple: String,
    /// Empty where the object does not say.
    pub(crate) cpu: String,
    pub(crate) features: String,
    #[serde(skip)]
    pub(crate) is_64_bit: bool,
}

impl Target {
    /// As far as the object says. Whether it can be linked is for the loader to say.
    pub(crate) fn of(object: &[u8]) -> Self {
        let Ok(file) = object::File::parse(object) else { return Target::default() };
        let architecture = match (file.architecture(), file.is_little_endian()) {
            (Architecture::X86_64, _) => "x86_64",
            (Architecture::I386, _) if file.format() == BinaryFormat::Coff => "i686",
            (Architecture::I386, _) => "i386",
            (Architecture::Aarch64, _) if file.format() == BinaryFormat::MachO => "arm64",
            (Architecture::Aarch64, _) => "aarch64",
            (Architecture::Arm, _) => "armv7",
            (Architecture::Riscv64, _) => "riscv64",
            (Architecture::Riscv32, _) => "riscv32",
            (Architecture::PowerPc64, true) => "powerpc64le",
            (Architecture::LoongArch64, _) => "loongarch64",
            (Architecture::S390x, _) => "s390x",
            _ => "unknown",
        };
        let system = match (file.format(), architecture) {
            (BinaryFormat::MachO, _) => "apple-macosx",
            (BinaryFormat::Coff, _) => "pc-windows-msvc",
            (_, "armv7") => "unknown-linux-gnueabihf",
            _ => "unknown-linux-gnu",
        };
        Target {
            triple: format!("{architecture}-{system}"),
            cpu: String::new(),
            features: if architecture.starts_with("riscv") { riscv_features(&file) } else { String::new() },
            is_64_bit: file.is_64(),
        }
    }
}

/// The extensions an object was compiled for: from its attributes if it has them, else from the header's flags (RISC-V
/// ELF psABI, "Attributes" and "File Header").
fn riscv_features(file: &object::File<'_>) -> String {
    let attributes = file.section_by_name(".riscv.attributes").and_then(|section| section.data().ok());
    let letters: String = match attributes.and_then(arch_attribute) {
        Some(arch) => arch.split('_').filter_map(extension_letter).collect(),
        None => {
            let flags = match file.flags() {
                FileFlags::Elf { e_flags, .. } => e_flags.0,
                _ => 0,
            };
            const RVC: u32 = 1;
            const FLOAT_ABI: u32 = 6;
            let floats = if flags & FLOAT_ABI != 0 { "mafd" } else { "ma" };
            let compressed = if flags & RVC != 0 { "c" } else { "" };
            format!("{floats}{compressed}")
        }
    };
    let features: Vec<_> = letters.chars().map(|letter| format!("+{letter}")).collect();
    features.join(",")
}

/// `rv64i2p1_m2p0_…`, which ends in a NUL.
fn arch_attribute(attributes: &[u8]) -> Option<&str> {
    let start = attributes.windows(4).position(|window| matches!(window, b"rv64" | b"rv32"))?;
    let length = attributes[start..].iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&attributes[start + 4..start + length]).ok()
}

/// The letter of an extension that has one. The base, `i` or `e`, needs no feature.
fn extension_letter(extension: &str) -> Option<char> {
    let mut characters = extension.chars();
    let letter = characters.next().filter(|letter| "mafdcv".contains(*letter))?;
    characters.next().is_none_or(|next| next.is_ascii_digit()).then_some(letter)
}
